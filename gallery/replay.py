"""Puts recorded outputs and the provenance box into sphinx-gallery's pages."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from textwrap import indent

from gallery.engines import EngineReport
from gallery.kernel import ANSI
from gallery.recording import Recording
from gallery.script import Script

# sphinx-gallery writes this above each block, followed by first and last line.
BLOCK_HEADER = re.compile(
    r"^\.\. GENERATED FROM PYTHON SOURCE LINES (\d+)-\d+$", re.MULTILINE
)
TITLE_UNDERLINE = re.compile(r"^=+\n", re.MULTILINE)


@dataclass(frozen=True)
class Figure:
    """A recorded picture.

    Attributes
    ----------
    png
        The file's bytes.
    width
        Width in CSS pixels at which it is shown; None for the picture's own.
    """

    png: bytes
    width: int | None


def figures(outputs: list[list]) -> list[Figure]:
    """All pictures of a recording, in the order of the page."""
    found = []
    for out in (out for cell in outputs for out in cell):
        if "image/png" in out.get("data", {}):
            size = out.get("metadata", {}).get("image/png", {})
            png = base64.b64decode(out["data"]["image/png"])
            found.append(Figure(png, size.get("width")))
    return found


def image_name(name: str, number: int) -> str:
    """File name of a tutorial's figure; the first has number 1."""
    return f"recorded_{name}_{number:03d}.png"


def replay(
    page: str,
    script: Script,
    recording: Recording | None,
    report: EngineReport | None,
    image_folder: str,
) -> str:
    """Return sphinx-gallery's page with outputs after the blocks that made them.

    Parameters
    ----------
    page
        reStructuredText as sphinx-gallery wrote it, nothing executed.
    image_folder
        Where the figures lie, from the documentation's source folder: ``/a/b``.
    """
    outputs = recording.outputs(script) if recording else []
    code_lines = [block.lineno for block in script.blocks if block.type == "code"]
    parts = BLOCK_HEADER.split(page)
    # parts: text before the first header, then (line number, text) pairs.
    page = TITLE_UNDERLINE.sub(
        lambda match: match[0] + "\n" + box(script, recording, report) + "\n",
        parts[0],
        count=1,
    )
    figure = 0
    for line, text in zip(parts[1::2], parts[2::2]):
        page += f".. GENERATED FROM PYTHON SOURCE LINES {line}"
        if outputs and int(line) in code_lines:
            number = code_lines.index(int(line))
            rst, figure = _outputs_rst(outputs[number], script, figure, image_folder)
            text = _insert_after_code(text, rst)
        page += text
    return page


def _insert_after_code(text: str, rst: str) -> str:
    """Insert after the code block, which ends at the first unindented line."""
    start = text.index(".. code-block::")
    first_line_end = text.index("\n", start) + 1
    end = re.compile(r"^\S", re.MULTILINE).search(text, first_line_end)
    position = end.start() if end else len(text)
    return f"{text[:position].rstrip()}\n\n{rst}\n\n{text[position:]}"


def _outputs_rst(
    outputs: list, script: Script, figure: int, image_folder: str
) -> tuple[str, int]:
    """Outputs of one cell as reStructuredText, and how many figures came so far."""
    parts: list[str] = []
    text = ""

    def flush() -> None:
        nonlocal text
        if text.strip():
            block = ".. code-block:: none\n\n" + indent(text.rstrip("\n"), "    ")
            parts.append(".. rst-class:: sphx-glr-script-out\n\n" + indent(block, " "))
        text = ""

    for out in outputs:
        data = out.get("data", {})
        if out.output_type == "stream":
            text += ANSI.sub("", out.text)
        elif "image/png" in data:
            flush()
            figure += 1
            width = out.get("metadata", {}).get("image/png", {}).get("width")
            lines = [
                f".. image:: {image_folder}/{image_name(script.name, figure)}",
                f"   :alt: Figure {figure} of {script.title}, described in the text",
                "   :class: sphx-glr-single-img recorded-figure",
            ]
            lines += [f"   :width: {width}px"] if width else []
            parts.append("\n".join(lines))
        elif "text/html" in data:
            flush()
            html = (
                '<div class="output_subarea output_html rendered_html output_result">'
                f"\n{data['text/html']}\n</div>"
            )
            parts.append(".. raw:: html\n\n" + indent(html, "    "))
        elif "text/plain" in data:
            text += data["text/plain"] + "\n"
    flush()
    return "\n\n".join(parts), figure


