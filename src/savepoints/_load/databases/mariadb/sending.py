"""Sends rows in their order: as one INSERT, or where rows among them may be refused, as one compound statement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from savepoints import errors
from savepoints._core.dialects import driver_connection
from savepoints._core.raw import driver_work
from savepoints._databases import Capabilities, Fault
from savepoints._databases.mariadb_faults import FAULTS, named

#: So many rows are sent at once; and so many bytes, where the server takes more.
ROWS, BYTES = 2000, 4 << 20
#: So many rows stand alone in one statement: the server takes longer for each the more there are.
ALONE = 100
#: So many bytes of a statement are not values; and so often those of a row are in it that may be updated.
SPARE, COPIES = 4000, 3
#: A batch stops so often at a row, then others behind it are suspected as well: each stop costs all those behind it.
STOPS = 4

# Note [A compound statement]
# `BEGIN NOT ATOMIC ... END` ("Using Compound Statements Outside of Stored Programs" of the manual) sends many
# statements in one round trip, in order. Rows that are likely to be refused stand alone, and the handler notes why and
# goes on; those between them go in by one INSERT for each run. Where such a run fails, the handler passes the error on,
# the statement ends there, and ROW_NUMBER (MariaDB 10.7) tells which row it was: all before the run are in, and none of
# the run, for InnoDB undoes a refused statement alone. The handler only keeps what is a row's fault: after a deadlock
# to go on would be to go on in another transaction. Some numbers are notes as well as errors, and one handler gets
# both: ROW_COUNT is below zero after an error. Notes stand before it, also those of what the server computes, so that
# the error is the last condition. Of many notes so few are kept that it is not among them: then nobody knows the row.
_CODES = ", ".join(map(str, FAULTS))
_ALTERED = (1264, 1265, 1292, 1366, 1406)
_COMPOUND = (
    "BEGIN NOT ATOMIC DECLARE alone BOOL DEFAULT FALSE;"
    f" DECLARE CONTINUE HANDLER FOR {_CODES}, SQLSTATE '45000', SQLWARNING BEGIN DECLARE many, count INT;"
    " GET DIAGNOSTICS many = NUMBER, count = ROW_COUNT;"
    " IF count < 0 THEN"
    " GET DIAGNOSTICS CONDITION many @savepoints_code = MYSQL_ERRNO, @savepoints_text = MESSAGE_TEXT;"
    f" IF alone AND (@savepoints_code IN ({_CODES}) OR @savepoints_code >= 5000) THEN"
    " SET @savepoints_log = CONCAT(@savepoints_log,"
    " JSON_ARRAY(@savepoints_at, @savepoints_code, @savepoints_text), ',');"
    " ELSE RESIGNAL; END IF;"
    " ELSE WHILE many > 0 DO"
    " GET DIAGNOSTICS CONDITION many @savepoints_code = MYSQL_ERRNO, @savepoints_text = MESSAGE_TEXT;"
    f" IF @savepoints_code IN {_ALTERED} THEN SET @savepoints_notes = CONCAT(@savepoints_notes,"
    " JSON_ARRAY(@savepoints_code, @savepoints_text), ','); END IF;"
    " SET many = many - 1; END WHILE; END IF; END;"
)
_BEFORE = (
    "SET @savepoints_at = NULL, @savepoints_log = '', @savepoints_notes = '', @savepoints_there = '',"
    " @savepoints_code = NULL, @savepoints_row = NULL"
)
_ANSWER = "SELECT @savepoints_log, @savepoints_there, @savepoints_notes"
_POSITION = "SELECT @savepoints_log, @savepoints_there, @savepoints_at, @savepoints_row, @savepoints_code"

#: Forget what the variables hold.
AFTER = (
    "SET @savepoints_at = NULL, @savepoints_log = NULL, @savepoints_notes = NULL, @savepoints_there = NULL,"
    " @savepoints_code = NULL, @savepoints_row = NULL, @savepoints_text = NULL, @savepoints_last = NULL"
)


class Into(NamedTuple):
    """Where rows go: INSERT INTO ... VALUES, and the columns that they have values for."""

    sql: str
    names: frozenset[str]


class Refusal(NamedTuple):
    """What the server said of a row."""

    fault: Fault
    code: int
    text: str


@dataclass(slots=True)
class Sent:
    """What became of rows, by index: those that were refused, and those that were there and were updated."""

    refused: dict[int, Refusal] = field(default_factory=dict)
    there: set[int] = field(default_factory=set)


#: What is sent for a row that stands alone.
Alone = Callable[[int], str]


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

    def send(self, into: Into, lines: list[str], suspects: set[int], alone: Alone | None = None) -> Sent:
        """Send rows.

        Args:
            into: Where they go.
            lines: The rows, written.
            suspects: Those that are likely to be refused. More may be found, and are added.
            alone: What is sent for one of them, by its index; the INSERT of the row if left out.
        """
        sent = Sent()
        by_itself = alone or (lambda at: into.sql + lines[at])
        at, stops = 0, 0
        while at < len(lines):
            stop = self.fitting(lines, at, suspects, 1 if alone is None else COPIES)
            some = sorted(one for one in suspects if at <= one < stop)
            if len(some) > ALONE:
                stop = some[ALONE]
                some = some[:ALONE]
            try:
                if some:
                    self._compound(_Part(into, lines, at, stop, some), by_itself, sent)
                else:
                    self._plain(into, lines, at, stop)
            except DBAPIError as error:
                at = self._stopped(error, at, stop, some, suspects, sent, plain=alone is None)
                stops += 1
                if stops > STOPS:  # nobody has foreseen them: the more there are, the more rows stand alone
                    behind = 1 + min((one for one in suspects if one >= at), default=at)
                    suspects.update(range(behind, behind + (1 << min(stops - STOPS, 10))))
            else:
                at = stop
        return sent

    def refusal(self, error: DBAPIError) -> Refusal:
        """What an error says against a row; one that is no row's fault passes."""
        cause = error if error.orig is None else error.orig
        fault = self._capabilities.fault(cause)
        if fault is None or error.connection_invalidated:
            raise error
        code, text = (*cause.args, "")[:2]
        return Refusal(fault, code if isinstance(code, int) else 0, str(text))

    def fitting(self, lines: list[str], start: int, suspects: set[int], copies: int) -> int:
        """Where to end, so that rows and bytes are not too many for one statement; suspects are there in copies."""
        stop = min(start + ROWS, len(lines))
        most = min(self.most, BYTES)
        size = sum(map(len, lines[start:stop]))
        if size * 4 * copies + 1000 * len(suspects) < most:  # a character has at most four bytes
            return stop
        size = SPARE
        for at in range(start, stop):
            row = len(lines[at].encode(errors="surrogateescape")) + 1
            size += row * copies + 1000 if at in suspects else row
            if size > most and at > start:
                return at
        return stop

    def _plain(self, into: Into, lines: list[str], at: int, stop: int) -> None:
        with driver_work(self._connection, self._what) as proxy:
            cursor = proxy.cursor()
            try:
                cursor.execute(into.sql + ",".join(lines[at:stop]))
                count = cursor.rowcount
                if self._capabilities.warned(driver_connection(self._connection.dialect, proxy)):
                    cursor.execute("SHOW WARNINGS")
                    _look_at((one[1:3] for one in cursor.fetchall()), into)
            finally:
                cursor.close()
        _check(count, stop - at)

    def _compound(self, part: _Part, by_itself: Alone, sent: Sent) -> None:
        self.used = True
        sql = f"{_COMPOUND}{''.join(part.statements(by_itself))} END"
        with driver_work(self._connection, self._what) as proxy:
            cursor = proxy.cursor()
            try:
                cursor.execute(_BEFORE)
                cursor.execute(sql)
                count = cursor.rowcount
                cursor.execute(_ANSWER)
                log, there, notes = cursor.fetchall()[0]
            finally:
                cursor.close()
        _look_at(json.loads(f"[{str(notes).rstrip(',')}]"), part.into)
        refused, updated = self._read(log), _numbers(there)
        if not updated:  # else it depends on the driver what is counted
            _check(count, part.stop - part.at - len(refused))
        sent.refused |= refused
        sent.there |= updated - refused.keys()

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
        self, error: DBAPIError, start: int, stop: int, alone: list[int], suspects: set[int], sent: Sent, *, plain: bool
    ) -> int:
        """Which row an INSERT failed at, and where to go on. An error that is no row's fault passes.

        A row that was the only one of its INSERT is known to be refused if nothing else would be sent for it (plain).
        """
        refusal = self.refusal(error)
        log, there, told, row, code = self._position()
        at = start
        if alone:
            at = start if told is None else int(told)
            refused = self._read(log)
            sent.refused |= refused
            sent.there |= {one for one in _numbers(there) if one < at} - refused.keys()
        first = next((one for one in alone if one >= at), stop)  # where the run that failed ends
        bad = at + int(row or 1) - 1
        if at in suspects or (plain and bad == at and first - at <= 1):
            sent.refused[at] = refusal
            return at + 1
        if not at <= bad < first or not row or int(code) != refusal.code:
            suspects.update(range(at, first))  # it does not tell which: each by itself
            return at
        suspects.add(bad)
        return at

    def _position(self) -> Any:
        """The log of a compound statement and where it was, the number of the row in the INSERT that failed."""
        with driver_work(self._connection, "where the INSERT stopped") as proxy:
            cursor = proxy.cursor()
            try:
                cursor.execute("GET DIAGNOSTICS @savepoints_last = NUMBER")
                cursor.execute(
                    "GET DIAGNOSTICS CONDITION @savepoints_last"
                    " @savepoints_row = ROW_NUMBER, @savepoints_code = MYSQL_ERRNO"
                )
                cursor.execute(_POSITION)
                return cursor.fetchall()[0]
            finally:
                cursor.close()


