"""The environment variables of kernels: the same for recording and for verifying.

It is built from nothing, so that what is recorded does not depend on the shell that
the recorder was started from. Only variables that say where a GPU, a library, a proxy
or a model hub is are passed through.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gallery.paths import CACHE, ROOT
from gallery.workspace import Workspace

# How the kernel shows things; each run gets its own copy.
IPYTHON_FOLDER = Path(__file__).parent / "ipython"
PASSED = (
    *("LD_LIBRARY_PATH", "CC", "CXX"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    # What may not be used between GPUs that belong to several users.
    *("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST", "NVSHMEM_DISABLE_NVLS"),
    *("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
)
# How warnings begin that libraries raise while they import each other.
IMPORT_CHATTER = ("IProgress not found", "`torch.jit.script` is", "transformers")
FIXED = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "USER": "gallery",
    "LOGNAME": "gallery",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # Progress bars and colors would end up in the recording, and so would what
    # libraries say of each other when they are imported. None of it concerns the
    # reader; warnings about a tutorial's own code are kept.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "NO_COLOR": "1",
    "PYTHONWARNINGS": ",".join(f"ignore:{start}" for start in IMPORT_CHATTER),
}


def base_environment() -> dict[str, str]:
    """What every Python process of a run needs: programs, packages and the GPU."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or name.startswith("PIP_")
    }
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    packages = _packages()
    if packages:
        passed["PYTHONPATH"] = os.pathsep.join(packages)
    return {**passed, **FIXED, "PATH": os.pathsep.join(programs)}


def kernel_environment(workspace: Workspace) -> dict[str, str]:
    """Environment of the kernel that runs in this workspace.

    Home, temporary files, and the caches of compilers are the workspace's own: a
    tutorial must not find what another one compiled, or its compile times would look
    too short. Downloaded weights stay where the user keeps them.
    """
    profile = workspace.path / "ipython" / "profile_default"
    shutil.copytree(
        IPYTHON_FOLDER / "profile_default",
        profile,
        ignore=lambda folder, names: [n for n in names if not n.endswith(".py")],
    )
    downloads = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    if not _is_writable(Path(downloads)):
        downloads = CACHE
    return {
        "HF_HOME": os.environ.get("HF_HOME") or f"{downloads}/huggingface",
        "TORCH_HOME": os.environ.get("TORCH_HOME") or f"{downloads}/torch",
        **base_environment(),
        "HOME": str(workspace.home),
        "TMPDIR": str(workspace.tmp),
        "TORCHINDUCTOR_CACHE_DIR": f"{workspace.tmp}/inductor",
        "TRITON_CACHE_DIR": f"{workspace.tmp}/triton",
        "IPYTHONDIR": str(profile.parent),
        # A list of fonts, which takes seconds to make, and no one's settings.
        "MPLCONFIGDIR": str(CACHE / "matplotlib"),
    }


@functools.cache
def _own_packages() -> set[str]:
    """Where this Python looks for packages without being told to."""
    command = [sys.executable, "-I", "-c", "import sys; print(*sys.path, sep='\\0')"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.rstrip("\n").split("\0"))


def _packages() -> list[str]:
    """Folders of packages that this Python was told of, the repository left out."""
    told = [path for path in sys.path if path and path not in _own_packages()]
    outside = [path for path in told if not Path(path).resolve().is_relative_to(ROOT)]
    return list(dict.fromkeys(outside))


def _is_writable(folder: Path) -> bool:
    """Whether files can be put into the folder, which may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
