"""
Your own kernel in a compiled model
===================================

Bring an operator that you wrote in Triton into a compiled model, by one of three ways,
and know what each one costs.

At a glance
-----------

- TensorRT builds *engines*, optimized programs for this GPU. An operator that it does
  not know stays in PyTorch. So a model with :recorded:`blocks` of them falls into
  :recorded:`engines_cut` engines; a *converter*, a function that says the operator in
  TensorRT's layers, makes it :recorded:`engines_whole`.
- A call takes :recorded:`cut_us` µs with the operator in PyTorch, :recorded:`whole_us`
  with the converter; in a CUDA graph :recorded:`cut_graph_us` and
  :recorded:`whole_graph_us`.
- In a CUDA graph the converter's engine is :recorded:`faster` times as fast as the best
  that PyTorch does alone, and the model with the breaks :recorded:`cut_faster` times.
- Plugins need standard TensorRT. TensorRT-RTX refuses them in one line of text, which
  names the wrong reason.

What you will learn
-------------------

- How to write a kernel for any size, and to test it where it can go wrong.
- What PyTorch, Inductor and Torch-TensorRT see of it.
- How to leave it in PyTorch, how to express it in TensorRT's layers, and how it becomes
  a plugin.
- Which of the three runs without Python.

Prerequisites
-------------

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch and how a GPU kernel works, but not TensorRT. Without a GPU, the cells marked
``Needs a GPU`` do not run, and the operator computes in PyTorch.

Two things are called Triton. On this page it is always the *language* in which the
kernel is written, and never the *Triton Inference Server*.
"""

# %%
# A first success
# ---------------
# The operator is the gate of a Llama-like model, ``silu(gate) * up``. A program of the
# kernel takes care of ``BLOCK`` numbers. The last one reaches beyond the end, where
# ``inside`` is false: nothing is read there, and nothing written. It computes in
# float32 and rounds once.

import logging
import re
import subprocess
import sys
from functools import partial

logging.disable(logging.WARNING)  # hints for the library's own developers

import torch
import torch_tensorrt
import triton
import triton.language as tl
from torch.nn.functional import silu

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32


@triton.jit
def gate_kernel(gate, up, size, out, BLOCK: tl.constexpr):
    where = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = where < size
    g = tl.load(gate + where, mask=inside).to(tl.float32)
    u = tl.load(up + where, mask=inside).to(tl.float32)
    result = g / (1 + tl.exp(-g)) * u
    tl.store(out + where, result.to(out.dtype.element_ty), mask=inside)


# %%
# ``triton_op`` makes it an operator of PyTorch, with a name that a graph can hold. A
# kernel reads whatever lies at an address, so the operator checks the shapes, and has
# the numbers lie in a row, ``contiguous``. Off the GPU the same formula in PyTorch
# serves. The function is also run on tensors without data, from which ``torch.export``
# learns the shape of the answer.

BLOCK = 1024


