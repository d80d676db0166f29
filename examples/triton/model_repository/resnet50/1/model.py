"""Triton's Python backend runs this file. Serves an exported program."""

import json
import time
from pathlib import Path

import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        (path,) = folder.glob("*.pt2")
        pb.Logger.log_warn(f"{path} holds pickles: load only files you trust")
        if path.stem == "compiled":
            import torch_tensorrt  # noqa: F401 (registers what runs engines)
        on_gpu = args["model_instance_kind"] == "GPU"
        self.device = "cuda" if on_gpu else "cpu"
        self.dtype = torch.half if on_gpu else torch.float
        self.program = torch.export.load(path).module()
        self.prepare_batches(config, on_gpu)
        self.prepare_stopwatch(args["model_name"])

    @torch.no_grad()
    def prepare_batches(self, config, on_gpu):
        """Sizes that batches are rounded up to, and a place to gather them in."""
        limit = config["max_batch_size"]
        self.sizes = sorted({min(2**n, limit) for n in range(limit.bit_length() + 1)})
        pinned = config["parameters"]["pinned"]["string_value"] == "yes"
        wire = {"TYPE_UINT8": torch.uint8, "TYPE_FP32": torch.float}
        kind = wire[config["input"][0]["data_type"]]
        shape = [limit, *map(int, config["input"][0]["dims"])]
        self.gathered = torch.zeros(shape, dtype=kind, pin_memory=pinned and on_gpu)
        self.pinned = pinned
        torch.set_num_threads(1)
        for size in self.sizes:
            self.program(self.gathered[:size].to(self.device, self.dtype))

    def prepare_stopwatch(self, name):
        counter = pb.MetricFamily.COUNTER
        self.family = pb.MetricFamily("stage_seconds", "Time in model.py", counter)
        stages = ("requests", "unpack", "copy in", "engine", "copy out", "answers")
        labels = {stage: {"model": name, "stage": stage} for stage in stages}
        self.metrics = {stage: self.family.Metric(labels[stage]) for stage in stages}
        self.spent = dict.fromkeys(stages, 0.0)
        self.batches = 0

    def stop(self, stage, requests):
        """End a stage: add its time, once for each request."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.spent[stage] += (now - self.last) * requests
        self.last = now

    def report(self, requests):
        self.spent["requests"] += requests
        self.batches += 1
        if self.batches % 16 == 0:
            for stage, seconds in self.spent.items():
                self.metrics[stage].increment(seconds)
                self.spent[stage] = 0.0

    @torch.no_grad()
    def execute(self, requests):
        self.last = time.perf_counter()
        count = len(requests)
        given = [pb.get_input_tensor_by_name(each, "pixels") for each in requests]
        images = [torch.from_dlpack(tensor) for tensor in given]
        rows = [len(image) for image in images]
        self.stop("unpack", count)
        batch = self.on_device(images, sum(rows))
        self.stop("copy in", count)
        scores = self.program(batch.to(self.dtype))
        self.stop("engine", count)
        parts = scores[: sum(rows)].cpu().split(rows)
        self.stop("copy out", count)
        outputs = [pb.Tensor.from_dlpack("scores", part) for part in parts]
        answers = [pb.InferenceResponse([tensor]) for tensor in outputs]
        self.stop("answers", count)
        self.report(count)
        return answers

    def on_device(self, images, rows):
        """The images as one batch, rounded up; spare rows hold anything."""
        size = next(size for size in self.sizes if size >= rows)
        if self.pinned:
            torch.cat(images, out=self.gathered[:rows])
            return self.gathered[:size].to(self.device, non_blocking=True)
        spare = self.gathered[: size - rows]
        return torch.cat([image.to(self.device) for image in [*images, spare]])
