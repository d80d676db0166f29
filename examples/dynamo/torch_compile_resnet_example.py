"""
ResNet with torch.compile
=========================

Compile an image classifier with TensorRT: one batch size, a range of batch sizes, and
CUDA graphs, measured against eager and Inductor.

What you will learn
-------------------

- What an engine, a builder and a partition are, and how to see them in your own model.
- How to compile with ``torch.compile(backend="tensorrt")`` and prove that the result
  is still right.
- How one engine serves a range of batch sizes, how to show that nothing is compiled
  again, and what happens outside the range.
- Where the time of a call goes when the GPU waits for the host, and how CUDA graphs
  get it back.
- How to state the limit first, measure second, and report the fraction reached.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* torchvision scikit-learn matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. ``scikit-learn`` brings two
photographs to classify.

You need to know PyTorch, but not TensorRT. The cells marked ``Needs a GPU`` measure;
all others run on a CPU too.
"""

# %%
# Eager PyTorch runs a model one operator at a time. For each it asks the GPU to start
# a *kernel*, a small program that reads its inputs from memory and writes its output
# back. A compiler that sees the whole model can do better. It can fuse operators, so
# that fewer kernels run and less data travels, and it can choose each kernel for the
# exact shapes.
#
# TensorRT is such a compiler. Its *builder* takes a description of a network and
# returns an *engine*: a plan that holds the fused kernels, the order to run them in,
# and the layout of the memory between them. Torch-TensorRT connects it to PyTorch. It
# captures your model as a graph, translates the operators it knows, has the builder
# make engines, and hands you a callable that takes and returns ordinary tensors.
#
# Setup
# -----
#
# Three settings hold throughout. Nothing is trained, so gradients are off. Log
# messages below errors are off too: converters log hints for their own developers,
# and we ask below for an exception when a build fails, so nothing of weight is lost.
# The random seed is fixed.

# Output varies: it names the device.
import contextlib
import copy
import gc
import io
import logging
import re
import socket
import time

logging.disable(logging.WARNING)

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch_tensorrt
from sklearn.datasets import load_sample_image
from torch.utils.flop_counter import FlopCounterMode
from torch_tensorrt.dynamo.backend import torch_tensorrt_backend
from torchvision.models import get_model, get_model_weights
from triton.testing import do_bench

torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
print("TensorRT-RTX" if rtx else "TensorRT", "on", device.type)

# %%
# The model follows the machine. ResNet-50 wants a GPU with eight gigabytes; ResNet-18
# has the same structure and fits elsewhere. *The model's dtype is the precision*:
# TensorRT keeps the types that it finds in the graph. To get a half-precision engine,
# convert the model to half precision yourself. We do so on a GPU, where tensor cores
# make it pay, and not on a CPU, where it would be slow.
#
# The weights are pretrained where the hub can be reached or has been before.
# Elsewhere they are random. Speed and correctness do not depend on that. The classes
# do.

# Output varies: pretrained weights need a network.
large = on_gpu and torch.cuda.get_device_properties(0).total_memory > 7.5e9
architecture = "resnet50" if large else "resnet18"
dtype = torch.float16 if on_gpu else torch.float32
name, precision = architecture.replace("resnet", "ResNet-"), f"{dtype}"[6:]
model, weights = get_model(architecture), get_model_weights(architecture).DEFAULT
weights_are = "random (the hub is out of reach), so the classes below mean nothing"
socket.setdefaulttimeout(10)  # A hub that does not answer must not hold us up.
# Without network it raises an OSError. With network it prints a local path.
with contextlib.suppress(OSError), contextlib.redirect_stdout(io.StringIO()):
    model.load_state_dict(weights.get_state_dict(progress=False))
    weights_are = "pretrained"
model = model.eval().to(device, dtype)
print(f"Weights: {weights_are}\n{name} in {precision}", "" if large else "(small)")

