"""Several machines beside each other: what TensorRT gains on each of them."""

from __future__ import annotations

import shutil
import subprocess

import pandas as pd
from rich.table import Table
from rich.text import Text

from gallery.benchmarks import GROUP, all_rows, flavor
from gallery.cases import cases
from gallery.errors import GalleryError
from gallery.paths import ALL_RECORDINGS, ROOT
from gallery.provenance import short_name
from gallery.tutorial import all_tutorials, recording_folder

KEYS = ["tutorial", *GROUP]
# Rows in a CUDA graph move by this much from one recording to the next.
AGAIN = 0.03
# How many cases are told in words; a table holds all.
TOLD = 5


def machines() -> list[str]:
    """That which pages show, then the other kinds of machines with recordings."""
    shown = recording_folder().name
    found = {path.parent.name for path in ALL_RECORDINGS.glob("*/*.ipynb")}
    return [shown, *sorted(found - {shown})]


def is_yours(machine: str) -> bool:
    """Whether its recordings were made here: git does not know them yet."""
    if not shutil.which("git"):
        return False
    known = subprocess.run(
        ["git", "ls-files", str(ALL_RECORDINGS / machine)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return known.returncode == 0 and not known.stdout.strip()


def labels(machines: list[str]) -> dict[str, str]:
    """Each one's GPU in few words, with its compiler where they differ in that."""
    facts = {machine: _facts(machine) for machine in machines}
    several = len({flavor(fact) for fact in facts.values()}) > 1
    return {
        machine: ("your " if is_yours(machine) else "")
        + short_name(fact["gpu"])
        + (f" ({flavor(fact)})" if several else "")
        for machine, fact in facts.items()
    }


def _facts(machine: str) -> dict:
    recorded = (t.recording for t in all_tutorials(machine) if t.recording)
    return next(recorded).provenance


def cases_on(machine: str) -> pd.DataFrame:
    """`gallery.cases.cases` of all its recordings whose code is still the same."""
    recorded = [t for t in all_tutorials(machine) if t.recording]
    return cases(all_rows(recorded))


def beside(one: str, other: str) -> pd.DataFrame:
    """What both have recorded, a line a case.

    Returns
    -------
    Columns `KEYS`, then those of `cases` with the endings ``_one`` and ``_other``, and
    ``differs``: whether the two speedups are apart by more than either spreads.

    Raises
    ------
    GalleryError
        If they have no case in common.
    """
    first, second = cases_on(one), cases_on(other)
    if first.empty or second.empty or not (set(_keys(first)) & set(_keys(second))):
        raise GalleryError(
            f"{one} and {other} have no benchmark of the present code in common. "
            "Record one on your GPU: nox -s gallery"
        )
    both = first.merge(second, on=KEYS, suffixes=("_one", "_other"))
    above = both.least_other > both.most_one * (1 + AGAIN)
    below = both.most_other < both.least_one * (1 - AGAIN)
    return both.assign(differs=above | below)


def _keys(found: pd.DataFrame) -> list[tuple]:
    return list(found[KEYS].itertuples(index=False, name=None))


def sentences(both: pd.DataFrame, ours: str, theirs: str) -> list[str]:
    """Where two machines differ by more than their spread, in words.

    The cases in which another side wins come first, then those that are furthest apart;
    beyond `TOLD` they are only counted.

    Parameters
    ----------
    both
        From `beside`.
    ours, theirs
        From `labels`.
    """
    apart = both[both.differs]
    other_winner = (apart.speedup_one > 1) != (apart.speedup_other > 1)
    ratio = apart.speedup_other / apart.speedup_one
    further = ratio.where(ratio > 1, 1 / ratio)
    apart = apart.assign(other_winner=other_winner, further=further)
    apart = apart.sort_values(["other_winner", "further"], ascending=False)
    told = [
        f"On {theirs} TensorRT is {row.speedup_other:.2f} times as fast as the best of "
        f"PyTorch ({row.model}, {row.shape}), on {ours} {row.speedup_one:.2f} times."
        for row in apart.head(TOLD).itertuples()
    ]
    if more := len(apart) - len(told):
        told.append(f"So it is in {more} more of {len(both)} cases: see the table.")
    return told


def table(both: pd.DataFrame, ours: str, theirs: str) -> Table:
    """The same as a table, for rich to print."""
    out = Table(title=f"{theirs} beside {ours}", title_justify="left")
    out.add_column("model and shape")
    for name in (ours, theirs):
        out.add_column(f"over PyTorch, {name}", justify="right")
    for name in (ours, theirs):
        out.add_column(f"TensorRT, ms, {name}", justify="right")
    out.add_column("apart by more than the spread")
    for row in both.itertuples():
        words = [
            f"{row.model}, {row.shape}, {row.precision}",
            *(f"{speedup:.2f}" for speedup in (row.speedup_one, row.speedup_other)),
            *(f"{ms:.3g}" for ms in (row.tensorrt_ms_one, row.tensorrt_ms_other)),
            "yes" if row.differs else "no",
        ]
        out.add_row(*map(Text, words))
    return out


def chosen(name: str | None) -> tuple[str, str]:
    """That which pages show, and the machine to set beside it.

    Raises
    ------
    GalleryError
        If there is no such machine, or none is named and there is not exactly one.
    """
    shown, *others = machines()
    known = ", ".join(others) or "none"
    if name is None and len(others) == 1:
        return shown, others[0]
    if name not in others:
        what = f"no recordings of {name!r}" if name else "no single other machine"
        raise GalleryError(
            f"There are {what} beside {shown}. There are: {known}. "
            "Record on your GPU with nox -s gallery, or name one: "
            "python -m gallery compare NAME"
        )
    return shown, name
