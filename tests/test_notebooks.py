"""nbval compares what must not vary, and only that, side by side on all GPUs."""

import json
import re
import shutil

import nbformat
import pytest

from gallery.errors import GalleryError
from gallery.record import record
from gallery.recording import recording_path, seal
from gallery.script import read_script
from gallery.verify import verify
from tests.conftest import recordings, run_gallery
from tests.test_record import _hostile

PRINT = 'print("the sum is", 1 + 1)'


def _alter(path, old, new):
    """Change an output as if it had been recorded so."""
    notebook = nbformat.from_dict(json.loads(path.read_text().replace(old, new)))
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    notebook.metadata["gallery"]["seal"] = seal(notebook)
    nbformat.write(notebook, path)


def test_a_recording_passes_in_any_environment(
    recorded, tiny, gpus, monkeypatch, tmp_path
):
    # Its clock and its figure differ, and are marked; the environment does not.
    _hostile(monkeypatch, tmp_path / "hostile")
    told = verify(read_script(tiny), recordings(recorded), timeout=60)
    assert told == {"here": "passed", "cells": 3}


def test_an_altered_output_fails_with_the_scripts_line(
    recorded, tiny, gpus, failed_runs
):
    path = recording_path("tiny", recordings(recorded))
    _alter(path, "the sum is 2", "the sum is 3")
    message = r"tiny.py: another output.* in line 12 \(cell 1\)\. nbval's words"
    with pytest.raises(GalleryError, match=message):
        verify(read_script(tiny), path.parent, timeout=60)
    assert "the sum is 3" in (failed_runs / "tiny.nbval.log").read_text()


def test_todays_marker_counts(recorded, tiny, gpus):
    """A marker is a comment: it can be added to a recording that is current."""
    path = recording_path("tiny", recordings(recorded))
    _alter(path, "the sum is 2", "the sum is 3")
    first = 'print("Weights: random")'
    marker = "\n# Output varies: it is a guess.\n"
    tiny.write_text(tiny.read_text().replace(first, marker + first))
    assert verify(read_script(tiny), path.parent, timeout=60)["here"] == "passed"


def test_a_notebook_that_does_not_end_fails(recorded, tiny, gpus, tmp_path):
    pause = "import time; time.sleep(0 if 'once' not in globals() else 1)"
    tiny.write_text(tiny.read_text().replace(PRINT, pause))
    script = read_script(tiny)
    record(script, folder=tmp_path / "out")
    with pytest.raises(GalleryError, match="did not end within 1 s"):
        verify(script, tmp_path / "out", timeout=1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, tiny: path.unlink(), "not recorded, nothing to verify"),
        (lambda path, tiny: path.write_text("{"), "is broken"),
        (
            lambda path, tiny: tiny.write_text(
                tiny.read_text().replace("1 + 1", "1 + 2")
            ),
            "code has changed since it was recorded",
        ),
    ],
)
def test_only_what_was_recorded_of_this_code_is_verified(
    recorded, tiny, spoil, message
):
    path = recording_path("tiny", recordings(recorded))
    spoil(path, tiny)
    with pytest.raises(GalleryError, match=message):
        verify(read_script(tiny), path.parent, timeout=60)


def test_a_notebook_runs_beside_what_was_brought_and_nothing_else(
    tiny, gpus, monkeypatch, tmp_path
):
    """And a warning compares, although the path that Python gives it differs."""
    brought = tmp_path / "brought"
    (brought / "tiny").mkdir(parents=True)
    (brought / "tiny" / "net.engine").touch()
    monkeypatch.setattr("gallery.record.BROUGHT", brought)
    monkeypatch.setattr("gallery.verify.BROUGHT", brought)
    lists = (
        "import os, warnings; warnings.warn('slow path')\n"
        "print([f for f in os.listdir() if f != 'tiny.ipynb'])"
    )
    tiny.write_text(tiny.read_text().replace(PRINT, lists))
    script = read_script(tiny)
    path = record(script, folder=tmp_path / "out")
    assert "['net.engine']" in path.read_text()
    assert "UserWarning: slow path" in path.read_text()
    assert verify(script, path.parent, timeout=60)["here"] == "passed"
    (brought / "tiny" / "net.engine").unlink()
    with pytest.raises(GalleryError, match="another output"):
        verify(script, path.parent, timeout=60)


def test_the_table_tells_of_each_notebook(recorded, tiny, gpus):
    folder = recordings(recorded)
    for name in ("altered", "stale", "unrecorded"):
        shutil.copy(tiny, tiny.with_name(f"{name}.py"))
        shutil.copy(recording_path("tiny", folder), recording_path(name, folder))
    _alter(recording_path("altered", folder), "the sum is 2", "the sum is 3")
    stale = tiny.with_name("stale.py")
    stale.write_text(stale.read_text().replace("1 + 1", "1 + 2"))
    recording_path("unrecorded", folder).unlink()
    gpus.set_gpus(["NVIDIA H100 80GB HBM3", 79.0])
    done = run_gallery(recorded, "verify", env=gpus.environment())
    assert done.returncode == 1
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if "│" in line}
    assert re.search("current.*passed", rows["tiny"])
    assert re.search("current.*failed", rows["altered"])
    assert re.search("stale.*failed", rows["stale"])
    assert "unrecorded" not in rows
    assert "Failed: stale: the code has changed" in done.stdout
    done = run_gallery(recorded, "verify", "tiny", env=gpus.environment())
    assert done.returncode == 0
    done = run_gallery(recorded, "verify", "unrecorded", env=gpus.environment())
    assert done.returncode == 1
    assert "There is no recording to verify" in done.stdout
