"""Recording: what is kept, and that nothing is lost when a run goes wrong."""

import base64
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from gallery.errors import GalleryError
from gallery.kernel import TutorialError
from gallery.record import record
from gallery.recording import load_recording, recording_path, save_recording
from gallery.script import read_script


def _with_cell(tiny, code):
    tiny.write_text(tiny.read_text().replace('print("the sum is", 1 + 1)', code))
    return read_script(tiny)


def test_round_trip_keeps_outputs_and_provenance(recorded):
    script = read_script(recorded / "examples/dynamo/tiny.py")
    recording = load_recording("tiny", recorded / "recordings")
    text, table, figure = recording.outputs(script)
    assert text[0].text == "Weights: random\nthe sum is 2\n"
    assert "application/vnd.dataresource+json" in table[0].data
    assert figure[0].data["image/png"]
    # Recorded at twice the size at which it is shown.
    assert figure[0].metadata["image/png"]["width"] < 450
    assert recording.provenance["weights"] == "random"
    assert recording.provenance["recorded"][:2] == "20"
    assert len(recording.provenance["cell_seconds"]) == 3
    assert not recording.is_stale(script)


def test_a_tutorial_with_two_models_tells_the_weights_of_both(tiny, tmp_path):
    script = _with_cell(tiny, "print('Weights: pretrained (another model)')")
    saved = nbformat.read(record(script, folder=tmp_path), as_version=4)
    assert saved.metadata["gallery"]["weights"] == "random and pretrained"


def test_a_tutorial_does_not_find_what_another_one_compiled(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "of-the-user"))
    # Where Inductor keeps its kernels, in its own words.
    code = (
        "from pathlib import Path; import torch._inductor.codecache as c\n"
        "kernel = Path(c.cache_dir(), 'kernel'); print('found', kernel.exists())\n"
        "kernel.parent.mkdir(parents=True, exist_ok=True); kernel.touch()\n"
        "print('left', kernel)"
    )
    script = _with_cell(tiny, code)
    for _ in range(2):
        text = record(script, folder=tmp_path / "out").read_text()
        assert "found False" in text
    left = re.search(r"left (\S+?)\\n", text)[1]
    assert not Path(left).exists()  # nor does it stay on the disk


@pytest.mark.parametrize("opacity", [255, 100])
def test_pictures_shrink_and_keep_every_pixel(tiny, tmp_path, opacity):
    drawn = Image.linear_gradient("L").convert("RGBA")
    drawn.putpixel((3, 3), (200, 10, 10, opacity))
    png = io.BytesIO()
    drawn.save(png, "png", compress_level=1)
    script = read_script(tiny)
    notebook = script.notebook()
    data = {"image/png": base64.b64encode(png.getvalue()).decode()}
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("display_data", data)]
    path = save_recording(script, notebook, {}, tmp_path)
    saved = nbformat.read(path, as_version=4).cells[notebook.cells.index(cell)]
    kept = base64.b64decode(saved.outputs[0].data["image/png"])
    picture = Image.open(io.BytesIO(kept)).convert("RGBA")
    assert picture.tobytes() == drawn.tobytes()
    assert len(kept) < len(png.getvalue())


def test_progress_names_each_cell(tiny, tmp_path):
    seen = []
    record(
        read_script(tiny),
        folder=tmp_path / "out",
        progress=lambda cell, cells: seen.append((cell, cells)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('bad shape')", r"tiny, cell 1 of 3: ValueError: bad shape"),
        ("import os; os._exit(1)", r"tiny, cell 1 of 3: the kernel died"),
        ("import time; time.sleep(60)", r"tiny, cell 1 of 3: took longer than"),
        (
            "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('x')",
            r"tiny, cell 1 of 3: the GPU's memory ran out",
        ),
    ],
)
def test_a_failure_names_the_cell_and_leaves_the_old_recording(
    recorded, code, message, failed_runs
):
    folder = recorded / "recordings"
    before = recording_path("tiny", folder).read_bytes()
    script = _with_cell(recorded / "examples/dynamo/tiny.py", code)
    with pytest.raises(TutorialError, match=message):
        record(script, folder=folder, timeout=6)
    assert recording_path("tiny", folder).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["tiny.ipynb"]
    nbformat.validate(nbformat.read(failed_runs / "tiny.ipynb", as_version=4))


def test_the_notebook_of_a_failed_run_holds_its_outputs(tiny, tmp_path, failed_runs):
    script = _with_cell(tiny, "print('so far, so good'); 1 / 0")
    with pytest.raises(TutorialError, match="failed/tiny.ipynb"):
        record(script, folder=tmp_path / "out")
    text = (failed_runs / "tiny.ipynb").read_text()
    assert "so far, so good" in text and "ZeroDivisionError" in text
    tiny.write_text(tiny.read_text().replace("1 / 0", "1"))
    record(read_script(tiny), folder=tmp_path / "out")
    assert not list(failed_runs.iterdir())


def test_a_tutorial_cannot_import_the_repository(tiny, tmp_path):
    script = _with_cell(tiny, "import gallery")
    with pytest.raises(TutorialError, match="No module named 'gallery'"):
        record(script, folder=tmp_path / "out")


@pytest.mark.parametrize("delay", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_recorder_leaves_only_whole_recordings(recorded, delay, sign):
    folder = recorded / "recordings"
    before = recording_path("tiny", folder).read_bytes()
    tiny = recorded / "examples/dynamo/tiny.py"
    _with_cell(tiny, "import time; time.sleep(1)")
    code = (
        "from pathlib import Path\n"
        "from gallery.script import read_script\nfrom gallery.record import record\n"
        f"script = read_script(Path({str(tiny)!r}))\n"
        f"while True: record(script, folder=Path({str(folder)!r}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=recorded,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # Where the tests run in the background, a shell lets SIGINT be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(delay)
    os.kill(process.pid, sign)
    process.wait(timeout=30)
    with contextlib.suppress(ProcessLookupError):  # an orphaned kernel, if any
        os.killpg(process.pid, signal.SIGKILL)
    after = recording_path("tiny", folder).read_bytes()
    assert after == before or json.loads(after)["metadata"]["gallery"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON"),
        (lambda text: "[]", "not a notebook"),
        (lambda text: text.replace('"gallery"', '"other"'), "where it came from"),
        (lambda text: text.replace('"driver"', '"diver"'), "lacks driver"),
        (lambda text: text.replace('"Test GPU"', "null"), "not made on a GPU"),
    ],
)
def test_a_broken_recording_gets_one_clear_message(recorded, damage, message):
    path = recording_path("tiny", recorded / "recordings")
    path.write_text(damage(path.read_text()))
    with pytest.raises(GalleryError, match=f"tiny.ipynb is broken: .*{message}"):
        load_recording("tiny", recorded / "recordings")
