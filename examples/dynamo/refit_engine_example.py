"""
Refit an engine with new weights
================================

Put a fine-tuned checkpoint into a compiled model without building its engine again.

A model that is in service seldom stays as it is. It is fine-tuned again, a LoRA adapter
is merged into it, or it is the policy in a reinforcement learning loop that learns
while it runs. Each time the architecture stays and only the numbers in it change.
Compiling again for each change repeats work whose result is already known. A *refit*
keeps the compiled program and replaces the numbers.

**What you will learn**

- how to build an engine whose weights can be replaced, save it, and load it
- how to refit it, and how to prove that the new weights are really in use
- what a refit costs against a rebuild, and what a refittable engine costs in latency
- which changes a refit refuses, and which ones it cannot see

**Prerequisites**

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor.
"""

# %%
# One model, one engine
# ---------------------
# Torch-TensorRT takes the graph of a PyTorch model and hands it to TensorRT's
# *builder*. The builder fuses operators, chooses how to run them and returns an
# *engine*: a compiled program that holds the weights too. Building is the slow part, so
# the question of this page is when it can be skipped.
#
# Everything below runs without gradients unless it trains. TensorFloat-32 is switched
# off, on both sides: it rounds float32 to 10 bits of mantissa before it multiplies, and
# would hide small mistakes behind rounding.

import contextlib
import copy
import gc
import io
import logging
import tempfile
import time

# Hints about optional packages would bury the output, and some come with the imports.
logging.disable(logging.WARNING)

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch_tensorrt
import torchvision
from torch.utils.flop_counter import FlopCounterMode
from torch_tensorrt.dynamo import refit_module_weights

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.set_grad_enabled(False)
torch.backends.cudnn.allow_tf32 = False
torch_tensorrt.logging.set_level(logging.ERROR)
flavor = "RTX" if torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx else "standard"
print(f"Flavor of TensorRT: {flavor}. Device: {device.type}.")

# %%
# ResNet-18 is small enough to follow every step. The first version of its weights comes
# from torchvision where it can be downloaded. Random weights take the same steps.

torch.manual_seed(0)
try:
    # The download's progress is of no interest here.
    with contextlib.redirect_stdout(io.StringIO()):
        model = torchvision.models.resnet18(weights="DEFAULT", progress=False)
    print("Weights: pretrained (ResNet-18 on ImageNet)")
except OSError:
    model = torchvision.models.resnet18()
    print("Weights: random (no download possible), same architecture")
model = model.eval().to(device)
image, fresh = torch.randn(2, 1, 3, 224, 224, device=device)

# %%
# An engine's weights can be replaced only if it was built for that, since the builder
# otherwise folds them into whatever it computes ahead of time. The option is
# ``immutable_weights=False``. It has to be asked for: the default is ``True``.
#
# The model is exported first. Export records the graph of operators once, with the
# shapes of the example input.


def compile_model(program, x, immutable_weights=False):
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=(x,), immutable_weights=immutable_weights, disable_tf32=True
    )


compiled = compile_model(torch.export.export(model, (image,)), image)
print("Parts of the compiled model:", [name for name, _ in compiled.named_children()])

# %%
# A part named ``_run_on_acc`` is an engine, and one named ``_run_on_gpu`` would be
# operators that stay in PyTorch. Here one engine holds the whole network.
#
# Before anything is replaced, the engine has to agree with eager PyTorch, on input that
# it was not compiled with. The measure is the size of the error relative to the size of
# the answer.


def relative_error(actual, expected):
    return ((actual - expected).float().norm() / expected.float().norm()).item()


def agree(module, reference):
    return relative_error(module(fresh), reference(fresh)) < tolerance


def check(what, holds):
    assert holds, what
    print(f"{what}: {holds}")


tolerance = 5e-3
check(f"The engine agrees with eager to within {tolerance}", agree(compiled, model))

