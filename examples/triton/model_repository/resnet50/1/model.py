"""Triton's Python backend runs this file. Serves exported programs."""

import json
import time
from pathlib import Path

import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    @torch.no_grad()
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.runner = config["parameters"]["runner"]["string_value"]
        if self.runner.startswith("TensorRT"):
            import torch_tensorrt  # noqa: F401 (registers what runs engines)
        torch.set_num_threads(1)
        self.make_room(config, args["model_instance_kind"] == "GPU")
        folder = Path(args["model_repository"], args["model_version"])
        pb.Logger.log_warn(f"{folder} holds pickles: load only files you trust")
        self.programs, self.graphs, self.results = {}, {}, {}
        for size in sorted(int(path.stem) for path in folder.glob("*.pt2")):
            self.load(folder / f"{size}.pt2", size)
        self.prepare_stopwatch(args["model_name"])

    def make_room(self, config, on_gpu):
        """A place for the largest batch and its scores, here and on the device."""
        limit = config["max_batch_size"]
        shape = [limit, *map(int, config["input"][0]["dims"])]
        wire = {"TYPE_UINT8": torch.uint8, "TYPE_FP32": torch.float}
        kind = wire[config["input"][0]["data_type"]]
        self.gathered = torch.zeros(shape, dtype=kind, pin_memory=on_gpu)
        self.scores = torch.zeros(limit, 1000, pin_memory=on_gpu)
        self.pixels = self.gathered.to("cuda" if on_gpu else "cpu")
        self.dtype = torch.half if on_gpu else torch.float

    def load(self, path, size):
        """Make everything ready to compute a batch of this size."""
        program = torch.export.load(path).module()
        if self.runner.startswith("Inductor"):
            program = torch.compile(program, dynamic=False)
        self.programs[size] = program
        self.compute(size)
        if self.runner.endswith(", CUDA graph"):
            aside = torch.cuda.Stream()
            with torch.cuda.stream(aside):
                self.compute(size)
            self.graphs[size] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[size], stream=aside):
                self.results[size] = self.compute(size)

    def compute(self, size):
        return self.programs[size](self.pixels[:size].to(self.dtype))

    def run(self, rows):
        """Scores of the first rows that were gathered; spare rows hold anything."""
        size = min(size for size in self.programs if size >= rows)
        self.pixels[:size].copy_(self.gathered[:size], non_blocking=True)
        if size in self.graphs:
            self.graphs[size].replay()
            scores = self.results[size]
        else:
            scores = self.compute(size)
        self.scores[:rows].copy_(scores[:rows], non_blocking=True)
        if scores.is_cuda:
            torch.cuda.synchronize()
        return self.scores[:rows]

    def prepare_stopwatch(self, name):
        counter = pb.MetricFamily.COUNTER
        self.family = pb.MetricFamily("stage_seconds", "Time in model.py", counter)
        stages = ("requests", "gather", "GPU", "answers")
        labels = {stage: {"model": name, "stage": stage} for stage in stages}
        self.metrics = {stage: self.family.Metric(labels[stage]) for stage in stages}
        self.spent = dict.fromkeys(stages, 0.0)
        self.batches = 0

    def stop(self, stage, requests):
        """End a stage: add its time, once for each request."""
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
        """Answer all requests of a batch."""
        self.last = time.perf_counter()
        count = len(requests)
        given = [pb.get_input_tensor_by_name(each, "pixels") for each in requests]
        images = [torch.from_dlpack(tensor) for tensor in given]
        rows = [len(image) for image in images]
        torch.cat(images, out=self.gathered[: sum(rows)])
        self.stop("gather", count)
        parts = self.run(sum(rows)).split(rows)
        self.stop("GPU", count)
        outputs = [pb.Tensor.from_dlpack("scores", part) for part in parts]
        answers = [pb.InferenceResponse([tensor]) for tensor in outputs]
        self.stop("answers", count)
        self.report(count)
        return answers
