"""One load, from the first row to the checked ledger. The face has made its savepoint, and undoes it after an error."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from savepoints import errors
from savepoints._core import objects
from savepoints._core.attach import Target as Steered
from savepoints._core.face import Face
from savepoints._core.stack import Stack
from savepoints._load.algorithm import Algorithm, Job, Outcome, choose
from savepoints._load.fields import Target, Wanted, target_of
from savepoints._load.intake import Intake, Piece
from savepoints._load.keys import key_of
from savepoints._load.options import Options
from savepoints._load.reasons import Reason, Reject, by_name
from savepoints._load.rejects import Rejects
from savepoints._load.report import Report
from savepoints._load.sources import Broken, Source, open_source
from savepoints._load.tables import check_table, insert_rejects
from savepoints._load.written import check_file, write
from savepoints._model.levels import SavepointLevel

#: It is the wrong file if of so many first rows more than this share is bad, and no limit allows it.
FIRST, WRONG_FILE = 1000, 0.5
#: Seconds between two calls of ``progress``.
OFTEN = 0.2


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
    source = open_source(rows, encoding=options.encoding)
    with ExitStack() as at_end:
        at_end.callback(source.close)
        connection = _connection(steered, into)
        _check_place(connection, options.rejects, rows)
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


def _check_place(connection: Connection, rejects: Any, source: Any) -> None:
    """Find out now whether rejects can be written: at the end it would undo the load."""
    if isinstance(rejects, Table):
        check_table(connection, rejects)
    elif rejects is not None:
        check_file(rejects, source=source)


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
            null=source.null if options.null is None else options.null,
            convert=options.convert or {},
            served=self._algorithm.served,
            updates=key if options.on_conflict == "update" else (),
        )
        self._told = 0.0

    def all(self) -> None:
        """All rows, piece by piece."""
        report = self.report
        while (piece := self._intake.piece(self._count())) is not None:
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

    def _count(self) -> int:
        """So many rows are taken next: the first ones end where all databases look at them."""
        first = FIRST - self.report.read
        return min(self._algorithm.rows, first) if first > 0 else self._algorithm.rows

    def _enter(self, piece: Piece, outcome: Outcome, skipped: dict[int, Reason]) -> None:
        self.report.loaded += outcome.loaded
        self.report.updated += outcome.updated
        piece.refused.update(outcome.refused)
        skipped.update(outcome.skipped)

    def _record(self, piece: Piece, skipped: dict[int, Reason]) -> None:
        """Enter what was not loaded, in the order of the input."""
        taken = piece.taken
        for place in sorted((*piece.refused, *skipped)):
            reasons = (skipped[place],) if place in skipped else piece.refused[place]
            raw, names = self._raw(taken.rows[place])
            reject = Reject(taken.numbers[place], taken.line(place), raw, reasons, names)
            if place in skipped:
                self.report.skip(reject)
            else:
                self.report.reject(reject)

    def _raw(self, row: Any) -> tuple[Any, tuple[str, ...] | None]:
        """As it was given, with the names of a header, or of the columns that it was meant for."""
        if isinstance(row, Broken):
            return row.raw, row.names
        if not isinstance(row, (list, tuple)):
            return row, None
        named = by_name(row, self._source.names)
        return (row, self._intake.names) if named is row else (named, None)

    def _check_limits(self, *, final: bool) -> None:
        """Stop where more rows are bad than was allowed."""
        report, options = self.report, self._options
        most, share = options.max_rejected, options.max_rejected_ratio
        bad = report.rejected / max(report.read, 1)  # 29 of 100 are 0.29, and 0.29 of 100 are less than 29
        if most is not None and report.rejected > most:
            self._exceeded(f"{most} may be")
        elif final and share is not None and bad > share:
            self._exceeded(f"{share:.2%} may be")
        elif most is None and report.read == FIRST and bad > max(WRONG_FILE, share or 0):
            self._exceeded("it looks like the wrong file, or shifted columns")

    def _exceeded(self, why: str) -> None:
        report = self.report
        report.progress(None)  # how long it took
        report.undone, report.savepoint = True, None  # as soon as it has left the load
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
        if to is None or not self.report.rejects:
            return
        if isinstance(to, Table):
            insert_rejects(self._connection, to, self.report.rejects)
        else:
            write(self.report.rejects, to, source=rows)
