"""
A converter that nobody writes
==============================

Bring an operator of your own into an engine without writing a converter: from its
PyTorch body, or as a plugin that Torch-TensorRT generates.

At a glance
-----------

- A model with four operators of its own becomes :recorded:`engines_left` engines with
  PyTorch between them. The operator's body, handed over as a decomposition, makes it
  :recorded:`engines_inside`. A converter generated from the body does so as well.
- In a CUDA graph, at 8x512, the model with the operator in PyTorch takes
  :recorded:`left_ms` ms, with the body inside the engine :recorded:`inside_ms` ms. The
  best that PyTorch does alone takes :recorded:`pytorch_ms` ms.
- With a kernel by Inductor in the operator, still outside the engines, it takes
  :recorded:`kernel_ms` ms.
- Generated plugins need standard TensorRT. TensorRT-RTX refuses them.
- Not for operators without a body that TensorRT knows: an operator that is only a
  kernel stays one (:doc:`custom_kernel_plugins`).

What you will learn
-------------------

- How one PyTorch function gives an operator its kernel, its shape function and its
  way into an engine.
- What ``custom_op`` generates on standard TensorRT, and where that is too little.
- How to generate a converter from a body with the converters that are there.
- How to prove that a body is right for every size, empty and one included.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* sympy matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor; the cell on
plugins builds one there, which is not recorded on this page. You need to know PyTorch's
custom operators. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# One function, three uses
# ------------------------
# The blocks of Mamba-2 end in a *gated norm*: a root mean square norm of a product with
# a gate. Who has a kernel for it wraps it as a *custom operator*, which no compiler
# takes apart. Torch-TensorRT translates a model operator by operator, with a
# *converter* for each, and TensorRT builds an *engine* of the result, an optimized
# program for this GPU. For our operator there is no converter. But there is one for
# every step of the same thing written in PyTorch: its *body*.

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

logging.disable(logging.WARNING)  # hints about optional packages

import torch
import torch_tensorrt
from torch.nn.functional import pad, silu
from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
width, tokens = (1024, 512) if device.type == "cuda" else (64, 16)


def norm_body(
    x: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    gated = x.float() * silu(gate.float())
    scale = torch.rsqrt(gated.square().mean(-1, keepdim=True) + eps)
    return (gated * scale * weight.float()).to(x.dtype)


gated_norm = torch.library.custom_op("tutorial::gated_norm", norm_body, mutates_args=())
gated_norm.register_fake(norm_body)
norm_op = torch.ops.tutorial.gated_norm.default

# %%
# The operator has the body as its kernel here, and as its *fake kernel* too: the
# function from which compilers learn the shape of its answer. A fake kernel is mostly
# written by hand. PyTorch runs the body on tensors without memory just as well.
#
# A second operator has a good kernel, as a library's would: Inductor fuses the body
# into one when it is first called. Where it is measured, a slow kernel is no longer the
# reason for a slow call.

fused_norm = torch.library.custom_op(
    "tutorial::fused_norm",
    torch.compile(norm_body, dynamic=False),
    mutates_args=(),
    schema="(Tensor x, Tensor gate, Tensor weight, float eps=1e-05) -> Tensor",
)
fused_norm.register_fake(norm_body)
fused_op = torch.ops.tutorial.fused_norm.default

# %%
# Four blocks make a model.


class Block(torch.nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.up = torch.nn.Linear(width, 4 * width)
        self.weight = torch.nn.Parameter(torch.ones(2 * width))
        self.down = torch.nn.Linear(2 * width, width)

    def forward(self, x):
        value, gate = self.up(x).chunk(2, dim=-1)
        return x + self.down(self.norm(value, gate, self.weight))


def make_model(norm):
    torch.manual_seed(0)  # the same weights, whatever the operator
    model = torch.nn.Sequential(*(Block(norm) for _ in range(4)))
    return model.eval().requires_grad_(False).to(device, dtype)


def engines_of(module):
    return sum(isinstance(part, TorchTensorRTModule) for part in module.modules())


model = make_model(gated_norm)
print("Weights: random, a model of this page's own")
inputs, fresh = torch.randn(2, 8, tokens, width, device=device, dtype=dtype)

# %%
# Compiled as it is, the operator stays in PyTorch: each one breaks the model in two.
# (``torch_executed_ops`` says so aloud, so that nothing below changes this model.) The
# other way hands the body over as a *decomposition*, before TensorRT sees the program.
# ``run_decompositions`` is PyTorch's own, and replaces what the table names, no more.


def build(program, example, **more):
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=(example,), min_block_size=1, **more
    )


def build_left(reference, example):
    program = torch.export.export(reference, (example,))
    return build(program, example, torch_executed_ops={norm_op, fused_op})


def build_inside(reference, example):
    program = torch.export.export(reference, (example,))
    return build(program.run_decompositions({norm_op: norm_body}), example)


left, inside = build_left(model, inputs), build_inside(model, inputs)
print(f"engines_left = {engines_of(left)}")
print(f"engines_inside = {engines_of(inside)}")

# %%
# From :recorded:`engines_left` engines to :recorded:`engines_inside`, by one line and
# without a converter.
#
# How this page measures
# ----------------------
# One block of code measures on every page of this gallery.

# The ruler: the same code measures on every page; how_we_measure explains it.
import contextlib
import gc
import io
import os
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch_tensorrt
from torch.profiler import ProfilerActivity, profile
from torch_tensorrt.dynamo.runtime import TorchTensorRTModule
from triton.testing import do_bench

MIB = 2**20


def flat(output):
    """All tensors of a model's output, as one float32 vector."""
    if isinstance(output, torch.Tensor):
        return output.detach().float().flatten()
    parts = output.values() if hasattr(output, "values") else output
    return torch.cat([flat(part) for part in parts if part is not None])


