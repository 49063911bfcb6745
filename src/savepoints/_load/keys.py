"""The keys that the database keeps unique, and the one by which a load knows duplicates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Table, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SAWarning

from savepoints import errors
from savepoints._load.fields import Target

#: What an index is said to have that is over some rows, or a part of a text, only.
_PARTIAL = ("_where", "_length")


def unique_keys(connection: Connection, table: Table) -> list[tuple[str, ...]]:
    """The columns of the primary key, and of each unique constraint and index, as the database has them."""
    looked = inspect(connection)
    name, schema = table.name, table.schema
    with warnings.catch_warnings():  # of indexes over expressions, which are no keys
        warnings.simplefilter("ignore", SAWarning)
        primary: Any = looked.get_pk_constraint(name, schema=schema)
        constraints: list[Any] = looked.get_unique_constraints(name, schema=schema)
        indexes: list[Any] = looked.get_indexes(name, schema=schema, include_auto_indexes=True)
    partial = {one["name"] for one in indexes if _is_partial(one)}
    found = [one for one in (*constraints, *indexes) if one.get("unique", True) and one["name"] not in partial]
    keys = [primary["constrained_columns"], *(one["column_names"] for one in found)]
    return [*dict.fromkeys(tuple(names) for names in keys if names and None not in names)]


def _is_partial(index: Any) -> bool:
    options = index.get("dialect_options") or {}
    return any(name.endswith(_PARTIAL) and options[name] is not None for name in options)


def key_of(connection: Connection, target: Target, names: Sequence[str], on_conflict: str) -> tuple[Column[Any], ...]:
    """The columns by which duplicates are known, in the order of the database's key; none where any key counts.

    Raises:
        BadInput: They are no columns, or no key that is unique: then a row could be the duplicate of many, and the
            database would not say so.
    """
    if on_conflict == "reject":
        if names:
            raise errors.BadInput(
                "`key=` tells which duplicates are skipped or update a row, and here they are rejected",
                hint='leave it out, or give on_conflict="skip" or "update"',
            )
        return ()
    found = [_column(target, name) for name in names]
    if not found and on_conflict == "update":
        found = list(target.table.primary_key.columns)
        if not found:
            raise errors.BadInput(
                f"table {target.name} has no primary key to know duplicates by", hint="name columns by `key=`"
            )
    return _as_the_database_has_it(connection, target, found) if found else ()


def _column(target: Target, name: str) -> Column[Any]:
    column = target.column(name)
    if column is None:
        raise errors.BadInput(f"`key=` names {name!r}; {target.near(name)}", hint="give names of columns")
    return column


def _as_the_database_has_it(
    connection: Connection, target: Target, columns: Sequence[Column[Any]]
) -> tuple[Column[Any], ...]:
    by_name = {column.name: column for column in columns}
    keys = unique_keys(connection, target.table)
    same = next((key for key in keys if set(key) == by_name.keys()), None)
    if same is None:
        told = ", ".join(f"({', '.join(key)})" for key in keys) or "none"
        raise errors.BadInput(
            f"({', '.join(by_name)}) is not unique in table {target.name}; its unique keys: {told}",
            hint="give one of these by `key=`, or make a unique index",
        )
    return tuple(by_name[name] for name in same)
