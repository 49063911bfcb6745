from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine

from tests.load.items import in_memory
from tests.load.slowly import emptied
from tests.servers import Postgres


@pytest.fixture
def connection() -> Iterator[Connection]:
    """To a database in memory, with the tables of `tests.load.items`."""
    with in_memory() as connection:
        yield connection


@pytest.fixture(scope="module", params=["postgres", pytest.param("system_postgres", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """To PostgreSQL: the newest one, and the one before `pg_input_is_valid`; nothing is in it."""
    server: Postgres = request.getfixturevalue(request.param)
    driver = "psycopg" if request.param == "postgres" else "psycopg2"
    engine = create_engine(server.url(f"postgresql+{driver}"))
    emptied(engine)
    yield engine
    engine.dispose()
