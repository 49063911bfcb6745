"""Loading where columns take what is near: no value is stored altered, and what is changed for that is put back."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    Interval,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError

from savepoints import BadInput, NotSupported, TransactionLost
from savepoints._core.raw import driver_work
from savepoints._load.databases import mariadb
from savepoints._load.databases.mariadb import sending
from tests.harness.models import Item
from tests.harness.world import World
from tests.load.shop import count, good, ids, prepare, product

pytestmark = pytest.mark.needs("lenient")

LOOSE = "PIPES_AS_CONCAT"
MODE = text("SELECT @@sql_mode")


async def mode(target: Any) -> str:
    found: str = (await target.execute(MODE)).scalar_one()
    return found


# -- the mode


async def test_a_loose_mode_alters_nothing_and_is_put_back(world: World) -> None:
    prepare(world)
    table = product.to_metadata(MetaData())
    table.c.code.type = String()  # longer than the server's column
    async with world.transaction(world.source) as target:
        await target.execute(text(f"SET sql_mode = '{LOOSE}'"))
        rows = [good(1), good(2, code="C" * 11), good(0), good(4, stock=2**31), good(5, name=None)]
        report = await world.load(target, table, rows)
        assert [(one.number, one.kind) for one in report.rejects] == [(1, "length"), (3, "type"), (4, "not null")]
        assert await ids(target) == [0, 1]
        assert await mode(target) == LOOSE
        assert any("STRICT" in why for why in report.why)


async def test_the_mode_is_put_back_after_errors(world: World) -> None:
    prepare(world)

    def breaks() -> Iterator[dict[str, Any]]:
        yield from (good(number) for number in range(1500))
        raise KeyError("mine")

    async with world.transaction(world.source) as target:
        await target.execute(text(f"SET sql_mode = '{LOOSE}'"))
        with pytest.raises(KeyError):
            await world.load(target, product, breaks())
        assert await mode(target) == LOOSE
        with pytest.raises(BadInput):
            await world.load(target, product, [{"unknown": 1}])
        assert await mode(target) == LOOSE
        assert await ids(target) == []


@pytest.mark.needs("async")
async def test_the_mode_is_put_back_after_a_cancellation(world: World) -> None:
    began = asyncio.Event()

    async def rows() -> Any:
        for number in range(1_000_000):
            if number > 3000:
                began.set()
                await asyncio.sleep(0.01)
            yield {"id": number, "name": "x"}

    found: list[str] = []

    async def run() -> None:
        async with world.transaction(world.source) as target:
            await target.execute(text(f"SET sql_mode = '{LOOSE}'"))
            try:
                await world.load(target, Item, rows())
            finally:
                found.append(await mode(target))

    task = asyncio.create_task(run())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert found == [LOOSE]
    assert world.rows() == []


# -- values that a column would change


def altering() -> Table:
    return Table(
        "altering",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("price", Numeric(6, 2)),
        Column("at", DateTime),
        Column("day", Text),  # the server's is a DATE
        Column("number", Text),  # and this an INTEGER
    )


ALTERED: dict[str, Any] = {
    "a zone": {"at": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)},
    "a day's hours": {"day": "2024-01-01 10:00:00"},
    "no whole number": {"number": "1.5"},
    "no number": {"number": "x"},
    "too many digits": {"price": Decimal(10000)},
    "no number at all": {"price": Decimal("NaN")},
    "an endless number": {"price": float("inf")},
    "more digits": {"price": Decimal("1.235")},
    "more digits of a fraction": {"price": -0.125},
    "as many as a float has": {"price": 0.1 + 0.2},
    "the rest of a second": {"at": datetime.datetime(2024, 1, 1, 12, 0, 0, 5000)},
}
KEPT: list[dict[str, Any]] = [
    {"price": Decimal("1.230"), "at": datetime.datetime(2024, 1, 1, 12), "day": "2024-01-01", "number": " 7 "},
    {"price": 1.25, "at": datetime.date(2024, 1, 1), "day": None, "number": "-3"},
    {"price": "9999.99", "at": None, "day": "2024-02-29", "number": None},
]


async def test_no_value_is_stored_altered(world: World) -> None:
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TABLE altering (id INT PRIMARY KEY, price DECIMAL(6,2), at DATETIME, day DATE,"
                                " number INT)"))  # fmt: skip
    table = altering()
    rows = [{"id": number, **row} for number, row in enumerate([*ALTERED.values(), *KEPT])]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, rows)
        assert [one.number for one in report.rejects] == list(range(len(ALTERED)))
        assert {one.kind for one in report.rejects} == {"type"}
        stored = (await target.execute(select(table).order_by(table.c.id))).all()
        assert [(str(row.price), str(row.number)) for row in stored] == [
            ("1.23", "7"), ("1.25", "-3"), ("9999.99", "None"),
        ]  # fmt: skip
        await target.execute(table.delete())
        await target.execute(table.insert(), [dict.fromkeys(row._fields) | {"id": row.id} | given
                                             for row, given in zip(stored, KEPT, strict=True)])  # fmt: skip
        assert (await target.execute(select(table).order_by(table.c.id))).all() == stored


@pytest.mark.parametrize("bad", [0, 200])
async def test_what_the_server_computes_it_may_round(world: World, bad: int) -> None:
    """It notes that, as it notes altered values, and before the errors; it keeps sixty-four notes at the most."""
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TABLE billed (id INT PRIMARY KEY, net DECIMAL(6,2),"
                                " gross DECIMAL(6,2) AS (net * 1.195) STORED)"))  # fmt: skip
    table = Table("billed", MetaData(), Column("id", Integer, primary_key=True), Column("net", Numeric(6, 2)))
    rows = [{"id": number % (3000 - bad), "net": Decimal("1.11")} for number in range(3000)]
    rows.insert(100, {"id": 100, "net": Decimal("2.22")})
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, rows)
        assert [one.number for one in report.rejects] == [101, *range(3001 - bad, 3001)]
        assert {(one.kind, one.constraint) for one in report.rejects} == {("unique", "PRIMARY")}
        assert await count(target, table) == 3000 - bad


@pytest.mark.parametrize("many", [False, True])
async def test_an_error_that_elsewhere_is_a_note(world: World, many: bool) -> None:
    """Number 1265 is both, and what is no member of an ENUM may come from a trigger, too."""
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TABLE sorted (id INT PRIMARY KEY, kind ENUM('a', 'b'))"))
        connection.execute(text("CREATE TRIGGER sorts BEFORE INSERT ON sorted FOR EACH ROW"
                                " IF NEW.id % 100 = 7 THEN SET NEW.kind = 'c'; END IF"))  # fmt: skip
    table = Table("sorted", MetaData(), Column("id", Integer, primary_key=True), Column("kind", String(9)))
    rows = [{"id": number, "kind": "c" if many and number % 10 == 3 else "a"} for number in range(3000)]
    rows += [{"id": number, "kind": "c"} for number in range(3)]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, rows)
        bad = [number for number, row in enumerate(rows) if row["kind"] == "c" or row["id"] % 100 == 7]
        assert [one.number for one in report.rejects] == bad
        assert {(one.kind, one.column) for one in report.rejects} == {("type", "kind")}
        assert await count(target, table) == len(rows) - len(bad)


async def test_null_is_not_now(world: World) -> None:
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TABLE timed (id INT AUTO_INCREMENT PRIMARY KEY, at TIMESTAMP NOT NULL)"))
    table = Table("timed", MetaData(), Column("id", Integer, primary_key=True), Column("at", DateTime))
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, [(None, datetime.datetime(2024, 1, 1)), (None, None)])
        assert [(one.number, one.kind, one.column) for one in report.rejects] == [(1, "not null", "at")]


async def test_duplicates_are_as_the_columns_see_them(world: World) -> None:
    prepare(world)
    codes = ["Abc", "aBC", "abc ", "äbc", "ABCD"]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, product, [good(number, code=code) for number, code in enumerate(codes)])
        assert [one.number for one in report.rejects] == [1, 2, 3]
        assert {one.constraint for one in report.rejects} == {"code"}
        assert {one.reasons[0].collides_with["id"] for one in report.rejects} == {0}


# -- engines and packets


@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY"])
async def test_an_engine_without_transactions_is_refused(world: World, engine: str) -> None:
    with world.aside.begin() as connection:
        connection.execute(text(f"ALTER TABLE item ENGINE={engine}"))
    async with world.transaction(world.source) as target:
        with pytest.raises(NotSupported, match=engine):
            await world.load(target, Item, [{"id": 1, "name": "x"}])
        assert await count(target, Item.__table__) == 0  # type: ignore[arg-type]


async def test_rows_are_sent_in_as_many_bytes_as_the_server_takes(world: World) -> None:
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TABLE wide (id INT PRIMARY KEY, words LONGTEXT)"))
        most = connection.scalar(text("SELECT @@max_allowed_packet"))
    table = Table("wide", MetaData(), Column("id", Integer, primary_key=True), Column("words", Text))
    rows = [(0, "ä" * 1_000_000), (1, "x" * (most + 1)), *((number, "it's" * 200_000) for number in range(2, 12))]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, rows)
        assert [(one.number, one.kind) for one in report.rejects] == [(1, "length")]
        assert await count(target, table) == 11
        wide = "y" * (most * 9 // 10)
        rows += [(0, wide), (20, wide), (20, "x")]
        report = await world.load(target, table, rows, on_conflict="update")
        assert (report.loaded, report.updated, report.rejected) == (1, 13, 1)
        assert await count(target, table) == 12


async def test_names_of_any_sort(world: World) -> None:
    names = MetaData()
    over = Table("o%r`s", names, Column("i%d", Integer, primary_key=True))
    table = Table(
        "t%s`x",
        names,
        Column("a%b", Integer, primary_key=True, autoincrement=False),
        Column("it's", Integer, ForeignKey(over.c["i%d"], name="f%k")),
        CheckConstraint(text("`a%b` < 3000"), name="c%k"),
    )
    with world.aside.begin() as connection:
        names.create_all(connection, checkfirst=False)
    rows = [(number, None if number % 3 else 7) for number in range(1000)] + [(number, None) for number in range(4000)]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, rows, max_rejected=5000)
        assert report.loaded == await count(target, table) == 3000
        assert report.by_kind == {"foreign key": 334, "unique": 666, "check": 1000}


async def test_values_of_updates(world: World) -> None:
    """They are written as those of an INSERT, and in the order of the rows: the last one of a key stays."""
    shifts = MetaData()
    table = Table(
        "shi%ft",
        shifts,
        Column("na%me", String(20), primary_key=True),
        Column("lasts", Interval().with_variant(mysql.TIME(), "mysql", "mariadb")),
        Column("place", Integer, unique=True),
        Column("seen", Integer, default=1, onupdate=text("seen + 1")),
    )
    with world.aside.begin() as connection:
        shifts.create_all(connection, checkfirst=False)
    back = datetime.timedelta(minutes=-90)
    names = ["it's 100%s", "a\\b%%", "x", "X"]
    rows = [{"na%me": name, "lasts": back * at, "place": at} for at, name in enumerate(names)]
    more = [{"na%me": name, "lasts": back, "place": 10 * at} for at, name in enumerate(names)]
    more += [{"na%me": "x", "lasts": -back, "place": 0}, {"na%me": "new", "lasts": None, "place": 77}]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, rows, on_conflict="update")
        assert (report.loaded, report.updated) == (3, 1)
        report = await world.load(target, table, more, on_conflict="update")
        assert (report.loaded, report.updated) == (1, 4)
        assert [(one.number, one.kind, one.constraint) for one in report.rejects] == [(4, "unique", "place")]
        found = (await target.execute(text("SELECT * FROM `shi%ft` ORDER BY place"))).all()
        assert [tuple(row) for row in found] == [
            ("it's 100%s", back, 0, 2), ("a\\b%%", back, 10, 2), ("x", back, 30, 4), ("new", None, 77, 1),
        ]  # fmt: skip


async def test_a_mode_with_another_syntax(world: World) -> None:
    prepare(world)
    async with world.transaction(world.source, rollback=True) as target:
        await target.execute(text("SET sql_mode = 'ORACLE'"))
        report = await world.load(target, product, [good(1), good(1), good(2)])
        assert (report.loaded, report.rejected, report.algorithm) == (2, 1, "bisection")


async def test_rows_that_a_trigger_mends(world: World) -> None:
    """What seems bad is tried; what is changed is judged as it is then."""
    prepare(world)
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TRIGGER mend BEFORE INSERT ON product FOR EACH ROW BEGIN"
                                " IF NEW.stock < 0 THEN SET NEW.stock = 0; END IF;"
                                " SET NEW.name = COALESCE(NEW.name, 'none'); END"))  # fmt: skip
    rows = [good(number, stock=-1, name=None, maker_id=1 if number % 2 else 99) for number in range(2000)]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, product, rows, max_rejected=1000)
        assert (report.loaded, report.by_kind) == (1000, {"foreign key": 1000})


@pytest.mark.parametrize("on_conflict", ["reject", "skip", "update"])
async def test_many_bad_rows_at_once_take_few_statements(
    world: World, on_conflict: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(world)
    sent: list[str] = []

    def counted(connection: Any, what: str) -> Any:
        sent.append(what)
        return driver_work(connection, what)

    monkeypatch.setattr(sending, "driver_work", counted)
    rows = [good(number) for number in range(1500)] + [good(9000 + number, maker_id=99) for number in range(1500)]
    rows += [good(number, code=f"D{number}", maker_id=1) for number in range(500)]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, product, rows, max_rejected=9000, on_conflict=on_conflict)
        assert (report.loaded, report.by_kind["foreign key"]) == (1500, 1500)
        assert report.by_kind["unique"] + report.skipped + report.updated == 500
    assert len(sent) < 150


# -- what is nobody's fault


async def test_a_lock_that_is_waited_for_in_vain_undoes_the_load_alone(world: World) -> None:
    with world.aside.begin() as connection:
        connection.execute(text("INSERT INTO item VALUES (5000, 'theirs')"))
    async with world.transaction(world.source) as target:
        await target.execute(text("SET innodb_lock_wait_timeout = 1"))
        await world.insert(target, 1)
        with world.aside.begin() as other:
            other.execute(text("UPDATE item SET name = 'held' WHERE id = 5000"))
            with pytest.raises(DBAPIError) as caught:
                await world.load(target, Item, [{"id": number, "name": "x"} for number in range(2, 6000)])
        assert world.code(caught.value) == "1205"
        await world.insert(target, 2)
    assert [row[0] for row in world.rows()] == [1, 2, 5000]


def each_alone(self: mariadb.Cutting, prepared: Any, batch: Any, cells: Any) -> Any:
    return {}, set(range(len(batch.rows)))


@pytest.mark.parametrize("foreseen", [False, True])
async def test_a_deadlock_ends_all(world: World, foreseen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of a compound statement, which must not go on in another transaction."""
    if foreseen:
        monkeypatch.setattr(mariadb.Cutting, "_foreseen", each_alone)
        monkeypatch.setattr(mariadb, "FEW", -1)
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TRIGGER lost BEFORE INSERT ON item FOR EACH ROW IF NEW.id = 2500 THEN"
                                " SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1213; END IF"))  # fmt: skip
    with pytest.raises((TransactionLost, DBAPIError)):
        async with world.transaction(world.source) as target:
            await world.insert(target, 1)
            await world.load(target, Item, [{"id": number, "name": "x"} for number in range(2, 4000)])
    assert world.rows() == []


