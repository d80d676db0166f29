"""
VGG-16 in eight bits
====================

Quantize a trained VGG-16 with NVIDIA ModelOpt, turn it into a TensorRT engine, and see
what accuracy it costs and what it gains.

At a glance
-----------

- Of :recorded:`pictures` test pictures, float16 gets :recorded:`accuracy_float16`
  right, FP8 :recorded:`accuracy_fp8`. The engine shrinks from
  :recorded:`float16_mb` to :recorded:`fp8_mb` MB.
- Only layers whose FP8 is right are in FP8. A linear layer is:
  :recorded:`fp8_linear`. A convolution, by TensorRT-RTX on this GPU, which NVIDIA does
  not list for it, is: :recorded:`fp8_conv`, and no message says so.
- For one picture FP8 takes :recorded:`fp8_b1_ms` ms, float16 :recorded:`float16_b1_ms`
  ms: :recorded:`did_gain_b1` times as fast, and :recorded:`did_gain_many` for a batch.
  With all layers in FP8, the GPU's limits would allow :recorded:`should_gain_b1` and
  :recorded:`should_gain_many`. Inductor in float16 takes :recorded:`inductor_b1_ms` ms
  for one picture; for the batch :recorded:`over_inductor_many` times FP8's time.
- INT8 weights leave the arithmetic in float16: :recorded:`int8_mb` MB and
  :recorded:`int8_b1_ms` ms.
- With all layers rounded, simulated in PyTorch, FP8 calibrated with one digit gets
  :recorded:`fp8_1` right, with 64 :recorded:`fp8_64`, with black pictures
  :recorded:`fp8_black`. Accuracy does not see what black pictures do to the answer; a
  figure below does.

What you will learn
-------------------

- How to quantize a model with ModelOpt and compile it, in three steps.
- How to ask which quantized layers this flavor of TensorRT takes, before a long build.
- How many pictures calibration needs, and what wrong pictures do.
- Which layers lose most, and how to leave one out.
- What eight bits can gain by the GPU's limits, and what they do gain.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* nvidia-modelopt==0.47.0
    pip install scikit-learn matplotlib pandas

With ``torch-tensorrt``, TensorRT's data-center flavor, the same code runs, and INT8
with eight-bit activations is measured as well. That is not recorded here, because
TensorRT-RTX does not list INT8 activations. FP8 needs a GPU of compute capability 8.9
or later. Without a GPU a small VGG is trained, and its FP8 engine is built.

Which interface is the right one? Torch-TensorRT's own calibrator classes belonged to
TorchScript. ModelOpt puts quantizers into the PyTorch model itself, and they go through
``torch.export`` like any other operator.
"""

# %%
# ModelOpt
# --------
#
# ModelOpt has to be there *before* ``import torch_tensorrt``, which registers the
# converters of its operators or leaves them out with a warning. Where it is not
# installed, this cell puts it into a folder of its own: once it is among your packages,
# every ``import torch_tensorrt`` loads it, and Transformers and PEFT if they are there.

