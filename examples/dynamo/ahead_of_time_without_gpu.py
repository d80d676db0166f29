"""
Build engines on a machine without a GPU
========================================

Turn a PyTorch model into one portable TensorRT-RTX engine where there is no GPU, and
run it on the GPUs of your users.

**What you will learn**

- why TensorRT-RTX compiles in two phases, and which of them needs a GPU
- how to build an engine on a CPU-only machine with Torch-TensorRT's converters
- how to choose the GPU generations that an engine runs on, and what each one costs
- how to run the file on the target machine, and what a runtime cache saves there

**Prerequisites**

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas

This page is about TensorRT-RTX. Standard TensorRT (``torch-tensorrt``, the data-center
flavor) times kernels on the GPU while it builds, so it cannot build without one.
"""

# %%
# Two phases
# ----------
# An *engine* is what TensorRT makes of a network: the weights, and a plan of how to
# run it. Standard TensorRT makes the plan on the GPU that will run it, and the engine
# serves that kind of GPU only. That suits a data center. It does not suit an
# application that is downloaded by people whose GPUs you do not know.
#
# TensorRT-RTX therefore splits the work:
#
# - **Ahead of time**, on your side: fuse layers, lay out weights, write the engine.
#   This needs no GPU and no driver, so it fits an ordinary build server.
# - **Just in time**, on the user's side: compile the kernels for the GPU that is
#   there. A *runtime cache* keeps them, so that this is paid once.
#
# Torch-TensorRT expects a GPU all the same. As it is imported it asks PyTorch two
# questions: which compute capability the GPU has (to tell Jetson boards apart), and
# which GPU is the current one (to have a default). Without a driver, PyTorch raises an
# error. So we answer in its place. Neither answer reaches the engine: the GPUs that it
# is built for are chosen further down.
import contextlib
import copy
import io
import logging
import socket
import tempfile
import time
from functools import partial
from pathlib import Path

# Hints about optional packages would bury the output, and some come with the imports.
logging.disable(logging.WARNING)

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torchvision

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if device.type == "cpu":
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    torch.cuda.current_device = lambda: 0

import torch_tensorrt

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
if not torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
    raise RuntimeError("This tutorial needs torch-tensorrt-rtx: see Prerequisites.")

import tensorrt as trt  # Torch-TensorRT makes this name mean TensorRT-RTX
from torch_tensorrt.dynamo import CompilationSettings
from torch_tensorrt.dynamo.conversion import TRTInterpreter
from torch_tensorrt.dynamo.lowering import get_decompositions, post_lowering

print("TensorRT-RTX", trt.__version__)

# %%
# TensorRT reports errors through a logger. We collect them instead of showing them,
# because one of them is a lesson further down. (A machine without a driver also logs
# that it has none, as CUDA error 35. That is expected here.)
errors: list[str] = []
tensorrt_log = logging.getLogger("torch_tensorrt [TensorRT Conversion Context]")
tensorrt_log.addFilter(lambda record: errors.append(record.getMessage()))

# %%
# From a PyTorch model to a TensorRT network
# ------------------------------------------
# The model is a ResNet-18. An engine has the precision of its model, so we make the
# model float16.
socket.setdefaulttimeout(10)  # seconds to wait for a download
torch.manual_seed(0)
try:
    with contextlib.redirect_stdout(io.StringIO()):  # hides "Downloading ..."
        model = torchvision.models.resnet18(weights="DEFAULT", progress=False)
    print("Weights: pretrained (torchvision, ImageNet)")
except OSError:
    model = torchvision.models.resnet18(weights=None)
    print("Weights: random (torchvision's could not be downloaded)")
model = model.eval().requires_grad_(False)
half = copy.deepcopy(model).half()
image = torch.randn(1, 3, 224, 224)

