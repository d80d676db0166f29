"""The ruler: one source, equal in all tutorials, and checks that can fail."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from gallery.errors import GalleryError
from gallery.script import find_scripts
from gallery.write_ruler import MARKER, ruler, with_ruler, write_ruler

MEASURING = [path for path in find_scripts() if MARKER in path.read_text()]

# The ruler needs Torch-TensorRT, which only imports without a GPU once no_gpu is there;
# that is for a process of its own.
IN_ITS_OWN_PROCESS = """
import sys
sys.path.insert(0, ".")
import torch
if not torch.cuda.is_available():
    from gallery import no_gpu
    no_gpu.install()
from gallery.ruler import check, flat, pytorch_alone, relative_error, results

model = torch.nn.Linear(8, 8).eval()
other = torch.nn.Linear(8, 8).eval()
x, y = torch.randn(4, 8), torch.randn(4, 8)

def refused(*arguments):
    try:
        check(*arguments)
    except AssertionError as error:
        return str(error)
    return "accepted"

print(refused(model, model, (x,), (y,), 1e-2, "same"))
print(refused(other, model, (x,), (y,), 1e-2, "another model"))
print(refused(model, model, (x,), (x + 1e-4,), 1e-2, "alike inputs"))
print(len(flat({"a": x, "b": (y, None)})), relative_error(x, x))
"""


@pytest.fixture(scope="module")
def checked() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IN_ITS_OWN_PROCESS],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_right_answer_passes_and_prints_its_control(checked):
    assert checked[0].startswith("same: relative error 0.0e+00, allowed 1e-02")
    assert "another input" in checked[0]
    assert checked[1] == "accepted"


def test_a_wrong_answer_is_refused(checked):
    assert "another model: wrong answer" in checked


def test_a_check_whose_inputs_are_alike_is_refused_as_blind(checked):
    assert any(line.startswith("alike inputs: blind check") for line in checked)


def test_outputs_of_any_structure_are_compared_whole(checked):
    assert checked[-1] == "64 0.0"


@pytest.mark.parametrize("path", MEASURING, ids=lambda path: path.stem)
def test_every_tutorial_measures_with_todays_ruler(path):
    text = path.read_text()
    assert text == with_ruler(text), "bring it up to date: python -m gallery ruler"


def test_the_ruler_is_written_once_and_again_without_change(tmp_path):
    script = tmp_path / "tutorial.py"
    before, after = "a = 1\n\n# %%\n# How\n\n", "# %%\n# After\nb = 1\n"
    script.write_text(f"{before}{MARKER}\nold = 1\n\n\n{after}")
    assert write_ruler(script)
    assert script.read_text() == f"{before}{ruler()}\n\n{after}"
    assert not write_ruler(script)


def test_a_tutorial_without_the_cell_is_left_alone(tmp_path):
    script = tmp_path / "tutorial.py"
    script.write_text("a = 1\n")
    assert not write_ruler(script)
    assert script.read_text() == "a = 1\n"


def test_two_ruler_cells_are_an_error_that_names_the_script(tmp_path):
    script = tmp_path / "tutorial.py"
    script.write_text(f"{MARKER}\n\n# %%\n# x\n\n{MARKER}\n")
    with pytest.raises(GalleryError, match="tutorial.py: There are 2 ruler cells"):
        write_ruler(script)


@pytest.fixture(scope="module")
def ruler_results():
    """`results` and its columns alone: they need no GPU and no Torch-TensorRT."""
    text = ruler()
    names: dict = {"pd": pd}
    start = text.index("COLUMNS = [")
    exec(text[start : text.index("def in_turns")], names)
    return names["results"]


def test_speedup_is_over_the_best_of_pytorch_in_a_cuda_graph(ruler_results):
    rows = [
        ("eager", 9.0),
        ("eager, CUDA graph", 3.0),
        ("Inductor", 1.0),  # without a graph: held up by the host, not the best
        ("Inductor, CUDA graph", 2.0),
        ("TensorRT", 4.0),
        ("TensorRT, CUDA graph", 1.0),
    ]
    told = {"model": "m", "precision": "float16", "shape": "1x3", "error": 0.0}
    told |= {"latency_p20": 0, "latency_p80": 0, "peak_memory_mb": 1}
    told |= {"compile_s": 1, "first_call_s": 1}
    table = ruler_results(
        [told | {"backend": backend, "latency_ms": ms} for backend, ms in rows]
        + [told | {"shape": "2x3", "backend": "eager, CUDA graph", "latency_ms": 8.0}]
    )
    found = dict(zip(table.backend + " " + table["shape"], table.speedup))
    assert found["TensorRT, CUDA graph 1x3"] == 2.0
    assert found["eager 1x3"] == pytest.approx(2 / 9)
    assert found["eager, CUDA graph 2x3"] == 1.0
