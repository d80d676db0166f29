"""The order in which readers walk through the tutorials: ``docs/path.toml``."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from gallery.errors import GalleryError
from gallery.script import find_scripts
from gallery.tutorial import Tutorial, load_tutorial

LEVELS = ["first steps", "in depth", "expert"]
WORDS_A_MINUTE, CODE_LINES_A_MINUTE = 200, 20


@dataclass
class Section:
    """A part of the path.

    Attributes
    ----------
    tutorials
        Pairs (tutorial, level), in order.
    """

    title: str
    text: str
    tutorials: list[tuple[Tutorial, str]] = field(default_factory=list)


def learning_path(file: Path) -> list[Section]:
    """All tutorials, in their sections; those that the file leaves out come last.

    Raises
    ------
    GalleryError
        If the file is not TOML, or lacks a field, or names an unknown level.
    """
    rest = [path.stem for path in find_scripts()]
    sections = []
    try:
        parts = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        for part in parts.get("section", []):
            section = Section(part["title"], part["text"])
            for entry in part["tutorials"]:
                if entry["level"] not in LEVELS:
                    raise GalleryError(
                        f"{file.name}: {entry['name']} has the level "
                        f"{entry['level']!r}. Levels are: {', '.join(LEVELS)}."
                    )
                if entry["name"] in rest:  # others are still to be written
                    rest.remove(entry["name"])
                    tutorial = load_tutorial(entry["name"])
                    section.tutorials.append((tutorial, entry["level"]))
            sections.append(section)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise GalleryError(
            f"{file.name} cannot be read ({error}). A section has a title, a text and "
            "tutorials, each with a name and a level."
        ) from None
    if rest:
        more = [(load_tutorial(name), "in depth") for name in rest]
        sections.append(Section("More", "Not yet part of the path.", more))
    return [section for section in sections if section.tutorials]


def reading_minutes(tutorial: Tutorial) -> int:
    """About how long the page takes to read, code included, the ruler not."""
    prose = " ".join(b.content for b in tutorial.script.blocks if b.type == "text")
    code = [b.content for b in tutorial.script.blocks if b.type == "code"]
    lines = sum(
        bool(line.strip())
        for cell in code
        if "# The ruler:" not in cell
        for line in cell.splitlines()
    )
    words = len(re.findall(r"\w+", prose))
    return max(1, round(words / WORDS_A_MINUTE + lines / CODE_LINES_A_MINUTE))
