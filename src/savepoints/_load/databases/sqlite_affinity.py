"""What a column of SQLite's makes of a value that is not of its sort ("Datatypes In SQLite", column affinity).

A text that looks like a number becomes one in most columns, a whole number a float in REAL, and NaN is NULL in all. The
types of SQLAlchemy's columns have most values so that there is nothing to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import isnan
from typing import Any

from sqlalchemy import Column, types

from savepoints._databases import Fault
from savepoints._load.intake import Batch
from savepoints._load.reasons import Reason, reason

_NUMBER = re.compile(r"[ \t\n\v\f\r]*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?[ \t\n\v\f\r]*")

#: By a part of the declared type; the first that is found counts.
_AFFINITIES = {"INT": "INTEGER", "CHAR": "TEXT", "CLOB": "TEXT", "TEXT": "TEXT", "BLOB": "BLOB", "REAL": "REAL"}
_AFFINITIES |= {"FLOA": "REAL", "DOUB": "REAL"}

#: The classes of values that a column changes, where they are not its own.
_CHANGED: dict[str, frozenset[type]] = {
    "INTEGER": frozenset({str}),
    "NUMERIC": frozenset({str}),
    "REAL": frozenset({str, int}),
    "TEXT": frozenset({float}),
    "BLOB": frozenset(),
}

#: What values of SQLAlchemy's types are when they have been converted; those of others may be anything.
_CLASSES: tuple[tuple[type[types.TypeEngine[Any]], frozenset[type]], ...] = (
    (types.Integer, frozenset({int})),
    (types.Boolean, frozenset({int})),
    (types.Float, frozenset({float})),  # NaN is looked at by `numbers`
    (types.Numeric, frozenset({float})),
    (types.Date, frozenset()),
    (types.DateTime, frozenset()),
    (types.Time, frozenset()),
    (types.LargeBinary, frozenset()),
    (types.String, frozenset({str})),
    (types.Uuid, frozenset({str})),
)
_ANY = frozenset({str, int, float})


def affinity_of(declared: str) -> str:
    """The affinity of a column that is declared so, if its table is not STRICT."""
    upper = declared.upper()
    return next((to for part, to in _AFFINITIES.items() if part in upper), "NUMERIC" if upper else "BLOB")


class Affinities:
    """Finds the values that a table's columns would alter; given how each column is declared."""

    def __init__(self, declared: Mapping[str, str]) -> None:
        self._of = {name: affinity_of(kind) for name, kind in declared.items()}

    def altered(self, batch: Batch) -> Iterator[tuple[int, Reason]]:
        """The index of each row with such a value, and why."""
        for at, column in enumerate(batch.columns):
            affinity = self._of.get(column.name, "BLOB")
            classes = _classes(column)
            looked = classes & (_CHANGED[affinity] | ({float} if classes is _ANY else set()))
            if not looked:
                continue
            as_number = isinstance(column.type, types.JSON)
            message = f"{column.name} would not keep the value as it is: its affinity is {affinity}"
            why = reason(Fault.TYPE, column.name, message=message)
            for index, cell in enumerate(batch.column(at)):
                if type(cell) in looked and not _is_kept(cell, affinity, as_number=as_number):
                    yield index, why


def _classes(column: Column[Any]) -> frozenset[type]:
    return next((classes for kind, classes in _CLASSES if isinstance(column.type, kind)), _ANY)


def _is_kept(cell: Any, affinity: str, *, as_number: bool) -> bool:
    if type(cell) is float:
        return not isnan(cell) and (affinity != "TEXT" or float(f"{cell:.15g}") == cell)
    if type(cell) is int:
        return affinity != "REAL" or float(cell) == cell
    return affinity in ("TEXT", "BLOB") or not _NUMBER.fullmatch(cell) or _is_same(cell, affinity, as_number=as_number)


def _is_same(text: str, affinity: str, *, as_number: bool) -> bool:
    """Whether the number that a text becomes is written as the text was, or is at least the same number."""
    exact = Decimal(text)
    number: int | float = float(text)
    if affinity != "REAL" and exact == exact.to_integral_value() and abs(exact) < 2**63:
        number = int(exact)
    return Decimal(repr(number)) == exact if as_number else repr(number) == text
