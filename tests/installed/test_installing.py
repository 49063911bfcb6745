"""Installing: by the verb and by SQLAlchemy's plugins, once and twice, in part, and away again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import savepoints
from savepoints import Repair, WrongArgument
from tests.behaviours.steps import Oops, fails
from tests.behaviours.tools import row, verbs
from tests.harness.models import Item, tables
from tests.harness.world import World

EVERY = frozenset(Repair)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    tables.create_all(engine)
    yield engine
    savepoints.uninstall(engine)
    engine.dispose()


def escapes(engine: Engine) -> bool:
    """Whether T4 is there: the work of a savepoint outlives the rollback of its transaction."""
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM item"))
        connection.commit()
        with connection.begin_nested():
            connection.execute(row(1))
        connection.rollback()
        return bool(connection.scalar(text("SELECT count(*) FROM item")))


# By the verb


def test_installed_says_what_is_on(engine: Engine) -> None:
    assert savepoints.installed(engine) == frozenset()
    savepoints.install(engine)
    assert savepoints.installed(engine) == EVERY
    savepoints.uninstall(engine)
    assert savepoints.installed(engine) == frozenset()


def test_repairs_are_left_out_by_name(engine: Engine) -> None:
    savepoints.install(engine, without=["begin", Repair.WARN])
    assert savepoints.installed(engine) == EVERY - {Repair.BEGIN, Repair.WARN}
    assert escapes(engine)


def test_twice_is_once_and_says_anew_what_is_wanted(engine: Engine) -> None:
    savepoints.install(engine, without={"begin"})
    before = dict(vars(engine.dialect))
    savepoints.install(engine)
    assert savepoints.installed(engine) == EVERY
    assert dict(vars(engine.dialect)) == before
    assert not escapes(engine)
    savepoints.uninstall(engine)
    savepoints.uninstall(engine)
    assert escapes(engine)


def listeners(engine: Engine) -> dict[str, int]:
    """How many listen to what, on the engine, its dialect, and all sessions."""
    session: Any = Session()
    dispatches: list[Any] = [engine.dispatch, engine.dialect.dispatch, session.dispatch]
    return {
        f"{type(dispatch).__name__}.{name}": len(getattr(dispatch, name))
        for dispatch in dispatches
        for name in dispatch._event_names
    }


def hooks(engine: Engine) -> dict[str, Any]:
    """What is set on the dialect itself."""
    names = ("do_", "savepoints", "skip_autocommit_rollback")
    return {name: value for name, value in vars(engine.dialect).items() if name.startswith(names)}


def test_uninstalled_it_is_as_it_was(engine: Engine) -> None:
    before = (hooks(engine), listeners(engine))
    savepoints.install(engine)
    assert hooks(engine) != before[0]
    assert listeners(engine) != before[1]
    assert not escapes(engine)
    savepoints.uninstall(engine)
    assert (hooks(engine), listeners(engine)) == before
    assert escapes(engine)


def test_uninstalled_what_others_have_put_over_the_hooks_stays(engine: Engine) -> None:
    savepoints.install(engine)
    seen: list[str] = []
    ours: Any = engine.dialect.do_savepoint

    def over(connection: Any, name: str) -> None:
        seen.append(name)
        ours(connection, name)

    engine.dialect.do_savepoint = over  # type: ignore[method-assign]
    savepoints.uninstall(engine)
    assert escapes(engine)
    assert len(seen) == 1


def test_blocks_of_ours_keep_what_they_need(engine: Engine) -> None:
    savepoints.install(engine)
    with savepoints.transaction(engine):
        pass
    savepoints.uninstall(engine)
    assert escapes(engine)
    with savepoints.transaction(engine, rollback=True) as connection, savepoints.savepoint(connection):
        connection.execute(row(2))
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT id FROM item")).all() == [1]


def test_one_engine_and_its_twins_are_one(engine: Engine) -> None:
    twin = engine.execution_options(logging_token="twin")
    savepoints.install(twin)
    assert savepoints.installed(engine) == EVERY
    assert not escapes(twin)
    savepoints.uninstall(engine)
    assert savepoints.installed(twin) == frozenset()


def test_another_engine_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    tables.create_all(other)
    savepoints.install(engine)
    assert savepoints.installed(other) == frozenset()
    assert escapes(other)
    with Session(other) as session:
        with session.begin_nested():
            session.add(Item(id=7))
        session.rollback()
        assert session.get(Item, 7) is not None
    other.dispose()


def test_an_engine_that_nobody_holds_is_forgotten() -> None:
    engine = create_engine("sqlite://")
    savepoints.install(engine, without={"warn"})
    tables.create_all(engine)
    with engine.connect() as connection, connection.begin_nested():
        connection.execute(row(1))
    engine.dispose()
    dialect = weakref.ref(engine.dialect)
    del engine, connection
    gc.collect()
    assert dialect() is None


@pytest.mark.parametrize("verb", [savepoints.install, savepoints.uninstall, savepoints.installed])
def test_only_engines_can_be_installed_on(verb: Any) -> None:
    with pytest.raises(WrongArgument, match="works on an engine, not on sessionmaker"):
        verb(sessionmaker())
    with pytest.raises(TypeError):
        verb("sqlite://")


def test_unknown_repairs_are_refused(engine: Engine) -> None:
    with pytest.raises(WrongArgument, match="no repair is called 'relase'") as refused:
        savepoints.install(engine, without={"relase"})
    assert "release" in refused.value.hint
    assert savepoints.installed(engine) == frozenset()


def test_one_name_is_not_taken_for_letters(engine: Engine) -> None:
    savepoints.install(engine, without="warn")
    assert savepoints.installed(engine) == EVERY - {Repair.WARN}


# By SQLAlchemy's plugins


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("sqlite://", {"plugins": ["savepoints"], "savepoints_without": ["warn", "cover"]}),
        ("sqlite://?plugin=savepoints&savepoints_without=warn,cover", {}),
        ("sqlite://?plugin=savepoints&savepoints_without=warn&savepoints_without=cover", {}),
        ("sqlite://?plugin=savepoints&savepoints_without=warn", {"savepoints_without": {Repair.COVER}}),
        ("sqlite://?plugin=savepoints&savepoints_without=warn", {"savepoints_without": "cover"}),
    ],
)
def test_plugin_takes_what_is_left_out(url: str, options: dict[str, Any]) -> None:
    engine = create_engine(url, **options)
    assert savepoints.installed(engine) == EVERY - {Repair.WARN, Repair.COVER}
    assert not engine.url.query
    tables.create_all(engine)
    assert not escapes(engine)
    engine.dispose()


def test_plugin_refuses_what_is_unknown() -> None:
    with pytest.raises(WrongArgument, match="'relase'"):
        create_engine("sqlite://?plugin=savepoints&savepoints_without=relase")


async def test_plugin_of_an_async_engine() -> None:
    engine = create_async_engine("sqlite+aiosqlite://?plugin=savepoints")
    assert savepoints.installed(engine) == savepoints.installed(engine.sync_engine) == EVERY
    async with engine.connect() as connection:
        await connection.run_sync(tables.create_all)
        async with connection.begin_nested():
            await connection.execute(row(1))
        await connection.rollback()
    await engine.dispose()


async def test_plugin_at_every_site(world: World) -> None:
    engine = world.new_engine(plugins=["savepoints"])
    assert savepoints.installed(engine) == EVERY
    async with world.open(engine) as t:
        async with t.begin_nested():
            await t.execute(row(1))
        await t.rollback()
    disposed = engine.dispose()
    if disposed is not None:
        await disposed
    assert world.rows() == []


# Beside blocks of ours


@pytest.mark.parametrize("verb", ["savepoint", "atomic"])
async def test_block_of_ours_in_a_transaction_of_plain_code(world: World, verb: str) -> None:
    """From then on it is a transaction of ours, earlier levels included."""
    savepoints.install(world.engine)
    async with world.open() as t:
        await t.begin()
        async with t.begin_nested():
            await world.insert(t, 1)
            with fails(Oops):
                async with getattr(world, verb)(t, "ours"):
                    await world.insert(t, 2)
                    transaction = world.current_transaction(t)
                    assert transaction.children[0].children[0].name == "ours"
                    raise Oops
            with fails(Oops):
                async with t.begin_nested():
                    await world.insert(t, 3)
                    raise Oops
            async with getattr(world, verb)(t):
                await world.insert(t, 4)
        await t.commit()
    assert world.rows() == [(1, None), (4, None)]
    assert verbs(world).count("SAVEPOINT") == verbs(world).count("RELEASE") == 4


async def test_plain_code_in_a_transaction_of_ours(world: World) -> None:
    savepoints.install(world.engine)
    async with world.transaction(world.source) as t:
        for id in (1, 2):
            with fails(Oops):
                async with t.begin_nested():
                    await world.insert(t, id)
                    raise Oops
        async with t.begin_nested(), world.savepoint(t):
            await world.insert(t, 3)
    assert world.rows() == [(3, None)]
    assert verbs(world).count("SAVEPOINT") == verbs(world).count("RELEASE") == 4


async def test_transaction_adopts_what_plain_code_began(world: World) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        await world.seen(t)  # SQLAlchemy begins by itself
        async with t.begin_nested():
            await world.insert(t, 1)
        if world.style == "core":  # there it cannot be told from one that was begun on purpose
            await t.commit()
        async with world.transaction(t):
            await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


async def test_many_transactions_on_one_target(world: World) -> None:
    """Each has a stack of its own, and none is left behind."""
    savepoints.install(world.engine)
    async with world.open() as t:
        for id in range(1, 6):
            async with t.begin_nested():
                await world.insert(t, id)
            await (t.commit() if id % 2 else t.rollback())

        def left(target: Any) -> list[Any]:
            connection = target if world.style == "core" else target.connection()
            stacks = [vars(connection).get("savepoints"), connection.info.get("savepoints")]
            return [*stacks, None if world.style == "core" else target.info.get("savepoints")]

        assert await world.run_sync(t, left) == [None] * 3
    assert world.rows() == [(1, None), (3, None), (5, None)]


@pytest.mark.needs("orm", "sync")
async def test_listeners_of_others_hear_what_they_heard(world: World) -> None:
    """Events of SQLAlchemy fire as without the line, but for the RELEASE that it does not know of."""
    heard: dict[bool, list[str]] = {}
    for installed in (False, True):
        engine = world.new_engine(plugins=["savepoints"] if installed else [])
        heard[installed] = []
        for name in ("savepoint", "rollback_savepoint", "release_savepoint", "begin", "commit", "rollback"):
            event.listen(engine, name, lambda *_, name=name, names=heard[installed]: names.append(name))
        with Session(engine) as session:
            session.execute(row(10 * installed + 1))
            with session.begin_nested():
                session.execute(row(10 * installed + 2))
            session.begin_nested().rollback()
            nested = session.begin_nested()
            session.execute(row(10 * installed + 3))
            nested.rollback()
            session.rollback()
        engine.dispose()
    assert heard[True] == heard[False]
    assert "rollback_savepoint" in heard[True]
