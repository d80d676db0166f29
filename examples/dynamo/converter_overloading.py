"""
Write a converter
=================

Keep an operator that TensorRT does not know inside the engine, and change how one that
it knows is converted.

At a glance
-----------

- Graph networks add rows by index. Torch-TensorRT has no converter for that on
  TensorRT-RTX, so a model with six such sums becomes :recorded:`engines_before` engines
  with PyTorch between them. One converter makes it :recorded:`engines_after`.
- A call then launches :recorded:`launches_after` kernels, without the converter
  :recorded:`launches_before`.
- For 32 molecules, in a CUDA graph, the converter takes :recorded:`graph_ratio_32`
  times the time of the engines without it. Without a CUDA graph the two were measured
  in turns: :recorded:`host_ratio` (:recorded:`host_ratio_range`).
- Over the best that PyTorch does alone the speedup is :recorded:`speedup_32` for 32
  molecules and :recorded:`speedup_4` for four. The two add up in different ways: the
  converter by a product, PyTorch by ``index_add``.
- The converter's work grows with the square of the batch. At 128 molecules its sum
  alone takes :recorded:`ratio_128` times as long as PyTorch's own kernel. Its
  *validator* keeps it to small batches.

What you will learn
-------------------

- What a converter is, and when to write one.
- How to add one and how to override one: priority, validator, dynamic shapes.
- How to read which operators stay in PyTorch, and what that costs.
- How a wrong converter is found, and how to take one back.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* matplotlib pandas

You need to know how ``torch_tensorrt.compile`` is called. With standard TensorRT
(``torch-tensorrt``) Torch-TensorRT brings a plugin for this operator, so by its source
there is no gap to close. That is not recorded here: these are TensorRT-RTX's results.
"""

# %%
# A model with a gap
# ------------------
# *SchNet* predicts the energy of molecules. Each atom sends a message to its
# neighbours, and each atom adds up what it is sent. That sum is ``index_add``: rows are
# added to the rows that an index names. SchNetPack adds up like this, and so do other
# graph networks and mixtures of experts.

import contextlib
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

logging.disable(logging.WARNING)  # hints about optional packages

import torch
import torch_tensorrt
from torch import nn
from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.manual_seed(0)
on_gpu = torch.cuda.is_available()
device = torch.device("cuda" if on_gpu else "cpu")
dtype = torch.float16 if on_gpu else torch.float32
ATOMS, NEIGHBOURS, KINDS, WIDTH, SHELLS = 16, 8, 5, 128, 50

# %%
# One interaction: messages go along pairs of atoms, weighted by their distance.


def two_layers(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.Softplus(), nn.Linear(WIDTH, outputs)
    )


class Interaction(nn.Module):
    def __init__(self):
        super().__init__()
        self.send = nn.Linear(WIDTH, WIDTH, bias=False)
        self.by_distance = two_layers(SHELLS, WIDTH)
        self.receive = two_layers(WIDTH, WIDTH)

    def forward(self, atoms, shells, source, target):
        messages = self.send(atoms)[source] * self.by_distance(shells)
        received = torch.zeros_like(atoms).index_add(0, target, messages)
        return atoms + self.receive(received)


# %%
# Six interactions, then one number for each atom, and their sum for each molecule.


class SchNet(nn.Module):
    def __init__(self, interactions=6):
        super().__init__()
        self.kinds = nn.Embedding(KINDS, WIDTH)
        self.register_buffer("centers", torch.linspace(0, 5, SHELLS))
        self.interactions = nn.ModuleList(Interaction() for _ in range(interactions))
        self.energy = two_layers(WIDTH, 1)

    def forward(self, kinds, distances, source, target):
        shells = torch.exp(-10 * (distances[:, None] - self.centers) ** 2)
        atoms = self.kinds(kinds)
        for interaction in self.interactions:
            atoms = interaction(atoms, shells, source, target)
        return self.energy(atoms).view(-1, ATOMS).sum(1)


def molecules(count):
    """Clusters of 16 atoms: their kinds, and each atom's 8 nearest neighbours."""
    places = 1.5 * torch.randn(count, ATOMS, 3, device=device)
    far = torch.cdist(places, places) + 1e3 * torch.eye(ATOMS, device=device)
    distances, neighbours = far.topk(NEIGHBOURS, largest=False)
    first = ATOMS * torch.arange(count, device=device).view(-1, 1, 1)
    atoms = torch.arange(count * ATOMS, device=device)
    kinds = torch.randint(KINDS, atoms.shape, device=device)
    source, target = neighbours + first, atoms.repeat_interleave(NEIGHBOURS)
    return kinds, distances.flatten(), source.flatten(), target


