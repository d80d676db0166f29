"""The site of this repository, as it is: links, console, cards, width of a phone."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from gallery.benchmarks import result_rows
from gallery.cards import PATH_FILE
from gallery.files import with_outputs
from gallery.learning_path import learning_path
from gallery.script import find_scripts
from gallery.tables import numbers
from gallery.tutorial import load_tutorial
from tests.conftest import ROOT, build_site
from tests.site_speed import copy_sources

NAMES = [path.stem for path in find_scripts()]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A fresh copy of the repository's sources, built with warnings as errors."""
    project = tmp_path_factory.mktemp("site") / "project"
    project.mkdir()
    copy_sources(project)
    done = build_site(project)
    assert done.returncode == 0, done.stderr
    return project / "site"


def test_the_site_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torch_tensorrt'] = None\n"
        "import gallery.site, gallery.__main__"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id", ""))
        link = attributes.get("href") or attributes.get("src")
        if link and tag in {"a", "img", "script", "link"}:
            self.links.append(link)


def test_no_internal_link_is_dead(site):
    pages = {
        path: _Links(path.read_text())
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }
    assert len(pages) > len(find_scripts())
    dead = []
    for page, parsed in pages.items():
        for link in parsed.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (
                (page.parent / unquote(parts.path)).resolve() if parts.path else page
            )
            anchor = parts.fragment
            if not target.exists() or (
                anchor and target in pages and anchor not in pages[target].ids
            ):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


def test_links_of_notebooks_lead_to_pages_of_the_site(site):
    address = "https://x.org"
    for name in NAMES:
        notebook = with_outputs(load_tutorial(name), address)
        prose = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        assert not re.search(r"(?<!`):(doc|term|ref|func|class):`", prose), name
        for link in re.findall(rf"\({address}/([^)]*)\)", prose):
            path, _, anchor = link.partition("#")
            page = (site / path).read_text()
            assert not anchor or f'id="{anchor}"' in page, f"{name}: {link}"


