"""
Build engines on a machine without a GPU
========================================

Turn a PyTorch model into one TensorRT-RTX engine where there is no GPU, and run the
file on the GPUs of your users.

At a glance
-----------

- TensorRT-RTX builds an engine without a GPU and without a driver. The engine that
  runs on this page came from such a machine. The same code built one here, of
  :recorded:`engine_mb` MB in :recorded:`first_build_s` s, the conversion not counted.
- On a GPU it takes :recorded:`over_own` times as long as an engine that was built for
  that very GPU: portability costs nothing here.
- ResNet-18 for one image takes :recorded:`shipped_ms` ms, in eager
  :recorded:`eager_ms` ms. The best of PyTorch, Inductor, is a little ahead: the engine
  is :recorded:`speedup` times as fast.
- The first start takes :recorded:`first_start_s` s, because kernels are made there;
  with a runtime cache the second takes :recorded:`second_start_s` s.
- Not for data centers: standard TensorRT needs the GPU to build, and TensorRT-RTX does
  not list data-center GPUs.

What you will learn
-------------------

- Why TensorRT-RTX compiles in two phases, and which of them needs a GPU.
- How to build an engine on a machine without one, with Torch-TensorRT's converters.
- How to choose the GPU generations that an engine runs on, and what each one costs.
- How to load the file on the target machine, with and without Torch-TensorRT, and what
  a runtime cache saves there.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas

This page is about TensorRT-RTX alone. Standard TensorRT (``torch-tensorrt``, the
data-center flavor) times kernels on the GPU while it builds, so it needs one.

The first half runs on a machine without a GPU, and then says where to go on.
"""

# %%
# ``import torch_tensorrt`` fails on a machine without a GPU. It asks PyTorch two
# questions: which compute capability the GPU has (to tell Jetson boards apart), and
# which GPU is the current one (to have a default). Without a driver PyTorch answers
# with an error. So we answer in its place, before the import. Neither answer reaches
# the engine: the GPUs that it is built for are chosen further down.

# Output varies: it names the device.
import contextlib
import copy
import io
import logging
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Hints about optional packages would bury the output, and some come with the imports.
logging.disable(logging.WARNING)

import pandas as pd
import torch
import torchvision

torch.set_grad_enabled(False)
torch.manual_seed(0)
on_gpu = torch.cuda.is_available()
if not on_gpu:
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    torch.cuda.current_device = lambda: 0

import torch_tensorrt

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
if not torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
    raise RuntimeError("This tutorial needs torch-tensorrt-rtx: see Prerequisites.")

import tensorrt as trt  # Torch-TensorRT makes this name mean TensorRT-RTX.

print("TensorRT-RTX", trt.__version__, "on a GPU" if on_gpu else "without a GPU")

# %%
# The model is a ResNet-18 in float16: an engine has the precision of its model. Random
# weights compute as fast as trained ones, but their batch norms have the statistics of
# nobody's data, and the network answers all images alike. One pass in training mode
# mends that; with ``momentum = None`` the norms take the average of what they saw. The
# inputs are smooth: on noise a random network amplifies rounding
# (:doc:`how_we_measure`).

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
            module.momentum = None
    model.train()(torch.randn(16, 3, 224, 224))
    print("Weights: random (torchvision's could not be downloaded)")
half = copy.deepcopy(model.eval()).half()
coarse = torch.randn(2, 3, 4, 4)  # for smooth pictures
pictures = 2 * torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic")
image, fresh = pictures.split(1)

