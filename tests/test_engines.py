"""Without a GPU a tutorial still runs, and builds real engines or fails by name."""

import importlib.util
import io
import json
import os

import pytest
from rich.console import Console

from gallery.engines import execute_without_gpu, identity, load_engine_report
from gallery.errors import GalleryError
from gallery.kernel import TutorialError, run_notebook
from gallery.script import read_script
from gallery.status import row, table
from gallery.workspace import Workspace
from tests.conftest import run_gallery

torch_is_missing = importlib.util.find_spec("torch_tensorrt") is None
pytestmark = pytest.mark.skipif(
    torch_is_missing, reason="torch_tensorrt is not installed"
)

TUTORIAL = '''"""
A net
=====

It compiles a net.
"""

# %%
# Build
# -----
import importlib.util
import sys

import torch
import torch_tensorrt

# Nothing of the repository is there, whatever runs the tutorial.
assert importlib.util.find_spec("gallery") is None
assert not [name for name in sys.modules if name.startswith("gallery")]
assert not torch.cuda.is_available()

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU()).eval()
x = torch.randn(4, 8)

# %%
# Compile
# -------
compiled = torch.compile(model, backend="tensorrt", options={"min_block_size": 1})
with torch.inference_mode():
    torch.testing.assert_close(compiled(x), model(x))

# %%
# Measure
# -------

# Needs a GPU: it measures.
raise RuntimeError("this cell must not run")

# %%
# Takeaways
# ---------
# - It works.
'''


def _script(tmp_path, old="", new=""):
    path = tmp_path / "net.py"
    path.write_text(TUTORIAL.replace(old, new))
    return read_script(path)


def test_a_tutorial_builds_engines_and_skips_gpu_cells(tmp_path):
    script = _script(tmp_path)
    report, run = execute_without_gpu(script, folder=tmp_path / "engines")
    [engine] = report.engines
    assert engine["size_bytes"] > 1000
    assert engine["inputs"][0]["dtype"] == "float32"
    assert report.percent_in_engines == 100
    assert report.skipped_cells == 1
    assert sum(run.cell_seconds) > 0
    assert not run.ended_early
    assert load_engine_report(script, tmp_path / "engines") == report


def test_a_tutorial_that_says_why_it_ends_early_does_not_fail(project, tiny):
    """Such as the serving tutorial, where its server cannot run."""
    text = tiny.read_text()
    early = '# A table.\n\nraise SystemExit("No server:\\nno Linux.")\n\n'
    tiny.write_text(text.replace("# A table.\n", early))
    script = read_script(tiny)
    run = _run(script)
    assert run.ended_early == "No server: no Linux."
    cells = [cell for cell in run.notebook.cells if cell.cell_type == "code"]
    ran = [cell.execution_count is not None for cell in cells]
    assert ran[0] and not ran[-1], "it went on, or did not begin"
    words = ("run", "--no-gpu", "--unchecked", "tiny")
    done = run_gallery(project, *words, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if "│ tiny" in line]
    assert "ended early: No server: no Linux." in line


@pytest.mark.parametrize("end", ["", "0", "3"])
def test_an_end_without_a_reason_is_a_failure(tiny, end):
    text = tiny.read_text().replace(
        "# A table.\n", f"# A table.\n\nraise SystemExit({end})\n"
    )
    tiny.write_text(text)
    with pytest.raises(TutorialError, match=r"cell \d of \d\): SystemExit"):
        _run(read_script(tiny))


def test_a_recording_does_not_end_early(tiny, gpus):
    text = tiny.read_text().replace(
        "# A table.\n", '# A table.\n\nraise SystemExit("No server here.")\n'
    )
    tiny.write_text(text)
    with pytest.raises(TutorialError, match="SystemExit: No server here"):
        _run(read_script(tiny), skip_gpu_cells=False)


def _run(script, skip_gpu_cells=True):
    with Workspace() as workspace:
        return run_notebook(
            script,
            workspace,
            after="provenance.collect",
            timeout=60,
            skip_gpu_cells=skip_gpu_cells,
        )