# %%
# New weights
# -----------
# A step of training stands in for fine-tuning. It changes every parameter, and the
# running statistics of batch normalization, which are buffers. A refit has to carry
# both.

tuned = copy.deepcopy(model).train()
with torch.enable_grad():
    tuned(torch.randn(16, 3, 64, 64, device=device)).square().mean().backward()
torch.optim.SGD(tuned.parameters(), lr=0.1).step()
tuned.eval()
check("The model's answers changed", not agree(tuned, model))

# %%
# The engine knows nothing of this. It holds a copy of the weights it was built with,
# and goes on to answer with the old ones, without an error. This is the bug that a
# refit has to prevent.

stale = agree(compiled, model) and not agree(compiled, tuned)
check("The engine still answers with the old weights", stale)

# %%
# Save and load
# -------------
# A refit is most useful where the engine was built elsewhere, or in an earlier process:
# compile once, keep the file, and refit at each release of the weights. The file is an
# exported program that holds the engine. Loading it builds nothing.

with tempfile.TemporaryDirectory() as folder:
    torch_tensorrt.save(compiled, f"{folder}/resnet18.pt2", arg_inputs=(image,))
    loaded = torch_tensorrt.load(f"{folder}/resnet18.pt2")

check("The loaded engine agrees with eager", agree(loaded.module(), model))

# %%
# Refit
# -----
# The new weights go in as an exported program, not as a ``state_dict``. The reason is
# that the engine's weights are not the model's: they have other names, and some are
# computed from several parameters. Torch-TensorRT therefore lowers and converts the new
# program as if it were to build it, but stops before the builder. What it has then is a
# value for every name that the engine knows, and TensorRT copies those in.
#
# ``verify_output=True`` compares the refitted engine with the new model on
# ``arg_inputs``. A mismatch is only *logged*, as an error, and the tolerance cannot be
# chosen. So it is a help while you develop, and no replacement for a check of your own:
# the answers must equal the new model's, and must no longer equal the old one's.

# Needs a GPU: TensorRT refits an engine on the device.
new = torch.export.export(tuned, (image,))
refitted = refit_module_weights(compiled, new, arg_inputs=(image,), verify_output=True)
renewed = agree(refitted, tuned) and not agree(refitted, model)
check("The refitted engine answers with the new weights", renewed)
check("The first engine still answers with the old ones", agree(compiled, model))

# %%
# By default a refit works on a copy, so that both versions can serve for a while. With
# ``in_place=True`` it changes the module that you pass, and what calls that module sees
# the new weights without being told. A program that was loaded from a file can be
# refitted too, but only into a copy.

# Needs a GPU: TensorRT refits an engine on the device.
refitted = refit_module_weights(loaded, torch.export.export(tuned, (image,)))
refit_module_weights(compiled, torch.export.export(tuned, (image,)), in_place=True)
both = [agree(m, tuned) and not agree(m, model) for m in (refitted, compiled)]
check("Both answer with the new weights", all(both))

# %%
# What cannot be refitted
# -----------------------
# A refit replaces numbers and nothing else. Torch-TensorRT refuses what it can tell
# apart beforehand:
#
# - an engine that was built with immutable weights, the default
# - new weights in any other form than an exported program
# - a model that splits differently between TensorRT and PyTorch, here because of one
#   operator that TensorRT does not have
#
# A few operators cannot be part of a refittable engine, for instance an embedding bag,
# or a cumulative sum with early releases of TensorRT-RTX. Torch-TensorRT leaves those
# in PyTorch when it builds, and a refit loads their new weights there.


def try_refit(what, compiled, new_weights):
    try:
        # The refusal is printed below; TensorRT's log would repeat it.
        with torch_tensorrt.logging.internal_errors():
            result = refit_module_weights(compiled, new_weights, in_place=True)
        print(f"{what}: no error. Output: {tuple(result(image).shape)}")
    except Exception as error:
        print(f"{what}: {error!r}")


