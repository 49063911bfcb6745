"""Group C: rolling back to a savepoint, again and again, and releasing it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from savepoints import NoTransaction, Rollback, SavepointEnded, UnknownSavepoint
from savepoints._databases import capabilities
from tests.behaviours.steps import Oops, fails, name_of, next_line, refused, rename, told_at
from tests.harness.models import item
from tests.harness.world import Target, World


async def test_c36_what_came_before_stays_and_what_came_after_goes(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        sp = await world.savepoint(t)
        await world.insert(t, 2, "after")
        await rename(world, t, 1, "changed")
        await sp.rollback()
        assert await world.seen(t) == [(1, "before")]
        assert await name_of(world, t, 1) == "before"
        assert await name_of(world, t, 2) is None
    assert world.rows() == [(1, "before")]


async def test_c37_a_savepoint_is_rolled_back_to_again_and_again(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        sp = await world.savepoint(t)
        for time in range(1, 6):
            await rename(world, t, 1, f"try {time}")
            if time % 2:  # with new rows and without: two ways of undoing objects
                await world.insert(t, 2)
            await sp.rollback()
            assert await world.seen(t) == [(1, "before")]
            assert await name_of(world, t, 1) == "before"
            assert (str(sp.state), sp.outcome, sp.rollbacks) == ("open", None, time)
        await world.insert(t, 3)
    assert str(sp.state) == "released"
    assert world.rows() == [(1, "before"), (3, None)]


async def test_c38_rolled_back_at_once_nothing_changes(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        sp = await world.savepoint(t)
        await sp.rollback()
        assert str(sp.state) == "open"
        assert await world.seen(t) == [(1, "before")]
    assert world.rows() == [(1, "before")]


async def test_c39_inner_bookmarks_are_gone_by_an_outer_rollback(world: World) -> None:
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t, "outer")
        await world.insert(t, 1)
        inner = await world.savepoint(t, "inner")
        deepest = await world.savepoint(t, "deepest")
        undone = next_line()
        await outer.rollback()
        for handle in (inner, deepest):
            assert str(handle.state) == "gone"
            for use in (handle.rollback, handle.release, handle.__aenter__):
                with refused(world, SavepointEnded, "'transaction/outer'") as told:
                    await use()
                assert told_at(world, undone) in str(told.value)
        with refused(world, UnknownSavepoint):
            await world.rollback_to(t, "inner")
        assert world.current_transaction(t).savepoints == (outer,)
    assert world.rows() == []


async def test_c40_inner_bookmarks_end_with_the_release_of_the_outer(world: World) -> None:
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t)
        await world.insert(t, 1)
        inner = await world.savepoint(t)
        await world.insert(t, 2)
        await outer.release()
        assert (str(outer.state), str(inner.state)) == ("released", "released")
        assert world.current_transaction(t).savepoints == ()
        assert await world.seen(t) == [(1, None), (2, None)]
    assert world.rows() == [(1, None), (2, None)]


async def test_c41_a_released_savepoint_cannot_be_rolled_back_to(world: World) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        await world.insert(t, 1)
        await sp.release()
        with refused(world, SavepointEnded, "merged into"):
            await sp.rollback()
        assert str(world.current_transaction(t).state) == "open"
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


async def test_c42_a_second_release_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        await world.insert(t, 1)
        await sp.release()
        with refused(world, SavepointEnded, "merged into"):
            await sp.release()
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


async def test_c43_rolled_back_and_released_its_label_is_free(world: World) -> None:
    async with world.transaction(world.source) as t:
        older = await world.savepoint(t, "x")
        await world.insert(t, 1)
        nearer = await world.savepoint(t, "x")
        await world.insert(t, 2)
        await nearer.rollback()
        await nearer.release()
        assert await world.seen(t) == [(1, None)]
        await world.rollback_to(t, "x")
        assert (nearer.rollbacks, older.rollbacks) == (1, 1)
        assert await world.seen(t) == []
    assert world.rows() == []


async def test_c44_released_work_goes_with_the_outer_rollback(world: World) -> None:
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t)
        inner = await world.savepoint(t)
        await world.insert(t, 1)
        await inner.release()
        await outer.rollback()
        assert str(inner.state) == "released"
        assert await world.seen(t) == []
        assert await name_of(world, t, 1) is None
    assert world.rows() == []


async def leave_by_block(world: World, error: BaseException | None) -> list[Any]:
    """A transaction block with two open bookmarks, left with or without an error; the bookmarks."""
    marks = []
    try:
        async with world.transaction(world.source) as t:
            for id in (1, 2):
                marks.append(await world.savepoint(t))
                await world.insert(t, id)
            if error is not None:
                raise error
    except Oops:
        pass
    return marks


async def end_by_hand(world: World, verb: str) -> list[Any]:
    """What the caller began, with two open bookmarks, ended by its commit() or rollback(); the bookmarks."""
    marks = []
    async with world.open() as t:
        await t.begin()
        for id in (1, 2):
            marks.append(await world.savepoint(t))
            await world.insert(t, id)
        await getattr(t, verb)()
        assert world.current_transaction(t) is None
    return marks


@pytest.mark.parametrize("by", ["block", "hand"])
async def test_c45_a_commit_keeps_the_work_of_open_bookmarks(world: World, by: str) -> None:
    marks = await (leave_by_block(world, None) if by == "block" else end_by_hand(world, "commit"))
    assert [str(mark.state) for mark in marks] == ["released", "released"]
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.parametrize("by", ["block", "hand"])
async def test_c46_a_rollback_of_the_transaction_ends_open_bookmarks_as_gone(world: World, by: str) -> None:
    marks = await (leave_by_block(world, Oops()) if by == "block" else end_by_hand(world, "rollback"))
    assert [str(mark.state) for mark in marks] == ["gone", "gone"]
    assert world.rows() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_c47_a_handle_of_a_past_transaction_is_refused_in_a_new_one(world: World, end: str) -> None:
    async with world.open() as t:
        await t.begin()
        past = world.current_transaction(t)
        sp = await world.savepoint(t, "x")
        await world.insert(t, 1)
        await getattr(t, end)()
        async with world.transaction(t):
            await world.savepoint(t, "x")
            await world.insert(t, 2)
            for use in (sp.rollback, sp.release, sp.__aenter__):
                with refused(world, SavepointEnded):
                    await use()
            with refused(world, SavepointEnded):
                sp.doom("too late")
            with refused(world, NoTransaction):
                past.doom("too late")
            with refused(world, NoTransaction):
                await past.rollback_to("x")
            with fails(Rollback):  # aimed at no block that is open: an error like any other
                async with world.savepoint(t):
                    raise world.Rollback(sp)
    assert world.rows() == ([(1, None), (2, None)] if end == "commit" else [(2, None)])


async def test_c48_a_new_savepoint_takes_the_label_of_one_that_is_gone(world: World) -> None:
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t)
        gone = await world.savepoint(t, "x")
        await outer.rollback()
        await world.insert(t, 1)
        new = await world.savepoint(t, "x")
        await world.insert(t, 2)
        await world.rollback_to(t, "x")
        assert (str(gone.state), new.rollbacks) == ("gone", 1)
    assert world.rows() == [(1, None)]


async def test_c49_a_savepoint_without_work_writes_nothing(world: World) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        with world.aside.begin() as other:  # no lock is in its way, not even where there is one writer at a time
            other.execute(item.insert().values(id=1))
        await sp.rollback()
        await sp.release()
        async with world.savepoint(t):
            pass
        if "commit_status" in world.site.has:  # the server has given it no number, as it does to what writes
            assert await t.scalar(text("SELECT pg_current_xact_id_if_assigned()")) is None
    assert world.rows() == [(1, None)]


async def test_c50_keys_undone_are_used_again(world: World) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        await world.insert(t, 1, "old")
        old = await t.get(World.Item, 1) if world.style == "orm" else None
        await sp.rollback()
        await world.insert(t, 1, "new")
        assert await name_of(world, t, 1) == "new"
        if old is not None:
            new = await t.get(World.Item, 1)
            assert new is not old
            assert new in t
            assert old not in t
    assert world.rows() == [(1, "new")]


async def generated_key(world: World, t: Target) -> int:
    """Insert an item without a key; the key that the database gave it."""
    if world.style == "core":
        result = await t.execute(item.insert().values(name="generated"))
        key: int = result.inserted_primary_key[0]
        return key
    new = World.Item(name="generated")
    t.add(new)
    await t.flush()
    return new.id


async def test_c51_a_key_undone_is_given_again_or_leaves_a_hole(world: World) -> None:
    """Which of the two is the database's, stated as data; nothing gapless is promised."""
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        undone = await generated_key(world, t)
        await sp.rollback()
        reused = await generated_key(world, t) == undone
    assert reused is ("keys_reused" in world.site.has)
    assert capabilities(world.sync_engine.dialect).sequences == ("reused" if reused else "hole")


