"""What became of a COMMIT whose answer was lost: what has to be known before it is sent, and whom to ask afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from savepoints import errors
from savepoints._databases import Capabilities, Outcome
from savepoints._model.hooks import is_async

#: True: the database is asked by the transaction's number. A function: it is asked, on a connection of its own.
Track = bool | Callable[[Connection], bool | None]


def checked_track(track: Any) -> Track:
    """What ``track_commit`` was given, if it may be that.

    Raises:
        WrongArgument: It is neither a bool nor a function.
    """
    if callable(track) and is_async(track):
        raise errors.WrongArgument(
            "track_commit is an async function, and it is called with a sync connection, on both faces",
            hint="give a function that is not async",
        )
    if isinstance(track, bool) or callable(track):
        found: Track = track
        return found
    raise errors.WrongArgument(
        f"track_commit is True, False or a function, not {errors.kind_of(track)}",
        hint="give a function that looks on a connection whether the work is there",
    )


class Tracker:
    """What one transaction has to know of itself, in case that the answer to its COMMIT is lost."""

    __slots__ = ("_life", "_number", "_prepares", "_row", "_track", "engine")

    def __init__(self, track: Track) -> None:
        self._track = track
        self._row: Capabilities | None = None
        self._number: str | None = None
        self._life: str | None = None
        self._prepares = False
        #: Which sent the COMMIT, and can be asked on another connection; it is not known in another process.
        self.engine: Engine | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process nobody can be asked: what a function closes over cannot be sent there."""
        return Tracker, (False,)

    def check(self, row: Capabilities) -> None:
        """Refuse a database that cannot be asked.

        Raises:
            NotSupported: Give a function.
        """
        if self._track is True and row.commit_number is None:
            raise errors.NotSupported(
                f"{row.database} cannot be asked for the outcome of a COMMIT",
                hint="give track_commit a function that looks on a connection whether the work is there",
            )

    def note(self, connection: Connection, row: Capabilities, *, of: int, prepares: bool = False) -> None:
        """Ask for the transaction's number, just before its COMMIT or PREPARE: it has one only if it wrote.

        Args:
            connection: Which is about to commit.
            row: Of its database.
            of: How many connections the transaction has.
            prepares: It is about to prepare.

        Raises:
            NotSupported: The database cannot be asked, or the transaction is on several.
        """
        self.check(row)
        if of > 1:
            raise errors.NotSupported(
                "track_commit follows one COMMIT, and this transaction sends one to each of several databases",
                hint="use one transaction for each",
            )
        self.engine = connection.engine
        self._prepares = prepares
        if self._track is True and row.commit_number is not None:
            self._row = row
            self._number, self._life = connection.exec_driver_sql(row.commit_number).one()

    def ask(self, connection: Connection) -> Outcome:
        """What became of it, asked on another connection."""
        if callable(self._track):
            stored = self._track(connection)
            if not isinstance(stored, int):  # some databases have 0 and 1 for False and True
                return Outcome.UNKNOWN
            if not stored:  # what is prepared can be committed by anybody at any time
                return Outcome.UNKNOWN if self._prepares else Outcome.ROLLED_BACK
            return Outcome.COMMITTED
        if self._row is None or self._row.commit_status is None:
            return Outcome.UNKNOWN
        if self._number is None:
            return Outcome.ROLLED_BACK  # it wrote nothing: there is nothing that could be stored
        told, life = connection.execute(text(self._row.commit_status), {"number": self._number}).one()
        return self._row.commit_answers.get((life == self._life, told), Outcome.UNKNOWN)
