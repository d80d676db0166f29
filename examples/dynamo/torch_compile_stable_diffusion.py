"""
Stable Diffusion 1.5, part by part
==================================

Measure text encoder, UNet and VAE decoder apart, give each the compiler that suits it,
and see how far the latents drift in half precision.

At a glance
-----------

- A picture of ``512 x 512`` in 30 steps takes :recorded:`pytorch_30_s` s with Inductor
  in CUDA graphs, the best of PyTorch alone. TensorRT's decoder in it gains nothing
  that can be told from noise: without it a picture takes :recorded:`mixed_gain_pytorch`
  times as long, :recorded:`mixed_low_pytorch` to :recorded:`mixed_high_pytorch` in the
  rounds (20th to 80th percentile).
- The UNet decides, with :recorded:`unet_share` of the picture. There TensorRT has
  :recorded:`speed_unet` of Inductor's speed, and none of the options that were tried
  helped. TensorRT for all parts takes :recorded:`tensorrt_30_s` s, eager without CUDA
  graphs :recorded:`eager_30_s` s.
- The VAE decoder is TensorRT's win: :recorded:`speed_vae_decoder` times the speed of
  Inductor, and ready in :recorded:`ready_vae_decoder_tensorrt` s against
  :recorded:`ready_vae_decoder_pytorch` s (once). The text encoder has
  :recorded:`speed_text_encoder` of Inductor's speed.
- Without CUDA graphs TensorRT is ahead of Inductor in all three parts, and far ahead
  in text encoder and UNet. (Parts alone; no picture was timed in this way.)
- After 30 steps, with random weights, the latents in float16 are off from float32 by
  :recorded:`drift_tensorrt` in TensorRT, and by :recorded:`drift_eager` in eager. A
  small model that was trained draws digits that look the same in both.

What you will learn
-------------------

- How to compile the three parts of a diffusion pipeline, and where each gains or loses.
- How to find out what it is worth to have an operator in the engine.
- How to try options on a small UNet before the whole one is built, and what it looks
  like when an engine does not start.
- How to follow the drift of half precision through the steps, and find the layer that
  overflows.
- How to keep the first call from stalling.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* diffusers transformers huggingface-hub
    pip install scikit-learn matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. ``scikit-learn`` brings the
digits on which a small model is trained. You need to know PyTorch, but not TensorRT.
Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""  # noqa: E501

# %%
# A decoder in one line
# ---------------------
#
# Stable Diffusion draws in three parts. A *text encoder* turns the prompt into vectors.
# A *UNet* starts from noise and takes a little of it away in each of 20 to 50 steps. It
# works on *latents*, pictures of ``64 x 64`` with 4 channels. The *VAE decoder* makes
# the picture of ``512 x 512`` from the last latents.
#
# The parts are diffusers' and transformers' own classes. Weights are pretrained where
# the hub can be reached. Elsewhere, as in this recording, they are random in the same
# architecture: the operations to be timed are the same, but errors and drift need not
# be. One thing is mended then: a trained UNet predicts noise, and noise spreads by 1,
# so the last layer is scaled until the answers do. On a GPU with little memory, or none
# at all, all parts are small.

import copy
import logging
import re
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial

logging.disable(logging.WARNING)  # hints for the library's own developers

import diffusers
import huggingface_hub
import torch
import torch_tensorrt
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
diffusers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.backends.cudnn.allow_tf32 = False  # float32 is the reference for drift
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
# Many CPUs have no fast float16 arithmetic.
dtype = torch.float16 if on_gpu else torch.float32
large = on_gpu and torch.cuda.get_device_properties(0).total_memory > 15e9

# %%
# The three parts with random weights:

MODEL_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"
FILES = ["*.json", "*.txt", "*/model.safetensors", "*_pytorch_model.safetensors"]
WIDTH, SIDE = (768, 64) if large else (64, 16)  # of the text's vectors, of the latents


def random_parts():
    """SD 1.5's architecture, or the same with few and narrow layers."""
    heads, depth, layers = (12, 12, 2) if large else (1, 2, 1)
    wide = (320, 640, 1280, 1280) if large else (32,) * 4
    size = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH}
    size |= {"num_attention_heads": heads, "num_hidden_layers": depth}
    text = CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", **size))
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=layers,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512) if large else (32,) * 4,
    )  # fmt: skip
    size = {"block_out_channels": wide, "cross_attention_dim": WIDTH}
    with device:  # weights are drawn on the GPU, which is quicker
        unet = diffusers.UNet2DConditionModel(SIDE, layers_per_block=layers, **size)
        noise, prompt = torch.randn(1, 4, SIDE, SIDE), torch.randn(1, 77, WIDTH)
    unet.conv_out.weight /= unet(noise, 500, prompt).sample.std()
    return text, unet, vae


# %%
# The whole model is loaded only where it fits. A network that cannot be reached is an
# ``OSError``.

# Output varies: pretrained weights need a network.
try:
    if not large:
        raise OSError("small parts for this machine")
    fetch = partial(huggingface_hub.snapshot_download, etag_timeout=3)
    folder = fetch(MODEL_ID, allow_patterns=FILES, ignore_patterns="safety_checker/*")
    load = diffusers.StableDiffusionPipeline.from_pretrained
    pipeline = load(folder, torch_dtype=dtype, safety_checker=None)
    found = pipeline.text_encoder, pipeline.unet, pipeline.vae
    print(f"Weights: pretrained ({MODEL_ID})")
except OSError as error:
    found = random_parts()
    print(f"Weights: random ({error})")
text, unet, vae = (part.eval().to(device, dtype) for part in found)
del vae.encoder, vae.quant_conv  # they are for pictures that go in

# %%
# Compilers take modules with tensors in and a tensor out. So each part is called
# through a thin wrapper; the decoder is half of the VAE, behind a method. The UNet's
# batch is 2: one row with the prompt, and one without.


class Part(torch.nn.Module):
    """A module, and how to call it: tensors in, one tensor out."""

    def __init__(self, model, how):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, *inputs):
        return self.how(self.model, *inputs)


PARTS = {
    "text_encoder": Part(text, lambda model, ids: model(ids).last_hidden_state),
    "unet": Part(unet, lambda model, *inputs: model(*inputs, return_dict=False)[0]),
    "vae_decoder": Part(vae, lambda model, latents: model.decode(latents).sample),
}


