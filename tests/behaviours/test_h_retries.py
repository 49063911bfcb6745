"""Group H: retries. The whole transaction again, by a rule; what is not tried again; what tests can provoke."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import tenacity
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

import savepoints
from savepoints import (
    AlreadyInTransaction,
    CommitOutcomeUnknown,
    HookErrors,
    NestedRetry,
    NotSupported,
    OutOfOrder,
    Retry,
    TransactionLost,
    WrongArgument,
)
from savepoints.testing import inject, instant_retries, lose_commit
from tests.behaviours.steps import Oops, fails, refused, told_at
from tests.behaviours.tools import notes, row
from tests.faults.provoked import busy_snapshot
from tests.faults.rivals import OURS, THEIRS, A, B, Rival, two_rows, waits_in_vain
from tests.faults.suspensions import clear_frames
from tests.harness.face import bare
from tests.harness.world import World


def transient(world: World) -> str:
    """What a conflict between two writers is here."""
    if "one_writer" in world.site.has:
        return "busy snapshot"
    return "serialization failure" if "serialization_failures" in world.site.has else "deadlock"


def passing(world: World) -> type[Exception]:
    """What leaves a block after such a conflict: its own error, or the loss of the whole that came with it."""
    return TransactionLost if "deadlock_ends_all" in world.site.has else DBAPIError


def first(world: World, error: BaseException) -> BaseException | None:
    """The database's own error, in what has left the block."""
    return error.__cause__ if "deadlock_ends_all" in world.site.has else error


def attempts(world: World, retry: Retry) -> Any:
    """An async loop, whose type no checker can tell from the source of any face."""
    return savepoints.attempts(world.source, retry)


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with instant_retries():
        yield


# -- the whole again


@pytest.mark.needs("many_writers")
@pytest.mark.parametrize("kind", ["serialization failure", "deadlock", "lock timeout"])
async def test_h120_a_decorated_function_runs_again_as_a_whole(world: World, kind: str) -> None:
    await runs_again(world, kind)


@pytest.mark.needs("one_writer")
@pytest.mark.parametrize("kind", ["busy snapshot", "busy"])
async def test_h120_where_there_is_one_writer(world: World, kind: str) -> None:
    await runs_again(world, kind)


async def runs_again(world: World, kind: str) -> None:
    sessions: list[Any] = []

    async def transfer(session: Any, name: str) -> str:
        sessions.append(bare(session))
        await world.insert(session, len(sessions), name)
        await world.insert(session, 10, name)
        return f"{name} after {len(sessions)}"

    decorated = world.decorated(transfer, retry=Retry())
    with inject(world.engine, kind, statement=2, times=2) as fault:
        assert await decorated(name="x") == "x after 3"
    assert fault.fired == 2
    assert len(set(map(id, sessions))) == 3
    assert world.rows() == [(3, "x"), (10, "x")]
    begins = [s for s in world.transcript.short() if s.startswith("BEGIN")]
    assert len(begins) == 3


async def test_h120_messages_tell_where_the_function_was_called(world: World) -> None:
    """The loop in between is no place of the user's."""
    places: list[str] = []

    async def work(session: Any) -> None:
        places.append(str(world.current_transaction(session).opened_at))

    await world.decorated(work, retry=Retry())()
    assert places[0].startswith(f"{told_at(world, __file__)}:")


async def test_h120_a_loop_of_tries(world: World) -> None:
    numbers = []
    with inject(world.engine, transient(world), statement=1, times=2):
        async for attempt in world.attempts(world.source, Retry(), name="tries"):
            async with attempt as t:
                numbers.append(attempt.number)
                assert world.current_transaction(t).name == "tries"
                await world.insert(t, attempt.number)
    assert numbers == [1, 2, 3]
    assert world.rows() == [(3, None)]


async def test_h120_a_refused_commit_is_tried_again(world: World) -> None:
    async def work(session: Any) -> None:
        await world.insert(session, 1)

    with inject(world.engine, transient(world), commit=1, times=1) as fault:
        await world.decorated(work, retry=Retry())()
    assert fault.fired == 1
    assert world.rows() == [(1, None)]


async def test_h120_a_refused_commit_in_a_loop(world: World) -> None:
    with inject(world.engine, transient(world), commit=1) as fault:
        async for attempt in world.attempts(world.source, Retry()):
            async with attempt as t:
                await world.insert(t, attempt.number)
    assert fault.fired == 1
    assert world.rows() == [(2, None)]


