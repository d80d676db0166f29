"""
The title
=========

One sentence that says what the reader is able to do after this page.

At a glance
-----------

- In a CUDA graph TensorRT is :recorded:`faster` times as fast as the best that PyTorch
  does alone.
- It is ready after :recorded:`ready_s` seconds, measured once.
- It loses where ... : the sentence that a reader in a hurry needs.

What you will learn
-------------------

- how to ...
- when ...

Prerequisites
-------------

.. code-block:: bash

   pip install torch-tensorrt-rtx==2.14.* matplotlib pandas

Use ``torch-tensorrt`` in its place for TensorRT's data-center flavor. You need to know
PyTorch, but not TensorRT. Without a GPU, the cells marked ``Needs a GPU`` do not run.
"""

# %%
# A first success
# ---------------
# Why a reader would want this, in two sentences. Then the few lines that do it.

import torch
import torch_tensorrt

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.float16 if device.type == "cuda" else torch.float32
width = 4096 if device.type == "cuda" else 256

model = torch.nn.Sequential(
    torch.nn.Linear(width, width),
    torch.nn.GELU(),
    torch.nn.Linear(width, width),
)
model = model.eval().requires_grad_(False).to(device, dtype)
print("Weights: random, a model of this page's own")

inputs, fresh = torch.randn(2, 1, 16, width, device=device, dtype=dtype)
settings = {"min_block_size": 1}
compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=[inputs], **settings)
print(f"Answer: {tuple(compiled(fresh).shape)}")

# %%
# How this page measures
# ----------------------
# One block of code measures on every page of this gallery.

# The ruler: the same code measures on every page; how_we_measure explains it.

# %%
# Is it right?
# ------------
# The tolerance is stated before. The answer to another input shows that the check can
# fail.

tolerance = 1e-2 if dtype == torch.float16 else 1e-4
error = check(compiled, model, (fresh,), (inputs,), tolerance)

# %%
# How fast is it?
# ---------------
# The limit comes first: what this GPU does at most. Every way to run the model is
# measured alike, without and with a CUDA graph.

# Needs a GPU: it measures.
# Output varies: it prints timings.
tflops, gigabytes = gpu_limits(dtype)
weights_gb = weight_bytes(model) / 1e9
limit_ms = weights_gb / gigabytes * 1e3
print(f"limit_ms = {limit_ms:.3f}")

ways = pytorch_alone(model) | {
    "TensorRT": lambda: torch_tensorrt.compile(
        model, ir="dynamo", inputs=[inputs], **settings
    )
}
about = {"model": "two layers", "shape": f"16x{width}", "tolerance": tolerance}
table = results(compare(ways, model, [inputs], [fresh], **about))
table.round(3)

# %%
# The numbers that the text quotes are printed, one a line.

# Needs a GPU: it reports what was measured.
# Output varies: it prints timings.
by_backend = table.set_index("backend")
tensorrt = by_backend.loc["TensorRT, CUDA graph"]
print(f"faster = {tensorrt.speedup:.2f}")
print(f"ready_s = {tensorrt.compile_s + tensorrt.first_call_s:.0f}")
print(f"of_limit = {limit_ms / tensorrt.latency_ms:.0%}")

# %%
# The figure shows a rate or a fraction of the limit, not milliseconds.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
graphs = table[table.backend.str.endswith(", CUDA graph")]
reached = pd.Series(limit_ms / graphs.latency_ms.values, graphs.backend)
axis = reached.plot.barh(figsize=(7, 2.5), xlim=(0, 1))
axis.set(xlabel="fraction of the limit", ylabel="")
plt.tight_layout()
plt.show()

# %%
# Seconds until ready against latency: that is where a quick build counts.

# Needs a GPU: it draws what was measured.
# Output varies: it draws timings.
plot_ready(table)

# %%
# When it goes wrong
# ------------------
# What people meet, brought about on purpose, with the message that they see.

# Output varies: the message depends on the device.
try:
    compiled(torch.randn(16, width + 1, device=device, dtype=dtype))
except Exception as refused:
    print(type(refused).__name__, str(refused).splitlines()[0][:100])

# %%
# Take it to production
# ---------------------
# How to save the model, load it in another process, and what is needed there.

with tempfile.TemporaryDirectory() as folder:
    torch_tensorrt.save(compiled, f"{folder}/model.pt2", arg_inputs=(inputs,))
    loaded = torch_tensorrt.load(f"{folder}/model.pt2").module()

error = check(loaded, model, (fresh,), (inputs,), tolerance, label="loaded")

# %%
# Exercise
# --------
# One change to the code above whose result surprises, and the question to ask of it.
#
# Takeaways
# ---------
# - In a CUDA graph TensorRT is :recorded:`faster` times as fast as the best that
#   PyTorch does alone, and ready after :recorded:`ready_s` seconds.
# - It reaches :recorded:`of_limit` of what reading the weights allows.

# sphinx_gallery_tags = ["torch.export", "your topic"]
