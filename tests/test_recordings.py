"""What is committed under recordings/ belongs to the scripts as they are."""

import pytest

from gallery.directives import benchmark
from gallery.engines import load_engine_report
from gallery.paths import ENGINES, RECORDINGS
from gallery.recording import load_recording
from gallery.replay import figures
from gallery.script import find_scripts, read_script

NAMES = [path.stem for path in find_scripts()]
MAX_PNG = 110_000
MAX_RECORDING = 900_000


@pytest.mark.parametrize("name", NAMES)
def test_recording_is_whole_current_and_small(name):
    [path] = find_scripts([name])
    script, recording = read_script(path), load_recording(name)
    if recording is None:
        pytest.skip(f"{name} has not been recorded on a GPU yet; its page says so")
    assert not recording.is_stale(script), (
        f"The code of {name} has changed since it was recorded. "
        f"Record it again on a GPU: nox -s gallery -- {name}"
    )
    assert recording.path.stat().st_size < MAX_RECORDING
    pictures = figures(recording.outputs(script))
    assert pictures, f"{name} draws no figure"
    assert all(len(figure.png) <= MAX_PNG for figure in pictures)


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_is_written_like_the_others(name):
    [path] = find_scripts([name])
    recording = load_recording(name)
    if recording is None:
        pytest.skip(f"{name} has not been recorded on a GPU yet; its page says so")
    frame = benchmark(recording, read_script(path))
    assert frame["precision"].isin(["float32", "float16", "bfloat16"]).all()
    assert frame["shape"].str.fullmatch(r"\d+(x\d+)*").all()
    # The yardstick comes first: eager PyTorch, without a CUDA graph.
    for _, group in frame.groupby(["model", "shape"], sort=False):
        first = group.iloc[0]
        assert "eager" in first["backend"]
        assert "graph" not in first["backend"]
        speedup = first["latency_ms"] / group["latency_ms"]
        assert group["speedup"].to_numpy() == pytest.approx(speedup, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_engine_report_is_current(name):
    [path] = find_scripts([name])
    assert load_engine_report(read_script(path)), (
        f"The code of {name} has changed since its engines were built. "
        f"Build them again on a machine without a GPU: nox -s gallery -- {name}"
    )


def test_nothing_is_left_of_tutorials_that_are_gone():
    kept = [*RECORDINGS.glob("*.ipynb"), *ENGINES.glob("*.json")]
    assert {path.stem for path in kept} <= set(NAMES)
