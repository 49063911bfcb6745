"""Row level security of the table itself: rows that a policy refuses are rejects, a missing right is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Column, Integer, MetaData, String, Table, select, text
from sqlalchemy.exc import DBAPIError

from savepoints._load.databases.postgresql import catalog
from tests.harness.world import World

pytestmark = [pytest.mark.needs("many_writers", "loader", "core"), pytest.mark.lacks("implicit_commit")]

metadata = MetaData()
policed = Table(
    "policed",
    metadata,
    Column("a", Integer, primary_key=True, autoincrement=False),
    Column("code", String(5), unique=True),
    Column("size", Integer, CheckConstraint("size < 100", name="small")),
    Column("owner", String, server_default=text("current_user")),
)
# rows of others, which cannot be seen, take their keys all the same
ROWS = [
    {"a": 1, "code": "x", "size": 1},
    {"a": -1, "code": "y", "size": 1},
    {"a": 2, "code": "y", "size": 1},
    {"a": 3, "code": "y", "size": 1},
    {"a": 4, "code": "theirs", "size": 1},
    {"a": 5, "code": "hid", "size": 1},
    {"a": 6, "code": "z", "size": 100},
    {"a": -7, "code": "z", "size": "many"},
    {"a": 8, "code": "z", "size": 3},
    {"a": 100, "code": "w", "size": 3},
]
KINDS = {1: "check", 3: "unique", 4: "length", 5: "unique", 6: "check", 7: "type", 9: "unique"}


@pytest.fixture
def role(world: World) -> Iterator[str]:
    """Who may insert rows with a positive key, and sees the own ones."""
    with world.aside.begin() as connection:
        metadata.create_all(connection)
        for statement in (
            "CREATE ROLE clerk",
            "GRANT SELECT, INSERT, UPDATE ON policed TO clerk",
            "GRANT USAGE ON SCHEMA public TO clerk",
            "ALTER TABLE policed ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY positive ON policed FOR INSERT TO clerk WITH CHECK (a > 0 AND owner = current_user)",
            "CREATE POLICY own ON policed FOR SELECT TO clerk USING (owner = current_user)",
            "CREATE POLICY mine ON policed FOR UPDATE TO clerk USING (owner = current_user) WITH CHECK (size > 0)",
            "INSERT INTO policed VALUES (100, 'hid', 1, 'boss')",
        ):
            connection.execute(text(statement))
    yield "clerk"
    with world.aside.begin() as connection:
        connection.execute(text("DROP OWNED BY clerk"))
        connection.execute(text("DROP ROLE clerk"))


@pytest.mark.parametrize("way", ["stage", "tried", "no temporary tables"])
async def test_a_policy_refuses_a_row(world: World, role: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "tried":
        make_trigger(world)
    elif way == "no temporary tables":
        without_stage(monkeypatch)
    async with world.transaction(world.source, rollback=True) as target:
        await target.execute(text(f"SET LOCAL ROLE {role}"))
        report = await world.load(target, policed, ROWS * 2, max_rejected=100)
        assert {one.number: one.kind for one in report.rejects if one.number < len(ROWS)} == KINDS
        assert (report.loaded, report.rejected) == (3, 17)
        found = (await target.execute(select(policed.c.a).order_by(policed.c.a))).scalars().all()
        assert found == [1, 2, 8]
        refused = next(one for one in report.rejects if one.number == 1)
        assert (refused.code, refused.constraint) == ("42501", None)
        assert "policy" in str(refused.reasons[0].detail)


async def test_updates(world: World, role: str) -> None:
    async with world.transaction(world.source, rollback=True) as target:
        await target.execute(text(f"SET LOCAL ROLE {role}"))
        await world.load(target, policed, [{"a": 1, "code": "x", "size": 1}, {"a": 2, "code": "y", "size": 1}])
        rows = [
            {"a": 1, "code": "x", "size": 2},
            {"a": 2, "code": "y", "size": 0},  # not by the policy of updates
            {"a": 100, "code": "w", "size": 3},  # another's: cannot be seen, and so it is a new row with a taken key
            {"a": -3, "code": "v", "size": 3},
            {"a": 4, "code": "v", "size": 0},
        ]
        report = await world.load(target, policed, rows, on_conflict="update", max_rejected=100)
        assert {one.number: one.kind for one in report.rejects} == {1: "check", 2: "unique", 3: "check"}
        assert (report.loaded, report.updated) == (1, 1)
        found = (await target.execute(select(policed.c.a, policed.c.size).order_by(policed.c.a))).all()
        assert [tuple(row) for row in found] == [(1, 2), (2, 1), (4, 0)]


@pytest.mark.parametrize("triggered", [False, True])
async def test_a_missing_right_is_nobodys_fault(world: World, role: str, triggered: bool) -> None:
    """It has the same code as a policy's refusal."""
    if triggered:
        make_trigger(world, "INSERT INTO item (id, name) VALUES (new.a, 'seen');")
    else:
        with world.aside.begin() as connection:
            connection.execute(text(f"REVOKE INSERT ON policed FROM {role}"))
    async with world.transaction(world.source, rollback=True) as target:
        with pytest.raises(DBAPIError) as caught:
            async with world.savepoint(target):
                await target.execute(text(f"SET LOCAL ROLE {role}"))
                await world.load(target, policed, ROWS, max_rejected=100)
        assert world.code(caught.value) == "42501"
        assert (await target.execute(select(policed.c.a))).scalars().all() == [100]


async def test_who_is_above_the_policies_copies(world: World, role: str) -> None:
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, policed, [{"a": -1, "code": "y", "size": 1, "owner": "me"}])
        assert (report.loaded, report.algorithm) == (1, "copy")


def make_trigger(world: World, body: str = "") -> None:
    with world.aside.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN new; END $$;"
            "CREATE TRIGGER look BEFORE INSERT ON policed FOR EACH ROW EXECUTE FUNCTION look()"
        )


def without_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    read = catalog.read

    def bare(*arguments: Any, **options: Any) -> catalog.Rules:
        rules = read(*arguments, **options)
        rules.staged = False
        return rules

    monkeypatch.setattr(catalog, "read", bare)