class _Told(Exception):
    """An error as a driver would raise it."""


class _Part(NamedTuple):
    """Rows of one compound statement, and which of them stand alone."""

    into: Into
    lines: list[str]
    at: int
    stop: int
    alone: list[int]

    def statements(self, by_itself: Alone) -> Iterator[str]:
        """The runs of rows, and those that stand alone between them."""
        at = self.at
        for one in (*self.alone, self.stop):
            if one > at:
                rows = ",".join(self.lines[at:one])
                yield f"SET @savepoints_at = {at}, alone = FALSE; {self.into.sql}{rows};"
            if one < self.stop:
                yield f"SET @savepoints_at = {one}, alone = TRUE; {by_itself(one)};"
            at = one + 1


def _numbers(told: Any) -> set[int]:
    return {int(one) for one in str(told or "").split(",") if one}


def _look_at(notes: Iterable[Sequence[Any]], into: Into) -> None:
    """The server tells by a note that it has altered a value; what it computes itself, it may round."""
    if any(code in _ALTERED and named(code, text).column in into.names for code, text in notes):
        raise errors.LoadMismatch("the server noted that it had altered a value to make it fit, which was not foreseen")


def _check(count: int, sent: int) -> None:
    if count != sent:
        raise errors.LoadMismatch(f"{sent} rows were sent, and the server has counted {count}")
