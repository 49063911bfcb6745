"""Values by the types of their columns: what Python or a file gives becomes what the driver takes, or a reason.

Whole columns at a time, since most of them need nothing: that is what keeps a load near the speed of the driver.
"""

from __future__ import annotations

import datetime
import math
import operator
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum as PythonEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Column, types
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import StatementError

from savepoints._databases import Fault
from savepoints._load.documents import TooExact, parsed, serializable
from savepoints._load.exact import Unreadable
from savepoints._load.reasons import Reason, reason

Parse = Callable[[Any], Any]
Refused = dict[int, Reason]

#: What a parser or a bind processor of SQLAlchemy raises for a value that it does not take.
_UNFIT = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, StatementError)


class TooLong(ValueError):
    """A text has more characters than its column takes."""


class Finer(ValueError):
    """A value is finer, or further away, than Python's class for it tells."""


class Zoned(ValueError):
    """A time has a zone, which would be dropped."""


class Conversion:
    """What happens to the values of one column.

    Args:
        column: The column.
        dialect: Whose bind processors are applied.
        from_text: The input is text without types, as CSV.
        served: The database itself reads text for any type, and refuses what does not fit: it is sent as it is.
        zones: The database can keep the offset of a time.
    """

    def __init__(
        self, column: Column[Any], dialect: Dialect, *, from_text: bool, served: bool, zones: bool = True
    ) -> None:
        self._column = column
        kind = column.type
        self._plain, self._parse = _rule(kind, dialect, from_text=from_text)
        if isinstance(kind, (types.DateTime, types.Time)) and not (zones and kind.timezone):
            self._plain, self._parse = frozenset({_NONE}), _without_zone(self._parse)
        decorated = isinstance(kind, (types.TypeDecorator, types.Enum))
        self._served = served and not decorated and (from_text or not isinstance(kind, types.JSON))
        self._length = None if served or decorated else _length(kind)
        self._processor = kind.dialect_impl(dialect).bind_processor(dialect)
        self._nulls = isinstance(kind, (types.TypeDecorator, types.JSON)) and not from_text
        self._reasons: dict[type, Reason] = {}  # they are the same for all rows
        if self._served:
            self._plain = self._plain | {str}

    def __call__(self, cells: Sequence[Any]) -> tuple[Sequence[Any], Refused]:
        """The cells as the driver takes them, and the reasons of those that do not fit."""
        kinds = set(map(type, cells))
        if self._processor is None:
            strange = kinds - self._plain
            if not strange:
                if str not in kinds or self._served or self._fits(cells, kinds):
                    return cells, {}
            elif str not in kinds - strange:  # most cells need nothing, and only the others are looked at
                return self._some(cells, [at for at, cell in enumerate(cells) if type(cell) in strange])
        try:
            return list(map(self._one, cells)), {}
        except _UNFIT:
            return self._some(cells, range(len(cells)))

    def _fits(self, cells: Sequence[Any], kinds: set[type]) -> bool:
        """Whether no text is too long, or cannot be encoded."""
        found = cells
        if len(kinds) > 1:
            found = list(filter(None, cells)) if kinds == {str, _NONE} else [one for one in cells if type(one) is str]
        if self._length is not None and max(map(len, found), default=0) > self._length:
            return False
        text = "".join(found)
        return text.isascii() or encodes(text)

    def _one(self, cell: Any) -> Any:
        if type(cell) is Unreadable:
            raise Finer
        if cell is None:
            return self._processor(None) if self._nulls and self._processor is not None else None
        if self._served and type(cell) is str:
            return cell
        if type(cell) not in self._plain:
            cell = self._parse(cell)
        if self._length is not None and len(cell) > self._length:
            raise TooLong
        if type(cell) is str:
            cell.encode()
        return cell if self._processor is None else self._processor(cell)

    def _some(self, cells: Sequence[Any], places: Sequence[int]) -> tuple[Sequence[Any], Refused]:
        found: dict[int, Any] = {}
        refused: Refused = {}
        for at in places:
            try:
                found[at] = self._one(cells[at])
            except _UNFIT as error:
                refused[at] = self._reasons.get(type(error)) or self._reason(error)
        if not found:  # rows that are refused are left out as a whole: the others' cells are as they were
            return cells, refused
        done = list(cells)
        for at, cell in found.items():
            done[at] = cell
        return done, refused

    def _reason(self, error: BaseException) -> Reason:
        name = self._column.name
        if isinstance(error, TooLong):
            found = reason(Fault.LENGTH, name, message=f"{name} is longer than {self._length} characters")
        elif isinstance(error, Zoned):
            found = reason(Fault.TYPE, name, message=f"the value of {name} has a time zone, which would be dropped")
        elif isinstance(error, Finer):
            found = reason(Fault.TYPE, name, message=f"Python has no value for what {name} holds")
        elif isinstance(error, TooExact):
            found = reason(Fault.TYPE, name, message=f"a number in {name} has more digits than a float keeps")
        elif isinstance(error, UnicodeError):
            found = reason(Fault.ENCODING, name)
        else:
            wanted = type(self._column.type).__name__
            found = reason(Fault.TYPE, name, message=f"the value of {name} does not fit its type {wanted}")
        return self._reasons.setdefault(type(error), found)


