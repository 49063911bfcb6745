"""Who loads: each leaves the good rows in the table. Those that cannot leave out bad rows get good ones only."""

from __future__ import annotations

import csv
import importlib.util
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, insert
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import Session, registry

from bench.load.places import MariaServer, Place, Server
from bench.load.rows import Row
from savepoints import load, transaction

Work = Callable[[Place, Table, list[Row]], None]

OURS = "savepoints.load"


class Rival(NamedTuple):
    """One way to load.

    Attributes:
        most: It gets so many rows at most, since it is slow.
        clean: It gets no bad rows, for one would end it.
        base: Others are compared with it.
    """

    name: str
    work: Work
    most: int = 10**9
    clean: bool = False
    base: bool = False


def ours(place: Place, table: Table, rows: list[Row]) -> None:
    with transaction(place.engine) as connection:
        load(connection, table, rows, max_rejected=len(rows))


# -- the driver alone


def executemany(place: Place, table: Table, rows: list[Row]) -> None:
    with _driver(place) as driver:
        marks = ", ".join("?" * len(table.columns))
        driver.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)


def multi_row(place: Place, table: Table, rows: list[Row]) -> None:
    """The driver's own `executemany`, which makes INSERTs of many rows."""
    with _driver(place) as driver, driver.cursor() as cursor:
        names = ", ".join(column.name for column in table.columns)
        marks = ", ".join(["%s"] * len(table.columns))
        cursor.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)


def each_alone(place: Place, table: Table, rows: list[Row]) -> None:
    """As `row_by_row`, on a server."""
    with _driver(place) as driver, driver.cursor() as cursor:
        sql = f"INSERT INTO {table.name} VALUES ({', '.join(['%s'] * len(table.columns))})"
        for row in rows:
            try:
                cursor.execute(sql, row)
            except driver.Error:
                continue


def row_by_row(place: Place, table: Table, rows: list[Row]) -> None:
    """A refused statement undoes itself alone on this database, so it needs no savepoint."""
    with _driver(place) as driver:
        sql = f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(table.columns))})"
        for row in rows:
            try:
                driver.execute(sql, row)
            except driver.IntegrityError:
                continue
            if isinstance(row[3], str):  # what the database would not refuse
                driver.execute(f"DELETE FROM {table.name} WHERE id = ?", row[:1])


def copy_tuples(place: Place, table: Table, rows: list[Row]) -> None:
    with _driver(place) as driver, driver.cursor() as cursor, cursor.copy(_copy(table)) as copy:
        write = copy.write_row
        for row in rows:
            write(row)


def copy_bytes(place: Place, table: Table, rows: list[Row]) -> None:
    """Of bytes that somebody has made before."""
    with _driver(place) as driver, driver.cursor() as cursor, cursor.copy(_copy(table)) as copy:
        for data in READY:
            copy.write(data)


#: The bytes for `copy_bytes`; made by `make_ready`, not at its cost.
READY: list[bytes] = []


def make_ready(rows: list[Row]) -> None:
    def cell(value: Any) -> str:
        text = "\\N" if value is None else str(value)
        return text if value is None else text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")

    lines = ["\t".join(map(cell, row)) + "\n" for row in rows]
    READY[:] = ["".join(lines[at : at + 500]).encode() for at in range(0, len(lines), 500)]


def _copy(table: Table) -> str:
    return f"COPY {table.name} ({', '.join(column.name for column in table.columns)}) FROM STDIN"


def savepoints_by_hand(place: Place, table: Table, rows: list[Row]) -> None:
    with _driver(place) as driver, driver.cursor() as cursor:
        sql = f"INSERT INTO {table.name} VALUES ({', '.join(['%s'] * len(table.columns))})"
        for row in rows:
            cursor.execute("SAVEPOINT one")
            try:
                cursor.execute(sql, row)
                cursor.execute("RELEASE SAVEPOINT one")
            except driver.Error:
                cursor.execute("ROLLBACK TO SAVEPOINT one")


class _Driven:
    """The driver's own connection, committed at the end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Any:
        return self._connection.connection.driver_connection

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            self._connection.connection.commit()
        self._connection.close()


def _driver(place: Place) -> _Driven:
    return _Driven(place.engine.connect())


# -- SQLAlchemy


def _records(table: Table, rows: list[Row]) -> Iterator[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return (dict(zip(names, row, strict=True)) for row in rows)


def core(place: Place, table: Table, rows: list[Row]) -> None:
    """The recipe of SQLAlchemy's documentation: `begin_nested` around each row."""
    sql = insert(table)
    with place.engine.begin() as connection:
        if not place.begins:
            connection.exec_driver_sql("BEGIN")
        for record in _records(table, rows):
            try:
                with connection.begin_nested():
                    _refuse_text(place, record)
                    connection.execute(sql, record)
            except (DBAPIError, StatementError, TypeError):
                pass


