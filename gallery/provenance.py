"""Collects where a run took place. Runs inside the tutorial's own kernel."""

from __future__ import annotations

import datetime
import platform
import shutil
import subprocess
import sys
from importlib import metadata


def _version(*distributions: str) -> str | None:
    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _driver() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None


def collect() -> dict:
    """GPU, driver, CUDA, Python and the versions of the stack; None where unknown."""
    torch = sys.modules.get("torch")
    has_gpu = bool(torch) and torch.cuda.is_available()
    rtx, standard = _version("torch-tensorrt-rtx"), _version("torch-tensorrt")
    tensorrt = sys.modules.get("tensorrt")
    return {
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "gpu_memory_gb": (
            round(torch.cuda.get_device_properties(0).total_memory / 2**30)
            if has_gpu
            else None
        ),
        "compute_capability": (
            ".".join(map(str, torch.cuda.get_device_capability())) if has_gpu else None
        ),
        "driver": _driver(),
        "cuda": torch.version.cuda if torch else None,
        "python": platform.python_version(),
        "torch": torch.__version__ if torch else _version("torch"),
        "torch_tensorrt": rtx or standard,
        "tensorrt_flavor": "torch-tensorrt-rtx" if rtx else "torch-tensorrt",
        "tensorrt": getattr(tensorrt, "__version__", None),
        "recorded": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }
