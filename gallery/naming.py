"""Which names a tutorial's file can have.

The name is that of the page, the recording, the report and the notebook, and a word on
the command line. So it is one plain word, and no two tutorials share it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gallery.errors import GalleryError

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Command-line programs that stand beside the tutorials of this folder.
PROGRAMS_OF = "triton"
PROGRAMS = {"client"}
# Words that mean something else here.
TAKEN = {
    "index": "the page that the site makes for each folder",
    **dict.fromkeys(("gallery", "preview", "serve"), "a command of nox -s"),
}


def misnamed(paths: Iterable[Path]) -> dict[str, str]:
    """Why files cannot be tutorials by their names: a reason for each such file."""
    reasons = {}
    for path in paths:
        try:
            by_name([path])
        except GalleryError as error:
            reasons[path.name.removesuffix(".py")] = str(error)
    return reasons


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Tutorials' files by their names, programs left out.

    Raises
    ------
    GalleryError
        If a file has a name that no tutorial can have, or two files share one.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in PROGRAMS and path.parent.name == PROGRAMS_OF:
            continue
        require_plain(path)
        if path.stem in found:
            raise GalleryError(
                f"Two tutorials are named {path.stem}: {_short(found[path.stem])} and "
                f"{_short(path)}. Their recordings would be one file: rename one of "
                "them."
            )
        found[path.stem] = path
    return found


def require_plain(path: Path) -> None:
    """Refuse a file whose name cannot be a tutorial's.

    Raises
    ------
    GalleryError
        With the file, the reason and what to do.
    """
    name = path.name.removesuffix(".py")
    if name in PROGRAMS:
        raise GalleryError(
            f"{_short(path)}: {name} is the name of a program beside the tutorials in "
            f"examples/{PROGRAMS_OF}, so pages and commands would leave the file out. "
            "Rename it."
        )
    if name in TAKEN:
        raise GalleryError(f"{_short(path)}: {name} is {TAKEN[name]}. Rename it.")
    if not PLAIN.fullmatch(name):
        words = re.findall(r"[A-Za-z0-9]+", name)
        plain = "_".join(words).lstrip("0123456789_") or "a_name"
        raise GalleryError(
            f"{_short(path)}: the name of a tutorial holds letters, digits and "
            f"underscores only, and begins with a letter. Rename it, for instance to "
            f"{plain}.py."
        )


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])
