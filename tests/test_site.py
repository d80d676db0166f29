"""The built site: replayed outputs, provenance, downloads, staleness, settings."""

import base64
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import nbformat
import pytest

from tests.conftest import (
    ROOT,
    build_site,
    change_facts,
    make_project,
    recordings,
)


def _page(project, name="tutorials/dynamo/tiny"):
    return (project / f"site/{name}.html").read_text()


@pytest.fixture
def built(recorded):
    done = build_site(recorded)
    assert done.returncode == 0, done.stderr
    return recorded


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory, executed) -> Path:
    """The recorded project and its site, for tests that change neither."""
    project = make_project(tmp_path_factory.mktemp("looked_at"))
    shutil.copy(executed, recordings(project))
    done = build_site(project)
    assert done.returncode == 0, done.stderr
    return project


def test_the_page_holds_outputs_below_their_code(looked_at):
    page = _page(looked_at)
    code, text, table, figure = (
        page.index("the sum is"),
        page.index("the sum is 2"),
        page.index('class="dataframe"'),
        page.index('recorded-figure"'),
    )
    assert code < text < table < figure
    assert "Traceback" not in page


def test_there_is_one_index(looked_at):
    site = looked_at / "site"
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    indexes = {str(p.relative_to(site)) for p in pages if p.name == "index.html"}
    assert indexes == {"index.html", "tutorials/index.html"}


def test_the_page_says_where_its_numbers_come_from(looked_at):
    page = _page(looked_at)
    for fact in ("Recorded on Test GPU", "1.2.3", "random", "tags: tiny, test"):
        assert fact.lower() in page.lower()
    assert "TensorRT-RTX is made for RTX GPUs" in page
    assert "Seal" in page
    # What a search result or a preview shows of the page.
    assert '<meta name="description" content="It shows a text, a table' in page


def test_pictures_and_downloads_are_the_recorded_ones(looked_at):
    notebook = nbformat.read(recordings(looked_at) / "tiny.ipynb", as_version=4)
    [png] = [
        base64.b64decode(out.data["image/png"])
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if "image/png" in out.get("data", {})
    ]
    shown = list((looked_at / "site/_images").glob("recorded_tiny_001.png"))
    assert [path.read_bytes() for path in shown] == [png]
    assert "thumb_tiny.png" in _page(looked_at, "tutorials/index")
    [path] = (looked_at / "site/_downloads").glob("*/tiny.ipynb")
    downloaded = nbformat.read(path, as_version=4)
    nbformat.validate(downloaded)
    assert "the sum is 2" in nbformat.writes(downloaded)
    assert "Test GPU" in downloaded.cells[1].source
    # JupyterLab and VS Code have no view for pandas' own kind of table.
    assert "vnd.dataresource" not in path.read_text()
    [path] = (looked_at / "site/_downloads").glob("*/tiny.zip")
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["tiny.ipynb", "tiny.py"]
        assert b"the sum is 2" in archive.read("tiny.ipynb")
    everything = looked_at / "docs/tutorials/downloads/all_notebooks.zip"
    with zipfile.ZipFile(everything) as archive:
        assert archive.namelist() == ["dynamo/tiny.ipynb"]


def test_changed_code_is_told_and_what_follows_is_withdrawn(recorded):
    script = recorded / "examples/dynamo/tiny.py"
    text = script.read_text().replace("A cell prints.", "New prose.")
    script.write_text(text.replace("time.time()", "time.time() + 1"))
    assert build_site(recorded).returncode == 0
    page = _page(recorded)
    assert "New prose." in page
    assert "This recording is stale" in page
    assert "the sum is 2" in page
    assert 'class="dataframe"' not in page
    assert "recorded-figure" not in page
    [path] = (recorded / "site/_downloads").glob("*/tiny.ipynb")
    assert "New prose." in path.read_text()


