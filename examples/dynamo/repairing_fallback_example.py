"""
Repair a detector that falls back to PyTorch
============================================

Take a detector that TensorRT does not take whole, read what stayed in PyTorch and why,
mend it operator by operator, and measure which mend pays.

At a glance
-----------

- As it comes, RetinaNet gives :recorded:`engines_as_it_is` *engines*, parts that
  TensorRT runs as a whole, with PyTorch before, between and behind them. It takes
  :recorded:`as_it_is_ms` ms a picture. Eager PyTorch takes :recorded:`eager_ms` ms, but
  mostly waits for the host.
- One mend seems to pay: with a converter of 20 lines for the resizing, TensorRT takes
  :recorded:`converter_ms` ms, measured once. The other does not: a ``topk`` in place of
  a boolean mask leaves :recorded:`engines_repaired` engine, and
  :recorded:`repaired_ms` ms. Fewer engines are no aim of their own.
- The fastest in the end is not TensorRT. With ``topk``, and the half before NMS in a
  CUDA graph, Inductor takes :recorded:`inductor_graph_ms` ms, eager PyTorch
  :recorded:`eager_graph_ms`, TensorRT :recorded:`graph_ms`. On the network alone
  TensorRT has :recorded:`network_speedup` times the speed of the best of PyTorch. All
  this is on an H100, which TensorRT-RTX does not list; TensorRT for data centers was
  not measured.
- Of the boxes of eager PyTorch, :recorded:`repaired_found` are found again after the
  repair, at a mean IoU of :recorded:`repaired_iou`; Inductor finds
  :recorded:`inductor_graph_found`. These weights are random. A small trained detector
  with ``topk`` finds :recorded:`recall_TensorRT` of its objects, in eager PyTorch
  :recorded:`recall_eager`.
- Threads with a stream each: under a lock, :recorded:`wrong_lock` answers were wrong;
  with a module for each thread, :recorded:`wrong_own`; with one module for all,
  :recorded:`wrong_shared`: with four threads the program did not end.

What you will learn
-------------------

- How to read the report of a dry run, and to tell *no converter* from *a converter that
  refused*.
- How to write a converter, how to rewrite a part of the model, and when to leave an
  operator in PyTorch.
- What ``torch.export`` and ``torch.compile`` do where a shape depends on the data.
- Whether several threads may call one compiled module.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision scikit-learn pillow matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place. You should have compiled a model before; options and
graph breaks in general are the matter of :doc:`torch_compile_advanced_usage`.
"""  # noqa: E501

# %%
# A detector and two photographs
# ------------------------------
# RetinaNet is a convolutional network that gives scores and box offsets for thousands
# of *anchors*, boxes at fixed places. Behind it comes code that looks at the values:
# drop low scores, sort, and remove boxes that overlap a better one (*non-maximum
# suppression*, NMS). That second half is what compilers stumble over.

import contextlib
import copy
import io
import logging
import re
import socket
import subprocess
import sys
from functools import partial

logging.disable(logging.WARNING)

import torch
import torch_tensorrt
from sklearn.datasets import load_digits, load_sample_image
from torch.nn.functional import interpolate, pad
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_area, box_iou, clip_boxes_to_image, nms

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.manual_seed(0)
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
dtype = torch.float16 if on_gpu else torch.float32
SIZE = (320, 480) if on_gpu else (96, 160)  # what the network sees

# %%
# The small one of this page's two detectors is torchvision's class with a backbone of
# four layers. It is trained further down.


def small_retinanet(classes, **options):
    """RetinaNet with two levels of features and one anchor at each place."""
    layers = []
    for given, made, step in ((3, 32, 2), (32, 64, 2), (64, 64, 2), (64, 64, 1)):
        layers.append(torch.nn.Conv2d(given, made, 3, step, 1, bias=False))
        layers += [torch.nn.BatchNorm2d(made), torch.nn.ReLU()]
    body = torch.nn.Sequential(*layers)
    options["anchor_generator"] = AnchorGenerator(((32,), (64,)), ((1.0,),) * 2)
    norm = partial(torch.nn.GroupNorm, 8)
    options["head"] = RetinaNetHead(64, 1, classes, norm_layer=norm)
    return detection.RetinaNet(
        BackboneWithFPN(body, {"11": "0"}, [64], 64), classes, **options
    )


# %%
# The large one has a ResNet-50. Its trained weights are on a server. Without them they
# are random, and the boxes mean nothing. They must depend on the picture all the same,
# or no comparison could fail. So norms get statistics from noise, scores are spread
# out, and the threshold is put where some of them pass.


def answer_differently(model, picture):
    """Make the answers of random weights depend on the picture."""
    for norm in model.modules():
        norm.momentum = None  # of a batch norm: the average of what it saw
    model.backbone.train()(torch.randn(4, 3, *SIZE, device=device))
    model.backbone.eval()
    small = interpolate(picture, size=SIZE, mode="bilinear", antialias=True)
    features = list(model.backbone(small).values())
    found = model.head(features)
    scores, offsets = model.head.classification_head, model.head.regression_head
    scores.cls_logits.weight /= found["cls_logits"].std()
    offsets.bbox_reg.weight *= 0.2 / found["bbox_regression"].std()
    scores = model.head(features)["cls_logits"].sigmoid().flatten()
    model.score_thresh = scores.topk(1000).values[-1].item()


# %%
# The photographs come with scikit-learn. Without a GPU the small
# network has to do.

# Output varies: pretrained weights need a network.
socket.setdefaulttimeout(10)  # seconds to wait for a download
photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
pixels = torch.stack([torch.tensor(photo) for photo in photographs]).to(device)
temple, flower = (pixels.permute(0, 3, 1, 2) / 255).split(1)
limits = {"min_size": SIZE[0], "max_size": SIZE[1]}
make = partial(detection.retinanet_resnet50_fpn_v2, progress=False, **limits)
weights = "random"
if not on_gpu:
    model = small_retinanet(91, **limits)
else:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # hides "Downloading ..."
            model = make(weights="DEFAULT")
        weights = "pretrained"
    except OSError:
        model = make(weights=None, weights_backbone=None)
model = model.eval().requires_grad_(False).to(device)
if weights == "random":
    answer_differently(model, temple)
print(f"Weights: {weights} (RetinaNet of torchvision)")

# %%
# torchvision's class takes a list of pictures of any size. We write its steps down for
# one size, so that each operator can be found again. The first half is arithmetic: the
# picture of the camera is resized and goes through the network. We resize with
# antialiasing; torchvision's class does without.


class Network(torch.nn.Module):
    """From a picture [1, 3, height, width] to the scores and offsets of all anchors."""

    def __init__(self, model, size):
        super().__init__()
        self.model, self.size, self.kind = model.to(dtype), size, dtype
        numbers = torch.tensor((model.transform.image_mean, model.transform.image_std))
        self.register_buffer("numbers", numbers[:, :, None, None])

    def forward(self, picture):
        small = interpolate(picture, size=self.size, mode="bilinear", antialias=True)
        small = (small - self.numbers[0]) / self.numbers[1]
        features = self.model.backbone(small.to(self.kind))
        found = self.model.head(list(features.values()))
        return found["cls_logits"].float().sigmoid(), found["bbox_regression"].float()


# %%
# The second half chooses, level by level: the features have several resolutions.
# ``by_mask`` does what torchvision does, without its limit of a thousand places a
# level. (Where the length depends on the picture, Torch-TensorRT 2.14 made of
# ``[:1000]`` an output of a thousand, whatever the length: seen in an engine built
# without a GPU, and not on this page.) Anchors depend on the size alone; torchvision
# makes them in each call, here they are made once.


def by_mask(scores, threshold):
    """Scores above the threshold, the best first, and their places."""
    scores = scores.flatten()
    likely = scores > threshold
    place = torch.where(likely)[0]
    scores, order = scores[likely].sort(descending=True)
    return scores, place[order]


# %%
# Boxes come out of offsets as in torchvision's coder. Written anew, because that one
# copies a constant to the GPU in each eager call, which a CUDA graph does not allow.


def decode(offsets, anchors, longest):
    """Move anchors by the offsets, and stretch them: boxes [n, 4]."""
    sides = anchors[:, 2:] - anchors[:, :2]
    middle = anchors[:, :2] + 0.5 * sides + offsets[:, :2] * sides
    half = 0.5 * sides * offsets[:, 2:].clamp(max=longest).exp()
    return torch.cat((middle - half, middle + half), dim=1)


# %%
# ``choose`` will be ``by_mask`` first, and what we put in its place later.


class Candidates(torch.nn.Module):
    """From a picture to boxes [n, 4], scores [n] and labels [n], before NMS."""

    def __init__(self, model, size, choose):
        super().__init__()
        blank = torch.zeros(1, 3, *size, device=device)
        features = list(model.backbone(blank).values())
        anchors = model.anchor_generator(ImageList(blank, [size]), features)[0]
        each = model.anchor_generator.num_anchors_per_location()[0]
        self.counts = [level.shape[2] * level.shape[3] * each for level in features]
        self.network = Network(copy.deepcopy(model), size).to(device)
        self.register_buffer("anchors", anchors)  # stay in float32
        self.choose, self.size = choose, size
        self.threshold = model.score_thresh
        self.longest = model.box_coder.bbox_xform_clip

    def forward(self, picture):
        scores, offsets = self.network(picture)
        parts = scores.split(self.counts, 1), offsets.split(self.counts, 1)
        chosen = []
        for score, offset, anchors in zip(*parts, self.anchors.split(self.counts)):
            classes = score.shape[-1]
            score, place = self.choose(score, self.threshold)
            which = torch.div(place, classes, rounding_mode="floor")
            boxes = decode(offset[0, which], anchors[which], self.longest)
            boxes = clip_boxes_to_image(boxes, self.size)
            chosen.append((boxes, score, place % classes))
        return tuple(torch.cat(part) for part in zip(*chosen))


# %%
# NMS comes last. Labels do not compete: each gets a place of its own, far from others.


def suppress(boxes, scores, labels):
    """NMS label by label: the best 300 boxes, their scores and labels."""
    apart = boxes + labels[:, None] * 1000.0
    kept = nms(apart, scores, 0.5)[:300]
    return boxes[kept], scores[kept], labels[kept]


class Detector(torch.nn.Module):
    """Candidates, and what is done with them."""

    def __init__(self, candidates, finish):
        super().__init__()
        self.candidates, self.finish = candidates, finish

    def forward(self, picture):
        return self.finish(*self.candidates(picture))


plain = Detector(Candidates(model, SIZE, by_mask), suppress).eval()

# %%
# A first success
# ---------------
# It compiles. One option is needed on TensorRT-RTX; *Why did they stay?* shows the
# reason. Compared are *boxes*: a box of eager PyTorch is found again if the answer has
# one with the same label and an IoU (intersection over union) above 0.5.
from torch_tensorrt.dynamo.runtime import TorchTensorRTModule


def ahead(module, picture=temple, **options):
    """Compile ahead of the first call."""
    return torch_tensorrt.compile(module, ir="dynamo", inputs=[picture], **options)


def careful(module):
    """Compile with shapes that depend on data; None, and the reason, if refused."""
    try:
        return ahead(module, fallback_data_dependent_ops=True)
    except Exception as refused:
        print(type(refused).__name__, str(refused).splitlines()[0][:150])


def engines_in(module):
    """How many engines a compiled module has."""
    parts = module.modules() if module is not None else []
    return sum(isinstance(part, TorchTensorRTModule) for part in parts)


def agreement(answer, wanted):
    """Share of the wanted boxes that the answer has, and the mean IoU of all."""
    solid = box_area(wanted[0]) > 1  # boxes without an area overlap nothing
    wanted = [part[solid] for part in wanted]
    same_label = wanted[-1][:, None] == answer[-1]
    overlap = pad(box_iou(wanted[0], answer[0]) * same_label, (0, 1)).amax(dim=1)
    return {
        "found": (overlap > 0.5).float().mean().item(),
        "IoU": overlap.mean().item(),
    }


