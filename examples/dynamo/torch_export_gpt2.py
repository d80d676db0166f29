"""
GPT-2 ahead of time: a cache inside the engine
==============================================

Build engines that read prompts, and one that writes token by token with its key/value
cache in place, and learn which writes are lost.

At a glance
-----------

- One token takes TensorRT :recorded:`decode_ms` ms, :recorded:`decode_fraction` of what
  the memory's bandwidth allows, at :recorded:`speed_decode` times the speed of the best
  that PyTorch does alone.
- A prompt of :recorded:`shortest` tokens: :recorded:`speed_prefill_shortest` times the
  speed of PyTorch's best, one of :recorded:`longest`: :recorded:`speed_prefill_longest`.
- A prompt engine that takes a range of lengths needs, at :recorded:`middle` tokens,
  :recorded:`dynamic_ratio` times as long as one that was made for the length. So this
  page makes several, and pads.
- Texts that go on from random tokens: :recorded:`written_equal` of the tokens are those
  that transformers' own model finds the likeliest; eager PyTorch with a cache writes
  :recorded:`eager_equal`.
- When not to use it: where a buffer changes in another way than a cache does. An engine
  forgets such a change without a word; the page has the check for it.

What you will learn
-------------------

- How to keep a key/value cache in an engine, updated in place.
- How to find the writes that an engine would forget.
- How to read prompts of any length with engines of a few lengths, and hand their keys
  and values to the engine that writes.
- How fast each part can be at all, and how near it comes.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers huggingface-hub
    pip install matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. You need to know PyTorch, but
not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""  # noqa: E501

# %%
# Two jobs
# --------
# GPT-2 writes a text one token at a time. Each token attends to all before it, and for
# that needs their *keys* and *values*, two vectors for each token in each layer. They
# never change, so a *key/value cache* keeps them. That makes two jobs of one model:
#
# - **Prefill** reads the prompt, all its tokens in one call, and fills the cache.
# - **Decode** reads one token, adds its keys and values to the cache, and gives a score
#   to each token that could come next.
#
# Each job has a shape of its own, so each gets an *engine* of its own: an optimized
# program that TensorRT builds from a graph, for this GPU.

import logging
import subprocess
import sys
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path

logging.disable(logging.WARNING)  # hints for the developers of the libraries

import huggingface_hub
import torch
import torch_tensorrt
import transformers

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)
on_gpu = torch.cuda.is_available()
device = torch.device("cuda" if on_gpu else "cpu")
dtype = torch.float16
print(f"Running on {device.type} in {dtype}")

# %%
# The weights come from the Hugging Face hub. Where it cannot be reached, they are
# random. A random GPT-2 would answer each token with the same token, because its last
# layer shares its weights with the first. That would make each comparison of tokens
# blind, so the random model gets a last layer of its own. And its weights are larger
# than usual, so that attention counts for more and a lost cache shows. Real text, with
# this technique, is on :doc:`torch_export_llama2`.

MODEL_ID = "openai-community/gpt2"
LENGTHS = (64, 256, 512) if on_gpu else (64, 96, 128)  # each gets an engine
SLOTS = 1024 if on_gpu else 256  # tokens that the cache can hold
SMALL = {} if on_gpu else {"n_layer": 2, "vocab_size": 1000}
try:
    files = ["*.json", "model.safetensors"]
    fetch = partial(huggingface_hub.snapshot_download, etag_timeout=3)
    folder = fetch(MODEL_ID, allow_patterns=files)
    lm = transformers.AutoModelForCausalLM.from_pretrained(folder)
    print(f"Weights: pretrained ({MODEL_ID})")
except OSError:
    config = transformers.GPT2Config(
        tie_word_embeddings=False, initializer_range=0.04, **SMALL
    )
    lm = transformers.GPT2LMHeadModel(config)
    print("Weights: random (the hub could not be reached)")
lm = lm.eval().to(device, dtype)
if not on_gpu:
    lm.transformer.h = lm.transformer.h[:2]
    print("No GPU: 2 layers only")

# %%
# Decode: one token, written in place
# -----------------------------------
# TensorRT has a layer that writes new keys and values into a cache *in place*: the
# cache goes into the engine and comes out as the same memory, no byte of it copied.
# Torch-TensorRT uses that layer where it finds this form: a buffer ``[1, heads, slots,
# width]`` and ``index_copy_`` of one token along dimension 2. Where the token goes may
# change from call to call; shapes may not. So the cache has room for all tokens that
# will ever be, and a mask hides the slots behind the position.
#
# A layer of transformers takes an object for its cache and calls its method ``update``:
# it hands over the new keys and values, and gets all of them back. Ours writes to
# buffers of the module that we compile.

NUMBERS = range(len(lm.transformer.h))
CACHES = [f"{kind}_{number}" for number in NUMBERS for kind in ("key", "value")]


class InPlace:
    """What a layer takes for its cache: buffers of `owner`, written at `position`."""

    def __init__(self, owner, position):
        self.owner, self.position = owner, position

    def write(self, name, new):
        return getattr(self.owner, name).index_copy_(2, self.position, new)

    def update(self, keys, values, number, *others, **options):
        keys = self.write(f"key_{number}", keys)
        return keys, self.write(f"value_{number}", values)


# %%


class Decode(torch.nn.Module):
    """Scores for what follows one token; keys and values stay in buffers."""

    def __init__(self, lm):
        super().__init__()
        self.body, self.head = lm.transformer, lm.lm_head
        heads, width = lm.config.n_head, lm.config.n_embd // lm.config.n_head
        for name in CACHES:
            buffer = torch.zeros(1, heads, SLOTS, width, dtype=dtype, device=device)
            self.register_buffer(name, buffer)

    def forward(self, ids, position):
        hidden = self.body.wte(ids) + self.body.wpe(position)
        seen = torch.arange(SLOTS, device=ids.device) <= position
        given = {"past_key_values": InPlace(self, position), "use_cache": True}
        given["attention_mask"] = seen[None, None, None]
        for layer in self.body.h:
            hidden = layer(hidden, **given)
        return self.head(self.body.ln_f(hidden))[:, 0]


# %%
# Export it, compile it. The engine's object says which of its outputs are inputs
# written in place, in ``aliased_io``. And what if a buffer is written in another way?
# Then the compiled module *never* changes it, and says nothing. Such buffers are listed
# in ``gm.meta["_copyback_mutation_buffers"]`` (private, seen in 2.14; there is no
# public way). So ``ahead`` raises if there is one. ``min_block_size=1`` allows engines
# of few operators.


def in_place(compiled):
    """How many tensors the engines of a compiled module write in place."""
    parts = [part for _, part in compiled.named_children()]
    return sum(len(getattr(part, "aliased_io", None) or {}) for part in parts)


def forgotten(compiled):
    """Buffers that the module should write and never will."""
    return sorted(compiled.meta.get("_copyback_mutation_buffers") or [])


def ahead(module, given, shapes=None, inputs=None):
    """Compile ahead of time; refuses a module whose writes would be forgotten."""
    program = torch.export.export(module, given, strict=False, dynamic_shapes=shapes)
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=inputs or given, min_block_size=1
    )
    if forgotten(compiled):
        raise RuntimeError(f"these buffers would never change: {forgotten(compiled)}")
    return compiled


def only(output):
    """The scores: the first of several outputs."""
    return output[0] if isinstance(output, tuple) else output


def at(position):
    return torch.tensor([position], device=device)


def random_ids(length):
    return torch.randint(lm.config.vocab_size, (1, length), device=device)


# %%

first_token = random_ids(1), at(0)
decode = ahead(Decode(lm), first_token)
print("parts:", [name for name, _ in decode.named_children()])
print("written in place:", in_place(decode), "of", len(CACHES), "caches")
print("forgotten:", forgotten(decode))

# %%
# One part, so the whole model is in one engine, and no cache is forgotten. The caches
# are buffers of the compiled module, under their old names: ``decode.key_0``.
#
# Prefill: the prompt in one call
# -------------------------------
# Decode could read the prompt as well, token by token. But a call of many tokens takes
# hardly longer than a call of one, because both read all weights. So prefill is a
# module of its own. It needs no cache: it *returns* its keys and values, and they are
# copied into the buffers of decode. (``index_copy_`` of many tokens would be forgotten;
# a table below shows what is not.)
#
# An engine is made for one length. A shorter prompt is padded at its end to the next
# length that there is. Attention in GPT-2 looks back only, so no token sees the padding
# behind it. The scores are wanted for the last token of the prompt alone, so ``last``
# says which one that is, and only it goes through the large last layer.


# %%
class Collect:
    """What a layer takes for its cache where keys and values are to be returned."""

    def __init__(self):
        self.found = []

    def update(self, keys, values, *others, **options):
        self.found += [keys, values]
        return keys, values


class Prefill(torch.nn.Module):
    """Scores for what follows token `last`, then keys and values of all layers."""

    def __init__(self, lm):
        super().__init__()
        self.body, self.head = lm.transformer, lm.lm_head

    def forward(self, ids, last):
        positions = torch.arange(ids.shape[1], device=ids.device)
        hidden = self.body.wte(ids) + self.body.wpe(positions)
        cache = Collect()
        for layer in self.body.h:
            hidden = layer(hidden, past_key_values=cache, use_cache=True)
        scores = self.head(self.body.ln_f(hidden.index_select(1, last)))[:, 0]
        return scores, *cache.found


prefills = {}  # by length
prefills[LENGTHS[1]] = ahead(Prefill(lm), (random_ids(LENGTHS[1]), at(0)))
print("prefill engines for lengths", list(prefills))

# %%
# ``read`` chooses the engine, pads, calls, and copies keys and values into decode's
# buffers. Those of the padding are copied as well, and do no harm: the mask hides each
# slot until decode has written its own keys and values there.


def read(prompt, prefills, decode):
    """Scores for what follows the prompt; its keys and values are in decode's cache."""
    length = prompt.shape[1]
    size = min(size for size in prefills if size >= length)
    padded = torch.zeros(1, size, dtype=torch.int64, device=device)
    padded[:, :length] = prompt
    scores, *found = prefills[size](padded, at(length - 1))
    fill(decode, found)
    return scores


