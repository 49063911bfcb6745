"""What has to hold while rows are loaded: an engine with transactions, and a mode in which nothing is altered.

Sources: "SQL_MODE", "Transactional Storage Engines" and "AUTO_INCREMENT" of MariaDB's manual.
"""

from __future__ import annotations

import re
from types import TracebackType

from sqlalchemy.engine import Connection

from savepoints import errors
from savepoints._core import past
from savepoints._load.algorithm import Job

#: Without the first a value that does not fit is changed until it does; without the second a key of 0 is.
MODES = ("STRICT_TRANS_TABLES", "NO_AUTO_VALUE_ON_ZERO")

_ENGINE = re.compile(r"^\) ENGINE=(\w+)", re.MULTILINE)


def prepare(job: Job, table: str) -> list[str]:
    """Refuse a table that could not be loaded so that it can be undone, and have values checked until the load ends.

    Args:
        job: The load; at its end the connection gets back its mode.
        table: The table's name, as SQL.

    Returns:
        The parts of the mode that the connection had.

    Raises:
        NotSupported: The table's engine has no transactions.
    """
    engine = _engine(job.connection, table)
    if engine is not None:
        raise errors.NotSupported(
            f"the engine of table {job.table.fullname}, {engine}, has no transactions: a load could not be undone",
            hint="move it to one that has them, as ALTER TABLE ... ENGINE=InnoDB does",
        )
    mode = str(job.connection.exec_driver_sql("SELECT @@sql_mode").scalar())
    parts = mode.split(",")
    missing = [name for name in MODES if name not in parts]
    if missing:
        job.at_end.push(_GivenBack(job.connection, mode))
        job.connection.exec_driver_sql(f"SET sql_mode = '{','.join([*filter(None, [mode]), *missing])}'")
        job.report.why.append(f"sql_mode has {' and '.join(missing)} for the time of the load: nothing may be altered")
    return parts


def _engine(connection: Connection, table: str) -> str | None:
    """The engine of a table, if it has no transactions."""
    definition = connection.exec_driver_sql(f"SHOW CREATE TABLE {table}".replace("%", "%%")).first()
    found = None if definition is None else _ENGINE.search(str(definition[1]))  # of a view it is another statement
    if found is None:
        return None
    sql = "SELECT transactions FROM information_schema.engines WHERE engine = %s"
    return None if connection.exec_driver_sql(sql, (found[1],)).scalar() == "YES" else found[1]


class _GivenBack:
    """Puts the mode back on the driver's connection, which outlives its transaction."""

    def __init__(self, connection: Connection, mode: str) -> None:
        self._connection = connection
        self._mode = mode

    def __call__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        connection = self._connection
        if connection.invalidated or connection.closed:
            return
        try:
            past.send(connection.dialect, connection.connection, f"SET sql_mode = '{self._mode}'")
        except Exception as failed:
            connection.invalidate(failed)  # nobody else may get it as it is
            if error is None:
                raise
