"""
Allocate outputs ahead of the call
==================================

Take the allocation of outputs out of an engine's way, know what that gains, and never
find an old result overwritten.

At a glance
-----------

- With 64 outputs :recorded:`saved_64_us` of a call's :recorded:`plain_64_us` µs are
  saved, because the same buffers are used in every call. With one output nothing is
  gained: :recorded:`saved_1_us` of :recorded:`plain_1_us` µs.
- How large an output is makes no difference to the host: what counts is how many there
  are.
- In a CUDA graph there is nothing to gain, and a graph gains more.
- A model with one output is safe. One that returns several, or ends with an operator
  in PyTorch, has its old results overwritten by later calls. Made safe, it gains
  nothing: :recorded:`safe_saved_us` µs in place of :recorded:`unsafe_saved_us`.

What you will learn
-------------------

- What Torch-TensorRT does with outputs in a call, and what it costs.
- When ``enable_pre_allocated_outputs`` helps, and when it does nothing.
- Which models it is unsafe for, how to see that, and two ways out.

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
# An engine does not own its outputs. At each call Torch-TensorRT asks PyTorch for a
# tensor per output, tells the engine its address, and only then starts the engine. In
# the meantime the GPU waits. A detector's head is the case where that counts: small
# tensors, many of them, and a GPU that is done in a few microseconds.

import logging

logging.disable(logging.WARNING)  # hints for the library's own developers

import torch
import torch_tensorrt
from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.manual_seed(0)
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
print("Weights: random, a model of this page's own")


class Heads(torch.nn.Module):
    """One layer, and its result in so many parts of 64 numbers."""

    def __init__(self, parts):
        super().__init__()
        self.layer = torch.nn.Linear(256, 64 * parts)
        self.parts = parts

    def forward(self, x):
        return tuple(torch.relu(self.layer(x)).chunk(self.parts, dim=1))


def with_tensorrt(model, example):
    """The model, compiled ahead of time; engines of a single operator count too."""
    return torch_tensorrt.compile(
        model, ir="dynamo", inputs=[example], min_block_size=1
    )


def made(parts):
    """A model of so many outputs, and its engine."""
    model = Heads(parts).eval().to(device, dtype)
    return model, with_tensorrt(model, x)


x, fresh = torch.randn(2, 16, 256, device=device, dtype=dtype)
# %%
# Sixty-four outputs, and three calls.

heads, compiled = made(64)
with torch_tensorrt.runtime.enable_pre_allocated_outputs(compiled):
    for _ in range(3):
        answers = compiled(x)
print(len(answers), "outputs of", tuple(answers[0].shape))

# %%
# The context manager switches every engine of the module. After a call was started,
# outputs for the next one are allocated, or, as here, those at hand are used again.
# So it acts from the second call on, and as long as the input's shape stays the same.
#
# What does it gain? These calls are shorter than what a benchmark of the GPU can see:
# the host is the slow part. So we let the host make many calls in a row and wait at the
# end. ``queued`` is the time until the host has started them all, the other the time
# until the GPU is ready too; both in microseconds a call. A host's own speed drifts
# from minute to minute, so everything that stands in one table takes turns.
import time
from functools import partial

import pandas as pd

CALLS, ROUNDS = 300, 15


def microseconds(call):
    """Of the host and of the whole, for one call out of many in a row."""
    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    queued = time.perf_counter()
    torch.cuda.synchronize()
    done = time.perf_counter()
    return (queued - start) / CALLS * 1e6, (done - start) / CALLS * 1e6


def both_ways(modules):
    """Each module once a round: microseconds queued and done, plain and pre-allocated.

    `modules` maps a name to a module and its input.
    """
    names = ("plain queued", "plain", "ahead queued", "ahead")
    rows = []
    for _ in range(ROUNDS):
        for name, (module, example) in modules.items():
            plain = microseconds(partial(module, example))
            with torch_tensorrt.runtime.enable_pre_allocated_outputs(module):
                ahead = microseconds(partial(module, example))
            rows.append({"of": name, **dict(zip(names, (*plain, *ahead)))})
    rounds = pd.DataFrame(rows).assign(saved=lambda row: row["plain"] - row["ahead"])
    return rounds.groupby("of", sort=False)


# %%
# One output, four, sixteen, sixty-four: medians of the rounds, and the middle half of
# what is saved in one round.

# Needs a GPU: it measures calls.
# Output varies: it prints timings.
rounds = both_ways({parts: (made(parts)[1], x) for parts in (1, 4, 16, 64)})
by_parts = rounds.median().rename_axis("outputs")
for label, share in (("saved p25", 0.25), ("saved p75", 0.75)):
    by_parts[label] = rounds["saved"].quantile(share)
for parts, row in by_parts.iterrows():
    print(f"plain_{parts}_us = {row['plain']:.0f}")
    print(f"saved_{parts}_us = {row['saved']:.1f}")
each_us = (by_parts["plain"][64] - by_parts["plain"][1]) / 63
print(f"each_output_us = {each_us:.1f}")
by_parts.round(1)

# %%
# Every output adds :recorded:`each_output_us` µs to a plain call. The figure shows what
# of it is saved.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: microseconds a call over the number of outputs, plain and pre-allocated.
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.plot(by_parts.index, by_parts["plain"], "o-", label="plain")
axis.plot(by_parts.index, by_parts["ahead"], "s--", label="pre-allocated")
axis.set(xlabel="outputs", ylabel="µs a call", ylim=(0, None))
axis.set_xticks(by_parts.index)
axis.legend(frameon=False)
plt.show()

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
# Is it right?
# ------------
# The check runs with pre-allocated outputs, several times, so that a buffer that is
# used again would be seen. The answer to another input shows that it can fail.

tolerance = 1e-2 if dtype == torch.float16 else 1e-4
with torch_tensorrt.runtime.enable_pre_allocated_outputs(compiled):
    for _ in range(3):
        error = check(compiled, heads, (fresh,), (x,), tolerance)

# %%
# Why the size does not matter
# ----------------------------
# PyTorch keeps memory that was freed, and hands it out again. That is a look into a
# list, whatever the size. Only the very first allocation asks the driver.

# Needs a GPU: it allocates there.
# Output varies: it prints timings.
KIB = 2**10


def allocate(size):
    """Allocate and free so many bytes."""
    return torch.empty(size, dtype=torch.uint8, device="cuda")


torch.cuda.empty_cache()
for size in (4 * KIB, 256 * KIB, 16 * MIB, 1024 * MIB):
    start = time.perf_counter()
    kept = allocate(size)
    torch.cuda.synchronize()
    first = (time.perf_counter() - start) * 1e6
    del kept
    again = microseconds(partial(allocate, size))[0]
    print(f"{size // KIB:8,} KiB: first {first:6.0f} µs, again {again:4.1f} µs")
    print(f"again_{size // KIB}_us = {again:.1f}")

# %%
# So a larger output costs the host nothing more. But it costs the GPU time to write it,
# and from some size on the GPU is the slow part. Then the host's work is hidden behind
# the GPU's, pre-allocated or not. One output, from small to large:

# Needs a GPU: it measures calls.
# Output varies: it prints timings.
relu = torch.nn.ReLU()
by_size = {}
for rows in (64, 1024, 16384, 65536):
    large = torch.randn(rows, 512, device=device, dtype=dtype)
    by_size[f"{large.nbytes / MIB:g} MiB"] = with_tensorrt(relu, large), large
both_ways(by_size).median().rename_axis("output").round(1)

# %%
# Compare ``plain queued`` with ``plain``. Where they are equal, the host is the slow
# part; where ``plain`` is larger, the GPU is. On this GPU they are equal at all four
# sizes: the host decides even for the largest. And with one output nothing is saved.
#
# A CUDA graph does more
# ----------------------
# A CUDA graph replays the whole call, addresses included. It allocates nothing, and it
# also drops everything else that the host does. Where one can be used, there is nothing
# left to allocate ahead of.

# Needs a GPU: it measures.
# Output varies: it prints timings.
warm_up()
replay = captured(lambda: compiled(x))
graph_us = pd.DataFrame([microseconds(replay) for _ in range(ROUNDS)]).median()[1]
print(f"graph_64_us = {graph_us:.0f}")
print(f"ahead_64_us = {by_parts['ahead'][64]:.0f}")
about = {"model": "64 heads", "shape": "16x256", "tolerance": tolerance}
ways = pytorch_alone(heads, autotune=False)
ways |= {"TensorRT": lambda: with_tensorrt(heads, x)}
table = results(compare(ways, heads, [x], [fresh], **about))
table.round(4)

# %%
# ``speedup`` sets each row against the best that PyTorch does alone, in a CUDA graph,
# ``max-autotune`` left out; below 1 PyTorch is faster. It is, with a graph and without.
# In a graph Inductor takes as long as eager. It was not eager: the ruler found kernels
# of its own.
# Seconds until ready against latency, for completeness: on a model as small as this
# one, what surrounds the kernels decides.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: seconds until ready against latency of the model with 64 outputs.
plot_ready(table)

# %%
# When it goes wrong
# ------------------
# A buffer that was allocated ahead can be handed out once and then replaced, or be used
# for every call. In the second case a call overwrites what the last one returned. Which
# of the two it is, Torch-TensorRT decides when it compiles. An engine whose result
# leaves the model is marked *unowned*: its buffers belong to whoever called, and are
# used once. An engine whose result only feeds the next one keeps its buffer.
#
# The mark is set if the engine *itself* is an output of the graph. Three models that
# return the same numbers:


class Sum(torch.nn.Module):
    """Returns one tensor; a tuple with it and another; or a view of it."""

    def __init__(self, returns):
        super().__init__()
        self.returns = returns

    def forward(self, x):
        total = torch.relu(x) + 1
        if self.returns == "two tensors":
            return total, total * 2
        if self.returns == "a view made in PyTorch":
            return total.t()
        return total


def compiled_sum(returns):
    """Its engine; `permute` is left in PyTorch, like any op without a converter."""
    left = {"torch.ops.aten.permute.default"}
    return torch_tensorrt.compile(
        Sum(returns).eval().to(device),
        ir="dynamo",
        inputs=[x],
        min_block_size=1,
        torch_executed_ops=left,
    )


# %%
# The context manager looks for engines among the module's children. So do we.


def first_of(answer):
    """The first tensor of an answer."""
    return answer if isinstance(answer, torch.Tensor) else answer[0]


def engines_of(module):
    """Engines that the context manager finds: children of this type."""
    children = dict(module.named_children()).values()
    return [child for child in children if isinstance(child, TorchTensorRTModule)]


kinds = ("one tensor", "two tensors", "a view made in PyTorch")
modules = {kind: compiled_sum(kind) for kind in kinds}
for kind, module in modules.items():
    marks = [engine.are_output_tensors_unowned() for engine in engines_of(module)]
    print(f"{kind}: unowned {marks}")

# %%
# Each is called five times, on inputs of 0, 1, 2, 3 and 4. We keep all answers, and
# look at them only afterwards: they ought to be 1, 2, 3, 4 and 5.

# Needs a GPU: it runs engines.
inputs = [torch.full_like(x, number) for number in range(5)]


def kept_answers(module):
    """Call on each input, keep the answers, and read them at the end."""
    with torch_tensorrt.runtime.enable_pre_allocated_outputs(module):
        kept = [first_of(module(value)) for value in inputs]
    addresses = {answer.data_ptr() for answer in kept}
    return [answer.flatten()[0].item() for answer in kept], len(addresses)


for kind, module in modules.items():
    values, addresses = kept_answers(module)
    print(f"{kind}: answers {values}, {addresses} addresses")

# %%
# A marked engine gives each answer an address of its own. The others are not marked,
# since their outputs are *parts* of the engine's result, or made from it. An engine
# without the mark uses its buffer again, so answers that somebody still holds change.
#
# There are two ways out. Copy what you keep. Or set the mark yourself: then a new
# buffer is allocated for each call, but still after the engine was started.

# Needs a GPU: it runs engines.
for kind, module in modules.items():
    for engine in engines_of(module):
        engine.set_output_tensors_as_unowned(True)
    print(f"{kind}: answers {kept_answers(module)[0]}")

# %%
# With the mark, is anything left of the gain? The model with 64 outputs is one of the
# unsafe kind.

# Needs a GPU: it measures calls.
# Output varies: it prints timings.
marked = made(64)[1]
for engine in engines_of(marked):
    engine.set_output_tensors_as_unowned(True)
kinds = {"used again": (compiled, x), "used once": (marked, x)}
medians = both_ways(kinds).median().rename_axis("buffer")
print(f"unsafe_saved_us = {medians.saved['used again']:.1f}")
print(f"safe_saved_us = {medians.saved['used once']:.1f}")
medians.round(1)

# %%
# A second way to go wrong: nothing happens. The context manager looks for engines among
# the module's direct children. A module made by ``torch.compile``, or one that sits
# inside your own module, has none there, and no message says that none was found.

# Needs a GPU: it compiles.
lazily = torch.compile(heads, backend="tensorrt", options={"min_block_size": 1})
lazily(x)
around = torch.nn.Sequential(compiled)
found = {"compiled": compiled, "around it": around, "torch.compile": lazily}
for name, module in found.items():
    print(f"{name}: {len(engines_of(module))} engines found")

# %%
# And a third: a shape that changes. A buffer fits one shape, so a model that is called
# with ever other shapes allocates at each call again, and pays for the buffer that was
# allocated in vain.

# Needs a GPU: it measures calls.
# Output varies: it prints timings.
sizes = {"min_shape": (2, 256), "opt_shape": (16, 256), "max_shape": (32, 256)}
batch = torch_tensorrt.Input(**sizes, dtype=dtype)
dynamic = torch_tensorrt.compile(heads, ir="dynamo", inputs=[batch], min_block_size=1)
shapes = [torch.randn(size, 256, device=device, dtype=dtype) for size in (8, 16)]


def changing():
    for example in shapes:
        dynamic(example)


def constant():
    for _ in shapes:
        dynamic(shapes[1])


rows = []
for _ in range(ROUNDS):
    row = {}
    for name, call in {"one shape": constant, "two shapes": changing}.items():
        row[name] = microseconds(call)[1] / 2
        with torch_tensorrt.runtime.enable_pre_allocated_outputs(dynamic):
            row[f"{name}, ahead"] = microseconds(call)[1] / 2
    rows.append(row)
by_shape = pd.DataFrame(rows).median()
for name in by_shape.index:
    print(f"{name}: {by_shape[name]:.0f} µs a call")

# %%
# Take it to production
# ---------------------
# The mark is saved with an engine; the switch is not. A loaded module runs its engines
# without these children, so there the switch finds nothing either, and every call
# allocates as before. Look before you rely on it.

# Needs a GPU: it loads an engine.
with tempfile.TemporaryDirectory() as folder:
    torch_tensorrt.save(compiled, f"{folder}/heads.pt2", arg_inputs=(x,))
    loaded = torch_tensorrt.load(f"{folder}/heads.pt2").module()
error = check(loaded, heads, (fresh,), (x,), tolerance, label="loaded")
print(f"loaded: {len(engines_of(loaded))} engines found")

# %%
# Exercise
# --------
# Compile ``Heads(64)`` so that it returns one tensor, and split it in PyTorch after the
# engine. Is the plain call now faster than the one with 64 outputs allocated ahead? And
# are answers that you keep safe?
#
# Takeaways
# ---------
# - A call pays about :recorded:`each_output_us` µs for each output, whatever its size.
#   Allocating ahead saves :recorded:`saved_64_us` of :recorded:`plain_64_us` µs with
#   64 outputs, and :recorded:`saved_1_us` µs with one.
# - A CUDA graph takes the same model to :recorded:`graph_64_us` µs. Use it where you
#   can.
# - Several outputs, or an operator in PyTorch at the end: the engine is not marked, and
#   a later call may overwrite an answer that you kept. With the mark set, a call saves
#   :recorded:`safe_saved_us` µs, without it :recorded:`unsafe_saved_us`: so nothing is
#   left. (They are from a later table, where every call took longer; why was not
#   traced. Compare within a table only.)
# - Count the engines that the context manager finds. It does not.

# sphinx_gallery_tags = ["runtime", "memory", "latency"]
