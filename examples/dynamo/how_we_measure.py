"""
How we measure
==============

The ruler of this gallery taken apart, with its error bars: what a number on these pages
is worth, and how to use the ruler on your own model.

At a glance
-----------

- A plain clock says :recorded:`wrong_ms` ms for a call that keeps the GPU busy for
  :recorded:`events_ms` ms. The rest lands in the next step of the program.
- In a CUDA graph a latency repeats within :recorded:`idle_graph_spread`, and moves by
  :recorded:`busy_graph_moved` when all cores are busy. Without one the same calls
  scatter by :recorded:`idle_host_bound_spread`: no conclusion may rest on them.
- Give PyTorch the wrong memory format, and TensorRT is :recorded:`contiguous_speedup`
  times as fast; give it the right one, and it is :recorded:`honest_speedup` times.
- A ResNet-18 by Inductor is ready in :recorded:`Inductor_warm_s` s from warm caches and
  in :recorded:`Inductor_emptied_s` s from empty ones, by TensorRT in
  :recorded:`TensorRT_warm_s` and :recorded:`TensorRT_emptied_s` s, once each.
- Half precision alone costs :recorded:`half_on_noise` percent of a random network's
  answer to noise, and :recorded:`half_on_pictures` percent of that to smooth pictures.

What you will learn
-------------------

- How to time a call on a GPU, and how far to trust the result.
- What the L2 cache, the profiler and a busy machine do to a latency.
- What a compile time from a warm cache is worth, and how to empty the caches.
- How much memory an engine takes: by a formula, and by what the driver hands out.
- How to check an answer so that the check can fail.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. A GPU is needed: without one,
``import torch_tensorrt`` fails.
"""

# %%
# A clock that lies
# -----------------
#
# Here is a network of four large layers, and the time that one call takes by Python's
# clock.

# Output varies: it names the device.
import contextlib
import copy
import json
import logging
import re
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

logging.disable(logging.WARNING)  # Converters log hints for their own developers.

import torch
import torchvision

torch.set_grad_enabled(False)
torch.manual_seed(0)
on_gpu = torch.cuda.is_available()
device = torch.device("cuda" if on_gpu else "cpu")
print(
    f"torch {torch.__version__} on", torch.cuda.get_device_name() if on_gpu else "CPU"
)

# %%

# Needs a GPU: its queue is what fools the clock.
# Output varies: times.
WIDTH, BATCH = 8192, 4096
on_half = {"device": "cuda", "dtype": torch.float16}


def layers(width):
    """Four square layers without bias: as many weights as products for one input."""
    square = (width, width, False)
    return torch.nn.Sequential(*(torch.nn.Linear(*square, **on_half) for _ in range(4)))


network, batch = layers(WIDTH), torch.randn(BATCH, WIDTH, **on_half)
network(batch)[0, 0].item()  # The first call loads libraries.

start = time.perf_counter()
network(batch)
clock_ms = 1e3 * (time.perf_counter() - start)
operations = 2 * BATCH * 4 * WIDTH**2
print(f"clock_ms = {clock_ms:.2f}")
print(f"clock_tflops = {operations / clock_ms / 1e9:,.0f}")
torch.cuda.synchronize()

# %%
# That would be :recorded:`clock_tflops` TFLOP/s; further down, this GPU sustains
# :recorded:`tflops` of them. A call only puts work into the GPU's queue, and returns:
# the clock timed the putting. Whoever needs the result first waits for it. So
# take the time of the next step as well, which reads one number of the output, and
# measure in three ways: by the plain clock, by the clock with
# ``torch.cuda.synchronize()``, which waits until the queue is empty, and by CUDA
# events, time stamps that the GPU itself writes.

# Needs a GPU: its queue is what fools the clock.
# Output varies: times.
import pandas as pd


