"""The pictures of the results page, drawn from the recorded tables."""

from __future__ import annotations

import io

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from gallery.benchmarks import GROUP, compiled_rows, medians_of
from gallery.cases import BANDWIDTH, BOUNDS, COMPUTE, LAUNCHES, distinct

GREEN, RED, GRAY = "#1a7f37", "#b35900", "#57606a"
WIDTH = 5.6  # letters stay large on a phone
# Names in place of dates and random names: the same rows make the same file.
STYLE = {"font.size": 10, "svg.hashsalt": "gallery", "svg.fonttype": "path"}
# How a dot looks, by what binds its case.
MARKERS = {LAUNCHES: "o", BANDWIDTH: "s", COMPUTE: "^", "": "x"}


def speedups(rows: pd.DataFrame) -> tuple[bytes, str]:
    """TensorRT over the best of PyTorch, one mark a model and shape.

    Parameters
    ----------
    rows
        From `gallery.benchmarks.all_rows`.

    Returns
    -------
    An SVG, and what it shows as a sentence.
    """
    best = distinct(rows)[::-1]
    keys = [key for key in GROUP if key != "precision" or best[key].nunique() > 1]
    names = [", ".join(map(str, labels)) for labels in best[keys].to_numpy()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.5 + 0.27 * len(best)), layout="constrained")
        axes = figure.subplots()
        for place, case in enumerate(best.itertuples()):
            _mark(axes, place, case.speedup, MARKERS[case.bound])
        axes.axvline(1, color=GRAY, linewidth=1)
        axes.set_yticks(range(len(best)), names)
        axes.margins(x=0.2, y=0.4 / max(1, len(best)))
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low / 1.12, 0.7), max(high * 1.05, 1.4))  # for the numbers
        _plain_ticks(axes, "x")
        axes.set_title("← PyTorch wins", loc="left", fontsize="medium")
        axes.set_title("TensorRT wins →", loc="right", fontsize="medium")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        seen = [bound for bound in MARKERS if (best.bound == bound).any()]
        dots = [axes.scatter([], [], color=GRAY, marker=MARKERS[b], s=40) for b in seen]
        words = [bound or "not recorded" for bound in seen]
        figure.legend(
            dots, words, title="What binds", ncols=4, frameon=False,
            loc="outside lower center", handletextpad=0.1, columnspacing=1.2,
        )  # fmt: skip
        data = _svg(figure)
    return data, f"{_won(best)} {_binds(best)}"


def _mark(axes: Axes, place: int, speedup: float, marker: str) -> None:
    """A line from 1 to the speedup, a mark at its end, and the number."""
    side, color = (1, GREEN) if speedup > 1 else (-1, RED)
    axes.hlines(place, 1, speedup, color=color, linewidth=2)
    axes.scatter(speedup, place, color=color, s=40, marker=marker, zorder=3)
    axes.annotate(
        f"{speedup:.2f}",
        (speedup, place),
        xytext=(7 * side, 0),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="center",
    )


def _won(best: pd.DataFrame) -> str:
    low, high = best.iloc[0], best.iloc[-1]
    return (
        f"TensorRT is faster than the best of PyTorch in {(best.speedup > 1).sum()} of "
        f"{len(best)} cases: from {low.speedup:.2f} ({low.model}, {low['shape']}) to "
        f"{high.speedup:.2f} ({high.model}, {high['shape']})."
    )


def _binds(best: pd.DataFrame) -> str:
    counts = [(bound, (best.bound == bound).sum()) for bound in [*BOUNDS, ""]]
    told = [f"{bound or 'not recorded'} in {count}" for bound, count in counts if count]
    return f"What binds: {', '.join(told)}."


def ready_against_latency(rows: pd.DataFrame) -> tuple[bytes, str]:
    """Seconds until ready against latency, each over its own best of PyTorch.

    Returns
    -------
    An SVG, and what it shows as a sentence.
    """
    rows = compiled_rows(rows)
    looks = {
        "Inductor": ("o", "#8250df"),
        "Inductor max-autotune": ("s", "#bf3989"),
        "TensorRT": ("^", GREEN),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        for family, (marker, color) in looks.items():
            part = rows[rows.family == family]
            if len(part):
                axes.scatter(
                    part.ready, part.relative, s=40, marker=marker, label=family,
                    color=color, alpha=0.75, linewidths=0,
                )  # fmt: skip
        axes.axhline(1, color=GRAY, linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.8), max(high, 1.25))
        _plain_ticks(axes, "x")
        _plain_ticks(axes, "y")
        axes.set_xlabel("seconds until ready: compilation and first call")
        axes.set_ylabel("latency over the best of PyTorch")
        axes.spines[["top", "right"]].set_visible(False)
        if len(rows):
            figure.legend(loc="outside upper center", ncols=3, frameon=False)
        data = _svg(figure)
    told = ", ".join(
        f"{name} {value:.0f} s" for name, value in medians_of(rows).items()
    )
    return data, f"Median time until a model is ready, measured once: {told or 'none'}."


def _plain_ticks(axes: Axes, which: str) -> None:
    """0.5, 1, 2 and so on in place of powers of ten."""
    axis = getattr(axes, f"{which}axis")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    ticks = [m * 10.0**e for e in range(-3, 5) for m in (1, 2, 5)]
    if high / low < 8:
        ticks = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 4, 5, 7]
        ticks += [10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500]
    if high / low < 2:
        ticks += [1.1, 1.3, 1.7, 2.5, 6, 8, 9, 11, 12, 13, 14, 16, 18, 25, 50, 70, 120]
    axis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axes.grid(axis=which, color="#d8dee4", linewidth=0.7)
    axes.set_axisbelow(True)


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