def example(part):
    """Random inputs of a part."""
    if part == "text_encoder":
        return (torch.randint(0, 49407, (2, 77), device=device),)
    noise = torch.randn(2, 4, SIDE, SIDE, device=device, dtype=dtype)
    if part == "vae_decoder":
        return (noise[:1],)
    step = torch.randint(0, 1000, (), device=device).float()
    return noise, step, torch.randn(2, 77, WIDTH, device=device, dtype=dtype)


# %%
# The line that readers know is ``torch.compile`` with another backend. At the first
# call it traces the module and builds an *engine*, TensorRT's program for it. If the
# build fails, PyTorch would take over without a word; the last option makes that an
# error.

# Output varies: times.
OPTIONS = {"min_block_size": 1, "pass_through_build_failures": True}


def easy(module):
    """An engine at the first call."""
    return torch.compile(
        module, backend="tensorrt", fullgraph=True, dynamic=False, options=OPTIONS
    )


def seconds(call):
    """One call and its answer, by the clock on the wall."""
    start = time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def note(name, value):
    """A value that the text quotes."""
    print(f"{name} = {value}")


decoder, latents = PARTS["vae_decoder"], example("vae_decoder")
quick = easy(decoder)
note("first_decode_s", f"{seconds(partial(quick, *latents)):.1f}")
note("second_decode_s", f"{seconds(partial(quick, *latents)):.3f}")

# %%
# The first call took :recorded:`first_decode_s` s, the second
# :recorded:`second_decode_s` s, each once. So it works, and somebody waits. Both will
# be looked at.
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
# Is the decoder still right? *Relative error* is the size of the difference over the
# size of eager's answer. The last number shows that the check can fail: the error of
# the answer to another input.

# Output varies: digits depend on the device.
plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (7, 3.4)})
TOLERANCE = 3e-2 if dtype == torch.float16 else 1e-3
error = check(quick, decoder, example("vae_decoder"), latents, TOLERANCE, "decoder")

# %%
# What the parts cost at least
# ----------------------------
#
# A GPU is no faster than its arithmetic or its memory. ``FlopCounterMode`` adds up the
# operations of convolutions, products and attention in one call. Each weight has to be
# read once, and input and output pass once. What passes between the layers is not
# counted. The larger of the two times is the limit. For the text encoder it is too
# high: its table of tokens is counted whole, but a call reads only the rows that it
# needs.

# Needs a GPU: it measures the GPU.
# Output varies: rates.
warm_up()
tflops, gigabytes = gpu_limits(dtype)
INPUTS, floors = {part: example(part) for part in PARTS}, {}
for part, module in PARTS.items():
    with FlopCounterMode(display=False) as counter:
        answer = module(*INPUTS[part])
    moved = weight_bytes(module) + sum(x.nbytes for x in (*INPUTS[part], answer))
    arithmetic = counter.get_total_flops() / tflops / 1e9
    floors[part] = {"arithmetic_ms": arithmetic, "memory_ms": moved / gigabytes / 1e6}
limits = {part: max(floor.values()) for part, floor in floors.items()}
print(f"{tflops:.0f} TFLOP/s, {gigabytes:.0f} GB/s")
pd.DataFrame(floors).T.round(3)

# %%
# Now the ways. ``torch_tensorrt.dynamo.compile`` takes an exported module and builds
# the engine *ahead of time*. PyTorch is tuned as well: convolutions like
# ``channels_last``, a memory format in which a pixel's channels lie side by side. Eager
# is measured with and without it, and *Inductor*, the compiler behind
# ``torch.compile``, gets it too.
#
# Inductor's ``max-autotune`` is left out on this page: it tries many kernels for each
# convolution, and that takes long. (Once before on an H100, outside of this page, the
# decoder took ``7.5 ms`` with it, after ``153 s`` of compiling.) So "PyTorch's best"
# means the best of what stands in the tables, not the best that there is.


def ahead(module, inputs, **more):
    """Compile now, ahead of the first call."""
    program = torch.export.export(module, tuple(inputs), strict=False)
    options = OPTIONS | more
    return torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, **options)


def last(module):
    """A copy whose weights lie in channels_last."""
    return copy.deepcopy(module).to(memory_format=torch.channels_last)


def ways(module, inputs, **options):
    return {
        "eager": lambda: module,
        "eager, channels_last": lambda: last(module),
        "Inductor": lambda: pytorch_alone(last(module))["Inductor"](),
        "TensorRT": lambda: ahead(module, inputs, **options),
    }


# %%
# What is measured is kept for the pipeline: each way in a CUDA graph that takes new
# inputs. A graph reads and writes fixed addresses. So inputs are copied in, and the
# answer is copied out before the next call writes over it.


class Replayed:
    """A callable in a CUDA graph, for any inputs of the same shapes."""

    def __init__(self, run, inputs):
        self.run = run  # the graph needs its weights and kernels
        self.inputs = [tensor.clone() for tensor in inputs]
        self.replay = captured(lambda: run(*self.inputs))

    def __call__(self, *values):
        for mine, value in zip(self.inputs, values):
            mine.copy_(value)
        return self.replay().clone()


# %%
# And each way is measured and checked on fresh inputs. One that fails, or gives a wrong
# answer, says so and gets no row.

NAMES = {"text_encoder": "SD 1.5 text encoder", "unet": "SD 1.5 UNet"}
NAMES |= {"vae_decoder": "SD 1.5 VAE decoder", "outer": "SD 1.5 UNet, outer level"}
NAMES["norm_apart"] = "SD 1.5 VAE decoder, group norm apart"
rows, tables, built, replays, kernels = [], {}, {}, {}, {}
ms = defaultdict(lambda: float("nan"))  # in a CUDA graph, by part and way


def record(part, module, inputs, fresh, ways):
    """The table of a part; keeps what was built, its CUDA graph and its kernels."""
    shape = "x".join(map(str, inputs[0].shape))
    about = {"model": NAMES[part], "shape": shape, "tolerance": TOLERANCE}
    for way, build in ways.items():
        key = part, way

        def keep(key=key, build=build):
            built[key] = build()
            return built[key]

        try:
            made = compare({way: keep}, module, inputs, fresh, **about)
        except (AssertionError, RuntimeError) as error:
            print(f"{NAMES[part]}, {way}: no row:", " ".join(str(error).split())[:300])
            continue
        rows.extend(made)
        ms[key] = made[1]["latency_ms"]
        replays[key] = Replayed(built[key], inputs)
        kernels[key] = profiled(replays[key].replay)[0]
    mine = [row for row in rows if row["model"] == NAMES[part]]
    table = results(mine) if mine else pd.DataFrame()
    return table.assign(**floors.get(part, {})).round(3)


