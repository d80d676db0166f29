"""Files beside the pages: figures, thumbnails, notebooks with outputs, zips.

They lie in folders of their own below the pages' folder. A file whose bytes are as they
were is left alone: Sphinx reads a page again when a file that it names is newer.
"""

from __future__ import annotations

import copy
import hashlib
import io
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gallery.benchmarks import DATA_MIME
from gallery.box import details
from gallery.errors import GalleryError
from gallery.outputs import Shown, html_of, without_figure_comments
from gallery.roles import in_markdown
from gallery.script import PROGRAMS
from gallery.tutorial import Tutorial
from gallery.write_ruler import MARKER

# From the start of what ZIP files can hold: the same files make the same zip.
BEST_ROW = re.compile(r"<tr class=best>.*?</tr>", re.DOTALL)
CELL = re.compile(r"(<t[hd][^>]*>)(.*?)(</t[hd]>)", re.DOTALL)
LONG_AGO = (1980, 1, 1, 0, 0, 0)
THUMBNAIL_SIZE = (640, 400)


def write_if_changed(path: Path, data: bytes) -> None:
    """Write a file, unless it holds these very bytes already."""
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def sweep(pages: Path, scripts: Iterable[Path]) -> None:
    """Delete generated pages whose script is gone or moved: Sphinx would read them.

    Parameters
    ----------
    pages
        The folder of sphinx-gallery's pages, or of what Sphinx made of them.
    scripts
        The tutorials that there are.
    """
    kept = {(script.parent.name, script.stem) for script in scripts}
    for page in [*pages.glob("*/*.rst"), *pages.glob("*/*.html")]:
        if page.stem != "index" and (page.parent.name, page.stem) not in kept:
            page.unlink()


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of (name, bytes) pairs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), data)
    return out.getvalue()


def place(tutorial: Tutorial, shown: Shown, folder: Path, address: str = "") -> None:
    """Write a tutorial's files into its pages' folder.

    Notebooks link to the pages of the site with this address, if there is one.
    """
    images, downloads = folder / "images", folder / "downloads"
    write_card_figure(tutorial, shown, images)
    notebook = notebook_bytes(tutorial, address)
    write_if_changed(downloads / f"{tutorial.name}.ipynb", notebook)
    for name, data in programs(tutorial):
        write_if_changed(downloads / "programs" / name, data)
    files = [
        (f"{tutorial.name}.py", tutorial.script.path.read_bytes()),
        (f"{tutorial.name}.ipynb", notebook),
        *programs(tutorial),
    ]
    write_if_changed(downloads / f"{tutorial.name}.zip", zipped(files))


def place_pictures(shown: Shown, folder: Path) -> None:
    """Write recorded pictures to where their pages look for them."""
    for name, data in shown.files.items():
        write_if_changed(folder / "images" / name, data)


def programs(tutorial: Tutorial) -> list[tuple[str, bytes]]:
    """Programs that stand beside the tutorial, with all that belongs to them."""
    folder = tutorial.script.path.parent
    if not any((folder / f"{name}.py").exists() for name in PROGRAMS):
        return []
    tutorials = {path for path in folder.glob("*.py") if path.stem not in PROGRAMS}
    return [
        (str(path.relative_to(folder)), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path not in tutorials
        and path.name != "GALLERY_HEADER.rst"
        and not path.name.startswith(".")
        and "__pycache__" not in path.parts
        and path.stat().st_size < 2**20  # exported models are no programs
    ]


def chosen(tutorial: Tutorial, shown: Shown) -> bytes | None:
    """The figure that stands on the tutorial's card; None where none is recorded.

    The first figure, or the one that ``sphinx_gallery_thumbnail_number`` names:
    1 is the first, -1 the last; SVGs do not count.

    Raises
    ------
    GalleryError
        If a complete recording has no figure of that number.
    """
    pictures = [data for name, data in shown.files.items() if not name.endswith(".svg")]
    number = tutorial.config.get("thumbnail_number", 1)
    index = number - 1 if number > 0 else len(pictures) + number
    if 0 <= index < len(pictures):
        return pictures[index]
    if "thumbnail_number" in tutorial.config and tutorial.is_complete:
        raise GalleryError(
            f"{tutorial.script.path.name}: sphinx_gallery_thumbnail_number is "
            f"{number}, and the tutorial shows {len(pictures)} figures."
        )
    return None


def write_card_figure(tutorial: Tutorial, shown: Shown, images: Path) -> None:
    """Write the thumbnail of a tutorial's card, if it has a figure.

    Raises
    ------
    GalleryError
        If the figure is no picture, or has more pixels than a page should have.
    """
    figure = chosen(tutorial, shown)
    if figure is None:
        return
    try:
        write_thumbnail(images / f"thumb_{tutorial.name}.png", figure)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise GalleryError(
            f"{tutorial.script.path.name}: the figure for its card cannot be made "
            f"smaller ({error}). Choose another with sphinx_gallery_thumbnail_number."
        ) from None


def write_thumbnail(path: Path, figure: bytes) -> None:
    """Write a figure at most `THUMBNAIL_SIZE` large, on white.

    The file says what it was made of, and is left alone if that is the same.
    """
    source = hashlib.sha256(figure).hexdigest()
    if path.exists() and Image.open(path).info.get("source") == source:
        return
    picture = Image.open(io.BytesIO(figure)).convert("RGBA")
    picture.thumbnail(THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    about = PngInfo()
    about.add_text("source", source)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "png", pnginfo=about)


def notebook_bytes(tutorial: Tutorial, address: str = "") -> bytes:
    """Today's prose and code as a notebook, with the outputs that are still true."""
    return (nbformat.writes(with_outputs(tutorial, address)) + "\n").encode()


def with_outputs(tutorial: Tutorial, address: str = "") -> nbformat.NotebookNode:
    """The notebook that readers download.

    Cells that ran have an execution count, also those that show nothing. Recorded
    values stand in the prose, its roles are links or words, and a cell says where the
    outputs come from.
    """
    notebook = tutorial.filled_script().notebook()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = in_markdown(cell.source, tutorial.docname, address)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, tutorial.outputs), 1):
        cell.outputs = [_for_notebooks(out) for out in outputs]
        cell.execution_count = number if number <= tutorial.current_cells else None
        cell.source = without_figure_comments(cell.source)
        if cell.source.startswith(MARKER):
            cell.metadata["jupyter"] = {"source_hidden": True}
    if tutorial.recording is not None:
        notebook.metadata.update(tutorial.recording.notebook.metadata)
        lines = [f"- {key}: {value}" for key, value in details(tutorial)]
        caveats = tutorial.recording.provenance["caveats"]
        lines += [f"- {caveat}" for caveat in caveats]
        told = nbformat.v4.new_markdown_cell(
            "**Where these outputs come from**\n\n" + "\n".join(lines)
        )
        told.id = "provenance"
        notebook.cells.insert(1, told)
    return notebook


def _for_notebooks(out: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Tables as on the page, the best rows bold.

    Without pandas' table schema: JupyterLab and VS Code prefer it, and lack it.
    """
    if "text/html" in out.get("data", {}) and DATA_MIME in out["data"]:
        out = copy.deepcopy(out)
        html = html_of(out["data"]["text/html"], out["data"].pop(DATA_MIME))
        out["data"]["text/html"] = BEST_ROW.sub(
            lambda row: CELL.sub(r"\1<b>\2</b>\3", row[0]), html
        )
    return out
