"""
Cache engines, and know what a hit is worth
===========================================

Keep built engines and compiled kernels from one start to the next, and never be handed
the engine of another model.

At a glance
-----------

- All figures are of TensorRT-RTX on the GPU named above, with a ResNet-18 in float16.
- With nothing cached the model is ready after :recorded:`nothing_s` s, with a hit in
  the engine cache after :recorded:`engines_s` s, with a warm runtime cache after
  :recorded:`kernels_s` s, with both after :recorded:`both_s` s.
- A hit takes new weights: they answer after :recorded:`renewed_s` s. The start that
  fills the engine cache takes longest, :recorded:`empty_s` s.
- The key of an engine leaves out numbers in the graph. A hit with another ``dim`` is
  :recorded:`dim_hit_error` away from the right answer, without any message.

What you will learn
-------------------

- How to switch the engine cache on, ahead of time and for ``torch.compile``.
- What it saves, what the runtime cache saves, and which to use when.
- How to write a cache of your own: in memory, and in a folder that several processes
  share.
- What ``engine_cache_size`` does, and what it does after a restart.
- How a hit can be a wrong engine, and a key that prevents it.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. You need to know PyTorch, and
that TensorRT builds an *engine*, a compiled program with its weights, from a model.
"""

# %%
# Build once, build again
# -----------------------
# A service that starts anew builds its engines anew. The *engine cache* keeps them in a
# folder. The model here is a ResNet-18; ``renewed`` is the same network with other
# weights, as after a fine-tuning.

# Output varies: pretrained weights need a network.
import contextlib
import copy
import io
import logging
import pickle
import socket
import tempfile
import time
from functools import partial
from pathlib import Path

logging.disable(logging.WARNING)  # hints about optional packages

import torch
import torch_tensorrt
import torchvision

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
print("TensorRT-RTX" if rtx else "TensorRT", "on", device.type)

# %%
# Where the pretrained weights cannot be downloaded they are random. One pass in
# training mode then gives the batch normalizations statistics of data; without it the
# network would answer all images alike. The inputs are smooth, as photographs are.

# Output varies: pretrained weights need a network.
socket.setdefaulttimeout(10)  # seconds to wait for a download
try:
    with contextlib.redirect_stdout(io.StringIO()):  # hides "Downloading ..."
        model = torchvision.models.resnet18(weights="DEFAULT", progress=False)
    print("Weights: pretrained (torchvision, ImageNet)")
except OSError:
    model = torchvision.models.resnet18(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics of the data alone
    model.train()(torch.randn(16, 3, 224, 224))
    print("Weights: random (torchvision's could not be downloaded)")
model = model.eval().to(device, dtype)
renewed = copy.deepcopy(model)
for weight in renewed.parameters():
    weight.mul_(1 + 0.1 * torch.randn_like(weight))
coarse = torch.randn(2, 3, 4, 4)
smooth = torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic")
image, fresh = (2 * smooth).to(device, dtype).split(1)

# %%
# Three options switch the cache on, and all three are needed. A hit replaces the
# weights of the engine it found (a *refit*), so the engine has to allow that:
# ``immutable_weights=False``.

folder = Path(tempfile.mkdtemp())
tolerance = 1e-2 if dtype == torch.float16 else 1e-4  # relative, for all checks
CACHED = {
    "cache_built_engines": True,
    "reuse_cached_engines": True,
    "immutable_weights": False,
}


def build(model, example, **options):
    """Compile ahead of time; engines of a single operator count too."""
    program = torch.export.export(model, (example,))
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=(example,), min_block_size=1, **options
    )


compiled = build(model, image, engine_cache_dir=str(folder / "resnet"), **CACHED)
blobs = list(folder.glob("resnet/*/blob.bin"))
print(f"Engines in the folder: {len(blobs)}")

# %%
# The second build finds it, puts the new weights in, and is done. The file has not been
# touched: nothing was built. The file is smaller than the weights: the library leaves
# them out of it.

