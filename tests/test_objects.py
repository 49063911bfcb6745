"""Random programs on mapped objects inside a savepoint: after its rollback every object shows what the database holds.

The yardstick is `session.expire_all()`: the library expires only what was touched, and that must look the same.
A failing program is shrunk and printed, to be added as an `@example`.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    NullPool,
    StaticPool,
    Table,
    create_engine,
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import SAWarning, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.orm.exc import ObjectDeletedError

import savepoints
from savepoints import Rollback, SavepointsError


class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]


class City(Base):
    __tablename__ = "city"


class Team(Base):
    __tablename__ = "team"
    players: Mapped[list[Player]] = relationship(back_populates="team", cascade="all, delete-orphan")


player_tag = Table(
    "player_tag",
    Base.metadata,
    Column("player_id", ForeignKey("player.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Player(Base):
    __tablename__ = "player"
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
    city_id: Mapped[int | None] = mapped_column(ForeignKey("city.id"))
    team: Mapped[Team | None] = relationship(back_populates="players")
    city: Mapped[City | None] = relationship()
    tags: Mapped[list[Tag]] = relationship(secondary=player_tag, back_populates="players")


class Tag(Base):
    __tablename__ = "tag"
    players: Mapped[list[Player]] = relationship(secondary=player_tag, back_populates="tags")


CLASSES: dict[str, type[Base]] = {"city": City, "team": Team, "player": Player, "tag": Tag}

#: Loaded before the savepoint, and named by no step: they must not be expired.
BYSTANDER = 900


def fill(session: Session) -> None:
    cities, tags = [City(id=1), City(id=2)], [Tag(id=1), Tag(id=2)]
    teams = [
        Team(id=1, players=[Player(id=1, city=cities[0], tags=tags), Player(id=2, tags=tags[:1])]),
        Team(id=2, players=[Player(id=3, city=cities[1])]),
        Team(id=BYSTANDER, players=[Player(id=BYSTANDER, city=City(id=BYSTANDER), tags=[Tag(id=BYSTANDER)])]),
    ]
    session.add_all([*cities, *tags, *teams])


class Step(NamedTuple):
    """`action` on the object of this class and key; `n` is what else it needs: a key, a value, a way."""

    action: str
    cls: str
    id: int
    n: int


class Run:
    """A session at work, and every object it ever met (its identity map alone would let them go)."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.held: list[Base] = []
        self.left_by_expunge: list[Base] = []
        self.levels: list[Any] = []

    def hold(self, *objects: Base | None) -> None:
        for obj in objects:
            if obj is not None and not any(obj is one for one in self.held):
                self.held.append(obj)

    def find(self, cls: type[Base], id: int) -> Any:
        """The object as the session has it, else loaded.

        Raises:
            NoRow: There is none.
        """
        for obj in self.held:
            if type(obj) is cls and obj in self.session and inspect(obj).identity == (id,):
                return obj
        found = self.session.get(cls, id)
        if found is None:
            raise NoRow
        self.hold(found)
        return found

    def all(self, steps: list[Step]) -> None:
        """Take these steps; errors and warnings are a part of the program, and so are levels that it leaves open."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            for step in steps:
                with suppress(NoRow, SQLAlchemyError, SavepointsError):
                    ACTIONS[step.action](self, CLASSES[step.cls], step.id, step.n)
        self.levels.clear()


class NoRow(Exception):
    pass


Action = Callable[[Run, type[Any], int, int], None]
ACTIONS: dict[str, Action] = {}


def action(function: Action) -> Action:
    ACTIONS[function.__name__] = function
    return function


# Loading


@action
def get(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.find(cls, id)


@action
def select_all(run: Run, cls: type[Base], id: int, n: int) -> None:
    options = [selectinload(getattr(cls, key)) for key in relationships(cls)] if n % 2 else []
    run.hold(*run.session.scalars(select(cls).where(cls.id < BYSTANDER).options(*options)))


@action
def populate(run: Run, cls: type[Base], id: int, n: int) -> None:
    existing = select(cls).where(cls.id == id).execution_options(populate_existing=True)
    run.hold(*run.session.scalars(existing))


@action
def lazy(run: Run, cls: type[Base], id: int, n: int) -> None:
    obj = run.find(cls, id)
    keys = relationships(cls)
    if keys:
        found = getattr(obj, keys[n % len(keys)])
        run.hold(*(found if isinstance(found, list) else [found]))


@action
def refresh(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.refresh(run.find(cls, id))


@action
def expire(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.expire(run.find(cls, id))


@action
def expunge(run: Run, cls: type[Base], id: int, n: int) -> None:
    before = [obj for obj in run.held if obj in run.session]
    run.session.expunge(run.find(cls, id))
    run.left_by_expunge += [obj for obj in before if obj not in run.session]


LOADING = ["get", "select_all", "lazy", "refresh"]

# Changing, by the unit of work


@action
def change(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.find(cls, id).name = f"changed {n}"


@action
def add(run: Run, cls: type[Base], id: int, n: int) -> None:
    obj = cls(id=id + 10 * n, name="added")
    run.session.add(obj)
    run.hold(obj)


@action
def remove(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.delete(run.find(cls, id))


@action
def rekey(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.find(cls, id).id = id + 10 * n


@action
def join_team(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.find(Team, n).players.append(run.find(Player, id))


@action
def leave_team(run: Run, cls: type[Base], id: int, n: int) -> None:
    player = run.find(Player, id)
    if player.team is not None and player in player.team.players:
        player.team.players.remove(player)


@action
def change_team(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.find(Player, id).team = run.find(Team, n) if n else None


@action
def change_city(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.find(Player, id).city = run.find(City, n) if n else None


@action
def tag(run: Run, cls: type[Base], id: int, n: int) -> None:
    player, found = run.find(Player, id), run.find(Tag, n)
    if found in player.tags:
        player.tags.remove(found)
    else:
        player.tags.append(found)


@action
def flush(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.flush()


CHANGING = ["change", "add", "remove", "rekey", "join_team", "leave_team", "change_team", "change_city", "tag", "flush"]

# Changing, past the unit of work


@action
def autoflush(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.autoflush = bool(n % 2)


@action
def text_insert(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.execute(text(f"INSERT INTO {cls.__tablename__} (id, name) VALUES ({id + 10 * n}, 'by text')"))


@action
def text_update(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.execute(text(f"UPDATE {cls.__tablename__} SET name = 'by text {n}' WHERE id = {id}"))


@action
def text_delete(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.execute(text(f"DELETE FROM {cls.__tablename__} WHERE id = {id}"))


@action
def text_change_keys(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.execute(text(f"UPDATE player SET team_id = {n}, city_id = {n} WHERE id = {id}"))


@action
def bulk_update(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.execute(update(cls).where(cls.id <= id).values(name="bulk"), execution_options=way(n))


@action
def bulk_update_by_key(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.execute(update(cls), [{"id": id, "name": "by key"}])


@action
def bulk_delete(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.session.execute(delete(cls).where(cls.id == id), execution_options=way(n))


def way(n: int) -> dict[str, Any]:
    return {"synchronize_session": ["evaluate", "fetch", "auto", False][n]}


@action
def insert_returning(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.hold(*run.session.scalars(insert(cls).returning(cls), [{"id": id + 10 * n, "name": "returned"}]))


# Levels inside


@action
def open_level(run: Run, cls: type[Base], id: int, n: int) -> None:
    run.levels.append(run.session.begin_nested() if n == 3 else savepoints.savepoint(run.session))


@action
def keep_level(run: Run, cls: type[Base], id: int, n: int) -> None:
    if run.levels:
        level = run.levels.pop()
        level.release() if isinstance(level, savepoints.Savepoint) else level.commit()


@action
def undo_level(run: Run, cls: type[Base], id: int, n: int) -> None:
    if run.levels:
        level = run.levels.pop()
        level.rollback()
        if isinstance(level, savepoints.Savepoint):
            if n % 2:
                run.levels.append(level)
            else:
                level.release()


# What is seen


def relationships(cls: type[Base]) -> list[str]:
    return sorted(inspect(cls).relationships.keys())


def columns(cls: type[Base]) -> list[str]:
    return [attribute.key for attribute in inspect(cls).column_attrs]


def visible(obj: Base) -> dict[str, Any]:
    """All that an object shows: its columns, and the keys of what it refers to."""
    shown = {key: getattr(obj, key) for key in columns(type(obj))}
    for key in relationships(type(obj)):
        value = getattr(obj, key)
        shown[key] = sorted(map(identity, value)) if isinstance(value, list) else value and identity(value)
    return shown


Seen = dict[tuple[str, int], dict[str, Any]]


def fresh(session: Session) -> Seen:
    """What another session on the same connection reads."""
    with Session(session.connection(), join_transaction_mode="rollback_only") as other:
        return {
            (name, obj.id): visible(obj) for name, cls in CLASSES.items() for obj in other.scalars(select(cls)).all()
        }


def identity(obj: Base) -> tuple[str, int]:
    """By the session's identity map, not by the attribute."""
    [id] = inspect(obj).identity or ()
    return type(obj).__tablename__, id


