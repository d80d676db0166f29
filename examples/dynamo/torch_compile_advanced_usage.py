"""
torch.compile with TensorRT, taken apart
========================================

See what ``torch.compile(backend="tensorrt")`` made of your model, mend what stayed in
PyTorch, and know what the backend costs at each call.

At a glance
-----------

- A call through ``torch.compile`` takes :recorded:`lazy_us` µs, ahead of time
  :recorded:`ahead_us`. Ahead of time with the weights passed in at each call, as
  ``torch.compile`` does, it is :recorded:`passed_us`; its own checks of a call take
  another :recorded:`guards_us`.
- Every operator left in PyTorch cuts an engine in two: one engine becomes
  :recorded:`engines_cut`, and :recorded:`whole_us` µs become :recorded:`cut_us`.
- A build that fails with no more than a warning answers rightly, with
  :recorded:`silent_engines` engines: pass ``pass_through_build_failures``.
- To spare norms and GELU gains nothing on this model: :recorded:`error_spared`,
  autocast alone :recorded:`error_autocast`, all in float16 :recorded:`error_half`.

What you will learn
-------------------

- How to read what became of each operator, before anything is built.
- What ``min_block_size``, ``torch_executed_ops`` and the partitioners do.
- How graph breaks and recompilations are found and mended.
- How precision is lost from block to block, and how to spare layers.

Prerequisites
-------------

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch, but not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# A first success
# ---------------
# The model is a small transformer encoder, written out, so that each operator can be
# found again.
import contextlib
import copy
import io
import logging
import re
from functools import partial
from pathlib import Path

logging.disable(logging.WARNING)  # hints for the library's own developers

import torch
import torch_tensorrt
from torch.nn.functional import gelu, scaled_dot_product_attention

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.manual_seed(0)
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
print("Weights: random, a model of this page's own")

# %%
# One block of it.
WIDTH, HEADS = 256, 8


class Block(torch.nn.Module):
    """Attention and two linear layers, each behind a layer norm."""

    def __init__(self):
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(2))
        self.mix = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.out = torch.nn.Linear(WIDTH, WIDTH)
        self.up = torch.nn.Linear(WIDTH, 4 * WIDTH)
        self.down = torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        parts = self.mix(self.norms[0](x)).view(batch, length, 3, HEADS, -1)
        parts = parts.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(parts[0], parts[1], parts[2])
        mixed = mixed.transpose(1, 2)
        x = x + self.out(mixed.reshape(batch, length, WIDTH))
        return x + self.down(gelu(self.up(self.norms[1](x))))


# %%
# Compiled, called, and counted. ``pass_through_build_failures`` makes a build that
# fails an error; without it the model runs in PyTorch, as a section below shows.
encoder = torch.nn.Sequential(*(Block() for _ in range(4))).eval().to(device, dtype)
x, fresh = torch.randn(2, 8, 64, WIDTH, device=device, dtype=dtype)
OPTIONS = {"min_block_size": 1, "pass_through_build_failures": True}
lazily = torch.compile(encoder, backend="tensorrt", options=OPTIONS)
print("Answer:", tuple(lazily(x).shape))

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
# What became of each operator
# ----------------------------
# A dry run stops before anything is built, and reports what would be: which operators
# have a converter, and into how many engines they fall. GELU is left in PyTorch here on
# purpose, as an operator without a converter would be.
tolerance = 2e-2 if dtype == torch.float16 else 1e-4
error = check(lazily, encoder, (fresh,), (x,), tolerance, "torch.compile")
LEFT = {"torch.ops.aten.gelu.default"}


def ahead(model, example, **options):
    """The model, compiled ahead of time."""
    settings = {"min_block_size": 1} | options
    return torch_tensorrt.compile(model, ir="dynamo", inputs=[example], **settings)


report = io.StringIO()
with contextlib.redirect_stdout(report):
    ahead(encoder, x, dryrun=True, torch_executed_ops=LEFT)
for line in report.getvalue().splitlines():
    if re.match("The graph consists|torch.ops|Node:| +TRT Engine|.*Operators in", line):
        print(line.strip())

# %%
# Read it from the top: how many operators have a converter; which have none or were
# left out, and how often; then the engines, one after the other. The names at the end
# of a ``Node`` line are the modules in your own code.
#
# Blocks, and who cuts them
# -------------------------
# Each GELU ends an engine, and the next one begins behind it. ``min_block_size`` says
# how many operators make an engine worth its launch; smaller blocks stay in PyTorch.
# The *partitioner* draws the borders. The default one goes through the graph once;
# ``use_fast_partitioner=False`` looks at the whole graph.
import pandas as pd
from torch_tensorrt.dynamo.runtime import TorchTensorRTModule


def engines_in(module):
    """How many engines a compiled module has."""
    parts = module.modules()
    return sum(isinstance(part, TorchTensorRTModule) for part in parts)


def cut(least, fast):
    """The model with GELU left in PyTorch."""
    options = {"min_block_size": least, "use_fast_partitioner": fast}
    return ahead(encoder, x, torch_executed_ops=LEFT, **options)


modules = {
    (least, name): cut(least, name == "fast")
    for least in (1, 5, 20)
    for name in ("fast", "global")
}
counted = pd.Series({key: engines_in(module) for key, module in modules.items()})
counted.index.names = ["min_block_size", "partitioner"]
counted.unstack()

# %%
# Both partitioners make as many engines here. A count of 0 means that all of it stays
# in PyTorch, and no message says so. What do
# the cuts cost? The same model in one engine, cut as above, and in eager, each in a row
# of many calls, in microseconds of the clock. A host's own speed drifts by more than
# these differences, so the calls take turns.

# Needs a GPU: it measures.
# Output varies: it prints timings.


def once(call, times=100):
    """Microseconds of the clock for a call out of many in a row."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times * 1e6


