"""Statements that commit by themselves: refused before they are sent (T8, T18), or found out afterwards."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from savepoints import ImplicitCommit, TransactionLost
from savepoints._databases import capabilities
from savepoints._databases.capabilities import Effect
from tests.behaviours.steps import Oops, fails, refused
from tests.faults.losses import deadlocked
from tests.harness.world import Target, World

pytestmark = pytest.mark.needs("implicit_commit")

COMMITS = """
    ALTER DATABASE test CHARACTER SET utf8mb4
    ALTER FUNCTION one COMMENT 'changed'
    ALTER PROCEDURE inserts COMMENT 'changed'
    ALTER SEQUENCE numbers RESTART 5
    ALTER TABLE parent ADD more INTEGER
    ALTER TABLE passing ADD more INTEGER
    ALTER VIEW seen AS SELECT 2 AS number
    ANALYZE TABLE parent
    BEGIN
    BEGIN WORK
    CHECK TABLE parent
    CREATE DATABASE IF NOT EXISTS test
    CREATE INDEX by_name ON parent (name)
    CREATE OR REPLACE TABLE made (id INTEGER)
    CREATE OR REPLACE VIEW seen AS SELECT 1 AS number
    CREATE PROCEDURE other() SELECT 1
    CREATE SEQUENCE others
    CREATE TABLE made (id INTEGER)
    CREATE TABLE made SELECT 1 AS id
    CREATE TEMPORARY SEQUENCE passing_numbers
    CREATE TRIGGER other BEFORE UPDATE ON parent FOR EACH ROW SET @seen = 1
    CREATE USER IF NOT EXISTS somebody@localhost
    CREATE ROLE IF NOT EXISTS anybody
    DROP FUNCTION one
    DROP INDEX no_such_index ON parent
    DROP PROCEDURE inserts
    DROP SEQUENCE numbers
    DROP TABLE IF EXISTS made
    DROP TABLE passing
    DROP USER IF EXISTS nobody_at_all@localhost
    DROP VIEW seen
    FLUSH STATUS
    FLUSH TABLES
    GRANT SELECT ON test.* TO root@localhost
    LOCK TABLES parent READ
    OPTIMIZE TABLE parent
    RENAME TABLE parent TO elder
    REPAIR TABLE keeps
    RESET QUERY CACHE
    SET autocommit = 1
    SET @@autocommit = ON
    SET SESSION autocommit = TRUE
    SET @seen = 1, autocommit = 1
    SET STATEMENT max_statement_time = 5 FOR CREATE TABLE made (id INTEGER)
    START TRANSACTION
    START TRANSACTION READ ONLY
    TRUNCATE TABLE parent
    TRUNCATE passing
    /*! CREATE TABLE made (id INTEGER) */
    /*!40000 CREATE TABLE made (id INTEGER) */
    /*M! CREATE TABLE made (id INTEGER) */
    /*M!100000 CREATE*/ TABLE made (id INTEGER)
    /* a; 'comment */ -- and\\n # another\\n \\t CREATE TABLE made (id INTEGER)
    CREATE/**/TABLE made (id INTEGER)
    create table made (id integer)
""".strip().splitlines()

PASSES = """
    ANALYZE FORMAT=JSON SELECT * FROM parent
    CHECKSUM TABLE parent
    CREATE OR REPLACE TEMPORARY TABLE passing (id INTEGER)
    CREATE TEMPORARY TABLE more_passing SELECT 1 AS id
    CREATE /*! TEMPORARY */ TABLE still_more_passing (id INTEGER)
    (SELECT 1)
    -- CREATE TABLE\\n SELECT 1
    /* CREATE TABLE */ SELECT 1
    DO 1
    DROP TEMPORARY TABLE passing
    EXPLAIN SELECT * FROM parent
    INSERT INTO parent (id, name) VALUES (7, 'a; CREATE TABLE made (id INTEGER)')
    INSERT INTO parent (id, name) VALUES (8, "it''s; ""; DROP TABLE parent")
    REPLACE INTO parent (id) VALUES (9)
    SELECT 1 AS `;`, 'a'';CREATE TABLE made (id INTEGER)'
    SELECT one()
    SET @autocommit = 1
    SET NAMES utf8mb4
    SET autocommit = 0
    SET STATEMENT max_statement_time = 5 FOR SELECT 1
    SHOW TABLES
    VALUES (1)
    WITH few AS (SELECT 1) SELECT * FROM few
