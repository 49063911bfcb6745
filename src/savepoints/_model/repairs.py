"""What `install` repairs in plain SQLAlchemy code, each with a name of its own."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING


class Repair(StrEnum):
    """One thing that an installed engine does for plain code; it equals its name, as ``Repair.BEGIN == "begin"``.

    Attributes:
        BEGIN: The driver's transaction is begun before the first SAVEPOINT, which would else be one itself.
        COVER: ``Session.begin_nested()`` also covers what is sent through a connection that was fetched before it.
        RELEASE: A savepoint that was rolled back is released; one whose RELEASE was refused is rolled back.
        OBJECTS: After the rollback of a nested transaction objects are as the database has them.
        DDL: A statement that would commit by itself is refused while a savepoint is open, which it would end; one that
            cannot be seen through (CALL) is found out afterwards.
        COMMIT: A transaction whose COMMIT or ROLLBACK was refused is ended before the pool has its connection again.
        LOST: When the database has dropped the transaction the first error stays, and nothing more is sent; a
            transaction that has failed is not reported as committed.
        STREAM: SAVEPOINT is never sent as a server-side cursor.
        WARN: Closing warns of work that was released and never committed.
    """

    BEGIN = "begin"
    COVER = "cover"
    RELEASE = "release"
    OBJECTS = "objects"
    DDL = "ddl"
    COMMIT = "commit"
    LOST = "lost"
    STREAM = "stream"
    WARN = "warn"

    if not TYPE_CHECKING:
        __hash__ = str.__hash__  # Enum's own hash is a Python call on each look-up


EVERY = frozenset(Repair)