async def test_h120_never_told_as_stored_where_the_code_goes_on(world: World) -> None:
    """An error that cannot be followed by another try is raised (tests/test_loops.py has all forms of a loop)."""

    async def returns(id: int) -> str:
        async for attempt in world.attempts(world.source, Retry()):
            async with attempt as t:
                await world.insert(t, id)
                return "stored"
        return "never"

    async def goes_on(id: int) -> str:
        async for attempt in world.attempts(world.source, Retry()):
            async with attempt as t:
                await world.insert(t, id)
            return "stored"
        return "never"

    refused_commit, error_inside = {"commit": 1}, {"statement": 1}
    for function, where in ((returns, refused_commit), (goes_on, refused_commit), (goes_on, error_inside)):
        with inject(world.engine, transient(world), **where) as fault, fails((DBAPIError, TransactionLost)) as caught:
            await function(1)
        assert fault.fired == 1
        assert "was not tried again" in notes(caught.value)
        assert world.rows() == []
    with inject(world.engine, transient(world), **error_inside):
        assert await returns(1) == "stored"  # the `return` was not reached before
    assert await goes_on(2) == "stored"
    assert world.rows() == [(1, None), (2, None)]


async def test_h120_failing_to_open_is_a_try_too(world: World) -> None:
    """The first statement is BEGIN here, or the connection's first one: also in a loop."""
    tries = []

    def refuses_once(*_: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no route")

    from sqlalchemy import event

    event.listen(world.sync_engine, "begin", refuses_once)
    async for attempt in world.attempts(world.engine, Retry(on=lambda error: isinstance(error, OSError))):
        async with attempt as t:
            await t.execute(row(attempt.number))
    event.remove(world.sync_engine, "begin", refuses_once)
    assert world.rows() == [(2, None)]


@pytest.mark.needs("many_writers")
async def test_h120_a_real_deadlock(world: World) -> None:
    two_rows(world)
    rival = Rival(world)
    done: list[int] = []

    async def work(session: Any) -> None:
        await session.execute(A, OURS)
        if not done:
            done.append(1)
            rival.wait_for_a()
            await session.execute(B, OURS)
        await session.execute(B, OURS)

    def before(number: int, error: BaseException, seconds: float) -> None:
        rival.has_a()

    try:
        await world.decorated(work, retry=Retry(before_retry=before))()
    finally:
        rival.close()
    assert world.rows() == [(1, "a+theirs+ours"), (2, "b+theirs+ours")]


@pytest.mark.needs("isolation_levels")
async def test_h120_contended_increments_are_exact(world: World) -> None:
    """Each reads and writes back, at a level where whoever comes too late is refused; it starts over."""
    level = "REPEATABLE READ" if "serialization_failures" in world.site.has else "SERIALIZABLE"
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, '0')"))

    async def increment(session: Any) -> None:
        value = int(await session.scalar(text("SELECT name FROM item WHERE id = 1")))
        await asyncio.sleep(0) if world.site.face == "async" else None
        await session.execute(text("UPDATE item SET name = :name WHERE id = 1"), {"name": str(value + 1)})

    decorated = world.decorated(increment, isolation_level=level, retry=Retry(attempts=200))
    if world.site.face == "async":
        await asyncio.gather(*(decorated() for _ in range(10)))
    else:
        from concurrent.futures import ThreadPoolExecutor

        def one() -> None:
            savepoints.transaction(bare(world.source), isolation_level=level, retry=Retry(attempts=200))(
                increment_sync
            )()

        def increment_sync(session: Any) -> None:
            value = int(session.scalar(text("SELECT name FROM item WHERE id = 1")))
            session.execute(text("UPDATE item SET name = :name WHERE id = 1"), {"name": str(value + 1)})

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: one(), range(10)))
    assert world.rows() == [(1, "10")]


# -- limits


async def test_h121_the_last_error_passes_as_the_same_object(world: World) -> None:
    errors: list[BaseException] = []

    async def work(session: Any) -> None:
        try:
            await world.insert(session, 1, "secret")
        except DBAPIError as error:
            errors.append(error)
            raise

    kind = transient(world)
    with inject(world.engine, kind, statement=1, times=9) as fault, fails(passing(world)) as caught:
        await world.decorated(work, retry=Retry(attempts=3))()
    assert fault.fired == 3
    assert first(world, caught.value) is errors[-1]
    told = notes(caught.value)
    assert told.count("failed with") == 2
    assert "try 1 of 3" in told
    assert "try 2 of 3" in told
    assert kind in told
    assert "secret" not in told
    assert world.rows() == []


