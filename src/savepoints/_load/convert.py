"""Values by the types of their columns: what Python or a file gives becomes what the driver takes, or a reason.

Whole columns at a time, since most of them need nothing: that is what keeps a load near the speed of the driver.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum as PythonEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Column, types
from sqlalchemy.engine import Dialect

from savepoints._databases import Fault
from savepoints._load import numbers
from savepoints._load.reasons import Reason, reason

Parse = Callable[[Any], Any]
Refused = dict[int, Reason]


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
        nans: The database can keep a float that is no number.
    """

    def __init__(
        self,
        column: Column[Any],
        dialect: Dialect,
        *,
        from_text: bool,
        served: bool,
        zones: bool = True,
        nans: bool = True,
    ) -> None:
        self._column = column
        self._dialect = dialect
        kind, self._decorate, self._processor = _impl(column.type, dialect, served=served)
        self._digits = numbers.digits_of(kind)
        self._plain, self._parse = _rule(kind, dialect, from_text=from_text, nans=nans)
        if isinstance(kind, (types.DateTime, types.Time)) and not (zones and kind.timezone):
            self._plain, self._parse = frozenset({_NONE}), _without_zone(self._parse)
        decorated = self._decorate is not None or isinstance(kind, (types.TypeDecorator, types.Enum))
        read_here = decorated or isinstance(kind, types.LargeBinary)
        self._served = served and not read_here and (from_text or not isinstance(kind, types.JSON))
        self._length = None if served or isinstance(kind, types.Enum) else _length(kind)
        self._nulls = isinstance(column.type, (types.TypeDecorator, types.JSON)) and not from_text
        self._reasons: dict[type, Reason] = {}  # they are the same for all rows
        #: Whether all cells of a class are as the column keeps them; of other classes nobody has to ask.
        self._looks: dict[type, Callable[[Sequence[Any], set[type]], bool]] = {str: self._fits}
        if isinstance(kind, types.Float):
            self._looks |= {int: numbers.are_whole_floats} | ({} if nans else {float: numbers.are_numbers})
        self._as_given = self._plain
        if self._served:
            self._plain = self._plain | {str}
            self._looks.pop(str)
            if self._digits is not None:
                self._more_digits = self._digits.looked_for()
                self._looks[str] = self._have_few_digits
        self._as_they_are = self._plain - (self._looks.keys() - {str})

    def __call__(self, cells: Sequence[Any]) -> tuple[Sequence[Any], Refused]:
        """The cells as the driver takes them, and the reasons of those that do not fit."""
        kinds = set(map(type, cells))
        if self._processor is None and self._decorate is None:
            strange = kinds - self._plain
            looked = self._looks.keys() & kinds - strange
            if all(self._looks[kind](cells, kinds) for kind in looked):
                if not strange:
                    return cells, {}
                # most cells need nothing, and only the others are looked at
                return self._some(cells, [at for at, cell in enumerate(cells) if type(cell) in strange])
        try:
            return list(map(self._one, cells)), {}
        except MemoryError:
            raise
        except Exception:
            return self._some(cells, range(len(cells)))

    def values(self, cells: Sequence[Any]) -> tuple[Sequence[Any], Refused]:
        """The cells in the type of the column, before the driver's form of it; what does not fit is as it was."""
        if self._decorate is not None:
            return cells, {}
        found, unfit = list(cells), {}
        for at, cell in enumerate(cells):
            if cell is not None and type(cell) not in self._as_given:
                try:
                    found[at] = self._parse(cell)
                except Exception as error:
                    unfit[at] = self._reasons.get(type(error)) or self._reason(error)
        return found, unfit

    def _fits(self, cells: Sequence[Any], kinds: set[type]) -> bool:
        """Whether no text is too long, or cannot be encoded."""
        found = _texts(cells, kinds)
        if self._length is not None and max(map(len, found), default=0) > self._length:
            return False
        text = "".join(found)
        return text.isascii() or encodes(text)

    def _have_few_digits(self, cells: Sequence[Any], kinds: set[type]) -> bool:
        """Whether no text of a number needs a closer look: the database would round it."""
        return not self._more_digits.search(" ".join(_texts(cells, kinds)))

    def _one(self, cell: Any) -> Any:
        if cell is None and not self._nulls:
            return None
        if self._decorate is not None:
            cell = self._decorate(cell, self._dialect)
        if cell is None:
            return self._processor(None) if self._nulls and self._processor is not None else None
        if self._served and type(cell) is str:
            return self._as_served(cell)
        if type(cell) not in self._as_they_are:
            cell = self._parse(cell)
        if self._length is not None and len(cell) > self._length:
            raise TooLong
        if type(cell) is str:
            cell.encode()
        return cell if self._processor is None else self._processor(cell)

    def _as_served(self, cell: str) -> str:
        """A text that the database will read, and refuse, but for digits that it would leave out in silence."""
        if self._digits is not None and self._more_digits.search(cell):
            try:
                number = numbers.exact(cell)
            except ArithmeticError:  # which the database will say
                return cell
            if not self._digits.keep(number):
                raise numbers.Rounded
        return cell

    def _some(self, cells: Sequence[Any], places: Sequence[int]) -> tuple[Sequence[Any], Refused]:
        found: dict[int, Any] = {}
        refused: Refused = {}
        for at in places:
            try:
                found[at] = self._one(cells[at])
            except MemoryError:
                raise
            except Exception as error:  # also of a type of the application's own: the value is the row's
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
        elif isinstance(error, numbers.Rounded):
            found = reason(Fault.TYPE, name, message=f"{name} would not keep all digits of the value")
        else:
            wanted = type(self._column.type).__name__
            found = reason(Fault.TYPE, name, message=f"the value of {name} does not fit its type {wanted}")
        return self._reasons.setdefault(type(error), found)


