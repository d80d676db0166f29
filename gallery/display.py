"""What the terminal shows while tutorials run, and how messages are printed."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from gallery.batch import Job, Slot

# In a log there is no terminal to fit.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)


def say(text: str, style: str = "") -> None:
    """Print text as it is: brackets in it are never read as markup."""
    console.print(Text(text, style), soft_wrap=True)


class Display:
    """Shows for each running tutorial where it is; a log gets a line a cell.

    Use it in a ``with`` statement, and its `watch` with a `gallery.batch.Batch`.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, int] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def watch(self, job: Job, slot: Slot, event: dict) -> None:
        name = job.name
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name)
            self._started[name] = time.monotonic()
        after = f"after {time.monotonic() - self._started[name]:.0f} s"
        if "cell" in event:
            where = f"{name}, {slot.label}: cell {event['cell']} of {event['cells']}"
            self._progress.update(self._tasks[name], description=where)
            if not console.is_terminal:
                say(f"{where}, {after}")
            return
        self._progress.remove_task(self._tasks.pop(name))
        if "failed" in event:
            say(event["failed"], "red")
        else:
            say(f"{name}, {slot.label}: {event['done']['here']}, {after}")
