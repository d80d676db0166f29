"""
Serving a Torch-TensorRT model with Triton
==========================================

Put a compiled ResNet behind Triton Inference Server, query it over HTTP and gRPC, and
measure what dynamic batching gains.

**What you will learn**

- how to export a compiled model with a dynamic batch, half precision inside and FP32
  at the interface
- what a model repository is, and what each line of its configuration does
- how to start a real Triton server from a pip package, without a container
- how to query it with batches, asynchronous requests, time-outs and retries
- how to measure latency and throughput under load, with and without dynamic batching

**Prerequisites**

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* torchvision matplotlib pandas scikit-learn "tritonclient[http,grpc]==2.73.0"

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. The server runs
on Linux (x86-64, glibc 2.35 or newer) with Python 3.10 to 3.12.
"""  # noqa: E501

# %%
# Why a server
# ------------
# A GPU is fast when it works on many images at once. The users of a service come one by
# one. A *model server* stands in between: it takes requests over the network, puts
# those that wait at the same time into one batch, runs the model once, and hands each
# user their own part of the answer. Triton Inference Server does that for any
# framework. It runs a PyTorch program in its *Python backend*: a Python process of its
# own per model.
#
# We go all the way here: compile a model, write a *model repository* for it, start the
# server, ask it, make it fail, and measure it. Everything is written into a temporary
# folder. In the gallery's repository, ``export.py``, ``serve.py`` and ``client.py``
# beside this tutorial do the same as command-line programs.

import contextlib
import ctypes
import io
import logging
import os
import queue
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

# Hints about optional packages, at import, would bury the output.
logging.disable(logging.WARNING)

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch_tensorrt
import torchvision
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from sklearn.datasets import load_sample_image
from torch.utils.flop_counter import FlopCounterMode
from triton.testing import do_bench
from tritonclient.utils import InferenceServerException

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
torch.set_grad_enabled(False)
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
workspace = Path(folder.name)

# %%
# The model
# ---------
# ResNet-50 on a GPU. Without one a smaller network stands in, in float32, because a CPU
# has no fast half-precision convolutions. Clients should not have to know about half
# precision, so the casts go into the program: FP32 comes in, FP32 goes out.
# Torch-TensorRT keeps the types that a program states, so the casts become part of the
# *engine*, the compiled program that TensorRT makes.

# Output varies: weights may be downloaded first.
name, dtype = ("resnet50", torch.half) if on_gpu else ("resnet18", torch.float)
max_batch = 32 if on_gpu else 8
weights = torchvision.models.get_model_weights(name).DEFAULT
torch.manual_seed(0)
try:
    with contextlib.redirect_stdout(io.StringIO()):  # hides "Downloading ..."
        model = torchvision.models.get_model(name, weights=weights, progress=False)
    print("Weights: pretrained", weights)
except OSError:
    model = torchvision.models.get_model(name)
    print("Weights: random (no download possible), same architecture")


class Served(torch.nn.Sequential):
    def forward(self, image):
        return super().forward(image.to(dtype)).float()


served = Served(model).eval().to(device, dtype)
print(f"{name} on {device.type}, {dtype} inside, batches of 1 to {max_batch}")

# %%
# Export and compile
# ------------------
# Export records the graph of operators once. The batch is declared dynamic: the server
# decides how many images go into a call. The plain exported program is kept: it is
# what the engine is measured against.
#
# The compiler gets the range of shapes. This is an *optimization profile*: the
# engine accepts everything from ``min_shape`` to ``max_shape``, and is tuned for
# ``opt_shape``. One thing is easy to miss: where a program was exported with a dynamic
# batch, Torch-TensorRT takes the size to tune for from export's example, and not from
# ``opt_shape``. So both say the same here. (An example of one image would not do:
# export would take its batch for a constant.)
#
# Then the result is compared with eager PyTorch, on fresh input and for several
# batches, the smallest and the largest among them.

