"""What `load` promises on every database, face and style."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, select

from savepoints import BadInput, LoadLimitExceeded, NotSupported, WrongArgument
from savepoints._databases import capabilities
from tests.harness.world import World
from tests.load.shop import good, ids, prepare, product


@pytest.fixture(autouse=True)
def shop(world: World) -> None:
    prepare(world)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no name": (good(101, name=None), "not null"),
    "less than nothing": (good(102, stock=-1), "check"),
    "no such maker": (good(103, maker_id=77), "foreign key"),
    "a code twice": (good(104, code="C1"), "unique"),
    "a key twice": (good(1, code="other"), "unique"),
    "no number": (good(105, stock="many"), "type"),
    "no day": (good(106, since="the first"), "type"),
    "too long": (good(107, code="C" * 11), "length"),
    "unknown column": (good(108, colour="red"), "structure"),
    "half a character": (good(109, name="\ud800"), "encoding"),
}


async def test_199_bad_rows_are_rejected_with_their_reasons_and_the_others_are_kept(world: World) -> None:
    bad = [row for row, _ in BAD.values()]
    async with world.transaction(world.source) as target:
        report = await world.load(target, product, [good(1), *bad, good(2)])
        assert await ids(target) == [1, 2]
    assert (report.read, report.loaded, report.rejected) == (len(bad) + 2, 2, len(bad))
    assert [(reject.number, reject.row) for reject in report.rejects] == list(enumerate(bad, start=1))
    assert [reject.kind for reject in report.rejects] == [kind for _, kind in BAD.values()]
    assert sum(report.by_kind.values()) == report.rejected


async def test_a_time_whose_zone_would_be_dropped_is_rejected(world: World) -> None:
    metadata = MetaData()
    table = Table("moment", metadata, Column("id", Integer), Column("at", DateTime), Column("zoned", DateTime(True)))
    with world.aside.begin() as connection:
        metadata.create_all(connection)
    naive = datetime.datetime(2024, 2, 29, 12)
    aware = naive.replace(tzinfo=datetime.UTC)
    async with world.transaction(world.source) as target:
        rows = [(1, naive, None), (2, aware, None), (3, None, aware), (4, naive.date(), None)]
        report = await world.load(target, table, rows)
        refused = [1] if capabilities(world.sync_engine.dialect).zones else [1, 2]
        assert [reject.number for reject in report.rejects] == refused
        assert "time zone" in report.rejects[0].message
        found = (await target.execute(select(table.c.at, table.c.zoned).order_by(table.c.id))).all()
        assert found[0] == (naive, None)
        assert found[-1] == (naive.replace(hour=0), None)
        assert [at for _, at in found if at is not None] == ([] if 2 in refused else [aware])


async def test_all_reasons_of_a_row_that_one_statement_can_tell(world: World) -> None:
    async with world.transaction(world.source) as target:
        rows = [good(1), good(1, code="C" * 11, stock="many", since="soon", name=None)]
        rows += [good(2, name="\ud800", stock=2**70), good(2, maker_id=-(2**70), stock=2**70)]
        report = await world.load(target, product, rows)
    columns = {(reason.kind, reason.column) for reason in report.rejects[0].reasons}
    assert {("length", "code"), ("type", "stock"), ("type", "since"), ("not null", "name")} <= columns
    kinds = [{reason.kind for reason in reject.reasons} for reject in report.rejects]
    assert {"encoding", "type"} <= kinds[1]
    assert {"type"} <= kinds[2]


async def test_the_savepoint_stays_and_undoes_the_load_alone(world: World) -> None:
    async with world.transaction(world.source) as target:
        await target.execute(product.insert().values(good(9)))
        report = await world.load(target, product, [good(1), good(2)], name="import")
        assert report.savepoint.name == "import"
        await world.rollback_to(target, "import")
        assert await ids(target) == [9]
        assert report.loaded == 2
        again = await world.load(target, product, [good(3)])
        await world.release(target, again.savepoint.name)
    with world.aside.connect() as connection:
        assert set(connection.scalars(select(product.c.id))) == {9, 3}


async def test_a_dry_run_leaves_nothing(world: World) -> None:
    async with world.transaction(world.source) as target:
        report = await world.load(target, product, [good(1), good(1)], rollback=True)
        assert (report.loaded, report.rejected, report.undone) == (1, 1, True)
        assert report.savepoint is None
        assert await ids(target) == []


@dataclass
class Product:
    id: int
    name: str


class Pair(NamedTuple):
    id: int
    name: str


ROWS: dict[str, Any] = {
    "mappings": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "dataclasses": [Product(1, "a"), Product(2, "b")],
    "named tuples": [Pair(1, "a"), Pair(2, "b")],
    "differing keys": [{"id": 1, "name": "a", "stock": 4}, {"name": "b", "id": 2}],
}


async def test_rows_of_any_kind(world: World) -> None:
    for kind, rows in ROWS.items():
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, product, rows)
            assert (report.loaded, report.rejected) == (2, 0), kind
            found = (await target.execute(select(product.c.id, product.c.name).order_by(product.c.id))).all()
            assert found == [(1, "a"), (2, "b")]
            stocks = (await target.execute(select(product.c.stock).order_by(product.c.id))).scalars().all()
            assert stocks[1] == 1  # the server's default, not NULL


async def test_tuples_and_a_generator(world: World) -> None:
    def rows() -> Iterator[tuple[Any, ...]]:
        for number in range(2500):
            yield (number, f"C{number}", f"number {number}", 1, datetime.date(2024, 2, 29), 1)
        yield (1, 2)

    async with world.transaction(world.source) as target:
        report = await world.load(target, product, rows())
        assert (report.loaded, report.rejected, report.rejects[0].kind) == (2500, 1, "structure")
        named = await world.load(target, product, [("x", 9000)], columns=["name", "id"])
        assert named.loaded == 1


@pytest.mark.needs("async")
async def test_an_async_generator(world: World) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield good(number)

    seen: list[int] = []

    async def tell(progress: Any) -> None:
        seen.append(progress.read)

    async with world.transaction(world.source) as target:
        report = await world.load(target, product, rows(), progress=tell)
    assert (report.loaded, seen[-1]) == (3, 3)


async def test_a_limit_undoes_the_load_and_leaves_the_rest(world: World) -> None:
    rows = [good(number, maker_id=1 if number % 2 else 99) for number in range(10)]
    async with world.transaction(world.source) as target:
        await target.execute(product.insert().values(good(99)))
        with pytest.raises(LoadLimitExceeded) as caught:
            await world.load(target, product, rows, max_rejected=4)
        assert caught.value.report.rejected == 5
        with pytest.raises(LoadLimitExceeded):
            await world.load(target, product, rows, max_rejected_ratio=0.4)
        assert await ids(target) == [99]
        report = await world.load(target, product, rows, max_rejected=5, max_rejected_ratio=0.5)
        assert report.loaded == 5


async def test_the_wrong_file_is_noticed(world: World) -> None:
    async with world.transaction(world.source) as target:
        with pytest.raises(LoadLimitExceeded, match="wrong file"):
            await world.load(target, product, [good(n, name=None) for n in range(5001)])
        assert await ids(target) == []


def some(bad: int, good_ones: int) -> list[dict[str, Any]]:
    """Bad rows in front of good ones."""
    return [*(good(number, name=None) for number in range(bad)), *map(good, range(bad, bad + good_ones))]


#: Rows, the options of the load, and after how many rows it stops, if it does.
SHARES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], int | None]] = {
    "half of the first": (some(500, 1500), {}, None),
    "more than half of the first, less of all": (some(501, 2000), {}, 1000),
    "nearly all of the first": (some(999, 5000), {}, 1000),
    "half of the first, and more behind": ([*map(good, range(500)), *some(2000, 0)], {}, None),
    "less than 1,000 rows": (some(900, 50), {}, None),
    "a share of all that is more in the first": (some(100, 1900), {"max_rejected_ratio": 0.05}, None),
    "a share of all, by one more": (some(101, 1899), {"max_rejected_ratio": 0.05}, 2000),
    "a share that no float is": (some(29, 71), {"max_rejected_ratio": 0.29}, None),
    "more than half of the first, and a share is allowed": (some(501, 2000), {"max_rejected_ratio": 0.05}, 1000),
    "more than half of the first, and more is allowed": (some(600, 900), {"max_rejected_ratio": 0.6}, None),
    "more of the first than is allowed": (some(801, 1200), {"max_rejected_ratio": 0.8}, 1000),
    "so many that are allowed": (some(999, 1000), {"max_rejected": 999}, None),
}


@pytest.mark.needs("core", "sync")
@pytest.mark.parametrize("on_conflict", ["reject", "skip"])  # other ways, and other pieces
@pytest.mark.parametrize("case", SHARES)
async def test_shares_are_looked_at_after_the_same_rows_everywhere(world: World, case: str, on_conflict: str) -> None:
    rows, options, stops = SHARES[case]
    bad = sum(row["name"] is None for row in rows)
    async with world.transaction(world.source, rollback=True) as target:
        if stops is None:
            report = await world.load(target, product, rows, on_conflict=on_conflict, **options)
            assert (report.read, report.rejected) == (len(rows), bad)
            return
        with pytest.raises(LoadLimitExceeded) as caught:
            await world.load(target, product, rows, on_conflict=on_conflict, **options)
        found = caught.value.report
        assert (found.read, found.rejected) == (stops, sum(row["name"] is None for row in rows[:stops]))


async def test_duplicates_are_skipped_or_update(world: World) -> None:
    async with world.transaction(world.source) as target:
        await world.load(target, product, [good(1), good(2)])
        report = await world.load(target, product, [good(1, stock=8), good(3), good(3), good(4, stock=-1)],
                                  on_conflict="skip")  # fmt: skip
        assert (report.loaded, report.skipped, report.rejected) == (1, 2, 1)
        assert [skip.number for skip in report.skips] == [0, 2]
        report = await world.load(
            target, product, [good(1, stock=8), good(5), good(5, stock=9), good(2, stock=-1), good(6, code="C1")],
            on_conflict="update",
        )  # fmt: skip
        assert (report.loaded, report.updated, report.rejected) == (1, 2, 2)
        found = dict((await target.execute(select(product.c.id, product.c.stock))).all())
        assert found == {1: 8, 2: 5, 3: 5, 5: 9}


async def test_replay_keeps_the_first_numbers(world: World) -> None:
    async with world.transaction(world.source) as target:
        first = await world.load(target, product, [good(1), good(2, maker_id=50), good(3, stock=-1)])
        assert [reject.number for reject in first.rejects] == [1, 2]
        again = await world.load(target, product, first.rejects)
        assert (again.loaded, [reject.number for reject in again.rejects]) == (0, [1, 2])
        await target.execute(product.metadata.tables["maker"].insert().values(id=50))
        mended = await world.load(target, product, first.rejects)
        assert (mended.loaded, [reject.number for reject in mended.rejects]) == (1, [2])
        assert mended.read == mended.loaded + mended.rejected


async def test_values_are_hidden_until_asked_for(world: World) -> None:
    async with world.transaction(world.source) as target:
        report = await world.load(target, product, [good(1), good(2, stock="top secret"), good(3, code="C1")])
    assert "secret" not in str(report)
    assert "secret" not in repr(report.rejects[0]) + repr(report.rejects[0].reasons)
    assert "row 1" in str(report)


BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a share of 1.5": ({"max_rejected_ratio": 1.5}, BadInput, "1.5"),
    "fewer than none": ({"max_rejected": -1}, BadInput, "max_rejected"),
    "no such conflict": ({"on_conflict": "ignore"}, BadInput, "ignore"),
    "no such key": ({"on_conflict": "update", "key": "cod"}, BadInput, "near: code"),
    "no such table": ({"into": "produkt"}, BadInput, "near: product"),
    "an empty name": ({"into": ""}, BadInput, "no table ''"),
    "a schema alone": ({"into": "main."}, BadInput, "no table 'main.'"),
    "no table at all": ({"into": 7}, WrongArgument, "int"),
    "no rows": ({"rows": 7}, WrongArgument, "int"),
    "one row alone": ({"rows": {"id": 1}}, WrongArgument, "dict"),
    "no such file": ({"rows": "nowhere.csv"}, BadInput, "nowhere.csv"),
    "no format": ({"rows": "nowhere"}, BadInput, "format"),
    "unknown column": ({"rows": [{"idd": 1}]}, BadInput, "near: id"),
    "columns in a string": ({"columns": "id"}, WrongArgument, "columns"),
}


async def test_bad_input_is_told_and_leaves_nothing(world: World) -> None:
    async with world.transaction(world.source) as target:
        await target.execute(product.insert().values(good(9)))
        for given, kind, told in BAD_CALLS.values():
            options = {"into": product, "rows": [good(1)]} | given
            with pytest.raises(kind, match=told):
                await world.load(target, options.pop("into"), options.pop("rows"), **options)
            assert world.current_transaction(target).savepoints == ()
        assert await ids(target) == [9]


async def test_a_user_error_in_the_rows_undoes_the_load(world: World) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from (good(number) for number in range(6000))
        raise KeyError("mine")

    async with world.transaction(world.source) as target:
        with pytest.raises(KeyError, match="mine"):
            await world.load(target, product, rows())
        assert await ids(target) == []
        await world.load(target, product, [good(1)])


async def test_autocommit_is_refused(world: World) -> None:
    engine = world.new_engine(isolation_level="AUTOCOMMIT")
    source = engine
    if world.style == "orm":
        source = world.maker()
        source.configure(bind=engine)
    async with world.open(source) as target:
        with pytest.raises(NotSupported):
            await world.load(target, product, [good(1)])
    disposed = engine.dispose()
    if disposed is not None:
        await disposed


async def test_a_rolled_back_load_has_no_savepoint_left(world: World) -> None:
    async with world.transaction(world.source) as target:
        report = await world.load(target, product, [good(1)])
        await world.rollback_to(target, "load product")
        assert report.savepoint.is_open
        await world.release(target, "load product")
        assert not report.savepoint.is_open
        assert world.current_transaction(target).savepoints == ()


async def test_rows_of_a_file_are_replayed_by_its_own_header(world: World, tmp_path: Path) -> None:
    """Its columns may stand in another order than the table's, and an empty cell is NULL then, too."""
    file = tmp_path / "rows.csv"
    file.write_text("name,maker_id,id\nAda,1,1\n,1,2\nBob,50,3\n")
    out = tmp_path / "out.jsonl"
    async with world.transaction(world.source) as target:
        first = await world.load(target, product, file, rejects=out)
        assert [reject.kind for reject in first.rejects] == ["not null", "foreign key"]
        assert first.rejects[1].row == {"name": "Bob", "maker_id": "50", "id": "3"}
        await target.execute(product.metadata.tables["maker"].insert().values(id=50))
        for rejects in (first.rejects, out):
            again = await world.load(target, product, rejects, name="again")
            assert (again.loaded, [reject.number for reject in again.rejects]) == (1, [1])
            assert again.rejects[0].kind == "not null"
            await world.rollback_to(target, "again")