def relative_error(actual, expected):
    """Norm of the difference over the norm of what is expected."""
    difference = flat(actual) - flat(expected)
    return (difference.norm() / flat(expected).norm()).item()


def check(candidate, reference, inputs, another, tolerance, label=""):
    """Compare answers on `inputs`; the answer to `another` shows that a check can fail.

    Returns the relative error. Raises AssertionError if it exceeds the tolerance, or
    if another input's answer is not ten times as far away: then the check is blind.
    """
    expected = flat(reference(*inputs))
    error = relative_error(candidate(*inputs), expected)
    control = relative_error(reference(*another), expected)
    told = f"relative error {error:.1e}, allowed {tolerance:.0e}"
    print(f"{label}{': ' if label else ''}{told}, another input {control:.2f}")
    assert error <= tolerance, f"{label}: wrong answer"
    assert control >= 10 * tolerance, f"{label}: blind check, the answers are too alike"
    return error


def latency(call, milliseconds=300):
    """Median, 20th and 80th percentile of a call in ms, with cold caches on the GPU."""
    return do_bench(call, warmup=100, rep=milliseconds, quantiles=[0.5, 0.2, 0.8])


def captured(call):
    """The call as one CUDA graph: a function that replays it, and its output."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay():
        graph.replay()
        return output

    return replay


def profiled(call):
    """What one call runs: a table of GPU kernels, and how many TensorRT engines."""
    call()
    torch.cuda.synchronize()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as recorded:
        call()
        torch.cuda.synchronize()
    events = recorded.key_averages()
    on_gpu = [event for event in events if event.device_type.name == "CUDA"]
    kernels = pd.DataFrame(
        {
            "kernel": [event.key for event in on_gpu],
            "launches": [event.count for event in on_gpu],
            "microseconds": [event.self_device_time_total for event in on_gpu],
        }
    )
    runs = [event.count for event in events if event.key == "tensorrt::execute_engine"]
    order = kernels.sort_values("microseconds", ascending=False, ignore_index=True)
    return order, sum(runs)


def peak_bytes(call):
    """The most that PyTorch's allocator holds during a call beyond what it held."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = call()
    torch.cuda.synchronize()
    return kept, torch.cuda.max_memory_allocated() - before


