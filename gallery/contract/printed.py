"""Which values a script can print as ``name = value``, for prose to quote."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from gallery.contract.page import Page, strings

WORD = r"\w+"


def prints(page: Page, name: str) -> bool:
    """Whether a cell can print a line ``name = ...``.

    The name stands in a text literally, is put together by an f-string, or is a word
    that is handed to code which prints ``{any name} = ...``.
    """
    cells = [cell.tree for cell in page.cells]
    patterns = {pattern for tree in cells for pattern in _printed_names(tree)}
    if any(p != WORD and re.fullmatch(p, name) for p in patterns):
        return True
    return WORD in patterns and any(
        re.fullmatch(word, name)
        for cell in page.own_cells
        for word in _words(cell.tree)
    )


def _printed_names(tree: ast.AST) -> Iterator[str]:
    """Patterns of the names before `` = `` in the texts of the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = _pattern(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = re.escape(node.value)
        else:
            continue
        # In an escaped text a blank is "\ "; a new line begins a new value.
        for line in re.split(r"\\?\n|\\n", text):
            name, equals, _ = line.partition(r"\ =\ ")
            if equals:
                yield name


def _pattern(node: ast.JoinedStr) -> str:
    return "".join(
        re.escape(part.value) if isinstance(part, ast.Constant) else WORD
        for part in node.values
    )


def _words(tree: ast.AST) -> Iterator[str]:
    """Patterns of all words that code could print as a name."""
    yield from (re.escape(text) for _, text in strings(tree) if text.isidentifier())
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            yield re.escape(node.arg)
        elif isinstance(node, ast.JoinedStr):
            pattern = _pattern(node)
            if pattern != WORD:
                yield pattern
