"""The statements that an engine sends, as its events tell them."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, event


class Statement(NamedTuple):
    """One statement, on one line, and its parameters as the driver gets them."""

    sql: str
    parameters: Any = None


class Sent:
    """Collects what goes over a connection, or over all of an engine's.

    SQLAlchemy announces a BEGIN that the driver sends by itself. Where the library sends BEGIN as a statement after
    that, both are one.
    """

    def __init__(self, target: Engine | Connection) -> None:
        self._statements: list[Statement] = []
        event.listen(target, "before_cursor_execute", self._on_statement)
        event.listen(target, "begin", lambda connection: self._statements.append(Statement("BEGIN")))
        event.listen(target, "commit", lambda connection: self._statements.append(Statement("COMMIT")))
        event.listen(target, "rollback", lambda connection: self._statements.append(Statement("ROLLBACK")))

    def take(self) -> list[Statement]:
        """What was sent since the last call."""
        taken, self._statements = self._statements, []
        return taken

    def _on_statement(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        if statement.startswith("BEGIN") and self._statements[-1:] == [Statement("BEGIN")]:
            self._statements.pop()
        self._statements.append(Statement(" ".join(statement.split()), parameters or None))
