"""The no-GPU layer: real engines, honest failures, loud refusals.

Every case runs in a process of its own, because the layer replaces what it touches for
good; cases that share an import of the stack share a process.
"""

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

if importlib.util.find_spec("torch_tensorrt") is None:
    pytest.skip("torch-tensorrt-rtx is not installed", allow_module_level=True)

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

torch.manual_seed(0)
model = Net().eval().requires_grad_(False)
x = torch.randn(2, 3, 16, 16)
"""

INSTALL = """
from gallery import no_gpu
no_gpu.install()
import torch_tensorrt
"""


def run(code: str) -> tuple[dict, str]:
    """Run `code` in its own process; return what it put in `result`, and its stderr."""
    ending = "\nimport json\nprint('RESULT' + json.dumps(result))\n"
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code) + ending],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stdout.rsplit("RESULT", 1)[1]), process.stderr


@pytest.fixture(scope="module")
def built() -> dict:
    """Reports after each way to compile, in one process."""
    code = (
        INSTALL
        + NET
        + """
import pathlib, tempfile

result, seen = {}, {"engines": 0, "in_pytorch": 0}

def note(name, check):
    report = no_gpu.report()
    json.dumps(report)
    result[name] = {
        "engines": report["engines"][seen["engines"]:],
        "in_pytorch": report["operators"]["in_pytorch"] - seen["in_pytorch"],
        "left_in_pytorch": report["operators"]["left_in_pytorch"],
        "matches": bool(check),
    }
    seen["engines"] = len(report["engines"])
    seen["in_pytorch"] = report["operators"]["in_pytorch"]

def same(compiled, batch=2):
    x = torch.randn(batch, 3, 16, 16)
    return torch.allclose(compiled(x), model(x), atol=1e-5)

import json
program = torch.export.export(model, (x,))
options = {"min_block_size": 1}
compiled = torch_tensorrt.dynamo.compile(program, inputs=[x], **options)
note("dynamo", same(compiled))

with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "net.pt2"
    torch_tensorrt.save(compiled, str(path), inputs=[x])
    size = path.stat().st_size
    loaded = torch_tensorrt.load(str(path)).module()
    note("saved", same(loaded))
    result["saved"]["size"] = size

raw = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
    program, arg_inputs=[x], **options
)
note("raw", True)
result["raw"]["size"] = len(raw)

compiled = torch.compile(model, backend="tensorrt", options=options)
note("torch.compile", same(compiled))

dynamic = torch.compile(model, backend="tensorrt", options=options)
dynamic_x = torch.randn(2, 3, 16, 16)
torch._dynamo.mark_dynamic(dynamic_x, 0, min=2, max=8)
dynamic(dynamic_x)
note("dynamic", same(dynamic, 2) and same(dynamic, 5))

attention = torch.nn.functional.scaled_dot_product_attention
compiled = torch.compile(
    lambda q: attention(q, q, q) * 2, backend="tensorrt", options=options
)
q = torch.randn(1, 2, 8, 16)
note("attention", torch.allclose(compiled(q), attention(q, q, q) * 2, atol=1e-5))

def without_a_converter(q):
    return torch.cummax(torch.relu(q), 0)[0] * 2

compiled = torch.compile(without_a_converter, backend="tensorrt", options=options)
note("left", torch.allclose(compiled(q), without_a_converter(q), atol=1e-5))

compiled = torch_tensorrt.dynamo.compile(
    program,
    inputs=[x],
    torch_executed_ops={"torch.ops.aten.relu.default"},
    immutable_weights=False,
    **options,
)
note("split", same(compiled))

def refused(action):
    try:
        action()
    except no_gpu.NoGpuError as error:
        return str(error)
    return ""

engine = next(iter(compiled.children()))
result["refused"] = {
    "refit": refused(
        lambda: torch_tensorrt.dynamo.refit_module_weights(compiled, program)
    ),
    "layer info": refused(engine.get_layer_info),
    "weight streaming": refused(
        lambda: torch_tensorrt.runtime.weight_streaming(compiled)
    ),
    "CUDA graph": refused(
        lambda: torch_tensorrt.runtime.enable_cudagraphs(compiled)
    ),
    "trace": refused(lambda: torch.jit.trace(compiled, x)),
}

from torch_tensorrt.dynamo.conversion import dynamo_tensorrt_converter
from torch_tensorrt.dynamo.conversion._ConverterRegistry import ConverterPriority

@dynamo_tensorrt_converter(
    torch.ops.aten.relu.default,
    priority=ConverterPriority.HIGH,
    supports_dynamic_shapes=True,
)
def broken(ctx, target, args, kwargs, name):
    raise RuntimeError("this converter is broken")

def fails(action):
    try:
        action()
    except Exception as error:
        return "this converter is broken" in str(error)
    return False