def one_round(synchronize):
    """Milliseconds of a call by the clock, of the next step, and by events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin = time.perf_counter()
    start.record()
    output = network(batch)
    end.record()
    if synchronize:
        torch.cuda.synchronize()
    called = time.perf_counter()
    output[0, 0].item()
    done = time.perf_counter()
    return 1e3 * (called - begin), 1e3 * (done - called), start.elapsed_time(end)


ways = {"clock": False, "clock and synchronize": True}
three = {name: [one_round(wait) for _ in range(20)] for name, wait in ways.items()}
columns = ["call, by the clock", "next step", "call, by events"]
three = {name: pd.DataFrame(r, columns=columns).median() for name, r in three.items()}
print(f"wrong_ms = {three['clock'].iloc[0]:.2f}")
print(f"next_step_ms = {three['clock'].iloc[1]:.2f}")
print(f"synchronized_ms = {three['clock and synchronize'].iloc[0]:.2f}")
print(f"events_ms = {three['clock and synchronize'].iloc[2]:.2f}")
pd.DataFrame(three).T.round(2)

# %%
# With ``synchronize`` the clock says :recorded:`synchronized_ms` ms, and the events say
# :recorded:`events_ms`. The plain clock says :recorded:`wrong_ms` ms. It did not make
# the call cheaper, it booked the cost under the next step, which takes
# :recorded:`next_step_ms` ms. A report that stops before that step shows a fast model.
#
# How this page measures
# ----------------------
#
# All pages of this gallery measure with the code in the next cell, the same on each of
# them letter by letter. The rest of this page takes it apart.

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
# A check that can fail
# ---------------------
#
# A fast wrong answer is worthless, so ``check`` compares first. The error is the norm
# of the difference over the norm of what is expected, over all outputs at once:
#
# .. code-block:: python
#
#     difference = flat(actual) - flat(expected)
#     return (difference.norm() / flat(expected).norm()).item()
#
# An error alone proves nothing. If a network answers everything alike, any candidate
# passes, even one that ignores its input. So the check has a *negative control*: the
# error of the answer to another input, which must be ``10`` tolerances or more.
#
# .. code-block:: python
#
#     control = relative_error(reference(*another), expected)
#
# Is that needed? Here is a ResNet-50 as it is made, with random weights. They compute
# as fast as trained ones, so they are welcome where speed is the topic. We compare the
# network with itself, and give ``check`` another image for the control.

# Output varies: rounding.
resnet = torchvision.models.resnet50(weights=None).eval().to(device)
print("Weights: random (nothing on this page depends on what a network knows)")
image, another = torch.randn(2, 1, 3, 224, 224).to(device)


def caught(function, *arguments):
    """Run what is expected to fail, and print the first line of why it did."""
    try:
        function(*arguments)
    except Exception as error:
        print(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    else:
        print("This was expected to fail, and did not.")


caught(check, resnet, resnet, (image,), (another,), 2e-2, "as made")
print(f"blind_control = {relative_error(resnet(another), resnet(image)):.3f}")

# %%
# The check refuses, and it is right: to this network any image is like any other. The
# error against another image's answer is :recorded:`blind_control`, so a tolerance of
# three percent would pass an engine that ignores its input. The batch norms of an
# untrained network hold the statistics of nobody's data. One forward pass in training
# mode gives them real ones: with ``momentum = None`` they take the average of what they
# saw, where the default would move them by a tenth of the way.

# Output varies: rounding.


def with_statistics(network, images):
    """Give a random network's batch norms the statistics of real activations."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    network.train()
    network(images)
    return network.eval()


resnet = with_statistics(resnet, torch.randn(16, 3, 224, 224).to(device))
check(resnet, resnet, (image,), (another,), 1e-2, "with statistics")
print(f"seeing_control = {relative_error(resnet(another), resnet(image)):.2f}")
pair, others = torch.cat([image, another]), torch.randn(2, 3, 224, 224).to(device)
caught(check, lambda x: resnet(x.flip(0)), resnet, (pair,), (others,), 1e-2, "swapped")
caught(check, lambda x: 1.02 * resnet(x), resnet, (pair,), (others,), 1e-2, "2 % off")

# %%
# The control has risen to :recorded:`seeing_control`, and the check sees what it is
# there for: a candidate that swaps the rows of a batch, and one that is off by a little
# too much. Does it also let a right candidate pass? Half precision rounds every number
# to eleven bits, as an engine does. Here is what that alone does to the answer, in
# percent of it, for two kinds of input: noise, and smooth pictures, which are four by
# four random values in each color, with smooth transitions. The reference computes in
# double precision, so that all of the error is half's.

# Output varies: rounding.


def pictures(count):
    """Smooth random pictures of shape (count, 3, 224, 224)."""
    coarse = torch.randn(count, 3, 4, 4)
    fine = torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic")
    return 2 * fine.to(device)


