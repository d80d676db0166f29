"""
FLUX.1-dev, the whole transformer
=================================

Run FLUX.1-dev's transformer of 12 billion weights with TensorRT: what each measure
gains, what a build takes in memory, and how long a picture takes.

At a glance
-----------

- On this H100 PyTorch alone is faster. TensorRT here is TensorRT-RTX, which does not
  list this GPU; TensorRT for data centers was not measured. A step of the whole
  transformer at 1024 x 1024 takes Inductor :recorded:`whole_inductor_ms` ms, TensorRT
  :recorded:`whole_tensorrt_ms` and eager :recorded:`whole_eager_ms`, each in a CUDA
  graph. TensorRT has :recorded:`speed_whole` times the speed of the best that PyTorch
  does alone. The 28 steps of a picture, without text encoders and decoder, take
  :recorded:`picture_inductor_s`, :recorded:`picture_tensorrt_s` and
  :recorded:`picture_eager_s` s.
- TensorRT cannot win here without faster matrix products. On three blocks they reach
  :recorded:`products_tensorrt_reached` of the rate of one large product, Inductor's
  :recorded:`products_inductor_reached`. It is ahead in none of products, attention and
  the rest, so a mixture of these groups gains nothing either.
- One measure helped TensorRT: attention left in PyTorch took
  :recorded:`gain_in_pytorch` off a step of three blocks. Nothing else took off the
  ``2 %`` that it had to: no transpositions, positions computed once, one product for
  query, key and value, transposed matrices, float16. FP8 lost.
- Two engines with weights as inputs serve all blocks. They were ready in
  :recorded:`ready_tensorrt_s` s and left the host's peak at
  :recorded:`highest_host_gib` GiB; one engine would need :recorded:`whole_host_gib`, by
  proportion. But Inductor on repeated blocks was ready in :recorded:`ready_repeated_s`
  s and made the picture in :recorded:`picture_repeated_s` s. On the whole at once it
  needs :recorded:`ready_inductor_s` s.
- For a GeForce or RTX card, run the page there: nothing of that kind is recorded here.

What you will learn
-------------------

- How to export and compile FLUX's transformer, as one engine or as one engine for each
  kind of block.
- How to leave attention in PyTorch, with and without transpositions, and which measures
  gain nothing.
- How to tell from kernels where the time goes: matrix products, attention, the rest.
- What a build takes on the host and on the GPU, and how to build with little of both.
- How to put the compiled transformer into diffusers' ``FluxPipeline``, and how to
  measure the drift over the steps of a picture.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* diffusers==0.42.* transformers accelerate
    pip install matplotlib pandas
    pip install nvidia-modelopt==0.47.0  # only for FP8; left out without it

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, ``torch-tensorrt`` in
its place runs the same code. The page takes the whole model if more than 60 GiB of GPU
memory are free, which leaves room for a second copy of the weights; otherwise it takes
fewer blocks and says so. Without a GPU, small blocks are built. The host's memory is
read as Linux tells it. You need to know PyTorch, but not TensorRT.
"""

# %%
# A few blocks in one engine
# --------------------------
#
# FLUX makes a picture from noise in steps, and each step is one call of a transformer.
# Text encoders run once before, the VAE's decoder once after; the transformer runs
# in every step. So this page is about the transformer alone.
#
# It has 57 blocks of two kinds. 19 have two streams, one for the picture's tokens and
# one for the text's, which meet in attention. 38 have a single stream of both. Other
# parts hardly count. One block of the first kind and two of the second are a nineteenth
# of the model, in the right proportion, and compile sooner. What helps is tried there
# first.
#
# Hints that are meant for the developers of the library are switched off.

import copy
import importlib.util
import logging
import re
import resource
import textwrap
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from unittest import mock

logging.disable(logging.WARNING)

import diffusers
import torch
import torch_tensorrt
from diffusers.models.transformers import transformer_flux
from torch.utils.flop_counter import FlopCounterMode

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
dtype = torch.bfloat16 if on_gpu else torch.float32

# %%
# The weights of FLUX.1-dev are behind a license that has to be accepted. A kernel does
# the same work for other numbers, so this page fills the same architecture with random
# ones, on the GPU. A *unit* is a nineteenth of the blocks.
#
# Random weights have a trap. Each block adds its result to its input times a *gate*,
# and the gate of a random block is near zero: the model would answer nearly the same
# without its blocks, and a check could not see a wrong one. So the gates are opened.

if on_gpu:
    side, text, sizes = 64, 512, {}  # 64 x 64 patches of 16 pixels, 512 text tokens
else:
    side, text, sizes = 4, 8, {"num_attention_heads": 2, "attention_head_dim": 16}
    sizes |= {"joint_attention_dim": 32, "axes_dims_rope": (4, 6, 6)}
    print("No GPU: narrow blocks, and a picture of 64 x 64")


def note(**values):
    """Print values that the text quotes."""
    for name, value in values.items():
        print(f"{name} = {value}")


def tried(label, call):
    """What a call returns; if it fails, None, and the error is told."""
    try:
        return call()
    except Exception as error:
        print(f"{label}: {type(error).__name__}", textwrap.shorten(str(error), 250))


# %%
# The model is made in the type that it runs in, so that it needs no more memory.


class Step(torch.nn.Module):
    """A step: the transformer, with tensors in and a tensor out."""

    def __init__(self, units):
        super().__init__()
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        sizes.update(num_layers=units, num_single_layers=2 * units)
        with torch.device(device):
            model = diffusers.FluxTransformer2DModel(guidance_embeds=True, **sizes)
        torch.set_default_dtype(torch.float32)
        for name, weight in model.named_parameters():
            if re.search(r"norm(1|1_context)?\.linear\.bias", name):
                # It holds shift, scale and gate, once or twice.
                weight.unflatten(0, (-1, 3, model.inner_dim))[:, 2] += 0.25
        self.model = model.eval().requires_grad_(False)

    def forward(self, *given):
        return self.model(*given, return_dict=False)[0]


def blocks_of(step):
    return step.model.transformer_blocks, step.model.single_transformer_blocks


few = Step(1)
few_blocks = "3 of 57 blocks"
weights_gib = sum(weight.nbytes for weight in few.parameters()) / 2**30
print(f"Weights: random, {few_blocks}, {weights_gib:.2f} GiB in {dtype}")

# %%
# The inputs of a step: the picture on its way from noise, with one token for each
# patch; the text in two forms; the time, from 1 to 0; the position of each token; and
# the strength of guidance.
#
# Guidance is often 3.5. The model multiplies it by 1000, and bfloat16 makes 3504 of
# 3500. Eager rounds so, while Inductor goes on with 3500, and for that alone a check
# against eager can refuse the better answer. So guidance is 4 on this page.