program = torch.export.export(model, (image,))
fixed = compile_model(program, image, immutable_weights=True)
try_refit("Immutable weights", fixed, torch.export.export(tuned, (image,)))
try_refit("A plain module", compiled, tuned)
pooled = torch.nn.Sequential(torch.nn.FractionalMaxPool2d(2, 112), tuned)
try_refit("Another partition", compiled, torch.export.export(pooled, (image,)))

# %%
# Other differences come to light only when TensorRT looks for its weights, or not at
# all. Two models follow that split in the same way as the engine: one has a block less,
# the other ten classes in place of a thousand. Read the lines below with care. A line
# that says "no error" is a refit that went wrong in silence, and that only a comparison
# with the new model's answers catches.

# Needs a GPU: TensorRT compares the names and sizes of the engine's weights.
shallower, narrower = copy.deepcopy(tuned), copy.deepcopy(tuned)
shallower.layer4[1] = torch.nn.Identity()
narrower.fc = torch.nn.Linear(512, 10).to(device)
try_refit("One block less", compiled, torch.export.export(shallower, (image,)))
try_refit("Ten classes", compiled, torch.export.export(narrower, (image,)))

# %%
# What a refit costs
# ------------------
# The rest of the page measures, on two networks: a larger convolutional one, and an
# encoder with layers of the size of BERT's. Their weights are random, since time does
# not depend on them. The eager fast path of ``torch.nn`` is off, so that every backend
# starts from the same operators.

dtype, depth = (torch.float16, 6) if device.type == "cuda" else (torch.float32, 1)
shapes = {"ResNet-50": "1x3x224x224", "encoder": "8x128x768"}
torch.backends.mha.set_fastpath_enabled(False)
print(f"Precision: {dtype}. Encoder layers: {depth}.")


def make(name, seed=0):
    torch.manual_seed(seed)
    if name == "encoder":
        layer = torch.nn.TransformerEncoderLayer
        layers = [layer(768, 12, 3072, batch_first=True) for _ in range(depth)]
        model = torch.nn.Sequential(*layers)
    else:
        model = torchvision.models.get_model(name.replace("-", "").lower())
    return model.eval().to(device, dtype)


def make_input(name):
    return torch.randn(*map(int, shapes[name].split("x")), device=device, dtype=dtype)


x, encoder, loose = make_input("encoder"), make("encoder"), 5e-2
engine = compile_model(torch.export.export(encoder, (x,)), x)
agrees = relative_error(engine(x), encoder(x)) < loose
check(f"The encoder's engine agrees with eager to within {loose}", agrees)

# %%
# There are four ways to get the new weights into service: build an engine with fixed
# weights, build a refittable one, refit a copy, or refit in place. Each starts with an
# export and ends with the first answer, which is when TensorRT-RTX compiles the
# engine's kernels for the GPU that it finds.
#
# What is there to gain? A refit still lowers and converts the new program; what it
# spares is the builder's work. Standard TensorRT times candidate kernels on the GPU
# while it builds, which can take minutes. TensorRT-RTX does not time any, so its builds
# can be short. But for a refittable engine it needs the GPU as it builds, and does more
# there. So the fair rival of a refit is not the build of its own kind of engine, but
# the faster of the two builds.
#
# Each way is timed once. Most of a refit, and of a build with fixed weights, is work of
# the CPU, so those two depend on what else the machine does. A second run beside other
# programs took about equally long for both. Read a difference between them with that in
# mind; the one to the refittable build is far larger than that.

# Needs a GPU: TensorRT refits an engine on the device.
# Output varies: seconds on the clock.


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    torch.cuda.synchronize()
    return result, time.perf_counter() - start


def renew(way, served, program, x):
    if way.startswith("build"):
        return compile_model(program, x, immutable_weights=way == "build fixed")
    return refit_module_weights(served, program, in_place=way == "refit in place")


