"""Each thing that a machine can lack gets one message that says what to do."""

import pytest

from gallery.errors import GalleryError
from gallery.machine import Machine, require_driver, require_gpu, require_stack
from tests.conftest import run_gallery

GOOD = dict(torch="2.14.0", torch_tensorrt="2.14.0", gpu="RTX", free_gb=20.0, reason="")


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ({"torch": None}, "torch is not installed.*pip install"),
        ({"torch_tensorrt": None}, "torch_tensorrt is not installed.*pip install"),
        (
            {"gpu": None, "reason": "Found no NVIDIA driver on your system"},
            "needs an NVIDIA GPU.*Found no NVIDIA driver.*nvidia-smi",
        ),
        (
            {"gpu": None, "reason": "The NVIDIA driver on your system is too old"},
            "driver is too old.*Install driver",
        ),
        ({"free_gb": 3.9}, "has 3.9 GiB of free memory.*need 8 GiB.*Close"),
    ],
)
def test_what_is_missing_is_named(lack, message):
    with pytest.raises(GalleryError, match=message):
        require_gpu(Machine(**{**GOOD, **lack}))


def test_a_good_machine_passes():
    machine = Machine(**GOOD)
    require_gpu(machine)
    require_stack(machine)
    require_driver(machine)


def test_no_driver_is_not_a_broken_driver():
    reason = "Found no NVIDIA driver on your system"
    require_driver(Machine(**{**GOOD, "gpu": None, "reason": reason}))


def test_verify_without_a_gpu_is_one_message(recorded):
    done = run_gallery(recorded, "verify")
    assert done.returncode == 1
    assert "needs" in done.stdout or "not installed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_tutorial_is_one_message(project):
    done = run_gallery(project, "run", "nope")
    assert done.returncode == 1
    assert "no tutorial named 'nope'" in done.stdout
    assert "tiny" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_status_tells_recorded_stale_missing_and_broken(recorded):
    assert "recorded" in run_gallery(recorded, "status").stdout
    script = recorded / "examples/dynamo/tiny.py"
    script.write_text(script.read_text().replace("1 + 1", "1 + 3"))
    assert "stale" in run_gallery(recorded, "status").stdout
    path = recorded / "recordings/tiny.ipynb"
    path.write_text("{")
    assert "broken" in run_gallery(recorded, "status").stdout
    path.unlink()
    assert "missing" in run_gallery(recorded, "status").stdout
