"""Where things lie in the repository."""

import os
from pathlib import Path

from gallery.errors import GalleryError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
# A folder for each kind of machine: its GPU, and the flavor of TensorRT.
ALL_RECORDINGS = ROOT / "recordings"
# The recordings that pages show; conf.py may name others.
RECORDINGS = ALL_RECORDINGS / "h100-rtx"
ENGINES = ALL_RECORDINGS / "engines"
CACHE = ROOT / ".cache"
# Files that a recording starts from, one folder a tutorial; too large for git.
BROUGHT = CACHE / "brought"
# The notebooks of failed runs, tracebacks included, for whoever mends the tutorial.
FAILED = CACHE / "failed"


def require_writable(folder: Path = ROOT) -> None:
    """Refuse to begin what would fail when it writes.

    Raises
    ------
    GalleryError
        If nothing can be written into the folder.
    """
    if not os.access(folder, os.W_OK):
        raise GalleryError(
            f"{folder} cannot be written to, and results are written there. Work in a "
            "copy of the checkout that is yours."
        )
