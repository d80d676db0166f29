"""The benchmark tables of recordings: read, checked, and put into one."""

from __future__ import annotations

import difflib
from functools import lru_cache

import pandas as pd

from gallery.errors import GalleryError
from gallery.tutorial import Tutorial

DATA_MIME = "application/vnd.dataresource+json"
LABELS = ["model", "backend", "precision", "shape"]
# Rows that agree in these are compared with each other.
GROUP = ["model", "precision", "shape"]
MEASURED = [
    "latency_ms",
    "latency_p20",
    "latency_p80",
    "speedup",
    "error",
    "peak_memory_mb",
    "compile_s",
    "first_call_s",
]
COLUMNS = LABELS + MEASURED
# Columns that a tutorial may add: the least time, in ms, of a call's arithmetic and of
# the bytes that it has to move, at what this GPU sustains.
FLOORS = ["arithmetic_ms", "memory_ms"]
CUDA_GRAPH = ", CUDA graph"
# Ways in fewer bits than the model has: beside PyTorch in the model's own precision
# they would compare precisions, not compilers.
QUANTIZED = "FP8|INT8|FP4"
# So would this: TensorRT multiplies float32 in TF32, PyTorch by default does not. Rows
# in which both do are called TF32. See mixed_precision_example.
UNEQUAL = "float32"
# Rows that show how a comparison misleads are no results: tutorial, and shapes in it.
ABOUT_THE_METHOD = {
    "how_we_measure": ".*",
    "multi_gpu_example": "64x128",
    "torch_compile_transformers_example": ".* all-true mask",
}
# Models that have several names in recordings, and the one that the results use.
SAME_MODEL = {"MiniLM": "all-MiniLM-L6-v2", "MiniLM-L6": "all-MiniLM-L6-v2"}
# The same of shapes: GPT-2 in both tutorials has a cache of 1024 slots.
SAME_SHAPE = {"1 token, 1024 slots": "1 token"}
# A table that has this many of the columns means to be a benchmark.
ENOUGH = 6


def read_benchmark(resource: dict) -> pd.DataFrame | None:
    """The table if it is a benchmark's, its measured columns as numbers, else None.

    Parameters
    ----------
    resource
        A table as pandas writes it with ``display.html.table_schema``.

    Returns
    -------
    Columns `COLUMNS`, then the tutorial's own. Latencies are milliseconds, memory is
    MiB; NaN where nothing was measured.

    Raises
    ------
    GalleryError
        If the table has some of the columns but not all, or text in a measured one.
    """
    frame = pd.DataFrame(resource["data"])
    own = [field["name"] for field in resource["schema"]["fields"]]
    own = [name for name in own if name in frame and name not in (*COLUMNS, "index")]
    if len(set(COLUMNS) & set(frame.columns)) < ENOUGH:
        return None
    for missing in [name for name in COLUMNS if name not in frame.columns]:
        close = difflib.get_close_matches(missing, own, n=1)
        hint = f" (is {close[0]!r} meant?)" if close else ""
        raise GalleryError(
            f"the benchmark table has no column {missing!r}{hint}. "
            f"It needs: {', '.join(COLUMNS)}."
        )
    for name in [*MEASURED, *(key for key in FLOORS if key in frame)]:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        words = frame[name][numbers.isna() & frame[name].notna()]
        if len(words):
            raise GalleryError(
                f"the benchmark's column {name!r} holds {words.iloc[0]!r}, which is no "
                "number. Leave it None where nothing was measured."
            )
        frame[name] = numbers
    return frame[COLUMNS + own]


@lru_cache(maxsize=256)
def benchmark(tutorial: Tutorial) -> pd.DataFrame | None:
    """All recorded benchmark rows of a tutorial whose code is still the same.

    Raises
    ------
    GalleryError
        If a table is wrong, with the tutorial's name.
    """
    frames = []
    for out in (out for cell in tutorial.outputs for out in cell):
        resource = out.get("data", {}).get(DATA_MIME)
        if resource is None:
            continue
        try:
            frame = read_benchmark(resource)
        except GalleryError as error:
            raise GalleryError(f"{tutorial.script.path.name}: {error}") from None
        if frame is not None:
            frames.append(frame)
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True)
    # A table that is shown twice, or grows, counts once.
    return rows.drop_duplicates(LABELS, keep="last").reset_index(drop=True)


def result_rows(tutorial: Tutorial) -> pd.DataFrame | None:
    """The rows of `benchmark` that are results; None where there is none."""
    frame = benchmark(tutorial)
    if frame is not None and tutorial.name in ABOUT_THE_METHOD:
        misleads = frame["shape"].str.fullmatch(ABOUT_THE_METHOD[tutorial.name])
        frame = frame[~misleads].reset_index(drop=True)
    return None if frame is None or frame.empty else frame


def all_rows(tutorials: list[Tutorial]) -> pd.DataFrame:
    """The results of all tutorials, each row with where it comes from."""
    frames = []
    for tutorial in tutorials:
        frame = result_rows(tutorial)
        if frame is not None:
            facts = tutorial.recording.provenance
            keys = ("gpu", "tensorrt_flavor", "tensorrt", "torch", "recorded")
            frame = frame.assign(**{key: facts[key] for key in keys})
            frame = frame.replace({"model": SAME_MODEL, "shape": SAME_SHAPE})
            frame.insert(0, "tutorial", tutorial.name)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def flavor(provenance: dict) -> str:
    """The compiler's name: ``TensorRT-RTX`` or ``TensorRT``."""
    is_rtx = provenance["tensorrt_flavor"].endswith("rtx")
    return "TensorRT-RTX" if is_rtx else "TensorRT"


def ready_s(frame: pd.DataFrame) -> pd.Series:
    """Seconds until the first answer is there: compilation and first call."""
    return frame[["compile_s", "first_call_s"]].sum(axis=1, min_count=1)


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that compare compilers, and not precisions."""
    return rows[~rows.backend.str.contains(QUANTIZED) & (rows.precision != UNEQUAL)]


def ready_medians(rows: pd.DataFrame) -> dict[str, float]:
    """Median seconds until ready of each compiler, by its name."""
    return medians_of(compiled_rows(rows))


def medians_of(rows: pd.DataFrame) -> dict[str, float]:
    """The same of rows that `compiled_rows` has chosen."""
    return rows.groupby("family").ready.median().to_dict()


def compiled_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of compilers with their ``family``, ``ready`` (s), ``relative`` latency."""
    rows = comparable(rows)
    rows = rows.assign(
        ready=ready_s(rows), relative=1 / rows.speedup, family=rows.backend.map(_family)
    )
    return rows[rows.family.notna() & (rows.ready > 0) & (rows.relative > 0)]


def _family(backend: str) -> str | None:
    """Compilers in a CUDA graph; other rows depend on the host."""
    if not backend.endswith(CUDA_GRAPH):
        return None
    for family in ("Inductor max-autotune", "Inductor", "TensorRT"):
        if backend.startswith(family):
            return family
    return None


def is_best(frame: pd.DataFrame) -> pd.Series:
    """Whether a row is the fastest at its model, precision and shape."""
    groups = frame.groupby(GROUP, dropna=False)
    least = groups.latency_ms.transform("min")
    return (frame.latency_ms == least) & (groups.latency_ms.transform("size") > 1)