def formula(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """The gate in PyTorch's operators: the reference, and a rival."""
    return (silu(gate.float()) * up.float()).to(gate.dtype)


@torch.library.triton_op("gallery::gated", mutates_args=())
def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    torch._check(gate.shape == up.shape, lambda: "gate and up differ in shape")
    if not gate.is_cuda:
        return formula(gate, up)
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    size = out.numel()
    programs = (triton.cdiv(size, BLOCK),)
    torch.library.wrap_triton(gate_kernel)[programs](gate, up, size, out, BLOCK=BLOCK)
    return out


# %%
# The model: blocks of a norm, two linear layers that meet in the gate, a learned scale
# for each channel, and a linear layer back. Compiled as it is, it answers.

tokens, width, blocks = (77, 1024, 6) if device.type == "cuda" else (7, 64, 3)


class Block(torch.nn.Module):
    """One feed-forward block around a gate."""

    def __init__(self, gate_of):
        super().__init__()
        linear = partial(torch.nn.Linear, bias=False)
        self.norm = torch.nn.RMSNorm(width)
        self.gate, self.up = linear(width, 3 * width), linear(width, 3 * width)
        self.scale = torch.nn.Parameter(torch.rand(3 * width) + 0.5)
        self.down = linear(3 * width, width)
        self.gate_of = gate_of

    def forward(self, x):
        normed = self.norm(x)
        gated = self.gate_of(self.gate(normed), self.up(normed))
        return x + self.down(gated * self.scale)


def network(gate_of=gated, count=blocks):
    """The model, with the same weights each time."""
    torch.manual_seed(0)
    layers = [Block(gate_of) for _ in range(count)]
    return torch.nn.Sequential(*layers).eval().to(device, dtype)


def ahead(module, example, **options):
    """A module, compiled ahead of time."""
    settings = {"min_block_size": 1} | options
    return torch_tensorrt.compile(module, ir="dynamo", inputs=[example], **settings)


model = network()
print("Weights: random, a model of this page's own")
x, fresh = torch.randn(2, tokens, width, device=device, dtype=dtype)
in_pytorch = ahead(model, x)
print("Answer:", tuple(in_pytorch(fresh).shape))

# %%
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
# Test the kernel where it can go wrong
# -------------------------------------
# A kernel goes wrong at its edges: a size of one, one beyond a block, a prime number.
# So the test looks behind the end, too: no number there may change. A second kernel
# without masks shows that this test can fail. (Its buffers are large enough, so that it
# spoils nothing else.) Without a GPU, Triton's interpreter runs both, line by line.

from triton.runtime.interpreter import InterpretedFunction


@triton.jit
def careless_kernel(gate, up, size, out, BLOCK: tl.constexpr):
    where = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gate + where).to(tl.float32)
    u = tl.load(up + where).to(tl.float32)
    tl.store(out + where, (g / (1 + tl.exp(-g)) * u).to(out.dtype.element_ty))


def wrong_sizes(kernel, kind):
    """Sizes for which a kernel answers wrongly, or writes behind its end."""
    run = kernel if device.type == "cuda" else InterpretedFunction(kernel.fn)
    wrong = []
    for size in (1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * 1013):
        gate, up, out = torch.randn(3, size + BLOCK, device=device).to(kind)
        before = out.clone()
        run[(triton.cdiv(size, BLOCK),)](gate, up, size, out, BLOCK=BLOCK)
        right = torch.cat([formula(gate, up)[:size], before[size:]])
        if not torch.allclose(out.float(), right.float(), rtol=2e-3, atol=2e-3):
            wrong.append(size)
    return wrong


for kind in (torch.float32, torch.float16):
    print(kind, "masked, wrong for:", wrong_sizes(gate_kernel, kind))
    print(kind, "careless, wrong for:", wrong_sizes(careless_kernel, kind))
assert not wrong_sizes(gate_kernel, dtype)

# %%
# PyTorch has a test of its own for the operator around the kernel: does the answer
# without data have the right shape, does it change its inputs, can it be exported?

pair = torch.randn(2, 3, 1013, device=device, dtype=dtype)
print(torch.library.opcheck(gated, tuple(pair), raise_exception=False))

# %%
# The first way: leave it in PyTorch
# ----------------------------------
# Nothing has to be written. Torch-TensorRT finds no converter, ends an engine before
# the operator, and begins another one behind it: a *graph break*. Who wants one engine
# without PyTorch gets an error instead.

from torch_tensorrt.dynamo.runtime import TorchTensorRTModule


def engines_in(module):
    """How many engines a compiled module has."""
    parts = module.modules()
    return sum(isinstance(part, TorchTensorRTModule) for part in parts)


def engine_file(module, example):
    """The module as one engine's bytes, for TensorRT alone."""
    program = torch.export.export(module, (example,))
    build = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    return bytes(build(program, arg_inputs=(example,)))


print(f"blocks = {blocks}")
print(f"engines_cut = {engines_in(in_pytorch)}")
logging.disable(logging.ERROR)  # the whole graph would be logged
try:
    engine_file(model, x)