# %%

# Output varies: boxes of random weights.
as_it_is = careful(plain)
print(f"engines_as_it_is = {engines_in(as_it_is)}")
print("Boxes:", len(plain(temple)[0]))

# %%
# Without any repair this takes :recorded:`as_it_is_ms` ms a picture, eager PyTorch
# :recorded:`eager_ms`, and :recorded:`as_it_is_found` of the boxes are found again.
# How that is measured comes next.
#
# How this page measures
# ----------------------
# One block of code measures on every page of this gallery. This page adds *found* and
# *IoU* of the boxes, and a *control*: the share that the other photograph's boxes find.
# Were it as high, the comparison would be blind.

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
# Each step of the repair gets a row. ``launches`` counts GPU kernels in one call,
# ``engines`` the engines that ran. The shapes of what stands between engines depend on
# the picture, which is met here for the first time, so an exception is printed.

rows = {}


def step(name, module, reference=plain):
    """Compare a step with eager PyTorch on a photograph, and measure it."""
    told = dict.fromkeys(("found", "iou", "control"), "no answer")
    told |= dict.fromkeys(("engines", "launches", "ms"), "no answer") if on_gpu else {}
    try:
        right = reference(flower)
        row = agreement(module(flower), right)
        control = agreement(reference(temple), right)["found"]
        told |= {"found": f"{row['found']:.1%}", "iou": f"{row['IoU']:.3f}"}
        told["control"] = f"{control:.1%}"
        if on_gpu:
            kernels, row["engines"] = profiled(lambda: module(flower))
            row["launches"] = int(kernels.launches.sum())
            row["ms"], row["p20"], row["p80"] = latency(lambda: module(flower))
            told |= {value: row[value] for value in ("engines", "launches")}
            told["ms"] = f"{row['ms']:.2f}"
        rows[name] = row
    except Exception as refused:
        words = (str(refused) or "no message").splitlines()[0][:150]
        print(f"{name}: {type(refused).__name__} {words}")
    for value, text in told.items():
        print(f"{name}_{value} = {text}")


# %%

# Output varies: it measures.
if on_gpu:
    warm_up()
step("eager", plain)
step("as_it_is", as_it_is)

# %%
# Read the report
# ---------------
# ``dryrun=True`` stops before anything is built, and prints what would be. The settings
# are left out here, and long lines are cut; the rest is as it comes.


def report(module, **options):
    """What a dry run prints, without the line of settings and without empty lines."""
    with contextlib.redirect_stdout(io.StringIO()) as kept:
        ahead(module, dryrun=True, **options)
    lines = [line.strip() for line in kept.getvalue().splitlines()]
    return [line for line in lines if line and "CompilationSettings" not in line]


found = report(plain)
start = next(n for n, line in enumerate(found) if "Graph Structure" in line)
for line in found[:start]:
    print(line[:110])

# %%
# From the top:
#
# - *The graph consists of*: all operators, and how many have a converter that accepts
#   them.
# - *unsupported or excluded*: those that no converter accepts, or that an option
#   excludes, with their number. ``getitem`` only takes a result apart.
# - *set to run in Torch*: each node that stays, with its place. The note says that some
#   of them are supported. They stand in a block that is too small for an engine of its
#   own (``min_block_size``): here the ``slice`` and the last three ``index``, behind
#   NMS.
#
# Then the engines, each with what goes in and out. A shape with ``min`` and ``max``
# depends on the data: nobody knows how many scores pass until they are there. The
# recommendations at the end do not mend anything. A larger ``min_block_size`` gives
# fewer engines because it leaves more in PyTorch.

for line in found[start:]:
    print(line[:110])

# %%
# Why did they stay?
# ------------------
# The report names operators, not reasons. There are two: nobody wrote a converter, or
# there is one, and its *validator* refuses this call. The registry tells them apart.
# (Some validators log why, as a warning: ``topk`` of more than 3840 does. The two that
# refuse here do not.)
from torch_tensorrt.dynamo.conversion import DYNAMO_CONVERTERS

stayed = [line.split(":")[0] for line in found if re.match(r"torch\.ops\S+: \d", line)]
for name in stayed:
    operator = torch.ops
    for part in name.removeprefix("torch.ops.").split("."):
        operator = getattr(operator, part)
    known = operator in DYNAMO_CONVERTERS.unique_targets()
    print(name, "-> its validator refused" if known else "-> no converter")

# %%
# ``index`` with a boolean mask is refused because it needs ``nonzero``, which
# Torch-TensorRT 2.14 does not build on TensorRT-RTX. ``sort`` is refused because the
# length of what it sorts is not known. One operator is missing from the list:
# ``nonzero`` itself. Its converter has no validator, so the report counts it in, and
# the converter refuses during the build. The mask alone shows it:


class Places(torch.nn.Module):
    """The places of scores above a threshold, as in `by_mask`."""

    def forward(self, scores):
        return torch.where(scores > 0.5)[0]


try:
    ahead(Places(), temple.flatten(), min_block_size=1)
    print("built: this flavor of TensorRT has nonzero")
except Exception as refused:
    print(type(refused).__name__, str(refused).splitlines()[0])

