"""A program of its own over the same harness, to be ended inside a block.

python -m tests.behaviours.program SCENARIO SITE STYLE URL
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable, Callable

from sqlalchemy import create_engine, make_url, text

from tests.behaviours.steps import at_once
from tests.harness.sites import SITES
from tests.harness.world import Target, World


async def inside(world: World, then: Callable[[Target], Awaitable[None]]) -> None:
    """Write in a transaction and in a savepoint, say so, and do what is to be done there."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t):
            await world.insert(t, 2)
            print("inside", flush=True)
            await then(t)


def run(world: World, then: Callable[[Target], Awaitable[None]]) -> None:
    if world.site.face == "async":
        asyncio.run(inside(world, then))
    else:
        at_once(inside(world, then))


def exits(world: World) -> None:
    """The interpreter is told to exit."""

    async def leave(t: Target) -> None:
        sys.exit(3)

    run(world, leave)


def exits_beside_a_thread(world: World) -> None:
    """The interpreter exits while a daemon thread is in the block, which kills the thread."""
    is_inside = threading.Event()

    async def wait_for_ever(t: Target) -> None:
        is_inside.set()
        threading.Event().wait()

    threading.Thread(target=run, args=(world, wait_for_ever), daemon=True).start()
    is_inside.wait()
    sys.exit(3)


def is_interrupted(world: World) -> None:
    """A statement runs, far longer than Ctrl-C takes to come."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even if the tests run in the background

    async def select(t: Target) -> None:
        await t.execute(text(slow_statement(world)))

    run(world, select)


def slow_statement(world: World) -> str:
    if "sleep" in world.site.sql:
        return world.site.sql["sleep"]
    # no server to be told: the driver comes back when the statement is done
    return (
        "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 3000000)"
        " SELECT max(n) FROM counter"
    )


SCENARIOS = {scenario.__name__: scenario for scenario in (exits, exits_beside_a_thread, is_interrupted)}


def main(scenario: str, site_name: str, style: str, url: str) -> None:
    site = next(site for site in SITES if site.name == site_name)
    aside = create_engine(make_url(url).set(drivername=site.plain_driver))
    SCENARIOS[scenario](World(site, "core" if style == "core" else "orm", url, aside))


if __name__ == "__main__":
    main(*sys.argv[1:])
