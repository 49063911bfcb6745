"""O: streams and cursors. A savepoint does not undo how far was read, and what was opened inside it ends with it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Result, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, ResourceClosedError

from savepoints import SavepointsError, TransactionFailed, TransactionLost
from tests.behaviours.steps import Oops, at_once, fails, refused
from tests.behaviours.tools import notes, row
from tests.harness.models import item
from tests.harness.world import Target, World

ITEMS = select(item.c.id).order_by(item.c.id)


BUFFERED = {"stream_results": True, "max_row_buffer": 2}
OPTIONS = pytest.mark.parametrize("options", [BUFFERED, {"yield_per": 2}], ids=" ".join)


async def streamed(
    world: World, t: Target, statement: Any = ITEMS, options: Mapping[str, Any] = BUFFERED
) -> Result[Any]:
    """The rows come from the server, or from the open statement, two at a time."""
    result: Result[Any] = await world.run_sync(t, lambda target: target.execute(statement, execution_options=options))
    return result


async def read(world: World, t: Target, result: Result[Any], count: int) -> list[int]:
    rows = await world.run_sync(t, lambda target: result.fetchmany(count))
    return [id for (id,) in rows]


async def close(world: World, t: Target, *results: Result[Any]) -> None:
    for result in results:
        await world.run_sync(t, lambda target, result=result: result.close())


ALL = list(range(1, 201))  # more than the drivers fetch ahead


def fill(world: World) -> None:
    with world.aside.begin() as other:
        other.execute(item.insert(), [{"id": id} for id in ALL])


@OPTIONS
async def test_o193_cursor_opened_before_the_savepoint_and_read_in_it(world: World, options: Mapping[str, Any]) -> None:
    fill(world)
    async with world.transaction(world.source) as t:
        result = await streamed(world, t, options=options)
        found = await read(world, t, result, 3)
        sp = await world.savepoint(t)
        found += await read(world, t, result, 97)
        await sp.rollback()
        found += await read(world, t, result, 200)
        assert found == ALL
        await close(world, t, result)
        assert str(world.current_transaction(t).state) == "open"
        await t.execute(row(201))
    assert len(world.rows()) == 201


@pytest.mark.needs("core")
async def test_o_a_stream_of_the_drivers_own_sql(world: World) -> None:
    """`exec_driver_sql` tells nobody of its result."""
    fill(world)
    options = {"stream_results": True, "max_row_buffer": 2}
    async with world.transaction(world.source) as t:
        result = await world.run_sync(
            t, lambda sync: sync.exec_driver_sql("SELECT id FROM item ORDER BY id", execution_options=options)
        )
        found = await read(world, t, result, 3)
        async with world.savepoint(t, rollback=True):
            await t.execute(row(201))
        found += await read(world, t, result, 200)
        assert found == ALL
        await close(world, t, result)
    assert len(world.rows()) == 200


@pytest.mark.needs("failed_state")
@pytest.mark.parametrize("way", ["by hand", "block"])
@OPTIONS
async def test_o194_cursor_opened_inside_a_savepoint_that_is_rolled_back(
    world: World, way: str, options: Mapping[str, Any]
) -> None:
    fill(world)
    async with world.transaction(world.source) as t:
        if way == "by hand":
            sp = await world.savepoint(t)
            result = await streamed(world, t, options=options)
            assert await read(world, t, result, 2) == [1, 2]
            await sp.rollback()
        else:
            async with world.savepoint(t, rollback=True):
                result = await streamed(world, t, options=options)
                assert await read(world, t, result, 2) == [1, 2]
        with refused(world, (InterfaceError, ResourceClosedError, SavepointsError), "closed|rolled back"):
            await read(world, t, result, 200)
        assert str(world.current_transaction(t).state) == "open"
        await t.execute(row(201))
    assert len(world.rows()) == 201


# Read in the order of the rows: the 150th cannot be computed.
FAILS_AT_150 = text("SELECT 1000 / (150 - id) FROM item ORDER BY id")


@pytest.mark.needs("failed_state")
async def test_o195_cursor_that_failed_inside(world: World) -> None:
    fill(world)
    async with world.transaction(world.source) as t:
        failing, other = await streamed(world, t, FAILS_AT_150), await streamed(world, t)
        assert len(await read(world, t, failing, 2)) == 2
        found = await read(world, t, other, 2)
        sp = await world.savepoint(t, "reading")
        with pytest.raises(Exception, match="division by zero"):  # asyncpg's own error is not wrapped
            await read(world, t, failing, 200)
        await sp.rollback()
        found += await read(world, t, other, 100)
        again = await world.savepoint(t, "again")
        # the last two are SQLAlchemy's own, where it has dropped the driver's cursor
        with pytest.raises((DBAPIError, ResourceClosedError, AttributeError, AssertionError)):
            await read(world, t, failing, 2)
        await again.rollback()
        found += await read(world, t, other, 200)
        assert found == ALL
        await close(world, t, failing, other)
        await t.execute(row(201))
    assert len(world.rows()) == 201


def fails_late(world: World, code: int) -> Any:
    """The rows of ``item``; the server fails with this error when it comes to the 150th, after it has sent others."""
    with world.aside.begin() as other:
        other.exec_driver_sql(
            "CREATE FUNCTION checked(id INTEGER) RETURNS TEXT BEGIN"
            f" IF id = 150 THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}; END IF;"
            " RETURN REPEAT('x', 1000); END"
        )
    return text("SELECT id FROM item WHERE checked(id) <> '' AND REPEAT('x', 1000) <> '' ORDER BY id")


@pytest.mark.needs("one_at_a_time")
async def test_o195_the_rest_of_a_stream_fails_before_a_savepoint(world: World) -> None:
    """It has to be read first: the error is as SQLAlchemy's, the savepoint is not made, and the code can go on."""
    fill(world)
    statement = fails_late(world, 1644)
    async with world.transaction(world.source) as t:
        await t.execute(row(201))
        result = await streamed(world, t, statement)
        assert await read(world, t, result, 2) == [1, 2]
        with fails(DBAPIError, "1644"):
            await world.savepoint(t)
        async with world.savepoint(t, rollback=True):
            await t.execute(row(202))
        async with world.savepoint(t, suppress=DBAPIError) as sp:
            await t.execute(row(203))
            await streamed(world, t, statement)
        assert str(sp.state) == "rolled back"
        assert "1644" in str(sp.error)
        with fails(Oops) as caught:
            async with world.savepoint(t):
                await streamed(world, t, statement)
                raise Oops
        assert "reading a streamed result failed as well" in notes(caught.value)
    assert len(world.rows()) == 201


