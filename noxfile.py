"""The matrix and the checks: `uvx nox`, or one session by `uvx nox -s lint`."""

import nox

nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "docs", "tests"]

PYTHONS = ["3.11", "3.12", "3.13"]
SQLALCHEMY = ["2.0", "2.1"]


def sync(session: nox.Session, *groups: str) -> None:
    """Install the project and these dependency groups into the session's own environment."""
    arguments = [argument for group in groups for argument in ("--group", group)]
    place = session.virtualenv.location
    command = ["uv", "sync", "--quiet", "--no-default-groups", f"--python={place}", *arguments]
    session.run_install(*command, env={"UV_PROJECT_ENVIRONMENT": place})


@nox.session(python=PYTHONS)
@nox.parametrize("sqlalchemy", SQLALCHEMY)
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """The tests; arguments after `--` go to pytest."""
    sync(session, "dev")
    session.install(f"sqlalchemy[asyncio]~={sqlalchemy}.0")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def soak(session: nox.Session) -> None:
    """The long runs: 2,000 kills of a program on a file, 100 crashes of each server, 10,000 increments on a cluster
    whose nodes are killed, other random tables to load.

    About an hour.
    """
    sync(session, "dev")
    for tests in ("tests/faults/test_crashes.py", "tests/faults/test_galera_kills.py", "tests/load"):
        session.run("pytest", tests, "-n0", "-s", *session.posargs, env={"SAVEPOINTS_SOAK": "1"})


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Format, lint, types of source and tests, public types, floors of the house."""
    sync(session, "dev", "lint")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("mypy")
    session.run("pyright", "--verifytypes", "savepoints", "--ignoreexternal")
    session.run("lint-imports")


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """The documentation site; a warning is an error."""
    sync(session, "docs")
    session.run("mkdocs", "build", "--strict")


@nox.session(python="3.11")
@nox.parametrize("sqlalchemy", SQLALCHEMY)
def upstream(session: nox.Session, sqlalchemy: str) -> None:
    """SQLAlchemy's own tests of transactions on engines with the line: not part of the quick checks."""
    sync(session, "dev")
    session.install(f"sqlalchemy[asyncio]~={sqlalchemy}.0", "pip")
    session.run("python", "-m", "tools.upstream")
