"""The index of tutorials: cards along the learning path, and a filter by tag."""

from __future__ import annotations

from collections import Counter
from html import escape

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from gallery.files import chosen
from gallery.learning_path import LEVELS, Section, learning_path, reading_minutes
from gallery.outputs import show
from gallery.paths import ROOT
from gallery.plain import plain, rst_escaped
from gallery.tutorial import Tutorial

PATH_FILE = ROOT / "docs" / "path.toml"
LEVEL_COLORS = dict(zip(LEVELS, ["success", "primary", "warning"]))


def index_page(header: str) -> str:
    """The source of the tutorials' index: cards, and toctrees in the path's order."""
    sections = learning_path(PATH_FILE)
    parts = [header.rstrip(), ".. gallery-cards::"]
    for section in sections:
        names = [f"   /{tutorial.docname}" for tutorial, _ in section.tutorials]
        options = f"   :hidden:\n   :caption: {section.title}\n"
        parts.append(f".. toctree::\n{options}\n" + "\n".join(names))
    return "\n\n".join(parts) + "\n"


class GalleryCards(SphinxDirective):
    """``.. gallery-cards::`` shows every tutorial: picture, sentence, level, tags."""

    def run(self) -> list[nodes.Node]:
        sections = learning_path(PATH_FILE)
        tags = Counter(
            tag
            for section in sections
            for tutorial, _ in section.tutorials
            for tag in tutorial.script.tags
        )
        shown: list[nodes.Node] = [nodes.raw("", _filter(tags), format="html")]
        for section in sections:
            part = nodes.section("", nodes.title("", section.title))
            part["ids"] = [nodes.make_id(f"path-{section.title}")]
            part["classes"].append("path-section")
            part += nodes.paragraph("", section.text)
            part += self.parse_text_to_nodes(_grid(section))
            shown.append(part)
        return shown


def _filter(tags: Counter) -> str:
    """Buttons for tags that more than one tutorial has; a card shows all of its own."""
    # Hidden until the script that makes the buttons work has loaded.
    buttons = "".join(
        f'<button type="button" aria-pressed="false" value="{escape(tag)}">'
        f"{escape(tag)} <small>{count}</small></button>"
        for tag, count in sorted(tags.items(), key=lambda pair: pair[0].lower())
        if count > 1
    )
    return (
        '<div class="tag-filter" role="group" aria-label="Filter by tag" hidden>'
        f'{buttons}<span role="status"></span></div>'
    )


def _grid(section: Section) -> str:
    lines = [".. grid:: 1 2 2 3", "   :gutter: 3", ""]
    for tutorial, level in section.tutorials:
        lines += _card(tutorial, level)
    return "\n".join(lines)


def _card(tutorial: Tutorial, level: str) -> list[str]:
    folder = tutorial.docname.rpartition("/")[0]
    text = tutorial.script.path.read_text(encoding="utf-8")
    tags = " ".join(
        f":bdg-secondary-line:`{rst_escaped(tag)}`" for tag in tutorial.script.tags
    )
    picture = []
    if chosen(tutorial, show(tutorial)):
        picture.append(f"      :img-top: /{folder}/images/thumb_{tutorial.name}.png")
        picture.append("      :img-alt:")
    about = f"{level}, {reading_minutes(tutorial)} min"
    badges = f":bdg-{LEVEL_COLORS[level]}-line:`{about}` {tags}"
    if tutorial.recording is None:
        badges = f":bdg-dark-line:`not recorded yet` {badges}"
    return [
        f"   .. grid-item-card:: {rst_escaped(tutorial.script.title)}",
        *picture,
        f"      :link: /{tutorial.docname}",
        "      :link-type: doc",
        "      :class-card: tutorial-card",
        "",
        f"      {rst_escaped(plain(tutorial.description, text))}",
        "",
        "      .. card-footer::",
        "",
        f"         {badges}",
        "",
    ]
