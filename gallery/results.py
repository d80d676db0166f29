"""The results page: pictures first, then tables, then all rows as files."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path

import pandas as pd
from docutils import nodes
from docutils.utils import column_width
from sphinx.util.docutils import SphinxDirective

from gallery import compare
from gallery.benchmarks import all_rows, flavor, ready_medians, result_rows
from gallery.cards import PATH_FILE
from gallery.cases import BOUNDS, distinct
from gallery.errors import GalleryError
from gallery.files import write_if_changed
from gallery.learning_path import learning_path
from gallery.plain import rst_escaped
from gallery.steady import ALLOWED
from gallery.tables import cases_html, machines_html, table_html
from gallery.tutorial import Tutorial, all_tutorials

FOLDER = "tutorials/results"
APART = "Bold: the two are apart by more than the spread of the calls."
ALIKE = "No case is apart by more than the spread of the calls."
NOTHING = "No tutorial with a benchmark has been recorded with its present code yet."


def measured() -> list[Tutorial]:
    """Tutorials with results of their present code, along the learning path."""
    path = [t for section in learning_path(PATH_FILE) for t, _ in section.tutorials]
    return [t for t in path if t.recording and result_rows(t) is not None]


def write_downloads(folder: Path) -> None:
    """Write all rows as ``results.csv`` and ``results.json``."""
    rows = all_rows(measured())
    write_if_changed(folder / "results.csv", rows.to_csv(index=False).encode())
    text = rows.to_json(orient="records", indent=1)
    write_if_changed(folder / "results.json", text.encode())


def compiler_sentence(tutorials: list[Tutorial]) -> str:
    """Which compiler and GPU the figures are of, and of which they are not."""
    facts = [tutorial.recording.provenance for tutorial in tutorials]
    flavors = sorted({flavor(fact) for fact in facts})
    gpus = rst_escaped(", ".join(sorted({fact["gpu"] for fact in facts})))
    if flavors == ["TensorRT-RTX"]:
        return (
            f"All figures are of **TensorRT-RTX** on {gpus}. **None is of standard "
            "TensorRT**, the compiler for data-center GPUs: there, expect other ones."
        )
    return f"All figures are of {' and '.join(flavors)} on {gpus}."


def common_caveats(tutorials: list[Tutorial]) -> list[str]:
    """Caveats that all the recordings share."""
    each = [tutorial.recording.provenance["caveats"] for tutorial in tutorials]
    first = each[0] if each else []
    return [caveat for caveat in first if all(caveat in other for other in each)]


def summary() -> dict[str, list[str]]:
    """What pages quote of all rows together: ``:recorded:`results:name```.

    ``cases`` are models at a shape and precision, ``wins`` those where the fastest row
    of TensorRT is faster than the best of PyTorch, ``clear_wins`` those where it is by
    more than ``allowed`` percent, ``most`` and ``least`` the extreme ratios with their
    case; ``ready_...`` are medians in seconds.
    """
    return _summary(tuple(measured()))


@lru_cache(maxsize=1)
def _summary(tutorials: tuple[Tutorial, ...]) -> dict[str, list[str]]:
    rows = all_rows(list(tutorials))
    found_cases = distinct(rows)
    if found_cases.empty:
        return {}
    found = {
        "cases": len(found_cases),
        "wins": (found_cases.speedup > 1).sum(),
        "clear_wins": (found_cases.speedup > 1 + ALLOWED).sum(),
        "allowed": f"{100 * ALLOWED:.0f}",
    }
    for name, row in (("least", found_cases.iloc[-1]), ("most", found_cases.iloc[0])):
        found[name] = f"{row.speedup:.2f}"
        found[f"{name}_case"] = f"{row.model}, {row['shape']}"
    for family, seconds in ready_medians(rows).items():
        name = family.lower().replace(" ", "_").replace("-", "_")
        found[f"ready_{name}"] = f"{seconds:.0f}"
    return {name: [str(value)] for name, value in found.items()}


class GalleryCompilers(SphinxDirective):
    """``.. gallery-compilers::`` says which compiler and GPU all figures are of."""

    def run(self) -> list[nodes.Node]:
        tutorials = measured()
        if not tutorials:
            return [nodes.paragraph("", NOTHING)]
        text = [compiler_sentence(tutorials)]
        text += map(rst_escaped, common_caveats(tutorials))
        return self.parse_text_to_nodes(" ".join(text))


class GalleryChart(SphinxDirective):
    """``.. gallery-chart:: speedups`` draws a picture of all recordings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        rows = all_rows(measured())
        if distinct(rows).empty:
            return []
        from gallery import charts  # to import matplotlib takes long

        picture, sentence = getattr(charts, name)(rows)
        path = f"{FOLDER}/{name}.svg"
        write_if_changed(Path(self.env.srcdir) / path, picture)
        return self.parse_text_to_nodes(
            f".. image:: /{path}\n   :alt: {sentence}\n   :class: recorded-figure\n\n"
            f"{rst_escaped(sentence)}\n"
        )


