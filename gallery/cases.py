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
    """For each model, precision and shape TensorRT beside the best of PyTorch.

    Both are in a CUDA graph: without one, rows move from run to run.

    Parameters
    ----------
    rows
        From `gallery.benchmarks.all_rows`.

    Returns
    -------
    The fastest first: ``speedup`` of TensorRT's fastest row, its ``least`` and ``most``
    within the 20th and 80th percentiles of both, the two latencies in ms, the names of
    the two, seconds until each of them is ready, and ``bound``: one of `BOUNDS`, or ""
    where no row tells. Rows that are not `comparable` take no part. Empty without rows
    of both TensorRT and Inductor.
    """
    if rows.empty:
        return rows
    found = []
    keys = ["tutorial", *GROUP]
    groups = dict(list(rows.groupby(keys)))
    for row in _best_tensorrt(rows).to_dict("records"):
        case = {key: row[key] for key in keys}
        same = groups[tuple(case.values())]
        alone = same[same.backend.str.match(f"(eager|Inductor).*{CUDA_GRAPH}$")]
        compiled = alone.backend.str.startswith("Inductor")
        # Where Inductor was refused, PyTorch's best is not known.
        if alone.latency_ms[compiled].notna().any():
            other = alone.loc[alone.latency_ms.idxmin()]
            ready, other_ready = ready_s(pd.DataFrame([row, other]))
            found.append(
                {
                    **case,
                    "speedup": row["speedup"],
                    "least": other.latency_p20 / row["latency_p80"],
                    "most": other.latency_p80 / row["latency_p20"],
                    "tensorrt_ms": row["latency_ms"],
                    "pytorch_ms": other.latency_ms,
                    "tensorrt": row["backend"].removesuffix(CUDA_GRAPH),
                    "pytorch": other.backend.removesuffix(CUDA_GRAPH),
                    "tensorrt_ready_s": ready,
                    "pytorch_ready_s": other_ready,
                    "bound": _bound(row, same),
                }
            )
    return pd.DataFrame(found)


def distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """The same, with each model, precision and shape once.

    Where several tutorials measured one, that with TensorRT's fastest row stays.
    """
    found = cases(rows)
    if found.empty:
        return found
    found = found.sort_values("tensorrt_ms", kind="stable").drop_duplicates(GROUP)
    return found.sort_values("speedup", ascending=False)


def _best_tensorrt(rows: pd.DataFrame) -> pd.DataFrame:
    """For each model, precision and shape TensorRT's fastest row in a CUDA graph."""
    rows = comparable(rows)
    rows = rows[rows.backend.str.match(f"TensorRT.*{CUDA_GRAPH}$")]
    rows = rows[rows.speedup.notna()]
    best = rows.groupby(["tutorial", *GROUP], sort=False).speedup.idxmax()
    return rows.loc[best].sort_values("speedup", ascending=False)


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
