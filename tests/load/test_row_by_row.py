"""The result of a load is that of loading row by row, with a savepoint for each: the first good row wins.

Compared on the real database: what is in the table, which rows were refused, and for each that the database's own
reason is among ours. A case that goes wrong is shrunk and printed; put it into `KNOWN`, and it runs each time.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from sqlalchemy import select

from savepoints._load import databases
from savepoints._load.intake import Intake, Piece
from tests.harness.world import World
from tests.load.cases import SHORT, Case, Field, OnConflict, Schema, as_text, cases
from tests.load.oracle import Slow, contents, orphaned_by_order

TWO_KEYS = Schema((Field("a", False), Field("s", True)), ("a",), (("s",),))
ITSELF = Schema((Field("a", False), Field("b", True)), ("a",), (), (), ((("b",), "itself"),))

CONFLICTS: list[OnConflict] = ["skip", "update"]

#: What would go wrong if duplicates were looked for without the order of the rows, or NULLs taken for equal.
KNOWN = [
    # a chain over two keys: the second row was never there, so the third one is no duplicate
    Case(TWO_KEYS, (), ({"a": 1, "s": "x"}, {"a": 1, "s": "y"}, {"a": 2, "s": "y"})),
    # a row that is refused for another reason takes nobody's place
    Case(TWO_KEYS, (), ({"a": 1, "s": "longer"}, {"a": 1, "s": "y"})),
    # NULL is no duplicate of NULL
    Case(TWO_KEYS, (), ({"a": 1, "s": None}, {"a": 2, "s": None})),
    # a child before its parent, of a refused parent, of itself
    Case(ITSELF, (), ({"a": 1, "b": 2}, {"a": 2, "b": None}, {"a": 3, "b": 1}, {"a": 4, "b": 4}, {"a": 5, "b": 2})),
    # a parent that the database fills in: a row of this table is one only if it came before, and got in
    Case(
        Schema((Field("a", False), Field("b", True, "server")), ("a",), (), (), ((("b",), "itself"),)),
        (),
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 3, "b": None}, {"a": 4}),
    ),
    # a key that the database fills in, so that a row is its own parent
    Case(
        Schema((Field("a", False, "server"), Field("b", True)), ("a",), (), (), ((("b",), "itself"),)),
        (),
        ({"b": 2}, {"b": 2}, {"b": 3}, {"a": 3, "b": 2}),
    ),
    # what an update is not given stays, and the check is of the whole row
    *(
        Case(
            Schema((Field("a", False), Field("b", True, who), Field("s", True)), ("a",), (), ("a <= b",)),
            ({"a": 3, "b": 7, "s": "x"}, {"a": 1, "b": 1, "s": "x"}),
            ({"a": 3, "s": "y"}, {"a": 4, "s": "y"}, {"a": 1, "s": "z"}, {"a": 2, "s": "z"}, {"a": 2, "b": 0}),
            on_conflict="update",
        )
        for who in ("python", "server")
    ),
    # a duplicate that has no parent, either, is skipped if the row that it collides with got in
    Case(
        ITSELF,
        (),
        ({"a": 1, "b": 9}, {"a": 1, "b": None}, {"a": 1, "b": 7}, {"a": 2, "b": 7}, {"a": 2, "b": 1}),
        on_conflict="skip",
    ),
    # a text that cannot be sent, and more that is wrong
    Case(TWO_KEYS, ({"a": 1, "s": "x"},), ({"a": "", "s": "\ud800"}, {"a": None, "s": "\ud800"}), on_conflict="update"),
    # a parent that nobody looks for before COMMIT: a duplicate is one before that, and an update leaves it as it was
    *(
        Case(
            Schema(
                (Field("a", False), Field("b", False, "python"), Field("s", False)),
                ("a",),
                (),
                (),
                ((("b",), "itself"),),
                deferred=True,
            ),
            (),
            ({"a": 0, "b": 0, "s": "x"}, {"a": 0, "s": "y"}, {"a": 5, "s": "z"}, {"a": 0, "b": 9, "s": None}),
            on_conflict=on_conflict,
        )
        for on_conflict in CONFLICTS
    ),
    # a number that the driver cannot send
    Case(TWO_KEYS, (), ({"a": 0, "s": "x"}, {"a": 2**70, "s": "y"}, {"a": 2**70, "s": "\ud800"}, {"a": 3, "s": "z"})),
    # rows with differing columns, of which some break a check: who was there is found for the others as before
    *(
        Case(
            Schema((Field("a", False), Field(name, True), Field("s", True)), ("a",), (), (f"{name} > 0",)),
            before,
            ({"a": 1, name: 0}, {"a": 2, name: 5}, {"a": 2, name: 6, "s": "y"}, {"a": 2, name: 0}, {"a": 2, "s": "z"}),
            on_conflict=on_conflict,
        )
        for name in ("b", *SHORT)
        for before in ((), ({"a": 2, name: 9, "s": "x"},))
        for on_conflict in CONFLICTS
    ),
    # a duplicate that breaks a check by what it leaves out, or by what it has, is not skipped
    *(
        Case(
            Schema((Field("a", False), Field("b", True, who), Field("s", True)), ("a",), (("s",),), ("a <= b",)),
            ({"a": 3, "b": 7, "s": "x"},),
            ({"a": 3, "s": "y"}, {"a": 4, "b": 7, "s": "x"}, {"a": 3, "b": 1, "s": "x"}, {"a": 5, "s": "x"}),
            on_conflict="skip",
        )
        for who in ("python", "server")
    ),
    # a key that only the database knows to be the same, alone between others that are
    Case(
        Schema((Field("s", False), Field("a", False)), ("s",)),
        (),
        tuple({"s": text, "a": number} for number, text in enumerate(["e", "x", "x", "é", "x"])),
        on_conflict="update",
    ),
    # a row of nothing but what the database fills in
    *(
        Case(
            Schema((Field("a", False, "server"), Field("b", True, "server")), keys),
            (),
            ({"a": 1, "b": 1}, {}, {}, {"a": 3, "b": None}),
            piece=piece,
        )
        for keys in ((), ("a",))
        for piece in (1, 1000)
    ),
    # a column that is left out is not NULL
    Case(Schema((Field("a", False), Field("b", False, "server"))), (), ({"a": 1}, {"a": 2, "b": None}, {"a": 3})),
]


async def check(world: World, case: Case, folder: Path) -> None:
    """Load both ways and compare."""
    with world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        world.site.on_connect(connection.connection.dbapi_connection)
        slow = Slow(connection, case, untyped=bool({"untyped", "lenient"} & {*world.site.has}))
        slow.prepare()
        try:
            await compare(world, case, slow, folder)
        finally:
            slow.drop()


async def compare(world: World, case: Case, slow: Slow, folder: Path) -> None:
    expected = slow.load()
    rows = given_as(case, folder)
    options = {"on_conflict": case.on_conflict, "max_rejected": len(case.rows) + 2 * case.filler}
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, slow.table, rows, **options)
        table = contents((await target.execute(select(slow.table))).all())
        assert table == expected.table
        assert [reject.number for reject in report.rejects] == sorted(expected.refused)
        assert [skip.number for skip in report.skips] == expected.skipped
        assert (report.loaded, report.updated) == (expected.loaded, expected.updated)
        for reject in report.rejects:
            kinds = {reason.kind for reason in reject.reasons}
            told = {expected.refused[reject.number], *({"foreign key"} if case.schema.deferred else ())}
            assert None in told or told & kinds, (reject, told)  # a deferred key may be looked at before the others
        if case.on_conflict == "reject":
            await load_again(world, target, case, slow, report)


async def load_again(world: World, target: Any, case: Case, slow: Slow, report: Any) -> None:
    """None of the refused rows fits afterwards, a child apart whose parent came behind it."""
    again = await world.load(target, slow.table, report.rejects, max_rejected=len(report.rejects))
    assert again.loaded == 0 or orphaned_by_order(case.schema)
    assert {reject.number for reject in again.rejects} <= {reject.number for reject in report.rejects}


def given_as(case: Case, folder: Path) -> Any:
    if case.form == "mappings":
        return case.input()
    file = folder / "rows.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, case.schema.names())
        writer.writeheader()
        writer.writerows(as_text(case.schema, row) for row in case.input())
    return file


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows are taken at once, so that few rows fall into several pieces."""
    size = [1000]
    piece = Intake.piece

    def limited(self: Intake, count: int) -> Piece | None:
        return piece(self, min(count, size[0]))

    monkeypatch.setattr(Intake, "piece", limited)
    return size


