"""
CUDA graphs: one launch for a whole model
=========================================

Replay an engine as one CUDA graph, see on a timeline what that saves, and know what
must stay the same between two replays.

At a glance
-----------

- ResNet-50 for one image: :recorded:`plain_us` µs a call without a graph, which is the
  host's time and moves from run to run, and :recorded:`whole_us` µs with one. The
  kernels themselves take :recorded:`busy_us` µs.
- On TensorRT-RTX the default of ``enable_cudagraphs`` takes :recorded:`default_us` µs;
  ask for ``whole_graph_capture``.
- A graph reads fixed addresses, so inputs are written in place. For this engine it
  holds :recorded:`graph_mib` MiB. With two shapes in turns it saves nothing:
  :recorded:`alternating_us` µs a call, :recorded:`alternating_plain_us` without it.
- With a graph on both sides TensorRT is :recorded:`speedup` times as fast as the best
  of PyTorch without max-autotune. The gain is the graph's, and PyTorch can have one
  too.
- No graph where the work depends on the data, as with a boolean mask.

What you will learn
-------------------

- What a launch costs, and when a model is bound by launches.
- The ways to a graph with Torch-TensorRT, on both flavors, and which one to use.
- Graphs across operators that stay in PyTorch, and with shapes that change.
- What goes wrong when addresses change, and when others use the GPU during a capture.

Prerequisites
-------------

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch, but not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# A first success
# ---------------
# A GPU starts a *kernel* when the host says so. Saying it takes the host a few
# microseconds, and some kernels are done sooner than that. Then the GPU waits for the
# host, and a faster GPU would not help. A *CUDA graph* is a list of kernels that was
# recorded once; the host starts all of them with a single launch.
import copy
import logging
import re
import subprocess
import sys

logging.disable(logging.WARNING)  # hints for the library's own developers

import torch
import torch_tensorrt
import torchvision

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.manual_seed(0)
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
size = 224 if device.type == "cuda" else 64

# %%
# Random weights compute as fast as trained ones. One pass in training mode gives the
# batch norms the statistics of their input, so that answers differ from image to image.
# The inputs are smooth, as pictures are (:doc:`how_we_measure` says why).


def smooth(count):
    """So many smooth pictures."""
    coarse = torch.randn(count, 3, 4, 4)
    upscaled = torch.nn.functional.interpolate(
        coarse, size=(size, size), mode="bicubic"
    )
    return (2 * upscaled).to(device, dtype)


network = torchvision.models.resnet50(weights=None)
for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.momentum = None
network.train()(torch.randn(16, 3, size, size))
network = network.eval().to(device, dtype)
print("Weights: random (a ResNet-50 of torchvision's)")
x, fresh = smooth(1), smooth(1)

# %%
# The engine, and its first call in a graph. The strategy is an option of TensorRT-RTX
# alone; standard TensorRT needs none.
on_rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
strategy = {"cuda_graph_strategy": "whole_graph_capture"} if on_rtx else {}


def with_tensorrt(example, **options):
    """The network, compiled ahead of time."""
    return torch_tensorrt.compile(
        network, ir="dynamo", inputs=[example], min_block_size=1, **options
    )


compiled = with_tensorrt(x)
if device.type == "cuda":
    with torch_tensorrt.runtime.enable_cudagraphs(compiled, **strategy) as in_graph:
        print("Answer:", tuple(in_graph(x).shape))

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
# Is it right, and how fast?
# --------------------------
# A benchmark of the GPU hides what the host does before the GPU starts. Here that is
# the subject. So we count microseconds of the clock, for many calls in a row.

CALLS = 200


def microseconds(call):
    """Of the clock, for one call out of many in a row; the median of 15 rounds."""
    taken = []
    for _ in range(15):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()
        taken.append((time.perf_counter() - start) / CALLS * 1e6)
    return pd.Series(taken).median()


# %%
# The timeline of a call, for later: what the host asked the GPU to do, and what the GPU
# did, each with its start and length.


def trace(call):
    """Launches and copies of one call: lane (host, GPU), name, start, length in µs."""
    call()
    torch.cuda.synchronize()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as recorded:
        call()
        torch.cuda.synchronize()
    rows = []
    for event in recorded.events():
        lane = "GPU" if event.device_type.name == "CUDA" else "host"
        asks = re.match("cu(da)?(Launch|GraphLaunch|Memcpy|Memset)", event.name)
        if lane == "GPU" or asks:
            span = event.time_range
            rows.append((lane, event.name, span.start, span.elapsed_us()))
    return pd.DataFrame(rows, columns=["lane", "name", "start", "length"])


# %%
# Four ways: no graph; ``enable_cudagraphs`` as it comes; the same with the strategy;
# and a graph that PyTorch captures around the call. Each answer is checked.

# Needs a GPU: it measures.
# Output varies: it prints timings.
warm_up()
enable = torch_tensorrt.runtime.enable_cudagraphs
taken, traces = {}, {}


def look(name, call):
    """Measure a way, and keep its timeline."""
    taken[name] = microseconds(call)
    traces[name] = trace(call)


look("plain", lambda: compiled(x))
for name, chosen in {"default": {}, "whole": strategy}.items():
    with enable(compiled, **chosen) as module:
        error = check(module, network, (fresh,), (x,), 1e-2, name)
        look(name, lambda: module(x))
look("captured", captured(lambda: compiled(x)))
busy = traces["plain"].query("lane == 'GPU'").length.sum()

# %%
# ``busy`` is the time that the kernels themselves take, summed up.

# Needs a GPU: it reports what was measured.
# Output varies: it prints timings.
for name, value in taken.items():
    print(f"{name}_us = {value:.0f}")
print(f"busy_us = {busy:.0f}")
asked = {
    name: lanes.query("lane == 'host'").name.value_counts()
    for name, lanes in traces.items()
}
pd.DataFrame(asked).fillna(0).astype(int)

# %%
# The table counts what the host asked for in one call. Without a graph it is one launch
# per kernel. With ``whole``, and with the graph captured by hand, it is a single
# launch. With the default the host launches as much as without a graph.
#
# .. note::
#
#    On TensorRT-RTX the default captures nothing here: its column has no
#    ``cudaGraphLaunch``. The strategy ``whole_graph_capture`` does what the name says.
#    On standard TensorRT the default captures, and the option is refused.
#
# The same as a picture
# ---------------------
# Two calls on one scale of time. The host above, the GPU below.

# Needs a GPU: it draws what was recorded.
# Output varies: it draws timings.
# Figure: without a graph the GPU waits for launches; in one graph its kernels follow
#   one another.
figure, axes = plt.subplots(2, 1, figsize=(7, 3.4), sharex=True, layout="constrained")
for axis, name in zip(axes, ("plain", "whole")):
    lanes = traces[name].assign(start=lambda table: table.start - table.start.min())
    for height, (lane, color) in enumerate({"GPU": "C0", "host": "C1"}.items()):
        spans = lanes[lanes.lane == lane]
        blocks = list(zip(spans.start, spans.length))
        axis.broken_barh(blocks, (height + 0.1, 0.8), color=color)
    axis.set_yticks([0.5, 1.5], ["GPU", "host"])
    axis.set_title({"plain": "no graph", "whole": "one graph"}[name], loc="left")
axes[1].set_xlabel("microseconds (recorded by the profiler, which slows the host)")
plt.show()

# %%
# The benchmark
# -------------
# All ways of this gallery on one scale, PyTorch's own included. Inductor's code gains
# from a graph for the same reason.

# Needs a GPU: it measures.
# Output varies: it prints timings.
ordered = copy.deepcopy(network).to(memory_format=torch.channels_last)
inputs, other = ([image.to(memory_format=torch.channels_last)] for image in (x, fresh))
about = {"model": "ResNet-50", "shape": "1x3x224x224", "tolerance": 1e-2}
rows = compare(pytorch_alone(ordered, autotune=False), ordered, inputs, other, **about)
way = {"TensorRT": lambda: with_tensorrt(x)}
rows += compare(way, network, [x], [fresh], **about)
table = results(rows)
by_backend = table.set_index("backend")
print(f"speedup = {by_backend.speedup['TensorRT, CUDA graph']:.2f}")
table.round(4)

# %%
# With a graph on both sides TensorRT is :recorded:`speedup` times as fast as the best
# that PyTorch does alone. Max-autotune is left out here;
# :doc:`torch_compile_resnet_example` has it. Seconds until ready against latency:

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: seconds until ready against latency of ResNet-50 for one image.
plot_ready(table)

# %%
# Operators that stay in PyTorch
# ------------------------------
# If an operator has no converter, the model falls into engines with PyTorch between.
# Torch-TensorRT then wraps the module, and captures all of it as one graph. We leave
# the pooling in PyTorch to see that.

# Needs a GPU: it measures.
# Output varies: it prints timings.
pooling = {"torch.ops.aten.max_pool2d.default"}
broken = with_tensorrt(x, torch_executed_ops=pooling)
print("Parts:", [name for name, _ in broken.named_children()])
print(f"broken_plain_us = {microseconds(lambda: broken(x)):.0f}")
with enable(broken) as module:
    print("The wrapper:", type(module).__name__)
    error = check(module, network, (fresh,), (x,), 1e-2, "with a graph break")
    print(f"broken_whole_us = {microseconds(lambda: module(x)):.0f}")

# %%
# Here no strategy is needed: the wrapper captures as PyTorch does. A model with several
# outputs gets a list from it, whatever it returned before.
#
# Without a graph the cut model takes :recorded:`broken_plain_us` µs, less than the
# whole one above with :recorded:`plain_us`. Both are times of the host, and move from
# run to run (:doc:`how_we_measure`): do not compare them.
#
# Shapes that change
# ------------------
# A graph holds fixed addresses and fixed shapes. When a shape changes, it is captured
# anew. Below two shapes take turns, without a graph and with one. On TensorRT-RTX a
# dynamic engine also makes kernels for each shape as it comes (``lazy``). Another
# strategy, such as ``none``, which keeps to general kernels, holds within a ``with``
# block alone: called as below, without one, the function changes nothing in
# Torch-TensorRT 2.14. So these figures are those of ``lazy``.

# Needs a GPU: it measures.
# Output varies: it prints timings.
image = (3, size, size)
sizes = {"min_shape": (2, *image), "opt_shape": (4, *image), "max_shape": (4, *image)}
batch = torch_tensorrt.Input(**sizes, dtype=dtype)
dynamic = with_tensorrt(batch)
if on_rtx:
    torch_tensorrt.runtime.set_dynamic_shapes_kernel_strategy(dynamic, "none")
pictures = [smooth(2), smooth(4)]


def alternate(module):
    """One call of each shape in turn, in microseconds."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(5):
        for picture in pictures:
            module(picture)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / 10 * 1e6


