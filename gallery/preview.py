"""A look at a page without a GPU, with the outputs of a run on the CPU.

It is built from a copy of the project in a folder that git ignores. Nothing of it
reaches the recordings or the published site, and each of its pages says what it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from gallery.check import messages
from gallery.display import say
from gallery.engines import TIME_LIMIT_S
from gallery.errors import GalleryError
from gallery.kernel import Progress, run_notebook
from gallery.machine import describe_machine, require_stack
from gallery.outputs import figure_sentences
from gallery.paths import ALL_RECORDINGS, CACHE, RECORDINGS, ROOT, require_writable
from gallery.recording import save_recording
from gallery.script import Script, find_scripts, needs_gpu, read_script
from gallery.values import names_quoted, printed_values
from gallery.workspace import Workspace

PREVIEWS = CACHE / "preview"
MACHINE = "preview"  # stands for the folder of a kind of machine
NO_GPU = "no GPU (a preview)"
SKIPPED = "Not run: this cell needs a GPU.\n"
NO_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 200" width="700">'
    '<rect width="700" height="200" fill="#ddd"/><text x="350" y="105" '
    'text-anchor="middle" font-size="20">A figure that needs a GPU</text></svg>'
)
BANNER = (
    "A preview, made without a GPU. What it shows of {names} comes from a small run on "
    "a CPU and is no result. Do not publish it."
)
COPIED = ("conf.py", "docs", "examples", "gallery", "*.rst", "*.txt")
FAULT = re.compile(r"ERROR|WARNING|CRITICAL|was not built|exception: ")
NOT_COPIED = ("_build", "tutorials", "__pycache__", "model_repository")


def preview(words: argparse.Namespace) -> int:
    """Show how pages will look, with the outputs of a run on the CPU."""
    if not words.names:
        raise GalleryError(
            "Name the tutorials to look at: nox -s preview -- NAME. All pages with "
            "their recordings: nox -s serve"
        )
    require_writable()
    scripts = [read_script(path) for path in find_scripts(words.names)]
    require_stack(describe_machine())
    for script in scripts:
        for message in messages(script):
            say(message)
    project = _copy_project()
    for script in scripts:
        say(f"{script.name} runs on the CPU.")
        run_on_cpu(script, project / "recordings" / MACHINE, progress=_say_cell)
    site = build(project, [script.name for script in scripts])
    for script in scripts:
        page = site / "tutorials" / script.path.parent.name / f"{script.name}.html"
        say(f"Look at {page.relative_to(ROOT)}")
    return 0


def run_on_cpu(
    script: Script,
    folder: Path,
    *,
    timeout: float = TIME_LIMIT_S,
    progress: Progress = lambda cell, cells: None,
) -> Path:
    """Run what needs no GPU, and keep the outputs in a folder of previews.

    Raises
    ------
    TutorialError
        If a cell fails.
    """
    with Workspace() as workspace:
        run = run_notebook(
            script,
            workspace,
            before="no_gpu.install",
            after="provenance.collect",
            timeout=timeout,
            skip_gpu_cells=True,
            progress=progress,
        )
    stand_in(script, run.notebook)
    facts = run.report | {
        "gpu": NO_GPU,
        "brought": {},
        "cell_seconds": run.cell_seconds,
        "caveats": ["This is a preview, made without a GPU. It is no recording."],
    }
    return save_recording(script, run.notebook, facts, folder)


def stand_in(script: Script, notebook: nbformat.NotebookNode) -> None:
    """Say in each skipped cell that it is, and give quoted values a text."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = printed_values(cell.outputs for cell in cells)
    texts = [block.content for block in script.blocks]  # alternative texts too
    quoted = dict.fromkeys(name for text in texts for _, name in names_quoted(text))
    missing = [name for name in quoted if name not in printed]
    text = SKIPPED + "".join(f"{name} = (no GPU)\n" for name in missing)
    for cell in cells:
        if needs_gpu(cell.source):
            said = nbformat.v4.new_output("stream", name="stdout", text=text)
            cell.outputs = [said, *map(_placeholder, figure_sentences(cell.source))]
            text = SKIPPED


def _placeholder(sentence: str) -> nbformat.NotebookNode:
    """What stands where a figure will be, and says in words what it will show."""
    data = {"image/svg+xml": NO_PICTURE, "text/plain": sentence}
    return nbformat.v4.new_output("display_data", data=data)


def build(project: Path, names: list[str]) -> Path:
    """Build the copied project's site; each page begins with what it is.

    Raises
    ------
    GalleryError
        If the site cannot be built; with Sphinx's messages.
    """
    site = PREVIEWS / "html"
    banner = BANNER.format(names=" and ".join(names))
    packages = filter(None, [str(project), os.environ.get("PYTHONPATH")])
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ".", "docs"]
        + [str(site), "-D", f"gallery_recordings={MACHINE}"]
        + ["-D", f"html_theme_options.announcement={banner}"]
        + ["-D", "html_title=Preview, not for publication"],
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(packages)},
    )
    if done.returncode:
        told = (done.stdout + done.stderr).replace(f"{project}/", "").strip()
        faults = [line for line in told.splitlines() if FAULT.search(line)]
        faults = faults or told.splitlines()[-1:]
        raise GalleryError("\n".join(["The preview was not built.", *faults]))
    return site


def _copy_project() -> Path:
    """The project with the published recordings as those of a preview."""
    project = PREVIEWS / "project"
    shutil.rmtree(PREVIEWS, ignore_errors=True)
    for source in (path for name in COPIED for path in ROOT.glob(name)):
        if source.is_dir():
            ignored = shutil.ignore_patterns(*NOT_COPIED)
            shutil.copytree(source, project / source.name, ignore=ignored)
        else:
            project.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, project)
    if RECORDINGS.exists():
        shutil.copytree(RECORDINGS, project / "recordings" / MACHINE)
    reports = ALL_RECORDINGS / "engines"
    if reports.exists():
        shutil.copytree(reports, project / "recordings" / "engines")
    return project


def _say_cell(cell: int, cells: int) -> None:
    say(f"  cell {cell} of {cells}, {time.strftime('%H:%M:%S')}")