@pytest.mark.needs("one_at_a_time")
async def test_o195_the_reader_of_a_stream_has_seen_its_error(world: World) -> None:
    """The block that the error leaves is undone, and nothing reads on in its place."""
    fill(world)
    statement = fails_late(world, 1644)
    async with world.transaction(world.source) as t:
        await t.execute(row(201))
        async with world.savepoint(t, suppress=DBAPIError) as sp:
            await t.execute(row(202))
            await read(world, t, await streamed(world, t, statement), 200)
        assert "1644" in str(sp.error)
    assert len(world.rows()) == 201


@pytest.mark.needs("one_at_a_time")
@pytest.mark.parametrize("by", ["its reader", "a savepoint", "the end"])
async def test_o195_a_stream_met_a_deadlock(world: World, by: str) -> None:
    """The transaction is lost by whomever the rest is read, and nothing is stored on its own after it."""
    fill(world)
    statement = fails_late(world, 1213)
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(201))
            result = await streamed(world, t, statement)
            assert await read(world, t, result, 2) == [1, 2]
            if by != "the end":
                with fails(DBAPIError, "1213"):
                    await (read(world, t, result, 200) if by == "its reader" else world.savepoint(t))
                await t.execute(row(202))
    assert "1213" in str(caught.value.__cause__)
    assert len(world.rows()) == 200


@pytest.mark.needs("one_writer", "sync")
async def test_o196_open_write_handle_blocks_a_savepoint(world: World) -> None:
    with world.aside.begin() as other:
        other.execute(row(1, "0123456789"))
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t, "outer")
        blob = await blob_of(world, t)
        blob.write(b"changed")
        with pytest.raises(DBAPIError, match="SQL statements in progress"):
            await world.savepoint(t, "inner")
        assert world.current_transaction(t).savepoints == (outer,)
        assert str(outer.state) == "open"
        blob.close()
        async with world.savepoint(t, "inner"):
            await t.execute(row(2))
        await outer.release()
    assert world.rows() == [(1, "changed789"), (2, None)]


@pytest.mark.needs("one_writer", "sync")
async def test_o196_open_write_handle_blocks_a_release(world: World) -> None:
    with world.aside.begin() as other:
        other.execute(row(1, "0123456789"))
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t, "outer")
        blob = await blob_of(world, t)
        blob.write(b"changed")
        with pytest.raises(DBAPIError, match="SQL statements in progress") as first:
            await outer.release()
        blob.close()
        if world.style == "core":  # the database has kept it, and takes the RELEASE now
            assert str(outer.state) == "open"
        else:  # SQLAlchemy's nested transaction is spent: only a rollback is left
            assert str(outer.state) == "failed"
            with refused(world, TransactionFailed) as again:
                await outer.release()
            assert again.value.__cause__ is first.value
            await outer.rollback()
        await outer.release()
        await t.execute(row(2))
    assert world.rows() == [(1, "changed789" if world.style == "core" else "0123456789"), (2, None)]


