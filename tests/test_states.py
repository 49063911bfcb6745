"""The table of moves: complete by itself, and true of the library.

A state machine of hypothesis asks moves of a real transaction, in whatever state that is, and looks up in the table
what must follow: the next state, or the error that refuses the move.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, SAWarning

import savepoints
from savepoints._core.attach import find
from savepoints._model import states
from savepoints._model.states import SAVEPOINT, SAVEPOINT_ENDS, TRANSACTION, TRANSACTION_ENDS, Cell, Move, State
from savepoints.errors import (
    NoTransaction,
    SavepointEnded,
    SavepointsError,
    TransactionDoomed,
    TransactionFailed,
    TransactionLost,
)
from tests.harness.models import Child, Item, item
from tests.harness.world import World

# -- the table by itself

S, M = State, Move
INDEXES = st.integers(0, 5)
ASKED = (M.FAIL, M.SAVEPOINT, M.ROLLBACK_TO, M.DOOM, M.COMMIT, M.ROLLBACK, M.LOSE)

#: The table of the design, for the moves of `ASKED`; None is what cannot happen there.
DESIGN: dict[State, tuple[Cell | None, ...]] = {
    S.OPEN: (S.FAILED, S.OPEN, S.OPEN, S.DOOMED, S.COMMITTING, S.ROLLED_BACK, S.LOST),
    S.FAILED: (S.FAILED, TransactionFailed, S.OPEN, S.DOOMED, TransactionFailed, S.ROLLED_BACK, S.LOST),
    S.DOOMED: (S.DOOMED, S.DOOMED, S.DOOMED, S.DOOMED, TransactionDoomed, S.ROLLED_BACK, S.LOST),
    S.LOST: (None, TransactionLost, TransactionLost, S.LOST, TransactionLost, S.ROLLED_BACK, S.LOST),
    S.COMMITTING: (S.ROLLED_BACK, None, None, None, None, None, S.UNKNOWN),
    S.COMMITTED: (None, NoTransaction, NoTransaction, NoTransaction, NoTransaction, S.COMMITTED, None),
    S.ROLLED_BACK: (None, NoTransaction, NoTransaction, NoTransaction, NoTransaction, S.ROLLED_BACK, None),
    S.UNKNOWN: (None, NoTransaction, NoTransaction, NoTransaction, NoTransaction, S.UNKNOWN, None),
}


@pytest.mark.parametrize("state", DESIGN, ids=str)
def test_transaction_moves_as_designed(state: State) -> None:
    for move, cell in zip(ASKED, DESIGN[state], strict=True):
        assert cell is None or TRANSACTION[state][move] == cell, move


def test_commit_answered() -> None:
    assert TRANSACTION[S.COMMITTING][M.ANSWER] == S.COMMITTED


def test_every_state_has_a_row() -> None:
    assert TRANSACTION.keys() == DESIGN.keys()
    assert SAVEPOINT.keys() | TRANSACTION.keys() == set(State)
    for table in (TRANSACTION, SAVEPOINT):
        for row in table.values():
            assert all(cell in table or issubclass(cell, SavepointsError) for cell in row.values())  # type: ignore[arg-type]


def test_every_move_is_in_the_table() -> None:
    rows = [*TRANSACTION.values(), *SAVEPOINT.values()]
    assert {move for row in rows for move in row} == set(Move)


@pytest.mark.parametrize("state", sorted(SAVEPOINT_ENDS - {S.LOST}, key=str), ids=str)
def test_an_ended_savepoint_refuses(state: State) -> None:
    for move in (M.SAVEPOINT, M.ROLLBACK_TO, M.DOOM, M.RELEASE):
        assert SAVEPOINT[state][move] is SavepointEnded
    for move in (M.ROLLBACK, M.OUTER_ROLLBACK, M.OUTER_RELEASE, M.LOSE):
        assert SAVEPOINT[state][move] is state


@pytest.mark.parametrize("state", sorted(SAVEPOINT.keys() - SAVEPOINT_ENDS, key=str), ids=str)
def test_an_open_savepoint_heals_and_ends(state: State) -> None:
    healed = S.DOOMED if state is S.DOOMED else S.OPEN
    assert SAVEPOINT[state][M.ROLLBACK_TO] is healed
    ends = [SAVEPOINT[state][move] for move in (M.ROLLBACK, M.OUTER_ROLLBACK, M.LOSE)]
    assert ends == [S.ROLLED_BACK, S.GONE, S.LOST]


# -- the table against the library


class Steered(RuleBasedStateMachine):
    """One transaction after another on one target; what the table says of each level stands in `expected`."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        world = self.world
        self.has = world.site.capabilities(world.style)
        self.target: Any = world.source.connect() if world.style == "core" else world.source()
        self.transaction: Any = None
        self.levels: list[Any] = []  # the open savepoints, innermost last
        self.past: list[Any] = []
        self.expected: dict[Any, State] = {}
        self.stuck = False  # the server, or the session, takes only a rollback: whatever a doomed level's state says
        with world.aside.begin() as connection:
            connection.execute(delete(item))
            connection.execute(insert(item), {"id": 0})

    # -- asking

    @property
    def top(self) -> Any:
        return self.levels[-1] if self.levels else self.transaction

    @property
    def usable(self) -> bool:
        """A transaction is open, and SQL passes."""
        states = {self.expected.get(self.top), self.expected.get(self.transaction)}
        return self.transaction is not None and not self.stuck and not states & {S.FAILED, S.UNDONE, S.LOST}

    def cell(self, level: Any, move: Move) -> Cell:
        """What the table says: a level's own row first, then that of its transaction."""
        own = _row(level, self.expected[level])[move]
        if isinstance(own, State) and move in (M.SAVEPOINT, M.ROLLBACK_TO) and level in self.levels:
            own = own if isinstance(around := self.cell(self.transaction, move), State) else around
        return TransactionFailed if move is M.SAVEPOINT and self.stuck and isinstance(own, State) else own

    def follow(self, level: Any, move: Move) -> None:
        """A move has happened."""
        cell = _row(level, self.expected[level])[move]
        assert isinstance(cell, State)
        self.expected[level] = cell
        if level in self.levels and cell in SAVEPOINT_ENDS - {S.LOST}:
            self.levels.remove(level)
            self.past.append(level)

    def follow_inside(self, level: Any, move: Move) -> None:
        """The levels inside one end with it, innermost first."""
        while self.top is not level:
            self.follow(self.top, move)

    @contextmanager
    def refused(self, *kinds: Any) -> Iterator[None]:
        """By one of these errors, before any SQL."""
        sent = self.world.transcript.sent()
        with pytest.raises(kinds):
            yield
        assert self.world.transcript.sent() == sent

    def ended(self, move: Move) -> None:
        """The whole transaction has ended."""
        for level in reversed(self.levels.copy()):
            self.follow(level, move)
        self.past += [*self.levels, self.transaction]
        self.levels.clear()
        self.transaction = None
        self.stuck = False

    # -- moves

    @precondition(lambda self: self.transaction is None)
    @rule()
    def begin(self) -> None:
        self.world.transcript.clear()
        self.target.begin()
        self.levels = [savepoints.savepoint(self.target)]
        self.transaction = savepoints.current_transaction(self.target)
        self.expected |= {self.transaction: S.OPEN, self.levels[0]: S.OPEN}

    @precondition(lambda self: self.transaction is not None)
    @rule(name=st.sampled_from([None, "a", "b"]))
    def savepoint(self, name: str | None) -> None:
        cell = self.cell(self.top, M.SAVEPOINT)
        if not isinstance(cell, State):
            with self.refused(cell, PendingRollbackError):
                savepoints.savepoint(self.target, name)
            return
        self.levels.append(savepoints.savepoint(self.target, name))
        self.expected[self.top] = S.OPEN

    @precondition(lambda self: self.levels)
    @rule(index=INDEXES)
    def roll_back(self, index: int) -> None:
        level = self.levels[index % len(self.levels)]
        cell = self.cell(level, M.ROLLBACK_TO)
        if not isinstance(cell, State):
            with self.refused(cell):
                level.rollback()
            return
        before = level.rollbacks
        level.rollback()
        assert level.rollbacks == before + 1
        self.follow_inside(level, M.OUTER_ROLLBACK)
        self.follow(level, M.ROLLBACK_TO)
        self.follow(self.transaction, M.ROLLBACK_TO)
        self.stuck = False

    @precondition(lambda self: self.levels)
    @rule(index=INDEXES)
    def release(self, index: int) -> None:
        index %= len(self.levels)
        level, inside = self.levels[index], self.levels[index + 1 :]
        cells = [
            self.cell(level, M.RELEASE),
            *(self.cell(one, M.OUTER_RELEASE) for one in inside if not self.doomed(one)),
        ]
        refusals = [cell for cell in cells if not isinstance(cell, State)]
        if refusals:
            with self.refused(*refusals):
                level.release()
            return
        level.release()
        for one in filter(self.doomed, inside):  # ends undone, and with it what is inside
            if one in self.levels:
                self.follow_inside(one, M.OUTER_ROLLBACK)
                self.follow(one, M.ROLLBACK)
                self.follow(self.transaction, M.ROLLBACK_TO)
                self.stuck = False
        self.follow_inside(level, M.OUTER_RELEASE)
        self.follow(level, M.RELEASE)

    def doomed(self, level: Any) -> bool:
        return self.expected[level] is S.DOOMED

    @precondition(lambda self: self.transaction is not None)
    @rule(index=INDEXES)
    def doom(self, index: int) -> None:
        level = [self.transaction, *self.levels][index % (len(self.levels) + 1)]
        level.doom("by the test")
        self.follow(level, M.DOOM)

    @precondition(lambda self: self.levels and isinstance(self.cell(self.top, M.SAVEPOINT), State))
    @rule(failing=st.booleans())
    def end_as_a_block_undone(self, failing: bool) -> None:
        block = self.top
        with suppress(ZeroDivisionError), block:
            if failing and self.usable:
                self.fail()
            raise ZeroDivisionError
        assert isinstance(block.error, ZeroDivisionError)
        self.follow(block, M.ROLLBACK)
        self.follow(self.transaction, M.ROLLBACK_TO)
        self.stuck = False

    @precondition(lambda self: self.usable)
    @rule()
    def fail(self) -> None:
        """A statement that the server refuses; some take only a rollback then."""
        with pytest.raises(DBAPIError):
            self.target.execute(text("SELECT * FROM missing"))
        if "failed_state" in self.has:
            self.stuck = True
            for level in {self.top, self.transaction}:
                self.follow(level, M.FAIL)

    @precondition(lambda self: self.usable and "orm" in self.has)
    @rule()
    def fail_in_flush(self) -> None:
        """SQLAlchemy undoes the innermost savepoint, or everything."""
        self.target.add(Item(id=0))
        with pytest.raises(IntegrityError):
            self.target.flush()
        self.follow(self.top, M.FLUSH_FAIL)
        self.stuck = bool(self.levels)

    @precondition(lambda self: self.usable)
    @rule()
    def lose(self) -> None:
        ended = text("INSERT OR ROLLBACK INTO item (id) VALUES (0)")
        with pytest.raises(DBAPIError):
            self.target.execute(ended if "whole_rollback" in self.has else self.world.sql("kill itself"))
        for level in (self.transaction, *self.levels):
            self.follow(level, M.LOSE)

    # -- ends

    @precondition(lambda self: self.transaction is not None)
    @rule()
    def commit(self) -> None:
        cells = [self.cell(self.transaction, M.COMMIT), *(self.cell(level, M.OUTER_RELEASE) for level in self.levels)]
        refusals = [cell for cell in cells if not isinstance(cell, State)]
        if self.expected[self.transaction] is S.LOST:
            refusals = [TransactionLost]
        if refusals:
            with self.refused(*refusals, PendingRollbackError):
                self.target.commit()
            self.rollback()  # after a refused Connection.commit() SQLAlchemy takes nothing else
            return
        self.target.commit()
        self.follow(self.transaction, M.COMMIT)
        self.follow(self.transaction, M.ANSWER)
        self.ended(M.OUTER_RELEASE)

    @precondition(lambda self: self.usable and "deferred" in self.has)
    @rule()
    def commit_refused_by_the_database(self) -> None:
        if not any(map(self.doomed, (self.transaction, *self.levels))):
            self.target.execute(insert(Child), {"id": 1, "parent_id": 99})  # refused at COMMIT only
            with pytest.raises(IntegrityError):
                self.target.commit()
            self.follow(self.transaction, M.COMMIT)
            self.follow(self.transaction, M.FAIL)
            self.target.rollback()
            self.ended(M.OUTER_RELEASE if "orm" in self.has else M.OUTER_ROLLBACK)

    @precondition(lambda self: self.transaction is not None)
    @rule()
    def rollback(self) -> None:
        with warnings.catch_warnings():  # SQLAlchemy's own, where something was added after a failed flush
            warnings.simplefilter("ignore", SAWarning)
            self.target.rollback()
        self.follow(self.transaction, M.ROLLBACK)
        self.ended(M.OUTER_ROLLBACK)

    # -- what has ended

    @precondition(lambda self: self.past)
    @rule(index=INDEXES, move=st.sampled_from([M.SAVEPOINT, M.ROLLBACK_TO, M.DOOM, M.RELEASE]))
    def ask_an_ended_one(self, index: int, move: Move) -> None:
        level = self.past[index % len(self.past)]
        ask = {
            M.SAVEPOINT: lambda: level.__enter__(),
            M.ROLLBACK_TO: lambda: level.rollback(),
            M.RELEASE: lambda: level.release(),
            M.DOOM: lambda: level.doom("too late"),
        }
        if isinstance(level, savepoints.Transaction):
            ask = {M.DOOM: ask[M.DOOM], M.ROLLBACK_TO: lambda: level.rollback_to("a")}
        if move in ask and not isinstance(cell := self.cell(level, move), State):
            with self.refused(cell):
                ask[move]()

    # -- what holds after each step

    @invariant()
    def states_are_as_the_table_says(self) -> None:
        assert {level: level.state for level in self.expected} == self.expected

    @invariant()
    def levels_tell_the_same_in_all_words(self) -> None:
        for level, state in self.expected.items():
            ends = TRANSACTION_ENDS if isinstance(level, savepoints.Transaction) else SAVEPOINT_ENDS
            assert level.is_open == (state not in ends) == (level.outcome is None)
            around = level.parent
            assert level.depth == (0 if around is None else around.depth + 1)
            assert level.path == (level.name if around is None else f"{around.path}/{level.name}")

    @invariant()
    def stack_is_as_the_database(self) -> None:
        """Each open level has its savepoint on the server, in order, under a name of its own."""
        assert (savepoints.current_transaction(self.target) is None) == (self.transaction is None)
        if self.transaction is not None and self.expected[self.transaction] is not S.LOST:
            assert list(self.transaction.savepoints) == self.levels
            live = live_savepoints(self.world.transcript.sent())
            assert len(live) == len(set(live)) == len(self.levels)

    @invariant()
    def nothing_is_left_at_the_end(self) -> None:
        if self.transaction is None:
            assert find(self.target) is None
            assert not self.target.in_transaction()
        open_ones = [connection for connection in self.world._connections if self.world.site.in_transaction(connection)]
        if self.transaction is None or self.expected[self.transaction] is S.LOST:
            assert not open_ones
        else:
            assert open_ones or "begins_with_tables" in self.has

    def make(self, name: str, arguments: dict[str, Any]) -> None:
        """One rule by name, if it can be asked now, and what holds after it."""
        [one] = [one for one in self.rules if one.function.__name__ == name]
        if all(admits(self) for admits in one.preconditions):
            one.function(self, **arguments)
            self.states_are_as_the_table_says()
            self.levels_tell_the_same_in_all_words()
            self.stack_is_as_the_database()
            self.nothing_is_left_at_the_end()

    def teardown(self) -> None:
        if self.transaction is not None:
            self.rollback()
        self.target.close()


