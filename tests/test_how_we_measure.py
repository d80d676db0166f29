"""The page about the ruler quotes the ruler as it is."""

import re

from gallery.paths import EXAMPLES
from gallery.script import read_script
from gallery.write_ruler import ruler

QUOTE = re.compile(r"^\.\. code-block:: python\n\n((?:    .*\n?|\n)+)", re.MULTILINE)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_every_quote_stands_in_the_ruler():
    script = read_script(EXAMPLES / "dynamo" / "how_we_measure.py")
    texts = [block.content for block in script.blocks if block.type == "text"]
    quotes = [_lines(quote) for text in texts for quote in QUOTE.findall(text)]
    source = _lines(ruler())
    assert len(quotes) >= 5
    for quote in quotes:
        starts = range(len(source) - len(quote) + 1)
        found = any(source[at : at + len(quote)] == quote for at in starts)
        assert found, "not in the ruler:\n" + "\n".join(quote)