SOAK = "SAVEPOINTS_SOAK" in os.environ

#: The same cases in each run; `nox -s soak` looks for others.
ONE_BY_ONE = settings(
    max_examples=12,
    derandomize=not SOAK,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MANY = settings(ONE_BY_ONE, max_examples=150)
LONG = settings(ONE_BY_ONE, max_examples=3)


def with_known(test: Any) -> Any:
    for case in KNOWN:
        test = example(case=case)(test)
    return test


@pytest.mark.timeout(600)
@pytest.mark.needs("core")
@ONE_BY_ONE
@with_known
@given(case=cases())
async def test_a_load_equals_loading_row_by_row(world: World, taken: list[int], tmp_path: Path, case: Case) -> None:
    taken[0] = case.piece
    await check(world, case, tmp_path)


@pytest.mark.skipif(not SOAK, reason="a long search, for nox -s soak")
@pytest.mark.timeout(900)
@pytest.mark.needs("core")
@MANY
@with_known
@given(case=cases())
async def test_many_loads(world: World, taken: list[int], tmp_path: Path, case: Case) -> None:
    taken[0] = case.piece
    await check(world, case, tmp_path)


@pytest.mark.skipif(not SOAK, reason="a long search, for nox -s soak")
@pytest.mark.timeout(900)
@pytest.mark.needs("core", "sync")
@LONG
@given(case=cases(filler=3000))
async def test_loads_of_many_rows(world: World, taken: list[int], tmp_path: Path, case: Case) -> None:
    """Over the edges of pieces, with few bad rows in the middle of good ones."""
    taken[0] = 10**9
    await check(world, case, tmp_path)


@pytest.mark.skipif(not SOAK, reason="a long search, for nox -s soak")
@pytest.mark.timeout(900)
@pytest.mark.needs("core", "sync")
@ONE_BY_ONE
@with_known
@given(case=cases())
async def test_the_cautious_algorithm(
    world: World, taken: list[int], tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Databases that have one of their own fall back on it. What is deferred, it leaves to COMMIT."""
    assume(not case.schema.deferred)
    monkeypatch.setattr(databases, "BY_DATABASE", {})
    taken[0] = case.piece
    await check(world, case, tmp_path)
