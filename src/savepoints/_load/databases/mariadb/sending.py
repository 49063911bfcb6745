"""Sends rows in their order: as one INSERT, or where rows among them may be refused, as one compound statement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from savepoints import errors
from savepoints._core.dialects import driver_connection
from savepoints._core.raw import driver_work
from savepoints._databases import Capabilities, Fault
from savepoints._databases.mariadb_faults import FAULTS

#: So many rows are sent at once; and so many bytes, where the server takes more.
ROWS, BYTES = 2000, 4 << 20
#: A batch stops so often at a row, then others behind it are suspected as well: each stop costs all those behind it.
STOPS = 4

# Note [A compound statement]
# `BEGIN NOT ATOMIC ... END` ("Using Compound Statements Outside of Stored Programs" of the manual) sends many
# statements in one round trip, in order. Rows that are likely to be refused stand alone, and the handler notes why and
# goes on; those between them go in by one INSERT for each run. Where such a run fails, the handler passes the error on,
# the statement ends there, and ROW_NUMBER (MariaDB 10.7) tells which row it was: all before the run are in, and none of
# the run, for InnoDB undoes a refused statement alone. The handler only keeps what is a row's fault: after a deadlock
# to go on would be to go on in another transaction. 1265 and 1292 are notes as well as errors, and no handler can tell:
# they are passed on. What a warning tells of a value that was altered is found by its own handler.
_PASSED_ON = (1265, 1292)
_CODES = ", ".join(str(number) for number in FAULTS if number not in _PASSED_ON)
_ALTERED = (1264, 1265, 1292, 1366, 1406)
_COMPOUND = (
    "BEGIN NOT ATOMIC DECLARE alone BOOL DEFAULT FALSE;"
    f" DECLARE CONTINUE HANDLER FOR {_CODES}, SQLSTATE '45000' BEGIN"
    " GET DIAGNOSTICS CONDITION 1 @savepoints_row = ROW_NUMBER, @savepoints_code = MYSQL_ERRNO,"
    " @savepoints_text = MESSAGE_TEXT;"
    f" IF alone AND (@savepoints_code IN ({_CODES}) OR @savepoints_code >= 5000) THEN"
    " SET @savepoints_log = CONCAT(@savepoints_log,"
    " JSON_ARRAY(@savepoints_at, @savepoints_code, @savepoints_text), ',');"
    " ELSE RESIGNAL; END IF; END;"
    " DECLARE CONTINUE HANDLER FOR SQLWARNING BEGIN GET DIAGNOSTICS CONDITION 1 @savepoints_code = MYSQL_ERRNO;"
    f" IF @savepoints_code IN {_ALTERED} THEN SET @savepoints_altered = @savepoints_at; END IF; END;"
)
_BEFORE = "SET @savepoints_at = NULL, @savepoints_row = NULL, @savepoints_log = '', @savepoints_altered = NULL"

#: Forget what the variables hold.
AFTER = (
    "SET @savepoints_at = NULL, @savepoints_row = NULL, @savepoints_log = NULL, @savepoints_altered = NULL,"
    " @savepoints_code = NULL, @savepoints_text = NULL"
)


class Refusal(NamedTuple):
    """What the server said of a row."""

    fault: Fault
    code: int
    text: str


class Sender:
    """Sends the rows of batches.

    Args:
        connection: In whose transaction.
        capabilities: The row of the database.
        table: The table's name, for messages.
        most: How many bytes the server takes in one statement.
    """

    def __init__(self, connection: Connection, capabilities: Capabilities, table: str, most: int) -> None:
        self._connection = connection
        self._capabilities = capabilities
        self._what = f"INSERT INTO {table}"
        self.most = most
        self.used = False

    def ask(self, sql: str, parameters: Any = None) -> list[Any]:
        """Send a statement; the rows of its answer."""
        with driver_work(self._connection, self._what) as proxy:
            cursor = proxy.cursor()
            try:
                cursor.execute(sql) if parameters is None else cursor.execute(sql, parameters)
                return list(cursor.fetchall()) if cursor.description else []
            finally:
                cursor.close()

    def send(self, head: str, lines: list[str], suspects: set[int]) -> dict[int, Refusal]:
        """Send rows; those that were refused, by index.

        Args:
            head: INSERT INTO ... VALUES.
            lines: The rows, written.
            suspects: Those that are likely to be refused. More may be found, and are added.
        """
        refused: dict[int, Refusal] = {}
        at, stops = 0, 0
        while at < len(lines):
            stop = self.fitting(lines, at, suspects)
            alone = sorted(one for one in suspects if at <= one < stop)
            try:
                if alone:
                    refused |= self._compound(head, lines, at, stop, alone)
                else:
                    self._plain(head, lines, at, stop)
            except DBAPIError as error:
                at = self._stopped(error, at, stop, alone, suspects, refused)
                stops += 1
                if stops > STOPS:  # nobody has foreseen them: the more there are, the more rows stand alone
                    behind = 1 + min((one for one in suspects if one >= at), default=at)
                    suspects.update(range(behind, behind + (1 << min(stops - STOPS, 10))))
            else:
                at = stop
        return refused

    def first_refused(self, head: str, lines: list[str]) -> tuple[int, int | None]:
        """Send rows as one INSERT: how many went in, or none and which one was refused."""
        stop = self.fitting(lines, 0, set())
        try:
            self._plain(head, lines, 0, stop)
        except DBAPIError as error:
            self.refusal(error)
            row = int(self._position()[1] or 1)
            return 0, row - 1 if row <= stop else 0
        return stop, None

    def refusal(self, error: DBAPIError) -> Refusal:
        """What an error says against a row; one that is no row's fault passes."""
        cause = error if error.orig is None else error.orig
        fault = self._capabilities.fault(cause)
        if fault is None or error.connection_invalidated:
            raise error
        code, text = (*cause.args, "")[:2]
        return Refusal(fault, code if isinstance(code, int) else 0, str(text))

    def fitting(self, lines: list[str], start: int, suspects: set[int]) -> int:
        """Where to end, so that rows and bytes are not too many for one statement."""
        stop = min(start + ROWS, len(lines))
        most = min(self.most, BYTES)
        size = sum(map(len, lines[start:stop]))
        if size * 4 + 1000 * len(suspects) < most:  # a character has at most four bytes
            return stop
        size = 2000
        for at in range(start, stop):
            size += len(lines[at].encode(errors="surrogateescape")) + 1 + (1000 if at in suspects else 0)
            if size > most and at > start:
                return at
        return stop

    def _plain(self, head: str, lines: list[str], at: int, stop: int) -> None:
        with driver_work(self._connection, self._what) as proxy:
            cursor = proxy.cursor()
            try:
                cursor.execute(head + ",".join(lines[at:stop]))
                count = cursor.rowcount
                if self._capabilities.warned(driver_connection(self._connection.dialect, proxy)):
                    cursor.execute("SHOW WARNINGS")
                    if any(one[1] in _ALTERED for one in cursor.fetchall()):
                        raise _altered()
            finally:
                cursor.close()
        _check(count, stop - at)

    def _compound(self, head: str, lines: list[str], at: int, stop: int, alone: list[int]) -> dict[int, Refusal]:
        self.used = True
        sql = f"{_COMPOUND}{''.join(_statements(head, lines, at, stop, alone))} END"
        with driver_work(self._connection, self._what) as proxy:
            cursor = proxy.cursor()
            try:
                cursor.execute(_BEFORE)
                cursor.execute(sql)
                count = cursor.rowcount
                cursor.execute("SELECT @savepoints_log, @savepoints_altered")
                log, altered = cursor.fetchall()[0]
                if altered is not None:
                    raise _altered()
            finally:
                cursor.close()
        refused = self._read(log)
        _check(count, stop - at - len(refused))
        return refused

    def _read(self, log: Any) -> dict[int, Refusal]:
        found: dict[int, Refusal] = {}
        for at, code, text in json.loads(f"[{str(log).rstrip(',')}]"):
            fault = self._fault(int(code), text)
            assert fault is not None  # the handler has passed on what is not
            found[int(at)] = Refusal(fault, int(code), text)
        return found

    def _fault(self, code: int, text: str) -> Fault | None:
        return self._capabilities.fault(_Told(code, text))

    def _stopped(
        self,
        error: DBAPIError,
        start: int,
        stop: int,
        alone: list[int],
        suspects: set[int],
        refused: dict[int, Refusal],
    ) -> int:
        """Which row an INSERT failed at, and where to go on. An error that is no row's fault passes."""
        refusal = self.refusal(error)
        told, row, log = self._position()
        at = start
        if alone:
            at = start if told is None else int(told)
            refused |= self._read(log)
        first = next((one for one in alone if one >= at), stop)  # where the run that failed ends
        bad = at + int(row or 1) - 1
        if at in suspects or (bad == at and first - at <= 1):
            refused[at] = refusal
            return at + 1
        if not at <= bad < first or not row:
            suspects.update(range(at, first))  # it does not tell which: each by itself
        suspects.add(bad)
        return at

    def _position(self) -> Any:
        """Where a compound statement was, the number of the row in the INSERT that failed, and the log."""
        with driver_work(self._connection, "where the INSERT stopped") as proxy:
            cursor = proxy.cursor()
            try:
                cursor.execute("GET DIAGNOSTICS CONDITION 1 @savepoints_row = ROW_NUMBER")
                cursor.execute("SELECT @savepoints_at, @savepoints_row, @savepoints_log")
                return cursor.fetchall()[0]
            finally:
                cursor.close()


class _Told(Exception):
    """An error as a driver would raise it."""


def _statements(head: str, lines: list[str], at: int, stop: int, alone: list[int]) -> Iterator[str]:
    """The runs of rows, and those that stand alone between them."""
    for one in (*alone, stop):
        if one > at:
            yield f"SET @savepoints_at = {at}, alone = FALSE; {head}{','.join(lines[at:one])};"
        if one < stop:
            yield f"SET @savepoints_at = {one}, alone = TRUE; {head}{lines[one]};"
        at = one + 1


def _check(count: int, sent: int) -> None:
    if count != sent:
        raise errors.LoadMismatch(f"{sent} rows were sent, and the server has counted {count}")


def _altered() -> errors.LoadMismatch:
    return errors.LoadMismatch(
        "the server warned that it had altered a value to make it fit: the types of SQLAlchemy's Table are not its own"
    )