def microseconds(calls, rounds=15):
    """Each call once a round: the median of the rounds."""
    taken = [{name: once(call) for name, call in calls.items()} for _ in range(rounds)]
    return pd.DataFrame(taken).median()


warm_up()
whole = ahead(encoder, x)
several = modules[1, "fast"]
error = check(several, encoder, (fresh,), (x,), tolerance, "cut")
print(f"engines_cut = {engines_in(several)}")
calls = {
    "whole": lambda: whole(x),
    "cut": lambda: several(x),
    "eager": lambda: encoder(x),
}
for name, cost in microseconds(calls).items():
    print(f"{name}_us = {cost:.0f}")

# %%
# What a call through torch.compile costs
# ---------------------------------------
# The backend makes an engine from the same operators. But it takes longer a call.
# One cause can be read off the engine: how many inputs does it have?


def inputs_of(make):
    """Inputs of each engine that is made meanwhile (private, seen in 2.14)."""
    kept, original = [], TorchTensorRTModule.__init__

    def noted(self, *args, **kwargs):
        original(self, *args, **kwargs)
        kept.append(len(self.input_binding_names))

    TorchTensorRTModule.__init__ = noted
    try:
        make()
    finally:
        TorchTensorRTModule.__init__ = original
    return kept


torch.compiler.reset()
lazily = torch.compile(encoder, backend="tensorrt", options=OPTIONS)
print("Weights of the model:", len(list(encoder.parameters())))
print("Inputs, torch.compile:", *inputs_of(lambda: lazily(x)))
print("Inputs, ahead of time:", *inputs_of(lambda: ahead(encoder, x)))

# %%
# ``torch.compile`` hands the weights over as inputs, so that they may change between
# two calls. The engine holds none of them, and every call passes them all. Is that the
# cost? An experiment: compile ahead of time, with the weights as inputs as well.

# Needs a GPU: it measures.
# Output varies: it prints timings.
weights = dict(encoder.named_parameters())


class Given(torch.nn.Module):
    """The same model, with weights that are passed in."""

    def __init__(self):
        super().__init__()
        self.names = list(weights)
        self.hidden = [encoder]  # in a list: its weights are not this module's own

    def forward(self, x, *values):
        given = dict(zip(self.names, values))
        return torch.func.functional_call(self.hidden[0], given, (x,))


