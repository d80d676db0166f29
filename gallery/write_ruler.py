"""Writes the ruler, the measuring code, into the tutorials that measure.

`gallery/ruler.py` is the one source. A tutorial asks for the ruler with a code cell
that begins with `MARKER`; what stands in that cell is replaced.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from gallery.errors import GalleryError

SOURCE = Path(__file__).with_name("ruler.py")
MARKER = (
    "# The ruler: the same code measures on every page; how_we_measure explains it."
)
# A code cell ends where the next block of prose begins.
CELL = re.compile(
    rf"^{re.escape(MARKER)}\n.*?(?=^# %%|^# sphinx_gallery_|\Z)", re.M | re.S
)


def ruler() -> str:
    """The measuring code, from its marker line on, without the module's docstring."""
    text = SOURCE.read_text(encoding="utf-8")
    docstring = ast.parse(text).body[0]
    return "\n".join(text.splitlines()[docstring.end_lineno :]).strip() + "\n"


def with_ruler(text: str) -> str:
    """A script's text with today's ruler in its ruler cell; as it is without one.

    Raises
    ------
    GalleryError
        If the script has more than one such cell.
    """
    cells = CELL.findall(text)
    if len(cells) > 1:
        raise GalleryError(f"There are {len(cells)} ruler cells; keep one of them.")
    # Two blank lines, as the formatter wants them after a function.
    return CELL.sub(lambda _: ruler() + "\n\n", text)


def write_ruler(path: Path) -> bool:
    """Bring the ruler of one script up to date; return whether it changed.

    Raises
    ------
    GalleryError
        If the script has more than one ruler cell.
    """
    text = path.read_text(encoding="utf-8")
    try:
        new = with_ruler(text)
    except GalleryError as error:
        raise GalleryError(f"{path.name}: {error}") from None
    if new != text:
        path.write_text(new, encoding="utf-8")
    return new != text
