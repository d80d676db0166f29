"""A page that several machines have recorded: its reader chooses one."""

import re
import shutil

import pytest

from gallery.several import blocks, value
from tests.conftest import TINY, build_site
from tests.made import PNG, display, made, stream

SCRIPT = TINY.replace(
    "# - Small.",
    "# - It takes :recorded:`call_us` µs, and :recorded:`same` always.\n"
    "# - In short :recorded:`call_us`us.",
)
OTHER_PNG = (  # another color
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAA"
    "AABJRU5ErkJggg=="
)


def record_on(project, machine, us, png=PNG, name="tiny", script=SCRIPT, **facts):
    """A recording in which a call takes so many microseconds."""
    scripts = project / "examples/dynamo"
    told = stream(f"Weights: random\ncall_us = {us}\nsame = 5\n")
    outputs = [told], [stream("always\n")], [display(image_png=png)]
    made(scripts, script, *outputs, name=name, **facts)
    path = project / "recordings" / machine / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    shutil.move(scripts / f"{name}.ipynb", path)
    return path


@pytest.fixture
def two(project):
    record_on(project, "h100-rtx", 111, gpu="NVIDIA H100 80GB HBM3")
    record_on(project, "h200-rtx", 222, OTHER_PNG, gpu="NVIDIA H200")
    return project


def page_of(project, name="tiny") -> str:
    done = build_site(project)
    assert done.returncode == 0, done.stdout + done.stderr
    return (project / f"site/tutorials/dynamo/{name}.html").read_text()


def test_what_differs_stands_there_for_each_machine_and_the_rest_once(two):
    page = page_of(two)
    assert page.count("call_us = 111") == page.count("call_us = 222") == 1
    assert page.count("always\n") == 1
    spans = re.findall(r'<span class="on-machine on-(\S+?-rtx)([^"]*)">(\d+)<', page)
    both = [("h100-rtx", " shown-machine", "111"), ("h200-rtx", "", "222")]
    assert spans == 2 * both  # two sentences
    assert "and 5 always" in page
    assert page.count("Recorded on NVIDIA H") == 2
    pictures = sorted(path.name for path in (two / "site/_images").glob("recorded_*"))
    assert pictures == ["recorded_tiny_001.png", "recorded_tiny_h200-rtx_001.png"]
    buttons = re.findall(r'data-machine="([^"]+)" aria-pressed="(\w+)">([^<]+)<', page)
    assert buttons == [("h100-rtx", "true", "H100"), ("h200-rtx", "false", "H200")]


def test_the_notebook_is_that_of_the_machine_which_pages_show(two):
    page_of(two)
    text = (two / "docs/tutorials/dynamo/downloads/tiny.ipynb").read_text()
    assert "call_us = 111" in text and "call_us = 222" not in text


def test_a_recording_of_other_code_gives_no_choice(project):
    other = SCRIPT.replace("1 + 1", "1 + 2")
    record_on(project, "h200-rtx", 222, script=other)
    record_on(project, "h100-rtx", 111)
    page = page_of(project)
    assert "call_us = 111" in page
    assert "call_us = 222" not in page and "machine-choice" not in page


def test_one_machine_alone_gives_no_choice(project):
    record_on(project, "h100-rtx", 111)
    page = page_of(project)
    assert "on-machine" not in page and "machine-choice" not in page


def test_a_page_is_read_again_when_another_machine_records_it(two):
    assert "call_us = 222" in page_of(two)
    record_on(two, "h200-rtx", 333)
    page = page_of(two)
    assert "call_us = 333" in page and "call_us = 222" not in page


def test_a_value_that_another_machine_lacks_is_told(tmp_path):
    cell = "# %%\n# A cell.\n1\n"
    has = made(tmp_path, cell, [stream("a = 1\n")])
    lacks = made(tmp_path, cell, [stream("b = 1\n")])
    found = {"h100-rtx": has, "h200-rtx": lacks}
    assert value("a", found) == (r"\ :on-h100-rtx:`1`\ :on-h200-rtx:`(not recorded)`\ ")


def test_blocks_that_are_alike_stand_once():
    found = {"one": None, "other": None}
    assert blocks(["same", "same"], found) == "same"
    text = blocks(["first", ""], found)
    assert "first" in text and "on-other" not in text


def test_a_choice_holds_on_this_page_and_on_the_next(two, browser):
    record_on(two, "h100-rtx", 444, name="next", gpu="NVIDIA H100 80GB HBM3")
    record_on(two, "h200-rtx", 555, name="next", gpu="NVIDIA H200")
    page_of(two)
    folder = two / "site/tutorials/dynamo"
    page = browser.new_page()
    page.goto(f"file://{folder}/tiny.html")
    seen = page.locator("article").inner_text()
    assert "It takes 111 µs" in seen and "call_us = 222" not in seen
    page.get_by_role("button", name="H200").click()
    seen = page.locator("article").inner_text()
    assert "It takes 222 µs" in seen and "call_us = 111" not in seen
    assert "In short 222us." in seen
    page.goto(f"file://{folder}/next.html")
    assert "It takes 555 µs" in page.locator("article").inner_text()


def test_without_a_script_the_page_shows_one_machine(two, browser):
    page_of(two)
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"file://{two}/site/tutorials/dynamo/tiny.html")
    seen = page.locator("article").inner_text()
    assert "It takes 111 µs" in seen and "222" not in seen and "Outputs of" not in seen