exact = copy.deepcopy(resnet).double()
half = copy.deepcopy(resnet).half().to(memory_format=torch.channels_last)
kinds = {"noise": (image, another), "pictures": pictures(2).split(1)}
for kind, (one, other) in kinds.items():
    expected = exact(one.double())
    error = relative_error(half(one.half()), expected)
    control = relative_error(exact(other.double()), expected)
    print(f"half_on_{kind} = {100 * error:.2f}")
    print(f"another_on_{kind} = {100 * control:.0f}")
image, another = kinds["pictures"]

# %%
# On noise, rounding alone is off by :recorded:`half_on_noise` percent, where another
# image's answer is :recorded:`another_on_noise` percent away. With one percent allowed,
# a right engine would be called wrong. On pictures the two are
# :recorded:`half_on_pictures` and :recorded:`another_on_pictures` percent: one percent
# lies well between them. *A check needs an input on which rounding is small and another
# answer is far.* From here on all inputs of this network are pictures.
#
# Does looking slow it down?
# --------------------------
#
# The ruler asks PyTorch's profiler which kernels ran. Does a process stay slower once
# the profiler was used in it? Three rounds tell: two before its first use, whose
# difference is what chance does, and one after.

# Needs a GPU: latency.
# Output varies: latency.
image = image.half().to(memory_format=torch.channels_last)
another = another.half().to(memory_format=torch.channels_last)
eager = {
    "eager": lambda: half(image),
    "eager, CUDA graph": captured(lambda: half(image)),
}
looked = {name: in_turns(eager, rounds=10).median() for name in ("first", "second")}
kernels, _ = profiled(eager["eager"])
looked["after the profiler"] = in_turns(eager, rounds=10).median()
looked = pd.DataFrame(looked)
chance = 100 * (looked["second"] / looked["first"] - 1)
change = 100 * (looked["after the profiler"] / looked["second"] - 1)
for name, row in {"host": "eager", "graph": "eager, CUDA graph"}.items():
    print(f"chance_{name}_percent = {chance[row]:.1f}")
    print(f"profiler_{name}_percent = {change[row]:.1f}")
looked.round(3)

# %%
# Without a graph the call took :recorded:`profiler_host_percent` percent longer after
# the profiler, where two rounds before it differed by :recorded:`chance_host_percent`
# percent. In a CUDA graph the change is :recorded:`profiler_graph_percent` percent.
# Whether the profiler slows the host or the host slows by itself, these rounds cannot
# tell. So ``measure`` profiles each way *before* it is timed, and no row was timed in a
# process that had not profiled yet.
#
# And this is what it saw: the kernels that took longest, of one call with
# :recorded:`launches` launches.

# Needs a GPU: kernels.
# Output varies: times.
print(f"launches = {kernels.launches.sum()}")
kernels["kernel"] = [re.split("[<(]", name)[0] for name in kernels.kernel]
kernels.head(5).round(1)

# %%
# Cold and warm
# -------------
#
# .. code-block:: python
#
#     return do_bench(call, warmup=100, rep=milliseconds, quantiles=[0.5, 0.2, 0.8])
#
# ``do_bench`` is Triton's (the language). It calls for a while to warm up, then puts a
# CUDA event before and after each call, and gives the median, the 20th and the 80th
# percentile. Before each call it overwrites a buffer larger than the GPU's L2 cache, so
# weights come from memory, as after other work. A loop over the same call would find
# them in the cache if they fit, and show a speed that your program may never see. Here
# are networks of four layers and one input, cold by the ruler, and warm: with a call
# that is not timed after the overwriting.

# Needs a GPU: its cache.
# Output varies: latency.
warm_up()  # Compiles something small each way: nobody pays below for loading.


def warm_latency(call):
    """Median of a call in ms, with its data in the cache as far as it fits."""
    buffer = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(200):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        buffer.zero_()  # Meanwhile the host gets ahead, as it does in do_bench.
        call()
        start.record()
        call()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize()
    return pd.Series([start.elapsed_time(end) for start, end in times]).median()


def cold_and_warm(width):
    """Weights in MiB, and cold over warm latency, of four layers for one input."""
    network, vector = layers(width), torch.randn(1, width, **on_half)
    call = captured(lambda: network(vector))
    return weight_bytes(network) / MIB, latency(call)[0] / warm_latency(call)


# %%