values = list(weights.values())
program = torch.export.export(Given().eval(), (x, *values))
passed = torch_tensorrt.dynamo.compile(program, [x, *values], min_block_size=1)
error = check(
    lambda x: passed(x, *values), encoder, (fresh,), (x,), tolerance, "passed"
)

# %%
# And what does ``torch.compile`` add by itself? It checks at each call that the
# compiled code still fits. So we give it a backend that compiles nothing, and compare
# with a call of the very graph that this backend was given.

# Needs a GPU: it measures.
# Output varies: it prints timings.
inner = {}


def kept(graph, example_inputs):
    """A backend that compiles nothing, and keeps how its graph is called."""

    def run(*given):
        inner["call"] = partial(graph.forward, *given)
        return graph.forward(*given)

    return run


guarded = torch.compile(encoder, backend=kept)
guarded(x)
calls = {
    "ahead": lambda: whole(x),
    "passed": lambda: passed(x, *values),
    "lazy": lambda: lazily(x),
    "guarded": lambda: guarded(x),
    "direct": inner["call"],
}
costs = microseconds(calls)
print(f"guards_us = {costs.pop('guarded') - costs.pop('direct'):.0f}")
for name, cost in costs.items():
    print(f"{name}_us = {cost:.0f}")

# %%
# ``guards_us`` is that difference. Weights and checks do not add up to all that
# ``torch.compile`` takes more; the rest was not traced. The figure shows the three
# ways.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: A call ahead of time, the same with weights passed in, and torch.compile's.
axis = costs[::-1].plot.barh(figsize=(7, 2))
labels = ["torch.compile", "ahead of time, weights passed", "ahead of time"]
axis.set_yticks(range(3), labels)
axis.set_xlabel("µs a call")
plt.tight_layout()
plt.show()

# %%
# The benchmark
# -------------
# Both ways beside PyTorch's own, without and with a CUDA graph; ``max-autotune`` is
# left out. A graph drops what the host does. What then still differs is the GPU's work.

# Needs a GPU: it measures.
# Output varies: it prints timings.
ways = pytorch_alone(encoder, autotune=False) | {
    "TensorRT": lambda: ahead(encoder, x),
    "TensorRT, torch.compile": lambda: torch.compile(
        encoder, backend="tensorrt", options=OPTIONS
    ),
}
about = {"model": "encoder, 4 blocks", "shape": "8x64", "tolerance": tolerance}
table = results(compare(ways, encoder, [x], [fresh], **about))
by_backend = table.set_index("backend")
for name in ("TensorRT", "TensorRT, torch.compile"):
    key = name.partition(", ")[2].replace("torch.compile", "lazy_") + "speedup"
    print(f"{key} = {by_backend.speedup[f'{name}, CUDA graph']:.2f}")
table.round(4)

# %%
# In a CUDA graph the engine that was compiled ahead of time is :recorded:`speedup`
# times as fast as the best of PyTorch alone; ``lazy_speedup`` says it of the engine of
# ``torch.compile``, which is slower than eager PyTorch in a graph. So weights that are
# passed in cost time on the GPU too; why was not traced. Rows without a graph were
# taken once, and tell less than the calls in turns above. Seconds until ready:

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: seconds until ready against latency, both ways to TensorRT beside PyTorch's.
plot_ready(table)

# %%
# Graph breaks
# ------------
# Code that needs a value on the host ends the graph: it becomes two, with two engines.
# ``explain`` says how many breaks there are, and where.


class Scaled(torch.nn.Module):
    """Doubles its input if the sum is positive, by a question or by an operator."""

    def __init__(self, asks):
        super().__init__()
        self.asks = asks

    def forward(self, x):
        if self.asks:
            scale = 2 if x.sum().item() > 0 else 1  # the host waits for the GPU
        else:
            scale = torch.where(x.sum() > 0, 2, 1)
        return torch.relu(x * scale)