def test_other_versions_are_told_and_outputs_stay(recorded):
    pins = recorded / "requirements-stack.txt"
    pins.write_text(re.sub("torch==.*", "torch==2.99.0", pins.read_text(), count=1))
    assert build_site(recorded).returncode == 0
    page = _page(recorded)
    assert "Recorded with other versions" in page
    assert "2.99.0" in page
    assert "the sum is 2" in page


def test_a_page_without_recording_says_so(project):
    assert build_site(project).returncode == 0
    page = _page(project)
    assert "Not recorded yet" in page
    assert "sphx-glr-script-out" not in page
    assert "thumb_tiny" not in _page(project, "tutorials/index")


def test_a_rebuild_reads_what_changed_and_nothing_else(built):
    pages = {
        path: path.stat().st_mtime_ns for path in (built / "site").glob("**/*.html")
    }
    time.sleep(0.01)
    assert build_site(built).returncode == 0
    rewritten = {p.name for p, then in pages.items() if p.stat().st_mtime_ns != then}
    assert rewritten <= {"search.html", "genindex.html"}  # Sphinx writes these always
    assert "not recorded yet" not in _page(built, "tutorials/index")
    (recordings(built) / "tiny.ipynb").unlink()
    assert build_site(built).returncode == 0
    assert "Not recorded yet" in _page(built)
    assert "not recorded yet" in _page(built, "tutorials/index")


def test_a_renamed_tutorial_leaves_nothing_that_breaks_the_build(built):
    script = built / "examples/dynamo/tiny.py"
    script.rename(script.with_name("renamed.py"))
    done = build_site(built)
    assert done.returncode == 0, done.stderr
    assert "Not recorded yet" in _page(built, "tutorials/dynamo/renamed")
    assert "renamed.html" in _page(built, "tutorials/index")
    assert "tiny.html" not in _page(built, "tutorials/index")
    assert not (built / "docs/tutorials/dynamo/tiny.rst").exists()
    assert not (built / "site/tutorials/dynamo/tiny.html").exists()


def test_a_moved_tutorial_leaves_nothing_that_breaks_the_build(built, tiny):
    other = tiny.parent.with_name("other")
    other.mkdir()
    shutil.copy(tiny.with_name("GALLERY_HEADER.rst"), other)
    tiny.rename(other / "tiny.py")
    done = build_site(built)
    assert done.returncode == 0, done.stderr
    assert "the sum is 2" in _page(built, "tutorials/other/tiny")
    assert not (built / "docs/tutorials/dynamo/tiny.rst").exists()


def test_programs_beside_a_tutorial_are_linked_and_zipped(recorded):
    folder = recorded / "examples/triton"
    shutil.copytree(recorded / "examples/dynamo", folder)
    (folder / "tiny.py").rename(folder / "served.py")
    (folder / "client.py").write_text("print('a client')\n")
    done = build_site(recorded)
    assert done.returncode == 0, done.stderr
    page = _page(recorded, "tutorials/triton/served")
    assert re.search(r'href="[^"]*/client\.py"', page)
    [path] = (recorded / "site/_downloads").glob("*/served.zip")
    with zipfile.ZipFile(path) as archive:
        assert "client.py" in archive.namelist()
    assert "client.py" not in _page(recorded)


PLAIN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("folder", "locale"), [("my check-öut", {}), ("my checkout", PLAIN_LOCALE)]
)
def test_a_checkout_anywhere_in_any_locale(tmp_path, executed, folder, locale):
    project = make_project(tmp_path / folder)
    shutil.copy(executed, recordings(project))
    done = build_site(project, env={**os.environ, **locale})
    assert done.returncode == 0, done.stderr
    assert "the sum is 2" in _page(project)


QUOTED = "\n\nIt is :recorded:`tiny:total`.\n"