# %%
# A short training gives the answers a meaning: the energy of two atoms falls with their
# distance and depends on their kinds. Each batch is new, so the last one tells how much
# of the energies' variance the model explains.

# Output varies: training on another device ends elsewhere.


def pairs(kinds, distances, source, target):
    both = (1 + kinds[source] + kinds[target]) * torch.exp(-distances)
    return both.view(-1, ATOMS * NEIGHBOURS).sum(1)


many = pairs(*molecules(1024))
model = SchNet().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(300 if on_gpu else 5):
    batch = molecules(64 if on_gpu else 4)
    energies = (pairs(*batch) - many.mean()) / many.std()
    loss = nn.functional.mse_loss(model(*batch), energies)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval().requires_grad_(False)
print("Weights: random, then trained here")
print(f"explained_percent = {100 * (1 - loss.item()):.0f}")

# %%
# It explains :recorded:`explained_percent` percent. Now the engine.
# ``TorchTensorRTModule`` is what stands for an engine in a compiled model, so they can
# be counted.
model = model.to(dtype)
COUNT = 32 if on_gpu else 4


def inputs_for(count):
    return [x.to(dtype) if x.is_floating_point() else x for x in molecules(count)]


def compiled_for(module, inputs, **settings):
    program = torch.export.export(module, tuple(inputs))
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=inputs, min_block_size=1, **settings
    )


def engines(module):
    return sum(isinstance(part, TorchTensorRTModule) for part in module.modules())


inputs, fresh = inputs_for(COUNT), inputs_for(COUNT)
before = compiled_for(model, inputs)
print(f"engines_before = {engines(before)}")

# %%
# A first success
# ---------------
# TensorRT has no layer that adds rows by index, but it has matrix products. A table
# with a row for each atom and a column for each message holds 1 where the message goes
# to that atom, else 0. Table times messages is the sum. A *converter* says so in
# TensorRT's layers. ``impl`` holds the building blocks of the library's own converters.
from torch_tensorrt.dynamo.conversion import (
    ConverterPriority,
    dynamo_tensorrt_converter,
    impl,
)
from torch_tensorrt.dynamo.conversion.converter_utils import (
    SourceIR,
    cast_trt_tensor,
    get_trt_tensor,
)

INDEX_PUT = torch.ops.aten.index_put.default
largest = {"cells": 2**22}  # of the table


def adds_rows(node, settings):
    """Whether a node adds rows by one index, and its table is small enough."""
    base, rows = node.meta["val"], node.args[2].meta["val"]
    index = node.args[1][0]
    adds = len(node.args) > 3 and node.args[3] is True
    by_row = len(node.args[1]) == 1 and base.ndim == rows.ndim == 2
    if not (adds and by_row and base.is_floating_point()):
        return False
    if index.meta["val"].dtype == torch.bool or index.meta["val"].ndim != 1:
        return False
    cells = base.shape[0] * rows.shape[0]
    return not isinstance(cells, int) or cells <= largest["cells"]


# %%


@dynamo_tensorrt_converter(
    INDEX_PUT,
    capability_validator=adds_rows,
    priority=ConverterPriority.HIGH,
    supports_dynamic_shapes=True,
)
def add_rows(ctx, target, args, kwargs, name):
    """index_put(base, [index], rows, accumulate=True) as a matrix product."""
    base = get_trt_tensor(ctx, args[0], f"{name}_base")  # may be a constant
    index = cast_trt_tensor(ctx, args[1][0], torch.int32, f"{name}_index")
    node = (ctx, target, SourceIR.ATEN)
    count = base.shape[0]
    if count < 0:  # dynamic: known when the engine runs
        count = impl.shape.shape(*node, f"{name}_count", base, 0)
    atoms = impl.arange.arange(*node, f"{name}_atoms", 0, count, 1, torch.int32)
    atoms = impl.unsqueeze.unsqueeze(*node, f"{name}_column", atoms, 1)
    index = impl.unsqueeze.unsqueeze(*node, f"{name}_line", index, 0)
    table = impl.elementwise.eq(*node, f"{name}_table", atoms, index)
    table = cast_trt_tensor(ctx, table, base.dtype, f"{name}_ones")
    sums = impl.matmul.matrix_multiply(*node, f"{name}_sums", table, args[2])
    return impl.elementwise.add(*node, f"{name}_added", base, sums)


