"""Directives for the site: cards of all tutorials, and their benchmark tables."""

from __future__ import annotations

import pandas as pd
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from gallery.recording import Recording, load_recording
from gallery.script import Script, find_scripts, read_script

DATA_MIME = "application/vnd.dataresource+json"
# The measured columns of a benchmark table, and how many decimals are worth reading.
DECIMALS = {"latency_ms": 3, "speedup": 2, "peak_memory_mb": 0, "compile_s": 1}
COLUMNS = ["model", "backend", "precision", "shape", *DECIMALS]


def benchmark(recording: Recording, script: Script) -> pd.DataFrame | None:
    """The last recorded table that has the columns in `COLUMNS`."""
    outputs = [out for cell in recording.outputs(script) for out in cell]
    for out in reversed(outputs):
        resource = out.get("data", {}).get(DATA_MIME)
        if resource:
            frame = pd.DataFrame(resource["data"])
            if set(COLUMNS) <= set(frame.columns):
                return frame[COLUMNS]
    return None


def benchmark_html(frame: pd.DataFrame) -> str:
    """A benchmark table as HTML; what was not measured is a dash."""
    shown = frame.copy()
    for column, decimals in DECIMALS.items():
        numbers = pd.to_numeric(frame[column])
        shown[column] = numbers.map(f"{{:.{decimals}f}}".format, na_action="ignore")
    return shown.to_html(index=False, border=0, na_rep="-", classes="table")


class GalleryCards(SphinxDirective):
    """``.. gallery-cards::`` shows every tutorial: picture, title, sentence, tags."""

    def run(self) -> list[nodes.Node]:
        lines = [".. grid:: 1 2 2 3", "   :gutter: 3", ""]
        for path in find_scripts():
            lines += self._card(read_script(path), path.parent.name)
        return self.parse_text_to_nodes("\n".join(lines))

    def _card(self, script: Script, section: str) -> list[str]:
        badges = " ".join(f":bdg-secondary-line:`{tag}`" for tag in script.tags)
        folder = f"/tutorials/{section}"
        return [
            f"   .. grid-item-card:: {script.title}",
            f"      :img-top: {folder}/images/thumb/sphx_glr_{script.name}_thumb.png",
            f"      :img-alt: First figure of {script.title}",
            f"      :link: {folder}/{script.name}",
            "      :link-type: doc",
            "      :class-card: tutorial-card",
            "",
            f"      {script.description}",
            "",
            "      .. card-footer::",
            "",
            f"         {badges}",
            "",
        ]


class GalleryResults(SphinxDirective):
    """``.. gallery-results::`` shows the benchmark table of every recording."""

    def run(self) -> list[nodes.Node]:
        sections = []
        for path in find_scripts():
            script = read_script(path)
            recording = load_recording(script.name)
            frame = recording and benchmark(recording, script)
            if frame is not None:
                sections += self._section(script, path.parent.name, recording, frame)
        if not sections:
            text = "No tutorial with a benchmark has been recorded yet."
            return [nodes.paragraph("", text)]
        return sections

    def _section(
        self, script: Script, folder: str, recording: Recording, frame: pd.DataFrame
    ) -> list[nodes.Node]:
        told = recording.provenance
        text = (
            f"{script.title}\n{'-' * len(script.title)}\n\n"
            f"From :doc:`/tutorials/{folder}/{script.name}`, recorded on "
            f"{told['gpu']} ({told['recorded']}).\n"
        )
        [section] = self.parse_text_to_nodes(text, allow_section_headings=True)
        html = f'<div class="results">{benchmark_html(frame)}</div>'
        section += nodes.raw("", html, format="html")
        return [section]
