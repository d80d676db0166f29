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
    "save_load_deploy_example": "libnvinfer.so.* is not installed",
}


def names_of_flavor(code: str) -> set[str]:
    """The names that a cell gives to what it asked."""
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
    names, last = {"ENABLED_FEATURES"}, 0
    for number, block in enumerate(script.blocks, 1):
        code = block.content.strip()
        is_ruler = code.startswith("# The ruler:")  # it has tests of its own
        if block.type != "code" or is_ruler or needs_gpu(code):
            continue
        if names & set(re.findall(r"\w+", code)):
            last = number
        names |= names_of_flavor(code)
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


def test_those_that_end_are_among_them():
    assert WALKS.keys() > ENDS.keys()