after = compiled_for(model, inputs)
print(f"engines_after = {engines(after)}")

# %%
# From :recorded:`engines_before` engines to :recorded:`engines_after`, and the model
# was not touched.
#
# How this page measures
# ----------------------
# One block of code measures on every page of this gallery; :doc:`how_we_measure`
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
# Is it right? What runs?
# -----------------------
# Fresh molecules, with other neighbours, so another index.

# Output varies: sums in float16 depend on their order.
tolerance = 2e-2 if on_gpu else 1e-4
error = check(before, model, fresh, inputs, tolerance, "index_add in PyTorch")
error = check(after, model, fresh, inputs, tolerance, "converter")

# %%
# The profiler counts what one call launches.

# Needs a GPU: it counts kernels.
# Output varies: kernels depend on the GPU.
kernels_before, _ = profiled(lambda: before(*inputs))
kernels_after, _ = profiled(lambda: after(*inputs))
print(f"launches_before = {kernels_before.launches.sum()}")
print(f"launches_after = {kernels_after.launches.sum()}")

# %%
# :recorded:`launches_before` launches before, :recorded:`launches_after` after. Each of
# the :recorded:`engines_before` engines was a call of its own, and between two of
# them a tensor went through PyTorch.
#
# What a converter is
# -------------------
# ``torch.export`` gives a graph of operators. *Lowering* rewrites some of them. Then
# each node is looked up in a registry, by its operator. An entry holds a *converter*, a
# function that adds TensorRT's layers for one node, and a *validator*, a function that
# says whether it can take this very node. The first entry whose validator agrees is
# taken. A node without one stays in PyTorch, and the *partitioner* cuts the graph
# there.
from torch_tensorrt.dynamo.conversion import DYNAMO_ATEN_CONVERTERS

print("operators with a converter:", len(DYNAMO_ATEN_CONVERTERS))
for entry in DYNAMO_ATEN_CONVERTERS[INDEX_PUT]:
    print(entry.converter_implementation.__name__, entry.supports_dynamic_shapes)

# %%
# ``add_rows`` comes first, because its priority is ``HIGH``; ``STANDARD`` would put it
# last. The other two were there before: one wants a plugin, which TensorRT-RTX does not
# have, the other takes nodes that overwrite. So the operator has converters, and yet
# this node had none.
#
# A converter is called with the *context* (``ctx.net`` is TensorRT's network), the
# operator, and the node's arguments. Those are TensorRT's tensors, or PyTorch's where
# they are constants: ``get_trt_tensor`` takes both. It returns TensorRT's tensor, with
# the type and shape that PyTorch's operator has.
#
# The report before and after
# ---------------------------
# ``dryrun`` stops before any engine is built, and tells what would be built. Given a
# file's name, it writes its report there as well. To see the model as it was, the
# operator is sent to PyTorch: ``torch_executed_ops`` needs no change of the registry.

KEEP = {"torch_executed_ops": {"torch.ops.aten.index_put.default"}}
folder = Path(tempfile.mkdtemp())
for name, settings in {"before": KEEP, "after": {}}.items():
    report = folder / f"{name}.txt"
    with contextlib.redirect_stdout(None):  # it prints the report too
        compiled_for(model, inputs, dryrun=str(report), **settings)
    print(name)
    for line in report.read_text().splitlines():
        if "coverage" in line or line.startswith("Node:") or "TRT Engine #" in line:
            print("   ", line.strip())

# %%
# What does it gain?
# ------------------
# First the limit. The model's own arithmetic, at what a large matrix product reaches
# here, and beside it the arithmetic that the tables add.

# Needs a GPU: it measures what the GPU sustains.
# Output varies: rates.
from torch.utils.flop_counter import FlopCounterMode

tflops, gigabytes = gpu_limits(dtype)
with FlopCounterMode(display=False) as counter:
    model(*inputs)
rows = COUNT * ATOMS
added = 6 * 2 * rows * rows * NEIGHBOURS * WIDTH
print(f"model_limit_us = {counter.get_total_flops() / tflops / 1e6:.1f}")
print(f"tables_us = {added / tflops / 1e6:.1f}")