def weight_bytes(module):
    """Size of a PyTorch module's parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


def engine_bytes(module):
    """Memory of a compiled module's engines: weights and code, and their work space.

    PyTorch's allocator does not see it. None where there is no engine in sight, as
    behind `torch.compile`.
    """
    import tensorrt

    total = 0
    for part in module.modules():
        if isinstance(part, TorchTensorRTModule):
            runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
            engine = runtime.deserialize_cuda_engine(part.serialized_engine)
            total += len(part.serialized_engine) + engine.device_memory_size_v2
    return total or None


def gpu_limits(dtype):
    """What this GPU can do: TFLOP/s of a large matrix product, GB/s of a large copy."""
    square = torch.randn(8192, 8192, device="cuda").to(dtype)
    product_ms = latency(lambda: square @ square)[0]
    large = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    copy_ms = latency(lambda: large.clone())[0]
    return 2 * 8192**3 / product_ms / 1e9, 2 * large.nbytes / copy_ms / 1e6


def empty_caches():
    """Nothing that an earlier compilation left may make the next one look fast."""
    gc.collect()  # Modules that go write their kernels to the runtime cache: first.
    torch.compiler.reset()
    torch.cuda.empty_cache()
    folder = tempfile.mkdtemp(prefix="caches-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    os.environ["TRITON_CACHE_DIR"] = f"{folder}/triton"
    if torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
        cache = torch_tensorrt.runtime.RuntimeSettings().runtime_cache
    else:
        cache = torch_tensorrt.dynamo._defaults.TIMING_CACHE_PATH
    Path(cache).unlink(missing_ok=True)


def warm_up():
    """Compile something small each way, so that nobody pays for loading a compiler."""
    small = torch.nn.Linear(64, 64).eval().cuda()
    example = torch.randn(8, 64, device="cuda")
    torch.compile(small, dynamic=False)(example)
    compiled = torch_tensorrt.compile(
        small, ir="dynamo", inputs=[example], min_block_size=1
    )
    profiled(lambda: compiled(example))


def pytorch_alone(module, autotune=True):
    """The ways to run a module that need no TensorRT; each compiles it as one graph."""
    ways = {
        "eager": lambda: module,
        "Inductor": lambda: torch.compile(module, fullgraph=True, dynamic=False),
    }
    if autotune:
        ways["Inductor max-autotune"] = lambda: torch.compile(
            module, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs"
        )
    return ways


def held_bytes(backend, run, reference):
    """What a way needs in memory between calls, weights once; NaN if out of sight."""
    if not backend.startswith("TensorRT"):
        return weight_bytes(reference)
    engines = engine_bytes(run)
    if engines is None:
        return float("nan")
    held = engines + weight_bytes(run)  # weights of what stayed in PyTorch
    # An engine in eight bits may hold half; one that holds less lost its weights.
    assert held > 0.45 * weight_bytes(reference), f"{backend}: the engine lacks weights"
    return held


def check_way(backend, call):
    """A row must have run what its name says."""
    kernels, engines = profiled(call)
    if backend.startswith("TensorRT"):
        assert engines, f"{backend}: no engine ran; the model fell back to PyTorch"
    if backend.startswith("Inductor"):
        own = kernels.kernel.str.startswith("triton_")
        assert own.any(), f"{backend}: no kernel of Inductor's ran; this is eager"


@torch.no_grad()
def measure(backend, build, reference, inputs, fresh, tolerance):
    """Compile one way from empty caches, and measure it without and with a CUDA graph.

    It is compiled with `inputs` and checked on `fresh`. Returns two rows.
    """
    inputs = [tensor.clone() for tensor in inputs]
    given = [tensor.clone() for tensor in inputs]
    empty_caches()
    start = time.perf_counter()
    run = build()
    built = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # what max-autotune tries
        run(*inputs)
    torch.cuda.synchronize()
    called = time.perf_counter()

    def call():
        return run(*inputs)

    def answer(*values):
        for tensor, value in zip(inputs, values):
            tensor.copy_(value)  # in place: a graph reads these very addresses
        return timed()

    check_way(backend, call)
    held = held_bytes(backend, run, reference)
    rows = []
    for name in (backend, f"{backend}, CUDA graph"):
        if name == backend:
            timed = call
            peak = peak_bytes(call)[1]
        else:
            timed, peak = peak_bytes(lambda: captured(call))
        row = {"backend": name}
        row["latency_ms"], row["latency_p20"], row["latency_p80"] = latency(timed)
        row["error"] = check(answer, reference, fresh, given, tolerance, name)
        row["peak_memory_mb"] = (held + peak) / MIB
        row["compile_s"], row["first_call_s"] = built - start, called - built
        rows.append(row)
    return rows


def compare(ways, reference, inputs, fresh, *, model, shape, tolerance):
    """Rows for `results` of every way at one shape.

    `ways` maps the backend's name to a function that compiles and returns a callable.
    Names begin with eager, Inductor or TensorRT.
    """
    precision = str(next(reference.parameters()).dtype).removeprefix("torch.")
    about = {"model": model, "precision": precision, "shape": shape}
    return [
        about | row
        for backend, build in ways.items()
        for row in measure(backend, build, reference, inputs, fresh, tolerance)
    ]


COLUMNS = [
    *("model", "backend", "precision", "shape"),
    *("latency_ms", "latency_p20", "latency_p80", "speedup"),
    *("error", "peak_memory_mb", "compile_s", "first_call_s"),
]


def results(rows):
    """All rows as a table; `speedup` is over the best that PyTorch does alone."""
    table = pd.DataFrame(rows)
    key = ["model", "precision", "shape"]
    alone = table.backend.str.match("(eager|Inductor).*, CUDA graph$")
    best = table[alone].groupby(key, sort=False).latency_ms.min().rename("best")
    table["speedup"] = table.join(best, on=key).best / table.latency_ms
    return table[COLUMNS]


def in_turns(calls, rounds=15):
    """Medians in ms of several calls, measured in turns: one column a call.

    For calls that the host holds up: a busy host slows all of them, but not alike, so
    the ratio within a round is told with its spread, and only a large one means much.
    """
    return pd.DataFrame(
        [
            {name: latency(call, milliseconds=50)[0] for name, call in calls.items()}
            for _ in range(rounds)
        ]
    )


def plot_ready(table):
    """Seconds until ready against latency, one panel a shape, in CUDA graphs."""
    graphs = table[table.backend.str.endswith(", CUDA graph")]
    names = list(graphs.backend.str.removesuffix(", CUDA graph").unique())
    shapes = list(graphs["shape"].unique())[:4]
    size = (7, 3.4)
    figure, axes = plt.subplots(1, len(shapes), figsize=size, squeeze=False)
    entries = {}
    for axis, shape in zip(axes[0], shapes):
        here = graphs[graphs["shape"] == shape]
        for row in here.itertuples():
            name = row.backend.removesuffix(", CUDA graph")
            look = names.index(name)
            ready = max(row.compile_s + row.first_call_s, 0.1)
            marker = {"color": f"C{look}", "marker": "osD^v<>P"[look % 8], "ms": 8}
            entries[name] = axis.plot(ready, row.latency_ms, ls="", **marker)[0]
        top = 1.15 * here.latency_ms.max()
        axis.set(xscale="log", title=shape, xlim=(0.05, 500), ylim=(0, top))
        axis.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    figure.supxlabel("seconds until ready")
    axes[0][0].set_ylabel("latency in ms")
    place = {"loc": "outside upper center", "ncols": 2, "frameon": False}
    figure.legend(entries.values(), entries.keys(), **place)
    figure.set_layout_engine("constrained")
    plt.show()


# %%
# Both have to give the model's answer, on an input that they were not compiled with.

# Output varies: digits of the error.
tolerance = 1e-2 if dtype == torch.float16 else 1e-4
error = check(left, model, (fresh,), (inputs,), tolerance, "in PyTorch")
error = check(inside, model, (fresh,), (inputs,), tolerance, "inside")

# %%
# And what is it worth? All launches of a call are in a CUDA graph here; the section on
# speed has more ways.

# Needs a GPU: it measures.
# Output varies: timings.
from functools import partial

for name, module in (("left", left), ("inside", inside)):
    call = partial(module, inputs)
    print(f"{name}_launches = {profiled(call)[0].launches.sum()}")
    print(f"{name}_first_ms = {latency(captured(call))[0]:.3f}")

# %%
# :recorded:`left_launches` launches and :recorded:`left_first_ms` ms with the operator
# in PyTorch, :recorded:`inside_launches` launches and :recorded:`inside_first_ms` ms
# with its body in the engine.
#
# What ``custom_op`` generates
# ----------------------------
# Torch-TensorRT has a generator of its own. One call takes the operator's name,
# registers a TensorRT *plugin* of that name, and a converter that adds the plugin to
# the engine. Plugins of this kind (*quick deployable plugins*) are a part of standard
# TensorRT. On TensorRT-RTX the call is refused. Its message asks for TensorRT 10.7,
# which would not help: the wheel has a module for that interface, and nothing behind
# it.

# Output varies: only standard TensorRT generates.
from torch_tensorrt.dynamo.conversion.plugins import custom_op

try:
    custom_op("tutorial::gated_norm", supports_dynamic_shapes=True)
    plugin = torch_tensorrt.compile(
        model, ir="dynamo", inputs=[inputs], min_block_size=1
    )
    error = check(plugin, model, (fresh,), (inputs,), tolerance, "plugin")
    print(f"Engines with a plugin: {engines_of(plugin)}")
except NotImplementedError as refused:
    print(type(refused).__name__, refused)
try:
    import tensorrt.plugin  # noqa: F401
except ImportError as refused:
    print(type(refused).__name__, refused)

# %%
# .. note::
#
#    What standard TensorRT does with this cell is **not recorded**: the recording was
#    made with TensorRT-RTX, which has no such plugins. What follows was read in the
#    source of Torch-TensorRT 2.14 (``dynamo/conversion/plugins``).
#
# Three things are generated:
#
# - A **shape function**. The fake kernel runs once on tensors whose sizes are symbols,
#   and each size of the answer becomes a formula.
# - An **implementation**, which calls the operator in Python from inside the engine and
#   copies its answer. So the engine needs a Python process that has the operator. With
#   a compiled implementation (*ahead of time*, :doc:`custom_kernel_plugins`) it does
#   not.
# - A **converter**, which adds the plugin as one layer.
#
# And three things are taken for granted: the answer has the dtype of the *first*
# tensor, whatever the fake kernel says; tensors are float32 where the fake kernel runs;
# and arguments come by position, for keywords give way to the defaults of the schema.
#
# A converter from a body
# -----------------------
# What ``custom_op`` does with a plugin can be done with layers. A *converter* is called
# with the operator's arguments as TensorRT's tensors, and the node of the graph is at
# hand as ``ctx.current_node``. So we trace the body for this very node, and call for
# each operator in it the converter that the registry has.

from torch.fx.experimental.proxy_tensor import make_fx
from torch_tensorrt.dynamo.conversion import (
    DYNAMO_CONVERTERS,
    ConverterPriority,
    dynamo_tensorrt_converter,
)
from torch_tensorrt.dynamo.lowering import get_decompositions


def graph_of(body, node):
    """The body as a graph of operators, for a node's tensors and other arguments."""
    tensors = node.all_input_nodes

    def call(*values):
        known = dict(zip(tensors, values))
        given = torch.fx.node.map_arg((node.args, dict(node.kwargs)), known.get)
        return body(*given[0], **given[1])

    tracer = make_fx(call, get_decompositions(), tracing_mode="symbolic")
    return tracer(*(tensor.meta["val"] for tensor in tensors))