# %%
# Two photographs are the input, a palace in China and a flower. Weights in
# torchvision come with the preprocessing they were trained with.

files = ["china.jpg", "flower.jpg"]
pixels = [torch.tensor(load_sample_image(file)).permute(2, 0, 1) for file in files]
photos = torch.stack([weights.transforms()(p) for p in pixels]).to(device, dtype)

# %%
# One engine for one shape
# ------------------------
#
# One line compiles. Rather, it promises to: ``torch.compile`` does nothing until the
# first call, because only then does it know the shapes. Expect the first call to take
# seconds, and the second to be fast.
#
# By default, Torch-TensorRT answers a failed build with a warning and runs the model
# in PyTorch. That is kind in production and misleading here, so we ask for an
# exception.

options = {"pass_through_build_failures": True}
compiled = torch.compile(model, backend="tensorrt", dynamic=False, options=options)
print(f"Scores: {tuple(compiled(photos).shape)}")

# %%
# Is it right?
# ------------
#
# A fast wrong answer is worthless, so check before timing. Fused kernels add numbers
# in another order than eager does, so the results differ by rounding, and in half
# precision visibly. The measure is the relative error: the norm of the difference
# over the norm of what eager says. The tolerance is stated before. The input is the
# photographs, and fresh noise that the compiler cannot have seen.

tolerance = 2e-2 if dtype == torch.float16 else 1e-3


def check(candidate, images):
    expected, actual = model(images).float(), candidate(images).float()
    error = (actual - expected).norm() / expected.norm()
    assert error < tolerance, f"Relative error {error:.1e} exceeds {tolerance}"
    return True


def noise(batch):
    return torch.randn(batch, 3, 224, 224, device=device, dtype=dtype)


right = check(compiled, photos) and check(compiled, noise(2))
print(f"Relative error below {tolerance}: {right}")

# %%
# And these are the five classes with the highest scores, best first. If the weights
# are random, they mean nothing: then look at the timings only.

# Output varies: the classes depend on the weights that could be had.
for file, ranked in zip(files, compiled(photos).topk(5).indices.tolist()):
    print(f"{file}: {', '.join(weights.meta['categories'][i] for i in ranked)}")

# %%
# Looking inside: partitions
# --------------------------
#
# A model may hold operators that TensorRT cannot express. Torch-TensorRT then cuts
# the graph into *partitions*: stretches that become engines, and stretches that stay
# in PyTorch. Each cut costs. Nothing is fused across it, and the host steps in
# between. So the first thing to know of a compiled model is how many partitions it
# has.
#
# A backend is only a function that takes a captured graph and returns a callable.
# That gives a way to look inside: wrap the function behind ``"tensorrt"`` in one of
# our own that keeps what passes through. Children named ``_run_on_acc`` are engines
# ("acc" for accelerator), those named ``_run_on_gpu`` stay in PyTorch.
#
# To see a cut, the first round forbids one operator, the max-pooling near the start.
# ``min_block_size`` is the least number of operators worth an engine; the few in
# front of the pooling would otherwise stay in PyTorch too. The second round allows
# everything.

seen = {}


def open_tensorrt(graph, example_inputs, **settings):
    seen["partitions"] = torch_tensorrt_backend(graph, example_inputs, **settings)

    def run(*inputs):
        seen["inputs"] = inputs
        return seen["partitions"](*inputs)

    return run


pooling = {"torch.ops.aten.max_pool2d.default"}
for extra in ({"torch_executed_ops": pooling, "min_block_size": 1}, {}):
    torch.compile(model, backend=open_tensorrt, options=options | extra)(photos)
    print(" -> ".join(part for part, _ in seen["partitions"].named_children()))
tensors = len(seen["inputs"])
print(f"Each call hands the last engine {tensors} tensors.")