def encodes(text: str) -> bool:
    """Whether it is text that UTF-8 has bytes for, without half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _length(kind: types.TypeEngine[Any]) -> int | None:
    return kind.length if isinstance(kind, (types.String, types.LargeBinary)) else None


# -- one rule for each type: which classes pass as they are, and how others are read

_ANY: frozenset[type] = frozenset()
_NONE = type(None)


def _rule(kind: types.TypeEngine[Any], dialect: Dialect, *, from_text: bool) -> tuple[frozenset[type], Parse]:
    if isinstance(kind, types.Enum):
        return frozenset({_NONE}), _enum(kind)
    if isinstance(kind, types.Uuid):
        return frozenset({_NONE, UUID if kind.as_uuid else str}), _uuid(kind)
    if isinstance(kind, types.JSON):
        return frozenset({_NONE}), _document if from_text else serializable
    if isinstance(kind, types.Numeric) and not isinstance(kind, types.Float):
        exact = dialect.supports_native_decimal
        return frozenset({_NONE, int, Decimal} if exact else {_NONE, int, float}), _decimal if exact else _narrowed
    for cls, (plain, parse) in _RULES.items():
        if isinstance(kind, cls):
            return frozenset({_NONE, *plain}), parse
    return frozenset({_NONE}), _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _integer(value: Any) -> int:
    if isinstance(value, (float, Decimal)):
        whole = int(value)
        if whole != value:
            raise ValueError
        return whole
    return int(value) if isinstance(value, str) else operator.index(value)


def _float(value: Any) -> float:
    if isinstance(value, (bool, bytes)):
        raise TypeError
    found = float(value)
    if math.isinf(found) and "inf" not in str(value).lower():
        raise OverflowError
    return found


def _decimal(value: Any) -> Decimal | float:
    if isinstance(value, str):
        return Decimal(value)
    if isinstance(value, bool):
        raise TypeError
    return value if isinstance(value, float) else Decimal(operator.index(value))


def _narrowed(value: Any) -> float:
    """Where the driver knows no Decimal: only those that a float holds exactly, for nothing is altered in silence."""
    exact = Decimal(value) if isinstance(value, str) else _decimal(value) if not isinstance(value, Decimal) else value
    narrow = float(exact)
    if isinstance(exact, Decimal) and exact.is_finite() and Decimal(repr(narrow)) != exact:
        raise ValueError
    return narrow


_TRUE = frozenset({"t", "true", "y", "yes", "on", "1"})
_FALSE = frozenset({"f", "false", "n", "no", "off", "0"})


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise ValueError
    if value not in (0, 1):
        raise ValueError
    return bool(value)


def _date(value: Any) -> datetime.date:
    if isinstance(value, datetime.datetime):
        if value.time() != datetime.time():
            raise ValueError
        return value.date()
    return datetime.date.fromisoformat(value.strip())


def _datetime(value: Any) -> datetime.datetime:
    if isinstance(value, datetime.date):
        if getattr(value, "nanosecond", 0):  # of pandas
            raise Finer
        return value if isinstance(value, datetime.datetime) else datetime.datetime.combine(value, datetime.time())
    return datetime.datetime.fromisoformat(_in_microseconds(value))


def _time(value: Any) -> datetime.time:
    if isinstance(value, datetime.time):
        return value
    return datetime.time.fromisoformat(_in_microseconds(value))


_FINER = re.compile(r"[.,]\d{6}0*[1-9]")


def _in_microseconds(text: str) -> str:
    """The text of a moment, if it is none between two microseconds: Python's reader cuts further digits off."""
    if _FINER.search(text):
        raise Finer
    return text.strip()


def _without_zone(parse: Parse) -> Parse:
    def naive(value: Any) -> Any:
        found = parse(value)
        if found.tzinfo is not None:
            raise Zoned
        return found

    return naive


def _binary(value: Any) -> bytes:
    if isinstance(value, str):
        return bytes.fromhex(value.removeprefix("\\x"))
    if not isinstance(value, (bytearray, memoryview)):
        raise TypeError
    return bytes(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value.value) if isinstance(value, PythonEnum) else str(value)
    if isinstance(value, (int, float, Decimal, UUID, datetime.date, datetime.time)):
        return str(value)
    raise TypeError


def _document(text: str) -> Any:
    return serializable(parsed(text))


def _uuid(kind: types.Uuid[Any]) -> Parse:
    def parse(value: Any) -> UUID | str:
        found = value if isinstance(value, UUID) else UUID(value)
        return found if kind.as_uuid else str(found)

    return parse


def _enum(kind: types.Enum) -> Parse:
    def parse(value: Any) -> Any:
        cls = kind.enum_class
        if cls is None or not isinstance(value, str) or isinstance(value, PythonEnum) or value in kind.enums:
            return value
        return cls(value)  # a file may have the members' values

    return parse


_RULES: dict[type[types.TypeEngine[Any]], tuple[tuple[type, ...], Parse]] = {
    types.Boolean: ((bool,), _boolean),
    types.Integer: ((int,), _integer),
    types.Float: ((float, int), _float),
    types.DateTime: ((datetime.datetime,), _datetime),
    types.Date: ((datetime.date,), _date),
    types.Time: ((datetime.time,), _time),
    types.LargeBinary: ((bytes,), _binary),
    types.String: ((str,), _text),
}