def regime_sentence(found: pd.DataFrame, bound: str) -> str:
    """How TensorRT fares where launches, bandwidth or compute bind."""
    here = found[found.bound == bound] if len(found) else found
    if here.empty:
        return "Recorded so far: no such case."
    told = f"Recorded so far: {len(here)} of {len(found)} cases. TensorRT"
    reached = [
        f"{case.speedup:.2f} times its speed ({case.model}, {case['shape']})"
        for case in (here.iloc[-1], here.iloc[0])
    ]
    if len(here) == 1:
        return f"{told} over the best of PyTorch: {reached[0]}."
    return (
        f"{told} is faster than the best of PyTorch in {(here.speedup > 1).sum()} of "
        f"them: from {reached[0]} to {reached[1]}."
    )


class GalleryRegime(SphinxDirective):
    """``.. gallery-regime:: launches`` says how TensorRT fares where these bind."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        bound = self.arguments[0]
        if bound not in BOUNDS:
            raise self.error(f"{bound!r} is none of {', '.join(BOUNDS)}.")
        sentence = regime_sentence(distinct(all_rows(measured())), bound)
        return [nodes.paragraph("", sentence)]


class GalleryCases(SphinxDirective):
    """``.. gallery-cases::`` sets TensorRT against PyTorch, one line a case."""

    def run(self) -> list[nodes.Node]:
        found = distinct(all_rows(measured()))
        if found.empty:
            return [nodes.paragraph("", NOTHING)]
        pages = {tutorial.name: tutorial.docname for tutorial in measured()}
        uri = self.env.app.builder.get_relative_uri
        links = {name: uri(self.env.docname, page) for name, page in pages.items()}
        return [nodes.raw("", cases_html(found, links), format="html")]


class GalleryMachines(SphinxDirective):
    """``.. gallery-machines::`` sets other machines beside that which pages show."""

    def run(self) -> list[nodes.Node]:
        pages = {tutorial.name: tutorial.docname for tutorial in measured()}
        uri = self.env.app.builder.get_relative_uri
        links = {name: uri(self.env.docname, page) for name, page in pages.items()}
        shown, *others = compare.machines()
        found = []
        for other in others:
            try:
                both = compare.beside(shown, other)
            except GalleryError:  # nothing in common
                continue
            names = tuple(compare.labels([shown, other]).values())
            [section] = self._section(both, *names)
            section += nodes.raw("", machines_html(both, names, links), format="html")
            found.append(section)
        return found

    def _section(self, both: pd.DataFrame, ours: str, theirs: str) -> list[nodes.Node]:
        title = f"{theirs[0].upper()}{theirs[1:]} beside {ours}"
        text = f"{rst_escaped(title)}\n{'-' * (column_width(title) * 2)}\n\n"
        told = compare.sentences(both, ours, theirs)
        text += "".join(f"- {rst_escaped(sentence)}\n" for sentence in told)
        text += f"\n{APART if told else ALIKE}\n"
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class GalleryResults(SphinxDirective):
    """``.. gallery-results::`` shows the benchmark table of every recording."""

    def run(self) -> list[nodes.Node]:
        tutorials = measured()
        found: list[nodes.Node] = []
        if tutorials:
            found.append(nodes.raw("", SEARCH, format="html"))
        common = common_caveats(tutorials)
        for tutorial in tutorials:
            caveats = tutorial.recording.provenance["caveats"]
            own = [caveat for caveat in caveats if caveat not in common]
            found += self._section(tutorial, result_rows(tutorial), own)
        old = [t.script.title for t in all_tutorials() if t.is_stale]
        if old:
            text = f"Withdrawn until they are recorded anew: {', '.join(old)}."
            found.append(nodes.paragraph("", text))
        return found

    def _section(
        self, tutorial: Tutorial, frame: pd.DataFrame, own: list[str]
    ) -> list[nodes.Node]:
        facts = tutorial.recording.provenance
        title = f"{tutorial.script.title}: {flavor(facts)} on {facts['gpu']}"
        text = (
            f"{rst_escaped(title)}\n{'-' * (column_width(title) * 2)}\n\n"
            f"From :doc:`/{tutorial.docname}`, recorded on {facts['recorded']}.\n"
        )
        text += "".join(f"\n- {rst_escaped(caveat)}" for caveat in own)
        [section] = self.parse_text_to_nodes(text, allow_section_headings=True)
        link = self.env.app.builder.get_relative_uri(self.env.docname, tutorial.docname)
        section += nodes.raw("", table_html(frame, link), format="html")
        section["classes"].append("results-section")
        return [section]


SEARCH = (
    '<p class="table-filter" hidden><label>Show rows with '
    f'<input type="search" placeholder="{escape("bert, CUDA graph, float16")}">'
    '</label> <span role="status"></span></p>'
)
