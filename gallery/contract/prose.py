"""Rules for prose: headings, card text, typed figures, hedges, recorded values."""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils.utils import column_width

from gallery.contract.page import Page, Problem, Text
from gallery.contract.printed import prints
from gallery.values import ROLE, names_quoted

MAX_DESCRIPTION = 160
FIRST = ("At a glance", "What you will learn", "Prerequisites")
LAST = ("When it goes wrong", "Take it to production", "Exercise", "Takeaways")
MARKS = "=-~^"
RULER_HEADING = "How this page measures"
LEAST_RECORDED = 3
GLANCE_LINES = range(3, 6)

# What is no prose: literals, links with their targets, roles, blocks of code.
NO_PROSE = re.compile(
    r"``[^`]+``|:\w[\w:-]*:`[^`]+`|`[^`]+`__?"
    r"|^(?P<indent>[ ]*)\.\. (?:code-block|math|image|figure|raw|list-table)::.*\n"
    r"(?:(?:(?P=indent)[ ]{2,}.*)?\n)*",
    re.MULTILINE,
)
_NUMBER = r"(?<![\w.])\d[\d,]*(?:\.\d+)?"
_UNIT = (
    r"times|percent|per cent|points?|ms|µs|us|ns|s|sec(?:ond)?s?|min(?:ute)?s?|hours?"
    r"|milliseconds?|microseconds?|[kKMGT]i?B(?:/s)?|(?:mega|giga|kilo|tera)bytes?"
    r"|TFLOPS|[GT]FLOP(?:/?s)?|FPS|fps"
    r"|(?:images|tokens|requests|frames|samples|sentences)(?:/s| (?:a|per) second)"
)
_COUNT = "two|three|four|five|six|seven|eight|nine|ten|twenty|hundred"
_THAN = r"(?:as|the|that|its|their|faster|slower|more|less|higher|lower|what|of)\b"
TYPED_FIGURE = re.compile(
    rf"{_NUMBER}[ -]?(?:x(?![ ]?\d)|×(?![ ]?\d)|%|(?:{_UNIT})(?![\w/-]))"
    rf"|\btwice {_THAN}|\b(?:{_COUNT}) times {_THAN}"
    r"|\bhalf (?:as|the (?:time|memory))\b"
    rf"|\b(?:doubles|halves|triples) (?:the|its|their)\b|\b(?:{_COUNT}|\d+)-?fold\b",
    re.IGNORECASE,
)
_WAY = "TensorRT|Inductor|PyTorch|eager"
HEDGE = re.compile(
    r"\b(?:may|might|could) (?:lose|win|be (?:faster|slower)|take longer)\b"
    rf"|\bwhere (?:{_WAY}) (?:takes longer|is slower|loses|wins)\b"
    r"|\b(?:a|most|very|quite) likely (?:reason|cause|because|due|the|that)\b"
    r"|\bis (?:most )?likely (?:a|the|that|because|due)\b"
    r"|\b(?:probably|presumably|perhaps)\b"
    r"|\b(?:winner|result|answer|gain) depends on\b"
    r"|\bshould be (?:faster|slower|quicker)\b",
    re.IGNORECASE,
)
MARKER = re.compile(
    r"^[ \t]*(?:#[ ]?)?((?:Needs a GPU|Needs two GPUs|Output varies):.*)$", re.MULTILINE
)


def prose_problems(page: Page) -> Iterator[Problem]:
    """Everything in which the prose breaks the contract."""
    yield from _description(page)
    yield from _headings(page)
    yield from _sections(page)
    yield from _glance(page)
    yield from _takeaways(page)
    yield from _recorded(page)
    for text in page.texts:
        yield from _figures(text, is_docstring=text is page.docstring)
        yield from _hedges(text)
        for found in MARKER.finditer(text.content):
            yield Problem(
                text.line_at(found.start(1)),
                f"The marker {found[1][:30]!r} stands in the prose, where nothing sees "
                "it. Leave a blank line between the text and the cell.",
            )


def _description(page: Page) -> Iterator[Problem]:
    script, docstring = page.script, page.docstring
    text = script.description
    headings = {heading.title for heading in docstring.headings}
    line = docstring.line
    if text:
        first = re.escape(text.split()[0])
        after = re.search(rf"^=+\s*$\s*({first})", docstring.content, re.MULTILINE)
        line = docstring.line_at(after.start(1)) if after else line
    if not text or text.startswith("..") or text.split(" ---")[0] in headings:
        yield Problem(
            docstring.line,
            "There is no description below the title. Write one sentence that says "
            "what the reader can do afterwards; it stands on the card.",
        )
        return
    if len(text) > MAX_DESCRIPTION:
        yield Problem(
            line,
            f"The description has {len(text)} characters; a card holds "
            f"{MAX_DESCRIPTION}. Shorten the first paragraph.",
        )
    link = re.search(
        r":(?!recorded:)[\w:]+:`[^`]*`|(?<!`)`[^`]+`__?|\|\w[^|]*\||\[\w+\]_", text
    )
    if link:
        yield Problem(
            line,
            f"The description holds {link[0]}, which means nothing on the card. Keep "
            "links, roles and substitutions for the next paragraph.",
        )


