"""Puts recorded outputs, values and provenance into sphinx-gallery's pages."""

from __future__ import annotations

import re
from textwrap import indent

from gallery.box import provenance, warnings
from gallery.errors import GalleryError
from gallery.outputs import FIGURE, show
from gallery.several import Versions, blocks, choice, roles, value, versions
from gallery.tutorial import Tutorial
from gallery.write_ruler import MARKER

# sphinx-gallery writes this above each block, followed by first and last line.
BLOCK_HEADER = re.compile(
    r"^\.\. GENERATED FROM PYTHON SOURCE LINES (\d+)-\d+$", re.MULTILINE
)
TITLE_UNDERLINE = re.compile(r"^=+[ \t]*\n", re.MULTILINE)
SECTION = re.compile(r"^(\S.*)\n-+[ \t]*$", re.MULTILINE)
AT_A_GLANCE = "At a glance"
# Python's colors, by a name for which sphinx-gallery does not look up each word: the
# ruler is half of all code, and the same on every page.
WITHOUT_LINKS = "pyi"


def replay(page: str, tutorial: Tutorial) -> str:
    """Return sphinx-gallery's page with outputs after the blocks that made them.

    Parameters
    ----------
    page
        reStructuredText as sphinx-gallery wrote it, nothing executed.

    Raises
    ------
    GalleryError
        If a value or an output cannot be shown, or has no place on the page.
    """
    found = versions(tutorial)
    shown = [show(version).cells for version in found.values()]
    cells = [blocks(list(texts), found) for texts in zip(*shown)]
    script_blocks = tutorial.script.blocks
    code_lines = [block.lineno for block in script_blocks if block.type == "code"]
    # The pieces: text before the first header, then (line number, text) pairs.
    first, *pieces = BLOCK_HEADER.split(page)
    page = _with_boxes(_filled(first, tutorial, found), tutorial, found)
    placed = set()
    for line, text in zip(pieces[::2], pieces[1::2]):
        page += f".. GENERATED FROM PYTHON SOURCE LINES {line}"
        if int(line) not in code_lines:
            page += _filled(text, tutorial, found)
            continue
        number = code_lines.index(int(line))
        page += _with_outputs(text, cells[number])
        placed.add(number)
    for number, rst in enumerate(cells):
        if rst and number not in placed:
            raise GalleryError(
                f"{tutorial.script.path.name}, line {code_lines[number]}: the page has "
                "no place for what this cell shows. Give the cell code of its own."
            )
    return page


def _filled(text: str, tutorial: Tutorial, found: Versions) -> str:
    return tutorial.filled_rst(text, lambda name: value(name, found))


def _with_boxes(first: str, tutorial: Tutorial, found: Versions) -> str:
    """Warnings stand below the title, provenance after *At a glance*."""
    title = TITLE_UNDERLINE.search(first)
    head, rest = first[: title.end()], first[title.end() :]
    sections = [m for m in SECTION.finditer(rest) if m[1].strip() != AT_A_GLANCE]
    position = sections[0].start() if sections else len(rest)
    boxes = blocks([provenance(version) for version in found.values()], found)
    return (
        f"{head}\n{roles(found)}{warnings(tutorial)}\n{choice(found)}\n"
        f"{rest[:position]}\n{boxes}\n\n{rest[position:]}"
    )


def _with_outputs(text: str, rst: str) -> str:
    """Insert after the code block, which ends at the first unindented line."""
    start = text.index(".. code-block::")
    first_line_end = text.index("\n", start) + 1
    end = re.compile(r"^\S", re.MULTILINE).search(text, first_line_end)
    position = end.start() if end else len(text)
    before, code, after = text[:start], text[start:position], text[position:]
    code = FIGURE.sub("", code)
    if code[code.index("\n") :].lstrip().startswith(MARKER):
        code = code.replace("code-block:: Python", f"code-block:: {WITHOUT_LINKS}", 1)
        folded = indent(f"{code.rstrip()}\n\n{rst}", "   ")
        return f"{before}.. dropdown:: The ruler\n\n{folded.rstrip()}\n\n{after}"
    return f"{before}{code.rstrip()}\n\n{rst}\n\n{after}"
