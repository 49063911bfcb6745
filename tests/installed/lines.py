"""Plain SQLAlchemy code without the line, with the line, and with the line but for the one repair that is tested."""

from __future__ import annotations

from typing import Literal

import pytest

import savepoints
from savepoints import Repair
from tests.harness.world import World

Line = Literal["without", "switched off", "with"]

each_line = pytest.mark.parametrize("line", ["without", pytest.param("switched off", marks=pytest.mark.slow), "with"])


def lay(world: World, line: Line, *repairs: Repair) -> bool:
    """Install as the line says; whether the repairs are on."""
    if line != "without":
        savepoints.install(world.engine, without=repairs if line == "switched off" else ())
    return line == "with"
