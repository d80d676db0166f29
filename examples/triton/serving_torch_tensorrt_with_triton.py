"""
Serving a Torch-TensorRT model with Triton Inference Server
===========================================================

Put a compiled ResNet behind Triton Inference Server, find where a request's time goes,
and serve several times as many images.

At a glance
-----------
- A server that is put together as most people would begin answers
  :recorded:`rate_float32` images/s: :recorded:`share_before` of what this page's best
  engine does alone.
- With bytes in place of float32, four instances and an engine for each batch size in a
  CUDA graph it answers :recorded:`rate_engines` images/s, :recorded:`gain` times as
  many. That is :recorded:`served_share` of what this engine does alone, and
  :recorded:`served_share_8` with eight images in a request.
- With 64 requests in flight, the latency that one in a hundred exceeds falls from
  :recorded:`p99_before_64` to :recorded:`p99_after_64` ms. With a single one, the
  median falls from :recorded:`p50_before_1` to :recorded:`p50_after_1` ms.
- This server, with its Python backend and four instances, has a limit of its own: with
  a model that does nothing it answers :recorded:`rate_nothing` images/s.
- On this GPU Inductor is faster than TensorRT-RTX, behind the server too:
  :recorded:`rate_inductor` images/s. Eager PyTorch makes :recorded:`rate_eager`.

What you will learn
-------------------
- how to compile a model for serving: for any batch or for a few sizes, from pixels as
  they come
- what a model repository is, and how to start a real Triton server from a pip package
- how to ask it over HTTP and gRPC, and how to handle what goes wrong
- how to measure where a request's time goes, stage by stage
- what batching, small inputs, more instances, CUDA graphs, shared memory and larger
  requests gain

Prerequisites
-------------
.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas scikit-learn "tritonclient[http,grpc]==2.73.0"

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. The server runs
on Linux (x86-64, glibc 2.35 or newer) with Python 3.10 to 3.13.

Two projects are called Triton. Here *Triton* is NVIDIA's inference server, version
2.51. The other one, a language for GPU kernels, stands behind ``import triton``: the
code that measures takes its stopwatch from there.
"""  # noqa: E501

# %%
# First a look whether the server can run on this machine at all. It runs models in a
# Python process of their own, and its *Python backend* knows Python 3.10 to 3.13.

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Servers are started by forking. gRPC's handlers of a fork start threads in the new
# process, which fail there now and then, and the server with them.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"


