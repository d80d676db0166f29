"""Runs a tutorial's notebook in its own Jupyter kernel, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

from gallery.errors import GalleryError
from gallery.paths import FAILED, ROOT
from gallery.script import Script, needs_gpu

# Sharp figures and machine-readable tables; nbval uses the same folder.
IPYTHON_FOLDER = Path(__file__).parent / "ipython"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
MAX_REASON = 500
# How warnings begin that libraries raise while they import each other.
IMPORT_CHATTER = ["IProgress not found", "`torch.jit.script` is", "transformers"]

Progress = Callable[[int, int], None]


@dataclass
class Run:
    """What came of a run.

    Attributes
    ----------
    notebook
        The executed notebook.
    report
        What the last, hidden cell printed, parsed from JSON.
    cell_seconds
        Seconds of each code cell, 0 for a skipped one.
    skipped
        How many cells were left out because they need a GPU.
    """

    notebook: nbformat.NotebookNode
    report: dict
    cell_seconds: list[float] = field(default_factory=list)
    skipped: int = 0


class TutorialError(GalleryError):
    """A tutorial did not run to its end."""


def run_notebook(
    script: Script,
    *,
    before: str = "",
    after: str,
    timeout: float,
    brought: Path | None = None,
    skip_gpu_cells: bool = False,
    progress: Progress = lambda cell, cells: None,
) -> Run:
    """Execute a script's cells in order in a fresh kernel and an empty folder.

    Parameters
    ----------
    before
        Code that runs in the kernel before the first cell; its output is not kept.
    after
        Code that runs after the last cell and prints one line of JSON.
    timeout
        Seconds for the whole tutorial.
    brought
        Folder with files made on another machine, put into the tutorial's folder.
    skip_gpu_cells
        Leave out the cells that are marked ``# Needs a GPU:``.
    progress
        Called with (number of the cell, how many there are) before each code cell.

    Raises
    ------
    TutorialError
        If a cell fails, the kernel dies or the time is up. Names tutorial and cell,
        and the file in which the notebook was kept as far as it got.
    """
    notebook = script.notebook()
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    seconds = [0.0] * len(code_cells)
    deadline = time.monotonic() + timeout
    # A tutorial imports nothing of the repository: the path is there for one import.
    enter = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    leave = "\nsys.path.pop(0); del sys"
    hidden = [
        nbformat.v4.new_code_cell(enter + before + leave),
        nbformat.v4.new_code_cell(enter + after + leave),
    ]
    whole = nbformat.v4.new_notebook(metadata=notebook.metadata)
    whole.cells = [hidden[0], *notebook.cells, hidden[1]]

    kept = FAILED / f"{script.name}.ipynb"

    def fail(number: int, reason: str) -> TutorialError:
        where = f"{script.name}, cell {number} of {len(code_cells)}"
        notebook.metadata = whole.metadata
        kept.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, kept)
        return TutorialError(f"{where}: {reason} (All that it printed: {kept})")

    skipped = 0
    with (
        tempfile.TemporaryDirectory(prefix="gallery-") as folder,
        # A tutorial must not find kernels that another one compiled: its compile times
        # would look too short.
        tempfile.TemporaryDirectory(prefix="gallery-tmp-") as caches,
        # Native libraries write here; it tells why a kernel died.
        tempfile.TemporaryFile("w+", errors="replace") as native_log,
    ):
        if brought and brought.is_dir():
            shutil.copytree(brought, folder, dirs_exist_ok=True)
        client = NotebookClient(
            whole,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            # A failing hidden cell is our own error; it is not the tutorial's.
            allow_errors=False,
            record_timing=False,
        )
        current = 0
        try:
            env = kernel_environment() | {
                "TMPDIR": caches,  # TensorRT's, and whatever else is temporary
                "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
                "TRITON_CACHE_DIR": f"{caches}/triton",
            }
            with client.setup_kernel(env=env, stderr=native_log):
                for index, cell in enumerate(whole.cells):
                    if cell.cell_type != "code":
                        continue
                    is_own = cell in hidden
                    if not is_own:
                        current += 1
                        if skip_gpu_cells and needs_gpu(cell.source):
                            skipped += 1
                            continue
                        progress(current, len(code_cells))
                    client.timeout = max(1, int(deadline - time.monotonic()))
                    started = time.monotonic()
                    client.execute_cell(cell, index, store_history=not is_own)
                    if not is_own:
                        seconds[current - 1] = round(time.monotonic() - started, 2)
        except CellTimeoutError:
            raise fail(
                current,
                f"took longer than the limit of {timeout:.0f} s for a tutorial. "
                "Make the tutorial smaller or give it more time.",
            ) from None
        except DeadKernelError:
            native_log.seek(0)
            last = "".join(native_log.readlines()[-1:]).strip()
            raise fail(
                current,
                "the kernel died, most likely because the memory ran out. "
                "Close other programs or use a smaller model."
                + (f" Its last words: {last}" if last else ""),
            ) from None
        except CellExecutionError as error:
            raise fail(current, _reason(error)) from None

    for number, cell in enumerate(code_cells, 1):
        if cell.get("execution_count") is not None:
            cell["execution_count"] = number
    notebook.metadata = whole.metadata
    kept.unlink(missing_ok=True)
    return Run(notebook, _report(hidden[1], script), seconds, skipped)


def kernel_environment() -> dict[str, str]:
    """Environment variables of the kernels that record and verify tutorials."""
    python = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )
    return {
        **os.environ,
        # Progress bars and colors would end up in the recording, and so would what
        # libraries say of each other when they are imported. None of it concerns the
        # reader; warnings about a tutorial's own code are kept.
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "NO_COLOR": "1",
        "PYTHONWARNINGS": ",".join(f"ignore:{start}" for start in IMPORT_CHATTER),
        "PATH": python,
        "IPYTHONDIR": str(IPYTHON_FOLDER),
    }


def _reason(error: CellExecutionError) -> str:
    if error.ename == "OutOfMemoryError":
        return (
            "the GPU's memory ran out. Close other programs that use the GPU, or "
            "run on a GPU with more memory."
        )
    # Dynamo's errors wrap the cause: it stands in the lines after the first.
    lines = [line.strip() for line in ANSI.sub("", str(error.evalue)).splitlines()]
    return shorten(f"{error.ename}: {' '.join(lines)}", MAX_REASON, placeholder=" ...")


def _report(cell: nbformat.NotebookNode, script: Script) -> dict:
    text = "".join(
        out.text for out in cell.outputs if out.output_type == "stream"
    ).strip()
    try:
        return json.loads(text.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise TutorialError(
            f"{script.name}: the kernel gave no report at the end of the run."
        ) from None
