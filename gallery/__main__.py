"""Command line: ``python -m gallery COMMAND [tutorial ...]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gallery import author_commands
from gallery import compare as comparison
from gallery import record as recorder
from gallery import steady as steadiness
from gallery import verify as verifier
from gallery.accept import refusals
from gallery.batch import (
    Batch,
    Job,
    Outcome,
    cpu_slot,
    longest_first,
    run_on_gpus,
    slots_for,
)
from gallery.check import check, hold_to_contract
from gallery.display import Display, console, say
from gallery.engines import TIME_LIMIT_S as CPU_TIME_LIMIT_S
from gallery.errors import GalleryError
from gallery.machine import (
    describe_machine,
    gpus_for_us,
    require_driver,
    require_gpu,
    require_stack,
)
from gallery.paths import ALL_RECORDINGS, RECORDINGS, require_writable
from gallery.script import Script, read_script, sort_out
from gallery.status import Row, recording_state, row, table

INTERRUPTED = 130


def run(words: argparse.Namespace) -> int:
    """Execute tutorials: record them on GPUs, or build their engines without one."""
    require_writable()
    scripts, failures = _read(words.names)
    wanted = scripts
    if not words.unchecked:
        wanted, refused = hold_to_contract(scripts)
        failures |= refused
    if words.no_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as on a machine without one
    machine = describe_machine()
    require_stack(machine)
    require_driver(machine)
    if not machine.gpus:
        say(
            "No GPU is used: each tutorial runs on the CPU and builds real engines "
            "ahead of time. Recordings stay as they are; who has no GPU records with "
            "the workflow .github/workflows/record.yml."
        )
        limit = _limit(words, CPU_TIME_LIMIT_S)
        jobs = [Job("cpu", script.name, limit) for script in wanted]
        with Display() as display:
            outcomes = Batch([cpu_slot()], display.watch).run(jobs)
        return _close(words.names, scripts, RECORDINGS, outcomes, failures)
    folder = ALL_RECORDINGS / machine.name
    with gpus_for_us(machine) as gpus:
        names = ", ".join(f"{gpu.name} ({gpu.device})" for gpu in gpus)
        say(f"Recording into {folder.name} on {names}.")
        if folder != RECORDINGS:
            say(f"Pages show {RECORDINGS.name}, as conf.py says.")
        due = [
            script
            for script in wanted
            if words.all or recording_state(script, folder) != "current"
        ]
        if len(due) < len(wanted):
            count = len(wanted) - len(due)
            say(f"{count} of {len(wanted)} are current; --all records them too.")
        limit = _limit(words, recorder.TIME_LIMIT_S)
        jobs = [Job("record", s.name, limit, folder, s.gpus) for s in due]
        slots = slots_for(machine, gpus)
        with Display() as display:
            outcomes = run_on_gpus(longest_first(jobs), slots, display.watch)
    if folder != RECORDINGS:
        say(f"Beside ours: python -m gallery compare {folder.name}")
    return _close(words.names, scripts, folder, outcomes, failures)


def verify(words: argparse.Namespace) -> int:
    """Run the recorded notebooks again with nbval, on GPUs, and compare."""
    require_writable()
    scripts, failures = _read(words.names)
    machine = describe_machine()
    require_gpu(machine)
    folder = _recordings_for(machine.name)
    scripts = [s for s in scripts if recording_state(s, folder) != "missing"]
    if not scripts and not failures:
        raise GalleryError(
            "There is no recording to verify. Record one: nox -s gallery"
        )
    limit = _limit(words, verifier.TIME_LIMIT_S)
    jobs = [Job("verify", s.name, limit, folder, s.gpus) for s in scripts]
    with gpus_for_us(machine) as gpus, Display() as display:
        slots = slots_for(machine, gpus, each=words.per_gpu)
        outcomes = run_on_gpus(longest_first(jobs), slots, display.watch)
    return _close(words.names, scripts, folder, outcomes, failures)


def steady(words: argparse.Namespace) -> int:
    """Record a tutorial alone and beside another, keep neither, compare the figures."""
    [script], [other] = (_read([name])[0] for name in (words.name, words.beside))
    machine = describe_machine()
    limit = _limit(words, recorder.TIME_LIMIT_S)
    with gpus_for_us(machine) as gpus, Display() as display:
        slots = slots_for(machine, gpus)
        if len(slots) < 2:
            raise GalleryError("Two free GPUs are needed to run two side by side.")
        jobs = [Job("measure", s.name, limit) for s in (script, other)]
        outcomes = steadiness.measure_beside(*jobs, slots, display.watch)
    alone, beside = (outcome.told["rows"] for outcome in outcomes)
    rows = steadiness.differences(alone, beside)
    console.print(steadiness.table(rows))
    most = steadiness.largest(rows)
    say(
        f"The largest difference is {100 * most:.1f}%; "
        f"{100 * steadiness.ALLOWED:.0f}% are allowed."
    )
    return 1 if most > steadiness.ALLOWED else 0


def compare(words: argparse.Namespace) -> int:
    """Show what TensorRT gains on another machine beside what pages show."""
    pair = comparison.chosen(words.machine)
    both, names = comparison.beside(*pair), comparison.labels([*pair]).values()
    console.print(comparison.table(both, *names))
    for sentence in comparison.sentences(both, *names):
        say(sentence)
    return 0


def accept(words: argparse.Namespace) -> int:
    """Say of each recording of a machine whether it can become part of the gallery."""
    found = refusals(words.machine)
    for name, reasons in found.items():
        if not reasons:
            say(f"{name}: accepted")
        for reason in reasons:
            say(f"{name}: refused. {reason}", "red")
    return 1 if any(found.values()) else 0


def status(words: argparse.Namespace) -> int:
    """Show what the repository holds for each tutorial."""
    scripts, failures = _read(words.names)
    return _close(words.names, scripts, RECORDINGS, {}, failures)


def _read(names: list[str]) -> tuple[list[Script], dict[str, str]]:
    """The scripts, and for each that cannot be read the reason."""
    scripts = []
    paths, failures = sort_out(names)
    for path in paths:
        try:
            scripts.append(read_script(path))
        except GalleryError as error:
            failures[path.stem] = str(error)
    return scripts, failures


def _limit(words: argparse.Namespace, default: float) -> float:
    return 60 * words.minutes if words.minutes else default


def _recordings_for(machine: str) -> Path:
    """Recordings of this kind of machine, or those that pages show."""
    own = ALL_RECORDINGS / machine
    return own if own.exists() else RECORDINGS


def _close(
    names: list[str],
    scripts: list[Script],
    folder: Path,
    outcomes: dict[str, Outcome],
    failures: dict[str, str],
) -> int:
    """Print the closing table and every failure; return the exit code."""
    by_name = {script.name: script for script in scripts}
    failures = dict(failures)
    rows = []
    for name in sorted({*by_name, *failures}):
        line = row(by_name[name], folder) if name in by_name else Row(name)
        outcome = outcomes.get(name)
        if outcome:
            line.seconds = outcome.seconds
            line.here = outcome.told.get("here", "failed")
            if outcome.failure:
                failures[name] = outcome.failure
        elif name in failures:
            line.here = "failed"
        rows.append(line)
    console.print(table(rows))
    for reason in failures.values():
        say(f"Failed: {reason}", "red")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gallery", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(function, names: bool = True, limit: bool = True):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if names:
            command.add_argument(
                "names", nargs="*", help="tutorials; all if none is named"
            )
        if limit:
            command.add_argument(
                "--minutes", type=float, help="time limit of a tutorial"
            )
        return command

    command = add(run)
    command.add_argument(
        "--all", action="store_true", help="record also what is current"
    )
    command.add_argument(
        "--no-gpu", action="store_true", help="do as on a machine without a GPU"
    )
    command.add_argument(
        "--unchecked", action="store_true", help="run also what breaks the contract"
    )
    command = add(verify)
    command.add_argument(
        "--per-gpu", type=int, default=2, help="notebooks at a time on each GPU"
    )
    command = add(steady, names=False)
    command.add_argument("name", help="the tutorial that is measured")
    command.add_argument("--beside", required=True, help="what runs on another GPU")
    command = add(compare, names=False, limit=False)
    command.add_argument(
        "machine", nargs="?", help="folder in recordings/; not needed if there is one"
    )
    command = add(accept, names=False, limit=False)
    command.add_argument("machine", help="folder in recordings/")
    add(status, limit=False)
    command = add(check, limit=False)
    command.set_defaults(function=lambda words: check(words.names))
    author_commands.add_to(commands)
    return parser


def main() -> int:
    words = _parser().parse_args()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no UTF-8 shows \\u00b5 for what it cannot.
        stream.reconfigure(errors="backslashreplace")
    try:
        return words.function(words)
    except GalleryError as error:
        say(str(error), "red")
        return 1
    except KeyboardInterrupt:
        say("Interrupted. Recordings made so far are whole; the next run goes on.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