# What a reader wants to know; where two clicks lead from the index, and what stands
# there.
QUESTIONS = {
    "How do I begin?": ("quickstart.html", "#resnet-in-ten-lines"),
    "How fast is a BERT, and what is slow about it?": (
        "tutorials/index.html",
        "tutorials/dynamo/torch_compile_transformers_example.html",
    ),
    "How do I make calls faster, with a CUDA graph?": (
        "quickstart.html",
        "#the-faster-way",
    ),
    "I have new weights. Must I build again?": (
        "tutorials/index.html",
        "tutorials/dynamo/refit_engine_example.html",
    ),
    "TensorRT lacks an operator. What now?": (
        "when_it_goes_wrong.html",
        "#it-fell-back-to-pytorch",
    ),
    "How do I serve a compiled model?": (
        "tutorials/index.html",
        "tutorials/triton/serving_torch_tensorrt_with_triton.html",
    ),
    "Does it pay for my model?": ("does_it_pay.html", "#by-what-limits-the-model"),
    "Which package for my GPU, for a Jetson, for Windows?": (
        "installation.html",
        "#which-package-for-my-gpu",
    ),
    "Did it fall back to PyTorch?": ("quickstart.html", "#is-it-tensorrt-that-runs"),
    "What accuracy do I lose?": ("when_it_goes_wrong.html", "#wrong-answers"),
    "How do I keep an engine and load it elsewhere?": ("quickstart.html", "#keep-it"),
    "How was it measured?": ("results.html", "tutorials/dynamo/how_we_measure.html"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_two_clicks_from_its_answer(site, question):
    here = site / "index.html"
    for click in QUESTIONS[question]:
        page = _Links(here.read_text())
        told = f"{here.name} does not lead to {click}"
        if click.startswith("#"):
            assert click in page.links, told
            assert click[1:] in page.ids
        else:
            targets = {(here.parent / link).resolve() for link in page.links}
            assert (site / click).resolve() in targets, told
            here = site / click


def test_each_question_that_people_ask_leads_to_its_answer(site):
    assert "questions.html" in _Links((site / "index.html").read_text()).links
    article = (site / "questions.html").read_text().partition("<article")[2]
    answers = re.findall(r"<dt>.*?</dt><dd>(.*?)</dd>", article, re.DOTALL)
    assert len(answers) >= 30
    for answer in answers:
        assert any(".html#" in link for link in _Links(answer).links), answer


@pytest.mark.parametrize("name", ["installation.html", "when_it_goes_wrong.html"])
def test_help_is_two_clicks_from_every_page(site, name):
    for page in site.rglob("*.html"):
        if "_static" not in page.parts and page.name not in {"404.html", name}:
            links = {link.rpartition("/")[2] for link in _Links(page.read_text()).links}
            assert name in links, page


@pytest.mark.parametrize("name", NAMES)
def test_results_hold_what_was_recorded(site, name):
    tutorial = load_tutorial(name)
    frame = tutorial.recording and result_rows(tutorial)
    page = (site / "results.html").read_text()
    if frame is None:
        assert f"{tutorial.script.title}: " not in page
        pytest.skip(f"{name} has no recorded results")
    assert tutorial.script.title in page
    for speedup in numbers(frame.speedup, 2):
        assert f">{speedup}</td>" in page
    assert f"{name}," in (site / "results.csv").read_text()
    rows = json.loads((site / "results.json").read_text())
    assert [row["backend"] for row in rows if row["tutorial"] == name] == [
        *frame.backend
    ]


@pytest.mark.parametrize("name", NAMES)
def test_pages_say_what_was_built_without_a_gpu(site, name):
    tutorial = load_tutorial(name)
    if tutorial.report is None:
        pytest.skip(f"{name} has no engine report of its present code")
    page = (site / f"{tutorial.docname}.html").read_text()
    assert f"Built without a GPU: {len(tutorial.report.engines)} engine" in page
    assert f"need a GPU: {tutorial.report.skipped_cells}." in page


def test_every_tutorial_stands_on_the_path():
    sections = learning_path(PATH_FILE)
    assert "More" not in [section.title for section in sections]


def test_previous_and_next_follow_the_path(site):
    path = [t for section in learning_path(PATH_FILE) for t, _ in section.tutorials]
    for here, there in zip(path, path[1:]):
        page = (site / f"{here.docname}.html").read_text()
        following = page.partition('class="right-next"')[2][:300]
        assert f"{there.name}.html" in following


def test_every_page_has_a_description_and_a_title_of_its_own(site):
    titles, descriptions = [], []
    for path in sorted(site.glob("**/*.html")):
        if "_static" in path.parts or path.name in {"search.html", "genindex.html"}:
            continue
        page = path.read_text()
        assert page.count('name="description"') == 1, path.name
        titles += re.findall("<title>(.*?)</title>", page, re.DOTALL)
        descriptions += re.findall('name="description" content="(.*?)"', page)
        assert "BSD 3-Clause" in page
    assert len(set(titles)) == len(titles)
    assert len(set(descriptions)) == len(descriptions)
    index = (site / "index.html").read_text()
    assert "<title>Torch-TensorRT tutorials</title>" in " ".join(index.split())


# The contrast of an element's text with the first background that is not transparent.
CONTRAST = """
(element) => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const parts = color.slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  let behind = element;
  let back = rgb(getComputedStyle(behind).backgroundColor);
  while (back.length > 3 && back[3] === 0 && behind.parentElement) {
    behind = behind.parentElement;
    back = rgb(getComputedStyle(behind).backgroundColor);
  }
  const pseudo = element.matches(".sphx-glr-script-out") ? "::before" : undefined;
  const text = light(rgb(getComputedStyle(element, pseudo).color));
  const ground = light(back);
  return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
}
"""


# What a page tells of itself: [pixels by which it is too wide, code that the theme cuts
# off so that the page is not too wide, small print with its contrast].
LOOK = f"""
([selector, width]) => [
  document.documentElement.scrollWidth - window.innerWidth,
  [...document.querySelectorAll(".bd-article :is(p, li) > code")]
    .filter(e => e.getBoundingClientRect().right > width).map(e => e.textContent),
  [...document.querySelectorAll(selector)].map(e => [e.innerText, ({CONTRAST})(e)]),
]
"""
SMALL_PRINT = ".tutorial-card .sd-badge, .tag-filter button, .sphx-glr-script-out"


@dataclass(frozen=True)
class Look:
    """A page as a window of some width and color scheme shows it.

    Attributes
    ----------
    tables
        Of each benchmark table, on a wide screen: by how many pixels it is too wide; on
        a phone: where the second columns end, in pixels.
    """

    name: str
    width: int
    errors: list[str]
    overflow: int
    cut: list[str]
    small_print: list[tuple[str, float]]
    tables: list[float]


@pytest.fixture(scope="module")
def looks(site, browser) -> list[Look]:
    """Every page once on a wide screen, in light, and once on a phone, in dark."""
    pages = [path for path in site.glob("**/*.html") if "_static" not in path.parts]
    found = []
    for width, scheme in ((1280, "light"), (390, "dark")):
        context = browser.new_context(color_scheme=scheme, offline=True)
        page = context.new_page()
        for path in pages:
            page.set_viewport_size({"width": width, "height": 800})
            errors: list[str] = []
            listeners = {
                "pageerror": lambda error, errors=errors: errors.append(str(error)),
                "console": lambda message, errors=errors: (
                    errors.append(message.text) if message.type == "error" else None
                ),
            }
            for event, listener in listeners.items():
                page.on(event, listener)
            page.goto(f"file://{path}")
            seen = page.evaluate(LOOK, [SMALL_PRINT, width])
            found.append(
                Look(str(path.relative_to(site)), width, errors, *seen, _tables(page))
            )
            for event, listener in listeners.items():
                page.remove_listener(event, listener)
        context.close()
    assert len(found) > 2 * len(NAMES)
    return found


def _tables(page) -> list[float]:
    if page.viewport_size["width"] < 1000:
        second = "div.benchmark:visible tr:not(.group) > :nth-child(2)"
        return page.locator(second).evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().right)"
        )
    page.set_viewport_size({"width": 1400, "height": 900})
    return page.locator("div.benchmark:visible").evaluate_all(
        "all => all.map(e => e.scrollWidth - e.clientWidth)"
    )