def steered_in(world: World) -> type[Steered]:
    return type("SteeredHere", (Steered,), {"world": world})


def _row(level: Any, state: State) -> states.Row:
    return (TRANSACTION if isinstance(level, savepoints.Transaction) else SAVEPOINT)[state]


def live_savepoints(sent: list[str]) -> list[str]:
    """The savepoints that are left on the server after these statements, oldest first."""
    live: list[str] = []
    for statement in sent:
        match statement.split():
            case ["SAVEPOINT", name]:
                live.append(name)
            case ["ROLLBACK", "TO", "SAVEPOINT", name]:
                del live[live.index(name) + 1 :]
            case ["RELEASE", "SAVEPOINT", name]:
                del live[live.index(name) :]
    return live


Call = tuple[str, dict[str, Any]]

#: How a transaction with one savepoint comes into each state.
WAYS: dict[str, list[Call]] = {
    "open": [],
    "failed": [("fail", {})],
    "undone": [("fail_in_flush", {})],
    "doomed savepoint": [("doom", {"index": 1})],
    "doomed transaction": [("doom", {"index": 0})],
    "doomed, then failed": [("doom", {"index": 1}), ("fail", {})],
    "failed, then doomed": [("fail", {}), ("doom", {"index": 1})],
    "undone, then doomed": [("fail_in_flush", {}), ("doom", {"index": 1})],
    "lost": [("lose", {})],
    "released": [("release", {"index": 0})],
    "with one inside": [("savepoint", {"name": "a"})],
    "with a doomed one inside": [("savepoint", {"name": "a"}), ("doom", {"index": 2})],
    "with a failed one inside": [("savepoint", {"name": "a"}), ("fail", {})],
    "with an undone one inside": [("savepoint", {"name": "a"}), ("fail_in_flush", {})],
}

