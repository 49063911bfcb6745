"""MariaDB through PyMySQL, mysqlclient and asyncmy, and what the documentation says of its relatives.

Sources: "SAVEPOINT", "Transactions", "SQL statements that cause an implicit commit" and "MariaDB Error Codes" of the
manual. These drivers switch autocommit off when they connect, so that a transaction is always open and BEGIN is not
sent: inside a transaction it would commit what an application did before. A refused statement is undone alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from savepoints._databases import mariadb_faults
from savepoints._databases.capabilities import (
    Aftermath,
    Capabilities,
    Fault,
    Kind,
    RetryFrom,
    Rule,
    Rules,
    Wire,
    rule_of,
)
from savepoints._databases.mariadb_statements import effect

_AGAIN, _PART = RetryFrom.TRANSACTION, RetryFrom.SAVEPOINT

#: By number. "MariaDB Error Codes" of the manual; what becomes of the transaction: measured.
ERRORS: Rules = {
    "1020": Rule(Kind.SERIALIZATION, _AGAIN),
    "1021": Rule(Kind.FULL, _AGAIN, "make space"),
    "1040": Rule(Kind.UNAVAILABLE, _AGAIN),
    "1045": Rule(Kind.PROGRAMMING),
    "1047": Rule(Kind.UNAVAILABLE, _AGAIN),  # Galera: this node has no quorum
    "1048": Rule(Kind.NOT_NULL),
    "1049": Rule(Kind.PROGRAMMING),
    "1053": Rule(Kind.DISCONNECT, _AGAIN),
    "1054": Rule(Kind.PROGRAMMING),
    "1062": Rule(Kind.UNIQUE),
    "1064": Rule(Kind.PROGRAMMING),
    "1114": Rule(Kind.FULL, _AGAIN, "make space"),
    "1142": Rule(Kind.PROGRAMMING),
    "1146": Rule(Kind.PROGRAMMING),
    "1180": Rule(Kind.UNAVAILABLE, _AGAIN),  # Galera: it was lost while COMMIT was under way
    "1203": Rule(Kind.UNAVAILABLE, _AGAIN),
    "1205": Rule(Kind.LOCK_TIMEOUT, _PART),
    "1213": Rule(Kind.DEADLOCK, _AGAIN),  # also a transaction that Galera has refused or ended for another node's
    "1216": Rule(Kind.FOREIGN_KEY),
    "1217": Rule(Kind.FOREIGN_KEY),
    "1226": Rule(Kind.UNAVAILABLE, _AGAIN),
    "1264": Rule(Kind.DATA),
    "1265": Rule(Kind.DATA),
    "1292": Rule(Kind.DATA),
    "1317": Rule(Kind.INTERRUPTED, _AGAIN, "see who interrupted it"),
    "1364": Rule(Kind.NOT_NULL),
    "1366": Rule(Kind.DATA),
    "1406": Rule(Kind.DATA),
    "1451": Rule(Kind.FOREIGN_KEY),
    "1452": Rule(Kind.FOREIGN_KEY),
    "1586": Rule(Kind.UNIQUE),
    "1614": Rule(Kind.DEADLOCK, _AGAIN),
    "1927": Rule(Kind.DISCONNECT, _AGAIN),
    "1969": Rule(Kind.STATEMENT_TIMEOUT, _PART),
    "2002": Rule(Kind.DISCONNECT, _AGAIN),
    "2003": Rule(Kind.DISCONNECT, _AGAIN),
    "2005": Rule(Kind.DISCONNECT, _AGAIN),
    "2006": Rule(Kind.DISCONNECT, _AGAIN),
    "2013": Rule(Kind.DISCONNECT, _AGAIN),
    "2055": Rule(Kind.DISCONNECT, _AGAIN),
    "3024": Rule(Kind.STATEMENT_TIMEOUT, _PART),
    "3572": Rule(Kind.LOCK_TIMEOUT, _PART),
    "3819": Rule(Kind.CHECK),
    "4025": Rule(Kind.CHECK),
    "4031": Rule(Kind.DISCONNECT, _AGAIN),
}
_NO_SUCH = 1305  # a savepoint, function or procedure

#: The server has rolled the whole transaction back, or the connection is gone.
_LOST = {1213, 1614, 1047, 1180, 3101, *(int(code) for code, rule in ERRORS.items() if rule.kind is Kind.DISCONNECT)}

#: A setting of the server decides: innodb_rollback_on_timeout, innodb_snapshot_isolation; 1206 is a full lock table.
_DEPENDS = {1205, 1206, 1020}

#: What ends the transaction where it is provoked: 1020 as with innodb_snapshot_isolation, without which it is rare.
_SIGNALS_LOSS = {*_LOST, 1020}

#: In a two-phase transaction the server takes no ROLLBACK (1399), and undoes it when it is told to by its name.
_ROLLBACK = "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1399 BEGIN END; ROLLBACK; END"

#: COMMIT was under way when the node lost the cluster: the others may have it.
_UNANSWERED = {1180}

#: "Some non-transactional changed tables couldn't be rolled back"
_NOT_ROLLED_BACK = 1196


def number(error: BaseException) -> int | None:
    """The number of an error, where the server or the driver gave one."""
    found = error.args[0] if error.args else None
    if not isinstance(found, int):
        return None
    return found + 65536 if found < 0 else found  # PyMySQL takes the two bytes for a number with a sign


def code(error: BaseException) -> str | None:
    """The number of the error as text."""
    found = number(error)
    return None if found is None else str(found)


def kind(error: BaseException) -> Kind:
    """By the number of the error."""
    if number(error) == _NO_SUCH:
        return Kind.CONSEQUENCE if "SAVEPOINT" in str(error) else Kind.OTHER
    return rule_of(code(error), ERRORS).kind


def aftermath(driver_connection: Any, error: BaseException) -> Aftermath | None:
    """By the number: an error's answer does not tell whether a transaction is open."""
    found = number(error)
    if found in _LOST:
        return Aftermath.LOST
    return None if found in _DEPENDS else Aftermath.OPEN


