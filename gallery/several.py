"""One page of several machines: its reader chooses whose outputs and values it shows.

Everything that differs stands on the page once for each machine, with the classes
``on-machine`` and ``on-NAME``. ``gallery.css`` shows that which is ``shown-machine``,
and ``gallery.js`` gives this class to the reader's choice, here and on other pages.
"""

from __future__ import annotations

from html import escape
from textwrap import indent

from gallery.compare import labels, machines
from gallery.plain import rst_escaped
from gallery.tutorial import Tutorial, load_tutorial
from gallery.values import ABSENT

Versions = dict[str, Tutorial]


def versions(tutorial: Tutorial) -> Versions:
    """The tutorial with each machine's recording; that which pages show comes first.

    Others are there where theirs is whole and of the present code.
    """
    if not tutorial.is_complete:
        return {"": tutorial}
    shown, *others = machines()
    found = {name: load_tutorial(tutorial.name, name) for name in others}
    whole = {name: other for name, other in found.items() if other.is_complete}
    return {shown: tutorial, **whole}


def roles(found: Versions) -> str:
    """What the page needs above everything that `value` makes."""
    return "".join(
        f".. role:: on-{name}\n   :class: {_classes(name, found)}\n\n"
        for name in (found if len(found) > 1 else ())
    )


def value(name: str, found: Versions) -> str:
    """A recorded value as reStructuredText, for each machine where they differ.

    Raises
    ------
    GalleryError
        If the recording that pages show lacks it.
    """
    shown, *others = found.values()
    texts = [shown.value(name)]
    for other in others:  # a message that one GPU alone gives is no fault
        printed = other.values.get(name, [])
        texts.append(printed[0] if len(printed) == 1 else ABSENT)
    if len(set(texts)) == 1:
        return rst_escaped(texts[0])
    spans = [
        f":on-{machine}:`{rst_escaped(text)}`" for machine, text in zip(found, texts)
    ]
    # What stands beside it may be a letter.
    return "\\ ".join(["", *spans, ""])


def blocks(texts: list[str], found: Versions) -> str:
    """What each machine shows at one place of the page, once if it is the same."""
    if len(set(texts)) == 1:
        return texts[0]
    return "\n\n".join(
        f".. container:: {_classes(name, found)}\n\n{indent(text, '   ')}"
        for name, text in zip(found, texts)
        if text.strip()
    )


def choice(found: Versions) -> str:
    """The buttons, as reStructuredText; "" where there is nothing to choose."""
    if len(found) < 2:
        return ""
    told = labels(list(found))
    buttons = "".join(
        f'<button type="button" data-machine="{escape(name)}" '
        f'aria-pressed="{str(not number).lower()}">{escape(told[name])}</button> '
        for number, name in enumerate(found)
    )
    return (
        '.. raw:: html\n\n   <div class="machine-choice" role="group" hidden '
        f'aria-label="Whose recording">Outputs of {buttons}</div>\n'
    )


def _classes(name: str, found: Versions) -> str:
    is_shown = name == next(iter(found))
    return f"on-machine on-{name}{' shown-machine' if is_shown else ''}"