# %%
# An engine in three steps
# ------------------------
#
# ``torch_tensorrt.compile`` goes all the way to a module on a GPU. We stop halfway,
# where the *network* is complete: TensorRT's description of the computation, from which
# its *builder* makes an engine. The steps are the library's own. ``torch.export``
# captures the model as a graph. Decompositions and ``post_lowering`` (*lowering*)
# rewrite it into operators that have *converters*. ``TRTInterpreter`` walks the graph
# and calls the converter of each operator.
#
# .. note::
#
#    Private, seen in 2.14: ``_construct_trt_network_def``. The public way to the same
#    bytes is ``convert_exported_program_to_serialized_trt_engine``, which builds for
#    the default targets.
from torch_tensorrt.dynamo import CompilationSettings
from torch_tensorrt.dynamo.conversion import TRTInterpreter
from torch_tensorrt.dynamo.lowering import get_decompositions, post_lowering

settings = CompilationSettings(lazy_engine_init=True)


def convert(model, example):
    """TensorRT's network of a model, in its interpreter, and the lowered graph."""
    program = torch.export.export(model, (example,))
    program = program.run_decompositions(get_decompositions())
    lowered = post_lowering(program.module(), settings)
    inputs = [torch_tensorrt.Input.from_tensor(example)]
    interpreter = TRTInterpreter(lowered, inputs, compilation_settings=settings)
    interpreter._construct_trt_network_def()
    return interpreter, lowered


def build(interpreter, targets=()):
    """An engine's bytes; None if the builder refuses. `targets` are names like SM86."""
    config = interpreter.builder.create_builder_config()
    if targets:
        config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target), index)
    engine = interpreter.builder.build_serialized_network(interpreter.ctx.net, config)
    return None if engine is None else bytes(engine)


# %%
# TensorRT reports errors through a logger. We collect them, because some are a lesson
# further down. (Where there is no driver it logs that as CUDA error 35, as expected.)

# Output varies: seconds.
errors: list[str] = []
tensorrt_log = logging.getLogger("torch_tensorrt [TensorRT Conversion Context]")
tensorrt_log.addFilter(lambda record: errors.append(record.getMessage()))

interpreter, lowered = convert(half, image.half())
start = time.perf_counter()
portable = build(interpreter)
print(f"first_build_s = {time.perf_counter() - start:.1f}")
print(f"engine_mb = {len(portable) / 1e6:.1f}")
folder = Path(tempfile.mkdtemp())
file = folder / "resnet18-float16-rtx.engine"
file.write_bytes(portable)
# Private, seen in 2.14. The network has the same names: `network.get_input(0).name`.
names = interpreter._input_names, interpreter._output_names
print(file.name, *names)

# %%
# The bytes are the whole engine, weights included. The target machine needs an NVIDIA
# GPU and its driver, the *same release* of TensorRT-RTX, and the names, shapes and
# dtypes of the engine's inputs and outputs. It needs neither the model's source nor
# PyTorch.
#
# How this page measures
# ----------------------
#
# The code in the next cell measures on all pages of this gallery. :doc:`how_we_measure`
# explains it.

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
# Is the lowered graph still the model? It is an ordinary PyTorch module, so it can be
# asked here, in float32, because float16 convolutions are very slow on a CPU. This
# covers the rewriting; TensorRT's own arithmetic is checked on the GPU.

# Output varies: rounding.
rewritten = copy.deepcopy(lowered).float()
exact = copy.deepcopy(half).float()
error = check(rewritten, exact, (fresh,), (image,), 1e-3, "lowered graph")

# %%
# The file at work
# ----------------
#
# On a GPU the file is loaded and run. If one of the same name lies in the current
# folder, brought from a machine without a GPU, it is that one; if not, it is the one
# from above, which was built by the same code and without asking the GPU anything.

# Needs a GPU: an engine runs nowhere else.
# Output varies: latency; the file may have been brought or not.
brought = Path(file.name)
shipped = (brought if brought.exists() else file).read_bytes()


def load(data):
    """A PyTorch module that runs an engine."""
    module = TorchTensorRTModule(data, *names, settings=settings)
    module.setup_engine()
    return module


if on_gpu:
    origin = "a machine without a GPU" if brought.exists() else "the cell above"
    print("The engine comes from", origin)
    warm_up()  # Loads the compilers, so that nobody pays for it below.
    eager = copy.deepcopy(half).cuda().to(memory_format=torch.channels_last)
    x, unseen = image.half().cuda(), fresh.half().cuda()
    engine = load(shipped)
    check(engine, eager, (unseen,), (x,), 1e-2, "shipped engine")
    ordered = x.to(memory_format=torch.channels_last)
    print(f"shipped_ms = {latency(captured(lambda: engine(x)))[0]:.3f}")
    print(f"eager_ms = {latency(captured(lambda: eager(ordered)))[0]:.3f}")

# %%
# The engine answers in :recorded:`shipped_ms` ms, eager in :recorded:`eager_ms`. Both
# are in a CUDA graph, so that the host holds up neither, and each gets the image in the
# order that it wants. The benchmark further down adds what PyTorch can do at its best.
#
# Two phases
# ----------
#
# Standard TensorRT makes an engine on a GPU, and by default for that kind of GPU only.
# (``hardware_compatible=True`` widens that, and still needs a GPU.) That suits a data
# center, and not an application that is downloaded by people whose GPUs you do not
# know. TensorRT-RTX splits the work:
#
# - **Ahead of time**, on your side: fuse layers, lay out weights, write the engine. No
#   kernel is made and nothing is timed, so an ordinary build server will do.
# - **Just in time**, on the user's side: make the kernels for the GPU that is there. A
#   *runtime cache* keeps them, so that this is paid once.
#
# What a generation costs
# -----------------------
#
# A *compute capability* names a generation of GPUs. TensorRT-RTX can target 7.5
# (Turing, RTX 20), 8.0 and 8.6 (Ampere, RTX 30), 8.9 (Ada, RTX 40), 12.0 (Blackwell,
# RTX 50) and 12.1 (GB10). Without a choice it targets 8.0 and later; with one, the
# chosen ones alone. There is no 9.0: TensorRT-RTX is not made for data-center GPUs.
#
# We build one engine for each generation, one for RTX 30 to 50, one that adds RTX 20,
# and the default. The network is converted once and built many times.

# Output varies: seconds.
print([name for name in trt.ComputeCapability.__members__ if "SM" in name])
GENERATIONS = {"RTX 20": "SM75", "RTX 30": "SM86", "RTX 40": "SM89", "RTX 50": "SM120"}
targets = {name: [capability] for name, capability in GENERATIONS.items()}
targets["RTX 30 to 50"] = ["SM86", "SM89", "SM120"]
targets["RTX 20 to 50"] = ["SM75", "SM86", "SM89", "SM120"]
targets["default"] = []
engines, rows = {}, {}
for name, capabilities in targets.items():
    start = time.perf_counter()
    engines[name] = build(interpreter, capabilities)
    rows[name] = {
        "MB": len(engines[name]) / 1e6,
        "build_s": time.perf_counter() - start,
    }
builds = pd.DataFrame(rows).T
print(f"longest_build_s = {builds.build_s.max():.2f}")
builds.round(2)

# %%
# An engine holds weights and a plan, but no kernels. So a further generation costs
# little, and one file can replace several downloads. The longest of these builds took
# :recorded:`longest_build_s` s.

# Figure: One file for three generations is as large as a file for one of them: two
#   more cost :recorded:`two_generations_bytes` bytes.
size = {name: len(data) for name, data in engines.items()}
parts = {name: {"an engine for each": size[name]} for name in GENERATIONS}
parts["one file"] = {name: size[name] for name in size if name not in GENERATIONS}
axes = (pd.DataFrame(parts) / 1e6).plot.barh(stacked=True, figsize=(7, 3), width=0.7)
axes.set_xlabel("size of what you ship, in MB")
axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False)
plt.show()
added = size["RTX 30 to 50"] - size["RTX 30"]
print(f"two_generations_bytes = {added}")
print(f"turing_kb = {(size['RTX 20 to 50'] - size['RTX 30 to 50']) / 1e3:.0f}")

