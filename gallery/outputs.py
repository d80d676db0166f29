"""Recorded outputs as reStructuredText, and the picture files that it names."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from functools import lru_cache
from textwrap import indent

from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from markdown_it import MarkdownIt

from gallery.benchmarks import DATA_MIME, read_benchmark
from gallery.errors import GalleryError
from gallery.tables import table_html, tidy_table
from gallery.terminal import last_state
from gallery.tutorial import Tutorial

# Kinds of picture, and their files' suffixes; the first that an output has is shown.
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
# In the order in which a page prefers them.
SHOWN = ["text/html", "text/markdown", *PICTURES, "text/latex", "text/plain"]
FIGURE = re.compile(r"^[ ]*# Figure: (.*(?:\n[ ]*#   .*)*)\n", re.MULTILINE)
# With the classes by which themes know a notebook's output.
BOX = '<div class="output_subarea output_html rendered_html output_result">\n{}\n</div>'
HEADING = re.compile(r"^(\S.*)\n([=\-~^\"'])\2{2,}[ \t]*$", re.MULTILINE)

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


@dataclass
class Shown:
    """What a page shows of a recording.

    Attributes
    ----------
    cells
        For each code cell its outputs as reStructuredText, "" for none.
    files
        The pictures: file name to bytes, in the order of the page.
    """

    cells: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


def figure_sentences(code: str) -> list[str]:
    """What the comments ``# Figure: ...`` at a cell's top say, one a figure.

    A sentence goes on in the next lines if these begin with ``#`` and three spaces.
    """
    return [
        re.sub(r"\s*\n[ ]*#[ ]+", " ", sentence).strip()
        for sentence in FIGURE.findall(_comments(code))
    ]


def without_figure_comments(code: str) -> str:
    """The code without what is said for the page alone."""
    top = _comments(code)
    return FIGURE.sub("", top) + code[len(top) :]


def _comments(code: str) -> str:
    """The blank lines and comments that a cell begins with."""
    return re.match(r"(?:[ ]*(?:#.*)?\n)*", code)[0]


@lru_cache(maxsize=256)
def show(tutorial: Tutorial) -> Shown:
    """Everything that was recorded of a tutorial and is still of its present code.

    Raises
    ------
    GalleryError
        If an output is of a kind that a page cannot show, or a table is wrong.
    """
    shown = Shown()
    heading, cell = tutorial.script.title, 0
    for block in tutorial.script.blocks:
        if block.type == "text":
            headings = HEADING.findall(block.content)
            heading = headings[-1][0] if headings else heading
            continue
        sentences = [tutorial.filled(text) for text in figure_sentences(block.content)]
        try:
            rst = _cell(tutorial, shown, tutorial.outputs[cell], sentences, heading)
        except GalleryError as error:
            where = f"{tutorial.script.path.name}, line {block.lineno}"
            raise GalleryError(f"{where}: {error}") from None
        shown.cells.append(rst)
        cell += 1
    return shown


def _cell(
    tutorial: Tutorial,
    shown: Shown,
    outputs: list,
    sentences: list[str],
    heading: str,
) -> str:
    parts: list[str] = []
    printed = ""
    pictures = 0

    def flush() -> None:
        nonlocal printed
        text = last_state(printed).rstrip()
        if text.strip():
            # The option keeps the first line's own indentation.
            block = ".. code-block:: none\n   :force:\n\n" + indent(text, "   ")
            parts.append(".. rst-class:: sphx-glr-script-out\n\n" + indent(block, " "))
        printed = ""

    for out in outputs:
        if out["output_type"] == "stream":
            printed += out["text"]
            continue
        kind = _kind(out)
        data = out["data"][kind]
        if kind == "text/plain":
            printed += data + "\n"
            continue
        flush()
        if kind in PICTURES:
            alt = sentences[pictures] if pictures < len(sentences) else heading
            parts.append(_picture(tutorial, shown, out, kind, alt))
            pictures += 1
        else:
            parts.append(".. raw:: html\n\n" + indent(_as_html(out, kind), "    "))
    flush()
    if pictures < len(sentences) and outputs:
        raise GalleryError(
            f"{len(sentences)} comments `# Figure: ...` stand above a cell that shows "
            f"{pictures} figures."
        )
    return "\n\n".join(parts)


def _kind(out: dict) -> str:
    """The richest representation of an output that a page can show.

    Raises
    ------
    GalleryError
        If there is none but the name of some object.
    """
    data = out.get("data", {})
    kind = next((kind for kind in SHOWN if kind in data), None)
    others = sorted(set(data) - set(SHOWN) - {DATA_MIME})
    if kind is None or (kind == "text/plain" and others):
        raise GalleryError(
            f"a page cannot show an output of the kind {', '.join(others) or 'none'}. "
            f"It shows {', '.join(SHOWN)}."
        )
    return kind


def _picture(tutorial: Tutorial, shown: Shown, out: dict, kind: str, alt: str) -> str:
    data = out["data"][kind]
    number = f"{len(shown.files) + 1:03d}"
    parts = filter(None, ["recorded", tutorial.name, tutorial.machine, number])
    name = f"{'_'.join(parts)}.{PICTURES[kind]}"
    is_text = kind == "image/svg+xml"
    shown.files[name] = data.encode() if is_text else base64.b64decode(data)
    width = out.get("metadata", {}).get(kind, {}).get("width")
    path = f"/{tutorial.docname.rpartition('/')[0]}/images/{name}"
    lines = [
        f".. image:: {path}",
        f"   :alt: {' '.join(alt.split())}",
        "   :class: sphx-glr-single-img recorded-figure",
    ]
    lines += [f"   :width: {width}px"] if width else []
    return "\n".join(lines)


def _as_html(out: dict, kind: str) -> str:
    data = out["data"][kind]
    if DATA_MIME in out["data"]:
        return html_of(data, out["data"][DATA_MIME])
    if kind == "text/markdown":
        data = _markdown.render(data)
    elif kind == "text/latex":
        data = _formula(data)
    return BOX.format(data)


def html_of(html: str, resource: dict) -> str:
    """A recorded table as pages show it.

    Parameters
    ----------
    html, resource
        What pandas made of it: HTML, and its rows with their schema.
    """
    frame = read_benchmark(resource)
    return (
        BOX.format(tidy_table(html, resource)) if frame is None else table_html(frame)
    )


def _formula(text: str) -> str:
    """LaTeX as MathML, which browsers show without a script.

    Raises
    ------
    GalleryError
        If it is more than one formula, or has commands that are not known.
    """
    formula = re.fullmatch(r"\s*\$\$?([^$]+)\$\$?\s*", text)
    try:
        return f"<p>{tex2mathml(formula[1], as_block=False)}</p>"
    except (MathError, TypeError):
        raise GalleryError(
            f"a page shows LaTeX as one formula between $ signs, not {text!r}."
        ) from None
