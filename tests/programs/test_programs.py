"""Random programs: the library against plain SQL and against a model of the rows."""

from __future__ import annotations

from math import ceil

import pytest

from tests.harness.sites import STYLES, places
from tests.programs.bench import Bench

#: In one run, over all sites and styles.
LOCALLY = 5_000
#: In one run, for each driver.
THROUGH_THE_NETWORK = 1_000


@pytest.mark.slow
@pytest.mark.lacks("network")
async def test_programs(bench: Bench) -> None:
    await bench.check_random(ceil(LOCALLY / len(places(set(), {"network"}))))


@pytest.mark.slow
@pytest.mark.needs("network")
async def test_programs_through_the_network(bench: Bench) -> None:
    await bench.check_random(THROUGH_THE_NETWORK // len(STYLES))