# %%
# The engine's inputs are more than the images. ``torch.compile`` lets you change a
# model's weights between calls, so it treats them as inputs of the graph, and here
# they become inputs of the engine: the images and every weight are bound anew in each
# call. Remember that number; it returns when we ask where the time goes.
#
# One engine for a range of batch sizes
# -------------------------------------
#
# Requests do not arrive in batches of two. With fixed shapes, each new batch size is
# compiled again. For a range, TensorRT has the *optimization profile*: a smallest, a
# best and a largest shape. The engine runs anywhere between smallest and largest, and
# its kernels are chosen with the best one in mind.
#
# ``mark_dynamic`` gives the range. The batch of this first call becomes the best
# shape. Its ``max`` matters more than it seems. TensorRT reserves memory for the
# largest shape, so a range without an upper end has to be guessed, and is guessed
# generously.

best, largest = (32, 64) if on_gpu else (4, 8)  # A CPU takes longer.
torch.compiler.reset()  # Forget what was compiled above, and its count.
stats = torch._dynamo.utils.counters["stats"]
stats.clear()
compiled = torch.compile(model, backend="tensorrt", options=options)
images = noise(best)
torch._dynamo.mark_dynamic(images, 0, min=2, max=largest)
compiled(images)
for batch in (best, 2, 3, best + 1, largest):
    right = check(compiled, noise(batch))
    print(f"batch {batch}: right: {right}, compilations: {stats['unique_graphs']}")

# %%
# One compilation, and every batch size checked. A count only tells afterwards. In
# production you would rather be stopped than surprised by a pause of seconds, and
# ``torch.compiler.set_stance("fail_on_recompile")`` does that. Here it shows the
# edges of the range, and the *guard* behind them: the condition on the inputs under
# which PyTorch may use what it compiled.


for batch in (1, 2, largest, largest + 1):
    with torch.compiler.set_stance("fail_on_recompile"):
        try:
            compiled(noise(batch))
            print(f"batch {batch}: served")
        except RuntimeError as error:
            guard = re.findall(r"\d+ <= \S+ <= \d+", str(error))[:1]
            print(f"batch {batch}: refused by the guard {guard}")
check(compiled, noise(1))
print(f"compilations after allowing batch 1: {stats['unique_graphs']}")

# %%
# Batch 1 is outside although the range could begin there: PyTorch treats sizes 0 and
# 1 as special, because they broadcast. Left alone, it compiles a second engine for
# it. That is harmless; send one such call at startup. Beyond the largest size it
# would compile again too, this time for a range without an upper end, and with all
# the memory that this asks for. So refuse such calls, as above, and split the batch.
#
# Compiling ahead: the export path
# --------------------------------
#
# ``torch.compile`` works at the first call and watches every later one. The other way
# is to compile ahead: ``ir="dynamo"`` exports the model once, with the range you
# give, and returns a module with the weights *inside* the engine. The engine's only
# input is then the images. Here the profile may begin at one image.


def compile_ahead(*batches):
    names = "min_shape", "opt_shape", "max_shape"
    profile = {name: (batch, 3, 224, 224) for name, batch in zip(names, batches)}
    images = torch_tensorrt.Input(dtype=dtype, **profile)
    return torch_tensorrt.compile(model, ir="dynamo", inputs=[images], **options)


flexible = compile_ahead(1, best, largest)
for part, engine in flexible.named_children():
    print(f"{part}: input tensors per call: {len(engine.input_binding_names)}")
right = all(check(flexible, noise(batch)) for batch in (1, 2, best, largest))
print(f"Relative error below {tolerance} at each batch size: {right}")

