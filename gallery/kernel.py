"""Runs a tutorial's notebook in its own Jupyter kernel, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

from gallery.environment import kernel_environment
from gallery.errors import GalleryError
from gallery.paths import FAILED
from gallery.script import Script, names_made, needs_gpu
from gallery.workspace import Workspace

ANSI = re.compile(r"\x1b\[[0-9;]*m")
# torch.profiler's trace points write these to stderr on some systems.
TRACE_POINTS = re.compile(r"^USDT:.*\n?", re.MULTILINE)
MAX_REASON = 500
# A hidden cell calls a function of the gallery and reports what it returns. Its module
# is loaded under another name, so that no tutorial can import the gallery.
REPORT_TYPE = "application/vnd.gallery+json"
HIDDEN = """
def _gallery(file, function):
    import importlib.util, sys
    from pathlib import Path
    from IPython.display import publish_display_data
    name = f"_gallery_{{Path(file).stem}}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    result = getattr(sys.modules[name], function)()
    publish_display_data({{{type!r}: result}}, {{}})
_gallery({file!r}, {function!r})
del _gallery
"""

Progress = Callable[[int, int], None]


@dataclass
class Run:
    """What came of a run.

    Attributes
    ----------
    notebook
        The executed notebook.
    report
        What the function that was called after the last cell returned.
    cell_seconds
        Seconds of each code cell, 0 for a skipped one.
    skipped
        How many cells were left out because they need a GPU.
    ended_early
        Why the tutorial ended itself before its last cell; empty if it did not.
    """

    notebook: nbformat.NotebookNode
    report: dict
    cell_seconds: list[float] = field(default_factory=list)
    skipped: int = 0
    ended_early: str = ""


class TutorialError(GalleryError):
    """A tutorial did not run to its end."""


def run_notebook(
    script: Script,
    workspace: Workspace,
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
    workspace
        Where the kernel runs; whoever opened it closes it.
    before
        Function of this package, as ``module.function``, that is called in the kernel
        before the first cell.
    after
        Function that is called after the last cell; it returns the run's report.
    timeout
        Seconds for the whole tutorial.
    brought
        Folder with files made on another machine, put into the tutorial's folder.
    skip_gpu_cells
        Leave out the cells that are marked ``# Needs a GPU:``. A cell that raises
        ``SystemExit("why")`` then ends the tutorial early, which is no failure.
    progress
        Called with (number of the cell, how many there are) before each code cell.

    Raises
    ------
    TutorialError
        If a cell fails, the kernel dies or the time is up. Names the script's line and
        the cell, and the file in which the notebook was kept as far as it got.
    """
    notebook = script.notebook()
    run = Run(notebook, {})
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    run.cell_seconds = [0.0] * len(code_cells)
    deadline = time.monotonic() + timeout
    first, last = (_hidden_cell(before) if before else None), _hidden_cell(after)
    whole = nbformat.v4.new_notebook(metadata=notebook.metadata)
    whole.cells = [*filter(None, [first]), *notebook.cells, last]
    if brought and brought.is_dir():
        shutil.copytree(brought, workspace.work, dirs_exist_ok=True)
    # Native libraries write here; it tells why a kernel died.
    log_path = workspace.path / "log"
    current = 0

    def fail(reason: str, line: int = 1) -> TutorialError:
        kept = [keep_failed(script.name, notebook)]
        log = log_path.read_text(encoding="utf-8", errors="replace")
        kept_log = kept[0].with_suffix(".log")
        kept_log.unlink(missing_ok=True)
        if log.strip():
            kept_log.write_text(log, encoding="utf-8")
            kept.append(kept_log)
        where = script.path.name
        if current:
            number = script.line_of(current, line)
            where += f", line {number} (cell {current} of {len(code_cells)})"
        files = " and ".join(map(str, kept))
        return TutorialError(f"{where}: {reason} (All that it printed: {files})")

    # No other kernel that someone installed under this name.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    manager.connection_file = str(workspace.path / "kernel.json")
    # A port that is free now can be another's when the kernel wants it, which then does
    # not answer. Files are the workspace's own; their paths may have 107 bytes.
    if len(os.fsencode(manager.connection_file)) < 100:
        manager.transport = "ipc"
    client = NotebookClient(
        whole,
        km=manager,
        resources={"metadata": {"path": str(workspace.work)}},
        allow_errors=False,
        record_timing=False,
        # A busy machine takes its time; by default late output is dropped in silence.
        startup_timeout=300,
        iopub_timeout=60,
        raise_on_iopub_timeout=True,
        # The workspace ends what the kernel leaves behind.
        shutdown_kernel="immediate",
    )
    with log_path.open("w") as log:
        streams = dict(stdout=log, stderr=log)
        environment = kernel_environment(workspace)
        if skip_gpu_cells:  # also where there is a GPU
            environment["CUDA_VISIBLE_DEVICES"] = ""
        try:
            with client.setup_kernel(env=environment, cleanup_kc=True, **streams):
                for index, cell in enumerate(whole.cells):
                    if cell.cell_type != "code":
                        continue
                    is_own = cell is first or cell is last
                    if not is_own:
                        current += 1
                        if skip_gpu_cells and needs_gpu(cell.source):
                            run.skipped += 1
                            continue
                        if run.ended_early:
                            continue
                        progress(current, len(code_cells))
                    client.timeout = max(1, int(deadline - time.monotonic()))
                    started = time.monotonic()
                    try:
                        client.execute_cell(cell, index, store_history=not is_own)
                    except DeadKernelError:
                        raise fail(_death(manager)) from None
                    except CellTimeoutError:
                        raise fail(
                            f"took longer than the limit of {timeout:.0f} s for a "
                            "tutorial. Make the tutorial smaller or give it more time."
                        ) from None
                    except CellExecutionError as error:
                        if is_own:
                            raise fail(f"{error.ename}: {error.evalue}") from None
                        why = skip_gpu_cells and _early_end(error)
                        if why:
                            run.ended_early = why
                            continue
                        line = _line_in_cell(error)
                        skipped = code_cells[:current] if skip_gpu_cells else []
                        raise fail(_reason(error, script, skipped), line) from None
                    if not is_own:
                        elapsed = round(time.monotonic() - started, 2)
                        run.cell_seconds[current - 1] = elapsed
        except RuntimeError as error:  # nbclient's: it could not talk to the kernel
            raise fail(f"the kernel did not start: {error}") from None

    for number, cell in enumerate(code_cells, 1):
        cell.outputs = _joined(cell.outputs)
        if cell.get("execution_count") is not None:
            cell["execution_count"] = number
    notebook.metadata = whole.metadata
    reports = [out.data[REPORT_TYPE] for out in last.outputs if "data" in out]
    if not reports:
        raise fail("the kernel gave no report at the end of the run.")
    run.report = reports[-1]
    for path in FAILED.glob(f"{script.name}.*"):
        path.unlink(missing_ok=True)
    return run


