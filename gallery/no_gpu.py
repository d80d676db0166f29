"""Let Torch-TensorRT build real engines on a machine that has no GPU.

TensorRT-RTX compiles in two phases. The first, ahead of time, needs no GPU: it turns a
network into a portable engine. Only the second, just in time, does. Torch-TensorRT does
not expect that and asks for a GPU at several points; `install` replaces those points,
and nothing else. What then runs is the library's own export, lowering, partitioning,
conversion and engine build. Only the *execution* of an engine differs: the PyTorch
graph that the engine was built from runs in its place, on the CPU.

So a tutorial's comparison with eager checks here that the lowered and partitioned
graphs compute what the model does. It does not check TensorRT's kernels: that takes a
GPU.

This is a tool of this gallery. A tutorial never imports it: `install` is called in the
tutorial's process before its first cell. Nothing is replaced on a machine with a GPU.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import inspect
import logging
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

TESTED_VERSIONS = ("2.14.0",)
"""Releases of Torch-TensorRT whose internals the replacements below were tried on."""

DEFAULT_TARGETS = "8.0 and later"
"""What an engine targets unless the builder configuration says otherwise."""

HARMLESS_LOGS = (
    # TensorRT-RTX looks for a CUDA driver, finds none, and goes on without; 100 where
    # there is a driver, and its GPUs are hidden.
    "cudaError 35",
    "cudaError 100",
    "CUDA initialization failure with error: 35",
    "CUDA initialization failure with error: 100",
    # Two layers asked for one name; TensorRT keeps the first, which is all it means.
    "already in use",
    # `save` below asks for this (see there), not the tutorial.
    "retrace is False, inputs or arg_inputs is not necessary",
)


class NoGpuError(RuntimeError):
    """Something cannot be done without a GPU, or the layer cannot be installed."""


class _EngineNeedsGpu(NoGpuError, AttributeError):
    """A use of an engine that needs a GPU (an AttributeError too, for `hasattr`)."""


_engines: list[dict[str, Any]] = []
_left_in_pytorch: list[str] = []
# The PyTorch graphs of engines that were pickled, so that one loaded again can run.
_graphs_of_saved: dict[str, Any] = {}
_installed = False


def install() -> None:
    """Replace what asks for a GPU; must come before `import torch_tensorrt`."""
    global _installed
    if _installed:
        return
    _check_versions()
    import torch

    if torch.cuda.is_available():
        raise NoGpuError(
            "This machine has a GPU. The no-GPU layer is for machines without one: "
            "run the tutorial itself instead."
        )
    _replace_device_queries(torch)
    import torch_tensorrt

    if not torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
        raise NoGpuError(
            "Standard TensorRT builds no engine without a GPU; TensorRT-RTX does. "
            "Install torch-tensorrt-rtx in place of torch-tensorrt."
        )
    _silence_harmless_logs()
    _replace_runtime(torch, torch_tensorrt)
    _replace_build()
    _replace_conversion()
    _replace_torch_compile()
    _replace_save(torch_tensorrt)
    _installed = True


def let_import() -> None:
    """Let `import torch_tensorrt` succeed, and nothing more."""
    import torch

    _replace_device_queries(torch)


def engines() -> list[dict[str, Any]]:
    """The engines built in this process so far, oldest first."""
    return copy.deepcopy(_engines)


def report() -> dict[str, Any]:
    """What was built in this process, and with what, in a form that JSON can hold."""
    import torch

    return {
        "engines": engines(),
        "operators": {
            "in_engines": sum(engine["operators"] for engine in _engines),
            "in_pytorch": len(_left_in_pytorch),
            "left_in_pytorch": sorted(set(_left_in_pytorch)),
        },
        "versions": {
            "torch": torch.__version__,
            "torch_tensorrt": _version_of("torch-tensorrt-rtx"),
            "tensorrt": _version_of("tensorrt-rtx"),
        },
    }


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_versions() -> None:
    # Read from the metadata, because importing the library is what needs replacing.
    if _version_of("torch") is None:
        raise NoGpuError("torch is not installed: pip install torch-tensorrt-rtx")
    version = _version_of("torch-tensorrt-rtx")
    if version is None:
        standard = _version_of("torch-tensorrt")
        raise NoGpuError(
            "torch-tensorrt-rtx is not installed"
            + (f" (torch-tensorrt {standard} is, but needs a GPU)" if standard else "")
            + f": pip install torch-tensorrt-rtx=={TESTED_VERSIONS[-1]}"
        )
    if version.split("+")[0] not in TESTED_VERSIONS:
        raise NoGpuError(
            f"torch-tensorrt-rtx {version} is installed, but this layer was tried "
            f"only on {', '.join(TESTED_VERSIONS)}. Install one of those, or check "
            "each replacement in gallery/no_gpu.py and add the release to "
            "TESTED_VERSIONS."
        )


def _replace(owner: Any, name: str, new: Any) -> Any:
    """Set `owner.name` to `new` and return what it was; fail where it is missing."""
    missing = object()
    old = getattr(owner, name, missing)
    if old is missing:
        where = getattr(owner, "__name__", repr(owner))
        raise NoGpuError(
            f"{where}.{name} does not exist in torch-tensorrt-rtx "
            f"{_version_of('torch-tensorrt-rtx')} with torch {_version_of('torch')}: "
            "gallery/no_gpu.py has to follow this release."
        )
    setattr(owner, name, new)
    return old


def _replace_device_queries(torch: Any) -> None:
    # `import torch_tensorrt` asks for the capability, to tell Jetson boards apart.
    _replace(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    # The default target of a compilation is "the current device".
    _replace(torch.cuda, "current_device", lambda: 0)
    # Asked before a build, to warn where little GPU memory is left.
    _replace(torch.cuda, "mem_get_info", lambda device=None: (1 << 40, 1 << 40))
    # Written into the engine's record when it is saved: the lowest of its targets.
    properties = types.SimpleNamespace(major=8, minor=0, name="no GPU")
    _replace(torch.cuda, "get_device_properties", lambda device=None: properties)


class _HarmlessLogFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(text in message for text in HARMLESS_LOGS)


def _silence_harmless_logs() -> None:
    from torch_tensorrt import _compile
    from torch_tensorrt import logging as library_logging

    for logger in (library_logging._LOGGER, _compile.logger):
        logger.addFilter(_HarmlessLogFilter())


class _SerializationConfig:
    """Stands for TensorRT's; what it says to leave out is left in."""

    def set_flag(self, flag: Any) -> bool:
        return True

    def clear_flag(self, flag: Any) -> bool:
        return True


