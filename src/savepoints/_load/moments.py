"""Moments, days and spans of time as their columns keep them: what would be cut off is refused."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any


class Finer(ValueError):
    """A value is finer, or further away, than Python's class for it tells."""


class Zoned(ValueError):
    """A time has a zone, which would be dropped."""


def day(value: Any) -> datetime.date:
    """A date; of a moment only if that is its beginning."""
    if isinstance(value, datetime.datetime):
        if value.time() != datetime.time():
            raise ValueError
        return value.date()
    return datetime.date.fromisoformat(value.strip())


def moment(value: Any) -> datetime.datetime:
    """A moment; of a day, its beginning."""
    if isinstance(value, datetime.date):
        if getattr(value, "nanosecond", 0):  # of pandas
            raise Finer
        return value if isinstance(value, datetime.datetime) else datetime.datetime.combine(value, datetime.time())
    return datetime.datetime.fromisoformat(_in_microseconds(value))


def hour(value: Any) -> datetime.time:
    """A time of the day."""
    if isinstance(value, datetime.time):
        return value
    return datetime.time.fromisoformat(_in_microseconds(value))


_FINER = re.compile(r"[.,]\d{6}0*[1-9]")


def _in_microseconds(text: str) -> str:
    """The text of a moment, if it is none between two microseconds: Python's reader cuts further digits off."""
    if _FINER.search(text):
        raise Finer
    return text.strip()


_SPAN = re.compile(r"\s*(-?)(\d+):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?\s*")


def span(value: Any) -> datetime.time | datetime.timedelta:
    """A time of the day, or a span of more than a day or less than nothing: -100:30:00."""
    if isinstance(value, (datetime.timedelta, datetime.time)):
        return value
    found = _SPAN.fullmatch(value)
    if found is None:
        return hour(value)
    sign, hours, minutes, seconds, rest = found.groups("0")
    if max(int(minutes), int(seconds)) > 59:
        raise ValueError
    micros = int(rest.ljust(6, "0"))
    passed = datetime.timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds), microseconds=micros)
    return -passed if sign == "-" else passed


def without_zone(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same, of what says nothing of a zone."""

    def naive(value: Any) -> Any:
        found = parse(value)
        if getattr(found, "tzinfo", None) is not None:
            raise Zoned
        return found

    return naive


_DURATION = re.compile(r"(?:(-?[0-9]+) days?,?)?(?: ?([-+]?)([0-9]+):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,6})?))?")


def duration(value: Any) -> datetime.timedelta:
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
