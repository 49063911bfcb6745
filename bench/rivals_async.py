"""Who is measured, async: the drivers, SQLAlchemy's async side, and ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import aiosqlite
import asyncpg
import psycopg
from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

import savepoints
from bench.places import INSERT, TABLE, Embedded, Place
from bench.rivals import OurItem, PlainItem, against, ids


class AsyncWork(NamedTuple):
    """What one rival does; `transaction` rolls back at its end."""

    transaction: Callable[[], AbstractAsyncContextManager[Any]]
    block: Callable[[Any], AbstractAsyncContextManager[Any]]
    insert: Callable[[Any], Awaitable[object]]


class AsyncRival(NamedTuple):
    """Who, and how it is opened."""

    name: str
    open: Callable[[Place], AbstractAsyncContextManager[AsyncWork]]

    @property
    def against(self) -> str | None:
        """SQLAlchemy's own way of doing what ours does."""
        return against(self.name)


# -- drivers


class AsyncDriverBlock:
    """The least that a block can be."""

    __slots__ = ("execute",)

    def __init__(self, execute: Callable[[str], Awaitable[object]]) -> None:
        self.execute = execute

    async def __aenter__(self) -> None:
        await self.execute("SAVEPOINT s")

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            await self.execute("ROLLBACK TO s")
        await self.execute("RELEASE s")


def _driver_work(connection: Any, insert_row: Callable[[Any], Awaitable[object]]) -> AsyncWork:
    @asynccontextmanager
    async def begun() -> AsyncIterator[Any]:
        await connection.execute("BEGIN")
        try:
            yield connection
        finally:
            await connection.execute("ROLLBACK")

    return AsyncWork(begun, lambda target: AsyncDriverBlock(target.execute), insert_row)


@asynccontextmanager
async def aiosqlite_driver(place: Place) -> AsyncIterator[AsyncWork]:
    assert isinstance(place, Embedded)
    statement = INSERT.format(mark="?")
    async with aiosqlite.connect(":memory:", isolation_level=None) as connection:
        await connection.execute(TABLE)
        if place.counting:
            await connection.set_trace_callback(place.count)
        yield _driver_work(connection, lambda target: target.execute(statement, (next(ids), "x")))


@asynccontextmanager
async def psycopg_driver(place: Place) -> AsyncIterator[AsyncWork]:
    statement = INSERT.format(mark="%s")
    async with await psycopg.AsyncConnection.connect(place.url("postgresql"), autocommit=True) as connection:
        yield _driver_work(connection, lambda target: target.execute(statement, (next(ids), "x")))


@asynccontextmanager
async def asyncpg_driver(place: Place) -> AsyncIterator[AsyncWork]:
    statement = "INSERT INTO item (id, name) VALUES ($1, $2)"
    connection = await asyncpg.connect(place.url("postgresql"))
    try:
        yield _driver_work(connection, lambda target: target.execute(statement, next(ids), "x"))
    finally:
        await connection.close()


# -- SQLAlchemy, and ours


@asynccontextmanager
async def engine_of(place: Place, driver: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(place.url(driver), **place.options())
    place.watch(engine.sync_engine)
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(TABLE)
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _rolled_back(open_target: Callable[[], Any]) -> AsyncIterator[Any]:
    async with open_target() as target:
        await target.begin()
        yield target
        await target.rollback()


def _execute(item: Any) -> Callable[[Any], Awaitable[object]]:
    statement = insert(item)
    return lambda target: target.execute(statement, {"id": next(ids), "name": "x"})


def _add(item: Any) -> Callable[[Any], Awaitable[object]]:
    async def add(session: Any) -> None:
        session.add(item(id=next(ids), name="x"))

    return add


@asynccontextmanager
async def plain(place: Place, driver: str, insert_row: Any, *, orm: bool) -> AsyncIterator[AsyncWork]:
    async with engine_of(place, driver) as engine:
        source: Any = async_sessionmaker(engine) if orm else engine.connect
        yield AsyncWork(lambda: _rolled_back(source), lambda target: target.begin_nested(), insert_row)


@asynccontextmanager
async def ours(place: Place, driver: str, insert_row: Any, *, orm: bool) -> AsyncIterator[AsyncWork]:
    async with engine_of(place, driver) as engine:
        source: Any = async_sessionmaker(engine, class_=savepoints.AsyncSession) if orm else engine
        yield AsyncWork(lambda: savepoints.transaction(source, rollback=True), savepoints.savepoint, insert_row)


DRIVERS = {
    "sqlite+aiosqlite": ("aiosqlite", aiosqlite_driver),
    "postgresql+psycopg": ("psycopg, async", psycopg_driver),
    "postgresql+asyncpg": ("asyncpg", asyncpg_driver),
}


def rivals(driver: str) -> list[AsyncRival]:
    """All who can run on a driver; the driver itself is the first."""
    plain_core: Table = PlainItem.__table__
    our_core: Table = OurItem.__table__
    return [
        AsyncRival(*DRIVERS[driver]),
        AsyncRival("SQLAlchemy Core", lambda place: plain(place, driver, _execute(plain_core), orm=False)),
        AsyncRival("savepoints Core", lambda place: ours(place, driver, _execute(our_core), orm=False)),
        AsyncRival("SQLAlchemy ORM, execute", lambda place: plain(place, driver, _execute(PlainItem), orm=True)),
        AsyncRival("savepoints ORM, execute", lambda place: ours(place, driver, _execute(OurItem), orm=True)),
        AsyncRival("SQLAlchemy ORM, add", lambda place: plain(place, driver, _add(PlainItem), orm=True)),
        AsyncRival("savepoints ORM, add", lambda place: ours(place, driver, _add(OurItem), orm=True)),
    ]
