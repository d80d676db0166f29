"""Options and names that this release of Torch-TensorRT does not have.

The library drops an unknown option without a message, so only a check finds it.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterator
from functools import cache

from gallery.contract.flow import Flow, Key
from gallery.contract.installed import COMPILERS, OPTIONS, ROOT
from gallery.contract.page import Page, Problem

COMPILE = f"{ROOT}.dynamo.compile"
# Options of earlier releases. These words mean nothing else, wherever they stand.
GONE = {
    "enabled_precisions": "The model's own dtypes decide: convert the model",
    "use_explicit_typing": "Networks are always strongly typed: leave it out",
    "use_python_runtime": "There is one runtime now: leave it out",
    "truncate_long_and_double": "Write truncate_double",
}
# Options that are still words in some signature, and do nothing.
USELESS = {
    **GONE,
    "debug": "Use torch_tensorrt.dynamo.Debugger",
    "refit": "Write immutable_weights=False",
    "make_refittable": "Write immutable_weights=False",
}
WRAPPERS = {"functools.partial", "partial"}
ON_PURPOSE = "# On purpose: "


@cache
def known() -> dict[str, list[str] | None]:
    """Public names of Torch-TensorRT, with their options; None: takes any."""
    return json.loads(OPTIONS.read_text(encoding="utf-8"))["names"]


@cache
def release() -> str:
    """The release whose options these are, such as ``2.14``."""
    full = json.loads(OPTIONS.read_text(encoding="utf-8"))["release"]
    return full.rpartition(".")[0]


def option_problems(page: Page) -> Iterator[Problem]:
    """Options and names that the release lacks, on lines not marked as on purpose."""
    tree = ast.parse(page.source)
    shown = _on_purpose(page)
    found = [*_unknown_options(tree), *_gone_words(tree), *_unknown_names(tree)]
    found += _old_torchvision(tree)
    seen = set()
    for problem in sorted(found):
        word = (problem.line, problem.text.split("'")[1])
        if problem.line not in shown and word not in seen:
            seen.add(word)
            yield problem


def _on_purpose(page: Page) -> set[int]:
    """Lines below, or ending with, a comment that says why a wrong option stands."""
    return {
        line + below
        for cell in page.cells
        for line, text in cell.comments
        if text.startswith(ON_PURPOSE)
        for below in (0, 1)
    }


def torch_tensorrt_calls(tree: ast.Module) -> list[tuple[str, Key]]:
    """Every option that a script can hand to Torch-TensorRT, with its function.

    Returns
    -------
    Pairs (dotted name of the function, (option, line)). Options of
    ``torch.compile(backend="tensorrt", options={...})`` are those of
    ``torch_tensorrt.dynamo.compile``.
    """
    flow, aliases = Flow(tree), _aliases(tree)
    found = []
    for call in flow.calls:
        name = _dotted(call.func, aliases)
        if name in WRAPPERS and call.args:
            name = _dotted(call.args[0], aliases)
        if name == "torch.compile" and _is_tensorrt(call):
            options = [k.value for k in call.keywords if k.arg == "options"]
            for node in options:
                found += [(COMPILE, key) for key in _follow(node, flow)]
        elif name.startswith(f"{ROOT}."):
            keys = {(k.arg, k.value.lineno) for k in call.keywords if k.arg}
            for keyword in call.keywords:
                if keyword.arg is None:
                    keys |= _follow(keyword.value, flow)
                elif keyword.arg == "options":
                    found += [(COMPILE, key) for key in _follow(keyword.value, flow)]
            found += [(name, key) for key in keys]
    return found


def _follow(node: ast.expr, flow: Flow) -> set[Key]:
    """Keys of a dict; where it is a parameter, of what the callers hand over."""
    return _follow_into(node, flow, set())


def _follow_into(node: ast.expr, flow: Flow, seen: set[tuple[int, str]]) -> set[Key]:
    found = flow.keys(node)
    for name in ast.walk(node):
        if isinstance(name, ast.Name):
            for scope in flow.scopes(name):
                here = (id(scope), name.id)
                if isinstance(scope, ast.FunctionDef) and here not in seen:
                    found |= _from_callers(scope, name.id, flow, seen | {here})
    return found


def _from_callers(
    function: ast.FunctionDef, parameter: str, flow: Flow, seen: set[tuple[int, str]]
) -> set[Key]:
    arguments = function.args
    positional = [a.arg for a in [*arguments.posonlyargs, *arguments.args]]
    named = {*positional, *(a.arg for a in arguments.kwonlyargs)}
    extra = arguments.kwarg is not None and arguments.kwarg.arg == parameter
    if not extra and parameter not in named:
        return set()
    found: set[Key] = set()
    for call in flow.calls:
        if ast.unparse(call.func) != function.name:
            continue
        for keyword in call.keywords:
            if extra and keyword.arg and keyword.arg not in named:
                found.add((keyword.arg, keyword.value.lineno))
            elif (extra and keyword.arg is None) or keyword.arg == parameter:
                found |= _follow_into(keyword.value, flow, seen)
        for name, value in zip(positional, call.args):
            if name == parameter:
                found |= _follow_into(value, flow, seen)
    return found


def _unknown_options(tree: ast.Module) -> Iterator[Problem]:
    for function, (option, line) in torch_tensorrt_calls(tree):
        accepted = known().get(function)
        if accepted is None or (option in accepted and option not in USELESS):
            continue
        if option in USELESS and (function in COMPILERS or option in GONE):
            yield _gone(option, line)
        elif option not in accepted:
            close = difflib.get_close_matches(option, accepted, n=1, cutoff=0.75)
            hint = f"Did you mean {close[0]}?" if close else "Leave it out."
            silent = " and would drop it in silence" if function in COMPILERS else ""
            yield Problem(
                line,
                f"{function} of Torch-TensorRT {release()} has no option "
                f"'{option}'{silent}. {hint}",
            )


def _gone_words(tree: ast.Module) -> Iterator[Problem]:
    """Options of the past, also where it is not seen whom they reach."""
    for node in ast.walk(tree):
        words: list[tuple[object, int]] = []
        if isinstance(node, ast.Call):
            words = [(k.arg, k.value.lineno) for k in node.keywords]
        elif isinstance(node, ast.Dict):
            keys = [key for key in node.keys if isinstance(key, ast.Constant)]
            words = [(key.value, key.lineno) for key in keys]
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            words = [(node.slice.value, node.lineno)]
        for word, line in words:
            if word in GONE:
                yield _gone(word, line)


def _gone(option: str, line: int) -> Problem:
    return Problem(
        line,
        f"The option '{option}' is gone in Torch-TensorRT {release()} and does "
        f"nothing. {USELESS[option]}. (Shown as a lesson? Put a comment above: "
        f"{ON_PURPOSE}why.)",
    )


def _unknown_names(tree: ast.Module) -> Iterator[Problem]:
    aliases = _aliases(tree)
    imports = [
        (f"{node.module}.{alias.name}", node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
        for alias in node.names
    ]
    uses = [
        (_dotted(node, aliases), node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    ]
    for name, line in [*imports, *uses]:
        module, _, last = name.rpartition(".")
        listed = module == ROOT or (module in known() and known()[module] is None)
        listed = listed and any(other.startswith(f"{module}.") for other in known())
        private = "._" in name
        if name.startswith(f"{ROOT}.") and listed and not private:
            if name in known():
                continue
            beside = [n for n in known() if n.rpartition(".")[0] == module]
            close = difflib.get_close_matches(name, beside, n=1, cutoff=0.75)
            hint = f"Did you mean {close[0]}?" if close else "Use what there is."
            yield Problem(
                line,
                f"Torch-TensorRT {release()} has no '{last}' in {module}. {hint}",
            )


def _old_torchvision(tree: ast.Module) -> Iterator[Problem]:
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _dotted(node.func, aliases)
            for keyword in node.keywords:
                if keyword.arg == "pretrained" and name.startswith("torchvision."):
                    yield Problem(
                        keyword.value.lineno,
                        "torchvision has no option 'pretrained' any more. Write "
                        'weights="DEFAULT".',
                    )


def _is_tensorrt(call: ast.Call) -> bool:
    backends = [k.value for k in call.keywords if k.arg == "backend"]
    return any("tensorrt" in ast.unparse(backend) for backend in backends)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """The full name behind each imported name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    first, dot, rest = ast.unparse(node).partition(".")
    return f"{aliases.get(first, first)}{dot}{rest}"
