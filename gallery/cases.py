"""TensorRT beside the best of PyTorch at each model and shape, and what binds it."""

from __future__ import annotations

import math

import pandas as pd

from gallery.benchmarks import CUDA_GRAPH, FLOORS, GROUP, comparable, ready_s

LAUNCHES, BANDWIDTH, COMPUTE = "launches", "bandwidth", "compute"
BOUNDS = [LAUNCHES, BANDWIDTH, COMPUTE]
# A row without a CUDA graph moves by up to 1.42 times from one recording to the next.
WAITS = 1.5


def cases(rows: pd.DataFrame) -> pd.DataFrame:
    """For each model, precision and shape of a tutorial TensorRT beside PyTorch's best.

    Both are in a CUDA graph: without one, rows move from run to run.

    Parameters
    ----------
    rows
        From `gallery.benchmarks.all_rows`.

    Returns
    -------
    The fastest first: ``speedup`` of TensorRT's fastest row, its ``least`` and ``most``
    within the 20th and 80th percentiles of both, the two latencies in ms, the names of
    the two, the tutorial of PyTorch's row, seconds until each of them is ready, and
    ``bound``: one of `BOUNDS`, or "" where no row tells. Rows that are not `comparable`
    take no part. Empty without rows of both TensorRT and Inductor.
    """
    return _cases(rows, ["tutorial", *GROUP])


def distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """The same, with each model, precision and shape once.

    Where several tutorials measured one, TensorRT's fastest row of all of them stands
    beside PyTorch's fastest; the tutorial is that of TensorRT's row.
    """
    return _cases(rows, GROUP)


def _cases(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The cases of `rows`; rows that agree in `keys` are compared with each other."""
    if rows.empty:
        return rows
    # Where Inductor was refused, PyTorch's best is not known: no case.
    compiled = _fastest(rows, "Inductor", keys)
    alone = _fastest(rows, "eager|Inductor", keys)
    engines = _fastest(comparable(rows), "TensorRT", keys)
    groups = dict(list(rows.groupby(["tutorial", *GROUP])))
    found = []
    for key, row in engines.items():
        if key not in compiled:
            continue
        other = alone[key]
        case = {name: row[name] for name in ("tutorial", *GROUP)}
        ready, other_ready = ready_s(pd.DataFrame([row, other]))
        found.append(
            {
                **case,
                "speedup": other["latency_ms"] / row["latency_ms"],
                "least": other["latency_p20"] / row["latency_p80"],
                "most": other["latency_p80"] / row["latency_p20"],
                "tensorrt_ms": row["latency_ms"],
                "pytorch_ms": other["latency_ms"],
                "tensorrt": row["backend"].removesuffix(CUDA_GRAPH),
                "pytorch": other["backend"].removesuffix(CUDA_GRAPH),
                "pytorch_tutorial": other["tutorial"],
                "tensorrt_ready_s": ready,
                "pytorch_ready_s": other_ready,
                "bound": _bound(row, groups[tuple(case.values())]),
            }
        )
    if not found:
        return pd.DataFrame()
    return pd.DataFrame(found).sort_values("speedup", ascending=False)


def _fastest(rows: pd.DataFrame, names: str, keys: list[str]) -> dict[tuple, dict]:
    """Of each group the fastest row in a CUDA graph, of backends that begin so."""
    rows = rows[rows.backend.str.match(f"({names}).*{CUDA_GRAPH}$")]
    rows = rows[rows.latency_ms.notna()]
    best = rows.loc[rows.groupby(keys, sort=False).latency_ms.idxmin()]
    return {tuple(row[key] for key in keys): row for row in best.to_dict("records")}


def _bound(row: dict, same: pd.DataFrame) -> str:
    """What binds TensorRT's fastest row, one of `same`.

    Launches do where it takes `WAITS` times as long without a CUDA graph: TensorRT
    needs the fewest of them. Else it is the greater of the two columns `FLOORS`.
    """
    latency = same.set_index("backend").latency_ms
    way = row["backend"].removesuffix(CUDA_GRAPH)
    without, inside = (latency.get(name, math.nan) for name in (way, way + CUDA_GRAPH))
    if math.isnan(without + inside):
        return ""
    if without >= WAITS * inside:
        return LAUNCHES
    arithmetic, memory = (row.get(key, math.nan) for key in FLOORS)
    if math.isnan(arithmetic + memory):
        return ""
    return BANDWIDTH if memory > arithmetic else COMPUTE