# %%
# Where the time of a call goes
# -----------------------------
#
# A GPU call has two clocks. The host prepares work and enqueues it; the GPU runs it.
# If the GPU needs longer, the host runs ahead and costs nothing. If the host needs
# longer, the GPU waits for it, and a better kernel changes nothing. Small batches are
# like that: they are *launch-bound*.
#
# A *CUDA graph* is the remedy. It records the launches of one call and replays all of
# them with a single one. The addresses and shapes are recorded as well, so there is
# one graph for each shape.
#
# ``enable_cudagraphs`` gives a compiled module CUDA graphs. With TensorRT-RTX, pass
# ``cuda_graph_strategy="whole_graph_capture"``: TensorRT-RTX then records the engine
# itself. Standard TensorRT does not know that option and needs none.
#
# The next cell takes a call with two photographs apart. ``torch.compile`` pays twice
# for its freedom: Dynamo, the part that captured the graph, checks its guards and
# collects the weights, and then the engine binds each of those tensors. To tell one
# from the other, the engine that ``torch.compile`` built is also called directly,
# with the weights it expects.

# Needs a GPU: it times calls.
# Output varies: it prints timings.
graph_options = {"cuda_graph_strategy": "whole_graph_capture"} if rtx else {}


def median_ms(call, images=photos):
    return do_bench(lambda: call(images), return_mode="median")


torch.compiler.reset()
compiled = torch.compile(model, backend="tensorrt", dynamic=False, options=options)
ahead = compile_ahead(2, 2, 2)
call_ms = {
    "torch.compile": median_ms(compiled),
    "its engine alone": median_ms(lambda _: seen["partitions"](*seen["inputs"])),
    "compiled ahead": median_ms(ahead),
}
for what, strategy in {"default": {}, "whole engine": graph_options}.items():
    with torch_tensorrt.runtime.enable_cudagraphs(ahead, **strategy) as graphed:
        call_ms[f"compiled ahead, CUDA graph, {what}"] = median_ms(graphed)
        check(graphed, noise(2))
print("\n".join(f"{what:42}{ms:6.2f} ms" for what, ms in call_ms.items()))
total, direct, one_input = list(call_ms.values())[:3]
print(f"Guards and collecting the weights: {total - direct:.2f} ms a call.")
print(f"{tensors} input tensors instead of one: {direct - one_input:.2f} ms a call.")

# %%
# The freedom to change weights has a second price. A builder that does not know the
# values cannot fold a batch normalization into the convolution before it, nor store
# the weights in the order its kernels like best. So the two engines may differ in
# their kernels as well, and the second figure above includes that.
#
# Compare also the two rows with CUDA graphs. The option is what makes TensorRT-RTX
# record its own launches. If you need neither to change weights nor to be watched
# over by guards, compile ahead, and replay a CUDA graph.
#
# The limit, stated beforehand
# ----------------------------
#
# How fast can it get? Two resources bound each layer: arithmetic and memory traffic.
# A layer cannot finish before its operations are done at the GPU's best rate, nor
# before its data has moved at the GPU's best rate. The larger of the two is the
# layer's limit, and the sum over the layers is the model's. This is the *roofline*
# model.
#
# Convolutions and the last linear layer do nearly all the arithmetic. We count their
# operations, their inputs and outputs for each image, and their weights once a call.
# Everything else is taken as fused, and so as free. PyTorch's own counter confirms
# the operations.

layers = []


def note_costs(layer, inputs, output):
    if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
        flops = 2 * output.numel() * layer.weight[0].numel()
        moved = (inputs[0].numel() + output.numel()) * output.element_size()
        layers.append((flops, moved, layer.weight.nbytes))


note_all_layers = torch.nn.modules.module.register_module_forward_hook(note_costs)
with note_all_layers, FlopCounterMode(display=False) as counter:
    model(noise(1))
flops, moved, held = (sum(column) for column in zip(*layers))
assert flops == counter.get_total_flops()
print(f"{flops / 1e9:.1f} GFLOP, {moved / 1e6:.0f} MB/image, {held / 1e6:.0f} MB once")

# %%
# The GPU's best rates are measured, not taken from a data sheet: a large matrix
# multiplication in the same dtype, and a large copy, which reads and writes each
# byte.

