"""Recordings that somebody gives: which are accepted, and why others are not."""

import shutil

import nbformat
import pytest

from tests.conftest import TINY, change_facts, run_gallery
from tests.made import PNG, benchmark_rows, display, made, stream, table

PACKAGES = {"torch": "2.14.0", "torch-tensorrt-rtx": "2.14.0"}
CHECK = "relative error 1.0e-03, allowed 1e-02, another input 0.50\n"
ROWS = benchmark_rows(
    ("Inductor, CUDA graph", 1.0, 1.0), ("TensorRT, CUDA graph", 0.5, 2.0)
)


def record_on(project, machine, said=CHECK, rows=ROWS, **facts):
    facts = {"gpu": "NVIDIA L40S", "packages": PACKAGES} | facts
    scripts = project / "examples/dynamo"
    told = stream(f"Weights: random\n{said}")
    outputs = [told], [table(rows)], [display(image_png=PNG)]
    made(scripts, TINY, *outputs, name="tiny", **facts)
    path = project / "recordings" / machine / "tiny.ipynb"
    path.parent.mkdir(exist_ok=True)
    shutil.move(scripts / "tiny.ipynb", path)
    return path


@pytest.fixture
def ours(project):
    """A project with the recording that its pages show."""
    record_on(project, "h100-rtx", gpu="NVIDIA H100 80GB HBM3")
    return project


def told_of(project, machine="l40s-rtx") -> tuple[int, str]:
    done = run_gallery(project, "accept", machine)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, " ".join(done.stdout.split())


def test_a_good_one_is_accepted(ours):
    record_on(ours, "l40s-rtx")
    assert told_of(ours) == (0, "tiny: accepted")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"gpu": "NVIDIA A10"}, "belongs into recordings/a10-rtx"),
        ({"packages": {}}, "does not tell the versions of its packages"),
        ({"packages": PACKAGES | {"peft": None}}, "the versions of peft"),
        (
            {"packages": {"torch": "2.15.0"}},
            "other versions: torch 2.15.0 (now 2.14.0)",
        ),
        (
            {"said": CHECK.replace("1.0e-03", "2.0e-02")},
            "A check of it failed: relative error 2.0e-02",
        ),
        ({"said": CHECK.replace("1.0e-03", "nan")}, "error nan"),
        (
            {"said": CHECK.replace("0.50", "0.02")},
            "A check of it is blind: another input 0.02",
        ),
        ({"said": "saved to /home/someone/engine\n"}, "'/home/someone'"),
        ({"said": "C:\\Users\\someone\\x\n"}, "someone'"),
        ({"said": "ask someone@example.org\n"}, "'someone@example.org'"),
        ({"rows": ROWS.assign(speedup=[1.0, 2.1])}, "The speedup of TensorRT, CUDA"),
        ({"rows": ROWS.assign(latency_p20=[1.0, 0.6])}, "not in order"),
        ({"rows": ROWS.assign(latency_p80=[1.0, 0.4])}, "not in order"),
        ({"rows": ROWS.assign(latency_p20=[0.0, 0.5])}, "a latency of 0 ms"),
    ],
)
def test_others_are_refused_with_a_reason(ours, given, reason):
    record_on(ours, "l40s-rtx", **given)
    code, told = told_of(ours)
    assert code == 1 and reason in told
    assert told.count("refused") == 1


def test_an_edited_one_is_refused(ours):
    path = record_on(ours, "l40s-rtx")
    path.write_text(path.read_text().replace("0.50", "0.90"))
    code, told = told_of(ours)
    assert code == 1 and "someone has edited it" in told


def test_one_of_other_code_is_refused(ours):
    path = record_on(ours, "l40s-rtx")
    change_facts(path, lambda facts: facts["cell_hashes"].__setitem__(0, "other"))
    code, told = told_of(ours)
    assert code == 1 and "of other code" in told


def test_one_that_is_no_notebook_is_refused_and_others_are_still_looked_at(ours):
    path = record_on(ours, "l40s-rtx")
    path.with_name("torn.ipynb").write_text(path.read_text()[:100])
    code, told = told_of(ours)
    assert code == 1 and "tiny: accepted" in told
    assert "torn: refused. There is no tutorial of this name." in told
    path.write_text("{")
    assert "it is not valid JSON" in told_of(ours)[1]


def test_a_failure_that_the_page_shows_on_purpose_is_none(project):
    shown = CHECK.replace("1.0e-03", "2.0e-01")
    record_on(project, "h100-rtx", shown, gpu="NVIDIA H100 80GB HBM3")
    record_on(project, "l40s-rtx", shown)
    assert told_of(project)[0] == 0
    record_on(project, "l40s-rtx", shown + shown)
    assert told_of(project)[0] == 1


def test_an_empty_folder_is_one_message(ours):
    code, told = told_of(ours, "a100-trt")
    assert (code, told) == (1, "recordings/a100-trt holds no recordings.")


def test_a_row_without_a_rival_has_no_speedup_to_check(ours):
    rows = ROWS[1:].assign(speedup=float("nan"))
    path = record_on(ours, "l40s-rtx", rows=rows)
    assert told_of(ours)[0] == 0
    assert nbformat.read(path, as_version=4).metadata["gallery"]["gpu"] == "NVIDIA L40S"
