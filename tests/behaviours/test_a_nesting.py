"""Group A: blocks in blocks, and who commits.

The tests that take `unit` run in a transaction of their own; A20 calls them again inside an outer block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

import savepoints
from savepoints import (
    AlreadyInTransaction,
    NoTransaction,
    OutOfOrder,
    SavepointEnded,
    TransactionDoomed,
    UncommittedWork,
)
from tests.behaviours.steps import Oops, at_once, block, fails, name_of, next_line, refused, rename, told_at
from tests.harness.face import Sync
from tests.harness.world import Row, Target, World


class Unit:
    """One outermost unit of work: a transaction, or a block by `atomic` inside one."""

    def __init__(self, world: World, outer: Target = None) -> None:
        self.world = world
        self._outer = outer

    def block(self) -> Any:
        if self._outer is None:
            return self.world.transaction(self.world.source)
        return self.world.atomic(self._outer, "unit")

    async def kept(self) -> list[Row]:
        """What it left: durable, or in the transaction around it."""
        return self.world.rows() if self._outer is None else await self.world.seen(self._outer)


@pytest.fixture
def unit(world: World) -> Unit:
    return Unit(world)


async def test_a1_a_block_left_normally_is_durable(world: World) -> None:
    async with world.transaction(world.source) as t:
        transaction = world.current_transaction(t)
        await world.insert(t, 1, "kept")
        assert (str(transaction.state), transaction.outcome) == ("open", None)
    assert world.rows() == [(1, "kept")]
    assert str(transaction.state) == "committed"
    assert transaction.outcome.startswith("committed")
    assert world.transcript.short() == ["BEGIN", "INSERT item", "COMMIT"]
    world.check_pool()


async def test_a2_an_error_rolls_back_passes_and_closes(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
    error = Oops()
    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            loaded = await t.get(World.Item, 1) if world.style == "orm" else None
            await world.insert(t, 2, "undone")
            raise error
    assert caught.value is error
    assert world.rows() == [(1, "before")]
    assert str(transaction.state) == "rolled back"
    assert transaction.error is error
    assert t.closed if world.style == "core" else loaded not in t
    world.check_pool()


async def test_a3_a_savepoint_block_left_normally_is_kept(unit: Unit) -> None:
    world = unit.world
    async with unit.block() as t:
        await world.insert(t, 1, "outside")
        async with world.savepoint(t, "part") as sp:
            await world.insert(t, 2, "inside")
            assert (str(sp.state), sp.outcome) == ("open", None)
        assert str(sp.state) == "released"
        assert sp.outcome.startswith("merged into ")
        assert sp.parent.name in sp.outcome
    assert await unit.kept() == [(1, "outside"), (2, "inside")]


async def test_a4_an_outer_error_takes_the_released_part_with_it(unit: Unit) -> None:
    world = unit.world
    with fails(Oops):
        async with unit.block() as t:
            await world.insert(t, 1, "outside")
            async with world.savepoint(t) as sp:
                await world.insert(t, 2, "inside")
            raise Oops
    assert await unit.kept() == []
    assert str(sp.state) == "released"


@pytest.mark.parametrize("suppressed", [False, True], ids=["caught", "suppressed"])
async def test_a5_a_caught_error_undoes_the_inner_part_alone(unit: Unit, suppressed: bool) -> None:
    world, error = unit.world, Oops()
    async with unit.block() as t:
        await world.insert(t, 1, "before")
        try:
            async with world.savepoint(t, suppress=Oops if suppressed else ()) as sp:
                await world.insert(t, 2, "undone")
                raise error
        except Oops:
            assert not suppressed
        assert sp.error is error
        assert str(sp.state) == "rolled back"
        await world.insert(t, 3, "after")
    assert await unit.kept() == [(1, "before"), (3, "after")]


async def test_a6_an_error_not_caught_undoes_everything(unit: Unit) -> None:
    world, error = unit.world, Oops()
    with fails(Oops) as caught:
        async with unit.block() as t:
            await world.insert(t, 1)
            async with world.savepoint(t) as sp:
                await world.insert(t, 2)
                raise error
    assert caught.value is error
    assert sp.error is error
    assert await unit.kept() == []


async def test_a7_three_levels_are_kept_and_seen_at_the_end_only(unit: Unit) -> None:
    world = unit.world
    async with unit.block() as t:
        await world.insert(t, 1)
        async with world.savepoint(t):
            await world.insert(t, 2)
            async with world.savepoint(t):
                await world.insert(t, 3)
                assert world.rows() == []
            assert world.rows() == []
        assert world.rows() == []
    assert await unit.kept() == [(1, None), (2, None), (3, None)]


async def test_a8_each_level_shows_its_own_last_value(unit: Unit) -> None:
    world = unit.world

    async def level(t: Target, depth: int) -> None:
        await rename(world, t, 1, f"level {depth}")
        if depth == 4:
            raise Oops
        with fails(Oops):
            async with world.savepoint(t):
                await level(t, depth + 1)
        assert await name_of(world, t, 1) == f"level {depth}"
        if depth > 1:
            raise Oops

    async with unit.block() as t:
        await world.insert(t, 1, "new")
        await level(t, 1)
    assert await unit.kept() == [(1, "level 1")]


async def test_a9_a_level_entered_again_after_its_end_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t, "part")
        async with sp:
            await world.insert(t, 1)
            ended = next_line()
            await sp.release()
        with refused(world, SavepointEnded, "merged into") as told:
            await sp.__aenter__()
        assert told_at(world, ended) in str(told.value)
    assert world.rows() == [(1, None)]


@pytest.mark.parametrize("verb", ["transaction", "atomic"])
async def test_a9_a_block_entered_again_after_its_end_is_refused(world: World, verb: str) -> None:
    async with world.open() as t:
        again = block(world, verb, t)
        async with again:
            await world.insert(t, 1)
        with refused(world, OutOfOrder, "committed"):
            await again.__aenter__()
    assert world.rows() == [(1, None)]


async def test_a10_a_level_entered_while_its_block_is_active_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t) as sp:
            await world.insert(t, 1)
            with refused(world, OutOfOrder, "under way"):
                await sp.__aenter__()
            assert str(sp.state) == "open"
        assert str(sp.state) == "released"
    assert world.rows() == [(1, None)]


@pytest.mark.parametrize("verb", ["transaction", "atomic"])
async def test_a10_a_block_entered_while_it_is_active_is_refused(world: World, verb: str) -> None:
    async with world.open() as t:
        active = block(world, verb, t)
        async with active:
            await world.insert(t, 1)
            with refused(world, OutOfOrder):
                await active.__aenter__()
            await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.parametrize("verb", ["savepoint", "atomic"])
async def test_a11_inside_what_the_caller_began_a_block_is_a_savepoint(world: World, verb: str) -> None:
    async with world.open() as t:
        begun = await t.begin()
        async with getattr(world, verb)(t, "part"):
            await world.insert(t, 1)
        assert begun.is_active
        with refused(world, AlreadyInTransaction):
            await world.transaction(t).__aenter__()
        assert world.rows() == []
        assert "COMMIT" not in world.transcript.sent()
        await begun.rollback()
    assert world.rows() == []


@pytest.mark.lacks("always_in_transaction")  # there the driver has begun, and a second BEGIN is an error
async def test_a11_inside_a_begin_sent_as_text_a_savepoint_does_not_commit(world: World) -> None:
    async with world.open() as t:
        await t.execute(text("BEGIN"))
        async with world.savepoint(t):
            await world.insert(t, 1)
        assert world.rows() == []
        await t.rollback()
    assert world.rows() == []
    assert "COMMIT" not in world.transcript.sent()


@pytest.mark.needs("core")  # a Session has begun by itself before the text is sent, and `atomic` adopts that: A12
@pytest.mark.lacks("always_in_transaction")
async def test_a11_inside_a_begin_sent_as_text_atomic_does_not_commit(world: World) -> None:
    async with world.open() as t:
        await t.execute(text("BEGIN"))
        async with world.atomic(t):
            await world.insert(t, 1)
        with refused(world, AlreadyInTransaction):
            await world.transaction(t).__aenter__()
        assert world.rows() == []
        await t.rollback()
    assert world.rows() == []
    assert "COMMIT" not in world.transcript.sent()


async def test_a12_a_savepoint_in_an_autobegun_transaction_does_not_commit(world: World) -> None:
    async with world.open() as t:
        await world.seen(t)  # a SELECT begins
        async with world.savepoint(t):
            await world.insert(t, 1)
        assert t.in_transaction()
        assert world.rows() == []
        await t.rollback()
    assert world.rows() == []


async def test_a12_atomic_in_an_autobegun_transaction(world: World) -> None:
    """On a Session it adopts what SQLAlchemy began by itself; on a Connection that cannot be told from a `begin()`."""
    async with world.open() as t:
        await world.seen(t)
        async with world.atomic(t):
            await world.insert(t, 1)
        adopted = world.style == "orm"
        assert t.in_transaction() is not adopted
        assert world.rows() == ([(1, None)] if adopted else [])
        await t.rollback()


async def test_a12_a_plain_nested_transaction_between_is_a_level_like_any_other(world: World) -> None:
    async with world.transaction(world.source) as t:
        before = await world.savepoint(t, "before")
        plain = await t.begin_nested()
        await world.insert(t, 1)
        inside = await world.savepoint(t, "inside")
        assert inside.depth == 3
        assert inside.parent.parent == before
        assert world.current_transaction(t).savepoints == (before, inside.parent, inside)
        await world.insert(t, 2)
        await inside.rollback()
        assert await world.seen(t) == [(1, None)]
        await plain.commit()
        assert str(inside.state) == "released"
        assert str(before.state) == "open"

        plain = await t.begin_nested()
        await world.insert(t, 3)
        inside = await world.savepoint(t, "inside")
        await before.rollback()
        assert not plain.is_active
        assert str(inside.state) == "gone"
        await world.insert(t, 4)
    assert world.rows() == [(4, None)]


async def test_a13_a_failed_joined_block_dooms_the_transaction(world: World) -> None:
    error = Oops()
    with fails(TransactionDoomed) as told:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 1)
            with fails(Oops):
                doomed = next_line()
                async with world.atomic(t, savepoint=False):
                    await world.insert(t, 2)
                    raise error
            assert str(transaction.state) == "doomed"
            assert await world.seen(t) == [(1, None), (2, None)]
    assert told.value.__cause__ is error
    assert told_at(world, doomed) in str(told.value)
    assert world.rows() == []
    assert "COMMIT" not in world.transcript.sent()


async def test_a13_a_failed_joined_block_dooms_what_the_caller_began(world: World) -> None:
    error = Oops()
    async with world.open() as t:
        await t.begin()
        with fails(Oops):
            async with world.atomic(t, savepoint=False):
                await world.insert(t, 1)
                raise error
        with fails(TransactionDoomed) as told:
            await t.commit()
        assert told.value.__cause__ is error
        assert world.rows() == []
        await t.rollback()
    assert world.rows() == []


async def test_a14_a_failed_joined_block_dooms_the_savepoint_it_joined(world: World) -> None:
    error = Oops()
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with fails(TransactionDoomed) as told:
            async with world.savepoint(t, "joined") as sp:
                with fails(Oops):
                    async with world.atomic(t, savepoint=False):
                        await world.insert(t, 2)
                        raise error
                assert str(sp.state) == "doomed"
                assert str(world.current_transaction(t).state) == "open"
        assert told.value.__cause__ is error
        assert "'transaction/joined'" in str(told.value)
        assert str(sp.state) == "rolled back"
        await world.insert(t, 3)
    assert world.rows() == [(1, None), (3, None)]


async def test_a15_a_savepoint_begins_and_the_caller_commits(world: World) -> None:
    async with world.open() as t:
        async with world.savepoint(t):
            await world.insert(t, 1)
        assert t.in_transaction()
        assert world.rows() == []
        await t.commit()
    assert world.rows() == [(1, None)]


async def test_a15_released_and_never_committed_work_warns_at_close(world: World) -> None:
    t = await world.opened()
    async with world.savepoint(t):
        await world.insert(t, 1)
    with pytest.warns(UncommittedWork, match="never committed"):
        await t.close()
    assert world.rows() == []


async def test_a15_require_transaction_opens_nothing(world: World) -> None:
    async with world.open() as t:
        with refused(world, NoTransaction):
            world.require_transaction(t)
        assert not t.in_transaction()
        assert world.transcript.sent() == []
        async with world.transaction(t):
            world.require_transaction(t)


async def test_a15_atomic_opens_a_transaction_and_commits_it(world: World) -> None:
    async with world.open() as t:
        async with world.atomic(t, "outermost"):
            await world.insert(t, 1)
            assert world.current_transaction(t).name == "outermost"
        assert not t.in_transaction()
    assert world.rows() == [(1, None)]


@pytest.mark.parametrize("outer", [{}, {"savepoint": False}])
async def test_a16_atomic_inside_is_a_savepoint_unless_this_call_opts_out(world: World, outer: dict[str, bool]) -> None:
    async with world.transaction(world.source) as t, world.atomic(t, **outer):
        around = len(world.current_transaction(t).savepoints)
        await world.insert(t, 1)
        with fails(Oops):
            async with world.atomic(t):
                assert len(world.current_transaction(t).savepoints) == around + 1
                await world.insert(t, 2)
                raise Oops
        async with world.atomic(t, savepoint=False):
            assert len(world.current_transaction(t).savepoints) == around
            await world.insert(t, 3)
    assert world.rows() == [(1, None), (3, None)]


async def test_a17_return_break_and_continue_are_normal_exits(unit: Unit) -> None:
    world = unit.world

    async def returned() -> str:
        async with unit.block() as t:
            await world.insert(t, 1)
            async with world.savepoint(t):
                await world.insert(t, 2)
                return "returned"

    assert await returned() == "returned"
    for id in (3, 4, 5):
        async with unit.block() as t, world.savepoint(t):
            await world.insert(t, id)
            if id == 3:
                continue
            break
    assert [id for id, _ in await unit.kept()] == [1, 2, 3, 4]


Body = Callable[..., Awaitable[Any]]


def decorated(world: World, body: Body) -> Callable[..., Any]:
    """The body, under the decorator as a function of the site's face. Await the result on both."""
    if world.site.face == "async":

        async def function(session: Any, *args: Any) -> Any:
            return await body(session, *args)

        wrapper: Callable[..., Any] = savepoints.transaction(world.source)(function)
        return wrapper

    def sync_function(session: Any, *args: Any) -> Any:
        return at_once(body(Sync(session), *args))  # type: ignore[arg-type]

    sync_wrapper = savepoints.transaction(world.source)(sync_function)

    async def awaited(*args: Any) -> Any:
        return sync_wrapper(*args)

    return awaited