# %%
# Text encoder and decoder
# ------------------------
#
# Each runs once a picture. For the decoder, TensorRT behind ``torch.compile`` has rows
# of its own. ``speedup`` is over PyTorch's best in a CUDA graph: above 1 the row is
# faster.
#
# In the text encoder no position may look ahead. transformers asks for that with a flag
# where eager runs as it comes. While a compiler traces, ``torch.export`` too, or a CUDA
# graph is captured, it makes a mask instead. So all rows of the text encoder have the
# mask, TensorRT's too, except eager's without a CUDA graph. The answer is the same
# (eager's error in a CUDA graph is 0), the work is not: PyTorch's own flash attention
# takes no mask, and cuDNN's, which PyTorch prefers on this GPU, takes one but can be
# slower with it (:doc:`torch_compile_transformers_example`). Which kernel ran here is
# not listed, and what PyTorch would gain with the flag is not measured.

# Needs a GPU: it measures.
# Output varies: it is measured.
for part in ("text_encoder", "vae_decoder"):
    module, inputs, fresh = PARTS[part], INPUTS[part], example(part)
    tables[part] = record(part, module, inputs, fresh, ways(module, inputs))
quicker = {"TensorRT, torch.compile": partial(easy, decoder)}
tables[part] = record(part, decoder, inputs, fresh, quicker)
pd.concat(tables.values())[["model", "backend", "latency_ms", "speedup"]]

# %%
# PyTorch's best is Inductor in a CUDA graph, for both parts. On the text encoder
# TensorRT has :recorded:`speed_text_encoder` of its speed, on the decoder
# :recorded:`speed_vae_decoder`. ``channels_last`` makes eager's decoder slower.
# Inductor with its weights frozen, as TensorRT has them, was tried on the decoder and
# gains nothing (:doc:`torch_compile_freezing`); on text encoder and UNet it was not.
# TensorRT's errors are within what is allowed, but larger than Inductor's.
#
# What sets the ways apart on the decoder? Add up the GPU's time by kind of kernel
# (matrix products count as convolutions), and count the kernels that each way launches.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
OWN = "^(?!triton_(?:poi|per|red))"  # Inductor's own kernels name all that they fuse
KINDS = {
    "attention": f"{OWN}.*(flash|fmha|mha|sdpa|attention|softmax)",
    "convolutions": f"{OWN}.*(conv|gemm|gemv|matmul|nvjet|cutlass|cublas|cudnn)",
    "the rest": "",
}


def kind_of(kernel):
    return next(kind for kind in KINDS if re.search(KINDS[kind], kernel, re.IGNORECASE))


def by_kind(part):
    """Milliseconds of the GPU by kind of kernel, and launches: one row a way."""
    found = {}
    for way, table in ((way, kernels[p, way]) for p, way in kernels if p == part):
        sums = table.groupby(table.kernel.map(kind_of)).microseconds.sum() / 1e3
        found[way] = {**sums.round(3), "launches": table.launches.sum()}
    return pd.DataFrame(found, index=[*KINDS, "launches"]).T.fillna(0)


kinds = by_kind("vae_decoder")
for way in ("eager", "Inductor", "TensorRT"):
    note(f"launches_{way}", f"{kinds.launches[way]:.0f}")
    note(f"rest_{way}", kinds["the rest"][way])
kinds

# %%
# :recorded:`launches_TensorRT` launches in TensorRT, :recorded:`launches_Inductor` in
# Inductor, :recorded:`launches_eager` in eager. What is neither convolution nor
# attention takes :recorded:`rest_TensorRT`, :recorded:`rest_Inductor` and
# :recorded:`rest_eager` ms. TensorRT's whole lead over Inductor lies there: its
# convolutions are not faster. The kinds are read from the kernels' names, and no name
# of TensorRT's tells of attention, so that is hidden in its other two columns.
# ``channels_last`` makes eager's convolutions faster, and the rest slower by more.
# Behind ``torch.compile`` TensorRT launches more and spends more on the rest; why is
# not shown.
#
# In this decoder the rest is *group norm*, with the activation and the additions around
# it, and the enlarging of pictures. Group norm stands before most convolutions. It
# reads the whole feature map for mean and variance, and once more to apply them. Then
# the activation reads and writes the map again, unless one kernel does both.
# TensorRT's slowest kernels:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
slowest = kernels["vae_decoder", "TensorRT"].head(8)
slowest.assign(kernel=slowest.kernel.str.slice(0, 60)).round(0)

# %%
# Most are convolutions. The others have ``SiluGnor`` in their names, which we read as
# SiLU, the activation, and group norm, fused. What is it worth to have group norm in
# the engine? Take it out: the same decoder, with that one operator left in PyTorch,
# still in a CUDA graph.

# Needs a GPU: it measures.
# Output varies: it is measured.
NORM = "torch.ops.aten.native_group_norm.default"
apart = partial(ahead, decoder, inputs, torch_executed_ops={NORM})
record("norm_apart", decoder, inputs, fresh, {"TensorRT": apart})
ratio = ms["norm_apart", "TensorRT"] / ms["vae_decoder", "TensorRT"]
note("norm_apart", f"{ratio:.2f}")
note("launches_norm_apart", f"{by_kind('norm_apart').launches.sum():.0f}")

# %%
# With group norm in PyTorch there are :recorded:`launches_norm_apart` launches, and a
# call takes :recorded:`norm_apart` times as long. Two prices are in that factor, and
# are not told apart: PyTorch's own kernels for group norm, and the seams, for TensorRT
# fuses nothing across the border of an engine. The factor does not explain the lead
# over Inductor, whose rest is far shorter than eager's. There the table shows only that
# TensorRT gets by with fewer launches. TensorRT's error stays the same without group
# norm in the engine, so that is not what makes it larger than Inductor's; what does was
# not found out.
#
# The UNet: a small one first
# ---------------------------
#
# Each experiment on the whole UNet costs a build of the whole. So they are made on a
# small one: the outermost level alone, at the full ``64 x 64``, where a row of
# attention has 4096 positions. Classes and sizes are those of the whole, weights are
# random.
#
# - *Attention in PyTorch*: ``torch_executed_ops`` leaves that operator there.
# - *Sums in float32*: ``use_fp32_acc=True`` has matrix products of float16 (not
#   convolutions) summed in float32. Without it the choice is TensorRT's.
# - *channels_last*: weights and latents in that format.
# - *Batch 1*: the two rows of guidance as two calls.


