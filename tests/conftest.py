"""A small project of its own, so that tests change scripts and recordings freely."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from gallery.kernel import run_notebook
from gallery.record import COLLECT
from gallery.recording import recording_path, save_recording
from gallery.script import read_script

ROOT = Path(__file__).resolve().parent.parent

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

# What a GPU runner would have said; only the site's own logic is tested with it.
ON_A_GPU = {"gpu": "Test GPU", "driver": "1.2.3", "tensorrt": "1.0", "cuda": "13.0"}


@pytest.fixture(autouse=True)
def failed_runs(monkeypatch, tmp_path: Path) -> Path:
    """Where this test's failed runs are kept: not among the user's own."""
    monkeypatch.setattr("gallery.kernel.FAILED", tmp_path / "failed")
    return tmp_path / "failed"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the machinery with one tiny tutorial and two pages."""
    for name in ("gallery", "docs/_static", "docs/inventories"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("__pycache__", "security", "db", "log"),
        )
    shutil.copy(ROOT / "conf.py", tmp_path)
    (tmp_path / "docs" / "index.rst").write_text(
        "Home\n====\n\n.. gallery-cards::\n\n.. toctree::\n\n   tutorials/index\n"
        "   results\n"
    )
    (tmp_path / "docs" / "results.rst").write_text(
        "Results\n=======\n\n.. gallery-results::\n"
    )
    section = tmp_path / "examples" / "dynamo"
    section.mkdir(parents=True)
    for folder in (tmp_path / "examples", section):
        (folder / "GALLERY_HEADER.rst").write_text("Tutorials\n=========\n\nAll.\n")
    (section / "tiny.py").write_text(TINY)
    (tmp_path / "recordings").mkdir()
    return tmp_path


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> tuple[nbformat.NotebookNode, dict]:
    """The tiny tutorial, really executed once, with its provenance."""
    path = tmp_path_factory.mktemp("executed") / "tiny.py"
    path.write_text(TINY)
    run = run_notebook(read_script(path), after=COLLECT, timeout=120)
    return run.notebook, {**run.report, "cell_seconds": run.cell_seconds}


@pytest.fixture
def recorded(project: Path, executed) -> Path:
    """The tiny project with a recording; returns the project."""
    notebook, provenance = executed
    script = read_script(project / "examples/dynamo/tiny.py")
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    save_recording(script, notebook, {**provenance, **ON_A_GPU}, project / "recordings")
    assert recording_path("tiny", project / "recordings").exists()
    return project


@pytest.fixture
def tiny(project: Path) -> Path:
    """The tiny tutorial's script."""
    return project / "examples/dynamo/tiny.py"


def run_gallery(project: Path, *words: str) -> subprocess.CompletedProcess:
    """The command line, in a project of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gallery", *words],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
    )


def build_site(project: Path) -> subprocess.CompletedProcess:
    """The site of a project, with warnings as errors, in `site/`."""
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-c", ".", "docs", "site"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
    )
