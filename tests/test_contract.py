"""Every tutorial keeps the contract, and every rule of the contract bites."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gallery.author import TEMPLATE
from gallery.check import messages
from gallery.contract import problems
from gallery.contract.installed import OPTIONS
from gallery.script import find_scripts, read_script
from gallery.write_ruler import MARKER, with_ruler
from tests.conftest import ROOT, run_gallery

# A tutorial that teaches a tool: it measures nothing and compiles nothing.
GOOD = '''"""
A title
=======

One sentence.

At a glance
-----------

- One.
- Two.
- Three.

What you will learn
-------------------

- One.

Prerequisites
-------------

.. code-block:: bash

   pip install torch-tensorrt-rtx pandas matplotlib
"""

# %%
# A section
# ---------
# Text.

import pandas
import matplotlib.pyplot as plt

# %%
# A figure.

plt.plot(pandas.Series([1, 2]))
plt.show()

# %%
# When it goes wrong
# ------------------
# Text.
#
# Take it to production
# ---------------------
# Text.
#
# Exercise
# --------
# Text.
#
# Takeaways
# ---------
# - One.

# sphinx_gallery_tags = ["a", "b"]
'''
# One that measures and compiles: the template of `python -m gallery new`.
MEASURES = with_ruler(TEMPLATE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", find_scripts(), ids=lambda path: path.stem)
def test_tutorial_keeps_the_contract(path):
    assert messages(read_script(path)) == []


@pytest.fixture
def broken(tmp_path):
    """Problems of a text as ``line: text``."""

    def check(text: str) -> list[str]:
        path = tmp_path / "x.py"
        path.write_text(text)
        return [f"{p.line}: {p.text}" for p in problems(read_script(path))]

    return check


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize("text", [GOOD, MEASURES], ids=["teaches", "measures"])
def test_a_good_script_has_no_problems(broken, text):
    assert broken(text) == []


# What is replaced, by what, a part of the message, and the text on the reported line.
HEADER = [
    ("One sentence.\n\nAt a", "At a", "no description", '"""'),
    ("One sentence.", "Very " * 40 + "long.", "205 characters", "Very"),
    ("One sentence.", "See `here <https://x.org>`_.", "holds `here", "See"),
    ("One sentence.", "It is :doc:`fast`.", "on the card", "It is"),
    ("One sentence.", "The |flavor|.", "holds |flavor|", "The |"),
    ('["a", "b"]', '["a"]', "2 to 6 tags", "# sphinx_gallery_tags"),
    ('["a", "b"]', '["a", "b"]\nx = 1', "2 to 6 tags", "x = 1"),
    ("   pip install torch-tensorrt-rtx pandas", "   pip list", "no line `pip", '"""'),
    ("=======\n", "=====\n", "too short. Give it 7", "====="),
    ("=======\n", "=======  \n", "ends with spaces", "======="),
]
HEADINGS = [
    ("# ---------\n# Text.", "# =========\n# Text.", "second title", "# ========="),
    ("# ---------\n# Text.", "# ^^^^^^^^^\n# Text.", "skips a level", "# ^^^^^^^^^"),
    ("# ---------\n# Text.", "# ''''''''\n# Text.", "Use - for", "# ''''''''"),
    ("# ---------\n# Text.", "# ----\n# Text.", "too short. Give it 9", "# ----\n"),
    ("What you will", "Why you should", "'What you will learn'", '"""'),
    ("At a glance\n-----------\n\n- One.\n- Two.", "", "no section 'At a", '"""'),
    ("- Two.\n- Three.\n", "", "has 1 lines", "At a gl"),
    ("# Takeaways\n# ---------", "# The end\n# -------", "'Takeaways'", "# sphinx_"),
    ("# Exercise\n# --------", "# Homework\n# --------", "'Exercise'", "# sphinx_"),
    (
        "# Exercise\n# --------\n# Text.\n#\n# Takeaways\n# ---------\n# - One.",
        "# Takeaways\n# ---------\n# - One.\n#\n# Exercise\n# --------\n# Text.",
        "out of order",
        "# sphinx_gallery_tags",
    ),
    ("# - One.", "# - One.\n#\n# More\n# ----\n# Text.", "after Takeaways", "# More"),
]
CODE = [
    (
        "import pandas\n",
        "import pandas\nimport scipy\n",
        "Imports scipy",
        "import scipy",
    ),
    (
        "import pandas\n",
        "import pandas\nfrom . import x\n",
        "this repository",
        "from .",
    ),
    (
        "import pandas\n",
        "import pandas\nimport gallery\n",
        "this repo",
        "import gallery",
    ),
    ("import pandas\n", "import pandas\nimport argparse\n", "argparse", "import argp"),
    ("import pandas\n", "import pandas\nprint(__file__)\n", "in both a", "print(__f"),
    (
        "import pandas\n",
        "import pandas\n" + "x = 1\n" * 30,
        "32 lines",
        "import pandas",
    ),
    (
        "import pandas\n",
        "import pandas\n" + "# %%\n# Text.\n\n" + "x = 1\n\n# %%\n# T.\n\n" * 450,
        "454 lines of code; at most 450",
        '"""',
    ),
    (
        "import pandas\n",
        "import pandas\ndef f():\n" + "    x = 1\n\n" * 30,
        "'f' has 31 lines",
        "def f",
    ),
    ("plt.show()", "plt.show()\nprint(f'{plt}'[6:])", "slices", "print(f"),
    ("plt.show()", "plt.show()\nprint(str(plt)[6:])", "slices", "print(s"),
    ("plt.show()", "plt.show()\nprint('right', True)", "always True", "print('right'"),
    (
        "plt.show()",
        "plt.show()\n\n\ndef fine(x):\n    assert x\n    return True\n\n\n"
        "right = fine(1) and all(fine(x) for x in (1, 2))\nprint(f'{right}')",
        "Prints right, which is always True",
        "print(f",
    ),
    (
        "plt.show()",
        "plt.show()\n\n\ndef say(what, holds):\n    assert holds, what\n"
        "    print(f'{what}: {holds}')",
        "which the assert on line 43 has settled",
        "    print(f",
    ),
    ("plt.show()", "", "No cell draws a figure", "# sphinx_gallery_tags"),
    (
        "plt.show()",
        "plt.show()\nimport torch_tensorrt.dynamo._refit",
        "torch_tensorrt.dynamo._refit is private",
        "import torch_tensorrt.dy",
    ),
    (
        "plt.show()",
        "plt.show()\nfrom torch._inductor import config",
        "torch._inductor.config is private",
        "from torch._ind",
    ),
    ("plt.show()", "plt.show()\nplt._hidden()", "plt._hidden is private", "plt._hid"),
]
MARKERS = [
    ("plt.plot", "# Needs GPU: it draws.\nplt.plot", "nearly a marker", "# Needs GPU"),
    ("plt.plot", "# needs a GPU\nplt.plot", "nearly a marker", "# needs a GPU"),
    ("plt.plot", "# Needs a GPU:\nplt.plot", "nearly a marker", "# Needs a GPU"),
    ("plt.plot", "# Requires a GPU: x\nplt.plot", "nearly a marker", "# Requires"),
    (
        "plt.plot",
        "# Needs two GPUs\nplt.plot",
        "Write '# Needs two GPUs",
        "# Needs two",
    ),
    ("plt.plot", "# needs 2 GPUs: x\nplt.plot", "Write '# Needs two GPUs", "# needs 2"),
    (
        "plt.plot",
        "# Requires GPUs: x\nplt.plot",
        "Write '# Needs two GPUs",
        "# Requires",
    ),
    ("plt.plot", "# Output vary: fonts.\nplt.plot", "nearly a marker", "# Output v"),
    ("plt.plot", "# Outputs vary: x.\nplt.plot", "nearly a marker", "# Outputs"),
    ("plt.show", "# Needs a GPU: x.\nplt.show", "not in the cell's first", "# Needs a"),
    (
        "# A figure.\n\n",
        "# A figure.\n# Needs a GPU: x.\n",
        "in the prose",
        "# Needs a",
    ),
]
PROSE = [
    *(
        ("# - One.", f"# - {text}", f"'{figure}'", f"# - {text[:20]}")
        for text, figure in [
            ("It is 2.5x faster.", "2.5x"),
            ("It is 1.13 times as fast.", "1.13 times"),
            ("It takes 3 ms.", "3 ms"),
            ("It takes 3 seconds.", "3 seconds"),
            ("It takes 24 s to build.", "24 s"),
            ("The engine has 35 MB.", "35 MB"),
            ("It needs 1.5 GiB.", "1.5 GiB"),
            ("It saves 27 %.", "27 %"),
            ("It saves 27% of it.", "27%"),
            ("At 1,268 images/s.", "1,268 images/s"),
            ("At 40 tokens per second.", "40 tokens per second"),
            ("TensorRT is twice as fast.", "twice as"),
            ("It takes half the time.", "half the time"),
            ("It is three times faster.", "three times faster"),
            ("A tenfold gain.", "tenfold"),
        ]
    ),
    *(
        ("# - One.", f"# - {text}", f"A hedge: '{hedge}'", f"# - {text[:12]}")
        for text, hedge in [
            ("TensorRT may lose at batch 16.", "may lose"),
            ("Where TensorRT takes longer, wait.", "Where TensorRT takes longer"),
            ("A likely reason is the cache.", "A likely reason"),
            ("The winner depends on the batch.", "winner depends on"),
            ("It is probably the cache.", "probably"),
        ]
    ),
    (
        "# - One.",
        "# - It is :recorded:`fast` now.",
        "prints the value 'fast'",
        "# - It",
    ),
    ("# - One.", "# - It is :recorded:`a b` now.", "is no name", "# - It"),
]