async def test_h121_in_a_loop(world: World) -> None:
    errors: list[BaseException] = []
    with inject(world.engine, transient(world), statement=1, times=9), fails(passing(world)) as caught:
        async for attempt in world.attempts(world.source, Retry(attempts=2)):
            async with attempt as t:
                try:
                    await world.insert(t, 1)
                except DBAPIError as error:
                    errors.append(error)
                    raise
    assert first(world, caught.value) is errors[-1]
    assert "try 1 of 2" in notes(caught.value)
    assert world.rows() == []


async def test_h121_a_limit_by_time(world: World) -> None:
    count = []

    async def work(session: Any) -> None:
        count.append(1)
        await world.insert(session, 1)

    with inject(world.engine, transient(world), statement=1, times=9), fails(passing(world)):
        await world.decorated(work, retry=Retry(attempts=None, timeout=10, wait=4))()
    assert len(count) == 3  # the third wait would reach 10 s, and instant ones count by what they would have been


async def test_h121_a_stop_of_tenacity(world: World) -> None:
    """It ends the tries besides the two limits, or in their place."""
    for retry, tries in (
        (Retry(attempts=None, timeout=None, stop=tenacity.stop_after_attempt(2)), 2),
        (Retry(attempts=5, stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(60)), 3),
        (Retry(attempts=2, stop=tenacity.stop_after_attempt(3)), 2),
        (Retry(stop=lambda state: state.attempt_number == 2), 2),
    ):
        with inject(world.engine, transient(world), statement=1, times=9) as fault, fails(passing(world)) as caught:
            async for attempt in world.attempts(world.source, retry):
                async with attempt as t:
                    await world.insert(t, 1)
        assert fault.fired == tries
        assert f"try {tries - 1} " in notes(caught.value)


async def test_h121_an_error_not_worth_it_passes_at_once(world: World) -> None:
    own = Oops()

    async def work(session: Any) -> None:
        calls.append(1)
        await world.insert(session, 1)
        raise own

    calls: list[int] = []
    with fails(Oops) as caught:
        await world.decorated(work, retry=Retry())()
    assert caught.value is own
    assert calls == [1]
    assert notes(own) == ""


async def test_h121_after_tries_the_history_goes_with_any_error(world: World) -> None:
    with inject(world.engine, transient(world), statement=1), fails(IntegrityError) as caught:
        async for attempt in world.attempts(world.source):
            async with attempt as t:
                await t.execute(row(1))
                await t.execute(row(1))
    assert "try 1 of 5" in notes(caught.value)


# -- observers and waits


async def test_h122_told_number_error_and_wait_before_the_wait(world: World) -> None:
    told: list[Any] = []

    def before(number: int, error: BaseException, seconds: float) -> None:
        told.append((number, type(error), seconds))

    wait = tenacity.wait_exponential(multiplier=2)
    with inject(world.engine, transient(world), statement=1, times=3):
        async for attempt in world.attempts(world.source, Retry(wait=wait, timeout=None, before_retry=before)):
            async with attempt as t:
                await world.insert(t, 1)
    assert [(number, seconds) for number, _, seconds in told] == [(1, 2.0), (2, 4.0), (3, 8.0)]
    assert all(issubclass(kind, passing(world)) for _, kind, _ in told)


@pytest.mark.needs("async")
async def test_h122_an_async_observer_is_awaited(world: World) -> None:
    told: list[int] = []

    async def before(number: int, error: BaseException, seconds: float) -> None:
        await asyncio.sleep(0)
        told.append(number)

    async def work(session: Any) -> None:
        await world.insert(session, 1)

    for _ in range(2):
        with inject(world.engine, transient(world), statement=1), suppress(IntegrityError):
            await world.decorated(work, retry=Retry(before_retry=before))()
    with inject(world.engine, transient(world), statement=1):
        async for attempt in attempts(world, Retry(before_retry=before)):
            async with attempt as t:
                await world.insert(t, 2)
    assert told == [1, 1, 1]


async def test_h122_what_the_observer_raises_ends_the_tries(world: World) -> None:
    def before(*_: Any) -> None:
        raise Oops

    with inject(world.engine, transient(world), statement=1), fails(Oops):
        async for attempt in world.attempts(world.source, Retry(before_retry=before)):
            async with attempt as t:
                await world.insert(t, 1)


@pytest.mark.needs("async")
async def test_h122_a_cancellation_ends_the_waiting(world: World) -> None:
    waiting = asyncio.Event()
    retry = Retry(wait=3600, timeout=None, before_retry=lambda *_: waiting.set())

    async def work() -> None:
        async for attempt in attempts(world, retry):
            async with attempt as t:
                await world.insert(t, 1)

    with inject(world.engine, transient(world), statement=1):
        savepoints._retry._instant -= 1  # this one is to wait
        try:
            task = asyncio.create_task(work())
            await waiting.wait()
            await asyncio.sleep(0)
            task.cancel()
            with fails(asyncio.CancelledError):
                await task
        finally:
            savepoints._retry._instant += 1
    assert world.rows() == []


