"""For pytest: every engine that SQLAlchemy's own tests make is made with the line, if the variable says so."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy

if "SAVEPOINTS_INSTALL" in os.environ:
    make = sqlalchemy.create_engine

    def create_engine(url: Any, **options: Any) -> sqlalchemy.Engine:
        """As SQLAlchemy's, and installed."""
        return make(url, **options, plugins=["savepoints"])

    sqlalchemy.create_engine = create_engine


def pytest_sessionstart(session: Any) -> None:
    """Run the tests of savepoints on every database: SQLAlchemy leaves them out where the driver's do not hold."""
    from sqlalchemy.testing import config, exclusions

    for name in ("savepoints", "compat_savepoints"):
        setattr(type(config.requirements), name, property(lambda self: exclusions.open()))
