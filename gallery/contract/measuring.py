"""Rules that follow from what a tutorial does: it compiles, loads a model, measures."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator

from gallery.contract.page import Page, Problem, strings
from gallery.errors import GalleryError
from gallery.script import varies
from gallery.write_ruler import MARKER, with_ruler

DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
COLUMNS = (
    *("model", "backend", "precision", "shape"),
    *("latency_ms", "latency_p20", "latency_p80", "speedup"),
    *("error", "peak_memory_mb", "compile_s", "first_call_s"),
)
CHECK_LINE = ("relative error", "allowed", "another input")
DRAWS = re.compile(r"(?:plt\.show|plot_ready|display)$")
FIGURES_WHEN_MEASURING = 2
# What they return differs from run to run; the ruler's among them.
CLOCKS = {
    *("perf_counter", "perf_counter_ns", "monotonic", "do_bench", "mem_get_info"),
    *("latency", "in_turns", "compare", "measure", "peak_bytes", "gpu_limits"),
}
# Tokenizers and the like are loaded from a hub as models are, and have no weights.
NO_WEIGHTS = re.compile(r"(Tokenizer|Processor|Config|Scheduler|FeatureExtractor)\w*$")
MODEL_CLASS = re.compile(r"(Model|For[A-Z]\w+|Pipeline|Autoencoder\w*)$")
MODEL_PACKAGES = ("transformers", "diffusers", "timm", "torchvision.models", "sam2")


def measuring_problems(page: Page) -> Iterator[Problem]:
    """What a tutorial of this kind owes its readers."""
    yield from _check(page)
    yield from _weights(page)
    yield from _figures(page)
    yield from _ruler(page)
    yield from _table(page)
    yield from _columns(page)
    yield from _typed_columns(page)
    yield from _varying(page)


def _check(page: Page) -> Iterator[Problem]:
    if not page.compiles:
        return
    told = " ".join(text for cell in page.own_cells for _, text in strings(cell.tree))
    by_hand = all(word in told for word in CHECK_LINE)
    by_ruler = page.measures and page.calls("check", "compare")
    if not by_ruler and not by_hand:
        yield Problem(
            page.builds[0].lineno,
            "Compiles, and no check can fail: there is no negative control. Call the "
            "ruler's check(...), or print 'relative error ..., allowed ..., another "
            "input ...'.",
        )


def _weights(page: Page) -> Iterator[Problem]:
    loads = _model_loads(page)
    said = any(
        re.match(r"Weights:(?: (?!\s)|$)", text)
        for cell in page.own_cells
        for _, text in strings(cell.tree)
    )
    if loads and not said:
        yield Problem(
            loads[0],
            "Loads a model and does not print where its weights come from. Print "
            "'Weights: pretrained ...' or 'Weights: random ...'.",
        )


def _model_loads(page: Page) -> list[int]:
    """Lines that load a model with weights, pretrained or random."""
    origin = {}
    for node in page.nodes(ast.Import, ast.ImportFrom):
        for alias in node.names:
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            origin[alias.asname or alias.name] = f"{module}{alias.name}"
    found = []
    for node in page.nodes(ast.Call):
        first, dot, rest = ast.unparse(node.func).partition(".")
        name = f"{origin.get(first, first)}{dot}{rest}"
        owner, _, last = name.rpartition(".")
        if last in {"from_pretrained", "from_config"}:
            if not NO_WEIGHTS.search(owner):
                found.append(node.lineno)
        elif name.startswith(MODEL_PACKAGES):
            builds = MODEL_CLASS.search(last) or last in {"get_model", "create_model"}
            of_torchvision = owner.startswith("torchvision.models")
            lower = last[:1].islower() and not last.startswith(("get_", "list_"))
            if builds or (of_torchvision and lower):
                found.append(node.lineno)
    return sorted(found)


def _figures(page: Page) -> Iterator[Problem]:
    drawn = [
        node for node in page.nodes(ast.Call) if DRAWS.search(ast.unparse(node.func))
    ]
    wanted = FIGURES_WHEN_MEASURING if page.measures else 1
    end = len(page.source.splitlines())
    if not drawn:
        yield Problem(
            end,
            "No cell draws a figure, and the card shows the first one. Draw one, and "
            "end its cell with plt.show().",
        )
    elif len(drawn) < wanted:
        yield Problem(
            end,
            f"A tutorial that measures has {wanted} figures: what was measured, and "
            "seconds until ready against latency (plot_ready). Draw the missing one.",
        )


def _ruler(page: Page) -> Iterator[Problem]:
    if not page.measures:
        return
    line = next(cell.line for cell in page.cells if cell.is_ruler)
    write = f"python -m gallery ruler {page.name}"
    try:
        same = with_ruler(page.source) == page.source
    except GalleryError as error:
        yield Problem(line, str(error))
        return
    if not same:
        yield Problem(
            line, f"The ruler is not that of gallery/ruler.py. Write it anew: {write}."
        )


def _table(page: Page) -> Iterator[Problem]:
    """A tutorial that measures shows the ruler's table as the value of a cell."""
    if not page.measures:
        return
    for cell in page.own_cells:
        last = cell.tree.body[-1] if cell.tree.body else None
        if isinstance(last, ast.Expr) and _root(last.value) in _tables(page):
            return
    yield Problem(
        len(page.source.splitlines()),
        "Measures, and no cell ends with the benchmark table. Let the last measuring "
        "cell end with results(rows).",
    )