@pytest.mark.parametrize(
    ("old", "new", "message", "where"), HEADER + HEADINGS + CODE + MARKERS + PROSE
)
def test_each_rule_bites_on_its_line(broken, old, new, message, where):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    found = [problem for problem in broken(text) if message in problem]
    assert len(found) == 1, broken(text)
    assert found[0].startswith(f"{line_of(text, where)}: ")


@pytest.mark.parametrize(
    "text",
    [
        "A shape of 224 x 224 and 8x128, batch 16, float16, CUDA 13, PyTorch 2.14.",
        "The 20th percentile, and 3 engines.",
        "The sheet says ``80 GB``, and `3.35 TB/s <https://x.org>`_ too.",
        "Compile it twice, and call it three times.",
        "Unfold it, and nothing can be faster.",
        "The most likely token, and whatever may differ.",
    ],
)
def test_prose_that_is_no_typed_figure_and_no_hedge(broken, text):
    assert broken(GOOD.replace("# - One.", f"# - {text}")) == []


def test_what_a_machine_has_to_have_is_no_typed_figure(broken):
    text = GOOD.replace("pandas matplotlib\n", "pandas matplotlib\n\nOne needs 8 GB.\n")
    assert "8 GB" in text and broken(text) == []


def test_two_to_six_tags(broken):
    for count, problems_found in ((2, 0), (6, 0), (7, 1)):
        tags = str([f"tag {n}" for n in range(count)])
        found = broken(GOOD.replace('["a", "b"]', tags))
        assert len(found) == problems_found


def test_a_missing_package_is_told_once(broken):
    assert len(broken(cells("import scipy", "import scipy\nimport scipy.stats"))) == 1


def test_headings_go_down_one_level_at_a_time_and_up_at_once(broken):
    text = (
        "# ---------\n# Text.\n#\n# Sub\n# ~~~\n# Text.\n#\n# Subsub\n# ^^^^^^\n# Text."
    )
    assert broken(GOOD.replace("# ---------\n# Text.", text, 1)) == []