# Needs a GPU: it measures what the GPU can do.
# Output varies: it prints measured rates.
square = torch.randn(8192, 8192, device=device, dtype=dtype)
flops_per_ms = 2 * 8192**3 / median_ms(lambda matrix: matrix @ matrix, square)
bytes_per_ms = 2 * square.nbytes / median_ms(torch.clone, square)
print(f"{flops_per_ms / 1e9:.0f} TFLOP/s in {precision}, {bytes_per_ms / 1e6:.0f} GB/s")


def limit_ms(batch):
    return sum(
        max(batch * flops / flops_per_ms, (batch * moved + held) / bytes_per_ms)
        for flops, moved, held in layers
    )


batches = [1, 4, 16, 64]
limits = [limit_ms(batch) for batch in batches]
print("No faster than, in ms:", {b: round(ms, 3) for b, ms in zip(batches, limits)})

# %%
# Latency over batch size
# -----------------------
#
# Now the contest. All sides run the same model in the same dtype, each with and
# without CUDA graphs, because a comparison of one side with graphs to another without
# says nothing of the kernels:
#
# - eager PyTorch;
# - eager PyTorch with the weights in ``channels_last``, the memory format that tensor
#   cores prefer for convolutions. Compilers choose the format themselves;
# - Inductor, PyTorch's own compiler;
# - TensorRT, compiled ahead for each batch size;
# - TensorRT with one engine for all sizes, to see what that costs.
#
# TensorRT has ``enable_cudagraphs``; the others are captured by hand in a
# ``torch.cuda.CUDAGraph``. (Inductor's ``mode="reduce-overhead"`` does the same and
# copies the input in each call. By hand, one compilation serves both measurements.)
#
# Each time is a median with caches flushed between calls. Compile time is kept apart,
# and includes the first call. It is measured once, and a compilation may find kernels
# of an earlier one in a cache on disk. For this recording, another tutorial had
# compiled the same network for batch 1 on the same machine. So the compile times at
# batch 1 are most likely too short for a fresh start. The engine for all sizes is given
# time to specialize its kernels for a shape only as long as the warm-up lasts.
#
# Memory is what a call needs: weights, activations and work space. TensorRT allocates
# outside of PyTorch, so the driver has to tell what is left. PyTorch's allocator keeps
# more than it needs, so of its share only the most that was in use counts. An engine
# holds a copy of the weights, and you could delete the PyTorch model. So the model's
# weights are added for the other rows only.


# Needs a GPU: it times compiled models.
# Output varies: it prints timings.
BUILD = {
    "eager": lambda images: model,
    "eager, channels_last": lambda images: channels_last,
    "Inductor": lambda images: torch.compile(model, dynamic=False),
    "TensorRT": lambda images: compile_ahead(*[len(images)] * 3),
    "TensorRT for all sizes": lambda images: compile_ahead(1, best, largest),
}
channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)


