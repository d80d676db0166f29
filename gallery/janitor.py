"""Ends what a run left behind, however the run itself ended.

Runs as a process of its own, started by `gallery.workspace`. It waits until the run's
process closes the pipe, which also happens when that process is killed. Then it kills
every process of the run and removes the run's folder. It imports nothing but the
standard library, because it starts with every run.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE_S = 20


def processes_of(folder: Path) -> list[int]:
    """Processes whose temporary files lie in the folder: the kernel's, and its own."""
    mark = b"TMPDIR=" + os.fsencode(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or belongs to someone else
                continue
            if mark in variables:
                found.append(int(entry.name))
    return found


def clean(folder: Path, marked: Path, leftovers: list[Path]) -> None:
    """Kill the processes that belong to `marked`, then remove folder and leftovers."""
    end = time.monotonic() + PATIENCE_S
    while (pids := processes_of(marked)) and time.monotonic() < end:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for _ in range(3):  # a process that is being killed may still write
        shutil.rmtree(folder, ignore_errors=True)
    for path in leftovers:
        path.unlink(missing_ok=True)


def main() -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    folder, marked = map(Path, sys.argv[1:])
    leftovers = [Path(line.rstrip("\n")) for line in sys.stdin]
    clean(folder, marked, leftovers)


if __name__ == "__main__":
    main()
