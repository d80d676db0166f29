"""
Build on Linux, run on Windows
==============================

Make an engine on Linux that a Windows application can load, know what is in the file,
and find out there that it is the right one and undamaged.

At a glance
-----------

- TensorRT-RTX: by NVIDIA's word one file serves Linux and Windows. Here it has
  :recorded:`engine_kb` kB for :recorded:`weights_kb` kB of weights. There is nothing to
  cross-compile: ``cross_compile_for_windows`` is refused.
- Ship the engine's bytes. A module saved by Torch-TensorRT carries the system's name,
  and is refused on another.
- A damaged file can load and answer wrongly: of :recorded:`trials` files with one
  changed bit each, :recorded:`refused` were refused, and :recorded:`wrong` answered
  wrongly, all with the bit in the weights. Ship a checksum.
- No cell of this page ran on Windows. What is portable is NVIDIA's word, linked below.

What you will learn
-------------------

- Which way leads to Windows with standard TensorRT, and which with TensorRT-RTX.
- What stands in an engine file, and how to read its inputs and outputs back.
- What ``get_engine_validity`` finds, and what it does not.

Prerequisites
-------------

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* matplotlib pandas

On Windows the same line installs the same release, from wheels of its own. Its PyTorch
must be a CUDA build, which `PyTorch's selector
<https://pytorch.org/get-started/locally/>`_ names. You need to know PyTorch, but not
TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# An engine file
# --------------
# Many applications are trained and packed on Linux, and used on Windows. So we want a
# file that a build server makes, and a desktop loads. The model is small, so that one
# can look into its file; nothing below depends on its size.

import hashlib
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

logging.disable(logging.WARNING)  # hints for the library's own developers

import torch
import torch_tensorrt

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.manual_seed(0)
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = torch.nn.Sequential(
    torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)
)
model = model.eval().to(device)
print("Weights: random, a model of this page's own")

x, fresh = torch.randn(2, 4, 256, device=device)
program = torch.export.export(model, (x,))
plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
    program, arg_inputs=[x], min_block_size=1
)
folder = Path(tempfile.mkdtemp())
(folder / "model.engine").write_bytes(plan)
print(f"engine_kb = {len(plan) / 1e3:.0f}")

# %%
# These bytes are all of it: the weights, and a plan of what to compute. TensorRT-RTX
# makes the kernels on the machine that loads the file, so the file has none, and it
# needs no GPU to be made. NVIDIA documents it as `portable to Windows and Linux
# <https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html>`_
# for the GPU generations that it was built for (:doc:`ahead_of_time_without_gpu`
# chooses them). The same *release* of TensorRT-RTX has to load it.
#
# Two ways to Windows
# -------------------
# Standard TensorRT is another matter. It chooses kernels while it builds, and they
# belong to a system. For it, Torch-TensorRT has ``cross_compile_for_windows``. What you
# have installed decides which way is yours:

cross_compiles = torch_tensorrt.ENABLED_FEATURES.windows_cross_compile
print("Standard TensorRT's cross compiler:", "there" if cross_compiles else "not there")
try:
    crossed = torch_tensorrt.dynamo.cross_compile_for_windows(
        program, arg_inputs=[x], min_block_size=1
    )
    torch_tensorrt.dynamo.save_cross_compiled_exported_program(crossed, "windows.ep")
    print("Saved windows.ep, for torch_tensorrt.load_cross_compiled_exported_program")
except NotImplementedError as refused:
    print("cross_compile_for_windows:", refused)
try:
    torch_tensorrt.load_cross_compiled_exported_program("windows.ep")
except ValueError as refused:
    print("load_cross_compiled_exported_program:", refused)

# %%
# With TensorRT-RTX the first is refused, and not needed. The second works on Windows
# alone, whatever the flavor, so such a file cannot be tried where it is made.
#
# Does TensorRT-RTX know of systems at all? Its builder has a setting for it, which
# Torch-TensorRT does not use. We ask TensorRT itself.
import tensorrt as trt  # Torch-TensorRT makes this name mean the installed flavor.


class Told(trt.ILogger):
    """Keeps what TensorRT says at level ERROR."""

    def __init__(self):
        super().__init__()
        self.errors = []

    def log(self, severity, message):
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(message)


logger = Told()
config = trt.Builder(logger).create_builder_config()
config.runtime_platform = trt.RuntimePlatform.WINDOWS_AMD64
print("runtime_platform is", config.runtime_platform.name)
for message in logger.errors:
    if "latform" in message:
        print(message.split(" In ")[0])

# %%
# It has the setting and refuses it: an engine cannot be built *for Windows*. What is
# said to run there is the ordinary engine. That it does is not shown by this cell.
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
# What is in the file
# -------------------
# We look for the model's own weights in it, byte for byte.


def places(data):
    """Where each weight stands in the file: name, first byte, number of bytes."""
    found = []
    for name, weight in model.state_dict().items():
        raw = weight.cpu().numpy().tobytes()
        found.append((name, data.find(raw), len(raw)))
    return found


weights = places(plan)
for name, start, size in weights:
    print(
        f"{name}: {size:,} bytes", f"at {start:,}" if start >= 0 else "not as they are"
    )
in_weights = sum(size for _, start, size in weights if start >= 0)
print(f"weights_kb = {in_weights / 1e3:.0f}")
print(f"rest_kb = {(len(plan) - in_weights) / 1e3:.0f}")

# %%
# Whoever has the file has the weights: it is no protection for them. The rest,
# :recorded:`rest_kb` kB, is the plan. Part of it is plain text, and tells what the
# engine was built for.
text = plan.decode("latin-1")
for word in ("inputs=", "outputs=", "accelerators=", "version_compatible="):
    place = text.find(word)
    if place >= 0:
        print(text[place:].splitlines()[0])

# %%
# ``accelerators`` is the oldest generation that the engine runs on (:term:`compute
# capability` 8.0). No system is named. Do two builds give the same bytes? Then a build
# server can be checked, and users download a file only when it has changed.

again = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
    program, arg_inputs=[x], min_block_size=1
)
digest = hashlib.sha256(plan).hexdigest()
print("SHA-256", digest == hashlib.sha256(again).hexdigest(), "for a second build")

# %%
# Load it by what it says of itself
# ---------------------------------
# The application knows the file's name and nothing else. The engine tells the names,
# shapes and dtypes of its inputs and outputs. This program compares them with what it
# expects before it runs, so that an update of the model that changed a shape ends in a
# sentence. It uses TensorRT-RTX and PyTorch, no Torch-TensorRT, and nothing of a
# system.
LOADER = """
import hashlib, sys
from pathlib import Path
import torch
import tensorrt_rtx as trt