class Before(NamedTuple):
    """How it was at the savepoint."""

    rows: Seen
    persistent: dict[tuple[str, int], Base]


def check(run: Run, before: Before) -> None:
    """After a rollback to the savepoint."""
    session = run.session
    assert (list(session.new), list(session.deleted), list(session.dirty)) == ([], [], [])
    for key, obj in before.persistent.items():
        if not any(obj is one for one in run.left_by_expunge):
            assert obj in session, f"{key} has left the session"
            assert identity(obj) == key
    for obj in before.persistent.values():
        if obj.__dict__.get("id") == BYSTANDER or identity(obj)[1] == BYSTANDER:
            lost = set(columns(type(obj))) - obj.__dict__.keys()
            assert not lost, f"{identity(obj)} was expired: {lost}"
    with session.no_autoflush:
        shown = objects_show(run)
        assert shown == {key: before.rows[key] for key in shown}
        session.expire_all()
        assert objects_show(run) == shown
        assert fresh(session) == before.rows
        for name, id in before.rows.keys() | {(type(obj).__tablename__, obj.__dict__.get("id")) for obj in run.held}:
            found = None if id is None else session.get(CLASSES[name], id)
            assert (found is not None) == ((name, id) in before.rows), f"{name} {id} is a ghost"


def objects_show(run: Run) -> Seen:
    """What the session's objects show; one whose row is gone must say so."""
    shown = {}
    for obj in run.held:
        if obj in run.session:
            try:
                shown[identity(obj)] = visible(obj)
            except ObjectDeletedError:
                assert run.session.get(type(obj), identity(obj)[1]) is None
    return shown


