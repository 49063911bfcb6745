"""The examples that need a server do what their page says: their functions are called with an engine of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.harness.sites import MARIADB_RESET
from tests.servers import MariaDB
from tools.pages import ROOT, blocks


def example(page: str) -> dict[str, Any]:
    """What the page's blocks define."""
    namespace: dict[str, Any] = {"__name__": "example"}
    for block in blocks(ROOT / "docs" / f"{page}.md"):
        exec(compile(block.code, f"{page}.md", "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture
def engine(mariadb: MariaDB) -> Iterator[Engine]:
    engine = create_engine(mariadb.url())
    with engine.begin() as connection:
        for statement in (str(MARIADB_RESET.alone), *MARIADB_RESET.anew):
            connection.exec_driver_sql(statement)
    yield engine
    engine.dispose()


def test_mariadb(engine: Engine) -> None:
    example("mariadb")["move_a_user"](engine)
    assert example("mariadb")["try_for_a_lock"](engine) is None
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM users WHERE id = 3"))
    with engine.begin() as other:
        other.execute(text("UPDATE users SET name = 'held' WHERE id = 1"))
        error = example("mariadb")["try_for_a_lock"](engine)
        assert isinstance(error, OperationalError)
        assert error.orig is not None
        assert error.orig.args[0] == 1205
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT name FROM users WHERE id = 3")) == "Eve"


def test_galera(engine: Engine) -> None:
    """One node of a cluster is a server like any other; tests/faults/test_galera.py has three."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter (number INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    example("galera")["count_up"](engine, 3)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT number FROM counter")) == 3


def test_implicit_commit(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)"))
    [code] = [block.code for block in blocks(ROOT / "docs" / "errors.md") if "def add_column" in block.code]
    namespace: dict[str, Any] = {"text": text}
    exec(code, namespace)
    namespace["add_column"](engine)
    assert capsys.readouterr().out.startswith("ALTER TABLE would commit transaction 'transaction' (opened at ")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0
