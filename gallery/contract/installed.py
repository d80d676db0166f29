"""What the installed Torch-TensorRT offers: every public name, and its options.

``python -m gallery.contract.installed`` writes it to `OPTIONS`, which the contract
reads where the library is not installed. A test holds the two equal.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType

OPTIONS = Path(__file__).with_name("options.json")
ROOT = "torch_tensorrt"
MODULES = (
    ROOT,
    f"{ROOT}.runtime",
    f"{ROOT}.logging",
    f"{ROOT}.dynamo",
    f"{ROOT}.dynamo.backend",
    f"{ROOT}.dynamo.conversion",
    f"{ROOT}.dynamo.debug",
    f"{ROOT}.dynamo.lowering",
    f"{ROOT}.dynamo.partitioning",
    f"{ROOT}.dynamo.runtime",
)
# Functions that take all options of a compilation besides their own.
COMPILERS = {
    f"{ROOT}.compile",
    f"{ROOT}.MutableTorchTensorRTModule",
    f"{ROOT}.convert_method_to_trt_engine",
    f"{ROOT}.dynamo.compile",
    f"{ROOT}.dynamo.convert_exported_program_to_serialized_trt_engine",
    f"{ROOT}.dynamo.cross_compile_for_windows",
    f"{ROOT}.dynamo.runtime.MutableTorchTensorRTModule",
    f"{ROOT}.runtime.MutableTorchTensorRTModule",
}
# Classes that take their arguments as ``**kwargs``: from their docstrings.
BY_HAND = {
    "Input": ["shape", "min_shape", "opt_shape", "max_shape", "profiles", "dtype"]
    + ["format", "tensor_domain", "torch_tensor", "name", "is_shape_tensor"]
    + ["shared_dims"],
    "Device": ["gpu_id", "dla_core", "allow_gpu_fallback"],
}


def installed() -> dict:
    """Release, and for each public name its options; None where it takes any."""
    names: dict[str, list[str] | None] = {}
    for path in MODULES:
        module = importlib.import_module(path)
        for name, value in vars(module).items():
            if name.startswith("_") or _is_of_another_library(value):
                continue
            names[f"{path}.{name}"] = _options(f"{path}.{name}", value)
            if inspect.isclass(value) and not issubclass(value, Enum):
                for method, function in vars(value).items():
                    if isinstance(function, FunctionType | classmethod | staticmethod):
                        full = f"{path}.{name}.{method}"
                        names[full] = _options(full, getattr(value, method))
    names = {name: names[name] for name in names if "._" not in name}
    return {"release": version("torch-tensorrt-rtx"), "names": names}


def _is_of_another_library(value: object) -> bool:
    if isinstance(value, ModuleType):
        return not value.__name__.startswith(ROOT)
    return not str(getattr(value, "__module__", ROOT)).startswith(ROOT)


def _options(path: str, value: object) -> list[str] | None:
    if not callable(value):
        return None
    if inspect.isclass(value) and issubclass(value, Enum):
        return None  # its signature is Python's own, and changes with its version
    name = path.rpartition(".")[2]
    if name in BY_HAND and inspect.isclass(value):
        return sorted(BY_HAND[name])
    # The library's feature guards wrap a function and hide its signature.
    cells = getattr(value, "__closure__", None) or ()
    inside = [cell.cell_contents for cell in cells]
    function = next((f for f in inside if isinstance(f, FunctionType)), value)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    options = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD,)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if path in COMPILERS:
        return sorted(options | _settings())
    return None if takes_any else sorted(options - {"self", "cls"})


def _settings() -> set[str]:
    """What a compilation can be told; other words are dropped without a message."""
    from torch_tensorrt.dynamo import CompilationSettings, compile

    settings = {field.name for field in dataclasses.fields(CompilationSettings)}
    return settings | set(inspect.signature(compile).parameters) - {"kwargs"}


def main() -> None:
    import torch

    from gallery import no_gpu

    if not torch.cuda.is_available():
        no_gpu.let_import()
    OPTIONS.write_text(as_json(installed()), encoding="utf-8")


def as_json(facts: dict) -> str:
    """One name a line, so that a new release shows as a short difference."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(options)}"
        for name, options in sorted(facts["names"].items())
    ]
    return (
        f'{{"release": {json.dumps(facts["release"])},\n"names": {{\n'
        + ",\n".join(lines)
        + "\n}}\n"
    )


if __name__ == "__main__":
    main()
