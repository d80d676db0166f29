"""Reads a tutorial script: its title, description, tags, cells and markers.

Cells are the ones that sphinx-gallery itself writes into a notebook, made by
sphinx-gallery's own parser and notebook writer.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat
from sphinx_gallery import py_source_parser
from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
from sphinx_gallery.notebook import jupyter_notebook

from gallery.errors import GalleryError
from gallery.paths import EXAMPLES

# The first lines of a code cell may carry these comments; readers see them too.
NEEDS_GPU = re.compile(r"^# Needs a GPU: \S", re.MULTILINE)
OUTPUT_VARIES = re.compile(r"^# Output varies: \S", re.MULTILINE)

# Command-line programs that stand beside a tutorial.
PROGRAMS = {"client", "export", "serve"}


@dataclass(frozen=True)
class Script:
    """One tutorial script.

    Attributes
    ----------
    path
        The script's file.
    title, description
        The docstring's heading and its first paragraph on one line.
    tags
        From the line ``# sphinx_gallery_tags = [...]``.
    blocks
        sphinx-gallery's blocks (type, content, line number), as they appear on the
        page.
    """

    path: Path
    title: str
    description: str
    tags: list[str]
    blocks: list[py_source_parser.Block] = field(repr=False)

    @property
    def name(self) -> str:
        """The file's name without its suffix: how a tutorial is named everywhere."""
        return self.path.stem

    @cached_property
    def code_cells(self) -> list[str]:
        """Source of each code cell, in order."""
        cells = self.notebook().cells
        return [cell.source for cell in cells if cell.cell_type == "code"]

    @property
    def code_hash(self) -> str:
        """SHA-256 of the code cells. Prose does not count."""
        text = "\n# %%\n".join(cell.strip() for cell in self.code_cells)
        return hashlib.sha256(text.encode()).hexdigest()

    def notebook(self) -> nbformat.NotebookNode:
        """A fresh, unexecuted notebook: sphinx-gallery's cells, with markers as tags.

        A cell marked ``# Output varies:`` gets the tag ``nbval-ignore-output``, so
        that nbval runs it but does not compare its output.
        """
        raw = jupyter_notebook(self.blocks, DEFAULT_GALLERY_CONF, self.path.parent)
        notebook = nbformat.from_dict(raw)
        notebook.nbformat, notebook.nbformat_minor = 4, 5
        for number, cell in enumerate(notebook.cells):
            cell.source = "".join(cell.source)
            cell.id = f"cell-{number:02d}"
            if cell.cell_type == "code":
                cell.metadata = nbformat.from_dict({})
                if varies(cell.source):
                    cell.metadata["tags"] = ["nbval-ignore-output"]
        # The version of whoever happens to write the notebook says nothing.
        notebook.metadata["language_info"] = {"name": "python"}
        return notebook


def needs_gpu(source: str) -> bool:
    """Whether a code cell says that it can only run on a GPU."""
    return bool(NEEDS_GPU.search(_leading_comments(source)))


def varies(source: str) -> bool:
    """Whether a code cell says that its output differs from run to run."""
    return bool(OUTPUT_VARIES.search(_leading_comments(source)))


def _leading_comments(source: str) -> str:
    lines = source.strip().splitlines()
    code = next((i for i, line in enumerate(lines) if not line.startswith("#")), None)
    return "\n".join(lines[:code])


def read_script(path: Path) -> Script:
    """Parse one script.

    Raises
    ------
    GalleryError
        If the file is not Python, or has no docstring with a title.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise GalleryError(f"{path.name} is not valid Python: {error}") from None
    no_title = GalleryError(
        f"{path.name} has no title. Begin the script with a docstring whose first "
        "line is the title, underlined with '='."
    )
    if not ast.get_docstring(tree):
        raise no_title
    config, blocks = py_source_parser.split_code_and_text_blocks(path)
    blocks = [
        py_source_parser.Block(
            kind,
            py_source_parser.remove_config_comments(content).rstrip() + "\n"
            if kind == "code"
            else content,
            line,
        )
        for kind, content, line in blocks
    ]
    blocks = [block for block in blocks if block.content.strip()]
    heading = re.match(r"\s*(\S.*)\n(=+)[ ]*\n", blocks[0].content)
    if not heading:
        raise no_title
    rest = blocks[0].content[heading.end() :].strip()
    description = " ".join(rest.split("\n\n", 1)[0].split())
    tags = config.get("tags", [])
    return Script(path, heading[1].strip(), description, list(tags), blocks)


def find_scripts(names: list[str] | None = None, folder: Path = EXAMPLES) -> list[Path]:
    """The tutorials' files, in order, or those with the given names.

    Raises
    ------
    GalleryError
        If a name belongs to no tutorial.
    """
    found = {
        path.stem: path
        for path in sorted(folder.glob("*/*.py"))
        if path.stem not in PROGRAMS
    }
    wanted = [Path(name).stem for name in names or found]
    for name in wanted:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise GalleryError(
                f"There is no tutorial named {name!r}.{hint} "
                f"These exist: {', '.join(found)}."
            )
    return [found[name] for name in wanted]
