"""Recording: what is kept, and that nothing else can change it."""

import base64
import io
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from PIL import Image

from gallery.environment import base_environment
from gallery.errors import GalleryError
from gallery.kernel import TutorialError
from gallery.provenance import caveats, machine_name, pins
from gallery.record import record
from gallery.recording import (
    REQUIRED,
    load_recording,
    recording_path,
    save_recording,
)
from gallery.script import read_script
from tests.conftest import TINY, change_facts, make_stand_ins, recordings, use_stand_ins

# Each is a cell of one tutorial; what the recorder makes of it is tested one by one.
CELLS = {
    "count": "n = 1",
    "again": "n += 1; print('n is', n)",
    "and again": "n += 1; print('n is', n)",
    "warning": "import warnings; warnings.warn('slow path'); print('went on')",
    "library": (
        "print(warnings.formatwarning('old', FutureWarning,"
        " '/any/lib/python3/site-packages/torch/jit.py', 3))"
    ),
    "repository": (
        "from importlib.util import find_spec\n"
        "print(find_spec('gallery'), find_spec('tests'))"
    ),
    "picture": (
        "import io; from PIL import Image; from IPython.display import display\n"
        "from IPython.display import Image as Shown\n"
        "file = io.BytesIO(); Image.new('1', (14000, 14000)).save(file, 'png')\n"
        "display(Shown(data=file.getvalue()))"
    ),
    "no picture": "display(Shown(data=b'\\x89PNG\\r\\n\\x1a\\n' + b'x' * 40))",
    "connection": (
        "from ipykernel.connect import get_connection_info\n"
        "print(get_connection_info(unpack=True)['transport'])"
    ),
    "pretrained": "print('Weights: pretrained (another model)')",
    "compiled": (
        "import tempfile; from pathlib import Path\n"
        "print(tempfile.gettempdir()); Path(tempfile.gettempdir(), 'left').touch()"
    ),
    # Prints after each cell that comes later, the recorder's own included.
    "late": (
        "import sys\nget_ipython().events.register(\n"
        "    'post_run_cell', lambda result: print('late words', file=sys.stderr))"
    ),
    "in parts": (
        "import time\nfor part in 'abc':\n    print(part, flush=True); time.sleep(0.3)"
    ),
    "profiled": (
        "import os\nos.write(2, b'USDT:2026 profiler_start\\nkept\\n'); "
        "import time; time.sleep(0.3)"
    ),
    "last": "Path('later').exists()",
}


def _with_cell(tiny, code):
    tiny.write_text(tiny.read_text().replace('print("the sum is", 1 + 1)', code))
    return read_script(tiny)


def _texts(outputs):
    return "".join(out.text for out in outputs if out.output_type == "stream")


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> dict:
    """Outputs of each of the `CELLS`, as they were recorded."""
    folder = tmp_path_factory.mktemp("odd")
    cells = "".join(f"# %%\n# {name}\n\n{code}\n\n" for name, code in CELLS.items())
    (folder / "odd.py").write_text(f"{TINY.split('# %%')[0]}{cells}")
    with pytest.MonkeyPatch.context() as patch:
        use_stand_ins(make_stand_ins(folder / "packages"), patch)
        record(read_script(folder / "odd.py"), folder=folder, timeout=120)
    recording = load_recording("odd", folder)
    outputs = recording.outputs(read_script(folder / "odd.py"))
    return {
        **dict(zip(CELLS, outputs)),
        "weights": recording.provenance["weights"],
    }


def test_cells_with_the_same_code_keep_their_own_outputs(odd):
    assert _texts(odd["again"]) == "n is 2\n"
    assert _texts(odd["and again"]) == "n is 3\n"


def test_a_warning_stays_and_loses_the_path_that_changes(odd):
    assert sorted(_texts([out]) for out in odd["warning"]) == [
        "UserWarning: slow path\n",
        "went on\n",
    ]
    assert _texts(odd["library"]) == "torch/jit.py:3: FutureWarning: old\n\n"


def test_a_tutorial_cannot_import_the_repository(odd):
    assert _texts(odd["repository"]) == "None None\n"


def test_a_picture_of_any_size_does_not_lose_the_run(odd):
    [out] = odd["picture"]
    # Pillow refuses to decode so many pixels; the header tells the size.
    assert base64.b64decode(out.data["image/png"])[16:24] == bytes([0, 0, 54, 176] * 2)


def test_what_is_no_picture_does_not_lose_the_run(odd):
    assert odd["no picture"][0].data["image/png"]


def test_a_tutorial_with_two_models_tells_the_weights_of_both(odd):
    assert odd["weights"] == "pretrained"


