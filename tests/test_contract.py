"""Every tutorial keeps the contract, and every rule of the contract bites."""

import importlib.util
import json
import subprocess
import sys

import pytest

from gallery.contract import code_lines, problems, torch_tensorrt_calls
from gallery.script import find_scripts, read_script
from tests.conftest import ROOT

SCRIPTS = find_scripts()

GOOD = '''"""
A title
=======

One sentence.

.. code-block:: bash

   pip install torch-tensorrt-rtx pandas
"""

import pandas

import torch_tensorrt

# %%
# Takeaways
# ---------
# - One.

# sphinx_gallery_tags = ["a", "b"]
'''


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_tutorial_keeps_the_contract(path):
    assert problems(read_script(path)) == []


def _problems(tmp_path, text):
    path = tmp_path / "x.py"
    path.write_text(text)
    return problems(read_script(path))


def test_a_good_script_has_no_problems(tmp_path):
    assert _problems(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("One sentence.\n\n.. code", ".. code", "no description"),
        ("One sentence.", "Very " * 40 + "long.", "characters"),
        ('["a", "b"]', "[]", "2 to 6 tags"),
        ("   pip install torch-tensorrt-rtx pandas", "   pip list", "pip install"),
        ("import pandas", "import scipy", "Imports scipy"),
        ("import pandas", "from . import x", "Imports ."),
        ("import pandas", "import argparse", "argparse"),
        ("import pandas", "print(__file__)", "__file__"),
        ("import pandas", "import pandas\nx = 1\n" * 101, "lines of code; at most"),
        ("import pandas", "f(enabled_precisions={1})", "enabled_precisions"),
        ("import pandas", 'f(options={"debug": True})', "debug"),
        ("# - One.", "# - It is 2.5x faster.", "'2.5x'"),
        ("# - One.", "# - It takes 3 ms.", "'3 ms'"),
        ("Takeaways", "The end", "Takeaways"),
    ],
)
def test_each_rule_bites(tmp_path, old, new, message):
    found = _problems(tmp_path, GOOD.replace(old, new))
    assert any(message in problem for problem in found), found


def test_code_lines_leave_out_comments_and_blank_lines(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(GOOD.replace("import pandas", "# why\n\nx = [\n    1,\n]\n"))
    assert code_lines(read_script(path)) == 4


def test_options_are_found_through_aliases_and_dicts(tmp_path):
    path = tmp_path / "x.py"
    code = (
        "import torch\nimport torch_tensorrt as trt\n"
        "from torch_tensorrt.dynamo import compile as build\n"
        "settings = {'min_block_size': 1}\n"
        "trt.compile(m, ir='dynamo')\nbuild(m, **settings)\n"
        "torch.compile(m, backend='tensorrt', options={'dryrun': True})\n"
        "torch.compile(m, options={'epilogue_fusion': True})\n"
    )
    path.write_text(GOOD.replace("import pandas", code))
    assert set(torch_tensorrt_calls(read_script(path))) == {
        ("torch_tensorrt.compile", "ir"),
        ("torch_tensorrt.dynamo.compile", "min_block_size"),
        ("torch_tensorrt.dynamo.compile", "dryrun"),
    }


# Runs beside the tests, because importing torch_tensorrt without a GPU needs the layer.
ACCEPTED = """
import dataclasses, functools, inspect, json, sys
from gallery import no_gpu
import torch
if not torch.cuda.is_available():
    no_gpu.install()
import torch_tensorrt, torch_tensorrt.runtime
from torch_tensorrt.dynamo import CompilationSettings, compile
options = set(inspect.signature(compile).parameters) - {"kwargs"}
options |= {field.name for field in dataclasses.fields(CompilationSettings)}
unknown = []
for name, option in json.load(sys.stdin):
    try:
        function = functools.reduce(getattr, name.split(".")[1:], torch_tensorrt)
    except AttributeError:
        unknown.append([name, "(the name itself)"])
        continue
    if name == "torch_tensorrt.dynamo.compile":
        accepted = options
    else:
        # The library's feature guards wrap a function and hide its signature.
        cells = getattr(function, "__closure__", None) or ()
        hidden = [cell.cell_contents for cell in cells]
        function = next(filter(inspect.isfunction, hidden), function)
        accepted = set(inspect.signature(function).parameters) - {"kwargs"}
        if name == "torch_tensorrt.compile":
            accepted |= options
        if name == "torch_tensorrt.Input":
            accepted |= {"shape", "min_shape", "opt_shape", "max_shape", "dtype"}
            accepted |= {"format", "tensor_domain", "torch_tensor", "name"}
    if option not in accepted:
        unknown.append([name, option])
print(json.dumps(unknown))
"""


def _unknown(calls):
    done = subprocess.run(
        [sys.executable, "-c", ACCEPTED],
        input=json.dumps(calls),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None,
    reason="torch_tensorrt is not installed",
)
def test_every_option_exists_in_this_release():
    calls = [
        call for path in SCRIPTS for call in torch_tensorrt_calls(read_script(path))
    ]
    invented = [("torch_tensorrt.dynamo.compile", "make_it_fast")]
    assert _unknown([*calls, *invented]) == [list(invented[0])]