# %%
# Then every way to run it, for four molecules and for 32. (Inductor's ``max-autotune``
# is left out.)

# Needs a GPU: it measures.
# Output varies: it prints timings.


def measured(count):
    given, other = inputs_for(count), inputs_for(count)
    ways = pytorch_alone(model, autotune=False) | {
        "TensorRT, sums in PyTorch": lambda: compiled_for(model, given, **KEEP),
        "TensorRT, converter": lambda: compiled_for(model, given),
    }
    about = {"model": "SchNet", "shape": f"{count} molecules", "tolerance": tolerance}
    rows = []
    for backend, build in ways.items():
        try:
            rows += compare({backend: build}, model, given, other, **about)
        except RuntimeError as error:  # such as a capture that is refused
            print(backend, "was not measured:", str(error).partition("\n")[0])
    return rows


table = results(measured(4) + measured(32))
table.round(4)

# %%
# The table's rows without a CUDA graph are bound by the host. So the two that matter
# are measured in turns.

# Needs a GPU: it measures.
# Output varies: it prints timings.
turns = in_turns(
    {"before": lambda: before(*inputs), "after": lambda: after(*inputs)}, rounds=10
)
ratio = turns.after / turns.before
print(f"host_ratio = {ratio.median():.2f}")
print(f"host_ratio_range = {ratio.min():.2f} to {ratio.max():.2f}")
for count in (4, 32):
    here = table[table["shape"] == f"{count} molecules"].set_index("backend")
    converter = here.loc["TensorRT, converter, CUDA graph"]
    print(f"speedup_{count} = {converter.speedup:.2f}")
    gaps = here.latency_ms.get("TensorRT, sums in PyTorch, CUDA graph", float("nan"))
    print(f"graph_ratio_{count} = {converter.latency_ms / gaps:.2f}")

# %%
# In a CUDA graph the converter takes :recorded:`graph_ratio_4` times the time of the
# engines without it for four molecules, and :recorded:`graph_ratio_32` times for 32.
# Without a CUDA graph, for 32, it takes :recorded:`host_ratio` times
# (:recorded:`host_ratio_range` in ten rounds). The speedup over the best that PyTorch
# does alone is :recorded:`speedup_4` and :recorded:`speedup_32`. That compares two
# algorithms as well as two compilers: PyTorch adds up by ``index_add``, and nobody
# rewrote its model (the exercise does). The products with the tables are worth
# :recorded:`tables_us` µs at the GPU's best rate, all else in the model
# :recorded:`model_limit_us` µs. Both are a small part of what a call takes. Why
# Inductor is ahead at 32 is untested; the next section times the sum alone.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: Ready and latency; the converter's speedup is :recorded:`speedup_4` for four
#   molecules and :recorded:`speedup_32` for 32.
plot_ready(table)

# %%
# Larger batches
# --------------
# The table's cells grow with the square of the batch, and all but one in each column
# are 0. So the sum alone, for growing batches, in CUDA graphs: the converter's time
# over PyTorch's. The validator's limit is lifted for it.