ATTENTION = "torch.ops.aten.scaled_dot_product_attention.default"
TRIES = {  # how the inputs are, and options
    "plain": ({}, {}),
    "channels_last": ({"memory_format": torch.channels_last}, {}),
    "batch_1": ({"batch": 1}, {}),
    "attention": ({}, {"torch_executed_ops": {ATTENTION}}),
    "float32_sums": ({}, {"use_fp32_acc": True}),
}


def unet_inputs(batch=2, memory_format=torch.contiguous_format):
    """Random inputs of a UNet, with so many rows."""
    noise, step, prompt = example("unet")
    return noise[:batch].to(memory_format=memory_format), step, prompt[:batch]


outer = {"block_out_channels": unet.config.block_out_channels[:1]}
outer |= {"down_block_types": ["CrossAttnDownBlock2D"], "mid_block_type": None}
outer |= {"up_block_types": ["CrossAttnUpBlock2D"]}
outer = diffusers.UNet2DConditionModel.from_config(unet.config, **outer)
outer = Part(outer.eval().to(device, dtype), PARTS["unet"].how)
outer.model.conv_out.weight /= outer(*unet_inputs()).std()

# %%
# The small UNet in each variant, its speed over that of TensorRT as it comes (above 1:
# faster), and the GPU's time by kind of kernel. Inductor stands beside them. The time
# of *batch 1* counts twice in its speed, for two calls, and once in the table.

# Needs a GPU: it measures.
# Output varies: it is measured.
part, gains = "outer", {}
for name, (given, options) in TRIES.items():
    module = last(outer) if name == "channels_last" else outer
    inputs, fresh = unet_inputs(**given), unet_inputs(**given)
    build = partial(ahead, module, inputs, **options)
    record(part, module, inputs, fresh, {f"TensorRT, {name}": build})
    both_rows_ms = ms[part, f"TensorRT, {name}"] * (2 if name == "batch_1" else 1)
    gains[name] = ms[part, "TensorRT, plain"] / both_rows_ms
    note(f"gain_{name}", f"{gains[name]:.2f}")
record(part, module, inputs, fresh, {"Inductor": ways(module, inputs)["Inductor"]})
note("gain_Inductor", f"{ms[part, 'TensorRT, plain'] / ms[part, 'Inductor']:.2f}")
gained = [name for name in ("attention", "float32_sums") if gains[name] >= 1.03]
tuned = max(gained, key=gains.get, default="plain")
note("tuned_unet", tuned)
by_kind(part)

# %%
# Nothing helped. A gain counts from ``3 %`` on, for less may be noise.
#
# - ``channels_last``: :recorded:`gain_channels_last` times the speed of TensorRT as it
#   comes. The kinds of kernels take what they took before.
# - Sums in float32: :recorded:`gain_float32_sums`, and the error is no smaller. So what
#   TensorRT sums in is neither the cause of its loss nor of its error, as far as this
#   option reaches.
# - Two calls of one row: :recorded:`gain_batch_1`. Two times *batch 1* in the table is
#   more than *plain*, above all in the rest, which goes down little with the rows.
# - Attention in PyTorch: no row (``nan``). An engine was built, but did not start.
#   *When it goes wrong* comes back to the message.
#
# Inductor has :recorded:`gain_Inductor` times the speed of TensorRT, though it launches
# more. Its attention is faster, and so are its convolutions and products. So attention
# in PyTorch, had it run, could have closed only a part of the gap.
#
# The whole UNet is built as it comes, then (:recorded:`tuned_unet`).
#
# The whole UNet
# --------------

# Needs a GPU: it measures.
# Output varies: it is measured.
part, module, inputs = "unet", PARTS["unet"], INPUTS["unet"]
fresh, candidates = example(part), ways(module, inputs, **TRIES[tuned][1])
tables[part] = record(part, module, inputs, fresh, candidates)
if (part, "TensorRT") not in ms:  # refused: as it comes, then
    plain = {"TensorRT": partial(ahead, module, inputs)}
    tables[part] = record(part, module, inputs, fresh, plain)
kinds = by_kind(part)
for kind in ("attention", "convolutions"):
    for way in ("Inductor", "TensorRT"):
        note(f"unet_{kind}_{way}", kinds[kind][way])
kinds

# %%
# As on the small UNet, TensorRT loses though it launches fewer kernels: attention takes
# it :recorded:`unet_attention_TensorRT` ms and Inductor
# :recorded:`unet_attention_Inductor` ms, convolutions and products
# :recorded:`unet_convolutions_TensorRT` and :recorded:`unet_convolutions_Inductor` ms.
# In the rest it loses as well, where on the small one the two were about equal.
# Why these kernels are slower is not shown. TensorRT-RTX is not made for this GPU; on
# an RTX GPU the outcome may be another.
#
# Here is all in one table. The memory of an engine behind ``torch.compile`` is out of
# sight (``NaN``).

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
table = pd.concat([tables[part] for part in PARTS], ignore_index=True)
fastest, alone, tensorrt = {}, {}, dict.fromkeys(PARTS, "TensorRT")
for part in PARTS:
    # The same engine behind torch.compile is gone: the compiler was reset since.
    mine = pd.Series(ms)[part].drop("TensorRT, torch.compile", errors="ignore")
    fastest[part] = mine.idxmin()
    alone[part] = mine[~mine.index.str.startswith("TensorRT")].idxmin()
    note(f"fastest_{part}", fastest[part])
    note(f"speed_{part}", f"{mine[alone[part]] / mine['TensorRT']:.2f}")
    for name, way in {"tensorrt": "TensorRT", "pytorch": alone[part]}.items():
        row = table[(table.model == NAMES[part]) & (table.backend == way)]
        note(f"ready_{part}_{name}", f"{(row.compile_s + row.first_call_s).sum():.0f}")
        note(f"reached_{part}_{name}", f"{limits[part] / mine[way]:.0%}")
table