alternate(dynamic)  # the first call of each shape prepares for it
print(f"alternating_plain_us = {alternate(dynamic):.0f}")
with enable(dynamic, **strategy) as module:
    alternate(module)
    print(f"one_shape_us = {microseconds(lambda: module(pictures[0])):.0f}")
    print(f"alternating_us = {alternate(module):.0f}")

# %%
# Shapes that take turns cost :recorded:`alternating_plain_us` µs a call without a
# graph, and :recorded:`alternating_us` µs with one. Most of that is there without any
# graph. What it is, is not told apart here. One shape in a graph takes
# :recorded:`one_shape_us` µs.
#
# What a graph holds
# ------------------
# A captured graph keeps the memory of its tensors for itself, and the driver keeps the
# list of its kernels. We ask the driver before and after, for several graphs of the
# same engine.

# Needs a GPU: it measures memory.
# Output varies: it prints memory.
graphs = []
torch.cuda.empty_cache()
before = torch.cuda.mem_get_info()[0]
for _ in range(8):
    graphs.append(captured(lambda: compiled(x)))
torch.cuda.synchronize()
print(f"graph_mib = {(before - torch.cuda.mem_get_info()[0]) / 8 / MIB:.1f}")
del graphs

# %%
# When it goes wrong
# ------------------
# **Addresses.** A graph that you captured yourself reads the tensor that was there when
# it was captured. Another tensor is not looked at, and the answer's tensor is the same
# one each time.

