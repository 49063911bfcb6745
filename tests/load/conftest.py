from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from tests.load.items import in_memory


@pytest.fixture
def connection() -> Iterator[Connection]:
    """To a database in memory, with the tables of `tests.load.items`."""
    with in_memory() as connection:
        yield connection
