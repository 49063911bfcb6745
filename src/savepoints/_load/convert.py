"""Values by the types of their columns: what Python or a file gives becomes what the driver takes, or a reason.

Whole columns at a time, since most of them need nothing: that is what keeps a load near the speed of the driver.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import Column, types
from sqlalchemy.engine import Dialect

from savepoints._databases import Fault, capabilities
from savepoints._load import moments, numbers
from savepoints._load.documents import parsed, serializable
from savepoints._load.exact import Unreadable
from savepoints._load.reasons import Reason, reason

Parse = Callable[[Any], Any]
Refused = dict[int, Reason]


class Absent(Enum):
    """A field that a row does not have, where None would be more than NULL."""

    ABSENT = None


ABSENT = Absent.ABSENT


class TooLong(ValueError):
    """A text has more characters than its column takes."""


#: What is told of values that do not fit.
_TOLD: dict[type[Exception], tuple[Fault, str]] = {
    TooLong: (Fault.LENGTH, "{name} is longer than {length} characters"),
    moments.Zoned: (Fault.TYPE, "the value of {name} has a time zone, which would be dropped"),
    moments.Finer: (Fault.TYPE, "Python has no value for what {name} holds"),
    numbers.Rounded: (Fault.TYPE, "{name} would not keep all digits of the value"),
}
_UNFIT = Fault.TYPE, "the value of {name} does not fit its type {kind}"


class Conversion:
    """What happens to the values of one column.

    Args:
        column: The column.
        dialect: Whose bind processors are applied.
        from_text: The input is text without types, as CSV.
        served: The database itself reads text for any type, and refuses what does not fit: it is sent as it is.

    Attributes:
        absent: What a row is given that has no such field: None, where that is the same as NULL.
    """

    def __init__(
        self,
        column: Column[Any],
        dialect: Dialect,
        *,
        from_text: bool,
        served: bool,
    ) -> None:
        row = capabilities(dialect)
        self._column = column
        self._dialect = dialect
        kind, self._decorate, self._processor = _impl(column.type, dialect, served=served)
        digits = None if served else numbers.digits_of(kind)
        self._plain, self._parse = _rule(kind, dialect, digits, from_text=from_text, nans=row.nans)
        if row.spans and isinstance(kind, types.Time):
            self._parse = moments.span
        self._zoneless = isinstance(kind, (types.DateTime, types.Time)) and not (row.zones and kind.timezone)
        if self._zoneless:
            self._plain, self._parse = frozenset({_NONE}), moments.without_zone(self._parse)
        self._read = _READ.get(self._parse)
        decorated = self._decorate is not None or isinstance(kind, (types.TypeDecorator, types.Enum))
        read_here = decorated or isinstance(kind, types.LargeBinary) or _processes(kind)
        self._served = served and not read_here and (from_text or not isinstance(kind, types.JSON))
        self._length = None if served or isinstance(kind, types.Enum) else _length(kind)
        if isinstance(kind, types.String) and self._processor is not None and not decorated:
            self._plain, self._parse, self._length = frozenset({_NONE}), _as_it_is, None  # a SET knows what it takes
        self._nulls = _of_none(column.type) and not from_text
        self.absent = ABSENT if self._nulls else None
        self._reasons: dict[type, Reason] = {}  # they are the same for all rows
        #: Whether all cells of a class are as the column keeps them; of other classes nobody has to ask.
        self._looks: dict[type, Callable[[Sequence[Any], set[type]], bool]] = {str: self._fits}
        if isinstance(kind, types.Float):
            self._looks |= {int: numbers.are_whole_floats} | ({} if row.nans else {float: numbers.are_numbers})
        self._as_given = self._plain
        if self._served:
            self._plain = self._plain | {str}
            self._looks.pop(str)
        self._as_they_are = self._plain - (self._looks.keys() - {str})

    def __call__(self, cells: Sequence[Any]) -> tuple[Sequence[Any], Refused]:
        """The cells as the driver takes them, and the reasons of those that do not fit."""
        kinds = set(map(type, cells))
        known = None if self._processor is not None or self._decorate is not None else self._known(cells, kinds)
        if known is not None:
            return known
        if Unreadable not in kinds:
            try:
                return list(map(self._one, cells)), {}
            except MemoryError:
                raise
            except Exception:
                pass  # one after the other then, to find which
        return self._some(cells, range(len(cells)))

    def _known(self, cells: Sequence[Any], kinds: set[type]) -> tuple[Sequence[Any], Refused] | None:
        """The usual cases, a column at once: most cells need nothing. None: each has to be looked at."""
        if self._zoneless and kinds <= _MOMENTS and not any([cell is not None and cell.tzinfo for cell in cells]):
            return cells, {}
        strange = kinds - self._plain
        if strange == _TEXT and self._read is not None and kinds <= _TEXTS:
            return self._texts(self._read, cells, kinds)
        if not all(self._looks[kind](cells, kinds) for kind in self._looks.keys() & kinds - strange):
            return None
        if not strange:
            return cells, {}
        return self._some(cells, [at for at, cell in enumerate(cells) if type(cell) in strange])

    def values(self, cells: Sequence[Any]) -> tuple[Sequence[Any], Refused]:
        """The cells in the type of the column, before the driver's form of it; what does not fit is as it was."""
        found: list[Any] = [None if cell is ABSENT else cell for cell in cells]
        unfit: Refused = {}
        if self._decorate is not None:
            return found, unfit
        for at, cell in enumerate(found):
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
            except ValueError:
                at = len(done)
                found, why = self._some(cells[at : at + 1], (0,))
                done.append(found[0])
                refused |= {at + place: one for place, one in why.items()}
        return done, refused

    def _one(self, cell: Any) -> Any:
        if cell is ABSENT or (cell is None and not self._nulls):
            return None
        if self._decorate is not None:
            cell = self._decorate(cell, self._dialect)
        if cell is None:
            return self._processor(None) if self._nulls and self._processor is not None else None
        if self._served and type(cell) is str:
            return cell
        if type(cell) not in self._as_they_are:
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
                if type(cells[at]) is Unreadable:
                    raise moments.Finer
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
        if isinstance(error, UnicodeError):
            found = reason(Fault.ENCODING, name)
        else:
            fault, told = next((words for cls, words in _TOLD.items() if isinstance(error, cls)), _UNFIT)
            words = told.format(name=name, length=self._length, kind=type(self._column.type).__name__)
            found = reason(fault, name, message=words)
        return self._reasons.setdefault(type(error), found)