shape = (3, 224, 224)
dims = ({0: torch.export.Dim("batch", min=1, max=max_batch)},)
example = torch.randn(max_batch // 2, *shape, device=device)
exported = torch.export.export(served, (example,), dynamic_shapes=dims)
torch.export.save(exported, workspace / "eager.pt2")

started = time.perf_counter()
low, mid, high = ((size, *shape) for size in (1, max_batch // 2, max_batch))
profile = torch_tensorrt.Input(min_shape=low, opt_shape=mid, max_shape=high)
compiled = torch_tensorrt.dynamo.compile(exported, arg_inputs=[profile])
compile_s = time.perf_counter() - started
print("Parts of the compiled model:", [part for part, _ in compiled.named_children()])

tolerance = 2e-2 if on_gpu else 1e-4
for size in (1, 5, max_batch):
    fresh = torch.randn(size, *shape, device=device)
    wanted = served(fresh)
    assert (compiled(fresh) - wanted).abs().max() < tolerance * wanted.abs().max()
print(f"Agrees with eager to within {tolerance} of the largest score: True")

# %%
# ``torch_tensorrt.save`` writes the program with the engine in it. Without a GPU an
# engine cannot run, so there the server gets the plain program.

if on_gpu:
    path = str(workspace / "compiled.pt2")
    torch_tensorrt.save(compiled, path, arg_inputs=[example], dynamic_shapes=dims)
entry = "compiled" if on_gpu else "eager"

# %%
# A model repository
# ------------------
# Triton reads models from a folder of this layout::
#
#     compiled/config.pbtxt      tensors, batching, where to run
#     compiled/labels.txt        one class name a line
#     compiled/1/model.py        version 1: code for the Python backend
#     compiled/1/compiled.pt2    our program
#
# The Python backend calls ``initialize`` once, and ``execute`` with *all* requests that
# Triton has batched. One forward for each would throw the batching away, so the
# images are put together and the program runs once. DLPack hands tensors over in
# place, so an image takes one way only: from the server's memory to the GPU.
#
# A ``.pt2`` file holds pickled objects, and unpickling can run any code. So load only
# files that you made or trust, and say so in the log.
#
# One detail decides whether batching pays. TensorRT-RTX compiles kernels on the GPU for
# each shape that it meets, and the first request of a new shape waits for that. Batches
# that form in a queue have any size. So ``model.py`` rounds a batch for the engine up
# to the next power of two, and runs each of those sizes once before the model is
# reported ready. The spare rows are zeros, and their scores are dropped. (Eager PyTorch
# needs no rounding, and gets none. Standard TensorRT would not need it either.)

MODEL_PY = """
import pathlib
import torch
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        folder = pathlib.Path(args["model_repository"], args["model_version"])
        (path,) = folder.glob("*.pt2")
        pb.Logger.log_warn(f"{path} holds pickles: load only files you trust")
        self.sizes = []
        if path.stem == "compiled":
            import torch_tensorrt  # registers the operators that run engines
            self.sizes = [1, 2, 4, 8, 16, 32]
        self.device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"
        self.program = torch.export.load(path).module()
        for size in self.sizes:
            self.scores([torch.zeros(size, 3, 224, 224)])

    @torch.no_grad()
    def scores(self, images):
        rows = sum(map(len, images))
        size = min((size for size in self.sizes if size >= rows), default=rows)
        spare = torch.zeros(size - rows, 3, 224, 224)
        batch = torch.cat([image.to(self.device) for image in [*images, spare]])
        return self.program(batch)[:rows].cpu()

    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, "image") for request in requests]
        images = [torch.from_dlpack(tensor) for tensor in inputs]
        parts = self.scores(images).split([len(image) for image in images])
        outputs = [pb.Tensor.from_dlpack("logits", part) for part in parts]
        return [pb.InferenceResponse([tensor]) for tensor in outputs]
"""

# %%
# The configuration, line by line:
#
# - ``backend`` says who runs the model. Its name is the folder's.
# - ``max_batch_size`` bounds the batch that Triton forms. The batch dimension is left
#   out of ``dims``.
# - ``input`` and ``output`` are what clients send and get. ``label_filename`` lets them
#   ask for the best classes in place of all scores.
# - ``instance_group`` is the number of copies, and the kind of device.
# - ``model_warmup`` sends one batch the whole way through the server before the model
#   is reported ready, so that the first client does not pay for lazy initialization.
# - ``dynamic_batching`` switches batching on. A request waits for company at most as
#   long as ``max_queue_delay_microseconds``. Without the block, requests run alone.
#
# Each program is served twice, with dynamic batching and without (``_alone``), to
# compare them later.

CONFIG = f"""
backend: "python"
max_batch_size: {max_batch}
input {{ name: "image" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: 1000 label_filename: "labels.txt" }}
instance_group {{ count: 1 kind: KIND_{"GPU" if on_gpu else "CPU"} }}
model_warmup {{ name: "largest batch" batch_size: {max_batch} inputs {{ key: "image"
  value {{ data_type: TYPE_FP32 dims: [ 3, 224, 224 ] random_data: true }} }} }}
"""
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 1000 }"
for program in workspace.glob("*.pt2"):
    for suffix, batching in {"": BATCHING, "_alone": ""}.items():
        model = workspace / "models" / f"{program.stem}{suffix}"
        (model / "1").mkdir(parents=True)
        (model / "1" / program.name).hardlink_to(program)
        (model / "1" / "model.py").write_text(MODEL_PY)
        (model / "config.pbtxt").write_text(CONFIG + batching)
        (model / "labels.txt").write_text("\n".join(weights.meta["categories"]))
print("Models:", sorted(path.name for path in (workspace / "models").iterdir()))

# %%
# The server, without a container
# -------------------------------
# The package ``nvidia-pytriton`` carries the real server with its Python backend. That
# build fails with NumPy 2, which this notebook may well have. So the server gets an
# environment of its own, with NumPy 1.26. PyTorch is not installed a second time: a
# ``.pth`` file in that environment names this notebook's folders, and Python searches
# them after the environment's own.
#
# The backend's *stub*, the process that runs ``model.py``, embeds Python. It ignores
# ``PYTHONPATH``, and takes its packages from the environment of the first ``python3``
# on ``PATH``. It has to be the stub of this Python version. It is linked rather than
# copied, because it finds its libraries relative to where it lies. ``tritonclient``
# 2.51 is there for a tool that we need at the end.

home = workspace / "server"
venv.create(home, symlinks=True)
site = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
(site / "notebook.pth").write_text("\n".join(filter(None, sys.path)))
packages = ["nvidia-pytriton==0.7.0", "numpy==1.26.4", "tritonclient==2.51.0"]
options = ["--no-deps", "--only-binary=:all:", "--target", str(site)]
pip = [sys.executable, "-m", "pip", "install", *options, *packages]
done = subprocess.run(pip, capture_output=True, text=True)
if done.returncode:
    raise RuntimeError(f"Cannot install the server: {done.stderr[-500:]}")

triton = site / "pytriton" / "tritonserver"
stub = triton / f"python_backend_stubs/3.{sys.version_info.minor}"
for file in stub.iterdir():
    (triton / "backends" / "python" / file.name).symlink_to(file)

# %%
# Start it
# --------
# Triton listens on every network interface unless told otherwise, and asks nobody for a
# password. Everybody who reaches its ports can use up the GPU, and read or change its
# settings. So all three ports are bound to the loopback address: only this machine
# reaches them. To serve others, put a proxy with encryption and authentication in
# front.
#
# The server must not outlive this notebook, so it asks Linux for a SIGTERM when
# its parent ends. And because a start can hang, it gets a deadline.

first = 20_000 + os.getpid() % 10_000
kinds = ("http", "grpc", "metrics")
urls = {kind: f"127.0.0.1:{first + i}" for i, kind in enumerate(kinds)}
mark = f"triton_{os.getpid()}_"
command = [triton / "bin" / "tritonserver", f"--model-repository={workspace}/models"]
command += [f"--backend-directory={triton / 'backends'}"]
command += [f"--backend-config=python,shm-region-prefix-name={mark}"]
command += ["--backend-config=python,stub-timeout-seconds=300"]
for kind, url in urls.items():
    address, port = url.split(":")
    command += [f"--{kind}-address={address}", f"--{kind}-port={port}"]
libraries = os.environ.get("LD_LIBRARY_PATH", "/lib")
environ = os.environ | {"PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
environ["LD_LIBRARY_PATH"] = f"{libraries}:{sys.base_prefix}/lib"
log = workspace / "server.log"
server = subprocess.Popen(
    command,
    env=environ,
    stdout=log.open("w"),
    stderr=subprocess.STDOUT,
    preexec_fn=lambda: ctypes.CDLL(None).prctl(1, 15),  # PR_SET_PDEATHSIG, SIGTERM
)

http = triton_http.InferenceServerClient(urls["http"])
grpc = triton_grpc.InferenceServerClient(urls["grpc"])
deadline, ready = time.monotonic() + 300, False
while not ready:
    if server.poll() is not None or time.monotonic() > deadline:
        lines = log.read_text().splitlines()
        lines = [line for line in lines if "failed" in line][:5] or lines[-5:]
        raise RuntimeError("\n".join(["The server did not start.", *lines]))
    time.sleep(0.2)
    with contextlib.suppress(OSError):
        ready = http.is_server_ready()
print("Ready:", ready)

# %%
# Ask it
# ------
# Two real photographs, prepared by the transforms that come with the weights. One
# request carries both, as one batch. The *classification extension* makes the server
# answer with the five best classes, as ``score:index:name``. With random weights the
# names mean nothing; the way there is the same.

# Output varies: the last digits of the scores differ between builds of an engine.
files = ("china.jpg", "flower.jpg")
photos = [torch.tensor(load_sample_image(file)).permute(2, 0, 1) for file in files]
images = torch.stack([weights.transforms()(photo) for photo in photos]).numpy()


def request(kit, images, top=0):
    image = kit.InferInput("image", images.shape, "FP32").set_data_from_numpy(images)
    logits = kit.InferRequestedOutput("logits", class_count=top)
    return {"inputs": [image], "outputs": [logits]}


answer = http.infer(entry, **request(triton_http, images, top=5)).as_numpy("logits")
for file, best in zip(files, answer):
    print(file, *(label.decode() for label in best), sep="\n    ")

# %%
# Without ``class_count`` all scores come back. HTTP and gRPC carry the same numbers,
# and they are what PyTorch computes from the same images.

over_http = http.infer(entry, **request(triton_http, images)).as_numpy("logits")
over_grpc = grpc.infer(entry, **request(triton_grpc, images)).as_numpy("logits")
wanted = served(torch.from_numpy(images).to(device)).cpu().numpy()
assert abs(over_http - wanted).max() < tolerance * abs(wanted).max()
print("HTTP and gRPC answers are identical:", bool((over_http == over_grpc).all()))
print(f"They agree with PyTorch to within {tolerance} of the largest score: True")

# %%
# Many requests at once
# ---------------------
# An asynchronous request returns at once, and its answer goes to a callback, which here
# puts it into a queue. The server then sees many requests together, and its statistics
# show what it made of them. Fewer runs of the model than requests means that some were
# batched.

# Output varies: how many requests meet on the server depends on the clock.
words = request(triton_grpc, images[:1])
before = http.get_inference_statistics(entry)["model_stats"][0]
waiting = queue.SimpleQueue()
for _ in range(32):
    grpc.async_infer(entry, callback=lambda **answer: waiting.put(answer), **words)
answers = [waiting.get(timeout=60) for _ in range(32)]
assert not any(answer["error"] for answer in answers), answers
after = http.get_inference_statistics(entry)["model_stats"][0]
runs = after["execution_count"] - before["execution_count"]
print(f"{len(answers)} requests were answered with {runs} runs of the model.")

# %%
# When it fails
# -------------
# A client should turn each failure into what a person can act on. Three matter most. A
# *refusal* names the mistake, and sending it again is useless. A *time-out* means that
# the server is busy, and sending it again makes that worse. A *lost connection* is
# worth a few more tries: inference changes nothing on the server, so repeating it is
# safe.


def ask(client, images, model=entry, limit=10, tries=3):
    try:
        return client.infer(model, **request(triton_grpc, images), client_timeout=limit)
    except InferenceServerException as error:
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return "no answer in time: send less at once, or allow more time"
        if "model" in error.message():
            return "refused: " + error.message().split("] ")[-1].split(". ")[0]
        if tries == 1:
            return "no server answers: is it running?"
    time.sleep(0.2)
    return ask(client, images, model, limit, tries - 1)


print("Wrong shape:", ask(grpc, images[:, :, :100]))
print("Unknown model:", ask(grpc, images, model="resnet51"))
print("Too slow:", ask(grpc, images, limit=1e-4))
print("Server gone:", ask(triton_grpc.InferenceServerClient("127.0.0.1:9"), images))

# %%
# What the server knows of itself
# -------------------------------
# The third port serves metrics in the format of Prometheus. ``inference_count`` over
# ``exec_count`` is the mean batch. A long queue time beside a short compute time means
# that requests wait for the device.

# Output varies: counters and times.
page = urllib.request.urlopen(f"http://{urls['metrics']}/metrics", timeout=10)
metrics = page.read().decode().splitlines()
print(*(line for line in metrics if f'"{entry}",version' in line), sep="\n")

# %%
# The limit
# ---------
# Before measuring, it is worth knowing what to hope for. First, the arithmetic: the
# operations per image, over what a large matrix product reaches on this GPU. Second,
# the bytes: every image has to get to the GPU. Third, the program alone, called in this
# process with full batches: no server can be faster than what it serves.


# Needs a GPU: it measures the GPU.
# Output varies: measured on the clock.
def rate(function):
    return 1e3 / do_bench(function, return_mode="median")


with FlopCounterMode(display=False) as flops:
    served(example[:1])
square = torch.randn(8192, 8192, device=device, dtype=dtype)
full = torch.randn(max_batch, *shape, device=device)
on_host = full.cpu()
limits = {
    "arithmetic": 2 * 8192**3 * rate(lambda: square @ square) / flops.get_total_flops(),
    "copies to the GPU": max_batch * rate(lambda: full.copy_(on_host)),
    "the engine alone": max_batch * rate(lambda: compiled(full)),
}
print({f"limit by {key}": f"{value:,.0f} images/s" for key, value in limits.items()})

# %%
# And this is what a new batch size would cost if ``model.py`` did not see to it. (In
# this process Torch-TensorRT keeps compiled kernels on disk. So the first call is fast
# too if an earlier run of this page left them there.)

# Needs a GPU: TensorRT-RTX compiles for it.
# Output varies: measured on the clock.
odd = torch.randn(7, *shape, device=device)
for call in ("first", "second"):
    started = time.perf_counter()
    compiled(odd).cpu()
    print(f"Batch of 7, {call} call: {1e3 * (time.perf_counter() - started):.1f} ms")

# %%
# Measure under load
# ------------------
# ``perf_analyzer`` is Triton's own load generator, a C++ program in the package
# ``tritonclient`` 2.51. It keeps a number of requests in flight and reports throughput
# and latency. The more requests are in flight, the more of them the server can batch.
# It measures in windows of a second until three in a row agree, and reports their mean;
# ``-s`` says how closely, in percent. (Its option ``--request-count`` is no substitute:
# it rounds the time to whole seconds, and so gives a wrong throughput.) The same server
# runs four models: the TensorRT engine and the eager PyTorch program, each with and
# without dynamic batching.

# Needs a GPU: the engine runs only there.
# Output varies: measured on the clock.
for link in ("libb64.so.0d", "libcudart.so.12"):
    (workspace / link).symlink_to(next(site.glob(f"*.libs/{link.split('.')[0]}-*")))


def load_test(model, in_flight):
    command = [site / "bin" / "perf_analyzer", "-i", "grpc", "-u", urls["grpc"]]
    command += ["-m", model, "--concurrency-range", str(in_flight)]
    command += ["--measurement-interval", "1000", "-s", "30", "-f", "report.csv"]
    words = {"cwd": workspace, "env": os.environ | {"LD_LIBRARY_PATH": str(workspace)}}
    done = subprocess.run(command, capture_output=True, text=True, **words)
    if done.returncode:
        raise RuntimeError(f"perf_analyzer failed: {done.stdout}{done.stderr}"[-500:])
    row = pd.read_csv(workspace / "report.csv").iloc[-1]
    return row["Inferences/Second"], row["p50 latency"] / 1e3


loads = [1, 4, 16, 64]
measured = {}
plt.figure(figsize=(7, 3.8), facecolor="white", layout="constrained")
for model in ("eager_alone", "eager", "compiled_alone", "compiled"):
    measured[model] = [load_test(model, load) for load in loads]
    plt.plot(*zip(*measured[model]), marker="o", label=model)
    for load, point in zip(loads, measured[model]):
        plt.annotate(load, point, (4, 4), textcoords="offset points", fontsize=8)
plt.title("Numbers at the points: requests in flight", fontsize=10)
plt.xlabel("throughput (images/s)")
plt.ylabel("median latency (ms)")
plt.yscale("log")
plt.legend()
plt.show()

# %%
# The table compares with the eager model that is not batched, at the same load.
# ``latency_ms`` is the median that a client sees. The memory is not given: it belongs
# to the server's processes, not to this one.

# Needs a GPU: it reports the measurement.
# Output varies: measured on the clock.
best = {model: max(points)[0] for model, points in measured.items()}
winner = max(best, key=best.get)
print(f"Most images/s: {winner}, {best[winner]:,.0f}.")
for model in ("eager", "compiled"):
    gain = best[model] / best[f"{model}_alone"]
    print(f"Dynamic batching multiplies the throughput of {model} by {gain:.2f}.")
print({f"of the limit by {key}": f"{best[winner] / limits[key]:.1%}" for key in limits})
if best[winner] < limits["the engine alone"] / 2:
    print("The server is the limit, not the engine: it moves images between processes.")

columns = "model backend precision shape latency_ms speedup peak_memory_mb compile_s"
table = [
    (f"{name}, {load} in flight", f"Triton, {model}", "float16", "1x3x224x224")
    + (latency, slow / latency, float("nan"), compile_s if "compiled" in model else 0.0)
    for model, points in measured.items()
    for load, (_, latency), (_, slow) in zip(loads, points, measured["eager_alone"])
    if load in (loads[0], loads[-1])
]
pd.DataFrame(table, columns=columns.split()).round(3)

# %%
# Stop it
# -------
# On SIGTERM the server takes no more requests, finishes those it has, ends its model
# processes and exits. It waits for open connections too, so the clients close theirs
# first. Nothing should be left behind in shared memory.

http.close()
grpc.close()
server.terminate()
print("Exit code:", server.wait(60))
print("Shared memory left behind:", len(list(Path("/dev/shm").glob(f"{mark}*"))))

# %%
# In NVIDIA's container
# ---------------------
# The container ``nvcr.io/nvidia/tritonserver`` holds the same server with more
# backends, among them one for TorchScript that needs no Python process. The lines below
# were **not run here**. They serve the repository that ``export.py`` writes. The
# programs have to be exported with the versions of PyTorch and TensorRT that the
# container has.
#
# .. code-block:: bash
#
#    docker run --rm --gpus=1 --shm-size=1g \
#        -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 \
#        -v "$PWD/models/libtorch:/models:ro" \
#        nvcr.io/nvidia/tritonserver:YY.MM-py3 tritonserver --model-repository=/models
#
# ``127.0.0.1:`` before each port matters: without it Docker opens the port to the
# network.

# %%
# Takeaways
# ---------
# - Put the casts into the program: half precision inside, FP32 at the interface.
# - Export with a dynamic batch, and keep ``max_batch_size`` within its range.
# - Batch in ``model.py`` too: one call for all the requests that Triton hands over.
# - With TensorRT-RTX, run few batch sizes and warm up each of them.
# - Dynamic batching helps when requests meet in the queue. It costs latency when
#   they do not.
# - Retry lost connections, not refusals or time-outs.
# - Bind to loopback unless something in front of the server checks who is asking.
# - Compare the served rate with what the engine reaches alone: the gap is the server's.
#
# See also `Triton's model configuration
# <https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html>`_
# and the `Python backend <https://github.com/triton-inference-server/python_backend>`_.

# sphinx_gallery_tags = ["Triton", "serving", "dynamic shapes", "vision", "FP16"]
