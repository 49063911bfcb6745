"""Every difference between databases and drivers, as frozen rows.

The only room in which a database has a name. A database that has no row of its own gets the cautious one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL

from savepoints._databases import cautious, postgresql, sqlite
from savepoints._databases.capabilities import Aftermath, Capabilities, Fault

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["ROWS", "Aftermath", "Capabilities", "Fault", "capabilities", "embedded_file", "embedded_url"]

#: All rows, by the dialect's name and driver.
ROWS = {(row.database, row.driver): row for row in (*sqlite.ROWS, *postgresql.ROWS)}


def capabilities(dialect: Dialect | None) -> Capabilities:
    """The row of a database and driver, by what SQLAlchemy calls them; None where no connection is in use yet."""
    if dialect is None:
        return cautious.row("unknown", "unknown")
    return ROWS.get((dialect.name, dialect.driver)) or cautious.row(dialect.name, dialect.driver)


def embedded_url(file: Path, *, asynchronous: bool) -> URL:
    """The URL of a database in a file, which needs no server, for the sync or the async face."""
    return URL.create("sqlite+aiosqlite" if asynchronous else "sqlite+pysqlite", database=str(file))


def embedded_file(url: URL) -> Path | None:
    """The file that such a database lives in, None for a server's database or one in memory."""
    in_file = (
        url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:") and "uri" not in url.query
    )
    return Path(str(url.database)) if in_file else None