# %%
# That is what ``fallback_data_dependent_ops=True`` was for: an operator like
# ``nonzero``, whose values decide how long its own result is, stays in PyTorch. What
# follows need not: the second engine takes any length between ``min`` and ``max``.
# Standard TensorRT has ``nonzero``. It asks an *output allocator* for memory during the
# call, and such an engine refuses CUDA graphs; that is not recorded here.
#
# Mend one by a converter
# -----------------------
# Resizing with antialiasing has no converter. But it is linear: each new row is a
# weighted mean of old rows, and so are columns. Two matrix products do it. The weights
# we need not work out: PyTorch resizes the unit matrix, and the result is the matrix.
#
# The operator's name is private, as ``interpolate`` is its public face; seen in 2.14.
# A *converter* gets the operator's arguments, TensorRT tensors among them, and adds
# layers to the network. The validator here refuses ``align_corners=True``, and that is
# not enough elsewhere: it lets ``interpolate(scale_factor=...)`` pass, where PyTorch
# uses the given scales, and the converter those of the sizes, so the answer is wrong.
# Let it refuse ``any(node.args[3:])``, the scales, too.
import tensorrt as trt  # Torch-TensorRT makes this name mean TensorRT-RTX there.
from torch_tensorrt.dynamo.conversion import dynamo_tensorrt_converter
from torch_tensorrt.dynamo.conversion.converter_utils import get_trt_tensor

RESIZE = torch.ops.aten._upsample_bilinear2d_aa.default


def resizing(old, new):
    """The matrix [1, 1, new, old] that resizes a side."""
    unit = torch.eye(old)[None, None]
    return interpolate(unit, size=(new, old), mode="bilinear", antialias=True)


@dynamo_tensorrt_converter(
    RESIZE, capability_validator=lambda node, _: not node.args[2]
)
def antialiased(ctx, target, args, kwargs, name):
    """Rows, then columns: two matrix products."""
    picture, size = args[:2]
    as_is, turned = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    rows, columns = (
        get_trt_tensor(ctx, resizing(old, new), f"{name}_{side}")
        for side, old, new in zip(("rows", "columns"), picture.shape[2:], size)
    )
    fewer = ctx.net.add_matrix_multiply(rows, as_is, picture, as_is)
    both = ctx.net.add_matrix_multiply(fewer.get_output(0), as_is, columns, turned)
    return both.get_output(0)


# %%
# It is found at once, in this process. The arithmetic is checked in PyTorch, then the
# resizing alone, as one engine:

# Output varies: rounding.


class Resize(torch.nn.Module):
    """The operator, and nothing else."""

    def forward(self, picture):
        return interpolate(picture, size=SIZE, mode="bilinear", antialias=True)


sides = [resizing(*side).to(device) for side in zip(temple.shape[2:], SIZE)]
by_hand = partial(lambda rows, columns, x: rows @ x @ columns.mT, *sides)
error = check(by_hand, Resize(), (flower,), (temple,), 3e-3, "two products")
resize = ahead(Resize(), min_block_size=1)
error = check(resize, Resize(), (flower,), (temple,), 3e-3, "resize")
converted = careful(plain)
print(f"engines_converter = {engines_in(converted)}")

# %%

# Output varies: it measures.
step("converter", converted)

# %%
# Both checks pass. In the engine the two products are less exact than in PyTorch's
# float32: TensorRT may use TF32 for them. There are as many engines as before, because
# the resizing joins the first one. (This converter serves one size at a time: its
# matrices are constants.)
#
# The detector takes :recorded:`converter_ms` ms in place of :recorded:`as_it_is_ms`,
# though it launches :recorded:`converter_launches` kernels, and before
# :recorded:`as_it_is_launches`. No output shows where the time was. Each of the two was
# built and measured once, and without a CUDA graph, as shapes that depend on the data
# do not allow one. So measure this gain again before you count on it.
#
# Mend one by rewriting
# ---------------------
# The mask makes the number of scores depend on the picture. Nothing needs that before
# NMS: the best thousand are as many for each picture. ``topk`` gives them, sorted, and
# takes the places along. Scores below the threshold may be among them, and are dropped
# at the end, in front of NMS, which has to stay in PyTorch anyway. The scores keep a
# dimension of length 1, because TensorRT refuses ``topk`` of a vector (*When it goes
# wrong*). What stays in PyTorch can also be read from the compiled module: each part
# that is no engine is a graph.
#
# On paper this is the better repair: one engine, nothing between engines, fixed shapes.
# It is slower all the same.

# Output varies: boxes of random weights.


def by_topk(scores, threshold):
    """The best scores, whether they pass or not, and their places."""
    scores = scores.flatten(1)
    scores, place = scores.topk(min(1000, scores.shape[1]))
    return scores[0], place[0]


def finish(boxes, scores, labels, threshold=model.score_thresh):
    """What passes the threshold, through NMS."""
    likely = scores > threshold
    return suppress(boxes[likely], scores[likely], labels[likely])


rewritten = Detector(Candidates(model, SIZE, by_topk), finish).eval()
same = agreement(rewritten(flower), plain(flower))
print(
    f"In PyTorch: {same['found']:.1%} of the boxes found again, IoU {same['IoU']:.3f}"
)
repaired = careful(rewritten)
print(f"engines_repaired = {engines_in(repaired)}")
for name, part in repaired.named_children():
    if not isinstance(part, TorchTensorRTModule):
        calls = [node.name for node in part.graph.nodes if node.op == "call_function"]
        print(name, "has", *calls)

# %%

# Output varies: it measures.
step("repaired", repaired)
step("eager_topk", rewritten)

# %%
# One engine is left, with :recorded:`repaired_launches` kernels in place of
# :recorded:`converter_launches`. But the detector takes :recorded:`repaired_ms` ms, and
# with the mask it took :recorded:`converter_ms`. Neither the method nor the host is to
# blame: in a CUDA graph, eager PyTorch does the same in :recorded:`eager_graph_ms` ms,
# and TensorRT still takes :recorded:`graph_ms` (*All steps*). Of what this page
# measures in TensorRT, the mask with the converter is the fastest. The rest goes on
# with ``topk``, because only fixed shapes fit into a CUDA graph.
#
# Keep one on purpose
# -------------------
# NMS goes through boxes one by one, each of which may remove later ones. How many
# remain is known at the end. TensorRT has a layer for it (``INMSLayer``), but no
# converter uses it, and it would have to ask for memory during the call. In PyTorch
# it is one call. So we cut there by hand: ``Candidates`` has fixed shapes, is one
# engine, and fits into a CUDA graph. NMS follows in PyTorch.