def test_text_printed_in_a_row_is_one_output(odd):
    printed = [out.text for out in odd["in parts"] if out.name == "stdout"]
    assert printed == ["a\nb\nc\n"]


def test_kernels_do_not_compete_for_ports(odd):
    """One that finds its port taken dies, or never answers."""
    assert _texts(odd["connection"]) == "ipc\n"


def test_trace_points_of_the_profiler_are_left_out(odd):
    text = _texts(odd["profiled"])
    assert "kept" in text
    assert "USDT" not in text


def test_words_that_come_late_do_not_lose_the_run(odd):
    assert "late words" in _texts(odd["last"])


def test_temporary_files_are_the_runs_own_and_go_with_it(odd):
    folder = Path(_texts(odd["compiled"]).strip())
    assert folder.name == "tmp" and folder.parent.name.startswith("gallery-")
    assert not folder.parent.exists()


def test_round_trip_keeps_outputs_and_provenance(recorded):
    script = read_script(recorded / "examples/dynamo/tiny.py")
    recording = load_recording("tiny", recordings(recorded))
    text, table, figure = recording.outputs(script)
    assert text[0].text == "Weights: random\nthe sum is 2\n"
    assert "application/vnd.dataresource+json" in table[0].data
    assert figure[0].data["image/png"]
    # Recorded at twice the size at which it is shown.
    assert figure[0].metadata["image/png"]["width"] < 450
    assert recording.state(script) == "current"
    assert recording.current_cells(script) == 3
    assert set(REQUIRED) <= set(recording.provenance)


def test_provenance_is_what_the_machine_says(recorded):
    facts = load_recording("tiny", recordings(recorded)).provenance
    assert facts["gpu"] == "Test GPU"
    assert facts["gpu_memory_gb"] == 80
    assert facts["compute_capability"] == "9.0"
    assert facts["driver"] == "1.2.3"
    assert facts["cuda"] == "13.0"
    assert facts["torch"] == "2.14.0+cu130"
    assert facts["torch_tensorrt"] == "2.14.0"
    assert facts["tensorrt_flavor"] == "torch-tensorrt-rtx"
    assert facts["tensorrt"] == "1.0"
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["weights"] == "random"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", facts["recorded"])
    assert len(facts["cell_seconds"]) == 3 and facts["cell_seconds"][2] > 0
    assert facts["packages"] == {"torch": "2.14.0", "torch-tensorrt-rtx": "2.14.0"}
    assert facts["brought"] == {}
    assert "does not list this GPU" in facts["caveats"][0]


def test_a_listed_gpu_has_no_caveat():
    assert caveats("NVIDIA GeForce RTX 4090", "torch-tensorrt-rtx") == []
    assert caveats("NVIDIA H100 80GB HBM3", "torch-tensorrt") == []
    assert caveats("NVIDIA H100 80GB HBM3", "torch-tensorrt-rtx") != []


@pytest.mark.parametrize(
    ("gpu", "flavor", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "torch-tensorrt-rtx", "h100-rtx"),
        ("NVIDIA H100 PCIe", "torch-tensorrt", "h100-trt"),
        ("NVIDIA H200", "torch-tensorrt-rtx", "h200-rtx"),
        ("NVIDIA A100-SXM4-40GB", "torch-tensorrt-rtx", "a100-rtx"),
        ("NVIDIA GeForce RTX 4090", "torch-tensorrt-rtx", "rtx-4090-rtx"),
    ],
)
def test_each_kind_of_machine_has_its_folder(gpu, flavor, name):
    assert machine_name(gpu, flavor) == name


def test_pins_are_those_of_the_flavor():
    assert pins("torch-tensorrt-rtx")["torch-tensorrt-rtx"]
    assert "torch-tensorrt-rtx" not in pins("torch-tensorrt")
    assert pins("torch-tensorrt")["torch"] and pins("torch-tensorrt")["tritonclient"]


# When a recording still counts.


def test_outputs_are_withdrawn_from_the_first_changed_cell_on(recorded, tiny):
    tiny.write_text(tiny.read_text().replace('"clock"', '"watch"'))
    script = read_script(tiny)
    recording = load_recording("tiny", recordings(recorded))
    text, table, figure = recording.outputs(script)
    assert text and not table and not figure
    assert recording.current_cells(script) == 1
    assert recording.state(script) == "stale"


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("# %%\n# A table.", "# %%\n# New.\n\nx = 1\n\n# %%\n# A table.", [1, 0, 0, 0]),
        ('print("Weights: random")\nprint("the sum is", 1 + 1)\n', "", [0, 0]),
        ("plt.show()\n", "plt.show()\n\n# %%\n# New.\n\nx = 1\n", [1, 1, 1, 0]),
    ],
)
def test_a_cell_more_or_less_shifts_no_output(recorded, tiny, old, new, left):
    tiny.write_text(tiny.read_text().replace(old, new))
    script = read_script(tiny)
    recording = load_recording("tiny", recordings(recorded))
    assert [len(outputs) for outputs in recording.outputs(script)] == left
    assert recording.state(script) == "stale"


