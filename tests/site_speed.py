"""How long the site takes to build with 25 tutorials: ``python -m tests.site_speed``.

The tutorials of the repository stand for those that are still to come, with their
recordings. Exits with 1 if a build takes longer than it may.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from gallery.script import find_scripts
from tests.conftest import ROOT, build_site

TUTORIALS = 25
# Seconds on two cores that do nothing else.
COLD_S, UNCHANGED_S = 60, 10
SOURCES = ("conf.py", "docs", "examples", "gallery", "recordings", "*.rst", "*.txt")
GENERATED = ("__pycache__", "_build", "tutorials", "sg_execution_times.rst")


def copy_sources(project: Path) -> None:
    """Copy all that the site is made of, and nothing that it made."""
    for source in (path for name in SOURCES for path in ROOT.glob(name)):
        if source.is_dir():
            ignored = shutil.ignore_patterns(*GENERATED)
            shutil.copytree(source, project / source.name, ignore=ignored)
        else:
            shutil.copy(source, project)


def multiply(project: Path, wanted: int) -> int:
    """Copy tutorials under other names; return how many recordings there are."""
    scripts = find_scripts(folder=project / "examples")
    recordings = project / "recordings" / "h100-rtx"
    recorded = [p for p in scripts if (recordings / f"{p.stem}.ipynb").exists()]
    copies = itertools.cycle(recorded or scripts)
    for number in range(wanted - len(scripts)):
        script = next(copies)
        name = f"{script.stem}_{number}"
        shutil.copy(script, script.with_name(f"{name}.py"))
        for folder, kind in (("h100-rtx", "ipynb"), ("engines", "json")):
            source = project / "recordings" / folder / f"{script.stem}.{kind}"
            if source.exists():
                shutil.copy(source, source.with_name(f"{name}.{kind}"))
    return len(list(recordings.glob("*.ipynb")))


def seconds(project: Path) -> tuple[float, float]:
    """Seconds of a build: on the clock, and of the processor's time."""
    before, start = os.times(), time.perf_counter()
    done = build_site(project)
    clock, after = time.perf_counter() - start, os.times()
    if done.returncode:
        sys.exit(f"The site was not built.\n{done.stderr}")
    spent = (after[2] - before[2]) + (after[3] - before[3])
    return clock, spent


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        copy_sources(project)
        recorded = multiply(project, TUTORIALS)
        print(f"{TUTORIALS} tutorials, {recorded} of them recorded")
        slow = False
        for kind, most in (("cold", COLD_S), ("unchanged", UNCHANGED_S)):
            clock, spent = seconds(project)
            print(f"{kind}: {clock:.1f} s ({spent:.1f} s of processor), allowed {most}")
            slow |= clock > most
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