for asks in (True, False):
    torch.compiler.reset()
    told = torch._dynamo.explain(Scaled(asks))(x)  # documented, despite its name
    print(f"asks the host: {asks}, graph breaks: {told.graph_break_count}")
    for reason in told.break_reasons:
        print(reason.reason.splitlines()[0])

# %%
# ``fullgraph=True`` makes a break an error, which is what you want in production.
#
# Recompilation
# -------------
# The first new batch size compiles again, for any size from then on. If sizes are known
# to change, say so before the first call, with bounds: then the engine is built once.
# We count the builds.


def builds(sizes, bounds=None):
    """Engines that are built while batches of these sizes come."""
    torch.compiler.reset()
    fresh_compile = torch.compile(encoder, backend="tensorrt", options=OPTIONS)

    def call_all():
        for size in sizes:
            batch = torch.randn(size, 64, WIDTH, device=device, dtype=dtype)
            if bounds:
                torch._dynamo.mark_dynamic(batch, 0, min=bounds[0], max=bounds[1])
            fresh_compile(batch)

    return len(inputs_of(call_all))


print("as they come:", builds((2, 3, 4, 5)), "builds")
print("marked:", builds((2, 3, 4, 5), bounds=(2, 8)), "builds")

# %%
# Precision, layer by layer
# -------------------------
# TensorRT takes the type that the graph has: the model's own, or what *autocast* writes
# into it. (In float32 it may round the inputs of products to TF32, ten bits;
# ``disable_tf32=True``, which asks it not to, did nothing on the GPU of
# :doc:`mixed_precision_example`.) Autocast takes a model in float32, and makes half the
# operators not on its list; ahead of time only. The error of each block, half against
# float32, by hooks on PyTorch's side:
exact = encoder.float()
half_type = torch.float16 if device.type == "cuda" else torch.bfloat16
x32, fresh32 = x.float(), fresh.float()
outputs = {}


def keep(name):
    return lambda module, given, output: outputs.__setitem__(name, output)


def by_block(model, example):
    """The output of each block."""
    outputs.clear()
    hooks = [block.register_forward_hook(keep(n)) for n, block in enumerate(model)]
    model(example)
    for hook in hooks:
        hook.remove()
    return dict(outputs)


def errors_by_block(model, reference):
    """Relative error of each block's output against float32."""
    right = by_block(reference, fresh32)
    parameter = next(model.parameters())
    found = by_block(model, fresh32.to(parameter.dtype))
    return [relative_error(found[n], right[n]) for n in right]


lowered = {"float16": torch.float16, "bfloat16": torch.bfloat16}
if device.type != "cuda":
    lowered = {"bfloat16": torch.bfloat16}
errors = {
    name: errors_by_block(copy.deepcopy(exact).to(kind), exact)
    for name, kind in lowered.items()
}
pd.DataFrame(errors, index=[f"block {n}" for n in range(len(encoder))])

# %%
# Each block adds its own error to what it was given. Now the engines: all in
# half; autocast; autocast that spares the layer norms and GELU. Names in
# ``autocast_excluded_nodes`` are those of the exported graph, as regular expressions.


def lowered_by_rule(**options):
    """An engine from the float32 model, lowered by autocast."""
    autocast = {"enable_autocast": True, "autocast_low_precision_type": half_type}
    return ahead(exact, x32, **autocast, **options)


engines = {
    "float32": ahead(exact, x32),
    "autocast": lowered_by_rule(),
    "spared": lowered_by_rule(autocast_excluded_nodes={"layer_norm.*", "gelu.*"}),
}
for name, module in engines.items():
    error = check(module, exact, (fresh32,), (x32,), 5e-2, name)
    print(f"error_{name} = {error:.1e}")

# %%
# And the model that was made half before it was compiled:

# Needs a GPU: half on a CPU is slow.
# Output varies: rounding.
whole_half = copy.deepcopy(exact).half()
half_engine = ahead(whole_half, x32.half())
error = check(
    lambda x: half_engine(x.half()), exact, (fresh32,), (x32,), 5e-2, "all in float16"
)
print(f"error_half = {error:.1e}")
calls = {name: partial(module, x32) for name, module in engines.items()}
calls["half"] = lambda: half_engine(x32.half())
for name, cost in microseconds(calls).items():
    print(f"{name}_us = {cost:.0f}")

