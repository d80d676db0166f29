"""A recording: an executed notebook, and where it came from."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from PIL import Image

from gallery.errors import GalleryError
from gallery.paths import RECORDINGS
from gallery.script import Script

METADATA_KEY = "gallery"
# Written by gallery.provenance and gallery.record; a recording has all of them.
REQUIRED = (
    "code_hash",
    "gpu",
    "driver",
    "cuda",
    "python",
    "torch",
    "torch_tensorrt",
    "tensorrt_flavor",
    "tensorrt",
    "weights",
    "recorded",
    "cell_seconds",
)


@dataclass(frozen=True)
class Recording:
    """An executed notebook and its provenance (see `REQUIRED`)."""

    path: Path
    notebook: nbformat.NotebookNode
    provenance: dict

    def is_stale(self, script: Script) -> bool:
        """Whether the script's code has changed since. Prose does not count."""
        return self.provenance["code_hash"] != script.code_hash

    @property
    def seconds(self) -> float:
        """How long all the cells took together."""
        return sum(self.provenance["cell_seconds"])

    def outputs(self, script: Script) -> list[list]:
        """Recorded outputs of each of the script's code cells.

        A cell whose source has changed gets none: an output is only ever shown
        below the code that made it.
        """
        recorded = {
            cell.source.strip(): cell.outputs
            for cell in self.notebook.cells
            if cell.cell_type == "code"
        }
        return [recorded.get(cell.strip(), []) for cell in script.code_cells]


def recording_path(name: str, folder: Path = RECORDINGS) -> Path:
    return folder / f"{name}.ipynb"


def load_recording(name: str, folder: Path = RECORDINGS) -> Recording | None:
    """The recording of the tutorial with this name, or None if there is none.

    Raises
    ------
    GalleryError
        If the file is not a notebook, lacks its provenance, or holds an error.
    """
    path = recording_path(name, folder)
    if not path.exists():
        return None
    broken = f"The recording {path.name} is broken: "
    remedy = f" Record it again on a GPU: python -m gallery run {name}"
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
        provenance = dict(notebook.metadata[METADATA_KEY])
    except (json.JSONDecodeError, nbformat.reader.NotJSONError, UnicodeDecodeError):
        raise GalleryError(f"{broken}it is not valid JSON.{remedy}") from None
    except (nbformat.ValidationError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise GalleryError(f"{broken}not a notebook ({reason}).{remedy}") from None
    except KeyError:
        raise GalleryError(
            f"{broken}it does not say where it came from.{remedy}"
        ) from None
    missing = [key for key in REQUIRED if key not in provenance]
    if missing:
        raise GalleryError(f"{broken}it lacks {', '.join(missing)}.{remedy}")
    if not provenance["gpu"]:
        raise GalleryError(f"{broken}it was not made on a GPU.{remedy}")
    for cell in notebook.cells:
        if any(out.output_type == "error" for out in cell.get("outputs", [])):
            raise GalleryError(f"{broken}a cell of it failed.{remedy}")
    return Recording(path, notebook, provenance)


def save_recording(
    script: Script,
    notebook: nbformat.NotebookNode,
    provenance: dict,
    folder: Path = RECORDINGS,
) -> Path:
    """Write a recording in one step, so that no moment leaves half of one behind."""
    weights = re.findall(r"^Weights: (\w+)", _stream_text(notebook), re.MULTILINE)
    notebook.metadata[METADATA_KEY] = {
        "code_hash": script.code_hash,
        **provenance,
        "weights": " and ".join(dict.fromkeys(weights)) or "none",
    }
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            if "image/png" in out.get("data", {}):
                out.data["image/png"] = _compress(out.data["image/png"])
    path = recording_path(script.name, folder)
    write_atomically(path, nbformat.writes(notebook) + "\n")
    return path


def _compress(encoded: str) -> str:
    """The same picture, pixel by pixel, in fewer bytes; both in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):
        picture = picture.convert("RGB")  # nothing shines through anywhere
    out = io.BytesIO()
    picture.save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a whole new one, or leave it as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _stream_text(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(
        out.text
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if out.output_type == "stream"
    )
