"""The tour on the sync face."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.orm import sessionmaker

from savepoints import Session
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
    with reaching(url):
        engine, other = _engine(url), _engine(url)
        title = _on(other, make_table)
    begun = False
    try:
        with reaching(url):
            _on(engine, see_table)
        begun = True
        page.title(title)
        sent = Sent(engine)
        with sessionmaker(engine, class_=Session)() as session:
            told, answer = story(session), None
            while step := next_step(told, answer):
                answer = step.call()
                show(page, step, step.code, sent, answer)
        show_stored(page, "connection.execute(SELECT)", *_on(other, read))
    finally:
        if keep and begun:
            page.end(kept(url))
        else:
            _on(other, drop_table)


def _on(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _engine(url: URL) -> Engine:
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.is_async:
        raise CannotRun(f"{engine.dialect.driver} is an async driver: add --async, or give the URL another driver")
    return engine
