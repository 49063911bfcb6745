"""What both faces of the tour have in common: the table, and what is shown."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from sqlalchemy import URL, Connection, CursorResult, inspect

from savepoints._databases import embedded_file
from savepoints.cli.page import Page, Rows
from savepoints.cli.sent import Sent, Statement
from savepoints.cli.story import AT_THE_END, CREATE, DROP, SELECT, TABLE, Step
from savepoints.cli.urls import BrokenOff, CannotRun, called


def make_table(connection: Connection) -> str:
    """Make the table; the title tells what on."""
    if inspect(connection).has_table(TABLE):
        raise CannotRun(
            f"there is a table {TABLE!r} in {called(connection.engine.url)} already, and the tour makes one: "
            "give it an empty database"
        )
    connection.execute(CREATE)
    dialect = connection.dialect
    version = ".".join(map(str, dialect.server_version_info or ()))
    return f"A transaction with a bookmark, on {dialect.name} {version} through {dialect.driver}"


def see_table(connection: Connection) -> None:
    if not inspect(connection).has_table(TABLE):
        url = connection.engine.url
        file = URL.create(url.drivername, database="tour.db")
        raise CannotRun(
            f"each connection to {called(url)} has a database of its own (in memory?): give it a file, as {file}"
        )


def drop_table(connection: Connection) -> None:
    if inspect(connection).has_table(TABLE):
        connection.execute(DROP)


def next_step(told: Generator[Step, Any, None], answer: Any) -> Step | None:
    try:
        return told.send(answer)
    except StopIteration:
        return None


def show(page: Page, step: Step, code: str, sent: Sent, answer: Any) -> None:
    rows = answer.all() if isinstance(answer, CursorResult) and answer.returns_rows else ()
    page.step(step.words, f"{step.name} = {code}" if step.name else code, sent.take(), rows)


def read(connection: Connection) -> tuple[list[Statement], Rows]:
    """What a second connection sees, after the first has ended."""
    sent = Sent(connection)
    rows = connection.execute(SELECT).all()
    return sent.take(), rows


def show_stored(page: Page, code: str, sent: list[Statement], rows: Rows) -> None:
    page.step("A second connection looks.", code, sent, rows)
    if list(rows) != AT_THE_END:
        raise BrokenOff(f"{AT_THE_END} should be stored")
    page.end("The bookmark was rolled back twice, and John Doe is stored.")


def kept(url: URL) -> str:
    file = embedded_file(url)
    return f"The table {TABLE!r} is kept in {called(url)}" if file is None else f"The database is kept: {file}"
