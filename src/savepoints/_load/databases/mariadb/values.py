"""Which values a type keeps as they are, one rule for each family of types.

In strict mode the server refuses most others itself, but not all: of some it tells by a note, of others not at all. So
they are looked at before anything is sent. Source: "Data Types" of MariaDB's manual, and what 10.11 does.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal
from math import isfinite
from typing import Any, Protocol

from savepoints._databases import Fault

_WIDE = Context(prec=400)  # wider than any float is long
#: Character sets of more than a byte, by Python's names for them.
_CODECS = {
    "utf8mb4": "utf-8", "utf8mb3": "utf-8", "utf8": "utf-8", "ucs2": "utf-16-be", "utf16": "utf-16-be",
    "utf16le": "utf-16-le", "utf32": "utf-32-be", "big5": "big5", "gbk": "gbk", "gb2312": "gb2312",
    "sjis": "shift_jis", "cp932": "cp932", "ujis": "euc_jp", "eucjpms": "euc_jp", "euckr": "euc_kr",
}  # fmt: skip
#: So many bytes has a character at most.
_WIDEST = 4


class Unfit(Exception):
    """A value would be refused, or altered."""

    def __init__(self, why: str, fault: Fault = Fault.TYPE, code: str | None = None) -> None:
        self.why = why
        self.fault = fault
        self.code = code


_ALTERED = "would not stay as it is in"
_OF_ANOTHER = "is of another kind than"


class Rule(Protocol):
    """What a type keeps; a NULL is nobody's concern here."""

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        """Whether it keeps all of these, told fast: they have these classes, as is usual. False if it is not known."""

    def one(self, value: Any) -> Any:
        """The value as it is sent.

        Raises:
            Unfit: The type does not keep it.
        """


class Number:
    """Numbers between two whole ones, with so many digits behind the point.

    Args:
        least: The least one; None where the server refuses what is out of range.
        most: The greatest one.
        scale: The digits; None where fractions are binary.
    """

    def __init__(self, least: int | None, most: int | None, scale: int | None) -> None:
        self._least = least
        self._most = most
        self._unit = None if scale is None else Decimal(1).scaleb(-scale)

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        if self._least is None or self._most is None:
            return kinds <= {int, bool} or (kinds == {float} and self._unit is None and isfinite(sum(cells)))
        return kinds <= {int, bool} and self._least <= min(cells) and max(cells) <= self._most

    def one(self, value: Any) -> Any:
        if not isinstance(value, (int, float, Decimal)):
            raise Unfit(_OF_ANOTHER)
        if not _finite(value):
            raise Unfit("is no number, as is asked by")
        if self._least is not None and self._most is not None and not self._least - 1 < value < self._most + 1:
            raise Unfit("is out of the range of", code="1264")
        if self._unit is None or isinstance(value, int):
            return value
        exact = Decimal(float.__repr__(value)) if isinstance(value, float) else value
        short = exact.quantize(self._unit, ROUND_HALF_UP, _WIDE)
        if short != exact:
            raise Unfit("has more digits behind the point than", code="1265")
        return int(short) if self._unit == 1 else short


class Single(Number):
    """FLOAT, which takes small numbers for zero."""

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return kinds <= {int, bool}

    def one(self, value: Any) -> Any:
        found = super().one(value)
        if found and abs(found) < 2.0**-150:
            raise Unfit(_ALTERED)
        return found


class Year(Number):
    """YEAR takes one or two digits for a year of this century or the last."""

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return super().all(cells, kinds) and min(cells) > 1900

    def one(self, value: Any) -> Any:
        found = super().one(value)
        if 0 < found <= 1900:
            raise Unfit(_ALTERED if found < 100 else "is out of the range of", code="1264")
        return found


class Bits(Number):
    """BIT takes a number, or its bytes."""

    def one(self, value: Any) -> Any:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            return super().one(value)
        assert self._most is not None
        if int.from_bytes(value, "big") > self._most:
            raise Unfit("is longer than", Fault.LENGTH, "1406")
        return bytes(value)


