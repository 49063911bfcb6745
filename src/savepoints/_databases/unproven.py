"""Rows from documentation alone, for databases that nobody has run here: not proven.

Sources: MySQL's manual, "Statements That Cause an Implicit Commit", "InnoDB Error Handling" and "Server Error Message
Reference"; TiDB's, "SAVEPOINT" and "Error Codes"; CockroachDB's, "Nested transactions" and "Transaction Retry Error
Reference"; YugabyteDB's, "SAVEPOINT" and "Transaction error codes". Where they are silent, the worse is assumed: what
is not known is refused, and an error that may have ended the transaction has.
"""

from __future__ import annotations

from dataclasses import replace

from savepoints._databases import mariadb, postgresql
from savepoints._databases.capabilities import Aftermath, Capabilities, Kind, RetryFrom, Rule

_RETRY = {8002, 8022, 8028, 9007}  # TiDB: a conflict with another transaction


_NO_PREPARE = "PREPARE TRANSACTION is not known to work there"


def _mysql_aftermath(driver_connection: object, error: BaseException) -> Aftermath | None:
    """1206, a full lock table, ends all; 1205 does where innodb_rollback_on_timeout is on, so the server is asked."""
    number = mariadb.number(error)
    if number == 1206:
        return Aftermath.LOST
    return None if number == 1205 else mariadb.aftermath(driver_connection, error)


def _tidb_aftermath(driver_connection: object, error: BaseException) -> Aftermath:
    if mariadb.number(error) in _RETRY:
        return Aftermath.LOST
    return mariadb.aftermath(driver_connection, error) or Aftermath.LOST


def _tidb_kind(error: BaseException) -> Kind:
    return Kind.SERIALIZATION if mariadb.number(error) in _RETRY else mariadb.kind(error)


def _mysql(row: Capabilities) -> Capabilities:
    return replace(
        row,
        database="mysql",
        proven=False,
        aftermath=_mysql_aftermath,
        in_transaction="SELECT NOT @@innodb_rollback_on_timeout",
        provoke=mariadb.signal,
        two_phase="nobody has tried XA transactions with savepoints there",
        undo_unprepared=(),
        notes=("from the documentation; a MariaDB server behind this dialect has MariaDB's row",),
    )


def _tidb(row: Capabilities) -> Capabilities:
    return replace(
        row,
        database="tidb",
        proven=False,
        aftermath=_tidb_aftermath,
        kind=_tidb_kind,
        errors={**row.errors, **{str(number): Rule(Kind.SERIALIZATION, RetryFrom.TRANSACTION) for number in _RETRY}},
        in_transaction=None,
        provoke=None,
        begin_read_only=None,
        two_phase="TiDB has no XA transactions",
        undo_unprepared=(),
        notes=("from the documentation; SAVEPOINT needs 6.2 and a pessimistic transaction",),
    )


def _cockroachdb(row: Capabilities) -> Capabilities:
    return replace(
        row,
        database="cockroachdb",
        proven=False,
        two_phase=_NO_PREPARE,
        transactional_ddl="not known",
        settings="not known",
        read_only=None,
        deferrable=None,
        notes=(
            "from the documentation; after DDL, and after a retry error (40001), a rollback to a savepoint is refused: "
            "all is lost then, and the whole transaction has to run again",
        ),
    )


def _yugabytedb(row: Capabilities) -> Capabilities:
    return replace(
        row,
        database="yugabytedb",
        proven=False,
        two_phase=_NO_PREPARE,
        transactional_ddl="not known",
        settings="not known",
        read_only=None,
        deferrable=None,
        notes=("from the documentation; connected with the PostgreSQL dialect it has PostgreSQL's row",),
    )


ROWS = (
    *map(_mysql, mariadb.ROWS),
    *map(_tidb, mariadb.ROWS),
    *map(_cockroachdb, postgresql.ROWS),
    *map(_yugabytedb, postgresql.ROWS),
)
