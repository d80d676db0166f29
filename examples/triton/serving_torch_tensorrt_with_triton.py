"""
Serving a Torch-TensorRT model with Triton
==========================================

Put a compiled ResNet behind Triton Inference Server, query it over HTTP and gRPC, and measure what dynamic batching gains.

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
"""

# %%
# Why a server
# ------------
# A GPU is fast when it works on many images at once. The users of a service come one by
# one. A *model server* stands in between: it takes requests over the network, puts those
# that wait at the same time into one batch, runs the model once, and hands each user
# their own part of the answer. Triton Inference Server does that for any framework. It
# runs a PyTorch program in its *Python backend*: a Python process of its own per model.
#
# We go all the way here: compile a model, write a *model repository* for it, start the
# server, ask it, make it fail, and measure it. Everything is written into a temporary
# folder. In the gallery's repository, ``export.py``, ``serve.py`` and ``client.py``
# beside this tutorial do the same as command-line programs.

# sphinx_gallery_tags = ["Triton Inference Server", "deployment", "dynamic shapes", "vision", "FP16"]
import atexit
import contextlib
import ctypes
import logging
import os
import queue
import shutil
import signal
import socket
import string
import subprocess
import sys
import sysconfig
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
from tritonclient.utils import InferenceServerException

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = device.type == "cuda"
torch.set_grad_enabled(False)
workspace = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, workspace, ignore_errors=True)

# %%
# The model
# ---------
# ResNet-50 on a GPU. Without one a smaller network stands in, in float32, because a CPU
# has no fast half-precision convolutions.

name, dtype, max_batch = ("resnet50", torch.half, 32) if on_gpu else ("resnet18", torch.float, 8)
build, weights = getattr(torchvision.models, name), torchvision.models.get_model_weights(name).DEFAULT
torch.manual_seed(0)
try:
    with contextlib.redirect_stderr(None):
        model = build(weights=weights)
    print("Weights: pretrained", weights)
except OSError:
    model = build()
    print("Weights: random (no download possible), same architecture")
print(f"{name} on {device.type}, {dtype} inside, batches of 1 to {max_batch}")

# %%
# Clients should not have to know about half precision, so the casts go into the program:
# FP32 comes in, FP32 goes out. Torch-TensorRT keeps the types that a program states. The
# casts become part of the engine, the compiled program that TensorRT makes.