def fill(decode, found):
    for name, new in zip(CACHES, found):
        getattr(decode, name)[:, :, : new.shape[2]] = new


# %%
# Does it work together? A text, all but its last token read by prefill, the last by
# decode. *Relative error* is the size of the difference over the size of what
# transformers' own model answers, which gets the whole text at once and keeps no cache.
# The control is what decode answers with an empty cache. So a cache that was forgotten,
# shifted or filled with the wrong layer would be seen.

# Output varies: digits depend on the device.
TOLERANCE = 2e-2  # float16 keeps about three digits, and each layer rounds anew


def noted(name, value):
    """A value that the text quotes."""
    print(f"{name} = {value}")


def error_of(answer, expected):
    return ((answer - expected).norm() / expected.norm()).item()


text = random_ids(12)
expected = lm(text, use_cache=False).logits[:, -1]
last = text[:, -1:], at(text.shape[1] - 1)
empty = error_of(only(decode(*last)), expected)
read(text[:, :-1], prefills, decode)
error = error_of(only(decode(*last)), expected)
noted("handed_over", f"{error:.1e}")
noted("empty_cache", f"{empty:.2f}")
assert error <= TOLERANCE <= empty / 10

# %%
# The error is :recorded:`handed_over`; with an empty cache it would be
# :recorded:`empty_cache`.
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
# What one token costs
# --------------------
# The limit first. One token reads all weights once, except the tables of tokens and of
# positions, of which it needs a row each, and all slots of the cache, filled or not.
# The arithmetic is nothing beside that. At the bandwidth of a large copy:

