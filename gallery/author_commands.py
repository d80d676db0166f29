"""The commands of an author: new, ruler, preview, rename, delete."""

from __future__ import annotations

import argparse

from gallery import author
from gallery.check import shown
from gallery.display import say
from gallery.paths import require_writable
from gallery.preview import preview
from gallery.script import find_scripts
from gallery.write_ruler import write_ruler


def new(words: argparse.Namespace) -> int:
    """Begin a tutorial: a script that runs, and that you write over."""
    require_writable()
    path = author.new(words.name, words.folder)
    say(
        f"{shown(path)} is there. Write over it; look at it with: "
        f"nox -s preview -- {path.stem}"
    )
    return 0


def rename(words: argparse.Namespace) -> int:
    """Give a tutorial another name, its recordings and reports with it."""
    require_writable()
    for old, path in author.rename(words.old, words.name):
        say(f"{shown(old)} is now {shown(path)}.")
    _say_mentions(words.old)
    return 0


def delete(words: argparse.Namespace) -> int:
    """Delete a tutorial, and all that came from it."""
    require_writable()
    for path in author.delete(words.name, yes=words.yes):
        say(f"{shown(path)} is deleted.")
    _say_mentions(words.name)
    return 0


def ruler(words: argparse.Namespace) -> int:
    """Write the measuring code of gallery/ruler.py into the scripts that hold it."""
    require_writable()
    changed = [path for path in find_scripts(words.names) if write_ruler(path)]
    for path in changed:
        say(f"{shown(path)} has today's ruler.")
    if not changed:
        say("Every ruler is up to date.")
    return 0


def _say_mentions(name: str) -> None:
    lines = list(author.mentions(name))
    if lines:
        say("These lines still name it; change them by hand:")
        for line in lines:
            say(f"  {line}")


def add_to(commands: argparse._SubParsersAction) -> None:
    """Put the commands on the command line."""
    command = commands.add_parser("new", help=new.__doc__)
    command.add_argument("name", help="name of the file, without .py")
    command.add_argument(
        "--folder",
        default=author.FOLDERS[0],
        choices=author.FOLDERS,
        help="folder below examples",
    )
    command.set_defaults(function=new)
    command = commands.add_parser("preview", help=preview.__doc__)
    command.add_argument("names", nargs="*", help="tutorials")
    command.set_defaults(function=preview)
    command = commands.add_parser("ruler", help=ruler.__doc__)
    command.add_argument("names", nargs="*", help="tutorials; all if none is named")
    command.set_defaults(function=ruler)
    command = commands.add_parser("rename", help=rename.__doc__)
    command.add_argument("old", help="the tutorial")
    command.add_argument("name", help="its new name")
    command.set_defaults(function=rename)
    command = commands.add_parser("delete", help=delete.__doc__)
    command.add_argument("name", help="the tutorial")
    command.add_argument(
        "--yes", action="store_true", help="also what git could not give back"
    )
    command.set_defaults(function=delete)
