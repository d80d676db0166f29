"""How the kernel shows things while a tutorial is recorded or tested."""

import faulthandler as _faulthandler
import os as _os
import re as _re
import warnings as _warnings

c = get_config()  # noqa: F821

# Figures at twice the resolution, shown at their nominal size.
c.InlineBackend.figure_formats = {"retina"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "facecolor": "white"}
c.InteractiveShellApp.exec_lines = [
    # Tables as data too: the results page is made from them.
    "__import__('pandas').set_option('display.html.table_schema', True)",
    # Makes the list of fonts now; a cell that does so prints that it does.
    "__import__('matplotlib.font_manager');",
]
c.HistoryManager.enabled = False
# The kernel listens on this machine only; its warning about that is not news.
c.IPKernelApp.log_level = 40


def _format_warning(message, category, filename, lineno, line=None):
    """A warning without what changes from run to run: the path of a cell's file.

    A library's file is named from its package on, wherever that is installed.
    """
    package = _re.search(r".*/(?:site|dist)-packages/(.+)", filename)
    where = f"{package[1]}:{lineno}: " if package else ""
    return f"{where}{category.__name__}: {message}\n"


_warnings.formatwarning = _format_warning

# A crash in native code tells the line in the recorder's log. This is the last moment
# at which stderr is the log: the kernel soon forwards it to the notebook.
_faulthandler.enable(_os.fdopen(_os.dup(2), "w"))
