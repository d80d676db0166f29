"""Stands for PyTorch on a machine with GPUs, as far as the recorder asks it.

``gpus.json`` in the folder above lists the machine's GPUs as (name, free GiB).
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

__version__ = "2.14.0+cu130"
version = SimpleNamespace(cuda="13.0")


class Tensor:
    pass


class cuda:  # noqa: N801
    @staticmethod
    def _visible():
        path = Path(__file__).parents[1] / "gpus.json"
        gpus = list(enumerate(json.loads(path.read_text())))
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        if named is None:
            return gpus
        return [gpus[int(number)] for number in named.split(",") if number]

    @staticmethod
    def is_available():
        return bool(cuda._visible())

    @staticmethod
    def init():
        if not cuda._visible():
            raise RuntimeError("No CUDA GPUs are available. Sorry.")

    @staticmethod
    def device_count():
        return len(cuda._visible())

    @staticmethod
    def get_device_name(index=0):
        return cuda._visible()[index][1][0]

    @staticmethod
    def get_device_properties(index):
        number, (name, _) = cuda._visible()[index]
        return SimpleNamespace(
            name=name, uuid=f"uuid-{number}", total_memory=80 * 2**30, major=9, minor=0
        )

    @staticmethod
    def mem_get_info(index=0):
        return int(cuda._visible()[index][1][1] * 2**30), 80 * 2**30