def _tables(page: Page) -> set[str]:
    """Names that hold what the ruler's `results` returns, that function's included."""
    return {"results"} | {
        name.id
        for node in page.nodes(ast.Assign)
        if _mentions(node.value, {"results"})
        for target in node.targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }


def _typed_columns(page: Page) -> Iterator[Problem]:
    """Columns of the benchmark table whose figures no cell has measured."""
    tables = _tables(page)
    given = [
        (target.slice, node.value)
        for node in page.nodes(ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Subscript) and _root(target.value) in tables
    ]
    given += [
        (ast.Constant(keyword.arg), keyword.value)
        for node in page.calls("assign")
        if _root(node.func) in tables
        for keyword in node.keywords
    ]
    for column, value in given:
        parts = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        column = column.elts[-1] if isinstance(column, ast.Tuple) else column
        if any(_is_number(part) for part in parts):
            yield Problem(
                value.lineno,
                f"The column {ast.unparse(column)} of the benchmark table is typed, "
                "and nothing proves it. Put in what a cell has measured.",
            )


def _is_number(node: ast.expr) -> bool:
    is_constant = isinstance(node, ast.Constant) and type(node.value) in {int, float}
    return is_constant or (isinstance(node, ast.UnaryOp) and _is_number(node.operand))


def _root(node: ast.expr) -> str:
    """The name that an expression's value comes from: `t` for ``t[k].round(3)``."""
    while True:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "display":
            [node, *_] = node.args
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func.value
        elif isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return ast.unparse(node)


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(node))


def _columns(page: Page) -> Iterator[Problem]:
    """Columns of a benchmark table that nearly have the right name."""
    for node in page.nodes(ast.Dict, ast.List, ast.Tuple, ast.Call, ast.Constant):
        words = _words(node)
        exact = {word for word, _ in words}.intersection(COLUMNS)
        if len(exact) < 3:
            continue
        if len(exact) > len(COLUMNS) // 2 and not page.measures:
            yield Problem(
                node.lineno,
                "A benchmark table of its own making. Put a cell with the line "
                f"'{MARKER}' into the script, write the ruler into it: python -m "
                f"gallery ruler {page.name}, and let results(rows) make the table.",
            )
        for word, line in words:
            close = difflib.get_close_matches(word, COLUMNS, n=1, cutoff=0.75)
            if word not in COLUMNS and close and close[0] not in exact:
                yield _misspelt(word, line, close[0])
    distinct = [column for column in COLUMNS if "_" in column]
    for word, line, cutoff in _columns_asked(page):
        close = difflib.get_close_matches(word, distinct, n=1, cutoff=cutoff)
        if close and word not in COLUMNS:
            yield _misspelt(word, line, close[0])
    yield from _renamed(page)


def _columns_asked(page: Page) -> Iterator[tuple[str, int, float]]:
    """Words that may name a column, their lines, and how near to one they must be."""
    for node in page.nodes(ast.Subscript, ast.Attribute):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno, 0.9  # `compile` is no column
        elif isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            yield node.slice.value, node.lineno, 0.85


def _renamed(page: Page) -> Iterator[Problem]:
    """Columns of the ruler's table under another name: the results would lack them."""
    for node in page.calls("rename"):
        if _root(node.func) not in _tables(page):
            continue
        tables = (ast.Dict, ast.Call)
        parts = [part.value for part in node.keywords if isinstance(part.value, tables)]
        for word, line in [word for part in parts for word in _words(part)]:
            if word in COLUMNS:
                yield Problem(
                    line,
                    f"The column {word!r} of the benchmark table gets another name, "
                    "and the results page looks for this one. Leave it.",
                )


def _words(node: ast.AST) -> list[tuple[str, int]]:
    """The words of one list, dict, call or text of names, with their lines."""
    if isinstance(node, ast.Call):
        return [(k.arg, k.value.lineno) for k in node.keywords if k.arg]
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
        return [(word.strip(","), node.lineno) for word in text.split()]
    parts = node.keys if isinstance(node, ast.Dict) else node.elts
    return [
        (part.value, part.lineno)
        for part in parts
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def _misspelt(word: str, line: int, right: str) -> Problem:
    return Problem(
        line,
        f"The column {word!r} of the benchmark table is not one that the results page "
        f"knows. Write {right!r}.",
    )


def _varying(page: Page) -> Iterator[Problem]:
    """A cell that prints what a clock says: nbval must not compare its output."""
    timed = set(CLOCKS)
    functions = {f.name: called_in(f) for f in page.nodes(ast.FunctionDef)}
    for _ in functions:  # a function that calls one that reads a clock reads a clock
        timed |= {name for name, calls in functions.items() if calls & timed}
    for cell in page.own_cells:
        if varies(cell.source):
            continue
        runs = [node for node in cell.tree.body if not isinstance(node, DEFINITIONS)]
        calls = set().union(*map(called_in, runs))
        if "print" in calls and calls & timed:
            yield Problem(
                min(node.lineno for node in runs),
                "The cell prints what a clock or the memory says, which no second run "
                "repeats. Write '# Output varies: why.' above it.",
            )


def called_in(tree: ast.AST) -> set[str]:
    """Names of all functions that the code calls, without what they belong to."""
    names = (
        ast.unparse(node.func).rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    )
    return set(names)


__all__ = ["COLUMNS", "MARKER", "measuring_problems"]