def prepare(label, run, images):
    if "graph" not in label:
        return contextlib.nullcontext(run)
    if "TensorRT" in label:
        return torch_tensorrt.runtime.enable_cudagraphs(run, **graph_options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(images)
    return contextlib.nullcontext(lambda _: (graph.replay(), output)[1])


def bytes_left():
    kept, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_allocated()
    return torch.cuda.mem_get_info()[0] + kept - peak


def measure(backend, batch):
    images = noise(batch)
    torch.compiler.reset()
    gc.collect()  # Engines of the round before go now, not while we look at memory.
    torch.cuda.reset_peak_memory_stats()
    left, start = bytes_left(), time.perf_counter()
    run = BUILD[backend](images)
    run(images).cpu()  # The first call compiles. Wait for its result.
    seconds = time.perf_counter() - start
    for label in (backend, f"{backend}, CUDA graph"):
        torch.cuda.reset_peak_memory_stats()  # What compiling took is free again.
        with prepare(label, run, images) as call:
            call(images)
            used = left - bytes_left() + (0 if "TensorRT" in backend else held)
            check(call, images)
            ms = median_ms(call, images)
        shape, speedup = f"{batch}x3x224x224", eager_ms.setdefault(batch, ms) / ms
        yield name, label, precision, shape, ms, speedup, used / 2**20, seconds


eager_ms = {}  # Eager comes first at each batch size.
rows = [row for batch in batches for key in BUILD for row in measure(key, batch)]
columns = "model backend precision shape latency_ms speedup peak_memory_mb compile_s"
results = pd.DataFrame(rows, columns=columns.split())
latency = results.pivot_table("latency_ms", "shape", "backend", sort=False)
latency.index = batches

# %%
# Both sides have the same scales. Where a line is flat, the host sets the pace: more
# images cost nothing, because the GPU was waiting anyway. Where it climbs in parallel
# to the dotted limit, the GPU does. Without CUDA graphs a line may even fall, because
# the host's pace varies from run to run.
#
# The distance between TensorRT's two lines is the price of one engine for all sizes.
# Its kernels are not made for the size at hand, and the table shows that it takes the
# memory of the largest size at each size.

# Needs a GPU: it draws the timings.
# Output varies: it draws timings.
figure, axes = plt.subplots(1, 2, figsize=(7, 3.8), sharey=True, layout="constrained")
for ax, end, word in zip(axes, ("", ", CUDA graph"), ("without", "with")):
    latency[[b + end for b in BUILD]].plot(ax=ax, style=".-", loglog=True, legend=False)
    ax.plot(batches, limits, "k:")
    ax.set_xticks(batches, batches)
    ax.set(title=f"Latency in ms, {word} CUDA graphs", xlabel="batch size")
figure.legend(axes[0].lines, [*BUILD, "limit"], loc="outside upper center", ncols=3)
plt.show()

# %%
# Who won at which size, what fraction of the limit that is, and all the numbers. The
# ratios below have CUDA graphs on both sides. Where TensorRT takes longer than Inductor
# (a ratio above one), a likely reason is that Inductor leaves convolutions to cuDNN. A
# speedup is over eager without CUDA graphs at the same batch size.
#
# Expect a small fraction at small batch sizes. A GPU that works through many short
# kernels one by one fills up for none of them, and the limit knows nothing of that.

# Needs a GPU: it reports the timings.
# Output varies: it prints timings.
for (batch, times), limit in zip(latency.iterrows(), limits):
    reached = f"{times.min():.2f} ms, {limit / times.min():.0%} of the limit"
    print(f"Batch {batch}: fastest is {times.idxmin()}, {reached}")
for rival in ("Inductor", "TensorRT for all sizes"):
    ratio = latency["TensorRT, CUDA graph"] / latency[f"{rival}, CUDA graph"]
    print(f"TensorRT's time over that of {rival}, by batch:", ratio.round(2).to_dict())
results.round(3)

# %%
# Takeaways
# ---------
#
# - The builder turns a graph into an engine. Look at the partitions first: one engine
#   is what you want, and each cut costs.
# - Ask for an exception when a build fails, and compare with eager before you time.
# - Give dynamic dimensions a range with an upper end. Count compilations, or forbid
#   them with ``torch.compiler.set_stance("fail_on_recompile")``.
# - One engine for a range saves compilations, not time. For a batch size that comes
#   often, compile an engine of its own, and compare.
# - ``torch.compile`` is the easiest start. It pays for its freedom in every call,
#   with guards and with weights as inputs. Compiling ahead does not.
# - At small batch sizes the host sets the pace. CUDA graphs then matter more than the
#   choice of compiler. Compare like with like.
# - The winner depends on the batch size. State the limit, measure on your own GPU,
#   and keep the numbers of the losses too.
#
# Further reading: `torch.compile with Torch-TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/torch_compile.html>`_, `dynamic shapes
# in Torch-TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/dynamic_shapes.html>`_ and `CUDA
# graphs in PyTorch
# <https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs>`_.

# sphinx_gallery_tags = ["torch.compile", "vision", "dynamic shapes", "CUDA graphs"]