# %%
# ``torch_tensorrt.compile`` goes all the way to a module that is loaded on a GPU. We
# stop halfway, where the *network* is complete: TensorRT's description of the
# computation, from which its *builder* makes an engine. The steps are the library's
# own:
#
# 1. ``torch.export`` captures the model as a graph.
# 2. Decompositions and ``post_lowering`` rewrite it into operators that have
#    converters.
# 3. ``TRTInterpreter`` walks the graph and calls a converter for each operator.
#
# ``_construct_trt_network_def`` is a private method. It is there in 2.14 and may move
# in a later release.
settings = CompilationSettings(lazy_engine_init=True)


def convert(model, example):
    program = torch.export.export(model, (example,))
    program = program.run_decompositions(get_decompositions())
    lowered = post_lowering(program.module(), settings)
    inputs = [torch_tensorrt.Input.from_tensor(example)]
    interpreter = TRTInterpreter(lowered, inputs, compilation_settings=settings)
    interpreter._construct_trt_network_def()
    return interpreter, lowered


interpreter, lowered = convert(half, image.half())
for tensor in (interpreter.ctx.net.get_input(0), interpreter.ctx.net.get_output(0)):
    print(tensor.name, tuple(tensor.shape), tensor.dtype)

# %%
# Is the lowered graph still the model? It is an ordinary PyTorch module, so we can
# run it. The check is in float32, because float16 convolutions are very slow on a CPU.
# It covers the rewriting. TensorRT's own arithmetic is checked on the GPU, below.
fresh = torch.randn(1, 3, 224, 224)
(actual,) = torch.utils._pytree.tree_leaves(copy.deepcopy(lowered).float()(fresh))
expected = copy.deepcopy(half).float()(fresh)
torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
print("The lowered graph matches the model within 1e-3: True")

# %%
# Choose the targets, and build
# -----------------------------
# A *compute capability* names a generation of GPUs. TensorRT-RTX can target 7.5
# (Turing, RTX 20), 8.0 and 8.6 (Ampere, RTX 30), 8.9 (Ada, RTX 40), 12.0 (Blackwell,
# RTX 50) and 12.1 (GB10). Without a choice, it targets 8.0 and later. With a choice,
# the engine is for the chosen ones alone. There is no 9.0: TensorRT-RTX is not made
# for data-center GPUs.
print([name for name in trt.ComputeCapability.__members__ if "SM" in name])


# Returns the engine's bytes, or None if the builder refuses.
def build(interpreter, targets):
    config = interpreter.builder.create_builder_config()
    if targets:
        config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target), index)
    engine = interpreter.builder.build_serialized_network(interpreter.ctx.net, config)
    return None if engine is None else bytes(engine)


# %%
# What does it cost to serve several generations with one file? We build one engine
# for each, one for RTX 30 to 50, one that adds RTX 20, and the default. The network is
# converted once and built many times.
GENERATIONS = {"RTX 20": "SM75", "RTX 30": "SM86", "RTX 40": "SM89", "RTX 50": "SM120"}
targets = {name: [capability] for name, capability in GENERATIONS.items()}
targets["RTX 30 to 50"] = ["SM86", "SM89", "SM120"]
targets["RTX 20 to 50"] = ["SM75", "SM86", "SM89", "SM120"]
targets["default: 8.0 and later"] = []

engines, seconds = {}, {}
build(interpreter, [])  # the first build also loads TensorRT's compiler
for name, capabilities in targets.items():
    begin = time.perf_counter()
    engines[name] = build(interpreter, capabilities)
    seconds[name] = round(time.perf_counter() - begin, 2)

# %%
# First the sizes. An engine holds weights and a plan, but no kernels: those are
# compiled on the user's GPU. So a further generation should cost little.
weight_bytes = sum(tensor.nbytes for tensor in half.state_dict().values())
sizes = pd.DataFrame({"bytes": {name: len(data) for name, data in engines.items()}})
sizes["MB"] = (sizes["bytes"] / 1e6).round(2)
sizes["kB beyond the weights"] = ((sizes["bytes"] - weight_bytes) / 1e3).round(1)
sizes

