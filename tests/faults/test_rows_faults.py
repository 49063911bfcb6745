"""Whose fault an error is where an INSERT of one row met it, and what it names: each number, by the server itself."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from savepoints import classify
from savepoints._databases import Fault, capabilities
from savepoints._databases.mariadb_faults import FAULTS, fault, named
from tests.harness.world import World

TABLES = (
    "CREATE TABLE above (id INT PRIMARY KEY)",
    "CREATE TABLE below (id INT PRIMARY KEY, n INT NOT NULL, code VARCHAR(4), few ENUM('a', 'b'), day DATE, p INT,"
    " small INT CHECK (small < 10), twice INT AS (2 * n) PERSISTENT, price DECIMAL(4, 2),"
    " inverse INT AS (12 DIV small) PERSISTENT, narrow VARCHAR(9) CHARACTER SET latin1, place POINT, known UUID,"
    " UNIQUE KEY code (code), CONSTRAINT n_is_small CHECK (n < 100),"
    " CONSTRAINT of_over FOREIGN KEY (p) REFERENCES above (id))",
    "CREATE TABLE parted (id INT) PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (10),"
    " PARTITION high VALUES LESS THAN (20))",
    "CREATE TABLE stern (id INT, raised INT)",
    "CREATE TRIGGER stern BEFORE INSERT ON stern FOR EACH ROW BEGIN"
    " IF NEW.raised = 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF;"
    " IF NEW.raised > 0 THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 50007, MESSAGE_TEXT = 'no'; END IF; END",
    "CREATE VIEW low AS SELECT id, n FROM below WHERE n < 50 WITH CHECK OPTION",
    "INSERT INTO below (id, n, code) VALUES (1, 1, 'one')",
)


class Told(NamedTuple):
    """What the error of a statement must mean."""

    number: int
    fault: Fault
    constraint: str | None
    column: str | None
    statement: str


FAULTY = [
    Told(1048, Fault.NOT_NULL, None, "n", "INSERT INTO below (id, n) VALUES (2, NULL)"),
    Told(1062, Fault.UNIQUE, "PRIMARY", None, "INSERT INTO below (id, n) VALUES (1, 2)"),
    Told(1062, Fault.UNIQUE, "code", None, "INSERT INTO below (id, n, code) VALUES (2, 2, 'ONE')"),
    Told(1264, Fault.TYPE, None, "n", "INSERT INTO below (id, n) VALUES (2, 4000000000)"),
    Told(1264, Fault.TYPE, None, "price", "INSERT INTO below (id, n, price) VALUES (2, 2, 100)"),
    Told(1265, Fault.TYPE, None, "few", "INSERT INTO below (id, n, few) VALUES (2, 2, 'c')"),
    Told(1292, Fault.TYPE, None, "day", "INSERT INTO below (id, n, day) VALUES (2, 2, '2024-02-30')"),
    Told(1364, Fault.NOT_NULL, None, "n", "INSERT INTO below (id) VALUES (2)"),
    Told(1365, Fault.OTHER, None, None, "INSERT INTO below (id, n, small) VALUES (2, 2, 0)"),
    Told(1366, Fault.TYPE, None, "n", "INSERT INTO below (id, n) VALUES (2, 'it''s `x`.`y`')"),
    Told(1366, Fault.ENCODING, None, "narrow", "INSERT INTO below (id, n, narrow) VALUES (2, 2, '\u5b57')"),
    Told(1369, Fault.VIEW_CHECK, None, None, "INSERT INTO low (id, n) VALUES (2, 60)"),
    Told(1406, Fault.LENGTH, None, "code", "INSERT INTO below (id, n, code) VALUES (2, 2, 'longer')"),
    Told(1416, Fault.TYPE, None, None, "INSERT INTO below (id, n, place) VALUES (2, 2, 'here')"),
    Told(1452, Fault.FOREIGN_KEY, "of_over", "p", "INSERT INTO below (id, n, p) VALUES (2, 2, 7)"),
    Told(1526, Fault.CHECK, None, None, "INSERT INTO parted VALUES (20)"),
    Told(1644, Fault.TRIGGER, None, None, "INSERT INTO stern VALUES (1, 0)"),
    Told(1748, Fault.CHECK, None, None, "INSERT INTO parted PARTITION (low) VALUES (10)"),
    Told(1906, Fault.GENERATED, None, None, "INSERT INTO below (id, n, twice) VALUES (2, 2, 5)"),
    Told(4025, Fault.CHECK, "n_is_small", None, "INSERT INTO below (id, n) VALUES (2, 100)"),
    Told(4025, Fault.CHECK, "small", "small", "INSERT INTO below (id, n, small) VALUES (2, 2, 10)"),
    Told(4078, Fault.TYPE, None, "known", "INSERT INTO below (id, n, known) VALUES (2, 2, 7)"),
    Told(50007, Fault.TRIGGER, None, None, "INSERT INTO stern VALUES (1, 1)"),
]
#: What no INSERT of one row meets here: other servers', older versions', or only with values that nobody could send.
NOT_MET = {1022, 1118, 1169, 1216, 1300, 1367, 1411, 1586, 1690, 1761, 1977, 3105, 3140, 3819}


def test_each_number_is_met_or_listed() -> None:
    assert {told.number for told in FAULTY} - {50007} == FAULTS.keys() - NOT_MET


LANGUAGES = ["en_US", "de_DE", "ja_JP", "es_ES", "ru_RU", "zh_CN"]


@pytest.fixture
def prepared(world: World) -> World:
    with world.aside.begin() as connection:
        for statement in TABLES:
            connection.execute(text(statement))
    return world


@pytest.mark.needs("lenient", "core")
@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_row_is_to_blame_in_any_language(prepared: World, language: str) -> None:
    row = capabilities(prepared.sync_engine.dialect)
    async with prepared.transaction(prepared.source, rollback=True) as target:
        await target.execute(text(f"SET lc_messages = '{language}'"))
        for told in FAULTY:
            async with prepared.savepoint(target, suppress=DBAPIError) as level:
                await target.execute(text(told.statement.replace(":", "\\:")))
            assert isinstance(level.error, DBAPIError), told
            cause = level.error.orig
            assert cause is not None
            found = classify(level.error)
            assert (found.code, row.fault(cause)) == (str(told.number), told.fault), level.error
            assert (found.constraint, found.column) == (told.constraint, told.column), level.error
        await target.execute(text("SET lc_messages = DEFAULT"))


@pytest.mark.parametrize("number", [1213, 1205, 1114, 1021, 1142, 1054, 1064, 1969, 2006, 2013, None])
def test_other_errors_are_nobodys_fault(number: int | None) -> None:
    assert fault(number, "in words") is None


def test_what_cannot_be_read_has_no_name() -> None:
    for number in FAULTS:
        assert named(number, "in words that nobody has foreseen") == (None, None)
    assert named(1062, "Duplicate entry 'secret' for key 2") == (None, None)


def test_the_relatives_words() -> None:
    """MySQL's messages, from its reference."""
    assert named(3819, "Check constraint 'small' is violated.") == ("small", None)
    assert named(1062, "Duplicate entry 'x' for key 'thing.code'") == ("thing.code", None)
    assert named(1048, "Column 'n' cannot be null") == (None, "n")
