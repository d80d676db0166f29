"""A benchmark table as HTML that fits: what is constant goes into the caption."""

from __future__ import annotations

import math
import re
from html import escape

import pandas as pd

from gallery.benchmarks import COLUMNS, FLOORS, GROUP, LABELS, is_best, ready_s
from gallery.cases import BANDWIDTH, BOUNDS, COMPUTE, LAUNCHES

# Column: heading, and what it means.
HEADINGS = {
    "backend": ("backend", "what runs the model"),
    "latency_ms": ("ms", "median of a call, milliseconds"),
    "range": ("p20–p80", "20th and 80th percentile of a call, milliseconds"),
    "speedup": ("over PyTorch", "the best of PyTorch takes this many times as long"),
    "error": ("error", "relative error against eager, on fresh input"),
    "memory": ("MiB", "peak memory of a call, weights included"),
    "ready": ("ready in s", "compilation and first call, seconds"),
}
BINDS = {
    LAUNCHES: "Launches bind",
    BANDWIDTH: "Bandwidth binds",
    COMPUTE: "Compute binds",
}
DASH = "–"


def table_html(frame: pd.DataFrame, link: str | None = None) -> str:
    """Return one benchmark table as HTML.

    What all rows share stands in the caption. Rows of one model, precision and shape
    stand together below a line that names what sets them apart from others.

    Parameters
    ----------
    frame
        From `gallery.benchmarks.read_benchmark`.
    link
        Where the backends' names lead to.
    """
    frame = frame.reset_index(drop=True)
    cells = _cells(frame)
    shown = ["backend", *(key for key in cells if key not in LABELS)]
    same = [key for key in GROUP if frame[key].nunique(dropna=False) == 1]
    head = "".join(_head_cell(key) for key in shown)
    best = is_best(frame)
    bodies = ""
    for _, group in frame.groupby(GROUP, sort=False, dropna=False):
        apart = _words(group, [key for key in GROUP if key not in same])
        least = _least(group)
        apart += f"{': ' if apart else ''}{least}" if least else ""
        rows = ""
        if apart:
            rows += f'<tr class="group"><th colspan="{len(shown)}">{apart}</th></tr>'
        for number in group.index:
            row = "".join(_cell(key, *cells[key][number], link) for key in shown)
            rows += f"<tr{' class=best' if best[number] else ''}>{row}</tr>\n"
        bodies += f"<tbody>{rows}</tbody>\n"
    caption = _words(frame, same)
    return (
        '<div class="benchmark" tabindex="0"><table class="table benchmark">'
        + (f"<caption>{caption}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead>\n{bodies}</table></div>"
    )


def cases_html(frame: pd.DataFrame, links: dict[str, str]) -> str:
    """Return `gallery.cases.cases` as HTML, what binds above the rows that it binds.

    `links` lead to the tutorials.
    """
    heads = ["model and shape", "TensorRT over PyTorch", "TensorRT, ms", "PyTorch, ms"]
    heads += ["TensorRT's best", "PyTorch's best", "ready in s: TensorRT", "PyTorch"]
    bodies = ""
    for bound in [*BOUNDS, ""]:
        rows = _case_rows(frame[frame.bound == bound], links)
        if rows:
            told = BINDS.get(bound, "What binds is not recorded")
            group = f'<tr class="group"><th colspan="{len(heads)}">{told}</th></tr>'
            bodies += f"<tbody>{group}{rows}</tbody>\n"
    return _plain_table(heads, bodies)


def machines_html(
    both: pd.DataFrame, names: tuple[str, str], links: dict[str, str]
) -> str:
    """Return `gallery.compare.beside` as HTML; bold where the two are apart.

    `names` are those of the two GPUs; `links` lead to the tutorials.
    """
    heads = ["model and shape", *(f"over PyTorch, {name}" for name in names)]
    heads += [*(f"TensorRT, ms, {name}" for name in names), "what binds"]
    columns = [
        *(numbers(both[key], 2) for key in ("speedup_one", "speedup_other")),
        *(_digits(both[key]) for key in ("tensorrt_ms_one", "tensorrt_ms_other")),
        [" / ".join(dict.fromkeys(bounds)) for bounds in _bounds(both)],
    ]
    rows = ""
    for case, *cells in zip(both.itertuples(), *columns):
        row = _case_name(case, links)
        row += "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
        rows += f"<tr{' class=best' if case.differs else ''}>{row}</tr>\n"
    return _plain_table(heads, f"<tbody>{rows}</tbody>\n")


def _bounds(both: pd.DataFrame) -> list[list[str]]:
    pairs = zip(both.bound_one, both.bound_other)
    return [[bound or DASH for bound in pair] for pair in pairs]


def _plain_table(heads: list[str], bodies: str) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return (
        '<div class="benchmark" tabindex="0"><table class="table benchmark">'
        f"<thead><tr>{head}</tr></thead>\n{bodies}</table></div>"
    )


def _case_name(case: tuple, links: dict[str, str]) -> str:
    name = escape(f"{case.model}, {case.shape}, {case.precision}")
    return f'<th scope="row"><a href="{escape(links[case.tutorial])}">{name}</a></th>'


def _case_rows(frame: pd.DataFrame, links: dict[str, str]) -> str:
    if frame.empty:
        return ""
    columns = [
        ("number", numbers(frame.speedup, 2)),
        ("number", _digits(frame.tensorrt_ms)),
        ("number", _digits(frame.pytorch_ms)),
        ("name", [_breakable(name) for name in frame.tensorrt]),
        ("name", [_pytorch_best(case, links) for case in frame.itertuples()]),
        ("number", numbers(frame.tensorrt_ready_s, 0)),
        ("number", numbers(frame.pytorch_ready_s, 0)),
    ]
    kinds, cells = zip(*columns)
    rows = ""
    for case, *shown in zip(frame.itertuples(), *cells):
        row = _case_name(case, links)
        for kind, cell in zip(kinds, shown):
            row += f'<td class="{kind}">{cell}</td>'
        rows += f"<tr{' class=best' if case.speedup > 1 else ''}>{row}</tr>\n"
    return rows


def _pytorch_best(case: tuple, links: dict[str, str]) -> str:
    """The name of PyTorch's row, and where it stands if that is another page."""
    name = _breakable(case.pytorch)
    if case.pytorch_tutorial == case.tutorial:
        return name
    return f'<a href="{escape(links[case.pytorch_tutorial])}">{name}</a>'


def _breakable(name: str) -> str:
    """A name as HTML, which may break behind an underscore."""
    return escape(name).replace("_", "_<wbr>")


def _digits(column: pd.Series) -> list[str]:
    """Three digits of each number for itself."""
    return [
        numbers(pd.Series([value]), places(pd.Series([value])))[0] for value in column
    ]


def tidy_table(html: str, resource: dict) -> str:
    """pandas' own HTML of a table without its row numbers, and dashes for NaN."""
    html = re.sub(r"<td>(NaN|None|NaT)</td>", f"<td>{DASH}</td>", html)
    numbers = [row.get("index") for row in resource["data"]]
    if numbers and numbers == list(range(len(numbers))):
        # In the head stands the name of the columns, if they have one.
        html = re.sub(r"(<tr[^>]*>\s*)<th>[^<]*</th>\s*", r"\1", html)
    return html


def _words(frame: pd.DataFrame, keys: list[str]) -> str:
    """The first row's labels, as HTML."""
    labels = [frame[key].iloc[0] for key in keys]
    return escape(", ".join(str(label) for label in labels if not pd.isna(label)))


def _least(group: pd.DataFrame) -> str:
    """The least time that a call can take, and why; "" where no column tells."""
    if not set(FLOORS) <= set(group.columns):
        return ""
    arithmetic, memory = group[FLOORS].max()
    if math.isnan(arithmetic + memory):
        return ""
    [most] = _digits(pd.Series([max(arithmetic, memory)]))
    what = "memory traffic" if memory > arithmetic else "arithmetic"
    return f"at least {most} ms of {what}"


def _head_cell(key: str) -> str:
    heading, meaning = _heading(key)
    return f'<th scope="col" title="{escape(meaning)}">{escape(heading)}</th>'


def _cell(key: str, text: str, value: float | str | None, link: str | None) -> str:
    text = escape(text)
    if key == "backend":
        name = f'<a href="{escape(link)}">{text}</a>' if link else text
        return f'<th scope="row">{name}</th>'
    if value is None:
        return f"<td>{text}</td>"
    return f'<td class="number" data-value="{value}">{text}</td>'


def _heading(key: str) -> tuple[str, str]:
    words = key.replace("_", " ")
    return HEADINGS.get(key, (words, words))


def _cells(frame: pd.DataFrame) -> dict[str, list[tuple[str, float | str | None]]]:
    """For each column that has any value: its cells as (text, number or None)."""
    decimals = places(pd.concat([frame.latency_ms, frame.latency_p20]))
    latency = numbers(frame.latency_ms, decimals)
    low, high = (
        numbers(frame.latency_p20, decimals),
        numbers(frame.latency_p80, decimals),
    )
    ready = ready_s(frame)
    columns: dict[str, tuple[list[str], pd.Series | None]] = {
        "backend": (texts(frame.backend), None),
        "latency_ms": (latency, frame.latency_ms),
        "speedup": (numbers(frame.speedup, 2), frame.speedup),
        "range": (
            [DASH if DASH in pair else "–".join(pair) for pair in zip(low, high)],
            frame.latency_p80 - frame.latency_p20,
        ),
        "error": (
            [DASH if math.isnan(x) else f"{x:.0e}" if x else "0" for x in frame.error],
            frame.error,
        ),
        "memory": (numbers(frame.peak_memory_mb, 0), frame.peak_memory_mb),
        "ready": (numbers(ready, 1), ready),
    }
    for key in [name for name in frame.columns if name not in (*COLUMNS, *FLOORS)]:
        column = pd.to_numeric(frame[key], errors="coerce")
        if column.notna().sum() == frame[key].notna().sum():
            columns[key] = (numbers(column), column)
        else:
            columns[key] = (texts(frame[key]), None)
    return {
        key: [
            (text, None if values is None else _order(values.iloc[number]))
            for number, text in enumerate(shown)
        ]
        for key, (shown, values) in columns.items()
        if any(text != DASH for text in shown)
    }


def _order(value: float) -> float | str:
    return "" if math.isnan(value) else round(float(value), 9)


def texts(column: pd.Series) -> list[str]:
    """Words, and a dash where there are none."""
    return [DASH if pd.isna(value) else str(value) for value in column]


def places(column: pd.Series) -> int:
    """Decimals that show three digits of the column's smallest positive number."""
    least = column[column > 0].min()
    if math.isnan(least):
        return 0
    return min(4, max(0, 2 - math.floor(math.log10(least))))


def numbers(column: pd.Series, decimals: int | None = None) -> list[str]:
    """Numbers with the same decimals, and a dash where nothing was measured."""
    if decimals is None:
        whole = (column.dropna() % 1 == 0).all()
        decimals = 0 if whole else places(column)
    return [DASH if math.isnan(x) else f"{x:,.{decimals}f}" for x in column]