def test_a_wide_title_is_as_wide_as_it_looks(broken):
    wide = GOOD.replace("A title\n=======", "用 TensorRT 加速模型\n" + "=" * 20)
    assert broken(wide) == []
    assert "20 characters" in broken(wide.replace("=" * 20, "=" * 15))[0]


def test_markers_where_they_count(broken):
    marked = "# Needs a GPU: it draws.\n# Output varies: fonts.\nplt.plot"
    assert broken(GOOD.replace("plt.plot", marked)) == []
    marked = marked.replace("a GPU", "two GPUs")
    assert broken(GOOD.replace("plt.plot", marked)) == []
    late = "plt.show()\n# Needs two GPUs: it draws."
    [problem] = broken(GOOD.replace("plt.show()", late))
    assert "is not in the cell's first lines" in problem
    [problem] = broken(GOOD.replace("# - One.", "# - One.\n# Needs two GPUs: x."))
    assert "stands in the prose" in problem
    spoken = "plt.show()  # needs a GPU\n# The output varies with fonts.\nplt.show()"
    assert broken(GOOD.replace("plt.show()", spoken)) == []


@pytest.mark.parametrize(
    "code",
    [
        "print(f'fast = {1.5}')",
        "print('fast =', 1.5)",
        "fast = 1.5\nprint(f'{fast = }')",
        "fast = 1.5\nprint(f'{fast = :.2f}')",
        "print('slow = 1\\nfast = 2')",
        "for name in ('fast', 'slow'):\n    print(f'{name} = {1}')",
        "for name, x in dict(fast=1).items():\n    print(f'{name} = {x}')",
        "for end in 'st':\n    print(f'fa{end} = {1}')",
        "for b in 'st':\n    name = f'fa{b}'\n    print(f'{name} = {1}')",
    ],
)
def test_values_that_a_cell_prints(broken, code):
    text = GOOD.replace("# - One.", "# - It is :recorded:`fast` now.")
    text = text.replace("plt.show()", f"plt.show()\n{code}")
    fast = [problem for problem in broken(text) if "fast" in problem]
    assert fast == ([] if "fa{end}" not in code and "'fast =" not in code else fast)


@pytest.mark.parametrize(
    "code",
    [
        "print('fast', 1.5)",
        "print('fastest = 1')",
        "print('so fast = 1')",
        "fast = 1.5",
        "print(f'{1} = {2}')",
    ],
)
def test_values_that_no_cell_prints(broken, code):
    text = GOOD.replace("# - One.", "# - It is :recorded:`fast` now.")
    text = text.replace("plt.show()", f"plt.show()\n{code}")
    assert any("prints the value 'fast'" in problem for problem in broken(text))


CELL = "\n\n# %%\n# Text.\n\n{}\n"


def cells(*sources: str) -> str:
    """The good script with more cells after its figure."""
    more = "".join(CELL.format(source) for source in sources)
    return GOOD.replace("plt.show()\n", f"plt.show()\n{more}", 1)


GPU = "# Needs a GPU: x.\n"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            [GPU + "fast = 1", "print(fast)"],
            "'fast' is made on line 46, in a cell that",
        ),
        ([GPU + "import time", "time.time()"], "'time' is made on line"),
        ([GPU + "def f():\n    pass", "f()"], "'f' is made on line"),
        ([GPU + "x = 1", "def f():\n    return x", "f()"], "'x' is made on line"),
        ([GPU + "x = 1", "sorted([1], key=lambda y: x)"], "'x' is made on line"),
        ([GPU + "x = 1", "print([y + x for y in (1, 2)])"], "'x' is made on line"),
        ([GPU + "x = 1", "await x"], "'x' is made on line"),
        (
            [
                GPU + "x = 1",
                "def f():\n    return g()",
                "def g():\n    return x",
                "f()",
            ],
            "'x' is made on line",
        ),
        ([GPU + "x = 1", "print(x)", GPU + "x = 2"], "'x' is made on line 46"),
        (["x = x + 1"], "'x' is used before it is made"),
        ([GPU + "A = object", "class B(A):\n    pass"], "'A' is made on line"),
        (
            [GPU + "x = 1", "sorted([1], key=lambda y: x, reverse=print(1))"],
            "'x' is made on line",
        ),
        ([GPU + "x = 1", "def f():\n    return lambda: x", "f()"], "'x' is made"),
        (["async with never:\n    pass"], "'never' is used, and nothing makes it"),
        (["async for i in never:\n    print(i)"], "'never' is used, and nothing"),
        (["print(later)", "later = 1"], "'later' is used before it is made"),
        (["print(never)"], "'never' is used, and nothing makes it"),
        ([GPU + "print(never)"], "'never' is used, and nothing makes it"),
        (["def f():\n    return never", "f()"], "'never' is used, and nothing"),
    ],
)
def test_names_that_are_not_there(broken, sources, message):
    found = [problem for problem in broken(cells(*sources)) if message in problem]
    assert len(found) == 1, broken(cells(*sources))


