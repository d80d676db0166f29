"""Benchmark tables: what is read, what is refused, how they look."""

import re

import pandas as pd
import pytest
from matplotlib.text import Text

from gallery import charts, results
from gallery.benchmarks import all_rows, benchmark
from gallery.cases import cases, distinct
from gallery.errors import GalleryError
from gallery.tables import cases_html, table_html
from tests.made import benchmark_rows, changed, made, table

CELL = "# %%\n# A table.\nrows\n\n# %%\n# Another.\nmore\n"
ROWS = benchmark_rows(
    ("Inductor, CUDA graph", 1.0, 1.0), ("TensorRT, CUDA graph", 0.8, 1.25)
)


def with_engine(shape: str, ms: float) -> pd.DataFrame:
    """`ROWS` at another shape, where TensorRT takes `ms`."""
    return ROWS.assign(shape=shape, latency_ms=[1.0, ms], speedup=[1.0, 1 / ms])


def cells_of(html: str) -> list[str]:
    return re.findall("<td[^>]*>(.*?)</td>", html)


def test_rows_of_changed_code_are_no_results(tmp_path):
    tutorial = made(tmp_path, CELL, [], [table(ROWS)])
    assert len(benchmark(tutorial)) == 2
    assert benchmark(changed(tutorial, "rows", "other_rows")) is None
    assert all_rows([changed(tutorial, "other_rows", "others")]).empty


def test_rows_that_show_how_a_comparison_misleads_are_no_results(tmp_path):
    name = "torch_compile_transformers_example"
    rows = pd.concat([ROWS, ROWS.assign(shape="1x3 all-true mask")])
    tutorial = made(tmp_path, CELL, [table(rows)], [], name=name)
    assert len(benchmark(tutorial)) == 4
    assert set(all_rows([tutorial])["shape"]) == {"1x3"}
    whole = made(tmp_path, CELL, [table(rows)], [], name="how_we_measure")
    assert all_rows([whole]).empty


def test_tables_of_one_tutorial_are_put_together(tmp_path):
    later = benchmark_rows(("eager", 1.0, 1.0))
    tutorial = made(tmp_path, CELL, [table(ROWS)], [table(pd.concat([ROWS, later]))])
    assert list(benchmark(tutorial).backend) == [*ROWS.backend, "eager"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            ROWS.rename(columns={"latency_ms": "latncy_ms"}),
            "no column 'latency_ms' .is",
        ),
        (ROWS.drop(columns="error"), "no column 'error'"),
        (ROWS.assign(peak_memory_mb="n/a"), "'peak_memory_mb' holds 'n/a'"),
    ],
)
def test_a_wrong_table_fails_with_the_script_and_what_to_do(tmp_path, frame, message):
    tutorial = made(tmp_path, CELL, [table(frame)], [])
    with pytest.raises(GalleryError, match=message) as error:
        benchmark(tutorial)
    assert "made.py" in str(error.value)


def test_other_tables_are_none_of_its_business(tmp_path):
    frame = pd.DataFrame({"backend": ["eager"], "kernel": ["gemm"], "ms": [1.0]})
    assert benchmark(made(tmp_path, CELL, [table(frame)], [])) is None


def test_what_is_constant_stands_in_the_caption_and_the_best_is_bold():
    html = table_html(ROWS)
    assert "<caption>net, float16, 1x3</caption>" in html
    [best] = re.findall("<tr class=best>(.*?)</tr>", html)
    assert "TensorRT, CUDA graph" in best
    assert "float16" not in html.partition("</caption>")[2]
    assert '<a href="made.html">Inductor, CUDA graph</a>' in table_html(
        ROWS, "made.html"
    )


def test_shapes_stand_above_their_rows():
    html = table_html(pd.concat([ROWS, ROWS.assign(shape="8x3")]))
    assert re.findall('class="group"><th[^>]*>(.*?)</th>', html) == ["1x3", "8x3"]
    assert html.count("class=best") == 2


def test_what_was_not_measured_is_a_dash_and_an_empty_column_goes():
    frame = ROWS.assign(peak_memory_mb=[None, 12.0], error=None, tokens_per_s=[3, None])
    html = table_html(frame.astype({"peak_memory_mb": float, "error": float}))
    assert "error" not in html
    assert "tokens per s" in html
    first, second = re.findall('<tr.*?row">(?:.*?)</tr>', html)
    assert cells_of(first) == ["1.000", "1.00", "1.000–1.000", "–", "3.0", "3"]
    assert cells_of(second)[3:] == ["12", "3.0", "–"]


