"""The founding story, in steps: written once, for both faces."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from sqlalchemy import text

CREATE = text("CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)")
DROP = text("DROP TABLE users")
INSERT = text("INSERT INTO users (id, name) VALUES (:id, :name)")
UPDATE = text("UPDATE users SET name = :name WHERE id = :id")
SELECT = text("SELECT id, name FROM users")

JOHN_DOE: dict[str, object] = {"id": 1, "name": "John Doe"}
JANE_DOE: dict[str, object] = {"id": 1, "name": "Jane Doe"}
JANE_ROE: dict[str, object] = {"id": 1, "name": "Jane Roe"}

TABLE = "users"
AT_THE_END: list[tuple[object, ...]] = [tuple(JOHN_DOE.values())]


class Step(NamedTuple):
    """What is told, the call in Python as text, the call itself, and the name that its result is kept by.

    The result is awaited on the async face; beyond that the two faces do not differ.
    """

    words: str
    code: str
    call: Callable[[], Any]
    name: str = ""


def story(session: Any) -> Generator[Step, Any, None]:
    """Each step, in order; it is to be sent the (awaited) result of the step before.

    Args:
        session: A `savepoints.Session` or `savepoints.AsyncSession`. It is the caller's to roll back and close.
    """
    yield Step(
        "A transaction begins.",
        "session.begin()",
        lambda: session.begin(),
    )
    yield Step(
        "John Doe is entered.",
        "session.execute(INSERT, JOHN_DOE)",
        lambda: session.execute(INSERT, JOHN_DOE),
    )
    bookmark = yield Step(
        "A bookmark is set.",
        'session.savepoint("renaming")',
        lambda: session.savepoint("renaming"),
        name="bookmark",
    )
    yield Step(
        "He gets a new name.",
        "session.execute(UPDATE, JANE_DOE)",
        lambda: session.execute(UPDATE, JANE_DOE),
    )
    yield Step(
        "Back: only the new name is undone.",
        "bookmark.rollback()",
        lambda: bookmark.rollback(),
    )
    yield Step(
        "John Doe is still there.",
        "session.execute(SELECT)",
        lambda: session.execute(SELECT),
    )
    yield Step(
        "Another new name.",
        "session.execute(UPDATE, JANE_ROE)",
        lambda: session.execute(UPDATE, JANE_ROE),
    )
    yield Step(
        "Back to the same bookmark again.",
        "bookmark.rollback()",
        lambda: bookmark.rollback(),
    )
    yield Step(
        "What is left is committed.",
        "session.commit()",
        lambda: session.commit(),
    )