def test_pages_open_without_errors(looks):
    assert [(look.name, look.errors) for look in looks if look.errors] == []


def test_pages_fit(looks):
    wide = [(look.name, look.width, look.overflow) for look in looks]
    assert [page for page in wide if page[-1] > 1] == []
    assert [(look.name, look.width, look.cut) for look in looks if look.cut] == []


def test_small_print_can_be_read(looks):
    seen = [(look.name, *print_) for look in looks for print_ in look.small_print]
    assert len(seen) > len(NAMES)
    assert [words for words in seen if words[-1] < 4.5] == []


def test_benchmark_tables_fit(looks):
    """On a phone, what runs the model and its first number are seen at once."""
    allowed = {1280: 0, 390: 390}
    over = [
        (look.name, look.width, pixels)
        for look in looks
        for pixels in look.tables
        if pixels > allowed[look.width]
    ]
    assert over == []


@pytest.fixture
def open_page(site, browser):
    """Opens a page of the site in a window of a given width and color scheme."""
    contexts = []

    def opened(name: str, width: int = 1400, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.goto(f"file://{site / name}")
        return page

    yield opened
    for context in contexts:
        context.close()


def test_a_card_leads_to_its_page(open_page):
    page = open_page("tutorials/index.html")
    for tutorial in map(load_tutorial, NAMES):
        card = page.locator(".tutorial-card", has_text=tutorial.script.title)
        text = card.inner_text()
        assert all(tag in text for tag in tutorial.script.tags)
        assert re.search(r"(first steps|in depth|expert), \d+ min", text)
        link = card.locator("a.sd-stretched-link").get_attribute("href")
        assert link.partition("#")[0] == f"../{tutorial.docname}.html".replace(
            "../tutorials/", ""
        )
    card.click()
    assert tutorial.script.title in page.locator("h1").inner_text()


def test_tags_filter_by_keyboard(open_page):
    page = open_page("tutorials/index.html")
    button = page.locator(".tag-filter button").first
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    tag = button.get_attribute("value")
    shown = page.locator(".tutorial-card:visible")
    assert 0 < shown.count() < len(NAMES)
    assert all(tag in text for text in shown.all_inner_texts())
    page.keyboard.press("Space")
    assert page.locator(".tutorial-card:visible").count() == len(NAMES)


def test_rows_can_be_sorted_and_filtered(open_page):
    page = open_page("results.html")
    if not page.locator("table.benchmark").count():
        pytest.skip("no benchmark is recorded with its present code")
    table = page.locator("table.benchmark").first
    head = table.locator("thead th", has_text="ms").first
    for order, sign in (("ascending", 1), ("descending", -1)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        cells = table.locator("tbody").first.locator("tr:not(.group) td:nth-child(2)")
        values = [
            sign * float(text.replace(",", "")) for text in cells.all_inner_texts()
        ]
        assert values == sorted(values)
    everything = page.locator("tbody tr:not(.group):visible").count()
    page.locator(".table-filter input").fill("tensorrt, cuda graph")
    rows = page.locator("tbody tr:not(.group):visible")
    assert 0 < rows.count() < everything
    texts = rows.all_inner_texts()
    assert all("TensorRT" in text and "CUDA graph" in text for text in texts)


def test_the_header_is_one_line_high(open_page):
    for width in (390, 960, 1100, 1200, 1300, 1400):
        header = open_page("results.html", width=width).locator("header.bd-header")
        assert header.bounding_box()["height"] < 90, width


def test_a_tap_shows_a_figure_alone(open_page):
    page = open_page("results.html", width=390)
    figures = page.locator("img.recorded-figure")
    if not figures.count():
        pytest.skip("no benchmark is recorded with its present code")
    figures.first.click()
    page.wait_for_url("**/speedups.svg")


@pytest.mark.parametrize(
    "word", ["fallback", "int8", "accuracy", "out of memory", "LoRA", "fp16", "jetson"]
)
def test_the_search_knows_readers_words(open_page, word):
    page = open_page(f"search.html?q={word.replace(' ', '+')}")
    page.locator("#search-results li a").first.wait_for(timeout=10_000)