# Programs


class Program(NamedTuple):
    changes: list[Step]  # before the savepoint
    loads: list[Step]
    rounds: list[list[Step]]  # each is rolled back to the savepoint
    by_block: bool  # the last one by leaving the savepoint's block


def steps(names: list[str], most: int) -> st.SearchStrategy[list[Step]]:
    step = st.builds(Step, st.sampled_from(names), st.sampled_from(list(CLASSES)), st.integers(1, 3), st.integers(0, 3))
    return st.lists(step, max_size=most)


programs = st.builds(
    Program,
    changes=steps(CHANGING, 4),
    loads=steps(LOADING, 6),
    rounds=st.lists(steps(list(ACTIONS), 12), min_size=1, max_size=2),
    by_block=st.booleans(),
)


def start(run: Run, program: Program) -> Before:
    """Bring session and database to where the savepoint is made: what is loaded there is true."""
    run.all([*program.changes, Step("flush", "city", 1, 0)])
    transaction = savepoints.current_transaction(run.session)
    assume(transaction is not None and str(transaction.state) == "open")
    run.session.expire_all()
    for cls in CLASSES.values():
        run.find(cls, BYSTANDER)
    run.all(program.loads)
    present = {identity(obj): obj for obj in run.held if obj in run.session}
    return Before(fresh(run.session), present)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Each connection has a database of its own, in memory and filled."""
    template = sqlite3.connect(":memory:")
    filling = create_engine("sqlite://", creator=lambda: template, poolclass=StaticPool)
    Base.metadata.create_all(filling)
    with Session(filling) as session:
        fill(session)
        session.commit()

    def copy() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:")
        template.backup(connection)
        return connection

    yield create_engine("sqlite://", creator=copy, poolclass=NullPool)
    filling.dispose()


INSERTED = Step("insert_returning", "city", 3, 0)
FOUND_GONE = [Step("text_delete", "team", 1, 0), Step("get", "team", 1, 0)]


@pytest.mark.slow
@settings(max_examples=600, report_multiple_bugs=False)
@example(Program([], [], [[INSERTED], [INSERTED]], by_block=False))
@example(Program([], [Step("get", "team", 1, 0)], [[Step("expire", "team", 1, 0), *FOUND_GONE]], by_block=False))
@given(program=programs)
def test_objects_after_a_rollback(engine: Engine, program: Program) -> None:
    with Session(engine) as session, savepoints.transaction(session, rollback=True):
        run = Run(session)
        before = start(run, program)
        sp = savepoints.savepoint(session)
        for round in program.rounds[:-1]:
            run.all(round)
            sp.rollback()
        if program.by_block:
            with sp:
                run.all(program.rounds[-1])
                raise Rollback(sp)
        else:
            run.all(program.rounds[-1])
            sp.rollback()
        check(run, before)
