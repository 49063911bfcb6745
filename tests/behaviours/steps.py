"""Steps that the tests of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, update

import savepoints
from tests.harness import face
from tests.harness.face import Sync, at_once, bare
from tests.harness.models import item
from tests.harness.world import Source, Target, World

__all__ = ["at_once"]  # of the harness

Kind = type[BaseException] | tuple[type[BaseException], ...]


class Oops(Exception):
    """An error of the code itself."""


@contextmanager
def fails(kind: Kind, match: str | None = None) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The block inside fails with this error. (`pytest.raises` by itself is kept for single calls.)"""
    with pytest.raises(kind, match=match) as info:
        yield info


@contextmanager
def refused(world: World, kind: Kind, match: str | None = None) -> Iterator[pytest.ExceptionInfo[Any]]:
    """What stands inside is refused with this error, before anything is sent."""
    before = world.transcript.sent()
    with pytest.raises(kind, match=match) as info:
        yield info
    assert world.transcript.sent() == before


def next_line() -> str:
    """The place of the line after the one that calls, as messages tell it."""
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno + 1}"


def told_at(world: World, place: str) -> str:
    """The place that messages tell: in the sync face it is the harness that calls for the test."""
    return place if world.site.face == "async" else face.__file__


def block(world: World, verb: str, source_or_target: Source | Target, *args: Any, **options: Any) -> Any:
    """The block object itself, to be entered more than once: the harness makes a new one for each `async with`."""
    made = getattr(savepoints, verb)(bare(source_or_target), *args, **options)
    return Sync(made) if world.site.face == "sync" else made


def connection_of(target: Any) -> Connection:
    """The connection that a sync target works on."""
    connection: Connection = target if isinstance(target, Connection) else target.connection()
    return connection


async def rename(world: World, target: Target, id: int, name: str) -> None:
    """Give an item another name: by a statement in the Core style, through its object in the ORM style."""
    if world.style == "core":
        await target.execute(update(item).where(item.c.id == id).values(name=name))
    else:
        (await target.get(World.Item, id)).name = name
        await target.flush()


async def name_of(world: World, target: Target, id: int) -> str | None:
    """An item's name as the target has it: the row in the Core style, the object in the ORM style."""
    if world.style == "core":
        name: str | None = dict(await world.seen(target)).get(id)
        return name
    found = await target.get(World.Item, id)
    return None if found is None else found.name
