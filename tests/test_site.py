"""The built site: replayed outputs, provenance, downloads, staleness."""

import base64
import re
import zipfile

import nbformat
import pandas as pd
import pytest
from PIL import Image

from gallery.directives import COLUMNS, benchmark_html
from tests.conftest import build_site


def _page(project):
    return (project / "site/tutorials/dynamo/tiny.html").read_text()


@pytest.fixture
def built(recorded):
    done = build_site(recorded)
    assert done.returncode == 0, done.stderr
    return recorded


def test_the_page_holds_outputs_below_their_code(built):
    page = _page(built)
    code, text, table = (
        page.index("the sum is"),
        page.index("the sum is 2"),
        page.index('class="dataframe"'),
    )
    figure = page.index('recorded-figure"')
    assert code < text < table < figure
    assert "Traceback" not in page


def test_the_page_says_where_its_numbers_come_from(built):
    page = _page(built)
    for fact in ("Recorded on Test GPU", "1.2.3", "random", "tags: tiny, test"):
        assert fact.lower() in page.lower()
    assert "TensorRT-RTX is made for RTX GPUs" in page


def test_the_picture_is_the_recorded_one(built):
    notebook = nbformat.read(built / "recordings/tiny.ipynb", as_version=4)
    [png] = [
        base64.b64decode(out.data["image/png"])
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if "image/png" in out.get("data", {})
    ]
    shown = list((built / "site/_images").glob("recorded_tiny_001.png"))
    assert [path.read_bytes() for path in shown] == [png]
    thumbnail = Image.open(
        built / "docs/tutorials/dynamo/images/thumb/sphx_glr_tiny_thumb.png"
    )
    placeholder = Image.open(built / "docs/_static/not-recorded.png")
    assert thumbnail.convert("RGB").tobytes() != placeholder.convert("RGB").tobytes()


def test_downloads_hold_the_outputs(built):
    [path] = (built / "site/_downloads").glob("*/tiny.ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "the sum is 2" in nbformat.writes(notebook)
    [path] = (built / "site/_downloads").glob("*/tiny.zip")
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["tiny.ipynb", "tiny.py"]
        assert b"the sum is 2" in archive.read("tiny.ipynb")
    [path] = (built / "site/_downloads").glob("*/tutorials_jupyter.zip")
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("tiny.ipynb")]
        assert b"the sum is 2" in archive.read(name)


def test_prose_may_change_and_the_download_follows(recorded):
    script = recorded / "examples/dynamo/tiny.py"
    script.write_text(script.read_text().replace("A cell prints.", "New prose."))
    assert build_site(recorded).returncode == 0
    page = _page(recorded)
    assert "New prose." in page
    assert "the sum is 2" in page
    assert "stale" not in page
    [path] = (recorded / "site/_downloads").glob("*/tiny.ipynb")
    assert "New prose." in path.read_text()


def test_changed_code_is_told_and_its_output_withdrawn(recorded):
    script = recorded / "examples/dynamo/tiny.py"
    script.write_text(script.read_text().replace("1 + 1", "2 + 2"))
    assert build_site(recorded).returncode == 0
    page = _page(recorded)
    assert "This recording is stale" in page
    assert "the sum is 2" not in page
    assert "recorded-figure" in page


def test_a_page_without_recording_says_so(project):
    assert build_site(project).returncode == 0
    page = _page(project)
    assert "Not recorded yet" in page
    assert "sphx-glr-script-out" not in page


def test_what_was_not_measured_is_a_dash():
    rows = [["net", "eager", "float16", "1x3", 1.5, 1.0, None, 0.04]]
    html = benchmark_html(pd.DataFrame(rows, columns=COLUMNS))
    cells = re.findall("<td>(.*?)</td>", html)
    assert cells[4:] == ["1.500", "1.00", "-", "0.0"]


def test_a_rebuild_follows_the_recording(built):
    (built / "recordings/tiny.ipynb").unlink()
    assert build_site(built).returncode == 0
    assert "Not recorded yet" in _page(built)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("recordings/tiny.ipynb", "{", "tiny.ipynb is broken: it is not valid JSON"),
        ("examples/dynamo/other.py", "print(1)\n", "other.py has no title"),
    ],
)
def test_bad_input_fails_the_build_with_one_message(recorded, file, text, message):
    (recorded / file).write_text(text)
    done = build_site(recorded)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
