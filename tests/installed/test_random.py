"""Random programs of plain code with the line: rows and objects are what a model of nested transactions says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

import savepoints
from tests.behaviours.steps import Oops
from tests.harness.models import Item, item
from tests.harness.world import World

Rows = dict[int, str | None]
Step = tuple[Any, ...]

IDS = st.integers(1, 4)
NAMES = st.sampled_from("abc")

#: One change, made through objects (in a session), as a statement in bulk, or as text past the session.
CHANGES = st.one_of(
    st.tuples(st.just("insert"), st.sampled_from(["object", "statement", "text"]), IDS, NAMES),
    st.tuples(st.just("update"), st.sampled_from(["object", "statement", "text"]), IDS, NAMES),
    st.tuples(st.just("delete"), st.sampled_from(["object", "statement", "text"]), IDS),
    st.tuples(st.just("load"), IDS),
    st.tuples(st.just("refresh"), IDS),
)


def blocks(bodies: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[Step]:
    """A nested transaction: how it ends, and what is inside; "left open" is ended by the one around it."""
    ends = st.sampled_from(["released", "raised", "rolled back", "refused", "flush refused", "left open"])
    return st.tuples(st.just("nested"), ends, bodies)


BODIES = st.recursive(
    st.lists(CHANGES, max_size=4),
    lambda bodies: st.lists(st.one_of(CHANGES, blocks(bodies)), max_size=5),
    max_leaves=12,
)
PROGRAMS = st.tuples(BODIES, st.sampled_from(["commit", "rollback"]))


class Runner:
    """Runs programs on one session or connection, with plain calls of SQLAlchemy alone."""

    def __init__(self, target: Session | Connection) -> None:
        self.target = target
        self.session = target if isinstance(target, Session) else None
        self.held: list[Item] = []

    def run(self, body: list[Step], rows: Rows) -> Rows:
        """The rows after it, as the model has them; what was left open at the end is ended by the caller."""
        for step in body:
            rows = self.nested(step, rows) if step[0] == "nested" else self.change(step, dict(rows))
            self.compare(rows)
        return rows

    def nested(self, step: Step, rows: Rows) -> Rows:
        _, end, body = step
        if end == "left open":
            outer = self.target.begin_nested()
            inner = self.target.begin_nested()
            self.run(body, rows)
            assert inner.is_active
            if self.session is None:
                inner.rollback()  # a connection's have to be ended innermost first
            outer.rollback()
            return rows
        try:
            with self.target.begin_nested() as nested:
                after = self.run(body, rows)
                if end == "rolled back":
                    nested.rollback()
                elif end != "released":
                    self.fail(end, after)
        except (Oops, DBAPIError):
            assert end not in ("released", "rolled back")
            return rows
        return after if end == "released" else rows

    def fail(self, end: str, rows: Rows) -> None:
        """Leave a block by an error of the code, of a statement, or of a flush."""
        if end == "refused":
            self.target.execute(text("INSERT INTO missing VALUES (1)"))
        if end == "flush refused" and self.session is not None and rows:
            self.session.add(Item(id=next(iter(rows)), name="twice"))
            with self.session.no_autoflush, pytest.raises(IntegrityError) as refused:
                self.session.flush()
            raise refused.value
        raise Oops

    def change(self, step: Step, rows: Rows) -> Rows:
        kind, *rest = step
        if kind in ("load", "refresh"):
            self.look(kind, rest[0], rows)
            return rows
        way, id, *name = rest
        if (id in rows) is (kind == "insert"):
            return rows  # it would be refused, or change nothing
        getattr(self, "by_" + (way if self.session is not None or way == "text" else "statement"))(kind, id, *name)
        if kind == "delete":
            del rows[id]
        else:
            rows[id] = name[0]
        return rows

    def by_text(self, kind: str, id: int, name: str | None = None) -> None:
        statements = {
            "insert": "INSERT INTO item (id, name) VALUES (:id, :name)",
            "update": "UPDATE item SET name = :name WHERE id = :id",
            "delete": "DELETE FROM item WHERE id = :id",
        }
        self.target.execute(text(statements[kind]), {"id": id, "name": name} if name is not None else {"id": id})
        if self.session is not None and kind != "insert":
            self.session.expire_all()  # as whoever changes rows past a session has to

    def by_statement(self, kind: str, id: int, name: str | None = None) -> None:
        entity: Any = item if self.session is None else Item
        if kind == "insert":
            self.target.execute(insert(entity).values(id=id, name=name))
        elif kind == "update":
            self.target.execute(update(entity).where(entity_id(entity) == id).values(name=name))
        else:
            self.target.execute(delete(entity).where(entity_id(entity) == id))

    def by_object(self, kind: str, id: int, name: str | None = None) -> None:
        assert self.session is not None
        if kind == "insert":
            self.session.add(new := Item(id=id, name=name))
            self.held.append(new)
        else:
            found = self.session.get_one(Item, id)
            self.held.append(found)
            if kind == "update":
                found.name = name
            else:
                self.session.delete(found)
        self.session.flush()

    def look(self, kind: str, id: int, rows: Rows) -> None:
        if self.session is None:
            return
        found = self.session.get(Item, id)
        assert (found is not None) is (id in rows), (id, rows)
        if found is not None:
            self.held.append(found)
            if kind == "refresh":
                self.session.refresh(found)

    def compare(self, rows: Rows) -> None:
        """Rows by a statement, and every object that the session takes for present."""
        assert dict(map(tuple, self.target.execute(select(item.c.id, item.c.name)).all())) == rows
        if self.session is not None:
            for id in range(1, 5):
                found = self.session.get(Item, id)
                assert (None if found is None else (found.id, found.name)) == ((id, rows[id]) if id in rows else None)


def entity_id(entity: Any) -> Any:
    return entity.c.id if entity is item else entity.id


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:New instance .* conflicts with persistent instance")  # so it has the flush refused
@pytest.mark.lacks("no_begin")  # there what comes before the first savepoint is committed by itself
async def test_random_programs(world: World) -> None:
    savepoints.install(world.engine)
    examples = 150 if "one_writer" in world.site.has else 60

    def run(target: Session | Connection) -> None:
        durable: list[Rows] = [{}]

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(PROGRAMS)
        def one(program: tuple[list[Step], str]) -> None:
            body, end = program
            target.rollback()
            target.execute(delete(item))
            target.commit()
            runner = Runner(target)
            after = runner.run(body, {})
            getattr(target, end)()
            durable[0] = after if end == "commit" else {}
            assert dict(world.rows()) == durable[0]

        one()

    async with world.open() as t:
        await world.run_sync(t, run)