# Needs a GPU: its cache.
# Output varies: latency.
# Figure: Cold weights cost up to :recorded:`cold_over_warm_most` times the time of warm
#   ones, most for a network smaller than the L2 cache, and something beyond it too.
widths = (512, 1024, 1536, 2048, 2560, 3072, 4096, 6144)
weights, ratios = zip(*(cold_and_warm(width) for width in widths))
l2 = torch.cuda.get_device_properties(0).L2_cache_size / MIB
print(f"l2_mib = {l2:.0f}")
print(f"cold_over_warm_most = {max(ratios):.2f}")
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot(weights, ratios, "o-")
axis.axvline(l2, color="black", linestyle="--", label="size of the L2 cache")
axis.set(xscale="log", xlabel="weights in MiB", ylabel="cold over warm", ylim=0)
axis.set_xticks([2, 10, 50, 250], ["2", "10", "50", "250"])
axis.legend()
plt.show()

# %%
# A loop over one call would have shown these networks up to
# :recorded:`cold_over_warm_most` times as fast as they are on data that is not in the
# cache. The gap is widest for a network smaller than the L2 cache of :recorded:`l2_mib`
# MiB. Just beyond the cache it is as wide as just below it, and shrinks from there.
#
# The error bars
# --------------
#
# How far can a latency be trusted? We measure the same call twelve times, and four
# calls in turns: ResNet-50 in eager and as an engine, without and with a CUDA graph.
# ``captured`` makes a graph by hand: three calls on a side stream, so that all is
# allocated, then one that is recorded instead of run.
#
# .. code-block:: python
#
#     graph = torch.cuda.CUDAGraph()
#     with torch.cuda.graph(graph):
#         output = call()
#
# Without a graph the host launches each kernel, and for a call as short as this one the
# GPU waits: the call is *host-bound*. With a graph the host launches once. First the
# engine. Where there is no GPU, its cell builds it all the same, in float32.

# Output varies: rounding.


def with_tensorrt(module, example):
    """The module, compiled ahead of time into a TensorRT engine for one shape."""
    return torch_tensorrt.compile(
        module, ir="dynamo", inputs=[example], min_block_size=1
    )


reference = half if on_gpu else resnet
compiled = with_tensorrt(reference, image)
right = check(compiled, reference, (another,), (image,), 1e-2, "TensorRT")

# %%

# Needs a GPU: latency.
# Output varies: latency.
calls = eager | {
    "TensorRT": lambda: compiled(image),
    "TensorRT, CUDA graph": captured(lambda: compiled(image)),
}
print(f"engines_run = {profiled(calls['TensorRT'])[1]}")
repeats = {"idle": in_turns(calls, rounds=12)}
repeats["idle"].describe().loc[["min", "50%", "max"]].round(3)

# %%
# These cores had nothing else to do. Yours may decode images or load data. So once
# more, with another process on each core.

# Needs a GPU: latency.
# Output varies: latency.


