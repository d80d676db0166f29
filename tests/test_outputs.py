"""Recorded outputs on pages: kinds, order, pictures and their alternative texts."""

import base64
import io
import re

import nbformat
import pandas as pd
import pytest
from PIL import Image

from gallery.errors import GalleryError
from gallery.files import (
    chosen,
    notebook_bytes,
    place,
    with_outputs,
    write_thumbnail,
)
from gallery.outputs import show
from gallery.replay import replay
from gallery.write_ruler import MARKER
from tests.made import PNG, benchmark_rows, changed, display, made, stream, table

SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'
ONE_CELL = "# %%\n# How fast\n# --------\n# Text.\nprint(1)\n"


def rst(tutorial) -> str:
    return "\n".join(show(tutorial).cells)


def test_outputs_keep_their_order(tmp_path):
    shown = [stream("before\n"), display(image_png=PNG), stream("after\n")]
    shown.append(display(image_png=PNG))
    text = rst(made(tmp_path, ONE_CELL, shown))
    found = re.findall(r"before|after|recorded_made_\d+\.png", text)
    pictures = ["recorded_made_001.png", "recorded_made_002.png"]
    assert found == ["before", pictures[0], "after", pictures[1]]


def test_what_libraries_log_for_their_developers_is_not_shown(tmp_path):
    log = "W1126 15:11:22.641000 1163 torch/_opaque_base.py:6] is deprecated\n"
    log += "WARNING:torch_tensorrt [TensorRT Conversion Context]:WARNING a hint\n"
    said = "ERROR:torch_tensorrt [TensorRT Conversion Context]:a refusal\n"
    outputs = [stream(text) for text in (log, log + said, log)]
    outputs[0].name = outputs[1].name = "stderr"
    tutorial = made(tmp_path, ONE_CELL, outputs)
    text = rst(tutorial)
    assert text.count("a hint") == 1, "a program's own output is shown as it is"
    assert "a refusal" in text
    assert len(tutorial.outputs[0]) == 2


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [
        ({"text_html": "<i>word</i>"}, "<i>word</i>"),
        ({"text_markdown": "**word**\n\n|a|\n|-|\n|b|"}, "<strong>word</strong>"),
        ({"text_latex": "$x^2$"}, "<msup>"),
        ({"imagePLUS": ""}, None),
        ({"image_jpeg": PNG}, "recorded_made_001.jpg"),
        ({"text_plain": "42"}, "42"),
    ],
)
def test_every_kind_of_output_is_seen(tmp_path, kinds, seen):
    if seen is None:
        output = display()
        output.data["image/svg+xml"] = SVG
        seen = "recorded_made_001.svg"
    else:
        output = display(**{"text_plain": "<an object>", **kinds})
    tutorial = made(tmp_path, ONE_CELL, [output])
    assert seen in rst(tutorial)
    assert "&lt;an object" not in rst(tutorial)


def test_a_kind_that_pages_cannot_show_fails_with_script_and_line(tmp_path):
    output = display(application_json="{}", text_plain="<IPython.JSON object>")
    message = r"made\.py, line \d+: .*cannot show.*application/json"
    with pytest.raises(GalleryError, match=message):
        show(made(tmp_path, ONE_CELL, [output]))


def test_latex_that_is_no_formula_fails(tmp_path):
    output = display(text_latex="see $x$ and $y$")
    with pytest.raises(GalleryError, match="one formula between"):
        show(made(tmp_path, ONE_CELL, [output]))


def test_other_tables_have_no_row_numbers_and_no_nan(tmp_path):
    frame = pd.DataFrame({"way": ["a", "b"], "s": [1.5, None]})
    numbered = rst(made(tmp_path, ONE_CELL, [table(frame)], name="numbered"))
    assert "<td>a</td>" in numbered
    assert "<th>0</th>" not in numbered
    assert "NaN" not in numbered
    named = rst(made(tmp_path, ONE_CELL, [table(frame.set_index("way"))], name="named"))
    assert "<th>a</th>" in named


