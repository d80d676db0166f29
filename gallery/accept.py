"""Whether a recording that somebody gives can become part of the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gallery.benchmarks import CUDA_GRAPH, GROUP, benchmark
from gallery.errors import GalleryError
from gallery.paths import ALL_RECORDINGS
from gallery.provenance import machine_name
from gallery.recording import Recording, load_recording
from gallery.script import find_scripts, read_script
from gallery.tutorial import Tutorial, load_tutorial

# What the ruler's check prints.
NUMBER = r"([\d.e+-]+|nan|inf)"
CHECKED = re.compile(
    f"relative error {NUMBER}, allowed {NUMBER}, another input {NUMBER}"
)
BLIND = 10  # another input is at least so many times the tolerance away
# Another input is printed with two decimals.
ROUNDED = 0.005
# Tables are rounded.
CLOSE = 1.02
PRIVATE = re.compile(
    r"(?:/home|/Users|[A-Za-z]:\\+Users)[/\\]+[\w.-]+|\b[\w.-]+@[\w-]+\.[\w.-]+"
)


def refusals(machine: str) -> dict[str, list[str]]:
    """For each recording in a machine's folder why it is refused; [] if it is not.

    Raises
    ------
    GalleryError
        If there is no such folder, or it holds no recording.
    """
    folder = ALL_RECORDINGS / machine
    files = sorted(folder.glob("*.ipynb"))
    if not files:
        raise GalleryError(f"recordings/{machine} holds no recordings.")
    scripts = {path.stem: path for path in find_scripts()}
    return {file.stem: _refusals(file, scripts.get(file.stem)) for file in files}


def _refusals(file: Path, path: Path | None) -> list[str]:
    if path is None:
        return ["There is no tutorial of this name."]
    try:
        recording = load_recording(file.stem, file.parent)
        tutorial = Tutorial(read_script(path), recording)
        return list(_reasons(tutorial, recording))
    except GalleryError as error:
        return [str(error)]


def _reasons(tutorial: Tutorial, recording: Recording) -> Iterator[str]:
    facts = recording.provenance
    if tutorial.is_stale:
        yield (
            "It is of other code than the tutorial has now. Record it again: "
            f"nox -s gallery -- {tutorial.name}"
        )
        return
    folder = machine_name(facts["gpu"], facts["tensorrt_flavor"])
    if recording.path.parent.name != folder:
        yield f"It was made on {facts['gpu']}, and belongs into recordings/{folder}."
    unknown = [name for name, version in facts["packages"].items() if not version]
    if unknown or not facts["packages"]:
        of = ", ".join(unknown) or "its packages"
        yield f"It does not tell the versions of {of}."
    others = recording.other_versions()
    if others:
        yield f"It was made with other versions: {', '.join(others)}."
    yield from _checks(tutorial)
    yield from _rows(tutorial)
    for word in sorted(set(PRIVATE.findall("\n".join(_texts(tutorial))))):
        yield f"It names {word!r}, which is somebody's own."


def _texts(tutorial: Tutorial) -> list[str]:
    """What each cell's outputs say, pictures left out."""
    return ["\n".join(_said(outputs)) for outputs in tutorial.outputs]


def _said(outputs: list) -> Iterator[str]:
    for out in outputs:
        yield out.get("text", "")
        for kind, data in out.get("data", {}).items():
            if not kind.startswith("image/"):
                yield str(data)


def _checks(tutorial: Tutorial) -> Iterator[str]:
    """Checks that failed, in cells where more did than in ours.

    Some pages show a failure on purpose. In ours no other can be: it ends a recording.
    """
    ours = load_tutorial(tutorial.name)
    known = [list(_failures(text)) for text in _texts(ours)]
    for text, failures in zip(_texts(tutorial), known):
        found = list(_failures(text))
        if len(found) > len(failures):
            yield from found


def _failures(text: str) -> Iterator[str]:
    for error, allowed, control in CHECKED.findall(text):
        if not float(error) <= float(allowed):
            yield f"A check of it failed: relative error {error}, allowed {allowed}."
        if float(control) + ROUNDED < BLIND * float(allowed):
            yield f"A check of it is blind: another input {control}, allowed {allowed}."


def _rows(tutorial: Tutorial) -> Iterator[str]:
    rows = benchmark(tutorial)
    if rows is None:
        return
    low, middle, high = rows.latency_p20, rows.latency_ms, rows.latency_p80
    if ((low > middle * CLOSE) | (middle > high * CLOSE)).any():
        yield "Its latencies are not in order: 20th percentile, median, 80th."
    if (rows[["latency_p20", "latency_ms"]] <= 0).any(axis=None):
        yield "It has a latency of 0 ms, or less."
    alone = rows.backend.str.match(f"(eager|Inductor).*{CUDA_GRAPH}$")
    best = rows[alone].groupby(GROUP, sort=False).latency_ms.min().rename("best")
    ratio = rows.join(best, on=GROUP).best / rows.latency_ms
    known = rows.speedup.notna() & ratio.notna()
    off = (ratio[known] / rows.speedup[known]).sub(1).abs()
    if len(off) and off.max() > CLOSE - 1:
        backend = rows.backend[off.idxmax()]
        yield f"The speedup of {backend} does not follow from the latencies beside it."
