"""Sphinx's roles in the prose of notebooks."""

import pytest

from gallery.roles import in_markdown

PAGE = "tutorials/dynamo/refit_engine_example"
SITE = "https://x.org"


@pytest.mark.parametrize(
    ("role", "link", "words"),
    [
        (
            ":doc:`how_we_measure`",
            f"[How we measure]({SITE}/tutorials/dynamo/how_we_measure.html)",
            "How we measure",
        ),
        (":doc:`../../quickstart`", f"[Quickstart]({SITE}/quickstart.html)", None),
        (":doc:`/quickstart`", f"[Quickstart]({SITE}/quickstart.html)", "Quickstart"),
        (":doc:`so <../index>`", f"[so]({SITE}/tutorials/index.html)", "so"),
        (":term:`engine`", f"[engine]({SITE}/glossary.html#term-engine)", "engine"),
        (
            ":term:`graphs <cuda\ngraph>`",
            f"[graphs]({SITE}/glossary.html#term-CUDA-graph)",
            "graphs",
        ),
        (":term:`no such term`", "no such term", None),
        (
            ":ref:`on Windows <windows>`",
            f"[on Windows]({SITE}/installation.html#windows)",
            "on Windows",
        ),
        # What sphinx-gallery makes of the same.
        (
            "`on Windows <windows>`",
            f"[on Windows]({SITE}/installation.html#windows)",
            "on Windows",
        ),
        (":ref:`text <no-such-label>`", "text", "text"),
        (":func:`torch.compile`", "`torch.compile`", "`torch.compile`"),
        (":py:class:`~torch.nn.Linear`", "`Linear`", "`Linear`"),
        (":func:`it <torch.compile>`", "`it`", "`it`"),
        (":guilabel:`Run`", "Run", "Run"),
        ("``:doc:`x```", "``:doc:`x```", "``:doc:`x```"),
        ("`code`", "`code`", "`code`"),
    ],
)
def test_a_role_becomes_a_link_or_words(role, link, words):
    assert in_markdown(f"See {role}.", PAGE, f"{SITE}/") == f"See {link}."
    assert in_markdown(f"See {role}.", PAGE) == f"See {words or in_words(link)}."


def in_words(link: str) -> str:
    return link.partition("]")[0].removeprefix("[")


def test_code_is_left_alone():
    code = "```python\n# :doc:`quickstart`\n```"
    told = ":term:`engine`\n\n{code}\n\n:term:`engine`"
    shown = in_markdown(told.format(code=code), PAGE)
    assert shown == f"engine\n\n{code}\n\nengine"
