"""Every difference between databases and drivers, as frozen rows.

The only room in which a database has a name. A database that has no row of its own gets the cautious one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL

from savepoints import errors
from savepoints._databases import cautious, classifier, mariadb, postgresql, sqlite, unproven
from savepoints._databases.capabilities import Aftermath, Capabilities, Effect, Fault, Kind, Outcome, RetryFrom
from savepoints._databases.classifier import Classification

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = [
    "ROWS",
    "Aftermath",
    "Capabilities",
    "Classification",
    "Effect",
    "Fault",
    "Kind",
    "Outcome",
    "RetryFrom",
    "capabilities",
    "classify",
    "embedded_file",
    "embedded_url",
    "in_memory",
    "is_retryable",
    "knows_its_server",
]

#: All rows, by the dialect's name and driver.
ROWS = {(row.database, row.driver): row for row in (*sqlite.ROWS, *postgresql.ROWS, *mariadb.ROWS, *unproven.ROWS)}


def capabilities(dialect: Dialect | None) -> Capabilities:
    """The row of a database and driver, by what SQLAlchemy calls them; None where no connection is in use yet."""
    if dialect is None:
        return cautious.row("unknown", "unknown")
    # SQLAlchemy's MySQL dialect knows which of the two it talks to after it has connected
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    return ROWS.get((name, dialect.driver)) or cautious.row(name, dialect.driver)


def knows_its_server(dialect: Dialect) -> bool:
    """Whether its row is sure: SQLAlchemy's MySQL dialect has to connect once."""
    return not hasattr(dialect, "is_mariadb") or getattr(dialect, "server_version_info", None) is not None


def classify(error: BaseException) -> Classification:
    """What an error of a database means: its kind, and how far back a retry must go.

    Errors that are only consequences ("current transaction is aborted", `TransactionLost`) are classified by the first
    error that they came of. The tables are printed on the page "Retry a transaction".

    Args:
        error: An error of SQLAlchemy, of the driver, or of this library.

    Raises:
        WrongArgument: It is no exception.
    """
    if not isinstance(error, BaseException):
        raise errors.WrongArgument(
            f"classify takes an exception, not {errors.kind_of(error)}", hint="give the error that was caught"
        )
    return classifier.classify(error, ROWS.values())


def is_retryable(error: BaseException) -> bool:
    """Whether the whole transaction may be run again, after a while and without anybody having done something.

    False for all that would only fail again (constraints, programming errors), for a COMMIT whose answer was lost, and
    for errors that are not known.

    Args:
        error: An error of SQLAlchemy, of the driver, or of this library.

    Raises:
        WrongArgument: It is no exception.
    """
    found = classify(error)
    return found.retry_from is not RetryFrom.NEVER and not found.first


def embedded_url(file: Path, *, asynchronous: bool) -> URL:
    """The URL of a database in a file, which needs no server, for the sync or the async face."""
    return URL.create("sqlite+aiosqlite" if asynchronous else "sqlite+pysqlite", database=str(file))


def in_memory(url: URL) -> bool:
    """Whether such a database is gone with its connection."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def embedded_file(url: URL) -> Path | None:
    """The file that such a database lives in, None for a server's database or one in memory."""
    in_file = (
        url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:") and "uri" not in url.query
    )
    return Path(str(url.database)) if in_file else None