# %%
# RTX 40 and RTX 50 add :recorded:`two_generations_bytes` bytes to an engine for RTX 30.
# Turing adds :recorded:`turing_kb` kB.
#
# What a target lacks is refused
# ------------------------------
#
# Turing has no bfloat16. An engine that claimed to run there would fail on a user's
# desk, so the builder says no, for a list as well if one of its targets lacks the type.
bfloat16, _ = convert(copy.deepcopy(model).bfloat16(), image.bfloat16())
for capabilities in (["SM86", "SM120"], ["SM75"], ["SM75", "SM86", "SM120"]):
    answer = "refused" if build(bfloat16, capabilities) is None else "built"
    print("bfloat16 for", *capabilities, "->", answer)
print(next(error for error in errors if "sm75" in error))

# %%
# To the target machine
# ---------------------
#
# Here the part ends that needs no GPU.

# Needs a GPU: what follows runs on the target machine.
if not on_gpu:
    print(f"Take {file} to a machine with an NVIDIA GPU: the rest runs there.")
    sys.exit()

# %%
# What a start costs, and what a cache saves
# ------------------------------------------
#
# The first call makes the kernels: that is the just-in-time phase. They go to a runtime
# cache, and a second start reads it. Is portability paid for at that point? An engine
# built for this very GPU (``CURRENT``) answers. The two take turns, and the order
# changes from round to round: what comes first can look slow for that reason alone.

# Needs a GPU: compiles kernels for it.
# Output varies: seconds.
data = {"shipped": shipped, "built for this GPU": build(interpreter, ["CURRENT"])}


def start_seconds(name):
    """Seconds to load an engine and to have its first answer."""
    gc.collect()  # An engine that goes saves its kernels.
    start = time.perf_counter()
    module = load(data[name])
    module(x)
    torch.cuda.synchronize()
    return time.perf_counter() - start


rows = []
for number in range(4):
    for name in sorted(data, reverse=number % 2):
        empty_caches()
        times = {"first start": start_seconds(name), "second": start_seconds(name)}
        rows.append({"round": number, "engine": name} | times)
starts = pd.DataFrame(rows).pivot(index="round", columns="engine")
ratio = starts["first start"]["shipped"] / starts["first start"]["built for this GPU"]
print(f"start_ratio = {ratio.median():.2f}")
print(f"start_ratio_range = {ratio.min():.2f} to {ratio.max():.2f}")
print(f"first_start_s = {starts['first start']['shipped'].median():.2f}")
print(f"second_start_s = {starts['second']['shipped'].median():.2f}")
starts.round(2)

# %%
# The two engines start alike: their ratio is :recorded:`start_ratio`, in four rounds
# from :recorded:`start_ratio_range`. A first start takes :recorded:`first_start_s` s, a
# second one :recorded:`second_start_s` s.
#
# The measurement
# ---------------
#
# First the limit. One image needs so many operations, and the weights have to be read
# once. A large matrix product and a large copy tell what this GPU sustains.

# Needs a GPU: measures what it sustains.
# Output varies: rates.
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as counter:
    eager(x)
tflops, gigabytes = gpu_limits(torch.float16)
arithmetic_ms = counter.get_total_flops() / tflops / 1e9
limit_ms = max(arithmetic_ms, weight_bytes(eager) / gigabytes / 1e6)
print(f"limit_ms = {limit_ms:.4f}")

# %%
# Then the table. ``compile_s`` of the shipped engine is the time to load it: it was
# built elsewhere. Autotuning is left out, which would take a minute.

# Needs a GPU: the benchmark.
# Output varies: latency.
about = {"model": "ResNet-18", "shape": "1x3x224x224", "tolerance": 1e-2}
inputs = [x.to(memory_format=torch.channels_last)]
other = [unseen.to(memory_format=torch.channels_last)]
rows = compare(pytorch_alone(eager, autotune=False), eager, inputs, other, **about)
ways = {
    "TensorRT, shipped": lambda: load(shipped),
    "TensorRT, built for this GPU": lambda: load(build(interpreter, ["CURRENT"])),
}
rows += compare(ways, eager, [x], [unseen], **about)
table = results(rows)
table.round(4)

