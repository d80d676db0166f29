"""The command ``check``: holds tutorials to the contract before anything runs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from gallery.contract import problems
from gallery.errors import GalleryError
from gallery.paths import ROOT
from gallery.script import Script, read_script, sort_out


def messages(script: Script) -> list[str]:
    """All problems of a script, each as ``file:line: what is wrong. what to do.``"""
    name = shown(script.path)
    return [f"{name}:{problem.line}: {problem.text}" for problem in problems(script)]


def shown(path: Path) -> str:
    """A path as a terminal can open it: from the repository's root if it is inside."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def hold_to_contract(scripts: list[Script]) -> tuple[list[Script], dict[str, str]]:
    """Print what breaks the contract; return the scripts that keep it, and reasons.

    Nobody waits for a run, and no GPU is busy with one, that has to be made again.
    """
    kept, refused = [], {}
    for script in scripts:
        found = messages(script)
        for message in found:
            print(message, file=sys.stderr)
        if found:
            places = f"{len(found)} places" if len(found) > 1 else "one place"
            refused[script.name] = (
                f"{script.name} breaks the contract in {places}, listed above. Mend "
                "that, or run it as it is: --unchecked"
            )
        else:
            kept.append(script)
    return kept, refused


def _unreadable(path: Path) -> int:
    """The line that keeps a script from being read; 1 where no line does."""
    try:
        ast.parse(path.read_bytes())
    except SyntaxError as error:
        return error.lineno or 1
    return 1


def check(names: list[str]) -> int:
    """Hold tutorials to the contract, without running them. Takes about a second."""
    paths, reasons = sort_out(names)
    found = [*reasons.values()]
    for path in paths:
        try:
            found += messages(read_script(path))
        except GalleryError as error:
            found.append(f"{shown(path)}:{_unreadable(path)}: {error}")
    for message in found:
        print(message, file=sys.stderr)
    count = f"{len(paths)} tutorial{'s' if len(paths) > 1 else ''}"
    if found:
        print(f"{count} checked: {len(found)} to mend.", file=sys.stderr)
    else:
        print(f"{count} checked: no problems.")
    return 1 if found else 0
