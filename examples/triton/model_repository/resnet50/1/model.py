"""Triton's Python backend runs this file: it serves a program saved by torch.export.

The program lies beside this file:

- ``compiled.pt2``: from ``torch_tensorrt.save``; holds TensorRT engines, needs a GPU.
- ``eager.pt2``: from ``torch.export.save``; plain PyTorch, runs anywhere.

Both are archives that hold pickled objects. Unpickling can run any code, so serve only
files that you made or trust.
"""

import json
from pathlib import Path

import torch
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        """Load the program. Triton calls this once per instance."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        on_gpu = args["model_instance_kind"] == "GPU"
        self.device = torch.device("cuda:0" if on_gpu else "cpu")
        names = ["compiled.pt2", "eager.pt2"] if on_gpu else ["eager.pt2"]
        found = [folder / name for name in names if (folder / name).exists()]
        if not found:
            raise pb_utils.TritonModelException(
                f"{folder} has no {' or '.join(names)}, and this machine serves on "
                f"{self.device}: run the export on this machine"
            )
        few_sizes = False
        if found[0].name == "compiled.pt2":
            # Registers the operators that run TensorRT engines, too.
            import torch_tensorrt

            # TensorRT-RTX compiles kernels for each shape at its first use, while
            # requests wait. So batches are rounded up to one of a few sizes, and each
            # of those runs here, before the first request.
            few_sizes = torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx
        pb_utils.Logger.log_warn(f"{found[0]} holds pickles: load only files you trust")
        self.program = torch.export.load(found[0]).module()
        # Requests are gathered here. Reserved once, at the largest batch.
        limit = config["max_batch_size"]
        shape = [limit, *map(int, config["input"][0]["dims"])]
        self.gathered = torch.zeros(shape, device=self.device)
        self.sizes = range(1, limit + 1)
        if few_sizes:
            steps = range(limit.bit_length() + 1)
            self.sizes = sorted({min(2**step, limit) for step in steps})
            with torch.no_grad():
                for size in self.sizes:
                    self.program(self.gathered[:size])

    def execute(self, requests):
        """Answer all requests that Triton has batched with one call of the program."""
        # DLPack hands tensors over in place: nothing is copied here.
        images = [
            torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image"))
            for request in requests
        ]
        rows = [len(image) for image in images]
        size = next(size for size in self.sizes if size >= sum(rows))
        batch = images[0]
        if len(batch) < size or batch.device != self.device:
            # One copy per request, from where it is to its place in the batch. Rows
            # that are left over hold earlier images; their answers are dropped.
            batch = self.gathered[:size]
            for place, image in zip(batch[: sum(rows)].split(rows), images):
                place.copy_(image)
        with torch.no_grad():
            # Answers leave over the network, so they are wanted on the host: one
            # small copy for the whole batch.
            logits = self.program(batch)[: sum(rows)].cpu()
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("logits", part)])
            for part in logits.split(rows)
        ]