rows, ways = {}, ["build fixed", "build refittable", "refit a copy", "refit in place"]
for name in shapes:
    x, new = make_input(name), make(name, seed=1)
    served = compile_model(torch.export.export(make(name), (x,)), x)
    served(x)  # the old weights are in service, and everything is warmed up
    for way in ways:
        program, export_s = timed(torch.export.export, new, (x,))
        module, renew_s = timed(renew, way, served, program, x)
        answer, first_s = timed(module, x)
        assert relative_error(answer, new(x)) < loose
        rows[f"{name}, {way}"] = export_s, renew_s, first_s
    times = {way: sum(rows[f"{name}, {way}"]) for way in ways}
    for way in ways[:2]:
        share = times["refit in place"] / times[way]
        print(f"{name}: refit in place takes {share:.0%} of the time of {way}")

steps = ["export", "build or refit", "first answer"]
seconds = pd.DataFrame.from_dict(rows, orient="index", columns=steps)
axes = seconds[::-1].plot.barh(stacked=True, figsize=(7, 3.6))
axes.set_xlabel("seconds until the new weights answer (lower is better)")
plt.show()
seconds.round(2)

# %%
# What a refittable engine costs
# ------------------------------
# The builder may not precompute anything from weights that can still change. Whether
# that costs latency is a question for a measurement, against an engine with fixed
# weights, and against PyTorch with and without Inductor.
#
# First the limit. No backend can finish before the GPU has done the arithmetic, nor
# before it has read the weights. Both rates are measured on this GPU: a large matrix
# product and a large copy.

# Needs a GPU: measures what the GPU can do.
# Output varies: rates measured on the clock.
from triton.testing import do_bench

a = torch.randn(8192, 8192, device=device, dtype=dtype)
flops_per_ms = 2 * 8192**3 / do_bench(lambda: a @ a, return_mode="median")
bytes_per_ms = 2 * a.nbytes / do_bench(a.clone, return_mode="median")
print(f"{flops_per_ms / 1e9:.0f} TFLOP/s in {dtype}, {bytes_per_ms / 1e6:.0f} GB/s")
limits = {}
for name in shapes:
    x, model = make_input(name), make(name)
    with FlopCounterMode(display=False) as counter:
        nbytes = x.nbytes + model(x).nbytes + sum(p.nbytes for p in model.parameters())
    compute_ms = counter.get_total_flops() / flops_per_ms
    limits[name] = max(compute_ms, nbytes / bytes_per_ms)
    print(f"{name}: at least {limits[name]:.3f} ms, arithmetic {compute_ms:.3f} ms")

# %%
# A *CUDA graph* records the kernel launches of one run and replays them with one call.
# Without it a small model spends its time on launches, so a fair comparison gives every
# backend a graph or none. Eager PyTorch and what Inductor compiled are captured by
# hand, and TensorRT has ``enable_cudagraphs``. The strategy ``whole_graph_capture`` is
# TensorRT-RTX's own; the standard flavor does not take it.


whole = {"cuda_graph_strategy": "whole_graph_capture"} if flavor == "RTX" else {}


def build(backend, model, x):
    if "TensorRT" not in backend:
        return torch.compile(model) if backend == "Inductor" else model
    program = torch.export.export(model, (x,))
    return compile_model(program, x, immutable_weights=backend == "TensorRT fixed")


def prepare(label, run, x):
    if "graph" not in label:
        return contextlib.nullcontext(run)
    if "TensorRT" in label:
        return torch_tensorrt.runtime.enable_cudagraphs(run, **whole)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(x)
    return contextlib.nullcontext(lambda _: (graph.replay(), output)[1])