@pytest.mark.parametrize(
    "sources",
    [
        ["x = 1", GPU + "print(x)"],
        [GPU + "x = 1", GPU + "print(x)"],
        [GPU + "x = 1", "x = 2", "print(x)"],
        ["x = 2", GPU + "x = 1", "print(x)"],
        [GPU + "x = 1", "on_gpu = False\nif on_gpu:\n    print(x)"],
        [GPU + "x = 1", "on_gpu = False\nprint(x if on_gpu else 0)"],
        [GPU + "x = 1", "import torch\nif torch.cuda.is_available():\n    print(x)"],
        [GPU + "x = 1", "device = 'cpu'\nif device != 'cpu':\n    print(x)"],
        [GPU + "x = 1", "y = 1\ntry:\n    x\nexcept (NameError, OSError):\n    y"],
        ["x = 1\nprint(x, [x for x in (x, 2)])\nprint(x)"],
        ["async def f():\n    async with open('x') as a:\n        return a", "f()"],
        ["async for i in open('x'):\n    print(i)\nelse:\n    i = 2", "print(i)"],
        ["async with open('x') as a:\n    b = a", "print(a, b)"],
        [GPU + "x = 1", "try:\n    x\nexcept NameError:\n    pass"],
        [GPU + "x = 1", "ways = {'a': lambda: x}", GPU + "ways['a']()"],
        [GPU + "x = 1", "def f():\n    return x", GPU + "f()"],
        ["for i in (1, 2):\n    print(i)", "print(i)"],
        ["with open('x') as file:\n    print(file)"],
        ["def f(a, *b, c=1, **d):\n    e = a\n    return e, b, c, d", "f(1)"],
        ["class A:\n    x = 1\n\n    def f(self):\n        return self.x", "A().f()"],
        ["print({k: v for k, v in {}.items()}, [y for y in ()], __name__)"],
        ["async def f():\n    return 1", "await f()"],
        ["import os.path\nimport sys as system", "print(os, system)"],
        ["if (n := 3) > 2:\n    print(n)"],
        ["count = 1\ncount += 1"],
        ["def f():\n    global made\n    made = 1", "f()", "print(made)"],
    ],
)
def test_names_that_are_there(broken, sources):
    found = broken(cells(*sources))
    assert [p for p in found if "made" in p or "makes" in p] == []


@pytest.mark.parametrize(
    "last",
    [
        "table",
        "table.round(3)",
        "table[['backend', 'speedup']]",
        "results([])",
        "results([]).round(3)",
        "display(table)",
        "table.style.hide()",
    ],
)
def test_a_cell_that_ends_with_the_table(broken, last):
    assert broken(MEASURES.replace("\ntable.round(3)\n", f"\n{last}\n")) == []


@pytest.mark.parametrize("last", ["print(table)", "len(table)", "x = table", "error"])
def test_a_cell_that_shows_no_table(broken, last):
    found = broken(MEASURES.replace("\ntable.round(3)\n", f"\n{last}\n"))
    assert any("no cell ends with the benchmark table" in p for p in found)


@pytest.mark.parametrize(
    "code",
    [
        "table['tokens_per_s'] = [11.5, 12, 13]",
        "table['tokens_per_s'] = 11.5",
        "table['tokens_per_s'] = (-1, 2)",
        "table = table.assign(tokens_per_s=12)",
        "table.loc[:, 'tokens_per_s'] = 12.5",
    ],
)
def test_a_column_that_nobody_measured(broken, code):
    text = MEASURES.replace("\ntable.round(3)\n", f"\n{code}\ntable.round(3)\n")
    [problem] = broken(text)
    assert problem.startswith(f"{line_of(text, code)}: The column ")
    assert "'tokens_per_s' of the benchmark table is typed" in problem


@pytest.mark.parametrize(
    "code",
    [
        "table['tokens_per_s'] = 16 / table.latency_ms",
        "table['tokens_per_s'] = [limit_ms, limit_ms]",
        "table['quantized'] = True",
        "table['kind'] = 'text'",
        "limits = {}\nlimits['a'] = 12",
    ],
)
def test_a_column_of_ones_own(broken, code):
    text = MEASURES.replace("\ntable.round(3)\n", f"\n{code}\ntable.round(3)\n")
    assert broken(text) == []


def test_a_check_by_the_ruler(broken):
    none = MEASURES.replace("error = check(", "error = print(")
    none = none.replace("compare(ways, model,", "print(ways, model,")
    assert any(BLIND in problem for problem in broken(none))
    assert broken(none.replace("error = print(", "error = check(", 1)) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MIB = 2**20", "MIB = 2**21", "The ruler is not that of gallery/ruler.py"),
        (
            "# How this page measures\n",
            "# How that is measured  \n",
            "ruler has no head",
        ),
        ("\ntable.round(3)\n", "\n", "no cell ends with the benchmark table"),
        ("\nplot_ready(table)\n", "\n", "has 2 figures"),
        ('print("Weights: random, a model of this page\'s own")\n', "", None),
        ("- It reaches :recorded:`of_limit`", "- It reaches much", "quote 2 recorded"),
        ("`faster` times", "`fastest` times", "prints the value 'fastest'"),
        ('"min_block_size": 1', '"min_block_sice": 1', "mean min_block_size?"),
    ],
)
def test_rules_of_a_tutorial_that_measures(broken, old, new, message):
    assert old in MEASURES
    found = broken(MEASURES.replace(old, new))
    if message is None:
        assert found == []  # a model of its own has no weights to name
    else:
        assert any(message in problem for problem in found), found


def test_at_a_glance_of_a_tutorial_that_measures_quotes_the_recording(broken):
    head, rest = MEASURES.split("What you will learn", 1)
    head = head.replace(":recorded:`faster`", "many").replace(
        ":recorded:`ready_s`", "x"
    )
    found = broken(head + "What you will learn" + rest)
    assert ["quotes no value" in problem for problem in found] == [True]


COMPILES = "import torch_tensorrt\nx = torch_tensorrt.compile(1, ir='dynamo')"
BLIND = "Compiles, and no check can fail"


def test_what_compiles_has_a_check_that_can_fail(broken):
    assert any(BLIND in problem for problem in broken(cells(COMPILES)))
    own = "def check(x):\n    return x\n\n\nprint(check(1))"
    assert any(BLIND in problem for problem in broken(cells(COMPILES, own)))
    line = "print(f'relative error {1}, allowed {2}, another input {3}')"
    assert broken(cells(COMPILES, line)) == []
    apart = "print('relative error', 1, 'allowed', 2, 'another input', 3)"
    assert broken(cells(COMPILES, apart)) == []
    ruled = "check(1, 2, 3, 4, 5)"
    assert any(BLIND in problem for problem in broken(cells(COMPILES, ruled)))
    half = "print(f'relative error {1}, allowed {2}')"
    assert any(BLIND in problem for problem in broken(cells(COMPILES, half)))


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.compile(1, backend='tensorrt')",
        "import torch\ntorch.compile(1, backend='torch_tensorrt')",
        "import torch_tensorrt\ntorch_tensorrt.dynamo.compile(1)",
        "import torch_tensorrt\ntorch_tensorrt.MutableTorchTensorRTModule(1)",
    ],
)
def test_every_way_to_compile_is_seen(broken, code):
    assert any(BLIND in problem for problem in broken(cells(code)))


