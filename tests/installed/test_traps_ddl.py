"""T8 in plain code: DDL commits everything, and ends the savepoint that it stands in; with the line and without it."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import savepoints
from savepoints import ImplicitCommit, Repair, TransactionLost
from tests.behaviours.steps import fails
from tests.behaviours.tools import notes
from tests.harness.world import World
from tests.installed.lines import Line, each_line, lay

pytestmark = pytest.mark.needs("implicit_commit")

MAKE = text("CREATE TABLE made (id INTEGER)")
TEMPORARY = text("CREATE TEMPORARY TABLE passing (id INTEGER)")


@each_line
async def test_t08_a_table_is_made_in_a_savepoint(world: World, line: Line) -> None:
    """Without the line all that was done is stored, whatever the code does afterwards; with it, nothing is sent."""
    repaired = lay(world, line, Repair.DDL)
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with fails(ImplicitCommit if repaired else DBAPIError):
            async with t.begin_nested():
                await world.insert(t, 2, "inside")
                await t.execute(MAKE)
        if repaired:
            assert not [sent for sent in world.transcript.sent() if sent.startswith("CREATE")]
            await world.insert(t, 3, "after")
        await t.rollback()
    assert world.rows() == ([] if repaired else [(1, "before"), (2, "inside")])


async def test_t08_after_the_refusal_the_code_goes_on(world: World) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        await world.insert(t, 1, "before")
        nested = await t.begin_nested()
        with fails(ImplicitCommit, "CREATE TABLE would commit"):
            await t.execute(MAKE)
        await t.execute(TEMPORARY)
        await world.insert(t, 2, "inside")
        await nested.commit()
        await t.commit()
    assert world.rows() == [(1, "before"), (2, "inside")]


async def test_t08_no_savepoint_is_open(world: World) -> None:
    """Then a commit is what the code may have meant, as in a migration: it is none of our business."""
    savepoints.install(world.engine)
    async with world.open() as t:
        async with t.begin_nested():
            await world.insert(t, 1, "inside")
        await t.execute(MAKE)
        await world.insert(t, 2, "after")
        await t.commit()
        await t.execute(text("DROP TABLE made"))
    assert world.rows() == [(1, "inside"), (2, "after")]


@each_line
async def test_t08_a_procedure_makes_a_table(world: World, line: Line) -> None:
    """What cannot be seen before is found out after it: what comes then is not stored without what came before."""
    with world.aside.begin() as aside:
        aside.exec_driver_sql("CREATE PROCEDURE makes() CREATE TABLE made (id INTEGER)")
    repaired = lay(world, line, Repair.DDL)
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with fails(TransactionLost if repaired else DBAPIError) as caught:
            async with t.begin_nested():
                await t.execute(text("CALL makes()"))
                await world.insert(t, 2, "inside")
        if repaired:
            assert "CALL MAKES" in f"{caught.value} {notes(caught.value)}"
            with fails(TransactionLost):
                await t.commit()
        else:
            await t.commit()
    assert world.rows() == [(1, "before"), *([] if repaired else [(2, "inside")])]


async def test_t08_a_procedure_as_the_last_statement(world: World) -> None:
    """It is found out at the end of the savepoint, which is gone: ROLLBACK TO is left out, RELEASE is refused."""
    with world.aside.begin() as aside:
        aside.exec_driver_sql("CREATE PROCEDURE makes() CREATE OR REPLACE TABLE made (id INTEGER)")
    savepoints.install(world.engine)
    async with world.open() as t:
        for end in ("commit", "rollback"):
            nested = await t.begin_nested()
            await world.insert(t, 1, "inside")
            await t.execute(text("CALL makes()"))
            if end == "commit":
                with fails(TransactionLost):
                    await nested.commit()
                await t.rollback()
                await t.execute(text("DELETE FROM item"))
                await t.commit()
            else:
                await nested.rollback()
                with fails(TransactionLost):
                    await t.commit()
    assert world.rows() == [(1, "inside")]


async def test_t08_a_procedure_that_commits_nothing(world: World) -> None:
    with world.aside.begin() as aside:
        aside.exec_driver_sql("CREATE PROCEDURE inserts() INSERT INTO item VALUES (7, 'by it')")
    savepoints.install(world.engine)
    async with world.open() as t:
        async with t.begin_nested():
            await t.execute(text("CALL inserts()"))
        async with t.begin_nested() as undone:
            await t.execute(text("DELETE FROM item"))
            await t.execute(text("DO 1"))
            await undone.rollback()
        await t.commit()
    assert world.rows() == [(7, "by it")]


@pytest.mark.parametrize("without", [(), (Repair.LOST,)], ids=["all", "without lost"])
async def test_t08_a_refused_commit_as_text_has_ended_nothing(world: World, without: tuple[Repair, ...]) -> None:
    savepoints.install(world.engine, without=without)
    async with world.open() as t:
        async with t.begin_nested():
            await world.insert(t, 1, "inside")
            with fails(DBAPIError):
                await t.execute(text("COMMIT no such word"))
            await world.insert(t, 2, "inside")
        await t.commit()
    assert world.rows() == [(1, "inside"), (2, "inside")]
