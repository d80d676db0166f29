"""Names of tutorials: what is refused, with which words, and what is suggested."""

from pathlib import Path

import pytest

from gallery.errors import GalleryError
from gallery.naming import by_name, require_plain

FOLDER = Path("repository/examples/dynamo")


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("torch_2.14_news", "torch_2_14_news"),
        ("2_fast", "fast"),
        ("2_fast_2", "fast_2"),
        ("so-fast", "so_fast"),
        ("With Space", "With_Space"),
        ("_", "a_name"),
        ("12", "a_name"),
        ("é t é", "t"),
    ],
)
def test_a_name_that_is_no_plain_word(name, suggested):
    with pytest.raises(GalleryError) as raised:
        require_plain(FOLDER / f"{name}.py")
    assert str(raised.value) == (
        f"examples/dynamo/{name}.py: the name of a tutorial holds letters, digits and "
        "underscores only, and begins with a letter. Rename it, for instance to "
        f"{suggested}.py."
    )
    require_plain(FOLDER / f"{suggested}.py")


@pytest.mark.parametrize(
    "name", ["page", "Page_2", "a", "torch_compile_resnet_example"]
)
def test_plain_names(name):
    require_plain(FOLDER / f"{name}.py")


@pytest.mark.parametrize("name", ["client"])
def test_names_of_programs(name):
    with pytest.raises(GalleryError) as raised:
        require_plain(FOLDER / f"{name}.py")
    assert str(raised.value) == (
        f"examples/dynamo/{name}.py: {name} is the name of a program beside the "
        "tutorials in examples/triton, so pages and commands would leave the file out. "
        "Rename it."
    )
    beside = Path("repository/examples/triton")
    paths = [beside / f"{name}.py", beside / "page.py", FOLDER / "other.py"]
    assert by_name(paths) == {"page": paths[1], "other": paths[2]}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("index", "the page that the site makes for each folder"),
        ("serve", "a command of nox -s"),
        ("gallery", "a command of nox -s"),
    ],
)
def test_names_that_mean_something_else(name, what):
    with pytest.raises(GalleryError) as raised:
        by_name([FOLDER / f"{name}.py"])
    assert (
        str(raised.value) == f"examples/dynamo/{name}.py: {name} is {what}. Rename it."
    )


def test_two_of_one_name():
    paths = [FOLDER / "page.py", Path("repository/examples/triton/page.py")]
    with pytest.raises(GalleryError) as raised:
        by_name(paths)
    assert str(raised.value) == (
        "Two tutorials are named page: examples/dynamo/page.py and "
        "examples/triton/page.py. Their recordings would be one file: rename one of "
        "them."
    )
