"""Recorded values in prose: ``:recorded:`name``` becomes what a cell printed.

A cell prints a line ``name = value``, and prose quotes it. In a tutorial the name
stands alone. On other pages the tutorial's name comes first:
``:recorded:`refit_engine_example:build_s```.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from gallery.errors import GalleryError
from gallery.terminal import last_state

# Not inside ``literal text``, where the role is explained.
ROLE = re.compile(r"(?<![`\w]):recorded:`([^`\n]+)`(?!`)")
PRINTED = re.compile(r"^([A-Za-z_]\w*) = (\S.*?)[ \t]*$", re.MULTILINE)
ABSENT = "(not recorded)"


def printed_values(outputs: Iterable[list]) -> dict[str, list[str]]:
    """All values that the given outputs print, by name, each text once.

    Parameters
    ----------
    outputs
        For each code cell the list of its outputs, as in a notebook.
    """
    found: dict[str, list[str]] = {}
    for cell in outputs:
        text = "".join(
            out["text"]
            for out in cell
            if out["output_type"] == "stream" and out.get("name") != "stderr"
        )
        for name, value in PRINTED.findall(last_state(text)):
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return found


def fill(text: str, value_of: Callable[[str], str]) -> str:
    """Replace every ``:recorded:`` role in the text by ``value_of(its content)``."""
    return ROLE.sub(lambda match: value_of(match[1].strip()), text)


def names_quoted(text: str) -> list[tuple[int, str]]:
    """The roles in a text: (number of the line, from 1; what stands in the role)."""
    return [
        (text.count("\n", 0, match.start()) + 1, match[1].strip())
        for match in ROLE.finditer(text)
    ]


def look_up(name: str, values: dict[str, list[str]], *, complete: bool) -> str:
    """The value with this name.

    Parameters
    ----------
    values
        From `printed_values`.
    complete
        Whether the outputs are those of the present script, all of them. If not, a
        missing value is no error but `ABSENT`.

    Raises
    ------
    GalleryError
        If nothing printed the name, or several values were printed under it.
    """
    found = values.get(name, [])
    if not found:
        if not complete:
            return ABSENT
        known = ", ".join(sorted(values)) or "none"
        raise GalleryError(
            f"no cell of the recording printed a line `{name} = ...`. "
            f"Names that were printed: {known}."
        )
    if len(found) > 1:
        raise GalleryError(
            f"cells printed different values under the name {name!r}: "
            f"{', '.join(found)}. Give each its own name."
        )
    return found[0]


def quote_in_notebook(notebook: dict) -> None:
    """Fill in the roles in an executed notebook's prose, from its own outputs.

    Nothing is refused here: a run on a GPU is too dear. The site refuses.
    """
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printed = printed_values(cell["outputs"] for cell in code)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = fill(
                cell["source"], lambda name: printed.get(name, [ABSENT])[0]
            )
