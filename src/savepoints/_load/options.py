"""What a caller asks of a load, and whether it can be asked so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from savepoints import errors
from savepoints._load.algorithm import OnConflict
from savepoints._load.fields import Columns
from savepoints._load.intake import Convert
from savepoints._load.report import Progress


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller asked for, checked; `savepoints.load` tells what each is."""

    columns: Columns = None
    null: tuple[str, ...] | None = None
    convert: Convert | None = None
    encoding: str | None = None
    on_conflict: OnConflict = "reject"
    key: tuple[str, ...] = ()
    max_rejected: int | None = None
    max_rejected_ratio: float | None = None
    rejects: Any = None
    progress: Callable[[Progress], Any] | None = None
    tag: Any = None


def checked(
    *,
    columns: Any,
    null: Any,
    convert: Any,
    encoding: Any,
    on_conflict: Any,
    key: Any,
    max_rejected: Any,
    max_rejected_ratio: Any,
    rejects: Any,
    progress: Any,
    tag: Any,
) -> Options:
    """The options, if they may be given so.

    Raises:
        WrongArgument: One is of a wrong kind.
        BadInput: One is out of its range.
    """
    _of_kind("encoding", encoding, str, "the name of an encoding", 'as "latin-1"')
    _of_kind("rejects", rejects, (str, os.PathLike, Table), "a path or a Table", 'as "rejects.jsonl"')
    _of_kind("progress", progress, Callable, "a function", "it is called with a `Progress`")
    if on_conflict not in ("reject", "skip", "update"):
        raise errors.BadInput(f"on_conflict is not {on_conflict!r}", hint='give "reject", "skip" or "update"')
    _check_limits(max_rejected, max_rejected_ratio)
    return Options(
        columns=_columns(columns),
        null=_texts("null", null, "the text that stands for NULL, or several", 'as null=["", "NA"]'),
        convert=_convert(convert),
        encoding=encoding,
        on_conflict=on_conflict,
        key=_texts("key", key, "the name of a column, or several", 'as key=["country", "code"]') or (),
        max_rejected=max_rejected,
        max_rejected_ratio=max_rejected_ratio,
        rejects=rejects,
        progress=progress,
        tag=tag,
    )


def _of_kind(option: str, given: Any, kind: Any, told: str, hint: str) -> None:
    if given is not None and not isinstance(given, kind):
        raise errors.WrongArgument(f"{option} is {told}, not {errors.kind_of(given)}", hint=hint)


def _check_limits(most: Any, share: Any) -> None:
    for option, given, kind in (("max_rejected", most, int), ("max_rejected_ratio", share, (int, float))):
        if isinstance(given, bool):
            raise errors.WrongArgument(f"{option} is a number, not bool", hint="leave it out for no limit")
        _of_kind(option, given, kind, "a number", "as max_rejected=100 rows, or max_rejected_ratio=0.01 of them")
    if most is not None and most < 0:
        raise errors.BadInput("max_rejected is a number of rows from 0", hint="or give a share by max_rejected_ratio")
    if share is not None and not 0 <= share <= 1:
        raise errors.BadInput(
            f"max_rejected_ratio is a share from 0 to 1, not {share}", hint="0.01 is one row in a hundred"
        )


def _texts(option: str, given: Any, told: str, hint: str) -> tuple[str, ...] | None:
    """One text, or several."""
    if given is None or isinstance(given, str):
        return None if given is None else (given,)
    _of_kind(option, given, Iterable, told, hint)
    found = tuple(given)
    for one in found:
        _of_kind(option, one, str, told, hint)
        if one is None:
            raise errors.WrongArgument(f"{option} is {told}, not None", hint=hint)
    return found


def _columns(given: Any) -> Columns:
    """Names of columns in their order, or fields with names of columns."""
    hint = 'as columns=["id", "name"], or columns={"Name": "name"}'
    if isinstance(given, (str, bytes, set, frozenset)):  # a set has no order
        raise errors.WrongArgument(f"columns is a list of names or a mapping, not {errors.kind_of(given)}", hint=hint)
    mapping = isinstance(given, Mapping)
    told = "a mapping to names of columns" if mapping else "a list of names or a mapping"
    names = _texts("columns", given.values() if mapping else given, told, hint)
    if names is not None and not all(names or ("",)):  # rows of nothing but defaults would come of it
        raise errors.BadInput(
            f"columns= names {'an empty name' if names else 'no column'}", hint="leave it out to take all fields"
        )
    return given if mapping else names


def _convert(given: Any) -> Convert | None:
    hint = 'as convert={"price": Decimal}'
    _of_kind("convert", given, Mapping, "a mapping of columns to functions", hint)
    for name, function in (given or {}).items():
        if not isinstance(name, str) or not callable(function):
            odd = name if not isinstance(name, str) else function
            raise errors.WrongArgument(
                f"convert is a mapping of columns to functions, and there is {errors.kind_of(odd)}", hint=hint
            )
    found: Convert | None = given
    return found
