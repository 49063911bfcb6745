"""Group G: hooks. What happens after COMMIT, at a rollback, before COMMIT, and when nobody knows."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

import savepoints
from savepoints import (
    CommitOutcomeUnknown,
    Hook,
    HookErrors,
    NoTransaction,
    NotSupported,
    OutOfOrder,
    SavepointEnded,
    TransactionDoomed,
    TransactionLost,
    WrongArgument,
    WrongTask,
)
from tests.behaviours.steps import Oops, fails, refused
from tests.behaviours.tools import BAD, notes, row
from tests.faults.losses import killed, or_rollback
from tests.harness.face import bare
from tests.harness.world import Target, World
from tests.proxy import Proxy

VERBS = ["on_commit", "on_rollback", "before_commit", "on_unknown"]
each_verb = pytest.mark.parametrize("verb", VERBS)

Log = list[str]


def hooks(world: World, target: Target, log: Log, name: str) -> None:
    """One of each kind, which notes its name: `c:name` for a commit hook, and so on."""
    for verb, letter in zip(VERBS, "crbu", strict=True):
        world.hook(verb, target, log.append, f"{letter}:{name}")


# -- where they can be registered


@each_verb
async def test_g_a_generator_is_no_hook(world: World, verb: str) -> None:
    def generator() -> Any:
        yield

    async with world.transaction(world.source) as t:
        for function in (generator, partial(generator)):
            with refused(world, WrongArgument, "not a generator"):
                world.hook(verb, t, function)


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
async def test_g_a_plain_block_of_the_session_that_an_error_has_left(world: World) -> None:
    """However the session's own transaction is rolled back, its rollback hooks run."""
    log: Log = []
    async with world.open() as t:
        with fails(Oops):
            async with t.begin():
                await t.execute(row(1))
                hooks(world, t, log, "plain")
                raise Oops
    assert log == ["r:plain"]
    assert world.rows() == []


