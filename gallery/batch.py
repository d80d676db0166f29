"""Runs many tutorials, each in a process of its own, several at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gallery.environment import base_environment
from gallery.errors import GalleryError
from gallery.machine import Gpu, Machine
from gallery.paths import RECORDINGS, ROOT
from gallery.recording import load_recording

# How long a process may take to end its kernel and remove its folders.
PATIENCE_S = 30


@dataclass(frozen=True)
class Slot:
    """Where one tutorial at a time runs: a GPU, or none, and a share of the cores."""

    label: str
    device: str
    cores: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """An action of `gallery.worker` on a tutorial.

    Attributes
    ----------
    limit
        Seconds after which it fails.
    folder
        Where recordings lie.
    gpus
        How many it takes, where there are as many.
    """

    action: str
    name: str
    limit: float
    folder: Path = RECORDINGS
    gpus: int = 1


@dataclass
class Outcome:
    """What came of a job: what its process told, or why it failed."""

    told: dict
    failure: str
    seconds: float


Watch = Callable[[Job, Slot, dict], None]


def slots_for(machine: Machine, gpus: list[Gpu], each: int = 1) -> list[Slot]:
    """``each`` slots for each of these GPUs.

    The cores are shared evenly among all GPUs of the machine, used or not: a tutorial
    that runs alone has as many as one beside others.
    """
    cores = sorted(os.sched_getaffinity(0))
    places = [gpu for gpu in machine.gpus for _ in range(each)]
    found = []
    for number, gpu in enumerate(places):
        begin = number * len(cores) // len(places)
        end = (number + 1) * len(cores) // len(places)
        share = tuple(cores[begin:end]) or (cores[number % len(cores)],)
        if gpu in gpus:
            found.append(Slot(f"GPU {gpu.device}", gpu.device, share))
    return found


def together(slots: list[Slot], gpus: int) -> list[Slot]:
    """Slots of so many GPUs each, of which no two share one.

    What is left over stays unused. Where there are fewer, one slot has all that there
    are.
    """
    cores: dict[str, set[int]] = {}
    for slot in slots:
        cores.setdefault(slot.device, set()).update(slot.cores)
    devices = list(cores)
    ends = range(gpus, len(devices) + 1, gpus)
    groups = [devices[end - gpus : end] for end in ends] or [devices]
    return [
        Slot(
            "GPU " + " and ".join(group),
            ",".join(group),
            tuple(sorted(set().union(*(cores[device] for device in group)))),
        )
        for group in groups
    ]


def cpu_slot() -> Slot:
    """All cores, and no GPU, whether there is one or not."""
    return Slot("CPU", "", tuple(sorted(os.sched_getaffinity(0))))


def longest_first(jobs: list[Job]) -> list[Job]:
    """By the seconds of the last recording; what has none may be long."""

    def seconds(job: Job) -> float:
        try:
            recording = load_recording(job.name, job.folder)
        except GalleryError:
            return float("inf")
        return recording.seconds if recording else float("inf")

    return sorted(jobs, key=seconds, reverse=True)


def run_on_gpus(jobs: list[Job], slots: list[Slot], watch: Watch) -> dict[str, Outcome]:
    """Run jobs in slots of one GPU; after them, those that take several at a time."""
    outcomes = {}
    for gpus in sorted({job.gpus for job in jobs}):
        due = [job for job in jobs if job.gpus == gpus]
        places = slots if gpus == 1 else together(slots, gpus)
        outcomes |= Batch(places, watch).run(due)
    return outcomes


class Batch:
    """Runs jobs in slots, in the order of the jobs.

    Parameters
    ----------
    watch
        Called with each event of a job, one at a time.
    """

    def __init__(
        self, slots: list[Slot], watch: Watch = lambda job, slot, event: None
    ) -> None:
        self.slots = slots
        self.watch = watch
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen] = set()
        self.stopped = False

    def run(self, jobs: list[Job]) -> dict[str, Outcome]:
        """Run all jobs; return what came of each, by the tutorial's name.

        On Ctrl-C, SIGTERM or SIGHUP all processes end, and KeyboardInterrupt is raised
        once nothing of them is left.
        """
        waiting, outcomes = deque(jobs), {}

        def work(slot: Slot) -> None:
            while not self.stopped:
                with self._lock:
                    if not waiting:
                        return
                    job = waiting.popleft()
                outcomes[job.name] = self.run_one(job, slot)

        threads = [
            threading.Thread(target=work, args=[slot], daemon=True)
            for slot in self.slots
        ]
        with _signals_as_interrupts():
            try:
                for thread in threads:
                    thread.start()
                while any(thread.is_alive() for thread in threads):
                    time.sleep(0.05)
            except KeyboardInterrupt:
                with _no_interrupts():
                    self.stop()
                    for thread in threads:
                        if thread.ident:
                            thread.join()
                raise
        return outcomes

    def stop(self) -> None:
        """End all processes, and return when they are gone."""
        with self._lock:
            self.stopped = True
            running = list(self._processes)
        for process in running:
            process.terminate()
        end = time.monotonic() + PATIENCE_S
        for process in running:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def run_one(self, job: Job, slot: Slot) -> Outcome:
        """Run one job to its end."""
        started = time.monotonic()
        command = [sys.executable, "-m", "gallery.worker", job.action, job.name]
        command += ["--limit", str(job.limit), "--folder", str(job.folder)]
        command += ["--cores", *map(str, slot.cores)]
        packages = base_environment().get("PYTHONPATH", "")
        environment = {"PYTHONPATH": packages, "CUDA_VISIBLE_DEVICES": slot.device}
        told, failure = {}, ""
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            with self._lock:
                if self.stopped:
                    return Outcome({}, "not started", 0.0)
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=os.environ | environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    # Ctrl-C reaches us alone; we end the others in order.
                    start_new_session=True,
                )
                self._processes.add(process)
            with process.stdin, process.stdout:
                for line in process.stdout:
                    event = json.loads(line)
                    told = event.get("done", told)
                    failure = event.get("failed", failure)
                    with self._lock:
                        self.watch(job, slot, event)
                status = process.wait()
            with self._lock:
                self._processes.discard(process)
            log.seek(0)
            if not told and not failure:
                failure = f"{job.name}: {_end(status)} {_last_line(log.read())}"
        return Outcome(told, failure.strip(), time.monotonic() - started)


def _end(status: int) -> str:
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}."
    return f"its process ended with status {status}."


def _last_line(text: str) -> str:
    return "".join(text.strip().splitlines()[-1:])


@contextlib.contextmanager
def _signals_as_interrupts():
    """What ends a process ends ours as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signs = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = {sign: signal.signal(sign, interrupt) for sign in signs}
    try:
        yield
    finally:
        for sign, handler in old.items():
            signal.signal(sign, handler)


@contextlib.contextmanager
def _no_interrupts():
    signs = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = {sign: signal.signal(sign, signal.SIG_IGN) for sign in signs}
    try:
        yield
    finally:
        for sign, handler in old.items():
            signal.signal(sign, handler)