def test_inductor_alone_needs_no_check(broken):
    assert broken(cells("import torch\ntorch.compile(1, dynamic=False)")) == []


def with_package(package: str, *sources: str) -> str:
    text = cells(*sources)
    return text.replace("pip install", f"pip install {package}", 1)


@pytest.mark.parametrize(
    "code",
    [
        "import torchvision\nm = torchvision.models.resnet18()",
        "from torchvision.models import get_model\nm = get_model('resnet18')",
        "from torchvision.models import resnet18 as net\nm = net()",
    ],
)
def test_a_model_says_where_its_weights_come_from(broken, code):
    [problem] = broken(with_package("torchvision", code))
    assert "does not print where its weights come from" in problem
    said = code + "\nprint('Weights: random')"
    assert broken(with_package("torchvision", said)) == []
    for words in ("f'Weights: {m}'", "'Weights:', m", "'Weights: ' + 'random'"):
        said = f"{code}\nprint({words})"
        assert broken(with_package("torchvision", said)) == []
    for words in ("'Weights'", "'the Weights: random'", "'Weights:  '", "'weights: x'"):
        said = f"{code}\nprint({words})"
        assert len(broken(with_package("torchvision", said))) == 1


def test_weights_of_transformers(broken):
    model = "import transformers\nm = transformers.AutoModel.from_pretrained('x')"
    [problem] = broken(with_package("transformers", model))
    assert "weights" in problem
    own = "from transformers import LlamaForCausalLM\nm = LlamaForCausalLM(1)"
    [problem] = broken(with_package("transformers", own))
    assert "weights" in problem
    words = (
        "from transformers import AutoTokenizer\nt = AutoTokenizer.from_pretrained('')"
    )
    assert broken(with_package("transformers", words)) == []
    config = "from transformers import BertConfig\nc = BertConfig()"
    assert broken(with_package("transformers", config)) == []


def test_columns_of_a_benchmark_table(broken):
    row = "{'model': 1, 'backend': 2, 'shape': 3, 'latency_msec': 4}"
    [problem] = broken(cells(f"row = {row}"))
    assert problem.startswith("45: The column 'latency_msec'")
    assert "'latency_ms'" in problem
    words = "'model backend precision peak_memory_MB'.split()"
    [problem] = broken(cells(f"row = {words}"))
    assert "Write 'peak_memory_mb'" in problem
    keywords = "row = dict(model=1, backend=2, speedup=3, compile_sec=4)"
    [problem] = broken(cells(keywords))
    assert "Write 'compile_s'" in problem
    [problem] = broken(cells("t = {}\nt['latency_mss']"))
    assert "Write 'latency_ms'" in problem
    [problem] = broken(cells("t = {}\nt.latncy_ms"))
    assert "Write 'latency_ms'" in problem
    for fine in [
        "t.compile",
        "{'model': 1, 'error': 2, 'errors': 3}",
        "t['latency_ms']",
        "t['name']",
    ]:
        assert broken(cells(f"t = {{}}\nrow = {fine}")) == []


def test_a_column_under_another_name(broken):
    ours = "results = 1\nt = results\n"
    code = "t.rename(columns={'latency_ms': 'latency'})"
    [problem] = broken(cells(ours + code))
    assert "'latency_ms' of the benchmark table gets another name" in problem
    assert broken(cells(f"{ours}t.rename(columns={{'name': 'engine'}})")) == []
    assert broken(cells("t = {}\n" + code)) == []


def test_a_benchmark_table_without_the_ruler(broken):
    columns = "model backend precision shape latency_ms speedup compile_s"
    [problem] = broken(cells(f"row = {columns.split()}"))
    assert "benchmark table of its own making" in problem
    assert "python -m gallery ruler x" in problem


TRT = "import torch_tensorrt\n"
LINE = "\nprint('relative error 1, allowed 2, another input 3')"
HEAD = "import torch\nimport torch_tensorrt as trt\n"


