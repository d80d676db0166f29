"""The closing table: what is recorded, what ran here, what is stale or failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from gallery.engines import EngineReport, load_engine_report
from gallery.errors import GalleryError
from gallery.paths import ENGINES, RECORDINGS
from gallery.recording import load_recording
from gallery.script import Script


@dataclass
class Row:
    """One tutorial's line in the table."""

    name: str
    recording: str
    engines: EngineReport | None = None
    here: str = ""
    seconds: float | None = None


def recording_state(script: Script, folder: Path = RECORDINGS) -> str:
    """``recorded``, ``stale``, ``missing`` or ``broken``."""
    try:
        recording = load_recording(script.name, folder)
    except GalleryError:
        return "broken"
    if recording is None:
        return "missing"
    return "stale" if recording.is_stale(script) else "recorded"


def row(script: Script, recordings: Path = RECORDINGS, engines: Path = ENGINES) -> Row:
    """What the repository holds for this tutorial, before anything is run."""
    return Row(
        script.name,
        recording_state(script, recordings),
        load_engine_report(script, engines),
    )


def table(rows: list[Row]) -> Table:
    """The closing table, for rich to print."""
    out = Table(title="Tutorials", title_justify="left")
    out.add_column("tutorial", no_wrap=True)
    out.add_column("recording")
    out.add_column("this run", overflow="fold")
    for column in ("engines", "engine MB", "operators inside", "GPU cells", "seconds"):
        out.add_column(column, justify="right")
    for line in rows:
        built = line.engines
        out.add_row(
            line.name,
            line.recording,
            line.here or "-",
            str(len(built.engines)) if built else "-",
            f"{built.size_mb:.1f}" if built else "-",
            f"{built.percent_in_engines}%" if built else "-",
            f"{built.skipped_cells} skipped" if built else "-",
            f"{line.seconds:.0f}" if line.seconds is not None else "-",
        )
    return out
