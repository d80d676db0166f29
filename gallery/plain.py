"""reStructuredText of one paragraph as plain words: for cards and search results."""

from __future__ import annotations

import re

PATTERNS = [
    (re.compile(r":[\w:+-]+:`[^`<]*?~?\.?([^`<>]+?)\s*(?:<[^`]*>)?`"), r"\1"),
    (re.compile(r"``(.+?)``"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*(?:<[^`>]*>)?`(?:__?)?"), r"\1"),
    (re.compile(r"\*\*(\S.*?)\*\*"), r"\1"),
    (re.compile(r"\*(\S.*?)\*"), r"\1"),
    (re.compile(r"\\(.)"), r"\1"),
]
SUBSTITUTION = re.compile(r"^\.\. \|([^|\n]+)\| replace:: (.+)$", re.MULTILINE)


def plain(paragraph: str, document: str = "") -> str:
    """Return the paragraph without markup, on one line.

    Parameters
    ----------
    document
        The text that defines the paragraph's substitutions, ``|name|``.
    """
    for name, text in SUBSTITUTION.findall(document):
        paragraph = paragraph.replace(f"|{name}|", text.strip())
    for pattern, replacement in PATTERNS:
        paragraph = pattern.sub(replacement, paragraph)
    return " ".join(paragraph.split())


def rst_escaped(text: str) -> str:
    """Plain words as reStructuredText that means just these."""
    return re.sub(r"([\\`*_|<>:])", r"\\\1", text)
