"""Recordings of several machines: what is set beside each other, and how it is told."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from gallery import compare
from gallery.cases import cases
from gallery.errors import GalleryError
from gallery.provenance import short_name
from tests.conftest import TINY, build_site, run_gallery
from tests.made import PNG, benchmark_rows, display, made, stream, table

ALONE = ("Inductor, CUDA graph", 1.0, 1.0)


def record_on(project: Path, machine: str, tensorrt_ms: float, **facts) -> Path:
    """A recording of the tiny tutorial in which TensorRT takes so long."""
    rows = benchmark_rows(
        ALONE,
        ("TensorRT, CUDA graph", tensorrt_ms, 1 / tensorrt_ms),
        ("TensorRT", 2 * tensorrt_ms, 0.5 / tensorrt_ms),
    )
    scripts = project / "examples/dynamo"
    outputs = [stream("Weights: random\n")], [table(rows)], [display(image_png=PNG)]
    made(scripts, TINY, *outputs, name="tiny", **facts)
    path = project / "recordings" / machine / "tiny.ipynb"
    path.parent.mkdir(exist_ok=True)
    shutil.move(scripts / "tiny.ipynb", path)
    return path


def git_knows(project: Path, *published: str) -> None:
    """Let git know these machines' recordings, and no others."""
    git = ["git", "-C", str(project)]
    subprocess.run([*git, "init", "-q"], check=True)
    folders = [f"recordings/{machine}" for machine in published]
    subprocess.run([*git, "add", *folders], check=True)


@pytest.fixture
def two(project):
    """A project with ours, and one from a faster GPU that git does not know."""
    record_on(project, "h100-rtx", 1.25, gpu="NVIDIA H100 80GB HBM3")
    record_on(project, "rtx-4090-rtx", 0.5, gpu="NVIDIA GeForce RTX 4090")
    git_knows(project, "h100-rtx")
    return project


def test_ones_own_gpu_stands_beside_ours(two):
    done = run_gallery(two, "compare")
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert (
        "On your RTX 4090 TensorRT is 2.00 times as fast as the best of PyTorch (net, "
        "1x3), on H100 0.80 times." in told
    )


def test_a_published_recording_is_not_yours(two):
    git_knows(two, "h100-rtx", "rtx-4090-rtx")
    told = " ".join(run_gallery(two, "compare", "rtx-4090-rtx").stdout.split())
    assert "On RTX 4090 TensorRT is 2.00" in told


def test_without_git_nothing_is_yours(two, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run_gallery(two, "compare")
    assert done.returncode == 0, done.stderr
    assert "On RTX 4090 TensorRT" in " ".join(done.stdout.split())


def test_the_compiler_is_named_where_it_differs(two):
    facts = {"gpu": "NVIDIA A100-SXM4-40GB", "tensorrt_flavor": "torch-tensorrt"}
    record_on(two, "a100-trt", 0.5, **facts)
    told = " ".join(run_gallery(two, "compare", "a100-trt").stdout.split())
    assert "On your A100 (TensorRT) TensorRT is 2.00" in told
    assert "on H100 (TensorRT-RTX) 0.80 times" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["h300"], "no recordings of 'h300'"),
        ([], "no single other machine"),
        (["empty-rtx"], "no recordings of 'empty-rtx'"),
    ],
)
def test_what_cannot_be_compared_is_one_message(project, words, message):
    record_on(project, "h100-rtx", 1.25)
    (project / "recordings/empty-rtx").mkdir()
    done = run_gallery(project, "compare", *words)
    assert done.returncode == 1
    assert message in done.stdout
    assert "There are: none" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


def test_changed_code_has_nothing_in_common(two):
    script = two / "examples/dynamo/tiny.py"
    script.write_text(script.read_text().replace("1 + 1", "1 + 2"))
    done = run_gallery(two, "compare")
    assert done.returncode == 1
    assert "no benchmark of the present code in common" in " ".join(done.stdout.split())


