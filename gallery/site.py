"""The Sphinx extension: replays recordings into the pages and the downloads.

It uses public extension points only: ``builder-inited`` before and after
sphinx-gallery's own handler, ``env-get-outdated``, ``source-read``,
``html-page-context`` and ``build-finished``.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from pathlib import Path

from sphinx.application import Sphinx

from gallery.cards import PATH_FILE, GalleryCards, index_page
from gallery.compare import machines
from gallery.errors import GalleryError
from gallery.files import (
    place,
    place_pictures,
    programs,
    sweep,
    write_if_changed,
    zipped,
)
from gallery.head import describe, write_sitemap
from gallery.learning_path import learning_path
from gallery.outputs import show
from gallery.paths import EXAMPLES, RECORDINGS, require_writable
from gallery.plain import rst_escaped
from gallery.replay import replay
from gallery.results import (
    GalleryCases,
    GalleryChart,
    GalleryCompilers,
    GalleryMachines,
    GalleryRegime,
    GalleryResults,
    measured,
    summary,
    write_downloads,
)
from gallery.script import find_scripts
from gallery.several import versions
from gallery.tutorial import (
    Tutorial,
    all_tutorials,
    fingerprint,
    load_tutorial,
    use_recordings,
)
from gallery.values import fill, look_up, names_quoted

PAGES = "tutorials"
INDEX = f"{PAGES}/index"
# sphinx-gallery's handler has Sphinx's default priority, 500.
BEFORE_SPHINX_GALLERY, AFTER_SPHINX_GALLERY = 400, 900
# Pages that are made from all recordings.
ALL_RECORDINGS = re.compile(r"^\.\. gallery-|(?<!`):recorded:`", re.MULTILINE)
# What sphinx-gallery's downloads begin with, at the end of a page.
FOOTER = ".. _sphx_glr_download_"
DOWNLOAD = re.compile(r"(:download:`[^`<]*<)([\w.-]+\.(?:ipynb|zip)>`)")


def check_sources(app: Sphinx) -> None:
    """Read everything once, before sphinx-gallery does.

    What is broken ends the build with its one message, in every build: Sphinx would
    add a traceback to any exception but SystemExit, and reads a page only once.
    """
    try:
        require_writable(Path(app.srcdir))
        use_recordings(app.config.gallery_recordings)
        for folder in (app.srcdir, app.outdir):
            sweep(Path(folder) / PAGES, find_scripts())
        for tutorial in all_tutorials():
            tutorial.check_values()
            show(tutorial)
        for machine in machines()[1:]:
            list(map(show, all_tutorials(machine)))  # a broken one is told now
        measured()
        learning_path(PATH_FILE)
        for page in sorted(Path(app.srcdir).glob("*.rst")):
            check_page(page)
    except GalleryError as error:
        sys.exit(f"The site was not built. {error}")


def check_page(page: Path) -> None:
    """Look up every recorded value that a page of ours quotes.

    Raises
    ------
    GalleryError
        With the page, the line and the name of the first that fails.
    """
    for line, name in names_quoted(page.read_text(encoding="utf-8")):
        try:
            value_elsewhere(name)
        except GalleryError as error:
            where = f"{page.name}, line {line}: :recorded:`{name}`"
            raise GalleryError(f"{where}: {error}") from None


def value_elsewhere(name: str) -> str:
    """The value of ``tutorial:name``, or of all rows together: ``results:name``.

    Raises
    ------
    GalleryError
        If the tutorial, or the value in it, does not exist.
    """
    tutorial, colon, value = name.partition(":")
    if not colon:
        raise GalleryError("outside a tutorial, write tutorial_name:value_name.")
    if tutorial == "results":
        found = summary()
        return look_up(value, found, complete=bool(found))
    return load_tutorial(tutorial).value(value)


def place_recordings(app: Sphinx) -> None:
    """Write recorded figures, notebooks and zips beside sphinx-gallery's files."""
    pages = Path(app.srcdir) / PAGES
    notebooks = []
    try:
        for tutorial in all_tutorials():
            folder = Path(app.srcdir) / tutorial.docname.rpartition("/")[0]
            place(tutorial, show(tutorial), folder, app.config.html_baseurl)
            for version in versions(tutorial).values():
                place_pictures(show(version), folder)
            path = folder / "downloads" / f"{tutorial.name}.ipynb"
            notebooks.append((f"{folder.name}/{path.name}", path.read_bytes()))
    except GalleryError as error:
        sys.exit(f"The site was not built. {error}")
    write_if_changed(pages / "downloads" / "all_notebooks.zip", zipped(notebooks))


