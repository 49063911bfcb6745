"""Where test bodies run: one row per database, driver and way of connecting.

This is the only place of the tests that knows databases by name (beside `tests/servers.py`, which starts
them). A test says what it needs: `@pytest.mark.needs("failed_state")`, or `lacks(...)`; further
capabilities of every site are its face ("sync", "async") and its style ("core", "orm").
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ForeignKeyConstraint, String
from sqlalchemy.ext.compiler import compiles

from tests.harness.resets import Reset

Face = Literal["sync", "async"]
Style = Literal["core", "orm"]

CAPABILITIES = {
    "sync": "the sync face",
    "async": "the async face",
    "core": "targets are connections",
    "orm": "targets are sessions",
    "failed_state": "after a refused statement the server takes only a rollback",
    "transactional_ddl": "CREATE TABLE in a transaction is undone by a rollback",
    "implicit_commit": "CREATE TABLE commits the transaction that it stands in",
    "deferred": "a foreign key may be checked at COMMIT only",
    "deadlock_ends_all": "the loser of a deadlock has lost its whole transaction, savepoints and all",
    "whole_rollback": "INSERT OR ROLLBACK ends the whole transaction",
    "interrupt": "the driver's connection has interrupt(), which ends the whole transaction",
    "full": "PRAGMA max_page_count makes the disk full",
    "immediate": "BEGIN IMMEDIATE takes the write lock",
    "one_writer": "a second writer is told that the database is busy",
    "many_writers": "two transactions can write at a time, and deadlock",
    "isolation_levels": "READ COMMITTED, REPEATABLE READ and SERIALIZABLE, per transaction",
    "serialization_failures": "a conflict is an error with a SQLSTATE of its own: at REPEATABLE READ, or at COMMIT",
    "read_only": "SET TRANSACTION READ ONLY, DEFERRABLE",
    "read_only_begin": "START TRANSACTION READ ONLY",
    "read_only_setting": "a setting makes a connection refuse writes",
    "begins_with_tables": "the server says that it is in a transaction when a table was used in it, not before",
    "transaction_timeout": "a setting ends a transaction that takes too long",
    "settings_undone": "SET in a savepoint is undone with it",
    "untyped": "ordinary tables take a value of any type and length into any column",
    "keys_reused": "generated keys are given again after a rollback",
    "kill": "another connection can end this one: pg_terminate_backend",
    "network": "reached through TCP: the fixture `proxy` can cut the connection",
    "commit_status": "the outcome of a lost COMMIT can be asked for",
    "two_phase": "a transaction can be prepared: PREPARE TRANSACTION, XA PREPARE",
    "pipeline": "the driver has a pipeline mode",
    "cursors": "a result can be streamed while other statements are sent",
    "loader": "loading has an algorithm of its own, not only the cautious one",
    "lenient": "ordinary columns take some values of another type, and keep something near",
    "clients_numbers": "the driver hands an error through whose number is one of the client's own",
    "several_statements": "the driver sends a text of several statements as it stands",
    "one_at_a_time": "while a result is streamed, the connection takes no statement of the code",
    "subtransactions": "pg_stat_get_backend_subxact tells how many savepoints have written",
    "driver_begins": "the driver itself sends BEGIN, and only before INSERT, UPDATE or DELETE",
    "no_begin": "plain SQLAlchemy autocommits here: neither it nor the driver sends BEGIN",
    "always_in_transaction": "the driver's connection says it is in a transaction at all times",
}

SQLITE = {
    "transactional_ddl", "whole_rollback", "interrupt", "full", "immediate", "one_writer", "keys_reused", "deferred",
    "read_only_setting", "untyped", "loader",
}  # fmt: skip
# PostgreSQL's drivers differ in what they hand through, and its versions in what they tell.
POSTGRESQL = {
    "failed_state", "transactional_ddl", "many_writers", "isolation_levels", "read_only", "settings_undone",
    "kill", "network", "commit_status", "two_phase", "deferred", "cursors", "serialization_failures",
}  # fmt: skip
MARIADB = {
    "implicit_commit", "many_writers", "isolation_levels", "kill", "network", "deadlock_ends_all",
    "begins_with_tables", "read_only_begin", "one_at_a_time", "two_phase", "loader", "lenient",
}  # fmt: skip


# Statements that tests need in the words of each database; `:id` is a connection's own number on its server.
SQLITE_SQL = {"set": "PRAGMA cache_size = 77", "shown": "PRAGMA cache_size"}
POSTGRESQL_SQL = {
    "own id": "SELECT pg_backend_pid()",
    "process": "SELECT pg_backend_pid()",
    "kill": "SELECT pg_terminate_backend(:id)",
    "alive": "SELECT count(*) FROM pg_stat_activity WHERE pid = :id",
    "kill itself": "SELECT pg_terminate_backend(pg_backend_pid())",
    "waits": "SELECT count(*) FROM pg_locks WHERE pid = :id AND NOT granted",
    "sleep": "SELECT pg_sleep(60)",
    "running": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = :query",
    "isolation": "SHOW transaction_isolation",
    "few": "CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 1",
    "many again": "DROP ROLE few",
    "outlives us": "SET LOCAL deadlock_timeout = '10s'",  # in a deadlock: who looks for it first is its victim
}
MARIADB_SQL = {
    "own id": "SELECT CONNECTION_ID()",
    "process": "SELECT @@pid_file",
    "kill": "KILL :id",
    "alive": "SELECT count(*) FROM information_schema.processlist WHERE id = :id",
    "kill itself": "KILL CONNECTION_ID()",
    "waits": (  # anybody: innodb_trx would know whom, and is not looked up anew for who asks often
        "SELECT variable_value + 0 FROM information_schema.global_status"
        " WHERE variable_name = 'Innodb_row_lock_current_waits' AND :id > 0"
    ),
    "sleep": "SELECT SLEEP(60)",
    "running": "SELECT count(*) FROM information_schema.processlist WHERE info = :query",
    "isolation": "SELECT LOWER(REPLACE(@@tx_isolation, '-', ' '))",
    "few": (
        "BEGIN NOT ATOMIC CREATE USER few@'127.0.0.1' IDENTIFIED BY 'few'; GRANT ALL ON test.* TO few@'127.0.0.1';"
        " SET GLOBAL max_connections = 10; END"
    ),
    "many again": "BEGIN NOT ATOMIC SET GLOBAL max_connections = 100; DROP USER few@'127.0.0.1'; END",
    "set": "SET max_statement_time = 77",
    "shown": "SELECT @@max_statement_time",
    "outlives us": "INSERT INTO parent (id) SELECT seq FROM seq_1_to_200",  # the victim is who has written less
    "no foreign keys": "SET foreign_key_checks = OFF",
}


def sqlite_in_transaction(connection: Any) -> bool:
    try:
        return bool(connection.in_transaction)
    except ValueError:  # aiosqlite: closed
        return False
    except sqlite3.ProgrammingError:  # closed, or just being closed
        return False


def psycopg_in_transaction(connection: Any) -> bool:
    return connection.info.transaction_status.name in ("ACTIVE", "INTRANS", "INERROR")


def psycopg2_in_transaction(connection: Any) -> bool:
    return not connection.closed and connection.info.transaction_status != 0  # IDLE


def asyncpg_in_transaction(connection: Any) -> bool:
    return not connection.is_closed() and connection.is_in_transaction()


def pymysql_in_transaction(connection: Any) -> bool:
    return connection.open and bool(connection.server_status & 1)


def asyncmy_in_transaction(connection: Any) -> bool:
    last = connection if connection._result is None else connection._result  # its own word is stale after a statement
    return connection.connected and bool(last.server_status & 1)


def mysqlclient_in_transaction(connection: Any) -> bool:
    if not connection.open:
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@in_transaction")
        return bool(cursor.fetchone()[0])


def sqlite_on_connect(connection: Any) -> None:
    """Foreign keys as on other databases; no waiting for the disk, which the tests never pull out."""
    explicit = getattr(connection, "autocommit", None) is False
    if explicit:  # a PRAGMA for foreign keys does nothing inside a transaction
        connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()
    if explicit:
        connection.autocommit = False


_PUBLIC = "'public'::regnamespace"
_IN_PUBLIC = f"IN (SELECT oid FROM pg_class WHERE relnamespace = {_PUBLIC})"

#: The rows of the catalog that DDL writes, with the numbers of the transactions that wrote them.
_CATALOG = {
    "pg_class": f"relnamespace = {_PUBLIC}",
    "pg_attribute": f"attrelid {_IN_PUBLIC}",
    "pg_attrdef": f"adrelid {_IN_PUBLIC}",
    "pg_constraint": f"connamespace = {_PUBLIC}",
    "pg_trigger": f"tgrelid {_IN_PUBLIC}",
    "pg_policy": f"polrelid {_IN_PUBLIC}",
    "pg_rewrite": f"ev_class {_IN_PUBLIC}",
    "pg_proc": f"pronamespace = {_PUBLIC}",
    "pg_type": f"typnamespace = {_PUBLIC}",
    "pg_namespace": f"oid = {_PUBLIC}",
}

POSTGRESQL_RESET = Reset(
    alone="SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    look=[
        " UNION ALL ".join(
            f"SELECT '{catalog}', count(*), string_agg(xmin::text, ' ' ORDER BY ctid) FROM {catalog} WHERE {which}"
            for catalog, which in _CATALOG.items()
        )
    ],
    anew=["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"],
    clear=[
        "DELETE FROM child",
        "DELETE FROM parent",
        "DELETE FROM item",
        f"SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = {_PUBLIC}",
    ],
)

MARIADB_RESET = Reset(
    alone="BEGIN NOT ATOMIC"
    " DECLARE CONTINUE HANDLER FOR 1094 BEGIN END;"  # it has gone by itself
    " FOR other IN (SELECT id FROM information_schema.processlist WHERE user = 'root' AND id <> CONNECTION_ID())"
    " DO EXECUTE IMMEDIATE CONCAT('KILL ', other.id); END FOR;"
    " END",
    look=[
        "SHOW FULL TABLES",
        "SHOW CREATE TABLE item",
        "SHOW CREATE TABLE parent",
        "SHOW CREATE TABLE child",
        "SHOW TRIGGERS",
        "SELECT name FROM mysql.proc WHERE db = DATABASE()",
    ],
    anew=["DROP DATABASE test", "CREATE DATABASE test", "USE test"],
    clear=[  # only TRUNCATE lets the numbers begin again; it is not cheap, and is left out where they have not begun
        "DELETE FROM child",
        "DELETE FROM parent",
        "DELETE FROM item",
        "BEGIN NOT ATOMIC SET foreign_key_checks = 0;"
        " FOR used IN (SELECT table_name AS t FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND auto_increment > 1)"
        " DO EXECUTE IMMEDIATE CONCAT('TRUNCATE ', used.t); END FOR;"
        " SET foreign_key_checks = 1; END",
    ],
)


#: Drivers, by face, of a database where DDL commits: for sessions on several databases.
IMPLICIT_COMMIT_DRIVERS: Mapping[Face, str] = {"sync": "mariadb+pymysql", "async": "mariadb+asyncmy"}

#: Text; MariaDB wants to know how long it may be.
NAME = String().with_variant(String(200), "mariadb")


@compiles(ForeignKeyConstraint, "mariadb")
def _not_deferred(constraint: ForeignKeyConstraint, compiler: Any, **options: Any) -> str:
    """MariaDB has no word for a check that is put off."""
    constraint.deferrable = constraint.initially = None
    sql: str = compiler.visit_foreign_key_constraint(constraint, **options)
    constraint.deferrable, constraint.initially = True, "DEFERRED"
    return sql


@dataclass(frozen=True)
class Site:
    name: str
    face: Face
    driver: str  # of the URL: dialect+driver
    plain_driver: str  # the sync driver of the second connection
    server: str | None  # the fixture that starts the server; None: a file of the test's own
    has: Iterable[str]
    in_transaction: Callable[[Any], bool]  # asked of the driver's own connection
    on_connect: Callable[[Any], None] = lambda connection: None  # given SQLAlchemy's DBAPI connection
    reset: Reset | None = None  # how the database is emptied before a test; None: it is new
    sql: Mapping[str, str] = field(default_factory=dict)  # statements in the words of the database, see above
    lock_all: str | None = None  # a statement that is refused while anybody holds a lock
    connect_args: Mapping[str, Any] = field(default_factory=dict)
    python: tuple[int, int] = (3, 11)  # the site exists from this Python on
    slow: bool = False  # left out where CI repeats the suite: drivers beside another one of the same database
    module: str = "sqlite3"  # the driver's own; where it is missing, this installs it:
    install: str = "uv sync"

    def capabilities(self, style: Style) -> set[str]:
        return {*self.has, self.face, style}


SITES = [
    Site(
        name="sqlite3",
        face="sync",
        driver="sqlite+pysqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"driver_begins"},
        in_transaction=sqlite_in_transaction,
        on_connect=sqlite_on_connect,
        sql=SQLITE_SQL,
        lock_all="BEGIN EXCLUSIVE",
    ),
    Site(
        name="sqlite3-isolation-none",
        face="sync",
        driver="sqlite+pysqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"no_begin"},
        in_transaction=sqlite_in_transaction,
        on_connect=sqlite_on_connect,
        sql=SQLITE_SQL,
        lock_all="BEGIN EXCLUSIVE",
        connect_args={"isolation_level": None},
    ),
    Site(
        name="sqlite3-autocommit-false",
        face="sync",
        driver="sqlite+pysqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"always_in_transaction"},
        in_transaction=lambda connection: False,  # it always is; what counts is that it holds no lock
        on_connect=sqlite_on_connect,
        sql=SQLITE_SQL,
        lock_all="BEGIN EXCLUSIVE",
        connect_args={"autocommit": False},
        python=(3, 12),
    ),
    Site(
        name="aiosqlite",
        face="async",
        driver="sqlite+aiosqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"driver_begins"},
        in_transaction=sqlite_in_transaction,
        on_connect=sqlite_on_connect,
        sql=SQLITE_SQL,
        lock_all="BEGIN EXCLUSIVE",
    ),
    Site(
        name="psycopg",
        face="sync",
        driver="postgresql+psycopg",
        plain_driver="postgresql+psycopg",
        server="postgres",
        has=POSTGRESQL | {"pipeline", "subtransactions", "transaction_timeout", "loader"},
        in_transaction=psycopg_in_transaction,
        reset=POSTGRESQL_RESET,
        sql=POSTGRESQL_SQL,
    ),
    Site(
        name="psycopg-async",
        face="async",
        driver="postgresql+psycopg",
        plain_driver="postgresql+psycopg",
        server="postgres",
        has=POSTGRESQL | {"pipeline", "subtransactions", "transaction_timeout", "loader"},
        in_transaction=psycopg_in_transaction,
        reset=POSTGRESQL_RESET,
        sql=POSTGRESQL_SQL,
    ),
    Site(
        name="asyncpg",
        face="async",
        driver="postgresql+asyncpg",
        plain_driver="postgresql+psycopg",
        server="postgres",
        has=POSTGRESQL | {"subtransactions", "transaction_timeout", "loader"},
        in_transaction=asyncpg_in_transaction,
        reset=POSTGRESQL_RESET,
        sql=POSTGRESQL_SQL,
    ),
    Site(
        name="psycopg2",
        face="sync",
        driver="postgresql+psycopg2",
        plain_driver="postgresql+psycopg",
        server="system_postgres",
        has=POSTGRESQL | {"loader"},
        in_transaction=psycopg2_in_transaction,
        reset=POSTGRESQL_RESET,
        sql=POSTGRESQL_SQL | {"sleep": "SELECT pg_sleep(3)"},  # Ctrl-C waits for its end
        slow=True,
        module="psycopg2",
    ),
    Site(
        name="pymysql",
        face="sync",
        driver="mariadb+pymysql",
        plain_driver="mariadb+pymysql",
        server="mariadb",
        has=MARIADB | {"clients_numbers"},
        in_transaction=pymysql_in_transaction,
        reset=MARIADB_RESET,
        sql=MARIADB_SQL,
        slow=True,
        module="pymysql",
    ),
    Site(
        name="mysqlclient",
        face="sync",
        driver="mariadb+mysqldb",
        plain_driver="mariadb+pymysql",
        server="mariadb",
        has=MARIADB | {"several_statements"},
        in_transaction=mysqlclient_in_transaction,
        reset=MARIADB_RESET,
        sql=MARIADB_SQL | {"sleep": "SELECT SLEEP(3)"},  # Ctrl-C waits for the statement's end
        slow=True,
        module="MySQLdb",
        install="uv sync --extra mysqlclient (it is compiled: apt-get install libmariadb-dev pkg-config gcc)",
    ),
    Site(
        name="asyncmy",
        face="async",
        driver="mariadb+asyncmy",
        plain_driver="mariadb+pymysql",
        server="mariadb",
        has=MARIADB | {"several_statements", "clients_numbers"},
        in_transaction=asyncmy_in_transaction,
        reset=MARIADB_RESET,
        sql=MARIADB_SQL,
        module="asyncmy",
    ),
]

STYLES: list[Style] = ["core", "orm"]


def places(needs: set[str], lacks: set[str]) -> list[tuple[Site, Style]]:
    """The sites and styles where a test with these marks runs."""
    if unknown := (needs | lacks) - CAPABILITIES.keys():
        raise ValueError(f"unknown capabilities: {', '.join(sorted(unknown))}")
    return [
        (site, style)
        for site in SITES
        for style in STYLES
        if sys.version_info >= site.python
        and needs <= site.capabilities(style)
        and not lacks & site.capabilities(style)
    ]