folder, digest = Path(sys.argv[1]), sys.argv[2]
plan = (folder / "model.engine").read_bytes()
if hashlib.sha256(plan).hexdigest() != digest:
    sys.exit("The engine's file is damaged or of another release: download it again.")
runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
engine = runtime.deserialize_cuda_engine(plan)
if engine is None:
    sys.exit("TensorRT-RTX refuses the engine: update the application.")
names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
shapes = [tuple(engine.get_tensor_shape(name)) for name in names]
print(dict(zip(names, shapes)))
if shapes != [(4, 256), (4, 10)]:
    sys.exit("The engine has other shapes than this application.")
context = engine.create_execution_context()
tensors = [torch.load(folder / "input.pt").cuda(), torch.empty(shapes[1]).cuda()]
for name, tensor in zip(names, tensors):
    context.set_tensor_address(name, tensor.data_ptr())
stream = torch.cuda.Stream()
context.execute_async_v3(stream.cuda_stream)
stream.synchronize()
torch.save(tensors[1].cpu(), folder / "answer.pt")
"""
(folder / "loader.py").write_text(LOADER)
torch.save(fresh.cpu(), folder / "input.pt")

# %%
# Here it runs in a process of its own. First with the right digest, then with that of
# another file.

# Needs a GPU: an engine runs nowhere else.
for name, expected in {
    "right": digest,
    "other": hashlib.sha256(b"").hexdigest(),
}.items():
    command = [sys.executable, folder / "loader.py", folder, expected]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = (done.stdout + done.stderr).strip().splitlines()[-1]
    print(f"{name} digest, exit status {done.returncode}: {said}")
answer = torch.load(folder / "answer.pt").to(device)
error = check(lambda _: answer, model, (fresh,), (x,), 1e-2, "loaded from bytes")

# %%
# How fast is an engine that was read from bytes? Here it is against PyTorch's ways to
# run this model. With matrices as small as these, all of them wait
# for launches and not for arithmetic.
#
# .. note::
#
#    ``TorchTensorRTModule`` makes a PyTorch module from bytes. The names are those that
#    the loader printed.

# Needs a GPU: it measures.
# Output varies: it prints timings.
warm_up()


def from_bytes(system=None):
    """A PyTorch module around the engine's bytes; `system` in place of this one."""
    settings = torch_tensorrt.dynamo.CompilationSettings(lazy_engine_init=True)
    names = ["input"], ["output0"]
    module = TorchTensorRTModule(plan, *names, name="model", settings=settings)
    module.target_platform = system or module.target_platform
    module.setup_engine()
    return module