# %%
# So one file can replace several downloads.
size = sizes["bytes"]
parts = {name: {"an engine for each": size[name]} for name in GENERATIONS}
parts["one file"] = size.drop([*GENERATIONS]).to_dict()
axes = (pd.DataFrame(parts) / 1e6).plot.barh(stacked=True, figsize=(7, 3), width=0.7)
axes.set_xlabel("size of what you ship (MB)")
axes.legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1))
plt.show()

print(f"RTX 40 and 50 on top of RTX 30: {size['RTX 30 to 50'] - size['RTX 30']} bytes")
print(f"RTX 20 on top of those: {size.diff()['RTX 20 to 50'] / 1e3:.0f} kB")

# %%
# Then the time. Nothing is timed on a GPU ahead of time, so a build is short.

# Output varies: build times.
pd.Series(seconds, name="build (s)").to_frame()

# %%
# What a target lacks is refused
# ------------------------------
# Turing has no bfloat16. An engine that claimed to run there would fail on a user's
# desk, so the builder says no. It does so for a list as well, if one of its targets
# lacks the type. Better to learn it here than from a bug report.
bfloat16, _ = convert(copy.deepcopy(model).bfloat16(), image.bfloat16())
for capabilities in (["SM86", "SM120"], ["SM75"], ["SM75", "SM86", "SM120"]):
    answer = "refused" if build(bfloat16, capabilities) is None else "built"
    print("bfloat16 for", *capabilities, "->", answer)
print(next(error for error in errors if "sm75" in error))

# %%
# The file that you ship
# ----------------------
# The bytes are the whole engine, weights included, so writing them to a file is all.
# This page writes to a temporary folder. Choose one of your own to keep the file.
folder = tempfile.TemporaryDirectory()
built_here = Path(folder.name) / "resnet18-float16-rtx.engine"
built_here.write_bytes(engines["default: 8.0 and later"])
print(built_here.name, interpreter._input_names, interpreter._output_names)

# %%
# The target machine needs
#
# - an NVIDIA GPU that the engine was built for, and its driver;
# - the runtime of the *same release* of TensorRT-RTX that built the engine (printed at
#   the top), on Linux or on Windows: NVIDIA documents one engine as good for both;
# - the names, shapes and dtypes of the engine's inputs and outputs (printed above).
#
# It needs neither the model's source nor Torch-TensorRT. A C++ application loads the
# file with TensorRT-RTX alone. Below we use Torch-TensorRT again, because it wraps an
# engine in a PyTorch module, which is easy to compare and to measure.
#
# Everything from here on runs on the target machine. If a file of that name lies in
# the current folder, brought from the machine without a GPU, the cells use it. If not,
# they use the one that was just built, by the same code and without the GPU.

# Needs a GPU: an engine runs nowhere else.
# Output varies: the file may have been brought or not.
assert device.type == "cuda", "Take the engine file to a machine with an RTX GPU."
brought = Path(built_here.name)
shipped = (brought if brought.exists() else built_here).read_bytes()
print("Engine:", "brought here" if brought.exists() else "built by the cells above")

# %%
# Ask before you load
# -------------------
# ``get_engine_validity`` tells whether this GPU, driver and runtime accept an engine,
# without loading it. An application can ask before it shows its first window, and
# explain a refusal in words. ``UNSUPPORTED_CC`` means that the engine was not built for
# this GPU's compute capability, ``OLD_CUDA_RUNTIME`` that the machine's CUDA runtime is
# older than the one that the engine was built with.

# Needs a GPU: only a GPU can accept or refuse an engine.
# Output varies: the answer depends on GPU, driver and runtime.
runtime = trt.Runtime(torch_tensorrt.logging.TRT_LOGGER)
answers = {}
for name, data in {"the shipped file": shipped, **engines}.items():
    validity, bits = runtime.get_engine_validity(data)
    reasons = trt.EngineInvalidityDiagnostics.__members__.items()
    reasons = [reason for reason, bit in reasons if int(bits) & int(bit)]
    answers[name] = ", ".join([validity.name, *reasons])