async def test_h122_waits_are_between_nothing_and_the_window() -> None:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.set_exception((ValueError, ValueError(), None))
    for number, window in ((1, 0.05), (2, 0.1), (3, 0.2), (20, 2.0)):
        state.attempt_number = number
        waits = [Retry().seconds(state) for _ in range(200)]
        assert min(waits) >= 0
        assert window / 2 < max(waits) <= window


# -- where it cannot be


async def test_h123_inside_another_transaction(world: World) -> None:
    async def work(session: Any) -> None:
        await world.insert(session, 2)

    decorated = world.decorated(work, retry=Retry())
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with refused(world, NestedRetry, "is open in this task") as caught:
            await decorated()
        assert isinstance(caught.value, AlreadyInTransaction)
        with refused(world, NestedRetry, "is open in this task"):
            async for attempt in world.attempts(world.source):
                async with attempt:
                    pass
        with refused(world, NestedRetry, "caller's session"):
            await decorated(session=t)
    assert world.rows() == [(1, None)]
    await decorated()
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("many_writers")
async def test_h123_unless_two_are_meant(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async for attempt in world.attempts(world.source, independent=True):
            async with attempt as other:
                await world.insert(other, 2)
        assert world.rows() == [(2, None)]


@pytest.mark.needs("serialization_failures")
async def test_h124_a_serialization_failure_is_not_healed_by_a_savepoint(world: World) -> None:
    two_rows(world)
    refusals: list[DBAPIError] = []

    async def work(session: Any) -> None:
        await world.seen(session)
        if not refusals:
            with world.aside.begin() as other:
                other.execute(A, THEIRS)
        sp = await world.savepoint(session)
        for _ in range(3):
            try:
                await session.execute(A, OURS)
                return
            except DBAPIError as error:
                refusals.append(error)
                await sp.rollback()
        raise refusals[-1]

    await world.decorated(work, isolation_level="REPEATABLE READ", retry=Retry())()
    assert len(refusals) == 3
    assert {savepoints.classify(error).retry_from for error in refusals} == {"the transaction"}
    assert world.rows()[0] == (1, "a+theirs+ours")


@pytest.mark.needs("many_writers")
@pytest.mark.lacks("deadlock_ends_all")
async def test_h125_a_deadlock_may_be_healed_by_hand_or_retried_as_a_whole(world: World) -> None:
    two_rows(world)
    rival = Rival(world)
    try:
        async with world.transaction(world.source) as t:
            await world.insert(t, 3, "before")
            sp = await world.savepoint(t)
            await t.execute(A, OURS)
            rival.wait_for_a()
            with pytest.raises(DBAPIError) as caught:
                await t.execute(B, OURS)
            found = savepoints.classify(caught.value)
            assert (found.kind, found.retry_from) == ("deadlock", "the savepoint")
            assert savepoints.is_retryable(caught.value)
            await sp.rollback()
            rival.has_a()
            await t.execute(A, OURS)
    finally:
        rival.close()
    assert world.rows() == [(1, "a+theirs+ours"), (2, "b+theirs"), (3, "before")]


@pytest.mark.needs("deadlock_ends_all")
@pytest.mark.parametrize("way", ["through the blocks", "swallowed"])
async def test_h126_a_deadlock_in_a_savepoint_loses_all_and_the_whole_is_retried(world: World, way: str) -> None:
    """The savepoints are gone with the transaction: nothing is sent to them, so that nothing hides the first error."""
    two_rows(world)
    rival = Rival(world)
    refusals: list[DBAPIError] = []
    told: list[BaseException] = []

    async def work(session: Any) -> None:
        await world.insert(session, 3, "ours")
        async with world.savepoint(session, "part") as outer, world.savepoint(session) as inner:
            await session.execute(A, OURS)
            if not refusals:
                rival.wait_for_a()
                with fails(DBAPIError) as caught:
                    await session.execute(B, OURS)
                refusals.append(caught.value)
                levels = (world.current_transaction(session), outer, inner)
                assert [str(level.state) for level in levels] == ["lost"] * 3
                for call in (
                    inner.rollback,
                    lambda: world.rollback_to(session, "part"),
                    lambda: session.execute(A, OURS),
                ):
                    with refused(world, TransactionLost, "deadlock 1213"):
                        await call()
                if way == "through the blocks":
                    raise caught.value
                return
            await session.execute(B, OURS)

    def before(number: int, error: BaseException, seconds: float) -> None:
        told.append(error)
        rival.has_a()

    try:
        await world.decorated(work, retry=Retry(before_retry=before))()
    finally:
        rival.close()
    [lost] = told
    assert isinstance(lost, TransactionLost)
    assert lost.__cause__ is refusals[0]
    assert world.code(refusals[0]) == "1213"
    assert "1305" not in f"{lost} {notes(lost)} {refusals[0]} {notes(refusals[0])}"
    assert world.rows() == [(1, "a+theirs+ours"), (2, "b+theirs+ours"), (3, "ours")]
    sent = world.transcript.short()
    assert not [statement for statement in sent if statement.startswith("ROLLBACK TO")]


@pytest.mark.needs("deadlock_ends_all")
async def test_h127_a_lock_waited_for_in_vain_undoes_its_statement_alone(world: World) -> None:
    two_rows(world)
    async with world.transaction(world.source) as t:
        await world.insert(t, 3, "before")
        async with world.savepoint(t) as sp:
            await world.insert(t, 4, "inside")
            error = await waits_in_vain(world, t)
            found = savepoints.classify(error)
            assert (found.kind, found.code, found.retry_from) == ("lock timeout", "1205", "the savepoint")
            assert str(sp.state) == "open"
            await t.execute(A, OURS)
    assert world.rows() == [(1, "a+ours"), (2, "b"), (3, "before"), (4, "inside")]


# -- a COMMIT whose answer was lost


@pytest.mark.parametrize("stored", [True, False])
async def test_h130_never_retried_on_its_own(world: World, stored: bool) -> None:
    calls: list[int] = []

    async def work(session: Any) -> None:
        calls.append(1)
        await world.insert(session, len(calls))

    retry = Retry(on=lambda error: True)  # not even then
    with lose_commit(world.engine, stored=stored) as fault, fails(CommitOutcomeUnknown):
        await world.decorated(work, retry=retry)()
    assert fault.fired == 1
    assert calls == [1]
    assert world.rows() == ([(1, None)] if stored else [])


@pytest.mark.parametrize("stored", [True, False])
async def test_h130_by_a_function_of_the_users(world: World, stored: bool) -> None:
    """Elsewhere a function looks whether the work is there: only a plain no goes on."""

    def is_there(connection: Any) -> bool:
        return bool(connection.scalar(text("SELECT count(*) FROM item WHERE name = 'key'")))

    calls: list[int] = []

    async def work(session: Any) -> None:
        calls.append(1)
        await world.insert(session, len(calls), "key")

    decorated = world.decorated(work, track_commit=is_there, retry=Retry())
    with lose_commit(world.engine, stored=stored):
        if stored:
            with fails(CommitOutcomeUnknown) as caught:
                await decorated()
            assert "the answer is 'committed'" in notes(caught.value)
        else:
            await decorated()
    assert world.rows() == [(1 if stored else 2, "key")]


async def test_h130_a_function_that_cannot_tell(world: World) -> None:
    async def work(session: Any) -> None:
        await world.insert(session, 1)

    decorated = world.decorated(work, track_commit=lambda connection: None, retry=Retry())
    with lose_commit(world.engine, stored=False), fails(CommitOutcomeUnknown) as caught:
        await decorated()
    assert "the answer is 'unknown'" in notes(caught.value)


async def test_h130_a_function_that_fails_is_not_asked_again(world: World) -> None:
    """Its own mistake is told; only where nobody could be asked is the question put again."""
    asked: list[int] = []

    def has_a_bug(connection: Any) -> bool:
        asked.append(1)
        raise KeyError("secret")

    async def work(session: Any) -> None:
        await world.insert(session, 1)

    decorated = world.decorated(work, track_commit=has_a_bug, retry=Retry())
    with lose_commit(world.engine, stored=False), fails(CommitOutcomeUnknown) as caught:
        await decorated()
    assert asked == [1]
    assert "asked whether the work is stored: that failed with KeyError" in notes(caught.value)
    assert f"at {__file__}:" in notes(caught.value)
    assert "secret" not in notes(caught.value)


async def test_h130_asking_ends_in_the_time_that_is_said_to_be_waited(world: World) -> None:
    asked: list[int] = []

    def cannot_be_reached(connection: Any) -> bool:
        asked.append(1)
        raise OperationalError("x", None, BrokenPipeError(), connection_invalidated=True)

    async def work(session: Any) -> None:
        await world.insert(session, 1)

    decorated = world.decorated(work, track_commit=cannot_be_reached, retry=Retry(timeout=0.5))
    with lose_commit(world.engine, stored=False), fails(CommitOutcomeUnknown) as caught:
        await decorated()
    assert 4 <= len(asked) <= 6
    assert "nobody answered in time" in notes(caught.value)
    assert "OperationalError" in notes(caught.value)


async def test_h130_nor_where_the_users_own_error_hides_it(world: World) -> None:
    """What was raised from it says as little about whether the work is stored."""

    class Own(Exception):
        pass

    def unknown() -> Exception:
        return CommitOutcomeUnknown("no answer")

    def hooked() -> Exception:
        return HookErrors("a hook failed", [ValueError()], committed=True)

    for hidden in (unknown, hooked):
        calls = []
        with fails((Own, ExceptionGroup)):
            async for attempt in world.attempts(world.source, Retry(on=lambda error: True)):
                async with attempt as t:
                    calls.append(1)
                    await world.insert(t, 1)
                    raise Own from hidden()
        with fails(ExceptionGroup):
            async for attempt in world.attempts(world.source, Retry(on=lambda error: True)):
                async with attempt as t:
                    calls.append(1)
                    await world.insert(t, 1)
                    raise ExceptionGroup("tasks", [Oops(), hidden()])
        assert calls == [1, 1]


@pytest.mark.needs("commit_status")
@pytest.mark.parametrize("stored", [True, False])
async def test_h130_where_the_database_can_be_asked(world: World, stored: bool) -> None:
    ending = fails(CommitOutcomeUnknown) if stored else nullcontext()
    with lose_commit(world.engine, stored=stored) as fault, ending as caught:
        async for attempt in world.attempts(world.source, Retry(), track_commit=True):
            async with attempt as t:
                await world.insert(t, attempt.number)
    if caught is not None:
        assert "the answer is 'committed'" in notes(caught.value)
    assert fault.fired == 1
    assert world.rows() == [(1 if stored else 2, None)]


@pytest.mark.needs("commit_status")
async def test_h130_under_the_decorator(world: World) -> None:
    calls: list[int] = []

    async def work(session: Any) -> None:
        calls.append(1)
        await world.insert(session, len(calls))

    with lose_commit(world.engine, stored=False):
        await world.decorated(work, track_commit=True, retry=Retry())()
    assert world.rows() == [(2, None)]


@pytest.mark.needs("orm")
async def test_h130_nor_after_a_listener_of_the_session_has_failed(world: World) -> None:
    log: list[str] = []

    def fails_late(*_: object) -> None:
        raise OperationalError("x", None, BrokenPipeError(), connection_invalidated=True)

    async def work(session: Any) -> None:
        await world.run_sync(session, lambda found: event.listen(found, "after_commit", fails_late))
        world.hook("on_commit", session, log.append, "stored")
        await world.insert(session, 1 + len(log))

    with fails(OperationalError) as caught:
        await world.decorated(work, retry=Retry())()
    assert notes(caught.value).count("the work is stored") == 1
    assert log == ["stored"]
    assert world.rows() == [(1, None)]


async def test_h130_nor_where_the_answer_says_that_nobody_knows(world: World) -> None:
    """With the connection alive: a pooler, or a cluster, whose server is gone."""
    log: list[str] = []

    async def work(session: Any) -> None:
        for verb in ("on_rollback", "on_unknown"):
            world.hook(verb, session, log.append, verb)
        await world.insert(session, 1)

    for kind in ("commit outcome unknown", "connection lost"):
        try:
            with inject(world.engine, kind, commit=1):
                with fails(CommitOutcomeUnknown):
                    await world.decorated(work, retry=Retry())()
                assert log == ["on_unknown"]
        except NotSupported:  # the database never says so
            assert "many_writers" not in world.site.has or "deadlock_ends_all" in world.site.has
        log.clear()
    world.check_pool()


async def test_h130_nothing_is_tried_again_after_commit_hooks(world: World) -> None:
    calls: list[int] = []

    async def work(session: Any) -> None:
        calls.append(1)
        await world.insert(session, 1)

        def fails_late() -> None:
            raise OperationalError("x", None, Exception())

        world.hook("on_commit", session, fails_late)

    with fails(HookErrors):
        await world.decorated(work, retry=Retry(on=lambda error: True))()
    assert calls == [1]
    assert world.rows() == [(1, None)]


# -- generators and streams


async def test_h131_a_generator_function_is_refused(world: World) -> None:
    def rows(session: Any) -> Iterator[int]:
        yield 1

    with pytest.raises(WrongArgument, match="generator function"):
        savepoints.transaction(bare(world.source), retry=Retry())(rows)


@pytest.mark.needs("sync")
async def test_h131_a_stream_handed_out_of_a_failed_try(world: World) -> None:
    """Its error is the code's own, so that the connection still takes what ends the try."""
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, 'a'), (2, 'b'), (3, 'c')"))
    streams: list[Any] = []
    query = text("SELECT id FROM item").execution_options(stream_results=True)
    for attempt in savepoints.attempts(bare(world.source), Retry(on=lambda error: isinstance(error, Oops))):
        with attempt as t:
            t.execute(row(10))
            if not streams:
                streams.append(t.execute(query))
                raise Oops
    with pytest.raises(Exception, match="closed"):
        streams[0].all()
    assert (10, None) in world.rows()


