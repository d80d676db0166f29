"""Collects where a run took place. Runs inside the tutorial's own kernel.

Imports nothing of this package: the kernel loads this file alone.
"""

from __future__ import annotations

import datetime
import hashlib
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

FLAVORS = {"torch-tensorrt-rtx": "rtx", "torch-tensorrt": "tensorrt"}
REQUIREMENTS = Path(__file__).resolve().parent.parent
# A recording depends on these, whether its tutorial imports them itself or not.
ALWAYS = ("torch", *FLAVORS)
NOT_AN_RTX_GPU = (
    "TensorRT-RTX is made for RTX GPUs, and NVIDIA does not list this GPU among those "
    "that it supports. Expect other figures on an RTX GPU."
)


def pins(flavor: str, folder: Path = REQUIREMENTS) -> dict[str, str]:
    """Versions that the requirements files pin for a flavor, by package."""
    files = ("stack", FLAVORS[flavor])
    text = "\n".join((folder / f"requirements-{f}.txt").read_text() for f in files)
    return dict(re.findall(r"^([\w-]+)(?:\[.*\])?==([\w.]+)", text, re.MULTILINE))


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path in there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def short_name(gpu: str) -> str:
    """A GPU without its maker, memory and socket: ``H100``, ``RTX 4090``."""
    for word in (r"NVIDIA|GeForce", r"\b\d+GB\b", r"\b(SXM|HBM)\d*\w?|\b(PCIe|NVL)\b"):
        gpu = re.sub(word, " ", gpu, flags=re.IGNORECASE)
    return " ".join(gpu.replace("-", " ").split())


def machine_name(gpu: str, flavor: str) -> str:
    """Folder for recordings of such a machine, as ``h100-rtx``."""
    words = re.findall(r"[a-z0-9]+", short_name(gpu).lower())
    return "-".join([*words, "rtx" if flavor.endswith("rtx") else "trt"])


def caveats(gpu: str, flavor: str) -> list[str]:
    """Sentences that a reader has to know before trusting the figures."""
    return [NOT_AN_RTX_GPU] if flavor.endswith("rtx") and "RTX" not in gpu else []


def _version(*distributions: str) -> str | None:
    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _tensorrt(flavor: str) -> str:
    """TensorRT's version; its packages are named after the CUDA version as well."""
    module = sys.modules.get("tensorrt")
    name = "tensorrt-rtx" if flavor.endswith("rtx") else "tensorrt"
    installed = _version(name, *(f"{name}-cu{cuda}" for cuda in (12, 13)))
    return getattr(module, "__version__", None) or installed or "unknown"


def _driver() -> str:
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    return "unknown"


def _packages(flavor: str) -> dict[str, str]:
    """Installed versions of the pinned packages that this process has imported."""
    modules: dict[str, list[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for name in distributions:
            modules.setdefault(re.sub(r"[-_.]+", "-", name).lower(), []).append(module)
    found = {}
    for name in pins(flavor):
        imported = any(module in sys.modules for module in modules.get(name, []))
        if imported or name in ALWAYS:
            found[name] = _version(name)
    return found


def collect() -> dict:
    """GPU, driver, CUDA, Python and the versions of the stack.

    ``gpu`` is None where PyTorch can use none, and what depends on it as well.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    rtx, standard = _version("torch-tensorrt-rtx"), _version("torch-tensorrt")
    flavor = "torch-tensorrt-rtx" if rtx else "torch-tensorrt"
    found = {
        "gpu": None,
        "gpu_memory_gb": None,
        "compute_capability": None,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_tensorrt": rtx or standard,
        "tensorrt_flavor": flavor,
        "tensorrt": _tensorrt(flavor),
        "packages": _packages(flavor),
        "caveats": [],
        "recorded": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }
    if has_gpu:
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = torch.cuda.get_device_name()
        found["gpu_memory_gb"] = round(properties.total_memory / 2**30)
        found["compute_capability"] = f"{properties.major}.{properties.minor}"
        found["caveats"] = caveats(found["gpu"], flavor)
    return found