# %%

# Needs a GPU: shows the measurement.
# Output varies: latency.
# Figure: The shipped engine is ready before Inductor, and :recorded:`speedup` times as
#   fast.
plot_ready(table)
shown = table.set_index("backend")
portable_row = shown.loc["TensorRT, shipped, CUDA graph"]
own_row = shown.loc["TensorRT, built for this GPU, CUDA graph"]
print(f"speedup = {portable_row.speedup:.2f}")
print(f"over_own = {portable_row.latency_ms / own_row.latency_ms:.2f}")
print(f"of_limit_percent = {100 * limit_ms / portable_row.latency_ms:.0f}")
print(f"shipped_memory_mib = {portable_row.peak_memory_mb:.0f}")
print(f"own_memory_mib = {own_row.peak_memory_mb:.0f}")

# %%
# The shipped engine needs :recorded:`over_own` times the time of the one that was built
# for this GPU, and :recorded:`shipped_memory_mib` MiB where that takes
# :recorded:`own_memory_mib`. Inductor's code is the fastest: the engine is
# :recorded:`speedup` times as fast. It is ready sooner, and needs no compiler on the
# user's machine but the one inside TensorRT-RTX. At one image it reaches
# :recorded:`of_limit_percent` percent of the limit.
#
# Without Torch-TensorRT
# ----------------------
#
# The application of a user has no Torch-TensorRT. Here is one in a file of its own. It
# loads the engine with TensorRT-RTX alone (PyTorch only holds the tensors), keeps its
# kernels in a runtime cache, and writes its answer to a file.
APPLICATION = """
import sys, time
from pathlib import Path
import tensorrt_rtx as trt
import torch

engine_file, cache_file, image_file, answer_file = map(Path, sys.argv[1:])
image = torch.load(image_file).cuda()
answer = torch.empty(1, 1000, dtype=torch.float16, device="cuda")
start = time.perf_counter()
runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
engine = runtime.deserialize_cuda_engine(engine_file.read_bytes())
if engine is None:
    sys.exit("TensorRT-RTX refuses this engine.")
config = engine.create_runtime_config()
cache = config.create_runtime_cache()
if cache_file.exists():
    cache.deserialize(cache_file.read_bytes())
config.set_runtime_cache(cache)
context = engine.create_execution_context(config)
for name, tensor in zip(("x", "output0"), (image, answer)):
    context.set_tensor_address(name, tensor.data_ptr())
stream = torch.cuda.Stream()
context.execute_async_v3(stream.cuda_stream)
stream.synchronize()
print(f"{time.perf_counter() - start:.2f}", "torch_tensorrt" in sys.modules)
cache_file.write_bytes(bytes(cache.serialize()))
torch.save(answer.cpu(), answer_file)
"""

# %%
# It is run in a process of its own, with an engine and a cache file. Its input is an
# image that no engine has seen.
application = folder / "application.py"
application.write_text(APPLICATION)
torch.save(fresh.half(), folder / "image.pt")


def run_application(plan, cache):
    """Run the application with an engine's bytes; the finished process."""
    file.write_bytes(plan)
    files = [folder / name for name in (cache, "image.pt", "answer.pt")]
    command = [sys.executable, application, file, *files]
    return subprocess.run(command, capture_output=True, text=True)


# %%
# When it goes wrong
# ------------------
#
# **The GPU is not one of the targets.** ``get_engine_validity`` tells whether this GPU,
# driver and runtime accept an engine, without loading it, so that an application can
# explain a refusal in words. ``UNSUPPORTED_CC`` means that the engine was not built for
# this compute capability, ``OLD_CUDA_RUNTIME`` that the machine's CUDA runtime is older
# than the one that the engine was built with.