""".strip().splitlines()

TELLS_ITSELF = ["COMMIT", "COMMIT WORK", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", " /* so */ commit"]

OPAQUE = {
    "CALL makes_and_inserts()": True,
    "CALL inserts()": False,
    "EXECUTE IMMEDIATE 'CREATE TABLE made (id INTEGER)'": True,
    "EXECUTE IMMEDIATE 'INSERT INTO parent (id) VALUES (7)'": False,
    "BEGIN NOT ATOMIC CREATE TABLE made (id INTEGER); INSERT INTO parent (id) VALUES (7); END": True,
    "BEGIN NOT ATOMIC INSERT INTO parent (id) VALUES (7); END": False,
    "IF 1 THEN CREATE TABLE made (id INTEGER); END IF": True,
    "UNLOCK TABLES": False,
    "CREATE /*!999999 TEMPORARY */ TABLE made (id INTEGER)": True,
    "/*!999999 SELECT */ CREATE TABLE made (id INTEGER)": True,
    """INSERT INTO parent (id, name) VALUES (8, "it''s; \\"; DROP TABLE parent")""": False,
    r"SELECT 1 AS `;`, 'a\';CREATE TABLE made (id INTEGER)'": False,
}

FIXTURES = """
    CREATE FUNCTION one() RETURNS INTEGER RETURN 1
    CREATE PROCEDURE inserts() INSERT INTO parent (id) VALUES (7)
    CREATE PROCEDURE answers() SELECT 1 UNION SELECT 2
    CREATE PROCEDURE makes_and_inserts() BEGIN CREATE TABLE made (id INTEGER); INSERT INTO parent (id) VALUES (7); END
    CREATE SEQUENCE numbers
    CREATE VIEW seen AS SELECT 1 AS number
    CREATE TABLE keeps (id INTEGER) ENGINE = MyISAM
""".strip().splitlines()


@pytest.fixture(autouse=True)
def fixtures(world: World) -> None:
    make(world)


def make(world: World) -> None:
    with world.aside.begin() as aside:
        for statement in FIXTURES:
            aside.exec_driver_sql(statement)


def plain(statement: str) -> str:
    return statement.strip().replace("\\n", "\n").replace("\\t", "\t")


async def send(t: Target, statement: str) -> None:
    await t.execute(text(plain(statement).replace(":", r"\:")))


def the_server_commits(world: World, statement: str) -> bool:
    """What the statement really does, with nobody watching: a savepoint does not outlive a commit."""
    with world.aside.connect() as aside:
        driver = aside.connection.cursor()
        driver.execute("CREATE TEMPORARY TABLE passing (id INTEGER)")
        driver.execute("INSERT INTO parent (id) VALUES (6)")
        driver.execute("SAVEPOINT before_it")
        with suppress(aside.dialect.dbapi.Error):  # type: ignore[union-attr]
            driver.execute(plain(statement))
            while driver.nextset():
                pass
        try:
            driver.execute("RELEASE SAVEPOINT before_it")
        except aside.dialect.dbapi.Error:  # type: ignore[union-attr]
            return True
        finally:
            aside.invalidate()
        return False


def told(world: World, statement: str) -> Effect | None:
    effect = capabilities(world.sync_engine.dialect).effect
    assert effect is not None
    found = effect(plain(statement))
    return None if found is None else found[0]


@pytest.mark.slow
@pytest.mark.needs("core", "async")  # the same server for each driver
async def test_the_list_is_as_the_server_does(world: World) -> None:
    wrong: list[str] = []
    for statements, effect in ((COMMITS, Effect.COMMITS), (PASSES, None), (TELLS_ITSELF, Effect.ENDS)):
        for statement in statements:
            world.prepare()
            make(world)
            if told(world, statement) is not effect or the_server_commits(world, statement) is not (effect is not None):
                wrong.append(statement)
    for statement, commits in OPAQUE.items():
        world.prepare()
        make(world)
        if told(world, statement) is not Effect.OPAQUE or the_server_commits(world, statement) is not commits:
            wrong.append(statement)
    assert wrong == []


async def test_each_that_would_commit_is_refused_before_it_is_sent(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, rollback=True) as sp:
            await world.insert(t, 2)
            for statement in COMMITS:
                with refused(world, ImplicitCommit, "would commit transaction"):
                    await send(t, statement)
            assert str(sp.state) == "open"
    assert world.rows() == [(1, None)]


async def test_others_pass(world: World) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, rollback=True) as sp:
            await world.insert(t, 2)
            await send(t, "CREATE TEMPORARY TABLE passing (id INTEGER)")
            for statement in PASSES:
                await send(t, statement)
            assert str(sp.state) == "open"
        await world.insert(t, 1)
    assert world.rows() == [(1, None)]


async def test_several_statements_in_one_text(world: World) -> None:
    """Where the driver sends such a text at all, its second statement would commit."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        for statement in ("SELECT 1; CREATE TABLE made (id INTEGER)", ";;/* */; DROP TABLE parent;", "COMMIT; BEGIN"):
            with refused(world, ImplicitCommit):
                await send(t, statement)
        await send(t, "INSERT INTO parent (id) VALUES (7);")
    assert world.rows() == [(1, None)]


@pytest.mark.needs("several_statements")
@pytest.mark.parametrize(
    ("mode", "statement"),
    [
        ("NO_BACKSLASH_ESCAPES", r"SELECT 'a\'; CREATE TABLE made (id INTEGER)"),
        ("ANSI_QUOTES", r"""SELECT 1 AS "a\"; CREATE TABLE made (id INTEGER)"""),
    ],
)
async def test_a_backslash_may_be_a_character_as_any_other(world: World, mode: str, statement: str) -> None:
    with fails(TransactionLost, "SELECT"):
        async with world.transaction(world.source) as t:
            await t.execute(text(f"SET SESSION sql_mode = '{mode}'"))
            await world.insert(t, 1)
            await send(t, statement)
            await everything_is_refused(world, t)
    assert world.rows() == [(1, None)]


