"""The exact list of statements that an engine sent, in order."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Engine, event

# A statement on user data, up to its table.
DATA = re.compile(r"(UPDATE|INSERT.*? INTO|DELETE FROM|SELECT.*? FROM) \"?(\w+)", re.IGNORECASE)


class Transcript:
    """Collects through SQLAlchemy's public engine events; BEGIN, COMMIT and ROLLBACK are events of their own.

    SQLAlchemy announces a BEGIN that the driver sends, perhaps later. Where somebody sends BEGIN as a
    statement directly before or after that, both stand as one entry: the statement.
    """

    def __init__(self, engine: Engine) -> None:
        self._sent: list[str] = []
        event.listen(engine, "before_cursor_execute", self._on_statement)
        event.listen(engine, "begin", self._on_begin)
        event.listen(engine, "commit", lambda connection: self._sent.append("COMMIT"))
        event.listen(engine, "rollback", lambda connection: self._sent.append("ROLLBACK"))

    def sent(self) -> list[str]:
        """The statements in full, whitespace folded."""
        return list(self._sent)

    def short(self) -> list[str]:
        """The same; statements on user data as verb and table, so that drivers and styles do not differ."""
        return [in_short(statement) for statement in self._sent]

    def clear(self) -> None:
        self._sent.clear()

    def _on_statement(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        if statement.startswith("BEGIN") and self._sent[-1:] == ["BEGIN"]:
            self._sent.pop()
        self._sent.append(" ".join(statement.split()))

    def _on_begin(self, connection: Any) -> None:
        if not (self._sent and self._sent[-1].startswith("BEGIN")):
            self._sent.append("BEGIN")


def in_short(statement: str) -> str:
    data = DATA.match(statement)
    return f"{data[1].split()[0].upper()} {data[2]}" if data else statement