# Needs a GPU: a hit refits the engine, which only a GPU can do.
# Output varies: seconds on the clock, sizes.
written = blobs[0].stat().st_mtime_ns
start = time.perf_counter()
again = build(renewed, image, engine_cache_dir=str(folder / "resnet"), **CACHED)
print(f"hit_once_s = {time.perf_counter() - start:.1f}")
print("Built again:", blobs[0].stat().st_mtime_ns != written)
engine_mb = sum(weight.nbytes for weight in model.parameters()) / 1e6
print(f"weights_mb = {engine_mb:.1f}")
print(f"blob_mb = {blobs[0].stat().st_size / 1e6:.1f}")

# %%
# How this page measures
# ----------------------
# This block is the same on all pages; :doc:`how_we_measure` explains it.

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
# Are they right? Both are checked on an image that they were not compiled with, and the
# answer to another image shows that the check can fail. The last line shows that the
# hit does not answer with the weights of the engine in the folder.

# Needs a GPU: a hit refits the engine, which only a GPU can do.
# Output varies: half precision changes the last digits.
check(compiled, model, (fresh,), (image,), tolerance, "built")
check(again, renewed, (fresh,), (image,), tolerance, "hit, new weights")
old = relative_error(again(fresh), model(fresh))
print(f"distance_to_old_weights = {old:.2f}")

# %%
# A cache of your own
# -------------------
# A cache is a class with ``save`` and ``load``. The smallest keeps its entries in a
# dictionary. What it is handed are a key and a *blob*, the engine with the names of its
# inputs and the settings. Ours also counts what it found.

# Private, seen in 2.14: there is no public name for the class to inherit from.
from torch_tensorrt.dynamo._engine_cache import BaseEngineCache, DiskEngineCache


class MemoryCache(BaseEngineCache):
    """Engines in a dictionary of this process."""

    def __init__(self):
        self.blobs = {}
        self.found = 0

    def save(self, hash, blob, *args, **kwargs):
        self.blobs[hash] = blob

    def load(self, hash, *args, **kwargs):
        blob = self.blobs.get(hash)
        self.found += blob is not None
        return blob


memory = MemoryCache()
compiled = build(model, image, custom_engine_cache=memory, **CACHED)
print(f"Engines in memory: {len(memory.blobs)}, found: {memory.found}")

# %%
# Two caches
# ----------
# TensorRT-RTX compiles twice: the builder makes the engine, and the first call makes
# the kernels for this very GPU, just in time. The engine cache keeps what the first
# step made. What the second made is in the *runtime cache*: one file, in the temporary
# folder of the machine, that Torch-TensorRT reads and writes unasked. (The data-center
# flavor chooses its kernels while it builds. There the file is the *timing cache*.)
#
# So we measure a start with each. ``start_up`` puts the file into the state that is
# wanted, and takes the seconds of three steps.

if rtx:
    KERNELS = Path(torch_tensorrt.runtime.RuntimeSettings().runtime_cache)
else:
    KERNELS = Path(torch_tensorrt.dynamo._defaults.TIMING_CACHE_PATH)  # private


def start_up(model, engines=None, kernels=b""):
    """Seconds of export, build and first call; and the compiled module."""
    gc.collect()  # Modules that go write their kernels to the file: first.
    KERNELS.unlink(missing_ok=True)
    if kernels:
        KERNELS.write_bytes(kernels)
    options = CACHED | {"custom_engine_cache": engines} if engines else {}
    marks = [time.perf_counter()]
    program = torch.export.export(model, (image,))
    marks.append(time.perf_counter())
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=(image,), min_block_size=1, **options
    )
    marks.append(time.perf_counter())
    compiled(image)
    torch.cuda.synchronize()
    marks.append(time.perf_counter())
    steps = zip(["export", "build", "first call"], marks, marks[1:])
    return {step: end - begin for step, begin, end in steps}, compiled


