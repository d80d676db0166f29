"""The site of this repository, as it is: links, console, cards, width of a phone."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from gallery.directives import benchmark
from gallery.engines import load_engine_report
from gallery.recording import load_recording
from gallery.script import find_scripts, read_script
from tests.conftest import ROOT, build_site

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A fresh copy of the repository's sources, built with warnings as errors."""
    project = tmp_path_factory.mktemp("site") / "project"
    sources = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in sources:
        if (ROOT / name).is_file():
            target = project / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
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


@pytest.mark.parametrize("path", find_scripts(), ids=lambda path: path.stem)
def test_results_hold_what_was_recorded(site, path):
    script, recording = read_script(path), load_recording(path.stem)
    frame = recording and benchmark(recording, script)
    if frame is None:
        pytest.skip(f"{path.stem} has no recorded benchmark")
    page = (site / "results.html").read_text()
    assert script.title in page
    for row in frame.itertuples():
        assert f"<td>{row.latency_ms:.3f}</td>" in page, row.backend


@pytest.mark.parametrize("path", find_scripts(), ids=lambda path: path.stem)
def test_pages_say_what_was_built_without_a_gpu(site, path):
    report = load_engine_report(read_script(path))
    page = (site / f"tutorials/{path.parent.name}/{path.stem}.html").read_text()
    assert f"Built without a GPU: {len(report.engines)} engine" in page
    assert f"need a GPU: {report.skipped_cells}." in page


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
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
    names = [f"tutorials/{p.parent.name}/{p.stem}.html" for p in find_scripts()]
    for name in ["index.html", "quickstart.html", "results.html", *names]:
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


def test_cards_lead_to_their_pages(site, browser):
    page = browser.new_page()
    titles = [read_script(path).title for path in find_scripts()]
    page.goto(f"file://{site / 'index.html'}")
    cards = page.locator(".tutorial-card")
    assert cards.count() == len(titles)
    for number, title in enumerate(titles):
        page.goto(f"file://{site / 'index.html'}")
        card = page.locator(".tutorial-card").nth(number)
        text = card.inner_text()
        assert title in text
        script = read_script(find_scripts()[number])
        assert script.description in " ".join(text.split())
        assert all(tag in text for tag in script.tags)
        card.click()
        assert title in page.locator("h1").inner_text()
    page.close()