@contextlib.contextmanager
def busy_cores():
    """A busy process on each of our cores, for as long as the block lasts."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(cores)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


with busy_cores():
    repeats["busy"] = in_turns(calls, rounds=12)
repeats["busy"].describe().loc[["min", "50%", "max"]].round(3)

# %%

# Needs a GPU: shows the measurement.
# Output varies: latency.
# Figure: On a busy host calls in a CUDA graph stay within
#   :recorded:`busy_graph_spread`, host-bound ones scatter by
#   :recorded:`busy_host_bound_spread`.
medians = repeats["idle"].median()
figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True, layout="constrained")
rows = []
for axis, (host, table) in zip(axes, repeats.items()):
    for name in reversed(table.columns):
        distance = 100 * (table[name] / medians[name] - 1)
        axis.plot(distance, [name] * len(table), "o", alpha=0.4)
        about = {"host": host, "call": name, "moved": distance.median()}
        rows.append(about | {"spread": distance.max() - distance.min()})
    axis.set_title(f"{host} host")
figure.supxlabel("distance from the median on an idle host, in percent")
plt.show()
for host, table in pd.DataFrame(rows).groupby("host"):
    for kind, part in table.groupby(table.call.str.contains("graph")):
        name = f"{host}_graph" if kind else f"{host}_host_bound"
        print(f"{name}_spread = {part.spread.max():.1f} percent")
        print(f"{name}_moved = {part.moved.abs().max():.1f} percent")

# %%
# In a CUDA graph the repeats lie within :recorded:`idle_graph_spread`, and the busy
# cores moved their median by :recorded:`busy_graph_moved`. Host-bound repeats scatter
# by :recorded:`idle_host_bound_spread` on idle cores already, and the busy ones moved
# them by :recorded:`busy_host_bound_moved`. So a conclusion may rest on a row with a
# CUDA graph, and on no other. Is a *ratio* safer, if both calls were measured in turns
# by ``in_turns``, so that both sides of a round meet the same host?

# Needs a GPU: latency.
# Output varies: latency.
for host, table in repeats.items():
    low, middle, high = (table["eager"] / table["TensorRT"]).quantile([0.1, 0.5, 0.9])
    print(f"{host}_ratio = {middle:.2f}")
    print(f"{host}_ratio_range = {low:.2f} to {high:.2f}")

# %%
# Not by much on this machine. The median ratio is :recorded:`idle_ratio`, with eight
# rounds of ten from :recorded:`idle_ratio_range`; with busy cores it is
# :recorded:`busy_ratio`, from :recorded:`busy_ratio_range`. Which side is faster
# survives, by how much does not. Say the range with such a ratio.
#
# A row of the table
# ------------------
#
# ``measure`` puts the pieces together: empty the caches, build, call once, look at what
# ran (``check_way``), then take latency, error and memory, without and with a CUDA
# graph. ``compare`` does so for every way, and ``results`` adds the speed-up, which is
# over the best that PyTorch does alone:
#
# .. code-block:: python
#
#     alone = table.backend.str.match("(eager|Inductor).*, CUDA graph$")
#     best = table[alone].groupby(key, sort=False).latency_ms.min().rename("best")
#
# One thing stays uneven on most pages. TensorRT takes the weights as constants, so it
# can compute with them while it builds. Inductor does so only with its option
# ``freezing``, in rows named *frozen*. :doc:`torch_compile_freezing` measures it on
# five models. It gains much on BERT-base, where it turns TensorRT's lead around, and
# little or nothing on the other four. Where a page has no such row, Inductor can be
# faster than the page says.
#
# Before the table the limit: nothing is faster than the arithmetic at the rate of a
# large matrix product, or than reading the weights at the rate of a large copy.

# Needs a GPU: measures what it sustains.
# Output varies: rates.
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as counter:
    half(image)
tflops, gigabytes = gpu_limits(torch.float16)
arithmetic_ms = counter.get_total_flops() / tflops / 1e9
limit_ms = max(arithmetic_ms, weight_bytes(half) / gigabytes / 1e6)
print(f"tflops = {tflops:.0f}")
print(f"limit_ms = {limit_ms:.3f}")

# %%
# The table has the same network twice: with its weights in ``channels_last`` order, and
# as PyTorch makes it. Autotuning is left out here to save a minute; it could only help
# PyTorch.

# Needs a GPU: the benchmark.
# Output varies: latency.


def rows_of(model, module, inputs, fresh):
    """Rows of the benchmark table for one order of the weights."""
    ways = pytorch_alone(module, autotune=False)
    ways["TensorRT"] = lambda: with_tensorrt(module, *inputs)
    about = {"model": model, "shape": "1x3x224x224", "tolerance": 1e-2}
    return compare(ways, module, inputs, fresh, **about)


rows = rows_of("ResNet-50", half, [image], [another])
plain = copy.deepcopy(half).to(memory_format=torch.contiguous_format)
contiguous = [image.contiguous()], [another.contiguous()]
rows += rows_of("ResNet-50, contiguous", plain, *contiguous)
table = results(rows)
table.round(4)

# %%

# Needs a GPU: shows the measurement.
# Output varies: latency.
# Figure: TensorRT is :recorded:`honest_speedup` times as fast as Inductor, and ready
#   earlier.
plot_ready(table[table.model == "ResNet-50"])
engine = table[table.backend == "TensorRT, CUDA graph"].set_index("model")
print(f"honest_speedup = {engine.speedup['ResNet-50']:.2f}")
print(f"contiguous_speedup = {engine.speedup['ResNet-50, contiguous']:.2f}")
print(f"of_limit_percent = {100 * limit_ms / engine.latency_ms['ResNet-50']:.0f}")

# %%
# With the weights in ``channels_last`` order Inductor wins: TensorRT is
# :recorded:`honest_speedup` times as fast. At one image all are far from the limit,
# TensorRT reaches :recorded:`of_limit_percent` percent of it. The eager call without a
# graph has other medians in the tables around the profiler: that is what a host-bound
# figure is worth.
#
# Seconds until ready
# -------------------
#
# Compilers keep what they made. Inductor has files of graphs and kernels, TensorRT-RTX
# a *runtime cache* of the kernels that it made for your GPU. That is welcome in daily
# work, and a trap where compile times are compared: who comes second looks fast.
# ``empty_caches`` gives Inductor a new folder, and deletes the runtime cache, one file
# for all processes of a user. Standard TensorRT has a file of timings instead.
#
# .. code-block:: python
#
#     if torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
#         cache = torch_tensorrt.runtime.RuntimeSettings().runtime_cache
#     else:
#         cache = torch_tensorrt.dynamo._defaults.TIMING_CACHE_PATH
#     Path(cache).unlink(missing_ok=True)
#
# Does it work? We compile the same ResNet-18 three times: from emptied caches, from
# warm ones, and from emptied ones again. If the first and the third agree, nothing was
# left.

# Needs a GPU: compiles kernels for it.
# Output varies: seconds.
some = torch.randn(16, 3, 224, 224, device="cuda")
small = with_statistics(torchvision.models.resnet18(weights=None).cuda(), some)
small = small.half().to(memory_format=torch.channels_last)


def ready(build, caches):
    """Seconds until the callable exists, and those of its first call."""
    gc.collect()  # What is gone saves its kernels.
    torch.compiler.reset()
    if caches != "warm":
        empty_caches()
    start = time.perf_counter()
    run = build()
    built = time.perf_counter()
    run(image)
    torch.cuda.synchronize()
    return {"compile_s": built - start, "first_call_s": time.perf_counter() - built}


ways = {
    "Inductor": pytorch_alone(small)["Inductor"],
    "TensorRT": lambda: with_tensorrt(small, image),
}
states = ["emptied", "warm", "emptied again"]
seconds = [
    {"backend": name, "caches": caches} | ready(build, caches)
    for name, build in ways.items()
    for caches in states
]

# %%

# Needs a GPU: shows the measurement.
# Output varies: seconds.
seconds = pd.DataFrame(seconds)
seconds["together_s"] = seconds.compile_s + seconds.first_call_s
together = seconds.pivot(index="backend", columns="caches", values="together_s")
for name, row in together.iterrows():
    print(f"{name}_emptied_s = {row['emptied']:.1f}")
    print(f"{name}_warm_s = {row['warm']:.1f}")
    print(f"{name}_third_over_first = {row['emptied again'] / row['emptied']:.2f}")
seconds.round(2)

# %%
# Not quite: the third time is :recorded:`Inductor_third_over_first` times the first for
# Inductor, and :recorded:`TensorRT_third_over_first` times for TensorRT. TensorRT's
# first calls, which the runtime cache serves, agree in the table. Its builds do not,
# and no cache explains that. Each was taken once, so that is how far a compile time can
# be trusted. Warm caches change it by more: from :recorded:`Inductor_emptied_s` to
# :recorded:`Inductor_warm_s` s for Inductor, from :recorded:`TensorRT_emptied_s` to
# :recorded:`TensorRT_warm_s` s for TensorRT, whose engine is built anew and only its
# kernels are kept. From warm caches Inductor is ready first. From empty ones the two
# are as near as two runs of one of them. Compile times of this gallery are from empty
# ones.
#
# Memory
# ------
#
# For PyTorch the ruler adds the weights and the allocator's peak during a call. An
# engine allocates past that allocator. For it there is a formula: the size of the
# engine, which holds the weights, and the work space that it asks for.
#
# .. code-block:: python
#
#     total += len(part.serialized_engine) + engine.device_memory_size_v2
#
# The other way is to ask the driver for the free memory before and after. That is
# easily wrong: the first engine also loads libraries, and a later one can get memory
# that an earlier one gave back. To compare, we load four copies of one engine with
# TensorRT's own API, keep them all, and let each run once.

# Needs a GPU: its memory.
# Output varies: memory.
import tensorrt  # Torch-TensorRT makes this name mean the flavor that is installed.


def taken():
    """MiB that the driver has handed out, to everybody."""
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / MIB


def copies(part, example, count=4):
    """MiB that the driver hands out for each copy of an engine that has run once."""
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    scores = torch.empty(len(example), 1000, **on_half)
    names = part.input_binding_names + part.output_binding_names
    kept, marks = [], [taken()]
    for _ in range(count):
        engine = runtime.deserialize_cuda_engine(part.serialized_engine)
        context = engine.create_execution_context()
        for name, tensor in zip(names, (example, scores)):
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            print("This copy did not run: its memory may be less.")
        kept.append((engine, context))
        marks.append(taken())
    return [after - before for before, after in zip(marks, marks[1:])]


# %%
# One engine holds much and does little: ResNet-50 for one image. The other is the
# reverse: ResNet-18 for 64 images.

# Needs a GPU: its memory.
# Output varies: memory.
many = torch.randn(64, 3, 224, 224, **on_half).to(memory_format=torch.channels_last)
compiled_many = with_tensorrt(small, many)
rows = {}
for name, module, example in (
    ("ResNet-50, 1 image", compiled, image),
    ("ResNet-18, 64 images", compiled_many, many),
):
    [part] = [p for p in module.modules() if isinstance(p, TorchTensorRTModule)]
    sizes = {"formula": engine_bytes(module) / MIB}
    for number, size in enumerate(copies(part, example), 1):
        sizes[f"copy {number}"] = size
    rows[name] = sizes
memory = pd.DataFrame(rows).T
over = memory[["copy 2", "copy 3", "copy 4"]].mean(axis=1) / memory["formula"]
print(f"driver_over_formula_least = {over.min():.2f}")
print(f"driver_over_formula_most = {over.max():.2f}")
memory.round(1)

# %%
# The mean of the later copies is :recorded:`driver_over_formula_least` to
# :recorded:`driver_over_formula_most` times the formula. Single copies scatter around
# it: one reading before and after says little, the formula is what the tables have.
#
# When it goes wrong
# ------------------
#
# A comparison can lie without a wrong number in it. Each of these three happened to us.
#
# **The other side was not tuned.** The benchmark table has it. In the contiguous rows
# PyTorch gets weights and images in an order that costs it time, and TensorRT, which
# takes about as long with either, looks :recorded:`contiguous_speedup` times as fast as
# the best of PyTorch. In the other rows it is :recorded:`honest_speedup` times. One
# call of ``.to(memory_format=...)`` decides who wins.
#
# **The other side never ran.** ``torch.compile`` works around what it cannot capture.
# Here a class is defined inside ``forward``. It is another class in each call, so what
# was compiled for the last one does not fit. PyTorch compiles anew, after some times
# gives up, and runs the function in eager. It says so in a warning, which a program may
# have switched off, as this page has.


class Step(torch.nn.Module):
    """A layer, a GELU and a norm. `forward` scales with a class that it defines."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1024, 1024)
        self.norm = torch.nn.LayerNorm(1024)

    def scaled(self, x, state):
        return self.norm(torch.nn.functional.gelu(self.layer(x))) * state.scale

    def forward(self, x):
        class State:
            scale = 2.0

        return self.scaled(x, State)


