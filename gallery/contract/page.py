"""A script as the rules of the contract read it: its prose and code, with lines."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gallery.script import Script, needs_gpu
from gallery.write_ruler import MARKER

HEADING = re.compile(r"^(?P<title>\S.*)\n(?P<line>([=\-~^\"'])\3{2,})[ \t]*$", re.M)

BUILDER = re.compile(
    r"(torch_tensorrt(\.\w+)*|dynamo|trt)\.(compile|convert_\w*engine)$"
    r"|MutableTorchTensorRTModule$|convert_exported_program_to\w*$"
    r"|build_serialized_network$"
)


@dataclass(frozen=True, order=True)
class Problem:
    """One place where a script breaks the contract.

    Attributes
    ----------
    line
        Line of the script's file, from 1.
    text
        What is wrong, and what to do, in one line.
    """

    line: int
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading in prose; `mark` is the character of its underline."""

    line: int
    title: str
    mark: str


@dataclass(frozen=True)
class Text:
    """A block of prose, as sphinx-gallery reads it; `line` is that of its first."""

    line: int
    content: str

    def line_at(self, offset: int) -> int:
        """The file's line of a character of the content."""
        return self.line + self.content[:offset].count("\n")

    @cached_property
    def headings(self) -> list[Heading]:
        return [
            Heading(self.line_at(found.start()), found["title"].strip(), found[3])
            for found in HEADING.finditer(self.content)
        ]

    @cached_property
    def sections(self) -> list[tuple[Heading | None, Text]]:
        """The text under each heading; what stands above the first comes first."""
        marks = list(HEADING.finditer(self.content))
        starts = [0, *(mark.end() for mark in marks)]
        ends = [*(mark.start() for mark in marks), len(self.content)]
        return [
            (heading, Text(self.line_at(start), self.content[start:end]))
            for heading, start, end in zip([None, *self.headings], starts, ends)
        ]


@dataclass(frozen=True)
class Cell:
    """A code cell. Nodes of its `tree` carry the file's own line numbers."""

    line: int
    source: str
    tree: ast.Module

    @property
    def needs_gpu(self) -> bool:
        return needs_gpu(self.source)

    @property
    def is_ruler(self) -> bool:
        return self.source.lstrip().startswith(MARKER)

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """Line and text of each comment."""
        return [
            (self.line + token.start[0] - 1, token.string)
            for token in _tokens(self.source)
            if token.type == tokenize.COMMENT
        ]

    @cached_property
    def code_lines(self) -> set[int]:
        """Lines that hold code: no blank lines and no comments."""
        skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
        skip |= {tokenize.DEDENT, tokenize.ENDMARKER}
        lines: set[int] = set()
        for token in _tokens(self.source):
            if token.type not in skip:
                lines.update(range(token.start[0], token.end[0] + 1))
        return {self.line + line - 1 for line in lines}


def _tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(source).readline)


@dataclass(frozen=True)
class Page:
    """A script, taken apart once for all rules."""

    script: Script

    @property
    def name(self) -> str:
        return self.script.name

    @cached_property
    def source(self) -> str:
        return self.script.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Text | Cell]:
        """Prose and code in the order of the page."""
        return [
            _cell(block.content, block.lineno)
            if block.type == "code"
            else Text(block.lineno, block.content)
            for block in self.script.blocks
        ]

    @cached_property
    def texts(self) -> list[Text]:
        return [block for block in self.blocks if isinstance(block, Text)]

    @property
    def docstring(self) -> Text:
        return self.texts[0]

    @cached_property
    def cells(self) -> list[Cell]:
        return [block for block in self.blocks if isinstance(block, Cell)]

    @cached_property
    def own_cells(self) -> list[Cell]:
        """All code cells but the ruler."""
        return [cell for cell in self.cells if not cell.is_ruler]

    def nodes(self, *kinds: type) -> Iterator[ast.AST]:
        """Every node of these kinds in the tutorial's own cells."""
        for cell in self.own_cells:
            for node in ast.walk(cell.tree):
                if isinstance(node, kinds):
                    yield node

    def calls(self, *names: str) -> list[ast.Call]:
        """Calls of functions with these names, such as ``check`` or ``plt.show``."""
        found = []
        for node in self.nodes(ast.Call):
            called = ast.unparse(node.func)
            if any(called == name or called.endswith(f".{name}") for name in names):
                found.append(node)
        return found

    @cached_property
    def measures(self) -> bool:
        """Whether the tutorial measures: it then holds the ruler."""
        return any(cell.is_ruler for cell in self.cells)

    @cached_property
    def compiles(self) -> bool:
        """Whether the tutorial builds an engine with Torch-TensorRT."""
        return bool(self.builds)

    @cached_property
    def builds(self) -> list[ast.Call]:
        """Where Torch-TensorRT is asked to compile."""
        return [node for node in self.nodes(ast.Call) if _builds(node)]


def _builds(node: ast.Call) -> bool:
    called = ast.unparse(node.func)
    if called.endswith("torch.compile"):
        backends = [k.value for k in node.keywords if k.arg == "backend"]
        return any("tensorrt" in ast.unparse(backend) for backend in backends)
    return bool(BUILDER.search(called))


def _cell(source: str, line: int) -> Cell:
    tree = ast.parse(source)
    ast.increment_lineno(tree, line - 1)
    return Cell(line, source, tree)


def strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text in the code below a node, with its line; f-strings in their parts."""
    for found in ast.walk(node):
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield found.lineno, found.value
