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
        if found[0].name == "compiled.pt2":
            # Registers the operators that run TensorRT engines.
            import torch_tensorrt  # noqa: F401
        pb_utils.Logger.log_warn(f"{found[0]} holds pickles: load only files you trust")
        self.program = torch.export.load(found[0]).module()
        # Requests are gathered here. Reserved once, at the largest batch.
        shape = [config["max_batch_size"], *map(int, config["input"][0]["dims"])]
        self.gathered = torch.empty(shape, device=self.device)

    def execute(self, requests):
        """Answer all requests that Triton has batched with one call of the program."""
        # DLPack hands tensors over in place: nothing is copied here.
        images = [
            torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image"))
            for request in requests
        ]
        sizes = [len(image) for image in images]
        batch = images[0]
        if len(images) > 1 or batch.device != self.device:
            # One copy per request, from where it is to its place in the batch.
            batch = self.gathered[: sum(sizes)]
            for place, image in zip(batch.split(sizes), images):
                place.copy_(image)
        with torch.no_grad():
            # Answers leave over the network, so they are wanted on the host: one
            # small copy for the whole batch.
            logits = self.program(batch).cpu()
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("logits", part)])
            for part in logits.split(sizes)
        ]