class _SerializedEngine:
    """What `tensorrt.Runtime` gives without a GPU: the engine's bytes."""

    def __init__(self, data: Any) -> None:
        self._data = bytes(data)

    def serialize(self) -> bytes:
        return self._data

    def create_serialization_config(self) -> _SerializationConfig:
        return _SerializationConfig()

    def serialize_with_config(self, config: _SerializationConfig) -> bytes:
        return self._data

    def get_aliased_input_tensor(self, name: str) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        raise _EngineNeedsGpu(f"Inspecting an engine ({name}) needs a GPU.")


class _Runtime:
    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, data: Any) -> _SerializedEngine:
        return _SerializedEngine(data)


def _make_engine_class(torch: Any) -> type:
    from torch_tensorrt.dynamo.runtime import _serialized_engine_layout as layout
    from torch_tensorrt.dynamo.runtime._TRTEngine import EngineSerializer

    class NoGpuEngine(EngineSerializer):
        """In place of the C++ engine: keeps its record, runs its PyTorch graph."""

        requires_native_multidevice = False

        def __init__(self, info: Any) -> None:
            info = list(info)
            # The C++ runtime takes an engine for its build device's capability alone
            # unless it is marked as hardware compatible; one of TensorRT-RTX is.
            info[layout.HW_COMPATIBLE_IDX] = "1"
            super().__init__(info)
            self.digest = hashlib.sha256(info[layout.ENGINE_IDX]).hexdigest()
            self.graph = _graphs_of_saved.get(self.digest)
            self.unowned_outputs = False

        def __reduce__(self) -> Any:
            _graphs_of_saved[self.digest] = self.graph
            return super().__reduce__()

        def __getstate__(self) -> tuple[list[Any], str]:
            # What the library reads from an engine's state: the record, and its kind.
            return self.serialized_info, "NoGpuEngine"

        def get_serialized_metadata(self) -> str:
            return self.serialized_info[layout.SERIALIZED_METADATA_IDX]

        def set_output_tensors_as_unowned(self, enabled: bool) -> None:
            self.unowned_outputs = enabled

        def are_output_tensors_unowned(self) -> bool:
            return self.unowned_outputs

        def __getattr__(self, name: str) -> Any:
            raise _EngineNeedsGpu(f"{name} of a TensorRT engine needs a GPU.")

        def __call__(self, inputs: list[Any]) -> list[Any]:
            if self.graph is None:
                raise NoGpuError(
                    "This engine was built by another process, so the PyTorch graph "
                    "that could stand for it is not known. Running it needs a GPU."
                )
            if torch.jit.is_tracing() or torch.compiler.is_exporting():
                raise NoGpuError(
                    "Tracing a compiled module needs a GPU: here the trace would hold "
                    "PyTorch operators instead of the engine."
                )
            with torch.no_grad():
                outputs = self.graph(*inputs)
            return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]

    return NoGpuEngine