def test_an_engine_that_cannot_be_built_fails_by_line_and_leaves_no_report(tmp_path):
    broken = (
        "from torch_tensorrt.dynamo.conversion import impl\n"
        "def broken(*args, **kwargs): raise ValueError('no such layer')\n"
        "impl.activation.relu = broken\ncompiled = torch.compile"
    )
    script = _script(tmp_path, "compiled = torch.compile", broken)
    message = r"net.py, line \d+ \(cell 2 of 3\): .*no such layer"
    with pytest.raises(TutorialError, match=message):
        execute_without_gpu(script, folder=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_cell_that_needs_a_skipped_one_is_told_so(tiny, gpus):
    text = tiny.read_text().replace(
        "# A table.\n", "# A table.\n\n# Needs a GPU: it is.\n"
    )
    tiny.write_text(text.replace("plt.figure(", "plt.figure(time.time, "))
    line = tiny.read_text().splitlines().index("# Needs a GPU: it is.") + 1
    message = (
        r"tiny.py, line \d+ \(cell 3 of 3\): NameError: name 'time' is not defined. "
        f"The cell in line {line} makes it, and was skipped because it needs a GPU"
    )
    with Workspace() as workspace, pytest.raises(TutorialError, match=message):
        run_notebook(
            read_script(tiny),
            workspace,
            after="provenance.collect",
            timeout=60,
            skip_gpu_cells=True,
        )


REPORT = dict(
    engines=[dict(size_bytes=2_000_000)],
    operators=dict(in_engines=999, in_pytorch=1, left_in_pytorch=["aten.x"]),
    versions=dict(tensorrt="1"),
    skipped_cells=1,
)


def _report(tmp_path, script, **fields):
    folder = tmp_path / "engines"
    folder.mkdir(exist_ok=True)
    report = {"code_hash": identity(script), **REPORT, **fields}
    (folder / "net.json").write_text(json.dumps(report))
    return folder


def test_a_report_survives_formatting_but_not_other_code(tmp_path):
    folder = _report(tmp_path, _script(tmp_path))
    assert load_engine_report(_script(tmp_path), folder).size_mb == 2
    formatted = _script(tmp_path, "torch.randn(4, 8)", "torch.randn(4,8)  # noise")
    assert load_engine_report(formatted, folder)
    for old, new in [
        ("torch.randn(4, 8)", "torch.randn(5, 8)"),
        ("# Needs a GPU: it measures.", "# It measures."),
    ]:
        other = _script(tmp_path, old, new)
        assert load_engine_report(other, folder) is None
        assert row(other, tmp_path, folder).report == "stale"


def test_less_than_all_is_never_a_hundred_percent(tmp_path):
    script = _script(tmp_path)
    report = load_engine_report(script, _report(tmp_path, script))
    assert report.percent_in_engines == 99


@pytest.mark.parametrize(
    "fields",
    [
        dict(engines=None),
        dict(engines=[{}]),
        dict(operators={}),
        dict(versions=None),
        dict(skipped_cells=None),
        dict(unknown=1),
    ],
)
def test_a_broken_report_is_one_message_and_never_ends_the_batch(tmp_path, fields):
    script = _script(tmp_path)
    folder = _report(tmp_path, script, **fields)
    with pytest.raises(GalleryError, match="net.json is broken.*nox -s gallery"):
        load_engine_report(script, folder)
    line = row(script, tmp_path, folder)
    assert (line.report, line.engines) == ("broken", None)


def test_the_table_tells_stale_from_never_built(tmp_path):
    script = _script(tmp_path)
    assert row(script, tmp_path, tmp_path).report == "-"
    line = row(script, tmp_path, _report(tmp_path, script))
    line.here, line.seconds = "ran on the CPU", 12.4
    console = Console(width=132, file=io.StringIO())
    console.print(table([line]))
    [shown] = [s for s in console.file.getvalue().splitlines() if "net" in s]
    words = [word.strip() for word in shown.strip("│").split("│")]
    assert words == [
        *("net", "missing", "ran on the CPU"),
        *("1", "2.0", "99%", "1 skipped", "12"),
    ]
