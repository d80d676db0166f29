"""An author's way: from the template to a page, another name, and the end."""

import re
import shutil
import subprocess
import sys

import pytest

from gallery import author
from gallery.errors import GalleryError
from gallery.script import find_scripts, read_script
from tests.conftest import ROOT, build_site, run_gallery


@pytest.fixture
def repository(project):
    """The project as a git repository with everything committed."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", *words], cwd=project, check=True)
    return project


def test_a_new_tutorial_keeps_the_contract_and_is_well_formatted(project):
    done = run_gallery(project, "new", "my_first_page")
    assert done.returncode == 0, done.stdout + done.stderr
    path = project / "examples/dynamo/my_first_page.py"
    assert read_script(path).title == "My first page"
    done = run_gallery(project, "check", "my_first_page")
    assert (done.returncode, done.stderr) == (0, "")
    shutil.copy(ROOT / "pyproject.toml", project)
    for words in (["check"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *words, str(path)], cwd=project, check=True
        )


def test_a_new_tutorial_builds_a_site(project):
    author.new("my_first_page", root=project)
    built = build_site(project)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (project / "site/tutorials/dynamo/my_first_page.html").read_text()
    assert "Not recorded yet" in page
    # Nothing is measured, so nothing is told at a glance.
    assert "At a glance" not in page
    assert "What you will learn" in page
    assert "(not recorded) times as fast" in page


def test_a_new_tutorial_and_one_without_an_engine_run_and_have_pages(project):
    """An empty list of engines once made a page that no build accepted."""
    pytest.importorskip("tensorrt_rtx")
    author.new("my_first_page", root=project)
    words = ("run", "my_first_page", "tiny", "--no-gpu", "--unchecked")
    done = run_gallery(project, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    built = build_site(project)
    assert built.returncode == 0, built.stdout + built.stderr
    for name, is_told in (("my_first_page", True), ("tiny", False)):
        assert (project / f"recordings/engines/{name}.json").exists()
        page = (project / f"site/tutorials/dynamo/{name}.html").read_text()
        assert ("Built without a GPU: 1 engine" in page) == is_told


def test_a_run_begins_with_the_contract(project):
    pytest.importorskip("tensorrt_rtx")
    done = run_gallery(project, "run", "tiny", "--no-gpu")
    assert done.returncode == 1
    assert "examples/dynamo/tiny.py:1: The docstring has no section" in done.stderr
    assert "--unchecked" in done.stdout
    assert "cell 1" not in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch_2.14_news", "torch_2.14_news.py: the name of a tutorial holds letters"),
        ("2_fast", "Rename it, for instance to fast.py"),
        ("so-fast", "for instance to so_fast.py"),
        ("with space", "for instance to with_space.py"),
        ("client", "client is the name of a program"),
        ("serve", "serve is a command of nox -s"),
        ("tiny", "There is examples/dynamo/tiny.py already"),
    ],
)
def test_names_that_a_new_tutorial_cannot_have(project, name, message):
    with pytest.raises(GalleryError) as raised:
        author.new(name, root=project)
    assert message in str(raised.value)
    assert [path.stem for path in (project / "examples/dynamo").glob("*.py")] == [
        "tiny"
    ]


def test_an_unknown_folder_is_refused(project):
    with pytest.raises(GalleryError, match="no folder examples/fx"):
        author.new("page", "fx", root=project)


def test_two_tutorials_of_one_name_are_refused_with_both(project, tiny):
    other = project / "examples/triton"
    other.mkdir()
    shutil.copy(tiny, other)
    done = run_gallery(project, "status")
    assert done.returncode == 1
    assert "Two tutorials are named tiny" in done.stdout
    assert "examples/dynamo/tiny.py and examples/triton/tiny.py" in done.stdout
    built = build_site(project)
    assert built.returncode != 0
    assert "Two tutorials are named tiny" in built.stdout + built.stderr
    assert "Traceback" not in built.stdout + built.stderr


def test_a_tutorial_named_like_a_program_is_refused(project, tiny):
    tiny.rename(tiny.with_name("client.py"))
    with pytest.raises(GalleryError, match="dynamo/client.py: client is the name of"):
        find_scripts(folder=project / "examples")


def test_a_dot_in_a_name_does_not_stop_another_tutorial(project, tiny):
    before = run_gallery(project, "check", "tiny")
    shutil.copy(tiny, tiny.with_name("torch_2.14_news.py"))
    done = run_gallery(project, "check", "tiny")
    assert (done.returncode, done.stdout) == (before.returncode, before.stdout)


def test_a_dot_in_a_name_does_not_stop_the_others(project, tiny):
    pytest.importorskip("tensorrt_rtx")
    shutil.copy(tiny, tiny.with_name("torch_2.14_news.py"))
    for words in (["check"], ["status"], ["run", "--no-gpu", "--unchecked"]):
        done = run_gallery(project, *words)
        assert done.returncode == 1
        assert (done.stdout + done.stderr).count("for instance to torch_2_14_news") == 1
    assert re.search("tiny .*ran on the CPU", done.stdout)
    assert re.search("torch_2.14_news .*failed", done.stdout)


def test_a_dot_in_a_name_is_one_message_everywhere(project, tiny):
    tiny.rename(tiny.with_name("torch_2.14_news.py"))
    for words in (["check"], ["status"], ["run", "--no-gpu"], ["check", "torch_2.14"]):
        done = run_gallery(project, *words)
        told = done.stdout + done.stderr
        assert done.returncode == 1
        assert told.count("torch_2.14_news.py") == 1, told
        assert "for instance to torch_2_14_news.py" in told
    built = build_site(project)
    assert built.returncode != 0
    assert (built.stdout + built.stderr).count("torch_2.14_news.py") == 1


BELONGS = [
    "examples/dynamo/{}.py",
    "recordings/h100-rtx/{}.ipynb",
    "recordings/rtx-5090-rtx/{}.ipynb",
    "recordings/engines/{}.json",
    ".cache/brought/{}/engine",
    ".cache/failed/{}.ipynb",
]
GENERATED = "docs/tutorials/dynamo/{}.rst"


@pytest.fixture
def complete(project):
    """The project with all that can belong to its tutorial, and to another."""
    for pattern in [*BELONGS[1:], GENERATED]:
        for name in ("tiny", "tiny_too"):
            path = project / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"of {name}")
    (project / "README.rst").write_text("See tiny, and tiny_too.\n\nUntiny.\n")
    return project


def test_rename_takes_all_along(complete):
    texts = [(complete / path.format("tiny")).read_text() for path in BELONGS]
    pairs = author.rename("tiny", "small.py", complete)
    assert [(complete / path.format("small")).read_text() for path in BELONGS] == texts
    assert not any((complete / path.format("tiny")).exists() for path in BELONGS)
    assert not (complete / GENERATED.format("tiny")).exists()
    assert all((complete / p.format("tiny_too")).exists() for p in BELONGS[1:])
    assert (complete / GENERATED.format("tiny_too")).exists()
    first = complete / "examples/dynamo"
    assert pairs[0] == (first / "tiny.py", first / "small.py")
    assert len(pairs) == len(BELONGS)


def test_lines_elsewhere_that_name_a_tutorial(complete):
    assert list(author.mentions("tiny_too", complete)) == [
        "README.rst:1: See tiny, and tiny_too."
    ]
    assert list(author.mentions("tiny", complete))[0] == (
        "README.rst:1: See tiny, and tiny_too."
    )
    assert list(author.mentions("Untiny", complete)) == ["README.rst:3: Untiny."]


def test_delete_takes_all_along(complete):
    gone = author.delete("tiny", yes=True, root=complete)
    paths = [complete / path.format("tiny") for path in [*BELONGS, GENERATED]]
    assert not any(path.exists() for path in paths)
    assert len(gone) == len(paths)
    assert all((complete / p.format("tiny_too")).exists() for p in BELONGS[1:])


def test_rename_tells_what_it_did(complete):
    done = run_gallery(complete, "rename", "tiny", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recordings/engines/tiny.json is now recordings/engines/small" in done.stdout
    assert "README.rst:1: See tiny" in done.stdout


def test_a_site_follows_a_rename_and_a_delete(recorded):
    built = build_site(recorded)
    assert built.returncode == 0, built.stdout + built.stderr
    assert author.generated("tiny", recorded)
    author.rename("tiny", "small", recorded)
    assert author.generated("tiny", recorded) == []
    (recorded / "recordings/engines/small.json").unlink(missing_ok=True)
    built = build_site(recorded)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (recorded / "site/tutorials/dynamo/small.html").exists()
    author.new("other", root=recorded)
    author.delete("small", yes=True, root=recorded)
    built = build_site(recorded)
    assert built.returncode == 0, built.stdout + built.stderr


@pytest.mark.parametrize(
    ("old", "name", "message"),
    [
        ("nope", "small", "There is no tutorial named 'nope'"),
        ("tiny", "tiny", "already"),
        ("tiny", "sm.all", "letters, digits"),
        ("tiny", "client", "name of a program"),
    ],
)
def test_renames_that_are_refused_change_nothing(complete, old, name, message):
    before = sorted(complete.rglob("*"))
    with pytest.raises(GalleryError, match=message):
        author.rename(old, name, complete)
    assert sorted(complete.rglob("*")) == before


def test_rename_does_not_write_over_what_an_earlier_tutorial_left(complete):
    old = complete / "recordings/engines/small.json"
    old.write_text("old")
    with pytest.raises(GalleryError) as raised:
        author.rename("tiny", "small", complete)
    assert str(raised.value) == (
        "recordings/engines/small.json exists, from an earlier tutorial of that name. "
        "Delete it first."
    )
    assert (complete / "examples/dynamo/tiny.py").exists()
    assert old.read_text() == "old"


def test_delete_takes_what_git_can_give_back(repository):
    (repository / "docs/index.rst").write_text("See tiny.\n")
    done = run_gallery(repository, "delete", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (repository / "examples/dynamo/tiny.py").exists()
    assert "examples/dynamo/tiny.py is deleted" in done.stdout
    assert "docs/index.rst:1: See tiny." in done.stdout


def test_delete_asks_before_it_takes_what_is_lost_then(repository, tiny):
    tiny.write_text(tiny.read_text() + "\n")
    done = run_gallery(repository, "delete", "tiny")
    assert done.returncode == 1
    assert "--yes" in done.stdout and "examples/dynamo/tiny.py" in done.stdout
    assert tiny.exists()
    done = run_gallery(repository, "delete", "tiny", "--yes")
    assert done.returncode == 0
    assert not tiny.exists()


def test_without_git_nothing_is_deleted_unasked(complete, tiny):
    with pytest.raises(GalleryError) as raised:
        author.delete("tiny", root=complete)
    told = str(raised.value)
    assert told.startswith("Git could not give these back: examples/dynamo/tiny.py, ")
    assert (
        told.endswith(". Commit them first, or say that you mean it: --yes")
        and "recordings/engines/tiny.json" in told
    )
    assert tiny.exists()


def test_what_git_has_can_be_deleted(repository, tiny):
    tiny.write_text(tiny.read_text() + "\n")
    with pytest.raises(GalleryError, match="back: examples/dynamo/tiny.py. Commit"):
        author.delete("tiny", root=repository)
    subprocess.run(["git", "checkout", "-q", str(tiny)], cwd=repository, check=True)
    assert author.delete("tiny", root=repository) == [tiny]


def test_generated_files_are_those_of_this_name_only(project):
    folder = project / "docs/tutorials/dynamo"
    (folder / "images/thumb").mkdir(parents=True)
    own = [
        "tiny.rst",
        "tiny.py",
        "tiny.ipynb",
        "tiny.zip",
        "images/recorded_tiny_001.png",
        "images/thumb/sphx_glr_tiny_thumb.png",
        "images/thumb_tiny.png",
    ]
    other = ["tiny_too.rst", "untiny.rst", "images/recorded_tiny_too_001.png"]
    for name in own + other:
        (folder / name).write_text("")
    found = author.generated("tiny", project)
    assert found == sorted(folder / name for name in own)
