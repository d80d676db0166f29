"""What is committed under recordings/ belongs to the scripts as they are."""

import pytest

from gallery.accept import refusals
from gallery.benchmarks import GROUP, benchmark
from gallery.compare import is_yours, machines
from gallery.engines import load_engine_report
from gallery.outputs import show
from gallery.paths import ALL_RECORDINGS, ENGINES
from gallery.script import find_scripts, read_script
from gallery.tutorial import load_tutorial

NAMES = [path.stem for path in find_scripts()]
MAX_PNG = 110_000
MAX_RECORDING = 900_000


@pytest.mark.parametrize("name", NAMES)
def test_recording_is_whole_current_and_small(name):
    tutorial = load_tutorial(name)
    recording = tutorial.recording
    if recording is None:
        pytest.skip(f"{name} has not been recorded on a GPU yet; its page says so")
    assert not tutorial.is_stale, (
        f"The code of {name} has changed since it was recorded. "
        f"Record it again on a GPU: nox -s gallery -- {name}"
    )
    assert not recording.other_versions(), (
        f"{name} was recorded with {', '.join(recording.other_versions())}. "
        f"Record it again on a GPU: nox -s gallery -- {name}"
    )
    assert recording.path.stat().st_size < MAX_RECORDING
    pictures = show(tutorial).files
    assert pictures, f"{name} draws no figure"
    assert all(len(data) <= MAX_PNG for data in pictures.values())


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_is_written_like_the_others(name):
    tutorial = load_tutorial(name)
    frame = None if tutorial.recording is None else benchmark(tutorial)
    if frame is None:
        pytest.skip(f"{name} has no recorded benchmark")
    precisions = ["float32", "TF32", "float16", "bfloat16", "mixed"]
    assert frame["precision"].isin(precisions).all()
    # The yardstick: the fastest of what PyTorch does alone.
    for _, group in frame.groupby(GROUP, sort=False):
        alone = group[group.backend.str.match("(?:eager|Inductor).*, CUDA graph$")]
        if len(alone):
            speedup = alone["latency_ms"].min() / group["latency_ms"]
            told = pytest.approx(speedup, rel=0.01, abs=6e-4)  # three digits
            assert group["speedup"].to_numpy() == told


@pytest.mark.parametrize("name", NAMES)
def test_engine_report_is_current(name):
    [path] = find_scripts([name])
    assert load_engine_report(read_script(path)), (
        f"The code of {name} has changed since its engines were built. "
        f"Build them again on a machine without a GPU: nox -s gallery -- {name}"
    )


@pytest.mark.parametrize("machine", machines())
def test_recordings_of_every_machine_are_accepted(machine):
    if is_yours(machine):
        pytest.skip(f"recordings/{machine} is not committed")
    assert not [reason for found in refusals(machine).values() for reason in found]


def test_nothing_is_left_of_tutorials_that_are_gone():
    kept = [*ALL_RECORDINGS.glob("*/*.ipynb"), *ENGINES.glob("*.json")]
    assert {path.stem for path in kept} <= set(NAMES)