def why_not_here():
    """Why the server cannot run on this machine, or None."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "it is built for Linux on x86-64"
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        return f"it needs glibc 2.35 or newer, and this is {library} {version}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return f"it needs Python 3.10 to 3.13, and this is {platform.python_version()}"
    return None


reason = why_not_here()
if reason:
    print(f"This page ends where the server would start: {reason}.")

# %%
# The model
# ---------
# ResNet-50 in half precision on a GPU. Without one a smaller network stands in, in
# float32, because a CPU has no fast half-precision convolutions.
#
# What a client has is an image as a decoder gives it: height, width and three colors,
# one byte each. So that is what the program takes. Turning bytes into the numbers that
# ResNet was trained on is its first step, and runs on the GPU with the rest.

# Output varies: weights may be downloaded first.
import contextlib
import io
import logging

logging.disable(logging.WARNING)  # hints about optional packages, at import

import torch
import torch_tensorrt
import torchvision

torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
name, dtype = ("resnet50", torch.half) if on_gpu else ("resnet18", torch.float)
weights = torchvision.models.get_model_weights(name).DEFAULT
pretrained = True
torch.manual_seed(0)
try:
    with contextlib.redirect_stdout(io.StringIO()):  # hides "Downloading ..."
        model = torchvision.models.get_model(name, weights=weights, progress=False)
    print("Weights: pretrained", weights)
except OSError:
    pretrained = False
    model = torchvision.models.get_model(name)
    print("Weights: random (no download possible), same architecture")

# %%
# In eager PyTorch, convolutions are fastest with colors innermost in memory,
# ``channels_last``. TensorRT chooses its own layouts, and gets the plain one.


class Served(torch.nn.Module):
    """Scores from pixels: (batch, height, width, 3), values 0 to 255."""

    def __init__(self, model, layout):
        super().__init__()
        self.model, self.layout = model.to(memory_format=layout), layout
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1))

    def forward(self, pixels):
        image = pixels.permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
        return self.model((image - self.mean) / self.std).float()


# %%
# Test images are random pieces of two photographs that come with scikit-learn.

from sklearn.datasets import load_sample_images

photos = [torch.from_numpy(photo) for photo in load_sample_images().images]


def crops(count, seed):
    """Random pieces of both photographs, in turns: uint8, (count, 224, 224, 3)."""
    torch.manual_seed(seed)
    pieces = []
    for index in range(count):
        photo = photos[(index + seed) % 2]
        top, left = (int(torch.randint(side - 224, ())) for side in photo.shape[:2])
        pieces.append(photo[top : top + 224, left : left + 224])
    return torch.stack(pieces)


# %%
# With random weights all images get nearly the same scores, and a check could not tell
# a right answer from a wrong one. One pass in training mode, which sets each batch
# norm's statistics, mends that. The pass gets noise: with statistics of the very
# photographs, a random network would blow up half precision's rounding as well.

import copy

served = Served(model, torch.channels_last).to(device)
if not pretrained:
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # take this pass's statistics as they are
    model.train()(torch.randn(16, 3, 224, 224, device=device))
served = served.eval().to(dtype)
plain = Served(copy.deepcopy(model), torch.contiguous_format).eval().to(device, dtype)

# %%
# Compile, for any batch or for one
# ---------------------------------
# The server decides how many images go into a call. One way to be ready for that is one
# *engine*, the program that TensorRT makes, for a dynamic batch: it accepts everything
# from ``min_shape`` to ``max_shape``, and is tuned for ``opt_shape``. (Where a program
# was exported with a dynamic batch, Torch-TensorRT tunes it for the size of export's
# example whatever ``opt_shape`` says, so both say the same here.)

max_batch = 32 if on_gpu else 8
shape = (224, 224, 3)
dims = ({0: torch.export.Dim("batch", min=1, max=max_batch)},)
full = crops(max_batch, seed=1).to(device, dtype)
exported = torch.export.export(plain, (full,), dynamic_shapes=dims)


def compile_dynamic():
    largest = (max_batch, *shape)
    profile = torch_tensorrt.Input(
        min_shape=(1, *shape), opt_shape=largest, max_shape=largest, dtype=dtype
    )
    return torch_tensorrt.dynamo.compile(exported, arg_inputs=[profile])


# %%
# The other way is an engine for each of a few sizes, tuned for that one. The server
# then rounds a batch up to the next of them.

sizes = [1, 16, 32] if on_gpu else [1, 8]


def compile_static(size=max_batch):
    given = (full[:size],)
    return torch_tensorrt.dynamo.compile(
        torch.export.export(plain, given), arg_inputs=given
    )


dynamic = compile_dynamic()
static = {size: compile_static(size) for size in sizes}
print("Parts of the compiled model:", [part for part, _ in dynamic.named_children()])

# %%
# How this page measures
# ----------------------
# The engine alone is measured with the code that all pages share.

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
# Is it right? All sizes against eager PyTorch, and one between them. The last number
# says how far away the answer to other images is.

# Output varies: the last digits of an error differ between builds of an engine.
tolerance = 1e-2 if on_gpu else 1e-4
for size in (5, *sizes):
    fresh, others = (crops(size, seed).to(device, dtype) for seed in (2, 3))
    for kind, run in (("dynamic", dynamic), ("static", static.get(size))):
        if run:
            label = f"{kind}, batch of {size}"
            check(run, served, (fresh,), (others,), tolerance, label)

# %%
# And how fast? The rate of an engine alone, with full batches that lie on the GPU
# already, is the limit of everything below.

# Needs a GPU: it measures the GPU.
# Output varies: measured on the clock.
warm_up()
ways = pytorch_alone(served, autotune=False)
ways |= {"TensorRT": compile_static, "TensorRT, dynamic batch": compile_dynamic}
others = crops(max_batch, seed=2).to(device, dtype)
batch = "x".join(map(str, full.shape))
about = {"model": "ResNet-50", "shape": batch, "tolerance": tolerance}
rows = compare(ways, served, (full,), (others,), **about)
table = results(rows)
# Figure: Seconds until ready against latency: eager, Inductor, and TensorRT with a
#   fixed and with a dynamic batch.
plot_ready(table)
alone = 1e3 * max_batch / table.set_index("backend").latency_ms
engine_alone = alone["TensorRT, CUDA graph"]
print(f"dynamic_alone = {alone['TensorRT, dynamic batch']:,.0f}")
print(f"engine_alone = {engine_alone:,.0f}")
print(f"inductor_alone = {alone['Inductor, CUDA graph']:,.0f}")

# %%
# What arithmetic would allow, for comparison.

# Needs a GPU: it measures the GPU.
# Output varies: measured on the clock.
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as flops:
    served(full)
flop_per_image = flops.get_total_flops() / max_batch
print(f"arithmetic_allows = {1e12 * gpu_limits(dtype)[0] / flop_per_image:,.0f}")
table

# %%
# (Inductor's ``max-autotune`` is left out on this page.)
# At full batches the dynamic engine makes :recorded:`dynamic_alone` images/s, the
# static one in a CUDA graph :recorded:`engine_alone`, and Inductor in a CUDA graph
# :recorded:`inductor_alone`; arithmetic would allow :recorded:`arithmetic_allows`.
# TensorRT-RTX is not made for this GPU. This page serves its engines all the same, and
# Inductor beside them: its subject is what a server puts around a model.

# %%
# A model repository
# ------------------
# Triton puts requests that wait at the same time into one batch, runs the model once,
# and hands each client its part of the answer. It reads models from a folder of this
# layout::
#
#     served/config.pbtxt      tensors, batching, where to run
#     served/labels.txt        one class name a line
#     served/1/model.py        version 1: code for the Python backend
#     served/1/32.pt2          our program for a batch of 32; others for other sizes
#
# ``model.py`` is loaded by a process of its own, the *stub*, which calls ``initialize``
# once. A ``.pt2`` file holds pickled objects, and unpickling can run any code. So load
# only files that you made or trust; the model says so in the server's log.

workspace = Path(tempfile.mkdtemp(prefix="serving-"))

MODEL_PY = '''"""Triton's Python backend runs this file. Serves exported programs."""