@pytest.mark.needs("sync")
@pytest.mark.lacks("one_at_a_time")
async def test_h131_a_stream_of_a_failed_try_is_dead(world: World) -> None:
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, 'a'), (2, 'b'), (3, 'c')"))
    streams: list[Any] = []
    query = text("SELECT id FROM item").execution_options(stream_results=True)
    with inject(world.engine, transient(world), statement=2):
        for attempt in savepoints.attempts(bare(world.source)):
            with attempt as t:
                if not streams:
                    streams.append(t.execute(query))
                t.execute(row(10))
    with pytest.raises(Exception, match="closed"):
        streams[0].all()


async def test_h132_hooks_and_objects_of_the_failed_try_are_gone(world: World) -> None:
    log: list[str] = []
    with inject(world.engine, transient(world), statement=1):
        async for attempt in world.attempts(world.source):
            async with attempt as t:
                for verb in ("on_commit", "on_rollback", "before_commit"):
                    world.hook(verb, t, log.append, f"{verb} {attempt.number}")
                if world.style == "orm":
                    assert not list(t.new)
                    t.add(world.Item(id=attempt.number))
                    await t.flush()
                else:
                    await world.insert(t, attempt.number)
    assert log == ["on_rollback 1", "before_commit 2", "on_commit 2"]
    assert world.rows() == [(2, None)]