@pytest.mark.needs("core")
@pytest.mark.lacks("async")  # SQLAlchemy never closes what was detached from the pool of an async driver
async def test_on_a_connection_detached_from_its_pool(world: World) -> None:
    async with world.open() as t:
        await world.run_sync(t, lambda connection: connection.detach())
        await t.rollback()
        async with world.transaction(t):
            report = await world.load(t, product, [good(1), good(1), good(2, code=None)])
        assert (report.loaded, report.rejected) == (2, 1)


async def test_rows_with_other_fields_update_only_these(world: World) -> None:
    async with world.transaction(world.source) as target:
        await world.load(target, product, [good(1, stock=10), good(2, stock=20)])
        rows = [good(3), {"id": 1, "name": "new"}, {"id": 2, "maker_id": 2}, {"name": "newer", "id": 2}]
        rows += [{"id": 1, "maker_id": 3}, {"id": 2, "stock": 21}]
        report = await world.load(target, product, rows, on_conflict="update")
        assert (report.loaded, report.updated, report.rejected) == (1, 5, 0)
        columns = (product.c.name, product.c.stock, product.c.maker_id)
        found = (await target.execute(select(*columns).order_by(product.c.id))).all()
        assert [tuple(row) for row in found] == [("new", 10, 3), ("newer", 21, 2), ("number 3", 5, 1)]