# Needs a GPU: only a GPU can accept or refuse an engine.
# Output varies: the answer depends on GPU, driver and runtime.
runtime = trt.Runtime(torch_tensorrt.logging.TRT_LOGGER)
answers = {}
for name, plan in (data | engines).items():
    validity, bits = runtime.get_engine_validity(plan)
    reasons = trt.EngineInvalidityDiagnostics.__members__.items()
    reasons = [reason for reason, bit in reasons if int(bits) & int(bit)]
    answers[name] = {"validity": validity.name, "reasons": ", ".join(reasons)}
print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
pd.DataFrame(answers).T

# %%
# Every engine is ``INVALID`` on this data-center GPU, even the one that was built for
# it here, because TensorRT-RTX does not support such GPUs. Yet the shipped engine has
# run above and its answers were right: this is about what is *supported*. An
# application should stop at ``INVALID`` and say why. What happens if it does not? And
# what if the file is cut short by a download?

# Needs a GPU: loads engines.
# Output varies: the answer depends on GPU, driver and runtime.
half_of_it = shipped[: len(shipped) // 2]
doubtful = {"for RTX 50 alone": engines["RTX 50"], "cut short": half_of_it}
for name, plan in doubtful.items():
    done = run_application(plan, f"{name}.cache")
    told = done.stderr.splitlines() + done.stdout.splitlines()
    print(f"{name}: exit status {done.returncode}")
    print(next((line for line in told if "[E]" in line), told[-1]))

# %%
# The engine for RTX 50 ran on another GPU without a word. Its answer is not checked
# here. Nothing but ``get_engine_validity`` tells that nobody vouches for it. A file
# that was cut short is refused, with an error about its size.
#
# Take it to production
# ---------------------
#
# The application is started twice, in a fresh process each time. The second start finds
# the kernels of the first.

# Needs a GPU: runs the engine.
# Output varies: seconds.
for start in ("first", "second"):
    done = run_application(shipped, "kernels.cache")
    if done.returncode:
        print(f"exit status {done.returncode}", *done.stderr.splitlines()[-1:])
        continue
    seconds, imported = done.stdout.split()[-2:]
    print(f"fresh_{start}_s = {seconds}")
    print("Torch-TensorRT was imported there:", imported)
if done.returncode == 0:
    answer = torch.load(folder / "answer.pt").cuda()
    error = check(lambda _: answer, eager, (unseen,), (x,), 1e-2, "application")

# %%
# From reading the file to the first answer it takes :recorded:`fresh_first_s` s, and
# :recorded:`fresh_second_s` s with the cache. The answer passes the same check as
# before. Keep the cache file beside the engine, one for each user.
#
# Exercise
# --------
#
# Give the engine a range of batch sizes: ``torch_tensorrt.Input`` takes a
# ``min_shape``, an ``opt_shape`` and a ``max_shape``, and ``convert`` needs a
# ``torch.export.Dim`` as well. Does the file grow? Does the first start take longer?
#
# Takeaways
# ---------
#
# - TensorRT-RTX builds engines without a GPU. The same build took
#   :recorded:`first_build_s` s here, for :recorded:`engine_mb` MB. On the GPU the
#   shipped engine takes :recorded:`over_own` times as long as one that was built there.
# - For one image Inductor is ahead: the engine is :recorded:`speedup` times as fast.
#   Ship an engine where users have no compiler, or no time to compile. PyTorch's way to
#   ship compiled code, AOTInductor, is not measured here.
# - Two further generations of GPUs cost :recorded:`two_generations_bytes` bytes, Turing
#   :recorded:`turing_kb` kB, so ship one file.
# - Ask ``get_engine_validity`` before loading, and keep the runtime cache: it takes a
#   start from :recorded:`fresh_first_s` to :recorded:`fresh_second_s` s.
# - NVIDIA's page on `building without a GPU
#   <https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html>`_
#   has the details.

# sphinx_gallery_tags = ["TensorRT-RTX", "deployment", "ahead of time", "vision"]