def test_prose_comments_and_formatting_leave_a_recording_current(recorded, tiny):
    text = tiny.read_text().replace("A cell prints.", "New prose.")
    text = text.replace('print("the sum is", 1 + 1)', "# Why\nprint('the sum is', 1+1)")
    tiny.write_text(text)
    recording = load_recording("tiny", recordings(recorded))
    assert recording.state(read_script(tiny)) == "current"


def test_other_versions_are_told_apart_from_changed_code(recorded, tiny, tmp_path):
    path = recording_path("tiny", recordings(recorded))
    nowhere = tmp_path / "nowhere"

    def state():
        return load_recording("tiny", path.parent).state(read_script(tiny), nowhere)

    change_facts(path, lambda facts: facts["packages"].update(torch="2.14.0+cu126"))
    assert state() == "current"  # the build's name is no version
    change_facts(path, lambda facts: facts["packages"].update(unpinned="1.0"))
    assert state() == "current"
    change_facts(path, lambda facts: facts["packages"].update(torch="2.13.0"))
    assert state() == "other versions"
    recording = load_recording("tiny", path.parent)
    assert recording.other_versions(nowhere) == ["torch 2.13.0 (now 2.14.0)"]
    assert recording.outputs(read_script(tiny))[0]
    tiny.write_text(tiny.read_text().replace("1 + 1", "1 + 2"))
    assert state() == "stale"


def test_another_brought_file_is_another_version(tiny, gpus, monkeypatch, tmp_path):
    brought = tmp_path / "brought"
    (brought / "tiny").mkdir(parents=True)
    (brought / "tiny" / "net.engine").write_bytes(b"first")
    monkeypatch.setattr("gallery.record.BROUGHT", brought)
    script = _with_cell(tiny, "import os; print(os.listdir())")
    path = record(script, folder=tmp_path / "out")
    recording = load_recording("tiny", path.parent)
    assert _texts(recording.outputs(script)[0]).endswith("['net.engine']\n")
    assert recording.state(script, brought) == "current"
    (brought / "tiny" / "net.engine").write_bytes(b"second")
    assert recording.state(script, brought) == "other versions"
    assert recording.state(script, tmp_path / "not here") == "current"


# What is refused.


def _edit(old, new):
    def edit(text):
        assert old in text
        return text.replace(old, new)

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON"),
        (lambda text: "[]", "not a notebook"),
        (lambda text: "", "is not valid JSON"),
        (_edit('"gallery"', '"other"'), "where it came from"),
        (_edit('"Test GPU"', "null"), "not made on a GPU"),
        (_edit("the sum is 2", "the sum is 3"), "someone has edited it"),
        (_edit('"the sum is\\", 1 + 1', '"the sum is\\", 1 + 2'), "has edited it"),
        (_edit('"1.2.3"', '"1.2.4"'), "someone has edited it"),
    ],
)
def test_a_broken_recording_gets_one_clear_message(recorded, damage, message):
    path = recording_path("tiny", recordings(recorded))
    path.write_text(damage(path.read_text()))
    with pytest.raises(
        GalleryError, match=f"tiny.ipynb is broken: .*{message}"
    ) as told:
        load_recording("tiny", recordings(recorded))
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("field", REQUIRED)
def test_each_field_is_required(recorded, field):
    path = recording_path("tiny", recordings(recorded))
    notebook = json.loads(path.read_text())
    del notebook["metadata"]["gallery"][field]
    path.write_text(json.dumps(notebook))
    with pytest.raises(GalleryError, match=f"tiny.ipynb is broken: it lacks {field}"):
        load_recording("tiny", recordings(recorded))


def test_prose_in_a_recording_is_not_sealed(recorded):
    path = recording_path("tiny", recordings(recorded))
    path.write_text(path.read_text().replace("A cell prints.", "New prose."))
    assert load_recording("tiny", recordings(recorded))


def _lose_gpu(notebook, facts):
    facts["gpu"] = None


def _lose_driver(notebook, facts):
    facts["driver"] = ""


