"""A table for rejects: they live and die with the transaction that the rows were loaded in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, inspect
from sqlalchemy.engine import Connection

from savepoints import errors
from savepoints._load.exact import plain, reason_fields
from savepoints._load.fields import missing, translated
from savepoints._load.reasons import Reject

_COLUMNS = {
    "number": BigInteger,
    "line": BigInteger,
    "kind": Text,
    "column_name": Text,
    "constraint_name": Text,
    "code": Text,
    "message": Text,
    "row": Text,
    "reasons": Text,
}


def rejects_table(metadata: MetaData, name: str = "rejects", **options: Any) -> Table:
    """A table that ``rejects=`` takes; create it as any other.

    Args:
        metadata: What it belongs to.
        name: What it is called.
        options: Those of SQLAlchemy's Table, as ``schema``.
    """
    return Table(name, metadata, *(Column(column, kind) for column, kind in _COLUMNS.items()), **options)


def _record(reject: Reject) -> dict[str, Any]:
    return {
        "number": reject.number,
        "line": reject.line,
        "kind": reject.kind,
        "column_name": reject.column,
        "constraint_name": reject.constraint,
        "code": reject.code,
        "message": reject.message,
        "row": json.dumps(plain(reject.named)),
        "reasons": json.dumps([reason_fields(one) for one in reject.reasons]),
    }


def check_table(connection: Connection, table: Table) -> None:
    """Whether rejects can be put into a table.

    Raises:
        BadInput: It is not there, or has no column of a record of rejects at all.
    """
    if not any(name in table.columns for name in _COLUMNS):
        raise errors.BadInput(f"table {table.fullname} has no column for rejects", hint="make it by `rejects_table`")
    there = translated(connection, table)
    if not inspect(connection).has_table(there.name, schema=there.schema):
        raise missing(connection, there.name, there.schema)


def insert_rejects(connection: Connection, table: Table, rejects: Iterable[Reject]) -> None:
    """Insert them; columns that the table does not have are left out."""
    names = [name for name in _COLUMNS if name in table.columns]
    records = iter(rejects)
    while some := list(islice(records, 500)):
        connection.execute(table.insert(), [{name: _record(one)[name] for name in names} for one in some])
