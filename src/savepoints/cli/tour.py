"""Running the tour: a table of its own, the story on one connection, a look by another one, nothing left behind."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, CursorResult, Engine, NullPool, create_engine, inspect, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from savepoints import AsyncSession, SavepointsError, Session
from savepoints._databases import embedded_file, embedded_url
from savepoints.cli.page import Page, Rows
from savepoints.cli.sent import Sent, Statement
from savepoints.cli.story import AT_THE_END, CREATE, DROP, SELECT, TABLE, Step, story

T = TypeVar("T")


class CannotRun(Exception):
    """The tour cannot begin; the text says why, and what to do."""


class BrokenOff(Exception):
    """The tour began and did not come to its end."""


def run(url: str | None, page: Page, *, asynchronous: bool, keep: bool) -> None:
    """Take the tour, from its title to its last line.

    Raises:
        CannotRun, BrokenOff: With a text for the user that holds no credentials.
    """
    given = None if url is None else _parsed(url)
    with _home(given, asynchronous=asynchronous, keep=keep) as home:
        try:
            if asynchronous:
                asyncio.run(_tour_async(home, page, keep=keep))
            else:
                _tour(home, page, keep=keep)
        except (SQLAlchemyError, SavepointsError) as error:
            raise BrokenOff(_in_one_line(error, home)) from error


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError:
        raise CannotRun("this is not a database URL; they look like dialect+driver://user@host/database") from None


@contextmanager
def _home(url: URL | None, *, asynchronous: bool, keep: bool) -> Iterator[URL]:
    """Where the tour takes place. Files that are made for it are deleted at the end, unless they are to be kept."""
    with ExitStack() as afterwards:
        if url is None:
            folder = Path(tempfile.mkdtemp(prefix="savepoints-tour-"))
            if not keep:
                afterwards.callback(shutil.rmtree, folder)
            url = embedded_url(folder / "tour.db", asynchronous=asynchronous)
        file = embedded_file(url)
        if file is not None and not file.exists() and not keep:
            afterwards.callback(file.unlink, missing_ok=True)
        yield url


# -- the two faces


def _tour(url: URL, page: Page, *, keep: bool) -> None:
    with _reaching(url):
        engine, other = _engine(url), _engine(url)
        title = _on(other, _make_table)
    try:
        with _reaching(url):
            _on(engine, _see_table)
        page.title(title)
        sent = Sent(engine)
        with sessionmaker(engine, class_=Session)() as session:
            told, answer = story(session), None
            while step := _next(told, answer):
                answer = step.call()
                _show(page, step, step.code, sent, answer)
        _show_stored(page, "connection.execute(SELECT)", *_on(other, _read))
    finally:
        if keep:
            page.end(_kept(url))
        else:
            _on(other, _drop_table)


def _on(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


async def _tour_async(url: URL, page: Page, *, keep: bool) -> None:
    with _reaching(url):
        engine, other = _async_engine(url), _async_engine(url)
        title = await _on_async(other, _make_table)
    try:
        with _reaching(url):
            await _on_async(engine, _see_table)
        page.title(title)
        sent = Sent(engine.sync_engine)
        async with async_sessionmaker(engine, class_=AsyncSession)() as session:
            told, answer = story(session), None
            while step := _next(told, answer):
                answer = await step.call()
                _show(page, step, f"await {step.code}", sent, answer)
        _show_stored(page, "await connection.execute(SELECT)", *await _on_async(other, _read))
    finally:
        if keep:
            page.end(_kept(url))
        else:
            await _on_async(other, _drop_table)


async def _on_async(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(work)


# -- what both have in common


def _engine(url: URL) -> Engine:
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.is_async:
        raise CannotRun(f"{engine.dialect.driver} is an async driver: add --async, or give the URL another driver")
    return engine


def _async_engine(url: URL) -> AsyncEngine:
    try:
        return create_async_engine(url, poolclass=NullPool)
    except InvalidRequestError:
        driver = url.get_driver_name()
        raise CannotRun(f"{driver} is not an async driver: give the URL another one, or leave --async out") from None


@contextmanager
def _reaching(url: URL) -> Iterator[None]:
    """Until the story begins, whatever goes wrong means that it cannot be told here."""
    try:
        yield
    except CannotRun:
        raise
    except ImportError as error:
        raise CannotRun(f"the driver for {_called(url)} is not installed ({error})") from error
    except Exception as error:  # asyncpg's own errors on connecting pass through SQLAlchemy as they are
        raise CannotRun(f"{_called(url)} cannot be used: {_in_one_line(error, url)}") from error


def _make_table(connection: Connection) -> str:
    """Make the table; the title tells what on."""
    if inspect(connection).has_table(TABLE):
        raise CannotRun(
            f"there is a table {TABLE!r} in {_called(connection.engine.url)} already, and the tour makes one: "
            "give it an empty database"
        )
    connection.execute(CREATE)
    dialect = connection.dialect
    version = ".".join(map(str, dialect.server_version_info or ()))
    return f"A transaction with a bookmark, on {dialect.name} {version} through {dialect.driver}"


def _see_table(connection: Connection) -> None:
    if not inspect(connection).has_table(TABLE):
        raise CannotRun(f"each connection to {_called(connection.engine.url)} has a database of its own (in memory?)")


def _drop_table(connection: Connection) -> None:
    if inspect(connection).has_table(TABLE):
        connection.execute(DROP)


def _next(told: Generator[Step, Any, None], answer: Any) -> Step | None:
    try:
        return told.send(answer)
    except StopIteration:
        return None


def _show(page: Page, step: Step, code: str, sent: Sent, answer: Any) -> None:
    rows = answer.all() if isinstance(answer, CursorResult) and answer.returns_rows else ()
    page.step(step.words, f"{step.name} = {code}" if step.name else code, sent.take(), rows)


def _read(connection: Connection) -> tuple[list[Statement], Rows]:
    """What a second connection sees, after the first has ended."""
    sent = Sent(connection)
    rows = connection.execute(SELECT).all()
    return sent.take(), rows


def _show_stored(page: Page, code: str, sent: list[Statement], rows: Rows) -> None:
    page.step("A second connection looks.", code, sent, rows)
    if list(rows) != AT_THE_END:
        raise BrokenOff(f"{AT_THE_END} should be stored")
    page.end("The bookmark was rolled back twice, and John Doe is stored.")


# -- what is told of a URL


def _called(url: URL) -> str:
    """The database without user, password and options."""
    return str(URL.create(url.drivername, host=url.host, port=url.port, database=url.database))


def _kept(url: URL) -> str:
    file = embedded_file(url)
    return f"The table {TABLE!r} is kept in {_called(url)}" if file is None else f"The database is kept: {file}"


def _in_one_line(error: BaseException, url: URL) -> str:
    """The first line of an error, the driver's own if there is one, without the URL's password."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    line = text.splitlines()[0]
    secrets = [value for key, value in (("password", url.password), *url.query.items()) if "pass" in key.lower()]
    for secret in filter(None, secrets):
        line = line.replace(str(secret), "***")
    return line
