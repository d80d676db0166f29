"""Sphinx configuration: the site comes from scripts and recordings, without torch."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from gallery.script import PROGRAMS  # noqa: E402

project = "Torch-TensorRT tutorial gallery"
author = "The Torch-TensorRT tutorial gallery authors"
copyright = "2026, " + author  # noqa: A001
html_title = "Torch-TensorRT tutorials"

# The kind of machine whose recordings pages show: a folder in recordings/.
gallery_recordings = "h100-rtx"
# The public repository, such as https://github.com/owner/name: pages link to their
# sources, to its issues and to Colab. Left out where it is empty.
gallery_repository = ""
# The site's address: pages name their canonical one, notebooks link to the pages that
# they name, and there is a sitemap.
html_baseurl = ""

extensions = [
    "sphinx.ext.intersphinx",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
    "gallery.site",
]
# Of sphinx-gallery's own indexes one is kept, and the gallery writes what it shows.
exclude_patterns = ["_build", "inventories", "tutorials/*/index.rst"]
exclude_patterns += ["tutorials/**/README.md"]
nitpicky = True
# It means the names of scripts, and looks at the checkout's path as well.
suppress_warnings = ["sphinx_gallery.space_in_filename"]

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "tutorials",
    # Nothing is executed while the site is built: outputs come from recordings.
    "plot_gallery": False,
    "image_scrapers": (),
    "reset_modules": (),
    "filename_pattern": r"\.py$",
    "ignore_pattern": rf"^({'|'.join(sorted(PROGRAMS))})\.py$",
    "remove_config_comments": True,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": None,
}

# Inventories are shipped, so that the build needs no network. They hold the names
# that tutorials use, in Sphinx's plain-text format.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.txt"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "inventories/torch.txt"),
    "torch_tensorrt": (
        "https://docs.pytorch.org/TensorRT/",
        "inventories/torch_tensorrt.txt",
    ),
    "transformers": (
        "https://huggingface.co/docs/transformers/",
        "inventories/transformers.txt",
    ),
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
# Outputs are not code to copy.
copybutton_selector = "div:not(.sphx-glr-script-out) > div.highlight > pre"

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_static_path = ["docs/_static"]
html_css_files = ["gallery.css"]
html_js_files = [("gallery.js", {"defer": "defer"})]
html_favicon = "docs/_static/favicon.svg"
templates_path = ["docs/_templates"]
html_show_sourcelink = False
html_copy_source = False
# Pages outside the tutorials have no neighbors to show in a sidebar.
html_sidebars = {path.stem: [] for path in (ROOT / "docs").glob("*.rst")}
html_theme_options = {
    "logo": {"text": "Torch-TensorRT tutorials"},
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {
        "**": ["page-toc", "sg_download_links", "gallery-links"],
        "results": [],  # its tables are wide
        "tutorials/index": [],
    },
    "footer_start": ["copyright"],
    "footer_end": ["gallery-license"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
