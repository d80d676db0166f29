"""Command line: ``python -m gallery run|verify|status|check [tutorial ...]``."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gallery.check import check
from gallery.engines import execute_without_gpu
from gallery.errors import GalleryError
from gallery.machine import (
    Machine,
    describe_machine,
    require_driver,
    require_gpu,
    require_stack,
)
from gallery.record import record
from gallery.recording import load_recording
from gallery.script import find_scripts, read_script
from gallery.status import row, table
from gallery.verify import compare

# In a log there is no terminal to fit.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)


def run(names: list[str]) -> int:
    """Execute tutorials: record them on a GPU, or build their engines without one."""
    scripts = [read_script(path) for path in find_scripts(names)]
    machine = describe_machine()
    require_stack(machine)
    require_driver(machine)
    if machine.gpu:
        require_gpu(machine)
        console.print(f"Recording on {machine.gpu}.")
    else:
        console.print(
            "No GPU here: each tutorial runs on the CPU and builds real engines ahead "
            "of time. Recordings stay as they are."
        )
    failures, rows = {}, []
    for script in scripts:
        started = time.monotonic()
        try:
            here = _run_one(script, machine)
        except GalleryError as error:
            failures[script.name], here = error, "failed"
            console.print(f"[red]{error}", soft_wrap=True)
        line = row(script)
        line.here, line.seconds = here, time.monotonic() - started
        rows.append(line)
    console.print(table(rows))
    for error in failures.values():
        console.print(f"[red]Failed:[/] {error}", soft_wrap=True)
    return 1 if failures else 0


def _run_one(script, machine: Machine) -> str:
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as display:
        task = display.add_task(script.name)
        started = time.monotonic()

        def progress(cell: int, cells: int) -> None:
            where = f"{script.name}: cell {cell} of {cells}"
            display.update(task, description=where)
            if not console.is_terminal:
                console.print(f"{where}, after {time.monotonic() - started:.0f} s")

        if machine.gpu:
            record(script, progress=progress)
            return "recorded"
        execute_without_gpu(script, progress=progress)
        return "ran on the CPU"


def verify(names: list[str]) -> int:
    """Run the recorded notebooks again with nbval, on a GPU, and compare."""
    scripts = [read_script(path) for path in find_scripts(names)]
    require_gpu(describe_machine())
    recordings = [load_recording(script.name) for script in scripts]
    for script, recording in zip(scripts, recordings):
        if recording is None:
            console.print(f"{script.name}: not recorded, nothing to verify.")
    paths = [recording.path for recording in recordings if recording]
    if not paths:
        raise GalleryError(
            "There is no recording to verify. Record one: nox -s gallery"
        )
    return compare(paths)


def status(names: list[str]) -> int:
    """Show what the repository holds for each tutorial."""
    console.print(table([row(read_script(path)) for path in find_scripts(names)]))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gallery", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for function in (run, verify, status, check):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.add_argument("names", nargs="*", help="tutorials; all if none is named")
        command.set_defaults(function=function)
    words = parser.parse_args()
    try:
        return words.function(words.names)
    except GalleryError as error:
        console.print(f"[red]{error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. Recordings made so far are whole.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