def orm(place: Place, table: Table, rows: list[Row]) -> None:
    """The same with a session and `add`."""
    mapped = MAPPED.get(table)
    if mapped is None:
        mapped = MAPPED[table] = type("Item", (), {})
        registry().map_imperatively(mapped, table)
    with Session(place.engine) as session:
        if not place.begins:
            session.connection().exec_driver_sql("BEGIN")
        for record in _records(table, rows):
            try:
                with session.begin_nested():
                    _refuse_text(place, record)
                    item = mapped()
                    for name, value in record.items():
                        setattr(item, name, value)
                    session.add(item)
            except (DBAPIError, StatementError, TypeError):
                pass
        session.commit()


MAPPED: dict[Table, Any] = {}


def _refuse_text(place: Place, record: dict[str, Any]) -> None:
    """What this database would not refuse."""
    if not place.text and isinstance(record.get("quantity"), str):
        raise TypeError


def bisected(place: Place, table: Table, rows: list[Row]) -> None:
    """`insertmanyvalues`, 1,000 rows at a time; a batch that fails is halved, down to the bad row."""
    with place.engine.begin() as connection:
        records = list(_records(table, rows))
        for at in range(0, len(records), 1000):
            _half(connection, table, records[at : at + 1000])


def _half(connection: Connection, table: Table, records: list[dict[str, Any]]) -> None:
    try:
        with connection.begin_nested():
            connection.execute(insert(table), records)
    except DBAPIError:
        if len(records) > 1:
            middle = len(records) // 2
            _half(connection, table, records[:middle])
            _half(connection, table, records[middle:])


# -- other tools


def sqlite_utils(place: Place, table: Table, rows: list[Row]) -> None:
    from sqlite_utils import Database

    with _driver(place) as driver:
        Database(driver)[table.name].insert_all(_records(table, rows))


def pgloader(place: Place, table: Table, rows: list[Row]) -> None:
    """The program, with its own reading of a CSV file; it commits as it goes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        file.write_text(_as_csv(rows))
        names = ", ".join(f"{column.name} [null if blanks]" for column in table.columns)
        plain = ", ".join(column.name for column in table.columns)
        url = place.url().replace("postgresql+psycopg", "postgresql")
        command = Path(folder) / "command"
        command.write_text(
            f"LOAD CSV FROM '{file}' ({names}) INTO {url}\n TARGET TABLE public.{table.name} ({plain})\n"
            " WITH fields terminated by ',', batch rows = 1000;\n"
        )
        done = subprocess.run(
            ["pgloader", "--root-dir", folder, command], capture_output=True, text=True, timeout=600, cwd=folder
        )
        if done.returncode or ("ERROR" in done.stdout and not place.count(table)):
            raise RuntimeError(done.stdout + done.stderr)


def _as_csv(rows: list[Row]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


SLOW = 4000


def rivals(place: Place) -> list[Rival]:
    """Who can load into this database; tools that are not installed are left out."""
    if isinstance(place, Server):
        found = [
            Rival("COPY of ready bytes", copy_bytes, clean=True),
            Rival("COPY from tuples", copy_tuples, clean=True, base=True),
            Rival(OURS, ours),
            Rival("insertmanyvalues, bisected", bisected, most=2 * SLOW),
            Rival("psycopg, savepoint per row", savepoints_by_hand, most=SLOW),
        ]
        if shutil.which("pgloader"):
            found.append(Rival("pgloader", pgloader, most=5 * SLOW))
    elif isinstance(place, MariaServer):
        found = [
            Rival("multi-row INSERT", multi_row, clean=True, base=True),
            Rival(OURS, ours),
            Rival("insertmanyvalues, bisected", bisected, most=2 * SLOW),
            Rival("PyMySQL, row by row", each_alone, most=SLOW),
        ]
    else:
        found = [
            Rival("executemany", executemany, clean=True, base=True),
            Rival(OURS, ours),
            Rival("sqlite3, row by row", row_by_row),
        ]
        if importlib.util.find_spec("sqlite_utils"):
            found.append(Rival("sqlite-utils insert_all", sqlite_utils, clean=True))
    return [
        *found,
        Rival("SQLAlchemy Core, savepoint per row", core, most=SLOW),
        Rival("SQLAlchemy ORM, savepoint per row", orm, most=SLOW),
    ]