ways = pytorch_alone(model, autotune=False) | {"TensorRT, from bytes": from_bytes}
about = {"model": "two layers", "shape": "4x256", "tolerance": 1e-2}
table = results(compare(ways, model, [x], [fresh], **about))
by_backend = table.set_index("backend")
print(f"speedup = {by_backend.speedup['TensorRT, from bytes, CUDA graph']:.2f}")
table.round(4)

# %%
# In a CUDA graph the engine is :recorded:`speedup` times as fast as PyTorch's best
# (without ``max-autotune``). By default TensorRT may use TF32 for float32, and PyTorch
# does not: see ``error``. PyTorch is ahead all the same.
#
# Seconds until ready against latency. For the engine they are the seconds to load it:
# the build happened elsewhere.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: seconds until ready against latency; the engine is loaded, not built.
plot_ready(table)

# %%
# When it goes wrong
# ------------------
# **A module saved on Linux is refused on Windows.** ``torch_tensorrt.save`` writes the
# engine together with the name of the system, and Torch-TensorRT compares it. We give a
# module the name of the other system and load it, as a Windows machine would see ours.

# Needs a GPU: it loads an engine.
from torch_tensorrt import Platform

print("This module's system:", from_bytes().target_platform)
try:
    from_bytes(Platform.WIN_X86_64)
except RuntimeError as refused:
    print(str(refused).splitlines()[0])

# %%
# The engine inside would do, so the cure is to ship its bytes, and to make the module
# where it runs, as ``from_bytes`` does.
#
# **The file is damaged.** ``get_engine_validity`` asks whether a file fits this GPU,
# driver and release, without loading it. What does it say of damaged ones? The files
# are asked, loaded and called in another process, since nobody knows how that ends.
TRY = """
import json, sys
from pathlib import Path
import torch
import tensorrt_rtx as trt

runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
given, right = torch.load("input.pt").cuda(), torch.load("right.pt").cuda()

def outcome(plan):
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context()  # None has none: an exception
    answer = torch.zeros_like(right)
    for number, tensor in enumerate((given, answer)):
        context.set_tensor_address(engine.get_tensor_name(number), tensor.data_ptr())
    ran = context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    if not ran:
        return "refused"
    error = ((answer - right).norm() / right.norm()).item()
    return "right" if error < 1e-2 else "wrong"
"""

# %%
# The second half of the program: what is said of each file, and how it ends.
SAY = """
for file in sys.argv[1:]:
    plan = Path(file).read_bytes()
    try:
        validity, bits = runtime.get_engine_validity(plan)
        reasons = trt.EngineInvalidityDiagnostics.__members__.items()
        said = [name for name, bit in reasons if int(bits) & int(bit)]
        said = " ".join([validity.name, *said])
    except Exception as error:
        said = type(error).__name__
    print(json.dumps([file, said]), flush=True)
    try:
        answer = outcome(plan)
    except Exception as error:
        answer = "refused"
    print(json.dumps([file, said, answer]), flush=True)
"""
(folder / "try.py").write_text(TRY + SAY)

# %%
# A process that dies tells nothing more, so the files that it had not come to are given
# to another.


def tried(files):
    """For each file what was said of it and how it ended; a dead process is an end."""
    found, left = {}, list(files)
    for _ in range(12):
        command = [sys.executable, "try.py", *left]
        options = {"capture_output": True, "text": True, "cwd": folder}
        try:
            told = subprocess.run(command, timeout=60, **options).stdout
            end = "process died"
        except subprocess.TimeoutExpired as hung:
            told, end = (hung.stdout or b"").decode(), "hung"
        for file, said, *answer in map(json.loads, told.splitlines()):
            found[file] = said, answer[0] if answer else end
        left = [file for file in files if file not in found]
        if not left:
            break
    return pd.DataFrame(found, index=["validity", "result"]).T


# %%
# The good file first; one that is cut short, as by a broken download; one with another
# first letter; one that is no engine at all; an empty one.

