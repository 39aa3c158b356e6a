"""Checks, each in an environment of its own: `nox -s tests lint types docs bench_smoke`.

`nox --no-venv -s ...` uses the current environment and installs nothing.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "docs", "tests"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

PYTHONS = ["3.11", "3.12", "3.13"]


def install(session: nox.Session, *extras: str) -> None:
    """The checkout with its extras, in the tested versions."""
    if session.virtualenv.venv_backend != "none":
        session.install("-c", "constraints.txt", "-e", f".[{','.join(extras)}]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests; arguments go to pytest."""
    install(session, "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and format."""
    install(session, "test")
    session.run("python", "-m", "ruff", "check", ".")
    session.run("python", "-m", "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    install(session, "test")
    session.run("python", "-m", "mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site; a warning is an error."""
    install(session, "docs")
    command = ["python", "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
    session.run(*command, "docs", "docs/_build")


@nox.session
def bench_smoke(session: nox.Session) -> None:
    """One short replay through the real cache."""
    install(session, "bench")
    stream = "benchmarks/data/support.jsonl"
    session.run("python", "-m", "benchmarks.hit_rate", "--stream", stream, "--policy", "verified")
