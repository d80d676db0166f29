"""A tutorial as the site shows it: script, recording and engine report together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from nbformat import NotebookNode
from sphinx_gallery import py_source_parser

from gallery.engines import EngineReport, load_engine_report
from gallery.errors import GalleryError
from gallery.paths import ALL_RECORDINGS, ENGINES, RECORDINGS
from gallery.recording import Recording, load_recording, recording_path
from gallery.script import Script, find_scripts, read_script
from gallery.values import ABSENT, fill, look_up, names_quoted, printed_values

# From its heading to the next one.
AT_A_GLANCE = re.compile(r"^At a glance\n-+\n.*?(?=^\S[^\n]*\n-+\n)", re.M | re.S)
# Warnings that PyTorch and Torch-TensorRT log for their own developers.
LOGGED = re.compile(r"^(?:W\d{4} [\d:.]+ +\d+ |WARNING:torch_tensorrt[ .]).*\n?", re.M)


@dataclass(frozen=True, eq=False)
class Tutorial:
    """One tutorial and what is recorded of it.

    Attributes
    ----------
    script
        The source.
    recording, report
        What was measured on a GPU, and what was built without one; None where there
        is none.
    machine
        The folder of the recording, where it is not that which pages show.
    """

    script: Script
    recording: Recording | None
    report: EngineReport | None = None
    machine: str = ""

    @property
    def name(self) -> str:
        """How the tutorial is named everywhere: its file's name without suffix."""
        return self.script.name

    @property
    def docname(self) -> str:
        """The page, as Sphinx names it."""
        return self.script.docname

    @cached_property
    def is_stale(self) -> bool:
        """Whether the code has changed since it was recorded."""
        return self.recording is not None and self.recording.is_stale(self.script)

    @property
    def state(self) -> str:
        """``current``, ``other versions``, ``stale`` or ``missing``."""
        return self.recording.state(self.script) if self.recording else "missing"

    @property
    def is_complete(self) -> bool:
        """Whether every cell's outputs are recorded and of the present code."""
        return self.recording is not None and not self.is_stale

    @property
    def current_cells(self) -> int:
        """How many code cells, from the first on, are still as they were recorded."""
        return self.recording.current_cells(self.script) if self.recording else 0

    @cached_property
    def outputs(self) -> list[list]:
        """For each code cell its outputs; none where they are withdrawn.

        What libraries log for their own developers stays in the recording.
        """
        if self.recording is None:
            return [[] for _ in self.script.code_cells]
        cells = self.recording.outputs(self.script)
        return [[kept for out in cell if (kept := _without_log(out))] for cell in cells]

    @cached_property
    def values(self) -> dict[str, list[str]]:
        """Values that prose may quote, see `gallery.values`."""
        return printed_values(self.outputs)

    def value(self, name: str) -> str:
        """The text that a ``:recorded:`` role with this name stands for.

        Raises
        ------
        GalleryError
            If the recording is of the present code and lacks it.
        """
        return look_up(name, self.values, complete=self.is_complete)

    def filled(self, text: str) -> str:
        """The text with its recorded values; no *at a glance* that lacks one."""
        return fill(self._told(text), self.value)

    def filled_rst(self, text: str, value_of: Callable[[str], str]) -> str:
        """The same in reStructuredText, with values that are such themselves."""
        return fill(self._told(text), value_of)

    def _told(self, text: str) -> str:
        return AT_A_GLANCE.sub(lambda found: self._if_recorded(found[0]), text)

    def _if_recorded(self, text: str) -> str:
        names = [name for _, name in names_quoted(text)]
        absent = ABSENT in map(self.value, names)
        return "" if self.recording is None or absent else text

    @cached_property
    def description(self) -> str:
        """The first paragraph, recorded values filled in."""
        return self.filled(self.script.description)

    @cached_property
    def config(self) -> dict:
        """The script's settings for sphinx-gallery: ``# sphinx_gallery_name = ...``."""
        text = self.script.path.read_text(encoding="utf-8")
        return py_source_parser.extract_file_config(text)

    def check_values(self) -> None:
        """Look every quoted value up.

        Raises
        ------
        GalleryError
            With the script, the line and the name of the first that fails.
        """
        for block in self.script.blocks:
            for line, name in names_quoted(block.content):
                try:
                    self.value(name)
                except GalleryError as error:
                    where = f"{self.script.path.name}, line {block.lineno + line - 1}"
                    raise GalleryError(
                        f"{where}: :recorded:`{name}`: {error}"
                    ) from None

    def filled_script(self) -> Script:
        """The script with recorded values in its prose: what notebooks are made of."""
        blocks = [
            py_source_parser.Block(kind, self.filled(content), line)
            if kind == "text"
            else py_source_parser.Block(kind, content, line)
            for kind, content, line in self.script.blocks
        ]
        return replace(self.script, blocks=blocks)


def _without_log(out: NotebookNode) -> NotebookNode | None:
    """The output as it is shown; None where nothing is left of it."""
    if out["output_type"] != "stream" or out["name"] != "stderr":
        return out
    text = LOGGED.sub("", out["text"])
    return NotebookNode(out, text=text) if text.strip() else None


_folder = RECORDINGS


def use_recordings(machine: str) -> None:
    """From now on, show what was recorded on this kind of machine, as ``h100-rtx``.

    Raises
    ------
    GalleryError
        If there is no folder of recordings with this name.
    """
    global _folder
    folder = ALL_RECORDINGS / machine
    if not folder.is_dir():
        known = sorted(p.name for p in ALL_RECORDINGS.glob("*-*") if p.is_dir())
        raise GalleryError(
            f"conf.py asks for the recordings of {machine!r}, and recordings/ has no "
            f"such folder. It has: {', '.join(known) or 'none'}."
        )
    _folder = folder


def recording_folder(machine: str = "") -> Path:
    """Where a kind of machine's recordings lie; by default that which pages show."""
    return ALL_RECORDINGS / machine if machine else _folder


def fingerprint(path: Path, machine: str = "") -> str:
    """A hash of everything that a tutorial's page is made of."""
    digest = hashlib.sha256()
    recording = recording_path(path.stem, recording_folder(machine))
    digest.update(str(recording).encode())
    for part in (path, recording, ENGINES / f"{path.stem}.json"):
        digest.update(part.read_bytes() if part.exists() else b"none")
        digest.update(b"\0")
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _load(path: Path, machine: str, mark: str) -> Tutorial:
    script = read_script(path)
    recording = load_recording(script.name, recording_folder(machine))
    return Tutorial(script, recording, load_engine_report(script), machine)


def load_tutorial(name: str, machine: str = "") -> Tutorial:
    """The tutorial with this name, as its files are now, with a machine's recording.

    Raises
    ------
    GalleryError
        If there is none, or a file of it is broken.
    """
    [path] = find_scripts([name])
    return _load(path, machine, fingerprint(path, machine))


def all_tutorials(machine: str = "") -> Iterator[Tutorial]:
    """Every tutorial, ordered by its file, with this machine's recording."""
    for path in find_scripts():
        yield _load(path, machine, fingerprint(path, machine))
