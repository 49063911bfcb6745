"""The bench on which programs run."""

from collections.abc import Iterator

import pytest

from tests.harness.world import World
from tests.programs.bench import Bench


@pytest.fixture
def bench(world: World) -> Iterator[Bench]:
    with world.aside.connect() as aside, world.aside.connect() as plain:
        for connection in (aside, plain):
            world.site.on_connect(connection.connection.dbapi_connection)
        yield Bench(world, aside, plain.execution_options(isolation_level="AUTOCOMMIT"))