class LayerByLayer(torch.fx.Interpreter):
    """Runs a graph by calling converters, so that it adds layers to a network."""

    def __init__(self, graph, ctx, name):
        super().__init__(graph)
        self.ctx, self.name = ctx, name

    def run_node(self, node):
        self.ctx.current_node = node
        return super().run_node(node)

    def call_function(self, target, args, kwargs):
        node = self.ctx.current_node
        converter, _, needs = DYNAMO_CONVERTERS[node]
        self.ctx.requires_output_allocator |= needs.get("requires_output_allocator", 0)
        return converter(self.ctx, target, args, kwargs, f"{self.name}/{node.name}")


# %%
# The *validator* is asked before the model is cut into parts. It agrees if each
# operator of the body has a converter. (The body's tensors may be arguments of the
# operator, not members of lists.)


def generate_converter(op, body):
    """Register a converter for `op` that converts its body."""

    def convertible(node, settings):
        nodes = graph_of(body, node).graph.nodes
        called = [each for each in nodes if each.op == "call_function"]
        return all(each in DYNAMO_CONVERTERS for each in called)

    @dynamo_tensorrt_converter(
        op,
        capability_validator=convertible,
        supports_dynamic_shapes=True,
        priority=ConverterPriority.HIGH,  # before a plugin, where there is one
    )
    def convert(ctx, target, args, kwargs, name):
        node = ctx.current_node
        given = zip((*node.args, *node.kwargs.values()), (*args, *kwargs.values()))
        values = {n: value for n, value in given if isinstance(n, torch.fx.Node)}
        layers = LayerByLayer(graph_of(body, node), ctx, name)
        return layers.run(*(values[tensor] for tensor in node.all_input_nodes))