def keep_failed(name: str, notebook: nbformat.NotebookNode) -> Path:
    """Keep a notebook that is no recording, for whoever mends the tutorial."""
    FAILED.mkdir(parents=True, exist_ok=True)
    path = FAILED / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def _joined(outputs: list) -> list:
    """Outputs with text that was printed in a row as one: its parts depend on time."""
    joined = []
    for out in outputs:
        if out.output_type == "stream":
            out.text = TRACE_POINTS.sub("", out.text)
            if not out.text:
                continue
        last = joined[-1] if joined else {}
        if out.output_type == last.get("output_type") == "stream" and (
            out.name == last["name"]
        ):
            last["text"] += out.text
        else:
            joined.append(out)
    return joined


def _hidden_cell(called: str) -> nbformat.NotebookNode:
    module, _, function = called.partition(".")
    file = str(Path(__file__).with_name(f"{module}.py"))
    code = HIDDEN.format(type=REPORT_TYPE, file=file, function=function)
    return nbformat.v4.new_code_cell(code)


def _line_in_cell(error: CellExecutionError) -> int:
    """Line of the failing cell in which the error arose, or 1."""
    found = re.search(r"Cell In\[\d+\], line (\d+)", ANSI.sub("", error.traceback))
    return int(found[1]) if found else 1


def _early_end(error: CellExecutionError) -> str:
    """What a cell said that ended its tutorial; empty if it failed, or said nothing."""
    words = " ".join(ANSI.sub("", str(error.evalue)).split())
    has_reason = error.ename == "SystemExit" and re.search("[A-Za-z]{2}", words)
    return shorten(words, MAX_REASON, placeholder=" ...") if has_reason else ""


def _death(manager: AsyncKernelManager) -> str:
    """Why the kernel's process ended."""
    process = getattr(manager.provisioner, "process", None)
    status = process.poll() if process else None
    if status is None:
        return "the kernel died."
    if status >= 0:
        return f"the kernel ended itself, with exit status {status}."
    name = signal.Signals(-status).name
    if name == "SIGKILL":
        return (
            "the kernel was killed (SIGKILL), most likely because the memory ran out. "
            "Close other programs or use a smaller model."
        )
    if name in ("SIGTERM", "SIGINT", "SIGHUP"):
        return f"the kernel was told to end ({name}), by itself or from outside."
    return f"the kernel crashed in native code ({name})."


def _reason(error: CellExecutionError, script: Script, before: list) -> str:
    if error.ename == "OutOfMemoryError":
        return (
            "the GPU's memory ran out. Close other programs that use the GPU, or "
            "run on a GPU with more memory."
        )
    # Dynamo's errors wrap the cause: it stands in the lines after the first.
    lines = [line.strip() for line in ANSI.sub("", str(error.evalue)).splitlines()]
    words = f"{error.ename}: {' '.join(lines)}"
    missing = re.match(r"NameError: name '(\w+)' is not defined", words)
    for number, cell in enumerate(before, 1):
        if missing and needs_gpu(cell.source) and missing[1] in names_made(cell.source):
            return (
                f"{words}. The cell in line {script.line_of(number)} makes it, and was "
                "skipped because it needs a GPU. Make the name in another cell, or "
                "mark this cell as well."
            )
    return shorten(words, MAX_REASON, placeholder=" ...")