@pytest.mark.needs("one_writer")
async def test_h133_busy_snapshot_restarts_the_whole(world: World) -> None:
    """A read that becomes a write, and another writer in between: going back to a savepoint keeps the old snapshot."""
    with pytest.raises(OperationalError) as caught:
        await busy_snapshot(world)
    assert savepoints.classify(caught.value).retry_from == "the transaction"
    clear_frames(caught.value)
    seen = []

    async def work(session: Any) -> None:
        seen.append(len(await world.seen(session)))
        if len(seen) == 1:
            with world.aside.begin() as other:
                other.execute(text("INSERT INTO item VALUES (20, 'theirs')"))
            sp = await world.savepoint(session)
            with pytest.raises(OperationalError) as refusal:
                await world.insert(session, 1)
            clear_frames(refusal.value)
            await sp.rollback()
        await world.insert(session, 1)

    await world.decorated(work, retry=Retry())()
    assert seen == [1, 2]


# -- arguments


async def test_h_the_rule_is_checked_at_once() -> None:
    async def nothing(_: object) -> bool:
        return False

    for wrong, match in (
        ({"attempts": None, "timeout": None}, "no limit"),
        ({"attempts": 0}, "from 1 on"),
        ({"attempts": 2.5}, "whole number"),
        ({"attempts": True}, "whole number"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": "30"}, "seconds"),
        ({"wait": -1}, "not below 0"),
        ({"wait": tenacity.wait_fixed(-1)}, "not below 0"),
        ({"wait": "long"}, "wait"),
        ({"on": OperationalError("x", None, Exception())}, "a function"),
        ({"before_retry": 3}, "a function"),
        ({"stop": 3}, "a stop of tenacity"),
        ({"stop": tenacity.stop_never, "attempts": None, "timeout": None}, "no limit"),
        ({"stop": tenacity.stop_after_attempt}, "a stop of tenacity"),
        ({"stop": nothing}, "not an async function"),
        ({"wait": nothing}, "not an async function"),
        ({"on": nothing}, "not an async function"),
        ({"on": KeyError}, "a function that is given the error"),  # it can be called, and what it gives is true
        ({"attempts": None, "timeout": float("inf")}, "above 0"),
        ({"timeout": 10**400}, "above 0"),
        ({"wait": 1e300}, "not below 0"),
        ({"timeout": float("nan")}, "above 0"),
        ({"wait": float("nan")}, "not below 0"),
    ):
        with pytest.raises(WrongArgument, match=match):
            Retry(**wrong)


async def test_h_an_error_of_the_rule_itself_keeps_the_first(world: World) -> None:
    """The database's error is its context."""

    def fails_itself(*_: object) -> bool:
        raise Oops

    for retry in (
        Retry(wait=0, on=fails_itself),
        Retry(wait=0, before_retry=fails_itself),
        Retry(wait=fails_itself),
        Retry(wait=0, stop=fails_itself),
    ):
        with inject(world.engine, transient(world), statement=1), fails(Oops) as caught:
            async for attempt in world.attempts(world.source, retry):
                async with attempt as t:
                    await world.insert(t, 1)
        assert isinstance(caught.value.__context__, (DBAPIError, TransactionLost))


async def test_h_a_round_that_does_not_enter_its_try_ends_the_loop(world: World) -> None:
    rounds = 0
    with fails(OutOfOrder, "has not entered its try"):
        async for _ in world.attempts(world.source, Retry(attempts=3)):
            rounds += 1
            assert rounds < 3
    assert rounds == 1


async def test_h_a_wait_that_becomes_negative_is_found(world: World) -> None:
    retry = Retry(wait=lambda state: -1.0)
    with inject(world.engine, transient(world), statement=1), fails(WrongArgument, match="not below 0") as caught:
        async for attempt in world.attempts(world.source, retry):
            async with attempt as t:
                await world.insert(t, 1)
    assert isinstance(caught.value.__context__, (DBAPIError, TransactionLost))


async def test_h_a_rule_is_for_a_source_and_for_functions(world: World) -> None:
    async with world.open() as t:
        with refused(world, WrongArgument, "needs a source"):
            savepoints.attempts(bare(t))
        with refused(world, WrongArgument, "retry is a Retry"):
            savepoints.attempts(bare(world.source), 3)  # type: ignore[call-overload]
        with refused(world, WrongArgument, "retry is a Retry"):
            savepoints.transaction(bare(world.source), retry=3)  # type: ignore[call-overload]
        with refused(world, WrongArgument, "cannot run twice"):
            async with world.transaction(world.source, retry=Retry()):
                pass

        async def is_there(connection: Any) -> bool:
            return False

        with refused(world, WrongArgument, "track_commit is an async function"):
            savepoints.attempts(bare(world.source), track_commit=is_there)  # type: ignore[arg-type]
        with refused(world, WrongArgument, "track_commit"):
            savepoints.attempts(bare(world.source), track_commit="yes")  # type: ignore[call-overload]


@pytest.mark.needs("sync")
async def test_h_an_async_observer_on_a_sync_source(world: World) -> None:
    async def before(*_: Any) -> None: ...

    with pytest.raises(WrongArgument, match="before_retry is async"):
        savepoints.attempts(bare(world.source), Retry(before_retry=before))
    with pytest.raises(WrongArgument, match="before_retry is async"):
        savepoints.transaction(bare(world.source), retry=Retry(before_retry=before))(lambda session: None)


@pytest.mark.needs("sync")
async def test_h_what_an_observer_gives_to_be_awaited_is_found(world: World) -> None:
    async def before(*_: Any) -> None: ...

    with inject(world.engine, transient(world), statement=1), fails(WrongArgument, "nobody awaits") as caught:
        async for attempt in world.attempts(world.source, Retry(before_retry=lambda *told: before(*told))):
            async with attempt as t:
                await world.insert(t, 1)
    assert isinstance(caught.value.__cause__, (DBAPIError, TransactionLost))


async def test_h_a_try_is_entered_once(world: World) -> None:
    async for attempt in world.attempts(world.source, Retry(attempts=3)):
        async with attempt as t:
            await world.insert(t, attempt.number)
            with fails(OutOfOrder, "was entered already"):
                async with attempt:
                    pass
        with fails(OutOfOrder, "was entered already"):
            async with attempt:
                pass
    assert world.rows() == [(1, None)]


@pytest.mark.needs("async")
async def test_h_an_async_loop_is_no_loop_of_the_other_kind(world: World) -> None:
    with pytest.raises(WrongArgument, match="`async for`"):
        for _ in attempts(world, Retry()):
            pass


async def test_h_the_signal_ends_the_tries(world: World) -> None:
    numbers = []
    async for attempt in world.attempts(world.source):
        async with attempt as t:
            numbers.append(attempt.number)
            await world.insert(t, 1)
            raise world.Rollback()
    assert numbers == [1]
    assert world.rows() == []
