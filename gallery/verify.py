"""Runs recorded notebooks again with nbval, each alone in an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gallery.kernel import kernel_environment
from gallery.paths import BROUGHT

CELL_TIMEOUT_S = 900


def compare(recordings: list[Path]) -> int:
    """Execute copies of notebooks and compare their outputs with the recorded ones.

    Cells tagged ``nbval-ignore-output`` are executed and not compared. nbval compares
    text and tables; it leaves pictures out.

    Returns
    -------
    int
        0 if all is equal, as pytest's exit code.
    """
    with tempfile.TemporaryDirectory(prefix="gallery-") as folder:
        copies = []
        for path in recordings:
            alone = Path(folder) / path.stem
            brought = BROUGHT / path.stem
            if brought.is_dir():
                shutil.copytree(brought, alone)
            alone.mkdir(exist_ok=True)
            copies.append(shutil.copy(path, alone))
        command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env"]
        command += [f"--nbval-cell-timeout={CELL_TIMEOUT_S}", "-p", "no:cacheprovider"]
        command += [f"--rootdir={folder}", *copies]
        return subprocess.run(command, env=kernel_environment(), check=False).returncode
