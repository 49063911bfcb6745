"""Group J: statements that make and change tables, inside savepoints."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from savepoints import ImplicitCommit, TransactionFailed
from savepoints._databases import capabilities
from tests.behaviours.steps import Oops, connection_of, fails, refused
from tests.behaviours.tools import row
from tests.harness.world import Row, World

MADE = text("CREATE TABLE made (id INTEGER PRIMARY KEY)")


def tables(world: World) -> list[str]:
    with world.aside.connect() as aside:
        return [name for name in ("made", "item") if world.aside.dialect.has_table(aside, name)]


# 148: a table made in a savepoint that is rolled back


@pytest.mark.needs("transactional_ddl")
async def test_j148_a_table_made_inside_is_undone(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, rollback=True):
            await t.execute(MADE)
            await t.execute(text("INSERT INTO made VALUES (1)"))
        async with world.savepoint(t):
            await t.execute(MADE)
        assert (await t.execute(text("SELECT * FROM made"))).all() == []
    assert tables(world) == ["made", "item"]
    assert world.rows() == [(1, None)]
    assert capabilities(world.sync_engine.dialect).transactional_ddl == "yes"


@pytest.mark.needs("implicit_commit")
async def test_j148_a_table_made_inside_is_refused_where_it_would_commit(world: World) -> None:
    """Before it is sent: the work before it can still be undone, and kept."""
    with fails(Oops):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with refused(world, ImplicitCommit, "CREATE TABLE would commit"):
                await t.execute(MADE)
            raise Oops
    assert (tables(world), world.rows()) == (["item"], [])
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t) as sp:
            await world.insert(t, 2)
            with refused(world, ImplicitCommit):
                await t.execute(MADE)
            assert str(sp.state) == "open"
            await sp.rollback()
            await world.insert(t, 3)
    assert (tables(world), world.rows()) == (["item"], [(1, None), (3, None)])
    assert capabilities(world.sync_engine.dialect).transactional_ddl == "implicit commit"


@pytest.mark.needs("implicit_commit")
async def test_j148_nor_by_metadata_or_over_a_bookmark(world: World) -> None:
    """What SQLAlchemy makes of objects is a statement like any other; outside a transaction of ours it passes."""
    from sqlalchemy import Column, Integer, MetaData, Table

    made = Table("made", MetaData(), Column("id", Integer, primary_key=True))
    async with world.open() as t:
        await world.insert(t, 1)
        mark = await world.savepoint(t)
        with fails(ImplicitCommit):
            await world.run_sync(t, lambda target: made.create(connection_of(target)))
        await mark.rollback()
        await t.rollback()
        await t.execute(MADE)
        await t.commit()
    assert (tables(world), world.rows()) == (["made", "item"], [])


# 149: dropped and made anew, with other columns

DROP, OTHER = text("DROP TABLE made"), text("CREATE TABLE made (name VARCHAR(10))")


@pytest.mark.needs("transactional_ddl")
async def test_j149_a_table_made_anew_has_its_old_shape_and_rows_again(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(MADE)
        await t.execute(text("INSERT INTO made VALUES (1)"))
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, rollback=True):
            await t.execute(DROP)
            await t.execute(OTHER)
            await t.execute(text("INSERT INTO made VALUES ('other')"))
        assert (await t.execute(text("SELECT id FROM made"))).all() == [(1,)]


@pytest.mark.needs("implicit_commit")
async def test_j149_a_table_cannot_be_dropped_or_changed_inside(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, rollback=True):
            for statement in (DROP, OTHER, text("ALTER TABLE item ADD more INTEGER"), text("RENAME TABLE item TO x")):
                with refused(world, ImplicitCommit):
                    await t.execute(statement)
    assert world.rows() == [(1, None)]


# 150: temporary tables


@pytest.mark.needs("implicit_commit")
async def test_j150_a_temporary_table_stays_and_its_rows_do_not(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        sp = await world.savepoint(t)
        await t.execute(text("CREATE TEMPORARY TABLE short_lived (id INTEGER PRIMARY KEY)"))
        await t.execute(text("INSERT INTO short_lived VALUES (1)"))
        await sp.rollback()
        assert (await t.execute(text("SELECT * FROM short_lived"))).all() == []
        assert str(sp.state) == "open"
        assert world.rows() == []
        await t.execute(text("DROP TEMPORARY TABLE short_lived"))
        await sp.rollback()
    assert world.rows() == [(1, None)]


# 151: a probe that fails


async def test_j151_a_failed_probe_in_a_savepoint_leaves_the_transaction_usable(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, suppress=DBAPIError) as sp:
            await t.execute(text("SELECT 1 FROM no_such_table"))
        assert sp.error is not None
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("failed_state")
async def test_j151_without_the_savepoint_it_does_not(world: World) -> None:
    with fails(TransactionFailed, "no_such_table"):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with fails(DBAPIError):
                await t.execute(text("SELECT 1 FROM no_such_table"))
    assert world.rows() == []


# 153: TRUNCATE

TRUNCATE = text("TRUNCATE TABLE item")


@pytest.mark.needs("failed_state")
async def test_j153_truncate_in_a_savepoint_is_undone(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        async with world.savepoint(t, rollback=True):
            await t.execute(TRUNCATE)
            assert await world.seen(t) == []
    assert world.rows() == [(1, None)]


@pytest.mark.needs("implicit_commit")
async def test_j153_truncate_is_refused_where_it_would_commit(world: World) -> None:
    kept: list[Row] = [(1, None)]
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        async with world.savepoint(t, rollback=True):
            with refused(world, ImplicitCommit, "TRUNCATE TABLE"):
                await t.execute(TRUNCATE)
            assert await world.seen(t) == kept
    assert world.rows() == kept


# 154, 155: what one database's own statements do


@pytest.mark.needs("one_writer")
async def test_j154_what_refuses_to_run_in_a_transaction_leaves_it_as_it_is(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t) as sp:
            await world.insert(t, 2)
            for statement in ("VACUUM", "DETACH DATABASE main"):
                with fails(DBAPIError) as caught:
                    await t.execute(text(statement))
                assert not getattr(caught.value, "__notes__", [])
                assert str(sp.state) == "open"
            await sp.rollback()
            await world.insert(t, 3)
    assert world.rows() == [(1, None), (3, None)]


@pytest.mark.needs("one_writer")
async def test_j155_a_change_of_the_journal_inside_harms_nothing(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, rollback=True):
            await world.insert(t, 2)
            with suppress(DBAPIError):  # by version and journal it is refused, or does nothing
                await t.execute(text("PRAGMA journal_mode = WAL"))
            await t.execute(text("PRAGMA cache_size = 5"))
        await world.insert(t, 3)
    assert world.rows() == [(1, None), (3, None)]
    with world.aside.connect() as aside:
        assert aside.scalar(text("PRAGMA integrity_check")) == "ok"