import json
import time
from pathlib import Path

import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    @torch.no_grad()
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.runner = config["parameters"]["runner"]["string_value"]
        if self.runner.startswith("TensorRT"):
            import torch_tensorrt  # noqa: F401 (registers what runs engines)
        torch.set_num_threads(1)
        self.make_room(config, args["model_instance_kind"] == "GPU")
        folder = Path(args["model_repository"], args["model_version"])
        pb.Logger.log_warn(f"{folder} holds pickles: load only files you trust")
        self.programs, self.graphs, self.results = {}, {}, {}
        for size in sorted(int(path.stem) for path in folder.glob("*.pt2")):
            self.load(folder / f"{size}.pt2", size)
        self.prepare_stopwatch(args["model_name"])
'''

# %%
# A batch is gathered in *pinned* memory, which the GPU can read by itself, and then
# copied at once. All memory is set aside here, because a CUDA graph reads the very
# addresses that it was captured with.

MODEL_PY += '''
    def make_room(self, config, on_gpu):
        """A place for the largest batch and its scores, here and on the device."""
        limit = config["max_batch_size"]
        shape = [limit, *map(int, config["input"][0]["dims"])]
        wire = {"TYPE_UINT8": torch.uint8, "TYPE_FP32": torch.float}
        kind = wire[config["input"][0]["data_type"]]
        self.gathered = torch.zeros(shape, dtype=kind, pin_memory=on_gpu)
        self.scores = torch.zeros(limit, 1000, pin_memory=on_gpu)
        self.pixels = self.gathered.to("cuda" if on_gpu else "cpu")
        self.dtype = torch.half if on_gpu else torch.float
'''

# %%
# Batches that form in a queue have any size. They are rounded up to the next one for
# which there is a program, and each of those runs before the model is reported ready:
# TensorRT-RTX compiles kernels for each shape that it meets, and the first request of a
# new shape would wait for that. A fixed size can be captured as a CUDA graph as well.

MODEL_PY += '''
    def load(self, path, size):
        """Make everything ready to compute a batch of this size."""
        program = torch.export.load(path).module()
        if self.runner.startswith("Inductor"):
            program = torch.compile(program, dynamic=False)
        self.programs[size] = program
        self.compute(size)
        if self.runner.endswith(", CUDA graph"):
            aside = torch.cuda.Stream()
            with torch.cuda.stream(aside):
                self.compute(size)
            self.graphs[size] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[size], stream=aside):
                self.results[size] = self.compute(size)

    def compute(self, size):
        return self.programs[size](self.pixels[:size].to(self.dtype))
'''

# %%
# A batch goes to the GPU and its scores come back without a stop on the way. Only then
# does the process wait.

MODEL_PY += '''
    def run(self, rows):
        """Scores of the first rows that were gathered; spare rows hold anything."""
        size = min(size for size in self.programs if size >= rows)
        self.pixels[:size].copy_(self.gathered[:size], non_blocking=True)
        if size in self.graphs:
            self.graphs[size].replay()
            scores = self.results[size]
        else:
            scores = self.compute(size)
        self.scores[:rows].copy_(scores[:rows], non_blocking=True)
        if scores.is_cuda:
            torch.cuda.synchronize()
        return self.scores[:rows]
'''

# %%
# The stopwatch. ``stage_seconds`` adds up what each stage took, once for each request
# that waited for it. Giving numbers to Triton takes time as well, so that is done once
# in sixteen batches.

MODEL_PY += '''
    def prepare_stopwatch(self, name):
        counter = pb.MetricFamily.COUNTER
        self.family = pb.MetricFamily("stage_seconds", "Time in model.py", counter)
        stages = ("requests", "gather", "GPU", "answers")
        labels = {stage: {"model": name, "stage": stage} for stage in stages}
        self.metrics = {stage: self.family.Metric(labels[stage]) for stage in stages}
        self.spent = dict.fromkeys(stages, 0.0)
        self.batches = 0

    def stop(self, stage, requests):
        """End a stage: add its time, once for each request."""
        now = time.perf_counter()
        self.spent[stage] += (now - self.last) * requests
        self.last = now

    def report(self, requests):
        self.spent["requests"] += requests
        self.batches += 1
        if self.batches % 16 == 0:
            for stage, seconds in self.spent.items():
                self.metrics[stage].increment(seconds)
                self.spent[stage] = 0.0
'''

# %%
# ``execute`` gets *all* requests of a batch. One call of the program for each would
# throw the batching away. DLPack hands tensors over in place. (It is also what lets
# this server live with NumPy 2: tensors that it makes from NumPy arrays come out empty
# there.)

MODEL_PY += '''
    @torch.no_grad()
    def execute(self, requests):
        """Answer all requests of a batch."""
        self.last = time.perf_counter()
        count = len(requests)
        given = [pb.get_input_tensor_by_name(each, "pixels") for each in requests]
        images = [torch.from_dlpack(tensor) for tensor in given]
        rows = [len(image) for image in images]
        torch.cat(images, out=self.gathered[: sum(rows)])
        self.stop("gather", count)
        parts = self.run(sum(rows)).split(rows)
        self.stop("GPU", count)
        outputs = [pb.Tensor.from_dlpack("scores", part) for part in parts]
        answers = [pb.InferenceResponse([tensor]) for tensor in outputs]
        self.stop("answers", count)
        self.report(count)
        return answers
