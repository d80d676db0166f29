"""Commands of the gallery: ``nox -l`` lists them."""

import os
import shutil
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

if not os.access(".", os.W_OK):
    sys.exit(
        "This folder cannot be written to, and every command writes into it. Work in a "
        "copy of the checkout that is yours."
    )

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["gallery"]
nox.options.reuse_existing_virtualenvs = True

SITE = "docs/_build/html"
# The sessions that execute tutorials share an environment: PyTorch with CUDA is large.
STACK = Path(f".nox/stack-{sys.version_info.major}.{sys.version_info.minor}").resolve()
STACK_GB = 8


def install_stack(session: nox.Session, *requirements: str) -> str:
    """Install requirements files into the shared environment; return its Python."""
    free = shutil.disk_usage(".").free / 1e9
    if not STACK.exists() and free < STACK_GB:
        session.error(
            f"PyTorch and TensorRT need {STACK_GB} GB of disk, and {free:.1f} GB are "
            "free here. Free some, or move this folder to a larger disk"
        )
    session.run(sys.executable, "-m", "virtualenv", "-q", str(STACK))
    python = str(STACK / "bin" / "python")
    session.log("Installing; the first time, these are several GB.")
    options = [word for file in requirements for word in ("-r", file)]
    session.run(python, "-m", "pip", "install", "-q", *options)
    return python


def install_once(session: nox.Session, requirements: str) -> None:
    """Install a requirements file; pip needs seconds to see that nothing is new."""
    wanted = Path(requirements).read_text(encoding="utf-8")
    installed = Path(session.virtualenv.location) / requirements
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        session.install("-r", requirements)
        installed.write_text(wanted, encoding="utf-8")


def build_site(session: nox.Session, python: str = "python") -> None:
    session.run(python, "-m", "sphinx", "-W", "-q", "-c", ".", "docs", SITE)
    session.log(f"The site is in {SITE}/index.html; `nox -s serve` shows it.")


@nox.session(venv_backend="none")
def gallery(session: nox.Session) -> None:
    """Execute all tutorials, or those named after --, then build the site."""
    python = install_stack(session, "requirements-rtx.txt")
    # The site is built from the recordings even where a tutorial fails, but not after
    # Ctrl-C. The gallery needs time to end its processes.
    try:
        session.run(
            *(python, "-m", "gallery", "run", *session.posargs),
            interrupt_timeout=60,
            terminate_timeout=60,
        )
    except CommandFailed as failed:
        if getattr(failed, "return_code", 1) in (None, 1):
            build_site(session, python)
        raise
    build_site(session, python)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site from the recordings. Needs no torch."""
    install_once(session, "requirements.txt")
    build_site(session)


@nox.session(venv_backend="none")
def test(session: nox.Session) -> None:
    """Run the tests, several files at a time; arguments after -- go to pytest."""
    python = install_stack(session, "requirements-rtx.txt", "requirements-test.txt")
    several = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
    session.run(python, "-m", "pytest", *several, *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """Run both commands of the README on each Python that this machine has."""
    session.install("nox")
    session.run("nox", "-s", "gallery", "test")


@nox.session(venv_backend="none")
def notebooks(session: nox.Session) -> None:
    """Run the recorded notebooks again with nbval, on a GPU, and compare."""
    python = install_stack(session, "requirements-rtx.txt", "requirements-test.txt")
    session.run(
        *(python, "-m", "gallery", "verify", *session.posargs),
        interrupt_timeout=60,
        terminate_timeout=60,
    )


@nox.session(venv_backend="none")
def preview(session: nox.Session) -> None:
    """Show pages with the outputs of a run on the CPU: nox -s preview -- NAME."""
    python = install_stack(session, "requirements-rtx.txt")
    session.run(python, "-m", "gallery", "preview", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the code, one place at a time; print the share that a test notices."""
    session.install("-r", "requirements.txt", "-r", "requirements-mutants.txt")
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, the contract of all tutorials, and the workflows."""
    session.install("-r", "requirements.txt", "-r", "requirements-test.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    workflows = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    schema = "--builtin-schema=vendor.github-workflows"
    session.run("check-jsonschema", schema, *workflows)
    session.run("python", "-m", "gallery", "check")


@nox.session
def serve(session: nox.Session) -> None:
    """Build the site and show it on http://127.0.0.1:8000."""
    docs(session)
    session.run("python", "-m", "http.server", "8000", "-b", "127.0.0.1", "-d", SITE)
