"""Commands of the gallery: ``nox -l`` lists them."""

from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["gallery"]
nox.options.reuse_existing_virtualenvs = True

SITE = "docs/_build/html"


def build_site(session: nox.Session) -> None:
    session.run("sphinx-build", "-W", "-q", "-c", ".", "docs", SITE)
    session.log(f"The site is in {SITE}/index.html; `nox -s serve` shows it.")


@nox.session
def gallery(session: nox.Session) -> None:
    """Execute all tutorials, or those named after --, then build the site."""
    session.install("-r", "requirements-rtx.txt")
    # The site is built from the recordings even where a tutorial fails.
    try:
        session.run("python", "-m", "gallery", "run", *session.posargs)
    finally:
        build_site(session)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site from the recordings. Needs no torch."""
    session.install("-r", "requirements.txt")
    build_site(session)
    session.run("python", "-m", "gallery", "status")


@nox.session
def test(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    session.install("-r", "requirements-rtx.txt", "-r", "requirements-test.txt")
    session.run("pytest", *session.posargs)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run the recorded notebooks again with nbval, on a GPU, and compare."""
    session.install("-r", "requirements-rtx.txt", "-r", "requirements-test.txt")
    session.run("python", "-m", "gallery", "verify", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and the workflows."""
    session.install("-r", "requirements-test.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    workflows = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    schema = "--builtin-schema=vendor.github-workflows"
    session.run("check-jsonschema", schema, *workflows)


@nox.session
def serve(session: nox.Session) -> None:
    """Build the site and show it on http://127.0.0.1:8000."""
    docs(session)
    session.run("python", "-m", "http.server", "8000", "-b", "127.0.0.1", "-d", SITE)
