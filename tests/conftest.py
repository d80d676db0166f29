"""A small project of its own, so that tests change scripts and recordings freely.

Where a test records, programs and packages stand in for a machine with GPUs. The
recorder asks them as it asks the real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from gallery.record import record
from gallery.recording import recording_path, seal
from gallery.script import read_script

ROOT = Path(__file__).resolve().parent.parent

# The tests are those of a machine without a GPU, also where there is one.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

TINY = '''"""
A tiny tutorial
===============

It shows a text, a table and a figure.
"""

# %%
# Print
# -----
# A cell prints.
print("Weights: random")
print("the sum is", 1 + 1)

# %%
# A table.

# Output varies: it holds the time.
import time

import pandas as pd

pd.DataFrame({"clock": [time.time()]})

# %%
# A figure.

# Output varies: fonts differ.
import matplotlib.pyplot as plt

plt.figure(figsize=(4, 2.5))
plt.plot([1, 3, 2])
plt.show()

# %%
# Takeaways
# ---------
# - Small.

# sphinx_gallery_tags = ["tiny", "test"]
'''

# Versions of the stand-ins; those of the stack are the pinned ones.
PACKAGES = {"torch": "2.14.0", "torch-tensorrt-rtx": "2.14.0", "tensorrt-rtx": "1.0"}
TEST_GPU = ["Test GPU", 79.0]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def python_path(folder: Path) -> str:
    """The folder, and then where this Python was told to look for packages."""
    told = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, [str(folder), told]))


@dataclass(frozen=True)
class StandIns:
    """A machine with GPUs, as the recorder sees it.

    Attributes
    ----------
    folder
        Packages that stand for PyTorch and TensorRT.
    """

    folder: Path

    def set_gpus(self, *gpus: list) -> None:
        """Give the machine these GPUs: for each its name and its free GiB."""
        (self.folder / "gpus.json").write_text(json.dumps(gpus))

    def set_version(self, package: str, version: str) -> None:
        name = package.replace("-", "_")
        for old in self.folder.glob(f"{name}-*.dist-info"):
            shutil.rmtree(old)
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(f"{name}\n")

    def environment(self, **variables: str) -> dict[str, str]:
        """For a process that is to find these stand-ins."""
        own = {
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": python_path(self.folder),
            # Locks on GPUs lie there: two runs of the tests do not wait for each other.
            "TMPDIR": str(self.folder.parent / "tmp"),
        }
        Path(own["TMPDIR"]).mkdir(exist_ok=True)
        return {**os.environ, **own, **variables}


def make_stand_ins(folder: Path) -> StandIns:
    shutil.copytree(ROOT / "tests/stand_ins", folder)
    smi = folder / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 1.2.3\n")
    smi.chmod(0o755)
    made = StandIns(folder)
    made.set_gpus(TEST_GPU)
    for package, version in PACKAGES.items():
        made.set_version(package, version)
    return made


def use_stand_ins(made: StandIns, patch: pytest.MonkeyPatch) -> None:
    """Let this very process, as a recorder, find them."""
    patch.setenv("PATH", made.environment()["PATH"])
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # Not syspath_prepend: that would make this process forget what it has imported.
    patch.setattr(sys, "path", [str(made.folder), *sys.path])


@pytest.fixture(autouse=True)
def failed_runs(monkeypatch, tmp_path: Path) -> Path:
    """Where this test's failed runs are kept: not among the user's own."""
    monkeypatch.setattr("gallery.kernel.FAILED", tmp_path / "failed")
    monkeypatch.setattr("gallery.verify.FAILED", tmp_path / "failed")
    return tmp_path / "failed"


@pytest.fixture
def gpus(tmp_path_factory, monkeypatch) -> StandIns:
    """A machine with one GPU; `set_gpus` gives it others."""
    made = make_stand_ins(tmp_path_factory.mktemp("machine") / "packages")
    use_stand_ins(made, monkeypatch)
    return made


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the machinery with one tiny tutorial and two pages."""
    return make_project(tmp_path)


def make_project(folder: Path) -> Path:
    for name in ("gallery", "docs/_static", "docs/inventories", "docs/_templates"):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__", "security", "db", "log"),
            )
    for path in [ROOT / "conf.py", *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, folder)
    fonts = ROOT / ".cache" / "matplotlib"
    if fonts.is_dir():  # to make the list takes seconds
        shutil.copytree(fonts, folder / ".cache" / "matplotlib")
    (folder / "docs" / "index.rst").write_text(
        "Home\n====\n\n.. gallery-cards::\n\n.. toctree::\n\n   tutorials/index\n"
        "   results\n"
    )
    (folder / "docs" / "results.rst").write_text(
        "Results\n=======\n\n.. gallery-results::\n"
    )
    section = folder / "examples" / "dynamo"
    section.mkdir(parents=True)
    for headed in (folder / "examples", section):
        (headed / "GALLERY_HEADER.rst").write_text("Tutorials\n=========\n\nAll.\n")
    (section / "tiny.py").write_text(TINY)
    (folder / "recordings" / "h100-rtx").mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> Path:
    """A recording of the tiny tutorial, made once by the recorder."""
    _too_slow_for_mutants()
    folder = tmp_path_factory.mktemp("executed")
    (folder / "tiny.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        use_stand_ins(make_stand_ins(folder / "packages"), patch)
        return record(read_script(folder / "tiny.py"), folder=folder, timeout=120)


@pytest.fixture
def recorded(project: Path, executed: Path) -> Path:
    """The tiny project with a recording; returns the project."""
    shutil.copy(executed, recording_path("tiny", recordings(project)))
    return project


@pytest.fixture
def tiny(project: Path) -> Path:
    """The tiny tutorial's script."""
    return project / "examples/dynamo/tiny.py"


def recordings(project: Path) -> Path:
    """Where a project's recordings lie that its pages show."""
    return project / "recordings" / "h100-rtx"


def _too_slow_for_mutants() -> None:
    """Hundreds of runs of a test begin no process each: see tests/mutants.py."""
    if "MUTANT_UNDER_TEST" in os.environ:
        pytest.skip("starts a process")


def change_facts(path: Path, change) -> None:
    """Change a recording's provenance, and seal it as if it had been recorded so."""
    notebook = nbformat.read(path, as_version=4)
    change(notebook.metadata["gallery"])
    notebook.metadata["gallery"]["seal"] = seal(notebook)
    nbformat.write(notebook, path)


def run_gallery(
    project: Path, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """The command line, in a project of its own."""
    _too_slow_for_mutants()
    return subprocess.run(
        [sys.executable, "-m", "gallery", *words],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
    )


def build_site(
    project: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """The site of a project, with warnings as errors, in `site/`."""
    _too_slow_for_mutants()
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-c", ".", "docs", "site"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
    )


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()