MOVES: list[Call] = [
    *(("savepoint", {"name": "a"}), ("roll_back", {"index": 0}), ("release", {"index": 0})),
    *(("doom", {"index": 0}), ("doom", {"index": 1}), ("end_as_a_block_undone", {"failing": True})),
    *(("fail", {}), ("fail_in_flush", {}), ("lose", {})),
    *(("commit", {}), ("commit_refused_by_the_database", {}), ("rollback", {})),
]


@pytest.mark.needs("sync")
@pytest.mark.lacks("always_in_transaction")
async def test_each_move_in_each_state(world: World) -> None:
    for (way, there), move in product(WAYS.items(), MOVES):
        steered = steered_in(world)()
        try:
            for name, arguments in [("begin", {}), *there, move]:
                steered.make(name, arguments)
            steered.teardown()
        except Exception as error:
            error.add_note(f"at {move} where the savepoint is {way}")
            raise


def drive(world: World, examples: int) -> None:
    run_state_machine_as_test(
        steered_in(world),
        settings=settings(max_examples=examples, stateful_step_count=30, suppress_health_check=list(HealthCheck)),
    )


@pytest.mark.slow
@pytest.mark.needs("sync", "whole_rollback")
@pytest.mark.lacks("always_in_transaction")
async def test_moves_are_as_the_table_says(world: World) -> None:
    drive(world, 100)


@pytest.mark.slow
@pytest.mark.needs("sync", "kill")
async def test_moves_through_the_network(world: World) -> None:
    drive(world, 25)