# Output varies: pip may have something to say.
import contextlib
import copy
import importlib.util
import inspect
import io
import logging
import os
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", module="modelopt|torch")
logging.disable(logging.WARNING)
folder = Path(tempfile.mkdtemp())
if importlib.util.find_spec("modelopt") is None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--target", folder / "packages"]
    command += ["nvidia-modelopt==0.47.0", "pulp==3.3.2", "omegaconf==2.4.0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"No ModelOpt here: {done.stderr.splitlines()[-1]}")
    sys.path.append(str(folder / "packages"))

# %%
# Three precautions. If Torch-TensorRT was imported before ModelOpt was there, its
# converters are loaded once more. ModelOpt would compile CUDA code for its quantizers,
# for minutes, where it finds a compiler; its own functions in PyTorch's operators do
# the same. And it refuses a recipe that leaves no weight to round, which may happen
# below.

# Output varies: it names the device.
import modelopt.torch.quantization as mtq
import torch
import torch_tensorrt
from modelopt.torch.quantization import extensions, tensor_quant
from modelopt.torch.quantization.utils import export_torch_mode
from sklearn.datasets import load_digits
from torch.nn import functional
from torch_tensorrt.dynamo.conversion import DYNAMO_ATEN_CONVERTERS

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = torch.cuda.is_available()
standard = not torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
if torch.ops.tensorrt.quantize_op.default not in DYNAMO_ATEN_CONVERTERS:
    from torch_tensorrt.dynamo.conversion import aten_ops_converters

    importlib.reload(aten_ops_converters)
os.environ["MODELOPT_SKIP_WEIGHT_QUANT_CHECK"] = "1"


def use_pytorch():
    """Give ModelOpt, for INT8, functions in place of the ones that it would compile."""
    in_pytorch = tensor_quant._tensor_quant  # private, seen in 0.47

    def by_channel(values, largest, axis, *how):
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        return in_pytorch(values, largest.view(shape), *how)

    extensions.get_cuda_ext.extension = types.SimpleNamespace(
        fake_tensor_quant=in_pytorch, fake_tensor_quant_with_axis=by_channel
    )
    extensions.get_cuda_ext_fp8.extension = None  # for FP8 it has a way of its own


use_pytorch()
print("Standard TensorRT" if standard else "TensorRT-RTX", "on", device.type)

# %%
# A task that can be failed
# -------------------------
#
# The accuracy must be able to fall. So we read handwritten digits (scikit-learn ships
# them, 8 by 8 pixels) under so much noise that some cannot be told, enlarged to the
# size that VGG-16 expects. A thousand digits are for training and calibration, the
# others for the test. Each digit is drawn with noise of its own.

large = on_gpu and torch.cuda.get_device_properties(0).total_memory > 16e9
side, width, hidden, steps = (224, 64, 4096, 500) if large else (32, 8, 128, 120)
batch = 32 if large else 16
if not on_gpu:
    torch.set_num_threads(1)  # layers as small as these gain nothing from more
print("VGG-16 at full size" if large else "A small VGG: less than 16 GB of GPU memory")
torch.manual_seed(0)
torch.backends.cudnn.benchmark = False
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
labels = torch.tensor(digits.target)


def draw(indices, seed):
    """Noisy pictures of some digits, [n, 3, side, side], about -1 to 1; float32."""
    generator = torch.Generator().manual_seed(seed)
    chosen = images[indices]
    noisy = chosen + 0.2 * torch.randn(chosen.shape, generator=generator)
    size = (side, side)
    large = functional.interpolate(noisy.to(device), size=size, mode="bicubic")
    return (2 * large - 1).expand(-1, 3, -1, -1).contiguous()


# %%
# VGG-16 has 13 convolutions and three linear layers, which hold nine tenths of its
# weights. The variant with batch norm can be trained from nothing. ``width`` is 64 in
# the paper.


def vgg16(width, side, hidden, classes=10):
    """VGG-16 with batch norm as one sequence of layers."""
    layers, channels = [], 3
    for multiple, repeats in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
        for _ in range(repeats):
            wide = multiple * width
            layers.append(torch.nn.Conv2d(channels, wide, 3, padding=1))
            layers += [torch.nn.BatchNorm2d(wide), torch.nn.ReLU()]
            channels = wide
        layers.append(torch.nn.MaxPool2d(2))
    layers.append(torch.nn.Flatten())
    for given in (channels * (side // 32) ** 2, hidden):
        layers += [torch.nn.Linear(given, hidden), torch.nn.ReLU(), torch.nn.Dropout()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(hidden, classes))


model = vgg16(width, side, hidden).to(device, memory_format=torch.channels_last)
rate = 3e-4 if large else 3e-3
optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
for step in range(steps):
    indices = torch.randint(1000, (64,))
    with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
        answers = model(draw(indices, seed=step))
        loss = functional.cross_entropy(answers, labels[indices].to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
print("Weights: trained on this page, on scikit-learn's digits")

# %%
# For inference each batch norm is folded into the convolution before it, and dropout
# goes. That is VGG-16 as it was published. It has to happen before quantizing, because
# the weights that are rounded should be the ones that are used.


def folded(model):
    """The model for inference: batch norms in the convolutions, no dropout."""
    kept = []
    for layer in model.eval():
        if isinstance(layer, torch.nn.BatchNorm2d):
            kept[-1] = torch.nn.utils.fusion.fuse_conv_bn_eval(kept[-1], layer)
        elif not isinstance(layer, torch.nn.Dropout):
            kept.append(layer)
    return torch.nn.Sequential(*kept).requires_grad_(False)


@torch.no_grad()
def classes(run, pictures):
    """The class that a model names for each picture, a batch at a time."""
    return torch.cat([run(part).argmax(1) for part in pictures.split(batch)])


full = folded(model)
half = copy.deepcopy(full).half()
tests = 1000 + torch.arange(24 * 32 if large else 12 * 16)
truth = labels[tests].repeat(2).to(device)
unseen = torch.cat([draw(tests, seed=1001), draw(tests, seed=1002)])
print(f"pictures = {len(unseen)}")


def accuracy(run, dtype=torch.float16):
    """Share of the test pictures that a model reads right."""
    return (classes(run, unseen.to(dtype)) == truth).float().mean().item()


# %%
# In float32 and in float16 it reads this share of the test pictures:

# Output varies: training does.
accuracy_float16 = accuracy(half)
print(f"accuracy_float32 = {accuracy(full, torch.float32):.1%}")
print(f"accuracy_float16 = {accuracy_float16:.1%}")

# %%
# Three steps to an engine
# ------------------------
#
# 1. *Quantize.* ModelOpt puts *quantizers* around each layer. They round to eight bits
#    and back, so the model still runs in PyTorch, and its accuracy is known before
#    anything is built. FP8 rounds weights and activations to eight-bit floats. The
#    scale of an activation comes from *calibration*: the largest value that some
#    pictures bring about.
# 2. *Export* in ModelOpt's export mode, in which a quantizer is one operator.
# 3. *Compile.* Torch-TensorRT builds an *engine*, an optimized program for this GPU.
#    The operator becomes a pair of layers, quantize and dequantize, and TensorRT looks
#    for an eight-bit kernel for what stands between them.

recipes = {
    "FP8": copy.deepcopy(mtq.FP8_DEFAULT_CFG),
    "INT8 weights": copy.deepcopy(mtq.INT8_WEIGHT_ONLY_CFG),
    "INT8": copy.deepcopy(mtq.INT8_DEFAULT_CFG),
}
taken = copy.deepcopy(recipes)  # less what this machine's TensorRT refuses


def quantized(model, config, pictures):
    """A copy of the model with quantizers, calibrated with the pictures."""
    twin = copy.deepcopy(model)
    with contextlib.redirect_stdout(io.StringIO()):  # "Inserted 48 quantizers"
        return mtq.quantize(twin, config, lambda twin: twin(pictures))


def to_engine(model, example):
    """The compiled model, for inputs of the example's shape."""
    with torch.no_grad(), export_torch_mode():
        program = torch.export.export(model, (example,), strict=False)
    settings = {"arg_inputs": (example,), "min_block_size": 1}
    return torch_tensorrt.dynamo.compile(program, **settings)


# %%
# What does TensorRT take?
# ------------------------
#
# Not every layer has an eight-bit kernel on every GPU, and the flavors differ.
# TensorRT-RTX says that it has no INT8 for activations. Rather than believe a list, we
# ask: a large layer of each kind, and VGG's first and last with their few channels, in
# processes of their own, as a kernel that fails can take its process along. They report
# what the engine weighs (two bytes a weight is float16, one is eight bits) and how far
# its answer is from the same rounding in PyTorch.

PROBE = f"""
import contextlib, copy, io, sys, types
import modelopt.torch.quantization as mtq
import torch, torch_tensorrt
from modelopt.torch.quantization import extensions, tensor_quant
from modelopt.torch.quantization.utils import export_torch_mode
{inspect.getsource(use_pytorch)}
use_pytorch()
{inspect.getsource(quantized)}
{inspect.getsource(to_engine)}
def probe(layer, example):
    twin = quantized(layer, getattr(mtq, sys.argv[1]), example)
    engine = to_engine(twin, example)
    (part,) = (p for p in engine.modules() if hasattr(p, "serialized_engine"))
    with torch.no_grad():
        answer, expected = engine(example).float(), twin(example).float()
    error = ((answer - expected).norm() / expected.norm()).item()
    weights = layer.weight.numel()
    size = f"{{len(part.serialized_engine) / weights:.2f}} bytes a weight, "
    told = "right, " if error < 0.1 else "wrong, "
    return told + size * (weights > 1e6) + f"relative error {{error:.1e}}"
linear, last = torch.nn.Linear(4096, 4096), torch.nn.Linear(4096, 10)
conv, first = torch.nn.Conv2d(512, 512, 3), torch.nn.Conv2d(3, 64, 3)
shapes = [(16, 4096), (16, 512, 16, 16), (16, 3, 32, 32), (16, 4096)]
for layer, shape in zip((linear, conv, first, last), shapes):
    try:
        print(probe(layer.half().cuda(), torch.randn(shape).half().cuda()), flush=True)
    except Exception as error:
        print("refused:", str(error).strip().splitlines()[0], flush=True)
"""

# %%
# A program for each recipe, side by side, and their lines are printed. What one did not
# answer because it ended before says so.

# Needs a GPU: the engines run.
# Output varies: errors and messages do.
configs = {
    "fp8": "FP8_DEFAULT_CFG",
    "int8_weights": "INT8_WEIGHT_ONLY_CFG",
    "int8": "INT8_DEFAULT_CFG",
}
paths = os.pathsep.join([str(folder / "packages"), os.environ.get("PYTHONPATH", "")])
way = {"env": os.environ | {"PYTHONPATH": paths}, "text": True}
way |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
program = ["timeout", "150", sys.executable, "-c", PROBE]
started = {n: subprocess.Popen([*program, c], **way) for n, c in configs.items()}
told = {}
for recipe, process in started.items():
    answers, log = process.communicate()
    words = ("right", "wrong", "refused")
    lines = [line for line in answers.splitlines() if line.startswith(words)]
    lines += [f"no answer, exit status {process.returncode}"] * 4
    for kind, answer in zip(("linear", "conv", "first", "last"), lines):
        told[recipe, kind] = answer
        print(f"{recipe}_{kind} = {answer}")
    print(*(line for line in log.splitlines() if "Error Code" in line), sep="\n")

# %%
# - FP8, a linear layer: :recorded:`fp8_linear`
# - FP8, a convolution: :recorded:`fp8_conv`
# - INT8 weights, float16 activations, a linear layer: :recorded:`int8_weights_linear`
# - INT8 weights, float16 activations, a convolution: :recorded:`int8_weights_conv`
# - INT8 for both, a linear layer: :recorded:`int8_linear`
# - INT8 for both, a convolution: :recorded:`int8_conv`
#
# *Wrong* is the answer to fear: the engine was built, it ran, and no message came.
# NVIDIA does not list this GPU for TensorRT-RTX, so ask again on yours. And its list of
# types is not the last word: here a linear layer takes INT8 activations, which
# TensorRT-RTX does not list.
#
# Built without a GPU, for any RTX GPU, TensorRT-RTX 1.6 answered (tried, not recorded
# here): FP8 and the INT8 weights of a convolution are stored in single bytes, the INT8
# weights of a linear layer in float16, and a convolution with INT8 activations is
# refused.
#
# What was refused or wrong stays in float16 in what follows. A rule at the end of a
# recipe leaves layers out: by their class, or by the quantizer's name, such as ``0.*``.

# Needs a GPU: it needs the answers.
rules = {
    "linear": {"quantizer_name": "*", "parent_class": "nn.Linear"},
    "conv": {"quantizer_name": "*", "parent_class": "nn.Conv2d"},
    "first": {"quantizer_name": "0.*"},
    "last": {"quantizer_name": f"{len(half) - 1}.*"},
}
for short, recipe in zip(configs, taken):
    for kind, rule in rules.items():
        if not told[short, kind].startswith("right"):
            taken[recipe]["quant_cfg"].append(rule | {"enable": False})
            print(f"{recipe}: {kind} stays in float16")

# %%
# Now the whole network. A batch of 64 training digits calibrates it.

# Output varies: training does.
calibration = draw(torch.arange(64), seed=2000).half()
fp8 = quantized(half, taken["FP8"], calibration)
example = unseen[:batch].half()
fp8_engine = to_engine(fp8, example)
print(f"accuracy_fp8 = {accuracy(fp8_engine):.1%}")
same = (classes(fp8_engine, unseen.half()) == classes(half, unseen.half())).float()
print(f"agreement_fp8 = {same.mean().item():.1%}")

# %%
# The engine reads :recorded:`accuracy_fp8`, where float16 reads
# :recorded:`accuracy_float16`. For :recorded:`agreement_fp8` of the pictures the two
# name the same digit. Agreement sees more than accuracy, which stays the same where a
# digit is misread another way.
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
# Two questions, and two references. Does the engine compute what ModelOpt simulates?
# And how far is either from the unquantized model? The other input holds the same
# pictures in another order, so that each answer should be another.

# Output varies: training does.
tolerance = 0.1
fresh = draw(tests[:batch], seed=1003).half()
others = fresh.roll(1, 0)
check(fp8_engine, fp8, (fresh,), (others,), tolerance, "FP8 engine, FP8 in PyTorch")
with torch.no_grad():
    print(f"error_fp8 = {relative_error(fp8(fresh), half(fresh)):.1e}")
    print(f"error_other = {relative_error(half(others), half(fresh)):.2f}")

# %%
# The error that FP8 brings is :recorded:`error_fp8` of the answer's norm; another
# picture's answer is :recorded:`error_other` away. An engine in FP8 cannot repeat
# PyTorch's digits: a value that falls on the other side of a rounding edge jumps by one
# of few steps. So the tolerance is wider than float16's.
#
# How many pictures does calibration need?
# ----------------------------------------
#
# Calibration only looks for each activation's largest value. What lies above it later
# is cut off. So the question is which pictures bring out the large values. Both recipes
# that round activations are simulated in PyTorch, for which no engine is needed: with
# one digit and more, and once with black pictures. All layers are rounded here, also
# those that the engine keeps in float16, so the numbers differ a little from its own.

# Output varies: training does.
counts = [1, 4, 16, 64]
pools = {str(n): draw(torch.arange(n), seed=2000).half() for n in counts}
pools["black"] = torch.full_like(pools["16"], -1)
measured = []
for recipe in ("FP8", "INT8"):
    for pool, pictures in pools.items():
        twin = quantized(half, recipes[recipe], pictures)
        with torch.no_grad():
            error = relative_error(twin(fresh), half(fresh))
        row = {"recipe": recipe, "pictures": pool, "accuracy": accuracy(twin)}
        measured.append(row | {"error": error})
        print(f"{recipe.lower()}_{pool} = {measured[-1]['accuracy']:.1%}")
calibrated = pd.DataFrame(measured)

# %%
# With one, four, 16 and 64 digits FP8 reads :recorded:`fp8_1`, :recorded:`fp8_4`,
# :recorded:`fp8_16` and :recorded:`fp8_64`, INT8 :recorded:`int8_1`,
# :recorded:`int8_4`, :recorded:`int8_16` and :recorded:`int8_64`. Calibrated with black
# pictures they read :recorded:`fp8_black` and :recorded:`int8_black`. Float16 reads
# :recorded:`accuracy_float16`. A tenth of a percent is one picture or two, so in these
# numbers none is better than another.
#
# The error of the answer tells more; it is on the right below. With digits it falls a
# little from one to 64. With black pictures it is many times larger, as all is cut off
# that they do not bring out. Which score is the greatest survives that here, and
# accuracy asks for nothing else. Whoever uses the scores themselves, for a threshold or
# as a probability, would notice.

# Output varies: training does.
# Figure: Which pictures calibrate hardly shows in accuracy: FP8 reads
#   :recorded:`fp8_64` right with 64 digits and :recorded:`fp8_black` with black
#   pictures. The error of the answer is many times larger with black pictures.
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), sharex=True)
for recipe, part in calibrated.groupby("recipe"):
    left.plot(part.pictures, part.accuracy, "o", label=recipe)
    right.plot(part.pictures, part.error, "o", label=recipe)
left.axhline(accuracy_float16, color="gray", ls="--", label="float16")
left.set(xlabel="calibration pictures", ylabel="accuracy")
right.set(xlabel="calibration pictures", ylabel="relative error", ylim=(0, None))
left.legend(frameon=False)
plt.tight_layout()
plt.show()

# %%
# Which layers lose most?
# -----------------------
#
# One layer at a time is rounded, the others stay in float16. A layer far above the
# others is the one to leave out of the recipe. INT8 weights stand beside FP8. Both are
# simulated in PyTorch, so the layers that TensorRT did not get right take part.

# Output varies: training does.
layers = {n: layer for n, layer in half.named_children() if hasattr(layer, "weight")}
names = {
    name: f"{type(layer).__name__.lower().removesuffix('2d')} {number}"
    for number, (name, layer) in enumerate(layers.items(), start=1)
}
losses = pd.DataFrame(index=list(names.values()))
for recipe in ("FP8", "INT8 weights"):
    twin = quantized(half, recipes[recipe], calibration)
    on = [n for n, part in twin.named_modules() if getattr(part, "is_enabled", False)]
    for name, title in names.items():
        mtq.disable_quantizer(twin, "*")
        for quantizer in (n for n in on if n.split(".")[0] == name):
            mtq.enable_quantizer(twin, quantizer)
        with torch.no_grad():
            losses.loc[title, recipe] = relative_error(twin(fresh), half(fresh))
print(f"worst_layer = {losses['FP8'].idxmax()}")
print(f"worst_error = {losses['FP8'].max():.1e}")
print(f"median_error = {losses['FP8'].median():.1e}")

# %%
# In FP8 the worst is :recorded:`worst_layer` with :recorded:`worst_error`. The median
# is :recorded:`median_error`.

# Output varies: training does.
# Figure: In FP8 the layer that loses most is :recorded:`worst_layer`, with an error of
#   :recorded:`worst_error`; the median layer has :recorded:`median_error`.
axis = losses.plot.bar(figsize=(7, 3.4), width=0.8)
axis.set(ylabel="relative error, that layer alone")
axis.legend(frameon=False)
plt.tight_layout()
plt.show()

# %%
# What should FP8 gain?
# ---------------------
#
# Each layer has a least time: its arithmetic at the rate of a large matrix product, or
# the bytes that it has to move at the rate of a large copy, whichever is longer. FP8
# has one byte where float16 has two, and a rate of its own. INT8 weights save bytes of
# the weights alone.

# Needs a GPU: it measures.
# Output varies: rates do.
tflops, gigabytes = gpu_limits(torch.float16)
square = torch.randn(8192, 8192, device="cuda").to(torch.float8_e4m3fn)
whole = functional.ScalingType.TensorWise, torch.ones((), device="cuda")


def product_fp8():
    scales = whole[1], whole[0], whole[1], whole[0]
    how = {"output_dtype": torch.bfloat16, "use_fast_accum": True}
    return functional.scaled_mm(square, square.t(), *scales, **how)


try:
    tflops_fp8 = 2 * 8192**3 / latency(product_fp8)[0] / 1e9
except (RuntimeError, ValueError, NotImplementedError) as refused:
    print("Taken as twice float16's:", str(refused).splitlines()[0])
    tflops_fp8 = 2 * tflops
print(f"rate_float16 = {tflops:.0f} TFLOP/s")
print(f"rate_fp8 = {tflops_fp8:.0f} TFLOP/s")

# %%
# A matrix product reaches :recorded:`rate_float16` in float16 and :recorded:`rate_fp8`
# in FP8.

# Needs a GPU: it needs the rates.
# Output varies: rates do.


def least(example, weight, activation, rate):
    """Least ms of each layer; bytes of a weight and an activation, TFLOP/s."""
    rows = []

    def note(layer, given, output):
        operations = 2 * output.numel() * layer.weight[0].numel()
        moved = activation * (given[0].numel() + output.numel())
        moved += weight * layer.weight.numel()
        rows.append((operations / rate / 1e9, moved / gigabytes / 1e6))

    hooks = [layer.register_forward_hook(note) for layer in layers.values()]
    half(example)
    for hook in hooks:
        hook.remove()
    return pd.DataFrame(rows, columns=["arithmetic_ms", "memory_ms"])


eight = {"FP8": (1, 1, tflops_fp8), "INT8 weights": (1, 2, tflops)}
costs = {"float16": (2, 2, tflops)} | eight
floors = {
    (size, recipe): least(fresh[:size], *cost)
    for size in (1, batch)
    for recipe, cost in costs.items()
}
should = {key: floor.max(axis=1).sum() for key, floor in floors.items()}
for size, name in ((1, "b1"), (batch, "many")):
    print(f"should_ms_{name} = {should[size, 'float16']:.3f}")
    print(f"should_gain_{name} = {should[size, 'float16'] / should[size, 'FP8']:.2f}")

# %%
# Layer by layer and added up, float16 needs at least :recorded:`should_ms_b1` ms for
# one picture and :recorded:`should_ms_many` ms for the batch. FP8 should be
# :recorded:`should_gain_b1` and :recorded:`should_gain_many` times as fast, if all
# layers are rounded.
#
# What does it gain?
# ------------------
#
# A layer that stayed in float16 above gains nothing. PyTorch runs the
# float16 model: the row to beat. (Its own FP8, in torchao, is not measured here.) A
# quantized engine is checked against ModelOpt's simulation of the very same rounding.
# For one picture, the other input is the one whose answer differs most.

# Needs a GPU: it measures.
# Output varies: it prints timings.
warm_up()
engines, engine_mb = {}, {}


def keep(recipe, model, example):
    """A way to build an engine that is kept for later."""

    def build():
        engine = to_engine(model, example)
        parts = (p for p in engine.modules() if isinstance(p, TorchTensorRTModule))
        engine_mb[recipe] = sum(len(part.serialized_engine) for part in parts) / 1e6
        engines[recipe, len(example)] = engine
        return engine

    return build


int8 = quantized(half, taken["INT8 weights"], calibration)
twins = {"FP8": (fp8, tolerance), "INT8 weights": (int8, tolerance / 2)}
if standard:  # INT8 activations, which TensorRT-RTX does not list
    int8_both = quantized(half, taken["INT8"], calibration)
    twins["INT8"] = int8_both, tolerance
with torch.no_grad():
    farthest = (half(fresh) - half(fresh[:1])).norm(dim=1).argmax()
pairs = {1: (fresh[farthest][None], fresh[:1]), batch: (others, fresh)}
rows = []
for size, (given, asked) in pairs.items():
    about = {"model": "VGG-16", "shape": f"{size}x3x{side}x{side}"}
    ways = pytorch_alone(half, autotune=False)
    ways["TensorRT"] = keep("float16", half, given)
    rows += compare(ways, half, [given], [asked], tolerance=2e-2, **about)
    for recipe in twins if size == 1 else ["FP8"]:
        twin, allowed = twins[recipe]
        ways = {f"TensorRT {recipe}": keep(recipe, twin, given)}
        rows += compare(ways, twin, [given], [asked], tolerance=allowed, **about)

# %%
# ``speedup`` is over the best that PyTorch does with the float16 model, without
# Inductor's ``max-autotune``, which is left out. ``error`` of a quantized engine is its
# distance from the simulation. The last two columns are the least times from above, all
# layers added up, as if all were rounded.

# Needs a GPU: it needs the measurements.
# Output varies: it prints timings.
table = results(rows)
rounding = table.backend.str.extract("TensorRT (FP8|INT8 weights)")[0]
rounding = rounding.fillna("float16")
sizes = table["shape"].str.split("x").str[0].astype(int)
for column in ("arithmetic_ms", "memory_ms"):
    table[column] = [floors[key][column].sum() for key in zip(sizes, rounding)]
table.round(3)

# %%
# The numbers that the text quotes, and what each recipe costs and gains.

# Needs a GPU: it reports what was measured.
# Output varies: it prints timings.
graphs = table[table.backend.str.endswith(", CUDA graph")]
graphs = graphs.assign(way=graphs.backend.str.removesuffix(", CUDA graph"))
latencies = graphs.pivot(index="way", columns="shape", values="latency_ms")
latencies.columns = ["b1" if name.startswith("1x") else "many" for name in latencies]
models = {"float16": half, "FP8": fp8, "INT8 weights": int8}
own = ["TensorRT", "TensorRT FP8", "TensorRT INT8 weights"]
summary = pd.DataFrame(index=list(models))
summary["accuracy"] = [accuracy(run) for run in models.values()]
summary["engine_mb"] = pd.Series(engine_mb)
summary["one_ms"] = latencies.b1[own].to_list()
for short, row in zip(("float16", "fp8", "int8"), summary.itertuples()):
    print(f"{short}_mb = {row.engine_mb:.0f}")
    print(f"{short}_b1_ms = {row.one_ms:.3f}")
for name in ("b1", "many"):
    column = latencies[name]
    print(f"did_gain_{name} = {column['TensorRT'] / column['TensorRT FP8']:.2f}")
    print(f"inductor_{name}_ms = {column['Inductor']:.3f}")
    print(f"over_inductor_{name} = {column['Inductor'] / column['TensorRT FP8']:.2f}")
summary.round(3)

# %%
# One picture: float16 :recorded:`float16_b1_ms` ms, FP8 :recorded:`fp8_b1_ms` ms, INT8
# weights :recorded:`int8_b1_ms` ms, Inductor in float16 :recorded:`inductor_b1_ms` ms.
# With every layer in FP8 the limits would allow :recorded:`should_gain_b1` times; what
# was built gains :recorded:`did_gain_b1`. For the batch that is
# :recorded:`should_gain_many` and :recorded:`did_gain_many`. Inductor in float16 takes
# :recorded:`inductor_many_ms` ms there, :recorded:`over_inductor_many` times FP8's.
#
# What one picture waits for is not shown here. By the least times, bytes count for more
# than arithmetic, and the linear layers hold most of the bytes. But float16 takes
# :recorded:`float16_b1_ms` ms where the least is :recorded:`should_ms_b1`, and halving
# those bytes gained little. In the batch most of the time goes into convolutions, as
# the kernels below show, and these stayed in float16.
#
# INT8 weights are slower than float16. The engine's size says why little could be
# gained: the weights of the linear layers are in it with two bytes each, as the first
# answers above had told.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: Before and after: accuracy, size and latency. FP8 reads
#   :recorded:`accuracy_fp8` right in :recorded:`fp8_mb` MB, float16
#   :recorded:`accuracy_float16` in :recorded:`float16_mb` MB.
titles = ["accuracy", "engine in MB", "ms for one picture"]
figure, axes = plt.subplots(1, 3, figsize=(7, 2.4), sharey=True)
for axis, column, title in zip(axes, summary, titles):
    axis.barh(summary.index, summary[column], color=["C0", "C1", "C2"])
    axis.set_xlabel(title)
axes[0].invert_yaxis()
plt.tight_layout()
plt.show()

# %%
# Seconds until ready against latency. Quantizing and calibrating come before.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: Seconds until ready against latency: Inductor in float16 is ready first. For
#   one picture FP8 takes :recorded:`fp8_b1_ms` ms, Inductor :recorded:`inductor_b1_ms`;
#   for the batch Inductor takes :recorded:`over_inductor_many` times FP8's time.
plot_ready(table)

# %%
# Which kernels ran? Their names, for the batch in FP8, with the longest first.
# Convolutions have ``convFwd`` in their names. Those with ``CastMul`` only change types
# and scales, which is what rounding takes.

# Needs a GPU: it looks at kernels.
# Output varies: timings.
kernels, _ = profiled(lambda: engines["FP8", batch](fresh))
kernels.head(8).round(1)

# %%
# When it goes wrong
# ------------------
#
# **Unable to import quantization op. Please install modelopt library.** Torch-TensorRT
# was imported where ModelOpt was missing. The quantizers then stay in PyTorch, between
# many small engines. Install it and start Python anew.
#
# Three more, brought about: a recipe edited as older releases of ModelOpt had it; an
# export without ``export_torch_mode``; FP8 with a scale for each channel, where
# Torch-TensorRT's converter takes one for the tensor.


def edited():
    mtq.FP8_DEFAULT_CFG["quant_cfg"]["*weight_quantizer"]["axis"] = None


small = torch.nn.Sequential(torch.nn.Linear(64, 64)).to(device).half().eval()
row = torch.ones(4, 64, device=device).half()
channels = quantized(small, mtq.FP8_PER_CHANNEL_PER_TOKEN_CFG, row)
tensors = quantized(small, mtq.FP8_DEFAULT_CFG, row)
trials = {
    "an old recipe": edited,
    "no export mode": lambda: torch.export.export(tensors, (row,), strict=False),
    "a scale for each channel": lambda: to_engine(channels, row),
}
for name, trial in trials.items():
    try:
        trial()
        print(f"{name}: no error")
    except Exception as refused:
        first = str(refused).strip().splitlines()[0]
        print(f"{name}: {type(refused).__name__}: {first}")

# %%
# **A quantized model that is no faster.** Look at what the limit allows, at the
# kernels, and at the engine's size: two bytes a weight means that the weights were not
# stored in eight bits. All three are above.
#
# Take it to production
# ---------------------
#
# The engine is loaded here into the process that made it. That a fresh one needs
# Torch-TensorRT and no ModelOpt is to be expected, and untested on this page.

file = folder / "vgg16-fp8.pt2"
torch_tensorrt.save(fp8_engine, file, arg_inputs=(example,))
loaded = torch_tensorrt.load(file).module()
error = check(loaded, fp8, (fresh,), (others,), tolerance, "loaded")

# %%
# Exercise
# --------
#
# Profile ``engines["float16", batch]`` as the FP8 engine was. Which kernels does only
# the one have, which only the other, and how much of the difference between the two
# latencies do they explain? Then leave one linear layer out of the FP8 recipe: append a
# rule with its quantizer's name and ``"enable": False``, as above. Which of the three
# is the best to leave out?
#
# Takeaways
# ---------
#
# - Quantize, export in export mode, compile. FP8 reads :recorded:`accuracy_fp8` where
#   float16 reads :recorded:`accuracy_float16`, from :recorded:`fp8_mb` MB in place of
#   :recorded:`float16_mb`.
# - Ask first what the flavor takes, and compare the answer with PyTorch's. A
#   convolution in FP8, on a GPU that is not listed for TensorRT-RTX:
#   :recorded:`fp8_conv`.
# - With every layer in FP8 the GPU's limits would allow :recorded:`should_gain_many`
#   times for the batch; with the layers that are right it is :recorded:`did_gain_many`.
#   In speed quantizing gains little for one picture here, and loses for the batch; in
#   megabytes it gains.
# - Check with agreement and with the error besides accuracy. Calibrated with black
#   pictures FP8 still reads :recorded:`fp8_black`, from scores that are far off.
# - ModelOpt's `guide to quantization
#   <https://nvidia.github.io/Model-Optimizer/guides/1_quantization.html>`_ has more
#   recipes, and training with quantizers for where rounding costs too much.

# sphinx_gallery_tags = ["quantization", "FP8", "INT8", "vision", "ModelOpt"]