generate_converter(norm_op, norm_body)


def build_generated(reference, example):
    return build(torch.export.export(reference, (example,)), example)


generated = build_generated(model, inputs)
print(f"engines_generated = {engines_of(generated)}")

# %%
# The registry keeps the converter for the rest of the process, and
# ``torch.compile(backend="tensorrt")`` reads it as well: there is no exported program
# in which one could replace the operator. The operator keeps its name up to the engine,
# so reports and ``torch_executed_ops`` still know it. What the body misses are the
# *lowering passes* that clean a graph up before conversion.

# Output varies: digits of the error.
error = check(generated, model, (fresh,), (inputs,), tolerance, "generated")
options = {"min_block_size": 1, "pass_through_build_failures": True}
at_call = torch.compile(model, backend="tensorrt", options=options)
error = check(at_call, model, (fresh,), (inputs,), tolerance, "torch.compile")

# %%

# Needs a GPU: the profiler counts engines.
print(f"engines_at_call = {profiled(partial(at_call, inputs))[1]}")

# %%
# How fast is it?
# ---------------
# The limit first: the products of a call at what this GPU sustains, and its weights and
# tokens, read or written once. The operator's own traffic is not in it, for a compiler
# may keep that on the chip.

# Needs a GPU: it measures.
# Output varies: timings.
from torch.utils.flop_counter import FlopCounterMode

tflops, gigabytes = gpu_limits(dtype)
with FlopCounterMode(display=False) as counter:
    model(inputs)
arithmetic_ms = counter.get_total_flops() / tflops / 1e9
memory_ms = (weight_bytes(model) + 2 * inputs.nbytes) / gigabytes / 1e6
limit_ms = max(arithmetic_ms, memory_ms)
print(f"limit_ms = {limit_ms:.3f}")

