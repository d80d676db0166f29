"""Recorded values in prose, and what a terminal shows at the end."""

import pytest

from gallery.errors import GalleryError
from gallery.files import with_outputs
from gallery.several import value
from gallery.terminal import last_state
from gallery.values import names_quoted, printed_values
from tests.made import changed, made, stream

PROSE = """# %%
# It takes :recorded:`build_s` s, written as ``:recorded:`build_s```.
print("build_s =", 24)

# %%
# And :recorded:`faster` times.
print("faster =", 1.13)
"""


@pytest.fixture
def tutorial(tmp_path):
    printed = [stream("build_s = 24\n")], [stream("x\nfaster = 1.13 \n")]
    return made(tmp_path, PROSE, *printed)


def test_prose_quotes_what_was_printed(tutorial):
    text = "It takes :recorded:`build_s` s, ``:recorded:`build_s```"
    assert tutorial.filled(text) == "It takes 24 s, ``:recorded:`build_s```"


def test_notebooks_quote_it_too(tutorial):
    prose = [cell.source for cell in with_outputs(tutorial).cells]
    assert any("And 1.13 times." in text for text in prose)


def test_the_recording_itself_reads_with_its_values(tutorial):
    # Hosts of notebooks show the file as it lies in the repository.
    prose = [cell.source for cell in tutorial.recording.notebook.cells]
    assert any("It takes 24 s" in text for text in prose)


def test_a_value_is_words_and_no_markup(tmp_path):
    tutorial = made(
        tmp_path, PROSE, [stream("build_s = a_ *b\n")], [stream("faster = 1")]
    )
    assert value("build_s", {"": tutorial}) == r"a\_ \*b"


def test_a_withdrawn_value_is_told(tutorial):
    stale = changed(tutorial, '"faster ="', '"faster  ="')
    assert stale.value("build_s") == "24"
    assert stale.value("faster") == "(not recorded)"
    stale.check_values()


def test_nothing_is_told_at_a_glance_while_a_value_of_it_is_withdrawn(tutorial):
    glance = "At a glance\n-----------\n\n- :recorded:`{}` times.\n\n"
    rest = "What you will learn\n-------------------\n\n- More.\n"
    stale = changed(tutorial, '"faster ="', '"faster  ="')
    assert stale.filled(glance.format("build_s") + rest).startswith("At a glance")
    assert stale.filled(glance.format("faster") + rest) == rest
    assert tutorial.filled(glance.format("faster") + rest).startswith("At a glance")


def test_a_name_that_nothing_printed_fails_with_script_and_line(tutorial):
    wrong = changed(tutorial, ":recorded:`faster`", ":recorded:`fastr`")
    with pytest.raises(GalleryError, match=r"made\.py, line 13: .*fastr.*no cell"):
        wrong.check_values()


def test_one_name_with_two_values_fails(tmp_path):
    printed = [stream("build_s = 24\n")], [stream("faster = 1\nbuild_s = 25\n")]
    with pytest.raises(GalleryError, match="different values.*build_s.*24, 25"):
        made(tmp_path, PROSE, *printed).check_values()


@pytest.mark.parametrize(
    ("printed", "left"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\rstep 0 of 3\rstep 3 of 3\n", "step 3 of 3\n"),
        ("100 of 100\r  7\n", "  7 of 100\n"),
        ("long line\r\x1b[Kshort", "short"),
        ("\x1b[2K\x1b[1G\x1b[32mgreen\x1b[0m", "green"),
        ("\x1b]8;;https://x.org\x1b\\link\x1b]8;;\x1b\\ end", "link end"),
        ("a: 0%\nb: 0%\x1b[A\ra: 9%\nb: 5%", "a: 9%\nb: 5%"),
        ("abd\bc", "abc"),
        ("nul\x00x bell\x07 feed\x0c", "nulx bell feed"),
    ],
)
def test_text_is_as_the_terminal_left_it(printed, left):
    assert last_state(printed) == left


def test_what_goes_to_stderr_is_no_value():
    def out(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    cells = [[out("stderr", "fast = 1\n"), out("stdout", "slow = 2\nfa")], []]
    assert printed_values([*cells, [out("stdout", "st = 3\n")]]) == {
        "slow": ["2"],
        "st": ["3"],
    }


def test_roles_are_found_with_their_lines():
    text = "\n:recorded:`a` and\n:recorded:`b`, ``:recorded:`c```"
    assert names_quoted(text) == [(2, "a"), (3, "b")]
