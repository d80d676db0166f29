"""The command `check` in this process: what it prints, and what it returns."""

import functools

import pytest

from gallery.check import check, hold_to_contract, messages, shown
from gallery.paths import ROOT
from gallery.script import read_script, sort_out
from tests.test_contract import GOOD


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """A folder of tutorials: a good one, one with two faults, one that is no Python."""
    folder = tmp_path / "dynamo"
    folder.mkdir()
    (folder / "good.py").write_text(GOOD)
    faults = GOOD.replace("# - One.", "# - It takes 3 ms.").replace("plt.show()", "")
    (folder / "faulty.py").write_text(faults)
    (folder / "broken.py").write_text("x = 1\nx = (\n")
    (folder / "no_title.py").write_text("x = 1\n")
    found = functools.partial(sort_out, folder=tmp_path)
    monkeypatch.setattr("gallery.check.sort_out", found)
    return folder


def test_all_problems_of_all_scripts_at_once(examples, capsys):
    assert check([]) == 1
    out, told = capsys.readouterr()
    lines = told.splitlines()
    assert out == ""
    assert lines[0].startswith(f"{examples}/broken.py:2: broken.py is not valid Python")
    assert lines[1].startswith(f"{examples}/faulty.py:56: A figure typed into prose")
    assert lines[2].startswith(f"{examples}/faulty.py:58: No cell draws a figure")
    assert lines[3].startswith(f"{examples}/no_title.py:1: no_title.py has no title")
    assert lines[4:] == ["4 tutorials checked: 4 to mend."]


def test_those_that_are_named(examples, capsys):
    assert check(["good"]) == 0
    assert capsys.readouterr() == ("1 tutorial checked: no problems.\n", "")
    assert check(["good", "faulty"]) == 1
    assert capsys.readouterr().err.endswith("2 tutorials checked: 2 to mend.\n")


def test_what_a_run_leaves_out(examples, capsys):
    good, faulty = (read_script(examples / f"{n}.py") for n in ("good", "faulty"))
    kept, refused = hold_to_contract([faulty, good])
    assert kept == [good]
    assert refused == {
        "faulty": "faulty breaks the contract in 2 places, listed above. Mend that, or "
        "run it as it is: --unchecked"
    }
    out, told = capsys.readouterr()
    assert out == ""
    assert told.splitlines() == messages(faulty)


def test_paths_are_those_that_a_terminal_can_open(tmp_path, monkeypatch):
    assert shown(ROOT / "examples" / "dynamo" / "x.py") == "examples/dynamo/x.py"
    assert shown(tmp_path / "x.py") == str(tmp_path / "x.py")
    monkeypatch.chdir(ROOT)
    assert shown(ROOT.relative_to(ROOT) / "conf.py") == "conf.py"
