"""The closing table: what is recorded, what ran here, what is stale or failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from gallery.engines import EngineReport, load_engine_report, report_path
from gallery.errors import GalleryError
from gallery.paths import ENGINES, RECORDINGS
from gallery.recording import load_recording
from gallery.script import Script


@dataclass
class Row:
    """One tutorial's line in the table.

    Attributes
    ----------
    recording
        The recording's state: see `recording_state`.
    engines, report
        The engine report of this very code, and its state.
    here
        What this run did.
    """

    name: str
    recording: str = "-"
    engines: EngineReport | None = None
    report: str = "-"
    here: str = ""
    seconds: float | None = None


def recording_state(script: Script, folder: Path = RECORDINGS) -> str:
    """``current``, ``other versions``, ``stale``, ``missing`` or ``broken``."""
    try:
        recording = load_recording(script.name, folder)
    except GalleryError:
        return "broken"
    return recording.state(script) if recording else "missing"


def row(script: Script, recordings: Path = RECORDINGS, engines: Path = ENGINES) -> Row:
    """What the repository holds for this tutorial."""
    line = Row(script.name, recording_state(script, recordings))
    try:
        line.engines = load_engine_report(script, engines)
        built = report_path(script, engines).exists()
        line.report = "current" if line.engines else "stale" if built else "-"
    except GalleryError:
        line.report = "broken"
    return line


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
        words = [
            line.name,
            line.recording,
            line.here or "-",
            str(len(built.engines)) if built else line.report,
            f"{built.size_mb:.1f}" if built else "-",
            f"{built.percent_in_engines}%" if built else "-",
            f"{built.skipped_cells} skipped" if built else "-",
            f"{line.seconds:.0f}" if line.seconds is not None else "-",
        ]
        out.add_row(*map(Text, words))
    return out
