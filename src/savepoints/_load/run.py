"""One load, from the first row to the checked ledger. The face has made its savepoint, and undoes it after an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from savepoints import errors
from savepoints._core import objects
from savepoints._core.attach import Target as Steered
from savepoints._core.face import Face
from savepoints._core.stack import Stack
from savepoints._load.algorithm import Algorithm, Job, OnConflict, Outcome, choose
from savepoints._load.fields import Columns, Target, Wanted, target_of
from savepoints._load.intake import Convert, Intake, Piece
from savepoints._load.keys import key_of
from savepoints._load.reasons import Reason, Reject
from savepoints._load.rejects import Rejects
from savepoints._load.report import Progress, Report
from savepoints._load.sources import Broken, Source, open_source
from savepoints._model.levels import SavepointLevel

#: The share of rejects is looked at when so many rows were read, and at the end.
SHARE_AFTER = 1000
#: Without a limit a load still stops when more than this share of the first rows is bad: it is the wrong file.
WRONG_FILE = 0.5
#: Seconds between two calls of ``progress``.
OFTEN = 0.2


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
    columns: Columns,
    null: Any,
    convert: Any,
    on_conflict: str,
    key: Any,
    max_rejected: Any,
    max_rejected_ratio: Any,
    **others: Any,
) -> Options:
    """The options, if they may be given so.

    Raises:
        WrongArgument, BadInput: One is of a wrong kind, or out of its range.
    """
    if isinstance(columns, str):
        raise errors.WrongArgument("columns is a sequence of names, not one", hint="put it into a list")
    if on_conflict not in ("reject", "skip", "update"):
        raise errors.BadInput(f"on_conflict is not {on_conflict!r}", hint='give "reject", "skip" or "update"')
    if max_rejected is not None and (not isinstance(max_rejected, int) or max_rejected < 0):
        raise errors.BadInput("max_rejected is a number of rows from 0", hint="or give a share by max_rejected_ratio")
    if max_rejected_ratio is not None and not 0 <= max_rejected_ratio <= 1:
        raise errors.BadInput(
            f"max_rejected_ratio is a share from 0 to 1, not {max_rejected_ratio}", hint="0.01 is one row in a hundred"
        )
    if convert is not None and not hasattr(convert, "items"):
        raise errors.WrongArgument("convert maps columns to functions", hint='give {"column": function}')
    return Options(
        columns=columns,
        null=_names(null),
        convert=convert,
        on_conflict=on_conflict,  # type: ignore[arg-type]
        key=_names(key) or (),
        max_rejected=max_rejected,
        max_rejected_ratio=max_rejected_ratio,
        **others,
    )


def _names(given: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)


def load(steered: Steered, face: Face, level: SavepointLevel, into: Any, rows: Any, options: Options) -> Report:
    """Load rows inside the level.

    Args:
        steered: The session or connection.
        face: Whose classes inner savepoints have.
        level: The load's savepoint, just made.
        into: A Table, a mapped class or a name.
        rows: What is to be loaded.
        options: How.
    """
    source = open_source(rows, encoding=options.encoding, null=options.null)
    with ExitStack() as at_end:
        at_end.callback(source.close)
        connection = _connection(steered, into)
        target = target_of(connection, into)
        run = _Run(connection, level.stack, face, target, source, options, at_end)
        run.report.savepoint = level
        try:
            run.all()
        except errors.LoadLimitExceeded:
            if not isinstance(options.rejects, Table):  # which is undone with all the rest
                run.write(rows)
            raise
        run.write(rows)
        if options.on_conflict == "update" and isinstance(steered, Session):
            _expire(steered, target, reload=level.stack.runner is not None)
    return run.report


def told(report: Report, level: SavepointLevel) -> Report:
    """The report of a load that is over, with its savepoint where that is still there."""
    if not level.is_open:
        report.savepoint = None
        report.undone = True
    return report


def _connection(steered: Steered, into: Any) -> Connection:
    if isinstance(steered, Connection):
        return steered
    bind: dict[str, Any] = {}
    if isinstance(into, Table):
        bind = {"clause": into}
    elif isinstance(into, type):
        bind = {"mapper": into}
    return steered.connection(bind_arguments=bind)


def _expire(session: Session, target: Target, *, reload: bool) -> None:
    """Objects of the class hold what was there before the update; in async code they are loaded again at once."""
    if target.mapper is None:
        return
    cls = target.mapper.class_
    before = [(obj, frozenset(obj.__dict__)) for obj in session.identity_map.values() if isinstance(obj, cls)]
    for obj, _ in before:
        session.expire(obj)
    if reload:
        objects.reload(session, before)


class _Run:
    """The state of one load."""

    def __init__(
        self,
        connection: Connection,
        stack: Stack,
        face: Face,
        target: Target,
        source: Source,
        options: Options,
        at_end: ExitStack,
    ) -> None:
        self._options = options
        self._source = source
        self._connection = connection
        self._target = target
        self.report = Report(target.name, tag=options.tag)
        self.report.rejects, self.report.skips = Rejects(text=source.text), Rejects(text=source.text)
        wanted = Wanted(target, options.columns)
        key = key_of(connection, target, options.key, options.on_conflict)
        row = stack.row_of(connection)
        job = Job(connection, target.table, row, options.on_conflict, key, self.report, face, at_end)
        self._algorithm: Algorithm = choose(job)
        self._intake = Intake(
            source,
            target,
            wanted,
            connection.dialect,
            null=options.null if options.null is not None else (("",) if source.text else ()),
            convert=options.convert or {},
            served=self._algorithm.served,
            zones=row.zones,
            nans=row.nans,
            updates=key if options.on_conflict == "update" else (),
        )
        self._told = 0.0
        self._looked = False  # whether it is the wrong file

    def all(self) -> None:
        """All rows, piece by piece."""
        report = self.report
        while (piece := self._intake.piece(self._algorithm.rows)) is not None:
            report.read += len(piece.taken.rows)
            skipped: dict[int, Reason] = {}
            for batch in piece.batches:
                if batch.rows:
                    self._enter(piece, self._algorithm.load(batch), skipped)
            self._record(piece, skipped)
            self._check_limits(final=False)
            self._tell(final=False)
        self._algorithm.finish()
        report.check_ledger()
        self._check_limits(final=True)
        self._tell(final=True)

    def _enter(self, piece: Piece, outcome: Outcome, skipped: dict[int, Reason]) -> None:
        self.report.loaded += outcome.loaded
        self.report.updated += outcome.updated
        piece.refused.update(outcome.refused)
        skipped.update(outcome.skipped)

    def _record(self, piece: Piece, skipped: dict[int, Reason]) -> None:
        """Enter what was not loaded, in the order of the input."""
        taken, names = piece.taken, self._source.names
        for place in sorted((*piece.refused, *skipped)):
            reasons = (skipped[place],) if place in skipped else piece.refused[place]
            row = taken.rows[place]
            raw = row if names is None and type(row) is not Broken else _raw(row, names)
            reject = Reject(taken.numbers[place], taken.line(place), raw, reasons)
            if place in skipped:
                self.report.skip(reject)
            else:
                self.report.reject(reject)

    def _check_limits(self, *, final: bool) -> None:
        """Stop where more rows are bad than was allowed."""
        report, options = self.report, self._options
        most, share = options.max_rejected, options.max_rejected_ratio
        enough = report.read >= SHARE_AFTER or final
        if most is not None and report.rejected > most:
            self._exceeded(f"{most} may be")
        elif share is not None and enough and report.rejected > share * report.read:
            self._exceeded(f"{share:.2%} may be")
        elif most is None and share is None and report.read >= SHARE_AFTER and not self._looked:
            self._looked = True
            if report.rejected > WRONG_FILE * report.read:
                self._exceeded("it looks like the wrong file, or shifted columns")

    def _exceeded(self, why: str) -> None:
        report = self.report
        report.progress(None)  # how long it took
        raise errors.LoadLimitExceeded(
            f"{report.rejected} of {report.read} rows for {report.table} were rejected, and {why}: the load was undone",
            report=report,
        )

    def _tell(self, *, final: bool) -> None:
        now = time.monotonic()
        if not final and now - self._told < OFTEN:
            return
        self._told = now
        progress = self.report.progress(1.0 if final else self._source.share())
        if self._options.progress is not None:
            self._options.progress(progress)

    def write(self, rows: Any) -> None:
        """Write the rejects where they were asked for; if that fails the load is undone: they would be lost."""
        to = self._options.rejects
        if to is None:
            return
        if isinstance(to, Table):
            from savepoints._load.tables import insert_rejects

            insert_rejects(self._connection, to, self.report.rejects)
            return
        from savepoints._load.written import write

        write(self.report.rejects, to, names=self._source.names, source=rows)


def _raw(row: Any, names: tuple[str, ...] | None) -> Any:
    """As it was given, with the names of a header; what could not be read into a row, as its text."""
    if isinstance(row, Broken):
        return row.raw
    return dict(zip(names, row, strict=True)) if names is not None and len(row) == len(names) else row
