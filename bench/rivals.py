"""Who is measured, sync: each opens a transaction, blocks inside it, and inserts one row."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Engine, String, create_engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import savepoints
from bench.places import INSERT, TABLE, Embedded, Place, Server

ids = itertools.count(1)


class Work(NamedTuple):
    """What one rival does; `transaction` rolls back at its end, so that every round finds the same database."""

    transaction: Callable[[], AbstractContextManager[Any]]
    block: Callable[[Any], AbstractContextManager[Any]]
    insert: Callable[[Any], object]
    flush: Callable[[Any], object] = lambda target: None  # needed where an error would come before the INSERT


class Rival(NamedTuple):
    """Who, and how it is opened."""

    name: str
    open: Callable[[Place], AbstractContextManager[Work]]

    @property
    def against(self) -> str | None:
        """SQLAlchemy's own way of doing what ours does."""
        return against(self.name)


def against(name: str) -> str | None:
    """Whom one of ours is compared with."""
    return name.replace("savepoints", "SQLAlchemy") if name.startswith("savepoints") else None


def mapped() -> Any:
    """A mapped class of its own for each side: listeners on one must not slow the other down."""

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        name: Mapped[str] = mapped_column(String(40))

    return Item


PlainItem = mapped()
OurItem = mapped()


class PlainSession(Session):
    """SQLAlchemy's, as a class of its own for the same reason."""


# -- drivers


class DriverBlock:
    """The least that a block can be: two statements, three when it is undone."""

    __slots__ = ("execute",)

    def __init__(self, execute: Callable[[str], object]) -> None:
        self.execute = execute

    def __enter__(self) -> None:
        self.execute("SAVEPOINT s")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.execute("ROLLBACK TO s")
        self.execute("RELEASE s")


@contextmanager
def _begun(connection: Any) -> Iterator[Any]:
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        connection.execute("ROLLBACK")


@contextmanager
def sqlite_driver(place: Place) -> Iterator[Work]:
    assert isinstance(place, Embedded)
    statement = INSERT.format(mark="?")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(TABLE)
        if place.counting:
            connection.set_trace_callback(place.count)
        yield Work(
            lambda: _begun(connection),
            lambda target: DriverBlock(target.execute),
            lambda target: target.execute(statement, (next(ids), "x")),
        )


@contextmanager
def psycopg_driver(place: Place, *, own_blocks: bool = False) -> Iterator[Work]:
    assert isinstance(place, Server)
    statement = INSERT.format(mark="%s")
    with closing(psycopg.connect(place.url("postgresql"), autocommit=True)) as connection:
        yield Work(
            lambda: _begun(connection),
            (lambda target: target.transaction()) if own_blocks else (lambda target: DriverBlock(target.execute)),
            lambda target: target.execute(statement, (next(ids), "x")),
        )


# -- SQLAlchemy, and ours


@contextmanager
def engine_of(place: Place) -> Iterator[Engine]:
    """An engine of its own for each rival, for the same reason as the mapped classes."""
    engine = create_engine(place.url(place.driver), **place.options())
    place.watch(engine)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(TABLE)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _rolled_back(open_target: Callable[[], Any]) -> Iterator[Any]:
    with open_target() as target:
        target.begin()
        yield target
        target.rollback()


def _execute(item: Any) -> Callable[[Any], object]:
    statement = insert(item)
    return lambda target: target.execute(statement, {"id": next(ids), "name": "x"})


def _add(item: Any) -> Callable[[Any], object]:
    return lambda session: session.add(item(id=next(ids), name="x"))


@contextmanager
def plain_core(place: Place) -> Iterator[Work]:
    with engine_of(place) as engine:
        insert_row = _execute(PlainItem.__table__)
        yield Work(lambda: _rolled_back(engine.connect), lambda target: target.begin_nested(), insert_row)


@contextmanager
def plain_orm(place: Place, insert_row: Callable[[Any], object]) -> Iterator[Work]:
    with engine_of(place) as engine:
        maker = sessionmaker(engine, class_=PlainSession)
        yield Work(lambda: _rolled_back(maker), lambda target: target.begin_nested(), insert_row, Session.flush)


@contextmanager
def our_core(place: Place) -> Iterator[Work]:
    with engine_of(place) as engine:
        insert_row = _execute(OurItem.__table__)
        yield Work(lambda: savepoints.transaction(engine, rollback=True), savepoints.savepoint, insert_row)


@contextmanager
def our_orm(place: Place, insert_row: Callable[[Any], object]) -> Iterator[Work]:
    with engine_of(place) as engine:
        maker = sessionmaker(engine, class_=savepoints.Session)
        yield Work(
            lambda: savepoints.transaction(maker, rollback=True), savepoints.savepoint, insert_row, Session.flush
        )


# -- Django


@contextmanager
def django(place: Place) -> Iterator[Work]:
    """Its `atomic` with a cursor inside, which is Core's way of working."""
    conf, db, setup = (importlib.import_module(f"django{part}") for part in (".conf", ".db", ""))
    if not conf.settings.configured:
        conf.settings.configure(DATABASES={}, USE_TZ=True)
        setup.setup()
    alias = "counted" if place.counting else "measured"
    db.connections.settings[alias] = db.connections.configure_settings({"default": {}, alias: _settings(place)})[alias]
    connection = db.connections[alias]
    connection.ensure_connection()
    statement = INSERT.format(mark="%s")

    @contextmanager
    def transaction() -> Iterator[Any]:
        with db.transaction.atomic(alias):
            yield connection
            db.transaction.set_rollback(True, alias)

    def insert_row(target: Any) -> None:
        with target.cursor() as cursor:
            cursor.execute(statement, (next(ids), "x"))

    try:
        with connection.cursor() as cursor:
            cursor.execute(TABLE)
        if isinstance(place, Embedded) and place.counting:
            connection.connection.set_trace_callback(place.count)
        yield Work(transaction, lambda target: db.transaction.atomic(alias), insert_row)
    finally:
        connection.connection.close()  # Django's own close() leaves a database in memory open
        del db.connections[alias]


def _settings(place: Place) -> dict[str, Any]:
    if isinstance(place, Embedded):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    url = psycopg.conninfo.conninfo_to_dict(place.url("postgresql"))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url["dbname"],
        "USER": url["user"],
        "PASSWORD": url["password"],
        "HOST": url["host"],
        "PORT": url["port"],
    }


SQLALCHEMY = [
    Rival("SQLAlchemy Core", plain_core),
    Rival("savepoints Core", our_core),
    Rival("SQLAlchemy ORM, execute", lambda place: plain_orm(place, _execute(PlainItem))),
    Rival("savepoints ORM, execute", lambda place: our_orm(place, _execute(OurItem))),
    Rival("SQLAlchemy ORM, add", lambda place: plain_orm(place, _add(PlainItem))),
    Rival("savepoints ORM, add", lambda place: our_orm(place, _add(OurItem))),
]


def rivals(place: Place) -> list[Rival]:
    """All who can run on a database; the raw driver is the first."""
    if isinstance(place, Embedded):
        found = [Rival("sqlite3", sqlite_driver)]
    else:
        found = [
            Rival("psycopg", psycopg_driver),
            Rival("psycopg transaction()", lambda place: psycopg_driver(place, own_blocks=True)),
        ]
    if importlib.util.find_spec("django") is not None:
        found.append(Rival("Django atomic", django))
    return [*found, *SQLALCHEMY]
