"""A reader with standard TensorRT in place of TensorRT-RTX meets no oversight of ours.

That flavor builds no engine without a GPU. So this is a dry run: a tutorial is told
that it has the other flavor, and walks its own way for it, while TensorRT-RTX builds.
Its options are checked by the contract: both flavors have the same Python sources.
"""

import ast
import dataclasses
import importlib.util
import re

import pytest

from gallery.kernel import TutorialError, run_notebook
from gallery.script import Script, find_scripts, needs_gpu, read_script
from gallery.workspace import Workspace

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None,
    reason="torch_tensorrt is not installed",
)

TOLD = """import torch_tensorrt

torch_tensorrt.ENABLED_FEATURES = torch_tensorrt.ENABLED_FEATURES._replace(
    tensorrt_rtx=False, windows_cross_compile=True
)
"""
# What the tutorial itself says where it cannot go on.
ENDS = {
    "ahead_of_time_without_gpu": "This tutorial needs torch-tensorrt-rtx",
    "save_load_deploy_example": "There is no libnvinfer.so.* in this environment",
}


def asking(code: str) -> bool:
    """Whether a cell asks which flavor it has; the ruler has tests of its own."""
    return "ENABLED_FEATURES" in code and not code.startswith("# The ruler:")


def names_of_flavor(code: str) -> set[str]:
    """The names that such a cell gives to the answer."""
    given = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assign)]
    return {
        target.id
        for node in given
        if "ENABLED_FEATURES" in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def as_far_as_it_matters(script: Script) -> Script | None:
    """The tutorial up to the last cell without a GPU that depends on the flavor."""
    cells = [block for block in script.blocks if block.type == "code"]
    names = {
        name
        for cell in cells
        if asking(cell.content.strip())
        for name in names_of_flavor(cell.content)
    }
    word = re.compile(rf"\b({'|'.join(sorted(names)) or 'ENABLED_FEATURES'})\b")
    last = 0
    for number, block in enumerate(script.blocks, 1):
        if block.type != "code" or needs_gpu(block.content):
            continue
        if asking(block.content.strip()) or (names and word.search(block.content)):
            last = number
    if not last:
        return None
    heading, *others = script.blocks[:last]
    told = heading._replace(type="code", content=TOLD)
    return dataclasses.replace(script, blocks=[heading, told, *others])


WALKS = {
    script.name: script
    for script in map(as_far_as_it_matters, map(read_script, find_scripts([])))
    if script
}


@pytest.mark.parametrize("name", WALKS)
def test_a_tutorial_walks_its_way_for_standard_tensorrt(name):
    with Workspace() as workspace:
        how = {"before": "no_gpu.install", "after": "no_gpu.report", "timeout": 600}
        try:
            run_notebook(WALKS[name], workspace, skip_gpu_cells=True, **how)
            said = ""
        except TutorialError as error:
            said = str(error)
    assert ENDS.get(name, "") in said, said
    assert bool(said) == (name in ENDS), said


def test_most_tutorials_that_ask_are_walked():
    assert len(WALKS) >= 8
