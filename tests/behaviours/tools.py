"""What several groups of behaviours need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import TextClause, event, text

from tests.harness.world import World


def row(id: int, name: str | None = None) -> TextClause:
    """An INSERT of one item that no session knows of: the same statement in both styles."""
    return text("INSERT INTO item (id, name) VALUES (:id, :name)").bindparams(id=id, name=name)


# Refused by the server on every database, and nobody's flush.
BAD = text("SELECT no_such_column FROM item")


def verbs(world: World) -> list[str]:
    """The transcript without the names of savepoints, which differ between the styles."""
    return [re.sub(r"( SAVEPOINT)? (savepoints|sa_savepoint)_\d+$", "", s) for s in world.transcript.short()]


def wire_name(world: World) -> str:
    """What the innermost savepoint is called on the server."""
    return next(s.removeprefix("SAVEPOINT ") for s in reversed(world.transcript.sent()) if s.startswith("SAVEPOINT"))


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


@contextmanager
def refused_once(world: World, word: str, error: Exception) -> Iterator[None]:
    """The next statement that starts with the word is stopped before it is sent, by somebody's own listener."""
    armed = [error]

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if armed and statement.startswith(word):
            raise armed.pop()

    event.listen(world.sync_engine, "before_cursor_execute", refuse)
    yield
    event.remove(world.sync_engine, "before_cursor_execute", refuse)
    assert not armed, f"no {word} was sent"
