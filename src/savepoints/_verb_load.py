"""The verb `load`, for sync and async."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, overload

from sqlalchemy import Table

from savepoints._core import ends
from savepoints._core.attach import Target
from savepoints._load import run
from savepoints._load.options import Options, checked
from savepoints._load.report import Progress, Report
from savepoints._model.levels import MAX_NAME, checked_name, printable
from savepoints._sync import FACE, open_savepoint
from savepoints._targets import AsyncTarget, SyncTarget, checked_target, is_async

Rows = Iterable[Any] | str | os.PathLike[str]
Into = Table | type[Any] | str
OnConflict = Literal["reject", "skip", "update"]


@overload
def load(
    target: SyncTarget,
    into: Into,
    rows: Rows,
    *,
    name: str | None = None,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    null: str | Iterable[str] | None = None,
    convert: Mapping[str, Callable[[Any], Any]] | None = None,
    encoding: str | None = None,
    on_conflict: OnConflict = "reject",
    key: str | Iterable[str] | None = None,
    max_rejected: int | None = None,
    max_rejected_ratio: float | None = None,
    rejects: str | os.PathLike[str] | Table | None = None,
    rollback: bool = False,
    progress: Callable[[Progress], Any] | None = None,
    tag: Any = None,
) -> Report: ...
@overload
def load(
    target: AsyncTarget,
    into: Into,
    rows: Rows | AsyncIterable[Any],
    *,
    name: str | None = None,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    null: str | Iterable[str] | None = None,
    convert: Mapping[str, Callable[[Any], Any]] | None = None,
    encoding: str | None = None,
    on_conflict: OnConflict = "reject",
    key: str | Iterable[str] | None = None,
    max_rejected: int | None = None,
    max_rejected_ratio: float | None = None,
    rejects: str | os.PathLike[str] | Table | None = None,
    rollback: bool = False,
    progress: Callable[[Progress], Any] | None = None,
    tag: Any = None,
) -> Awaitable[Report]: ...
def load(
    target: Any,
    into: Into,
    rows: Any,
    *,
    name: str | None = None,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    null: str | Iterable[str] | None = None,
    convert: Mapping[str, Callable[[Any], Any]] | None = None,
    encoding: str | None = None,
    on_conflict: OnConflict = "reject",
    key: str | Iterable[str] | None = None,
    max_rejected: int | None = None,
    max_rejected_ratio: float | None = None,
    rejects: str | os.PathLike[str] | Table | None = None,
    rollback: bool = False,
    progress: Callable[[Progress], Any] | None = None,
    tag: Any = None,
) -> Any:
    """Load rows of unknown quality: keep the good ones, and say of each other one why it was refused.

    The table ends as if each row had been inserted in order, each in a savepoint of its own, failures left out. All
    of it happens in the open transaction, under one savepoint, which stays open as a bookmark: read the report, then go
    on, or undo the load by ``report.savepoint.rollback()``. Nothing is committed. For an async target: await it.

    Args:
        target: Session, scoped_session or Connection, or their async twins.
        into: A Table, a mapped class, or the name of a table, which may have its schema before its last dot (then it is
            read from the database).
        rows: An iterable (for an async target also an async one) of mappings, tuples, named tuples or dataclasses; a
            data frame with the Arrow C stream interface; the path of a CSV file with a header, of JSON Lines, Parquet
            or Arrow, also packed; the ``rejects`` of an earlier report.
        name: The savepoint's name; one is made of the table's name if it is left out.
        columns: The names of the columns, for rows that have none; for others those fields that are taken. Or names of
            fields with those of their columns: fields that it does not name are left out.
        null: Text, or texts, that stand for NULL. By default an empty cell of a CSV file, and nothing else.
        convert: Functions for the values of columns; a row for which one raises is rejected.
        encoding: Of a file of text; UTF-8 by default.
        on_conflict: Duplicates of a row that is there, in the table or before in the input: ``reject`` them, ``skip``
            them (they are counted and listed in ``report.skips``) or ``update`` that row, with the ``onupdate`` of
            columns that the row leaves out.
        key: The columns by which duplicates are known: those of the primary key, or of a unique constraint or index, in
            any order. By default the primary key for ``update``, any unique key for ``skip``; a row that is a duplicate
            by other keys only is rejected.
        max_rejected: So many rows may be rejected; with one more the load is undone.
        max_rejected_ratio: Such a share of all rows, from 0 to 1, may be rejected; with more the load is undone at its
            end. If ``max_rejected`` is not given, a load stops after its first 1,000 rows if more than half of these
            were rejected, or more than this share where that is larger.
        rejects: Where to write rejected rows: a new file (``.jsonl``, exact, or ``.csv``), which is made if there are
            any, or a table in the same transaction (`rejects_table`).
        rollback: A dry run: everything is done, and undone at the end.
        progress: Called with a `Progress`, five times a second at the most; awaited where it is a coroutine function.
        tag: A mark of the caller's, found again in the report.

    Raises:
        BadInput: The input, its header, the table or an option does not fit; nothing was loaded.
        FileExistsError: There is a file where rejects were to be written; nothing was loaded.
        LoadLimitExceeded: More rows were rejected than the limit allows; the load was undone.
        sqlalchemy.exc.DBAPIError: What is not the fault of a row, as a deadlock or a full disk; the load was undone.
        TransactionFailed, TransactionLost, NotSupported, WrongTask: As `savepoint` does.
        WrongArgument, BadName: An argument is of a wrong kind.
    """
    found = checked_target(target, "load")
    named = _name(into) if name is None else checked_name(name)
    options = checked(
        columns=columns,
        null=null,
        convert=convert,
        encoding=encoding,
        on_conflict=on_conflict,
        key=key,
        max_rejected=max_rejected,
        max_rejected_ratio=max_rejected_ratio,
        rejects=rejects,
        progress=progress,
        tag=tag,
    )
    if not is_async(found):
        return _load(found, into, rows, named, options, rollback=rollback)
    from savepoints import _load_async

    return _load_async.load(found, into, rows, named, options, rollback=rollback)


def _load(target: Target, into: Any, rows: Any, name: str, options: Options, *, rollback: bool) -> Report:
    """Under a savepoint of its own, which stays open; an error undoes it."""
    level = open_savepoint(target, name, False, ())
    try:
        report = run.load(target, FACE, level, into, rows, options)
        if rollback:
            ends.leave_savepoint(level, None, rollback=True)
    except BaseException as error:
        ends.leave_savepoint(level, error, rollback=False)
        raise
    return run.told(report, level)


def _name(into: Any) -> str:
    table = into if isinstance(into, str) else getattr(into, "__tablename__", None) or getattr(into, "name", None)
    return printable(f"load {table}")[:MAX_NAME] if isinstance(table, str) else "load"
