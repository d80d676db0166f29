"""Sphinx's roles in a notebook's prose: links to the site, or plain words."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from gallery.paths import EXAMPLES, ROOT

DOCS = ROOT / "docs"
# Not inside ``literal text``. The words may go on in the next line.
ROLE = re.compile(r"(?<![`\w]):([a-z][\w:+-]*):`([^`]+)`(?!`)")
# What sphinx-gallery leaves of :ref:`words <label>`.
REF = re.compile(r"(?<![`:])`([^`<]+\s<[^`<>]+>)`(?!`)")
TITLED = re.compile(r"(.*\S)\s*<([^<>]+)>\s*", re.DOTALL)
HEADING = re.compile(r'^(?:r?""")?[ \t]*(\S.*)\n=+[ \t]*$', re.MULTILINE)
TERM = re.compile(r"^   ([^\s:].*)$", re.MULTILINE)
CODE_ROLES = {"func", "class", "meth", "mod", "attr", "data", "obj", "exc", "file"}
FENCE = "```"


def in_markdown(text: str, page: str, address: str = "") -> str:
    """Return Markdown in which no role is left.

    Parameters
    ----------
    text
        A notebook's cell, which may still hold roles.
    page
        The page that the cell belongs to, such as ``tutorials/dynamo/name``.
    address
        The published site's. Without one, a role becomes the words that it shows.
    """
    parts = text.split(FENCE)
    # Every second part is code.
    parts[::2] = [
        ROLE.sub(
            lambda role: _shown(*role.groups(), page, address),
            REF.sub(lambda ref: _shown("ref", ref[1], page, address), part),
        )
        for part in parts[::2]
    ]
    return FENCE.join(parts)


def _shown(role: str, content: str, page: str, address: str) -> str:
    titled = TITLED.fullmatch(content)
    words, target = titled.groups() if titled else (content, content)
    words, target = " ".join(words.split()), " ".join(target.split())
    kind = role.rpartition(":")[2]
    if kind in CODE_ROLES:
        name = words.removeprefix("~") if titled else _short(words)
        return f"`{name}`"
    path = None
    if kind == "doc":
        path, title = _page(target, page)
        words = words if titled else title
    elif kind == "term":
        path = _term(target)
    elif kind == "ref":
        path = _label(target)
    return f"[{words}]({address.rstrip('/')}/{path})" if path and address else words


def _short(name: str) -> str:
    """``~torch.nn.Linear`` is shown as ``Linear``."""
    return name.rpartition(".")[2] if name.startswith("~") else name


def _page(target: str, page: str) -> tuple[str, str]:
    """A page's path on the site, and its title."""
    folder = "/" if target.startswith("/") else f"/{posixpath.dirname(page)}"
    name = posixpath.normpath(posixpath.join(folder, target.lstrip("/"))).lstrip("/")
    source = DOCS / f"{name}.rst"
    if name.startswith("tutorials/"):
        source = next(EXAMPLES.glob(f"*/{posixpath.basename(name)}.py"), source)
    heading = HEADING.search(_text(source))
    return f"{name}.html", heading[1].strip() if heading else posixpath.basename(name)


def _term(target: str) -> str | None:
    """Where the glossary explains a term."""
    terms = {term.lower(): term for term in TERM.findall(_text(DOCS / "glossary.rst"))}
    found = terms.get(target.lower())
    anchor = found and re.sub(r"[^\w.]+", "-", found).strip("-")
    return f"glossary.html#term-{anchor}" if anchor else None


def _label(target: str) -> str | None:
    """Where a page of ours has a label, ``.. _name:``."""
    for source in sorted(DOCS.glob("*.rst")):
        if re.search(rf"^\.\. _{re.escape(target)}:$", _text(source), re.MULTILINE):
            return f"{source.stem}.html#{target.lower().replace('_', '-')}"
    return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
