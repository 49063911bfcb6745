"""The tour on the async face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import URL, Connection, NullPool
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from savepoints import AsyncSession
from savepoints.cli.page import Page
from savepoints.cli.sent import Sent
from savepoints.cli.stage import (
    drop_table,
    kept,
    make_table,
    next_step,
    read,
    see_table,
    show,
    show_stored,
)
from savepoints.cli.story import story
from savepoints.cli.urls import CannotRun, reaching

T = TypeVar("T")


def tour(url: URL, page: Page, *, keep: bool) -> None:
    """From the table to the last look; the table is dropped again, unless it is to be kept."""
    asyncio.run(_tour(url, page, keep=keep))


async def _tour(url: URL, page: Page, *, keep: bool) -> None:
    with reaching(url):
        engine, other = _engine(url), _engine(url)
        title = await _on(other, make_table)
    begun = False
    try:
        with reaching(url):
            await _on(engine, see_table)
        begun = True
        page.title(title)
        sent = Sent(engine.sync_engine)
        async with async_sessionmaker(engine, class_=AsyncSession)() as session:
            told, answer = story(session), None
            while step := next_step(told, answer):
                answer = await step.call()
                show(page, step, f"await {step.code}", sent, answer)
        show_stored(page, "await connection.execute(SELECT)", *await _on(other, read))
    finally:
        if keep and begun:
            page.end(kept(url))
        else:
            await _on(other, drop_table)


async def _on(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(work)


def _engine(url: URL) -> AsyncEngine:
    try:
        return create_async_engine(url, poolclass=NullPool)
    except InvalidRequestError:
        driver = url.get_driver_name()
        raise CannotRun(f"{driver} is not an async driver: give the URL another one, or leave --async out") from None