# %%
# The fastest ways: :recorded:`fastest_text_encoder` for the text encoder,
# :recorded:`fastest_unet` for the UNet, :recorded:`fastest_vae_decoder` for the
# decoder, each in a CUDA graph.
#
# Look at the rows without one, too. There TensorRT is ahead of Inductor in all three
# parts, and far ahead in the text encoder and the UNet. Inductor's kernels are the same
# with a graph and without, but without it the host launches them one by one, and the
# GPU waits. TensorRT's UNet is hardly slower without a graph. So where a CUDA graph
# cannot be used, TensorRT is the choice; how far ahead it is depends on how fast and
# how busy the host is. Where a graph can be used, PyTorch has it as well.
#
# The figure shows how much of the limit is reached. It is not a strict one: Inductor's
# convolutions alone take less time than the limit of the whole decoder; why is not
# shown. And the text encoder reaches less of it than is shown, for its limit is too
# high (see above).

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: On the decoder TensorRT reaches
#   :recorded:`reached_vae_decoder_tensorrt` of the limit and the best of PyTorch
#   :recorded:`reached_vae_decoder_pytorch`, on the UNet
#   :recorded:`reached_unet_tensorrt` and :recorded:`reached_unet_pytorch`, on the text
#   encoder :recorded:`reached_text_encoder_tensorrt` and
#   :recorded:`reached_text_encoder_pytorch`.
reached = {"best of PyTorch alone": alone, "TensorRT": tensorrt}
for name, way in reached.items():
    reached[name] = {NAMES[part]: limits[part] / ms[part, way[part]] for part in PARTS}
pd.DataFrame(reached).plot.bar(rot=0, ylim=(0, 1), ylabel="fraction of the limit")
plt.show()

# %%
# Seconds until ready, taken once, against latency in a CUDA graph:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: On the decoder TensorRT is faster and ready earlier, in
#   :recorded:`ready_vae_decoder_tensorrt` s; PyTorch's fastest way takes
#   :recorded:`ready_vae_decoder_pytorch` s. On the UNet PyTorch's is faster and ready
#   a little later, in :recorded:`ready_unet_pytorch` s against
#   :recorded:`ready_unet_tensorrt` s. On the text encoder the two are alike. What is
#   ready at once stands at 0.1 s; the text encoder's two points of eager are one.
plot_ready(table.assign(shape=table.model.str.removeprefix("SD 1.5 ")))

# %%
# A whole picture
# ---------------
#
# The loop that a pipeline runs, written out. Two rows go through the UNet, one without
# and one with the prompt. *Guidance* goes further along their difference. DDIM, the
# scheduler, takes the predicted noise away; it adds none, so the same start gives the
# same picture, and every way can be compared with eager at every step. Steps count
# down from below 1000. They stay in float32: bfloat16 would round most of them.

schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
schedule |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
scheduler = diffusers.DDIMScheduler(**schedule)  # as SD 1.5 is used with it
GUIDANCE, STEPS = 7.5, 30 if on_gpu else 3
ids = example("text_encoder")[0]  # stands for a tokenized prompt, and for an empty one
start, other_start = torch.randn(2, 1, 4, SIDE, SIDE, device=device)


def draw(parts, start, steps):
    """A picture, and the latents after each step."""
    prompt = parts["text_encoder"](ids)
    latents, history = start.to(prompt.dtype), []
    scheduler.set_timesteps(steps)
    for step in scheduler.timesteps:
        both = torch.cat([latents, latents])
        without, noise = parts["unet"](both, step.to(device).float(), prompt).chunk(2)
        noise = without + GUIDANCE * (noise - without)
        latents = scheduler.step(noise, step, latents).prev_sample
        history.append(latents)
    return parts["vae_decoder"](latents / vae.config.scaling_factor), history


history = draw(PARTS, start, STEPS)[1]

# %%
# The mixes: eager as it comes, without CUDA graphs; and, in CUDA graphs, for each part
# the best of PyTorch alone; TensorRT for all; and for each part what is fastest. They
# are timed in turns: in each round every mix draws once, in an order that is shuffled
# anew, so that a drift of the clocks hits all alike. The table has the ratio to the
# fastest mix within a round, its percentiles over the rounds, and the median seconds.

# Needs a GPU: it measures.
# Output varies: it is measured.
mixes = {"eager": PARTS}
for name, choice in {"pytorch": alone, "tensorrt": tensorrt, "mixed": fastest}.items():
    mixes[name] = {part: replays[part, choice[part]] for part in PARTS}
took = pd.DataFrame(index=range(11), columns=[*mixes], dtype=float)
for turn in took.index:
    for name in took.sample(frac=1, axis="columns"):
        took.loc[turn, name] = seconds(partial(draw, mixes[name], start, STEPS))
ratios = took.div(took.mixed, axis="index").quantile([0.2, 0.5, 0.8])
for name in mixes:
    note(f"{name}_30_s", f"{took[name].median():.2f}")
    for told, ratio in zip(("low", "gain", "high"), ratios[name]):
        note(f"mixed_{told}_{name}", f"{ratio:.2f}")
unet_s = STEPS * ms["unet", fastest["unet"]] / 1e3
note("unet_share", f"{unet_s / took.mixed.median():.0%}")
ratios.T.assign(seconds=took.median()).round(3)

# %%
# The fastest mix is the best of PyTorch alone with TensorRT's decoder put in. It takes
# :recorded:`mixed_30_s` s, PyTorch alone :recorded:`pytorch_30_s` s. The ratio is
# :recorded:`mixed_gain_pytorch`, with :recorded:`mixed_low_pytorch` to
# :recorded:`mixed_high_pytorch` from the 20th to the 80th percentile of the rounds. 1
# lies within, so the gain cannot be told from noise. The decoder itself is faster
# beyond doubt, but what it saves by the large table is as little as that ratio says.
# TensorRT for all takes :recorded:`mixed_gain_tensorrt` times as long as the fastest
# mix (:recorded:`mixed_low_tensorrt` to :recorded:`mixed_high_tensorrt`).
#
# The UNet's share is :recorded:`unet_share`, by its latency in the table. A faster
# decoder can save no more than what is left, and with more steps less is left for it.
# To gain more, the UNet would have to be faster in TensorRT than in Inductor,
# and no try above made it so.
#
# Eager takes :recorded:`mixed_gain_eager` times as long as the fastest mix, but not for
# want of a compiler alone: a CUDA graph takes away most of its time in the UNet.
#
# How far half precision drifts
# -----------------------------
#
# Each step starts from the last one's rounding errors. Two references tell whose they
# are: eager in float32, for all that is lost, and eager in the same type, for what the
# compiler adds. bfloat16 is the other half precision: the range of float32, and fewer
# digits.

# Output varies: digits depend on the device.
exact = {part: copy.deepcopy(module).float() for part, module in PARTS.items()}
truth = draw(exact, start, STEPS)[1]
control = relative_error(draw(exact, other_start, STEPS)[1][-1], truth[-1])
note("another_start", f"{control:.2f}")

