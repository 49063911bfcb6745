"""Group B: labels are texts of the user's, and never reach the database."""

from __future__ import annotations

import re
from typing import Any

import pytest

import savepoints
from savepoints import BadName, UnknownSavepoint, WrongArgument
from tests.behaviours.steps import Oops, fails, refused
from tests.harness.face import bare
from tests.harness.world import World


def controls(world: World) -> list[str]:
    """The statements that make, undo and release savepoints."""
    return [
        statement
        for statement in world.transcript.sent()
        if statement.startswith(("SAVEPOINT", "ROLLBACK TO", "RELEASE"))
    ]


async def test_b21_a_label_stands_in_name_path_and_messages(world: World) -> None:
    async with world.transaction(world.source, name="orders") as t:
        outer = await world.savepoint(t, "import")
        inner = await world.savepoint(t, "row 7")
        assert (inner.name, inner.path, inner.depth) == ("row 7", "orders/import/row 7", 2)
        assert (inner.parent, outer.parent) == (outer, world.current_transaction(t))
        assert "'orders/import/row 7'" in repr(inner)
        await inner.release()
        with refused(world, UnknownSavepoint, "'row 7'; open, innermost first: 'import'"):
            await world.rollback_to(t, "row 7")
    generated = {statement.split()[-1] for statement in controls(world)}
    assert len(generated) == 2
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,19}", name) for name in generated)
    assert not any("row 7" in sent or "import" in sent for sent in world.transcript.sent())


async def test_b22_labels_are_made_up_where_none_is_given(world: World) -> None:
    async with world.transaction(world.source) as t:
        first = await world.savepoint(t)
        deeper = await world.savepoint(t)
        await deeper.release()
        again = await world.savepoint(t)
        async with world.savepoint(t) as block:
            names = [level.name for level in (first, deeper, again, block)]
            assert len(set(names)) == 4
            assert all(names)
            await world.insert(t, 1)
        await world.rollback_to(t, first.name)
        assert first.rollbacks == 1
    assert world.rows() == []


HOSTILE = 'O\'Brien "x"; DROP TABLE item; -- /* %s %(a)s :b ? */ \\ `y`'


async def test_b23_hostile_labels_work_and_never_reach_sql(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.savepoint(t, HOSTILE)
        await world.insert(t, 1)
        await world.rollback_to(t, HOSTILE)
        await world.release(t, HOSTILE)
        async with world.savepoint(t, HOSTILE):
            await world.insert(t, 2)
    assert world.rows() == [(2, None)]
    assert not any("Brien" in sent for sent in world.transcript.sent())


@pytest.mark.parametrize("label", ["a\0b", "a\nb", "a\x1bb", "a\x7fb", "a\x85b"])
async def test_b23_control_characters_are_refused(world: World, label: str) -> None:
    async with world.transaction(world.source) as t:
        await world.seen(t)
        for opens in (world.savepoint, world.atomic):
            with refused(world, BadName, "control character"):
                await opens(t, label).__aenter__()
        for steers in (world.rollback_to, world.release):
            with refused(world, BadName):
                await steers(t, label)
        with refused(world, ValueError) as told:
            await world.transaction(world.source, name=label).__aenter__()
    assert label not in str(told.value)


async def test_b23_messages_spell_out_what_could_break_a_log_line(world: World) -> None:
    label = "left\u202eright\u2028next"
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t, label)
        assert sp.name == label
        with refused(world, UnknownSavepoint) as told:
            await world.rollback_to(t, "other")
        for text in (repr(sp), str(told.value)):
            assert r"left\u202eright\u2028next" in text.replace(r"\\", "\\")
            assert label not in text


async def test_b24_the_nearest_of_a_label_is_meant(world: World) -> None:
    async with world.transaction(world.source) as t:
        older = await world.savepoint(t, "x")
        await world.insert(t, 1)
        nearer = await world.savepoint(t, "x")
        await world.insert(t, 2)
        await world.rollback_to(t, "x")
        assert await world.seen(t) == [(1, None)]
        assert (older.rollbacks, nearer.rollbacks) == (0, 1)
        assert str(older.state) == str(nearer.state) == "open"
    assert world.rows() == [(1, None)]


async def test_b25_the_older_of_a_label_is_meant_once_the_nearer_is_released(world: World) -> None:
    async with world.transaction(world.source) as t:
        older = await world.savepoint(t, "x")
        await world.insert(t, 1)
        await world.savepoint(t, "x")
        await world.insert(t, 2)
        await world.release(t, "x")
        assert await world.seen(t) == [(1, None), (2, None)]
        await world.rollback_to(t, "x")
        assert await world.seen(t) == []
        assert older.rollbacks == 1
    assert world.rows() == []


async def test_b26_a_shadowed_label_shows_again_after_a_rollback_past_its_shadow(world: World) -> None:
    async with world.transaction(world.source) as t:
        first = await world.savepoint(t, "x")
        await world.insert(t, 1)
        y = await world.savepoint(t, "y")
        await world.insert(t, 2)
        second = await world.savepoint(t, "x")
        await world.insert(t, 3)
        await world.rollback_to(t, "y")
        assert str(second.state) == "gone"
        assert "'transaction/x/y'" in second.outcome
        assert await world.seen(t) == [(1, None)]
        await world.rollback_to(t, "x")
        assert (str(first.state), str(y.state)) == ("open", "gone")
        assert await world.seen(t) == []
    assert world.rows() == []


@pytest.mark.parametrize(
    ("aim", "kept"),
    [("level", [(1, None), (4, None)]), ("label", [(1, None), (2, None), (4, None), (5, None)])],
)
async def test_b27_rollback_by_level_and_by_label(world: World, aim: str, kept: list[Any]) -> None:
    """Three blocks of one label: the level object names the middle one, the label the nearest."""
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, "x") as outermost:
            await world.insert(t, 1)
            async with world.savepoint(t, "x") as middle:
                await world.insert(t, 2)
                async with world.savepoint(t, "x") as inner:
                    await world.insert(t, 3)
                    raise world.Rollback(middle if aim == "level" else "x")
                await world.insert(t, 5)
            assert str(inner.state) == "rolled back"
            assert str(middle.state) == ("rolled back" if aim == "level" else "released")
            await world.insert(t, 4)
        assert str(outermost.state) == "released"
    assert world.rows() == kept


async def test_b28_a_bookmark_under_the_label_of_its_block_does_not_save_the_rest(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with fails(Oops):
            async with world.savepoint(t, "x") as block:
                await world.insert(t, 2)
                mark = await world.savepoint(t, "x")
                await world.insert(t, 3)
                raise Oops
        assert (str(block.state), str(mark.state)) == ("rolled back", "gone")
    assert world.rows() == [(1, None)]


async def two_labels(world: World, one: str, other: str) -> None:
    """A rollback to the one is not taken for a rollback to the other, which is nearer; and the other way round."""
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t, one)
        await world.insert(t, 1)
        inner = await world.savepoint(t, other)
        await world.insert(t, 2)
        await world.rollback_to(t, other)
        assert await world.seen(t) == [(1, None)]
        await world.rollback_to(t, one)
        assert await world.seen(t) == []
        assert (outer.rollbacks, inner.rollbacks) == (1, 1)
        assert str(inner.state) == "gone"
        with refused(world, UnknownSavepoint):
            await world.release(t, other)
    assert world.rows() == []


async def test_b29_labels_that_differ_in_case_are_two(world: World) -> None:
    await two_labels(world, "Mark", "mark")


async def test_b30_labels_equal_in_the_first_63_characters_are_two(world: World) -> None:
    await two_labels(world, "x" * 63 + " one", "x" * 63 + " other")


async def test_b31_an_empty_label_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.seen(t)
        for opens in (world.savepoint, world.atomic):
            with refused(world, BadName, "must not be empty"):
                await opens(t, "").__aenter__()
        for steers in (world.rollback_to, world.release):
            with refused(world, BadName):
                await steers(t, "")
        assert world.current_transaction(t).savepoints == ()
    with refused(world, ValueError):
        await world.transaction(world.source, name="").__aenter__()


@pytest.mark.parametrize(("one", "other"), [("é", "e"), ("\u00e9", "e\u0301")], ids=["accent", "composed"])
async def test_b32_labels_are_compared_code_point_by_code_point(world: World, one: str, other: str) -> None:
    await two_labels(world, one, other)


@pytest.mark.parametrize("label", ["select", "SAVEPOINT", "to", "rollback"])
async def test_b33_reserved_words_work(world: World, label: str) -> None:
    async with world.transaction(world.source) as t:
        await world.savepoint(t, label)
        await world.insert(t, 1)
        await world.rollback_to(t, label)
        await world.release(t, label)
        async with world.savepoint(t, label) as sp:
            await world.insert(t, 2)
            assert sp.name == label
    assert world.rows() == [(2, None)]


@pytest.mark.parametrize("label", [7, b"x", ("x",)])
async def test_b34_a_label_that_is_no_text_is_refused_at_once(world: World, label: Any) -> None:
    async with world.open() as t:
        for call in (savepoints.savepoint, savepoints.atomic):
            with refused(world, TypeError):
                call(bare(t), label)  # neither awaited nor entered
        with refused(world, WrongArgument, "must be text"):
            savepoints.transaction(bare(t), name=label)
        for verb in (world.rollback_to, world.release):
            with refused(world, TypeError):
                await verb(t, label)


async def test_b35_labels_that_look_like_generated_names_do_not_clash(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.savepoint(t, "first")
        generated = controls(world)[0].split()[-1]
        await world.insert(t, 1)
        for label in (generated, "savepoints_1", "savepoints_2", "sa_savepoint_1", "sa_savepoint_2"):
            await world.savepoint(t, label)
            await world.insert(t, 2)
            await world.rollback_to(t, label)
            assert await world.seen(t) == [(1, None)]
        await world.rollback_to(t, "first")
        assert await world.seen(t) == []
        assert len(world.current_transaction(t).savepoints) == 1
    assert world.rows() == []
