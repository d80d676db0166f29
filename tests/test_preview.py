"""A preview shows the CPU run's outputs, says what it is, and touches nothing else."""

import pytest

from gallery.author import new
from gallery.preview import NO_GPU, stand_in
from gallery.recording import load_recording
from gallery.script import read_script
from tests.conftest import run_gallery

QUOTES = '''"""
A page
======

It is :recorded:`fast` and :recorded:`sum`.
"""

print(f"sum = {1 + 1}")

# %%
# A cell for a GPU.

# Needs a GPU: it measures.
print("fast = 3")

# %%
# Another: :recorded:`fast`, :recorded:`slow`.

# Needs a GPU: it measures.
print("slow = 4")
'''


def test_cells_that_were_skipped_say_so_and_values_have_a_text(tmp_path):
    path = tmp_path / "page.py"
    path.write_text(QUOTES)
    script = read_script(path)
    notebook = script.notebook()
    stand_in(script, notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells[0].outputs == []
    assert [out.text for cell in cells[1:] for out in cell.outputs] == [
        "Not run: this cell needs a GPU.\n"
        "fast = (no GPU)\nsum = (no GPU)\nslow = (no GPU)\n",
        "Not run: this cell needs a GPU.\n",
    ]


def test_a_preview_asks_for_a_name(project):
    done = run_gallery(project, "preview")
    assert done.returncode == 1
    assert "nox -s preview -- NAME" in done.stdout


def test_a_preview_of_a_new_tutorial(recorded):
    pytest.importorskip("tensorrt_rtx")
    path = new("a_new_page", root=recorded)
    told = "# Output varies: it draws timings.\n"
    text = path.read_text()
    assert told in text
    path.write_text(text.replace(told, told + "# Figure: What it reaches.\n", 1))
    before = {
        path: path.read_bytes()
        for path in recorded.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
    done = run_gallery(recorded, "preview", "a_new_page")
    assert done.returncode == 0, done.stdout + done.stderr
    site = recorded / ".cache/preview/html"
    assert ".cache/preview/html/tutorials/dynamo/a_new_page.html" in done.stdout
    pages = list(site.rglob("*.html"))
    for page in pages:
        if "_static" not in page.parts:
            text = page.read_text()
            assert "A preview, made without a GPU" in text, page
    page = (site / "tutorials/dynamo/a_new_page.html").read_text()
    assert "relative error 0.0e+00" in page
    assert "(no GPU) times as fast" in page
    assert "Not run: this cell needs a GPU." in page
    after = {
        path: path.read_bytes()
        for path in recorded.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
    assert {p for p in after if "__pycache__" not in p.parts} <= set(before)
    assert all(after[path] == before[path] for path in after if path in before)
    kept = load_recording(
        "a_new_page", recorded / ".cache/preview/project/recordings/preview"
    )
    assert kept.provenance["gpu"] == NO_GPU


def test_no_recording_is_a_preview():
    from gallery.paths import ALL_RECORDINGS

    for path in ALL_RECORDINGS.rglob("*.ipynb"):
        assert NO_GPU not in path.read_text(), path
