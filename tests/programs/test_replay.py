"""Programs that once went wrong. A failing random program is printed as a line that can be added here."""

from __future__ import annotations

import pytest

from tests.programs.bench import Bench
from tests.programs.language import (
    Block,
    Boom,
    Doom,
    Enter,
    Fail,
    Insert,
    Join,
    Look,
    Mark,
    Nested,
    Program,
    Rollback,
    RollbackTo,
    Signal,
    Update,
)

CASES = [
    # a bookmark's handle knew of a plain commit() only after its transaction had been asked
    Program((), "commit", True),
    # a refused plain commit() released the bookmark on top, or left the connection in its transaction
    Program((Doom(0),), "commit", True),
    Program((Doom(1),), "commit", True),
    # in a doomed level the failure of a statement was forgotten, and SQL sent to a server that takes only a rollback
    Program((Doom(0), Fail("missing", False)), "commit", False),
    Program((Doom(0), Fail("flush", True)), "commit", True),
    # something added after a failed flush, then refused: undoing the block warned, and the transaction was lost
    Program((Block(None, (Fail("flush", True), Fail("flush", False)), False, False, False),), "commit", False),
    # the joined bookmark made a block: its end released what was opened outside
    Program((Mark("a"), Join((Enter(0, (), False),), False)), "commit", False),
    # new objects beside changed ones: after a rollback the changed ones were expired and not loaded again
    Program(
        (Insert(2), Block(None, (Insert(1), Update(2), Rollback(0)), False, False, False), Look()), "commit", False
    ),
    # a row inserted and loaded inside, then undone
    Program((Mark("a"), Insert(1, "sql"), RollbackTo("a"), Look()), "commit", False),
    Program((Join((Boom(),), True), Fail("missing", False)), "commit", False),
    Program((Insert(2), Nested((Update(2), Signal(0)), True), Look()), "commit", False),
    # the signal to a level that is not there, in a lost transaction
    Program((Fail("whole"), Signal("a")), "commit", False),
    Program((Mark("a"), Block("a", (Doom(1),), False, False, True), Fail("flush"), Fail("flush")), "commit", False),
    # a doomed bookmark ended with the block around it: its objects were expired and not loaded again
    Program((Insert(1), Block("a", (Mark("a"), Doom(0), Update(1)), False, False, True), Look()), "commit", False),
    # changed and flushed inside; then a flush failed, which expired it
    Program((Insert(2), Block("a", (Update(2), Fail("flush", True)), False, False, True), Look()), "commit", False),
    # changed, flushed and rolled back inside; then a flush failed, and SQLAlchemy expired what it had seen written
    Program(
        (Insert(3), Block("A", (Update(3), RollbackTo("A"), Fail("flush", True)), False, False, True), Look()),
        "commit",
        False,
    ),
    # a plain begin_nested() rolled back: what was read inside of text SQL's work stayed in the objects
    Program((Insert(3), Nested((Update(3, "sql"), Boom()), True), Look()), "commit", False),
    Program((Nested((Insert(3, "sql"), Boom()), True), Look()), "commit", False),
    # a plain begin_nested() that swallowed a failure: its RELEASE was refused, and nobody undid it
    Program((Insert(1), Nested((Insert(1),), True)), "commit", False),
    Program((Nested((Join((Insert(2), Boom()), True), Insert(3)), True), Look()), "commit", False),
    # changed in bulk; then a flush failed, and SQLAlchemy expired what no flush had shown
    Program((Insert(2, "bulk"), Update(2, "bulk"), Fail("flush", True), Rollback(0), Look()), "commit", True),
]


@pytest.mark.parametrize("program", CASES, ids=range(len(CASES)))
async def test_replay(bench: Bench, program: Program) -> None:
    assert await bench.problem(program) is None