def _texts(cells: Sequence[Any], kinds: set[type]) -> Sequence[str]:
    """The texts of a column."""
    if len(kinds) == 1:
        return cells
    return list(filter(None, cells)) if kinds == {str, _NONE} else [one for one in cells if type(one) is str]


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

_NONE = type(None)

Decorate = Callable[[Any, Dialect], Any]


def _impl(
    kind: types.TypeEngine[Any], dialect: Dialect, *, served: bool
) -> tuple[types.TypeEngine[Any], Decorate | None, Parse | None]:
    """The type that the database has, what a decorated type does before, and the bind processor.

    What comes out of a decorated type is looked at as values of its inner type are, unless the database does so.
    """
    impl = kind.dialect_impl(dialect)
    processor: Parse | None = impl.bind_processor(dialect)
    if isinstance(kind, types.Float) and not isinstance(impl, types.Float):
        impl = kind  # SQLAlchemy 2.0 has one class for both sorts of numbers on PostgreSQL
    if not isinstance(impl, types.TypeDecorator):
        # SQLAlchemy's makes a float of any number: ours looks whether it is the same
        own = isinstance(impl, types.Numeric) and type(impl).bind_processor is types.Numeric.bind_processor
        return impl, None, None if own else processor
    cls = type(impl)
    if served or cls.bind_processor is not types.TypeDecorator.bind_processor:
        return impl, None, processor
    inner, decorate, processor = _impl(impl.impl_instance, dialect, served=served)
    if decorate is not None:  # one in another
        return impl, None, impl.bind_processor(dialect)
    return inner, impl.process_bind_param, processor


def _rule(
    kind: types.TypeEngine[Any], dialect: Dialect, *, from_text: bool, nans: bool
) -> tuple[frozenset[type], Parse]:
    if isinstance(kind, types.Enum):
        return frozenset({_NONE}), _enum(kind)
    if isinstance(kind, types.Uuid):
        return frozenset({_NONE, UUID} if kind.as_uuid else {_NONE}), _uuid(kind)
    if isinstance(kind, types.JSON):
        return frozenset({_NONE}), json.loads if from_text else _as_it_is
    if isinstance(kind, types.Float):
        return frozenset({_NONE, float, int}), numbers.floating(nans=nans)
    if isinstance(kind, types.Numeric):
        native = dialect.supports_native_decimal
        digits = numbers.digits_of(kind)
        exact = {_NONE, int, Decimal} if native and nans and digits is None else {_NONE}
        return frozenset(exact), numbers.decimal(digits, native=native, nans=nans)
    for cls, (plain, parse) in _RULES.items():
        if isinstance(kind, cls):
            return frozenset({_NONE, *plain}), parse
    return frozenset({_NONE}), _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


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


def _without_zone(parse: Parse) -> Parse:
    def naive(value: Any) -> Any:
        found = value if isinstance(value, (datetime.datetime, datetime.time)) else parse(value)
        if found.tzinfo is not None:
            raise Zoned
        return found

    return naive


def _binary(value: Any) -> bytes:
    if isinstance(value, str):
        if value[:2] != "\\x":
            raise ValueError
        return bytes.fromhex(value[2:])
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
    cls, stored = kind.enum_class, frozenset(kind.enums)

    def parse(value: Any) -> Any:
        if isinstance(value, str) and not isinstance(value, PythonEnum):
            if value in stored:
                return value
            if cls is not None:
                return cls(value)  # a file may have the members' values
        if cls is None or not isinstance(value, cls):
            raise ValueError
        return value

    return parse


_DURATION = re.compile(r"(?:(-?[0-9]+) days?,?)?(?: ?([-+]?)([0-9]+):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,6})?))?")


def _duration(value: Any) -> datetime.timedelta:
    """Also as PostgreSQL and Python write one: 1 day 02:03:04.5."""
    if isinstance(value, datetime.timedelta):
        return value
    found = _DURATION.fullmatch(value.strip())
    if found is None or not value.strip():
        raise ValueError
    days, sign, *time = found.groups(default="0")
    hours, minutes, seconds = int(time[0]), int(time[1]), Decimal(time[2])
    spent = datetime.timedelta(hours=hours, minutes=minutes, microseconds=int(seconds.scaleb(6)))
    return datetime.timedelta(days=int(days)) + (-spent if sign == "-" else spent)


_RULES: dict[type[types.TypeEngine[Any]], tuple[tuple[type, ...], Parse]] = {
    types.Boolean: ((bool,), _boolean),
    types.Integer: ((int,), numbers.whole),
    types.DateTime: ((datetime.datetime,), _datetime),
    types.Date: ((datetime.date,), _date),
    types.Time: ((datetime.time,), _time),
    types.LargeBinary: ((bytes,), _binary),
    types.String: ((str,), _text),
    types.Interval: ((datetime.timedelta,), _duration),
}