def replay_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put recorded outputs and values into a page."""
    folder, _, name = docname.rpartition("/")
    if docname == INDEX:
        header = (EXAMPLES / "GALLERY_HEADER.rst").read_text(encoding="utf-8")
        source[0] = index_page(header)
    elif folder.startswith(f"{PAGES}/") and name != "index":
        tutorial = load_tutorial(name)
        page = DOWNLOAD.sub(r"\1downloads/\2", replay(source[0], tutorial))
        source[0] = page.replace(FOOTER, f"{program_links(tutorial)}\n\n{FOOTER}", 1)
    else:
        source[0] = fill(source[0], lambda name: rst_escaped(value_elsewhere(name)))


def program_links(tutorial: Tutorial) -> str:
    """A paragraph that offers the programs beside a tutorial; "" without any."""
    links = [
        f":download:`{name} <downloads/programs/{name}>`"
        for name, _ in programs(tutorial)
        if name.endswith((".py", ".pbtxt"))
    ]
    if not links:
        return ""
    return f"Programs beside this page, in the zip too: {', '.join(links)}."


def marks(app: Sphinx, pages: set[str]) -> dict[str, str]:
    """For each page that Sphinx cannot see the sources of: a hash of them."""
    of_all = ["", *machines()[1:]]
    own = {
        path.stem: path.parent.name + "".join(fingerprint(path, m) for m in of_all)
        for path in find_scripts()
    }
    everything = hashlib.sha256(repr(sorted(own.items())).encode())
    for file in (PATH_FILE, EXAMPLES / "GALLERY_HEADER.rst"):
        everything.update(file.read_bytes() if file.exists() else b"")
    found = {}
    for page in pages:
        name = page.rpartition("/")[2]
        if page.startswith(f"{PAGES}/") and name in own:
            found[page] = own[name]
        elif page == INDEX or ALL_RECORDINGS.search(
            Path(app.env.doc2path(page)).read_text(encoding="utf-8")
        ):
            found[page] = everything.hexdigest()
    return found


def outdated_pages(app: Sphinx, env, added: set, changed: set, removed: set):
    """Read a page again when its script, its recording or its report has changed.

    Sphinx itself reads all pages again when the version of this extension changes.
    """
    before = getattr(env, "gallery_marks", {})
    env.gallery_marks = marks(app, env.found_docs)
    return [
        page
        for page, mark in env.gallery_marks.items()
        if before.get(page) != mark and page not in added
    ]


def told(tutorials: list[Tutorial]) -> str:
    """One line for the terminal: how many recordings are in which state."""
    states = Counter(tutorial.state for tutorial in tutorials)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"Recordings: {counts}. `python -m gallery status` names them."


def write_files(app: Sphinx, exception: Exception | None) -> None:
    """Write what is no page: the results as files, the sitemap."""
    if exception is None and app.builder.name == "html":
        write_downloads(Path(app.outdir))
        write_sitemap(app, exception)
        print(told(list(all_tutorials())))


def code_version() -> str:
    """A hash of this package: other code makes other pages."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def setup(app: Sphinx) -> dict:
    app.add_config_value("gallery_recordings", RECORDINGS.name, "env", [str])
    app.add_config_value("gallery_repository", "", "html", [str])
    app.add_config_value("gallery_code", code_version(), "env", [str])
    app.add_directive("gallery-cards", GalleryCards)
    app.add_directive("gallery-compilers", GalleryCompilers)
    app.add_directive("gallery-chart", GalleryChart)
    app.add_directive("gallery-cases", GalleryCases)
    app.add_directive("gallery-machines", GalleryMachines)
    app.add_directive("gallery-regime", GalleryRegime)
    app.add_directive("gallery-results", GalleryResults)
    app.connect("builder-inited", check_sources, priority=BEFORE_SPHINX_GALLERY)
    app.connect("builder-inited", place_recordings, priority=AFTER_SPHINX_GALLERY)
    app.connect("env-get-outdated", outdated_pages)
    app.connect("source-read", replay_page)
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
