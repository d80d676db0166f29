"""Whether a tutorial gives the figures of one alone when another runs beside it."""

from __future__ import annotations

import threading

import nbformat
from rich.table import Table
from rich.text import Text

from gallery.batch import Batch, Job, Outcome, Slot
from gallery.errors import GalleryError

DATA_TYPE = "application/vnd.dataresource+json"
KEY = ("model", "backend", "precision", "shape")
GRAPH = ", CUDA graph"
ALLOWED = 0.05


def benchmark_rows(notebook: nbformat.NotebookNode) -> list[dict]:
    """Rows of the last table that has latencies; empty if there is none."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    for out in reversed(outputs):
        rows = out.get("data", {}).get(DATA_TYPE, {}).get("data", [])
        if rows and {*KEY, "latency_ms"} <= set(rows[0]):
            return [dict(row) for row in rows]
    return []


def differences(alone: list[dict], beside: list[dict]) -> list[dict]:
    """Rows with a CUDA graph, the largest change of latency first.

    Each has ``alone`` and ``beside`` (milliseconds) and ``change`` (0.03 is 3 %).
    """
    before = {tuple(row[k] for k in KEY): row["latency_ms"] for row in alone}
    found = []
    for row in beside:
        key = tuple(row[k] for k in KEY)
        if key in before and row["backend"].endswith(GRAPH):
            ms = row["latency_ms"]
            change = ms / before[key] - 1
            entry = dict(zip(KEY, key), alone=before[key], beside=ms, change=change)
            found.append(entry)
    return sorted(found, key=lambda row: -abs(row["change"]))


def measure_beside(job: Job, other: Job, slots: list[Slot], watch) -> list[Outcome]:
    """Run a job alone, then again while the other one runs, anew as often as needed.

    Raises
    ------
    GalleryError
        If a run fails.
    """
    batch, company = Batch(slots[:1], watch), Batch(slots[1:2], watch)
    outcomes = [_good(batch.run([job])[job.name])]
    failures = []

    def keep_busy() -> None:
        while not company.stopped:
            outcome = company.run_one(other, slots[1])
            if outcome.failure and not company.stopped:
                failures.append(outcome)
                return

    thread = threading.Thread(target=keep_busy, daemon=True)
    thread.start()
    try:
        outcomes.append(_good(batch.run([job])[job.name]))
    finally:
        company.stop()
        thread.join()
    for outcome in failures:  # then it did not run beside another
        _good(outcome)
    return outcomes


def _good(outcome: Outcome) -> Outcome:
    if outcome.failure:
        raise GalleryError(outcome.failure)
    return outcome


def table(rows: list[dict]) -> Table:
    """The comparison, for rich to print."""
    out = Table(title="Latency in ms, CUDA graphs", title_justify="left")
    for name in (*KEY, "alone", "beside", "change"):
        out.add_column(name, justify="left" if name in KEY else "right")
    for row in rows:
        words = [str(row[k]) for k in KEY]
        words += [f"{row['alone']:.3f}", f"{row['beside']:.3f}"]
        out.add_row(*map(Text, words), f"{100 * row['change']:+.1f}%")
    return out


def largest(rows: list[dict]) -> float:
    """The largest change, without its sign.

    Raises
    ------
    GalleryError
        If no row could be compared.
    """
    if not rows:
        raise GalleryError("The tutorial has no row with a CUDA graph to compare.")
    return abs(rows[0]["change"])
