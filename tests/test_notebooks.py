"""nbval compares what must not vary, and only that."""

import json

from gallery.recording import recording_path
from gallery.verify import compare


def test_a_recording_passes_although_its_clock_differs(recorded, capfd):
    assert compare([recording_path("tiny", recorded / "recordings")]) == 0
    assert "3 passed" in capfd.readouterr().out


def test_an_altered_output_fails(recorded, capfd):
    path = recording_path("tiny", recorded / "recordings")
    notebook = json.loads(path.read_text())
    path.write_text(json.dumps(notebook).replace("the sum is 2", "the sum is 3"))
    assert compare([path]) == 1
    assert "1 failed, 2 passed" in capfd.readouterr().out
