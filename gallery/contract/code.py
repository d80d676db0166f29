"""Rules for code: size, imports, markers, readability, private names."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from gallery.contract.page import Cell, Page, Problem, Text
from gallery.script import NEEDS_GPU, NEEDS_TWO, OUTPUT_VARIES

# About 200 is the aim; a page of many experiments needs more.
MAX_CODE_LINES = 450  # docstrings and the text of programs in strings not counted
MAX_LINES = 30  # of a cell, and of a function
# What `pip install torch-tensorrt-rtx` brings along.
WITH_THE_STACK = {
    "torch",
    "torch_tensorrt",
    "tensorrt",
    "tensorrt_rtx",
    "numpy",
    "triton",
    "packaging",
}
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "nvidia-pytriton": "pytriton",
    "nvidia-modelopt": "modelopt",
}
NOT_EVERYWHERE = {"__file__", "get_ipython"}
# Begins like a marker: what it must say is in `script.NEEDS_GPU` and beside it.
LIKE_GPU = re.compile(
    r"#+\s*(?:this\s+)?(?:(?:needs?|requires?)\s+(?:an?\s+|the\s+)?(?:\w+\s+)?gpu"
    r"|gpu\s+(?:is\s+)?(?:needed|required|only))\b",
    re.IGNORECASE,
)
LIKE_TWO = re.compile(r"#+\s*(?:needs?|requires?)\s+(?:\w+\s+)?gpus\b", re.IGNORECASE)
LIKE_VARIES = re.compile(
    r"#+\s*(?:the\s+)?outputs?\s+(?:varie?s|vary)\b", re.IGNORECASE
)
# Private by their spelling, and documented by PyTorch as the way to do it.
DOCUMENTED = {"torch._dynamo.mark_dynamic", "torch._dynamo.config", "torch._check"}
OF_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def code_problems(page: Page) -> Iterator[Problem]:
    """Everything in which the code breaks the contract."""
    yield from _tags(page)
    yield from _size(page)
    yield from _imports(page)
    for cell in page.own_cells:
        yield from _markers(cell)
        yield from _reading(cell)
    yield from _truths(page)
    yield from _private(page)


def _tags(page: Page) -> Iterator[Problem]:
    lines = page.source.rstrip().splitlines()
    is_last = lines[-1].startswith("# sphinx_gallery_tags")
    if not is_last or not 2 <= len(page.script.tags) <= 6:
        yield Problem(
            len(lines),
            "The script does not end with 2 to 6 tags. Let its last line be "
            "# sphinx_gallery_tags = ['...', '...'].",
        )


def _size(page: Page) -> Iterator[Problem]:
    total = sum(len(cell.code_lines - _in_strings(cell)) for cell in page.own_cells)
    if total > MAX_CODE_LINES:
        yield Problem(
            1,
            f"The script has {total} lines of code; at most {MAX_CODE_LINES}, the "
            "ruler and texts in strings not counted. Leave out what does not teach.",
        )
    for cell in page.own_cells:
        if len(cell.code_lines) > MAX_LINES:
            yield Problem(
                min(cell.code_lines),
                f"The cell has {len(cell.code_lines)} lines of code; at most "
                f"{MAX_LINES}. Split it, with a word between.",
            )
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = set(range(node.lineno, node.end_lineno + 1)) & cell.code_lines
                if len(own) > MAX_LINES:
                    yield Problem(
                        node.lineno,
                        f"The function {node.name!r} has {len(own)} lines of code; at "
                        f"most {MAX_LINES}. Split it.",
                    )


def _in_strings(cell: Cell) -> set[int]:
    """Lines of docstrings, and of other strings after their first one.

    Those are a program's or a file's text.
    """
    lines: set[int] = set()
    for node in ast.walk(cell.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.JoinedStr | ast.Constant):
            lines.update(range(node.lineno + 1, node.end_lineno + 1))
    return lines


def installs(docstring: str) -> list[str]:
    """Import names of the packages that the docstring's pip line installs."""
    lines = re.findall(r"^ +pip install (.+)$", docstring, re.MULTILINE)
    words = [word.strip("'\"") for line in lines for word in line.split()]
    names = [re.split(r"[<>=!\[]", word)[0] for word in words if word[:1] != "-"]
    return [IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names]


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Top-level names of all imported modules, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module.split(".")[0], node.lineno


def _imports(page: Page) -> Iterator[Problem]:
    packages = installs(page.docstring.content)
    if not packages:
        yield Problem(
            page.docstring.line,
            "The docstring has no line `pip install ...`. Add it under Prerequisites, "
            "with all that the script imports.",
        )
    known = sys.stdlib_module_names | WITH_THE_STACK | set(packages)
    told = set()
    for cell in page.cells:
        for name, line in imported(cell.tree):
            if name in told:
                continue
            told.add(name)
            if name in {".", "gallery"}:
                yield Problem(
                    line,
                    "Imports from this repository, which a reader does not have. Write "
                    "the code into the script.",
                )
            elif name == "argparse":
                yield Problem(
                    line,
                    "Uses argparse, and a notebook has no command line. Assign a "
                    "variable.",
                )
            elif name not in known:
                yield Problem(
                    line,
                    f"Imports {name}, which the docstring's `pip install ...` does not "
                    "install. Add the package there.",
                )
    for cell in page.cells:
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Name) and node.id in NOT_EVERYWHERE:
                yield Problem(
                    node.lineno,
                    f"{node.id} does not exist in both a script and a notebook. Do "
                    "without it.",
                )


def _markers(cell: Cell) -> Iterator[Problem]:
    first = min(cell.code_lines, default=cell.line)
    for line, text in cell.comments:
        exact = any(m.match(text) for m in (NEEDS_GPU, NEEDS_TWO, OUTPUT_VARIES))
        leads = line < first and _touches_the_top(cell, line)
        if exact and leads:
            continue
        if exact:
            yield Problem(
                line,
                f"The marker {text[:30]!r} is not in the cell's first lines, where "
                "alone it counts. Move it there.",
            )
        elif line < first and LIKE_GPU.match(text):
            yield Problem(
                line,
                f"{text[:40]!r} is nearly a marker. Write '# Needs a GPU: why.'",
            )
        elif line < first and LIKE_TWO.match(text):
            yield Problem(
                line,
                f"{text[:40]!r} is nearly a marker. Write '# Needs two GPUs: why.'",
            )
        elif line < first and LIKE_VARIES.match(text):
            yield Problem(
                line,
                f"{text[:40]!r} is nearly a marker. Write '# Output varies: why.'",
            )


def _touches_the_top(cell: Cell, line: int) -> bool:
    """Whether only comments stand above a comment in its cell."""
    above = cell.source.splitlines()[: line - cell.line]
    while above and not above[0].strip():
        above.pop(0)
    return all(text.startswith("#") for text in above)


def _reading(cell: Cell) -> Iterator[Problem]:
    for node in ast.walk(cell.tree):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Slice)
            and _is_repr(node.value)
        ):
            yield Problem(
                node.lineno,
                f"{ast.unparse(node)} slices what an object prints. Name what you "
                "want, such as str(dtype).removeprefix('torch.').",
            )


def _is_repr(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr):
        return len(node.values) == 1 and isinstance(node.values[0], ast.FormattedValue)
    return isinstance(node, ast.Call) and ast.unparse(node.func) in {"str", "repr"}


def _truths(page: Page) -> Iterator[Problem]:
    """Prints of a True that cannot be anything else where it is printed."""
    always = _always_true(page)
    for cell in page.own_cells:
        asserted = _asserted(cell.tree)
        for node in ast.walk(cell.tree):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "print"):
                continue
            for part in _printed(node):
                text = ast.unparse(part)
                if _is_true(part, always):
                    yield Problem(
                        node.lineno,
                        f"Prints {text}, which is always True here. Print what was "
                        "measured: 'relative error ..., allowed ..., another input "
                        "...'.",
                    )
                elif text in asserted and asserted[text] < node.lineno:
                    yield Problem(
                        node.lineno,
                        f"Prints {text}, which the assert on line {asserted[text]} has "
                        "settled. Print what was measured.",
                    )


def _printed(call: ast.Call) -> Iterator[ast.expr]:
    for argument in call.args:
        yield argument
        for node in ast.walk(argument):
            if isinstance(node, ast.FormattedValue):
                yield node.value


def _asserted(tree: ast.AST) -> dict[str, int]:
    """What asserts hold to be true, with their lines."""
    return {
        ast.unparse(node.test): node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    }


def _always_true(page: Page) -> set[str]:
    """Names of values and functions that are True whenever they are anything."""
    values: dict[str, list[ast.expr]] = {}
    for node in page.nodes(ast.Assign):
        for target in node.targets:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    values.setdefault(name.id, []).append(
                        node.value if target is name else target
                    )
    for node in page.nodes(ast.FunctionDef):
        returns = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
        if returns:
            values[f"{node.name}()"] = [value or node.args for value in returns]
    found: set[str] = set()
    while True:
        more = {
            name
            for name, given in values.items()
            if all(_is_true(value, found) for value in given)
        }
        if more == found:
            return found
        found = more


def _is_true(node: ast.AST, always: set[str]) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is True
    if isinstance(node, ast.Name):
        return node.id in always
    if isinstance(node, ast.BoolOp):
        return all(_is_true(value, always) for value in node.values)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called == "all" and len(node.args) == 1:
            inside = node.args[0]
            return isinstance(inside, ast.GeneratorExp | ast.ListComp) and _is_true(
                inside.elt, always
            )
        return f"{called}()" in always
    return False


def _private(page: Page) -> Iterator[Problem]:
    told = set()
    for index, block in enumerate(page.blocks):
        if not isinstance(block, Cell) or block.is_ruler:
            continue
        if _says_private(page.blocks, index):
            continue
        for node in ast.walk(block.tree):
            name = _private_name(node)
            if name and name not in told:
                told.add(name)
                yield Problem(
                    node.lineno,
                    f"{name} is private and may go with the next release. Say "
                    "'private, seen in 2.14' in a comment or in the text beside it, "
                    "with the public way if there is one.",
                )


def _private_name(node: ast.AST) -> str | None:
    """The private name of another library that a node uses, or None."""
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.Attribute):
        if node.attr in OF_TUPLES or ast.unparse(node.value) in {"self", "cls"}:
            return None
        names = [ast.unparse(node)] if node.attr.startswith("_") else []
    else:
        return None
    for name in names:
        parts = name.split(".")
        private = any(re.match(r"_(?!_)", part) for part in parts)
        if private and not any(
            known.startswith(name) or name.startswith(known) for known in DOCUMENTED
        ):
            return name
    return None


def _says_private(blocks: list[Text | Cell], index: int) -> bool:
    cell = blocks[index]
    texts = [text for _, text in cell.comments]
    for beside in blocks[max(index - 1, 0) : index + 2]:
        if isinstance(beside, Text):
            texts.append(beside.content)
    return any("private" in text.lower() for text in texts)