# Needs a GPU: it measures what the GPU sustains.
# Output varies: it is measured.
tflops, gigabytes = gpu_limits(dtype)
products = weight_bytes(lm.transformer.h) + lm.lm_head.weight.nbytes
cache_bytes = weight_bytes(Decode(lm)) - weight_bytes(lm)
limit_ms = (products + cache_bytes) / gigabytes / 1e6
noted("gpu", f"{tflops:.0f} TFLOP/s, {gigabytes:.0f} GB/s")
noted("token_mb", f"{products / 1e6:.0f} of weights, {cache_bytes / 1e6:.0f} of cache")
noted("limit_ms", f"{limit_ms:.3f}")

# %%
# MB: :recorded:`token_mb`. So no token takes less than :recorded:`limit_ms` ms. Now the
# ways of PyTorch alone, *Inductor* (the compiler behind ``torch.compile``) with its
# slow search for the best kernels among them, and TensorRT. Each row is measured
# without and with a *CUDA graph*: all that the GPU does in a call, recorded once and
# launched by one command. The caches hold noise, so that a write to the wrong place
# would show in the error, which is that of another token.

# Needs a GPU: the benchmark.
# Output varies: it is measured.
warm_up()
noisy = Decode(lm)
for name in CACHES:
    getattr(noisy, name).normal_()
