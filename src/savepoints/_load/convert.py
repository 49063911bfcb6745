"""Values by the types of their columns: what Python or a file gives becomes what the driver takes, or a reason.

Whole columns at a time, since most of them need nothing: that is what keeps a load near the speed of the driver.
"""

from __future__ import annotations

import datetime
import json
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
from savepoints._load.reasons import Reason, reason

Parse = Callable[[Any], Any]
Refused = dict[int, Reason]

#: What a parser or a bind processor of SQLAlchemy raises for a value that it does not take.
_UNFIT = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, StatementError)


class TooLong(ValueError):
    """A text has more characters than its column takes."""


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
        spans: A TIME of the database is a span: of more than a day, or less than nothing.
    """

    def __init__(
        self,
        column: Column[Any],
        dialect: Dialect,
        *,
        from_text: bool,
        served: bool,
        zones: bool = True,
        spans: bool = False,
    ) -> None:
        self._column = column
        kind = column.type
        self._processor = kind.dialect_impl(dialect).bind_processor(dialect)
        self._plain, self._parse = _rule(kind, dialect, from_text=from_text)
        if spans and isinstance(kind, types.Time):
            self._parse = _span
        self._zoneless = isinstance(kind, (types.DateTime, types.Time)) and not (zones and kind.timezone)
        if self._zoneless:
            self._plain, self._parse = frozenset({_NONE}), _without_zone(self._parse)
        self._read = _READ.get(self._parse)
        decorated = isinstance(kind, (types.TypeDecorator, types.Enum))
        self._served = served and not decorated and (from_text or not isinstance(kind, types.JSON))
        self._length = None if served or decorated else _length(kind)
        if isinstance(kind, types.String) and self._processor is not None and not decorated:
            self._plain, self._parse, self._length = (
                frozenset({_NONE}),
                _as_it_is,
                None,
            )  # as a SET: it knows what it takes
        self._nulls = isinstance(kind, (types.TypeDecorator, types.JSON)) and not from_text
        self._reasons: dict[type, Reason] = {}  # they are the same for all rows
        if self._served:
            self._plain = self._plain | {str}

    def __call__(self, cells: Sequence[Any]) -> tuple[Sequence[Any], Refused]:
        """The cells as the driver takes them, and the reasons of those that do not fit."""
        kinds = set(map(type, cells))
        if self._processor is None:
            strange = kinds - self._plain
            if self._zoneless and kinds <= _MOMENTS and not any([cell is not None and cell.tzinfo for cell in cells]):
                return cells, {}
            if strange == _TEXT and self._read is not None and kinds <= _TEXTS:
                return self._texts(self._read, cells, kinds)
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

    def _texts(self, read: Parse, cells: Sequence[Any], kinds: set[type]) -> tuple[Sequence[Any], Refused]:
        """Texts, and NULLs among them: read as fast as Python can, and one by one only where that fails."""
        text = "".join(cells if _NONE not in kinds else filter(None, cells))
        if not text.isascii() or "_" in text:
            return self._some(cells, range(len(cells)))
        some = read if _NONE not in kinds else lambda cell: None if cell is None else read(cell)
        done: list[Any] = []
        refused: Refused = {}
        rest = iter(cells)
        while len(done) < len(cells):
            try:
                done.extend(map(some, rest))  # what was read before an error stays, and the rest begins behind it
            except _UNFIT:
                at = len(done)
                found, why = self._some(cells[at : at + 1], (0,))
                done.append(found[0])
                refused |= {at + place: one for place, one in why.items()}
        return done, refused

    def _one(self, cell: Any) -> Any:
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
_TEXT = {str}
_TEXTS = {str, _NONE}
_MOMENTS = {datetime.datetime, _NONE}


def _rule(kind: types.TypeEngine[Any], dialect: Dialect, *, from_text: bool) -> tuple[frozenset[type], Parse]:
    if isinstance(kind, types.Enum):
        return frozenset({_NONE}), _enum(kind)
    if isinstance(kind, types.Uuid):
        return frozenset({_NONE, UUID if kind.as_uuid else str}), _uuid(kind)
    if isinstance(kind, types.JSON):
        return frozenset({_NONE}), json.loads if from_text else _as_it_is
    if isinstance(kind, types.Numeric) and not isinstance(kind, types.Float):
        exact = dialect.supports_native_decimal
        return frozenset({_NONE, int, Decimal} if exact else {_NONE, int, float}), _decimal if exact else _narrowed
    for cls, (plain, parse) in _RULES.items():
        if isinstance(kind, cls):
            return frozenset({_NONE, *plain}), parse
    if _holds_bytes(kind):
        return frozenset({_NONE, bytes}), _binary
    return frozenset({_NONE}), _as_it_is


def _holds_bytes(kind: types.TypeEngine[Any]) -> bool:
    """VARBINARY and others have no public class in common with LargeBinary."""
    try:
        return kind.python_type is bytes and not isinstance(kind, types.TypeDecorator)
    except NotImplementedError:
        return False


def _as_it_is(value: Any) -> Any:
    return value


def _digits(text: str) -> str:
    """Python reads more than databases do: 1_000, and the digits of other scripts."""
    if "_" in text or not text.isascii():
        raise ValueError
    return text


def _integer(value: Any) -> int:
    if isinstance(value, (float, Decimal)):
        whole = int(value)
        if whole != value:
            raise ValueError
        return whole
    return int(_digits(value)) if isinstance(value, str) else operator.index(value)


def _float(value: Any) -> float:
    if isinstance(value, (bool, bytes)):
        raise TypeError
    return float(_digits(value) if isinstance(value, str) else value)


def _decimal(value: Any) -> Decimal | float:
    if isinstance(value, str):
        return Decimal(_digits(value))
    if isinstance(value, bool):
        raise TypeError
    return value if isinstance(value, float) else Decimal(operator.index(value))


def _narrowed(value: Any) -> float:
    """Where the driver knows no Decimal: only those that a float holds exactly, for nothing is altered in silence."""
    exact = value if isinstance(value, Decimal) else _decimal(value)
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
        return value if isinstance(value, datetime.datetime) else datetime.datetime.combine(value, datetime.time())
    return datetime.datetime.fromisoformat(value.strip())


def _time(value: Any) -> datetime.time:
    return datetime.time.fromisoformat(value.strip())


_SPAN = re.compile(r"\s*(-?)(\d+):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?\s*")


def _span(value: Any) -> datetime.time | datetime.timedelta:
    if isinstance(value, datetime.timedelta):
        return value
    found = _SPAN.fullmatch(value)
    if found is None:
        return _time(value)
    sign, hours, minutes, seconds, rest = found.groups("0")
    if max(int(minutes), int(seconds)) > 59:
        raise ValueError
    micros = int(rest.ljust(6, "0"))
    span = datetime.timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds), microseconds=micros)
    return -span if sign == "-" else span


def _without_zone(parse: Parse) -> Parse:
    def naive(value: Any) -> Any:
        found = value if isinstance(value, (datetime.datetime, datetime.time)) else parse(value)
        if getattr(found, "tzinfo", None) is not None:
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

#: What reads text as fast as Python can; what it does not read, the rule looks at.
_READ: dict[Parse, Parse] = {_integer: int, _float: float, _decimal: Decimal, _date: datetime.date.fromisoformat}