@pytest.mark.parametrize(
    "code",
    [
        "trt.dynamo.compile(1, fast=1)",
        "trt.compile(1, ir='dynamo', fast=1)",
        "trt.dynamo.compile(1, **dict(fast=1))",
        "trt.dynamo.compile(1, **{'fast': 1})",
        "o = {'fast': 1}\ntrt.dynamo.compile(1, **o)",
        "o = {'fast': 1}\np = {**o}\ntrt.dynamo.compile(1, **p)",
        "o = dict(min_block_size=1)\no['fast'] = 1\ntrt.dynamo.compile(1, **o)",
        "o = {}\no.update(fast=1)\ntrt.dynamo.compile(1, **o)",
        "o = {}\no.update({'fast': 1})\ntrt.dynamo.compile(1, **o)",
        "o = {}\no.setdefault('fast', 1)\ntrt.dynamo.compile(1, **o)",
        "o = {}\no |= {'fast': 1}\ntrt.dynamo.compile(1, **o)",
        "o = {}\ntrt.dynamo.compile(1, **(o | {'fast': 1}))",
        "o = {'fast': 1} if trt else {}\ntrt.dynamo.compile(1, **o)",
        "trt.dynamo.compile(1, **({'fast': 1} if trt else {}))",
        "o = {} or {'fast': 1}\ntrt.dynamo.compile(1, **o)",
        "for o in ({'fast': 1}, {}):\n    trt.dynamo.compile(1, **o)",
        "a = [{'fast': 1}]\nfor o in a:\n    trt.dynamo.compile(1, **o)",
        "a = {'x': {'fast': 1}}\ntrt.dynamo.compile(1, **a['x'])",
        "a = {'x': {'fast': 1}}\nfor n, o in a.items():\n    trt.compile(1, **o)",
        "a = [('x', {'fast': 1})]\nfor n, o in a:\n    trt.dynamo.compile(1, **o)",
        "a = dict(x=dict(fast=1))\nfor o in a.values():\n    trt.compile(1, **o)",
        "def o():\n    return {'fast': 1}\n\n\ntrt.dynamo.compile(1, **o())",
        "o = {'fast': 1}\ntrt.dynamo.compile(1, **o.copy())",
        "a, o = 1, {'fast': 1}\ntrt.dynamo.compile(1, **o)",
        "def f(**o):\n    trt.dynamo.compile(1, **o)\n\n\nf(fast=1)",
        "def f(x, **o):\n    trt.dynamo.compile(x, **o)\n\n\nf(1, **{'fast': 1})",
        "def f(o):\n    trt.dynamo.compile(1, **o)\n\n\nf({'fast': 1})",
        "def f(o):\n    trt.dynamo.compile(1, **o)\n\n\nf(o={'fast': 1})",
        "def f(o):\n    trt.compile(1, **(o | {'dryrun': 1}))\n\n\nf({'fast': 1})",
        "def f(**o):\n    g(**o)\n\n\ndef g(**p):\n    trt.dynamo.compile(1, **p)\n\n\n"
        "f(fast=1)",
        "torch.compile(1, backend='tensorrt', options={'fast': 1})",
        "torch.compile(1, backend='torch_tensorrt', options=dict(fast=1))",
        "o = {'fast': 1}\ntorch.compile(1, backend='tensorrt', options=o)",
        "import functools\nfunctools.partial(trt.dynamo.compile, fast=1)",
        "from functools import partial\npartial(trt.dynamo.compile, fast=1)",
        "trt.dynamo.compile(1, **{k: 1 for k in ('fast', 'dryrun')})",
        "trt.dynamo.compile(1, **{'fast': k for k in (1,)})",
        "trt.dynamo.compile(1, **{k: v for k, v in {'fast': 1, **{}}.items()})",
        "import copy\no = {'fast': 1}\ntrt.dynamo.compile(1, **copy.deepcopy(o))",
        "import copy\no = {'fast': 1}\ntrt.dynamo.compile(1, **copy.copy(o))",
        "o = {'dryrun': 1}\ntrt.dynamo.compile(1, **dict(o, **{'fast': 1}))",
        "trt.dynamo.compile(1, **dict({'fast': 1}, dryrun=1))",
        "trt.dynamo.compile(1, **dict(fast=1, **{'dryrun': 1}))",
        "trt.dynamo.compile(1, **{'fast': 1, **{'dryrun': 1}})",
        "trt.dynamo.compile(1, **({'fast': 1} | {'dryrun': 1}))",
        "o = {}\no.update(fast=1)\no.update(dryrun=1)\ntrt.dynamo.compile(1, **o)",
        "o = {}\no.update({'fast': 1})\no.update({})\ntrt.dynamo.compile(1, **o)",
        "o = {}\no.update(**{'fast': 1})\ntrt.dynamo.compile(1, **o)",
        "o = {}\no.setdefault('fast', 1)\no.setdefault('dryrun', 1)\n"
        "trt.dynamo.compile(1, **o)",
        "o = {'fast': 1}\n\n\ndef f():\n    trt.dynamo.compile(1, **o)",
        "o = {}\n\n\ndef f():\n    o['fast'] = 1\n\n\ntrt.dynamo.compile(1, **o)",
        "o: dict = {'fast': 1}\ntrt.dynamo.compile(1, **o)",
        "if o := {'fast': 1}:\n    trt.dynamo.compile(1, **o)",
        "trt.dynamo.compile(1, **(o := {'fast': 1}))",
        "a = [{'fast': 1}] if trt else []\nfor o in a:\n    trt.compile(1, **o)",
        "def f(a, o, b):\n    trt.dynamo.compile(a, **o)\n\n\nf(1, {'fast': 1}, {})",
        "def f(o):\n    trt.dynamo.compile(1, **o)\n\n\nf({'fast': 1})\nf(o={})",
        "def f(o):\n    trt.dynamo.compile(1, **o)\n\n\nf(o={'fast': 1})\nf({})",
        "def f(o):\n    g(o)\n\n\ndef g(p):\n    trt.dynamo.compile(1, **p)\n\n\n"
        "f({'fast': 1})",
        "def f(o):\n    g(p=o)\n\n\ndef g(p):\n    trt.dynamo.compile(1, **p)\n\n\n"
        "f({'fast': 1})",
        "def f(*, o):\n    trt.dynamo.compile(1, **o)\n\n\nf(o={'fast': 1})",
        "def f(p, **o):\n    trt.dynamo.compile(p, **(p | o))\n\n\nf({}, fast=1)",
        "from torch_tensorrt.dynamo import compile as build\nbuild(1, fast=1)",
        "from torch_tensorrt.dynamo import CompilationSettings as S\nS(fast=1)",
        "trt.Input(fast=1)",
        "trt.runtime.enable_cudagraphs(1, fast=1)",
    ],
)
def test_an_unknown_option_is_found_however_it_is_put(broken, code):
    found = broken(cells(HEAD + code + LINE))
    assert len(found) == 1, found
    assert "has no option 'fast'" in found[0]