# %%
# The same start in each way:

# Needs a GPU: it measures.
# Output varies: digits depend on the GPU.
brain = {part: copy.deepcopy(module).bfloat16() for part, module in PARTS.items()}
in_turn = mixes | {"bfloat16": brain}
histories = {name: draw(parts, start, STEPS)[1] for name, parts in in_turn.items()}
half = histories["eager"]
lost = pd.DataFrame(index=pd.RangeIndex(1, STEPS + 1, name="step"))
for name, mine in histories.items():
    lost[name] = [relative_error(*pair) for pair in zip(mine, truth)]
    note(f"drift_{name}", f"{lost[name][STEPS]:.1e}")
    note(f"own_{name}", f"{relative_error(mine[-1], half[-1]):.1e}")
assert lost.mixed[STEPS] < max(control / 2, 2 * lost.eager[STEPS]), "too far"

# %%
# The drift from float32 at every step:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: After the last step the latents are off from float32 by
#   :recorded:`drift_eager` in eager float16, :recorded:`drift_tensorrt` in TensorRT,
#   and :recorded:`drift_bfloat16` in eager bfloat16. Most of it is there after the
#   first step. TensorRT's does not grow after the third, the others grow slowly.
#   PyTorch's best is hidden by the fastest mix.
shown = {"pytorch": "PyTorch's best", "tensorrt": "TensorRT", "mixed": "fastest mix"}
lost.rename(columns=shown).plot(logy=True, ylabel="relative error")
plt.show()

# %%
# At the end TensorRT is off from float32 by :recorded:`drift_tensorrt`, eager in
# float16 by :recorded:`drift_eager`, in bfloat16 by :recorded:`drift_bfloat16`. From
# eager in the same type TensorRT differs by :recorded:`own_tensorrt`: most of its error
# is its own. PyTorch's best is off from float32 by :recorded:`drift_pytorch`, a little
# less than eager. From eager it differs by :recorded:`own_pytorch`: it rounds
# otherwise, but not worse. The fastest mix is off by just as much, for its text encoder
# and its UNet are the same. Another start is off by :recorded:`another_start`. All this
# is for random weights.
#
# Which layers have to stay in float32? Those whose values float16 cannot hold: it ends
# at 65504. Hooks on the float32 copies find the largest value that leaves any layer.

# Output varies: digits depend on the device.


def largest_values(module, inputs):
    """The largest absolute value that leaves each layer, largest first."""
    found, names = {}, {layer: name for name, layer in module.named_modules()}

    def hook(layer, given, answer):
        if isinstance(answer, torch.Tensor):
            found[names[layer]] = answer.abs().max().item()

    with torch.nn.modules.module.register_module_forward_hook(hook):
        module(*inputs)
    return pd.Series(found).sort_values(ascending=False)


for part, module in exact.items():
    inputs = [x.float() if x.is_floating_point() else x for x in example(part)]
    note(f"largest_{part}", f"{largest_values(module, inputs).iloc[0]:.0f}")

# %%
# The largest values: :recorded:`largest_text_encoder` in the text encoder,
# :recorded:`largest_unet` in the UNet, :recorded:`largest_vae_decoder` in the decoder.
# All of these parts fit, but with random weights; trained ones have to be looked at
# again. *When it goes wrong* has a part that does not fit.
#
# A picture that can be judged
# ----------------------------
#
# Numbers that are close do not show that a picture is right, and random weights draw
# nothing. So here is a small diffusion model that is trained on this page: diffusers'
# UNet for ``8 x 8`` pixels, on the 1797 digits of ``scikit-learn``, told which digit to
# draw.

torch.set_grad_enabled(True)
digits = load_digits()
pixels = torch.tensor(digits.images[:, None] / 8 - 1).to(device, torch.float32)
labels = torch.tensor(digits.target, device=device)
net = diffusers.UNet2DModel(
    8, 1, 1, num_class_embeds=10, layers_per_block=1, norm_num_groups=8,
    block_out_channels=(32, 64), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
).to(device)  # fmt: skip
noising = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2")
rounds = 800 if on_gpu else 5
optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, rounds)

# %%
# Training is to add noise to digits, and to have the network say which noise it was.

for _ in range(rounds):
    chosen = torch.randint(len(pixels), (128 if on_gpu else 16,), device=device)
    noise = torch.randn_like(pixels[chosen])
    steps = torch.randint(1000, chosen.shape, device=device)
    noisy = noising.add_noise(pixels[chosen], noise, steps)
    loss = (net(noisy, steps, labels[chosen]).sample - noise).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rates.step()

# %%
# Compile it in half precision, and check it:

# Output varies: digits depend on the device.


def digit_inputs(count):
    noise = torch.randn(count, 1, 8, 8, device=device, dtype=dtype)
    step = torch.randint(0, 1000, (), device=device).float()
    return noise, step, torch.arange(count, device=device) % 10


torch.set_grad_enabled(False)
COUNT = 200 if on_gpu else 20  # pictures, the digits 0 to 9 in turn
digit_exact = Part(net.eval(), lambda model, *inputs: model(*inputs).sample)
digit_eager = copy.deepcopy(digit_exact).to(dtype)
given = digit_inputs(COUNT)
digit_engine = ahead(digit_eager, given)
error = check(digit_engine, digit_eager, digit_inputs(COUNT), given, TOLERANCE)

# %%
# Now draw digits with each way from the same noise. A classifier that was trained on
# the real ones reads them, so there is a number beside the picture.

# Output varies: digits depend on the device.
judge = SVC().fit(digits.data, digits.target)
begin = torch.randn(COUNT, 1, 8, 8, device=device)


def draw_digits(run, kind):
    """Pictures of the digits 0 to 9 in turn, and the share that reads as asked."""
    noising.set_timesteps(30 if on_gpu else 3)
    asked, pictures = given[2], begin.to(kind)
    for step in noising.timesteps:
        noise = run(pictures, step.to(device).float(), asked)
        pictures = noising.step(noise, step, pictures).prev_sample
    drawn = pictures.float().cpu()
    read = judge.predict(((drawn + 1) * 8).clamp(0, 16).flatten(1).numpy())
    return drawn, (read == asked.cpu().numpy()).mean()


runs = {"float32": digit_exact, "eager": digit_eager, "TensorRT": digit_engine}
drawn = {}
for name, run in runs.items():
    drawn[name], read = draw_digits(run, torch.float32 if name == "float32" else dtype)
    note(f"read_{name}", f"{read:.1%}")
