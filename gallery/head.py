"""What stands around a page: description, canonical address, links to the sources.

Two settings of ``conf.py`` are the site's own: ``gallery_repository``, the address of
the public repository, and Sphinx's ``html_baseurl``, the address of the site. What
depends on one is left out where it is empty.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from gallery.paths import ROOT
from gallery.script import find_scripts
from gallery.tutorial import load_tutorial

LONGEST_DESCRIPTION = 200
BRANCH = "main"
NOT_FOUND = "404"


def describe(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Fill in what `html-page-context` is asked for."""
    tags = context.get("metatags", "")
    if doctree is not None and 'name="description"' not in tags:
        text = first_paragraph(doctree)
        if text:
            tags += f'<meta name="description" content="{escape(text)}" />\n'
    if page == NOT_FOUND and app.config.html_baseurl:
        # It is shown at any address, where relative links would lead nowhere.
        tags = f'<base href="{escape(app.config.html_baseurl)}" />\n{tags}'
    context["metatags"] = tags
    if page == app.config.root_doc:
        context["docstitle"] = ""  # the page's own title says it
    context["gallery_links"] = links(app, page) if doctree is not None else []


def first_paragraph(doctree: nodes.document) -> str:
    """The page's first paragraph as one line, cut at a word's end."""
    for section in doctree.findall(nodes.section):
        for node in section.children:
            if isinstance(node, nodes.paragraph):
                words = " ".join(node.astext().split())
                if len(words) > LONGEST_DESCRIPTION:
                    words = words[:LONGEST_DESCRIPTION].rpartition(" ")[0] + " ..."
                return words
        return ""
    return ""


def links(app: Sphinx, page: str) -> list[tuple[str, str]]:
    """Links to the page's source: (text, address); none without a repository."""
    repository = app.config.gallery_repository.rstrip("/")
    if not repository:
        return []
    source = source_of(page)
    script = source and source.startswith("examples/")
    found = [("Report an issue", f"{repository}/issues/new")]
    if source:
        found = [
            ("Show the source", f"{repository}/blob/{BRANCH}/{source}"),
            ("Edit this page", f"{repository}/edit/{BRANCH}/{source}"),
            *found,
        ]
    recording = load_tutorial(page.rpartition("/")[2]).recording if script else None
    if recording and repository.startswith("https://github.com/"):
        path = repository.removeprefix("https://github.com/")
        place = recording.path.relative_to(ROOT).as_posix()
        colab = f"https://colab.research.google.com/github/{path}/blob/{BRANCH}/{place}"
        found.append(("Open in Colab", colab))
    return found


def source_of(page: str) -> str | None:
    """The file that a page is made of, from the repository's root."""
    name = page.rpartition("/")[2]
    if page.startswith("tutorials/"):
        paths = {path.stem: path for path in find_scripts()}
        path = paths.get(name)
    elif page == "contributing":  # the page only includes it
        path = ROOT / "CONTRIBUTING.rst"
    else:
        path = ROOT / "docs" / f"{page}.rst"
    return path.relative_to(ROOT).as_posix() if path and path.exists() else None


def write_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """Write ``sitemap.xml``, where the site's address is known."""
    address = app.config.html_baseurl
    if exception or not address or app.builder.name != "html":
        return
    pages = sorted(app.env.found_docs - {NOT_FOUND})
    rows = "".join(
        f"<url><loc>{escape(address.rstrip('/'))}/{app.builder.get_target_uri(page)}"
        "</loc></url>\n"
        for page in pages
    )
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{rows}</urlset>\n'
    )