@pytest.mark.parametrize(
    "code",
    [
        "o = dict(debug=1, fast=2)\nprint(o)",
        "def f(**o):\n    return o\n\n\nf(fast=1, debug=True)",
        "torch.compile(1, options={'epilogue_fusion': True})",
        "trt.dynamo.compile(1, min_block_size=1, dryrun=True)",
        "o = {'a': {'min_block_size': 1}}\ntrt.dynamo.compile(1, **o['a'])",
        "def f(x, fast=1, **o):\n    trt.dynamo.compile(x, **o)\n\n\nf(1, fast=2)",
        "def f():\n    o = {'fast': 1}\n    return o\n\n\n"
        "o = {'dryrun': 1}\ntrt.dynamo.compile(1, **o)",
        "# On purpose: an unknown word is dropped.\ntrt.dynamo.compile(1, fast=1)",
        "trt.dynamo.compile(1, debug=1)  # On purpose: it does nothing.",
        "a = [a for a in (1, 2)]\nb = [b for a in a for b in a]\ntrt.Input(shape=b)",
        "o = {}\no = {**o}\ntrt.dynamo.compile(1, **o)",
        "a = [{}]\na = a[0]\nfor o in a:\n    trt.dynamo.compile(1, **o)",
        "a = []\na = [*a, a[0]]\nfor o in a:\n    trt.dynamo.compile(1, **o)",
        "def f(x, **o):\n    trt.dynamo.compile(x, **o)\n\n\nf({'fast': 1})",
        "def f(o, p):\n    trt.dynamo.compile(1, **o)\n\n\nf({}, {'fast': 1})",
        "def f(o, p):\n    trt.dynamo.compile(1, **o)\n\n\nf({}, p={'fast': 1})",
        "def f(**o):\n    f(**o)\n    trt.dynamo.compile(1, **o)\n\n\nf(dryrun=1)",
        "def f(o):\n    trt.dynamo.compile(1, **o)\n\n\nprint({'fast': 1})",
        "trt.Input.from_tensor({'fast': 1})",
        "o = {'fast': 1}\ntrt.dynamo.compile(1, **o.pop('fast'))",
    ],
)
def test_words_that_are_no_unknown_options(broken, code):
    assert broken(cells(HEAD + code + LINE)) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("trt.compile(1, enabled_precisions={1})", "'enabled_precisions' is gone"),
        ("print({'use_explicit_typing': 1})", "'use_explicit_typing' is gone"),
        ("o = {}\no['truncate_long_and_double'] = 1", "Write truncate_double"),
        ("print(dict(use_python_runtime=1))", "'use_python_runtime' is gone"),
        ("trt.compile(1, ir='dynamo', debug=True)", "dynamo.Debugger"),
        ("trt.dynamo.compile(1, refit=True)", "immutable_weights=False"),
        ("trt.dynamo.compile(1, min_blok_size=1)", "Did you mean min_block_size?"),
        ("trt.dynamo.compil(1)", "no 'compil' in torch_tensorrt.dynamo. Did you mean"),
        ("from torch_tensorrt.dynamo import wonder", "has no 'wonder' in torch_tensor"),
        ("import torchvision\ntorchvision.models.vgg16(pretrained=1)", 'weights="DEF'),
    ],
)
def test_options_and_names_of_the_past(broken, code, message):
    text = cells(HEAD + code + LINE + "\nprint('Weights: random')")
    found = broken(text.replace("pip install", "pip install torchvision", 1))
    assert len(found) == 1, found
    assert message in found[0]


def test_private_names_that_are_named_so(broken):
    code = "import torch._inductor.config"
    assert len(broken(cells(code))) == 1
    assert broken(cells(code + "  # private, seen in 2.14")) == []
    assert (
        broken(cells(code).replace("# Text.\n\nimport", "# Private.\n\nimport")) == []
    )
    assert broken(cells("import torch\ntorch._dynamo.mark_dynamic(1, 0)")) == []
    assert broken(cells("class A:\n    def f(self):\n        self._x = 1")) == []