def _of_none(kind: types.TypeEngine[Any]) -> bool:
    """Whether the type may make more of None than NULL, as JSON does."""
    return isinstance(kind, (types.TypeDecorator, types.JSON))


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
_TEXT = {str}
_TEXTS = {str, _NONE}
_MOMENTS = {datetime.datetime, _NONE}

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
    own = cls.process_bind_param is not types.TypeDecorator.process_bind_param
    return inner, impl.process_bind_param if own else None, processor


def _rule(
    kind: types.TypeEngine[Any], dialect: Dialect, digits: numbers.Digits | None, *, from_text: bool, nans: bool
) -> tuple[frozenset[type], Parse]:
    if isinstance(kind, types.Enum):
        return frozenset({_NONE}), _enum(kind, by_database=kind.native_enum and dialect.supports_native_enum)
    if isinstance(kind, types.Uuid):
        return frozenset({_NONE, UUID} if kind.as_uuid else {_NONE}), _uuid(kind)
    if isinstance(kind, types.JSON):
        return frozenset({_NONE}), _document if from_text else serializable
    if isinstance(kind, (types.Numeric, types.Float)):
        return _of_numbers(kind, dialect, digits, nans=nans)
    for cls, (plain, parse) in _RULES.items():
        if isinstance(kind, cls):
            return frozenset({_NONE, *plain}), parse
    if _holds_bytes(kind):
        return frozenset({_NONE, bytes}), _binary
    return frozenset({_NONE}), _as_it_is


def _of_numbers(
    kind: types.Numeric[Any] | types.Float[Any], dialect: Dialect, digits: numbers.Digits | None, *, nans: bool
) -> tuple[frozenset[type], Parse]:
    if isinstance(kind, types.Float):
        return frozenset({_NONE, float, int}), numbers.floating(nans=nans)
    native = dialect.supports_native_decimal or type(kind).bind_processor is not types.Numeric.bind_processor
    exact = {_NONE, int, Decimal} if native and nans and digits is None else {_NONE}
    return frozenset(exact), numbers.decimal(digits, native=native, nans=nans)


def _processes(kind: types.TypeEngine[Any]) -> bool:
    """Whether a type of the application's own makes something else of its values."""
    found = type(kind).bind_processor
    return getattr(found, "__module__", "").partition(".")[0] != "sqlalchemy"


def _holds_bytes(kind: types.TypeEngine[Any]) -> bool:
    """VARBINARY and others have no public class in common with LargeBinary."""
    try:
        return kind.python_type is bytes and not isinstance(kind, types.TypeDecorator)
    except NotImplementedError:
        return False


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
        return str(value.value) if isinstance(value, Enum) else str(value)
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


def _enum(kind: types.Enum, *, by_database: bool) -> Parse:
    """One of a set; where the database knows the set, it is asked, for SQLAlchemy may have read it otherwise."""
    cls, stored = kind.enum_class, frozenset(kind.enums)

    def parse(value: Any) -> Any:
        if isinstance(value, str) and not isinstance(value, Enum):
            if value in stored:
                return value
            if cls is None and by_database:
                return value
            if cls is not None:
                return cls(value)  # a file may have the members' values
        if cls is None or not isinstance(value, cls):
            raise ValueError
        return value

    return parse


_RULES: dict[type[types.TypeEngine[Any]], tuple[tuple[type, ...], Parse]] = {
    types.Boolean: ((bool,), _boolean),
    types.Integer: ((int,), numbers.whole),
    types.DateTime: ((datetime.datetime,), moments.moment),
    types.Date: ((datetime.date,), moments.day),
    types.Time: ((datetime.time,), moments.hour),
    types.LargeBinary: ((bytes,), _binary),
    types.String: ((str,), _text),
    types.Interval: ((datetime.timedelta,), moments.duration),
}

#: What reads text as fast as Python can; what it does not read, the rule looks at.
_READ: dict[Parse, Parse] = {numbers.whole: int, moments.day: datetime.date.fromisoformat}