def example(seed, batch=1, dtype=dtype):
    """Random inputs of a step."""
    random = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=random)
    places = torch.cartesian_prod(torch.zeros(1), *2 * [torch.arange(side).float()])
    config = few.model.config
    given = [draw(batch, side**2, 64), draw(batch, text, config.joint_attention_dim)]
    given += [draw(batch, config.pooled_projection_dim), torch.full((batch,), 0.5)]
    given = [value.to(device, dtype) for value in given]
    # A guidance whose thousandfold bfloat16 holds, so that nothing rounds it.
    guidance = torch.full((batch,), 4.0, device=device, dtype=dtype)
    return (*given, places.to(device), torch.zeros(text, 3, device=device), guidance)


# %%
# A page about a large model has to watch memory. This notes where it goes: how much the
# process holds on the host and the most that it ever held, what PyTorch's tensors hold
# on the GPU, and what the driver says is in use there, which includes TensorRT's.

stages = []


def stage(name):
    """Note the memory after a stage, in GiB."""
    held = int(Path("/proc/self/statm").read_text().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {"stage": name, "host": held * resource.getpagesize() / 2**30}
    row |= {"host, peak so far": peak / 2**20}
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        row["GPU, tensors"] = torch.cuda.memory_allocated() / 2**30
        row["GPU, driver"] = (total - free) / 2**30
    stages.append(row)
    return row


# %%
# Now export, compile, call. Torch-TensorRT has TensorRT build an *engine* from the
# exported model: an optimized program, here with the weights inside.
# ``truncate_double=True`` is needed, because the model computes the angles of positions
# in float64, which TensorRT does not have. ``min_block_size=1`` makes an engine of
# every part that can be one, however small.

# Output varies: seconds.
OPTIONS = {"min_block_size": 1, "truncate_double": True}


def one_engine(module, given, **more):
    """Export and compile ahead of time: the weights become part of the engine."""
    program = torch.export.export(module, given, strict=False)
    return torch_tensorrt.dynamo.compile(program, arg_inputs=given, **OPTIONS, **more)


inputs, fresh = example(1), example(2)
few(*inputs)
one_engine(torch.nn.ReLU(), inputs[:1])  # so that loading TensorRT does not count
before = stage(f"{few_blocks} made")
start = time.perf_counter()
one = one_engine(few, inputs)
one_build_s = time.perf_counter() - start
after = stage("... in one engine")
one(*inputs)[0].sum().item()  # waits for the GPU
one_first_s = time.perf_counter() - start - one_build_s
print("Parts:", [name for name, _ in one.named_children()])
note(one_build_s=f"{one_build_s:.0f}", one_first_s=f"{one_first_s:.1f}")

# %%
# All operators are in one engine, which was built in :recorded:`one_build_s` s. The
# first call took :recorded:`one_first_s` s more, because TensorRT-RTX makes its kernels
# for the GPU then.
#
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
# Is it right?
# ------------
#
# The engine is compared with eager PyTorch on input that it has not seen. bfloat16
# keeps 2 to 3 digits, and each block rounds anew, so the tolerance grows with the
# depth. Two controls: the answer to another input, and the answer of the model without
# its blocks, which a check has to tell from the right one.

# Output varies: digits depend on the device.
TOLERANCE, DEEP_TOLERANCE = 0.03, 0.1
error = check(one, few, fresh, inputs, TOLERANCE, "one engine")


def share(step):
    """A copy of a module's structure that holds the same weights."""
    return copy.deepcopy(step, {id(weight): weight for weight in step.parameters()})


def with_units(step, units):
    """A copy with its blocks that many times, holding the same weights."""
    step = share(step)
    for kind in ("transformer_blocks", "single_transformer_blocks"):
        blocks = units * [*getattr(step.model, kind)]
        setattr(step.model, kind, torch.nn.ModuleList(blocks))
    return step


def without_blocks(step):
    """How far the answer is off if no block runs."""
    return relative_error(with_units(step, 0)(*fresh), step(*fresh))


off = without_blocks(few)
note(without_blocks=f"{off:.2f}")
assert off > 3 * TOLERANCE

# %%
# Without its blocks the model's answer is off by :recorded:`without_blocks`, more than
# is allowed.
#
# What the GPU allows
# -------------------
#
# At this size the arithmetic is the limit: every weight is used for thousands of
# tokens. The operations are counted on the ``meta`` device, where tensors have shapes
# and no data. Attention's can be told apart, because they are products of batches. The
# rate is what a large product of matrices reaches here, in this type.


def count(units):
    """Operations of a step, in 1e12: products with weights, and attention."""
    step = with_units(copy.deepcopy(few).to("meta"), units)
    with FlopCounterMode(display=False) as counter:
        step(*[value.to("meta") for value in example(1)])
    counted = counter.get_flop_counts()["Global"]
    attends = sum(n for op, n in counted.items() if "bmm" in f"{op}")
    return (counter.get_total_flops() - attends) / 1e12, attends / 1e12


whole_products, whole_attends = count(19)
note(products_19=f"{whole_products:.3g}", attention_19=f"{whole_attends:.3g}")

# %%
# So a step of the whole model takes :recorded:`products_19` times 10\ :sup:`12`
# operations in products and :recorded:`attention_19` in attention.

# Needs a GPU: it measures what the GPU sustains.
# Output varies: rates.
warm_up()
tflops, gigabytes = gpu_limits(dtype)


def limit_ms(units):
    return sum(count(units)) / tflops * 1e3


few_limit = limit_ms(1)
note(tflops=f"{tflops:.0f}", limit_1_ms=f"{few_limit:.2f}")
note(limit_19_ms=f"{limit_ms(19):.0f}")

# %%
# At the :recorded:`tflops` TFLOP/s of that product, the few blocks take
# :recorded:`limit_1_ms` ms, and the whole :recorded:`limit_19_ms` ms. That is the limit
# against which this page measures. Other products can be faster than this one.
#
# The first comparison
# --------------------
#
# PyTorch alone, and the engine from above. *Inductor* is the compiler behind
# ``torch.compile``. Its ``max-autotune`` is left out on this page: it tries kernels for
# minutes. Besides the time of a call there is that of its kernels, by what they do, and
# how far the answer is from that of the same weights in float32.

# Needs a GPU: the benchmark.
# Output varies: latency.
SHOWN = {"model": "FLUX.1-dev", "shape": few_blocks, "tolerance": TOLERANCE}
KINDS = {
    "attention": "flash|fmha|mha|sdpa|softmax",
    "products": "nvjet|gemm|gemv|matmul|cutlass|cublas|splitk|xmma",
    "rest": "",
}
rows, compiled, parts, answers = [], {}, {}, {}
NONE = float("nan")  # in place of what could not be measured


def kind_of(kernel):
    if kernel.startswith("triton_"):
        return "rest"  # what Inductor makes, whatever its name says
    return next(kind for kind in KINDS if re.search(KINDS[kind], kernel, re.IGNORECASE))


def parts_of(call):
    """Milliseconds of one call's kernels: attention, products, and the rest."""
    kernels = profiled(call)[0]
    found = kernels.microseconds.groupby(kernels.kernel.map(kind_of)).sum() / 1000
    return found.reindex(KINDS, fill_value=0.0)


# %%
# A way that fails says so, and has no row.

# Needs a GPU: the benchmark.


def measured(name, build, step=few, **more):
    """Add two rows for a way, a call's kernels, an answer; keep what was built."""

    def building():
        compiled[name] = build()
        return compiled[name]

    def measuring():
        rows.extend(compare({name: building}, step, inputs, fresh, **SHOWN | more))
        parts[name] = parts_of(captured(partial(compiled[name], *inputs)))
        answers[name] = compiled[name](*fresh)

    tried(name, measuring)


def graph_ms(shape=few_blocks):
    """Milliseconds of each way at a shape, in a CUDA graph; NaN where one failed."""
    found = defaultdict(lambda: NONE)
    for row in rows:
        name, _, graph = row["backend"].partition(", CUDA")
        if graph and row["shape"] == shape:
            found[name] = row["latency_ms"]
    return found


# %%
# The engine is at hand, so its rows carry the seconds of the build above.

# Needs a GPU: the benchmark.
# Output varies: latency.
for name, build in pytorch_alone(few, autotune=False).items():
    measured(name, build)
measured("TensorRT, one engine", lambda: one)
for row in rows:
    if row["backend"].startswith("TensorRT"):
        row |= {"compile_s": one_build_s, "first_call_s": one_first_s}
taken = graph_ms()
first_ms, inductor_ms = taken["TensorRT, one engine"], taken["Inductor"]
note(few_eager_ms=f"{taken['eager']:.2f}", few_inductor_ms=f"{inductor_ms:.2f}")
note(first_ms=f"{first_ms:.2f}")
exact = copy.deepcopy(few).float()(*[value.float() for value in fresh])
for name, answer in answers.items():
    off = relative_error(answer, exact)
    note(**{f"exact_{name.partition(',')[0].lower()}": f"{off:.1e}"})
pd.DataFrame(parts).T.round(2)

# %%
# Eager takes :recorded:`few_eager_ms` ms, Inductor :recorded:`few_inductor_ms`, the
# engine :recorded:`first_ms`: as it is first built, it is slower than eager too. The
# table shows where the time goes. Eager loses to Inductor in the rest alone. The engine
# loses in all three groups, most in attention. So attention is tried first: PyTorch has
# a faster kernel for it.
#
# From float32 eager is off by :recorded:`exact_eager`, Inductor by
# :recorded:`exact_inductor`, the engine by :recorded:`exact_tensorrt`. Eager rounds to
# bfloat16 after every operator, so its answer is a reference, not the truth. Inductor
# is the closest; the engine is no closer than eager.
#
# One engine for each kind of block
# ---------------------------------
#
# Another thing to try is for the build, not for speed. Blocks of a kind differ in their
# weights alone. If weights are *inputs* of an engine, one engine serves all blocks of
# its kind: two engines for 57 blocks, built from two blocks. The weights stay PyTorch's
# tensors. Other weights, such as those with a LoRA fused in, need no new build, and no
# *refit*, which swaps the weights inside an engine. The whole model below is checked in
# this form: 57 sets of weights go through two engines.
#
# ``functional_call`` runs a module with other tensors in place of its parameters. The
# block hides in a list, so that its own weights are no part of the module. ``turned``
# comes later: matrices that are stored transposed.


class WeightsGiven(torch.nn.Module):
    """A block whose weights are inputs, before what it computes with."""

    def __init__(self, block, turned):
        super().__init__()
        self.hidden, self.turned = [block], turned
        self.names = [name for name, _ in block.named_parameters()]

    def forward(self, *tensors):
        weights = dict(zip(self.names, tensors))
        if self.turned:
            weights = {n: w.t() if w.dim() == 2 else w for n, w in weights.items()}
        *given, cosines, sines = tensors[len(weights) :]
        return torch.func.functional_call(
            self.hidden[0], weights, (*given, (cosines, sines))
        )


class Served(torch.nn.Module):
    """In a block's place: its weights, for the engine of its kind."""

    def __init__(self, block, engine):
        super().__init__()
        self.block, self.engine = block, engine

    def forward(self, image_rotary_emb, joint_attention_kwargs=None, **given):
        weights = self.block.parameters()
        return self.engine(*weights, *given.values(), *image_rotary_emb)


# %%
# Everything else stays in PyTorch: the embeddings before the blocks and the projection
# after them.


def block_inputs(step, given):
    """Tensors in the shapes that a block gets: picture, text, time, rotations."""
    width = step.model.inner_dim
    streams = [states.new_ones(*states.shape[:2], width) for states in given[:2]]
    rotations = step.model.pos_embed(torch.cat((given[5], given[4])))
    return *streams, streams[0].new_ones(len(streams[0]), width), *rotations


def by_kind(step, given, turned=False, **more):
    """The step with one engine for each kind of block."""
    step, shapes = share(step), block_inputs(step, given)
    for blocks in blocks_of(step):
        template = WeightsGiven(share(blocks[0]), turned)
        for layer in blocks.modules():
            if turned and isinstance(layer, torch.nn.Linear):
                weight = layer.weight.t().contiguous()
                layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        example_inputs = *blocks[0].parameters(), *shapes
        engine = one_engine(template, example_inputs, **more)
        for index, block in enumerate(blocks):
            blocks[index] = Served(block, engine)
    return step


# %%
# For the few blocks that is:

# Output varies: seconds.
start = time.perf_counter()
kinds = by_kind(few, inputs)
note(kinds_few_s=f"{time.perf_counter() - start:.1f}")
stage("... an engine for each kind")
error = check(kinds, few, fresh, inputs, TOLERANCE, "an engine for each kind")

# %%
# Two engines without weights, built in :recorded:`kinds_few_s` s. A step takes
# :recorded:`ms_kinds` ms. In turns with the one engine that is :recorded:`gain_kinds`
# less, which is too little to tell from none: weights as inputs cost no speed here.
#
# What an expert would try
# ------------------------
#
# One measure after the other, each on top of those that helped.
#
# - *Attention in PyTorch.* ``torch_executed_ops`` names operators that stay there. A
#   block falls into two engines with PyTorch's attention between.
# - *Without transpositions.* PyTorch's attention takes heads before tokens, and what
#   the option leaves in PyTorch gets tensors that an engine has transposed. An operator
#   of our own takes tokens before heads, as the projections leave them, and hands views
#   to PyTorch's kernel. Torch-TensorRT has no *converter* for it, which would translate
#   it for TensorRT, so it stays in PyTorch.
# - *Matrices stored transposed.* A linear layer stores a matrix by its outputs, a
#   product reads it by its inputs.
# - *Positions computed once.* The rotations are the same in all steps of a picture.
# - *One product* for query, key and value in place of three. diffusers has it as
#   ``fuse_qkv_projections``.
# - *float16* in place of bfloat16. It is measured and not kept: by an open report,
#   pictures `came out wrong <https://github.com/pytorch/TensorRT/issues/3651>`_ in it.
#
# ``decompose_attention`` and ``optimization_level`` were tried outside of this page,
# and gained nothing.


@torch.library.custom_op("flux_page::attend", mutates_args=())
def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's attention for tensors of [batch, tokens, heads, features]."""
    heads_first = (tensor.transpose(1, 2) for tensor in (q, k, v))
    answer = torch.nn.functional.scaled_dot_product_attention(*heads_first)
    return answer.transpose(1, 2).contiguous()  # mostly no copy: the kernel's layout


@attend.register_fake
def _(q, k, v):
    return q.new_empty(q.shape)


# %%
# diffusers' blocks call a function ``dispatch_attention_fn`` for attention. While the
# model is exported, another one takes its place.


def in_our_layout(q, k, v, **options):
    return attend(q, k, v)


# %%
# All changes of the model stand in one function. It makes a copy that holds the same
# weights as far as they stay.

SDPA = {"torch.ops.aten.scaled_dot_product_attention.default"}
MEASURES = {
    "in_pytorch": "attention in PyTorch",
    "tokens_first": "... without transpositions",
    "turned": "matrices stored transposed",
    "positions": "positions computed once",
    "fused": "q, k, v in one product",
    "float16": "float16 (never kept)",
}
THREE = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")


def changed(step, measures, given):
    """A copy of the module with some of the measures."""
    step = copy.deepcopy(step).half() if "float16" in measures else share(step)
    if "positions" in measures:
        rotations = block_inputs(step, given)[-2:]
        step.model.pos_embed.forward = lambda ids: rotations
    if "fused" in measures:
        step.model.fuse_qkv_projections()
        double, single = blocks_of(step)
        for block in [*double, *single]:
            for name in {*dict(block.attn.named_children())}.intersection(THREE):
                delattr(block.attn, name)  # replaced
    return step.requires_grad_(False)


# %%
# And so does all that Torch-TensorRT is asked for.


def built(step, measures, given=inputs, together=False):
    """An engine for each kind of block, or one together, with these measures."""
    step = changed(step, measures, given)
    more = {"torch_executed_ops": SDPA if "in_pytorch" in measures else set()}
    theirs = transformer_flux.dispatch_attention_fn
    ours = in_our_layout if "tokens_first" in measures else theirs
    with mock.patch.object(transformer_flux, "dispatch_attention_fn", ours):
        if together:
            step = copy.deepcopy(step)  # its weights go to the host
            return one_engine(step, given, offload_module_to_cpu=True, **more)
        return by_kind(step, given, "turned" in measures, **more)


# %%
# All of them at once first, to see that the answer stays the same.

# Output varies: digits depend on the device.
all_measures = built(few, [*MEASURES][:-1])  # but float16
error = check(all_measures, few, fresh, inputs, TOLERANCE, "all measures")

# %%
# Then one by one. Times drift: those of the same engines, built and measured again some
# minutes later on an H100, differed by ``4.7 %``. So each measure is timed in turns
# with the best so far, in CUDA graphs, and kept if it takes ``2 %`` or more off. What
# TensorRT refuses, or answers wrongly, is told and not kept.


def attempt(measures, batch=1):
    """A call of a step with these measures, which is checked."""
    half = "float16" in measures
    form = {"batch": batch, "dtype": torch.float16 if half else dtype}
    given, other = example(1, **form), example(2, **form)
    run = built(few, measures, given)
    reference = changed(few, measures, given) if half else few
    check(run, reference, other, given, TOLERANCE, ", ".join(measures) or "none")
    return partial(run, *given)


def in_pairs(before, now):
    """Milliseconds of two calls' graphs, in turns, and of the second one's kernels."""
    before, now = captured(before), captured(now)
    turns = in_turns({"before": before, "ms": now}, rounds=5)
    return turns.median().to_dict() | parts_of(now).to_dict()


def waterfall():
    """Try the measures in turn; returns a table, those to keep, and their time."""
    before, best = [partial(run, *inputs) for run in (one, kinds)]
    first, keep, alive = in_pairs(before, best) | {"kept": True}, [], []
    found, least = {"an engine for each kind": first}, first["ms"]
    for name, label in MEASURES.items():
        now = tried(label, partial(attempt, [*keep, name]))
        alive.append(now)  # no engine goes while graphs of others are timed
        row = in_pairs(best, now) if now else {"before": NONE, "ms": NONE}
        helps = row["ms"] < 0.98 * row["before"] and name != "float16"
        found[label] = row | {"kept": helps}
        if helps:
            keep, best, least = [*keep, name], now, row["ms"]
    return pd.DataFrame(found).T, keep, least


# %%

# Needs a GPU: it measures.
# Output varies: latency.
waters, keep, best_ms = waterfall()
for name, row in zip(("kinds", *MEASURES), waters.itertuples()):
    note(**{f"ms_{name}": f"{row.ms:.2f}"})
    note(**{f"gain_{name}": f"{1 - row.ms / row.before:.1%}"})
kept = ", ".join(MEASURES[name].strip(". ") for name in keep) or "nothing"
note(best_ms=f"{best_ms:.2f}", kept=kept)
waters[["before", "ms", *KINDS, "kept"]]

# %%
# Kept: :recorded:`kept`. It took :recorded:`gain_in_pytorch` off and came to
# :recorded:`best_ms` ms. The others were timed in turns with it, and none reached
# ``2 %``:
#
# - Without transpositions :recorded:`gain_tokens_first`, positions computed once
#   :recorded:`gain_positions`, float16 :recorded:`gain_float16`; and one product
#   :recorded:`gain_fused`, where the minus means that it cost time. None of the four
#   can be told from nothing. From the third row on, the column *before* has the same
#   engines, timed anew for each measure, and these times lie about as far apart as
#   positions gain.
# - Matrices stored transposed :recorded:`gain_turned`, the one clear cost. The kernels
#   do not show why: they add up to less than those of the recipe that was kept.

# Needs a GPU: it draws what was measured.
# Output varies: latency.
# Figure: From :recorded:`first_ms` ms in one engine to :recorded:`best_ms` ms with all
#   that was kept. Attention in PyTorch took :recorded:`gain_in_pytorch` off; the other
#   green bar, :recorded:`gain_kinds`, is within the noise. Inductor takes
#   :recorded:`few_inductor_ms` ms, and the limit of the arithmetic is
#   :recorded:`limit_1_ms` ms.
bars = [("one engine", 0, first_ms, "C0")]
for label, row in waters.iterrows():
    color = "C2" if row.ms < row.before else "C3"
    bars.append((label, row.before, row.ms, "0.7" if row.kept is False else color))
bars.append(("all that was kept", 0, best_ms, "C0"))
figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
paper = {"color": "white", "pad": 0, "lw": 0}  # so that no line crosses a number
for height, (_, begin, end, color) in enumerate(bars):
    axis.barh(height, end - begin, left=begin, color=color)
    axis.text(max(begin, end), height, f" {end:.2f}", va="center", bbox=paper)
axis.axvline(inductor_ms, color="C1", label="Inductor")
axis.axvline(few_limit, color="black", ls=":", label="limit of the arithmetic")
axis.set_yticks(range(len(bars)), [label for label, *_ in bars])
top = 1.2 * max(first_ms, waters.ms.max())
axis.set(xlabel="ms a step; green gains, red costs, grey was dropped", xlim=(0, top))
axis.invert_yaxis()
figure.legend(loc="outside upper center", ncols=2, frameon=False)
plt.show()

# %%
# Where the time goes
# -------------------
#
# What changes the model is PyTorch's to have as well, so Inductor is given positions
# computed once and one product for query, key and value. And all that was kept for
# TensorRT is built once more as one engine, this time with
# ``offload_module_to_cpu=True``, which moves the weights to the host before the build.
# A copy is handed over, so that the model itself stays on the GPU.

# Needs a GPU: it measures.
# Output varies: latency.
RIVALS = {"Inductor": [], "Inductor, changed model": ["positions", "fused"]}


def with_inductor(name, step, repeated=False):
    """Compile the whole step, or each kind of its blocks once, as diffusers does it."""
    own = changed(step, RIVALS[name], inputs)
    if repeated:
        own.model.compile_repeated_blocks(fullgraph=True, dynamic=False)
        return own
    return torch.compile(own, fullgraph=True, dynamic=False)


changed_too, tuned = [*RIVALS][1], "TensorRT, tuned"
measured(changed_too, partial(with_inductor, changed_too, few))
measured(tuned, partial(built, few, keep))
measured("TensorRT, tuned, one engine", partial(built, few, keep, together=True))
few_ms = graph_ms()
rival = min(RIVALS, key=lambda name: few_ms.get(name, float("inf")))
note(inductor_changed_ms=f"{few_ms[changed_too]:.2f}", tuned_ms=f"{few_ms[tuned]:.2f}")
note(tuned_one_ms=f"{few_ms['TensorRT, tuned, one engine']:.2f}", rival=rival)

# %%
# With the changed model Inductor takes :recorded:`inductor_changed_ms` ms, in place of
# :recorded:`few_inductor_ms`. That does not show a gain: in the table of the benchmark
# below, ``latency_p20`` to ``latency_p80`` of the two overlap, and without CUDA graphs
# they are nearly alike. The whole model below meets the lower of the two,
# *:recorded:`rival`*.
#
# TensorRT, tuned, takes :recorded:`tuned_ms` ms, and as one engine
# :recorded:`tuned_one_ms`. These overlap as well: once more, weights as inputs cost no
# speed.
#
# The kernels of a call in three groups, in ms, and for products and attention what they
# reach of the limit. A product's kernel may do more than the product, such as adding a
# bias or GELU; its time counts as the product's.

# Needs a GPU: it shows what was measured.
# Output varies: latency.
LIMITED, where = ("products", "attention"), pd.DataFrame(parts).T.astype(float)
for part, amount in zip(LIMITED, count(1)):
    where[f"{part} reached"] = amount / tflops * 1e3 / where[part]
shown = {"inductor": rival, "tensorrt": tuned, "first": "TensorRT, one engine"}
for name, way in shown.items():
    row = where.reindex([way]).iloc[0]
    note(**{f"{part}_{name}_ms": f"{row[part]:.2f}" for part in KINDS})
    reached = {part: row[f"{part} reached"] for part in LIMITED}
    note(**{f"{part}_{name}_reached": f"{reached[part]:.0%}" for part in LIMITED})
mix_ms = where[[*KINDS]].min().sum()
note(mix_ms=f"{mix_ms:.2f}", mix_gain=f"{few_ms[rival] / mix_ms:.2f}")
note(**{f"mix_{part}": way for part, way in where[[*KINDS]].idxmin().items()})
where.round(2)

# %%
# *Attention* is mended. The one engine took :recorded:`attention_first_ms` ms for it
# and reached :recorded:`attention_first_reached` of the limit. With PyTorch's kernel it
# takes :recorded:`attention_tensorrt_ms` ms and reaches
# :recorded:`attention_tensorrt_reached`, as Inductor does with
# :recorded:`attention_inductor_reached`.
#
# *Products* are slower with TensorRT. They take :recorded:`products_tensorrt_ms` ms
# where Inductor's take :recorded:`products_inductor_ms`, and reach
# :recorded:`products_tensorrt_reached` of the limit in place of
# :recorded:`products_inductor_reached`. None of the measures brought them near that.
# Why they are slower is not shown. (A way can pass the limit, which is the rate of one
# large product over many calls. The kernels are those of a single call.)
#
# *The rest* takes :recorded:`rest_tensorrt_ms` ms, and Inductor's
# :recorded:`rest_inductor_ms`. Do not read the first number as time to be saved.
# TensorRT's three groups add up to more than its step of :recorded:`tuned_ms` ms, as
# kernels may overlap, or take longer in the profile; this page does not tell which. As
# one engine, in the last row, they add up to nearly the step. There the rest is
# smaller, but still more than twice Inductor's, and the step is no faster.
#
# The profile of a single call is rough: in the table of measures the kernels of this
# very recipe add up to more, products too. But in both profiles, and in one engine,
# products take TensorRT much longer than they take Inductor.
#
# Attention and products alone take TensorRT about as long as Inductor's whole step, in
# both forms. With no rest at all it would draw level at best: it needs faster products.
#
# Could a mixture win? By these groups it could not. The fastest at attention is
# *:recorded:`mix_attention`*, at products *:recorded:`mix_products`*, at the rest
# *:recorded:`mix_rest`*, and TensorRT at none. Without any cost for the seams, the best
# of each come to :recorded:`mix_ms` ms. But so do the kernels of Inductor's changed
# model by themselves: :recorded:`attention_inductor_ms`,
# :recorded:`products_inductor_ms` and :recorded:`rest_inductor_ms` ms. That its step
# takes :recorded:`mix_gain` times as long is the distance between a step in the
# benchmark and the kernels of one call in the profile, which no mixture gains. So no
# engine was put among Inductor's kernels. The groups are coarse: a single product at
# which TensorRT is faster would not show in them.
#
# FP8, and two pictures at once
# -----------------------------
#
# FP8 rounds weights and activations of linear layers to eight bits, which this GPU's
# tensor cores can multiply. ModelOpt puts the rounding into the model, in float16 here;
# *VGG-16 in eight bits* explains how. It has to be there when ``torch_tensorrt`` is
# imported. Its default recipe leaves out layers that are called ``proj_out``, and so
# the last product of a block with one stream. All is in one engine, attention too.

# Needs a GPU: FP8 runs on GPUs alone.
# Output varies: latency.


def with_fp8():
    """A step in FP8, built as one engine: its time, in words."""
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.utils import export_torch_mode

    given, other = (example(n, dtype=torch.float16) for n in (1, 2))
    step = copy.deepcopy(few).half()
    mtq.quantize(step, mtq.FP8_DEFAULT_CFG, forward_loop=lambda it: it(*given))
    with export_torch_mode():
        run = one_engine(step, given)
    off = relative_error(run(*other), few(*fresh))
    replay = captured(partial(run, *given))
    products = f"{parts_of(replay).products:.2f} of them in products, off by {off:.1e}"
    return f"{latency(replay)[0]:.2f} ms a step, {products}"


fp8 = "not measured, because nvidia-modelopt is not installed"
if importlib.util.find_spec("modelopt"):
    fp8 = tried("FP8", with_fp8) or "refused"
note(fp8=fp8)

# %%
# FP8: :recorded:`fp8`. In bfloat16 one engine takes :recorded:`first_ms` ms,
# :recorded:`products_first_ms` of them in products. So FP8 loses here, and loses in the
# products, where it should gain. Whether TensorRT-RTX multiplies in eight bits on this
# GPU, or in a wider type after conversions, is not shown. The error is a distance from
# eager in bfloat16, too, and more than the other ways are allowed here. Before all
# that, ModelOpt compiled an extension for CUDA, for more than a minute.
#
# Two pictures at once give a product more rows. That gains where one does not fill the
# GPU.

# Needs a GPU: it measures.
# Output varies: latency.


def two_at_once():
    """How many times as fast two pictures at once are as one after the other."""
    pair = captured(attempt(keep, batch=2))
    alone = captured(partial(compiled[tuned], *inputs))
    turns = in_turns({"alone": alone, "pair": pair}, rounds=5).median()
    return 2 * turns.alone / turns.pair


note(batch_gain=f"{tried('two at once', two_at_once) or NONE:.2f}")

# %%
# Do not rely on the :recorded:`batch_gain` above. A CUDA graph does not keep what it
# replays, and ``two_at_once`` keeps no other reference to the engines for two pictures:
# the capture of the second graph collects garbage, and they go before they are timed.
# The function has to hold them, as ``waterfall`` does; in this recording it did not. So
# what two at once gain is not known here, for TensorRT or for Inductor.
#
# The whole model
# ---------------
#
# 57 blocks. On a smaller GPU it is fewer, to leave room for a second copy of the
# weights: transposed matrices, if they are kept, are one.

# Needs a GPU: it takes the memory of one.
# Output varies: memory.
compiled.clear()
empty_caches()
stage("before the whole model")
free_gib = torch.cuda.mem_get_info()[0] / 2**30
units = 19 if free_gib > 60 else max(2, int(free_gib - 8) // 4)
whole = Step(units)
whole_blocks = f"{3 * units} of 57 blocks"
whole_gib = weight_bytes(whole) / 2**30
note(whole_blocks=3 * units, whole_gib=f"{whole_gib:.1f}")
stage(f"{3 * units} blocks made")
note(whole_without_blocks=f"{without_blocks(whole):.2f}")

# %%
# :recorded:`whole_blocks` blocks, and :recorded:`whole_gib` GiB of weights. Without its
# blocks the answer is off by :recorded:`whole_without_blocks`, again more than the
# check allows. That shows that the blocks count, not that each is right: a single wrong
# one among so many might pass.
#
# A picture is 28 steps from noise, with the schedule of FLUX.1-dev. The transformer
# tells in which direction the latents have to go, and the scheduler takes a step. Text
# encoders and the VAE are left out, so the text is random as well, and the latents stay
# latents. Each way replays a CUDA graph, eager too.


def picture(run, text_of=inputs):
    """The latents after each of 28 steps, and the seconds that they took."""
    dynamic = {"shift": 3.0, "use_dynamic_shifting": True}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**dynamic)
    sigmas = [1 - step / 28 for step in range(28)]
    scheduler.set_timesteps(sigmas=sigmas, device=device, mu=1.15)
    given = [inputs[0].clone(), *text_of[1:3], inputs[3].clone(), *inputs[4:]]
    replay, latents = captured(partial(run, *given)), [inputs[0]]
    torch.cuda.synchronize()
    start = time.perf_counter()
    for when in scheduler.timesteps:
        given[0].copy_(latents[-1])  # in place: the graph reads these addresses
        given[3].fill_(when / 1000)
        latents.append(scheduler.step(replay(), when, latents[-1]).prev_sample)
    torch.cuda.synchronize()
    return latents[1:], time.perf_counter() - start


# %%
# Each way is compiled, measured, and makes a picture. Eager also makes one for another
# text, for a control. TensorRT's engines are made by the recipe of the few blocks. One
# engine is not built here: *What it takes in memory* says why.
#
# Inductor comes twice. ``torch.compile`` takes all blocks as one graph. diffusers'
# ``compile_repeated_blocks`` compiles blocks where they stand, so it is given a copy of
# the module, and blocks of a kind share what was compiled, as they share an engine of
# TensorRT. On a CPU, with a small model, that made three graphs for all blocks. Blocks
# with one stream need two, because the first gets its tokens in another layout than
# those after it. The rest of the model stays as it is in PyTorch.

# Needs a GPU: it measures.
# Output varies: latency.
ways = {"eager": lambda: whole, rival: partial(with_inductor, rival, whole)}
repeated = "Inductor, repeated blocks"
ways[repeated] = partial(with_inductor, rival, whole, repeated=True)
ways[tuned] = partial(built, whole, keep)
pictures, seconds = {}, defaultdict(lambda: NONE)
for name, build in ways.items():
    measured(name, build, whole, shape=whole_blocks, tolerance=DEEP_TOLERANCE)
    if name in graph_ms(whole_blocks):
        pictures[name], seconds[name] = picture(compiled[name])
    stage(f"... {name}")
    compiled.clear()
another, _ = picture(whole, text_of=fresh)

# %%
# The benchmark, of few blocks and of the whole. A row of the whole rests on one or two
# calls, as one takes long; the seconds of a picture rest on 28.

# Needs a GPU: it shows what was measured.
# Output varies: latency.
whole_ms, table = graph_ms(whole_blocks), results(rows)
is_whole, whole_limit = table["shape"] == whole_blocks, limit_ms(units)
table["arithmetic_ms"] = is_whole.map({False: few_limit, True: whole_limit})
least_bytes = is_whole.map({False: weight_bytes(few), True: weight_bytes(whole)})
table["memory_ms"] = least_bytes / gigabytes / 1e6
roles = {"eager": "eager", "inductor": rival, "repeated": repeated, "tensorrt": tuned}
for name, way in roles.items():
    row = table[is_whole].set_index("backend").reindex([f"{way}, CUDA graph"]).iloc[0]
    note(**{f"whole_{name}_ms": f"{whole_ms[way]:.0f}"})
    note(**{f"picture_{name}_s": f"{seconds[way]:.1f}"})
    note(**{f"reached_{name}": f"{whole_limit / whole_ms[way]:.0%}"})
    note(**{f"ready_{name}_s": f"{row.compile_s + row.first_call_s:.0f}"})
    note(**{f"error_{name}": f"{row.error:.1e}"})
# The last row is TensorRT's.
note(speed_whole=f"{row.speedup:.2f}", faster_whole=min(whole_ms, key=whole_ms.get))
table

# %%
# Of the whole model a step takes eager :recorded:`whole_eager_ms` ms, Inductor
# :recorded:`whole_inductor_ms`, Inductor on repeated blocks
# :recorded:`whole_repeated_ms`, TensorRT :recorded:`whole_tensorrt_ms`. That is
# :recorded:`reached_eager`, :recorded:`reached_inductor`, :recorded:`reached_repeated`
# and :recorded:`reached_tensorrt` of the limit. A picture takes
# :recorded:`picture_eager_s`, :recorded:`picture_inductor_s`,
# :recorded:`picture_repeated_s` and :recorded:`picture_tensorrt_s` s.
#
# TensorRT is faster than eager and slower than Inductor, on 57 blocks as on three. The
# two ways of Inductor cannot be told apart: their steps overlap in the table, and so do
# their pictures to a tenth of a second. CUDA graphs change little here, for any of the
# four. Errors, as distances from eager, are :recorded:`error_inductor`,
# :recorded:`error_repeated` and :recorded:`error_tensorrt`.
#
# Both had their chances on the few blocks: TensorRT the measures that were kept,
# Inductor the changed model, taken if it was faster there. ``max-autotune`` was not
# tried, nor Inductor with the model as it is on all 57 blocks.
#
# Seconds until ready, taken once, are those of compilation and first call together:
# :recorded:`ready_inductor_s` for Inductor, which compiles :recorded:`whole_blocks`
# blocks, :recorded:`ready_repeated_s` for Inductor on repeated blocks, and
# :recorded:`ready_tensorrt_s` for TensorRT, which builds two. What makes TensorRT ready
# soon is that blocks share engines, and Inductor can share as well.

# Needs a GPU: it draws what was measured.
# Output varies: latency.
# Figure: For the whole model, TensorRT's engines are ready after
#   :recorded:`ready_tensorrt_s` s and take :recorded:`whole_tensorrt_ms` ms a step.
#   Inductor is ready after :recorded:`ready_inductor_s` s and takes
#   :recorded:`whole_inductor_ms` ms; on repeated blocks :recorded:`ready_repeated_s` s
#   and :recorded:`whole_repeated_ms` ms, which leaves TensorRT no advantage.
plot_ready(table)

# %%
# Does the picture stay the same?
# -------------------------------
#
# Errors of a step go into the next one. The drift is the distance of the latents from
# eager's, over the way that eager's have gone from the noise. It is a distance from
# eager in bfloat16, not from the exact result. The times are multiplied by 1000 as
# guidance is. Eager rounds the products, and no choice of times avoids it. Two ways
# round as well, because they leave the embedding of time in PyTorch: TensorRT's recipe,
# and Inductor on repeated blocks. Where Inductor compiles the embedding, it does not.

# Needs a GPU: it draws what was measured.
# Output varies: digits depend on the GPU.
# Figure: After 28 steps the drift is :recorded:`drift_tensorrt` for TensorRT,
#   :recorded:`drift_inductor` for Inductor and :recorded:`drift_repeated` for Inductor
#   on repeated blocks; another text gives :recorded:`drift_text`. All three begin near
#   a tenth and fall.


def drift(latents):
    """Distance from eager's latents after each step, over the way they have gone."""
    noise, pairs = inputs[0].float(), zip(latents, pictures["eager"])
    return [relative_error(a - noise, b.float() - noise) for a, b in pairs]


drifts = {name: drift(latents) for name, latents in pictures.items()}
shown = pd.DataFrame(drifts, index=range(1, 29)).drop(columns="eager")
axis = shown.plot(figsize=(7, 3), marker="o")
axis.set(xlabel="step", ylabel="drift from eager", ylim=(0, None))
axis.figure.set_layout_engine("constrained")
plt.show()
for name, way in roles.items():
    note(**{f"drift_{name}": f"{drifts.get(way, [NONE])[-1]:.1e}"})
note(drift_text=f"{drift(another)[-1]:.2f}")

# %%
# After 28 steps TensorRT is off by :recorded:`drift_tensorrt`, Inductor by
# :recorded:`drift_inductor`, on repeated blocks by :recorded:`drift_repeated`. Another
# text for the same noise changes the result by :recorded:`drift_text`.
#
# The drift is largest after the first step and falls: the latents' way grows faster
# than their distance from eager's. Measured by that way, errors do not build up here.
# That it starts near a tenth, far above the error of a step, fits the latents: they are
# rounded to bfloat16 after each step, as in ``FluxPipeline``, and the first way is
# short. A simulation outside of this page had the error of Inductor's step, random
# directions and no transformer. With latents in bfloat16 its drift began near a tenth
# and fell too; with latents in float32 it stayed at the error of a step.
#
# The way of running that does not round the time ends farthest from eager. That fits
# the rounding, and does not make it the worst: which is closest to the exact latents
# was not measured, and with random weights the latents show no picture.
#
# What it takes in memory
# -----------------------
#
# *Building runs out of memory although the model fits*: that is what people report. The
# table has the memory after each stage, in GiB. On the host there is what the process
# holds, and the most that it has held so far; on the GPU, PyTorch's tensors, and all
# that the driver says is in use.

# Needs a GPU: it shows the memory of one.
# Output varies: memory.
per_gib = (after["host, peak so far"] - before["host"]) / weights_gib
whole_host_gib = before["host"] + per_gib * whole_gib
memory = pd.DataFrame(stages).set_index("stage")
note(host_per_gib=f"{per_gib:.1f}", whole_host_gib=f"{whole_host_gib:.0f}")
note(whole_one_s=f"{one_build_s / weights_gib * whole_gib:.0f}")
note(highest_host_gib=f"{memory['host, peak so far'].max():.1f}")
memory.round(1)

# %%
# To build one engine with its weights inside, the host took :recorded:`host_per_gib`
# GiB for each GiB of weights. By proportion the whole needs :recorded:`whole_host_gib`
# GiB of host memory and :recorded:`whole_one_s` s. (Built once before on an H100,
# outside of this page and with ``offload_module_to_cpu=True``, it took ``93 GiB`` and
# ``318 s``: more than the proportion says.) That option frees the GPU during
# the build, and puts the weights on the host. ``workspace_size`` bounds what an engine
# may take while it runs. Neither gives the host more memory. So where the host's memory
# runs out, neither helps.
#
# With weights as inputs, the whole is built from two blocks as well. The host's peak
# was :recorded:`highest_host_gib` GiB before the whole model was made, from the trials
# on few blocks, and the build did not raise it. Nor does the GPU hold the weights
# twice, as it does with one engine, which the driver's column shows for few blocks:
# with two engines, tensors take hardly more than with eager, and the driver tells
# little more. With Inductor they take some GiB more, but not for its own sake. The
# changed model's joined matrices for query, key and value are new ones, while the model
# that it was made from keeps the old.
#
# When it goes wrong
# ------------------
#
# **float64.** Without ``truncate_double=True``, what computes in float64 cannot become
# part of an engine. Here is the module for positions alone:

program = torch.export.export(few.model.pos_embed, inputs[4:5], strict=False)
alone = partial(torch_tensorrt.dynamo.compile, program, arg_inputs=inputs[4:5])
tried("positions", partial(alone, min_block_size=1))

# %%
# **Another size of picture.** These engines have the shapes of their export built in.
# Half of the tokens:

# Needs a GPU: on a CPU no engine runs.
# Output varies: the message depends on the version.
latents, places = inputs[0][:, ::2].contiguous(), inputs[4][::2].contiguous()
tried("half", lambda: kinds(latents, *inputs[1:4], places, *inputs[5:]))

# %%
# The exception says no more than that a shape could not be set. The line of the log has
# what was set and what was expected. Build the two engines anew for each size that you
# serve; the weights are shared.
#
# **Real weights.** ``from_pretrained`` answers with an HTTP error of access as long as
# the license of FLUX.1-dev is not accepted, and the token not set. In float16 look at
# the pictures, not only at the first step.
#
# **The build is killed without a message.** Look at the host's memory first: see above.
#
# Take it to production
# ---------------------
#
# Save the engines of a size, a file for each kind. The weights stay where they are, in
# diffusers' own files. A process that loads an engine needs the operator ``attend`` as
# well, if it was used. Load only files that you trust: they are unpickled.

# Needs a GPU: the engine runs.
# Output varies: sizes.
served = all_measures.model.single_transformer_blocks[0]
file = Path(tempfile.mkdtemp()) / "single.pt2"


def save_and_load():
    given = [*served.block.parameters(), *block_inputs(few, inputs)]
    torch_tensorrt.save(served.engine, str(file), arg_inputs=given)
    loaded = torch_tensorrt.load(str(file)).module()
    off = relative_error(loaded(*given), served.engine(*given))
    return f"{file.stat().st_size / 1e6:.1f} MB, answers apart by {off:.0e}"


saved = tried("saving", save_and_load) or "refused"
note(saved=saved)

# %%
# The engine of the blocks with one stream, with all measures, saved and loaded in the
# same process: :recorded:`saved`. That is much for an engine without weights. An
# exported program is saved with its example inputs, and those of this engine, a block's
# weights among them, come to nearly as much. In a pipeline with real weights, the step
# goes where the transformer was, in a module that has what ``FluxPipeline`` asks for.
# This one ran with the small model that this page has on a CPU, outside of the
# recording:
#
# .. code-block:: python
#
#    class InPipeline(torch.nn.Module):
#        def __init__(self, run, given, config):
#            super().__init__()
#            self.config, self.device = config, given[0].device
#            self.dtype, self.given = given[0].dtype, given
#            self.replay = captured(partial(run, *given))
#
#        def cache_context(self, name):
#            return contextlib.nullcontext()
#
#        def forward(self, **new):
#            names = "hidden_states encoder_hidden_states pooled_projections "
#            names += "timestep img_ids txt_ids guidance"
#            for tensor, name in zip(self.given, names.split()):
#                tensor.copy_(new[name])
#            return (self.replay(),)
#
#    config = pipeline.transformer.config
#    pipeline.transformer = InPipeline(run, inputs, config)
#
# The answer is the graph's own tensor, which the next call overwrites. With a negative
# prompt and ``true_cfg_scale`` above 1, ``FluxPipeline`` calls twice in a step and then
# compares the two. So return ``self.replay().clone()`` there, or it compares an answer
# with itself, and the prompt is lost without a message.
#
# Which way?
#
# - *On an H100*: Inductor on repeated blocks. It makes a picture in
#   :recorded:`picture_repeated_s` s, as Inductor on the whole does in
#   :recorded:`picture_inductor_s`, and is ready in :recorded:`ready_repeated_s` s in
#   place of :recorded:`ready_inductor_s`, which counts as soon as sizes change.
#   TensorRT-RTX takes :recorded:`picture_tensorrt_s` s and is ready in
#   :recorded:`ready_tensorrt_s`: nothing speaks for it here. TensorRT for data centers,
#   which ``torch-tensorrt`` brings, was not measured.
# - *On a GeForce or RTX card*: nothing here is measured there. TensorRT-RTX is made for
#   those cards, and does not list the H100 among its GPUs. Memory comes first there:
#   the weights take :recorded:`whole_gib` GiB in bfloat16. NVIDIA tells the memory of
#   its own builds, in FP8 and FP4 as well, in `its demo
#   <https://github.com/NVIDIA/TensorRT-RTX/tree/main/demo>`_. Run this page on the card
#   before you choose; it takes fewer blocks by itself.
#
# Exercise
# --------
#
# In a block with one stream, query, key, value and the first layer of the feed-forward
# part take the same input. Make one product of the four, in a processor and a block of
# your own, and add it to ``MEASURES``. Does it help products of TensorRT as much as
# those of Inductor?
#
# Takeaways
# ---------
#
# - A step of the whole model: Inductor :recorded:`whole_inductor_ms` ms, TensorRT
#   :recorded:`whole_tensorrt_ms`, eager :recorded:`whole_eager_ms`; TensorRT has
#   :recorded:`speed_whole` times the speed of the best that PyTorch does alone.
# - To win, TensorRT needs faster products: its own reach
#   :recorded:`products_tensorrt_reached` of the rate of one large product, Inductor's
#   :recorded:`products_inductor_reached`. No mixture of groups of kernels wins, because
#   TensorRT is the fastest at none.
# - Leaving attention in PyTorch took :recorded:`gain_in_pytorch` off the time of few
#   blocks. No other measure was kept, and FP8 was slower than bfloat16.
# - Blocks of a kind can share an engine whose weights are inputs, and on three blocks
#   that cost no speed. Those of the whole were ready in :recorded:`ready_tensorrt_s` s,
#   and the host's peak on this page was :recorded:`highest_host_gib` GiB, in place of
#   :recorded:`whole_host_gib` GiB for one engine, by proportion.
# - Inductor can share as well: ``compile_repeated_blocks`` was ready in
#   :recorded:`ready_repeated_s` s in place of :recorded:`ready_inductor_s`, with a step
#   that cannot be told from that of the whole.
# - Eager in bfloat16 rounds too, so a tolerance against it can refuse a better answer.
# - Check a model of random weights against itself without its blocks, or the check sees
#   nothing but the embeddings.
#
# More about it: `FLUX in diffusers
# <https://huggingface.co/docs/diffusers/api/pipelines/flux>`_.

# sphinx_gallery_tags = ["ahead of time", "diffusion", "large models", "benchmark"]
