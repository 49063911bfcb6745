"""JSON by its letter: numbers with all their digits, no field twice, and nothing that is not JSON."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from savepoints._load.numbers import Rounded

# Note [Numbers of JSON]
# Python reads 0.1234567890123456789 as the float next to it. Here it is a Decimal, and the column's type decides what
# becomes of it: a numeric column takes it as it is, a float column the float next to it. Inside a document for a JSON
# column it must be a float again, since serializers know no Decimal; where that would lose digits, the row is refused.


class NotJson(ValueError):
    """Text that Python's reader would take, and JSON does not allow, or leaves open what it means."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotJson("a field is there twice")
    return found


def _constant(name: str) -> Any:
    raise NotJson(f"{name} is no number")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=Decimal, parse_constant=_constant)


def parsed(text: str) -> Any:
    """What a text holds; numbers that are not whole as Decimal. See Note [Numbers of JSON].

    Raises:
        ValueError: It is not JSON; the message, if it is a `NotJson`, holds no part of the text.
    """
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(error.msg) from None
    except ArithmeticError:
        raise NotJson("a number is out of all range") from None
    except RecursionError:
        raise NotJson("it is nested too deeply") from None


def serializable(value: Any) -> Any:
    """The same for `json.dumps`, as a JSON column is given it.

    Raises:
        Rounded: A number would lose digits.
    """
    if isinstance(value, Decimal):
        found = float(value)
        if value.is_finite() and Decimal(repr(found)) != value:
            raise Rounded
        return found
    if type(value) is dict:
        return {key: serializable(one) for key, one in value.items()}
    return [serializable(one) for one in value] if type(value) is list else value
