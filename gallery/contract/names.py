"""Names: used before they are made, or made only in cells that need a GPU."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field

from gallery.contract.page import Cell, Page, Problem

KNOWN = {*dir(builtins), "__name__", "__doc__", "__builtins__", "display"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class _Seen:
    """Names made by the cells above, on any machine and on a GPU only."""

    made: set[str] = field(default_factory=set)
    on_gpu: dict[str, int] = field(default_factory=dict)
    # What the body of a function or class needs once it runs.
    bodies: dict[str, set[str]] = field(default_factory=dict)


def name_problems(page: Page) -> Iterator[Problem]:
    """Names that a cell uses and that no cell has made where it runs."""
    later = {name for cell in page.cells for name in _made(cell.tree)}
    seen = _Seen()
    for cell in page.cells:
        for statement in cell.tree.body:
            for name, line in _needed(statement, seen):
                yield from _judge(name, line, cell, seen, later)
            _remember(statement, cell, seen)


def _judge(
    name: str, line: int, cell: Cell, seen: _Seen, later: set[str]
) -> Iterator[Problem]:
    if name in seen.made or name in KNOWN:
        return
    if name in seen.on_gpu:
        if not cell.needs_gpu:
            yield Problem(
                line,
                f"'{name}' is made on line {seen.on_gpu[name]}, in a cell that needs a "
                "GPU, and used in one that does not. Make it in a cell without the "
                "marker, or mark this cell too.",
            )
    elif name in later:
        yield Problem(
            line,
            f"'{name}' is used before it is made. Move the cell that makes it up.",
        )
    else:
        yield Problem(
            line, f"'{name}' is used, and nothing makes it. Mend the name or import it."
        )


def _remember(statement: ast.stmt, cell: Cell, seen: _Seen) -> None:
    if isinstance(statement, FUNCTIONS):
        seen.bodies[statement.name] = set(_body_needs(statement))
    for name in _made(statement):
        if not cell.needs_gpu:
            seen.made.add(name)
            seen.on_gpu.pop(name, None)
        elif name not in seen.made:
            seen.on_gpu[name] = statement.lineno


def _needed(statement: ast.stmt, seen: _Seen) -> list[tuple[str, int]]:
    """Names that running the statement needs from above, with the line of each."""
    direct = dict(_loads(statement))
    found = dict(direct)
    waiting = list(direct)
    while waiting:
        name = waiting.pop()
        for inner in seen.bodies.get(name, ()):
            if inner not in found:
                found[inner] = found[name]
                waiting.append(inner)
    return sorted(found.items(), key=lambda pair: pair[1])


def _loads(statement: ast.stmt) -> Iterator[tuple[str, int]]:
    """Names that a statement reads at once: no function bodies, no guarded parts."""
    own = _made(statement) if not isinstance(statement, ast.Assign) else set()
    collector = _Collector()
    collector.visit(statement)
    for name, line in collector.loads:
        if name not in own and name not in collector.bound:
            yield name, line


class _Collector(ast.NodeVisitor):
    def __init__(self) -> None:
        self.loads: list[tuple[str, int]] = []
        self.bound: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.loads.append((node.id, node.lineno))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for part in [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]:
            if part is not None:
                self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in [*node.decorator_list, *node.bases, *node.keywords]:
            self.visit(part)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """A function that runs later, if at all."""

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        # A function that is handed over is called, as a rule at once.
        for part in [*node.args, *(keyword.value for keyword in node.keywords)]:
            if isinstance(part, ast.Lambda):
                self.loads += [(name, part.lineno) for name in _body_needs(part)]

    def visit_comprehension_like(self, node: ast.AST) -> None:
        bound = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        before = len(self.loads)
        self.generic_visit(node)
        self.loads[before:] = [p for p in self.loads[before:] if p[0] not in bound]

    visit_ListComp = visit_comprehension_like  # noqa: N815
    visit_SetComp = visit_comprehension_like  # noqa: N815
    visit_DictComp = visit_comprehension_like  # noqa: N815
    visit_GeneratorExp = visit_comprehension_like  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        self._guarded(node, [*node.body], [*node.orelse])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._guarded(node, [node.body], [node.orelse])

    def _guarded(self, node: ast.If | ast.IfExp, body: list, orelse: list) -> None:
        """A branch behind a question about the GPU runs on a GPU only."""
        self.visit(node.test)
        words = ast.unparse(node.test).lower()
        if any(word in words for word in ("gpu", "cuda", "device")):
            return
        for part in [*body, *orelse]:
            self.visit(part)

    def visit_Try(self, node: ast.Try) -> None:
        caught = [ast.unparse(h.type) for h in node.handlers if h.type]
        if not any("NameError" in names for names in caught):
            self.generic_visit(node)


def _made(tree: ast.AST) -> set[str]:
    """Names that code makes at its top level."""
    found = set()
    for symbol in _symbols(tree).get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            found.add(symbol.get_name())
    return found | {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
        for name in node.names
    }


def _body_needs(node: ast.AST) -> Iterator[str]:
    """Global names that a function, class or lambda reads when it runs."""
    tables = list(_symbols(node).get_children())
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and symbol.is_global():
                yield symbol.get_name()


def _symbols(tree: ast.AST) -> symtable.SymbolTable:
    # A cell may await at its top level, which a module may not.
    plain = _NoAwait().visit(ast.parse(ast.unparse(tree)))
    source = ast.unparse(ast.fix_missing_locations(plain))
    return symtable.symtable(source, "cell", "exec")


class _NoAwait(ast.NodeTransformer):
    def visit_Await(self, node: ast.Await) -> ast.expr:
        return self.visit(node.value)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.With:
        self.generic_visit(node)
        return ast.With(node.items, node.body)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.For:
        self.generic_visit(node)
        return ast.For(node.target, node.iter, node.body, node.orelse)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        return ast.FunctionDef(**dict(ast.iter_fields(node)))
