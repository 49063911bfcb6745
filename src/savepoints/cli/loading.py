"""The command `load`: a file into a table, in a transaction of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, inspect
from sqlalchemy.exc import SQLAlchemyError

from savepoints import BadInput, LoadLimitExceeded, Report, SavepointsError, load, transaction
from savepoints._databases import capabilities, embedded_file, in_memory
from savepoints._load.infer import table_for
from savepoints._load.written import check_file
from savepoints.cli.screen import Screen, warn
from savepoints.cli.urls import BrokenOff, CannotRun, called, in_one_line, parsed, reaching


class Exit(IntEnum):
    """What the command ends with."""

    LOADED = 0
    BROKEN_OFF = 1
    USAGE = 2
    REJECTS = 3
    LIMIT = 4
    INTERRUPTED = 130


@dataclass(frozen=True)
class Order:
    """What was asked for; `savepoints load --help` tells what each is."""

    file: Path
    into: str
    table: str
    rejects: Path | None = None
    max_rejected: str | None = None
    dry_run: bool = False
    create: bool = False
    explain: bool = False
    columns: tuple[str, ...] = ()
    null: tuple[str, ...] = ()
    encoding: str | None = None
    on_conflict: Literal["reject", "skip", "update"] = "reject"
    key: tuple[str, ...] = ()
    show_values: bool = False

    def options(self) -> dict[str, Any]:
        """Those that are `load`'s."""
        return {
            **limit(self.max_rejected),
            "columns": fields(self.columns),
            "rejects": self.rejects,
            "null": self.null or None,
            "encoding": self.encoding,
            "on_conflict": self.on_conflict,
            "key": self.key or None,
            "rollback": self.dry_run,
        }


def limit(text: str | None) -> dict[str, Any]:
    """How many rows may be rejected: a number, or a share as ``1%``.

    Raises:
        CannotRun: It is neither.
    """
    if text is None:
        return {}
    number = text.strip()
    share = number.endswith("%")
    try:
        most = float(number[:-1]) / 100 if share else int(number)
    except ValueError:
        raise CannotRun(f"--max-rejected is a number of rows or a share as 1%, not {text!r}") from None
    if share and not 0 <= most <= 1:
        raise CannotRun(f"--max-rejected is a share from 0% to 100%, not {text!r}")
    if most < 0:
        raise CannotRun(f"--max-rejected is a number of rows from 0, not {text!r}")
    return {"max_rejected_ratio" if share else "max_rejected": most}


def fields(named: tuple[str, ...]) -> dict[str, str] | None:
    """Fields of the file with the names of their columns, from ``FIELD`` and ``FIELD=NAME``.

    Raises:
        CannotRun: One of the two is empty, or a field is named twice.
    """
    found: dict[str, str] = {}
    for one in named:
        field, renamed, name = one.rpartition("=")
        if not name or (renamed and not field):
            raise CannotRun(f"--column is FIELD or FIELD=NAME, not {one!r}")
        field = field or name
        if field in found:
            raise CannotRun(f"--column names the field {field!r} twice")
        found[field] = name
    return found or None


_WORDS = {
    "`columns=`": "--column",
    "`key=`": "--key",
    'on_conflict="skip" or "update"': "--on-conflict skip or update",
}


def in_words(error: Exception) -> str:
    """An error of the library in the words of the command line."""
    told = str(error)
    for python, option in _WORDS.items():
        told = told.replace(python, option)
    return told


def run(order: Order) -> Exit:
    """Load, show, and tell how it ended, in a text that holds no credentials."""
    try:
        return _run(order)
    except CannotRun as reason:
        warn(str(reason))
        return Exit.USAGE
    except BrokenOff as reason:
        warn(f"broken off: {reason}")
        return Exit.BROKEN_OFF
    except _Interrupted as reason:
        warn(f"interrupted {reason}")
        return Exit.INTERRUPTED
    except KeyboardInterrupt:
        warn(f"interrupted: all was undone, and {order.table} is as it was")
        return Exit.INTERRUPTED


class _Interrupted(Exception):
    """By Ctrl-C, when not all was undone; the text says what there is."""