step, x = Step().eval().to(device), torch.randn(4096, 1024, device=device)
compilations = []


def counted(graph, example_inputs):
    compilations.append(graph)
    return graph


lost = torch.compile(step, backend=counted, dynamic=False)
for _ in range(12):
    lost(x)
print(f"compilations = {len(compilations)}")

# %%
# Twelve calls, :recorded:`compilations` compilations, then none. The ruler has two
# defenses. It compiles with ``fullgraph=True``, which turns the work
# around into an error:

torch.compiler.reset()
caught(torch.compile(step, fullgraph=True, dynamic=False), x)

# %%
# And ``check_way`` looks at what ran. It wants to see a kernel of Inductor's in an
# Inductor row and an engine in a TensorRT row:
#
# .. code-block:: python
#
#     own = kernels.kernel.str.startswith("triton_")
#     assert own.any(), f"{backend}: no kernel of Inductor's ran; this is eager"

# Needs a GPU: kernels.
# Output varies: latency.
lost = torch.compile(step, dynamic=False)
for _ in range(12):
    lost(x)
caught(check_way, "Inductor", lambda: lost(x))
caught(check_way, "TensorRT", lambda: half(image))

shared = SimpleNamespace(scale=2.0)  # One for all calls.
mended = torch.compile(lambda x: step.scaled(x, shared), fullgraph=True, dynamic=False)
mended(x)
check_way("Inductor", lambda: mended(x))
lost_ms = latency(captured(lambda: lost(x)))[0]
print(f"lost_over_eager = {lost_ms / latency(captured(lambda: step(x)))[0]:.2f}")
print(f"lost_over_inductor = {lost_ms / latency(captured(lambda: mended(x)))[0]:.2f}")

