"""The table that rows go into, and how the fields of an input become its columns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Column, MetaData, Table, inspect
from sqlalchemy.engine import Connection, Inspector
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from savepoints import errors

Columns = Sequence[str] | Mapping[str, str] | None


class Target:
    """A table, and the names that its columns go by: their own, their keys in the Table, and attributes of a class.

    Attributes:
        table: The table.
        mapper: Of a mapped class.
    """

    def __init__(self, table: Table, mapper: Mapper[Any] | None) -> None:
        self.table = table
        self.mapper = mapper
        named = [(name, column) for column in table.columns for name in (column.name, column.key)]
        for prop in () if mapper is None else mapper.column_attrs:
            column = prop.columns[0]
            if isinstance(column, Column) and column.table is mapper.local_table:  # type: ignore[union-attr]
                named.append((prop.key, table.columns[column.key]))
        self._by_name: dict[str, list[Column[Any]]] = {}
        for name, column in dict.fromkeys(named):
            self._by_name.setdefault(name, []).append(column)

    @property
    def name(self) -> str:
        """The table's name, with its schema."""
        return self.table.fullname

    def column(self, name: str) -> Column[Any] | None:
        """The column that goes by that name.

        Raises:
            BadInput: There is more than one: the name of one is the key, or the attribute, of another.
        """
        found = self._by_name.get(name, [])
        if len(found) > 1:
            told = " or ".join(repr(column.name) for column in found)
            raise errors.BadInput(
                f"{name!r} may be column {told} of table {self.name}", hint="use another of the column's names"
            )
        return found[0] if found else None

    def near(self, name: str) -> str:
        """Which names there are near a wrong one, for messages."""
        return near(name, self._by_name)

    def required(self) -> Iterable[Column[Any]]:
        """Columns that nobody fills if the input does not."""
        return [column for column in self.table.columns if not column.nullable and not filled(column)]


def near(name: str, names: Iterable[str]) -> str:
    """Names like a wrong one; all of them where none is alike and they are few."""
    found = sorted(names)
    alike = difflib.get_close_matches(name, found, n=3, cutoff=0.5)
    return f"near: {', '.join(alike)}" if alike else f"there are: {', '.join(found[:20])}"


def filled(column: Column[Any]) -> bool:
    """Whether Python or the database gives a value to a column that the input leaves out."""
    return by_database(column) or column.default is not None


def by_database(column: Column[Any]) -> bool:
    """Whether the database gives it."""
    return (
        column.server_default is not None
        or column.identity is not None
        or column.computed is not None
        or column is column.table.autoincrement_column
    )


def by_expression(default: Any) -> bool:
    """Whether SQLAlchemy gives a ``default``, or ``onupdate``, by SQL, which is to be part of the statement."""
    return default is not None and not (default.is_scalar or default.is_callable)


def target_of(connection: Connection, found: Any) -> Target:
    """The table that was meant, which must exist.

    Raises:
        BadInput: There is no such table.
        WrongArgument: Neither a table, nor a mapped class, nor a name.
    """
    if isinstance(found, str):
        return Target(_reflected(connection, found), None)
    table, mapper = (found, None) if isinstance(found, Table) else _mapped(found)
    there = translated(connection, table)
    if not inspect(connection).has_table(there.name, schema=there.schema):
        raise missing(connection, there.name, there.schema)
    return Target(there, mapper)


def translated(connection: Connection, table: Table) -> Table:
    """The table in the schema that ``schema_translate_map`` means: what goes past SQLAlchemy is not translated."""
    names = connection.get_execution_options().get("schema_translate_map") or {}
    schema = names.get(table.schema, table.schema)
    return table if schema == table.schema else table.to_metadata(MetaData(), schema=schema)  # type: ignore[arg-type]


def _mapped(found: Any) -> tuple[Table, Mapper[Any]]:
    try:
        mapper = inspect(found)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper) or not isinstance(mapper.local_table, Table):
        raise errors.WrongArgument(
            f"rows are loaded into a table, not into {errors.kind_of(found)}",
            hint="give a Table, a mapped class, or the name of a table",
        )
    if mapper.local_table is not mapper.persist_selectable:
        raise errors.WrongArgument(
            f"{mapper.class_.__name__} is stored in more than one table", hint="load its tables one after the other"
        )
    return mapper.local_table, mapper


def _reflected(connection: Connection, name: str) -> Table:
    schema, _, table = name.rpartition(".")
    looked = inspect(connection)
    if not table:  # some databases would only say that it is no name
        raise missing(connection, name, None)
    if looked.has_table(name):
        return Table(_spelled(looked, name, None), MetaData(), autoload_with=connection)
    if schema and looked.has_table(table, schema=schema):
        return Table(_spelled(looked, table, schema), MetaData(), schema=schema, autoload_with=connection)
    raise missing(connection, table if schema else name, schema or None)


