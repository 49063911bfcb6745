"""`savepoints.testing`: what can be asked for, and that nothing is left behind."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from savepoints import CommitOutcomeUnknown, NotSupported, Outcome, WrongArgument, _retry, classify, transaction
from savepoints.testing import inject, instant_retries, lose_commit


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    yield engine
    engine.dispose()


def insert(engine: Any, *ids: int) -> None:
    with transaction(engine) as connection:
        for id in ids:
            connection.execute(text("INSERT INTO t VALUES (:id)"), {"id": id})


def stored(engine: Any) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM t ORDER BY id")))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({}, WrongArgument, "exactly one"),
        ({"statement": 1, "commit": 1}, WrongArgument, "exactly one"),
        ({"statement": 0}, WrongArgument, "from 1 on"),
        ({"commit": True}, WrongArgument, "from 1 on"),
        ({"statement": 1, "times": 0}, WrongArgument, "from 1 on"),
    ],
)
def test_where_a_fault_strikes_is_checked(engine: Any, arguments: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match), inject(engine, "busy", **arguments):
        pass


def test_only_errors_that_the_database_has(engine: Any) -> None:
    with pytest.raises(NotSupported, match="'busy snapshot'"), inject(engine, "deadlock", statement=1):
        pass
    with pytest.raises(WrongArgument, match="into an engine"), inject("engine", "busy", statement=1):
        pass
    with pytest.raises(WrongArgument, match="from 1 on"), lose_commit(engine, stored=True, commit=0):
        pass


def test_it_strikes_at_its_place_and_then_no_more(engine: Any) -> None:
    with inject(engine, "busy", statement=2, times=2) as fault:
        insert(engine, 1)
        for _ in range(2):
            with pytest.raises(OperationalError) as caught:
                insert(engine, 2, 3)
            assert classify(caught.value).kind == "busy"
        insert(engine, 2, 3)
    assert fault.fired == 2
    with inject(engine, "busy", commit=2):
        insert(engine, 4)
        with pytest.raises(OperationalError):
            insert(engine, 5)
        insert(engine, 6)
    insert(engine, 7)
    assert stored(engine) == [1, 2, 3, 4, 6, 7]


def test_afterwards_the_engine_is_as_before(engine: Any) -> None:
    before = engine.dialect.do_commit
    with suppress(Exception), inject(engine, "busy", commit=1):
        insert(engine, 1)
    with suppress(Exception), lose_commit(engine, stored=False):
        insert(engine, 1)
    assert engine.dialect.do_commit == before
    insert(engine, 1)
    assert stored(engine) == [1]


@pytest.mark.parametrize("way", ["refused", "lost"])
@pytest.mark.parametrize("first", [0, 1])
def test_blocks_may_end_in_any_order(engine: Any, way: str, first: int) -> None:
    """Those of tasks and threads overlap."""
    before = engine.dialect.do_commit
    blocks = [
        inject(engine, "busy", commit=1) if way == "refused" else lose_commit(engine, stored=False) for _ in range(2)
    ]
    faults = [block.__enter__() for block in blocks]
    blocks[first].__exit__(None, None, None)
    with pytest.raises(OperationalError if way == "refused" else CommitOutcomeUnknown):
        insert(engine, 1)
    insert(engine, 2)
    blocks[1 - first].__exit__(None, None, None)
    insert(engine, 3)
    assert [faults[first].fired, faults[1 - first].fired] == [0, 1]
    assert engine.dialect.do_commit == before
    assert stored(engine) == [2, 3]


def test_what_others_put_in_its_place_stays(engine: Any) -> None:
    """As a repair of this library that comes with its first verb on the engine."""
    calls = []
    with inject(engine, "busy", commit=1) as fault:
        inside = engine.dialect.do_commit

        def commit(connection: Any) -> None:
            calls.append("theirs")
            inside(connection)

        engine.dialect.do_commit = commit
    insert(engine, 1)
    assert calls == ["theirs"]
    assert fault.fired == 0


def test_a_fault_strikes_at_all_engines_of_a_pool(engine: Any) -> None:
    """`execution_options` makes one more on the same pool and dialect; the two are one engine here."""
    other = engine.execution_options(logging_token="other")
    for given, used in ((engine, other), (other, engine)):
        with inject(given, "busy", statement=1, times=2) as fault:
            for _ in range(2):
                with pytest.raises(OperationalError):
                    insert(used, 1)
        assert fault.fired == 2
        with inject(given, "busy", commit=1) as fault, pytest.raises(OperationalError):
            insert(used, 1)
        assert fault.fired == 1


def test_instant_retries_can_be_nested() -> None:
    with instant_retries():
        with instant_retries():
            _retry.pause(3600)
        _retry.pause(3600)
    _retry.pause(0)


@pytest.mark.parametrize("way", ["refused", "lost"])
def test_at_several_commits_one_after_the_other(tmp_path: Path, way: str) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    with (
        inject(engine, "busy", commit=2, times=2)
        if way == "refused"
        else lose_commit(engine, stored=False, commit=2, times=2) as fault
    ):
        ends = []
        for _ in range(4):
            try:
                with transaction(engine) as connection:
                    connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS thing (id INTEGER)")
            except Exception as error:
                ends.append(type(error).__name__)
            else:
                ends.append("stored")
    word = "OperationalError" if way == "refused" else "CommitOutcomeUnknown"
    assert ends == ["stored", word, word, "stored"]
    assert fault.fired == 2
    engine.dispose()


def test_an_unknown_commit_can_be_sent_to_another_process(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    with (
        pytest.raises(CommitOutcomeUnknown) as caught,
        lose_commit(engine, stored=False),
        transaction(engine, track_commit=lambda connection: False) as connection,
    ):
        connection.exec_driver_sql("CREATE TABLE thing (id INTEGER)")
    assert caught.value.resolve(engine) is Outcome.ROLLED_BACK
    there = pickle.loads(pickle.dumps(caught.value))
    assert str(there) == str(caught.value)
    assert there.resolve(engine) is Outcome.UNKNOWN
    engine.dispose()
