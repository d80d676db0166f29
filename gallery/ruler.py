"""The measuring code of all tutorials: its one source.

Everything below this docstring stands verbatim in each tutorial that measures, as one
code cell, so that the tutorial still runs alone. ``python -m gallery ruler`` writes it
there. The tutorial ``how_we_measure`` explains it line by line.
"""

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
