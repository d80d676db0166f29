"""nbval compares what must not vary, and only that."""

import json

from gallery.record import record
from gallery.recording import recording_path
from gallery.script import read_script
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


def test_a_notebook_runs_beside_what_was_brought_and_nothing_else(
    tiny, monkeypatch, tmp_path, capfd
):
    brought = tmp_path / "brought"
    (brought / "tiny").mkdir(parents=True)
    (brought / "tiny" / "net.engine").touch()
    monkeypatch.setattr("gallery.record.BROUGHT", brought)
    monkeypatch.setattr("gallery.verify.BROUGHT", brought)
    lists = "import os; print([f for f in os.listdir() if f != 'tiny.ipynb'])"
    tiny.write_text(tiny.read_text().replace('print("the sum is", 1 + 1)', lists))
    path = record(read_script(tiny), folder=tmp_path / "recordings")
    assert "['net.engine']" in path.read_text()
    assert compare([path]) == 0
    (brought / "tiny" / "net.engine").unlink()
    assert compare([path]) == 1
    assert "1 failed, 2 passed" in capfd.readouterr().out
