"""Reads a tutorial script: its title, description, tags, cells and markers.

Cells are the ones that sphinx-gallery itself writes into a notebook, made by
sphinx-gallery's own parser and notebook writer.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import io
import json
import re
import tokenize
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import nbformat
from sphinx_gallery import py_source_parser
from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
from sphinx_gallery.notebook import jupyter_notebook

from gallery.errors import GalleryError
from gallery.naming import PROGRAMS as PROGRAMS
from gallery.naming import by_name, misnamed
from gallery.paths import EXAMPLES

# The first lines of a code cell may carry these comments; readers see them too.
NEEDS_GPU = re.compile(r"^# Needs a GPU: \S", re.MULTILINE)
NEEDS_TWO = re.compile(r"^# Needs two GPUs: \S", re.MULTILINE)
OUTPUT_VARIES = re.compile(r"^# Output varies: \S", re.MULTILINE)
# What sphinx-gallery makes of `text <url>`__: it knows one underscore.
LINK_AND_MORE = re.compile(r"(\]\([^()\s]+\))_(?!\w)")


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

    @property
    def docname(self) -> str:
        """The page, as Sphinx names it."""
        return f"tutorials/{self.path.parent.name}/{self.name}"

    @cached_property
    def code_cells(self) -> list[str]:
        """Source of each code cell, in order."""
        cells = self.notebook().cells
        return [cell.source for cell in cells if cell.cell_type == "code"]

    @cached_property
    def cell_hashes(self) -> list[str]:
        """Identity of each code cell: see `cell_hash`."""
        return [cell_hash(cell) for cell in self.code_cells]

    @property
    def gpus(self) -> int:
        """How many GPUs it is recorded on, where there are as many."""
        two = any(NEEDS_TWO.search(_leading_comments(cell)) for cell in self.code_cells)
        return 2 if two else 1

    @property
    def code_hash(self) -> str:
        """Identity of all the code. Prose, comments and formatting do not count."""
        return hashlib.sha256("\n".join(self.cell_hashes).encode()).hexdigest()

    def line_of(self, cell: int, line: int = 1) -> int:
        """Where a line of a code cell stands in the script's file; all count from 1."""
        source = self.path.read_text(encoding="utf-8").splitlines()
        block = [block for block in self.blocks if block.type == "code"][cell - 1]
        number = block.lineno - 1
        # sphinx-gallery drops empty lines and its own comments: look for each line.
        for text in self.code_cells[cell - 1].splitlines()[:line]:
            number = next(
                (n for n in range(number, len(source)) if source[n] == text), number
            )
            number += 1
        return number

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
            else:
                cell.source = LINK_AND_MORE.sub(r"\1", cell.source)
        # The version of whoever happens to write the notebook says nothing.
        notebook.metadata["language_info"] = {"name": "python"}
        return notebook


@lru_cache(maxsize=4096)  # the ruler stands in every tutorial
def cell_hash(source: str) -> str:
    """SHA-256 of what a cell does: of its syntax tree, in a form of our own.

    Comments and formatting do not count. `ast.dump` and `ast.unparse` change with
    Python's version, and a recording is read with another one than it was made with.
    A semicolon at the end counts: it keeps IPython from showing the last value.
    """
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source, "<cell>", "exec", flags, dont_inherit=True)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = [t.string for t in tokens if t.string.strip() and t.type != tokenize.COMMENT]
    is_quiet = code[-1:] == [";"]
    text = json.dumps([_plain(tree), is_quiet])
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(node: object) -> object:
    """A syntax tree as lists; fields that hold nothing are left out."""
    if isinstance(node, ast.Constant):
        return [type(node.value).__name__, repr(node.value)]
    if isinstance(node, ast.AST):
        if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty texts
            node.values = [v for v in node.values if getattr(v, "value", 1) != ""]
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node))
        return [type(node).__name__, [pair for pair in fields if pair[1]]]
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return None if node is None else repr(node)


def names_made(source: str) -> set[str]:
    """Names that a cell gives a value to, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {a.asname or a.name.partition(".")[0] for a in node.names}
    return found


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


def sort_out(
    names: list[str], folder: Path = EXAMPLES
) -> tuple[list[Path], dict[str, str]]:
    """The tutorials' files as `find_scripts` gives them, and reasons against others.

    Where no tutorial is named, a file with a name that none can have is left out, and
    its reason is told.

    Raises
    ------
    GalleryError
        If a name belongs to no tutorial, or two files share one.
    """
    if names:
        return find_scripts(names, folder), {}
    paths = sorted(folder.glob("*/*.py"))
    reasons = misnamed(paths)
    return [*by_name(p for p in paths if p.stem not in reasons).values()], reasons


def find_scripts(names: list[str] | None = None, folder: Path = EXAMPLES) -> list[Path]:
    """The tutorials' files, in order, or those with the given names.

    Raises
    ------
    GalleryError
        If a name belongs to no tutorial, or a file has a name that none can have; where
        other tutorials are asked for, such a file is left alone.
    """
    paths = sorted(folder.glob("*/*.py"))
    wanted = [Path(name).stem for name in names or []]
    found = by_name(path for path in paths if path.stem in wanted)
    if not names or not found.keys() >= set(wanted):
        found = by_name(paths)
    for name in wanted:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise GalleryError(
                f"There is no tutorial named {name!r}.{hint} "
                f"These exist: {', '.join(found)}."
            )
    return [found[name] for name in wanted or found]