class Sums(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer.eval().requires_grad_(False).to(device, dtype)

    def forward(self, base, index, rows):
        return self.layer(base.index_add(0, index, rows))


def random_rows(count):
    index = molecules(count)[3]
    rows = torch.randn(len(index), WIDTH, device=device, dtype=dtype)
    base = torch.randn(count * ATOMS, WIDTH, device=device, dtype=dtype)
    return base, index, rows


# %%

# Needs a GPU: it measures.
# Output varies: it prints timings.


def sum_ratio(count):
    given, other = random_rows(count), random_rows(count)
    plain = Sums(nn.Identity())
    engine = compiled_for(plain, given)
    check(engine, plain, other, given, tolerance, f"{count} molecules")
    ours = latency(captured(lambda: engine(*given)))[0]
    theirs = latency(captured(lambda: plain(*given)))[0]
    return ours / theirs


ratios, limit = {}, largest["cells"]
largest["cells"] = 2**40
for count in (1, 8, 32, 64, 128):
    ratios[count] = sum_ratio(count)
    print(f"ratio_{count} = {ratios[count]:.2f}")
largest["cells"] = limit

# %%

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: The sum by the converter takes :recorded:`ratio_1` times PyTorch's time for
#   one molecule and :recorded:`ratio_128` times for 128.
axis = pd.Series(ratios).plot(marker="o", figsize=(7, 3.4), logx=True, fontsize=10)
axis.axhline(1, color="gray", linestyle="--")
axis.set_xticks(list(ratios), [str(count) for count in ratios])
axis.set_ylim(bottom=0)
axis.set(xlabel="molecules", ylabel="converter's time over PyTorch's")
plt.tight_layout()
plt.show()

# %%
# One molecule: :recorded:`ratio_1`; 32: :recorded:`ratio_32`; 128:
# :recorded:`ratio_128`. PyTorch's sum alone is as fast at one molecule, and faster
# above. So what the whole model gains at 32 all the same does not come from the sum. A
# validator sets the limit: ours lets tables of up to ``2**22`` cells through, 45
# molecules; a larger batch is left to PyTorch. Choose the number by the latency of your
# whole model, on your own GPU.
#
# When to write one
# -----------------
#
# .. list-table::
#    :header-rows: 1
#    :widths: 24 38 38
#
#    * - Way
#      - Engines
#      - When
#    * - leave it in PyTorch
#      - one more for each gap; needs Python
#      - the operator is rare or heavy
#    * - rewrite the model
#      - one
#      - the model is yours
#    * - converter
#      - one; it runs without Python
#      - TensorRT's layers can express it, and the model is not yours
#    * - plugin, ``custom_kernel_plugins``
#      - one; not in TensorRT-RTX
#      - it needs a kernel of its own
#
# Override a converter
# --------------------
# A converter that exists can be wrong for you. ``softplus`` has a third argument, a
# threshold above which it returns its input. The library's converter of 2.14 does not
# read it. Ours calls the library's for the curve, and selects. Its validator takes
# those nodes alone that have a threshold of their own; all others go to the next entry.

SOFTPLUS = torch.ops.aten.softplus.default
converted = []


@contextlib.contextmanager
def registered(operator, converter, **options):
    """Puts a converter first within a `with` block, and takes it back afterwards."""
    kept = list(DYNAMO_ATEN_CONVERTERS.get(operator, []))
    register = dynamo_tensorrt_converter(
        operator, priority=ConverterPriority.HIGH, **options
    )
    register(converter)
    try:
        yield
    finally:
        DYNAMO_ATEN_CONVERTERS[operator] = kept
        if not kept:
            del DYNAMO_ATEN_CONVERTERS[operator]


def has_threshold(node, settings):
    return len(node.args) > 2 and node.args[2] != 20


def softplus_with_threshold(ctx, target, args, kwargs, name):
    converted.append(name)
    values, beta, threshold = args
    node = (ctx, target, SourceIR.ATEN)
    curve = impl.activation.softplus(*node, f"{name}_curve", values, beta)
    scaled = impl.elementwise.mul(*node, f"{name}_scaled", values, beta)
    above = impl.elementwise.gt(*node, f"{name}_above", scaled, threshold)
    return impl.condition.where(*node, f"{name}_chosen", values, curve, above)


# %%
# There is no public way to take a converter back. The registry is one dictionary for
# the whole process, so ``registered`` puts the list back as it was.


class Gates(nn.Module):
    def forward(self, values):
        own = nn.functional.softplus(values, beta=1, threshold=1)
        return own * nn.functional.softplus(values)


values, others = torch.randn(2, 64, 256, device=device, dtype=dtype)
builtin = compiled_for(Gates(), [values])
options = {"capability_validator": has_threshold, "supports_dynamic_shapes": True}
with registered(SOFTPLUS, softplus_with_threshold, **options):
    ours = compiled_for(Gates(), [values])
print("converted by ours:", converted, "of two nodes")
print("entries left:", len(DYNAMO_ATEN_CONVERTERS[SOFTPLUS]))

# %%
# The same check for both. It stops with an ``AssertionError`` where an answer is wrong.

# Needs a GPU: TensorRT's own arithmetic runs only there.
# Output varies: errors depend on the GPU.


def judge(module, *arguments):
    try:
        check(module, *arguments)
        print("passed")
    except AssertionError as refused:
        print("caught:", refused)


judge(builtin, Gates(), [others], [values], 1e-2, "the library's")
error = check(ours, Gates(), [others], [values], 1e-2, "ours")

# %%
# A wrong converter
# -----------------
# TensorRT's scatter layer looks like what the sums need: it writes rows to the places
# that an index names. One layer in place of a product. Types and shapes are right, and
# the engine builds without a message.
import tensorrt as trt  # Torch-TensorRT makes this name mean TensorRT-RTX.


def overwrite_rows(ctx, target, args, kwargs, name):
    base = get_trt_tensor(ctx, args[0], f"{name}_base")
    node = (ctx, target, SourceIR.ATEN)
    index = impl.unsqueeze.unsqueeze(*node, f"{name}_column", args[1][0], 1)
    return ctx.net.add_scatter(base, index, args[2], trt.ScatterMode.ND).get_output(0)


with registered(INDEX_PUT, overwrite_rows, capability_validator=adds_rows):
    wrong = compiled_for(model, inputs)
print("engines:", engines(wrong))

# %%
# But it writes where it should add, so an atom keeps one message of eight. Nothing but
# a comparison of numbers finds that:

# Needs a GPU: TensorRT's own arithmetic runs only there.
# Output varies: errors depend on the GPU.
judge(wrong, model, fresh, inputs, tolerance, "scatter layer")

# %%
# Test a converter alone as well, with a base that is not zero: in this model it always
# is, so a converter that forgets to add the base would pass. ``check`` in *Larger
# batches* had such a base. And know what yours leaves out. Ours multiplies by 0, and 0
# times infinity is NaN: one infinite message reaches all atoms. An index below 0 or
# beyond the last row is dropped without a word.
#
# When it goes wrong
# ------------------
#
# **The result has another type.** Engines are *strongly typed*: nothing is cast in
# silence, and a converter's result must have the node's own type. One that returns
# float32 in a float16 model meets the next layer that minds:


OTHER = torch.float32 if on_gpu else torch.float16


def sums_of_another_type(ctx, target, args, kwargs, name):
    sums = add_rows(ctx, target, args, kwargs, name)
    return cast_trt_tensor(ctx, sums, OTHER, f"{name}_other")


told = []
tensorrt_log = logging.getLogger("torch_tensorrt [TensorRT Conversion Context]")
tensorrt_log.addFilter(lambda record: told.append(record.getMessage()))
few = random_rows(1)
for layer in (nn.ReLU(), nn.Linear(WIDTH, WIDTH)):
    with registered(INDEX_PUT, sums_of_another_type, capability_validator=adds_rows):
        try:
            compiled_for(Sums(layer), few)
            print(layer, "- no error")
        except RuntimeError as error:
            print(layer, "-", str(error).partition("\n")[0])
            for line in told[-1:]:
                print("TensorRT's log:", line.partition("]: ")[2].partition(" In ")[0])

# %%
# The exception says little; the line in TensorRT's log names the layer and both types.
# Behind a ReLU, which takes any type, the same mistake builds. So end with a cast to
# the type that you were given.
#
# **It is never called.** The registry is asked after lowering, and lowering has
# rewritten ``index_add`` to ``index_put`` by then. A converter for the former waits in
# vain. And ``scatter_add``, the cousin that PyTorch Geometric uses, becomes a chain of
# operators for each row that is added:


def never(ctx, target, args, kwargs, name):
    raise RuntimeError("called after all")


class ScatterAdd(nn.Module):
    def forward(self, base, index, rows):
        return base.scatter_add(0, index[:, None].expand_as(rows), rows)


def lowered(module):
    program = torch.export.export(module, tuple(few))
    table = torch_tensorrt.dynamo.lowering.get_decompositions()
    nodes = program.run_decompositions(table).graph.nodes
    return [str(node.target) for node in nodes if node.op == "call_function"]


with registered(torch.ops.aten.index_add.default, never):
    compiled_for(Sums(nn.ReLU()), few)
print("index_add:", lowered(Sums(nn.ReLU())))
print("scatter_add:", len(lowered(ScatterAdd())), "operators for", len(few[1]), "rows")

# %%
# Look at the lowered graph, or at the names in the dry run's report, and register for
# what stands there. In your own model, write ``index_add``.
#
# **It works until a shape is dynamic.** ``supports_dynamic_shapes`` is False unless you
# say otherwise. Then nodes with a dynamic shape stay in PyTorch without a word:


@contextlib.contextmanager
def without_ours():
    """The registry as it was before `add_rows`, within a `with` block."""
    first = DYNAMO_ATEN_CONVERTERS[INDEX_PUT].pop(0)
    try:
        yield
    finally:
        DYNAMO_ATEN_CONVERTERS[INDEX_PUT].insert(0, first)


some = torch.export.Dim("some", min=2, max=200)
shapes = {"base": None, "index": {0: some}, "rows": {0: some}}
program = torch.export.export(Sums(nn.ReLU()), few, dynamic_shapes=shapes)
index_range = torch_tensorrt.Input(
    min_shape=(2,), opt_shape=(128,), max_shape=(200,), dtype=torch.int64
)
rows_range = torch_tensorrt.Input(
    min_shape=(2, WIDTH), opt_shape=(128, WIDTH), max_shape=(200, WIDTH), dtype=dtype
)
for supports in (False, True):
    options = {"capability_validator": adds_rows, "supports_dynamic_shapes": supports}
    with without_ours(), registered(INDEX_PUT, add_rows, **options):
        part = torch_tensorrt.dynamo.compile(
            program, arg_inputs=[few[0], index_range, rows_range], min_block_size=1
        )
    left = [name for name, _ in part.named_children() if "run_on_gpu" in name]
    print(f"supports_dynamic_shapes={supports}: {len(left)} parts left in PyTorch")

# %%
# Say True only for code that asks for sizes as ``add_rows`` does: a size that is not
# known yet reads ``-1``.
#
# **An old engine comes back.** The key of the engine cache holds operators, inputs and
# options, and no converters. After a change of a converter, use an empty cache. What
# ``torch.compile`` has compiled stays as it was until ``torch.compiler.reset()``.
#
# Take it to production
# ---------------------
# The converter is needed where the engine is built, and nowhere else. An engine for
# another runtime, from C++ for instance, must hold the whole model, so the gap used to
# forbid it:


def engine_file():
    program = torch.export.export(model, tuple(inputs))
    return torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=inputs, min_block_size=1
    )