note("pixel_apart", f"{(drawn['TensorRT'] - drawn['eager']).abs().max() * 8:.2f}")

# %%
# Side by side:

# Output varies: digits depend on the device.
# Figure: Ten digits, drawn from the same noise in float32, in eager's half precision
#   and in TensorRT's: no difference is seen. Of all of TensorRT's,
#   :recorded:`read_TensorRT` are read as asked.
figure, axes = plt.subplots(3, 10, figsize=(7, 2.6))
for (way, pictures), line in zip(drawn.items(), axes):
    for axis, shown in zip(line, pictures):
        axis.imshow(shown[0], cmap="gray", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(way)
plt.show()

# %%
# The classifier reads :recorded:`read_float32` of float32's digits as they were asked
# for, :recorded:`read_eager` of eager's in half precision, and
# :recorded:`read_TensorRT` of TensorRT's. No pixel of TensorRT's differs from eager's
# in the same type by more than :recorded:`pixel_apart`, where white is 16. So here
# TensorRT draws the same pictures. This says little of the large UNet: TensorRT's error
# in one call is much smaller on this model (see the check above).
#
# The first call, and each new shape
# ----------------------------------
#
# ``torch.compile`` builds while a request waits, and again for each new shape. A
# backend that only counts shows how often it would build for the digits: four pictures,
# then eight; and then with the first dimension marked as dynamic.

graphs = []  # one entry for each graph that the backend gets


def counting(graph, tensors):
    graphs.append(len(tensors))
    return graph


def graphs_of(calls, dynamic):
    """How many graphs `torch.compile` hands to its backend in these calls."""
    torch.compiler.reset()
    graphs.clear()
    run = torch.compile(digit_eager, backend=counting, dynamic=dynamic)
    for inputs in calls:
        run(*inputs)
    return len(graphs)


both_sizes = digit_inputs(4), digit_inputs(8)
note("graphs_static", graphs_of(both_sizes, dynamic=False))
for noisy, _, labels in both_sizes:
    torch._dynamo.mark_dynamic(noisy, 0)
    torch._dynamo.mark_dynamic(labels, 0)
note("graphs_marked", graphs_of(both_sizes, dynamic=None))

# %%
# :recorded:`graphs_static` graphs in one case, :recorded:`graphs_marked` in the other.
# (``torch._dynamo.mark_dynamic`` is documented by PyTorch, though the name of its
# module looks private, seen in 2.14.) Now ten calls, five with four pictures and five
# with eight, and what each took. In the other way, engines for both sizes are built and
# called before the first request.


def ahead_both():
    """Engines for both sizes, each called once before the first request."""
    engines = {size: ahead(digit_eager, digit_inputs(size)) for size in (4, 8)}
    for size, engine in engines.items():
        engine(*digit_inputs(size))
    return lambda noisy, *others: engines[len(noisy)](noisy, *others)


# %%
# Each way from empty caches:

# Needs a GPU: it measures.
# Output varies: it is measured.
calls = pd.DataFrame(index=pd.RangeIndex(1, 11, name="call"))
for name, build in {"easy": partial(easy, digit_eager), "ahead": ahead_both}.items():
    empty_caches()
    run = build()
    requests = [digit_inputs(4 if call <= 5 else 8) for call in calls.index]
    calls[name] = [seconds(partial(run, *inputs)) for inputs in requests]
    for call in (1, 2, 6):
        note(f"call_{call}_{name}_s", f"{calls[name][call]:.3f}")
calls.round(4)

# %%
# The same as a figure; from the sixth call on there are eight pictures:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: With torch.compile the calls 1 and 6 stall, :recorded:`call_1_easy_s` and
#   :recorded:`call_6_easy_s` s; ahead of time no call does.
shown = calls.rename(columns={"easy": "torch.compile", "ahead": "ahead of time"})
shown.plot(style=["o", "s"], logy=True, xticks=calls.index, ylabel="seconds")
plt.show()

# %%
# With ``torch.compile``, call 1 took :recorded:`call_1_easy_s` s and call 6, the first
# with another shape, :recorded:`call_6_easy_s` s; call 2 took
# :recorded:`call_2_easy_s` s. Ahead of time, call 1 took :recorded:`call_1_ahead_s` s
# and call 6 :recorded:`call_6_ahead_s` s; the builds come before, and are not in these
# times. The call before the first request matters: TensorRT-RTX makes its kernels when
# an engine first runs (``first_call_s`` in the large table). The calls that build
# nothing take longer behind ``torch.compile``, too, with four pictures as with eight:
# at call 2 :recorded:`call_2_easy_s` s, ahead of time :recorded:`call_2_ahead_s` s. Why
# is not shown.
#
# When it goes wrong
# ------------------
#
# **A black picture.** Values beyond 65504 are infinite in float16, group norm makes NaN
# of them, and NaN is shown as black. The decoder of a larger Stable Diffusion (XL) is
# known for it. Here one is made: its first convolution has weights so large that layers
# after it go beyond.

# Output varies: digits depend on the device.
loud = copy.deepcopy(exact["vae_decoder"])
loud.model.decoder.conv_in.weight *= 2**16
inputs = [tensor.float() for tensor in example("vae_decoder")]
sizes = largest_values(loud, inputs)
note("layers_beyond", f"{(sizes > 65504).sum()} of {len(sizes)}")
answer = copy.deepcopy(loud).bfloat16()(*[tensor.bfloat16() for tensor in inputs])
note("loud_bfloat16", f"{relative_error(answer, loud(*inputs)):.1e}")
sizes.head(3)

# %%
# :recorded:`layers_beyond` layers exceed it, the largest of them in the list. They are
# the ones that would have to stay in float32. Where they are many, bfloat16 is the way:
# an error of :recorded:`loud_bfloat16` in eager here, and no NaN. A few can be cast in
# the model's own code, for TensorRT keeps the types that it finds; that is not tried
# here.

# Needs a GPU: float16 is slow on a CPU.
# Output varies: digits depend on the GPU.
answer = copy.deepcopy(loud).half()(*[tensor.half() for tensor in inputs])
note("loud_float16_nan", f"{answer.isnan().float().mean():.0%}")

# %%
# In eager float16 :recorded:`loud_float16_nan` of the pixels are NaN.
#
# **The step as a number.** With ``dynamic=False``, as on this page, a Python number is
# not an input of the graph but part of it. So each step of a picture is another graph,
# and would be another build:


noisy, _, asked = digit_inputs(10)
calls_by_number = [(noisy, step, asked) for step in (900, 600, 300)]
note("graphs_by_number", graphs_of(calls_by_number, dynamic=False))

# %%
# :recorded:`graphs_by_number` graphs for three steps. Pass the step as a tensor, as the
# schedulers do.
#
# **An engine that does not start.** With attention left in PyTorch, the small UNet
# above stopped with ``Compatible cubin or ptx module for device target '90' not
# found``, and Torch-TensorRT then said ``Unable to (re)create TensorRT execution
# context``. An engine had been built; it was its start that failed. Target 90 is the
# H100's compute capability, 9.0, and TensorRT-RTX is not made for this GPU. Whether
# that is the cause was not found out: other engines of this page do start on it. What
# can be tried is another cut: with attention left to TensorRT, the same small UNet
# started, and so did the whole one. That an engine was built is no proof: run it once
# where it will serve.
#
# Take it to production
# ---------------------
#
# Engines go into diffusers' own pipeline by way of the two methods that it calls. A
# shallow copy of the part keeps its configuration, and the original as it was.

# Output varies: digits depend on the device.


def pipeline_latents(parts):
    """The last latents of diffusers' pipeline with these parts in it."""

    def forward(latents, step, encoder_hidden_states, **unused):
        return (parts["unet"](latents, step.float(), encoder_hidden_states),)

    def decode(latents, **unused):
        return (parts["vae_decoder"](latents),)

    mine, coder = copy.copy(unet), copy.copy(vae)
    mine.forward, coder.decode = forward, decode
    make = partial(diffusers.StableDiffusionPipeline, requires_safety_checker=False)
    pipeline = make(coder, text, None, mine, scheduler, None, None)
    pipeline.set_progress_bar_config(disable=True)
    empty, prompt = parts["text_encoder"](ids)[:, None]
    given = {"prompt_embeds": prompt, "negative_prompt_embeds": empty}
    given |= {"latents": start.to(dtype), "num_inference_steps": STEPS}
    return pipeline(**given, guidance_scale=GUIDANCE, output_type="latent").images


difference = relative_error(pipeline_latents(PARTS), history[-1])
print(f"diffusers' pipeline against the loop above, in eager: {difference:.1e}")
assert difference < control / 10

# %%
# The pipeline and the loop of this page agree. With TensorRT's parts in it:

# Needs a GPU: the engines run.
# Output varies: digits depend on the GPU.
off = relative_error(pipeline_latents(mixes["tensorrt"]), half[-1])
note("pipeline_off", f"{off:.1e}")

# %%
# The latents are off from eager's by :recorded:`pipeline_off`, as those of the loop are
# (:recorded:`own_tensorrt`).
#
# In production an engine is loaded, not built. Save the decoder, and load it in a fresh
# process. It needs PyTorch and Torch-TensorRT of the same versions and the same kind of
# GPU, but not diffusers; the weights are in the file. Load only files that you trust:
# they are unpickled.

# Needs a GPU: the fresh process runs the engine.
# Output varies: it is measured.
folder = Path(tempfile.mkdtemp())
engine, latents = built["vae_decoder", "TensorRT"], example("vae_decoder")
torch_tensorrt.save(engine, str(folder / "decoder.ep"), arg_inputs=[*latents])
torch.save((*latents, engine(*latents)), folder / "expected.pt")
(folder / "serve.py").write_text("""
import time, torch, torch_tensorrt
start = time.perf_counter()
decoder = torch_tensorrt.load("decoder.ep").module()
latents, expected = torch.load("expected.pt")
picture = decoder(latents)
torch.cuda.synchronize()
print(f"{time.perf_counter() - start:.1f}")
error = (picture.float() - expected.float()).norm() / expected.float().norm()
print(f"{error:.1e}")
""")
serve = [sys.executable, "serve.py"]
done = subprocess.run(serve, cwd=folder, capture_output=True, text=True)
print(done.stderr if done.returncode else "The fresh process has drawn.")
served = [*done.stdout.split(), "none", "none"]
note("served_after_s", served[0])
note("served_error", served[1])
note("file_mb", round((folder / "decoder.ep").stat().st_size / 1e6))

# %%
# The fresh process had its first picture :recorded:`served_after_s` s after its
# imports (once), from a file of :recorded:`file_mb` MB. To build the engine and run it
# once took :recorded:`ready_vae_decoder_tensorrt` s. From the picture of the same
# engine before it was saved it differs by :recorded:`served_error`.
#
# Exercise
# --------
#
# The vectors of the prompt are the same in all steps, and so are the keys and values
# that the UNet's cross-attention makes of them. Compute these once a picture, hand them
# to the UNet as inputs, and see what a step gains in TensorRT and in Inductor.
#
# Takeaways
# ---------
#
# - Choose the compiler part by part. In a CUDA graph the decoder in TensorRT has
#   :recorded:`speed_vae_decoder` times the speed of PyTorch's best, the UNet
#   :recorded:`speed_unet`. Without a graph TensorRT is ahead in all parts.
# - The part that takes the time decides. The UNet's share of a picture is
#   :recorded:`unet_share`, so TensorRT's decoder gains nothing there that can be told
#   from noise (:recorded:`mixed_low_pytorch` to :recorded:`mixed_high_pytorch`).
#   TensorRT for all takes :recorded:`mixed_gain_tensorrt` times as long as the fastest
#   mix.
# - Leave no operator out of the engine unmeasured. With its group norm left in PyTorch
#   the decoder takes :recorded:`norm_apart` times as long.
# - Try options on a small UNet first. Here none helped, and Inductor's lead,
#   :recorded:`gain_Inductor`, told beforehand what the whole UNet would be like. An
#   option may also yield an engine that does not start.
# - Compare drift with float32 and with eager in the same type. Here most of it is
#   TensorRT's own: :recorded:`drift_tensorrt` in TensorRT, :recorded:`drift_eager` in
#   eager, :recorded:`drift_bfloat16` in eager bfloat16.
# - Build ahead of time: ``torch.compile`` with TensorRT stalls for
#   :recorded:`call_1_easy_s` s at the first call and for :recorded:`call_6_easy_s` s at
#   the next shape, on the small model of the digits (once).
#
# More about the backend: `torch.compile with TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/compilation/torch_compile.html>`_.

# sphinx_gallery_tags = ["torch.compile", "vision", "diffusion", "benchmark"]
