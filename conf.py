"""Sphinx configuration: the site comes from scripts and recordings, without torch."""

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from gallery.script import PROGRAMS  # noqa: E402


class NoStack(MetaPathFinder):
    """Hides the stack from sphinx-codeautolink, which imports what code blocks import.

    The site has to come out the same whatever is installed, and torch_tensorrt cannot
    be imported without a GPU.
    """

    packages = {"torch", "torch_tensorrt", "tensorrt", "torchvision", "transformers"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"{name} is hidden while the site is built")


sys.meta_path.insert(0, NoStack())

project = "Torch-TensorRT tutorial gallery"
author = "The Torch-TensorRT tutorial gallery authors"
copyright = "2026, " + author  # noqa: A001
html_title = "Torch-TensorRT tutorials"

extensions = [
    "sphinx.ext.intersphinx",
    "sphinx_gallery.gen_gallery",
    "sphinx_codeautolink",
    "sphinx_copybutton",
    "sphinx_design",
    "gallery.site",
]
exclude_patterns = ["_build", "inventories", "tutorials/**/README.md"]
nitpicky = True

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "tutorials",
    # Nothing is executed while the site is built: outputs come from recordings.
    "plot_gallery": False,
    "filename_pattern": r"\.py$",
    "ignore_pattern": rf"^({'|'.join(sorted(PROGRAMS))})\.py$",
    "remove_config_comments": True,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
    "thumbnail_size": (640, 400),
    "default_thumb_file": str(ROOT / "docs" / "_static" / "not-recorded.png"),
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
# A name in a code block that finds no link is no fault.
suppress_warnings = ["codeautolink.match_name"]
codeautolink_warn_on_missing_inventory = False
codeautolink_warn_on_failed_resolve = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
# Outputs are not code to copy.
copybutton_selector = "div:not(.sphx-glr-script-out) > div.highlight > pre"

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_static_path = ["docs/_static"]
html_css_files = ["gallery.css"]
html_show_sourcelink = False
html_sidebars = {"index": [], "results": [], "quickstart": [], "installation": []}
html_theme_options = {
    "logo": {"text": "Torch-TensorRT tutorials"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {
        "**": ["page-toc", "sg_download_links"],
        "results": [],  # its tables are wide
    },
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
