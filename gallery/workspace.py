"""A folder of its own for one run, of which nothing stays, however the run ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

JANITOR = Path(__file__).with_name("janitor.py")
_open: set[Workspace] = set()


class Workspace:
    """Folders for one run of a tutorial; used in a ``with`` statement.

    At its end, and as well when this process is killed, every process that the run
    started is killed and the folders are removed.

    Attributes
    ----------
    work
        The tutorial's folder, empty.
    tmp
        What programs find as ``TMPDIR``, caches of compilers included.
    home
        What programs find as ``HOME``.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="gallery-"))
        self.work, self.tmp, self.home = (
            self.path / name for name in ("work", "tmp", "home")
        )
        # -I and -S: a process that has to be there at once needs no packages.
        command = [sys.executable, "-I", "-S", JANITOR, self.path]
        self._janitor = subprocess.Popen(
            command, stdin=subprocess.PIPE, start_new_session=True, text=True
        )
        _open.add(self)
        for folder in (self.work, self.tmp, self.home):
            folder.mkdir()

    def also_remove(self, path: Path) -> None:
        """Have another file removed at the end, if it is there by then."""
        self._janitor.stdin.write(f"{path.absolute()}\n")
        self._janitor.stdin.flush()

    def close(self) -> None:
        """Kill what still runs, remove the folders, and return when that is done."""
        _open.discard(self)
        self._janitor.stdin.close()
        self._janitor.wait()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def close_all() -> None:
    """Close every open workspace of this process, which is about to end."""
    for workspace in list(_open):
        workspace.close()
