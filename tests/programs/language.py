"""Programs: what code may do inside one transaction, as data. The repr of a program can be pasted into a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

#: The row with this key is there before each program and no program touches it: inserting it again fails.
TAKEN = 0

#: How a session does it: through an object, by SQL behind the session's back, or in bulk. All one to a connection.
How = Literal["object", "sql", "bulk"]

# -- rows


@dataclass(frozen=True)
class Insert:
    key: int
    how: How = "object"


@dataclass(frozen=True)
class Update:
    key: int
    how: How = "object"


@dataclass(frozen=True)
class Delete:
    key: int
    how: How = "object"


@dataclass(frozen=True)
class Rekey:
    """Change a row's key, unless the new one is taken."""

    key: int
    to: int
    how: How = "object"


@dataclass(frozen=True)
class Orphan:
    """A child without its parent: taken now, refused at COMMIT."""


@dataclass(frozen=True)
class Look:
    """Compare the session's objects with the rows."""


# -- errors


@dataclass(frozen=True)
class Fail:
    """A statement that the database refuses: a missing table, a half-bad insert of two rows, a flush (a plain insert
    on a connection), or one that ends the whole transaction where the database has such.
    """

    what: Literal["missing", "half", "flush", "whole"]
    caught: bool = True


@dataclass(frozen=True)
class Boom:
    """An error of the code's own."""


@dataclass(frozen=True)
class Signal:
    """``raise Rollback``: to the nearest block, to the n-th block around (0 is the nearest), or by name."""

    to: int | str | None = None


# -- savepoints; `back` 0 is the savepoint made last, 1 the one before, and so on, open or not


@dataclass(frozen=True)
class Mark:
    label: str | None


@dataclass(frozen=True)
class RollbackTo:
    label: str


@dataclass(frozen=True)
class ReleaseTo:
    label: str


@dataclass(frozen=True)
class Rollback:
    back: int


@dataclass(frozen=True)
class Release:
    back: int


@dataclass(frozen=True)
class Doom:
    """Doom an open level; 0 is the innermost, the last one the transaction."""

    up: int


# -- blocks; `caught` puts `try: ... except Exception: pass` around it


@dataclass(frozen=True)
class Block:
    label: str | None
    body: Steps
    rollback: bool = False
    suppress: bool = False
    caught: bool = True


@dataclass(frozen=True)
class Enter:
    """A block made of a bookmark."""

    back: int
    body: Steps
    caught: bool = True


@dataclass(frozen=True)
class Join:
    """``atomic(savepoint=False)``."""

    body: Steps
    caught: bool = True


@dataclass(frozen=True)
class Nested:
    """A plain ``begin_nested()`` block of SQLAlchemy."""

    body: Steps
    caught: bool = True


Compound = Block | Enter | Join | Nested
Step = (
    Insert | Update | Delete | Rekey | Orphan | Look | Fail | Boom | Signal
    | Mark | RollbackTo | ReleaseTo | Rollback | Release | Doom
    | Compound
)  # fmt: skip
Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Program:
    """``plain`` has no transaction block: a plain begin() and a bookmark first, a plain commit() or rollback() last."""

    body: Steps
    end: Literal["commit", "rollback"] = "commit"
    plain: bool = False


def steps(body: Steps) -> Iterator[Step]:
    """All steps, those inside blocks included."""
    for step in body:
        yield step
        if isinstance(step, Compound):
            yield from steps(step.body)


class BoomError(Exception):
    """What `Boom` raises."""