candidates = ahead(rewritten.candidates, require_full_compilation=True)
print(f"engines_candidates = {engines_in(candidates)}")

# %%
# PyTorch gets the same: the cut, a CUDA graph, weights in ``channels_last`` order, and
# weights as constants. An engine has those in any case. Inductor has them with its
# private option ``freezing``, seen in 2.14, and folds batch norms into convolutions
# then. :doc:`torch_compile_freezing` shows it, and why it has to be on around the first
# call.


def frozen(module):
    """The module by Inductor, with its weights as constants."""
    with torch._inductor.config.patch(freezing=True):
        compiled = torch.compile(module, fullgraph=True, dynamic=False)
        compiled(temple)
    return compiled


# %%

# Needs a GPU: a CUDA graph.
# Output varies: it measures.
ordered = copy.deepcopy(rewritten.candidates).to(memory_format=torch.channels_last)


def in_graph(module):
    """The detector with its first half in a CUDA graph."""
    given = flower.clone()
    replay = captured(lambda: module(given))

    def run(picture):
        given.copy_(picture)
        return finish(*replay())

    return run


step("graph", in_graph(candidates))
step("inductor_graph", in_graph(frozen(ordered)))
step("eager_graph", in_graph(ordered))
kept = [part.clone() for part in candidates(flower)]
print(f"candidates_ms = {latency(captured(lambda: candidates(flower)))[0]:.3f}")
print(f"nms_ms = {latency(lambda: finish(*kept))[0]:.3f}")

# %%
# All steps
# ---------
# *found* and *IoU* are against eager PyTorch, with the mask. That is agreement, not
# accuracy: eager PyTorch rounds to float16 too, and nothing here is compared with
# float32. A difference can come from rounding: a score crosses the threshold or passes
# another one, and NMS then keeps another one of two boxes that overlap. PyTorch's own
# kernels lose nothing that shows, not even with weights in another order
# (``eager_graph``). Inductor loses some boxes. TensorRT loses as many as it comes, and
# more with the converter, and its IoU is lower. The control,
# :recorded:`eager_control`, is far below all of them.
#
# Calls without a CUDA graph can wait for the host; compare them with care. Eager
# PyTorch waits most of the time. The next section's table shows it: in eager mode the
# network alone takes many times what it takes in a CUDA graph, and more than the whole
# detector here (``eager_topk``, :recorded:`eager_topk_ms` ms). So the host was not
# always equally fast, and two eager rows do not tell which method is better. A replayed
# CUDA graph launches an engine's kernels without calling the engine, which counts as 0.

# Needs a GPU: it shows what was measured.
# Output varies: timings.
steps = pd.DataFrame(rows).T
steps.round(3)

# %%

# Needs a GPU: it draws what was measured.
# Output varies: timings.
# Figure: pictures a second after each step. Inductor in a CUDA graph is the fastest, at
#   :recorded:`inductor_graph_ms` ms a picture. The best of TensorRT is the step with
#   the converter, at :recorded:`converter_ms` ms. With topk it takes
#   :recorded:`repaired_ms` ms, and in a CUDA graph still :recorded:`graph_ms` ms.
axis = (
    (1000 / steps.ms)
    .rename(lambda name: name.replace("_", " "))[::-1]
    .plot.barh(figsize=(7, 3))
)
axis.set(xlabel="pictures a second, one at a time", ylabel="")
plt.tight_layout()
plt.show()

# %%
# Where does TensorRT's time go? NMS, with the threshold in front of it, takes
# :recorded:`nms_ms` ms. The engine takes :recorded:`candidates_ms` ms in a CUDA graph,
# where the host does not count, and its network alone takes :recorded:`network_ms`
# (next section). So nearly all of the engine's time is behind the network: ``topk`` on
# each level, then the gathering and decoding of boxes. PyTorch does the same there, and
# its whole detector takes :recorded:`eager_graph_ms` ms. The step with the converter
# gathers and decodes in an engine too, though only what passes the threshold. What it
# does not have is ``topk``. That points at TensorRT's ``topk``, which here looks for a
# thousand among all scores of a level. No output takes the engine apart by operator;
# the exercise tests it.
#
# In the end, then, Inductor with ``topk`` in a CUDA graph is the fastest. Next, close
# together, come eager PyTorch in a CUDA graph, without any compiler, and TensorRT with
# the converter and the mask. What this suggests was not measured: an engine for the
# network, and PyTorch's ``topk`` behind it, both in one CUDA graph. Nor was Inductor
# with the mask.
#
# The network alone
# -----------------
# What can be gained at all? The half that is arithmetic, by the ruler, against the best
# of PyTorch. The limit is stated first. *Inductor, frozen* has its weights as
# constants, as an engine has. The resizing is in all rows: in PyTorch by its own
# kernel, in the engine by two products, for which TensorRT may use TF32. (Inductor's
# max-autotune is left out to save time; TensorRT is behind without it.)

# Needs a GPU: it measures.
# Output varies: timings.
network = rewritten.candidates.network
with FlopCounterMode(display=False) as counter:
    network(temple)
tflops, gigabytes = gpu_limits(dtype)
arithmetic_ms = counter.get_total_flops() / tflops / 1e9
memory_ms = weight_bytes(network) / gigabytes / 1e6
print(f"limit_ms = {max(arithmetic_ms, memory_ms):.3f}")
ordered = copy.deepcopy(network).to(memory_format=torch.channels_last)
ways = pytorch_alone(ordered, autotune=False)
ways["Inductor, frozen"] = lambda: frozen(ordered)
ways["TensorRT"] = lambda: ahead(network)
about = {"model": "RetinaNet", "shape": "1x3x320x480", "tolerance": 3e-2}
table = results(compare(ways, network, [temple], [flower], **about))
table = table.assign(arithmetic_ms=arithmetic_ms, memory_ms=memory_ms)
table.round(4)

# %%