def test_other_pages_quote_recorded_values(recorded):
    results = recorded / "docs/results.rst"
    results.write_text("Results\n=======\n" + QUOTED)
    done = build_site(recorded)
    assert done.returncode != 0
    assert "results.rst, line 5: :recorded:`tiny:total`: no cell" in done.stderr
    script = recorded / "examples/dynamo/tiny.py"
    script.write_text(script.read_text().replace('print("the', '# New.\nprint("The'))
    assert build_site(recorded).returncode == 0
    assert "It is (not recorded)." in _page(recorded, "results")


def test_settings_of_the_site_bring_links_and_a_sitemap(recorded, looked_at):
    assert "Edit this page" not in _page(looked_at)
    conf = (
        'gallery_repository = "https://github.com/a/b"\nhtml_baseurl = "https://x.org/"'
    )
    shutil.copy(ROOT / "docs/404.rst", recorded / "docs")
    with (recorded / "conf.py").open("a") as file:
        file.write(f"\n{conf}\n")
    done = build_site(recorded)
    assert done.returncode == 0, done.stderr
    page = _page(recorded)
    for address in (
        "https://github.com/a/b/edit/main/examples/dynamo/tiny.py",
        "https://github.com/a/b/issues/new",
        "https://colab.research.google.com/github/a/b/blob/main/recordings/h100-rtx/tiny",
        'rel="canonical" href="https://x.org/tutorials/dynamo/tiny.html"',
    ):
        assert address in page
    # It is shown at any address, where relative links would lead nowhere.
    assert '<base href="https://x.org/"' in (recorded / "site/404.html").read_text()
    sitemap = (recorded / "site/sitemap.xml").read_text()
    assert "<loc>https://x.org/tutorials/dynamo/tiny.html</loc>" in sitemap


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "recordings/h100-rtx/tiny.ipynb",
            "{",
            "tiny.ipynb is broken: it is not valid JSON",
        ),
        ("examples/dynamo/other.py", "print(1)\n", "other.py has no title"),
        ("docs/path.toml", "[[section]]\n", "path.toml cannot be read"),
        (
            "docs/path.toml",
            '[[section]]\ntitle="A"\ntext="B"\n'
            'tutorials=[{name="tiny", level="guru"}]\n',
            "tiny has the level 'guru'",
        ),
    ],
)
def test_bad_input_fails_the_build_with_one_message(recorded, file, text, message):
    (recorded / file).write_text(text)
    done = build_site(recorded)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_machine_says_of_itself_is_no_markup(recorded):
    change_facts(
        recordings(recorded) / "tiny.ipynb",
        lambda facts: facts.update(
            gpu="GPU_ *x |y|", driver="`1_", caveats=["See [the_list_: *all"]
        ),
    )
    done = build_site(recorded)
    assert done.returncode == 0, done.stderr
    page = _page(recorded)
    for text in ("Recorded on GPU_ *x |y| with", "`1_", "See [the_list_: *all"):
        assert text in page


ODD = {
    "spaces": ("===============\n", "===============  \n"),
    "chinese": (
        "A tiny tutorial\n===============",
        "用 TensorRT 加速\n====================",
    ),
    "markup": (
        "It shows a text, a table and a figure.",
        "It shows `RTX`_ and |rtx|.\n\n.. _RTX: https://example.org/\n"
        ".. |rtx| replace:: RTX GPUs",
    ),
}


def test_odd_but_valid_scripts_become_pages_and_cards(recorded, tiny):
    folder = recordings(recorded)
    for name, (old, new) in ODD.items():
        assert old in tiny.read_text()
        tiny.with_name(f"{name}.py").write_text(tiny.read_text().replace(old, new, 1))
        shutil.copy(folder / "tiny.ipynb", folder / f"{name}.ipynb")
    done = build_site(recorded)
    assert done.returncode == 0, done.stderr
    index = _page(recorded, "tutorials/index")
    for name in ODD:
        assert "Recorded on Test GPU" in _page(recorded, f"tutorials/dynamo/{name}")
        assert f"{name}.html" in index
    assert "用 TensorRT 加速" in index
    assert "It shows RTX and RTX GPUs." in index
