"""What a terminal shows at the end of a stream: for pages, which do not move."""

from __future__ import annotations

import re

# Hyperlinks and titles end with a bell or with ESC and a backslash.
OSC = re.compile(r"\x1b\].*?(?:\x07|\x1b\\)", re.DOTALL)
TOKEN = re.compile(
    r"\x1b\[([0-9;?]*)[ -/]*([@-~])|\x1b.|[\r\b\n]|[^\x1b\r\b\n]+", re.DOTALL
)
# Control characters that print nothing; a tab and the end of a line stay.
SILENT = re.compile(r"[\x00-\x07\x0b-\x0c\x0e-\x1a\x1c-\x1f\x7f]")


def last_state(text: str) -> str:
    """Return printed text without colors, and progress bars as they were left.

    A carriage return lets what follows overwrite the line, a backspace the last
    character; codes that move the cursor or erase a line do so.
    """
    text = SILENT.sub("", OSC.sub("", text).replace("\r\n", "\n"))
    if not re.search("[\x1b\r\b]", text):
        return text
    lines: list[list[str]] = [[]]
    row = column = 0
    for token in TOKEN.finditer(text):
        argument, code = token[1], token[2]
        line = lines[row]
        if token[0] == "\n":
            row, column = row + 1, 0
            lines += [[]] * (row == len(lines))
        elif token[0] == "\r":
            column = 0
        elif token[0] == "\b":
            column = max(0, column - 1)
        elif code == "A":
            row = max(0, row - int(argument or 1))
        elif code == "G":
            column = int(argument or 1) - 1
        elif code == "K" and argument == "1":
            line[:column] = " " * column
        elif code == "K":
            del line[0 if argument == "2" else column :]
        elif not token[0].startswith("\x1b"):
            line += " " * (column - len(line))
            line[column : column + len(token[0])] = token[0]
            column += len(token[0])
    return "\n".join("".join(line).rstrip() for line in lines)
