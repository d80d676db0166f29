"""Each thing that a machine can lack gets one message that says what to do."""

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import types

import pytest

from gallery import __main__ as main
from gallery import author_commands as commands
from gallery.errors import GalleryError
from gallery.machine import (
    Gpu,
    Machine,
    describe_machine,
    gpus_for_us,
    require_driver,
    require_gpu,
    require_stack,
)
from gallery.site import check_sources
from tests.conftest import ROOT, change_facts, recordings, run_gallery

GPU = Gpu("RTX", "0", "uuid-0", 20.0)
GOOD = dict(
    torch="2.14.0",
    torch_tensorrt="2.14.0",
    flavor="torch-tensorrt-rtx",
    gpus=(GPU,),
    reason="",
)


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ({"torch": None}, "torch is not installed.*pip install"),
        ({"torch_tensorrt": None}, "torch_tensorrt is not installed.*pip install"),
        (
            {"gpus": (), "reason": "Found no NVIDIA driver on your system"},
            "needs an NVIDIA GPU.*Found no NVIDIA driver.*nvidia-smi",
        ),
        (
            {"gpus": (), "reason": "The NVIDIA driver on your system is too old"},
            "driver is too old.*Install driver",
        ),
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
    require_driver(Machine(**{**GOOD, "gpus": (), "reason": reason}))


def test_gpus_are_those_that_pytorch_sees(gpus, monkeypatch):
    gpus.set_gpus(["NVIDIA H100 80GB HBM3", 79.0], ["NVIDIA H100 80GB HBM3", 7.9])
    machine = describe_machine()
    assert machine.torch == "2.14.0+cu130"
    assert machine.torch_tensorrt == "2.14.0"
    assert machine.name == "h100-rtx"
    assert [(gpu.device, gpu.uuid) for gpu in machine.gpus] == [
        ("0", "uuid-0"),
        ("1", "uuid-1"),
    ]
    assert [gpu.free_gb for gpu in machine.gpus] == pytest.approx([79.0, 7.9])
    # One GPU of several, as the caller names it.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    [gpu] = describe_machine().gpus
    assert (gpu.device, gpu.uuid) == ("1", "uuid-1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert describe_machine().gpus == ()
    assert describe_machine().reason == "No CUDA GPUs are available"


def test_a_stack_that_does_not_start_is_one_message(gpus):
    (gpus.folder / "torch" / "__init__.py").write_text("raise OSError('no libcudart')")
    with pytest.raises(GalleryError, match="PyTorch does not start: .*no libcudart"):
        describe_machine()


def test_a_machine_without_the_stack_is_told_from_one_without_a_gpu(gpus, monkeypatch):
    (gpus.folder / "torch" / "__init__.py").write_text("raise ImportError")
    assert describe_machine().torch is None


def test_a_gpu_with_little_memory_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    full = Gpu("H100", "1", "uuid-1", 3.9)
    with gpus_for_us(Machine(**{**GOOD, "gpus": (full, GPU)})) as found:
        assert found == [GPU]
    message = "H100 has 3.9 GiB of free memory.*need 8 GiB.*Close"
    with (
        pytest.raises(GalleryError, match=message),
        gpus_for_us(Machine(**{**GOOD, "gpus": (full,)})),
    ):
        pass


def test_a_lock_on_a_gpu_ends_with_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    machine = Machine(**GOOD)
    with (
        gpus_for_us(machine),
        pytest.raises(GalleryError, match="uses every GPU. Wait"),
        gpus_for_us(machine),
    ):
        pass
    with gpus_for_us(machine) as found:
        assert found == [GPU]


def test_verify_without_a_gpu_is_one_message(recorded, gpus):
    gpus.set_gpus()
    done = run_gallery(recorded, "verify", env=gpus.environment())
    assert done.returncode == 1
    assert "needs an NVIDIA GPU" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_tutorial_is_one_message(project):
    done = run_gallery(project, "run", "nope")
    assert done.returncode == 1
    assert "no tutorial named 'nope'" in done.stdout
    assert "tiny" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_status_tells_one_state_from_another(recorded, tiny):
    folder = recordings(recorded)
    for name in ("stale", "missing", "broken", "other"):
        shutil.copy(tiny, tiny.with_name(f"{name}.py"))
        shutil.copy(folder / "tiny.ipynb", folder / f"{name}.ipynb")
    stale = tiny.with_name("stale.py")
    stale.write_text(stale.read_text().replace("1 + 1", "1 + 3"))
    (folder / "missing.ipynb").unlink()
    (folder / "broken.ipynb").write_text("{")
    change_facts(folder / "other.ipynb", lambda f: f["packages"].update(torch="2.13.0"))
    done = run_gallery(recorded, "status")
    assert done.returncode == 0
    cells = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    assert {cell[1].strip(): cell[2].strip() for cell in cells} == {
        "tiny": "current",
        "stale": "stale",
        "missing": "missing",
        "broken": "broken",
        "other": "other versions",
    }


def test_status_needs_no_stack(recorded):
    """The light environment has neither PyTorch nor TensorRT."""
    code = (
        "import sys, runpy\n"
        "for name in ('torch', 'torch_tensorrt', 'tensorrt', 'nbval', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = ['gallery', 'status']\n"
        "runpy.run_module('gallery', run_name='__main__')\n"
    )
    (recorded / "light.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "light.py"], cwd=recorded, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "current" in done.stdout


def test_what_cannot_be_written_to_is_told_before_any_work(monkeypatch, project):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    author = (commands.new, commands.rename, commands.delete, commands.ruler)
    for command in (main.run, main.verify, *author):
        with pytest.raises(GalleryError, match="cannot be written to.* a copy"):
            command(argparse.Namespace())
    config = types.SimpleNamespace(gallery_recordings="h100-rtx")
    with pytest.raises(SystemExit, match="not built.*cannot be written to"):
        check_sources(types.SimpleNamespace(srcdir=project / "docs", config=config))
    nox = types.ModuleType("nox")
    nox.command = types.ModuleType("nox.command")
    nox.command.CommandFailed = Exception
    monkeypatch.setitem(sys.modules, "nox", nox)
    monkeypatch.setitem(sys.modules, "nox.command", nox.command)
    with pytest.raises(SystemExit, match="cannot be written to"):
        runpy.run_path(str(ROOT / "noxfile.py"))


PLAIN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_terminal_that_knows_no_utf_8(recorded, tiny):
    tiny.with_name("other.py").write_text("print（1）", encoding="utf-8")
    done = run_gallery(recorded, "status", env={**os.environ, **PLAIN_LOCALE})
    assert "other.py is not valid Python" in done.stdout
    assert "Traceback" not in done.stderr
    assert "| tiny" in done.stdout
