"""One world for many programs: what is opened once, and the comparison of one program."""

from __future__ import annotations

import secrets
from random import Random

from sqlalchemy import Connection, delete, insert, select

from tests.harness.models import Child, item
from tests.harness.world import World
from tests.programs.databases import Memory, Plain
from tests.programs.generate import Maker, shrunk
from tests.programs.language import TAKEN, Program
from tests.programs.library import Library
from tests.programs.reference import Reference
from tests.programs.trace import Row, Trace, difference


class Bench:
    """Runs each program three times: on the rows in memory, on plain SQL, with the library."""

    def __init__(self, world: World, aside: Connection, plain: Connection) -> None:
        self.world = world
        self.aside = aside
        self.has = world.site.capabilities(world.style)
        self.plain = Plain(plain, deferring="deferred" in self.has)

    async def check_random(self, count: int, seed: int | None = None) -> None:
        """Check so many random programs; the first that goes wrong is shrunk and told."""
        seed = secrets.randbits(32) if seed is None else seed
        maker = Maker(Random(seed))
        for number in range(1, count + 1):
            program = maker.program()
            if await self.problem(program) is not None:
                smallest = await shrunk(program, self.goes_wrong)
                raise AssertionError(
                    f"program {number} of seed {seed}, shrunk to a line for tests/programs/test_replay.py:\n"
                    f"    {smallest!r},\n{await self.problem(smallest)}"
                )

    async def goes_wrong(self, program: Program) -> bool:
        return await self.problem(program) is not None

    async def problem(self, program: Program) -> str | None:
        """What is wrong with the library, or with the references, on this program."""
        memory = Memory(ending="whole_rollback" in self.has, deferring="deferred" in self.has)
        expected = self.reference(memory).run(program)
        self.plain.clear()
        problem = difference(expected, self.reference(self.plain).run(program))
        if problem is not None:
            return f"the two references differ {problem}"
        with self.aside.begin():
            self.aside.execute(delete(Child))
            self.aside.execute(delete(item))
            self.aside.execute(insert(item), {"id": TAKEN})
        problem = difference(expected, Trace(*await Library(self.world).run(program), self.durable()))
        if problem is not None:
            await self.world.close()  # nobody knows what state the connection is in
            return f"the library differs {problem}"
        return None

    def reference(self, database: Memory | Plain) -> Reference:
        return Reference(
            database,
            orm="orm" in self.has,
            failing="failed_state" in self.has,
            ending="whole_rollback" in self.has,
        )

    def durable(self) -> list[Row]:
        with self.aside.begin():
            return [tuple(row) for row in self.aside.execute(select(item.c.id, item.c.name).order_by(item.c.id))]
