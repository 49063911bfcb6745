"""What the reference runs on: rows in memory, and a plain driver connection with hand-written SQL."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import Connection

from tests.programs.language import TAKEN
from tests.programs.trace import Row


class Refused(Exception):
    """The database refused a statement."""


class Database(Protocol):
    """Savepoints have names of their own here; labels are for the reference."""

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def savepoint(self, name: str) -> None: ...

    def rollback_to(self, name: str) -> None: ...

    def release(self, name: str) -> None: ...

    def insert(self, key: int, name: str) -> None: ...

    def update(self, key: int, name: str) -> None: ...

    def delete(self, key: int) -> None: ...

    def rekey(self, key: int, to: int) -> None: ...

    def orphan(self, key: int) -> None: ...

    def fail(self, what: str) -> None: ...

    def rows(self) -> list[Row]: ...


class Memory:
    """A pure model of the rows: a savepoint is a copy of them. Orphans stand below zero.

    Args:
        ending: Whether the statement of ``Fail("whole")`` ends the whole transaction.
        deferring: Whether an orphan is refused at COMMIT only.
    """

    def __init__(self, *, ending: bool, deferring: bool) -> None:
        self._ending = ending
        self._deferring = deferring
        self._rows: dict[int, str | None] = {TAKEN: None}
        self._before = dict(self._rows)
        self._savepoints: list[tuple[str, dict[int, str | None]]] = []

    def begin(self) -> None:
        self._before = dict(self._rows)

    def commit(self) -> None:
        if any(key < 0 for key in self._rows):
            self.rollback()
            raise Refused
        self._savepoints.clear()

    def rollback(self) -> None:
        self._rows = self._before
        self._savepoints.clear()

    def savepoint(self, name: str) -> None:
        self._savepoints.append((name, dict(self._rows)))

    def rollback_to(self, name: str) -> None:
        while self._savepoints[-1][0] != name:
            self._savepoints.pop()
        self._rows = dict(self._savepoints[-1][1])

    def release(self, name: str) -> None:
        while self._savepoints.pop()[0] != name:
            pass

    def insert(self, key: int, name: str) -> None:
        if key in self._rows:
            raise Refused
        self._rows[key] = name

    def update(self, key: int, name: str) -> None:
        if key in self._rows:
            self._rows[key] = name

    def delete(self, key: int) -> None:
        self._rows.pop(key, None)

    def rekey(self, key: int, to: int) -> None:
        if key in self._rows and to not in self._rows:
            self._rows[to] = self._rows.pop(key)

    def orphan(self, key: int) -> None:
        if not self._deferring:
            raise Refused
        self._rows[-key] = None

    def fail(self, what: str) -> None:
        if what == "whole" and self._ending:
            self.rollback()
        raise Refused

    def rows(self) -> list[Row]:
        return sorted((key, name) for key, name in self._rows.items() if key >= 0)


FAILURES = {
    "missing": "SELECT * FROM missing",
    "half": f"INSERT INTO reference VALUES (9, 'half'), ({TAKEN}, 'bad')",
    "flush": f"INSERT INTO reference VALUES ({TAKEN}, 'bad')",
    "whole": f"INSERT OR ROLLBACK INTO reference VALUES ({TAKEN}, 'bad')",
}


class Plain:
    """A driver's own connection, in autocommit mode, and tables of its own."""

    def __init__(self, connection: Connection, *, deferring: bool) -> None:
        """Takes the driver's connection from a connection in AUTOCOMMIT mode."""
        self._driver: Any = connection.connection.driver_connection
        deferred = " DEFERRABLE INITIALLY DEFERRED" if deferring else ""
        self._execute("CREATE TABLE reference (id INTEGER PRIMARY KEY, name VARCHAR(200))")
        self._execute(
            f"CREATE TABLE orphan (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES reference(id){deferred})"
        )

    def clear(self) -> None:
        """Before a program."""
        self._execute("DELETE FROM reference")
        self._execute(f"INSERT INTO reference VALUES ({TAKEN}, NULL)")

    def begin(self) -> None:
        self._execute("BEGIN")

    def commit(self) -> None:
        try:
            self._execute("COMMIT")
        except self._driver.Error as error:
            self._execute("ROLLBACK")  # some databases have done it
            raise Refused from error

    def rollback(self) -> None:
        self._execute("ROLLBACK")

    def savepoint(self, name: str) -> None:
        self._execute(f"SAVEPOINT {name}")

    def rollback_to(self, name: str) -> None:
        self._execute(f"ROLLBACK TO SAVEPOINT {name}")

    def release(self, name: str) -> None:
        self._execute(f"RELEASE SAVEPOINT {name}")

    def insert(self, key: int, name: str) -> None:
        self._try(f"INSERT INTO reference VALUES ({key}, '{name}')")

    def update(self, key: int, name: str) -> None:
        self._execute(f"UPDATE reference SET name = '{name}' WHERE id = {key}")

    def delete(self, key: int) -> None:
        self._execute(f"DELETE FROM reference WHERE id = {key}")

    def rekey(self, key: int, to: int) -> None:
        free = f"NOT EXISTS (SELECT 1 FROM reference WHERE id = {to})"
        self._execute(f"UPDATE reference SET id = {to} WHERE id = {key} AND {free}")

    def orphan(self, key: int) -> None:
        self._try(f"INSERT INTO orphan VALUES ({key}, 99)")

    def fail(self, what: str) -> None:
        self._try(FAILURES[what])

    def rows(self) -> list[Row]:
        return [tuple(row) for row in self._execute("SELECT id, name FROM reference ORDER BY id").fetchall()]

    def _execute(self, statement: str) -> Any:
        cursor = self._driver.cursor()
        cursor.execute(statement)
        return cursor

    def _try(self, statement: str) -> None:
        """What a program may get refused; any other error is one of the reference."""
        try:
            self._execute(statement)
        except self._driver.Error as error:
            raise Refused from error
