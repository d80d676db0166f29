"""Directives for the site: cards of all tutorials, and the table of results."""

from __future__ import annotations

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.util.docutils import SphinxDirective

from gallery.recording import load_recording
from gallery.script import Script, find_scripts, read_script

DATA_MIME = "application/vnd.dataresource+json"
COLUMNS = [
    "model",
    "backend",
    "precision",
    "shape",
    "latency_ms",
    "speedup",
    "peak_memory_mb",
    "compile_s",
]


def results(names: list[str] | None = None) -> pd.DataFrame:
    """All recorded benchmark tables in one, with the tutorial and its GPU.

    Only tables with exactly the columns in `COLUMNS` count.
    """
    frames = []
    for path in find_scripts(names):
        script = read_script(path)
        recording = load_recording(script.name)
        if recording is None:
            continue
        for out in (out for cell in recording.outputs(script) for out in cell):
            resource = out.get("data", {}).get(DATA_MIME)
            if not resource:
                continue
            frame = pd.DataFrame(resource["data"])
            if set(COLUMNS) <= set(frame.columns):
                frame = frame[COLUMNS]
                frame.insert(0, "tutorial", script.title)
                frame.insert(1, "gpu", recording.provenance["gpu"])
                frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=["tutorial", "gpu", *COLUMNS])
    return pd.concat(frames, ignore_index=True)


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


class GalleryResults(Directive):
    """``.. gallery-results::`` shows every recorded benchmark table as one."""

    def run(self) -> list[nodes.Node]:
        frame = results()
        if frame.empty:
            text = "No tutorial with a benchmark has been recorded yet."
            return [nodes.paragraph("", text)]
        html = frame.to_html(index=False, border=0, na_rep="-", classes="table")
        return [nodes.raw("", f'<div class="results">{html}</div>', format="html")]