def _headings(page: Page) -> Iterator[Problem]:
    levels: list[str] = []
    for text in page.texts:
        for number, heading in enumerate(text.headings):
            is_title = text is page.docstring and number == 0
            if heading.mark not in MARKS:
                yield Problem(
                    heading.line + 1,
                    f"The heading {heading.title!r} is underlined with "
                    f"{heading.mark!r}. Use - for sections, ~ below them, then ^.",
                )
                continue
            if heading.mark == "=" and not is_title:
                yield Problem(
                    heading.line + 1,
                    f"{heading.title!r} is a second title (=). Underline a section "
                    "with -.",
                )
                continue
            level = MARKS.index(heading.mark)
            if level > len(levels):
                yield Problem(
                    heading.line + 1,
                    f"The heading {heading.title!r} ({heading.mark}) skips a level. "
                    f"Underline it with {MARKS[len(levels)]}.",
                )
                continue
            levels = [*levels[:level], heading.mark]
        yield from _underlines(text)


def _underlines(text: Text) -> Iterator[Problem]:
    lines = text.content.splitlines()
    for heading in text.headings:
        underline = lines[heading.line + 1 - text.line]
        if underline != underline.rstrip():
            yield Problem(
                heading.line + 1,
                f"The line under {heading.title!r} ends with spaces. Delete them.",
            )
        wide = column_width(heading.title)
        if len(underline.rstrip()) < wide:
            yield Problem(
                heading.line + 1,
                f"The line under {heading.title!r} is too short. Give it {wide} "
                "characters.",
            )


def _sections(page: Page) -> Iterator[Problem]:
    first = [heading.title for heading in page.docstring.headings[1:]]
    yield from _in_order(
        first, FIRST, page.docstring.line, "The docstring", "after its first paragraph"
    )
    later = [heading for text in page.texts[1:] for heading in text.headings]
    end = len(page.source.splitlines())
    titles = [heading.title for heading in later if heading.title in LAST]
    yield from _in_order(titles, LAST, end, "The script", "at the end")
    sections = [heading for heading in later if heading.mark == "-"]
    if "Takeaways" in titles and sections[-1].title != "Takeaways":
        yield Problem(
            sections[-1].line,
            f"The section {sections[-1].title!r} comes after Takeaways. Takeaways is "
            "the last one; move it.",
        )
    if page.measures and RULER_HEADING not in [heading.title for heading in later]:
        ruler = next(cell for cell in page.cells if cell.is_ruler)
        yield Problem(
            ruler.line,
            f"The ruler has no heading. Put a text with the heading {RULER_HEADING!r} "
            "before its cell.",
        )


def _in_order(
    found: list[str], wanted: tuple[str, ...], line: int, whose: str, where: str
) -> Iterator[Problem]:
    missing = [title for title in wanted if title not in found]
    if missing:
        yield Problem(
            line,
            f"{whose} has no section {', '.join(map(repr, missing))}. Add "
            f"{'it' if len(missing) == 1 else 'them'} {where}, underlined with -.",
        )
    present = [title for title in found if title in wanted]
    expected = [title for title in wanted if title in present]
    if present != expected:
        yield Problem(
            line,
            f"The sections {', '.join(present)} are out of order. Order them: "
            f"{', '.join(expected)}.",
        )


def _section(page: Page, title: str) -> tuple[int, str] | None:
    """Line of a section's heading, and the section's text."""
    for text in page.texts:
        for heading, section in text.sections:
            if heading and heading.title == title:
                return heading.line, section.content
    return None


def _glance(page: Page) -> Iterator[Problem]:
    section = _section(page, "At a glance")
    if section is None:
        return
    line, text = section
    bullets = len(re.findall(r"^[-*] ", text, re.MULTILINE))
    if bullets not in GLANCE_LINES:
        yield Problem(
            line,
            f"'At a glance' has {bullets} lines of a list. Write 3 to 5: what is "
            "gained, at what cost, on which GPU, when not to use it.",
        )
    if page.measures and not ROLE.search(text):
        yield Problem(
            line,
            "'At a glance' quotes no value of the recording. Say the main result as "
            ":recorded:`name`.",
        )


def _takeaways(page: Page) -> Iterator[Problem]:
    section = _section(page, "Takeaways")
    if section is None or not page.measures:
        return
    line, text = section
    values = {name for _, name in names_quoted(text)}
    if len(values) < LEAST_RECORDED:
        yield Problem(
            line,
            f"The takeaways quote {len(values)} recorded values. Quote "
            f"{LEAST_RECORDED} or more as :recorded:`name`: what happened, not what "
            "could.",
        )


def _recorded(page: Page) -> Iterator[Problem]:
    for text in page.texts:
        for below, name in names_quoted(text.content):
            line = text.line + below - 1
            if not name.isidentifier():
                yield Problem(
                    line,
                    f":recorded:`{name}` is no name. Write a name such as "
                    ":recorded:`faster_b16`.",
                )
            elif not prints(page, name):
                yield Problem(
                    line,
                    f"No cell prints the value '{name}'. Print a line "
                    f"'{name} = ...' in a cell, or mend the name.",
                )


def _figures(text: Text, is_docstring: bool) -> Iterator[Problem]:
    for heading, section in text.sections:
        if is_docstring and heading and heading.title == "Prerequisites":
            continue  # what a machine has to have is not measured
        for found in TYPED_FIGURE.finditer(_only_prose(section.content)):
            yield Problem(
                section.line_at(found.start()),
                f"A figure typed into prose: {' '.join(found[0].split())!r}. Print it "
                "in a cell and quote it as :recorded:`name`; a figure that is not "
                "measured stands in ``literal`` or in a link to its source.",
            )


def _hedges(text: Text) -> Iterator[Problem]:
    for found in HEDGE.finditer(_only_prose(text.content)):
        yield Problem(
            text.line_at(found.start()),
            f"A hedge: {' '.join(found[0].split())!r}. Say what the recording shows, "
            "with its value, or leave it out.",
        )


def _only_prose(content: str) -> str:
    """The text with what is no prose blanked out; lines and offsets stay."""
    return NO_PROSE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), content)
