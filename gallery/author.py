"""A tutorial's beginning, renaming and end: all its files at once."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gallery.errors import GalleryError
from gallery.naming import PROGRAMS_OF, require_plain
from gallery.paths import ROOT
from gallery.script import find_scripts
from gallery.write_ruler import with_ruler

TEMPLATE = Path(__file__).parent / "template" / "tutorial.py"
FOLDERS = ("dynamo", PROGRAMS_OF)
# Where a tutorial's name may stand besides its own files.
MENTIONS = ("*.rst", "*.md", "*.toml", "examples/**/*.py", "docs/*.rst", "gallery/*.py")


def new(name: str, folder: str = FOLDERS[0], root: Path = ROOT) -> Path:
    """Begin a tutorial: the template, with the ruler, under a name of its own.

    Raises
    ------
    GalleryError
        If the name is taken or cannot be a tutorial's.
    """
    path = root / "examples" / folder / f"{name.removesuffix('.py')}.py"
    _require_free(path, root)
    text = TEMPLATE.read_text(encoding="utf-8")
    title = path.stem.replace("_", " ").capitalize()
    text = text.replace(
        "The title\n=========", f"{title}\n{'=' * max(len(title), 3)}", 1
    )
    path.write_text(with_ruler(text), encoding="utf-8")
    return path


def rename(old: str, name: str, root: Path = ROOT) -> list[tuple[Path, Path]]:
    """Give a tutorial another name: script, recordings, report, brought files.

    Returns
    -------
    Pairs (old path, new path). Generated pages of the old name are deleted.

    Raises
    ------
    GalleryError
        If there is no such tutorial, or the new name is taken or cannot be one.
    """
    [script] = find_scripts([old], root / "examples")
    name = name.removesuffix(".py")
    _require_free(script.with_name(f"{name}.py"), root)
    pairs = [
        (path, path.with_name(path.name.replace(script.stem, name, 1)))
        for path in own_files(script, root)
    ]
    taken = [new for _, new in pairs if new.exists()]
    if taken:
        raise GalleryError(
            f"{taken[0].relative_to(root)} exists, from an earlier tutorial of that "
            "name. Delete it first."
        )
    for path, target in pairs:
        path.rename(target)
    for path in generated(script.stem, root):
        path.unlink()
    return pairs


def delete(name: str, *, yes: bool = False, root: Path = ROOT) -> list[Path]:
    """Delete a tutorial and all that came from it; return what was deleted.

    Raises
    ------
    GalleryError
        If there is no such tutorial, or git could not give the script back and `yes`
        does not say that this is meant.
    """
    [script] = find_scripts([name], root / "examples")
    lost = [path for path in own_files(script, root) if not _is_committed(path, root)]
    if lost and not yes:
        names = ", ".join(str(path.relative_to(root)) for path in lost)
        raise GalleryError(
            f"Git could not give these back: {names}. Commit them first, or say that "
            "you mean it: --yes"
        )
    paths = [*own_files(script, root), *generated(script.stem, root)]
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return paths


def own_files(script: Path, root: Path = ROOT) -> list[Path]:
    """A tutorial's script and all that belongs to it alone."""
    name = script.stem
    places = [
        *root.glob(f"recordings/**/{name}.ipynb"),
        *root.glob(f"recordings/**/{name}.json"),
        *root.glob(f".cache/*/{name}"),
        *root.glob(f".cache/*/{name}.ipynb"),
    ]
    return [script, *sorted(places)]


def generated(name: str, root: Path = ROOT) -> list[Path]:
    """Pages, notebooks, pictures and zips that a build has made for a tutorial."""
    exact = re.compile(
        rf"(?:recorded_|sphx_glr_|thumb_)?{re.escape(name)}(?:_\d+|_thumb)?"
    )
    return [
        path
        for path in sorted((root / "docs" / "tutorials").rglob(f"*{name}*"))
        if path.is_file() and exact.fullmatch(path.name.partition(".")[0])
    ]


def mentions(name: str, root: Path = ROOT) -> Iterator[str]:
    """Lines elsewhere that still say a tutorial's name, as ``file:line: text``."""
    word = re.compile(rf"\b{re.escape(name)}\b")
    files = {path for pattern in MENTIONS for path in root.glob(pattern)}
    for path in sorted(files):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if word.search(line):
                yield f"{path.relative_to(root)}:{number}: {line.strip()}"


def _require_free(path: Path, root: Path) -> None:
    require_plain(path)
    for other in sorted((root / "examples").glob("*/*.py")):
        if other.stem == path.stem:
            raise GalleryError(
                f"There is {other.relative_to(root)} already. Choose another name."
            )
    if not path.parent.is_dir():
        folders = ", ".join(FOLDERS)
        raise GalleryError(
            f"There is no folder examples/{path.parent.name}. Choose one of {folders}."
        )


def _is_committed(path: Path, root: Path) -> bool:
    """Whether git has this very state of a file; what it ignores does not matter."""
    words = ["git", "status", "--porcelain", "--untracked-files=all", "--", str(path)]
    try:
        done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    except OSError:
        return False
    return done.returncode == 0 and not done.stdout.strip()
