"""Runs a tutorial on a machine without a GPU, and reports the engines it built.

Nothing of such a run is ever shown as a result. What is kept is what the ahead-of-time
compiler made: how many engines, their sizes, and the operators inside them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from gallery.errors import GalleryError
from gallery.kernel import Progress, run_notebook
from gallery.paths import ENGINES
from gallery.recording import write_atomically
from gallery.script import Script

TIME_LIMIT_S = 600
INSTALL = "from gallery import no_gpu; no_gpu.install(); del no_gpu"
REPORT = """
import json
from gallery import no_gpu
print(json.dumps(no_gpu.report()))
"""


@dataclass(frozen=True)
class EngineReport:
    """The engines that one tutorial builds without a GPU.

    Attributes
    ----------
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
) -> tuple[EngineReport, float]:
    """Run every cell that needs no GPU; return the report and the seconds it took.

    Raises
    ------
    TutorialError
        If a cell fails, a failing engine build included.
    """
    run = run_notebook(
        script,
        before=INSTALL,
        after=REPORT,
        timeout=timeout,
        skip_gpu_cells=True,
        progress=progress,
    )
    report = EngineReport(
        code_hash=script.code_hash,
        engines=run.report["engines"],
        operators=run.report["operators"],
        versions=run.report["versions"],
        skipped_cells=run.skipped,
    )
    write_atomically(
        folder / f"{script.name}.json", json.dumps(vars(report), indent=1) + "\n"
    )
    return report, sum(run.cell_seconds)


def load_engine_report(script: Script, folder: Path = ENGINES) -> EngineReport | None:
    """The last report of this very code, or None.

    Raises
    ------
    GalleryError
        If the file is there and cannot be read as a report.
    """
    path = folder / f"{script.name}.json"
    if not path.exists():
        return None
    try:
        report = EngineReport(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise GalleryError(
            f"The engine report {path.name} is broken. Delete it, and make it again: "
            f"nox -s gallery -- {script.name}"
        ) from None
    return report if report.code_hash == script.code_hash else None
