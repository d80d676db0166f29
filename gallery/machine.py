"""Finds out what this machine can do, without importing the stack here."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gallery.environment import base_environment
from gallery.errors import GalleryError
from gallery.provenance import machine_name

# Tutorials pick smaller models below this; figures of those would mislead.
RECORDING_MEMORY_GB = 8

_PROBE = """
import importlib.metadata, json, os, warnings
warnings.simplefilter("ignore")
found = dict(torch=None, torch_tensorrt=None, flavor=None, gpus=[], reason="")
for name in ("torch-tensorrt-rtx", "torch-tensorrt"):
    try:
        found["torch_tensorrt"] = importlib.metadata.version(name)
        found["flavor"] = name
        break
    except importlib.metadata.PackageNotFoundError:
        pass
try:
    import torch
    found["torch"] = torch.__version__
    try:
        torch.cuda.init()
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            found["gpus"].append(dict(
                name=properties.name,
                device=named.split(",")[i].strip() if named else str(i),
                uuid=str(properties.uuid),
                free_gb=torch.cuda.mem_get_info(i)[0] / 2**30,
            ))
    except (RuntimeError, AssertionError) as error:
        found["reason"] = str(error).split(". ")[0].strip()
except ImportError:
    pass
print("\\nGALLERY" + json.dumps(found))
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch can use.

    Attributes
    ----------
    device
        What CUDA_VISIBLE_DEVICES has to be for this GPU alone.
    free_gb
        Free memory in GiB.
    """

    name: str
    device: str
    uuid: str
    free_gb: float


@dataclass(frozen=True)
class Machine:
    """What this machine has; None for what it lacks.

    Attributes
    ----------
    torch, torch_tensorrt
        Installed versions.
    flavor
        ``torch-tensorrt-rtx`` or ``torch-tensorrt``.
    gpus
        The GPUs that PyTorch can use.
    reason
        PyTorch's own words where it can use no GPU.
    """

    torch: str | None
    torch_tensorrt: str | None
    flavor: str | None
    gpus: tuple[Gpu, ...]
    reason: str

    @property
    def name(self) -> str:
        """Folder of the recordings made on such a machine."""
        return machine_name(self.gpus[0].name, self.flavor)

    @property
    def has_broken_driver(self) -> bool:
        """There is a driver, and PyTorch cannot use it."""
        return not self.gpus and "too old" in self.reason


def describe_machine() -> Machine:
    """Ask a short-lived Python process, so that nothing heavy is imported here."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        check=False,
        env=base_environment(),
    )
    found = done.stdout.rpartition("\nGALLERY")[2]
    if done.returncode or not found:
        last = done.stderr.strip().splitlines()[-1:]
        raise GalleryError(
            f"PyTorch does not start: {''.join(last)} "
            "Install it again: pip install -r requirements-rtx.txt"
        )
    facts = json.loads(found)
    return Machine(**{**facts, "gpus": tuple(Gpu(**gpu) for gpu in facts["gpus"])})


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
    if not machine.gpus:
        raise GalleryError(
            "This needs an NVIDIA GPU, and PyTorch finds none"
            f" ({machine.reason or 'no CUDA device'}). "
            "Check the driver with nvidia-smi, or use a machine with a GPU."
        )


def _lock(gpu: Gpu) -> int | None:
    """A lock on the GPU, which ends with this process at the latest; None if taken."""
    path = Path(tempfile.gettempdir(), f"gallery-{gpu.uuid}.lock")
    # Another user's file can be locked too, but not opened for writing.
    flags = os.O_RDONLY if path.exists() else os.O_RDONLY | os.O_CREAT
    file = os.open(path, flags, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


@contextlib.contextmanager
def gpus_for_us(machine: Machine) -> Iterator[list[Gpu]]:
    """The GPUs that no other run of the gallery uses, locked in the meantime.

    Raises
    ------
    GalleryError
        If there is none, or if all have too little free memory.
    """
    require_gpu(machine)
    locks = [(gpu, _lock(gpu)) for gpu in machine.gpus]
    try:
        free = [gpu for gpu, lock in locks if lock is not None]
        if not free:
            raise GalleryError(
                "Another run of the gallery uses every GPU. Wait until it has ended."
            )
        large = [gpu for gpu in free if gpu.free_gb >= RECORDING_MEMORY_GB]
        if not large:
            most = max(free, key=lambda gpu: gpu.free_gb)
            raise GalleryError(
                f"{most.name} has {most.free_gb:.1f} GiB of free memory, and "
                f"recordings need {RECORDING_MEMORY_GB} GiB. Close other programs "
                "that use the GPU, or use one with more memory."
            )
        yield large
    finally:
        for _, lock in locks:
            if lock is not None:
                os.close(lock)
