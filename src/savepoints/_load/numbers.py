"""Numbers as their columns keep them: what would be rounded, or come to something else, is refused."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import isinf, isnan
from typing import Any, NamedTuple

from sqlalchemy import types

#: Up to here each whole number is a float.
WHOLE = 2**53


class Rounded(ValueError):
    """A number that the column would not keep as it is."""


class Digits(NamedTuple):
    """How many digits a column keeps, and how many of them behind the point."""

    precision: int
    scale: int

    def keep(self, value: Decimal) -> bool:
        """Whether the value has no more than that; zeros at its ends do not count."""
        if not value.is_finite():
            return value.is_nan()
        _, digits, exponent = value.as_tuple()
        if not any(digits):
            return True
        behind = -self.scale - int(exponent)
        return value.adjusted() < self.precision - self.scale and not (behind > 0 and any(digits[-behind:]))


def digits_of(kind: types.TypeEngine[Any]) -> Digits | None:
    """What a type says of it; a Float keeps what a float is."""
    if isinstance(kind, types.Float) or not isinstance(kind, types.Numeric) or kind.precision is None:
        return None
    return Digits(kind.precision, kind.scale or 0)


def whole(value: Any) -> int:
    """A whole number, from anything that is one."""
    if isinstance(value, (float, Decimal)):
        found = int(value)
        if found != value:
            raise ValueError
        return found
    return int(_digits(value)) if isinstance(value, str) else int(operator.index(value))


def _digits(text: str) -> str:
    """Python reads more than databases do: 1_000, and the digits of other scripts."""
    if "_" in text or not text.isascii():
        raise ValueError
    return text


def exact(value: Any) -> Decimal:
    """A number as it is written."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, float):
        return Decimal(float.__repr__(value))  # a class derived from it may write itself otherwise
    return Decimal(_digits(value) if isinstance(value, str) else operator.index(value))


def decimal(digits: Digits | None, *, native: bool, nans: bool) -> Callable[[Any], Any]:
    """How to read a number of so many digits; a float that is the same number where the driver knows no Decimal."""

    def read(value: Any) -> Decimal | float:
        found = exact(value)
        if digits is not None and not digits.keep(found):
            raise Rounded
        if found.is_nan() and not nans:
            raise ValueError
        return found if native else _narrowed(found)

    return read


def _narrowed(value: Decimal) -> float:
    found = float(value)
    if value.is_finite() and Decimal(repr(found)) != value:
        raise Rounded
    return found


def floating(*, nans: bool) -> Callable[[Any], float]:
    """How to read a float. A fraction is what is nearest to it; a whole number must be the same."""

    def read(value: Any) -> float:
        if isinstance(value, (bool, bytes)):
            raise TypeError
        found = float(_digits(value) if isinstance(value, str) else value)
        if isinf(found) and any(map(str.isdigit, str(value))):
            raise Rounded
        if isinstance(value, int) and found != value:
            raise Rounded
        if isinstance(value, (str, Decimal)) and not _near(found, exact(value)):
            raise Rounded
        if isnan(found) and not nans:
            raise ValueError
        return found

    return read


def _near(found: float, value: Decimal) -> bool:
    """Whether a float stands for a number: for one that is written without a fraction only if it is the same."""
    if not value.is_finite():
        return True
    if value.as_tuple().exponent == 0:
        return Decimal(found) == value
    return found != 0 or value == 0


def are_whole_floats(cells: Sequence[Any], kinds: set[type]) -> bool:
    """Whether the whole numbers of a column are small enough to be floats."""
    numbers = cells if kinds == {int} else [cell for cell in cells if type(cell) is int]
    return max(numbers) <= WHOLE and min(numbers) >= -WHOLE


def are_numbers(cells: Sequence[Any], kinds: set[type]) -> bool:
    """Whether none of the floats of a column is no number; False, too, where infinities make none in their sum."""
    return not isnan(sum(cells if kinds == {float} else [cell for cell in cells if type(cell) is float]))
