"""nbval compares what must not vary, and only that."""

import json
import subprocess
import sys


def _nbval(project):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env"]
        + ["-p", "no:cacheprovider", "recordings/tiny.ipynb"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_recording_passes_although_its_clock_differs(recorded):
    done = _nbval(recorded)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_an_altered_output_fails(recorded):
    path = recorded / "recordings/tiny.ipynb"
    notebook = json.loads(path.read_text())
    path.write_text(json.dumps(notebook).replace("the sum is 2", "the sum is 3"))
    done = _nbval(recorded)
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout
