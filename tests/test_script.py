"""Reading scripts: titles, cells, markers, names, and what makes code 'changed'."""

import pytest

from gallery.errors import GalleryError
from gallery.script import (
    cell_hash,
    find_scripts,
    names_made,
    needs_gpu,
    read_script,
    varies,
)
from tests.conftest import recordings


def test_reads_title_description_and_tags(tiny):
    script = read_script(tiny)
    assert script.title == "A tiny tutorial"
    assert script.description == "It shows a text, a table and a figure."
    assert script.tags == ["tiny", "test"]
    assert len(script.code_cells) == 3
    assert "sphinx_gallery" not in "".join(script.code_cells)


def test_cells_are_those_of_sphinx_gallery(recorded):
    # The site's build lets sphinx-gallery write its own notebook of the same script.
    from tests.conftest import build_site

    (recordings(recorded) / "tiny.ipynb").unlink()
    assert build_site(recorded).returncode == 0
    import nbformat

    theirs = nbformat.read(recorded / "docs/tutorials/dynamo/tiny.ipynb", as_version=4)
    ours = read_script(recorded / "examples/dynamo/tiny.py").notebook()
    assert [(c.cell_type, c.source.strip()) for c in theirs.cells] == [
        (c.cell_type, c.source.strip()) for c in ours.cells
    ]


def test_prose_does_not_change_the_hash_but_code_does(tiny):
    before = read_script(tiny).code_hash
    text = tiny.read_text()
    tiny.write_text(text.replace("A cell prints.", "This cell prints two lines."))
    assert read_script(tiny).code_hash == before
    tiny.write_text(text.replace("1 + 1", "1 + 2"))
    assert read_script(tiny).code_hash != before


SAME = [
    "x = {'a': 1}",
    "# Needs a GPU: it refits.\nx = {'a': 1}  # a comment",
    'x = {\n    "a": 1,\n}',
    "x = ({'a': (1)})",
]
OTHER = ["x = {'a': 2}", "y = {'a': 1}", "x = {'a': 1.0}", "x = {'a': True}", ""]


def test_formatting_and_comments_do_not_change_a_cells_identity():
    assert len({cell_hash(source) for source in SAME}) == 1
    assert len({cell_hash(source) for source in [SAME[0], *OTHER]}) == 1 + len(OTHER)


def test_a_semicolon_that_hides_a_value_counts():
    assert cell_hash("x") != cell_hash("x;")
    assert cell_hash("x;") == cell_hash("x ;  # shows nothing\n")
    assert cell_hash("x  # a; b") == cell_hash("x")


def test_the_identity_does_not_depend_on_pythons_version():
    # Seen with 3.10, 3.11, 3.12 and 3.13, whose own dumps of these differ.
    source = (
        "def f(x, w=2, *a): return f'{x!r:>{w}} and' f' {w=}' 'so', None\nawait f(1)"
    )
    assert cell_hash(source) == (
        "edbbf0eb60be03f0a9922cafc6db0d7e64e3ddd8e43ead38a8683a3f35840128"
    )


def test_a_cells_line_is_found_in_the_script(tiny):
    text = tiny.read_text().replace(
        "import time\n", "# sphinx_gallery_thumbnail_number = 1\n\nimport time\n"
    )
    tiny.write_text(text)
    script = read_script(tiny)
    lines = text.splitlines()
    for cell, source in enumerate(script.code_cells, 1):
        for number, line in enumerate(source.splitlines(), 1):
            if line:
                assert lines[script.line_of(cell, number) - 1] == line


def test_markers_count_only_above_the_code():
    assert needs_gpu("# Needs a GPU: it refits.\nrefit()")
    assert varies("# Needs a GPU: x.\n# Output varies: timings.\nmeasure()")
    assert not needs_gpu("print(1)\n# Needs a GPU: too late.")
    assert not varies("text = '# Output varies: in a string'")


def test_how_many_gpus_a_tutorial_takes(tiny):
    text, marker = tiny.read_text(), "# Needs two GPUs: one a rank.\n"
    varies = "# Output varies: "
    assert read_script(tiny).gpus == 1
    for begin, gpus in {
        marker + varies: 2,
        varies + "x.\n" + marker + "# ": 2,
        "# Needs two GPUs:\n" + varies: 1,
        "x = 1\n" + marker + varies: 1,
    }.items():
        tiny.write_text(text.replace(varies, begin, 1))
        assert read_script(tiny).gpus == gpus, begin


def test_variable_cells_carry_nbvals_tag(tiny):
    cells = [c for c in read_script(tiny).notebook().cells if c.cell_type == "code"]
    assert [c.metadata.get("tags") for c in cells] == [
        None,
        ["nbval-ignore-output"],
        ["nbval-ignore-output"],
    ]


def test_links_of_both_kinds_are_links_in_the_notebook(tiny):
    links = "# A cell prints, `one <https://a.b/c>`_ and `two <https://d.e/>`__."
    tiny.write_text(tiny.read_text().replace("# A cell prints.", links))
    [text] = [c.source for c in read_script(tiny).notebook().cells if "two" in c.source]
    assert "prints, [one](https://a.b/c) and [two](https://d.e/)." in text


@pytest.mark.parametrize(
    "text",
    ["print('no docstring')\n", '"""No underline."""\nprint(1)\n', "x = 1\n# %%\n"],
)
def test_a_script_without_title_is_refused(tiny, text):
    tiny.write_text(text)
    with pytest.raises(GalleryError, match=r"tiny\.py has no title.*docstring"):
        read_script(tiny)


def test_a_script_that_is_not_python_is_refused(tiny):
    tiny.write_text('"""\nTitle\n=====\n"""\nprint(\n')
    with pytest.raises(GalleryError, match=r"tiny\.py"):
        read_script(tiny)


def test_an_unknown_name_is_answered_with_those_that_exist(project):
    with pytest.raises(GalleryError, match="named 'tini'.*mean tiny.*exist: tiny"):
        find_scripts(["tini"], project / "examples")


def test_names_that_a_cell_makes():
    code = (
        "import os.path\nimport sys as system\nfrom json import loads, dumps as write\n"
        "a, (b, *c) = 1, (2, 3)\nd: int = a\nfor e in ():\n    f = g\n"
        "def h(i):\n    j = i\n\nclass K:\n    pass\n\nasync def m():\n    pass\n"
        "with open('x') as n:\n    print(n)\n"
    )
    made = {"os", "system", "loads", "write", *"abcdef", "h", "j", "K", "m", "n"}
    assert names_made(code) == made


def test_a_name_that_nothing_is_close_to(tmp_path):
    (tmp_path / "dynamo").mkdir()
    for name in ("one", "another"):
        (tmp_path / "dynamo" / f"{name}.py").write_text("")
    with pytest.raises(GalleryError) as raised:
        find_scripts(["zzz"], tmp_path)
    assert str(raised.value) == (
        "There is no tutorial named 'zzz'. These exist: another, one."
    )
    with pytest.raises(GalleryError) as raised:
        find_scripts(["examples/dynamo/onee.py"], tmp_path)
    assert str(raised.value) == (
        "There is no tutorial named 'onee'. Did you mean one? "
        "These exist: another, one."
    )
