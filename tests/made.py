"""Tutorials with made-up recordings, for tests of what the site makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pandas as pd

from gallery.benchmarks import COLUMNS, DATA_MIME
from gallery.recording import load_recording, save_recording
from gallery.script import read_script
from gallery.tutorial import Tutorial

FACTS = {
    "gpu": "Test GPU",
    "gpu_memory_gb": 79,
    "driver": "1.2.3",
    "cuda": "13.0",
    "python": "3.11.1",
    "torch": "2.14.0",
    "torch_tensorrt": "2.14.0",
    "tensorrt_flavor": "torch-tensorrt-rtx",
    "tensorrt": "1.6",
    "packages": {},
    "brought": {},
    "caveats": ["Measured on a test GPU."],
    "recorded": "2026-01-02",
}
HEAD = '"""\nTitle\n=====\n\nDescription.\n"""\n\n'
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)


def stream(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", text=text)


def display(**data: str) -> nbformat.NotebookNode:
    """An output whose kinds are named with ``_`` for ``/``, as ``image_png=...``."""
    kinds = {key.replace("_", "/").replace("PLUS", "+"): v for key, v in data.items()}
    return nbformat.v4.new_output("display_data", data=kinds)


def table(frame: pd.DataFrame) -> nbformat.NotebookNode:
    resource = json.loads(frame.to_json(orient="table"))
    data = {"text/html": frame.to_html(), "text/plain": "...", DATA_MIME: resource}
    return nbformat.v4.new_output("display_data", data=data)


def benchmark_rows(*backends: tuple[str, float, float], **more) -> pd.DataFrame:
    """Rows of one model: for each backend its name, latency and speedup."""
    rows = [
        ["net", name, "float16", "1x3", ms, ms, ms, speedup, 1e-3, 10, 2.0, 1.0]
        for name, ms, speedup in backends
    ]
    return pd.DataFrame(rows, columns=COLUMNS).assign(**more)


def made(
    folder: Path, cells: str, *outputs: list, name: str = "made", **facts
) -> Tutorial:
    """A tutorial whose cells stand in `cells`, with these outputs for each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(cells if cells.startswith('"""') else HEAD + cells)
    script = read_script(path)
    notebook = script.notebook()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, shown in zip(code, outputs):
        cell.outputs = shown
    facts = {**FACTS, **facts, "cell_seconds": [1.0] * len(code)}
    save_recording(script, notebook, facts, folder)
    return Tutorial(script, load_recording(name, folder))


def changed(tutorial: Tutorial, old: str, new: str) -> Tutorial:
    """The same recording beside a script in which a text has been replaced."""
    path = tutorial.script.path
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return Tutorial(read_script(path), tutorial.recording)