# %%
# A first round fills both caches, with the kernels of a plain engine and of one that
# can be refitted. Then the ways take turns.

# Needs a GPU: it measures.
# Output varies: seconds on the clock.
warm_up()
start_up(model)
gc.collect()
plain = KERNELS.read_bytes() if KERNELS.exists() else b""
start_up(model, memory, plain)
gc.collect()
warm = KERNELS.read_bytes() if KERNELS.exists() else b""
print(f"kernels_kb = {len(plain) / 1e3:.0f}")
print(f"kernels_of_both_kb = {len(warm) / 1e3:.0f}")
STARTS = {
    "nothing cached": lambda: start_up(model),
    "engine cache, empty": lambda: start_up(model, MemoryCache()),
    "engine cache": lambda: start_up(model, memory),
    "runtime cache": lambda: start_up(model, None, warm),
    "both": lambda: start_up(model, memory, warm),
    "both, new weights": lambda: start_up(renewed, memory, warm),
}
taken, modules = [], {}
for _ in range(2):
    for name, start in STARTS.items():
        steps, modules[name] = start()
        taken.append({"start": name, **steps})

# %%
# The hits are checked, like everything that answers.

# Needs a GPU: it reports what was measured.
# Output varies: seconds on the clock.
for name, module in modules.items():
    true = renewed if "new" in name else model
    check(module, true, (fresh,), (image,), tolerance, name)
taken = pd.DataFrame(taken)
median = taken.groupby("start", sort=False).median()
total = median.sum(axis=1)
for name, label in zip(
    ("nothing", "empty", "engines", "kernels", "both", "renewed"), STARTS
):
    print(f"{name}_s = {total[label]:.1f}")
totals = taken.set_index("start").sum(axis=1).groupby("start", sort=False)
spread = ((totals.max() - totals.min()) / totals.median()).max()
print(f"largest_spread = {spread:.0%}")
median.round(2)

# %%

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: Ready after :recorded:`nothing_s` s with nothing cached, :recorded:`engines_s`
#    s with the engine cache, :recorded:`kernels_s` s with the runtime cache,
#    :recorded:`both_s` s with both.
axis = median[::-1].plot.barh(stacked=True, figsize=(7, 3.2), width=0.7)
axis.set(xlabel="seconds until the first answer", ylabel="")
axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False)
plt.tight_layout()
plt.show()

# %%
# The longest start of all is the one that fills an empty engine cache,
# :recorded:`empty_s` s: an engine whose weights can be replaced takes longer to build,
# as :doc:`refit_engine_example` measures. So count how many starts come after it.
#
# What does a hit cost later? An engine with replaceable weights may run more slowly
# than one with fixed weights. So both stand in the table, beside what PyTorch does
# alone. In ``compile_s`` of the cached engine there is no build, only the export and
# the refit. ``speedup`` is over the best that PyTorch does alone, in a CUDA graph and
# without max-autotune; below 1 PyTorch is faster.

# Needs a GPU: it measures.
# Output varies: it prints timings.
tuned = copy.deepcopy(model).to(memory_format=torch.channels_last)
ways = pytorch_alone(tuned, autotune=False) | {
    "TensorRT": lambda: build(model, image),
    "TensorRT, cached engine": lambda: build(
        model, image, custom_engine_cache=memory, **CACHED
    ),
}
about = {"model": "ResNet-18", "shape": "1x3x224x224", "tolerance": tolerance}
table = results(compare(ways, model, [image], [fresh], **about))
by_backend = table.set_index("backend").latency_ms
fixed, cached = by_backend[
    ["TensorRT, CUDA graph", "TensorRT, cached engine, CUDA graph"]
]
print(f"cached_over_fixed = {cached / fixed:.2f}")
table.round(3)

# %%

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: In a CUDA graph the cached engine takes :recorded:`cached_over_fixed` times as
#    long as the one with fixed weights.
plot_ready(table)