def test_a_table_whose_columns_have_a_name_has_a_heading_for_each_column(tmp_path):
    frame = pd.DataFrame({"way": ["first"], "ms": [1.5]})
    shown = rst(made(tmp_path, ONE_CELL, [table(frame.rename_axis(columns="kernel"))]))
    head, body = shown.split("<tbody>")
    assert re.findall("<th>(.*?)</th>", head) == ["way", "ms"]
    assert re.findall("<td>(.*?)</td>", body) == ["first", "1.5"]


def test_notebooks_show_tables_as_pages_do(tmp_path):
    rows = benchmark_rows(("eager", 2.0, 0.5), ("TensorRT, CUDA graph", 0.8, 1.25))
    other = pd.DataFrame({"way": ["a"], "s": [None]})
    tutorial = made(tmp_path, ONE_CELL, [table(rows), table(other)])
    cells = [c for c in with_outputs(tutorial).cells if c.cell_type == "code"]
    benchmark, kernels = [out.data["text/html"] for out in cells[0].outputs]
    assert "<caption>net, float16, 1x3</caption>" in benchmark
    assert re.findall("<b>(.*?)</b>", benchmark)[:3] == [
        "TensorRT, CUDA graph",
        "0.800",
        "1.25",
    ]
    assert "None" not in kernels


def test_printed_text_is_no_markup_and_keeps_its_indentation(tmp_path):
    text = rst(made(tmp_path, ONE_CELL, [stream("    in\n<b> ``x`` |x| .. note::\n")]))
    assert "\n    :force:\n\n        in\n    <b> ``x`` |x| .. note::" in text


def test_a_figure_says_what_the_cell_says_of_it(tmp_path):
    cell = (
        "# %%\n# Speed\n# -----\n# Text.\n\n# Figure: TensorRT is :recorded:`faster`\n"
        "#   times as fast.\nprint('faster = 2')\n"
    )
    figures = [stream("faster = 2\n"), display(image_png=PNG), display(image_png=PNG)]
    tutorial = made(tmp_path, cell, figures)
    assert re.findall(":alt: (.*)", rst(tutorial)) == [
        "TensorRT is 2 times as fast.",
        "Speed",
    ]
    assert "# Figure:" not in notebook_bytes(tutorial).decode()


def test_a_sentence_without_its_figure_fails(tmp_path):
    cell = "# %%\n# Text.\n\n# Figure: What is not there.\nprint(1)\n"
    with pytest.raises(GalleryError, match="1 comments .* 0 figures"):
        show(made(tmp_path, cell, [stream("1\n")]))


def test_cells_with_the_same_code_keep_their_own_outputs(tmp_path):
    cells = "# %%\n# A.\nprint(n)\n\n# %%\n# B.\nprint(n)\n"
    shown = show(made(tmp_path, cells, [stream("first\n")], [stream("second\n")]))
    assert ["first" in cell for cell in shown.cells] == [True, False]
    assert ["second" in cell for cell in shown.cells] == [False, True]


ROLES = (
    "# %%\n# See :doc:`/quickstart`, :doc:`the ruler\n# <how_we_measure>`, :term:`CUDA"
    "\n# graph`, :ref:`none <nowhere>`, :func:`~torch.compile`, ``:doc:`x```.\n1\n"
)


def test_roles_in_notebooks_are_links_or_words(tmp_path):
    tutorial = made(tmp_path, ROLES, [], name="dynamo")

    def prose(address):
        return (
            with_outputs(tutorial, address).cells[2].source.replace("\n", " ").strip()
        )

    assert prose("") == (
        "See Quickstart, the ruler, CUDA graph, none, `compile`, ``:doc:`x```."
    )
    site, folder = "https://x.org", tutorial.docname.rpartition("/")[0]
    assert prose(f"{site}/") == (
        f"See [Quickstart]({site}/quickstart.html), "
        f"[the ruler]({site}/{folder}/how_we_measure.html), "
        f"[CUDA graph]({site}/glossary.html#term-CUDA-graph), none, `compile`, "
        "``:doc:`x```."
    )
    assert ":doc:`/" not in nbformat.writes(tutorial.recording.notebook)


THUMBS = ONE_CELL + "\n# sphinx_gallery_thumbnail_number = {number}\n"
RED = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAA"
    "AElFTkSuQmCC"
)