@pytest.mark.needs("several_statements")
async def test_a_deadlock_of_the_second_statement_is_not_told_by_the_driver(world: World) -> None:
    with fails(TransactionLost, "UPDATE"):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            await deadlocked(world, t, first="UPDATE parent SET name = 'ours' WHERE id = 1001;")
            await everything_is_refused(world, t)
    assert world.rows() == []


async def everything_is_refused(world: World, t: Target) -> None:
    """Nothing reaches the database any more: it would begin another transaction in silence."""
    with fails(TransactionLost, "ended by a statement past SQLAlchemy, "):
        await world.insert(t, 8)
    sent = world.transcript.sent()
    for call in (lambda: world.savepoint(t), lambda: world.rollback_to(t, "mark"), lambda: send(t, "SELECT 1")):
        with pytest.raises(TransactionLost):
            await call()
    assert world.transcript.sent() == sent


SLIPS = [*[statement for statement, commits in OPAQUE.items() if commits], *TELLS_ITSELF]


@pytest.mark.parametrize("statement", SLIPS)
async def test_what_slips_through_is_told_before_the_next_statement(world: World, statement: str) -> None:
    """DDL inside a procedure, after which the server says that a transaction is open: there is one, but another."""
    with fails(TransactionLost, "committed or rolled back behind the library") as lost:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 1)
            mark = await world.savepoint(t, "mark")
            await send(t, statement)
            await everything_is_refused(world, t)
            assert [str(level.state) for level in (transaction, mark)] == ["lost", "lost"]
    assert "look in the database" in lost.value.hint
    assert [id for id, _ in world.rows()] in ([], [1])  # committed by what slipped through, or rolled back
    async with world.transaction(world.source) as t:
        await world.insert(t, 9)
    assert (9, None) in world.rows()


@pytest.mark.parametrize("end", ["block", "commit", "error"])
async def test_what_slips_through_last_is_told_at_the_end(world: World, end: str) -> None:
    """The end itself looks: nothing of the rest is committed in silence."""
    with fails(Oops if end == "error" else TransactionLost) as caught:
        async with world.open() as t:
            if end == "commit":
                await world.savepoint(t)
                await send(t, "CALL makes_and_inserts()")
                await t.commit()
            async with world.transaction(t):
                await world.insert(t, 1)
                await send(t, "CALL makes_and_inserts()")
                if end == "error":
                    raise Oops
    if end == "error":
        assert "behind the library" in "".join(caught.value.__notes__)
    with world.aside.connect() as aside:
        assert aside.execute(text("SELECT id FROM parent")).all() == []  # the procedure's own insert was rolled back


async def test_a_procedure_that_commits_nothing_passes(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, rollback=True):
            await send(t, "CALL inserts()")
            await world.insert(t, 2)
        async with world.savepoint(t) as sp:
            answer = await t.execute(text("CALL answers()"))
            assert answer.all() == [(1,), (2,)]
            answer.close()
            await sp.rollback()
            await send(t, "CALL inserts()")
    assert world.rows() == [(1, None)]
    with world.aside.connect() as aside:
        assert aside.execute(text("SELECT id FROM parent")).all() == [(7,)]


async def test_a_procedure_that_fails_midway_is_told_as_well(world: World) -> None:
    """Its DDL has committed before its own error came."""
    with world.aside.begin() as aside:
        aside.exec_driver_sql(
            "CREATE PROCEDURE fails() BEGIN CREATE TABLE made (id INTEGER); INSERT INTO item VALUES (1, 'twice'); END"
        )
    with fails(TransactionLost):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with fails(DBAPIError):
                await send(t, "CALL fails()")
            with fails(TransactionLost):
                await world.insert(t, 2)
    assert world.rows() == [(1, None)]


async def test_nothing_is_asked_after_a_procedure_that_lost_a_deadlock(world: World) -> None:
    with world.aside.begin() as aside:
        aside.exec_driver_sql("CREATE PROCEDURE deadlocks() SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213")
    with fails(TransactionLost, "deadlock 1213"):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with fails(DBAPIError):
                await send(t, "CALL deadlocks()")
            sent = world.transcript.sent()
            with fails(TransactionLost):
                await world.insert(t, 2)
            assert world.transcript.sent() == sent
    assert world.rows() == []


async def test_a_refused_commit_as_text_has_ended_nothing(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with fails(DBAPIError):
            await send(t, "COMMIT no such word")
        async with world.savepoint(t):
            await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]