class Text:
    """Text of so many characters, or so many bytes. Blanks at the end count, and are not cut.

    Args:
        most: The characters.
        size: The bytes.
        charset: What it is encoded in.
    """

    def __init__(self, most: int | None, size: int | None, charset: str) -> None:
        self._most = most
        self._size = size
        self._codec = _CODECS.get(charset)
        self._surely = most if size is None else size // _WIDEST

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return self._surely is None or (kinds == {str} and max(map(len, cells)) <= self._surely)

    def one(self, value: Any) -> Any:
        if isinstance(value, str):
            if self._most is not None and len(value) > self._most:
                raise Unfit("is longer than", Fault.LENGTH, "1406")
            if self._size is not None and self._bytes(value) > self._size:
                raise Unfit("is longer than", Fault.LENGTH, "1406")
        return value

    def _bytes(self, value: str) -> int:
        return len(value) if self._codec is None else len(value.encode(self._codec, "replace"))


class Binary:
    """So many bytes at most; a type of a fixed length would fill up what is shorter."""

    def __init__(self, most: int, *, filled_up: bool = False) -> None:
        self._most = most
        self._filled_up = filled_up

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        if kinds != {bytes}:
            return False
        return max(map(len, cells)) <= self._most and not (self._filled_up and min(map(len, cells)) < self._most)

    def one(self, value: Any) -> Any:
        size = len(value.encode(errors="replace")) if isinstance(value, str) else len(value) if _is_bytes(value) else 0
        if size > self._most:
            raise Unfit("is longer than", Fault.LENGTH, "1406")
        if self._filled_up and size < self._most:
            raise Unfit("would be filled up to the length of", Fault.LENGTH)
        return bytes(value) if _is_bytes(value) else value


class OneOf:
    """ENUM: its members as they are written; it would take a number, or another case, for one of them."""

    def __init__(self, members: Iterable[str]) -> None:
        self._members = frozenset(members)

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return kinds == {str} and self._members.issuperset(cells)

    def one(self, value: Any) -> Any:
        if not isinstance(value, str) or value not in self._members:
            raise Unfit("is none of", code="1265")
        return value


class SomeOf:
    """SET: members with commas between them, in any order; or bits."""

    def __init__(self, members: Iterable[str]) -> None:
        self._members = frozenset(members)

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return kinds == {str} and self._members.issuperset(
            {name for cell in {*cells} if cell for name in cell.split(",")}
        )

    def one(self, value: Any) -> Any:
        if isinstance(value, str):
            fits = not value or self._members.issuperset(value.split(","))
        else:
            fits = isinstance(value, int) and 0 <= value < 1 << len(self._members)
        if not fits:
            raise Unfit("is not of", code="1265")
        return value


class Day:
    """DATE, which would cut the time of a day."""

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return kinds == {datetime.date}

    def one(self, value: Any) -> Any:
        if not isinstance(value, datetime.date):
            raise Unfit(_OF_ANOTHER)
        if isinstance(value, datetime.datetime):
            if value.timetz() != datetime.time():
                raise Unfit(_ALTERED, code="1265")
            return value.date()
        return value


class Moment:
    """DATETIME and TIMESTAMP, which would cut a time zone, or the rest of a second.

    Args:
        digits: So many digits of a second are kept.
    """

    def __init__(self, digits: int) -> None:
        self._step = 10 ** (6 - digits)

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        step = self._step
        if kinds != {datetime.datetime}:
            return kinds == {datetime.date}
        return not any([cell.microsecond % step or cell.tzinfo is not None for cell in cells])

    def one(self, value: Any) -> Any:
        if not isinstance(value, datetime.date):
            raise Unfit(_OF_ANOTHER)
        if isinstance(value, datetime.datetime) and (value.tzinfo is not None or value.microsecond % self._step):
            raise Unfit(_ALTERED)
        return value


class Span:
    """TIME: of a day, or a span of some weeks, forth or back."""

    def __init__(self, digits: int) -> None:
        self._step = 10 ** (6 - digits)

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return False

    def one(self, value: Any) -> Any:
        if isinstance(value, datetime.timedelta):
            rest, zone = value.microseconds, None
        elif isinstance(value, datetime.time):
            rest, zone = value.microsecond, value.tzinfo
        else:
            raise Unfit(_OF_ANOTHER)
        if rest % self._step or zone is not None:
            raise Unfit(_ALTERED)
        return value


class Only:
    """Types that can be told in some classes only; the server looks at the rest."""

    def __init__(self, *kinds: type) -> None:
        self._kinds = kinds

    def all(self, cells: list[Any], kinds: set[type]) -> bool:
        return kinds <= {*self._kinds}

    def one(self, value: Any) -> Any:
        if not isinstance(value, self._kinds):
            raise Unfit(_OF_ANOTHER)
        return value


def _finite(value: float | Decimal) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else isfinite(value)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview))