def test_a_script_chooses_its_thumbnail(tmp_path):
    figures = [display(image_png=PNG), display(image_png=RED)]
    pictures = {}
    for number in (1, 2, -1):
        text = THUMBS.format(number=number)
        tutorial = made(tmp_path / str(number), text, figures)
        pictures[number] = chosen(tutorial, show(tutorial))
    assert pictures[2] == pictures[-1] != pictures[1]


def test_a_thumbnail_that_is_not_there_fails(tmp_path):
    tutorial = made(tmp_path, THUMBS.format(number=3), [display(image_png=PNG)])
    with pytest.raises(GalleryError, match=r"made\.py.*is 3.*shows 1 figures"):
        chosen(tutorial, show(tutorial))


@pytest.mark.parametrize("size", [None, (14000, 14000)])
def test_a_figure_that_makes_no_thumbnail_is_told(tmp_path, size):
    png = io.BytesIO(b"no picture")
    if size:
        Image.new("1", size).save(png, "png")
    figure = display(image_png=base64.b64encode(png.getvalue()).decode())
    tutorial = made(tmp_path / "scripts", ONE_CELL, [figure])
    with pytest.raises(GalleryError, match=r"made\.py: the figure for its card"):
        place(tutorial, show(tutorial), tmp_path / "pages")


def test_a_card_shows_the_figure_it_was_made_of(tmp_path):
    path = tmp_path / "images" / "thumb.png"
    colors = []
    for figure in (base64.b64decode(RED), base64.b64decode(PNG)):
        write_thumbnail(path, figure)
        colors.append(Image.open(path).getpixel((0, 0)))
    assert len(set(colors)) == 2
    before = path.stat().st_mtime_ns
    write_thumbnail(path, base64.b64decode(PNG))
    assert path.stat().st_mtime_ns == before


PAGE = """
Title
=====

Description.

.. GENERATED FROM PYTHON SOURCE LINES 8-9

How this page measures

.. GENERATED FROM PYTHON SOURCE LINES {line}-20

.. code-block:: Python


    {marker}
    import time




.. GENERATED FROM PYTHON SOURCE LINES 30-31

Last
"""


def test_the_ruler_is_folded_away(tmp_path):
    cells = f"# %%\n# How this page measures\n\n{MARKER}\nimport time\n"
    tutorial = made(tmp_path, cells, [])
    [block] = [b for b in tutorial.script.blocks if b.type == "code"]
    page = replay(PAGE.format(line=block.lineno, marker=MARKER), tutorial)
    assert ".. dropdown:: The ruler\n\n   .. code-block:: pyi" in page
    assert "\n       import time\n" in page
    assert "\nLast\n" in page


def test_a_page_answers_first_and_then_says_where_that_comes_from(tmp_path):
    first = "Title\n=====\n\nDescription.\n\nAt a glance\n-----------\n\n- Fast.\n\n"
    learn = "What you will learn\n-------------------\n\n- How.\n"
    cells = f'"""\n{first}{learn}"""\n\n# %%\n# Text.\nprint(1)\n'
    page = replay(f"{first}{learn}", made(tmp_path, cells, []))
    order = ["Title", "At a glance", "Fast", ".. dropdown:: Recorded on", "What you"]
    assert sorted(order, key=page.index) == order


def test_an_output_without_a_place_fails(tmp_path):
    tutorial = made(tmp_path, ONE_CELL, [stream("1\n")])
    with pytest.raises(GalleryError, match="no place"):
        replay("Title\n=====\n\nDescription.\n", tutorial)


def test_cells_that_ran_have_a_number_and_others_none(tmp_path):
    cells = "# %%\n# A.\na = 1\n\n# %%\n# B.\nb = 2\n"
    tutorial = made(tmp_path, cells, [], [])

    def counts(tutorial):
        code = [c for c in with_outputs(tutorial).cells if c.cell_type == "code"]
        return [cell.execution_count for cell in code]

    assert counts(tutorial) == [1, 2]
    assert counts(changed(tutorial, "b = 2", "b = 3")) == [1, None]