async def test_a18_a_decorated_function_has_a_transaction_for_each_call(world: World) -> None:
    used = []

    async def body(t: Target, id: int) -> None:
        used.append((t, world.current_transaction(t)))
        await world.insert(t, id)

    work = decorated(world, body)
    await work(1)
    assert world.rows() == [(1, None)]
    await work(2)
    assert world.rows() == [(1, None), (2, None)]
    (first, one), (second, other) = used
    assert first != second
    assert one != other
    assert world.transcript.sent().count("BEGIN") == world.transcript.sent().count("COMMIT") == 2


async def test_a18_a_decorated_function_called_recursively_is_refused(world: World) -> None:
    async def body(t: Target, id: int) -> None:
        await world.insert(t, id)
        with refused(world, AlreadyInTransaction):
            await work(id + 1)

    work = decorated(world, body)
    await work(1)
    assert world.rows() == [(1, None)]


async def test_a18_atomic_in_the_body_makes_one_level_per_call(world: World) -> None:
    depths = []

    async def countdown(t: Target, id: int) -> None:
        async with world.atomic(t):
            depths.append(len(world.current_transaction(t).savepoints))
            await world.insert(t, id)
            if id > 1:
                await countdown(t, id - 1)

    async with world.open() as t:
        await countdown(t, 3)
    assert depths == [0, 1, 2]
    assert [id for id, _ in world.rows()] == [1, 2, 3]


