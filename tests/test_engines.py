"""Without a GPU a tutorial still runs, and builds real engines or fails by name."""

import importlib.util
import json

import pytest

from gallery.engines import execute_without_gpu, load_engine_report
from gallery.errors import GalleryError
from gallery.kernel import TutorialError
from gallery.script import read_script

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
import torch
import torch_tensorrt

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
    report, seconds = execute_without_gpu(script, folder=tmp_path / "engines")
    [engine] = report.engines
    assert engine["size_bytes"] > 1000
    assert engine["inputs"][0]["dtype"] == "float32"
    assert report.percent_in_engines == 100
    assert report.skipped_cells == 1
    assert seconds > 0
    assert load_engine_report(script, tmp_path / "engines") == report


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "compiled = torch.compile",
            "from torch_tensorrt.dynamo.conversion import impl\n"
            "def broken(*args, **kwargs): raise ValueError('no such layer')\n"
            "impl.activation.relu = broken\ncompiled = torch.compile",
            "net, cell 2 of 3: .*no such layer",
        ),
        ("torch.randn(4, 8)", "torch.randn(4, 9)", "net, cell 2 of 3: .*reduction dim"),
        (
            'backend="tensorrt"',
            'backend="tensor_rt"',
            "net, cell 2 of 3: .*tensor_rt",
        ),
    ],
)
def test_a_broken_tutorial_fails_by_name_and_cell(tmp_path, old, new, message):
    with pytest.raises(TutorialError, match=message):
        execute_without_gpu(_script(tmp_path, old, new), folder=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_report_of_other_code_does_not_count(tmp_path):
    script = _script(tmp_path)
    folder = tmp_path / "engines"
    folder.mkdir()
    report = dict(
        code_hash="other", engines=[], operators={}, versions={}, skipped_cells=0
    )
    (folder / "net.json").write_text(json.dumps(report))
    assert load_engine_report(script, folder) is None
    (folder / "net.json").write_text("{")
    with pytest.raises(GalleryError, match="net.json is broken.*nox -s gallery"):
        load_engine_report(script, folder)