given, fresh = [(random_ids(1), at(SLOTS // 2)) for _ in range(2)]
ways = pytorch_alone(noisy) | {"TensorRT": lambda: ahead(noisy, given)}
about = {"model": "GPT-2", "tolerance": TOLERANCE}
rows = compare(ways, noisy, given, fresh, shape="1 token", **about)
table = results(rows)
table.assign(memory_ms=limit_ms)

# %%
# The slow search lost here: in a CUDA graph its row is no faster than eager's. It did
# compile, for without a graph a call takes as long as Inductor's, and the error is
# nearly the same. Which kernels it chose, and why, this page did not look at.
#
# The figures that the text quotes, in CUDA graphs:

# Needs a GPU: it reports what was measured.
# Output varies: it is measured.


def fastest(table):
    """TensorRT's row and the best of PyTorch alone, both in CUDA graphs."""
    graphs = table[table.backend.str.endswith("CUDA graph")]
    graphs = graphs.set_index(graphs.backend.str.removesuffix(", CUDA graph"))
    alone = graphs.drop("TensorRT")
    return graphs.loc["TensorRT"], alone.loc[alone.latency_ms.idxmin()]


ours, alone = fastest(table)
noted("decode_ms", f"{ours.latency_ms:.3f}")
noted("decode_fraction", f"{limit_ms / ours.latency_ms:.0%}")
noted("speed_decode", f"{ours.speedup:.2f}")
noted("alone_decode", alone.name)
noted("alone_fraction", f"{limit_ms / alone.latency_ms:.0%}")
kernels = profiled(partial(decode, *given))[0]
noted("launches", kernels.launches.sum())
noted("kernels_ms", f"{kernels.microseconds.sum() / 1000:.3f}")
noted("each_us", f"{kernels.microseconds.sum() / kernels.launches.sum():.1f}")
noted("bytes_us", f"{1000 * limit_ms / kernels.launches.sum():.1f}")

# %%
# TensorRT takes :recorded:`decode_ms` ms, :recorded:`decode_fraction` of the limit. The
# best of PyTorch, :recorded:`alone_decode`, reaches :recorded:`alone_fraction`. The
# profiler counts :recorded:`launches` kernels of TensorRT's for a token, together
# :recorded:`kernels_ms` ms, so :recorded:`each_us` microseconds each. The bytes that
# one of them reads need :recorded:`bytes_us` on average. So most of a kernel's time is
# not the reading. What it is, and why Inductor is faster here, this page did not look
# at; :doc:`torch_export_llama2` takes a step apart kernel by kernel. A model with more
# to read in each kernel comes nearer to the limit: the one on that page does.
#
# What a prompt costs
# -------------------
# Prefill at the shortest and the longest length, against PyTorch alone (without the
# slow search). Here arithmetic counts as well: two operations for each weight and
# token. The table has both limits.


def prompt_limits(length):
    """The least time of a prompt's arithmetic, and of its bytes, in ms."""
    count = sum(weight.numel() for weight in lm.transformer.h.parameters())
    arithmetic = 2 * (count * length + lm.lm_head.weight.numel())
    moved = products + cache_bytes * length / SLOTS
    return arithmetic / tflops / 1e9, moved / gigabytes / 1e6


def keep(length, given):
    prefills[length] = ahead(Prefill(lm), given)
    return prefills[length]


# %%

# Needs a GPU: the benchmark.
# Output varies: it is measured.
rows, floors = [], {}
reference = Prefill(lm)
for length in (LENGTHS[0], LENGTHS[-1]):
    given, fresh = [(random_ids(length), at(length - more)) for more in (1, 2)]
    ways = pytorch_alone(reference, autotune=False)
    ways["TensorRT"] = partial(keep, length, given)
    shape = f"{length} tokens"
    rows += compare(ways, reference, given, fresh, shape=shape, **about)
    floors[shape] = prompt_limits(length)
prompts = results(rows)
prompts["arithmetic_ms"], prompts["memory_ms"] = zip(*prompts["shape"].map(floors))
for name, length in {"shortest": LENGTHS[0], "longest": LENGTHS[-1]}.items():
    ours, alone = fastest(prompts[prompts["shape"] == f"{length} tokens"])
    noted(name, length)
    noted(f"speed_prefill_{name}", f"{ours.speedup:.2f}")
    noted(f"ms_prefill_{name}", f"{ours.latency_ms:.3f}")
    noted(f"fraction_{name}", f"{max(floors[ours['shape']]) / ours.latency_ms:.0%}")
prompts

# %%
# :recorded:`shortest` tokens take TensorRT :recorded:`ms_prefill_shortest` ms, which is
# :recorded:`speed_prefill_shortest` times the speed of PyTorch's best and
# :recorded:`fraction_shortest` of the limit. :recorded:`longest` tokens take
# :recorded:`ms_prefill_longest` ms: :recorded:`speed_prefill_longest` times, and
# :recorded:`fraction_longest`. Below, how long until each way was ready, against its
# time.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: Seconds until ready against latency: for a token, and for prompts of
#   :recorded:`shortest` and :recorded:`longest` tokens, where TensorRT has
#   :recorded:`speed_decode`, :recorded:`speed_prefill_shortest` and
#   :recorded:`speed_prefill_longest` times the speed of PyTorch's best.
plot_ready(pd.concat([table, prompts]))

# %%
# One engine for all lengths?
# ---------------------------
# An engine can take a range of lengths. It is optimized for one of them, ``opt_shape``.
# What does that cost? The dynamic engine at just that length, against the static one
# for it. TensorRT-RTX makes kernels when an engine runs, and has three ways to do so
# for a dynamic shape: for each shape that it meets, in the background (``lazy``, the
# default) or before the call returns (``eager``), or the same for all (``none``).

MIDDLE, LONGEST = LENGTHS[1], LENGTHS[-1]
prompt_length = torch.export.Dim("prompt_length", min=2, max=LONGEST)
span = {"min_shape": (1, 2), "opt_shape": (1, MIDDLE), "max_shape": (1, LONGEST)}
taken = torch_tensorrt.Input(**span, dtype=torch.int64)
dynamic = ahead(
    Prefill(lm),
    (random_ids(MIDDLE), at(0)),
    shapes=({1: prompt_length}, None),
    inputs=[taken, torch_tensorrt.Input((1,), dtype=torch.int64)],
)
unseen = random_ids(MIDDLE), at(MIDDLE - 1)
other = random_ids(MIDDLE), at(MIDDLE - 1)
for name, engine in {"static": prefills[MIDDLE], "dynamic": dynamic}.items():
    check(engine, Prefill(lm), unseen, other, TOLERANCE, name)

# %%
# The static engines in a CUDA graph that is captured by hand; the dynamic one in a
# graph that TensorRT-RTX captures itself, because it may still be making kernels when
# it is called. (Standard TensorRT has neither this nor the strategies.) Then the
# dynamic engine also at the shortest and the longest length.

# Needs a GPU: it measures.
# Output varies: it is measured.


def prompt_of(length):
    return random_ids(length), at(length - 1)


def dynamic_at(length, strategy):
    """Latency in ms of the dynamic engine, with kernels made in this way."""
    choice = {"dynamic_shapes_kernel_specialization_strategy": strategy}
    choice |= {"cuda_graph_strategy": "whole_graph_capture", "runtime_cache": None}
    rtx = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
    with torch_tensorrt.runtime.runtime_config(dynamic, **(choice if rtx else {})):
        call = partial(dynamic, *prompt_of(length))
        call()
        return latency(call)[0]


static_ms = {}
for length in LENGTHS:
    replay = captured(partial(prefills[length], *prompt_of(length)))
    static_ms[length] = latency(replay)[0]
kinds = {kind: dynamic_at(MIDDLE, kind) for kind in ("lazy", "eager", "none")}
for kind, ms in kinds.items():
    noted(f"ms_{kind}", f"{ms:.3f}")
kind = min(kinds, key=kinds.get)
dynamic_ms = {length: dynamic_at(length, kind) for length in (LENGTHS[0], LONGEST)}
dynamic_ms = dict(sorted({MIDDLE: kinds[kind], **dynamic_ms}.items()))
noted("middle", MIDDLE)
noted("ms_static", f"{static_ms[MIDDLE]:.3f}")
noted("dynamic_ratio", f"{kinds[kind] / static_ms[MIDDLE]:.2f}")
worst = static_ms[MIDDLE] / dynamic_ms[LENGTHS[0]]
noted("worst_padding", f"{worst:.2f}")

# %%
# At :recorded:`middle` tokens the static engine takes :recorded:`ms_static` ms, the
# dynamic one :recorded:`ms_lazy` ms lazy, :recorded:`ms_eager` ms eager and
# :recorded:`ms_none` ms with the same kernels for all: the best of them takes
# :recorded:`dynamic_ratio` times as long. Not all of that need be the dynamic shape:
# the two graphs were captured in different ways, and on
# :doc:`torch_compile_transformers_example` one and the same engine is slower in a graph
# that TensorRT-RTX captures than in one captured by hand. At the other two lengths the
# dynamic engine loses less (figure below).
#
# Padding has a price too. Its worst case is a prompt just above
# :recorded:`shortest` tokens, which is padded to :recorded:`middle`. Even that takes
# only :recorded:`worst_padding` times as long as the dynamic engine at
# :recorded:`shortest`. Where it takes longer, one more engine between the two makes the
# steps smaller.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: At :recorded:`middle` tokens, the dynamic engine takes
#   :recorded:`dynamic_ratio` times as long as the static one.
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
ends = [0, *static_ms]
steps = [static_ms[LENGTHS[0]], *static_ms.values()]
axis.step(ends, steps, where="pre", label="static engines, padded to the next length")
axis.plot(dynamic_ms.keys(), dynamic_ms.values(), "s--", label="one dynamic engine")
axis.set(xlabel="tokens in the prompt", ylabel="ms in a CUDA graph", ylim=(0, None))
axis.set_xticks(LENGTHS)
figure.legend(loc="outside upper center", ncols=2, frameon=False)
plt.show()

# %%
# A whole text
# ------------
# Both engines, with the choice of the next token: always the likeliest. If that happens
# on the GPU too, then each step is the same commands on the same addresses, and one
# CUDA graph serves all steps. The same class runs PyTorch's modules, for comparison.


def clear(decode):
    for name in CACHES:
        getattr(decode, name).zero_()


class Writer:
    """Writes texts with a decode module and prefill modules by length."""

    def __init__(self, decode, prefills, record=False):
        self.decode, self.prefills = decode, prefills
        self.ids, self.position = random_ids(1), at(0)
        self.step = captured(self.advance) if record else self.advance

    def advance(self):
        self.choose(only(self.decode(self.ids, self.position)))
        self.position.add_(1)

    def choose(self, scores):
        self.ids.copy_(scores.argmax(1, keepdim=True))

    def write(self, prompt, count, forget=False):
        """The prompt and `count` tokens; seconds for the first and for the rest."""
        start = time.perf_counter()
        self.choose(read(prompt, self.prefills, self.decode))
        self.position.fill_(prompt.shape[1])
        tokens = [prompt, self.ids.clone()]
        if forget:
            clear(self.decode)
        torch.cuda.synchronize()
        first = time.perf_counter()
        for _ in range(count - 1):
            self.step()
            tokens.append(self.ids.clone())
        torch.cuda.synchronize()
        return torch.cat(tokens, 1), first - start, time.perf_counter() - first


# %%
# Two prompts, neither of which fits a length. Each is written twice; the second time
# counts. The table has the time until the first token is there (prefill is called
# without a CUDA graph, so the host takes part in it) and the rate of the others.

# Needs a GPU: it writes texts.
# Output varies: it is measured.
COUNT = 128 if on_gpu else 6
SHORT, LONG = LENGTHS[0] - 3, LENGTHS[-1] * 5 // 8
PROMPTS = {size: random_ids(size) for size in (SHORT, LONG)}
eager = Decode(lm), dict.fromkeys(LENGTHS, Prefill(lm))
writers = {
    "eager": Writer(*eager),
    "eager, CUDA graph": Writer(*eager, record=True),
    "TensorRT": Writer(decode, prefills),
    "TensorRT, CUDA graph": Writer(decode, prefills, record=True),
}
told, texts = [], {}
for way, writer in writers.items():
    for size, prompt in PROMPTS.items():
        writer.write(prompt, COUNT)
        texts[way, size], first, rest = writer.write(prompt, COUNT)
        told.append([way, size, 1000 * first, (COUNT - 1) / rest])
columns = ["way", "prompt", "first_token_ms", "tokens_per_s"]
told = pd.DataFrame(told, columns=columns)
rates = told.groupby("way").tokens_per_s.min().round().astype(int)
noted("rate_eager", rates["eager"])
noted("rate_eager_graph", rates["eager, CUDA graph"])
noted("rate_tensorrt", rates["TensorRT, CUDA graph"])
told.round(2)

# %%
# :recorded:`rate_tensorrt` tokens a second, choice included. Eager writes
# :recorded:`rate_eager` as most people call it, and :recorded:`rate_eager_graph` in a
# CUDA graph. Each is the lower rate of the two prompts, taken once; eager's without a
# graph are far apart. Inductor wrote no text here. It should write more than either:
# for a token alone it needs :recorded:`speed_decode` times as long as TensorRT.
#
# Are they the right tokens? Where two tokens are nearly as likely, rounding decides,
# and from there on two texts differ for good. So let transformers' own model judge. It
# gets a whole text in one call, without a cache: is each token the likeliest after
# those before it? Where it is not, how far is it behind, in standard deviations of the
# scores? Eager's own text with a cache is judged too. The control is TensorRT's text if
# the cache is emptied between prefill and decode.

# Needs a GPU: it writes texts.
# Output varies: rounding decides between tokens that are nearly as likely.


def judged(text, size):
    """How many tokens after `size` the model would choose, and the worst choice."""
    scores = lm(text[:, :-1], use_cache=False).logits[0, size - 1 :].float()
    chosen = scores.gather(1, text[0, size:, None])[:, 0]
    behind = (scores.amax(1) - chosen) / scores.std()
    return (behind == 0).sum().item(), behind.max().item()


writer = writers["TensorRT, CUDA graph"]
for size, prompt in PROMPTS.items():
    texts["TensorRT, forgetful", size] = writer.write(prompt, COUNT, forget=True)[0]
verdict = [[*key, *judged(text, key[1])] for key, text in texts.items()]
verdict = pd.DataFrame(verdict, columns=["way", "prompt", "equal", "worst"])
total = COUNT * len(PROMPTS)
equal, worst = verdict.groupby("way").equal.sum(), verdict.groupby("way").worst.max()
noted("written_equal", f"{equal['TensorRT, CUDA graph']} of {total}")
noted("eager_equal", f"{equal['eager, CUDA graph']} of {total}")
noted("forgetful_equal", f"{equal['TensorRT, forgetful']} of {total}")
noted("worst_choice", f"{worst['TensorRT, CUDA graph']:.3f}")
noted("worst_forgetful", f"{worst['TensorRT, forgetful']:.1f}")
verdict.round(4)

# %%
# Of TensorRT's tokens, :recorded:`written_equal` are those that the model finds the
# likeliest; of eager's, :recorded:`eager_equal`; of those that were written with an
# emptied cache, :recorded:`forgetful_equal`. The worst choice of TensorRT's was behind
# by :recorded:`worst_choice` standard deviations, with the emptied cache by
# :recorded:`worst_forgetful`.
#
# Must the cache be cleared between two prompts? The mask hides what is left of an older
# text, and each slot is written before it is read. So write a text, then a longer one,
# then the first again, and once more after clearing:

# Needs a GPU: it writes texts.
# Output varies: digits depend on the GPU.
before = writer.write(PROMPTS[SHORT], COUNT)[0]
writer.write(PROMPTS[LONG], COUNT)
after = writer.write(PROMPTS[SHORT], COUNT)[0]
clear(decode)
cleared = writer.write(PROMPTS[SHORT], COUNT)[0]
for name, text in {"uncleared": after, "cleared": cleared}.items():
    same = (before == text)[0, SHORT:]
    noted(f"equal_{name}", f"{same.sum()} of {COUNT}")

# %%
# Tokens equal to those of the first time: :recorded:`equal_uncleared` without clearing,
# :recorded:`equal_cleared` after it. Clear the cache where one user's text must not
# stay in memory for the next: ``zero_()`` on each buffer.

# %%
# Which writes are kept
# ---------------------
# Now to the writes that are not. Six small modules, each with one buffer. The first
# column says what the check finds at build time: whether the engine writes in place,
# or the write is on the list of those to be forgotten.


class Writes(torch.nn.Module):
    """One buffer, and one way to write into it."""

    def __init__(self, write, rows=1):
        super().__init__()
        self.write = write
        self.register_buffer("cache", torch.zeros(rows, 2, 8, 4, device=device))

    def forward(self, new, position):
        self.write(self.cache, new, position)
        return self.cache.sum(dim=2)


def by_index(cache, new, position):
    cache.index_copy_(2, position, new)


def by_slice(cache, new, position):
    cache[:, :, 0 : new.shape[2]] = new


def add(cache, new, position):
    cache.add_(new.sum())


# Each: how it writes, rows, tokens
WRITES = {
    "index_copy_, one token": (by_index, 1, 1),
    "index_copy_, four tokens": (by_index, 1, 4),
    "index_copy_, two rows": (by_index, 2, 1),
    "slice with fixed ends, four tokens": (by_slice, 1, 4),
    "slice with fixed ends, two rows": (by_slice, 2, 4),
    "add_": (add, 1, 1),
}

# %%


def build_writes(write, rows, tokens):
    """The compiled module, its inputs, and what the check says."""
    new = torch.ones(rows, 2, tokens, 4, device=device)
    given = new, torch.arange(tokens, device=device)
    program = torch.export.export(Writes(write, rows), given, strict=False)
    run = torch_tensorrt.dynamo.compile(program, arg_inputs=given, min_block_size=1)
    if forgotten(run):
        return run, given, "to be forgotten"
    return run, given, "in place" if in_place(run) else "nothing found"


built = {name: build_writes(*how) for name, how in WRITES.items()}
found = pd.Series({name: said for name, (_, _, said) in built.items()}, name="check")
noted("listed", f"{(found == 'to be forgotten').sum()} of {len(found)}")
found.to_frame()

# %%
# Then each is called twice. ``cache`` is the sum of what stands in the buffer
# afterwards. ``answer`` is the sum of what the second call returned, in the engine and
# in PyTorch.

# Needs a GPU: in an engine's place, PyTorch would not write into its input.
told = {}
for name, (run, given, _) in built.items():
    eager = Writes(*WRITES[name][:2])
    try:
        for _ in range(2):
            answer, expected = only(run(*given)), eager(*given)
    except Exception as error:
        print(name, "was refused:", textwrap.shorten(str(error), 200))
        continue
    sums = {"cache": run.cache.sum(), "in PyTorch": eager.cache.sum()}
    sums |= {"answer": answer.sum(), "expected": expected.sum()}
    told[name] = {kind: round(value.item(), 1) for kind, value in sums.items()}
told = pd.DataFrame(told).T
lost = told["cache"] != told["in PyTorch"]
noted("lost", f"{lost.sum()} of {len(lost)}")
noted("lost_unlisted", f"{(found[lost.index][lost] == 'in place').sum()}")
noted("wrong_answers", f"{(told['answer'] != told['expected']).sum()}")
told.assign(check=found, lost=lost)

# %%
# Of the writes, :recorded:`lost` are lost, without any message; among them
# :recorded:`lost_unlisted` that the check took for one in place. And
# :recorded:`wrong_answers` of the answers are wrong: within a call, an engine sees what
# it has written, so a test of one call from an empty cache passes. It takes two calls,
# with different tokens, to see that a cache is lost.
#
# What to do with a buffer that is on the list? Return its new content as an output and
# copy it yourself, as prefill does here. Or write in a form that is kept.
#
# When it goes wrong
# ------------------
# **Each token is fluent, the text is not.** The cache is lost. Run ``forgotten``, and
# compare with the whole text, as above.
#
# **"these buffers would never change".** That is this page's own error. Here it comes
# from a decode module for two texts at once: the layer of TensorRT takes
# ``index_copy_`` for one row only.

# Output varies: the order of the names.
pair = torch.randn(2, 2, 1, 4, device=device)
try:
    ahead(Writes(by_index, rows=2), (pair, at(0)))
    print("no error")
except RuntimeError as error:
    print(error)

# %%
# **"build_serialized_network returned None".** TensorRT-RTX 1.6 does not build the
# prompt engine of a GPT-2 that is much narrower than the real one (``n_embd=64``, for a
# test) at a fixed length; with a dynamic length it does. Test at the real width, with
# fewer layers.
#
# **A position beyond the last slot.** No shape is wrong, so nothing in the engine
# checks it. Compare the position with the number of slots on the host.
#
# **A prompt longer than the longest engine.** ``read`` finds no engine, and ``min``
# raises:

try:
    read(random_ids(LENGTHS[-1] + 1), prefills, decode)
except ValueError as error:
    print("ValueError:", error)

# %%
# Take it to production
# ---------------------
# Save both engines, and load them in a fresh process, which needs neither transformers
# nor the weights, but the same versions and the same kind of GPU. Load only files that
# you trust: they are unpickled.

# Needs a GPU: tracing an engine for a file needs one.
# Output varies: it is measured.
folder = Path(tempfile.mkdtemp())


def save(name, module, *given):
    """Save a module; say so where that is refused."""
    try:
        torch_tensorrt.save(module, str(folder / name), arg_inputs=[*given])
    except Exception as refused:
        print(name, type(refused).__name__, textwrap.shorten(str(refused), 200))


text = random_ids(12)
prompt = torch.zeros(1, LENGTHS[0], dtype=torch.int64, device=device)
prompt[:, :4] = text[:, :4]
given = prompt, at(3)
save("decode.ep", decode, *first_token)
save("prefill.ep", prefills[LENGTHS[0]], *given)
expected = lm(text, use_cache=False).logits[:, -1]
data = {"text": text, "given": given, "caches": CACHES, "expected": expected}
torch.save(data, folder / "data.pt")
saved = [path.stat().st_size / 1e6 for path in folder.glob("*.ep")]
noted("saved_mb", " and ".join(f"{size:.0f}" for size in sorted(saved)) or "(none)")

# %%
# That is :recorded:`saved_mb` MB. The process reads four tokens with prefill and eight
# with decode, and compares its scores with those of the whole text: first with an empty
# cache, as a control, then with keys and values handed over. Were a write lost in the
# file, both errors would be large.

# Needs a GPU: the fresh process runs the engines.
# Output varies: it is measured.
(folder / "serve.py").write_text("""
import time, torch, torch_tensorrt
torch.set_grad_enabled(False)
start = time.perf_counter()
prefill = torch_tensorrt.load("prefill.ep").module()
decode = torch_tensorrt.load("decode.ep").module()
data = torch.load("data.pt")
text, expected, buffers = data["text"], data["expected"], [*decode.named_buffers()]
def error():
    for position in range(4, 12):
        at = torch.tensor([position], device=text.device)
        answer = decode(text[:, position : position + 1], at)
    answer = answer[0] if isinstance(answer, (tuple, list)) else answer
    return ((answer - expected).norm() / expected.norm()).item()
print(f"served_empty = {error():.2f}")
for name, new in zip(data["caches"], prefill(*data["given"])[1:]):
    cache = next(buffer for key, buffer in buffers if key.endswith(name))
    cache[:, :, : new.shape[2]] = new
print(f"served_error = {error():.1e}")
print(f"served_ready_s = {time.perf_counter() - start:.1f}")
""")
serve = [sys.executable, "serve.py"]
done = subprocess.run(serve, cwd=folder, capture_output=True, text=True)
print(done.stdout)
for name in ("served_empty", "served_error", "served_ready_s"):
    if name not in done.stdout:
        noted(name, f"(failed: {textwrap.shorten(done.stderr[-300:], 200)})")

# %%
# The error in the fresh process is :recorded:`served_error`, with an empty cache
# :recorded:`served_empty`. It had done all that after :recorded:`served_ready_s` s,
# making kernels included.
#
# One cache is one conversation at a time. For several at once, give each a decode
# module of its own.
#
# Exercise
# --------
# Make prefill write in place as well: give it caches, write them by a slice from 0 to
# its length, and return only the scores. It is in the table above that such a write is
# kept. Then let decode use the same memory (``setattr(decode, "key_0",
# prefill.key_0)``) and drop ``fill``. Is the error the same? What does it gain at the
# longest prompt?
#
# Takeaways
# ---------
# - One token: :recorded:`decode_ms` ms of :recorded:`limit_ms` that the memory allows,
#   at :recorded:`speed_decode` times the speed of PyTorch's best.
# - Prompts: :recorded:`speed_prefill_shortest` times at :recorded:`shortest` tokens,
#   :recorded:`speed_prefill_longest` at :recorded:`longest`. At :recorded:`middle` an
#   engine for a range takes :recorded:`dynamic_ratio` times as long as one for the
#   length.
# - A compiled module keeps the writes that the engine makes in place, and forgets
#   others: here :recorded:`lost`. ``gm.meta["_copyback_mutation_buffers"]`` lists them.
# - Prefill returns keys and values, which are copied into decode's buffers. With that
#   :recorded:`written_equal` tokens are those that transformers' own model finds the
#   likeliest; with an emptied cache :recorded:`forgetful_equal`.
#
# More about it: `Compiling LLMs
# <https://docs.pytorch.org/TensorRT/tutorials/compile_hf_models.html>`_ in the manual.

# sphinx_gallery_tags = ["torch.export", "language", "CUDA graphs", "benchmark"]