async def test_a19_the_value_of_a_decorated_function_is_handed_back(world: World) -> None:
    value = object()

    async def body(t: Target) -> object:
        await world.insert(t, 1)
        return value

    assert await decorated(world, body)() is value
    assert world.rows() == [(1, None)]


async def caught(unit: Unit) -> None:
    await test_a5_a_caught_error_undoes_the_inner_part_alone(unit, suppressed=False)


async def suppressed(unit: Unit) -> None:
    await test_a5_a_caught_error_undoes_the_inner_part_alone(unit, suppressed=True)


@pytest.mark.parametrize(
    "case",
    [
        test_a3_a_savepoint_block_left_normally_is_kept,
        test_a4_an_outer_error_takes_the_released_part_with_it,
        caught,
        suppressed,
        test_a6_an_error_not_caught_undoes_everything,
        test_a7_three_levels_are_kept_and_seen_at_the_end_only,
        test_a8_each_level_shows_its_own_last_value,
        test_a17_return_break_and_continue_are_normal_exits,
    ],
    ids=lambda case: case.__name__.removeprefix("test_").partition("_")[0],
)
async def test_a20_the_same_inside_an_outer_block(world: World, case: Callable[[Unit], Awaitable[None]]) -> None:
    async with world.transaction(world.source) as t:
        await case(Unit(world, t))
        kept = await world.seen(t)
        assert world.rows() == []
    assert world.rows() == kept