# %%
# The builder takes an ``optimization_level``: a lower one asks it for less effort. Does
# that shorten this build? Seconds of the build, and milliseconds of a call:

# Needs a GPU: it measures.
# Output varies: it prints timings.
for level in (0, 3, 5):
    start = time.perf_counter()
    tried = build(model, image, optimization_level=level)
    seconds = time.perf_counter() - start
    milliseconds = latency(captured(partial(tried, image)), 100)[0]
    print(f"level_{level}_build_s = {seconds:.1f}")
    print(f"level_{level}_ms = {milliseconds:.3f}")

# %%
# No: the build takes :recorded:`level_0_build_s` s at level 0 and
# :recorded:`level_5_build_s` s at level 5, a call :recorded:`level_0_ms` and
# :recorded:`level_5_ms` ms.
#
# The same for torch.compile
# --------------------------
# ``torch.compile`` takes the same options. Here the weights are *inputs* of the engine.
# So another checkpoint is the same engine, and nothing has to be put into it. (A failed
# build is silent in ``torch.compile`` unless ``pass_through_build_failures`` is set.)

# Needs a GPU: a hit refits the engine, which only a GPU can do.
# Output varies: seconds on the clock.
jit = MemoryCache()
options = CACHED | {"min_block_size": 1, "pass_through_build_failures": True}
options = options | {"custom_engine_cache": jit}
for name, module in (("cold", model), ("hit", model), ("renewed", renewed)):
    torch.compiler.reset()
    lazy = torch.compile(module, backend="tensorrt", dynamic=False, options=options)
    start = time.perf_counter()
    lazy(image)
    torch.cuda.synchronize()
    print(f"torch_compile_{name}_s = {time.perf_counter() - start:.1f}")
    check(lazy, module, (fresh,), (image,), tolerance, name)
for blob in jit.blobs.values():
    print("Inputs of the engine:", len(pickle.loads(blob)["input_names"]))
print(f"Engines: {len(jit.blobs)}, found: {jit.found}")

# %%
# What the key leaves out
# -----------------------
# The key is a hash of the operators' names in the graph, of the inputs' shapes and
# dtypes, and of some settings. It holds no weights: that is what makes a hit with new
# weights possible. But it holds no other number of the graph either. A small network
# and four variants of it show that.


class Small(torch.nn.Module):
    """A layer, a leaky ReLU, a scale, a softmax."""

    def __init__(self, seed=0, slope=0.1, scale=2.0, dim=1):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = torch.nn.Linear(32, 32)
        self.slope, self.scale, self.dim = slope, scale, dim

    def forward(self, x):
        hidden = torch.nn.functional.leaky_relu(self.layer(x), self.slope)
        return torch.softmax(hidden * self.scale, self.dim)


square, unseen = 3 * torch.randn(2, 4, 32, 32, device=device, dtype=dtype)
VARIANTS = {
    "the same once more": {},
    "other weights": {"seed": 1},
    "scale 3 for 2": {"scale": 3.0},
    "slope -1 for 0.1": {"slope": -1.0},
    "softmax over another dim": {"dim": 2},
}
small = {name: Small(**change) for name, change in VARIANTS.items()}
small = {name: module.eval().to(device, dtype) for name, module in small.items()}
base = small["the same once more"]

# %%
# Each is built into an empty cache, which tells the key.


def key_of(module, example, cache, **options):
    """The key under which a build puts its engine into an empty cache."""
    store = {"cache_built_engines": True, "immutable_weights": False}
    build(module, example, custom_engine_cache=cache, **store, **options)
    return next(iter(cache.blobs))


first = key_of(base, square, MemoryCache())
for name, module in small.items():
    same = key_of(module, square, MemoryCache()) == first
    print(f"{name}: {'same' if same else 'another'} key")
