"""A database in memory lives on one connection that the pool never gives up: as in many applications' own tests."""

from __future__ import annotations

from sqlalchemy import create_engine, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import savepoints
from savepoints import Rollback
from tests.harness.models import Item, tables

COUNT = select(func.count()).select_from(Item)


def test_a_database_in_memory() -> None:
    engine = create_engine("sqlite://")
    tables.create_all(engine)
    for _ in range(2):
        with savepoints.transaction(sessionmaker(engine)) as session:
            session.add(Item(name="kept"))
            with savepoints.savepoint(session):
                session.add(Item(name="undone"))
                raise Rollback
    with Session(engine) as session:
        assert session.scalar(COUNT) == 2
    engine.dispose()


async def test_a_database_in_memory_through_aiosqlite() -> None:
    """Its connection belongs to another thread, in which alone sqlite3 answers some questions about it."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    for _ in range(2):
        async with savepoints.transaction(async_sessionmaker(engine)) as session:
            session.add(Item(name="kept"))
            async with savepoints.savepoint(session):
                session.add(Item(name="undone"))
                raise Rollback
    async with AsyncSession(engine) as session:
        assert await session.scalar(COUNT) == 2
    await engine.dispose()