class Served(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model.to(dtype)

    def forward(self, image):
        return self.model(image.to(dtype)).float()


reference = build().eval().to(device)
reference.load_state_dict(model.state_dict())
served = Served(model).eval().to(device)

# %%
# Export and compile
# ------------------
# Export records the graph of operators once. The batch is declared dynamic: the server
# decides how many images go into a call. The example has two images, because a
# batch of one would be taken for a constant.
#
# The compiler then gets the range of shapes. This is an *optimization profile*: the
# engine accepts everything from ``min_shape`` to ``max_shape``, and is tuned for
# ``opt_shape``. The plain exported program is kept too. It is what the engine is
# measured against.

shape = (3, 224, 224)
batch = torch.export.Dim("batch", min=1, max=max_batch)
example = torch.randn(2, *shape, device=device)
exported = torch.export.export(served, (example,), dynamic_shapes=({0: batch},))
torch.export.save(exported, workspace / "eager.pt2")

started = time.perf_counter()
images_in = torch_tensorrt.Input(
    min_shape=(1, *shape),
    opt_shape=(max_batch // 2, *shape),
    max_shape=(max_batch, *shape),
    dtype=torch.float32,
)
compiled = torch_tensorrt.dynamo.compile(exported, arg_inputs=[images_in])
compile_s = time.perf_counter() - started
print("Parts of the compiled model:", [part for part, _ in compiled.named_children()])

tolerance = 2e-2 if on_gpu else 1e-4
for size in (1, 5, max_batch):
    fresh = torch.randn(size, *shape, device=device)
    torch.testing.assert_close(
        compiled(fresh), reference(fresh), rtol=0, atol=tolerance * reference(fresh).abs().max().item()
    )
print(f"Agrees with eager FP32 to within {tolerance} of the largest score: True")

# %%
# ``torch_tensorrt.save`` writes the program with the engine in it. Without a GPU there is
# no engine to run, so there the server gets the plain program.

if on_gpu:
    torch_tensorrt.save(
        compiled,
        str(workspace / "compiled.pt2"),
        arg_inputs=[example],
        dynamic_shapes=({0: batch},),
    )
program = workspace / ("compiled.pt2" if on_gpu else "eager.pt2")
print("Served program:", program.name)

# %%
# A model repository
# ------------------
# Triton reads models from a folder of this layout::
#
#     resnet50/config.pbtxt      name, tensors, batching, where to run
#     resnet50/labels.txt        one class name a line
#     resnet50/1/model.py        version 1: code for the Python backend
#     resnet50/1/compiled.pt2    our program
#
# The Python backend calls ``initialize`` once and ``execute`` with *all* requests that
# Triton has batched. Looping over them, one forward each, would throw the batching away,
# so the images are gathered and the program runs once. DLPack hands tensors over in
# place: a single request is not copied at all.
#
# A ``.pt2`` file holds pickled objects, and unpickling can run any code. So load only
# files that you made or trust, and say so in the log.

MODEL_PY = """
from pathlib import Path
import torch
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"], args["model_version"])
        (path,) = folder.glob("*.pt2")
        if path.stem == "compiled":
            import torch_tensorrt  # registers the operators that run engines
        pb_utils.Logger.log_warn(f"{path} holds pickles: load only files you trust")
        self.program = torch.export.load(path).module()
        self.device = "cuda" if args["model_instance_kind"] == "GPU" else "cpu"

    def execute(self, requests):
        images = [
            torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image"))
            for request in requests
        ]
        batch = torch.cat(images) if len(images) > 1 else images[0]
        with torch.no_grad():
            logits = self.program(batch.to(self.device)).cpu()
        parts = logits.split([len(image) for image in images])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("logits", part)])
            for part in parts
        ]
"""

# %%
# The configuration, line by line:
#
# - ``name`` is what clients ask for; ``backend`` says who runs it.
# - ``max_batch_size`` bounds the batch that Triton forms. The batch dimension is left
#   out of ``dims``.
# - ``label_filename`` lets clients ask for the best classes in place of all scores.
# - ``instance_group`` is the number of copies, and the kind of device.
# - ``model_warmup`` runs one batch before the model is reported ready, so that
#   the first client does not pay for lazy initialization. TensorRT-RTX finishes its
#   compilation on the GPU at the first run.
# - ``dynamic_batching`` switches batching on. A request waits for company at most as long
#   as ``max_queue_delay_microseconds``. Without the block, each request runs alone.

CONFIG = string.Template("""
name: "$name"
backend: "python"
max_batch_size: $max_batch
input { name: "image" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }
output { name: "logits" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" }
instance_group { count: 1 kind: $kind }
model_warmup {
  name: "largest batch"
  batch_size: $max_batch
  inputs { key: "image" value { data_type: TYPE_FP32 dims: [ 3, 224, 224 ] random_data: true } }
}
$batching
""")
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 1000 }"


def add_model(entry, program, batching=BATCHING):
    version = repository / entry / "1"
    version.mkdir(parents=True)
    shutil.copy(program, version)
    (version / "model.py").write_text(MODEL_PY)
    (version.parent / "labels.txt").write_text("\n".join(weights.meta["categories"]))
    kind = "KIND_GPU" if on_gpu else "KIND_CPU"
    config = CONFIG.substitute(name=entry, max_batch=max_batch, kind=kind, batching=batching)
    (version.parent / "config.pbtxt").write_text(config)


repository = workspace / "models"
add_model(name, program)
add_model(f"{name}_alone", program, batching="")
if on_gpu:
    add_model(f"{name}_eager", workspace / "eager.pt2")
    add_model(f"{name}_eager_alone", workspace / "eager.pt2", batching="")
print("Models:", sorted(path.name for path in repository.iterdir()))

# %%
# The server, without a container
# -------------------------------
# The package ``nvidia-pytriton`` carries the real server with its Python backend. That
# build fails with NumPy 2, which this notebook may well have. So the server gets an
# environment of its own with NumPy 1.26. PyTorch is not installed a second time: a
# ``.pth`` file names the folders where it is, and they come after NumPy 1.26.
#
# The backend's *stub*, the process that runs ``model.py``, embeds Python. It has to be
# the stub of this Python version, and it is linked rather than copied, because it finds
# its libraries relative to where it lies.

environment = workspace / "server-env"
venv.create(environment, symlinks=True)
(site,) = environment.glob("lib/python3*/site-packages")


def pip_install(folder, *packages):
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Cannot install {packages}: {done.stderr[-300:]}")


pip_install(site, "nvidia-pytriton==0.7.0", "numpy==1.26.4")
outside = [p for p in sys.path if p.endswith("-packages") or Path(p, "torch").is_dir()]
(site / "outside.pth").write_text("\n".join(outside))

triton = site / "pytriton" / "tritonserver"
stubs = triton / "python_backend_stubs" / f"3.{sys.version_info.minor}"
backend = environment / "backends" / "python"
backend.mkdir(parents=True)
for file in [*(triton / "backends" / "python").iterdir(), *stubs.iterdir()]:
    (backend / file.name).symlink_to(file)
print("Server environment made: True")

# %%
# Start it
# --------
# Triton listens on every network interface unless told otherwise, and asks nobody for a
# password. Everybody who reaches its ports can use up the GPU, and read or change its
# settings. So all three ports are bound to the loopback address: only this machine
# reaches them. To serve others, put a proxy with encryption and authentication in front.
#
# A start can hang, so it gets a deadline. And the server must not outlive this notebook:
# the kernel of Linux ends it with its parent.


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


ports = {kind: free_port() for kind in ("http", "grpc", "metrics")}
urls = {kind: f"127.0.0.1:{port}" for kind, port in ports.items()}
mark = f"triton_{os.getpid()}_"
command = [triton / "bin" / "tritonserver", "--model-repository", repository]
command += ["--backend-directory", environment / "backends"]
command += ["--backend-config", f"python,shm-region-prefix-name={mark}"]
command += ["--backend-config", "python,stub-timeout-seconds=300"]
for kind, port in ports.items():
    command += [f"--{kind}-address", "127.0.0.1", f"--{kind}-port", str(port)]
environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
environ["PATH"] = f"{environment / 'bin'}:{environ['PATH']}"
libraries = [sysconfig.get_config_var("LIBDIR"), environ.get("LD_LIBRARY_PATH")]
environ["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
log = workspace / "server.log"
server = subprocess.Popen(
    command,
    env=environ,
    stdout=log.open("w"),
    stderr=subprocess.STDOUT,
    start_new_session=True,
    preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGTERM),
)

http = triton_http.InferenceServerClient(urls["http"], network_timeout=30)
grpc = triton_grpc.InferenceServerClient(urls["grpc"])
deadline, ready = time.monotonic() + 300, False
while not ready:
    if server.poll() is not None or time.monotonic() > deadline:
        raise RuntimeError(f"The server did not start:\n{log.read_text()[-3000:]}")
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
photographs = [torch.tensor(load_sample_image(file)) for file in ("china.jpg", "flower.jpg")]
transform = weights.transforms()
images = torch.stack([transform(photo.permute(2, 0, 1)) for photo in photographs]).numpy()


def ask(client, kit, images, model=name, top=0, **limits):
    image = kit.InferInput("image", list(images.shape), "FP32")
    image.set_data_from_numpy(images)
    logits = kit.InferRequestedOutput("logits", class_count=top)
    return client.infer(model, [image], outputs=[logits], **limits).as_numpy("logits")


for file, best in zip(("china.jpg", "flower.jpg"), ask(http, triton_http, images, top=5)):
    print(file, *(label.decode() for label in best), sep="\n    ")

# %%
# Without ``class_count`` all scores come back. HTTP and gRPC carry the same bytes, and
# they are what PyTorch computes from the same images.

over_http = ask(http, triton_http, images)
over_grpc = ask(grpc, triton_grpc, images, client_timeout=30)
wanted = reference(torch.from_numpy(images).to(device)).cpu()
error = (torch.from_numpy(over_http) - wanted).abs().max() / wanted.abs().max()
assert error < tolerance
print("HTTP and gRPC answers are identical:", (over_http == over_grpc).all())
print(f"Largest error below {tolerance} of the largest score: True")

# %%
# Many requests at once
# ---------------------
# An asynchronous request returns at once, and a callback gets the answer. The server
# then sees many requests together, and its statistics show what it made of them: fewer
# runs of the model than requests.

# Output varies: how many requests meet in the queue depends on the clock.
image = triton_grpc.InferInput("image", [1, *shape], "FP32")
image.set_data_from_numpy(images[:1])
answers = queue.Queue()
runs_before = http.get_inference_statistics(name)["model_stats"][0]["execution_count"]
for _ in range(32):
    grpc.async_infer(name, [image], lambda *answer: answers.put(answer), client_timeout=60)
results = [answers.get(timeout=90) for _ in range(32)]
assert all(error is None for _, error in results)
stats = http.get_inference_statistics(name)["model_stats"][0]
runs = stats["execution_count"] - runs_before
assert runs < len(results)
print(f"{len(results)} requests were answered with {runs} runs of the model.")

# %%
# When it fails
# -------------
# A client should turn each failure into what a person can act on. Three matter most. A
# *refusal* names the mistake, and sending it again is useless. A *time-out* means that
# the server is busy, and sending it again makes that worse. A *lost connection* is worth
# a few more tries: inference changes nothing on the server, so repeating it is safe.


def try_to_ask(client, images, tries=3, **words):
    for attempt in range(tries):
        try:
            return ask(client, triton_grpc, images, **words)
        except InferenceServerException as error:
            reason = error.message().removeprefix("[request id: <id_unknown>] ").split(". ")[0]
            status = error.status().removeprefix("StatusCode.")
            if status == "DEADLINE_EXCEEDED":
                return "No answer in time. Send less at once, or allow more time."
            if status != "UNAVAILABLE" or "model" in reason:
                return f"Refused: {reason}."
            time.sleep(0.1 * 2**attempt)
    return f"No server answers, after {tries} tries. Is it running, and is this its gRPC port?"


nobody = triton_grpc.InferenceServerClient(f"127.0.0.1:{free_port()}")
print("Wrong shape:  ", try_to_ask(grpc, images[:, :, :100]))
print("Unknown model:", try_to_ask(grpc, images, model="resnet51"))
print("Too slow:     ", try_to_ask(grpc, images, client_timeout=1e-4))
print("Server gone:  ", try_to_ask(nobody, images))

# %%
# What the server knows of itself
# -------------------------------
# The third port serves metrics in the format of Prometheus. ``inference_count`` over
# ``exec_count`` is the mean batch. A long queue time beside a short compute time means
# that requests wait for the device.

# Output varies: counters and times.
with urllib.request.urlopen(f"http://{urls['metrics']}/metrics", timeout=10) as page:
    for line in page.read().decode().splitlines():
        if line.startswith(("nv_inference", "nv_gpu_mem")) and "failure" not in line:
            print(line)

# %%
# The limit
# ---------
# Before measuring, it is worth knowing what to hope for. First, the arithmetic: the
# operations per image, over what a large matrix product reaches on this GPU. Second, the
# program alone, called in this process with full batches: no server can be faster
# than what it serves. Third, the bytes: every image has to get to the GPU.

# Needs a GPU: it measures the GPU.
# Output varies: measured on the clock.
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from triton.testing import do_bench  # noqa: E402

with FlopCounterMode(display=False) as counter:
    served(example[:1])
square = torch.randn(8192, 8192, device=device, dtype=dtype)
flops = 2 * 8192**3 / do_bench(lambda: square @ square, return_mode="median") * 1e3
full = torch.randn(max_batch, *shape, device=device)
on_host = full.cpu()
limits = {
    "arithmetic": flops / counter.get_total_flops(),
    "engine alone": max_batch / do_bench(lambda: compiled(full), return_mode="median") * 1e3,
    "copy to the GPU": max_batch / do_bench(lambda: full.copy_(on_host), return_mode="median") * 1e3,
}
for what, rate in limits.items():
    print(f"Limit by {what}: {rate:,.0f} images/s")

# %%
# Measure under load
# ------------------
# ``perf_analyzer`` is Triton's own load generator, a C++ program in the package
# ``tritonclient`` 2.51. It keeps a number of requests in flight and reports throughput
# and latency. The more requests are in flight, the more of them the server can batch.
# The same server runs four models: the TensorRT engine and the eager PyTorch program,
# each with and without dynamic batching.

# Needs a GPU: the engine runs only there.
# Output varies: measured on the clock.
pip_install(workspace / "tools", "tritonclient==2.51.0")
wheel_libraries, links = site / "nvidia_pytriton.libs", workspace / "links"
links.mkdir()
for link, pattern in {"libb64.so.0d": "libb64-*", "libcudart.so.12": "libcudart-*"}.items():
    (links / link).symlink_to(next(wheel_libraries.glob(pattern)))


def load_test(model, in_flight, requests):
    report = workspace / "report.csv"
    command = [workspace / "tools" / "bin" / "perf_analyzer", "-m", model, "-i", "grpc"]
    command += ["-u", urls["grpc"], "--concurrency-range", str(in_flight), "-f", report]
    command += ["--request-count", str(requests)]
    environ = {**os.environ, "LD_LIBRARY_PATH": str(links)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"perf_analyzer failed: {(done.stdout + done.stderr)[-500:]}")
    row = pd.read_csv(report).iloc[-1]
    return row["Inferences/Second"], row["p50 latency"] / 1e3


variants = {"eager": "_eager_alone", "eager, batched": "_eager"}
variants |= {"TensorRT": "_alone", "TensorRT, batched": ""}
loads = [1, 2, 4, 8, 16, 32, 64]
measured = {
    variant: [load_test(name + suffix, load, 100 + 50 * load) for load in loads]
    for variant, suffix in variants.items()
}

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), facecolor="white")
for variant, points in measured.items():
    rates, latencies = zip(*points)
    left.plot(loads, rates, marker="o", label=variant)
    right.plot(loads, latencies, marker="o", label=variant)