# %%
# Both were caught. What is called compiled here runs at :recorded:`lost_over_eager`
# times the time of eager, and at :recorded:`lost_over_inductor` times that of what
# Inductor makes of the mended module.
#
# **A mask that masks nothing.** Attention with a mask of which every entry is true has
# the same answer as attention without one. Some libraries make such a mask while a
# model is traced.

# Needs a GPU: kernels.
# Output varies: latency.
attend = torch.nn.functional.scaled_dot_product_attention
query, key, value = torch.randn(3, 32, 12, 512, 64, **on_half)
mask = torch.ones(32, 1, 512, 512, dtype=torch.bool, device="cuda")
attentions = {
    "no mask": lambda q: attend(q, key, value),
    "all true": lambda q: attend(q, key, value, attn_mask=mask),
}
check(attentions["all true"], attentions["no mask"], (query,), (value,), 1e-2)
rows = {}
for name, way in attentions.items():
    call = partial(way, query)
    longest = profiled(call)[0].kernel[0]
    ms = latency(captured(call))[0]
    rows[name] = {"ms": round(ms, 3), "longest kernel": re.split("[<(]", longest)[0]}
print(f"mask_costs = {rows['all true']['ms'] / rows['no mask']['ms']:.2f}")
pd.DataFrame(rows).T