async def test_a_real_deadlock_ends_all(world: World) -> None:
    with world.aside.begin() as connection:
        connection.execute(text("INSERT INTO item VALUES (5000, 'theirs')"))
    with pytest.raises((TransactionLost, DBAPIError)) as caught:
        async with world.transaction(world.source) as target:
            await world.insert(target, 1)
            with world.aside.connect() as other:
                other.execute(world.sql("outlives us"))  # has written more
                other.execute(text("UPDATE item SET name = 'held' WHERE id = 5000"))
                waits = asyncio.get_running_loop().run_in_executor(
                    None, lambda: other.execute(text("UPDATE item SET name = 'wanted' WHERE id = 1"))
                )
                for _ in range(500):
                    with world.aside.connect() as third:
                        if third.scalar(world.sql("waits"), {"id": 1}):
                            break
                    await asyncio.sleep(0.01)
                try:
                    await world.load(target, Item, [{"id": number, "name": "x"} for number in range(2, 6000)])
                finally:
                    await waits
                    other.rollback()
    assert "1213" in str(caught.value) or isinstance(caught.value, TransactionLost)
    assert world.rows() == [(5000, "theirs")]


async def test_values_are_not_left_in_variables(world: World) -> None:
    rows = [{"id": number // 2, "name": "secret"} for number in range(3000)]
    async with world.transaction(world.source) as target:
        report = await world.load(target, Item, rows)
        assert (report.loaded, report.rejected) == (1500, 1500)
        left = (await target.execute(text("SELECT @savepoints_log, @savepoints_text, @savepoints_there"))).one()
        assert tuple(left) == (None, None, None)
