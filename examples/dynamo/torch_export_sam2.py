"""
SAM2: encode a picture once, then ask for many masks
====================================================

Compile SAM2's image encoder and mask decoder apart, give each its fastest compiler,
and compare the masks of eager and TensorRT by their overlap.

At a glance
-----------

- The image encoder at 1024 x 1024 takes TensorRT :recorded:`encoder_tensorrt_ms` ms and
  the best of PyTorch :recorded:`encoder_pytorch_ms` ms: TensorRT loses, with
  :recorded:`speed_encoder` of PyTorch's speed.
- For one prompt TensorRT's decoder is :recorded:`speed_decoder_1` times as fast as the
  best of PyTorch on this page. Frozen weights, which make Inductor faster, change
  little (:doc:`torch_compile_freezing`). For 16 prompts in one call TensorRT loses,
  with :recorded:`speed_decoder_16` of the speed.
- With Inductor for the encoder and TensorRT for the decoder, a picture and ``20``
  prompts in turn take :recorded:`clicks_mixed_ms` ms, with the best of PyTorch alone
  :recorded:`clicks_pytorch_ms` ms: the mix is :recorded:`clicks_gain` times as fast.
- The masks of a small SAM2, trained on this page, overlap between TensorRT and eager by
  :recorded:`small_iou_eager`, where 1 is the same.
- If you ask each picture only once, the encoder takes most of the time, and the mix is
  :recorded:`single_gain` times as fast as PyTorch alone. For 16 prompts at once PyTorch
  alone is the fastest.

What you will learn
-------------------

- How to split SAM2 where its reuse is, and export both halves.
- How to serve points and boxes with one engine.
- How to find out which part gains, by kernels and by experiments.
- How to compare masks, and why a check needs a mask that has to differ.
- What fails to convert in prompt encoders and window attention, and the mend for each.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers huggingface-hub scikit-learn
    pip install pillow matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, ``torch-tensorrt`` in
its place runs the same code. ``scikit-learn`` brings two photographs. You need to know
PyTorch, but not TensorRT. Without a GPU, a small model is built, and the cells marked
``Needs a GPU`` do not run.
"""

# %%
# Two engines
# -----------
#
# SAM2 answers a *prompt*, such as a click or a box, with masks of what is meant. Most
# of the work does not depend on the prompt. The *image encoder*, a transformer named
# Hiera, makes three maps of features from the picture. The *prompt encoder* and the
# *mask decoder* make masks from these maps and a prompt. So a picture is encoded once,
# and then asked about many times. Each half gets an engine of its own.

import contextlib
import copy
import io
import logging
import random
import re
import subprocess
import sys
import textwrap
import time
from functools import partial

logging.disable(logging.WARNING)  # hints for the library's own developers

import matplotlib.pyplot as plt
import torch
import torch_tensorrt
import transformers
from huggingface_hub import snapshot_download
from sklearn.datasets import load_sample_images
from torch.nn import functional
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
# Many CPUs have no fast float16 arithmetic.
dtype = torch.float16 if on_gpu else torch.float32

# %%
# The model is transformers' own class. Its default configuration is SAM2's smallest,
# *tiny*. A small one with the same parts is trained further down, and takes the large
# one's place where there is no GPU.