def _fail(notebook, facts):
    output = dict(output_type="error", ename="E", evalue="", traceback=[])
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [nbformat.from_dict(output)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_lose_gpu, "was not made on a GPU"),
        (_lose_driver, "lacks driver"),
        (_fail, "a cell of it failed"),
    ],
)
def test_what_reading_refuses_is_not_written(recorded, tiny, spoil, message):
    path = recording_path("tiny", recordings(recorded))
    before = path.read_bytes()
    recording = load_recording("tiny", path.parent)
    spoil(recording.notebook, recording.provenance)
    with pytest.raises(GalleryError, match=message):
        save_recording(
            read_script(tiny), recording.notebook, recording.provenance, path.parent
        )
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["tiny.ipynb"]


def test_a_run_without_a_gpu_replaces_no_recording(recorded, tiny, gpus, failed_runs):
    gpus.set_gpus()
    path = recording_path("tiny", recordings(recorded))
    before = path.read_bytes()
    with pytest.raises(GalleryError, match="was not recorded: there is no GPU"):
        record(read_script(tiny), folder=path.parent)
    assert path.read_bytes() == before
    assert (failed_runs / "tiny.ipynb").exists()


def test_a_finished_run_is_kept_whatever_goes_wrong(
    tiny, gpus, tmp_path, failed_runs, monkeypatch
):
    def bug(encoded):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("gallery.recording._compress", bug)
    with pytest.raises(GalleryError, match="ZeroDivisionError: a bug .The run is kept"):
        record(read_script(tiny), folder=tmp_path / "out")
    assert "the sum is 2" in (failed_runs / "tiny.ipynb").read_text()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_recording(
    recorded, tiny, monkeypatch, step
):
    path = recording_path("tiny", recordings(recorded))
    before = path.read_bytes()
    recording, script = load_recording("tiny", path.parent), read_script(tiny)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    class Full(io.StringIO):
        write = full

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif step == "write":
        monkeypatch.setattr(Path, "open", lambda *args, **kwargs: Full())
    else:
        monkeypatch.setattr(Path, step, full)
    with pytest.raises(GalleryError, match="cannot be written.*No space left"):
        save_recording(script, recording.notebook, recording.provenance, path.parent)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["tiny.ipynb"]


@pytest.mark.parametrize("opacity", [255, 100])
def test_pictures_shrink_and_keep_every_pixel(recorded, tiny, opacity):
    drawn = Image.linear_gradient("L").convert("RGBA")
    drawn.putpixel((3, 3), (200, 10, 10, opacity))
    png = io.BytesIO()
    drawn.save(png, "png", compress_level=1)
    recording = load_recording("tiny", recordings(recorded))
    notebook, script = recording.notebook, read_script(tiny)
    data = {"image/png": base64.b64encode(png.getvalue()).decode()}
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("display_data", data)]
    save_recording(script, notebook, recording.provenance, recordings(recorded))
    [[saved], *_] = load_recording("tiny", recordings(recorded)).outputs(script)
    kept = base64.b64decode(saved.data["image/png"])
    picture = Image.open(io.BytesIO(kept)).convert("RGBA")
    assert picture.tobytes() == drawn.tobytes()
    assert len(kept) < len(png.getvalue())


# What a tutorial finds when it runs.

HOSTILE = {
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "LANG": "de_DE.ISO-8859-1",
    "LC_ALL": "de_DE",
    "TZ": "Asia/Tokyo",
    "HOME": "/proc/none",
    "USER": "someone",
    "PYTHONWARNINGS": "error",
    "PYTHONHASHSEED": "1",
    "COLUMNS": "20",
    "TORCHINDUCTOR_CACHE_DIR": "/proc/none",
    "TRITON_CACHE_DIR": "/proc/none",
    "HF_HUB_DISABLE_PROGRESS_BARS": "0",
}