def box(
    script: Script, recording: Recording | None, report: EngineReport | None
) -> str:
    """What a reader has to know about the numbers on the page."""
    parts = []
    if recording is None:
        parts.append(
            ".. admonition:: Not recorded yet\n"
            "   :class: warning recording-box\n\n"
            "   No run of this tutorial on a GPU is recorded yet, so the page shows no "
            "outputs and no numbers.\n"
        )
    else:
        if recording.is_stale(script):
            date = recording.provenance["recorded"]
            parts.append(
                ".. admonition:: This recording is stale\n"
                "   :class: warning recording-box\n\n"
                f"   The code has changed since it was recorded on {date}. Outputs "
                "are shown only below cells that did not change.\n"
            )
        parts.append(_provenance_rst(recording))
    if report is not None:
        parts.append(_engines_rst(report))
    return "\n".join(parts)


def _provenance_rst(recording: Recording) -> str:
    facts = recording.provenance
    minutes, seconds = divmod(round(recording.seconds), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    rows = [
        ("Driver, CUDA", f"{facts['driver']}, {facts['cuda']}"),
        ("Python, PyTorch", f"{facts['python']}, {facts['torch']}"),
        ("Torch-TensorRT", f"{facts['tensorrt_flavor']} {facts['torch_tensorrt']}"),
        ("TensorRT", facts["tensorrt"]),
        ("Weights", facts["weights"]),
        ("Recorded", f"{facts['recorded']}, took {took}"),
    ]
    lines = [
        f".. admonition:: Recorded on {facts['gpu']}",
        "   :class: tip recording-box",
        "",
    ]
    lines += [f"   :{key}: {value}" for key, value in rows]
    if facts["tensorrt_flavor"].endswith("rtx") and "RTX" not in facts["gpu"]:
        lines += [
            "",
            "   TensorRT-RTX is made for RTX GPUs, and NVIDIA does not list this GPU "
            "among those that it supports. Expect other figures on an RTX GPU.",
        ]
    return "\n".join(lines) + "\n"


def _engines_rst(report: EngineReport) -> str:
    count = len(report.engines)
    engines = f"{count} engine{'' if count == 1 else 's'}"
    versions = report.versions
    lines = [
        f".. dropdown:: Built without a GPU: {engines}, {report.size_mb:.1f} MB",
        "   :class-container: engines-box",
        "",
        "   The ahead-of-time compiler of TensorRT-RTX "
        f"{versions['tensorrt']} builds these engines for this tutorial on a machine "
        "with no GPU, at the size that the tutorial picks there. "
        f"Inside them are {report.operators['in_engines']} of "
        f"{report.operators['in_engines'] + report.operators['in_pytorch']} operators "
        f"({report.percent_in_engines}%).{_left(report)} Cells left out because they "
        f"need a GPU: {report.skipped_cells}. Each says why in its first line."
        f"{_refittable(report)}",
        "",
        "   .. list-table::",
        "      :header-rows: 1",
        "",
        "      * - Engine",
        "        - MB",
        "        - Operators",
        "        - Inputs",
        "        - Targets",
    ]
    for number, engine in enumerate(report.engines, 1):
        inputs = ", ".join(_tensor(tensor) for tensor in engine["inputs"][:4])
        more = len(engine["inputs"]) - 4
        lines += [
            f"      * - {number}",
            f"        - {engine['size_bytes'] / 1e6:.1f}",
            f"        - {engine['operators']}",
            f"        - {inputs}" + (f" and {more} more" if more > 0 else ""),
            f"        - {engine['targets']}",
        ]
    return "\n".join(lines) + "\n"


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
