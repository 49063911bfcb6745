"""SQL as text: names, literals, and how it is sent. SQLAlchemy's own quoting doubles percent signs for some drivers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection, Dialect


def quote(name: str) -> str:
    """A name, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str | None, name: str) -> str:
    """A name with its schema, if it has one."""
    return quote(name) if schema is None else f"{quote(schema)}.{quote(name)}"


def table_name(table: Table) -> str:
    """The name of a table."""
    return qualified(table.schema, table.name)


def literal(text: str) -> str:
    """A text, whatever the server's setting for backslashes is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _doubles(dialect: Dialect) -> bool:
    return dialect.paramstyle in ("pyformat", "format")


def plain(compiled: str, dialect: Dialect) -> str:
    """What SQLAlchemy has compiled, without doubled percent signs."""
    return compiled.replace("%%", "%") if _doubles(dialect) else compiled


def send(connection: Connection, sql: str) -> Any:
    """Send a statement that has no parameters."""
    return connection.exec_driver_sql(sql.replace("%", "%%") if _doubles(connection.dialect) else sql)