def fault(error: BaseException) -> Fault | None:
    """By the number, and what cannot be sent at all by the class of the driver's error."""
    if isinstance(error, UnicodeEncodeError):
        return Fault.ENCODING
    return mariadb_faults.fault(number(error), _text(error))


def named(error: BaseException) -> tuple[str | None, str | None]:
    """Only the text tells."""
    return mariadb_faults.named(number(error), _text(error))


def _text(error: BaseException) -> str:
    return str(error.args[1]) if len(error.args) > 1 else ""


def provoke(cursor: Any, code: str) -> None:
    """The server itself raises it; a transaction is open then, for the statement in its place would have begun one."""
    cursor.execute("IF @@in_transaction = 0 THEN START TRANSACTION; END IF")
    signal(cursor, code, _ROLLBACK)


def signal(cursor: Any, code: str, rollback: str = "ROLLBACK") -> None:
    """The server itself raises it ("SIGNAL" of the manual), after ROLLBACK where the real one ends the transaction."""
    if int(code) in _SIGNALS_LOSS:
        cursor.execute(rollback)
    cursor.execute(f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'provoked by a test'")


def _two_phase_refused(error: BaseException) -> str | None:
    """1235: "This version of MariaDB doesn't yet support 'XA transactions with Galera replication'"."""
    return "Galera has no XA transactions" if number(error) == 1235 else None


def commit_unanswered(error: BaseException) -> bool:
    """Whether COMMIT failed in a way that leaves open what became of it."""
    return number(error) in _UNANSWERED


def _autocommit(driver_connection: Any) -> bool:
    """Each of the drivers keeps what the server has told last."""
    return bool(driver_connection.get_autocommit())


def _result_warned(driver_connection: Any) -> bool:
    """PyMySQL keeps the last answer."""
    result = driver_connection._result
    return result is not None and result.warning_count > 0


def _asked_for_warnings(driver_connection: Any) -> bool:
    """asyncmy has asked for the warnings by itself, to log them, and forgotten the answer that they came with."""
    return driver_connection._result is None


def _client_warned(driver_connection: Any) -> bool:
    return bool(driver_connection.warning_count() > 0)


_TABLES = "tables of an engine without transactions (MyISAM, Aria, MEMORY) keep what was written: a warning tells"


def _closed(driver_connection: Any) -> bool:
    return not driver_connection.open


def _asyncmy_closed(driver_connection: Any) -> bool:
    return not driver_connection.connected


def _row(
    driver: str, package: str, warned: Callable[[Any], bool], closed: Callable[[Any], bool] = _closed
) -> Capabilities:
    return Capabilities(
        database="mariadb",
        driver=driver,
        proven=True,
        wire=Wire(),
        releases=True,
        transactional_ddl="implicit commit",
        failed_statement="undone alone",
        sequences="hole",
        settings="kept",
        aftermath=aftermath,
        kind=kind,
        code=code,
        errors=ERRORS,
        raised_by=(package,),
        zones=False,
        spans=True,
        nans=False,
        named=named,
        provoke=provoke,
        fault=fault,
        closed=closed,
        in_transaction="SELECT @@in_transaction",
        commit_unanswered=commit_unanswered,
        effect=effect,
        driver_autocommit=_autocommit,
        streams_block=True,
        warned=warned,
        warnings="SHOW WARNINGS",
        not_rolled_back=_NOT_ROLLED_BACK,
        begin_read_only="START TRANSACTION READ ONLY",
        two_phase=None,
        two_phase_refused=_two_phase_refused,
        undo_unprepared=("XA END %s", "XA ROLLBACK %s"),
        notes=(_TABLES,),
    )


ROWS = (
    _row("pymysql", "pymysql", _result_warned),
    _row("mysqldb", "MySQLdb", _client_warned),
    _row("asyncmy", "asyncmy", _asked_for_warnings, _asyncmy_closed),
)