def test_pictures_say_what_they_show(tmp_path):
    shape = with_engine("8x3", 2.0)
    tutorial = made(tmp_path, CELL, [table(ROWS)], [table(shape)])
    rows = all_rows([tutorial])
    picture, sentence = charts.speedups(rows)
    assert picture.startswith(b"<?xml")
    assert "faster than the best of PyTorch in 1 of 2 cases" in sentence
    assert "0.50 (net, 8x3) to 1.25 (net, 1x3)" in sentence
    assert charts.speedups(rows)[0] == picture
    _, sentence = charts.ready_against_latency(rows)
    assert "TensorRT 3 s" in sentence


@pytest.mark.parametrize("low", [0.2, 0.57, 0.99])
def test_no_word_of_the_first_picture_is_cut_off(tmp_path, monkeypatch, low):
    shape = with_engine("8x3", 1 / low)
    drawn = []
    monkeypatch.setattr(charts, "_svg", lambda figure: drawn.append(figure) or b"")
    charts.speedups(all_rows([made(tmp_path, CELL, [table(ROWS)], [table(shape)])]))
    [figure] = drawn
    figure.draw_without_rendering()
    words = figure.findobj(lambda part: isinstance(part, Text) and "wins" in str(part))
    left, right = (word.get_window_extent() for word in words)
    assert 0 <= left.x0 < left.x1 < right.x0 < right.x1 <= figure.bbox.width


def test_each_case_sets_tensorrt_beside_the_best_of_pytorch(tmp_path):
    frame = benchmark_rows(
        ("eager, CUDA graph", 2.0, 0.5),
        ("Inductor, CUDA graph", 1.0, 1.0),
        ("TensorRT", 4.0, 0.25),
        ("TensorRT, CUDA graph", 0.8, 1.25),
    )
    slow = frame.assign(shape="8x3", latency_ms=[2.0, 1.0, 4.0, 1.6])
    tutorial = made(tmp_path, CELL, [table(pd.concat([frame, slow]))], [])
    first, second = cases(all_rows([tutorial])).itertuples()
    assert (first.shape, first.speedup, first.tensorrt_ms) == ("1x3", 1.25, 0.8)
    assert (first.pytorch, first.pytorch_ms) == ("Inductor", 1.0)
    assert (second.shape, second.speedup) == ("8x3", 0.625)
    html = cases_html(cases(all_rows([tutorial])), {"made": "made.html"})
    [best] = re.findall("<tr class=best>(.*?)</tr>", html)
    assert '<a href="made.html">net, 1x3, float16</a>' in best


def test_a_quantized_engine_is_not_set_beside_pytorch_in_float16(tmp_path):
    frame = benchmark_rows(
        ("Inductor, CUDA graph", 1.0, 1.0),
        ("TensorRT, converter, CUDA graph", 1.25, 0.8),
        ("TensorRT FP8, CUDA graph", 0.5, 2.0),
    )
    [case] = cases(all_rows([made(tmp_path, CELL, [table(frame)], [])])).itertuples()
    assert (case.speedup, case.tensorrt) == (0.8, "TensorRT, converter")


def test_a_row_without_a_cuda_graph_is_no_case(tmp_path):
    frame = benchmark_rows(
        ("Inductor", 0.5, 2.0),
        ("Inductor, CUDA graph", 1.0, 1.0),
        ("TensorRT", 0.6, 1.67),
        ("TensorRT, CUDA graph", 0.8, 1.25),
    )
    [case] = cases(all_rows([made(tmp_path, CELL, [table(frame)], [])])).itertuples()
    assert (case.tensorrt_ms, case.pytorch_ms, case.speedup) == (0.8, 1.0, 1.25)


def test_float32_is_no_case_because_only_tensorrt_multiplies_in_tf32(tmp_path):
    exact = ROWS.assign(precision="float32")
    rows = pd.concat([exact, ROWS.assign(precision="TF32")], ignore_index=True)
    found = cases(all_rows([made(tmp_path, CELL, [table(rows)], [])]))
    assert list(found.precision) == ["TF32"]


def test_of_a_case_in_two_tutorials_the_fastest_of_both_sides_stay(tmp_path):
    rows = all_rows([made(tmp_path, CELL, [table(ROWS)], [])])
    frozen = {"Inductor, CUDA graph": "Inductor, frozen, CUDA graph"}
    later = rows.assign(tutorial="later", latency_ms=[0.75, 1.5])
    later = later.replace({"backend": frozen})
    other = later.assign(shape="8x3")
    both = pd.concat([later, other, rows], ignore_index=True)
    assert sorted(cases(both).tutorial) == ["later", "later", "made"]
    first, second = distinct(both).itertuples()
    assert (first.tutorial, first.tensorrt_ms) == ("made", 0.8)
    assert (first.pytorch, first.pytorch_ms) == ("Inductor, frozen", 0.75)
    assert first.speedup == pytest.approx(0.75 / 0.8)
    html = cases_html(distinct(both), {"made": "made.html", "later": "later.html"})
    assert '<a href="made.html">net, 1x3, float16</a>' in html
    assert html.count('<a href="later.html">Inductor, frozen</a>') == 1
    assert (second.tutorial, second.shape, second.speedup) == ("later", "8x3", 0.5)