left.set(xscale="log", xticks=loads, xticklabels=loads, xlabel="requests in flight", ylabel="images/s")
right.set(xscale="log", xticks=loads, xticklabels=loads, xlabel="requests in flight")
right.set(yscale="log", ylabel="median latency (ms)")
left.legend(fontsize=8)
figure.tight_layout()
plt.show()

# %%
# The table compares with the eager model that is not batched, at the same load.
# ``latency_ms`` is the median that a client sees. The memory is not given: it belongs
# to the server's processes, not to this one.

# Needs a GPU: it reports the measurement.
# Output varies: measured on the clock.
best = {variant: max(rate for rate, _ in points) for variant, points in measured.items()}
winner = max(best, key=best.get)
print(f"Most images/s: {winner}, {best[winner]:,.0f}.")
for engine in ("eager", "TensorRT"):
    gain = best[f"{engine}, batched"] / best[engine]
    print(f"Dynamic batching changes the best throughput of {engine} by a factor of {gain:.2f}.")
for what, rate in limits.items():
    print(f"{winner} reaches {best[winner] / rate:.1%} of the limit by {what}.")
if best[winner] < 0.5 * limits["engine alone"]:
    print("So the server, not the engine, is the limit: it moves images between processes.")
pd.DataFrame(
    {
        "model": f"{name}, {load} in flight",
        "backend": f"Triton, {variant}",
        "precision": str(dtype).removeprefix("torch."),
        "shape": "x".join(map(str, (1, *shape))),
        "latency_ms": measured[variant][index][1],
        "speedup": measured["eager"][index][1] / measured[variant][index][1],
        "peak_memory_mb": float("nan"),
        "compile_s": compile_s if "TensorRT" in variant else 0.0,
    }
    for index, load in enumerate(loads)
    if load in (1, 64)
    for variant in variants
)