@pytest.mark.needs("one_writer", "sync")
async def test_o196_open_write_handle_in_a_savepoint_that_is_rolled_back(world: World) -> None:
    with world.aside.begin() as other:
        other.execute(row(1, "0123456789"))
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        blob = await blob_of(world, t)
        blob.write(b"changed")
        await sp.rollback()
        assert str(sp.state) == "open"
        with pytest.raises(Exception, match="abort"):
            blob.write(b"no")
        blob.close()
        await sp.release()
    assert world.rows() == [(1, "0123456789")]


async def blob_of(world: World, t: Target) -> Any:
    """A handle on the bytes of the first item's name, open for writing."""

    def opened(target: Any) -> Any:
        connection = target.connection() if world.style == "orm" else target
        return connection.connection.driver_connection.blobopen("item", "name", 1)

    return await world.run_sync(t, opened)


@pytest.mark.needs("one_writer")
@pytest.mark.parametrize("change", ["DELETE FROM item WHERE id > 4", "UPDATE item SET id = id + 1000 WHERE id > 4"])
async def test_o197_reader_open_while_a_rollback_changes_its_table(world: World, change: str) -> None:
    fill(world)
    async with world.transaction(world.source) as t:
        result = await streamed(world, t)
        found = await read(world, t, result, 3)
        sp = await world.savepoint(t)
        await t.execute(text(change))
        await sp.rollback()
        try:
            found += await read(world, t, result, 200)
        except (DBAPIError, ResourceClosedError):
            assert found == [1, 2, 3]  # it may end, but not tell wrong rows
        else:
            assert found == ALL
        assert [id for id, _ in await world.seen(t)] == ALL
    assert [id for id, _ in world.rows()] == ALL


COPY = "COPY item (id) FROM STDIN"


async def driver_connection(world: World, t: Target) -> Any:
    connection = await t.connection() if world.style == "orm" else t
    return await world.run_sync(connection, lambda connection: connection.connection.driver_connection)


async def copy(world: World, t: Target, rows: AsyncIterator[int]) -> None:
    """Send rows by COPY, past SQLAlchemy."""
    driver = await driver_connection(world, t)
    if hasattr(driver, "copy_to_table"):
        await driver.copy_to_table("item", columns=["id"], source=(f"{id}\n".encode() async for id in rows))
    elif world.site.face == "async":
        async with driver.cursor() as cursor, cursor.copy(COPY) as sink:
            async for id in rows:
                await sink.write_row((id,))
    elif "pipeline" in world.site.has:
        with driver.cursor() as cursor, cursor.copy(COPY) as sink:
            async for id in rows:
                sink.write_row((id,))
    else:
        lines = Lines(rows)
        with driver.cursor() as cursor:
            try:
                cursor.copy_expert(COPY, lines)
            except driver.Error as told:  # in words of its own
                raise lines.error or told from told


class Lines:
    """What psycopg2 reads: a file, each line of which comes from an iterator that never waits."""

    def __init__(self, rows: AsyncIterator[int]) -> None:
        self._rows = rows
        self.error: Exception | None = None

    def read(self, size: int) -> str:
        try:
            return f"{at_once(anext(self._rows))}\n"  # type: ignore[arg-type]
        except Exception as error:
            self.error = error
            raise


@pytest.mark.needs("failed_state")
async def test_o198_error_in_the_midst_of_a_copy_leaves_the_block(world: World) -> None:
    error = Oops("first")

    async def rows() -> AsyncIterator[int]:
        yield 2
        raise error

    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        with fails(Oops) as caught:
            async with world.savepoint(t) as sp:
                await copy(world, t, rows())
        assert caught.value is error
        assert str(sp.state) == "rolled back"
        await t.execute(row(3))
    assert world.rows() == [(1, None), (3, None)]


@contextmanager
def unheard_futures() -> Iterator[None]:
    """asyncpg asks no more for the answer to a COPY whose connection was closed."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: None)
    yield
    gc.collect()
    loop.set_exception_handler(handler)


@pytest.mark.needs("failed_state", "async")
async def test_o198_copy_is_still_under_way_when_the_block_is_left(world: World) -> None:
    error, started = Oops("first"), asyncio.Event()

    async def rows() -> AsyncIterator[int]:
        yield 2
        started.set()
        await asyncio.Event().wait()

    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            if not hasattr(await driver_connection(world, t), "copy_to_table"):
                pytest.skip("this driver makes the next statement wait until the COPY has ended")
            await t.execute(row(1))
            async with world.savepoint(t):
                task = asyncio.create_task(copy(world, t, rows()))
                await started.wait()
                raise error
    assert caught.value is error
    assert "failed as well" in notes(error)
    world.check_pool()
    with unheard_futures():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with world.transaction(world.source) as t:
        await t.execute(row(3))
    assert world.rows() == [(3, None)]