# %%
# The mask costs :recorded:`mask_costs` times the time, for the very same answer. The
# longest kernel even has the same name, so a list of kernels does not show it. Measured
# against that, anything looks fast. Look at what the other side is given.
#
# Take it to production
# ---------------------
#
# A latency in a report ages; one in a test keeps watch. Save a baseline with what it
# depends on, and let a test ``assert fast_enough(...)`` later. The margin comes from
# the error bars.

# Needs a GPU: latency.
# Output varies: latency.
here = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
saved = json.dumps(here | {"latency_ms": latency(calls["TensorRT, CUDA graph"])[0]})


def fast_enough(call, baseline):
    """Whether a call takes no longer than its baseline and the margin allow."""
    assert {name: baseline[name] for name in here} == here, "made on another machine"
    now, then = latency(call)[0], baseline["latency_ms"]
    print(f"{now:.3f} ms, baseline {then:.3f} ms, ratio {now / then:.2f}")
    return now <= 1.05 * then


for name in ("TensorRT, CUDA graph", "eager, CUDA graph"):
    print(f"{name}:", fast_enough(calls[name], json.loads(saved)))

# %%
# Exercise
# --------
#
# Time the four large layers of the beginning in a loop of a hundred calls without
# ``synchronize``, and divide by a hundred. Is that nearer to the truth? Make the layers
# smaller until it is wrong by half, and say why.
#
# Takeaways
# ---------
#
# - A plain clock measures how long the host takes to ask: :recorded:`wrong_ms` ms of
#   :recorded:`events_ms`. Synchronize, or use events.
# - Rows with a CUDA graph scatter by :recorded:`idle_graph_spread`, host-bound ones by
#   :recorded:`idle_host_bound_spread`, on a busy machine by
#   :recorded:`busy_host_bound_spread`. Rest conclusions on the former.
# - Tune the other side: the memory format alone turns :recorded:`honest_speedup` times
#   as fast into :recorded:`contiguous_speedup`, a needless mask costs PyTorch
#   :recorded:`mask_costs` times the time.
# - Empty the caches before comparing compile times: :recorded:`Inductor_warm_s` s or
#   :recorded:`Inductor_emptied_s` for the same model.
# - A check needs a control that is far and a rounding that is small. Noise gave
#   :recorded:`another_on_noise` and :recorded:`half_on_noise` percent, smooth pictures
#   :recorded:`another_on_pictures` and :recorded:`half_on_pictures`.

# sphinx_gallery_tags = ["measuring", "CUDA graphs", "benchmark", "accuracy"]
