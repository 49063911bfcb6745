"""A column as the server has it: its type read into the rule for its values, and how it compares them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import types

from savepoints._databases import Fault
from savepoints._load.databases.mariadb.values import (
    Binary,
    Bits,
    Day,
    Moment,
    Number,
    OneOf,
    Only,
    Rule,
    Single,
    SomeOf,
    Span,
    Text,
    Unfit,
    Year,
)
from savepoints._load.reasons import Reason, reason

_TYPE = re.compile(r"(\w+)(?:\((\d+)(?:,(\d+))?\))?")
_MEMBER = re.compile(r"'((?:[^'\\]|''|\\.)*)'")
_ESCAPED = re.compile(r"''|\\(.)")
_MEANT = {"n": "\n", "r": "\r", "0": "\0"}

_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_WHOLE = frozenset({*_BITS, "year"})
_LONG = {"tiny": 2**8 - 1, "": 2**16 - 1, "medium": 2**24 - 1, "long": 2**32 - 1}
_OF_MANY = frozenset(f"{size}text" for size in _LONG)
_KINDS: dict[str, types.TypeEngine[Any]] = {
    **dict.fromkeys((*_WHOLE, "bit"), types.BigInteger()),
    "decimal": types.Numeric(),
    "float": types.Float(),
    "double": types.Float(),
    "date": types.Date(),
    "datetime": types.DateTime(),
    "timestamp": types.DateTime(),
    "time": types.Time(),
}
_GEOMETRIES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection",
)  # fmt: skip
_NONE = type(None)


class Column:
    """A column as the server has it.

    Attributes:
        name: Its name.
        type: Its type, as SQL.
        collation: Of text.
        not_null: A NULL is refused, and nobody puts another value in its place.
        unsigned: It takes no number below zero.
        size: The first number of its type: digits, characters, bytes or bits.
        digits: The second one, of digits behind the point.
        kind: SQLAlchemy's type of what it holds, where that is not for text and is known.
    """

    def __init__(self, name: str, type: str, collation: str | None, null: str, extra: str) -> None:
        self.name = name
        self.type = type
        self.collation = collation
        self.unsigned = "unsigned" in type
        found = _TYPE.match(type)
        self._of: str = "" if found is None else found[1]
        first, second = (None, None) if found is None else found.groups()[1:]
        self.size = None if first is None else int(first)
        self.digits = None if second is None else int(second)
        self._now_for_null = null == "NO" and self._of == "timestamp"
        self.not_null = null == "NO" and "auto_increment" not in extra and not self._now_for_null
        self.kind = _KINDS.get(self._of)
        make = _RULES.get(self._of)
        self._rule = None if make is None else make(self)

    @property
    def is_geometry(self) -> bool:
        """A point, or more of them."""
        return self._of in _GEOMETRIES

    @property
    def charset(self) -> str:
        """The character set of text."""
        return (self.collation or "").partition("_")[0]

    @property
    def members(self) -> list[str]:
        """Of an ENUM or a SET."""
        return [_ESCAPED.sub(_unescaped, one) for one in _MEMBER.findall(self.type)]

    @property
    def as_written(self) -> bool:
        """Whether a condition over the literal, as `compared` gives it, is the condition over the column."""
        if self._of in _WHOLE:
            return not self.unsigned and self._of != "year"
        return self._of in ("decimal", "date", "datetime", "varchar", *_OF_MANY)

    @property
    def equal_as_written(self) -> bool:
        """The same of whether it is equal to another."""
        padded = self._of == "char" and "nopad" not in (self.collation or "nopad")
        return self.as_written or padded or self._of in _WHOLE

    def compared(self, sql: str) -> str:
        """A literal in the form in which the column compares it."""
        if self._of == "decimal":
            return f"CAST({sql} AS {self.type.partition(' ')[0].upper()})"
        if self.collation:
            return f"CONVERT({sql} USING {self.charset}) COLLATE {self.collation}"
        cast = {"date": "DATE", "datetime": "DATETIME(6)", "timestamp": "DATETIME(6)", "time": "TIME(6)"}.get(self._of)
        return sql if cast is None else f"CAST({sql} AS {cast})"

    # -- values

    def kept(self, cells: list[Any]) -> tuple[list[Any], dict[int, Reason]]:
        """Values in the form in which they are sent, and why others are not: the column would alter them."""
        kinds = set(map(type, cells))
        if self._now_for_null and _NONE in kinds:
            why = reason(Fault.NOT_NULL, self.name, code="1048")
            return cells, {at: why for at, cell in enumerate(cells) if cell is None} | self._each(cells)[1]
        some = cells if _NONE not in kinds else [cell for cell in cells if cell is not None]
        kinds.discard(_NONE)
        if self._rule is None or not some or self._rule.all(some, kinds):
            return cells, {}
        return self._each(cells)

    def _each(self, cells: list[Any]) -> tuple[list[Any], dict[int, Reason]]:
        done, refused = list(cells), {}
        for at, cell in enumerate(cells):
            if cell is not None and self._rule is not None:
                try:
                    done[at] = self._rule.one(cell)
                except Unfit as unfit:
                    refused[at] = self._reason(unfit)
        return done, refused

    def _reason(self, unfit: Unfit) -> Reason:
        return reason(
            unfit.fault, self.name, code=unfit.code, message=f"the value of {self.name} {unfit.why} {self.type}"
        )


def _unescaped(found: re.Match[str]) -> str:
    letter = found[1]
    return "'" if letter is None else _MEANT.get(letter, letter)


def _whole(bits: int, column: Column) -> Rule:
    half = 1 << (bits - 1)
    return Number(0, 2 * half - 1, 0) if column.unsigned else Number(-half, half - 1, 0)


def _decimal(column: Column) -> Rule:
    scale = column.digits or 0
    most = 10 ** ((column.size or 10) - scale) - 1
    return Number(0 if column.unsigned else -most, most, scale)


def _long_text(most: int, column: Column) -> Rule:
    return Text(None, most, column.charset)


def _blob(most: int, column: Column) -> Rule:
    return Binary(most)


_RULES: dict[str, Callable[[Column], Rule]] = {
    **{name: partial(_whole, bits) for name, bits in _BITS.items()},
    "year": lambda column: Number(0, 99, 0) if column.size == 2 else Year(0, 2155, 0),
    "bit": lambda column: Bits(0, (1 << (column.size or 1)) - 1, 0),
    "decimal": _decimal,
    "float": lambda column: Single(None, None, column.digits),
    "double": lambda column: Number(None, None, column.digits),
    "date": lambda column: Day(),
    **dict.fromkeys(("datetime", "timestamp"), lambda column: Moment(column.size or 0)),
    "time": lambda column: Span(column.size or 0),
    **dict.fromkeys(("char", "varchar"), lambda column: Text(column.size, None, column.charset)),
    **{f"{size}text": partial(_long_text, most) for size, most in _LONG.items()},
    "binary": lambda column: Binary(column.size or 1, filled_up=True),
    "varbinary": lambda column: Binary(column.size or 1),
    **{f"{size}blob": partial(_blob, most) for size, most in _LONG.items()},
    "enum": lambda column: OneOf(column.members),
    "set": lambda column: SomeOf(column.members),
    **dict.fromkeys(("uuid", "inet4", "inet6"), lambda column: Only(str, bytes, UUID)),
    **dict.fromkeys(_GEOMETRIES, lambda column: Only(bytes)),
}
