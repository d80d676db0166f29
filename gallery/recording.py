"""A recording: an executed notebook, and where it came from."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from PIL import Image

from gallery import provenance as where
from gallery.errors import GalleryError
from gallery.paths import BROUGHT, RECORDINGS
from gallery.roles import in_markdown
from gallery.script import Script
from gallery.values import quote_in_notebook

METADATA_KEY = "gallery"
# Written by gallery.provenance and gallery.record; a recording has all of them.
REQUIRED = (
    "cell_hashes",
    "gpu",
    "driver",
    "cuda",
    "python",
    "torch",
    "torch_tensorrt",
    "tensorrt_flavor",
    "tensorrt",
    "packages",
    "brought",
    "caveats",
    "weights",
    "recorded",
    "cell_seconds",
    "seal",
)
# Pictures with more pixels are kept as they are: to decode one takes gigabytes.
MAX_PIXELS = 20_000_000


@dataclass(frozen=True)
class Recording:
    """An executed notebook and its provenance (see `REQUIRED`)."""

    path: Path
    notebook: nbformat.NotebookNode
    provenance: dict

    def current_cells(self, script: Script) -> int:
        """How many code cells, from the first on, are still what was recorded.

        A cell depends on those above it, so all that follows a changed cell counts as
        changed.
        """
        recorded, now = self.provenance["cell_hashes"], script.cell_hashes
        same = [old == new for old, new in zip(recorded, now)]
        return same.index(False) if False in same else len(same)

    def is_stale(self, script: Script) -> bool:
        """Whether the code has changed since. Prose and formatting do not count."""
        return self.provenance["cell_hashes"] != script.cell_hashes

    def other_versions(self, brought: Path = BROUGHT) -> list[str]:
        """In what the recording differs from what is pinned now, in words.

        Files that were brought are compared where they are at hand.
        """
        pinned = where.pins(self.provenance["tensorrt_flavor"])
        found = []
        for name, version in self.provenance["packages"].items():
            now = pinned.get(name)
            if now and version and version.partition("+")[0] != now:
                found.append(f"{name} {version} (now {now})")
        folder = brought / self.path.stem
        if folder.is_dir() and where.file_hashes(folder) != self.provenance["brought"]:
            found.append(f"other files in {folder}")
        return found

    def state(self, script: Script, brought: Path = BROUGHT) -> str:
        """``current``, ``stale`` or ``other versions``."""
        if self.is_stale(script):
            return "stale"
        return "other versions" if self.other_versions(brought) else "current"

    @property
    def seconds(self) -> float:
        """How long all the cells took together."""
        return sum(self.provenance["cell_seconds"])

    def outputs(self, script: Script) -> list[list]:
        """Recorded outputs of each of the script's code cells, by position.

        From the first changed cell on there are none.
        """
        recorded = [cell.outputs for cell in _code_cells(self.notebook)]
        kept = recorded[: self.current_cells(script)]
        return kept + [[] for _ in script.code_cells[len(kept) :]]


def recording_path(name: str, folder: Path = RECORDINGS) -> Path:
    return folder / f"{name}.ipynb"


def load_recording(name: str, folder: Path = RECORDINGS) -> Recording | None:
    """The recording of the tutorial with this name, or None if there is none.

    Raises
    ------
    GalleryError
        If the file is not a notebook, lacks its provenance, holds an error, or is not
        what was recorded.
    """
    path = recording_path(name, folder)
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, f"it cannot be read ({error})") from None
    return _parse(text, path)


def _broken(path: Path, reason: str) -> GalleryError:
    return GalleryError(
        f"The recording {path.name} is broken: {reason}. "
        f"Record it again on a GPU: python -m gallery run {path.stem}"
    )


def _parse(text: str, path: Path) -> Recording:
    try:
        notebook = nbformat.reader.reads(text)  # `nbformat.reads` logs as well
        nbformat.validate(notebook, version=4)
        facts = dict(notebook.metadata[METADATA_KEY])
    except (json.JSONDecodeError, nbformat.reader.NotJSONError):
        raise _broken(path, "it is not valid JSON") from None
    except (nbformat.ValidationError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise _broken(path, f"not a notebook ({reason})") from None
    except (KeyError, ValueError):
        raise _broken(path, "it does not say where it came from") from None
    if "gpu" in facts and not facts["gpu"]:
        raise _broken(path, "it was not made on a GPU")
    missing = [key for key in REQUIRED if facts.get(key) in (None, "")]
    if missing:
        raise _broken(path, f"it lacks {', '.join(missing)}")
    cells = _code_cells(notebook)
    if not len(cells) == len(facts["cell_hashes"]) == len(facts["cell_seconds"]):
        raise _broken(path, "it tells of another number of cells than it has")
    if any(out.output_type == "error" for cell in cells for out in cell.outputs):
        raise _broken(path, "a cell of it failed")
    if facts["seal"] != seal(notebook):
        raise _broken(path, "it is not as it was recorded: someone has edited it")
    return Recording(path, notebook, facts)


def seal(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 over code, outputs and provenance; prose is left out."""
    facts = {k: v for k, v in notebook.metadata[METADATA_KEY].items() if k != "seal"}
    cells = [[cell.source, cell.outputs] for cell in _code_cells(notebook)]
    text = json.dumps([facts, cells], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_recording(
    script: Script,
    notebook: nbformat.NotebookNode,
    provenance: dict,
    folder: Path = RECORDINGS,
) -> Path:
    """Write a recording in one step, so that no moment leaves half of one behind.

    Raises
    ------
    GalleryError
        If `load_recording` would refuse it, or if it cannot be written. What was there
        before stays.
    """
    weights = re.findall(r"^Weights: (\w+)", _stream_text(notebook), re.MULTILINE)
    notebook.metadata[METADATA_KEY] = {
        "cell_hashes": script.cell_hashes,
        **provenance,
        "weights": " and ".join(dict.fromkeys(weights)) or "none",
    }
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            if "image/png" in out.get("data", {}):
                out.data["image/png"] = _compress(out.data["image/png"])
    quote_in_notebook(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = in_markdown(cell.source, script.docname)
    path = recording_path(script.name, folder)
    # Sealed as it will be read: writing splits lines, for instance.
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    notebook.metadata[METADATA_KEY]["seal"] = seal(notebook)
    text = nbformat.writes(notebook) + "\n"
    _parse(text, path)
    write_atomically(path, text)
    return path


def _compress(encoded: str) -> str:
    """The same picture, pixel by pixel, in fewer bytes; both in base64."""
    png = base64.b64decode(encoded)
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    if width * height > MAX_PIXELS:
        return encoded
    try:
        picture = Image.open(io.BytesIO(png))
        if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):
            picture = picture.convert("RGB")  # nothing shines through anywhere
        out = io.BytesIO()
        picture.save(out, "png", optimize=True)
    except (OSError, ValueError, SyntaxError):  # Pillow cannot read it
        return encoded
    return base64.b64encode(out.getvalue()).decode()


def partial_path(path: Path) -> Path:
    """Where this process writes a file before it takes its place."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a whole new one, or leave it as it is.

    Raises
    ------
    GalleryError
        If it cannot be written.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise GalleryError(
            f"{path.name} cannot be written to {path.parent}: {error.strerror}. "
            "What was there before is as it was."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _stream_text(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(_texts(notebook))


def _texts(notebook: nbformat.NotebookNode) -> Iterator[str]:
    for cell in _code_cells(notebook):
        for out in cell.outputs:
            if out.output_type == "stream":
                yield out.text
