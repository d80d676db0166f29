"""Records a tutorial: runs it on this machine's GPU and keeps what came out."""

from __future__ import annotations

from pathlib import Path

from gallery.kernel import Progress, run_notebook
from gallery.paths import BROUGHT, RECORDINGS
from gallery.recording import save_recording
from gallery.script import Script

TIME_LIMIT_S = 1200
COLLECT = """
import json
from gallery.provenance import collect
print(json.dumps(collect()))
"""


def record(
    script: Script,
    *,
    folder: Path = RECORDINGS,
    timeout: float = TIME_LIMIT_S,
    progress: Progress = lambda cell, cells: None,
) -> Path:
    """Run the tutorial and write its recording once all of it has run.

    Parameters
    ----------
    folder
        Where recordings lie. An older recording stays untouched on failure.
    timeout
        Seconds for the whole tutorial.

    Raises
    ------
    TutorialError
        If the tutorial does not run to its end.
    """
    run = run_notebook(
        script,
        after=COLLECT,
        timeout=timeout,
        brought=BROUGHT / script.name,
        progress=progress,
    )
    provenance = {**run.report, "cell_seconds": run.cell_seconds}
    return save_recording(script, run.notebook, provenance, folder)