@pytest.mark.parametrize(
    "code",
    [
        "print(repr(plt)[6:])",
        "print(f'{plt}'[:-1])",
    ],
)
def test_slices_of_what_an_object_prints(broken, code):
    assert len(broken(cells(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "print(f'{plt} and more'[6:])",
        "print('words'[6:])",
        "print(plt.name[6:])",
        "print(f'{plt}'[0])",
        "a = print\nprint(a(1)[6:])",
    ],
)
def test_slices_that_are_none_of_those(broken, code):
    assert broken(cells(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "print(True)",
        "print('right', True, 1)",
        "print(f'right: {True}')",
        "ok = True\nprint(ok)",
        "ok = True and True\nprint(ok)",
        "ok = all([True for i in (1, 2)])\nprint(ok)",
        "def f():\n    return True\n\n\nprint(f())",
        "def f():\n    return True\n\n\nok = f()\nprint(f'{ok}')",
    ],
)
def test_a_truth_that_is_always_one(broken, code):
    [problem] = broken(cells(code))
    assert "always True here" in problem


@pytest.mark.parametrize(
    "code",
    [
        "print(False, 1, 'True')",
        "ok = plt.isinteractive()\nprint(ok)",
        "ok = True\nok = plt.isinteractive()\nprint(ok)",
        "ok = True and plt.isinteractive()\nprint(ok)",
        "ok = all(plt.x(i) for i in (1, 2))\nprint(ok)",
        "ok = all([True])\nprint(ok)",
        "def f():\n    return plt\n\n\nprint(f())",
        "def f(x):\n    if x:\n        return plt\n    return True\n\n\nprint(f(1))",
        "def f():\n    return\n\n\nprint(f())",
        "a, b = True, plt\nprint(b)",
        "x = 1\nprint(x)\nassert x",
        "plt.print(True)",
        "for ok in (True,):\n    print(ok)",
    ],
)
def test_a_truth_that_can_be_false(broken, code):
    assert broken(cells(code)) == []


def test_the_ruler_counts_for_nothing(broken):
    script = MEASURES.replace("\ntable.round(3)", "\nx = 1" * 300 + "\ntable.round(3)")
    assert not any("at most 450" in problem for problem in broken(script))


@pytest.mark.parametrize(
    ("text", "is_counted"),
    [
        ("x = '''" + "print(1)\n" * 450 + "'''\n", False),
        ("x = 1\nx = f'''{x}" + "print(1)\n" * 450 + "'''\n", False),
        ("class A:\n    '''Text.'''\n    x = 1\n\n\n" * 200, False),
        ("x = [\n" + "    1,\n" * 450 + "]\n", True),
    ],
)
def test_the_text_of_a_program_counts_for_nothing(broken, text, is_counted):
    problems = broken(GOOD.replace("plt.show()", f"plt.show()\n{text}"))
    assert any("at most 450" in problem for problem in problems) is is_counted


def test_messages_name_the_file_and_the_line(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(GOOD.replace("# - One.", "# - It takes 3 ms."))
    [message] = messages(read_script(path))
    assert message.startswith(f"{path}:{line_of(path.read_text(), '3 ms')}: A figure")


SPOKEN = Path(__file__).with_name("contract_messages.txt")
MORE = [
    cells(COMPILES),
    cells("row = 'model backend precision shape latency_ms speedup error'.split()"),
    cells("row = {'model': 1, 'backend': 2, 'shape': 3, 'latency_msec': 4}"),
    cells("t = {}\n\nt['latency_mss']"),
    MEASURES.replace(
        "# %%\n# Is it right?", f"# %%\n# Again.\n\n{MARKER}\n\n# %%\n# Is it"
    ),
    cells(GPU + "x = 1", "print(x, later, never)", "later = 1"),
    cells("import torchvision\ntorchvision.models.resnet18(pretrained=True)"),
    cells(HEAD + "trt.dynamo.compile(1, min_blok_size=1, zzz=2, debug=3)" + LINE),
    cells(HEAD + "trt.compile(1, enabled_precisions=1)\ntrt.compil()" + LINE),
    MEASURES.replace("MIB = 2**20", "MIB = 2**21"),
    MEASURES.replace("# How this page measures\n", "# How that is measured  \n"),
    MEASURES.replace("\ntable.round(3)\n", "\n"),
    MEASURES.replace("\nplot_ready(table)\n", "\n"),
    MEASURES.replace("\ntable.round(3)\n", "\ntable['x'] = 3\ntable.round(3)\n"),
    MEASURES.replace(":recorded:`", ":doc:`"),
]


def spoken() -> str:
    """Every message of the contract, as an author reads it."""
    found = []
    rules = HEADER + HEADINGS + CODE + MARKERS + PROSE
    texts = [GOOD.replace(old, new, 1) for old, new, _, _ in rules]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.py"
        for text in texts + MORE:
            path.write_text(text)
            measures = MARKER in text  # lines move with the ruler
            found += [
                p.text if measures else f"{p.line}: {p.text}"
                for p in problems(read_script(path))
            ]
            found.append("")
    return "\n".join(found)


def test_messages_read_as_they_are_written_down():
    """After a change of words on purpose: python -m tests.test_contract."""
    assert spoken() == SPOKEN.read_text()


def test_the_command_tells_everything_at_once_and_needs_no_stack(project, tiny):
    good = project / "examples/dynamo/good.py"
    good.write_text(GOOD)
    (project / "examples/dynamo/broken.py").write_text("x = (\n")
    # Whatever is installed: torch and torch_tensorrt cannot be imported here.
    for name in ("torch", "torch_tensorrt", "tensorrt"):
        (project / f"{name}.py").write_text("raise ImportError('not in this test')")
    done = run_gallery(project, "check", "good")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 tutorial checked: no problems.\n"
    done = run_gallery(project, "check")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("examples/dynamo/broken.py:1: broken.py is not valid")
    assert any(line.startswith("examples/dynamo/tiny.py:1: ") for line in lines)
    assert lines[-1] == f"3 tutorials checked: {len(lines) - 1} to mend."
    done = run_gallery(project, "check", "goood")
    assert done.returncode == 1
    assert "Did you mean good?" in done.stdout + done.stderr


LISTED = """
import torch
from gallery import no_gpu
if not torch.cuda.is_available():
    no_gpu.let_import()
from gallery.contract.installed import as_json, installed
import sys
sys.stdout = open(sys.argv[1], "w")
print(as_json(installed()), end="")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None,
    reason="torch_tensorrt is not installed",
)
def test_the_options_are_those_of_the_installed_library(tmp_path):
    subprocess.run(
        [sys.executable, "-c", LISTED, str(tmp_path / "options.json")],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert (tmp_path / "options.json").read_text() == OPTIONS.read_text()


if __name__ == "__main__":
    SPOKEN.write_text(spoken())


CLOCK = "import time\n\n\ndef taken():\n    return time.perf_counter()\n\n\n"


@pytest.mark.parametrize(
    "code",
    [
        "import time\n\nprint(time.perf_counter())",
        CLOCK + "print(taken())",
        CLOCK + "def twice():\n    return 2 * taken()\n\n\nx = twice()\nprint(x)",
        "import torch\n\nprint(torch.cuda.mem_get_info()[0])",
    ],
)
def test_a_cell_that_prints_what_a_clock_says(broken, code):
    marked = GOOD.replace(
        "# %%\n# A figure.", f"# %%\n# Varies.\n\n{{}}{code}\n\n# %%\n# A figure."
    )
    told = "prints what a clock or the memory says"
    assert any(told in message for message in broken(marked.format("")))
    says = "# Output varies: a clock.\n"
    assert not any(told in message for message in broken(marked.format(says)))


def test_a_cell_that_only_defines_a_clock_or_only_prints(broken):
    code = CLOCK + "print('no clock was asked')"
    text = GOOD.replace(
        "# %%\n# A figure.", f"# %%\n# Fine.\n\n{code}\n\n# %%\n# A figure."
    )
    assert not any("clock or the memory" in message for message in broken(text))