def _spelled(looked: Inspector, name: str, schema: str | None) -> str:
    """The name of a table that is there, in its own letters: to some databases they are the same in others."""
    names = (*looked.get_table_names(schema=schema), *looked.get_view_names(schema=schema))
    alike = [one for one in names if one.lower() == name.lower()]
    return alike[0] if alike and name not in alike else name


def missing(connection: Connection, name: str, schema: str | None) -> errors.BadInput:
    """The error for a table that is not there."""
    try:
        names = inspect(connection).get_table_names(schema=schema)
    except Exception:  # no such schema: some databases say so, others give no names
        names = []
    told = f"; {near(name, names)}" if names else ""
    where = f" in schema {schema}" if schema else ""
    return errors.BadInput(f"there is no table {name!r}{where}{told}", hint="create it first, or correct its name")


class Wanted:
    """Which fields of the input are taken, and into which columns.

    Args:
        target: The table.
        columns: What the caller said: names of columns in order, or names of fields with those of columns; or nothing.
    """

    def __init__(self, target: Target, columns: Columns) -> None:
        self._target = target
        self._renamed = cast("dict[str, str] | None", dict(columns) if isinstance(columns, Mapping) else None)
        self.named = tuple(columns) if columns is not None and self._renamed is None else None
        #: Whether nobody has said which fields are taken.
        self.all = columns is None
        self.of_all(self.named or self._renamed or ())

    def of_all(self, names: Iterable[str]) -> list[Column[Any] | None]:
        """The columns of fields, each for one.

        Raises:
            BadInput: There is no such column, or it takes no values, or two fields are for the same.
        """
        found: list[Column[Any] | None] = []
        taken: dict[Column[Any], str] = {}
        for name in names:
            column = self.of(name)
            found.append(column)
            if column in taken:
                raise errors.BadInput(
                    f"fields {taken[column]!r} and {name!r} are both for column {column.name!r}",
                    hint="tell by `columns=` which one to take",
                )
            if column is not None:
                taken[column] = name
        return found

    def of(self, name: str) -> Column[Any] | None:
        """The column of a field; None where the field is left out.

        Raises:
            BadInput: There is no such column, or it takes no values; or it is what a `csv.DictReader` calls the cells
                beyond its header.
        """
        if name is None:
            raise errors.BadInput("the row has more cells than there are names")
        if self._renamed is not None:
            name = self._renamed.get(name, "")
        if not name or (self.named is not None and name not in self.named):
            return None
        return self._known(name)

    def _known(self, name: str) -> Column[Any]:
        if not isinstance(name, str):
            raise errors.BadInput(
                f"a field is named by {errors.kind_of(name)}, not by text", hint="tell by `columns=` what its column is"
            )
        column = self._target.column(name)
        if column is None:
            raise errors.BadInput(
                f"table {self._target.name} has no column {name!r}; {self._target.near(name)}",
                hint="rename the field, or leave it out by `columns=`",
            )
        if column.computed is not None or (column.identity is not None and column.identity.always):
            raise errors.BadInput(
                f"column {name!r} of table {self._target.name} is computed by the database and takes no values",
                hint="leave it out by `columns=`",
            )
        return column

    def of_header(self, names: Sequence[str]) -> list[Column[Any] | None]:
        """The columns of fields that one header names.

        Raises:
            BadInput: It names a column twice, an unknown one, or leaves out one that nobody fills.
        """
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise errors.BadInput(f"the header names {', '.join(map(repr, twice))} twice", hint="rename one of them")
        found = self.of_all(names)
        for name in (*(self.named or ()), *(self._renamed or ())):
            if name not in names:
                raise errors.BadInput(
                    f"the input has no field {name!r}; {near(name, names)}", hint="correct `columns=`"
                )
        taken = {column.name for column in found if column is not None}
        missing = [column.name for column in self._target.required() if column.name not in taken]
        if missing and self.named is None:
            raise errors.BadInput(
                f"the input has no {', '.join(map(repr, missing))} for table {self._target.name}: it must not be null",
                hint="add the fields, or tell by `columns=` which ones there are, if a trigger fills the rest",
            )
        return found

    def of_tuples(self, width: int) -> list[Column[Any]]:
        """The columns of rows without names: those that were named, or all that take values, in the table's order."""
        if self.named is not None:
            return [self._known(name) for name in self.named]
        settable = [column for column in self._target.table.columns if column.computed is None]
        if width < len(settable):  # without the keys that the database counts
            counted = [column for column in settable if not by_database(column)]
            settable = counted if width == len(counted) else settable
        return list(settable)