# Needs a GPU: it shows what was measured.
# Output varies: timings.
# Figure: seconds until ready against latency, for the network alone. TensorRT takes
#   :recorded:`network_ms` ms and has :recorded:`network_speedup` times the speed of the
#   best of PyTorch, Inductor; it is ready earlier than Inductor.
plot_ready(table)
by_backend = table.set_index("backend")
tensorrt = by_backend.loc["TensorRT, CUDA graph"]
print(f"network_ms = {tensorrt.latency_ms:.3f}")
print(f"network_speedup = {tensorrt.speedup:.2f}")
print(f"of_limit = {max(arithmetic_ms, memory_ms) / tensorrt.latency_ms:.0%}")

# %%
# TensorRT has :recorded:`network_speedup` times the speed of Inductor, so here it loses
# without ``topk`` too. Constants do not explain it: frozen, Inductor is no faster.
# Inductor's answers are also nearer to those of eager PyTorch. TensorRT is ready the
# earliest of the three compiled ways, measured once. All are far from the limit:
# TensorRT reaches :recorded:`of_limit`. What holds them up is not shown here.
#
# Does it still find things?
# --------------------------
# Boxes of random weights agree or not; whether they are *right* takes a trained model.
# So we train the small one on scenes that are pasted together from
# scikit-learn's digits. The test has digits that the training never saw.

digits = load_digits()
GLYPHS = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16


