"""Where things lie in the repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
RECORDINGS = ROOT / "recordings"
ENGINES = RECORDINGS / "engines"
# Files that a recording starts from, one folder a tutorial; too large for git.
BROUGHT = ROOT / ".cache" / "brought"
# The notebooks of failed runs, tracebacks included, for whoever mends the tutorial.
FAILED = ROOT / ".cache" / "failed"
