"""Several tutorials at a time, and that nothing of a run stays, however it ends."""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gallery import __main__ as command_line
from gallery.batch import (
    Batch,
    Job,
    Outcome,
    Slot,
    longest_first,
    slots_for,
    together,
)
from gallery.display import console, say
from gallery.errors import GalleryError
from gallery.janitor import processes_of
from gallery.machine import Gpu, Machine
from gallery.recording import load_recording, recording_path, save_recording
from gallery.script import read_script
from gallery.status import Row, table
from gallery.steady import benchmark_rows, differences, measure_beside
from tests.conftest import ROOT, TEST_GPU, recordings, run_gallery

FOLDER = "test-gpu-rtx"
PRINT = 'print("the sum is", 1 + 1)'
LONG = "import time; time.sleep(600)"


@pytest.fixture
def temporary(tmp_path_factory) -> Path:
    """Where processes that are started put their temporary files."""
    return tmp_path_factory.mktemp("tmp")


def _tutorial(project: Path, name: str, code: str = PRINT) -> Path:
    tiny = project / "examples/dynamo/tiny.py"
    path = tiny.with_name(f"{name}.py")
    path.write_text(tiny.read_text().replace(PRINT, code))
    return path


def _text(project: Path, name: str, folder: str = FOLDER) -> str:
    """What the first cell of a tutorial printed when it was recorded."""
    script = read_script(project / f"examples/dynamo/{name}.py")
    recording = load_recording(name, project / "recordings" / folder)
    assert recording.state(script) == "current"
    return recording.outputs(script)[0][0].text


def _start(command: list[str], project: Path, env: dict) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=project,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background, a shell lets SIGINT be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _start_gallery(project: Path, env: dict, *words: str) -> subprocess.Popen:
    return _start([sys.executable, "-m", "gallery", *words], project, env)


def _read_until(process: subprocess.Popen, *words: str) -> str:
    """What the process printed until all the words were seen."""
    text = ""
    while not all(word in text for word in words):
        line = process.stdout.readline()
        assert line, f"It ended before it printed {words}: {text}"
        text += line
    return text


def _what_is_left(temporary: Path) -> list:
    """Folders of runs, and processes whose temporary files lie in them."""
    folders = [path for path in temporary.iterdir() if path.is_dir()]
    processes = [pid for path in folders for pid in processes_of(path)]
    return [*folders, *processes]


def _wait_until_nothing_is_left(temporary: Path) -> None:
    end = time.monotonic() + 20
    while _what_is_left(temporary) and time.monotonic() < end:
        time.sleep(0.05)
    assert _what_is_left(temporary) == []


# Slots.


def _machine(count: int) -> Machine:
    gpus = tuple(Gpu("H", str(n), f"uuid-{n}", 79.0) for n in range(count))
    return Machine("2.14.0", "2.14.0", "torch-tensorrt-rtx", gpus, "")


def test_gpus_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(32)))
    machine = _machine(2)
    both = slots_for(machine, list(machine.gpus))
    assert both == [
        Slot("GPU 0", "0", tuple(range(16))),
        Slot("GPU 1", "1", tuple(range(16, 32))),
    ]
    # As many cores alone as beside another.
    assert slots_for(machine, [machine.gpus[1]]) == [both[1]]
    several = slots_for(machine, list(machine.gpus), each=2)
    assert [slot.device for slot in several] == ["0", "0", "1", "1"]
    assert [len(slot.cores) for slot in several] == [8] * 4


def test_more_slots_than_cores_share_them(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 7})
    machine = _machine(8)
    assert {len(slot.cores) for slot in slots_for(machine, list(machine.gpus))} == {1}


def test_gpus_are_taken_together():
    """Each has its cores from all of its slots, and none is in two."""
    pairs = [("0", (0, 4)), ("0", (1,)), ("1", (3, 2)), ("2", (5,)), ("3", (6,))]
    slots = [Slot(f"GPU {device}", device, cores) for device, cores in pairs]
    assert together(slots, 2) == [
        Slot("GPU 0 and 1", "0,1", (0, 1, 2, 3, 4)),
        Slot("GPU 2 and 3", "2,3", (5, 6)),
    ]
    # What is left over, and what is too few.
    assert [slot.device for slot in together(slots, 3)] == ["0,1,2"]
    assert [slot.device for slot in together(slots[:4], 2)] == ["0,1"]
    assert together(slots[3:4], 2) == slots[3:4]