torch._dynamo.reset()
compiled = torch.compile(model, backend="tensorrt", options=options)
result["broken"] = {
    "torch.compile": fails(lambda: compiled(x)),
    "dynamo": fails(
        lambda: torch_tensorrt.dynamo.compile(program, inputs=[x], **options)
    ),
}
"""
    )
    result, result["stderr"] = run(code)
    return result


@pytest.mark.parametrize("way", ["dynamo", "torch.compile", "dynamic", "attention"])
def test_whole_graph_becomes_one_engine_and_matches_eager(built, way):
    assert built[way]["matches"]
    assert len(built[way]["engines"]) == 1
    assert built[way]["in_pytorch"] == 0
    assert built[way]["engines"][0]["operators"] > 0


def test_an_engine_is_described(built):
    (engine,) = built["dynamo"]["engines"]
    assert engine["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [2, 3, 16, 16]}
    ]
    assert [tensor["shape"] for tensor in engine["outputs"]] == [[2, 5]]
    assert engine["targets"] == "8.0 and later"
    assert engine["refittable_asked"] is False
    assert engine["size_bytes"] > 0


def test_a_dynamic_batch_is_described(built):
    (engine,) = built["dynamic"]["engines"]
    shapes = [t["shape"] for t in engine["inputs"] if isinstance(t["shape"], dict)]
    image = next(shape for shape in shapes if len(shape["min"]) == 4)
    assert image["opt"] == [2, 3, 16, 16]
    assert image["max"] == [8, 3, 16, 16]


def test_saving_writes_the_engine_and_loading_runs(built):
    assert built["saved"]["matches"]
    assert built["saved"]["size"] > built["dynamo"]["engines"][0]["size_bytes"]


def test_raw_engine_bytes(built):
    (engine,) = built["raw"]["engines"]
    assert built["raw"]["size"] == engine["size_bytes"]


def test_operators_left_in_pytorch_are_reported(built):
    assert built["left"]["matches"]
    assert built["left"]["in_pytorch"] == 1
    assert "aten.cummax.default" in built["left"]["left_in_pytorch"]


def test_operators_that_the_tutorial_forbids_are_not(built):
    assert built["split"]["matches"]
    assert len(built["split"]["engines"]) == 2
    assert built["split"]["in_pytorch"] == 0
    assert "aten.relu.default" not in built["split"]["left_in_pytorch"]
    assert all(engine["refittable_asked"] for engine in built["split"]["engines"])


def test_what_needs_a_gpu_is_refused(built):
    for what, message in built["refused"].items():
        assert "needs a GPU" in message, what


def test_a_failed_build_raises(built):
    assert built["broken"] == {"torch.compile": True, "dynamo": True}


def test_harmless_logs_are_silent(built):
    assert "cudaError 35" not in built["stderr"]
    assert "already in use" not in built["stderr"]


def test_another_release_a_gpu_and_a_missing_name_are_refused():
    code = """
    import importlib.metadata
    from gallery import no_gpu

    def refusal():
        try:
            no_gpu.install()
        except no_gpu.NoGpuError as error:
            return str(error)
        return "installed"

    result = {}
    real = importlib.metadata.version

    def no_library(name):
        if name.startswith("torch-tensorrt"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    importlib.metadata.version = no_library
    result["absent"] = refusal()
    importlib.metadata.version = (
        lambda name: "2.99.0" if name == "torch-tensorrt-rtx" else real(name)
    )
    result["release"] = refusal()
    importlib.metadata.version = real

    import torch

    torch.cuda.is_available = lambda: True
    result["gpu"] = refusal()
    torch.cuda.is_available = lambda: False
    del torch.cuda.mem_get_info
    result["missing"] = refusal()
    """
    result, _ = run(code)
    assert "pip install torch-tensorrt-rtx==2.14.0" in result["absent"]
    assert "2.99.0" in result["release"] and "2.14.0" in result["release"]
    assert "has a GPU" in result["gpu"]
    assert "torch.cuda.mem_get_info does not exist" in result["missing"]


@pytest.fixture(scope="module")
def asked() -> dict:
    """What becomes of less usual wishes, in one process."""
    code = (
        INSTALL
        + NET
        + """
import hashlib, os, tempfile
import tensorrt

result, built, unread = {}, [], []
result["inputs that no layer reads"] = unread
real_build = tensorrt.Builder.build_serialized_network

def build(self, network, config):
    data = real_build(self, network, config)
    built.append(hashlib.sha256(bytes(data)).hexdigest())
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    read = [layer.get_input(i) for layer in layers for i in range(layer.num_inputs)]
    names = {tensor.name for tensor in read if tensor is not None}
    inputs = [network.get_input(i).name for i in range(network.num_inputs)]
    unread.extend(name for name in inputs if name not in names)
    return data

tensorrt.Builder.build_serialized_network = build
attention = torch.nn.functional.scaled_dot_product_attention
options = {"min_block_size": 1}
q = torch.randn(1, 2, 8, 16)
mask = torch.zeros(8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), -1e9)
ways = {
    "open": lambda q: attention(q, q, q) * 2,
    "causal": lambda q: attention(q, q, q, is_causal=True) * 2,
    "masked": lambda q: attention(q, q, q, attn_mask=mask) * 2,
    "scaled": lambda q: attention(q, q, q, scale=0.5) * 2,
}
result["attention"] = {}
for name, way in ways.items():
    torch._dynamo.reset()
    already = len(no_gpu.engines())
    compiled = torch.compile(way, backend="tensorrt", options=options)
    right = torch.allclose(compiled(q), way(q), atol=1e-5)
    engines = len(no_gpu.engines()) - already
    result["attention"][name] = [right, engines, built[-1]]
