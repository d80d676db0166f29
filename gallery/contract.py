"""What every tutorial script promises. A test holds each of them to it."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize

from gallery.script import Script

MAX_CODE_LINES = 200
MORE_CODE_LINES = {
    # A server takes more steps than a compilation; its files are strings in the script.
    "serving_torch_tensorrt_with_triton": 280,
}
MAX_DESCRIPTION = 160
FORBIDDEN_OPTIONS = {
    "enabled_precisions",
    "use_explicit_typing",
    "use_python_runtime",
    "truncate_long_and_double",
    "debug",
    "pretrained",
}
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
}
TYPED_FIGURE = re.compile(
    r"\b\d+(?:\.\d+)?\s?(?:x|×|times|ms|µs|GB/s|TFLOP/?s|percent|%)(?!\w)",
    re.IGNORECASE,
)


def problems(script: Script) -> list[str]:
    """Everything in which the script breaks its contract, in words."""
    tree = ast.parse(script.path.read_text(encoding="utf-8"))
    prose = [block.content for block in script.blocks if block.type == "text"]
    return [
        *_header(script, prose[0]),
        *_code(script, tree),
        *_imports(tree, prose[0]),
        *_prose(prose),
    ]


def _header(script: Script, docstring: str):
    if not script.description or script.description.startswith(".."):
        yield "The docstring has no description below its title."
    elif len(script.description) > MAX_DESCRIPTION:
        yield (
            f"The description has {len(script.description)} characters; a card holds "
            f"{MAX_DESCRIPTION}."
        )
    last_line = script.path.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
    is_last = last_line.startswith("# sphinx_gallery_tags")
    if not is_last or not 2 <= len(script.tags) <= 6:
        yield (
            "There must be 2 to 6 tags, on the last line: "
            "# sphinx_gallery_tags = ['...', '...']"
        )
    if not installs(docstring):
        yield "The docstring has no line `pip install ...`."


def installs(docstring: str) -> list[str]:
    """Import names of the packages that the docstring's pip line installs."""
    line = re.search(r"^ +pip install (.+)$", docstring, re.MULTILINE)
    words = line[1].split() if line else []
    names = [re.split(r"[<>=!\[]", word.strip("'\""))[0] for word in words]
    return [IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names]


def code_lines(script: Script) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    source = "\n".join(script.code_cells)
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
    skip |= {tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def _code(script: Script, tree: ast.Module):
    most = MORE_CODE_LINES.get(script.name, MAX_CODE_LINES)
    if code_lines(script) > most:
        yield f"{code_lines(script)} lines of code; at most {most}."
    for node in ast.walk(tree):
        words = []
        if isinstance(node, ast.keyword):
            words = [node.arg]
        elif isinstance(node, ast.Dict):
            words = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        for word in FORBIDDEN_OPTIONS.intersection(map(str, words)):
            yield f"The option {word!r} is gone in Torch-TensorRT 2.14."
        if isinstance(node, ast.Name) and node.id in {"__file__", "get_ipython"}:
            yield f"{node.id} does not exist in both a script and a notebook."


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of all imported modules."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else node.module.split(".")[0])
    return names


def _imports(tree: ast.Module, docstring: str):
    known = sys.stdlib_module_names | WITH_THE_STACK | set(installs(docstring))
    for name in sorted(imported(tree) - known):
        yield f"Imports {name}, which its pip line does not install."
    if "argparse" in imported(tree):
        yield "Uses argparse: a notebook has no command line."


def _prose(prose: list[str]):
    for text in prose:
        for figure in TYPED_FIGURE.finditer(text):
            yield f"A figure typed into prose: {figure[0]!r}. Let the code print it."
    if not re.match(r"\s*Takeaways\n-+\n", prose[-1]):
        yield "The last text must be the section 'Takeaways'."


def torch_tensorrt_calls(script: Script) -> list[tuple[str, str]]:
    """Every option that the script passes to Torch-TensorRT, with its function.

    Returns
    -------
    Pairs (dotted name of the function, keyword). Options of
    ``torch.compile(backend="tensorrt", options={...})`` are those of
    ``torch_tensorrt.dynamo.compile``.
    """
    tree = ast.parse(script.path.read_text(encoding="utf-8"))
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {
                a.asname or a.name: f"{node.module}.{a.name}" for a in node.names
            }
    # Dicts that are assigned to a name and passed on as options=NAME or **NAME.
    dicts = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, _, rest = ast.unparse(node.func).partition(".")
        name = f"{aliases.get(first, first)}.{rest}".rstrip(".")
        if name == "torch.compile":
            options = [k.value for k in node.keywords if k.arg == "options"]
            backend = [k.value for k in node.keywords if k.arg == "backend"]
            values = [b.value for b in backend if isinstance(b, ast.Constant)]
            if {"tensorrt", "torch_tensorrt"}.intersection(values):
                for option in options:
                    keys = _keys(option, dicts)
                    found += [("torch_tensorrt.dynamo.compile", key) for key in keys]
        elif name.startswith("torch_tensorrt."):
            for keyword in node.keywords:
                keys = [keyword.arg] if keyword.arg else _keys(keyword.value, dicts)
                found += [(name, key) for key in keys]
    return found


def _keys(node: ast.expr, dicts: dict[str, ast.expr]) -> list[str]:
    if isinstance(node, ast.Name):
        node = dicts.get(node.id, node)
    if isinstance(node, ast.Dict):
        return [key.value for key in node.keys if isinstance(key, ast.Constant)]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict":
        return [keyword.arg for keyword in node.keywords if keyword.arg]
    return []
