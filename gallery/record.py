"""Records a tutorial: runs it on this machine's GPU and keeps what came out."""

from __future__ import annotations

from pathlib import Path

from gallery.errors import GalleryError
from gallery.kernel import Progress, keep_failed, run_notebook
from gallery.paths import ALL_RECORDINGS, BROUGHT
from gallery.provenance import file_hashes, machine_name
from gallery.recording import partial_path, recording_path, save_recording
from gallery.script import Script
from gallery.workspace import Workspace

TIME_LIMIT_S = 1200
COLLECT = "provenance.collect"


def execute(
    script: Script,
    workspace: Workspace,
    *,
    timeout: float = TIME_LIMIT_S,
    progress: Progress = lambda cell, cells: None,
):
    """Run the tutorial; return its notebook and the whole of its provenance."""
    brought = BROUGHT / script.name
    hashes = file_hashes(brought)
    run = run_notebook(
        script,
        workspace,
        after=COLLECT,
        timeout=timeout,
        brought=brought,
        progress=progress,
    )
    facts = {**run.report, "brought": hashes, "cell_seconds": run.cell_seconds}
    return run.notebook, facts


def record(
    script: Script,
    *,
    folder: Path | None = None,
    timeout: float = TIME_LIMIT_S,
    progress: Progress = lambda cell, cells: None,
) -> Path:
    """Run the tutorial and write its recording once all of it has run.

    Parameters
    ----------
    folder
        Where recordings lie; by default, those of this kind of machine. An older
        recording stays untouched on failure.
    timeout
        Seconds for the whole tutorial.

    Raises
    ------
    TutorialError
        If the tutorial does not run to its end.
    GalleryError
        If what came out is no recording, for instance because there is no GPU.
    """
    with Workspace() as workspace:
        notebook, facts = execute(script, workspace, timeout=timeout, progress=progress)
        if folder is None and facts["gpu"]:
            machine = machine_name(facts["gpu"], facts["tensorrt_flavor"])
            folder = ALL_RECORDINGS / machine
        try:
            if not facts["gpu"]:
                raise GalleryError(f"{script.name} was not recorded: there is no GPU.")
            workspace.also_remove(partial_path(recording_path(script.name, folder)))
            return save_recording(script, notebook, facts, folder)
        except Exception as error:  # a run is too dear to be lost, whatever it is
            kept = keep_failed(script.name, notebook)
            kind = (
                "" if isinstance(error, GalleryError) else f"{type(error).__name__}: "
            )
            raise GalleryError(f"{kind}{error} (The run is kept: {kept})") from error