@pytest.mark.needs("read_only")
async def test_c52_read_only_set_inside_is_undone(world: World) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        await t.execute(text("SET TRANSACTION READ ONLY"))
        assert await t.scalar(text("SHOW transaction_read_only")) == "on"
        await sp.rollback()
        assert await t.scalar(text("SHOW transaction_read_only")) == "off"
        await world.insert(t, 1)
    assert world.rows() == [(1, None)]


@pytest.mark.needs("settings_undone")
@pytest.mark.parametrize("scope", ["", "LOCAL"])
async def test_c53_settings_made_inside_are_undone(world: World, scope: str) -> None:
    async with world.transaction(world.source) as t:
        before = await t.scalar(text("SHOW lock_timeout"))
        sp = await world.savepoint(t)
        await t.execute(text(f"SET {scope} lock_timeout = '77s'"))
        await sp.rollback()
        assert await t.scalar(text("SHOW lock_timeout")) == before
    assert capabilities(world.sync_engine.dialect).settings == "undone"


@pytest.mark.lacks("settings_undone")
async def test_c53_settings_made_inside_are_kept(world: World) -> None:
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        await t.execute(world.sql("set"))
        await sp.rollback()
        assert await t.scalar(world.sql("shown")) == 77
    assert capabilities(world.sync_engine.dialect).settings == "kept"
