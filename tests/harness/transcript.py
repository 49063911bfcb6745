"""The exact list of statements that an engine sent, in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import Dialect

# A statement on user data, up to its table.
DATA = re.compile(r"(UPDATE|INSERT.*? INTO|DELETE FROM|SELECT.*? FROM) \"?(\w+)", re.IGNORECASE)

BEGINS = ("BEGIN", "START TRANSACTION")


class Transcript:
    """Collects where the dialect hands over to the driver: what was refused or skipped before was not sent.

    SQLAlchemy announces a BEGIN that the driver sends, perhaps later. Where somebody sends BEGIN as a
    statement directly before or after that, both stand as one entry: the statement. Two statements in one round trip
    stand as two entries.
    """

    def __init__(self, engine: Engine) -> None:
        self._sent: list[str] = []
        for name in ("do_execute", "do_execute_no_params", "do_executemany"):
            self._record(engine.dialect, name, self._on_statement)
        self._record(engine.dialect, "do_commit", lambda connection: self._sent.append("COMMIT"))
        # after the dialect's own listener, which asks the server about itself
        event.listen(engine, "connect", lambda *_: self.clear(), once=True)
        event.listen(engine, "begin", self._on_begin)
        event.listen(engine, "rollback", lambda connection: self._sent.append("ROLLBACK"))

    @staticmethod
    def _record(dialect: Dialect, name: str, note: Callable[..., None]) -> None:
        method = getattr(dialect, name)

        def recorded(*args: Any) -> Any:
            note(*args)
            return method(*args)

        setattr(dialect, name, recorded)

    def sent(self) -> list[str]:
        """The statements in full, whitespace folded."""
        return list(self._sent)

    def short(self) -> list[str]:
        """The same; statements on user data as verb and table, so that drivers and styles do not differ."""
        return [in_short(statement) for statement in self._sent]

    def clear(self) -> None:
        self._sent.clear()

    def _on_statement(self, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(BEGINS) and self._sent[-1:] == ["BEGIN"]:
            self._sent.pop()
        folded = " ".join(statement.split())
        self._sent += folded.split("; ") if folded.startswith("ROLLBACK TO") else [folded]

    def _on_begin(self, connection: Any) -> None:
        if not (self._sent and self._sent[-1].startswith(BEGINS)):
            self._sent.append("BEGIN")


def in_short(statement: str) -> str:
    data = DATA.match(statement)
    return f"{data[1].split()[0].upper()} {data[2]}" if data else statement