# Recording on two GPUs.


def _meet(own: str, other: str, place: Path) -> str:
    """A cell that ends only when another tutorial runs at the same time."""
    return (
        "import os, time, tempfile; from pathlib import Path\n"
        f"place = Path({str(place)!r}); (place / {own!r}).touch()\n"
        "end = time.monotonic() + 60\n"
        f"while not (place / {other!r}).exists() and time.monotonic() < end:\n"
        "    time.sleep(0.05)\n"
        f"print('met', (place / {other!r}).exists(), end=' ')\n"
        "print('GPU', os.environ['CUDA_VISIBLE_DEVICES'],"
        " 'cores', sorted(os.sched_getaffinity(0)), tempfile.gettempdir())"
    )


def test_two_gpus_record_two_tutorials_side_by_side(project, gpus, temporary):
    gpus.set_gpus(TEST_GPU, TEST_GPU)
    env = gpus.environment(TMPDIR=str(temporary))
    _tutorial(project, "left", _meet("left", "right", temporary))
    _tutorial(project, "right", _meet("right", "left", temporary))
    done = run_gallery(project, "run", "--unchecked", "left", "right", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    left, right = _text(project, "left").split(), _text(project, "right").split()
    assert left[3] == right[3] == "True"
    assert {left[5], right[5]} == {"0", "1"}
    assert left[-1] != right[-1]  # temporary files
    if len(os.sched_getaffinity(0)) > 1:
        assert left[7:-1] != right[7:-1]
    assert _what_is_left(temporary) == []


def _for_two_gpus(path: Path) -> Path:
    line = "# Output varies: "
    text = path.read_text().replace(line, f"# Needs two GPUs: a test.\n{line}", 1)
    path.write_text(text)
    assert read_script(path).gpus == 2
    return path


@pytest.mark.parametrize("count", [1, 3])
def test_a_tutorial_that_needs_two_gpus_has_them(project, gpus, temporary, count):
    """Alone, after those that take one; with one GPU it runs on that."""
    gpus.set_gpus(*[TEST_GPU] * count)
    env = gpus.environment(TMPDIR=str(temporary))
    own = (
        f"import os, time; from pathlib import Path; place = Path({str(temporary)!r})\n"
    )
    told = "print('GPU', os.environ['CUDA_VISIBLE_DEVICES'])"
    one = "time.sleep(1); (place / 'done').touch()\n"
    two = "print('after', (place / 'done').exists())\n"
    _tutorial(project, "one", own + one + told)
    _for_two_gpus(_tutorial(project, "two", own + two + told))
    done = run_gallery(project, "run", "--unchecked", "two", "one", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _text(project, "one").split()[-1] == "0"
    named = "0" if count == 1 else "0,1"
    assert _text(project, "two").split()[-4:] == ["after", "True", "GPU", named]


def test_verifying_takes_as_many_gpus(project, gpus, monkeypatch):
    path = _for_two_gpus(_tutorial(project, "two"))
    seen = []
    for name, stand_in in {
        "require_writable": lambda: None,
        "_read": lambda names: ([read_script(path)], {}),
        "describe_machine": lambda: _machine(2),
        "recording_state": lambda script, folder: "current",
        "gpus_for_us": lambda machine: contextlib.nullcontext(list(machine.gpus)),
        "run_on_gpus": lambda jobs, slots, watch: seen.extend([*jobs, len(slots)]),
        "_close": lambda *words: 0,
    }.items():
        monkeypatch.setattr(command_line, name, stand_in)
    words = argparse.Namespace(names=["two"], minutes=1, per_gpu=2)
    assert command_line.verify(words) == 0
    [job, slots] = seen
    assert (job.action, job.name, job.gpus, slots) == ("verify", "two", 2, 4)


def test_the_batch_goes_on_where_it_stopped(recorded, gpus):
    """One is recorded already, one fails, and one is no tutorial."""
    gpus.set_gpus(TEST_GPU, TEST_GPU)
    folder = recorded / "recordings" / FOLDER
    shutil.move(recordings(recorded), folder)
    before = recording_path("tiny", folder).read_bytes()
    _tutorial(recorded, "bad", "raise RuntimeError('cannot open [/opt/models/a.plan]')")
    (recorded / "examples/dynamo/untitled.py").write_text("print(1)\n")
    done = run_gallery(recorded, "run", "--unchecked", env=gpus.environment())
    assert done.returncode == 1
    assert "1 of 2 are current; --all records them too." in done.stdout
    failure = (
        "bad.py, line 13 (cell 1 of 3): RuntimeError: cannot open [/opt/models/a.p"
    )
    assert failure in done.stdout
    assert "untitled.py has no title" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if "│" in line}
    assert "current" in rows["tiny"] and "recorded" not in rows["tiny"]
    assert "missing" in rows["bad"] and "failed" in rows["bad"]
    assert "failed" in rows["untitled"]
    assert recording_path("tiny", folder).read_bytes() == before


def test_all_records_what_is_current_too(recorded, gpus):
    folder = recorded / "recordings" / FOLDER
    shutil.move(recordings(recorded), folder)
    before = recording_path("tiny", folder).read_bytes()
    done = run_gallery(recorded, "run", "--unchecked", "--all", env=gpus.environment())
    assert done.returncode == 0
    [line] = [line for line in done.stdout.splitlines() if "│" in line]
    assert "current" in line and "recorded" in line
    assert recording_path("tiny", folder).read_bytes() != before


def test_the_longest_is_recorded_first(recorded, tiny):
    folder = recordings(recorded)
    for name, seconds in (("short", 1.0), ("long", 99.0), ("middle", 9.0)):
        script = read_script(_tutorial(recorded, name))
        recording = load_recording("tiny", folder)
        facts = {**recording.provenance, "cell_seconds": [seconds, 0.0, 0.0]}
        save_recording(script, recording.notebook, facts, folder)
    (folder / "broken.ipynb").write_text("{")
    names = ["short", "long", "missing", "middle", "broken"]
    jobs = longest_first([Job("record", name, 60, folder) for name in names])
    assert [job.name for job in jobs] == [
        *("missing", "broken"),
        *("long", "middle", "short"),
    ]


def test_a_second_run_keeps_off_a_gpu(project, gpus, temporary):
    gpus.set_gpus(TEST_GPU, TEST_GPU)
    env = gpus.environment(TMPDIR=str(temporary))
    code = "import os; print('GPU', os.environ['CUDA_VISIBLE_DEVICES'])"
    _tutorial(project, "where", code)
    with (temporary / "gallery-uuid-0.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        done = run_gallery(project, "run", "--unchecked", "where", env=env)
        assert _text(project, "where") == "Weights: random\nGPU 1\n"
        with (temporary / "gallery-uuid-1.lock").open("w") as second:
            fcntl.flock(second, fcntl.LOCK_EX)
            done = run_gallery(project, "run", "--unchecked", "where", env=env)
            assert done.returncode == 1
            assert "Another run of the gallery uses every GPU." in done.stdout


def test_without_a_gpu_where_there_is_one(recorded, gpus):
    path = recording_path("tiny", recordings(recorded))
    before = path.read_bytes()
    done = run_gallery(
        recorded, "run", "--unchecked", "tiny", "--no-gpu", env=gpus.environment()
    )
    assert "No GPU is used" in done.stdout
    assert "Recording into" not in done.stdout
    assert path.read_bytes() == before
    assert not (recorded / "recordings" / FOLDER).exists()


def test_a_tutorial_beside_another_is_compared_with_itself_alone(project, gpus):
    gpus.set_gpus(TEST_GPU, TEST_GPU)
    row = "['net', 'TensorRT, CUDA graph', 'float16', '1x3', 1.5]"
    columns = "['model', 'backend', 'precision', 'shape', 'latency_ms']"
    tiny = project / "examples/dynamo/tiny.py"
    text = tiny.read_text().replace('"clock": [time.time()]', "")
    text = text.replace("pd.DataFrame({})", f"pd.DataFrame([{row}], columns={columns})")
    tiny.write_text(text)
    _tutorial(project, "other")
    words = ("steady", "tiny", "--beside", "other")
    done = run_gallery(project, *words, env=gpus.environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The largest difference is 0.0%; 5% are allowed." in done.stdout
    assert not (project / "recordings" / FOLDER).exists()
    gpus.set_gpus(TEST_GPU)
    done = run_gallery(project, *words, env=gpus.environment())
    assert done.returncode == 1 and "Two free GPUs are needed" in done.stdout


def test_what_does_not_run_is_no_company(monkeypatch):
    class Fails(Batch):
        def run_one(self, job, slot):
            return Outcome({"rows": []}, "it fails" if job.name == "other" else "", 1.0)

    monkeypatch.setattr("gallery.steady.Batch", Fails)
    slots = [Slot("GPU 0", "0", (0,)), Slot("GPU 1", "1", (1,))]
    jobs = [Job("measure", name, 60) for name in ("tiny", "other")]
    with pytest.raises(GalleryError, match="it fails"):
        measure_beside(*jobs, slots, lambda job, slot, event: None)


def test_only_rows_with_a_cuda_graph_are_compared():
    def rows(*latencies):
        backends = ("eager", "eager, CUDA graph", "TensorRT, CUDA graph")
        key = dict(model="net", precision="float16", shape="1x3")
        return [
            dict(key, backend=backend, latency_ms=ms)
            for backend, ms in zip(backends, latencies)
        ]

    found = differences(rows(1.0, 1.0, 2.0), rows(9.0, 1.01, 1.8))
    assert [row["backend"] for row in found] == [
        "TensorRT, CUDA graph",
        "eager, CUDA graph",
    ]
    assert found[0]["change"] == pytest.approx(-0.1)


def test_rows_come_from_the_last_benchmark_table(recorded):
    notebook = load_recording("tiny", recordings(recorded)).notebook
    assert benchmark_rows(notebook) == []


# Text that is not ours is never markup.


@pytest.mark.parametrize("text", ["open [/opt/models/a.plan]", "[batch, 3] [red]x[/]"])
def test_brackets_are_shown_as_they_are(text):
    with console.capture() as shown:
        say(text, "red")
        console.print(table([Row(text, here=text)]))
    assert shown.get().count(text) == 3


# Runs that are ended.

KILL = """
import os, signal, sys
from pathlib import Path
from gallery import record, recording
from gallery.script import read_script
script, folder, step = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def progress(cell, cells):
    if step == "cell" and cell == 2:
        kill()

if step == "open":
    recording.write_atomically = kill
elif step == "write":
    real = recording.os.fsync
    recording.os.fsync = kill
elif step == "replace":
    Path.replace = kill
elif step == "after":
    record.Workspace.close = kill
record.record(read_script(script), folder=folder, progress=progress)
"""


@pytest.mark.parametrize("step", ["cell", "open", "write", "replace", "after"])
def test_a_killed_recorder_leaves_a_whole_recording_and_nothing_else(
    recorded, gpus, temporary, step
):
    folder = recordings(recorded)
    path = recording_path("tiny", folder)
    before = path.read_bytes()
    script = _tutorial(recorded, "tiny", "print('a new one')")
    words = [sys.executable, "-c", KILL, str(script), str(folder), step]
    process = _start(words, recorded, gpus.environment(TMPDIR=str(temporary)))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, output
    _wait_until_nothing_is_left(temporary)
    assert [file.name for file in folder.iterdir()] == ["tiny.ipynb"]
    if step == "after":
        assert _text(recorded, "tiny", folder.name).endswith("a new one\n")
    else:
        assert path.read_bytes() == before


def _run_two(project, gpus, temporary) -> subprocess.Popen:
    """Start a batch of two tutorials that do not end; return when both have a child."""
    gpus.set_gpus(TEST_GPU, TEST_GPU)
    begun = [temporary / name for name in ("left", "right")]
    for path in begun:
        child = (
            "import subprocess; subprocess.Popen(['sleep', '600'])\n"
            f"from pathlib import Path; Path({str(path)!r}).touch()\n"
        )
        _tutorial(project, path.name, child + LONG)
    env = gpus.environment(TMPDIR=str(temporary))
    process = _start_gallery(project, env, "run", "--unchecked", "left", "right")
    _read_until(process, "left, GPU", "right, GPU")
    end = time.monotonic() + 60
    while not all(path.exists() for path in begun):
        assert time.monotonic() < end, "they did not begin"
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_of_it(project, gpus, temporary, sign):
    process = _run_two(project, gpus, temporary)
    # For each tutorial at least a folder, a kernel and its child.
    assert len(_what_is_left(temporary)) >= 6
    process.send_signal(sign)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "Interrupted." in output and "Traceback" not in output
    assert _what_is_left(temporary) == []


def test_a_killed_batch_leaves_nothing(project, gpus, temporary):
    process = _run_two(project, gpus, temporary)
    process.kill()
    process.wait(timeout=30)
    _wait_until_nothing_is_left(temporary)


def test_a_killed_worker_is_named_and_the_others_go_on(project, gpus, temporary):
    killer = "import os; os.kill(os.getppid(), 9)\n" + LONG
    _tutorial(project, "killer", killer)
    _tutorial(project, "other")
    env = gpus.environment(TMPDIR=str(temporary))
    done = run_gallery(project, "run", "--unchecked", "killer", "other", env=env)
    assert done.returncode == 1
    assert "Failed: killer: its process was ended by SIGKILL." in done.stdout
    assert _text(project, "other")
    _wait_until_nothing_is_left(temporary)


def test_a_process_that_a_tutorial_leaves_is_ended(project, gpus, temporary):
    code = (
        "import subprocess\n"
        "for env in (None, {'PATH': '/usr/bin:/bin'}):\n"
        "    p = subprocess.Popen(['sleep', '600'], env=env, start_new_session=True)\n"
        "    print(p.pid)"
    )
    _tutorial(project, "leaves", code)
    env = gpus.environment(TMPDIR=str(temporary))
    done = run_gallery(project, "run", "--unchecked", "leaves", env=env)
    assert done.returncode == 0
    for pid in _text(project, "leaves").split()[-2:]:
        with contextlib.suppress(FileNotFoundError):
            assert b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert _what_is_left(temporary) == []


def test_nox_does_not_build_the_site_after_ctrl_c():
    code = (
        "import sys, types\n"
        "sys.modules['nox'] = nox = types.ModuleType('nox')\n"
        "nox.command = sys.modules['nox.command'] = types.ModuleType('nox.command')\n"
        "class CommandFailed(Exception): return_code = int(sys.argv[1])\n"
        "nox.command.CommandFailed = CommandFailed\n"
        "nox.options, nox.Session = types.SimpleNamespace(), None\n"
        "nox.session = lambda f=None, **k: f or (lambda g: g)\n"
        "import noxfile\n"
        "noxfile.install_stack = lambda *a: 'python'\n"
        "noxfile.build_site = lambda *a: print('built')\n"
        "def run(*a, **k): raise CommandFailed\n"
        "try: noxfile.gallery(types.SimpleNamespace(run=run, posargs=[]))\n"
        "except CommandFailed: print('failed')\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code, status], cwd=ROOT, capture_output=True, text=1
        ).stdout.split()
        for status in ("1", "130")
    ]
    assert told == [["built", "failed"], ["failed"]]


def test_events_are_all_that_a_worker_prints(project, gpus):
    env = gpus.environment()
    words = ["record", "tiny", "--limit", "60", "--folder", str(project / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "gallery.worker", *words],
        cwd=project,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process.stdin, process.stdout:
        events = [json.loads(line) for line in process.stdout]
    process.wait(timeout=10)
    assert events[:2] == [{"cell": 1, "cells": 3}, {"cell": 2, "cells": 3}]
    assert events[-1] == {"done": {"here": "recorded"}}
