"""One tutorial in a process of its own: ``python -m gallery.worker ACTION NAME``.

Reports on its output, one line of JSON an event. It ends, and its kernel with it, when
its input is closed: that happens when the process that started it is gone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from gallery import workspace
from gallery.errors import GalleryError
from gallery.script import Script, find_scripts, read_script

Emit = Callable[..., None]


def record(script: Script, folder: Path, limit: float, emit: Emit) -> dict:
    from gallery.record import record

    record(script, folder=folder, timeout=limit, progress=_progress(emit))
    return {"here": "recorded"}


def measure(script: Script, folder: Path, limit: float, emit: Emit) -> dict:
    """Record without keeping it, and return the benchmark's rows."""
    from gallery.record import execute
    from gallery.steady import benchmark_rows

    with workspace.Workspace() as own:
        notebook, _ = execute(script, own, timeout=limit, progress=_progress(emit))
    return {"here": "measured", "rows": benchmark_rows(notebook)}


def cpu(script: Script, folder: Path, limit: float, emit: Emit) -> dict:
    from gallery.engines import execute_without_gpu

    _, run = execute_without_gpu(script, timeout=limit, progress=_progress(emit))
    if run.ended_early:
        return {"here": f"ended early: {run.ended_early}"}
    return {"here": "ran on the CPU"}


def verify(script: Script, folder: Path, limit: float, emit: Emit) -> dict:
    from gallery.verify import verify

    return verify(script, folder, timeout=limit)


def _progress(emit: Emit) -> Callable[[int, int], None]:
    return lambda cell, cells: emit(cell=cell, cells=cells)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGKILL)


def _terminate(*_: object) -> None:
    workspace.close_all()
    os._exit(128 + signal.SIGTERM)


def main() -> int:
    actions = {action.__name__: action for action in (record, measure, cpu, verify)}
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=actions)
    parser.add_argument("name")
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cores", type=int, nargs="+")
    words = parser.parse_args()
    # Only events go to our output: what libraries print there goes to the log.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def emit(**event: object) -> None:
        print(json.dumps(event), file=output, flush=True)

    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to end
    signal.signal(signal.SIGTERM, _terminate)
    if words.cores:
        os.sched_setaffinity(0, words.cores)
    try:
        [path] = find_scripts([words.name])
        action = actions[words.action]
        emit(done=action(read_script(path), words.folder, words.limit, emit))
    except GalleryError as error:
        emit(failed=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