def _hostile(monkeypatch, folder: Path) -> None:
    """A shell that has everything set which could change a recording."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    spec = {"argv": ["/bin/false"], "display_name": "x", "language": "python"}
    files = {
        "kernels/python3/kernel.json": json.dumps(spec),
        "packages/colorsys.py": "raise RuntimeError('not the real one')",
        "matplotlibrc": "figure.facecolor: red\nfigure.dpi: 10\nlines.linewidth: 9\n",
        "profile_default/ipython_kernel_config.py": "raise SystemExit",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder / "packages"))
    for name in ("MATPLOTLIBRC", "MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(folder))


def test_the_callers_environment_changes_nothing(
    tiny, executed, gpus, monkeypatch, tmp_path
):
    cell = (
        "import os, colorsys, locale, shutil\n"
        "print(sorted(n for n in os.environ if n not in "
        f"{sorted(base_environment())}))\n"
        "print(os.access(os.environ['HOME'], os.W_OK), locale.getencoding())\n"
        "print(os.listdir(os.environ['HOME']), shutil.get_terminal_size())"
    )
    script = _with_cell(tiny, cell)
    plain = record(script, folder=tmp_path / "plain")
    _hostile(monkeypatch, tmp_path / "hostile")
    hostile = record(script, folder=tmp_path / "hostile")
    [one, _, figure], [other, _, other_figure] = (
        load_recording("tiny", path.parent).outputs(script) for path in (plain, hostile)
    )
    assert one == other
    assert "True UTF-8" in _texts(one) and "OMP_NUM_THREADS" not in _texts(one)
    assert figure == other_figure


def test_where_things_are_is_passed_on(monkeypatch, tmp_path):
    passed = {
        "CUDA_VISIBLE_DEVICES": "1",
        "LD_LIBRARY_PATH": "/opt/cuda",
        "NCCL_NVLS_ENABLE": "0",
        "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
        "NVSHMEM_DISABLE_NVLS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://hub",
        "https_proxy": "http://proxy",
        "PIP_INDEX_URL": "http://packages",
    }
    for name, value in passed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [str(tmp_path), "", *sys.path])
    environment = base_environment()
    assert passed.items() <= environment.items()
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    first, _, rest = environment["PATH"].partition(os.pathsep)
    assert first == str(Path(sys.executable).parent) and rest == os.environ["PATH"]


def test_progress_names_each_cell(tiny, gpus, tmp_path):
    seen = []
    record(
        read_script(tiny),
        folder=tmp_path / "out",
        progress=lambda cell, cells: seen.append((cell, cells)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


# Runs that fail.


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "x = 1\n\nraise ValueError('bad [shape]')",
            r"tiny.py, line 15 \(cell 1 of 3\): ValueError: bad \[shape\]",
        ),
        (
            "import os, time\nprint('so far, so good', flush=True)\n"
            "time.sleep(0.5); os._exit(3)",
            r"tiny.py, line 12 \(cell 1 of 3\): .*ended itself, with exit status 3",
        ),
        (
            "import os; os.kill(os.getpid(), 11)",
            r"crashed in native code \(SIGSEGV\)",
        ),
        (
            "import os; os.kill(os.getpid(), 15)",
            r"was told to end \(SIGTERM\)",
        ),
        (
            "import os; os.kill(os.getpid(), 9)",
            r"was killed \(SIGKILL\), most likely because the memory ran out",
        ),
        (
            "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('x')",
            r"line 14 .*: the GPU's memory ran out",
        ),
    ],
)
def test_a_failure_names_the_line_and_leaves_the_old_recording(
    recorded, code, message, failed_runs, gpus
):
    folder = recordings(recorded)
    before = recording_path("tiny", folder).read_bytes()
    script = _with_cell(recorded / "examples/dynamo/tiny.py", code)
    with pytest.raises(TutorialError, match=message) as told:
        record(script, folder=folder, timeout=60)
    assert "failed/tiny.ipynb" in str(told.value)
    assert recording_path("tiny", folder).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["tiny.ipynb"]
    nbformat.validate(nbformat.read(failed_runs / "tiny.ipynb", as_version=4))
    if "so far" in code:
        assert "so far, so good" in (failed_runs / "tiny.ipynb").read_text()
    if "SIGSEGV" in message:
        assert "Fatal Python error" in (failed_runs / "tiny.log").read_text()


def test_the_limit_is_the_tutorials_not_a_cells(tiny, gpus, tmp_path, monkeypatch):
    tiny.write_text(tiny.read_text().replace("import pandas as pd", "time.sleep(60)"))
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(
        "gallery.kernel.time", SimpleNamespace(monotonic=lambda: clock.now)
    )

    def progress(cell, cells):  # the first cell takes all but a second
        clock.now = 599.0 if cell == 2 else 0.0

    with pytest.raises(TutorialError, match="cell 2 of 3.*than the limit of 600 s"):
        record(
            read_script(tiny), folder=tmp_path / "out", timeout=600, progress=progress
        )


def test_what_a_failed_run_left_goes_with_the_next_good_one(
    tiny, gpus, tmp_path, failed_runs
):
    script = _with_cell(tiny, "1 / 0")
    with pytest.raises(TutorialError, match="ZeroDivisionError"):
        record(script, folder=tmp_path / "out")
    assert list(failed_runs.iterdir())
    tiny.write_text(tiny.read_text().replace("1 / 0", "1"))
    record(read_script(tiny), folder=tmp_path / "out")
    assert not list(failed_runs.iterdir())