except Exception as refused:
    reason = re.search("Conversion of function.*", f"{refused}{refused.__cause__}")
    print(type(refused).__name__, reason and reason[0])
logging.disable(logging.WARNING)

# %%
# The second way: a converter
# ---------------------------
# A *converter* says the same in TensorRT's layers. Networks are strongly typed: a layer
# computes in the type of its inputs. So both are cast to float32, as the kernel does.
# The *validator* lets other types stay in PyTorch; ``supports_dynamic_shapes`` says
# that nothing below depends on a size. From here on, every compilation in this process
# uses it.

import tensorrt as trt
from torch_tensorrt.dynamo.conversion import dynamo_tensorrt_converter


def tested(node, settings):
    """Whether the operator gets a type for which this page tests it."""
    return node.args[0].meta["val"].dtype in (torch.float16, torch.float32)


@dynamo_tensorrt_converter(
    torch.ops.gallery.gated.default,
    capability_validator=tested,
    supports_dynamic_shapes=True,
)
def gated_in_layers(ctx, target, args, kwargs, name):
    network, product = ctx.net, trt.ElementWiseOperation.PROD
    gate, up = (network.add_cast(a, trt.float32).get_output(0) for a in args)
    sigmoid = network.add_activation(gate, trt.ActivationType.SIGMOID).get_output(0)
    silu = network.add_elementwise(gate, sigmoid, product).get_output(0)
    result = network.add_elementwise(silu, up, product).get_output(0)
    return network.add_cast(result, args[0].dtype).get_output(0)


# %%
# Now the model is one engine, and a file for TensorRT alone can be made of it. The
# check covers both ways; the tolerance is stated before.

in_layers = ahead(model, x)
print(f"engines_whole = {engines_in(in_layers)}")

tolerance = 1e-2 if dtype == torch.float16 else 1e-4
error = check(in_pytorch, model, (fresh,), (x,), tolerance, "in PyTorch")
error = check(in_layers, model, (fresh,), (x,), tolerance, "converter")
file = engine_file(model, x)
print("One engine for TensorRT alone, the operator's name in it:", b"gallery" in file)

# %%
# One engine for any number of tokens, asked for sizes that no kernel likes:

any_size = torch_tensorrt.Input(
    min_shape=(2, width), opt_shape=(tokens, width), max_shape=(512, width), dtype=dtype
)
two_blocks = network(count=2)
flexible = ahead(two_blocks, any_size)
print("Engines:", engines_in(flexible))
for size in (2, 131, 509):
    first, second = torch.randn(2, size, width, device=device, dtype=dtype)
    label = f"{size} tokens"
    error = check(flexible, two_blocks, (first,), (second,), tolerance, label)

# %%
# What a break costs
# ------------------
# Each block has one operator, so the number of blocks is the number of breaks. Models
# of several depths, each both ways, without and with a CUDA graph, measured in turns.
# The first way is still there: ``torch_executed_ops`` names what stays in PyTorch.

# Needs a GPU: it measures.
# Output varies: it prints timings.
warm_up()
OPERATOR = "torch.ops.gallery.gated.default"
calls = {}
for count in (2, 4, blocks):
    deep = network(count=count)
    for way, left in {"in PyTorch": {OPERATOR}, "converter": set()}.items():
        call = partial(ahead(deep, x, torch_executed_ops=left), x)
        calls[count, way] = call
        calls[count, f"{way}, CUDA graph"] = captured(call)
turns = in_turns(calls, rounds=5)
turns.columns = pd.MultiIndex.from_tuples(turns.columns, names=["blocks", "way"])
depths = turns.median().unstack("way") * 1e3
spread = ((turns.max() - turns.min()) / turns.median()).max()
print(f"largest spread over the rounds: {spread:.0%}")
for key, way in {"cut": "in PyTorch", "whole": "converter"}.items():
    print(f"{key}_us = {depths[way][blocks]:.0f}")
    print(f"{key}_graph_us = {depths[f'{way}, CUDA graph'][blocks]:.0f}")
