"""Runs a recorded notebook again with nbval, alone in an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat

from gallery.environment import kernel_environment
from gallery.errors import GalleryError
from gallery.kernel import ANSI
from gallery.paths import BROUGHT, FAILED
from gallery.recording import load_recording
from gallery.script import Script
from gallery.workspace import Workspace

TIME_LIMIT_S = 1200


def verify(script: Script, folder: Path, *, timeout: float = TIME_LIMIT_S) -> dict:
    """Execute a copy of the recorded notebook and compare outputs with the recorded.

    Cells marked ``# Output varies:`` are executed and not compared. nbval compares
    text and tables; it leaves pictures out.

    Parameters
    ----------
    folder
        Where recordings lie.
    timeout
        Seconds for the whole notebook.

    Returns
    -------
    dict
        ``here``: what to tell; ``cells``: how many were executed.

    Raises
    ------
    GalleryError
        If an output differs, if a cell fails, or if there is no recording of this very
        code. Names the lines of the script.
    """
    recording = load_recording(script.name, folder)
    if recording is None:
        raise GalleryError(f"{script.name}: not recorded, nothing to verify.")
    if recording.is_stale(script):
        raise GalleryError(
            f"{script.name}: the code has changed since it was recorded. "
            f"Record it again on a GPU: nox -s gallery -- {script.name}"
        )
    notebook = script.notebook()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, recording.outputs(script)), 1):
        cell.outputs, cell.execution_count = outputs, number
    with Workspace() as workspace:
        brought = BROUGHT / script.name
        if brought.is_dir():
            shutil.copytree(brought, workspace.work, dirs_exist_ok=True)
        path = workspace.work / f"{script.name}.ipynb"
        nbformat.write(notebook, path)
        report = workspace.path / "report.xml"
        log = _nbval(path, report, workspace, timeout)
        kept = FAILED / f"{script.name}.nbval.log"
        failed = _failed_cells(report) if report.exists() else None
        if failed == []:
            kept.unlink(missing_ok=True)
            return {"here": "passed", "cells": len(cells)}
        FAILED.mkdir(parents=True, exist_ok=True)
        kept.write_text(log, encoding="utf-8")
    if failed is None:
        reason = f"it did not end within {timeout:.0f} s, or not at all"
    else:
        lines = [f"line {script.line_of(cell)} (cell {cell})" for cell in failed]
        reason = "another output than recorded, or an error, in " + ", ".join(lines)
    raise GalleryError(f"{script.path.name}: {reason}. nbval's words: {kept}")


def _nbval(path: Path, report: Path, workspace: Workspace, timeout: float) -> str:
    # Other plugins of this Python may leave files beside the notebook.
    command = [sys.executable, "-m", "pytest", "--disable-plugin-autoload"]
    command += ["-p", "nbval.plugin", "--nbval", "--nbval-current-env"]
    command += [f"--nbval-cell-timeout={timeout:.0f}", "-p", "no:cacheprovider"]
    command += ["--nbval-kernel-startup-timeout=300"]
    command += [f"--junitxml={report}", f"--rootdir={workspace.work}", str(path)]
    try:
        done = subprocess.run(
            command,
            cwd=workspace.work,
            env=kernel_environment(workspace),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        return output if isinstance(output, str) else output.decode(errors="replace")
    return ANSI.sub("", done.stdout)


def _failed_cells(report: Path) -> list[int]:
    """Numbers of the code cells that did not pass, from 1."""
    cases = ElementTree.parse(report).iter("testcase")
    bad = {"failure", "error", "skipped"}
    passed = [not bad & {child.tag for child in case} for case in cases]
    return [number for number, good in enumerate(passed, 1) if not good]