print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
pd.Series(answers, name="answer").to_frame()

# %%
# The answer is about what is *supported*. An application should stop at ``INVALID``,
# and say why. We go on in either case, because it is worth knowing what happens: the
# runtime may refuse the engine in its own words, or load it all the same. A data-center
# GPU is not a supported target, yet it can resemble one closely enough. That an engine
# works there is then luck, and a later release may end it.
#
# Run it, and keep what was compiled
# ----------------------------------
# The first call compiles the kernels: that is the just-in-time phase. They go to a
# runtime cache, which we save to a file. A second start reads the file and skips most
# of the work. Ship the engine; let each machine keep its own cache.
#
# For comparison we also build an engine for this very GPU (``CURRENT``), which is not
# portable and is called *own* below. If portability costs speed, it shows against it.

# Needs a GPU: compiles kernels for it.
# Output varies: seconds on the clock.
from torch_tensorrt.runtime import RuntimeCache, RuntimeSettings, TorchTensorRTModule

eager, x = copy.deepcopy(half).cuda(), image.half().cuda()
eager(x)  # so that loading CUDA is not counted below


# Loads an engine and runs it once; saves what was compiled.
def start(data, name):
    left, begin = torch.cuda.mem_get_info()[0], time.perf_counter()
    names = interpreter._input_names, interpreter._output_names
    module = TorchTensorRTModule(data, *names, settings=settings)
    cache = RuntimeCache(path=f"{folder.name}/{name}.cache")
    cache.load()
    module.runtime_settings = RuntimeSettings(runtime_cache=cache)
    module.setup_engine()
    module(x)
    torch.cuda.synchronize()
    elapsed = time.perf_counter() - begin
    cache.save()
    return module, elapsed, left - torch.cuda.mem_get_info()[0]


modules, start_s, engine_bytes = {}, {}, {}
for name in ("TensorRT, portable", "TensorRT, own"):
    errors.clear()
    try:
        data = build(interpreter, ["CURRENT"]) if "own" in name else shipped
        modules[name], start_s[name], _ = start(data, name)
        _, again, engine_bytes[name] = start(data, name)
        print(f"{name}: first start {start_s[name]:.2f} s, second {again:.2f} s")
    except Exception as error:  # a refusal, in the runtime's own words
        print(f"{name}: refused. {error!r}", *errors[-1:])

# %%
# The comparison with eager, on an input that no engine has seen. The tolerance is
# relative to the largest output, and wide enough for float16 sums in another order.

# Needs a GPU: compares what the engines compute with eager.
unseen = torch.randn(1, 3, 224, 224, device="cuda").half()
expected = eager(unseen).float()
for name, module in modules.items():
    error = (module(unseen).float() - expected).abs().max() / expected.abs().max()
    assert error < 2e-2, f"{name}: relative error {error:.1e}"
    print(f"{name}: relative error below 2e-2: True")

# %%
# How fast it could be
# --------------------
# Before measuring, the limit. One image needs so many operations, and the weights have
# to be read once. A large matrix product and a large copy tell what this GPU sustains.
# Nothing can be faster than the slower of the two.

# Needs a GPU: measures what it sustains.
# Output varies: rates on the clock.
from torch.utils.flop_counter import FlopCounterMode
from triton.testing import do_bench

with FlopCounterMode(display=False) as counter:
    eager(x)
a = torch.randn(8192, 8192, device="cuda").half()
flops_per_ms = 2 * 8192**3 / do_bench(lambda: a @ a, return_mode="median")
bytes_per_ms = 2 * a.nbytes / do_bench(lambda: a.clone(), return_mode="median")
compute_ms = counter.get_total_flops() / flops_per_ms
limit_ms = max(compute_ms, weight_bytes / bytes_per_ms)
print(f"Sustained: {flops_per_ms / 1e9:.0f} TFLOP/s, {bytes_per_ms / 1e6:.0f} GB/s")
print(f"Limit: {limit_ms:.4f} ms, of which arithmetic {compute_ms:.4f} ms")