# %%
# How to read the table: ``latency_ms`` is the median of many runs, each with a cold
# cache on the GPU. ``compile_s`` is all that happens before the first answer; Inductor
# and TensorRT-RTX keep kernels on disk, so that a later row may find what an earlier
# one compiled. ``peak_memory_mb`` is what the model needs to run, weights included. An
# engine allocates outside of PyTorch, so the driver has to tell what is left. PyTorch's
# allocator keeps more than it needs, so of its share only the most that was in use
# counts.

# Needs a GPU: latency and memory of a GPU.
# Output varies: milliseconds on the clock.


def bytes_left():
    kept, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_allocated()
    return torch.cuda.mem_get_info()[0] + kept - peak


def measure(name, backend):
    torch.compiler.reset()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    left, x, model = bytes_left(), make_input(name), make(name)
    expected, start = model(x), time.perf_counter()
    run = build(backend, model, x)
    run(x).cpu()  # the first answer, and a wait for it
    compile_s = time.perf_counter() - start
    del model  # an engine has its own copy of the weights
    gc.collect()
    for label in (backend, f"{backend}, CUDA graph"):
        torch.cuda.reset_peak_memory_stats()
        with prepare(label, run, x) as call:
            assert relative_error(call(x), expected) < loose
            memory = (left - bytes_left()) / 2**20
            latency = do_bench(lambda: call(x), return_mode="median")
        yield name, label, f"{dtype}"[6:], shapes[name], latency, memory, compile_s


backends = ["eager", "Inductor", "TensorRT fixed", "TensorRT refittable"]
rows = [row for name in shapes for b in backends for row in measure(name, b)]
columns = "model backend precision shape latency_ms peak_memory_mb compile_s"
results = pd.DataFrame(rows, columns=columns.split())
# Each model's first row is eager PyTorch without a graph.
eager_ms = results.groupby("model")["latency_ms"].transform("first")
results.insert(5, "speedup", eager_ms / results["latency_ms"])
for name, group in results.groupby("model", sort=False):
    ms = group.set_index("backend")["latency_ms"]
    print(f"{name}: fastest is {ms.idxmin()}, {limits[name] / ms.min():.0%} of limit")
    cost = ms["TensorRT refittable, CUDA graph"] / ms["TensorRT fixed, CUDA graph"] - 1
    print(f"    TensorRT with a CUDA graph, refittable against fixed: {cost:+.1%}")

table = results.pivot_table("latency_ms", "model", "backend", sort=False)
axes = table.plot.bar(figsize=(7, 4), rot=0, xlabel="", color=plt.cm.Paired.colors)
axes.set_ylabel("latency in ms (lower is better)")
axes.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
plt.show()
results.round(3)

# %%
# Takeaways
# ---------
# - Ask for ``immutable_weights=False`` when you build. An engine built without it can
#   only be built again.
# - A refit takes an exported program and pairs its values with the engine's own names.
#   Keep the shapes, the architecture and the options of the first build.
# - Compare each refitted engine with the new model. Some mistakes raise, others do not,
#   and ``verify_output`` only logs.
# - Measure before you choose. A refit spares the build, and nothing else: the shorter
#   the build, the less it saves. Where an engine with fixed weights is built as fast as
#   another is refitted, build that one anew: it is simpler, and nothing can go stale.
# - Where TensorRT-RTX loses to Inductor, the choice of kernels is the likely reason. It
#   chooses without timing them, while Inductor generates its own for the shapes at
#   hand. Without CUDA graphs, the order shows who launches fastest, not who computes
#   fastest.
# - Older pages pass ``use_weight_map_cache`` to speed a refit up. Torch-TensorRT 2.14
#   removed that option.
#
# Two features build on refit. ``torch_tensorrt.MutableTorchTensorRTModule`` refits by
# itself when a parameter changes. The engine cache keeps engines without their weights
# and refits one when it meets the same architecture again. Both are described in the
# `documentation of Torch-TensorRT <https://docs.pytorch.org/TensorRT/>`__.

# sphinx_gallery_tags = ["refit", "torch.export", "vision", "CUDA graphs"]