async def test_g_no_commit_hook_before_a_commit_that_will_not_be(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        hooks(world, t, log, "doomed")
        world.current_transaction(t).doom("only looking")
    assert log == ["r:doomed"]


@each_verb
async def test_g102_no_hook_outside_a_transaction(world: World, verb: str) -> None:
    log: Log = []
    async with world.open() as t:
        with refused(world, NoTransaction, "no transaction is open"):
            world.hook(verb, t, log.append, "never")
    assert log == []


async def test_g103_no_rollback_hook_outside_a_transaction(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        transaction = world.current_transaction(t)
    with refused(world, NoTransaction, "has ended"):
        transaction.on_rollback(log.append, "never")
    async with world.open() as t:
        with refused(world, NoTransaction):
            world.hook("on_rollback", t, log.append, "never")
        await t.execute(text("SELECT 1"))
        await t.rollback()
    assert log == []


@each_verb
async def test_g103_no_hook_on_a_savepoint_that_has_ended(world: World, verb: str) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        await sp.release()
        with refused(world, SavepointEnded, "merged into"):
            getattr(sp, verb)(print)


# -- after COMMIT


async def test_g104_after_the_answer_to_commit(world: World) -> None:
    """The work is stored, the transaction is over for everybody, and what was passed along arrives."""
    seen: list[Any] = []

    async def hook(number: int, *, name: str) -> None:
        seen.append((number, name, world.rows(), str(transaction.state), world.current_transaction(t)))

    async with world.transaction(world.source) as t:
        transaction = world.current_transaction(t)
        world.hook("on_commit", t, hook, 7, name="seven")
        await world.insert(t, 1)
        assert seen == []
    assert seen == [(7, "seven", [(1, None)], "committed", None)]


@pytest.mark.needs("orm")
async def test_g104_objects_can_be_read_in_a_commit_hook(world: World) -> None:
    """The session is closed after the hooks: what it has expired is loaded again, outside of the transaction."""
    seen: list[Any] = []

    async def hook(item: Any) -> None:
        await t.refresh(item)
        seen.append(item.name)

    async with world.transaction(world.source) as t:
        item = world.Item(id=1, name="new")
        t.add(item)
        world.hook("on_commit", t, hook, item)
    assert seen == ["new"]


async def test_g105_nested_they_move_up_and_run_after_the_outermost_commit(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        world.hook("on_commit", t, log.append, "1")
        async with world.savepoint(t) as outer:
            world.hook("on_commit", t, log.append, "2")
            async with world.savepoint(t) as inner:
                inner.on_commit(log.append, "3")
                outer.on_commit(log.append, "4")  # of the outer level, while the inner one is open
                inner.on_commit(log.append, "5")
            world.hook("on_commit", t, log.append, "6")
            await t.begin_nested()
            world.hook("on_commit", t, log.append, "7")
        mark = await world.savepoint(t, "open at the end")
        mark.on_commit(log.append, "8")
        assert log == []
    assert log == ["1", "2", "3", "4", "5", "6", "7", "8"]


async def test_g106_rolled_back_with_their_savepoint(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        world.hook("on_commit", t, log.append, "before")
        with suppress(Oops):
            async with world.savepoint(t):
                world.hook("on_commit", t, log.append, "undone")
                raise Oops
        async with world.savepoint(t, rollback=True) as dry:
            dry.on_commit(log.append, "undone, too")
        async with world.savepoint(t) as doomed:
            doomed.doom("only looking")
            hook = doomed.on_commit(log.append, "undone as well")
        assert not hook.is_pending
        world.hook("on_commit", t, log.append, "after")
    assert log == ["before", "after"]


async def test_g107_kept_in_a_savepoint_that_was_rolled_back_around_it(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, suppress=Oops):
            async with world.savepoint(t):
                hooks(world, t, log, "inner")
            raise Oops
        assert log == ["r:inner"]
    assert log == ["r:inner"]


async def test_g108_only_hooks_from_before_the_bookmark(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        hooks(world, t, log, "1")
        await world.savepoint(t, "mark")
        hooks(world, t, log, "2")
        await world.savepoint(t, "inner")
        hooks(world, t, log, "3")
        await world.rollback_to(t, "mark")
        assert log == ["r:3", "r:2"]
        hooks(world, t, log, "4")
        await world.insert(t, 1)
    assert log == ["r:3", "r:2", "b:1", "b:4", "c:1", "c:4"]


# -- at a rollback


async def test_g109_rollback_hooks_run_once_and_at_once_newest_first(world: World) -> None:
    log: Log = []

    async def looks() -> None:
        log.append(f"sees {await world.seen(t)}")

    async with world.transaction(world.source) as t:
        world.hook("on_rollback", t, log.append, "never")
        await world.insert(t, 1, "kept")
        async with world.savepoint(t, suppress=Oops) as outer:
            world.hook("on_rollback", t, looks)
            world.hook("on_rollback", t, log.append, "1")
            async with world.savepoint(t):
                world.hook("on_rollback", t, log.append, "2")
                outer.on_rollback(log.append, "3")
                world.hook("on_rollback", t, log.append, "4")
            await world.insert(t, 2, "undone")
            open_one = await world.savepoint(t)
            open_one.on_rollback(log.append, "5")
            raise Oops
        assert log == ["5", "4", "3", "2", "1", "sees [(1, 'kept')]"]
        await world.insert(t, 3, "kept")
    assert log[6:] == []
    assert world.rows() == [(1, "kept"), (3, "kept")]


async def test_g109_again_and_again_by_handle(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        for number in "123":
            sp.on_rollback(log.append, number)
            sp.on_commit(log.append, "never")
            await sp.rollback()
        assert log == ["1", "2", "3"]
        await sp.rollback()
    assert log == ["1", "2", "3"]


async def test_g109_a_plain_nested_transaction_owns_hooks_too(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        nested = await t.begin_nested()
        await world.insert(t, 1)
        hooks(world, t, log, "plain")
        await nested.rollback()
        async with world.savepoint(t):  # a connection's own tell nobody when they have ended
            await world.insert(t, 2)
        assert log == ["r:plain"]
    assert log == ["r:plain"]
    assert world.rows() == [(2, None)]


async def test_g109_failing_hooks_are_notes_on_the_error_under_way(world: World, caplog: Any) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        with fails(Oops) as caught:
            async with world.savepoint(t):
                world.hook("on_rollback", t, log.append, "the other")
                world.hook("on_rollback", t, fail, "secret value")
                raise Oops
        assert log == ["the other"]
        assert "1 of 2 hooks failed" in notes(caught.value)
        assert "ValueError" in notes(caught.value)
        assert "secret" not in notes(caught.value) + caplog.text
        await world.insert(t, 1)
    assert world.rows() == [(1, None)]


async def test_g109_without_an_error_under_way_they_are_raised(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "kept")
        sp = await world.savepoint(t)
        sp.on_rollback(fail, "by handle")
        await world.insert(t, 2, "undone")
        with fails(HookErrors) as by_handle:
            await sp.rollback()
        with fails(HookErrors) as by_end:
            async with world.savepoint(t, suppress=Oops) as inner:
                inner.on_rollback(fail, "by the end")
                raise Oops
    for caught, text_ in ((by_handle, "by handle"), (by_end, "by the end")):
        assert not caught.value.committed
        assert [str(error) for error in caught.value.exceptions] == [text_]
        assert "1 of 1 hooks failed in savepoint" in str(caught.value)
    assert world.rows() == [(1, "kept")]


def fail(message: str) -> None:
    raise ValueError(message)


# -- the transaction fails


async def test_g110_no_commit_hook_and_all_rollback_hooks(world: World) -> None:
    log: Log = []
    with fails(Oops):
        async with world.transaction(world.source) as t:
            hooks(world, t, log, "1")
            async with world.savepoint(t):
                hooks(world, t, log, "2")
            await world.savepoint(t, "open")
            hooks(world, t, log, "3")
            await world.insert(t, 1)
            raise Oops
    assert log == ["r:3", "r:2", "r:1"]


async def test_g110_undone_without_an_error(world: World) -> None:
    """A dry run, a doomed one, and the signal: rollback hooks alone."""
    log: Log = []
    async with world.transaction(world.source, rollback=True) as t:
        hooks(world, t, log, "dry")
        await world.insert(t, 1)
    async with world.transaction(world.source) as t:
        hooks(world, t, log, "signal")
        raise world.Rollback()
    async with world.transaction(world.source) as t:
        hooks(world, t, log, "doomed")
        world.current_transaction(t).doom("only looking")
    assert [entry for entry in log if entry[0] in "rcu"] == ["r:dry", "r:signal", "r:doomed"]


@pytest.mark.needs("deferred")
async def test_g110_a_refused_commit(world: World) -> None:
    """Deferred foreign key: the database says no at COMMIT, and that is certain."""
    log: Log = []
    with fails(IntegrityError):
        async with world.transaction(world.source) as t:
            hooks(world, t, log, "1")
            await t.execute(text("INSERT INTO child (id, parent_id) VALUES (1, 42)"))
            await world.savepoint(t)
            hooks(world, t, log, "2")
    assert log == ["b:1", "b:2", "r:2", "r:1"]


async def test_g110_ended_behind_the_block(world: World) -> None:
    log: Log = []
    with fails(OutOfOrder):
        async with world.transaction(world.source) as t:
            hooks(world, t, log, "1")
            await world.insert(t, 1)
            await t.rollback()
    assert log == ["r:1"]


async def test_g111_all_commit_hooks_run_and_failures_come_together(world: World, caplog: Any) -> None:
    log: Log = []
    caplog.set_level(logging.ERROR, logger="savepoints")
    with fails(HookErrors) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            world.hook("on_commit", t, fail, "first secret")
            world.hook("on_commit", t, log.append, "between")
            world.hook("on_commit", t, fail, "second secret")
            world.hook("on_commit", t, log.append, "last")
            await world.insert(t, 1)
    error = caught.value
    assert log == ["between", "last"]
    assert error.committed
    assert isinstance(error, ExceptionGroup)
    assert [str(inner) for inner in error.exceptions] == ["first secret", "second secret"]
    assert "2 of 4 hooks failed" in str(error)
    assert "committed" in str(error)
    assert "secret" not in str(error)
    assert "raised by the on_commit hook fail" in notes(error.exceptions[0])
    assert caplog.text.count("failed with ValueError") == 2
    assert "secret" not in caplog.text
    assert (str(transaction.state), transaction.hooks) == ("committed", None)
    assert world.rows() == [(1, None)]


def test_g111_parts_of_the_group_stay_what_they_are() -> None:
    group = HookErrors("two", [ValueError("a"), TypeError("b")], committed=True)
    values, others = group.split(ValueError)
    assert values is not None
    assert others is not None
    assert isinstance(values, HookErrors)
    assert values.committed
    with fails(HookErrors):
        try:
            raise group
        except* TypeError:
            pass


async def test_g112_a_commit_hook_works_outside_the_old_transaction(world: World) -> None:
    async def query() -> None:
        assert await world.seen(t) == [(1, None), (2, None)]

    async def another() -> None:
        async with world.transaction(world.source) as other:
            world.hook("on_commit", other, done.append, "after the second")
            await world.insert(other, 2)

    done: Log = []
    async with world.transaction(world.source) as t:
        world.hook("on_commit", t, another)
        world.hook("on_commit", t, query)
        world.hook("on_commit", t, done.append, "after the first")
        await world.insert(t, 1)
    assert done == ["after the second", "after the first"]
    assert world.rows() == [(1, None), (2, None)]


async def test_g113_a_hook_registers_another(world: World) -> None:
    log: Log = []

    def before(times: int) -> None:
        log.append(f"before {times}")
        if times > 1:
            world.hook("before_commit", t, before, times - 1)
        world.hook("on_commit", t, log.append, f"after {times}")

    async with world.transaction(world.source) as t:
        world.hook("before_commit", t, before, 3)
        await world.insert(t, 1)
    assert log == ["before 3", "before 2", "before 1", "after 3", "after 2", "after 1"]


async def test_g113_not_for_ever(world: World) -> None:
    def again() -> None:
        world.hook("before_commit", t, again)

    with fails(OutOfOrder, match="100 times"):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            again()
    assert world.rows() == []


async def test_g113_in_a_commit_hook_no_transaction_is_open(world: World) -> None:
    def late() -> None:
        world.hook("on_commit", t, print)

    with fails(HookErrors) as caught:
        async with world.transaction(world.source) as t:
            world.hook("on_commit", t, late)
            await world.insert(t, 1)
    assert [type(error) for error in caught.value.exceptions] == [NoTransaction]
    assert world.rows() == [(1, None)]


# -- lost, and unknown


LOSSES = [
    pytest.param(killed, marks=pytest.mark.needs("kill"), id="killed"),
    pytest.param(or_rollback, marks=pytest.mark.needs("whole_rollback"), id="or_rollback"),
]


async def lost(world: World, loss: Callable[[World, Target], Any]) -> None:
    log: Log = []
    async with world.open() as t:
        with fails(TransactionLost):
            async with world.transaction(t):
                await world.insert(t, 1)
                hooks(world, t, log, "1")
                async with world.savepoint(t, "kept"):
                    hooks(world, t, log, "2")
                async with world.savepoint(t, "lost"):
                    hooks(world, t, log, "3")
                    with suppress(Exception):
                        await loss(world, t)
                    with refused(world, TransactionLost):
                        world.hook("on_rollback", t, log.append, "too late")
                    assert log == []
        assert log == ["r:3", "r:2", "r:1"]
        async with world.transaction(t):
            await world.insert(t, 2)
    assert log == ["r:3", "r:2", "r:1"]


@pytest.mark.needs("kill")
async def test_g114_killed_rollback_hooks_run_once_at_the_outermost_end(world: World) -> None:
    await lost(world, killed)


@pytest.mark.needs("whole_rollback")
async def test_g114_ended_by_the_database_rollback_hooks_run_once(world: World) -> None:
    await lost(world, or_rollback)


@pytest.mark.needs("orm")
async def test_g114_a_failed_flush_of_a_session_outside_any_savepoint(world: World) -> None:
    log: Log = []
    with fails(IntegrityError):
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            hooks(world, t, log, "1")
            t.add(world.Item(id=1))
    assert log == ["b:1", "r:1"]


# -- on a Session's own transaction, without a block of ours


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
async def test_g115_a_sessions_own_transaction(world: World) -> None:
    """After its commit() the session is free again: a hook may begin the next transaction on it."""
    log: Log = []

    async with world.open() as t:
        await t.execute(row(1))
        world.hook("on_commit", t, lambda: log.append(f"{bare(t).in_transaction()} {world.rows()}"))
        mark = await world.savepoint(t, "mark")
        hooks(world, t, log, "undone")
        await mark.rollback()
        assert log == ["r:undone"]
        hooks(world, t, log, "kept")
        await t.commit()
        assert log == ["r:undone", "b:kept", "False [(1, None)]", "c:kept"]
        await t.execute(row(2))
        hooks(world, t, log, "second")
        await t.rollback()
        assert log[4:] == ["r:second"]
        await t.execute(row(3))
        hooks(world, t, log, "third")
    assert log[5:] == ["r:third"]
    assert world.rows() == [(1, None)]


@pytest.mark.needs("orm")
async def test_g115_a_begin_block_of_sqlalchemys(world: World) -> None:
    log: Log = []
    async with world.open() as t:
        async with t.begin():
            await t.execute(row(1))
            hooks(world, t, log, "1")
            async with t.begin_nested():
                hooks(world, t, log, "2")
            with suppress(Oops):
                async with t.begin_nested():
                    hooks(world, t, log, "3")
                    raise Oops
        assert log == ["r:3", "b:1", "b:2", "c:1", "c:2"]


@pytest.mark.needs("orm")
async def test_g115_there_a_failure_can_only_be_logged(world: World, caplog: Any) -> None:
    log: Log = []
    async with world.open() as t:
        await t.execute(row(1))
        world.hook("on_commit", t, fail, "secret")
        world.hook("on_commit", t, log.append, "the other")
        await t.commit()
        assert log == ["the other"]
        assert "on_commit hook fail" in caplog.text
        assert "secret" not in caplog.text
        await t.execute(row(2))
        await t.commit()
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
async def test_g115_there_a_before_commit_hook_refuses_the_commit(world: World) -> None:
    async def check() -> None:
        raise Oops

    def uses() -> None:
        bare_session(t).execute(row(2))

    async with world.open() as t:
        await t.execute(row(1))
        world.hook("before_commit", t, uses)
        await t.commit()
        await t.execute(row(3))
        world.hook("before_commit", t, fail, "no")
        with fails(ValueError, match="no"):
            await t.commit()
        with fails(TransactionDoomed):
            await t.commit()
        await t.rollback()
    assert world.rows() == [(1, None), (2, None)]


def bare_session(target: Any) -> Any:
    session = bare(target)
    return getattr(session, "sync_session", session)


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
async def test_g115_a_commit_past_the_session_is_refused(world: World) -> None:
    """It would store the work and leave the session with a transaction that it takes for open."""
    log: Log = []
    async with world.open() as t:
        connection = await t.connection()
        hooks(world, t, log, "1")
        await world.insert(t, 1)
        with fails(OutOfOrder, "past its session"):
            await connection.commit()
        assert log == ["r:1"]
        await t.rollback()
        assert log == ["r:1"]
    assert world.rows() == []


@pytest.mark.needs("orm")
async def test_g115_the_log_names_the_users_line(world: World, caplog: Any) -> None:
    async with world.open() as t:
        await world.insert(t, 1)
        world.hook("on_commit", t, lambda: text(""))
        world.hook("on_commit", t, lambda: bare_session(t).execute("no statement"))  # SQLAlchemy raises deep inside
        await t.commit()
    assert f"at {__file__}:" in caplog.text


@pytest.mark.needs("core")
@each_verb
async def test_g115_a_plain_connections_transaction_has_nobody_to_tell(world: World, verb: str) -> None:
    async with world.open() as t, t.begin():
        with refused(world, NoTransaction, "with transaction"):
            world.hook(verb, t, print)
        sp = await world.savepoint(t)
        with refused(world, NoTransaction, "with transaction"):
            getattr(sp, verb)(print)
        await world.insert(t, 1)
    assert world.rows() == [(1, None)]


@pytest.mark.needs("orm")
@each_verb
async def test_g115_nor_has_a_session_in_somebody_elses_transaction(world: World, verb: str) -> None:
    async with world.open(world.engine) as connection, connection.begin():
        for mode in ("conditional_savepoint", "create_savepoint", "rollback_only"):
            maker = world.maker(join_transaction_mode=mode)
            async with world.open(lambda maker=maker: maker(bind=bare(connection))) as t:
                await t.execute(text("SELECT 1"))
                with refused(world, NoTransaction, "somebody else"):
                    world.hook(verb, t, print)


async def test_g115_the_owner_of_a_joined_session_holds_its_hooks(world: World) -> None:
    log: Log = []
    async with world.transaction(world.engine) as connection:
        maker = world.maker(join_transaction_mode="create_savepoint")
        async with world.open(lambda: maker(bind=bare(connection))) as session:
            await session.execute(row(1))
            hooks(world, session, log, "joined")
            await session.commit()
            assert log == []
    assert log == ["b:joined", "c:joined"]


@pytest.mark.needs("orm")
@each_verb
async def test_g115_autocommit(world: World, verb: str) -> None:
    engine = world.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with world.open(lambda: world.maker()(bind=engine)) as t:
        await t.execute(text("SELECT 1"))
        with pytest.raises(NotSupported, match="AUTOCOMMIT"):
            world.hook(verb, t, print)


# -- unknown


@pytest.mark.needs("network")
@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_g116_unknown_is_the_third_way(world: World, proxy: Proxy, cut: str) -> None:
    log: Log = []
    with fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source) as t:
            hooks(world, t, log, "1")
            async with world.savepoint(t):
                hooks(world, t, log, "2")
            await world.insert(t, 1)
            await world.savepoint(t, "open")
            hooks(world, t, log, "3")
            world.hook("on_unknown", t, fail, "secret")
            setattr(proxy, cut, b"COMMIT")
    setattr(proxy, cut, None)
    assert log == ["b:1", "b:2", "b:3", "u:1", "u:2", "u:3"]
    assert "1 of 4 hooks failed" in notes(caught.value)


@pytest.mark.needs("network", "orm")
async def test_g116_unknown_after_a_plain_commit(world: World, proxy: Proxy) -> None:
    log: Log = []
    async with world.open() as t:
        await t.execute(row(1))
        hooks(world, t, log, "1")
        proxy.cut_before = b"COMMIT"
        with pytest.raises(DBAPIError):
            await t.commit()
        proxy.cut_before = None
        await t.rollback()
        assert log == ["b:1", "u:1"]


# -- two-phase


@pytest.mark.needs("orm", "two_phase")
@each_verb
async def test_g117_a_two_phase_transaction_of_sqlalchemys(world: World, verb: str) -> None:
    async with world.open(world.maker(twophase=True)) as t:
        await t.execute(text("SELECT 1"))
        with refused(world, NoTransaction, "two-phase"):
            world.hook(verb, t, print)


# -- before COMMIT


async def test_g118_a_before_commit_hook_uses_the_session_and_fails(world: World) -> None:
    log: Log = []

    async def writes() -> None:
        await world.insert(t, 2, "by the hook")

    async with world.transaction(world.source) as t:
        world.hook("before_commit", t, writes)
        await world.insert(t, 1)
    assert world.rows() == [(1, None), (2, "by the hook")]

    error = Oops("no")

    async def refuses() -> None:
        raise error

    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            hooks(world, t, log, "1")
            world.hook("before_commit", t, refuses)
            hooks(world, t, log, "2")
            await world.insert(t, 3)
    assert caught.value is error
    assert log == ["b:1", "r:2", "r:1"]
    assert world.rows() == [(1, None), (2, "by the hook")]


async def test_g118_the_signal_in_a_before_commit_hook(world: World) -> None:
    async def undoes() -> None:
        raise world.Rollback()

    async with world.transaction(world.source) as t:
        world.hook("before_commit", t, undoes)
        await world.insert(t, 1)
    assert world.rows() == []


async def test_g118_an_error_of_the_database_in_it(world: World) -> None:
    async def fails_there() -> None:
        await t.execute(BAD)

    with pytest.raises(Exception, match="no_such_column"):
        async with world.transaction(world.source) as t:
            world.hook("before_commit", t, fails_there)
            await world.insert(t, 1)
    assert world.rows() == []


# -- arguments


@each_verb
async def test_g119_no_callable_is_given(world: World, verb: str) -> None:
    async with world.transaction(world.source) as t:
        for wrong in (None, 42, "name"):
            with refused(world, TypeError, "takes a function") as caught:
                world.hook(verb, t, wrong)
            assert isinstance(caught.value, WrongArgument)
        with refused(world, WrongArgument, "works on a session or connection"):
            world.hook(verb, world.source, print)


class Sends:
    async def __call__(self) -> None:
        pass


async def sends(*args: object) -> None:
    pass


@pytest.mark.needs("sync")
@each_verb
async def test_g119_an_async_hook_on_a_sync_target(world: World, verb: str) -> None:
    async with world.transaction(world.source) as t:
        for function in (sends, partial(sends, 1), Sends()):
            with refused(world, TypeError, "is async"):
                getattr(savepoints, verb)(bare(t), function)
            with refused(world, TypeError, "is async"):
                getattr(bare(world.current_transaction(t)), verb)(function)


@pytest.mark.needs("sync")
async def test_g119_what_should_be_awaited_is_found_when_it_runs(world: World) -> None:
    with fails(HookErrors) as caught:
        async with world.transaction(world.source) as t:
            world.hook("on_commit", t, lambda: sends())
    assert "returned a coroutine" in str(caught.value.exceptions[0])


@pytest.mark.needs("async", "orm")
@each_verb
async def test_g119_an_async_hook_needs_an_outermost_block(world: World, verb: str) -> None:
    async with world.open() as t:
        await t.execute(text("SELECT 1"))
        with refused(world, NoTransaction, "nobody would await it"):
            world.hook(verb, t, sends)


async def test_g119_cancelled(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:
        first: Hook = world.hook("on_commit", t, log.append, "first")
        second: Hook = world.hook("on_commit", t, log.append, "second")
        third: Hook = world.hook("on_commit", t, lambda: log.append(str(fourth.cancel())))
        fourth: Hook = world.hook("on_commit", t, log.append, "fourth")
        assert first.is_pending
        assert first.cancel()
        assert not first.cancel()
        await world.insert(t, 1)
    assert log == ["second", "True"]
    assert not any(hook.is_pending or hook.cancel() for hook in (first, second, third, fourth))
    assert "run" in repr(second)
    assert "cancelled" in repr(first)


async def test_g119_what_will_not_run_holds_nothing(world: World) -> None:
    """A handle that somebody keeps does not keep what was passed along."""

    class Large:
        pass

    async with world.transaction(world.source) as t:
        things = [Large(), Large(), Large()]
        kept = [weakref.ref(thing) for thing in things]
        cancelled, run = (world.hook("on_commit", t, id, thing) for thing in things[:2])
        dropped = world.hook("on_rollback", t, id, things[2])
        cancelled.cancel()
        await world.insert(t, 1)
        del things
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3
    assert not any(hook.is_pending for hook in (cancelled, run, dropped))


async def test_g119_as_decorators(world: World) -> None:
    log: Log = []
    async with world.transaction(world.source) as t:

        @world.hook("on_commit", t)  # type: ignore[untyped-decorator]
        def first() -> None:
            log.append("first")

        @world.current_transaction(t).on_commit()  # type: ignore[untyped-decorator]
        def second() -> None:
            log.append("second")

        @world.current_transaction(t).on_commit  # type: ignore[untyped-decorator]
        def third() -> None:
            log.append("third")

        assert isinstance(third, Hook)
        third.cancel()
    assert log == ["first", "second"]


@pytest.mark.needs("orm")
async def test_g119_as_methods_of_the_sessions(world: World) -> None:
    log: Log = []
    name = "Session" if world.site.face == "sync" else "AsyncSession"
    maker = world.maker(class_=getattr(savepoints, name))
    async with world.transaction(maker) as t:
        for verb, letter in zip(VERBS, "crbu", strict=True):
            getattr(bare(t), verb)(log.append, letter)
    assert log == ["b", "c"]


async def test_g119_from_a_sibling_task_while_a_block_is_open(world: World) -> None:
    """As every verb: steering from outside the block is found at once."""
    from contextvars import Context

    async with world.transaction(world.source) as t, world.savepoint(t):
        with refused(world, WrongTask):
            Context().run(world.hook, "on_commit", t, print)