wider = key_of(base, square[:2], MemoryCache())
print("another shape:", "same" if wider == first else "another", "key")
level = key_of(base, square, MemoryCache(), optimization_level=1)
print("another optimization_level:", "same" if level == first else "another", "key")

# %%
# A shape and an option of the builder make another key. The five with one key share one
# entry. Now each is compiled with the first one's engine in
# the cache.


def errors_of_hits(make_cache):
    """The error of each variant when the first one's engine is in the cache."""
    errors = {}
    for name, module in small.items():
        cache = make_cache()
        build(base, square, custom_engine_cache=cache, **CACHED)
        cache.found = 0
        try:
            compiled = build(module, square, custom_engine_cache=cache, **CACHED)
        except (AssertionError, RuntimeError) as refused:
            print(f"{name}: refused, {refused}")
            continue
        errors[name] = relative_error(compiled(unseen), module(unseen))
        to_first = relative_error(compiled(unseen), base(unseen))
        told = f"error {errors[name]:.1e}, to the first one's answer {to_first:.1e}"
        print(f"{name}: {'hit' if cache.found else 'miss'}, {told}")
    return errors


# %%

# Needs a GPU: a hit refits the engine, which only a GPU can do.
# Output varies: half precision changes the last digits.
wrong = errors_of_hits(MemoryCache)
for word, name in zip(("scale", "slope", "dim"), list(VARIANTS)[2:]):
    print(f"{word}_hit_error = {wrong.get(name, float('nan')):.2f}")

# %%
# The library looks no further than the key. Three things make it safe. **One folder for
# each version of a model**: with another ``forward``, another ``engine_cache_dir``. **A
# check after each hit**, as above. And **a key that holds the numbers**: a cache may
# make its own. This one adds the graph as code, which names every constant, the shapes
# of the weights, and the versions and the GPU, which the library leaves out as well.
import hashlib

import tensorrt


class ExactCache(MemoryCache):
    """An engine is found only for the very same graph, versions and GPU."""

    @staticmethod
    def get_hash(gm, input_specs, settings):
        weights = gm.state_dict().items()
        shapes = [(name, weight.dtype, weight.shape) for name, weight in weights]
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        versions = torch_tensorrt.__version__, tensorrt.__version__, gpu
        told = repr((gm.code, shapes, settings.use_fp32_acc, versions))
        extra = hashlib.sha256(told.encode()).hexdigest()
        return BaseEngineCache.get_hash(gm, input_specs, settings) + extra


first = key_of(base, square, ExactCache())
for name, module in small.items():
    same = key_of(module, square, ExactCache()) == first
    print(f"{name}: {'same' if same else 'another'} key")

# %%

# Needs a GPU: a hit refits the engine, which only a GPU can do.
# Output varies: half precision changes the last digits.
right = errors_of_hits(ExactCache)
assert len(right) == len(small) and max(right.values()) < tolerance, "wrong engine"

# %%
# A folder for several processes
# ------------------------------
# The library's own cache opens the file of an entry and writes into it. Who reads at
# that moment gets a part. A blob is a **pickle**, and to unpickle is to run what the
# blob says: who may write into the folder may run code in your service.
#
# The cache below has an answer to both. It writes to a file of its own and renames
# that, which happens at once for all readers. And it signs: an entry that was not
# written with the secret is no entry.
import hmac
import multiprocessing
import os


class SharedCache(BaseEngineCache):
    """A folder that several processes read and write at the same time."""

    def __init__(self, folder, secret):
        self.folder, self.secret = Path(folder), secret
        self.folder.mkdir(parents=True, exist_ok=True)

    def sign(self, hash, blob):
        return hmac.digest(self.secret, hash.encode() + blob, "sha256")

    def save(self, hash, blob, *args, **kwargs):
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            file.write(self.sign(hash, blob) + blob)
        Path(file.name).replace(self.folder / hash)

    def load(self, hash, *args, **kwargs):
        entry = self.folder / hash
        signed = entry.read_bytes() if entry.exists() else b""
        sign, blob = signed[:32], signed[32:]
        return blob if hmac.compare_digest(sign, self.sign(hash, blob)) else None