# Needs a GPU: it runs graphs.
given = x.clone()
replay = captured(lambda: compiled(given))
first = replay().clone()
given_another = fresh.clone()  # the graph does not know it
print("another tensor:", torch.equal(replay(), first), "- the old answer")
held = replay()
given.copy_(fresh)  # in place: the address stays
replay()
print("written in place:", torch.equal(held, first), "- and a kept answer changed")
error = check(lambda _: replay(), network, (fresh,), (x,), 1e-2, "in place")

# %%
# ``enable_cudagraphs`` takes inputs at any address. On standard TensorRT it copies each
# input into a buffer of its own, and the answer out of one. On TensorRT-RTX the engine
# captures by itself; what another address costs there is not measured.
#
# **Others use the GPU.** While one thread captures, an allocation in another one ends
# the capture, unless it is told to mind its own thread only. **The work depends on the
# data.** A boolean mask has to know how many elements are chosen before it can go on,
# so the host must wait for the GPU, and a capture cannot wait. Both run in a process of
# their own, since a failed capture may leave CUDA unusable.
FAIL = """
import sys, threading, torch

graph, done = torch.cuda.CUDAGraph(), threading.Event()
x = torch.randn(1024, device="cuda")
x * 2

def allocate():
    while not done.is_set():
        torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
        torch.cuda.empty_cache()  # so that each of them asks the driver

kind = sys.argv[1]
other = threading.Thread(target=allocate)
if kind != "mask":
    other.start()
try:
    mode = "global" if kind == "mask" else kind
    with torch.cuda.graph(graph, capture_error_mode=mode):
        for _ in range(1000):
            y = x[x > 0] if kind == "mask" else x * 2
    print("captured")
except RuntimeError as error:
    print(str(error).splitlines()[0])
finally:
    done.set()
"""