def test_a_model_with_two_names_is_one_in_the_results(tmp_path):
    names = {"first": "MiniLM", "second": "MiniLM-L6"}
    tutorials = [
        made(tmp_path, CELL, [table(ROWS.assign(model=model))], [], name=name)
        for name, model in names.items()
    ]
    assert list(distinct(all_rows(tutorials)).model) == ["all-MiniLM-L6-v2"]


def bound(tmp_path, without_ms: float, **floors: float) -> str:
    frame = benchmark_rows(
        ("Inductor, CUDA graph", 1.0, 1.0),
        ("TensorRT", without_ms, 0.5),
        ("TensorRT, CUDA graph", 0.8, 1.25),
    )
    rows = all_rows([made(tmp_path, CELL, [table(frame.assign(**floors))], [])])
    [found] = cases(rows).bound
    return found


def test_what_binds_a_case_follows_from_recorded_rows(tmp_path):
    memory = {"arithmetic_ms": 0.1, "memory_ms": 0.2}
    assert bound(tmp_path, 1.3, **memory) == "launches"
    assert bound(tmp_path, 1.1, **memory) == "bandwidth"
    assert bound(tmp_path, 1.1, arithmetic_ms=0.2, memory_ms=0.1) == "compute"
    assert bound(tmp_path, 1.1) == ""
    assert bound(tmp_path, float("nan"), **memory) == ""


def test_what_binds_is_told_in_picture_table_and_sentence(tmp_path):
    frame = benchmark_rows(
        ("Inductor, CUDA graph", 1.0, 1.0),
        ("TensorRT", 2.0, 0.5),
        ("TensorRT, CUDA graph", 0.8, 1.25),
    )
    even = frame.assign(shape="8x3", latency_ms=[1, 1.2, 1.25], speedup=[1, 0.9, 0.8])
    shown = [table(pd.concat([frame, even.assign(arithmetic_ms=0.1, memory_ms=0.2)]))]
    tutorial = made(tmp_path, CELL, shown, [])
    rows = all_rows([tutorial])
    html = cases_html(cases(rows), {"made": "made.html"})
    found = re.findall(r'class="group"><th[^>]*>(.*?)</th>|made.html">(.*?)</a>', html)
    assert ["".join(pair) for pair in found] == [
        "Launches bind",
        "net, 1x3, float16",
        "Bandwidth binds",
        "net, 8x3, float16",
    ]
    assert "launches in 1, bandwidth in 1." in charts.speedups(rows)[1]
    sentence = results.regime_sentence(cases(rows), "launches")
    assert "1 of 2 cases. TensorRT over the best of PyTorch: 1.25 times" in sentence
    sentence = results.regime_sentence(cases(rows).assign(bound="compute"), "compute")
    assert "2 of 2 cases. TensorRT is faster than the best of PyTorch in 1" in sentence
    assert "from 0.80 times its speed (net, 8x3) to 1.25 times" in sentence
    assert "no such case" in results.regime_sentence(cases(rows), "compute")
    assert "8x3: at least 0.200 ms of memory traffic" in table_html(benchmark(tutorial))


@pytest.mark.parametrize("missing", ["TensorRT", "Inductor"])
def test_without_rows_of_both_compilers_there_is_no_case(tmp_path, missing):
    rows = benchmark_rows(
        ("eager, CUDA graph", 2.0, 0.5),
        ("Inductor, CUDA graph", 1.0, 1.0),
        ("TensorRT, CUDA graph", 0.8, 1.25),
    )
    rows = rows[~rows.backend.str.startswith(missing)]
    assert cases(all_rows([made(tmp_path, CELL, [table(rows)], [])])).empty


def test_pages_quote_all_rows_together(tmp_path, monkeypatch):
    tutorial = made(tmp_path, CELL, [table(ROWS)], [])
    monkeypatch.setattr("gallery.results.measured", lambda: [tutorial])
    found = results.summary()
    assert found["wins"] == found["cases"] == found["clear_wins"] == ["1"]
    assert found["most"] == ["1.25"]
    close = with_engine("1x3", 0.98)
    tutorial = made(tmp_path, CELL, [table(close)], [])
    monkeypatch.setattr("gallery.results.measured", lambda: [tutorial])
    assert results.summary()["wins"] == ["1"]
    assert results.summary()["clear_wins"] == ["0"]
    assert found["most_case"] == ["net, 1x3"]
    assert found["ready_tensorrt"] == ["3"]
    assert "TensorRT-RTX" in results.compiler_sentence([tutorial])
    assert "None is of standard TensorRT" in results.compiler_sentence([tutorial])
