"""What a reader has to know about a page's numbers: one line that unfolds to all."""

from __future__ import annotations

from textwrap import indent

from gallery.benchmarks import flavor
from gallery.engines import EngineReport
from gallery.plain import rst_escaped
from gallery.tutorial import Tutorial


def warnings(tutorial: Tutorial) -> str:
    """Boxes for the top of the page, "" where there is nothing to warn of."""
    if tutorial.recording is None:
        return _warning(
            "Not recorded yet",
            "No run of this tutorial on a GPU is recorded yet, so the page shows no "
            "outputs and no numbers.",
        )
    date = tutorial.recording.provenance["recorded"]
    if tutorial.is_stale:
        return _warning(
            "This recording is stale",
            f"The code has changed since it was recorded on {date}. From the first "
            "changed cell on, the page shows no outputs.",
        )
    versions = tutorial.recording.other_versions()
    if versions:
        return _warning(
            "Recorded with other versions",
            f"Pinned now are others than this page was recorded with on {date}: "
            f"{rst_escaped(', '.join(versions))}.",
        )
    return ""


def _warning(title: str, text: str) -> str:
    return f".. admonition:: {title}\n   :class: warning recording-box\n\n   {text}\n"


def provenance(tutorial: Tutorial) -> str:
    """A line that names GPU, compiler and day, and unfolds to all that is known."""
    parts = []
    title = "What builds without a GPU"
    if tutorial.recording is not None:
        facts = tutorial.recording.provenance
        gpu = rst_escaped(facts["gpu"])
        title = f"Recorded on {gpu} with {flavor(facts)}, {facts['recorded']}"
        rows = [f":{key}: {rst_escaped(value)}" for key, value in details(tutorial)]
        parts.append("\n".join(rows))
        if facts["caveats"]:
            caveats = [f"- {rst_escaped(caveat)}" for caveat in facts["caveats"]]
            parts.append("\n".join(caveats))
    if tutorial.report is not None and tutorial.report.engines:
        parts.append(_engines(tutorial.report))
    if not parts:
        return ""
    return (
        f".. dropdown:: {title}\n   :class-container: recording-box\n\n"
        + indent("\n\n".join(parts), "   ")
        + "\n"
    )


def details(tutorial: Tutorial) -> list[tuple[str, str]]:
    """Everything else that the recording says of itself: (what, text)."""
    facts = tutorial.recording.provenance
    minutes, seconds = divmod(round(tutorial.recording.seconds), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    memory = facts.get("gpu_memory_gb")
    rows = [
        ("GPU", facts["gpu"] + (f", {memory} GiB" if memory else "")),
        ("Driver, CUDA", f"{facts['driver']}, {facts['cuda']}"),
        ("Python, PyTorch", f"{facts['python']}, {facts['torch']}"),
        ("Torch-TensorRT", f"{facts['torch_tensorrt']} ({facts['tensorrt_flavor']})"),
        (flavor(facts), facts["tensorrt"]),
        ("Weights", facts["weights"]),
        ("Recorded", f"{facts['recorded']}, took {took}"),
    ]
    return [*rows, ("Seal", facts["seal"][:16])]


def _engines(report: EngineReport) -> str:
    count = len(report.engines)
    inside, outside = report.operators["in_engines"], report.operators["in_pytorch"]
    text = (
        f"**Built without a GPU: {count} engine{'' if count == 1 else 's'}, "
        f"{report.size_mb:.1f} MB.** The ahead-of-time compiler of TensorRT-RTX "
        f"{report.versions['tensorrt']} builds these engines for this tutorial on a "
        "machine with no GPU, at the size that the tutorial picks there. "
        f"Inside them are {inside} of {inside + outside} operators "
        f"({report.percent_in_engines}%).{_left(report)} Cells left out because they "
        f"need a GPU: {report.skipped_cells}. Each says why in its first line."
        f"{_refittable(report)}"
    )
    rows = [["Engine", "MB", "Operators", "Inputs", "Targets"]]
    for number, engine in enumerate(report.engines, 1):
        inputs = ", ".join(_tensor(tensor) for tensor in engine["inputs"][:4])
        more = len(engine["inputs"]) - 4
        rows.append(
            [
                str(number),
                f"{engine['size_bytes'] / 1e6:.1f}",
                str(engine["operators"]),
                inputs + (f" and {more} more" if more > 0 else ""),
                str(engine["targets"]),
            ]
        )
    table = ".. list-table::\n   :header-rows: 1\n\n"
    for row in rows:
        table += "".join(
            f"   {'* -' if column == 0 else '  -'} {cell}\n"
            for column, cell in enumerate(row)
        )
    return f"{text}\n\n{table}"


def _left(report: EngineReport) -> str:
    names = report.operators["left_in_pytorch"]
    if not names:
        return ""
    return " PyTorch keeps " + ", ".join(f"``{name}``" for name in names) + "."


def _refittable(report: EngineReport) -> str:
    asked = sum(engine["refittable_asked"] for engine in report.engines)
    if not asked:
        return ""
    return (
        f" Engines that the tutorial wants refittable: {asked}. The builder needs a "
        "GPU for that, so they are plain ones here."
    )


def _tensor(tensor: dict) -> str:
    return f"{tensor['dtype']} {_shape(tensor['shape'])}".strip()


def _shape(shape: list[int] | dict[str, list[int]]) -> str:
    if isinstance(shape, list):
        return " × ".join(map(str, shape))
    sizes = zip(shape["min"], shape["max"])
    return " × ".join(
        f"{low}" if low == high else f"{low}–{high}" for low, high in sizes
    )
