"""Every difference between databases and drivers, as frozen rows.

The only room in which a database has a name. A database that has no row of its own gets the cautious one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from savepoints._databases import cautious, postgresql, sqlite
from savepoints._databases.capabilities import Aftermath, Capabilities

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["ROWS", "Aftermath", "Capabilities", "capabilities"]

#: All rows, by the dialect's name and driver.
ROWS = {(row.database, row.driver): row for row in (*sqlite.ROWS, *postgresql.ROWS)}


def capabilities(dialect: Dialect | None) -> Capabilities:
    """The row of a database and driver, by what SQLAlchemy calls them; None where no connection is in use yet."""
    if dialect is None:
        return cautious.row("unknown", "unknown")
    return ROWS.get((dialect.name, dialect.driver)) or cautious.row(dialect.name, dialect.driver)
