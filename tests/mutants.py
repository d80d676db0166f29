"""Tests of the tests: ``nox -s mutants``.

mutmut changes the package in one place at a time, in a copy, and runs the fast tests
that reach the place. A change that no test notices survives. Of all changes a fixed
sample is tried: the same names give the same sample. The share that was noticed is
printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / ".cache" / "mutants"
SAMPLE = 300
# Tests that need no PyTorch, no browser and no site: a second or two for each file.
TESTS = (
    *("contract", "check", "script", "naming", "values", "outputs", "benchmarks"),
    *("author", "preview", "roles"),
)
# What those tests are about. Others have tests that start processes or build sites.
MODULES = (
    *("contract/*", "check", "script", "naming", "values", "outputs", "benchmarks"),
    *("author", "cases", "roles"),
)
NOT_MUTATED = ("contract/installed.py",)  # needs the library
COPIED = (
    *("gallery", "tests", "examples", "docs", "recordings", ".github"),
    *("*.py", "*.txt", "*.rst", "*.md", "pyproject.toml"),
)
NOT_COPIED = ("_build", "tutorials", "__pycache__", "mutants")
# Changes that change nothing that anybody could see: (the new line, why).
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
KILLED = {1, 3, 36, 24, -24, 152, 255}  # a test failed, or never came to an end
SURVIVED, NO_TESTS = 0, 33


def main() -> int:
    words = _words()
    if not words.again:
        _copy()
    # With a name that few changes have: this makes them all, and tries hardly any.
    _mutmut("run", "gallery.naming.x__short__mutmut_1", jobs=words.jobs)
    names = sorted(_results(), key=lambda n: hashlib.sha256(n.encode()).digest())
    names = [n for n in names if not words.module or _module(n) in words.module]
    names = names[: words.sample] if words.sample else names
    _mutmut("run", *names, jobs=words.jobs)
    results = _results()
    lines = {name: _new_line(name) for name in names if results[name] not in KILLED}
    same = _equivalent()
    equivalent = [name for name, line in lines.items() if line in same]
    survivors = [name for name in lines if name not in equivalent]
    _print(names, survivors, equivalent, results, lines)
    killed = 1 - len(survivors) / (len(names) - len(equivalent))
    return 0 if killed >= words.least / 100 else 1


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s mutants --", description=__doc__)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="0: all changes")
    parser.add_argument("--module", action="append", help="only of these modules")
    parser.add_argument("--least", type=float, default=85, help="share in percent")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="keep the copy")
    return parser.parse_args()


def _copy() -> None:
    """The project, in a folder that git ignores, with mutmut's settings."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for source in (path for name in COPIED for path in ROOT.glob(name)):
        if source.is_dir():
            ignored = shutil.ignore_patterns(*NOT_COPIED)
            shutil.copytree(source, COPY / source.name, ignore=ignored)
        else:
            shutil.copy(source, COPY)
    also = [p.name for p in COPY.iterdir() if p.name not in {"gallery", "tests"}]
    tests = [f"tests/test_{name}.py" for name in TESTS]
    settings = {
        "source_paths": ["gallery"],
        "only_mutate": [
            f"gallery/{name}" + ("" if "*" in name else ".py") for name in MODULES
        ],
        "do_not_mutate": [f"gallery/{name}" for name in NOT_MUTATED],
        "also_copy": [name for name in also if name != "pyproject.toml"],
        "pytest_add_cli_args_test_selection": [
            test for test in tests if (COPY / test).exists()
        ],
        # What tutorials look like today proves nothing about the package.
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-k", "not tutorial_keeps"],
    }
    with (COPY / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("\n[tool.mutmut]\n")
        file.writelines(f"{key} = {json.dumps(settings[key])}\n" for key in settings)


def _mutmut(*words: str, jobs: int = 1) -> str:
    """Run mutmut in the copy; what it shows while it runs goes to the terminal.

    Raises
    ------
    SystemExit
        If it could not do its work, for instance because the tests fail as they are.
    """
    command = [sys.executable, "-m", "mutmut", *words]
    command += ["--max-children", str(jobs)] if words[0] == "run" else []
    quiet = words[0] != "run"
    done = subprocess.run(command, cwd=COPY, text=True, capture_output=quiet)
    if done.returncode:
        sys.exit(f"mutmut {words[0]} failed. Do the tests pass without a change?")
    return done.stdout or ""


def _results() -> dict[str, int | None]:
    """Exit code of the tests for each change; None where it was not tried."""
    found = {}
    for path in sorted((COPY / "mutants" / "gallery").rglob("*.meta")):
        found |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def _module(name: str) -> str:
    """``contract.prose`` for ``gallery.contract.prose.x__figures__mutmut_7``."""
    return name.removeprefix("gallery.").rpartition(".")[0]


def _new_line(name: str) -> str:
    """What a change makes of its line."""
    shown = _mutmut("show", name)
    new = re.findall(r"^\+(?!\+\+)\s*(.*)$", shown, re.MULTILINE)
    return " ".join(new) or "(a line is gone)"


def _equivalent() -> set[str]:
    if not EQUIVALENT.exists():
        return set()
    lines = EQUIVALENT.read_text(encoding="utf-8").splitlines()
    return {line.partition("  # ")[0].strip() for line in lines if "  # " in line}


def _print(
    names: list[str],
    survivors: list[str],
    equivalent: list[str],
    results: dict[str, int | None],
    lines: dict[str, str],
) -> None:
    groups: dict[str, Counter] = defaultdict(Counter)
    for name in names:
        group = groups[_module(name)]
        group["all"] += 1
        group["same"] += name in equivalent
        group["left"] += name in survivors
        group["untested"] += name in survivors and results[name] == NO_TESTS
    print("\nChanges that no test noticed:")
    for name in survivors:
        why = " (no test runs it)" if results[name] == NO_TESTS else ""
        print(f"  {name}{why}\n      {lines[name]}")
    print(f"\n{'module':24}{'tried':>7}{'equivalent':>12}{'killed':>8}{'share':>8}")
    total: Counter = Counter()
    for module, group in sorted(groups.items()):
        print(_row(module, group))
        total += group
    print(_row("all", total))


def _row(what: str, group: Counter) -> str:
    asked = group["all"] - group["same"]
    killed = asked - group["left"]
    share = f"{killed / asked:.0%}" if asked else "-"
    return f"{what:24}{group['all']:7}{group['same']:12}{killed:8}{share:>8}"


if __name__ == "__main__":
    sys.exit(main())