def test_the_results_page_shows_every_machine(two):
    page = two / "docs/results.rst"
    page.write_text(page.read_text() + "\n.. gallery-machines::\n")
    record_on(two, "h200-rtx", 1.25, gpu="NVIDIA H200")
    done = build_site(two)
    assert done.returncode == 0, done.stdout + done.stderr
    html = (two / "site/results.html").read_text()
    assert "Your RTX 4090 beside H100" in html
    assert "Your H200 beside H100" in html
    assert "No case is apart by more than the spread" in html
    # One more needs no other code, and the page is read again for it.
    record_on(two, "l40s-rtx", 0.8, gpu="NVIDIA L40S")
    assert build_site(two).returncode == 0
    assert "Your L40S beside H100" in (two / "site/results.html").read_text()


def test_one_machine_alone_adds_nothing(project):
    record_on(project, "h100-rtx", 1.25)
    page = project / "docs/results.rst"
    page.write_text(page.read_text() + "\n.. gallery-machines::\n")
    assert build_site(project).returncode == 0
    assert "beside" not in (project / "site/results.html").read_text()


def test_a_broken_recording_of_another_machine_is_one_message(two):
    path = two / "recordings/rtx-4090-rtx/tiny.ipynb"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    done = build_site(two)
    assert done.returncode != 0
    assert "tiny.ipynb is broken" in done.stderr
    assert "Traceback" not in done.stderr


def frame(low: float, high: float) -> pd.DataFrame:
    """Cases with one case, whose TensorRT row spreads from low to high ms."""
    rows = benchmark_rows(ALONE, ("TensorRT, CUDA graph", low, 1 / low))
    rows.loc[1, ["latency_p20", "latency_p80"]] = low, high
    return cases(rows.assign(tutorial="net"))


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [
        ((1.0, 1.0), (1.02, 1.02), False),  # two recordings of one GPU are so far apart
        ((1.0, 1.0), (1.04, 1.04), True),
        ((1.0, 1.0), (0.95, 0.95), True),
        ((1.0, 1.3), (1.2, 1.2), False),
        ((1.0, 1.0), (0.8, 1.1), False),
        ((1.0, 1.1), (1.2, 1.3), True),
    ],
)
def test_apart_means_more_than_the_spread(monkeypatch, ours, theirs, differs):
    on = {"one": frame(*ours), "other": frame(*theirs)}
    monkeypatch.setattr(compare, "cases_on", on.get)
    assert list(compare.beside("one", "other").differs) == [differs]


def test_the_cases_with_another_winner_are_told_first_and_few_in_all(monkeypatch):
    milliseconds = {"one": [0.5, 0.9, 0.7, 0.7, 0.7, 0.7, 0.7, 2.0]}
    milliseconds["other"] = [0.1, 1.2, 0.5, 0.5, 0.5, 0.5, 0.5, 2.0]
    on = {
        machine: pd.concat(
            [frame(ms, ms).assign(shape=f"{row}x3") for row, ms in enumerate(each)]
        )
        for machine, each in milliseconds.items()
    }
    monkeypatch.setattr(compare, "cases_on", on.get)
    first, second, *others, last = compare.sentences(
        compare.beside("one", "other"), "H100", "L40S"
    )
    assert "0.83 times as fast as the best of PyTorch (net, 1x3)" in first
    assert "10.00 times as fast as the best of PyTorch (net, 0x3)" in second
    assert len(others) == 3
    assert last == "So it is in 2 more of 8 cases: see the table."


def test_nothing_in_common(monkeypatch):
    on = {"one": frame(1, 1), "other": frame(1, 1).assign(shape="1x4")}
    monkeypatch.setattr(compare, "cases_on", on.get)
    with pytest.raises(GalleryError, match="in common"):
        compare.beside("one", "other")


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada Generation"),
        ("Test GPU", "Test GPU"),
    ],
)
def test_a_gpu_in_few_words(gpu, name):
    assert short_name(gpu) == name
