"""Runs a tutorial on a machine without a GPU, and reports the engines it built.

Nothing of such a run is ever shown as a result. What is kept is what the ahead-of-time
compiler made: how many engines, their sizes, and the operators inside them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from gallery.errors import GalleryError
from gallery.kernel import Progress, Run, run_notebook
from gallery.paths import ENGINES
from gallery.recording import partial_path, write_atomically
from gallery.script import Script, needs_gpu
from gallery.workspace import Workspace

TIME_LIMIT_S = 600


@dataclass(frozen=True)
class EngineReport:
    """The engines that one tutorial builds without a GPU.

    Attributes
    ----------
    code_hash
        Identity of the code, and of which cells need a GPU: `identity`.
    engines
        One dict an engine: ``size_bytes``, ``inputs``, ``outputs``, ``operators``,
        ``targets``, and whether a refittable one was asked for.
    operators
        ``in_engines``, ``in_pytorch`` (counts) and ``left_in_pytorch`` (names).
    skipped_cells
        How many cells need a GPU and were left out.
    """

    code_hash: str
    engines: list[dict]
    operators: dict
    versions: dict
    skipped_cells: int

    @property
    def percent_in_engines(self) -> int:
        """Share of the operators that run inside engines; 100 only if all do."""
        inside, outside = self.operators["in_engines"], self.operators["in_pytorch"]
        return 100 * inside // (inside + outside) if inside + outside else 0

    @property
    def size_mb(self) -> float:
        """Size of all engines together, in units of 10^6 bytes."""
        return sum(engine["size_bytes"] for engine in self.engines) / 1e6


def execute_without_gpu(
    script: Script,
    *,
    folder: Path = ENGINES,
    timeout: float = TIME_LIMIT_S,
    progress: Progress = lambda cell, cells: None,
) -> tuple[EngineReport, Run]:
    """Run every cell that needs no GPU; return the report and what came of the run.

    Raises
    ------
    TutorialError
        If a cell fails, a failing engine build included.
    """
    with Workspace() as workspace:
        run = run_notebook(
            script,
            workspace,
            before="no_gpu.install",
            after="no_gpu.report",
            timeout=timeout,
            skip_gpu_cells=True,
            progress=progress,
        )
        report = EngineReport(
            code_hash=identity(script),
            engines=run.report["engines"],
            operators=run.report["operators"],
            versions=run.report["versions"],
            skipped_cells=run.skipped,
        )
        path = report_path(script, folder)
        workspace.also_remove(partial_path(path))
        write_atomically(path, json.dumps(vars(report), indent=1) + "\n")
    return report, run


def identity(script: Script) -> str:
    """What a report belongs to: the code, and which cells are skipped without a GPU."""
    skipped = [str(needs_gpu(cell)) for cell in script.code_cells]
    return hashlib.sha256(" ".join([script.code_hash, *skipped]).encode()).hexdigest()


def report_path(script: Script, folder: Path = ENGINES) -> Path:
    return folder / f"{script.name}.json"


def load_engine_report(script: Script, folder: Path = ENGINES) -> EngineReport | None:
    """The last report of this very code, or None.

    Raises
    ------
    GalleryError
        If the file is there and cannot be read as a report.
    """
    path = report_path(script, folder)
    if not path.exists():
        return None
    broken = GalleryError(
        f"The engine report {path.name} is broken. Delete it, and make it again: "
        f"nox -s gallery -- {script.name}"
    )
    try:
        report = EngineReport(**json.loads(path.read_text(encoding="utf-8")))
        # All that is asked of a report later.
        text = f"{report.size_mb} {report.percent_in_engines} {report.versions.keys()}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise broken from None
    if not text or not isinstance(report.skipped_cells, int):
        raise broken
    return report if report.code_hash == identity(script) else None