def _replace_runtime(torch: Any, torch_tensorrt: Any) -> None:
    import tensorrt
    from torch_tensorrt import _Device
    from torch_tensorrt.dynamo import _refit
    from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

    # After a build the library loads the engine onto the GPU, only to serialize it.
    _replace(tensorrt, "Runtime", _Runtime)
    # Tensors and modules are moved to a compilation's device, which is the CPU here.
    _replace(_Device.Device, "to", lambda self, kind: torch.device("cpu"))

    # The C++ engine needs a GPU as soon as it is made.
    engine_class = _make_engine_class(torch)
    _replace(torch.classes.tensorrt, "Engine", engine_class)
    # The operator takes the C++ engine alone; a program that was loaded calls it.
    execute = torch.ops.tensorrt.execute_engine.default
    _replace(execute, "_op", lambda inputs, engine: engine(inputs))

    def setup_engine(self: Any) -> None:
        if self.engine is None:
            self.engine = engine_class(self._pack_engine_info())

    def forward(self: Any, *inputs: Any) -> Any:
        outputs = self.get_engine()(inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    # The real ones also open a runtime cache, and move the inputs to the GPU.
    _replace(TorchTensorRTModule, "setup_engine", setup_engine)
    _replace(TorchTensorRTModule, "forward", forward)

    # Without a GPU these crash inside TensorRT or CUDA.
    def refuse(what: str) -> Callable[..., Any]:
        def refused(*args: Any, **kwargs: Any) -> Any:
            raise NoGpuError(f"{what} needs a GPU.")

        return refused

    refuse_refit = refuse("Refitting an engine")
    _replace(_refit, "_refit_single_trt_engine_with_gm", refuse_refit)
    _replace(torch_tensorrt.runtime, "enable_cudagraphs", refuse("A CUDA graph"))


def _replace_build() -> None:
    import tensorrt
    from torch_tensorrt.dynamo.conversion import TRTInterpreter

    # From each network to the graph's operators and the input specifications.
    sources: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()

    def construct(self: Any) -> None:
        real_construct(self)
        operators = len(list(_operators_of(self.module)))
        sources[self.ctx.net] = operators, self.input_specs

    # Only notes what the network is made from, for the report.
    real_construct = _replace(TRTInterpreter, "_construct_trt_network_def", construct)

    flags = tensorrt.BuilderFlag
    refit_flags = (flags.REFIT, flags.REFIT_IDENTICAL, flags.STRIP_PLAN)

    def build(self: Any, network: Any, config: Any) -> Any:
        # The builder needs a GPU for a refittable engine, so it builds a plain one.
        refittable = any(config.get_flag(flag) for flag in refit_flags)
        for flag in refit_flags:
            config.clear_flag(flag)
        data = real(self, network, config)
        if data is not None:
            engine = _describe(network, config, *sources.get(network, (0, ())))
            engine["size_bytes"] = data.nbytes
            engine["refittable_asked"] = refittable
            _engines.append(engine)
        return data

    real = _replace(tensorrt.Builder, "build_serialized_network", build)


def _describe(network: Any, config: Any, operators: int, specs: Any) -> dict:
    def describe_tensor(tensor: Any) -> dict[str, Any]:
        dtype = str(tensor.dtype).removeprefix("DataType.").lower()
        dtype = {"float": "float32", "half": "float16", "bf16": "bfloat16"}.get(
            dtype, dtype
        )
        return {"name": tensor.name, "dtype": dtype, "shape": list(tensor.shape)}

    targets = [
        str(config.get_compute_capability(i)).removeprefix("ComputeCapability.")
        for i in range(config.num_compute_capabilities)
    ]
    inputs = [describe_tensor(network.get_input(i)) for i in range(network.num_inputs)]
    for tensor, spec in zip(inputs, specs, strict=False):
        if isinstance(spec.shape, dict):  # dynamic: the engine's optimization profile
            tensor["shape"] = {
                name.removesuffix("_shape"): list(shape)
                for name, shape in spec.shape.items()
            }
    return {
        "inputs": inputs,
        "outputs": [
            describe_tensor(network.get_output(i)) for i in range(network.num_outputs)
        ],
        "targets": ", ".join(targets) or DEFAULT_TARGETS,
        "operators": operators,
    }


def _replace_conversion() -> None:
    import torch
    from torch_tensorrt.dynamo import _compiler
    from torch_tensorrt.dynamo.backend import backends

    def convert(module: Any, *args: Any, **kwargs: Any) -> Any:
        # Copied first, because the conversion deletes the parameters that it froze.
        graph = torch.fx.GraphModule(module, copy.deepcopy(module.graph))
        converted = real_convert(module, *args, **kwargs)
        converted.setup_engine()
        converted.engine.graph = graph
        return converted

    def compile_module(*args: Any, **kwargs: Any) -> Any:
        compiled = real_compile(*args, **kwargs)
        settings = signature.bind(*args, **kwargs).arguments.get("settings")
        if settings is None or not settings.dryrun:
            # One that the tutorial forbids is no finding about TensorRT.
            forbidden = settings.torch_executed_ops if settings else ()
            names = {str(target).removeprefix("torch.ops.") for target in forbidden}
            left = _operators_of(compiled)
            _left_in_pytorch.extend(name for name in left if name not in names)
        return compiled

    signature = inspect.signature(_compiler.compile_module)
    # Attaches the graph that runs in the engine's place.
    real_convert = _replace(_compiler, "convert_module", convert)
    # Counts the operators that no engine holds; again two modules hold the name.
    real_compile = _replace(_compiler, "compile_module", compile_module)
    _replace(backends, "compile_module", compile_module)


def _operators_of(module: Any) -> Iterator[str]:
    """Names of the operators in a graph and its subgraphs, engines left out."""
    from torch import SymInt
    from torch.fx import GraphModule

    for node in module.graph.nodes:
        if node.op == "call_module":
            submodule = module.get_submodule(node.target)
            if isinstance(submodule, GraphModule):
                yield from _operators_of(submodule)
        elif node.op == "call_function" and node.target is not operator.getitem:
            computes_a_size = isinstance(node.meta.get("val"), (int, SymInt))
            if not computes_a_size:
                yield str(node.target)


def _replace_torch_compile() -> None:
    import torch
    from torch_tensorrt.dynamo.backend import backends
    from torch_tensorrt.dynamo.conversion import aten_ops_converters as converters

    def parse(kwargs: Any) -> Any:
        settings, engine_cache = real_parse(kwargs)
        settings.pass_through_build_failures = True
        return settings, engine_cache

    # By default a failed build falls back to PyTorch with no more than a warning.
    real_parse = _replace(backends, "parse_dynamo_kwargs", parse)

    # On a CPU, attention is traced to an operator of its own, which has no converter.
    flash_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default

    @converters.dynamo_tensorrt_converter(
        flash_attention,
        capability_validator=converters.scaled_dot_product_flash_attention_validator,
        supports_dynamic_shapes=True,
    )
    def attention(ctx: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        output = converters.impl.attention.scaled_dot_product_attention(
            ctx,
            target,
            converters.SourceIR.ATEN,
            name,
            *args[:3],
            attn_mask=kwargs.get("attn_mask"),
            dropout_p=converters.args_bounds_check(args, 3, 0.0),
            is_causal=converters.args_bounds_check(args, 4, False),
            scale=kwargs.get("scale"),
        )
        return output, None


def _replace_save(torch_tensorrt: Any) -> None:
    import torch

    def save(module: Any, file_path: str = "", **options: Any) -> None:
        if options.get("output_format", "exported_program") != "exported_program":
            raise NoGpuError(
                f"Saving as {options['output_format']} runs the engine: needs a GPU."
            )
        if isinstance(module, torch.fx.GraphModule):
            options["retrace"] = False
        real(module, file_path, **options)

    # By default a module is traced again, which would put the PyTorch graph in the
    # file; without, the file holds the engine, which an RTX GPU elsewhere can run.
    real = _replace(torch_tensorrt, "save", save)