for key, tail in {"break_us": "", "break_graph_us": ", CUDA graph"}.items():
    more = depths[f"in PyTorch{tail}"] - depths[f"converter{tail}"]
    print(f"{key} = {more[blocks] / blocks:.1f}")
depths.round(0)

# %%
# Without a CUDA graph a break adds :recorded:`break_us` µs to a call. In a CUDA graph
# the two lines rise alike, so a break adds nothing. There the model with breaks is even
# a little faster, by about the same at each depth (the table), so that is not the
# breaks' doing; why is untested. A break costs the host's work for one more engine and
# one more operator, and a graph spares both.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: with :recorded:`blocks` blocks a call takes :recorded:`cut_us` µs cut into
#   engines and :recorded:`whole_us` in one engine.
axis = depths.plot(figsize=(7, 3.2), marker="o", ylim=(0, None))
axis.set(ylabel="µs a call", xlabel="blocks, each with one operator of our own")
axis.set_xticks(depths.index)
axis.legend(title=None, frameon=False)
plt.tight_layout()
plt.show()

# %%
# Beside eager and Inductor
# -------------------------
# The limit comes first: the weights have to be read once a call. PyTorch's side gets
# the kernel, and the model without it: if Inductor writes a gate as good as ours from
# the formula, the kernel is not worth its maintenance. (Inductor's ``max-autotune`` is
# left out.)

# Needs a GPU: it measures.
# Output varies: it prints timings.
tflops, gigabytes = gpu_limits(dtype)
limit_ms = weight_bytes(model) / gigabytes / 1e6
print(f"limit_ms = {limit_ms:.3f}")

plain = network(formula)
ways = pytorch_alone(model, autotune=False) | {
    "Inductor, formula": pytorch_alone(plain, autotune=False)["Inductor"],
    "TensorRT, in PyTorch": lambda: ahead(model, x, torch_executed_ops={OPERATOR}),
    "TensorRT, converter": lambda: ahead(model, x),
}
about = {"model": f"{blocks} gated blocks", "shape": f"{tokens}x{width}"}
table = results(compare(ways, model, [x], [fresh], tolerance=tolerance, **about))
by_backend = table.set_index("backend")
fastest = by_backend.loc["TensorRT, converter, CUDA graph"]
print(f"faster = {fastest.speedup:.2f}")
cut = by_backend.loc["TensorRT, in PyTorch, CUDA graph"]
print(f"cut_faster = {cut.speedup:.2f}")
print(f"of_limit = {limit_ms / fastest.latency_ms:.0%}")
print(f"ready_s = {fastest.compile_s + fastest.first_call_s:.0f}")
table.round(4)

# %%
# In a CUDA graph both ways to TensorRT are slower here than eager, and slower than
# Inductor. Why, this page did not look at. Inductor's own gate, from the formula, is
# faster than our kernel. Below, seconds until ready against latency.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: seconds until ready against latency, both ways to TensorRT beside PyTorch's.
plot_ready(table)

# %%
# What a compiler sees of a kernel
# --------------------------------
# Behind the gate stands a product with the learned scale. A compiler that knows both
# can *fuse* them: one kernel instead of two. ``custom_op`` hides what it does from any
# compiler. ``triton_op`` shows Inductor the kernel, and an option lets it write what
# follows into that kernel. The formula hides nothing.

# Needs a GPU: it counts kernels.
# Output varies: it prints timings.