# %%
# Four processes write and read one entry of each cache for two seconds. Every blob ends
# with its own checksum, so that a reader knows a whole one. The library's cache gets
# more room than they can fill: when it is full, a process removes what the others are
# writing at that moment, and their ``save`` ends in a ``FileNotFoundError``.

# Output varies: counts of processes that race.


def whole(blob):
    return blob and hashlib.sha256(blob[:-32]).digest() == blob[-32:]


def hammer(cache):
    """For two seconds: how many reads, and how many got no whole blob."""
    data = os.urandom(4_000_000)
    blob = data + hashlib.sha256(data).digest()
    reads = broken = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        cache.save("key", blob)
        reads += 1
        broken += not whole(cache.load("key"))
    return reads, broken


caches = {
    "library": DiskEngineCache(str(folder / "raced"), 10**12),
    "shared": SharedCache(folder / "shared", b"a secret of the service"),
}
for name, cache in caches.items():
    with multiprocessing.get_context("fork").Pool(4) as processes:
        reads, broken = zip(*processes.map(hammer, [cache] * 4))
    print(f"{name}_broken = {sum(broken)}")
    print(f"{name}_reads = {sum(reads)}")

# %%
# Now a blob that the service did not write. It prints a line when it is unpickled; any
# other code would run just as well. The library unpickles first and looks afterwards.


class Foreign:
    def __reduce__(self):
        return print, ("Code from the cache has run.",)


memory.save("foreign", pickle.dumps(Foreign()))
try:
    memory.check("foreign")
except TypeError as confused:
    print("The library, too late:", confused)
shared = caches["shared"]
(shared.folder / "foreign").write_bytes(pickle.dumps(Foreign()))
print("The shared cache finds:", shared.check("foreign"))

# %%
# When the folder is full
# -----------------------
# ``engine_cache_size`` limits the folder, in bytes. Four engines of one layer, for
# batches of two to five, and room for two and a half.

sized = folder / "sized"
layer = torch.nn.Linear(64, 64).eval().to(device, dtype)
LIMITED = CACHED | {"engine_cache_dir": str(sized)}


def batches_kept():
    """For which batch there is an engine in the folder, the oldest first."""
    entries = sorted(sized.iterdir(), key=lambda entry: entry.stat().st_mtime)
    kept = [pickle.loads((entry / "blob.bin").read_bytes()) for entry in entries]
    return [blob["input_specs"][0].shape[0] for blob in kept]


def build_for(batch):
    example = torch.randn(batch, 64, device=device, dtype=dtype)
    build(layer, example, engine_cache_size=room, **LIMITED)
    print(f"After the build for batch {batch}: {batches_kept()}")


room = 10**9
build_for(2)
room = int(2.5 * next(sized.glob("*/blob.bin")).stat().st_size)
for batch in (3, 4, 5):
    build_for(batch)

# %%
# The oldest goes first, by the time at which it was written: a hit does not make an
# engine younger. Now the service starts again. How large the entries are, the library
# knows only of those that it wrote itself since its start: from a table in memory,
# emptied here as a new process would find it.

DiskEngineCache.dir2hash2size_map.clear()
build_for(6)

# %%
# It threw away all engines, one after the other, counted zero bytes for each, and then
# did not store the new one for want of space. So set ``engine_cache_size`` far above
# what you need, and tidy the folder up yourself before a start.
#
# When it goes wrong
# ------------------
# **The cache never hits.** By default weights are immutable, and then nothing is
# cached. The only sign is a warning in the log.
from logging.handlers import BufferingHandler

