"""Sessions for ``nox``, each in a fresh environment: tests, lint and docs; others by name, as ``nox -s minimum``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "docs"]
nox.options.reuse_existing_virtualenvs = True

WORKERS = ("-n", "logical", "--maxprocesses", "8", "--dist", "worksteal")


def lowest(extra: str | None = None) -> list[str]:
    """Return the lowest version that pyproject.toml allows of each dependency, or of those of an extra."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return [f"{name}{brackets or ''}=={version}" for name, brackets, version in map(_parts, wanted)]


def _parts(requirement: str) -> tuple[str | None, ...]:
    found = re.fullmatch(r"([\w-]+)(\[\w+\])?>=([\w.]+)", requirement)
    if found is None:
        raise ValueError(f"{requirement!r} must be NAME>=VERSION, so that the lowest version is known.")
    return found.groups()


@nox.session
def tests(session: nox.Session) -> None:
    """The fast tests, in about a minute; arguments after -- go to pytest."""
    session.install("-e", ".[dev]")
    session.run("pytest", *WORKERS, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The slow tests."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-m", "slow", *WORKERS, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines of the package no test runs."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-m", "slow or not slow", *WORKERS, "--cov", "--cov-report=term", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and import arrows."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, with warnings as errors, and the links within it."""
    session.install("-e", ".[dev,docs]")
    session.run("python", "docs/generate.py", "--check")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "site/html")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "linkcheck", "docs", "site/linkcheck")


@nox.session
def minimum(session: nox.Session) -> None:
    """The tests with the lowest version that is supported of each dependency."""
    session.install("-e", ".[dev]", *lowest())
    session.run("pytest", *WORKERS, *session.posargs)
