"""Which row a database gets, and what the rows that nobody has proved here say."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import registry
from sqlalchemy.orm import sessionmaker

from savepoints import ImplicitCommit, transaction
from savepoints._databases import ROWS, Aftermath, capabilities
from savepoints._databases.capabilities import Kind
from tests.harness.sites import SITES
from tests.servers import MariaDB


def test_each_proved_row_has_a_site_and_each_site_a_row() -> None:
    dialects = {site.driver for site in SITES}
    named = {f"{row.database}+{row.driver}" for row in ROWS.values() if row.proven}
    assert named == dialects


def test_each_dialect_of_sqlalchemy_s_own_is_spelled_as_it_spells_it() -> None:
    for database, driver in ROWS:
        if database in ("sqlite", "postgresql", "mysql", "mariadb"):
            dialect = registry.load(f"{database}.{driver}")
            assert (dialect.name, dialect.driver) == (database, driver) or database == "mariadb"


def test_a_server_that_is_called_by_another_name_is_recognised(mariadb: MariaDB) -> None:
    """The dialect for MySQL finds out when it connects."""
    engine = create_engine(mariadb.url("mysql+pymysql"))
    assert capabilities(engine.dialect).database == "mysql"
    with transaction(engine) as connection:
        assert capabilities(engine.dialect) is ROWS["mariadb", "pymysql"]
        with pytest.raises(ImplicitCommit):
            connection.execute(text("CREATE TABLE made (id INTEGER)"))
    engine.dispose()


def test_it_is_recognised_before_a_session_is_told_that_it_cannot_prepare(mariadb: MariaDB) -> None:
    engine = create_engine(mariadb.url("mysql+pymysql"))
    with transaction(sessionmaker(engine), twophase=True) as session:
        assert session.scalar(text("SELECT @@in_transaction")) == 1
    engine.dispose()


class Told(Exception):
    """An error with a number, as these drivers raise it."""


@pytest.mark.parametrize(
    ("database", "number", "left"),
    [
        ("mariadb", 1213, Aftermath.LOST),
        ("mariadb", 1205, None),
        ("mariadb", 1062, Aftermath.OPEN),
        ("mysql", 1206, Aftermath.LOST),
        ("mysql", 1205, None),
        ("mysql", 3101, Aftermath.LOST),
        ("tidb", 9007, Aftermath.LOST),
        ("tidb", 1205, Aftermath.LOST),
        ("tidb", 1062, Aftermath.OPEN),
    ],
)
def test_what_an_error_leaves(database: str, number: int, left: Aftermath | None) -> None:
    assert ROWS[database, "pymysql"].aftermath(None, Told(number, "in words")) is left


@pytest.mark.parametrize(("number", "unanswered"), [(1180, True), (1213, False), (1047, False)])
def test_a_commit_in_a_cluster_without_quorum_is_not_answered(number: int, unanswered: bool) -> None:
    assert ROWS["mariadb", "pymysql"].commit_unanswered(Told(number, "in words")) is unanswered


def test_a_conflict_is_one_wherever_it_is_found() -> None:
    assert ROWS["tidb", "pymysql"].kind(Told(9007, "Write conflict")) is Kind.SERIALIZATION
    assert ROWS["mariadb", "pymysql"].kind(Told(1305, "SAVEPOINT x does not exist")) is Kind.CONSEQUENCE
    assert ROWS["mariadb", "pymysql"].kind(Told(1305, "PROCEDURE x does not exist")) is Kind.OTHER
    assert ROWS["mariadb", "pymysql"].code(Told("in words")) is None