# %%
# PyTorch gets the body too: ``inlined`` is the model with the plain function, which
# Inductor can fuse with its surroundings. Its ``max-autotune`` is left out.
# ``TensorRT, operator outside`` has the plain body as the operator's kernel, ``kernel
# outside`` the fused one.

# Needs a GPU: the benchmark.
# Output varies: timings.
warm_up()
with_kernel, inlined = make_model(fused_norm), make_model(norm_body)
ways = {
    "eager": lambda: model,
    "Inductor": lambda: torch.compile(with_kernel, fullgraph=True, dynamic=False),
    "Inductor, inlined": lambda: torch.compile(inlined, fullgraph=True, dynamic=False),
    "TensorRT, operator outside": lambda: build_left(model, inputs),
    "TensorRT, kernel outside": lambda: build_left(with_kernel, inputs),
    "TensorRT, decomposed": lambda: build_inside(model, inputs),
    "TensorRT, generated": lambda: build_generated(model, inputs),
}
about = {"model": "4 gated blocks", "shape": f"8x{tokens}", "tolerance": tolerance}
table = results(compare(ways, model, [inputs], [fresh], **about))
table["arithmetic_ms"], table["memory_ms"] = arithmetic_ms, memory_ms
table.round(3)

# %%

# Needs a GPU: it reports what was measured.
# Output varies: timings.
# Figure: The body in the engine reaches :recorded:`inside_of_limit` of the limit, the
#   operator left in PyTorch :recorded:`left_of_limit`.
graphs = table[table.backend.str.endswith(", CUDA graph")].set_index("backend")
milliseconds = graphs.latency_ms.rename(lambda name: name.removesuffix(", CUDA graph"))
print(f"pytorch_ms = {milliseconds[~milliseconds.index.str.startswith('T')].min():.3f}")
names = {"left": "operator outside", "kernel": "kernel outside"}
names |= {"inside": "decomposed", "generated": "generated"}
for name, way in names.items():
    print(f"{name}_ms = {milliseconds[f'TensorRT, {way}']:.3f}")
    print(f"{name}_of_limit = {limit_ms / milliseconds[f'TensorRT, {way}']:.0%}")
axis = (limit_ms / milliseconds).plot.barh(figsize=(7, 3), xlim=(0, 1))
axis.set(xlabel="fraction of the limit", ylabel="")
plt.tight_layout()
plt.show()

# %%
# In a CUDA graph the operator outside takes :recorded:`left_ms` ms, with a fused kernel
# :recorded:`kernel_ms`, the decomposed body :recorded:`inside_ms`, the generated
# converter :recorded:`generated_ms`, and the best of PyTorch :recorded:`pytorch_ms`.

# Needs a GPU: it draws what was measured.
# Output varies: timings.
# Figure: Seconds until ready against latency: with the body inside
#   :recorded:`inside_ms` ms, PyTorch's best :recorded:`pytorch_ms` ms, the operator
#   outside :recorded:`left_ms` ms and ready last.
plot_ready(table)

# %%
# Right for every size
# --------------------
# Now an operator whose answer has another size: it merges neighbouring tokens into
# their mean, and a last one without a partner is halved. Its model takes from no token
# to 64. The body has no branch and no size in it: tokens at even places, plus tokens at
# odd places of a sequence that is one longer.


def merge_body(x: torch.Tensor) -> torch.Tensor:
    return (x[:, ::2] + pad(x, (0, 0, 0, 1))[:, 1::2]) / 2


merge = torch.library.custom_op("tutorial::merge", merge_body, mutates_args=())
merge.register_fake(merge_body)
merge_op = torch.ops.tutorial.merge.default