def scene(first, last):
    """A picture [3, 256, 256] with five digits on noise, their boxes and labels."""
    picture, boxes, labels = 0.2 * torch.rand(1, 256, 256), [], []
    for cell in torch.randperm(9)[:5].tolist():
        which = torch.randint(first, last, ()).item()
        side = torch.randint(48, 80, ()).item()
        corner = torch.randint(0, 86 - side, (2,)).tolist()
        top, left = 85 * (cell // 3) + corner[0], 85 * (cell % 3) + corner[1]
        glyph = interpolate(GLYPHS[which, None], size=(side, side), mode="bilinear")
        picture[:, top : top + side, left : left + side] += 0.8 * glyph[0]
        boxes.append([left, top, left + side, top + side])
        labels.append(digits.target[which] + 1)
    target = {"boxes": torch.tensor(boxes) / 2.0, "labels": torch.tensor(labels)}
    return picture.expand(3, -1, -1), {n: t.to(device) for n, t in target.items()}


# %%
# The training is torchvision's own: in training mode the class returns its losses.

# Output varies: training.
SMALL = (128, 128)
sizes = {"min_size": 128, "max_size": 128, "score_thresh": 0.3}
reader = small_retinanet(11, **sizes).to(device)
steps_of_training = 600 if on_gpu else 8
scenes = [scene(0, 1500) for _ in range(400 if on_gpu else 16)]
pictures = torch.stack([picture for picture, _ in scenes]).to(device)
pictures = interpolate(pictures, size=SMALL, mode="bilinear", antialias=True)
optimizer = torch.optim.AdamW(reader.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps_of_training)
with torch.enable_grad():
    for _ in range(steps_of_training):
        batch = torch.randint(len(scenes), (8,)).tolist()
        targets = [scenes[n][1] for n in batch]
        loss = sum(reader(list(pictures[batch]), targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
print(f"loss at the end {loss.item():.2f}")

# %%
# Then all repairs at once: the new converter, ``topk``, NMS outside. *recall* is the
# share of digits that are found at the right place with the right label.

# Output varies: training.
reader.eval().requires_grad_(False)
read = Candidates(reader, SMALL, by_topk).eval()
tests = [scene(1500, 1797) for _ in range(40 if on_gpu else 2)]
tests = [(p[None].contiguous().to(device), truth) for p, truth in tests]
example = tests[0][0]
engine = ahead(read, example, require_full_compilation=True)
last_step = partial(finish, threshold=0.3)
for name, run in {"eager": read, "TensorRT": engine}.items():
    shares = [
        agreement(last_step(*run(picture)), (truth["boxes"], truth["labels"]))
        for picture, truth in tests
    ]
    mean = pd.DataFrame(shares).mean()
    print(f"recall_{name} = {mean.found:.1%}")
    print(f"iou_to_truth_{name} = {mean.IoU:.3f}")

# %%
# TensorRT finds :recorded:`recall_TensorRT` of the digits, eager PyTorch
# :recorded:`recall_eager`, at a mean IoU with the truth of
# :recorded:`iou_to_truth_TensorRT` and :recorded:`iou_to_truth_eager`. Both have
# ``topk``, so what costs no recall here is the engine with the converter. Boxes where
# there is no digit are not counted. This model is small; it does not show what the
# large one would lose with trained weights.
#
# torch.export and torch.compile
# ------------------------------
# So far the model was written anew. What about torchvision's class, as it is?
# ``torch.export`` needs one graph for all inputs. It can hold a length that is unknown
# (``u0``), but no ``if`` that depends on one, and NMS of torchvision has one: it asks
# whether there is any box.

original = copy.deepcopy(model).to(dtype)
try:
    with contextlib.redirect_stderr(io.StringIO()):  # it prints the whole graph
        torch.export.export(original, ([temple[0].to(dtype)],))
except Exception as refused:
    message = str(refused)
    print(type(refused).__name__, message.splitlines()[0][:100])
    print(*re.findall(r"Caused by: .*", message)[:1])

# %%
# ``torch.compile`` ends the graph there and goes on behind it: it *breaks*. That needs
# no rewriting, at the cost of more and smaller graphs. By default even the boolean mask
# is a break, as a graph may not hold a shape that depends on data
# (``torch._dynamo.config.capture_dynamic_output_shape_ops`` allows it).

# Output varies: a part is compiled for lengths, which depend on the weights.
torch.compiler.reset()
told_by_dynamo = torch._dynamo.explain(original)([temple[0].to(dtype)])  # documented
print(f"breaks = {told_by_dynamo.graph_break_count}")
print(f"graphs = {told_by_dynamo.graph_count}")
for reason in told_by_dynamo.break_reasons:
    frame = reason.user_stack[-1]
    print(reason.reason.splitlines()[0][:60], "in", frame.name)

# %%
# ``graph_break_count`` is the number of graphs less one. Reasons are listed for fewer:
# only for graphs that end in a break, not for those that end with their function.
#
# And the engines? Boxes are compared with those of the same class in eager mode. A
# level without a candidate gives a tensor of length 0, for which TensorRT may refuse to
# build. Such a part stays in PyTorch, with a warning, which this page has switched off;
# with ``pass_through_build_failures=True`` it is an error.

# Output varies: it measures.
torch.compiler.reset()
lazily = torch.compile(original, backend="tensorrt")


def as_tuple(run):
    """torchvision's dictionary of one picture as boxes, scores and labels."""

    def answer(picture):
        (found,) = run([picture[0].to(dtype)])
        return found["boxes"], found["scores"], found["labels"]

    return answer


step("class_eager", as_tuple(original), reference=as_tuple(original))
step("class_compiled", as_tuple(lazily), reference=as_tuple(original))

# %%
# The lines that begin with ``ERROR`` come from such parts: an input has a length of 0.
# In a call :recorded:`class_compiled_engines` engines run, and it takes
# :recorded:`class_compiled_ms` ms, in eager mode :recorded:`class_eager_ms`. The
# detector as we wrote it down takes :recorded:`as_it_is_ms` ms before any repair, but
# it does less: its anchors are made beforehand, and its boxes are not scaled back to
# the photograph. Fewer boxes are found again than in any step above,
# :recorded:`class_compiled_found`; no output shows why. (The class computes boxes in
# float16, we in float32.)
#
# All calls here had one picture. With another one, lengths change, and
# ``torch.compile`` may compile again, in the middle of that call.
#
# Several threads
# ---------------
# A server has several threads, each with a stream of its own. May they share a module?
# An engine runs in an *execution context*, which holds its work space. TensorRT allows
# several for one engine; Torch-TensorRT makes one. TensorRT says of its memory that it
# is in use until the call is complete on the GPU, and that another use until then is
# undefined behavior (``help(tensorrt.IExecutionContext)``, at ``device_memory``).
# Torch-TensorRT does not wait for that. It launches a call on the thread's own stream.
# A mutex keeps two launches apart, but nothing orders what they do on the GPU. From the
# default stream, where threads are without ``torch.cuda.stream``, it goes through one
# stream of the module's, so there calls should follow each other; that is not measured
# here. (Read in ``core/runtime/execute_engine.cpp`` of version 2.14.0a0 on GitHub; the
# package runs this C++ runtime, and has only its headers.)
#
# The experiment runs in a process of its own, because a race on the GPU can end it.
# Each thread has its own picture, whose scores are known beforehand, and counts answers
# that are wrong by more than 0.01 (``scores_apart`` says how far those of two pictures
# are apart at least). Each way runs once. Three ways: each thread has a module of its
# own, loaded from the file; all threads call one module under a lock, and wait for the
# GPU before they give it back; they just call it.

PROGRAM = """
import contextlib, itertools, sys, threading, time, torch, torch_tensorrt
file, calls = sys.argv[1], 100
modules = [torch_tensorrt.load(file).module() for _ in range(4)]
pictures = torch.load(file + ".pictures").cuda()
right = [modules[0](picture)[1].clone() for picture in pictures]
warm = [module(pictures[0]) for module in modules]
apart = [(a - b).abs().max().item() for a, b in itertools.combinations(right, 2)]
print(f"scores_apart = {min(apart):.2f}", flush=True)
lock = threading.Lock()
def work(number, way):
    with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(calls):
            with lock if way == "lock" else contextlib.nullcontext():
                scores = modules[number if way == "own" else 0](pictures[number])[1]
                torch.cuda.current_stream().synchronize() if way == "lock" else None
            good[number] += (scores - right[number]).abs().max() <= 1e-2
good = torch.zeros(4, device="cuda")
work(0, "own")  # loads the kernels of the comparison
for way, count in itertools.product(("own", "lock", "shared"), (1, 2, 4)):
    good = torch.zeros(4, device="cuda")
    torch.cuda.synchronize()
    start = time.perf_counter()
    threads = [threading.Thread(target=work, args=(n, way)) for n in range(count)]
    done = [thread.start() for thread in threads] + [t.join() for t in threads]
    torch.cuda.synchronize()
    rate = count * calls / (time.perf_counter() - start)
    wrong = count * calls - int(good.sum())  # an exception is a wrong answer
    print("row", way, count, f"{rate:.0f}", wrong, count * calls, flush=True)
"""

# %%
# The pictures are four: both photographs, and both mirrored.

# Needs a GPU: engines run in another process.
# Output varies: timings, and perhaps wrong answers.
folder = Path(tempfile.mkdtemp())
file = folder / "candidates.pt2"
torch_tensorrt.save(candidates, str(file), arg_inputs=(temple,))
both = torch.cat((temple, flower))
both = torch.cat((both, both.flip(3)))
torch.save(both[:, None], f"{file}.pictures")
(folder / "threads.py").write_text(PROGRAM)
command = ["timeout", "120"]  # a deadlock must not hold up the page
command += [sys.executable, "threads.py", str(file)]
ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
lines = [line.split()[1:] for line in ended.stdout.splitlines() if "row" in line]
print(*[line for line in ended.stdout.splitlines() if "=" in line])
print("ended with exit code", ended.returncode)
print(*ended.stderr.splitlines()[-1:] if ended.returncode else [])
columns = ["way", "threads", "calls_per_s", "wrong", "calls"]
threads = pd.DataFrame(lines, columns=columns)
threads

# %%

# Needs a GPU: it draws what was measured.
# Output varies: timings.
# Figure: calls a second for one, two and four threads. A module for each thread reaches
#   :recorded:`rate_own`; one module under a lock stays at :recorded:`rate_lock`; one
#   module without a lock has no point at four threads. Wrong answers:
#   :recorded:`wrong_own` with a module each, :recorded:`wrong_lock` under the lock,
#   :recorded:`wrong_shared` shared.
numbers = threads.drop(columns="way").astype(float).assign(way=threads.way)
for way in ("shared", "lock", "own"):
    part = numbers[numbers.way == way]
    told = f"{part.wrong.sum():.0f} of {part.calls.sum():.0f}", part.calls_per_s.max()
    wrong, rate = told if len(part) else ("no answer", float("nan"))
    if ended.returncode and way == "shared":  # it comes last
        wrong += f" (then exit code {ended.returncode})"
    print(f"wrong_{way} = {wrong}")
    print(f"rate_{way} = {rate:.0f}")
if len(numbers):
    rates = numbers.pivot(index="threads", columns="way", values="calls_per_s")
    axis = rates.plot(marker="o", figsize=(7, 3), ylim=(0, None), xticks=[1, 2, 4])
    axis.set(ylabel="calls a second")
    plt.tight_layout()
    plt.show()

# %%
# **One module, no lock: do not.** Wrong answers: :recorded:`wrong_shared`. One thread
# is right each time; with two threads nearly every answer is wrong. For four threads
# there is no row: the program had not ended when ``timeout`` stopped it, which is exit
# code 124. Two threads got about as many calls as with two modules,
# :recorded:`rate_shared` a second, so their calls ran on the GPU at the same time. That
# agrees with what was read above: one work space, and nothing that keeps calls apart on
# the GPU. (The line below the exit code is a notice from the import. An exception in a
# thread would stand behind it, so the wrong answers were wrong figures.)
#
# **One module, and a lock until the GPU is done.** Wrong answers:
# :recorded:`wrong_lock`. One call runs at a time, so more threads bring no more calls:
# :recorded:`rate_lock` a second at most.
#
# **A module for each thread.** Wrong answers: :recorded:`wrong_own`, all of them with
# two or four threads. This was meant to be the safe way, and here it is not. The cause
# is not known. Each module has an engine and a context of its own, so what was read
# above does not explain it. It is not even certain that threads are to blame: alone,
# only the first module was tested. With four threads, calls a second rise to
# :recorded:`rate_own`, so one call at a time leaves most of the GPU unused.
#
# Of the three ways, only the lock gave right answers throughout. A process for each
# worker is another way, and is not measured here. Whatever you take, compare answers
# under load with those of one thread. A module for each thread costs its weights once
# more each, and a CUDA graph belongs to one thread in any case: its inputs and outputs
# are fixed places.
#
# When it goes wrong
# ------------------
# **GuardOnDataDependentSymNode.** ``torch.export`` met an ``if`` on a length that
# depends on data, as above. Rewrite that part, or cut in front of it.
#
# **NotImplementedError: only available in non TensorRT-RTX environments.** An operator
# that the report counts as supported, as ``nonzero`` above. Name it in
# ``torch_executed_ops`` or set ``fallback_data_dependent_ops=True``.
#
# **Could not get tensor shape.** Some layer was refused, and the next operator asks it
# for its shape. The reason stands in TensorRT's own log, a line above. Here it is
# ``topk`` of a vector.


class Best(torch.nn.Module):
    """The places of the ten best, as whole numbers behind a division."""

    def forward(self, x):
        return torch.div(x.flatten().topk(10).indices, 3, rounding_mode="floor")


try:
    ahead(Best(), min_block_size=1)
except Exception as refused:
    print(type(refused).__name__, str(refused).splitlines()[0])

# %%
# **No engine, and no error.** Blocks of fewer operators than ``min_block_size``, 5 by
# default, stay in PyTorch, and a report of full coverage does not contradict.
# ``require_full_compilation=True``, as above, makes an operator in PyTorch an error,
# but not where a whole model has fewer: tried in 2.14, it comes back uncompiled, with a
# warning at most, which this page has switched off. So count engines, as
# ``engines_in`` does, and set ``min_block_size=1`` for small models.
#
# Take it to production
# ---------------------
# What is saved is the half with fixed shapes, as it was for the threads. The process
# that loads it needs neither torchvision's model nor the converter: both are in the
# engine. It needs ``finish``, with torchvision's ``nms``. Before you ship this engine,
# look at *All steps*: on this GPU, eager PyTorch in a CUDA graph is faster. If threads
# are to call it, put a lock around it.

# Needs a GPU: it loads an engine.
# Output varies: kernels are chosen anew.
loaded = torch_tensorrt.load(str(file)).module()
again = agreement(finish(*loaded(flower)), finish(*candidates(flower)))
print(f"After loading: {again['found']:.1%} found, IoU {again['IoU']:.3f}")

# %%
# Exercise
# --------
# Is it ``topk`` that makes the repaired detector slow? Put
# ``torch.ops.aten.topk.default`` into ``torch_executed_ops``, so that PyTorch's runs
# between engines. How many engines does the report foresee, and how many milliseconds
# of :recorded:`repaired_ms` are left?
#
# Takeaways
# ---------
# - Measure each repair. The converter took the detector from :recorded:`as_it_is_ms` ms
#   to :recorded:`converter_ms`; ``topk`` left :recorded:`engines_repaired` engine, and
#   :recorded:`repaired_ms` ms.
# - To put the rest into a CUDA graph, move a shape that depends on data behind it.
#   PyTorch gains by that, TensorRT here does not: Inductor then takes
#   :recorded:`inductor_graph_ms` ms, eager PyTorch :recorded:`eager_graph_ms`, TensorRT
#   :recorded:`graph_ms`.
# - The report names what stays in PyTorch. The registry tells *no converter* from
#   *refused*. Only a build finds out what this flavor cannot do.
# - On trained weights the engine finds :recorded:`recall_TensorRT` of the digits, eager
#   PyTorch :recorded:`recall_eager`.
# - Threads with streams of their own need a lock, held until the GPU is done:
#   :recorded:`wrong_lock` answers were wrong, without it :recorded:`wrong_shared`.

# sphinx_gallery_tags = ["torch.export", "fallback", "converters", "threads"]