logging.disable(logging.CRITICAL)  # the library logs the whole model
try:
    with without_ours():
        print("without the converter:", len(engine_file()), "bytes")
except RuntimeError as error:
    reason = error.__cause__ or error
    print(type(error).__name__, "-", str(reason).partition("\n")[0])
logging.disable(logging.WARNING)
print(f"with it: {len(engine_file()) / 1e6:.1f} MB")

# %%
# A saved module runs in a process that has never heard of the converter.

# Needs a GPU: the other process runs the engine.
# Output varies: errors depend on the GPU.
torch_tensorrt.save(after, str(folder / "schnet.ep"), arg_inputs=inputs)
torch.save({"inputs": inputs, "expected": after(*inputs)}, folder / "case.pt")
(folder / "serve.py").write_text("""
import torch, torch_tensorrt
model = torch_tensorrt.load("schnet.ep").module()
case = torch.load("case.pt")
answer, expected = model(*case["inputs"]), case["expected"]
print(f"off by {(answer - expected).norm() / expected.norm():.1e}")
""")
done = subprocess.run(
    [sys.executable, "serve.py"], cwd=folder, capture_output=True, text=True
)
print("exit status", done.returncode)
print(done.stdout.strip() if done.returncode == 0 else done.stderr[-500:])

# %%
# Exercise
# --------
# Write the same product in PyTorch, in place of ``index_add`` in ``Interaction``. It
# needs no converter. What does Inductor make of it, and what TensorRT? What would you
# do if the model came from a package?
#
# Takeaways
# ---------
# - A converter translates one node, a validator chooses which. Both are functions of
#   yours, and nobody checks them but you.
# - A gap costs an engine. Here :recorded:`engines_before` became
#   :recorded:`engines_after`, and :recorded:`launches_before` launches
#   :recorded:`launches_after`.
# - The converter's time over that of the engines with gaps is, in a CUDA graph,
#   :recorded:`graph_ratio_4` for four molecules and :recorded:`graph_ratio_32` for 32,
#   and without one :recorded:`host_ratio`.
# - A validator can refuse the shapes that a converter does badly: at 128 molecules the
#   sum takes :recorded:`ratio_128` times PyTorch's.
#
# The library's own text: `Writing Dynamo Converters
# <https://docs.pytorch.org/TensorRT/tutorials/extensibility/converters/dynamo_converters.html>`_.

# sphinx_gallery_tags = ["converters", "expert", "graph networks", "TensorRT-RTX"]
