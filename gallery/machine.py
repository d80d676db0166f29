"""Finds out what this machine can do, without importing the stack here."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from gallery.errors import GalleryError

# Tutorials pick smaller models below this; figures of those would mislead.
RECORDING_MEMORY_GB = 8

_PROBE = """
import importlib.metadata, json, warnings
warnings.simplefilter("ignore")
found = dict(torch=None, torch_tensorrt=None, gpu=None, free_gb=None, reason="")
for name in ("torch-tensorrt-rtx", "torch-tensorrt"):
    try:
        found["torch_tensorrt"] = importlib.metadata.version(name)
        break
    except importlib.metadata.PackageNotFoundError:
        pass
try:
    import torch
    found["torch"] = torch.__version__
    try:
        torch.cuda.init()
        found["gpu"] = torch.cuda.get_device_name()
        found["free_gb"] = torch.cuda.mem_get_info()[0] / 2**30
    except (RuntimeError, AssertionError) as error:
        found["reason"] = str(error).split(". ")[0].strip()
except ImportError:
    pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Machine:
    """What this machine has; None for what it lacks.

    Attributes
    ----------
    torch, torch_tensorrt
        Installed versions.
    gpu
        Name of the first GPU that PyTorch can use.
    free_gb
        Free memory of that GPU in GiB.
    reason
        PyTorch's own words where it can use no GPU.
    """

    torch: str | None
    torch_tensorrt: str | None
    gpu: str | None
    free_gb: float | None
    reason: str

    @property
    def has_broken_driver(self) -> bool:
        """There is a driver, and PyTorch cannot use it."""
        return self.gpu is None and "too old" in self.reason


def describe_machine() -> Machine:
    """Ask a short-lived Python process, so that nothing heavy is imported here."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise GalleryError(
            f"PyTorch does not start: {''.join(last)} "
            "Install it again: pip install -r requirements-rtx.txt"
        )
    return Machine(**json.loads(done.stdout.splitlines()[-1]))


def require_stack(machine: Machine) -> None:
    """Raise GalleryError unless PyTorch and Torch-TensorRT are installed."""
    for package, version in (
        ("torch", machine.torch),
        ("torch_tensorrt", machine.torch_tensorrt),
    ):
        if version is None:
            raise GalleryError(
                f"{package} is not installed, and tutorials need it. "
                "Install the stack: pip install -r requirements-rtx.txt"
            )


def require_driver(machine: Machine) -> None:
    """Raise GalleryError where a driver is there but too old for this PyTorch."""
    if machine.has_broken_driver:
        raise GalleryError(
            f"The NVIDIA driver is too old for PyTorch {machine.torch}. "
            f"PyTorch says: {machine.reason}. Install driver 580 or newer."
        )


def require_gpu(machine: Machine) -> None:
    """Raise GalleryError unless this machine can make or verify recordings."""
    require_stack(machine)
    require_driver(machine)
    if machine.gpu is None:
        raise GalleryError(
            "This needs an NVIDIA GPU, and PyTorch finds none"
            f" ({machine.reason or 'no CUDA device'}). "
            "Check the driver with nvidia-smi, or use a machine with a GPU."
        )
    if machine.free_gb < RECORDING_MEMORY_GB:
        raise GalleryError(
            f"{machine.gpu} has {machine.free_gb:.1f} GiB of free memory, and "
            f"recordings need {RECORDING_MEMORY_GB} GiB. Close other programs that "
            "use the GPU, or use one with more memory."
        )
