"""The tester tested: bugs planted in the library are found within a few hundred programs, and shrunk."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from savepoints._core import ends, marks, moves
from savepoints._core.stack import Stack
from tests.programs import language
from tests.programs.bench import Bench

Plant = Callable[[pytest.MonkeyPatch], None]


def second_rollback_skipped(patch: pytest.MonkeyPatch) -> None:
    roll_back = moves.roll_back
    patch.setattr(moves, "roll_back", lambda level: None if level.rollbacks else roll_back(level))


def oldest_of_a_name(patch: pytest.MonkeyPatch) -> None:
    nearest = Stack.find
    patch.setattr(
        Stack, "find", lambda stack, name: next((one for one in stack.levels if one.name == name), nearest(stack, name))
    )


def swallowed_failure_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ends, "leave_joined", lambda stack, level, error: stack.joined.remove(level))


def release_for_rollback_to(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(marks.ConnectionMark, "rollback", lambda mark, *, keep: None if keep else mark.release())


def objects_not_restored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(marks, "restore", lambda *args, **kwargs: None)


PLANTED = [second_rollback_skipped, oldest_of_a_name, swallowed_failure_kept]


@pytest.mark.needs("sync", "driver_begins", "core")
@pytest.mark.parametrize("plant", [*PLANTED, release_for_rollback_to])
async def test_planted_bug_is_found_and_shrunk(bench: Bench, monkeypatch: pytest.MonkeyPatch, plant: Plant) -> None:
    plant(monkeypatch)
    await assert_found(bench)


@pytest.mark.needs("sync", "driver_begins", "orm")
@pytest.mark.parametrize("plant", [*PLANTED, objects_not_restored])
async def test_planted_bug_is_found_with_objects(bench: Bench, monkeypatch: pytest.MonkeyPatch, plant: Plant) -> None:
    plant(monkeypatch)
    await assert_found(bench)


async def assert_found(bench: Bench) -> None:
    with pytest.raises(AssertionError, match="shrunk to a line") as told:
        await bench.check_random(300, seed=1)
    [line] = re.findall(r"^    (Program\(.*\)),$", str(told.value), re.MULTILINE)
    program = eval(line, vars(language))
    assert len(list(language.steps(program.body))) <= 4, line
    assert await bench.problem(program) is not None