# %%
# The measurement
# ---------------
# With one small image the GPU waits for the CPU, which launches kernels one by one. A
# *CUDA graph* launches them all at once. So each backend is measured as it is, and
# captured by hand in a CUDA graph.
#
# Memory is what a call needs: weights, activations and work space. PyTorch's allocator
# tells the most that a call took. For eager and Inductor, the model's weights come on
# top. An engine allocates outside of PyTorch: what comes on top for it is how much less
# memory the driver had left, above, after its second start. (The first one also loads
# what all engines share.) The driver hands out memory in large pieces, and an engine
# may get one that an earlier engine gave back. So take TensorRT's figures as rough, and
# do not read a price of portability out of their difference.


# Needs a GPU: latency.
# Output varies: latency.
def captured(function):
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            function(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function(x)
    return graph.replay


functions = {"eager": eager, "Inductor": torch.compile(eager), **modules}
rows = []
for name, function in functions.items():
    begin = time.perf_counter()
    function(x)
    torch.cuda.synchronize()
    compile_s = start_s.get(name, time.perf_counter() - begin)
    for label in (name, f"{name}, CUDA graph"):
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call = captured(function) if "graph" in label else partial(function, x)
        call()
        used = torch.cuda.max_memory_allocated() - held
        used += engine_bytes.get(name, weight_bytes)
        latency = do_bench(call, return_mode="median")
        speedup = rows[0][4] / latency if rows else 1.0
        rows.append(["ResNet-18", label, "float16", "1x3x224x224", latency])
        rows[-1] += [speedup, used / 2**20, compile_s]

# %%
# What came out, in numbers that this run measured. Expect a small fraction of the
# limit. It assumes that every kernel fills the GPU, and one image gives a ResNet's
# many layers too little work for that. Larger batches come closer: the tutorial on
# ResNet with ``torch.compile`` measures how much.

# Needs a GPU: shows the measurement.
# Output varies: latency.
columns = "model backend precision shape latency_ms speedup peak_memory_mb compile_s"
results = pd.DataFrame(rows, columns=columns.split())
axes = results[::-1].plot.barh("backend", "latency_ms", figsize=(7, 3), legend=False)
axes.axvline(limit_ms, color="black", linestyle="--")
axes.set(xlabel="latency (ms); dashed: the limit", ylabel="")
plt.show()

latency = results.set_index("backend")["latency_ms"]
print(f"Fastest: {latency.idxmin()}, {limit_ms / latency.min():.0%} of the limit")
if len(modules) == 2:
    ratio = latency["TensorRT, portable, CUDA graph"]
    ratio /= latency["TensorRT, own, CUDA graph"]
    print(f"The portable engine takes {ratio:.2f} times as long as one for this GPU")
folder.cleanup()
results.round(4)

# %%
# Takeaways
# ---------
# - TensorRT-RTX builds engines without a GPU. A build server needs no driver.
# - An engine holds weights and a plan. Kernels are compiled on the user's GPU, so a
#   further generation of GPUs costs next to nothing in the file.
# - Turing is the exception: it is not among the default targets, it lacks bfloat16, and
#   adding it makes the file larger. Give it an engine of its own if that matters.
# - On the user's machine, ask ``get_engine_validity`` before loading, and keep the
#   runtime cache between starts. An engine that is invalid there may still run, but
#   nobody promises that it will.
# - On a machine that has a GPU, ``torch_tensorrt.compile`` does it all in one call.
# - NVIDIA's page on `building without a GPU
#   <https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html>`__
#   has the details.

# sphinx_gallery_tags = ["TensorRT-RTX", "deployment", "ahead of time", "vision"]
