"""How the kernel shows things while a tutorial is recorded or tested."""

c = get_config()  # noqa: F821

# Figures at twice the resolution, shown at their nominal size.
c.InlineBackend.figure_formats = {"retina"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "facecolor": "white"}
# Tables as data too: the results page is made from them.
c.InteractiveShellApp.exec_lines = [
    "__import__('pandas').set_option('display.html.table_schema', True)",
]
c.HistoryManager.enabled = False
# The kernel listens on this machine only; its warning about that is not news.
c.IPKernelApp.log_level = 40