'''

# %%
# The configuration, line by line:
#
# - ``backend`` says who runs the model.
# - ``max_batch_size`` bounds the batch that Triton forms. The batch dimension is left
#   out of ``dims``.
# - ``input`` and ``output`` are what clients send and get. ``label_filename`` lets them
#   ask for the best classes in place of all scores.
# - ``instance_group`` is the number of stubs, and their device: this program is bound
#   to the first GPU.
# - ``parameters`` hold a word for ``model.py``: what runs the programs, and whether in
#   a CUDA graph.
# - ``model_warmup`` sends one batch the whole way through the server before the model
#   is reported ready.
# - ``dynamic_batching`` switches batching on. A request waits for company at most as
#   long as ``max_queue_delay_microseconds``. Without it, requests run alone.


CONFIG = """backend: "python"
max_batch_size: {max_batch}
input {{ name: "pixels" data_type: TYPE_{wire} dims: [ 224, 224, 3 ] }}
output {{ name: "scores" data_type: TYPE_FP32 dims: 1000 label_filename: "labels.txt" }}
instance_group {{ count: {instances} kind: {kind} }}
parameters {{ key: "runner" value {{ string_value: "{runner}" }} }}
model_warmup {{ name: "largest batch" batch_size: {max_batch} inputs {{ key: "pixels"
  value {{ data_type: TYPE_{wire} dims: [ 224, 224, 3 ] random_data: true }} }} }}
{batching}
"""
BATCHING = "dynamic_batching {{ max_queue_delay_microseconds: {delay} }}"


def write_entry(name, programs, runner, wire="UINT8", instances=4, delay=500):
    """Write one model into the repository; `programs` is a folder of .pt2 files."""
    folder = workspace / "models" / name
    (folder / "1").mkdir(parents=True)
    for program in (workspace / programs).iterdir():
        (folder / "1" / program.name).hardlink_to(program)
    (folder / "1" / "model.py").write_text(MODEL_PY)
    (folder / "labels.txt").write_text("\n".join(weights.meta["categories"]))
    kind = "KIND_GPU gpus: [ 0 ]" if on_gpu else "KIND_CPU"
    batching = "" if delay is None else BATCHING.format(delay=delay)
    words = {"wire": wire, "kind": kind, "runner": runner, "instances": instances}
    config = CONFIG.format(max_batch=max_batch, batching=batching, **words)
    (folder / "config.pbtxt").write_text(config)


# %%
# The same ``model.py`` is served several times. We begin as most people would, with one
# engine for all batches and float32 over the wire, and change it step by step. In
# the engine's place eager PyTorch and Inductor are served too, and a model that does
# nothing: it tells what the server allows. Without a GPU an engine cannot run, so there
# the plain program must do.


class Nothing(torch.nn.Module):
    def forward(self, pixels):
        return pixels[:, 0, 0, :1].float().expand(-1, 1000)


def program(folder, size=max_batch):
    """Where the program of a kind for a size is kept."""
    (workspace / folder).mkdir(exist_ok=True)
    return workspace / folder / f"{size}.pt2"


for size in sizes:
    given = (full[:size],)
    for folder, module in (("eager", served), ("nothing", Nothing())):
        torch.export.save(torch.export.export(module, given), program(folder, size))

# %%
# Engines are saved by Torch-TensorRT. The dynamic one is a single file that goes by the
# name of every size. For Inductor ``model.py`` compiles the plain program when it is
# loaded. That is quick where the same was compiled before, because Inductor keeps its
# kernels in a folder; so it is done once here.

# Needs a GPU: it saves and fills what only a GPU runs.
words = {"arg_inputs": [full], "dynamic_shapes": dims}
torch_tensorrt.save(dynamic, str(program("dynamic")), **words)
for size in sizes:
    if size < max_batch:
        program("dynamic", size).hardlink_to(program("dynamic"))
    torch_tensorrt.save(
        static[size], str(program("static", size)), arg_inputs=[full[:size]]
    )
    exported = torch.export.load(program("eager", size)).module()
    torch.compile(exported, dynamic=False)(full[:size])

# %%
# The entries:

if on_gpu:
    write_entry("float32", "dynamic", "TensorRT", wire="FP32", instances=1)
    write_entry("bytes", "dynamic", "TensorRT", instances=1)
    write_entry("four", "dynamic", "TensorRT")
    write_entry("engines", "static", "TensorRT, CUDA graph")
    write_entry("unbatched", "static", "TensorRT, CUDA graph", delay=None)
    write_entry("inductor", "eager", "Inductor, CUDA graph")
    write_entry("eager", "eager", "eager, CUDA graph")
    write_entry("nothing", "nothing", "nothing, CUDA graph")
else:
    write_entry("engines", "eager", "eager", instances=1)
entry = "engines"

# %%
# The server, without a container
# -------------------------------
# The package ``nvidia-pytriton`` carries the real server with its Python backend, and
# ``tritonclient`` 2.51 a load generator that we need later. Both go into an environment
# of their own, where they disturb nobody. PyTorch is not installed a second time: a
# ``.pth`` file in that environment names this notebook's folders.

if reason:
    raise SystemExit(f"No server here: {reason}.")


home = workspace / "server"
subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
(site,) = home.glob("lib/python3.*/site-packages")
command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site]
command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
command += ["nvidia-pytriton==0.7.0", "tritonclient==2.51.0"]
done = subprocess.run(command, capture_output=True, text=True)
if done.returncode:
    raise RuntimeError(f"pip: {done.stderr.strip().splitlines()[-1]}")
own = [folder for folder in sys.path if list(Path(folder).glob("*.dist-info"))]
(site / "notebook.pth").write_text("\n".join(own))
version = site.parent.name.removeprefix("python")

# %%
# Start it
# --------
# Triton listens on every network interface unless told otherwise, and asks nobody for a
# password. Everybody who reaches its ports can use up the GPU, and read or change its
# settings. So all three ports are bound to the loopback address: only this machine
# reaches them. To serve others, put a proxy with encryption and authentication in
# front.
#
# The command goes into a small program, because it is what one would use again. The
# stub takes its packages from the environment of the first ``python3`` on ``PATH``. It
# has to be the stub of that Python's version, and it is linked rather than copied,
# because it finds its libraries relative to where it lies.

triton = site / "pytriton" / "tritonserver"
for file in (triton / "python_backend_stubs" / version).iterdir():
    (triton / "backends" / "python" / file.name).symlink_to(file)
START = f"""#!/bin/sh
export PATH={home}/bin:$PATH
export LD_LIBRARY_PATH={sys.base_prefix}/lib:$LD_LIBRARY_PATH
exec {triton}/bin/tritonserver \\
    --model-repository={workspace}/models --backend-directory={triton}/backends \\
    --backend-config=python,stub-timeout-seconds=300 --model-load-thread-count=16 \\
    --http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1 \\
    "$@"
"""
start_sh = workspace / "start.sh"
start_sh.write_text(START)
start_sh.chmod(0o755)

# %%
# What a start has to know: free ports, whether the server is ready, and if not, why.

import ctypes
import socket
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(url):
    try:
        return urllib.request.urlopen(f"http://{url}/v2/health/ready", timeout=2)
    except OSError:
        return False


def why_not(log):
    """Why a model was not loaded, by the server's log; else the log's last line."""
    text = log.read_text(errors="replace")
    failed = re.findall(r'"(failed to load .+? version .+?)(?:\\n|"$)', text, re.M)
    return (failed or text.splitlines() or ["it said nothing"])[-1]


# %%
# The server must not outlive this notebook, so it asks Linux for a SIGTERM when its
# parent ends. And because a start can hang, it gets a deadline.


def start_server(seconds=300):
    """Start Triton and wait until its models are ready: the process, and addresses."""
    ports = {kind: free_port() for kind in ("http", "grpc", "metrics")}
    mark = f"serving_{ports['http']}_"
    command = [workspace / "start.sh"]
    command += [f"--{kind}-port={port}" for kind, port in ports.items()]
    command += [f"--backend-config=python,shm-region-prefix-name={mark}"]
    log = workspace / "server.log"
    server = subprocess.Popen(
        command,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(1, 15),  # PR_SET_PDEATHSIG, SIGTERM
    )
    urls = {kind: f"127.0.0.1:{port}" for kind, port in ports.items()}
    deadline = time.monotonic() + seconds
    while not is_ready(urls["http"]):
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise RuntimeError(f"The server did not start: {why_not(log)} (log: {log})")
        time.sleep(0.2)
    return server, urls, mark


# %%
# The models are loaded at the same time, each in as many processes as it has
# instances, and each process runs all its batch sizes. Here that took
# :recorded:`server_ready_s` s.

# Output varies: measured on the clock.
started = time.perf_counter()
server, urls, mark = start_server()
print(f"server_ready_s = {time.perf_counter() - started:.0f}")

# %%
# Ask it
# ------
# A piece of each photograph, both in one request. With the *classification extension*
# the server answers with the best classes, as ``score:index:name``.

# Output varies: the last digits of the scores differ between builds of an engine.
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

http = triton_http.InferenceServerClient(urls["http"])
grpc = triton_grpc.InferenceServerClient(urls["grpc"])


def request(kit, pixels, top=0):
    pixels = pixels.numpy()
    given = kit.InferInput("pixels", pixels.shape, "UINT8").set_data_from_numpy(pixels)
    wanted = kit.InferRequestedOutput("scores", class_count=top)
    return {"inputs": [given], "outputs": [wanted]}


pixels = crops(2, seed=4)
best = http.infer(entry, **request(triton_http, pixels, top=5)).as_numpy("scores")
wanted = served(pixels.to(device, dtype)).topk(5).indices.tolist()
for labels, classes in zip(best.tolist(), wanted):
    same = {int(label.split(b":")[1]) for label in labels} & set(classes)
    print(f"{len(same)} of the five best classes are PyTorch's own.")
    if pretrained:  # else the names would mean nothing
        print(*(label.decode() for label in labels), sep="\n")

# %%
# Without ``class_count`` all scores come back. They are compared with what PyTorch
# computes from the same images. The control has the images swapped: an answer in the
# wrong place would not pass.

# Output varies: the last digits of an error differ between builds of an engine.


def ask_over(client, kit):
    def answer(pixels):
        given = request(kit, pixels.to("cpu", torch.uint8))
        scores = client.infer(entry, **given).as_numpy("scores")
        return torch.from_numpy(scores).to(device)

    return answer


for label, client, kit in (("HTTP", http, triton_http), ("gRPC", grpc, triton_grpc)):
    given = pixels.to(device, dtype)
    check(ask_over(client, kit), served, (given,), (given.flip(0),), tolerance, label)

# %%
# Where a request's time goes
# ---------------------------
# ``perf_analyzer`` is Triton's own load generator, a C++ program. It keeps a number of
# requests in flight, and measures in three windows of a second. The server counts how
# long requests took, and how long they waited in the queue. Together with the stages of
# ``model.py`` and the latency that clients see, that says where the time goes. What the
# server needs besides the queue and ``model.py`` is the way to the stub and back.


def counters(entry):
    """Seconds that all requests so far have spent on the server, and on what."""
    found = http.get_inference_statistics(entry)["model_stats"][0]
    stats = found["inference_stats"]
    seconds = {key: stats[key]["ns"] / 1e9 for key in ("success", "queue")}
    page = urllib.request.urlopen(f"http://{urls['metrics']}/metrics", timeout=10)
    pattern = rf'^stage_seconds{{model="{entry}",stage="(.+)"}} (\S+)$'
    stages = re.findall(pattern, page.read().decode(), re.MULTILINE)
    seconds |= {stage: float(value) for stage, value in stages}
    counts = {"answered": stats["success"]["count"]}
    counts |= {"images": found["inference_count"], "batches": found["execution_count"]}
    return pd.Series(seconds | counts)


def one_row(row, spent):
    """What clients saw, and the parts of the mean request in milliseconds."""
    mean = row["Client Send":"Client Recv"].sum() / 1e3
    server = 1e3 * spent / spent["answered"]
    stage = 1e3 * spent / spent["requests"]  # those that model.py has reported
    inside = stage["gather"] + stage["GPU"] + stage["answers"]
    return {
        "images_per_s": row["Inferences/Second"],
        "batch": spent["images"] / spent["batches"],
        "p50_ms": row["p50 latency"] / 1e3,
        "p99_ms": row["p99 latency"] / 1e3,
        "client and network": mean - server["success"],
        "queue": server["queue"],
        "to the stub and back": server["success"] - server["queue"] - inside,
        "gather": stage["gather"],
        "GPU": stage["GPU"],
        "answers": stage["answers"],
    }


# %%
# With shared memory, client and server exchange addresses in place of images. That
# works where both are on one machine, as here.


# The load generator looks for two libraries under other names than their own.
for link in ("libb64.so.0d", "libcudart.so.12"):
    (library,) = site.glob(f"*.libs/{link.split('.')[0]}-*")
    (workspace / link).symlink_to(library)


def load_test(entry, in_flight=64, images=1, shared_memory=False):
    """One row: images/s and latencies that clients see, and what they are made of."""
    command = [site / "bin" / "perf_analyzer", "-i", "grpc", "-u", urls["grpc"]]
    command += ["-m", entry, "-b", str(images), "-f", "report.csv"]
    command += ["--concurrency-range", str(in_flight), "--measurement-interval", "1000"]
    command += ["--stability-percentage", "999"]  # three windows, whatever they say
    if shared_memory:
        command += ["--shared-memory", "system", "--output-shared-memory-size", "4000"]
    before = counters(entry)
    environ = os.environ | {"LD_LIBRARY_PATH": str(workspace)}
    words = {"capture_output": True, "text": True, "cwd": workspace, "env": environ}
    done = subprocess.run(command, **words)
    if done.returncode:
        raise RuntimeError(f"perf_analyzer failed. {done.stdout}{done.stderr}")
    row = pd.read_csv(workspace / "report.csv").iloc[-1]
    return one_row(row, counters(entry) - before)


# %%
# Now step by step (an engine a size and its CUDA graph come together, so their gains
# are not told apart), with 64 images in flight: 64 requests of one image, or
# eight of eight. The last rows have other models in place of the engines.

# Needs a GPU: the engine runs only there.
# Output varies: measured on the clock.
eight = {"in_flight": 8, "images": 8}
steps = {
    "float32 over the wire": ("float32", {}),
    "bytes over the wire": ("bytes", {}),
    "and 4 instances": ("four", {}),
    "and an engine a size, CUDA graphs": ("engines", {}),
    "and shared memory": ("engines", {"shared_memory": True}),
    "8 images a request": ("engines", eight),
    "not batched": ("unbatched", {}),
    "Inductor": ("inductor", {}),
    "eager PyTorch": ("eager", {}),
    "a model that does nothing": ("nothing", {}),
    "Inductor, 8 images a request": ("inductor", eight),
    "nothing, 8 images a request": ("nothing", eight),
}
rows = {step: load_test(entry, **words) for step, (entry, words) in steps.items()}
ladder = pd.DataFrame(rows).T
ladder["of the engine"] = ladder.images_per_s / engine_alone
for (entry_name, words), rate in zip(steps.values(), ladder.images_per_s):
    suffix = "_shared" if "shared_memory" in words else "_8" if words else ""
    print(f"rate_{entry_name}{suffix} = {rate:,.0f}")
ladder[["images_per_s", "of the engine", "batch", "p50_ms", "p99_ms"]].round(2)

# %%
# - **Bytes**: a quarter of the data, and from :recorded:`rate_float32` to
#   :recorded:`rate_bytes` images/s.
# - **Four instances** in place of one: :recorded:`rate_four` images/s.
# - **An engine for each size, in CUDA graphs**: :recorded:`rate_engines` images/s. That
#   is more than half of what the dynamic engine does alone (:recorded:`dynamic_alone`),
#   and :recorded:`served_share` of what the static one does.
# - **Shared memory**: :recorded:`rate_engines_shared` images/s, measured once.
# - **Eight images in a request**: :recorded:`rate_engines_8` images/s, and
#   :recorded:`served_share_8`.
# - **Without batching** the same engines make :recorded:`rate_unbatched` images/s.
# - **Inductor** makes :recorded:`rate_inductor` images/s, **eager PyTorch**
#   :recorded:`rate_eager`; both run in CUDA graphs. Eager makes about as many as the
#   dynamic engine without graphs, :recorded:`rate_four`.
# - **A model that does nothing** makes :recorded:`rate_nothing` images/s, and
#   :recorded:`rate_nothing_8` with eight images in a request: less than the engine
#   alone. That is the limit of this setup: Python backend, four instances, this load.
#
# The column *batch* tells how many images a batch had on average. Where it is below 16,
# the GPU computes spare rows. The same, drawn beside the limit:

# Needs a GPU: it draws the measurement.
# Output varies: measured on the clock.
# Figure: The best server for single images makes :recorded:`gain` times as many
#   images/s as the first one, and :recorded:`served_share` of what the engine makes
#   alone.
first, best = "float32 over the wire", "and an engine a size, CUDA graphs"
before, after = ladder.loc[first], ladder.loc[best]
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.barh(ladder.index, ladder.images_per_s)
axis.axvline(engine_alone, color="black", linestyle="--", label="the engine alone")
axis.invert_yaxis()
axis.set_xlabel("images/s, 64 images in flight")
axis.legend()
plt.show()

print(f"gain = {after.images_per_s / before.images_per_s:.1f}")
print(f"share_before = {before['of the engine']:.0%}")
print(f"served_share = {after['of the engine']:.0%}")
print(f"served_share_8 = {ladder.loc['8 images a request', 'of the engine']:.0%}")

# %%
# The parts of the mean request. *GPU* is the copy there, the program and the copy back;
# with several instances it includes waiting for the GPU that they share. The way to the
# stub and back is what is left of the server's time. The counters are read while
# requests are under way, so it is not exact.

# Needs a GPU: it draws the measurement.
# Output varies: measured on the clock.
# Figure: Before, a request spends :recorded:`before_queue_ms` of
#   :recorded:`before_all_ms` ms in the queue; after, :recorded:`after_queue_ms` of
#   :recorded:`after_all_ms` ms.
parts = ladder.loc[:, "client and network":"answers"]
for when, step in (("before", first), ("after", best)):
    print(f"{when}_all_ms = {parts.loc[step].sum():.1f}")
    for part, milliseconds in parts.loc[step].items():
        print(f"{when}_{part.replace(' ', '_')}_ms = {milliseconds:.2f}")
axis = parts.plot.barh(stacked=True, figsize=(7, 4.5))
axis.invert_yaxis()
axis.set_xlabel("ms of the mean request")
axis.figure.set_layout_engine("constrained")
plt.show()
parts.round(2)

# %%
# Before, a request waits :recorded:`before_queue_ms` of its :recorded:`before_all_ms`
# ms in the queue: one instance works on one batch at a time, and moving the images of
# one (:recorded:`before_to_the_stub_and_back_ms` ms to the stub and back,
# :recorded:`before_gather_ms` ms to gather them) holds up all that wait behind it.
# After, the queue is down to :recorded:`after_queue_ms` of :recorded:`after_all_ms` ms.
# The GPU takes :recorded:`after_GPU_ms` ms. The rest is what a request costs without
# any model: :recorded:`after_to_the_stub_and_back_ms` ms to the stub and back,
# :recorded:`after_gather_ms` to gather, :recorded:`after_answers_ms` to answer.
#
# A service is judged by its slowest answers. p99 is the latency that one request in a
# hundred exceeds.

# Needs a GPU: it measures the GPU.
# Output varies: measured on the clock.
# Figure: With 64 requests in flight, p99 is :recorded:`p99_before_64` ms before and
#   :recorded:`p99_after_64` ms after; with one in flight, p50 is
#   :recorded:`p50_before_1` and :recorded:`p50_after_1` ms.
loads = [1, 16, 64]
figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained", sharey=True)
for axis, when, step in zip(axes, ("before", "after"), (first, best)):
    lighter = [load_test(steps[step][0], in_flight) for in_flight in loads[:-1]]
    points = pd.DataFrame([*lighter, ladder.loc[step]])
    axis.plot(loads, points.p99_ms, "s--", label="p99")
    axis.plot(loads, points.p50_ms, "o-", label="p50")
    axis.set(title=when, xlabel="requests in flight", ylabel="ms", ylim=(0, None))
    axis.legend(frameon=False)
    for load, point in zip(loads, points.itertuples()):
        print(f"p50_{when}_{load} = {point.p50_ms:.1f}")
        print(f"p99_{when}_{load} = {point.p99_ms:.1f}")
plt.show()

# %%
# With 64 requests in flight p99 falls from :recorded:`p99_before_64` to
# :recorded:`p99_after_64` ms, with 16 from :recorded:`p99_before_16` to
# :recorded:`p99_after_16` ms. For a single request in flight p50 is
# :recorded:`p50_before_1` ms before and :recorded:`p50_after_1` ms after.

# %%
# When it goes wrong
# ------------------
# A client should turn each failure into what a person can act on. Three matter most. A
# *refusal* names the mistake, and sending it again is useless. A *time-out* means that
# the server is busy, and sending it again makes that worse. A *lost connection* is
# worth a few more tries: inference changes nothing on the server, so repeating it is
# safe.

from tritonclient.utils import InferenceServerException


def ask(client, pixels, model=entry, limit=10, tries=3):
    """The answer, or in words what went wrong."""
    given = request(triton_grpc, pixels)
    try:
        return client.infer(model, **given, client_timeout=limit)
    except InferenceServerException as error:
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return "no answer in time: send less at once, or allow more time"
        if "model" in error.message():
            return "refused: " + error.message().split("] ")[-1].split(". ")[0]
        if tries == 1:
            return "no server answers: is it running?"
    time.sleep(0.2)
    return ask(client, pixels, model, limit, tries - 1)


print("Wrong shape:", ask(grpc, pixels[:, :100]))
print("Unknown model:", ask(grpc, pixels, model="resnet51"))
print("Too slow:", ask(grpc, pixels, limit=1e-4))
print("Server gone:", ask(triton_grpc.InferenceServerClient("127.0.0.1:9"), pixels))

# %%
# Does a process that loads the engine have to import ``torch_tensorrt`` first? Below,
# one does not. What it prints last is a warning and no error: with the versions of this
# page the file is loaded, as the return code says; it is not run. ``model.py`` imports
# it all the same, to fail with its name where it is missing.

# Needs a GPU: without one there is no engine to load.
# Output varies: a warning carries the time and the process.
path = workspace / "static" / f"{max_batch}.pt2"
load_it = f"import torch; torch.export.load({str(path)!r})"
done = subprocess.run([sys.executable, "-c", load_it], capture_output=True, text=True)
print((done.stderr.strip().splitlines() or ["It said nothing."])[-1])
print("Return code:", done.returncode)

# %%
# Take it to production
# ---------------------
# On SIGTERM the server takes no more requests, finishes those it has, ends its model
# processes and exits. It waits for open connections too, so the clients close theirs
# first. Nothing should be left behind in shared memory.

http.close()
grpc.close()
server.terminate()
print("Exit code:", server.wait(60))
print("Shared memory left behind:", len(list(Path("/dev/shm").glob(f"{mark}*"))))
shutil.rmtree(workspace)

# %%
# To keep the service, let ``workspace`` be a folder of your own, and leave out the last
# line above. ``start.sh`` there then serves what lies in ``models`` on the usual ports.
#
# The programs beside this page do more than a page can show: ``client.py`` is a client
# for the command line, with retries and clear errors, and ``model_repository`` holds
# the files above with a comment on every line.
#
# The container ``nvcr.io/nvidia/tritonserver:24.10-py3`` holds the same server, 2.51,
# with more backends. The lines below were **not run here**.
#
# .. code-block:: bash
#
#    docker run --rm --gpus=1 --shm-size=1g -v "$PWD/models:/models:ro" \
#        -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 \
#        nvcr.io/nvidia/tritonserver:24.10-py3 sh -c "pip install \
#        torch-tensorrt-rtx==2.14.* && tritonserver --model-repository=/models"
#
# ``127.0.0.1:`` before each port matters: without it Docker opens the port to the
# network. A program runs only with the versions of PyTorch and Torch-TensorRT that it
# was saved with.

# %%
# Exercise
# --------
# Give ``engines`` one more size, near the average of the column *batch*. What happens
# to the GPU's part, and to the images/s? Then try one instance more, and one less.

# %%
# Takeaways
# ---------
# - At first the engine is not the limit: the GPU takes :recorded:`before_GPU_ms` of a
#   request's :recorded:`before_all_ms` ms, the queue :recorded:`before_queue_ms` ms.
#   Measure the stages before you make a model faster.
# - Send bytes, not float32: from :recorded:`rate_float32` to :recorded:`rate_bytes`
#   images/s. Then let several instances share the GPU: :recorded:`rate_four`.
# - An engine for each of a few sizes, in CUDA graphs, pays more behind a server than
#   alone: from :recorded:`rate_four` to :recorded:`rate_engines` images/s.
# - Batch: without it the same engines make :recorded:`rate_unbatched` images/s.
# - Know what the server itself allows: :recorded:`rate_nothing` images/s with a model
#   that does nothing. Several images in a request raise that to
#   :recorded:`rate_nothing_8`, and the engines' rate to :recorded:`rate_engines_8`.
#
# See also `Triton's model configuration
# <https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html>`_
# and the `Python backend <https://github.com/triton-inference-server/python_backend>`_.

# sphinx_gallery_tags = ["Triton", "serving", "dynamic shapes", "vision", "FP16"]