# %%
# Stop it
# -------
# On SIGTERM the server takes no more requests, finishes those it has, ends its model
# processes and exits. Nothing should be left: neither processes nor shared memory.

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
# were **not run here**. The programs have to be exported with the versions of PyTorch and
# TensorRT that the container has.
#
# .. code-block:: bash
#
#    docker run --rm --gpus=1 --shm-size=1g \
#        -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 \
#        -v "$PWD/models/python:/models:ro" \
#        nvcr.io/nvidia/tritonserver:YY.MM-py3 tritonserver --model-repository=/models
#
# ``127.0.0.1:`` before each port matters: without it Docker opens the port to the
# network.

# %%
# Takeaways
# ---------
# - Put the casts into the program: half precision inside, FP32 at the interface.
# - Export with a dynamic batch, and keep ``max_batch_size`` within the engine's profile.
# - Batch in ``model.py`` too: one call for all the requests that Triton hands over.
# - Dynamic batching helps when requests meet in the queue. It costs latency when
#   they do not.
# - Retry lost connections, not refusals or time-outs.
# - Bind to loopback unless something in front of the server checks who is asking.
# - Compare the served rate with what the engine reaches alone: the gap is the server's.
#
# See also `Triton's model configuration
# <https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html>`_
# and the `Python backend <https://github.com/triton-inference-server/python_backend>`_.