# Needs a GPU: only a GPU can accept or refuse an engine.
# Output varies: the answer depends on GPU, driver and runtime.
torch.save(model(fresh).cpu(), folder / "right.pt")
suspects = {
    "good": plan,
    "cut short": plan[: len(plan) // 2],
    "another first letter": b"x" + plan[1:],
    "no engine": LOADER.encode(),
    "empty": b"",
}
for name, data in suspects.items():
    (folder / name).write_bytes(data)
print(torch.cuda.get_device_name())
tried(suspects)

# %%
# TensorRT-RTX lists no data-center GPU, so there it may call the good file invalid too.
# Here it does, and says the same of the file that is cut short. It sees a damaged
# beginning. What it says on a GPU that TensorRT-RTX lists was not recorded.
#
# Now one bit at a time. We change one in each of many places, half of them in the
# weights and half in the plan.

# Needs a GPU: it runs engines.
# Output varies: what a changed bit does may differ by GPU and release.
generator = torch.Generator().manual_seed(0)
inside = [range(start, start + size) for _, start, size in weights if start >= 0]
weight_bytes_at = torch.tensor([place for span in inside for place in span])
plan_bytes_at = torch.ones(len(plan), dtype=torch.bool)
plan_bytes_at[weight_bytes_at] = False
plan_bytes_at = plan_bytes_at.nonzero().flatten()
where = {}
for part, candidates in {"weights": weight_bytes_at, "plan": plan_bytes_at}.items():
    picked = torch.randperm(len(candidates), generator=generator)[:30]
    for place in candidates[picked].tolist():
        data = bytearray(plan)
        data[place] ^= 0b01000000
        (folder / f"{place}").write_bytes(data)
        where[f"{place}"] = part
bits = tried(where)
bits["part"] = pd.Series(where)
counts = bits.groupby(["part", "result"]).size().unstack(fill_value=0)
ends = bits.result.value_counts()
print(f"trials = {len(bits)}")
for end in ("right", "wrong", "refused"):
    print(f"{end} = {ends.get(end, 0)}")
counts

# %%
# Each trial at its place in the file.

# Needs a GPU: it draws what was tried.
# Output varies: it draws what was tried.
# Figure: where a bit was changed in the file, and how the engine answered.
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
ends = sorted(bits.result.unique())
for number, end in enumerate(ends):
    at = [int(place) / 1e3 for place in bits.index[bits.result == end]]
    axis.plot(at, [number] * len(at), "|", ms=14, color=f"C{number}")
for span in inside:
    axis.axvspan(span.start / 1e3, span.stop / 1e3, color="0.5", alpha=0.15, lw=0)
axis.set_yticks(range(len(ends)), ends)
axis.set(xlabel="place in the file in kB (grey: weights)", ylim=(-0.5, len(ends) - 0.5))
plt.show()

# %%
# No change in the weights was refused, and all wrong answers come from there. *Right*
# means an error below the tolerance. Half of the trials are in the plan, which is a
# small part of the file, so the counts are no rates of a real download.
#
# A file that loads and answers wrongly gave no sign of it. The digest in the loader
# sees each of these changes. It costs a read of the file, which happens anyway.
#
# Take it to production
# ---------------------
# On the build server: build, write the file and its SHA-256, and name the file after
# the release of TensorRT-RTX that made it. In the application: the same release of
# TensorRT-RTX, the loader above, and a runtime cache
# (:doc:`ahead_of_time_without_gpu`).

release = trt.__version__
manifest = {"file": f"model-rtx-{release}.engine", "sha256": digest, "release": release}
(folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
print(manifest["file"], digest[:12])

# %%
# Exercise
# --------
# Build the model in ``float16`` and change the bits again, this time the highest bit of
# a weight's two bytes and then the lowest. Which of the two does the check of the
# answer see, and which does only the digest see?
#
# Takeaways
# ---------
# - TensorRT-RTX: by NVIDIA's word one file for both, built without naming a system.
#   Standard TensorRT: ``cross_compile_for_windows``, on Linux.
# - Ship bytes, not a saved module: a module carries its system's name.
# - Of :recorded:`trials` changed bits :recorded:`wrong` led to a wrong answer without a
#   word, :recorded:`refused` to a refusal. Compare a digest before you load.
# - ``get_engine_validity`` is there to tell whether a file fits the machine. Whether it
#   is whole, a digest tells.

# sphinx_gallery_tags = ["TensorRT-RTX", "deployment", "Windows"]