result["causal is not open"] = not torch.allclose(
    ways["causal"](q), ways["open"](q), atol=1e-2
)
result["left after attention"] = no_gpu.report()["operators"]["in_pytorch"]

# The same operator stays in PyTorch at two places; engines stand around it.
def without_a_converter(x):
    x = torch.relu(x) * 2
    x = torch.special.bessel_j0(x)
    x = torch.relu(x + 1) * 3
    x = torch.special.bessel_j0(x)
    return (x * 2).sum(1)

already = no_gpu.report()
torch._dynamo.reset()
y = torch.randn(3, 4)
compiled = torch.compile(without_a_converter, backend="tensorrt", options=options)
right = torch.allclose(compiled(y), without_a_converter(y), atol=1e-5)
report = no_gpu.report()
engines = report["engines"][len(already["engines"]):]
result["split"] = {
    "right": right,
    "outputs": [engine["outputs"][0]["shape"] for engine in engines],
    "operators": [engine["operators"] for engine in engines],
    "inside": report["operators"]["in_engines"] - already["operators"]["in_engines"],
    "left": report["operators"]["in_pytorch"] - already["operators"]["in_pytorch"],
    "names": report["operators"]["left_in_pytorch"],
}

# A dry run tells what would be built, and builds nothing.
already = no_gpu.report()
program = torch.export.export(model, (x,))
planned = torch_tensorrt.dynamo.compile(program, inputs=[x], dryrun=True, **options)
also = torch_tensorrt.dynamo.compile(
    torch.export.export(model, (x,)),
    inputs=[x],
    dryrun=True,
    torch_executed_ops={"torch.ops.aten.relu.default"},
    **options,
)
result["dry run"] = {
    "same": no_gpu.report() == already,
    "runs": torch.allclose(planned(x), model(x), atol=1e-5),
}

compiled = torch_tensorrt.dynamo.compile(program, inputs=[x], **options)
formats = ["torchscript", "aot_inductor", "executorch"]
result["formats"] = {}
with tempfile.TemporaryDirectory() as folder:
    for name in formats:
        path = os.path.join(folder, name)
        try:
            torch_tensorrt.save(compiled, path, output_format=name, inputs=[x])
        except no_gpu.NoGpuError as error:
            result["formats"][name] = [str(error), os.path.exists(path)]
    path = os.path.join(folder, "model.pt2")
    torch_tensorrt.save(compiled, path, output_format="exported_program", inputs=[x])
    result["exported"] = os.path.getsize(path) > len(
        next(iter(compiled.children())).serialized_engine
    )
"""
    )
    return run(code)[0]


@pytest.mark.parametrize("mask", ["open", "causal", "masked", "scaled"])
def test_attention_becomes_one_engine_with_its_mask(asked, mask):
    right, engines, _ = asked["attention"][mask]
    assert right
    assert engines == 1


def test_an_engine_knows_its_mask_and_scale(asked):
    """The PyTorch graph that runs here would hide a mask that the engine lost."""
    digests = {name: digest for name, (_, _, digest) in asked["attention"].items()}
    assert asked["causal is not open"]
    assert len(set(digests.values())) == 4, digests
    assert asked["left after attention"] == 0
    assert asked["inputs that no layer reads"] == []


def test_several_engines_are_described_in_their_order(asked):
    assert asked["split"]["right"]
    assert asked["split"]["outputs"] == [[3, 4], [3, 4], [3]]
    assert all(count > 0 for count in asked["split"]["operators"])
    assert asked["split"]["inside"] == sum(asked["split"]["operators"])


def test_an_operator_left_behind_twice_counts_twice(asked):
    assert asked["split"]["left"] == 2
    names = [name for name in asked["split"]["names"] if "bessel" in name]
    assert names == ["aten.special_bessel_j0.default"]


def test_a_dry_run_builds_and_counts_nothing(asked):
    assert asked["dry run"] == {"same": True, "runs": True}


@pytest.mark.parametrize("name", ["torchscript", "aot_inductor", "executorch"])
def test_formats_that_run_the_engine_are_refused(asked, name):
    message, written = asked["formats"][name]
    assert message == f"Saving as {name} runs the engine: needs a GPU."
    assert not written


def test_an_exported_program_holds_the_engine(asked):
    assert asked["exported"]
