"""The Sphinx extension: replays recordings into the pages and the downloads.

It uses public extension points only: ``builder-inited`` after sphinx-gallery's own
handler, ``env-get-outdated`` and ``source-read``.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import nbformat
from sphinx.application import Sphinx
from sphinx_gallery.downloads import generate_zipfiles
from sphinx_gallery.utils import scale_image

from gallery.directives import GalleryCards, GalleryResults
from gallery.engines import load_engine_report
from gallery.errors import GalleryError
from gallery.recording import Recording, load_recording
from gallery.replay import Figure, figures, image_name, replay
from gallery.script import Script, find_scripts, read_script

PAGES = "tutorials"
# sphinx-gallery's handler has Sphinx's default priority, 500.
BEFORE_SPHINX_GALLERY, AFTER_SPHINX_GALLERY = 400, 900


def check_sources(app: Sphinx) -> None:
    """Read everything once, before sphinx-gallery does.

    A broken file ends the build with its one message: Sphinx would add a traceback to
    any exception but SystemExit.
    """
    try:
        for path in find_scripts():
            script = read_script(path)
            load_recording(script.name)
            load_engine_report(script)
    except GalleryError as error:
        sys.exit(f"The site was not built. {error}")


def place_recordings(app: Sphinx) -> None:
    """Put recorded notebooks, figures, thumbnails and zips over sphinx-gallery's."""
    for path in find_scripts():
        script = read_script(path)
        recording = load_recording(script.name)
        if recording is not None:
            folder = Path(app.srcdir) / PAGES / path.parent.name
            _place(script, recording, folder, app.config.sphinx_gallery_conf)
    for section in sorted((Path(app.srcdir) / PAGES).iterdir()):
        if section.is_dir() and any(section.glob("*.ipynb")):
            generate_zipfiles(section, app.srcdir, app.config.sphinx_gallery_conf)
    generate_zipfiles(
        Path(app.srcdir) / PAGES, app.srcdir, app.config.sphinx_gallery_conf
    )


def _place(script: Script, recording: Recording, folder: Path, conf: dict) -> None:
    outputs = recording.outputs(script)
    notebook = folder / f"{script.name}.ipynb"
    notebook.write_text(nbformat.writes(with_outputs(script, recording)))
    with zipfile.ZipFile(folder / f"{script.name}.zip", "w") as archive:
        archive.write(folder / f"{script.name}.py", f"{script.name}.py")
        archive.write(notebook, notebook.name)
    pictures = figures(outputs)
    for number, figure in enumerate(pictures, 1):
        (folder / "images" / image_name(script.name, number)).write_bytes(figure.png)
    if pictures:
        _place_thumbnail(script, pictures[0], folder, conf["thumbnail_size"])


def _place_thumbnail(
    script: Script, figure: Figure, folder: Path, size: tuple[int, int]
) -> None:
    source = folder / "images" / image_name(script.name, 1)
    target = folder / "images" / "thumb" / f"sphx_glr_{script.name}_thumb.png"
    target.unlink(missing_ok=True)
    scale_image(source, target, *size)


def with_outputs(script: Script, recording: Recording) -> nbformat.NotebookNode:
    """Today's prose and code, with the outputs of the cells that did not change."""
    notebook = script.notebook()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, recording.outputs(script)), 1):
        cell.outputs = outputs
        cell.execution_count = number if outputs else None
    notebook.metadata.update(recording.notebook.metadata)
    return notebook


def replay_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put outputs and the provenance box into a tutorial's page."""
    folder, _, name = docname.rpartition("/")
    if not folder.startswith(f"{PAGES}/") or name == "index":
        return
    [path] = find_scripts([name])
    script = read_script(path)
    recording = load_recording(name)
    report = load_engine_report(script)
    source[0] = replay(source[0], script, recording, report, f"/{folder}/images")


def outdated_pages(app: Sphinx, env, added: set, changed: set, removed: set):
    """Pages depend on recordings, which Sphinx does not see: read them every time."""
    names = [path.stem for path in find_scripts()]
    own = {doc for doc in env.found_docs if doc.rpartition("/")[2] in names}
    return sorted((own | {"index", "results"} & env.found_docs) - added)


def setup(app: Sphinx) -> dict:
    app.add_directive("gallery-cards", GalleryCards)
    app.add_directive("gallery-results", GalleryResults)
    app.connect("builder-inited", check_sources, priority=BEFORE_SPHINX_GALLERY)
    app.connect("builder-inited", place_recordings, priority=AFTER_SPHINX_GALLERY)
    app.connect("env-get-outdated", outdated_pages)
    app.connect("source-read", replay_page)
    return {"parallel_read_safe": True}