def small_config(side, width=24, hidden=64):
    """SAM2 in little: five blocks in place of twelve, and a quarter of the width."""
    widths = [width * 2**stage for stage in range(4)]
    backbone = {"image_size": [side, side], "hidden_size": width}
    backbone |= {"embed_dim_per_stage": widths, "blocks_per_stage": [1, 1, 2, 1]}
    backbone |= {"global_attention_blocks": [3]}
    vision = {"backbone_config": backbone, "backbone_channel_list": widths[::-1]}
    vision |= {"backbone_feature_sizes": [[side // n] * 2 for n in (4, 8, 16)]}
    decoder = {"hidden_size": hidden, "mlp_dim": 2 * hidden}
    return transformers.Sam2Config(
        vision_config=vision | {"fpn_hidden_size": hidden},
        prompt_encoder_config={"image_size": side, "hidden_size": hidden},
        mask_decoder_config=decoder | {"iou_head_hidden_dim": hidden},
    )


SMALL = 128  # pixels on a side of what the small model sees

# %%
# A small model begins with random weights. To shorten its training, it is told that a
# prompt means a place: pixels and prompts share one code of places, and in the decoder
# keys are made as queries are, from doubled weights. What this saves was not measured.


def beginner():
    model = transformers.Sam2Model(small_config(SMALL))
    for part in model.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    for part in model.mask_decoder.modules():
        if hasattr(part, "k_proj"):
            part.q_proj.weight *= 2
            part.k_proj.load_state_dict(part.q_proj.state_dict())
    code = model.shared_image_embedding.state_dict()
    model.prompt_encoder.shared_embedding.load_state_dict(code)
    return model.to(device)


# %%
# Pretrained weights are used where the hub can be reached. Random ones go through the
# same operations, but their masks mean nothing. A network that cannot be reached is an
# ``OSError``.

# Output varies: pretrained weights need a network.
try:
    if not on_gpu:
        raise OSError("a small model for this machine")
    hub = snapshot_download("facebook/sam2.1-hiera-tiny", etag_timeout=3)
    model = transformers.Sam2Model.from_pretrained(hub)
    print("Weights: pretrained (facebook/sam2.1-hiera-tiny)")
except OSError as error:
    model = transformers.Sam2Model(transformers.Sam2Config()) if on_gpu else beginner()
    print(f"Weights: random ({error})")
model = model.eval().requires_grad_(False).to(device, dtype)
side = model.config.prompt_encoder_config.image_size
print(f"{model.num_parameters() / 1e6:.1f} million weights, {side} x {side} pixels")

# %%
# Exporting wants modules with tensors in and tensors out. These two wrappers are all
# that has to be written. The decoder answers with three masks for each prompt, for
# prompts that can be read in several ways, and a score for each mask.


class Part(torch.nn.Module):
    """What both have: a model."""

    def __init__(self, model):
        super().__init__()
        self.model = model


class Encoder(Part):
    """A picture in, three maps of features out."""

    def forward(self, image):
        maps = self.model.get_image_embeddings(image)
        return tuple(each.contiguous() for each in maps)


class Decoder(Part):
    """Points, their labels and the maps in; masks and their scores out."""

    def forward(self, points, labels, *maps):
        given = {"input_points": points, "input_labels": labels}
        answer = self.model(image_embeddings=[*maps], **given)
        return answer.pred_masks, answer.iou_scores


def halves(model):
    """Both parts; the decoder does not keep the encoder's weights."""
    rest = copy.deepcopy(model)
    del rest.vision_encoder
    return Encoder(model), Decoder(rest)


# %%
# Two photographs come with scikit-learn. They are resized to the model's square and
# normalized as its processor would do it.
#
# A prompt is a list of points with labels: 1 is a click on the object, 0 a click beside
# it, 2 and 3 are the corners of a box, -10 fills up. With two points each, a box and a
# click have the same shape, and *one engine takes both*. Points stay in float32: in
# float16 a coordinate between 512 and 1024 moves in steps of half a pixel.

MEAN = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
SPREAD = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]


def normalized(images):
    return (images - MEAN) / SPREAD


def photograph(number):
    """One of scikit-learn's photographs as pixels from 0 to 1."""
    pixels = torch.tensor(load_sample_images().images[number], device=device)
    return pixels.permute(2, 0, 1) / 255


def encoder_input(number):
    pixels = interpolate(photograph(number)[None], size=(side, side), mode="bilinear")
    return (normalized(pixels).to(dtype),)


CLICK_OR_BOX = torch.tensor([[1, -10], [2, 3]], device=device, dtype=torch.int32)


def prompts(count, seed=0):
    """Clicks and boxes in turns, anywhere: points and labels."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.rand(1, count, 2, 2, generator=draw).sort(dim=2).values * side
    return points.to(device), CLICK_OR_BOX[torch.arange(count) % 2][None]


# %%
# Export, compile, call. ``torch.export`` traces the module to a graph. From it,
# Torch-TensorRT builds an *engine*, TensorRT's program for this GPU. Operators that it
# cannot convert would stay in PyTorch, between engines. ``min_block_size=1`` makes
# engines of all other parts, however small.

# Output varies: seconds.


def ahead(module, inputs, **more):
    """Export a module and compile it ahead of its first call."""
    program = torch.export.export(module, inputs, strict=False)
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=inputs, min_block_size=1, **more
    )


def note(**values):
    """Print values that the text quotes."""
    for name, value in values.items():
        print(f"{name} = {value}")


def built(module, inputs):
    """An engine for a module, and the seconds of its build and of its first call."""
    start = time.perf_counter()
    engine = ahead(module, inputs)
    build = time.perf_counter() - start
    engine(*inputs)[0].sum().item()  # waits for the GPU
    first_call = time.perf_counter() - start - build
    return engine, {"compile_s": build, "first_call_s": first_call}


# %%
# Both halves, for the first photograph and one prompt:

# Output varies: seconds.
encoder, decoder = halves(model)
image, other_image = encoder_input(0), encoder_input(1)
maps, other_maps = encoder(*image), encoder(*other_image)
one_prompt, other_prompt = prompts(1), prompts(1, seed=1)
here, there = (*one_prompt, *maps), (*other_prompt, *other_maps)
fast_encoder, encoder_ready = built(encoder, image)
fast_decoder, decoder_ready = built(decoder, here)
for compiled in (fast_encoder, fast_decoder):
    print("Parts:", [name for name, _ in compiled.named_children()])
note(encoder_ready_s=f"{sum(encoder_ready.values()):.0f}")
note(decoder_ready_s=f"{sum(decoder_ready.values()):.0f}")
print("Masks:", tuple(fast_decoder(*one_prompt, *fast_encoder(*image))[0].shape))

# %%
# One engine each, and nothing is left in PyTorch. Building and first call, each taken
# once, need :recorded:`encoder_ready_s` s for the encoder and
# :recorded:`decoder_ready_s` s for the decoder. A mask has a quarter of the picture's
# width and height.
#
# How this page measures
# ----------------------
#
# The next cell is the ruler that all pages share. It gives the median of a call with
# and without a *CUDA graph* (all that the GPU does in a call, recorded once and
# launched by one command), compile times from empty caches, and it compares each answer
# with eager PyTorch's.

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
# As most people begin: eager PyTorch as it comes, against both engines in a CUDA graph.

# Needs a GPU: it measures latency.
# Output varies: it is measured.
warm_up()
pairs = {"encoder": (encoder, fast_encoder, image)}
pairs["decoder"] = (decoder, fast_decoder, here)
for part, (eager, engine, given) in pairs.items():
    calls = {"eager": partial(eager, *given)}
    calls["TensorRT"] = captured(partial(engine, *given))
    turns = in_turns(calls, rounds=5)
    note(**{f"win_{part}": f"{(turns.eager / turns.TensorRT).median():.1f}"})

# %%
# Eager takes :recorded:`win_encoder` times as long for the encoder and
# :recorded:`win_decoder` times for the decoder. Much of that is the graph's, and
# PyTorch can have it too: the tables below have each way without and with one. The text
# quotes latencies in a CUDA graph from here on.
#
# Is it right?
# ------------
#
# Both engines meet input that they were not built with: the other photograph, another
# prompt. *Relative error* is the size of the difference over the size of eager's
# answer. The last number shows that the check can fail: the error of the answer to
# another input.

# Output varies: digits depend on the device.
TOLERANCE = 3e-2 if on_gpu else 1e-4
check(fast_encoder, encoder, other_image, image, TOLERANCE, "encoder")
check(fast_decoder, decoder, there, here, TOLERANCE, "decoder")


def overlap(first, second):
    """Intersection over union of two masks of logits; a mask is where they exceed 0."""
    first, second = first > 0, second > 0
    return ((first & second).sum() / (first | second).sum().clamp(min=1)).item()


ours = fast_decoder(*other_prompt, *fast_encoder(*image))[0]
exact = decoder(*other_prompt, *maps)[0]
note(iou_engines=f"{overlap(ours, exact):.3f}")
note(iou_another_prompt=f"{overlap(decoder(*here)[0], exact):.3f}")

# %%
# A mask's user does not see a relative error. *Intersection over union* counts pixels:
# those in both masks, over those in either. Through both engines it is
# :recorded:`iou_engines` against eager; the mask of another prompt gets
# :recorded:`iou_another_prompt`. With random weights the masks mean nothing. A model
# with a meaning follows below.
#
# Is a box really two points? Against SAM2's own argument for boxes, in eager:

# Output varies: digits depend on the device.
corners, kinds = (tensor[:, 1:] for tensor in prompts(2))
boxed = model(image_embeddings=[*maps], input_boxes=corners.flatten(2)).pred_masks
note(box_error=f"{relative_error(decoder(corners, kinds, *maps)[0], boxed):.1e}")

# %%
# The relative error between the two is :recorded:`box_error`; zero means that all bits
# are the same.
#
# What PyTorch computes again in each call
# ----------------------------------------
#
# PyTorch should be at its best as well. Two results in SAM2 depend on weights alone and
# are computed in each call: the encoder enlarges its position code from ``7 x 7`` to
# the size of the feature map, and the decoder makes a code for each place of the
# picture out of sines. Torch-TensorRT folds such constants when it builds an engine.
# For PyTorch, this computes them once. It also stores the weights of convolutions as
# ``channels_last``: a pixel's channels lie side by side, as in Hiera's tokens.
#
# ``_get_pos_embed`` is private in transformers, seen in 5.17; there is no public way.

# Output varies: digits depend on the device.


def tuned(part):
    """A copy of a part with its constant computed once, in channels_last."""
    part = copy.deepcopy(part).to(memory_format=torch.channels_last)
    model = part.model
    if isinstance(part, Encoder):
        backbone = model.vision_encoder.backbone
        size = backbone.patch_embed(image[0]).shape[1:3]
        backbone.register_buffer("once", backbone._get_pos_embed(size))
        backbone._get_pos_embed = lambda size: backbone.once
    else:
        model.register_buffer("once", model.get_image_wide_positional_embeddings())
        model.get_image_wide_positional_embeddings = lambda: model.once
    return part


tuned_encoder, tuned_decoder = tuned(encoder), tuned(decoder)
check(tuned_encoder, encoder, other_image, image, TOLERANCE, "tuned encoder")
error = check(tuned_decoder, decoder, there, here, TOLERANCE, "tuned decoder")

# %%
# What can be reached at best? A GPU is no faster than its arithmetic or its memory.
# ``FlopCounterMode`` adds up the operations of convolutions, products and attention in
# a call. Weights have to be read once, and inputs and outputs pass once. The larger of
# the two times is the limit.

# Needs a GPU: it measures the GPU.
# Output varies: rates.
tflops, gigabytes = gpu_limits(dtype)


def floor_of(module, inputs, weights):
    """The least time that a call's arithmetic and its memory traffic take, in ms."""
    with FlopCounterMode(display=False) as counter:
        answer = module(*inputs)
    moved = weights + sum(tensor.nbytes for tensor in (*inputs, *answer))
    arithmetic = counter.get_total_flops() / tflops / 1e9
    return {"arithmetic_ms": arithmetic, "memory_ms": moved / gigabytes / 1e6}


sixteen, other_sixteen = prompts(16), prompts(16, seed=1)
encoding, decoding = weight_bytes(model.vision_encoder), weight_bytes(decoder)
floors = {
    "encoder": floor_of(tuned_encoder, image, encoding),
    "decoder, 1 prompt": floor_of(tuned_decoder, here, decoding),
    "decoder, 16 prompts": floor_of(tuned_decoder, (*sixteen, *maps), decoding),
}
pd.DataFrame(floors).T.round(4)

# %%
# The ways to run a part are kept after they are measured, for the pipeline below. One
# that gives a wrong answer gets no row. *Inductor* is the compiler behind
# ``torch.compile``, and gets the tuned model. Its ``max-autotune``, which searches for
# faster kernels, was not tried on this page: "best of PyTorch" means the best in the
# tables, not the best that PyTorch can do.

# Needs a GPU: the benchmark.
rows, runs, replays, kernels = [], {}, {}, {}
NO_KERNELS = pd.DataFrame({"kernel": [], "launches": [], "microseconds": []})


def record(shape, reference, inputs, fresh, ways, ready=None):
    """Measure and check ways to run a part; return the part's table."""
    about = {"model": "SAM2 tiny", "shape": shape, "tolerance": TOLERANCE}
    for way, build in ways.items():
        key = shape, way
        keep = partial(lambda key, build: runs.setdefault(key, build()), key, build)
        kernels[key] = NO_KERNELS
        try:
            made = compare({way: keep}, reference, inputs, fresh, **about)
            replays[key] = captured(partial(runs[key], *inputs))
            kernels[key] = profiled(replays[key])[0]
        except (AssertionError, RuntimeError) as error:
            print(f"{key}: no row:", textwrap.shorten(str(error), 300))
            continue
        if way == "TensorRT" and ready:
            made = [row | ready for row in made]  # it was built above
        rows.extend(made)
    table = results([row for row in rows if row["shape"] == shape])
    return table.assign(**floors[shape])


def best_ms(shape, names):
    """The way with the least latency in a CUDA graph whose name fits, and its ms."""
    found = {row["backend"]: row["latency_ms"] for row in rows if row["shape"] == shape}
    fits = [name for name in found if re.match(f"({names}).*CUDA graph", name)]
    best = min(fits, key=found.get)
    return best.removesuffix(", CUDA graph"), found[best]


# %%
# What the text quotes:

# Needs a GPU: the benchmark.


def tell(part, shape):
    """The best of PyTorch and of TensorRT, in ms, and how many times as fast."""
    ways = ("eager|Inductor", "TensorRT")
    pytorch, tensorrt = (best_ms(shape, names)[1] for names in ways)
    note(**{f"{part}_pytorch_ms": f"{pytorch:.3f}"})
    note(**{f"{part}_tensorrt_ms": f"{tensorrt:.3f}"})
    note(**{f"speed_{part}": f"{pytorch / tensorrt:.2f}"})


# %%
# The image encoder
# -----------------
#
# For TensorRT one change is tried. Its engine has attention kernels of its own, and
# PyTorch has others, among them flash attention. ``torch_executed_ops`` leaves an
# operator to PyTorch: the engine breaks into pieces, and attention runs between them.
# The row "TensorRT" has the seconds of the first build above, here with the loading of
# TensorRT.

# Needs a GPU: the benchmark.
# Output varies: it is measured.
ATTENTION = {"torch.ops.aten.scaled_dot_product_attention.default"}
outside = "TensorRT, attention in PyTorch"
ways = {
    "eager": lambda: encoder,
    "eager, tuned": lambda: tuned_encoder,
    "Inductor, tuned": pytorch_alone(tuned_encoder)["Inductor"],
    "TensorRT": lambda: fast_encoder,
    outside: lambda: ahead(encoder, image, torch_executed_ops=ATTENTION),
}
table = record("encoder", encoder, image, other_image, ways, encoder_ready)
tell("encoder", "encoder")
note(fastest_encoder=best_ms("encoder", "")[0])
note(parts_outside=len([*runs["encoder", outside].children()]))
table

# %%
# TensorRT has :recorded:`speed_encoder` of the speed of PyTorch's best. Leaving
# attention to PyTorch gains nothing: that row is slower than the one engine. Its
# memory, in which the table adds up a work space for each engine, is the largest.
#
# Without a CUDA graph the order turns: TensorRT is ahead of all others, here and in the
# decoder's table. The others need much longer there than in a graph. Why tuned eager is
# slower than eager there was not looked for.
#
# Where does the GPU's time go? Kernels are sorted by their names. Inductor's own, which
# fuse what stands between products, count as the rest. TensorRT fuses some of that into
# its products, where it counts as a product.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
KINDS = {
    "attention": "flash|fmha|mha|sdpa|attention|softmax",
    "products": "nvjet|gemm|gemv|matmul|cutlass|cublas|splitk|xmma|conv|cudnn",
    "the rest": "",
}


def kind_of(kernel):
    if kernel.startswith("triton_"):
        return "the rest"
    return next(kind for kind in KINDS if re.search(KINDS[kind], kernel, re.IGNORECASE))


def by_kind(shape):
    """Milliseconds of the GPU by kind of kernel, and launches: one row a way."""
    found = {}
    for way, table in ((way, kernels[s, way]) for s, way in kernels if s == shape):
        sums = table.groupby(table.kernel.map(kind_of)).microseconds.sum() / 1e3
        found[way] = {**sums, "launches": table.launches.sum()}
    table = pd.DataFrame(found).T.reindex(columns=[*KINDS, "launches"])
    return table.fillna(0).round(3)


kinds = by_kind("encoder")
for name, way in {"inductor": "Inductor, tuned", "tensorrt": "TensorRT"}.items():
    attends, products, rest, _ = kinds.loc[way]
    note(**{f"attention_{name}": attends, f"products_{name}": products})
    note(**{f"rest_{name}": rest})
whole, pieces = kinds.loc["TensorRT"], kinds.loc[outside]
note(attention_outside=pieces["attention"])
note(other_in_engine=round(whole["products"] + whole["the rest"], 3))
note(other_outside=round(pieces["products"] + pieces["the rest"], 3))
kinds

# %%
# Attention takes TensorRT :recorded:`attention_tensorrt` ms and Inductor
# :recorded:`attention_inductor` ms, products :recorded:`products_tensorrt` and
# :recorded:`products_inductor` ms, the rest :recorded:`rest_tensorrt` and
# :recorded:`rest_inductor` ms. Most of the gap is in the products; why was not looked
# for. Three of Hiera's blocks attend to the whole map, the others in windows of
# ``8 x 8``, ``4 x 4``, ``14 x 14`` or ``7 x 7`` tokens. The slowest kernels of the
# engine:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
slowest = kernels["encoder", "TensorRT"].head(8)
slowest.assign(kernel=slowest.kernel.str.slice(0, 60)).round(0)

# %%
# The first is attention. It has most of attention's time in as many launches as there
# are blocks that attend to the whole map.
#
# Left to PyTorch, attention cuts the model into :recorded:`parts_outside` parts. Its
# kernels take :recorded:`attention_outside` ms in place of
# :recorded:`attention_tensorrt`, and all others :recorded:`other_outside` ms in place
# of :recorded:`other_in_engine`. A profile is of one call, and its sum is not the
# median in the table of latencies. By both, the pieces are slower than the one engine.
#
# The mask decoder
# ----------------
#
# One prompt in a call, as a person clicks, and 16 in a call. The picture's maps are the
# same for all prompts, but the decoder's transformer changes them, so each prompt
# brings work of its own. For each number of prompts an engine of its own is built.

# Needs a GPU: the benchmark.
# Output varies: it is measured.
ways = {
    "eager": lambda: decoder,
    "eager, tuned": lambda: tuned_decoder,
    "Inductor": pytorch_alone(decoder)["Inductor"],
    "Inductor, tuned": pytorch_alone(tuned_decoder)["Inductor"],
    "TensorRT": lambda: fast_decoder,
}
tables = [record("decoder, 1 prompt", decoder, here, there, ways, decoder_ready)]
given, fresh = (*sixteen, *maps), (*other_sixteen, *other_maps)
ways = {way: ways[way] for way in ("eager, tuned", "Inductor, tuned")}
ways["TensorRT"] = lambda: ahead(decoder, given)
tables.append(record("decoder, 16 prompts", decoder, given, fresh, ways))
tell("decoder_1", "decoder, 1 prompt")
tell("decoder_16", "decoder, 16 prompts")
pd.concat(tables, ignore_index=True)

# %%
# With one prompt TensorRT takes :recorded:`decoder_1_tensorrt_ms` ms and the best of
# PyTorch :recorded:`decoder_1_pytorch_ms` ms. With 16 it is
# :recorded:`decoder_16_tensorrt_ms` and :recorded:`decoder_16_pytorch_ms` ms: TensorRT
# loses, and why was not looked for. By kind of kernel, one prompt:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
kinds = by_kind("decoder, 1 prompt")
ours, rival = kinds.loc["TensorRT"], kinds.loc["Inductor, tuned"]
note(launches_decoder_tensorrt=int(ours["launches"]))
note(launches_decoder_inductor=int(rival["launches"]))
note(as_it_comes_ms=f"{best_ms('decoder, 1 prompt', 'Inductor(?!, t)')[1]:.3f}")
note(tuned_ms=f"{best_ms('decoder, 1 prompt', 'Inductor, t')[1]:.3f}")
note(us_a_launch=f"{1000 * ours[[*KINDS]].sum() / ours['launches']:.1f}")
kinds

# %%
# TensorRT launches :recorded:`launches_decoder_tensorrt` kernels and Inductor
# :recorded:`launches_decoder_inductor`. TensorRT needs less time for attention and
# products, Inductor for the rest. Kernels are short: on average one takes
# :recorded:`us_a_launch` microseconds in TensorRT.
#
# And what did the tuning take away? Inductor takes :recorded:`as_it_comes_ms` ms for
# the decoder as it comes, and :recorded:`tuned_ms` ms with the code of all places as a
# constant and in ``channels_last``. Who compares an engine with ``torch.compile`` on
# the model as it comes, measures this difference as well.
#
# The whole pipeline
# ------------------
#
# Now both parts together, in a CUDA graph each. A graph reads and writes fixed
# addresses. So a new picture is copied to where the encoder's graph reads, and its maps
# to where the decoder's graph reads, once a picture. Three cases: a person who clicks
# ``20`` times on a picture, one prompt a call, without the copy of its few numbers; 16
# prompts at once on a picture; one prompt on a picture.

# Needs a GPU: it measures.
CASES = {
    "20 prompts in turn": ("decoder, 1 prompt", one_prompt, 20),
    "16 prompts at once": ("decoder, 16 prompts", sixteen, 16),
    "one prompt": ("decoder, 1 prompt", one_prompt, 1),
}
MIXES = {"eager": "eager", "best of PyTorch": "eager|Inductor", "TensorRT": "TensorRT"}
MIXES["fastest of all"] = ""


def case_ms(mix, case):
    """A picture and its prompts, each part by the fastest way of a mix; checked."""
    shape, prompt, count = CASES[case]
    names = [best_ms(part, MIXES[mix])[0] for part in ("encoder", shape)]
    encode, decode = replays["encoder", names[0]], replays[shape, names[1]]

    def work(times=1 if "at once" in case else count):
        image[0].copy_(other_image[0])
        for mine, new in zip(maps, encode()):
            mine.copy_(new)
        for _ in range(times):
            answer = decode()
        return answer

    error = relative_error(work(), decoder(*prompt, *other_maps))
    assert error <= 2 * TOLERANCE, f"{mix}, {case}: {error:.1e}"
    row = {"case": case, "mix": mix, "encoder": names[0], "decoder": names[1]}
    ms = latency(work)[0]
    return row | {"ms": ms, "prompts a second": 1000 * count / ms, "error": error}


# %%
# The mixes are: tuned eager for both parts, the best of PyTorch for each, TensorRT for
# both, and for each part what is fastest.

# Needs a GPU: it measures.
# Output varies: it is measured.
# Figure: Prompts a second with the encoder's time included. For 20 prompts in turn the
#   fastest mix reaches :recorded:`clicks_gain` times the rate of PyTorch's best. For 16
#   at once it is PyTorch's best. TensorRT for both parts stays below that, and for one
#   prompt as well.
cases = pd.DataFrame([case_ms(mix, case) for case in CASES for mix in MIXES])
rates = cases.pivot(index="case", columns="mix", values="prompts a second")
axis = rates.loc[[*CASES], [*MIXES]].plot.bar(figsize=(7, 3.4), rot=0, width=0.75)
axis.set(ylabel="prompts a second, all in all", xlabel="")
axis.figure.set_layout_engine("constrained")
plt.show()
gain = rates["fastest of all"] / rates["best of PyTorch"]
clicks = cases[cases.case == "20 prompts in turn"].set_index("mix").ms.round(2)
note(clicks_pytorch_ms=clicks["best of PyTorch"], clicks_tensorrt_ms=clicks["TensorRT"])
note(clicks_mixed_ms=clicks["fastest of all"])
for name, case in zip(("clicks", "batch", "single"), CASES):
    note(**{f"{name}_gain": f"{gain[case]:.2f}"})
note(images_per_second=f"{1000 / best_ms('encoder', '')[1]:.0f}")
cases.round(4)

# %%
# The fastest encoder alone makes :recorded:`images_per_second` pictures a second. The
# fastest mix is :recorded:`clicks_gain` times as fast as the best of PyTorch alone for
# ``20`` prompts in turn, and :recorded:`single_gain` times for one prompt. For 16 at
# once it is the best of PyTorch, so nothing is gained (:recorded:`batch_gain`).
#
# TensorRT for both parts takes :recorded:`clicks_tensorrt_ms` ms for the ``20``, the
# fastest mix :recorded:`clicks_mixed_ms` ms. In the other two cases, TensorRT for both
# is slower than PyTorch alone. With each mix, 16 prompts at once come at a higher rate
# than prompts in turn.
#
# How near is this to what the GPU can do?

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
table = results(rows).join(pd.DataFrame(floors).T, on="shape")
limit = max(floors["encoder"].values())
note(reached_encoder=f"{limit / best_ms('encoder', 'TensorRT')[1]:.0%}")
table

# %%
# The encoder in TensorRT reaches :recorded:`reached_encoder` of the limit, and in
# PyTorch's best somewhat more. That is a strict limit for a model like this: it counts
# no map of features that is written and read again between layers. The decoder stays
# farther below its own.
#
# Seconds until ready, compilation and first call together and taken once, against
# latency:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: Least latency: Inductor for the encoder and for 16 prompts, TensorRT for one
#   prompt. The encoder's engine is ready after :recorded:`encoder_ready_s` s, the
#   decoder's for one prompt after :recorded:`decoder_ready_s` s. Eager, not compiled,
#   is drawn at the first tick.
plot_ready(table)

# %%
# The encoder's engine is ready before Inductor's code, the decoder's engines after it.
#
# Masks that mean something
# -------------------------
#
# Random weights can show that two programs compute the same. Whether a mask with a
# meaning survives an engine, only a model that has learned can show. So here a small
# SAM2 learns what a click or a box means, on pieces of the same photographs with
# colored shapes pasted over them. It is the same class with the same code.

steps, batch = (1000, 24) if on_gpu else (3, 4)
photographs = [functional.avg_pool2d(photograph(number), 2) for number in (0, 1)]


def piece():
    """A random square of a photograph."""
    pixels = random.choice(photographs)
    top, left = (random.randint(0, size - SMALL) for size in pixels.shape[1:])
    return pixels[:, top : top + SMALL, left : left + SMALL]


def scenes(count):
    """Pictures with three shapes on each, and what is seen of each shape."""
    pixels = torch.stack([piece() for _ in range(count)])
    masks = torch.zeros(count, 3, SMALL, SMALL, device=device, dtype=torch.bool)
    line = torch.linspace(0, 1, SMALL, device=device)
    draw = partial(torch.rand, device=device)
    for shape in range(3):
        middle, radius = draw(count, 2, 1, 1), 0.1 + 0.2 * draw(count, 2, 1, 1)
        y = (line[:, None] - middle[:, 0]) / radius[:, 0]
        x = (line - middle[:, 1]) / radius[:, 1]
        square, ellipse = x.abs().maximum(y.abs()) < 0.8, x * x + y * y < 1
        inside = torch.where(draw(count, 1, 1) < 0.5, square, ellipse)
        masks[:, :shape] &= ~inside[:, None]
        masks[:, shape] = inside
        color = 0.8 * draw(count, 3, 1, 1) + 0.2 * pixels
        pixels = torch.where(inside[:, None], color, pixels)
    return pixels, masks


# %%
# A prompt for each shape: a click on any of its pixels, or its box.


def prompts_for(masks):
    """Points and labels: half of them clicks, half of them boxes."""
    weights = masks.flatten(2).flatten(0, 1) + 1e-9
    place = torch.multinomial(weights, 1).view(masks.shape[:2])
    click = torch.stack([place % SMALL, place // SMALL], dim=-1)
    sides = [masks.any(dim=2).int(), masks.any(dim=3).int()]
    first = torch.stack([each.argmax(-1) for each in sides], dim=-1)
    last = torch.stack([each.flip(-1).argmax(-1) for each in sides], dim=-1)
    boxes = torch.stack([first, SMALL - 1 - last], dim=-2)
    clicks = torch.stack([click, torch.zeros_like(click)], dim=-2)
    boxed = torch.rand(masks.shape[:2], device=device) < 0.5
    points = torch.where(boxed[..., None, None], boxes, clicks).float()
    return points, CLICK_OR_BOX[boxed.int()]


# %%
# The loss is a pixel's error plus what is missing from the overlap. Only the first of
# the three masks learns.

# Output varies: training is not the same on every device.


@torch.enable_grad()
def learned(model, rate=1e-3):
    pixel = functional.binary_cross_entropy_with_logits
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    schedule = one_cycle(optimizer, rate, steps, pct_start=0.1)
    for _ in range(steps):
        pixels, masks = scenes(batch)
        answer = model(normalized(pixels), *prompts_for(masks)).pred_masks[:, :, 0]
        seen = masks.sum(dim=(2, 3)) > 30  # not a shape that others cover
        target = interpolate(masks.float(), size=answer.shape[-2:], mode="area")[seen]
        guess = answer[seen].sigmoid()
        both = (guess * target).sum((1, 2)) / (guess + target).sum((1, 2))
        loss = pixel(answer[seen], target) + 1 - 2 * both.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


start = time.perf_counter()
learner = learned(beginner())
note(training_s=f"{time.perf_counter() - start:.0f}")

# %%
# :recorded:`training_s` s later, three prompts on each of some new scenes. The engines
# take one picture a call, and all of its prompts at once.

# Output varies: digits depend on the device.
pixels, truth = scenes(16 if on_gpu else 2)
points, labels = prompts_for(truth)
small_encoder, small_decoder = halves(copy.deepcopy(learner).to(dtype))
small_image = (normalized(pixels[:1]).to(dtype),)
small_request = (points[:1], labels[:1], *small_encoder(*small_image))
engines = ahead(small_encoder, small_image), ahead(small_decoder, small_request)


def found_masks(encode, decode):
    """The first mask of each prompt on each scene, at the scene's resolution."""
    found = []
    for image, *prompt in zip(pixels.split(1), points.split(1), labels.split(1)):
        logits = decode(*prompt, *encode(normalized(image).to(dtype)))[0][:, :, 0]
        found.append(interpolate(logits.float(), size=(SMALL, SMALL), mode="bilinear"))
    return torch.cat(found)


visible = (truth.sum(dim=(2, 3)) > 30).nonzero().tolist()


def mean_overlap(first, second):
    each = [overlap(first[n, shape], second[n, shape]) for n, shape in visible]
    return f"{sum(each) / len(each):.3f}"


ours, theirs = found_masks(*engines), found_masks(small_encoder, small_decoder)
note(
    small_iou_eager=mean_overlap(ours, theirs),
    small_iou_truth=mean_overlap(ours, truth),
)
note(eager_iou_truth=mean_overlap(theirs, truth))
note(small_iou_control=mean_overlap(ours, theirs.roll(1, dims=1)))

# %%
# TensorRT's masks overlap the true shapes by :recorded:`small_iou_truth` on average,
# eager's by :recorded:`eager_iou_truth`: what is missing is the small model's, not the
# engines'. They agree with each other by :recorded:`small_iou_eager`, both in the same
# precision. The control is the mask of another shape of the same scene:
# :recorded:`small_iou_control`.
#
# First row: one prompt on each of three scenes, a click as a dot, a box as two. Yellow
# is what both say, red what only TensorRT says, green what only eager says. Second row:
# the large model, the first mask of one click on each photograph.

# Output varies: digits depend on the device.
# Figure: Masks of pasted shapes, and of the large model on the photographs: nearly all
#   of them yellow. TensorRT and eager overlap by :recorded:`small_iou_eager` on average
#   and by :recorded:`iou_large` or more; TensorRT and the true shapes by
#   :recorded:`small_iou_truth`. Random weights make the second row a pattern of dots.
figure, axes = plt.subplots(2, 3, figsize=(5.4, 3.6), layout="constrained")


def paint(axis, picture, mine, other, points, label):
    """A picture, both masks over it, and the prompt."""
    mine, other = mine.cpu() > 0, other.cpu() > 0
    tint = torch.stack([mine, other, torch.zeros_like(mine)], dim=-1).float()
    grey = (15 * picture.mean(0).cpu()).round()[..., None] / 15  # for a small file
    axis.imshow(0.6 * grey + 0.4 * tint, interpolation="nearest")
    axis.plot(*points[: 1 + (label == 2)].T.cpu(), "o", color="w", mec="k")
    axis.axis("off")


for number, axis in enumerate(axes[0]):
    scene, shape = visible[number * len(visible) // 3]
    mine, other = ours[scene, shape], theirs[scene, shape]
    place, label = points[scene, shape], labels[scene, shape, 0]
    paint(axis, pixels[scene], mine, other, place, label)
resized, overlaps = partial(interpolate, size=(SMALL, SMALL)), []
for number, axis in enumerate(axes[1][:2]):
    given = encoder_input(number)
    mine = fast_decoder(*one_prompt, *fast_encoder(*given))[0]
    other = decoder(*one_prompt, *encoder(*given))[0]
    overlaps.append(overlap(mine, other))
    mine, other = (resized(each[:, 0].float())[0, 0] for each in (mine, other))
    picture = resized(photograph(number)[None], mode="area")[0]
    paint(axis, picture, mine, other, one_prompt[0][0, 0] * SMALL / side, 1)
axes[1][2].axis("off")
plt.show()
note(iou_large=f"{min(overlaps):.3f}")

# %%
# With pretrained weights the colored areas in the photographs are meant as objects.
# With random ones they show no more than that both sides draw the same: the three masks
# of a click, taken together, overlap by :recorded:`iou_large` or more.
#
# When it goes wrong
# ------------------
#
# Each error is brought about on purpose.
#
# **torch.compile of the encoder.** The shorter way, ``backend="tensorrt"``, fails on
# Hiera, here on the small one:

# Output varies: the message depends on the version.
torch.compiler.reset()
options = {"min_block_size": 1, "pass_through_build_failures": True}
easy = torch.compile(
    small_encoder, backend="tensorrt", fullgraph=True, dynamic=False, options=options
)
try:
    print("no error", tuple(easy(*small_image)[0].shape))
except Exception as error:
    print(type(error).__name__, textwrap.shorten(str(error), 300))

# %%
# The tensor of six dimensions in the message is Hiera's: tokens in windows, permuted,
# then made ``contiguous`` and seen as one row of windows. Its strides are still those
# of the permuted tensor: the copy is gone, and the ``view`` is left. Torch-TensorRT
# 2.14 takes each ``contiguous`` out of the graph before it is traced, in a pass named
# ``fold_get_attr_item_calls``. The export path of this page takes the same model as it
# is, so it is the way to go.
#
# **The prompt encoder does not convert** (`issue 3124
# <https://github.com/pytorch/TensorRT/issues/3124>`_). It depends on how the labels
# are applied. Meta's own code selects points by a mask of booleans, ``code[labels ==
# 1]``, and how many there are depends on the data. transformers writes ``torch.where``.
# A dry run tells what would become of the first kind, without a build:


class ByIndex(Part):
    def forward(self, points, labels):
        code = self.model.shared_embedding(points + 0.5, (SMALL, SMALL))
        code[labels == -1] = self.model.not_a_point_embed.weight[0]
        for label, weight in enumerate(self.model.point_embed.weight):
            code[labels == label] += weight
        return code


# %%
# The report names the engines and what is left to PyTorch:

# Output varies: the report depends on the version.
told = io.StringIO()
with contextlib.redirect_stdout(told):
    ahead(ByIndex(small_encoder.model.prompt_encoder), small_request[:2], dryrun=True)
left = set(re.findall(r"Node: torch\.ops\.([\w.]+)", told.getvalue()))
note(index_engines=told.getvalue().count("TRT Engine #"))
note(index_left=", ".join(sorted(left)) or "nothing")

# %%
# With boolean indices the prompt encoder falls into :recorded:`index_engines` engines,
# and PyTorch keeps :recorded:`index_left`. With ``where`` it is part of the decoder's
# one engine, as the start of this page has shown. So rewrite ``x[mask] = y`` as
# ``torch.where(mask[..., None], y, x)``.
#
# **Another number of prompts.** An engine is made for one shape. Build one for each
# number that you need, or fill up: ask twice for the same, and throw a mask away.
# :doc:`dynamic_shapes_example` weighs that against an engine for a range.
#
# **Detectors with non-maximum suppression.** Torch-TensorRT 2.14 has no converter for
# NMS. :doc:`repairing_fallback_example` compiles a detector around it.
#
# Take it to production
# ---------------------
#
# Save both engines, here the small model's. A fresh process needs PyTorch and
# Torch-TensorRT of the same versions and the same kind of GPU, but neither transformers
# nor the weights. Load only files that you trust: they are unpickled.

# Needs a GPU: the fresh process runs the engines.
# Output varies: it is measured.
folder = Path(tempfile.mkdtemp())
save = torch_tensorrt.save
save(engines[0], str(folder / "encoder.ep"), arg_inputs=[*small_image])
save(engines[1], str(folder / "decoder.ep"), arg_inputs=[*small_request])
torch.save([small_image[0], small_request[:2], theirs[:1] > 0], folder / "request.pt")
(folder / "serve.py").write_text("""
import time, torch, torch_tensorrt
start = time.perf_counter()
encode = torch_tensorrt.load("encoder.ep").module()
decode = torch_tensorrt.load("decoder.ep").module()
image, prompt, right = torch.load("request.pt")
logits = decode(*prompt, *encode(image))[0][:, :, 0].float()
masks = torch.nn.functional.interpolate(logits, right.shape[-2:], mode="bilinear") > 0
print(f"{time.perf_counter() - start:.1f} s until the first answer")
for name, other in {"the same prompt": right, "another": right.roll(1, 1)}.items():
    overlap = (masks & other).sum() / (masks | other).sum()
    print(f"overlap with eager's mask of {name}: {overlap.item():.3f}")
""")
serve = [sys.executable, "serve.py"]
done = subprocess.run(serve, cwd=folder, capture_output=True, text=True)
print(done.stdout if done.returncode == 0 else done.stderr[-1000:])

# %%
# The seconds are those of loading and the first call, without the imports.
#
# In a server, keep the maps of the last pictures on the GPU, by a key of the picture.
# They are what makes the second prompt cheap. A CUDA graph reads one address, so copy a
# picture's maps there before its decoder runs.
#
# Exercise
# --------
#
# Segment everything: put a grid of ``16 x 16`` clicks on a photograph, build decoders
# for 8, 32 and 64 prompts a call, and find out which one asks all 256 in the least
# time.
#
# Takeaways
# ---------
#
# - Split the model where its work can be reused. The encoder takes
#   :recorded:`encoder_tensorrt_ms` ms in TensorRT and :recorded:`encoder_pytorch_ms` ms
#   in the best of PyTorch; one prompt :recorded:`decoder_1_tensorrt_ms` and
#   :recorded:`decoder_1_pytorch_ms` ms.
# - Give each part its fastest way. For ``20`` prompts in turn that is
#   :recorded:`clicks_gain` times as fast as PyTorch alone, for one prompt
#   :recorded:`single_gain` times. For 16 at once PyTorch alone is the fastest.
# - Attention left to PyTorch gains nothing in the encoder: it takes
#   :recorded:`attention_outside` ms in place of :recorded:`attention_tensorrt`, but
#   what surrounds it takes :recorded:`other_outside` ms in pieces, and
#   :recorded:`other_in_engine` ms in one engine.
# - A box is two points with labels 2 and 3, so one engine takes both.
# - Compare masks by overlap with a control: :recorded:`small_iou_eager` against eager,
#   :recorded:`small_iou_control` against another shape.
#
# More about it: `torch.export with Torch-TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/compilation/dynamo_export.html>`_.

# sphinx_gallery_tags = ["torch.export", "vision", "CUDA graphs", "benchmark"]