heard = BufferingHandler(capacity=1000)
library = logging.getLogger("torch_tensorrt")
library.addHandler(heard)
library.propagate = False  # its messages are printed below
library.setLevel(logging.WARNING)
logging.disable(logging.NOTSET)
never = MemoryCache()
asked = {"cache_built_engines": True, "reuse_cached_engines": True}
build(base, square, custom_engine_cache=never, **asked)
logging.disable(logging.WARNING)
print(f"Engines in the cache: {len(never.blobs)}")
for record in heard.buffer:
    if "immutable" in record.getMessage():
        print(record.levelname, record.getMessage())

# %%
# **An entry is cut off**, by a full disk or by a reader that came too early. The
# library does not rebuild; the build fails. Remove the entry.

entry = next(folder.glob("resnet/*/blob.bin"))
entry.write_bytes(entry.read_bytes()[:1000])
try:
    build(model, image, engine_cache_dir=str(folder / "resnet"), **CACHED)
except pickle.UnpicklingError as error:
    print(f"UnpicklingError: {error}")

# %%
# Take it to production
# ---------------------
# Where the weights stay the same there is a third way, without export and build: save
# the compiled module, and load it. The seconds include the first answer.

# Output varies: seconds on the clock.
file = folder / "resnet18.pt2"
torch_tensorrt.save(compiled, str(file), arg_inputs=(image,))
start = time.perf_counter()
loaded = torch_tensorrt.load(str(file)).module()
loaded(image)
if device.type == "cuda":
    torch.cuda.synchronize()
print(f"saved_s = {time.perf_counter() - start:.1f}")
check(loaded, model, (fresh,), (image,), tolerance, "loaded")

# %%
# A saved module answers after :recorded:`saved_s` s, a start with both caches after
# :recorded:`both_s` s. A module saved so has no runtime cache, and makes its kernels at
# each start; :doc:`engine_caching_bert_example` measures that, and a way around it.
#
# The runtime cache lies in the temporary folder, which a container loses when it stops.
# A context manager keeps it in a file of your own, on a volume. It reads the file at
# its begin and writes it at its end.

# Needs a GPU: it measures.
# Output varies: seconds on the clock.
if rtx:
    for state in ("empty", "filled"):
        served = build(model, image)
        with torch_tensorrt.runtime.runtime_cache(served, folder / "kernels.bin"):
            start = time.perf_counter()
            served(image)
            torch.cuda.synchronize()
            print(f"own_file_{state}_s = {time.perf_counter() - start:.2f}")
    print(f"own_file_kb = {(folder / 'kernels.bin').stat().st_size / 1e3:.0f}")

# %%
# Which to use when:
#
# - **The same weights at each start**: save the module, in a form that can be given a
#   runtime cache (:doc:`engine_caching_bert_example`).
# - **New weights, the same graph**: the engine cache, with an exact key.
# - **TensorRT-RTX**: keep the runtime cache on a volume, in any case.
# - **Several services, one folder**: a shared cache as above, signed.
#
# Exercise
# --------
# Add ``torch.roll(x, shifts=1, dims=1)`` to ``Small``, with the shift as an argument.
# Which key does another shift get, and what does the hit answer? Then give
# ``SharedCache`` the key of ``ExactCache``.
#
# Takeaways
# ---------
# - Ready after :recorded:`nothing_s` s with nothing cached, after :recorded:`engines_s`
#   s with the engine cache, after :recorded:`kernels_s` s with the runtime cache, after
#   :recorded:`both_s` s with both. The start that fills the engine cache takes
#   :recorded:`empty_s` s.
# - A hit with another ``dim`` of a softmax is :recorded:`dim_hit_error` away from the
#   right answer. A key with the graph's numbers prevents that.
# - Of :recorded:`library_reads` reads in four processes, :recorded:`library_broken` got
#   no whole entry from the library's cache, and :recorded:`shared_broken` of
#   :recorded:`shared_reads` from one that renames.
# - After a restart ``engine_cache_size`` empties a folder with too little room for the
#   new engine, and does not store that one either.

# sphinx_gallery_tags = ["engine cache", "runtime cache", "torch.export", "startup"]
