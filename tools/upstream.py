"""SQLAlchemy's own tests of transactions and savepoints, on engines with the line and without it.

``nox -s upstream`` runs them for SQLAlchemy 2.0 and 2.1, from the source distribution of the installed version, on
SQLite and PostgreSQL. Every test has to end as without the line, but for those that `DIFFERENT` gives a reason for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy

from tests.servers import Postgres
from tools.pages import ROOT

FILES = ("test/orm/test_transaction.py", "test/engine/test_transaction.py")

#: What ends otherwise with the line, by the name of the test: how it ends without and with it, and why ours is right.
DIFFERENT: Mapping[str, tuple[str, str, str]] = {
    "test_nested_transaction_connection_add": (
        "failed",
        "passed",
        "SQLAlchemy leaves it out on SQLite, where an outermost savepoint outlives the rollback around it (T4); with "
        "the line it does not.",
    ),
    "test_failed_rollback_deactivates_transaction": (
        "passed",
        "failed",
        "It has ROLLBACK TO fail, which it recognises by SQLAlchemy's compiled element. With the line the statement is "
        "sent without compiling it, so nothing fails that the test could look at.",
    ),
}

Outcomes = dict[str, str]


def unpacked() -> Path:
    """The source distribution of the installed version, in the cache folder of the project."""
    cache = ROOT / ".cache" / "upstream"
    folder = cache / f"sqlalchemy-{sqlalchemy.__version__}"
    if not folder.is_dir():
        wanted = f"sqlalchemy=={sqlalchemy.__version__}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "sqlalchemy"]
        subprocess.run([*command, "--dest", str(cache), wanted], check=True)
        with tarfile.open(cache / f"{folder.name}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return folder


def outcomes(folder: Path, url: str, *, installed: bool) -> Outcomes:
    """How each test ends on a database."""
    report = folder / f"report-{installed}.xml"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "lib"), str(ROOT)])}
    if installed:
        environment["SAVEPOINTS_INSTALL"] = "1"
    plugins = ["no:randomly", "no:anyio", "no:xdist", "no:cacheprovider", "tools.upstream_plugin"]
    options = [f"-p{name}" for name in plugins] + ["-q", "--maxfail=1000", "--tb=short", "-o", "addopts="]
    command = [sys.executable, "-m", "pytest", *options, f"--dburi={url}", f"--junitxml={report}", *FILES]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        raise SystemExit(done.stdout + done.stderr)
    return dict(map(_outcome, ElementTree.parse(report).getroot().iter("testcase")))


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    kinds = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    found = [kinds[child.tag] for child in case if child.tag in kinds]
    return f"{case.get('classname')}::{case.get('name')}", found[0] if found else "passed"


def differences(without: Outcomes, installed: Outcomes) -> list[str]:
    """What ends otherwise, and is not listed so."""
    assert without.keys() == installed.keys()
    found = []
    for test, before in without.items():
        name = re.sub(r"\W.*", "", test.rpartition("::")[2])
        listed = DIFFERENT.get(name, (before, before, ""))[:2]
        if before != installed[test] and listed != (before, installed[test]):
            found.append(f"{test}: {before} without the line, {installed[test]} with it")
    return found


def main() -> None:
    folder = unpacked()
    postgres = Postgres()
    try:
        urls = {"SQLite": "sqlite://", "PostgreSQL": postgres.url("postgresql+psycopg")}
        prepare(urls["PostgreSQL"])
        failed = False
        for database, url in urls.items():
            without, installed = (outcomes(folder, url, installed=line) for line in (False, True))
            unexpected = differences(without, installed)
            differ = [test for test in without if without[test] != installed[test]]
            ran = sum(outcome != "skipped" for outcome in without.values())
            print(f"SQLAlchemy {sqlalchemy.__version__}, {database}: {ran} tests, {len(differ)} end otherwise")
            print("".join(f"  {line}\n" for line in unexpected or differ), end="")
            failed = failed or bool(unexpected)
    finally:
        postgres.stop()
    if failed:
        raise SystemExit("Tests end otherwise than listed: see `DIFFERENT` in tools/upstream.py.")


def prepare(url: str) -> None:
    """What SQLAlchemy's tests want to find on a PostgreSQL server."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for schema in ("test_schema", "test_schema_2"):
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS hstore")
    engine.dispose()


if __name__ == "__main__":
    main()