@torch.library.custom_op("gallery::hidden_gate", mutates_args=())
def hidden(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """The same, as a custom_op."""
    out, size = torch.empty_like(gate), gate.numel()
    gate_kernel[(triton.cdiv(size, BLOCK),)](gate, up, size, out, BLOCK=BLOCK)
    return out


hidden.register_fake(lambda gate, up: torch.empty_like(gate))
inductor = partial(torch.compile, fullgraph=True, dynamic=False)
fuse = {"epilogue_fusion_user_defined_triton_kernel": True}
seen = {
    "Inductor, custom_op": lambda: inductor(network(hidden)),
    "Inductor, triton_op": lambda: inductor(model),
    "Inductor, triton_op, fused": lambda: inductor(model, options=fuse),
    "Inductor, formula": lambda: inductor(plain),
    "TensorRT, in PyTorch": lambda: in_pytorch,
    "TensorRT, converter": lambda: in_layers,
}

# %%
# Each is checked, counted by the profiler, and timed in a CUDA graph.

# Needs a GPU: it counts kernels.
# Output varies: it prints timings.
rows = {}
for name, make in seen.items():
    torch.compiler.reset()
    try:
        run = make()
        error = check(run, model, (fresh,), (x,), tolerance, name)
        call = partial(run, x)
        kernels, engines = profiled(call)
        rows[name] = {
            "engines": engines,
            "kernels": kernels.launches.sum(),
            "our kernel": kernels.kernel.str.contains("gate_kernel").sum(),
            "µs in a CUDA graph": latency(captured(call))[0] * 1e3,
        }
    except RuntimeError as refused:
        print(name, "is not counted:", str(refused).splitlines()[0][:80])
pd.DataFrame(rows).T.round(1)

# %%
# Three rows of Inductor's are alike: it makes no difference here whether the kernel is
# hidden, and the option did not fuse it with the product behind it. Of Inductor's rows
# only the formula has fewer kernels, and it is the fastest.
#
# The converter's engine does not run our kernel. TensorRT made its own from the layers.
# That is the price of this way: the formula is written down a second time, and a change
# of the kernel does not reach it. The check above is what notices.
#
# The third way: a plugin
# -----------------------
# A *plugin* brings the kernel itself into the engine. Torch-TensorRT makes one from an
# operator's name (TensorRT's *quickly deployable plugins*). The installed flavor says
# whether it can:

print("Plugins:", torch_tensorrt.ENABLED_FEATURES.qdp_plugin)
print("TensorRT-RTX:", torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx)
to_network = [name for name in dir(trt.INetworkDefinition) if "plugin" in name]
print("Ways to add one to a network:", to_network)

# %%
# **Just in time.** One line. While the engine runs, TensorRT calls back into Python,
# and our operator runs there. ``HIGH`` puts it before the converter above.

from torch_tensorrt.dynamo.conversion import ConverterPriority, plugins

NAME = "gallery::gated"
first_choice = {"priority": ConverterPriority.HIGH, "supports_dynamic_shapes": True}


def just_in_time():
    """The operator as a plugin that TensorRT runs through Python."""
    plugins.custom_op(NAME, use_aot_if_available=False, **first_choice)
    return ahead(model, x)


# %%
# **Ahead of time.** The engine holds the compiled kernel, and needs no Python. Triton
# compiles without a GPU as well, to *PTX*, NVIDIA's portable assembly. TensorRT hands
# a kernel its inputs, then the sizes, then its outputs; ours takes them in that order.

from triton.backends.compiler import GPUTarget


def as_ptx(kind):
    """The kernel, compiled for this machine's compute capability."""
    pointer = {"float16": "*fp16", "float32": "*fp32"}[kind]
    types = {"gate": pointer, "up": pointer, "size": "i32", "out": pointer}
    source = triton.compiler.ASTSource(
        gate_kernel, {**types, "BLOCK": "constexpr"}, {"BLOCK": BLOCK}
    )
    major, minor = torch.cuda.get_device_capability()
    return triton.compile(source, target=GPUTarget("cuda", 10 * major + minor, 32))


compiled = as_ptx("float16")
facts = compiled.metadata
print("Kernel:", facts.name, "with", 32 * facts.num_warps, "threads a program")
print("Our parameters: 4, in PTX:", len(re.findall(r"\.param \.", compiled.asm["ptx"])))
print("Scratch memory:", facts.global_scratch_size, facts.profile_scratch_size)

# %%
# PTX has two parameters more than our kernel: the addresses of scratch memory, which
# Triton's own launcher passes and TensorRT does not. A kernel that needs none never
# reads them, so refuse one that does. The plugin then says how to launch it: how many
# programs, as an expression of the shape, and the size as an extra argument.


def launch_in_engine(trtp):
    """The function that TensorRT asks for a kernel, while it builds."""
    code = tuple[str, str, trtp.KernelLaunchParams, trtp.SymExprs]

    def launch(gate, up, outputs, tactic) -> code:
        kernel = as_ptx("float16" if gate.dtype == trt.float16 else "float32")
        scratch = kernel.metadata.global_scratch_size
        assert not scratch, "TensorRT gives a kernel no scratch memory"
        size = gate.shape_expr.numel()
        how = trtp.KernelLaunchParams()
        how.grid_x, how.block_x = trtp.cdiv(size, BLOCK), 32 * kernel.metadata.num_warps
        how.shared_mem = kernel.metadata.shared
        extra = trtp.SymIntExprs(1)
        extra[0] = trtp.SymInt32(size)
        return kernel.metadata.name, kernel.asm["ptx"], how, extra

    return launch


def ahead_of_time():
    """The operator as a plugin whose kernel lies in the engine."""
    import tensorrt.plugin as trtp

    trtp.aot_impl(NAME)(launch_in_engine(trtp))  # `just_in_time` has registered NAME
    plugins.generate_plugin_converter(NAME, **first_choice)
    return ahead(model, x)


# %%
# Both are tried here, whatever the flavor. This page is recorded with TensorRT-RTX,
# which has no plugins, so both are refused: **neither plugin is recorded**, and the
# code for them has not run. That takes standard TensorRT. With it the same cell builds
# them, checks them and tells how long a call takes.

# Output varies: it depends on the flavor, and prints timings.
for make in (just_in_time, ahead_of_time):
    try:
        run = make()
    except (RuntimeError, ImportError) as refused:
        print(f"{make.__name__}: {type(refused).__name__}: {refused}")
    else:
        error = check(run, model, (fresh,), (x,), tolerance, make.__name__)
        print(
            make.__name__, engines_in(run), "engines,", latency(partial(run, x)), "ms"
        )

# %%
# "Requires TensorRT 10.7.0 or higher" sends users of TensorRT-RTX to an upgrade that
# does not help: there ``qdp_plugin`` is false whatever the version, and the network has
# no function that adds a plugin. On standard TensorRT it is false for 10.14, where
# plugins are broken.
#
# Which way?
# ----------
#
# .. list-table::
#    :header-rows: 1
#    :widths: 18 27 27 28
#
#    * -
#      - PyTorch fallback
#      - Converter
#      - Plugin
#    * - Take it when
#      - the operator comes seldom, or it still changes often
#      - TensorRT's layers can say it; neighbors should fuse
#      - they cannot, and breaks cost too much
#    * - You write
#      - nothing
#      - the formula, a second time
#      - nothing (just in time), a launch (ahead of time)
#    * - Runs your kernel
#      - yes
#      - no
#      - yes
#    * - Engines here
#      - :recorded:`engines_cut`
#      - :recorded:`engines_whole`
#      - not recorded
#    * - Flavor
#      - both
#      - both
#      - standard TensorRT alone
#    * - Outside Python
#      - the engines do, the operator between them does not. A package of AOTInductor is
#        tried below
#      - yes, as a file for TensorRT alone
#      - just in time: no, TensorRT calls Python. Ahead of time: `yes
#        <https://docs.pytorch.org/TensorRT/tutorials/_rendered_examples/dynamo/aot_plugin.html>`_,
#        says its documentation
#
# When it goes wrong
# ------------------
# **The converter is not used.** ``torch.compile(backend="tensorrt")`` opens a
# ``triton_op`` before it looks for converters, and finds a launch of a Triton kernel in
# its place. Ahead of time the operator stays closed. How many engines run in a call?

# Needs a GPU: it counts engines that run.
torch.compiler.reset()
lazily = torch.compile(model, backend="tensorrt", options={"min_block_size": 1})
try:
    error = check(lazily, model, (fresh,), (x,), tolerance, "torch.compile")
    print(f"engines_lazily = {profiled(lambda: lazily(x))[1]}")
except RuntimeError as refused:
    print(type(refused).__name__, str(refused).splitlines()[0][:80])

# %%
# **The shapes do not fit.** Without the operator's own check a kernel reads beyond the
# end of the shorter one, and no error says so. With it the message comes at once, or
# while the model is exported.

try:
    gated(x, x[:1])
except RuntimeError as refused:
    print(type(refused).__name__, refused)

# %%
# Take it to production
# ---------------------
# Saved both ways, loaded in a fresh process that does not know the operator. One file
# holds engines and, between them, the operator's name. The other holds one engine.

LOAD = """
import sys, torch, torch_tensorrt
if sys.argv[2] == "package":
    run = torch._inductor.aoti_load_package(sys.argv[1])  # documented, despite its name
else:
    run = torch.export.load(sys.argv[1]).module()
x = torch.load(sys.argv[3], weights_only=True)
print("answers", tuple(run(x).shape), "where the operator is", end=" ")
print("known" if hasattr(torch.ops.gallery, "gated") else "not known")
"""


def load_elsewhere(file, kind, example):
    """How a fresh process ends that loads a file: its exit code, and what it says."""
    command = [sys.executable, "-c", LOAD, file, kind, example]
    limits = {"capture_output": True, "text": True, "timeout": 120}
    ended = subprocess.run(command, **limits)
    lost = re.search(r"We failed to resolve \S+ to an operator", ended.stderr)
    lines = (ended.stdout.strip() or ended.stderr.strip() or "silence").splitlines()
    return f"exit code {ended.returncode}, {lost[0] if lost else lines[-1][:120]}"


# %%
# The third file is to be a *package* of AOTInductor, for C++ as well: what stays in
# PyTorch is compiled, and a ``triton_op`` shows it our kernel. Does that file answer
# where the operator is not known?

# Needs a GPU: it loads engines.
# Output varies: what a process says last.
formats = {"in PyTorch": in_pytorch, "converter": in_layers, "package": in_pytorch}
with tempfile.TemporaryDirectory() as folder:
    torch.save(x, f"{folder}/x.pt")
    for kind, module in formats.items():
        target = f"{folder}/{kind}.pt2"
        packed = {"output_format": "aot_inductor"} if kind == "package" else {}
        try:
            torch_tensorrt.save(module, target, arg_inputs=(x,), **packed)
            told = load_elsewhere(target, kind, f"{folder}/x.pt")
        except Exception as refused:
            told = f"{type(refused).__name__} {str(refused).splitlines()[0][:120]}"
        print(f"{kind}: {told}")

# %%
# Where the operator is missing, import the module that defines it before you load. The
# package was written, but the process that loaded it ended by signal 11, an access to
# memory that was not its own. (The words behind it are the last that it said, a
# warning, and not the reason.) Why, this page does not know. Until it does, the package
# is no way out for this model.
#
# Exercise
# --------
# Leave the casts out of the converter: the engine then computes the gate in float16.
# How far does the error grow? Does it still, where ``gate`` is as large as ``200``?
#
# Takeaways
# ---------
# - Left in PyTorch, the operator cuts the model into :recorded:`engines_cut` engines.
#   A break takes :recorded:`break_us` µs of the host's time. In a CUDA graph it takes
#   none: there the two ways are as fast as each other, within a few percent.
# - A converter makes it :recorded:`engines_whole`. In a CUDA graph that takes
#   :recorded:`whole_graph_us` µs, the model with breaks :recorded:`cut_graph_us`.
# - Over the best of PyTorch alone that is :recorded:`faster`, and with the breaks
#   :recorded:`cut_faster`. The converter's engine reaches :recorded:`of_limit` of what
#   reading the weights allows, and is ready after :recorded:`ready_s` seconds, measured
#   once.
# - Plugins need standard TensorRT. There, ahead of time is the one without Python.

# sphinx_gallery_tags = ["custom operators", "converters", "plugins", "Triton language"]
