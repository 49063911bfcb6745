"""The savepoints on the server, followed through what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.world import World


class Wire:
    """A server's stack of savepoints; a statement about one that is not there fails."""

    def __init__(self) -> None:
        self.live: list[str] = []

    def follow(self, statement: str) -> str:
        """The statement with a savepoint's depth for its name, which differs between connections and sessions."""
        match statement.split():
            case ["SAVEPOINT", name]:
                assert name not in self.live
                self.live.append(name)
                return f"SAVEPOINT {len(self.live)}"
            case ["ROLLBACK", "TO", "SAVEPOINT", name]:
                depth = self.live.index(name) + 1
                del self.live[depth:]
                return f"ROLLBACK TO {depth}"
            case ["RELEASE", "SAVEPOINT", name]:
                depth = self.live.index(name) + 1
                del self.live[depth - 1 :]
                return f"RELEASE {depth}"
            case ["COMMIT" | "ROLLBACK"]:
                self.live.clear()
        return statement


def sent(world: World) -> list[str]:
    """What was sent: statements on rows in short, savepoints by depth."""
    wire = Wire()
    return [wire.follow(statement) for statement in world.transcript.short()]


class Boom(Exception):
    """An error of the code's own."""


@contextmanager
def leaves(kind: type[Exception]) -> Iterator[None]:
    """An error of that kind leaves what stands inside."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def styled(world: World, *, core: list[str], orm: list[str]) -> list[str]:
    """Where the styles differ: a session's savepoints are SQLAlchemy's nested transactions."""
    return core if world.style == "core" else orm
