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
    """Processes of the run in this folder: the kernel's, and those that it started.

    They have its temporary folder in their environment, or work inside the folder.
    """
    mark = b"TMPDIR=" + os.fsencode(folder / "tmp")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                place = (entry / "cwd").readlink()
            except OSError:  # it has ended, or belongs to someone else
                continue
            if mark in variables or place.is_relative_to(folder):
                found.append(int(entry.name))
    return found


def clean(folder: Path, leftovers: list[Path]) -> None:
    """Kill the run's processes, then remove its folder and the leftovers."""
    end = time.monotonic() + PATIENCE_S
    while (pids := processes_of(folder)) and time.monotonic() < end:
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
    folder = Path(sys.argv[1])
    leftovers = [Path(line.rstrip("\n")) for line in sys.stdin]
    clean(folder, leftovers)


if __name__ == "__main__":
    main()
