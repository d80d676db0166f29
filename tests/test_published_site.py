"""The site of this repository, as it is: links, console, cards, width of a phone."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from gallery.benchmarks import benchmark
from gallery.cards import PATH_FILE
from gallery.files import with_outputs
from gallery.learning_path import learning_path
from gallery.results import ABOUT_THE_METHOD
from gallery.script import find_scripts
from gallery.tables import numbers
from gallery.tutorial import load_tutorial
from tests.conftest import ROOT, build_site

SOURCES = ("conf.py", "docs", "examples", "gallery", "recordings", "*.rst", "*.txt")
GENERATED = ("__pycache__", "_build", "tutorials", "sg_execution_times.rst")
NAMES = [path.stem for path in find_scripts()]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A fresh copy of the repository's sources, built with warnings as errors."""
    project = tmp_path_factory.mktemp("site") / "project"
    project.mkdir()
    for source in (path for name in SOURCES for path in ROOT.glob(name)):
        if source.is_dir():
            ignored = shutil.ignore_patterns(*GENERATED)
            shutil.copytree(source, project / source.name, ignore=ignored)
        else:
            shutil.copy(source, project)
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


@pytest.mark.parametrize("name", NAMES)
def test_results_hold_what_was_recorded(site, name):
    tutorial = load_tutorial(name)
    frame = tutorial.recording and benchmark(tutorial)
    if frame is None:
        pytest.skip(f"{name} has no recorded benchmark")
    page = (site / "results.html").read_text()
    if name in ABOUT_THE_METHOD:
        assert f"{tutorial.script.title}: " not in page
        return
    assert tutorial.script.title in page
    for speedup in numbers(frame.speedup, 2):
        assert f">{speedup}</td>" in page
    assert f"{name}," in (site / "results.csv").read_text()


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


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_open_without_errors_and_fit(site, browser, scheme, width):
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text) if message.type == "error" else None
        ),
    )
    pages = [path for path in site.glob("**/*.html") if "_static" not in path.parts]
    for name in [str(path.relative_to(site)) for path in pages]:
        page.goto(f"file://{site / name}")
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - window.innerWidth"
        )
        assert overflow <= 1, f"{name} is {overflow} px wider than {width}"
        # The theme cuts such text off, so that the page itself is not too wide.
        cut = page.locator(".bd-article :is(p, li) > code").evaluate_all(
            "(all, width) => all.filter(e => e.getBoundingClientRect().right > width)"
            ".map(e => e.textContent)",
            width,
        )
        assert cut == [], f"{name} does not show all of these"
    context.close()
    assert problems == []


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


@pytest.mark.parametrize("name", NAMES)
def test_a_card_leads_to_its_page(open_page, name):
    tutorial = load_tutorial(name)
    page = open_page("tutorials/index.html")
    card = page.locator(".tutorial-card", has_text=tutorial.script.title)
    text = card.inner_text()
    assert all(tag in text for tag in tutorial.script.tags)
    assert re.search(r"(first steps|in depth|expert), \d+ min", text)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_print_can_be_read(site, open_page, scheme):
    for name, selector in (
        ("tutorials/index.html", ".tutorial-card .sd-badge, .tag-filter button"),
        *(
            (f"{load_tutorial(name).docname}.html", ".sphx-glr-script-out")
            for name in NAMES
        ),
    ):
        page = open_page(name, scheme=scheme)
        for element in page.locator(selector).all():
            assert element.evaluate(CONTRAST) >= 4.5, (name, element.inner_text())


PAGES_WITH_TABLES = ["results.html", "does_it_pay.html"]


def test_benchmark_tables_fit(open_page):
    for name in [
        *PAGES_WITH_TABLES,
        *(f"{load_tutorial(n).docname}.html" for n in NAMES),
    ]:
        wide = open_page(name).locator("div.benchmark:visible")
        over = wide.evaluate_all("all => all.map(e => e.scrollWidth - e.clientWidth)")
        assert all(pixels <= 0 for pixels in over), (name, over)
        # On a phone, what runs the model and its first number are seen at once.
        second = open_page(name, width=390).locator(
            "div.benchmark:visible tr:not(.group) > :nth-child(2)"
        )
        ends = second.evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().right)"
        )
        assert all(end <= 390 for end in ends), name


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
    assert all("CUDA graph" in text for text in rows.all_inner_texts())


@pytest.mark.parametrize(
    "word", ["fallback", "int8", "accuracy", "out of memory", "LoRA", "fp16"]
)
def test_the_search_knows_readers_words(open_page, word):
    page = open_page(f"search.html?q={word.replace(' ', '+')}")
    page.locator("#search-results li a").first.wait_for(timeout=10_000)
