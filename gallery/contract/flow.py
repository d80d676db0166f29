"""Which words a script can hand to a function, however it puts them together.

Values are followed through names, displays, ``dict(...)``, ``{**o}``, ``o | p``,
``o["k"] = ...``, ``o.update(...)``, conditionals, loops and the script's own functions.
Order is not followed: a name stands for all that is ever assigned to it in its scope.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
COLLECTIONS = ast.Tuple | ast.List | ast.Set

COPIES = {"copy.copy", "copy.deepcopy"}

Seen = set[tuple[str, int]]  # nodes that one question has been at
Key = tuple[str, int]
"""A word that becomes a keyword, and the line where it is written."""


class Flow:
    """What the names of a script can hold."""

    def __init__(self, tree: ast.Module):
        self.scope_of: dict[int, ast.AST] = {}
        self.parent: dict[int, ast.AST | None] = {id(tree): None}
        self.values: dict[tuple[int, str], list[ast.expr]] = defaultdict(list)
        self.updates: dict[tuple[int, str], list[Key]] = defaultdict(list)
        self.functions: dict[str, ast.FunctionDef] = {}
        self.calls: list[ast.Call] = []
        self._place(tree, tree)
        for node in ast.walk(tree):
            self._note(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
                self._loop(node.target, node.iter)

    def keys(self, node: ast.AST) -> set[Key]:
        """The words that a dict can have; as keywords they are options."""
        return self._keys(node, set())

    def _keys(self, node: ast.AST, seen: Seen) -> set[Key]:
        if ("keys", id(node)) in seen:
            return set()
        seen.add(("keys", id(node)))
        if isinstance(node, ast.Dict):
            return self._keys_of_dict(node, seen)
        if isinstance(node, ast.DictComp):
            if isinstance(node.key, ast.Constant):
                return {(str(node.key.value), node.key.lineno)}
            return self._words(node.key) if isinstance(node.key, ast.Name) else set()
        if isinstance(node, ast.Call):
            return self._keys_of_call(node, seen)
        if isinstance(node, ast.Name):
            return self._keys_of_name(node, seen)
        return {
            key
            for part in self._alternatives(node, seen)
            for key in self._keys(part, seen)
        }

    def _keys_of_dict(self, node: ast.Dict, seen: Seen) -> set[Key]:
        found: set[Key] = set()
        for key, value in zip(node.keys, node.values):
            if key is None:
                found |= self._keys(value, seen)
            elif isinstance(key, ast.Constant):
                found.add((str(key.value), key.lineno))
        return found

    def _keys_of_name(self, node: ast.Name, seen: Seen) -> set[Key]:
        for scope in self.scopes(node):
            place = (id(scope), node.id)
            if self.values[place] or self.updates[place]:
                found = set(self.updates[place])
                for value in self.values[place]:
                    found |= self._keys(value, seen)
                return found
        return set()

    def _keys_of_call(self, node: ast.Call, seen: Seen) -> set[Key]:
        called = ast.unparse(node.func)
        parts: list[ast.AST] = []
        found: set[Key] = set()
        if called == "dict":
            parts = list(node.args)
            found |= self._keywords(node, seen)
        elif called in COPIES:
            parts = list(node.args)
        elif called.endswith(".copy"):
            parts = [node.func.value]
        elif called in self.functions:
            parts = list(returned(self.functions[called]))
        for part in parts:
            found |= self._keys(part, seen)
        return found

    def _keywords(self, call: ast.Call, seen: Seen) -> set[Key]:
        """The keywords of a call, those inside ``**options`` too."""
        found: set[Key] = set()
        for keyword in call.keywords:
            if keyword.arg:
                found.add((keyword.arg, keyword.value.lineno))
            else:
                found |= self._keys(keyword.value, seen)
        return found

    def _words(self, node: ast.Name) -> set[Key]:
        """The texts that a name can stand for."""
        found = set()
        for scope in self.scopes(node):
            for value in self.values[id(scope), node.id]:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.add((value.value, value.lineno))
        return found

    def _alternatives(self, node: ast.AST, seen: Seen) -> list[ast.AST]:
        """Expressions whose value the node can have or contain."""
        if isinstance(node, ast.IfExp):
            return [node.body, node.orelse]
        if isinstance(node, ast.BoolOp):
            return list(node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return [node.left, node.right]
        if isinstance(node, ast.NamedExpr):
            return [node.value]
        if isinstance(node, ast.Subscript):
            return self._elements(node.value, seen)
        return []

    def _elements(self, node: ast.AST, seen: Seen) -> list[ast.expr]:
        """The expressions that a collection's elements or a dict's values can have."""
        if ("elements", id(node)) in seen:
            return []
        seen.add(("elements", id(node)))
        if isinstance(node, COLLECTIONS):
            return list(node.elts)
        if isinstance(node, ast.Dict):
            return list(node.values)
        if isinstance(node, ast.Name):
            return [
                element
                for scope in self.scopes(node)
                for value in self.values[id(scope), node.id]
                for element in self._elements(value, seen)
            ]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "dict":
                return [keyword.value for keyword in node.keywords]
            if called.endswith((".values", ".items")):
                return self._elements(node.func.value, seen)
        return [
            element
            for part in self._alternatives(node, seen)
            for element in self._elements(part, seen)
        ]

    def scopes(self, node: ast.AST) -> Iterator[ast.AST]:
        """The function that a node stands in, those around it, and the module."""
        scope = self.scope_of.get(id(node))
        while scope is not None:
            yield scope
            scope = self.parent[id(scope)]

    def _place(self, node: ast.AST, scope: ast.AST) -> None:
        """Note in which function each node stands."""
        self.scope_of[id(node)] = scope
        if isinstance(node, FUNCTIONS):
            self.parent[id(node)] = scope
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
            scope = node
        for child in ast.iter_child_nodes(node):
            self._place(child, scope)

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            if node.value is not None:
                self._assign(node.target, node.value)
        elif isinstance(node, ast.Call):
            self.calls.append(node)
            changed = node.func
            if (
                isinstance(changed, ast.Attribute)
                and changed.attr in {"update", "setdefault"}
                and isinstance(changed.value, ast.Name)
            ):
                self._update(changed, node)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.values[self._home(target), target.id].append(value)
        elif isinstance(target, COLLECTIONS) and isinstance(value, COLLECTIONS):
            for one, other in zip(target.elts, value.elts):
                self._assign(one, other)
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            place = (self._owner(target.value), target.value.id)
            if isinstance(target.slice, ast.Constant):
                key = (str(target.slice.value), target.lineno)
                self.updates[place].append(key)

    def _loop(self, target: ast.expr, values: ast.expr) -> None:
        pairs = isinstance(values, ast.Call) and ast.unparse(values.func).endswith(
            ".items"
        )
        for element in self._elements(values, set()):
            if pairs and isinstance(target, COLLECTIONS) and len(target.elts) == 2:
                self._assign(target.elts[1], element)
            else:
                self._assign(target, element)
        if pairs and isinstance(target, COLLECTIONS):
            source = values.func.value
            if isinstance(source, ast.Dict) and isinstance(target.elts[0], ast.Name):
                for key in source.keys:
                    if key is not None:
                        self._assign(target.elts[0], key)

    def _update(self, changed: ast.Attribute, call: ast.Call) -> None:
        place = (self._owner(changed.value), changed.value.id)
        if changed.attr == "setdefault":
            keys = [arg for arg in call.args[:1] if isinstance(arg, ast.Constant)]
            self.updates[place] += [(str(key.value), key.lineno) for key in keys]
        else:
            self.updates[place] += [
                (keyword.arg, keyword.value.lineno)
                for keyword in call.keywords
                if keyword.arg
            ]
            self.values[place] += [
                *call.args,
                *(keyword.value for keyword in call.keywords if not keyword.arg),
            ]

    def _home(self, node: ast.Name) -> int:
        return id(self.scope_of[id(node)])

    def _owner(self, node: ast.Name) -> int:
        """The nearest scope that assigns the name: an update changes that one."""
        for scope in self.scopes(node):
            if (id(scope), node.id) in self.values:
                return id(scope)
        return self._home(node)


def returned(function: ast.AST) -> Iterator[ast.expr]:
    """What a function can return."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value