# %%
# What was built
# --------------
# The debugger writes what the conversion did into a folder: graphs before and after the
# passes that you name, and the layers of each engine with their precision.

# Needs a GPU: an engine tells its layers there.
# Output varies: layers depend on the release.
folder = Path(tempfile.mkdtemp())
with torch_tensorrt.dynamo.Debugger(
    log_level="error",
    logging_dir=str(folder),
    save_layer_info=True,
    engine_builder_monitor=False,
):
    ahead(exact, x32)
for file in sorted(folder.rglob("*")):
    if file.is_file():
        print(file.relative_to(folder), f"{file.stat().st_size:,} bytes")

# %%
# When it goes wrong
# ------------------
# **It fell back in silence.** If a build fails, ``torch.compile`` runs the model in
# PyTorch. The answer is right, and a benchmark of it measures PyTorch. A warning in the
# log tells, if warnings are not turned off, as they are here. An option has a value
# that this release does not know:

# Needs a GPU: it counts engines that ran.
# Output varies: the message depends on the release.
torch.compiler.reset()
wrong = {"min_block_size": 1, "tiling_optimization_level": "quick"}
silent = torch.compile(exact, backend="tensorrt", options=wrong)
error = check(silent, exact, (fresh32,), (x32,), 5e-2, "in silence")
print(f"silent_engines = {profiled(lambda: silent(x32))[1]}")
torch.compiler.reset()
loud = torch.compile(exact, backend="tensorrt", options=wrong | OPTIONS)
try:
    loud(x32)
except Exception as refused:
    print(type(refused).__name__, *str(refused).splitlines()[:2])

# %%
# **Autocast and lists.** In this release autocast cannot pass an operator that returns
# a list, such as ``unbind`` or ``chunk``. Index instead.


class Halves(torch.nn.Module):
    """Adds the two halves of its input."""

    def forward(self, x):
        first, second = x.chunk(2, dim=-1)
        return first + second


try:
    ahead(Halves(), x32, enable_autocast=True, autocast_low_precision_type=half_type)
except Exception as refused:
    print(type(refused).__name__, str(refused).splitlines()[0])

# %%
# **A masked encoder answers wrongly.** ``attn_bias_is_causal`` is on by default, and
# replaces a mask by the causal one: see :doc:`torch_compile_transformers_example`.
#
# Take it to production
# ---------------------
# What ``torch.compile`` makes lives as long as its process. To keep it, compile ahead
# of time, which puts the weights into the engine, and save that.

# Needs a GPU: it loads an engine.
with tempfile.TemporaryDirectory() as place:
    torch_tensorrt.save(whole, f"{place}/encoder.pt2", arg_inputs=(x,))
    loaded = torch_tensorrt.load(f"{place}/encoder.pt2").module()
error = check(loaded, whole_half, (fresh,), (x,), tolerance, "loaded")

# %%
# Exercise
# --------
# Leave only the GELU of the last block in PyTorch. ``torch_executed_ops`` names
# operators and not places: which way is there to leave one of several?
#
# Takeaways
# ---------
# - ``torch.compile`` passes the weights at each call, and takes :recorded:`lazy_us` µs,
#   where ahead of time takes :recorded:`ahead_us`. With weights passed in, ahead of
#   time takes :recorded:`passed_us`. To check that the compiled code still fits takes
#   :recorded:`guards_us`.
# - Cut into :recorded:`engines_cut` engines, the model takes :recorded:`cut_us` µs in
#   place of :recorded:`whole_us`.
# - Count the engines: a build that failed ran :recorded:`silent_engines`, and answered
#   rightly.
# - Measure before you spare layers. Here autocast is off by :recorded:`error_autocast`,
#   all in half by :recorded:`error_half`, and sparing norms and GELU changes nothing:
#   :recorded:`error_spared`.

# sphinx_gallery_tags = ["torch.compile", "precision", "debugging"]