# %%
# Three captures: beside a thread that allocates, the same minding its own thread only,
# and one with a mask.

# Needs a GPU: it captures.
# Output varies: which call meets the other thread is chance.
for kind in ("global", "thread_local", "mask"):
    command = [sys.executable, "-c", FAIL, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = (done.stdout or done.stderr).strip().splitlines()
    print(f"{kind}: exit status {done.returncode}, {said[-1] if said else 'no word'}")

# %%
# Take it to production
# ---------------------
# A graph is not saved with a module. After loading, capture again: once per shape that
# you serve, before the first request.

# Needs a GPU: it loads an engine.
# Output varies: it prints timings.
with tempfile.TemporaryDirectory() as folder:
    torch_tensorrt.save(compiled, f"{folder}/resnet50.pt2", arg_inputs=(x,))
    loaded = torch_tensorrt.load(f"{folder}/resnet50.pt2").module()
given = x.clone()
replay = captured(lambda: loaded(given))


def answer(image):
    """The loaded module's answer, from its graph."""
    given.copy_(image)
    return replay()


error = check(answer, network, (fresh,), (x,), 1e-2, "loaded")
print(f"loaded_us = {microseconds(replay):.0f}")

# %%
# Exercise
# --------
# Compile for a batch of 64. Is there still a gap between the kernels on the timeline,
# and what does a graph gain?
#
# Takeaways
# ---------
# - Without a graph a call takes :recorded:`plain_us` µs, of which the kernels need
#   :recorded:`busy_us`. In one graph it takes :recorded:`whole_us` µs.
# - The gain is the graph's: PyTorch's best in a graph sets TensorRT at
#   :recorded:`speedup` of its speed.
# - On TensorRT-RTX name the strategy: the default takes :recorded:`default_us` µs.
# - An operator left in PyTorch does not stop a graph: with one the cut model takes
#   :recorded:`broken_whole_us` µs.
# - Shapes that take turns are slow with a graph and without one:
#   :recorded:`alternating_us` and :recorded:`alternating_plain_us` µs a call. One shape
#   in a graph takes :recorded:`one_shape_us`.

# sphinx_gallery_tags = ["CUDA graphs", "latency", "runtime"]