class Merged(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

    def forward(self, x):
        return self.after(merge(self.before(x)))


merged = Merged().eval().requires_grad_(False).to(device)
sequences = [torch.randn(2, size, 64, device=device) for size in range(66)]
for size in (0, 1, 2, 7):
    torch.library.opcheck(merge, (sequences[size],))  # fake kernel against kernel
    print(size, "->", merge(sequences[size]).shape[1])

# %%
# ``opcheck`` is PyTorch's own test of an operator, and finds a fake kernel that lies.
# Export comes next, and has an opinion on sizes. It treats 0 and 1 as special: what it
# assumes of other sizes becomes a condition (*guard*), here among others that the
# answer is not one token long. An example of one token would fix that size.


def export(low):
    tokens = {1: torch.export.Dim("tokens", min=low, max=64)}
    return torch.export.export(merged, (sequences[7],), dynamic_shapes=(tokens,))


try:
    export(0)
except torch._dynamo.exc.UserError as refused:
    told = [line.strip() for line in str(refused).splitlines() if "Not all" in line]
    print(*told, sep="\n")

# %%
# .. note::
#
#    Private, seen in 2.14: ``torch.fx.experimental._config.backed_size_oblivious``
#    keeps export from treating 0 and 1 as special. The public way is one engine for
#    each small size, exported with that size.
#
# With it the program is exported for all sizes. The proof is to run it at all of them:
# an exported program checks its guards in PyTorch. An engine does *not* check them.

no_special_sizes = torch.fx.experimental._config.patch(  # private, seen in 2.14
    backed_size_oblivious=True
)


def wrong_sizes(program):
    """Sizes from 0 to 65 for which a program refuses, or answers wrongly."""
    run, wrong = program.module(), {}
    for size, x in enumerate(sequences):
        try:
            torch.testing.assert_close(run(x), merged(x), rtol=1e-2, atol=1e-2)
        except (AssertionError, RuntimeError) as failed:
            wrong[size] = str(failed).splitlines()[0]
    return wrong


with no_special_sizes:
    program = export(0)
    decomposed = program.run_decompositions({merge_op: merge_body})
print("with the operator:", wrong_sizes(program))
print("with its body:", wrong_sizes(decomposed))

# %%
# Only 65 is refused, which lies outside the range. A body with a branch on a size shows
# what this proof is for. PyTorch follows the branch that the example takes, and nothing
# else remains.


def branching_body(x):
    if x.shape[1] % 2:
        x = pad(x, (0, 0, 0, 1))
    return (x[:, ::2] + x[:, 1::2]) / 2


with no_special_sizes:
    branched = program.run_decompositions({merge_op: branching_body})
wrong = wrong_sizes(branched)
print(f"{len(wrong)} sizes, the first: {[*wrong][:4]}, {wrong[0]}")

# %%
# The same holds for the generated converter, which traces in the same way. It cannot
# find out itself: PyTorch remembers a guard and does not tell it a second time. So
# prove the body like this, before you generate from it.
#
# The formula of a size is also what ``custom_op`` would work with. It turns the
# expression into a Python function, and calls that with TensorRT's sizes. With the
# expression that PyTorch has for half of a size, that fails: so far a generated shape
# function can add and multiply, but not halve.

import sympy

half = next(node for node in program.graph.nodes if node.target is merge_op)
half = half.meta["val"].shape[1].node.expr
print("size of the answer:", half)
formula = sympy.lambdify(tuple(half.free_symbols), half, "math")  # as custom_op does
try:
    print(formula(7))
except NameError as failed:
    print(type(failed).__name__, failed)

# %%
# Empty inputs in TensorRT
# ------------------------
# Both ways give one engine for 1 to 64 tokens. Now an engine for an empty input
# *alone*, with a static shape. The first model shows it, here for a batch of none.

# Output varies: this error is TensorRT-RTX's.
generate_converter(merge_op, merge_body)
sizes = {"min_shape": (2, 1, 64), "opt_shape": (2, 7, 64), "max_shape": (2, 64, 64)}
with no_special_sizes:
    dynamic = build(decomposed, torch_tensorrt.Input(**sizes))
    dynamic_generated = build(program, torch_tensorrt.Input(**sizes))
print("Engines:", engines_of(dynamic), engines_of(dynamic_generated))
told = []
tensorrt_log = logging.getLogger("torch_tensorrt [TensorRT Conversion Context]")
tensorrt_log.addFilter(lambda record: told.append(record.getMessage()))
try:
    build_inside(model, inputs[:0])
except Exception as refused:
    print(type(refused).__name__, refused)
    print(*told[-1:])

# %%
# What about a range that begins with 0? Torch-TensorRT warns, and says that TensorRT
# makes it a 1. Such an engine is built and run in a process of its own: should it end
# the process, this page goes on. The program below knows nothing of this page's
# operators. It loads a file, builds an engine if it is told a range, and compares
# answers.

ELSEWHERE = """
import sys
import torch
import torch_tensorrt

program, (cases, sizes) = torch.export.load("module.pt2"), torch.load("cases.pt")
run = program.module()
if sizes:
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        run = torch_tensorrt.dynamo.compile(
            program, arg_inputs=(torch_tensorrt.Input(**sizes),), min_block_size=1
        )
for size, (x, expected) in cases.items():
    try:
        with torch.no_grad():
            answer = run(x)
        assert answer.shape == expected.shape, "another shape"
        error = (answer - expected).float().norm()
        assert error <= 1e-2 * expected.float().norm(), "another answer"
        print(size, "->", tuple(answer.shape), "right", flush=True)
    except Exception as failed:
        said = str(failed).strip().split("\\n")[0]
        print(size, "->", type(failed).__name__, said, flush=True)
"""

# %%

folder = Path(tempfile.mkdtemp())
(folder / "elsewhere.py").write_text(ELSEWHERE)


def run_elsewhere(cases, sizes=None):
    """Run module.pt2 in a fresh process on inputs with known answers."""
    torch.save((cases, sizes), folder / "cases.pt")
    command = [sys.executable, "elsewhere.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    print(done.stdout.strip())
    lines = [line.split("] ")[-1] for line in done.stderr.splitlines()]
    told = [line for line in lines if "failed to resolve" in line or "clamp" in line]
    print(*(line.partition(" If it")[0] for line in told[-1:]))
    if done.returncode:
        print(f"exit status {done.returncode}:", *lines[-1:])


torch.export.save(decomposed, folder / "module.pt2")
cases = {size: (sequences[size], merged(sequences[size])) for size in (7, 1, 64, 65, 0)}

# %%

# Needs a GPU: the engine runs.
# Output varies: words of the runtime.
run_elsewhere(cases, sizes | {"min_shape": (2, 0, 64)})

# %%
# Here the engine answers for no token as well, and rightly, whatever the warning says.
# Code that must answer for every size should not rest on that. It sends what lies
# outside the engine's sizes to PyTorch, which has the operator:


def always(x):
    return dynamic(x) if 1 <= x.shape[1] <= 64 else merged(x)


for x in (sequences[size] for size in (0, 1, 64, 65)):
    torch.testing.assert_close(always(x), merged(x), rtol=1e-2, atol=1e-2)
    print(x.shape[1], "->", always(x).shape[1])

# %%
# When it goes wrong
# ------------------
# ``TensorRT QDP(Quick Deploy Plugins) not available, requires TensorRT 10.7.0 or
# higher``: on TensorRT-RTX there is no release that has them. Use the body.
#
# ``Constraints violated``: export found a size for which the body does something else.
# The message names the condition.
#
# ``expected to have an entirely functional graph``: the body makes a tensor from
# numbers, which cannot be decomposed in 2.14. Make it with ``torch.full`` or
# ``torch.arange``, or pass it as an argument.

numbers = {merge_op: lambda x: merge_body(x) * torch.tensor([2.0], device=x.device)}
try:
    program.run_decompositions(numbers)
except AssertionError as failed:
    print(type(failed).__name__, str(failed).split(", but")[0])

# %%
# Take it to production
# ---------------------
# A process that loads the file needs PyTorch and Torch-TensorRT. With the operator in
# PyTorch it needs the operator too, which this program does not have.

# Needs a GPU: the engines run.
# Output varies: digits, and words of the loader.
for name, module in (("body inside", inside), ("operator outside", left)):
    print(name)
    try:
        torch_tensorrt.save(module, str(folder / "module.pt2"), arg_inputs=(inputs,))
        run_elsewhere({tokens: (fresh, model(fresh))})
    except Exception as failed:  # whatever the operator does to saving
        print(type(failed).__name__, failed)

# %%
# .. list-table::
#    :header-rows: 1
#    :widths: 24 26 20 30
#
#    * - Way
#      - What you write
#      - Engines here
#      - Where it runs
#    * - operator in PyTorch
#      - the operator
#      - :recorded:`engines_left`
#      - where the operator is registered
#    * - ``run_decompositions``
#      - a body
#      - :recorded:`engines_inside`
#      - without the operator; the engine needs no Python
#    * - generated converter
#      - a body
#      - :recorded:`engines_generated`
#      - without the operator; the engine needs no Python
#    * - ``custom_op``
#      - operator and fake kernel
#      - not recorded
#      - standard TensorRT, in a Python process that has the operator
#
# Exercise
# --------
# Write ``merge_body`` with ``unflatten`` and ``mean`` instead of slices, padded by
# ``x.shape[1] % 2``. Does export accept it? Which sizes does it refuse, and can a fake
# kernel written by hand change that?
#
# Takeaways
# ---------
# - One PyTorch function can be an operator's kernel, its shape function and its way
#   into the engine: :recorded:`engines_left` engines became
#   :recorded:`engines_inside`.
# - ``run_decompositions`` is the short way ahead of time. A generated converter serves
#   ``torch.compile`` too, and keeps the operator's name.
# - In a CUDA graph the body inside takes :recorded:`inside_ms` ms, the operator with a
#   fused kernel outside :recorded:`kernel_ms` ms, PyTorch alone :recorded:`pytorch_ms`.
# - A body is traced once. Run the decomposed program at every size, none and one
#   included, before you build an engine from it: engines check no guards.
# - ``custom_op`` needs standard TensorRT. By its source, its shape functions cannot
#   halve a size; that was tried here on the formula alone.

# sphinx_gallery_tags = ["converters", "custom operators", "plugins", "dynamic shapes"]
