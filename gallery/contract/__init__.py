"""What every tutorial script promises, and where a script does not keep it.

It reads the script and runs nothing, so it needs no torch and takes under a second.
Which rules hold follows from the script: one that holds the ruler *measures*, one that
calls Torch-TensorRT's compilers *compiles*. Nothing is declared.
"""

from __future__ import annotations

from gallery.contract.code import code_problems
from gallery.contract.measuring import measuring_problems
from gallery.contract.names import name_problems
from gallery.contract.options import option_problems
from gallery.contract.page import Page, Problem
from gallery.contract.prose import prose_problems
from gallery.script import Script

__all__ = ["Page", "Problem", "problems"]


def problems(script: Script) -> list[Problem]:
    """Everything in which the script breaks its contract, in the order of its lines."""
    page = Page(script)
    rules = (
        prose_problems,
        code_problems,
        option_problems,
        name_problems,
        measuring_problems,
    )
    return sorted(problem for rule in rules for problem in rule(page))