def _run(order: Order) -> Exit:
    url = parsed(order.into)
    title = f"{order.file.name} → {order.table}"
    report = None
    try:
        with _database(url, order) as engine, Screen(title, values=order.show_values) as on:
            try:
                report = _load(engine, order, on)
            except BadInput as error:
                raise CannotRun(in_words(error)) from error
            except LoadLimitExceeded as error:
                _show(on, order, error.report)
                warn(error.message)
                return Exit.LIMIT
            except (SQLAlchemyError, SavepointsError, OSError) as error:
                raise BrokenOff(f"{in_one_line(error, url)}; nothing was loaded") from error
            _show(on, order, report)
            return Exit.REJECTS if report.rejected else Exit.LOADED
    except KeyboardInterrupt:
        if report is None or order.dry_run:
            raise
        raise _Interrupted(f"after COMMIT: the rows are in {order.table}") from None


@contextmanager
def _database(url: URL, order: Order) -> Iterator[Engine]:
    """An engine; a file that was made for a load that came to nothing is deleted again."""
    with ExitStack() as afterwards:
        if in_memory(url) and not order.dry_run:
            raise CannotRun(f"{called(url)} is a database in memory, gone when the command ends: name a file")
        file = embedded_file(url)
        if file is not None and not file.exists():
            if not order.create:
                raise CannotRun(f"there is no database {file}: create it first, or let --create do so")
            afterwards.callback(_remove_if_empty, file)
        if order.rejects is not None:  # before a database is made
            _check_rejects(order.rejects, order.file)
        with reaching(url):
            engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
            if engine.dialect.is_async:
                raise CannotRun(f"{engine.dialect.driver} is an async driver: give the URL another one")
        enforce = capabilities(engine.dialect).enforce
        if enforce is not None:
            event.listen(engine, "connect", lambda connection, _: connection.cursor().execute(enforce))
        afterwards.callback(engine.dispose)
        yield engine


def _remove_if_empty(file: Path) -> None:
    if file.exists() and not file.stat().st_size:
        file.unlink()


def _check_rejects(file: Path, source: Path) -> None:
    try:
        check_file(file, source=source)
    except (BadInput, OSError) as error:
        raise CannotRun(in_words(error)) from error


def _load(engine: Engine, order: Order, on: Screen) -> Report:
    """In a transaction that is committed at its end, or rolled back if it is a dry run."""
    with reaching(engine.url):
        connection = engine.connect()
        inspect(connection).has_table(order.table)  # a file is looked into only now
        connection.rollback()
    loaded = False
    try:
        with connection, transaction(connection, name="savepoints load", rollback=order.dry_run):
            made = _create(connection, order) if order.create else None
            into = order.table if made is None else made
            report = load(connection, into, order.file, progress=on.progress, **order.options())
            loaded = True
    except KeyboardInterrupt:
        if loaded and not order.dry_run:
            raise _Interrupted(f"during COMMIT: look into {order.table} for what is there") from None
        raise
    return report


def _create(connection: Connection, order: Order) -> Any:
    """The table, made from what the file holds; None where it is there already."""
    schema, _, name = order.table.rpartition(".")
    looked = inspect(connection)
    if looked.has_table(order.table) or looked.has_table(name, schema=schema or None):
        return None
    if capabilities(connection.dialect).transactional_ddl != "yes":
        raise BadInput(
            f"{called(connection.engine.url)} commits CREATE TABLE at once, so that it could not be undone",
            hint="create the table first, and leave --create out",
        )
    table = table_for(
        order.file,
        order.table,
        columns=fields(order.columns),
        encoding=order.encoding,
        null=order.null or None,
    )
    try:
        table.create(connection)
    except SQLAlchemyError as error:  # as two columns that are one to this database
        why = in_one_line(error, connection.engine.url)
        hint = "name its columns by `columns=`, or create it first"
        raise BadInput(f"table {order.table} cannot be made: {why}", hint=hint) from error
    return table


def _show(on: Screen, order: Order, report: Report) -> None:
    on.report(report)
    if order.explain:
        on.rules(report)
    if order.rejects is not None and report.rejected:
        print(f"Rejected rows: {order.rejects}")
    if order.dry_run:
        print("Dry run: nothing was kept.")
