"""Applications on well-known packages, as they are written: with the line their savepoints hold, on each database."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

import savepoints
from tests.harness.models import Item, tables
from tests.servers import Postgres

pytestmark = pytest.mark.slow

each_database = pytest.mark.parametrize("embedded", [True, False], ids=["sqlite", "postgresql"])

Url = Callable[[str], str]


@pytest.fixture
def url(request: pytest.FixtureRequest, embedded: bool, tmp_path: Path) -> Iterator[Url]:
    """The URL of an empty database, for a driver of each kind."""
    if embedded:
        yield lambda driver: f"sqlite+{'pysqlite' if driver == 'sync' else 'aiosqlite'}:///{tmp_path}/test.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    engine = create_engine(server.url("postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    yield lambda driver: server.url(f"postgresql+{'psycopg' if driver == 'sync' else 'asyncpg'}")


def stored(url: Url) -> list[int]:
    """What another connection reads."""
    engine = create_engine(url("sync"))
    with engine.connect() as connection:
        found = list(connection.scalars(text("SELECT id FROM item ORDER BY id")))
    engine.dispose()
    return found


def work(session: Any, item: Callable[..., Any]) -> None:
    """As it is found in applications: an attempt that may fail, then work that is given up after its savepoint."""
    with session.begin_nested():
        session.add(item(id=1))
    try:
        with session.begin_nested():
            session.add(item(id=2))
            session.add(item(id=1))
            session.flush()
    except IntegrityError:
        pass
    session.commit()
    with session.begin_nested():
        session.add(item(id=3))
    session.rollback()


@each_database
def test_flask_sqlalchemy(url: Url) -> None:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url("sync")
    db = SQLAlchemy(app, engine_options={"plugins": ["savepoints"]})

    class Note(db.Model):  # type: ignore[misc, name-defined]
        __tablename__ = "item"
        id = db.Column(db.Integer, primary_key=True)

    @app.post("/work")
    def view() -> dict[str, int]:
        work(db.session, Note)
        return {"notes": db.session.query(Note).count()}

    with app.app_context():
        db.create_all()
        assert savepoints.installed(db.engine) == frozenset(savepoints.Repair)
    assert app.test_client().post("/work").json == {"notes": 1}
    assert stored(url) == [1]
    with app.app_context():
        db.engine.dispose()


@each_database
def test_flask_sqlalchemy_by_the_verb(url: Url) -> None:
    """On the engine of an application that is made already."""
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url("sync")
    db = SQLAlchemy(app)

    class Note(db.Model):  # type: ignore[misc, name-defined]
        __tablename__ = "item"
        id = db.Column(db.Integer, primary_key=True)

    with app.app_context():
        savepoints.install(db.engine)
        db.create_all()
        work(db.session, Note)
        db.session.remove()
        assert stored(url) == [1]
        db.engine.dispose()


@each_database
def test_sqlmodel(url: Url) -> None:
    import sqlmodel
    from sqlalchemy.orm import registry

    class Base(sqlmodel.SQLModel, registry=registry()):
        """Apart from the mapped classes of other tests."""

    class Note(Base, table=True):
        __tablename__ = "item"
        id: int = sqlmodel.Field(primary_key=True)

    engine = sqlmodel.create_engine(url("sync"), plugins=["savepoints"])
    Base.metadata.create_all(engine)
    with sqlmodel.Session(engine) as session:
        work(session, Note)
        assert session.exec(sqlmodel.select(Note.id)).all() == [1]
    assert stored(url) == [1]
    engine.dispose()


@each_database
@pytest.mark.parametrize("face", ["sync", "async"])
async def test_fastapi(url: Url, face: str) -> None:
    """A session for each request, from a dependency that commits."""
    import httpx
    from fastapi import FastAPI

    app = (sync_app if face == "sync" else async_app)(FastAPI, url)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        assert (await client.post("/items/1")).json() == {"items": [1]}
        assert (await client.post("/items/1")).json() == {
            "items": [1]
        }  # refused inside its savepoint; the rest goes on
        assert (await client.post("/items/2?give_up=true")).status_code == 418
        assert (await client.post("/items/3")).json() == {"items": [1, 3]}
    assert stored(url) == [1, 3]


def sync_app(fastapi: Any, url: Url) -> Any:
    from fastapi import Depends, HTTPException

    engine = create_engine(url("sync"), plugins=["savepoints"])

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        tables.create_all(engine)
        yield
        engine.dispose()

    app = fastapi(lifespan=lifespan)

    def session() -> Iterator[Session]:
        with Session(engine) as session, session.begin():
            yield session

    given = Depends(session)

    def post(id: int, give_up: bool = False, session: Session = given) -> dict[str, list[int]]:
        try:
            with session.begin_nested():
                session.add(Item(id=id))
        except IntegrityError:
            pass
        if give_up:
            raise HTTPException(418)
        return {"items": list(session.scalars(text("SELECT id FROM item ORDER BY id")))}

    app.post("/items/{id}")(post)
    return app


def async_app(fastapi: Any, url: Url) -> Any:
    from fastapi import Depends, HTTPException

    engine = create_async_engine(url("async"), plugins=["savepoints"])
    maker = async_sessionmaker(engine)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
        yield
        await engine.dispose()

    app = fastapi(lifespan=lifespan)

    async def session() -> AsyncIterator[AsyncSession]:
        async with maker.begin() as session:
            yield session

    given = Depends(session)

    async def post(id: int, give_up: bool = False, session: AsyncSession = given) -> dict[str, list[int]]:
        try:
            async with session.begin_nested():
                session.add(Item(id=id))
        except IntegrityError:
            pass
        if give_up:
            raise HTTPException(418)
        return {"items": list(await session.scalars(text("SELECT id FROM item ORDER BY id")))}

    app.post("/items/{id}")(post)
    return app


@each_database
@pytest.mark.filterwarnings("default")  # what the worker leaves open is its own
def test_celery(url: Url) -> None:
    """A worker that takes tasks from a queue, in a thread of its own."""
    from celery import Celery
    from celery.contrib.testing.worker import start_worker

    engine = create_engine(url("sync"), plugins=["savepoints"])
    tables.create_all(engine)
    app = Celery(f"worker on {engine.name}", broker="memory://", backend="cache+memory://", set_as_current=False)

    def task(self: Any, id: int) -> str:
        """Fails at first, after its savepoint was released; then tries again."""
        with Session(engine) as session, session.begin():
            with session.begin_nested():
                session.add(Item(id=id + self.request.retries))
            if not self.request.retries:
                raise self.retry(countdown=0)
        return "done"

    registered = app.task(name=f"work on {engine.name}", bind=True, max_retries=1)(task)
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30.0):
        assert registered.delay(1).get(timeout=30) == "done"
    assert stored(url) == [2]
    engine.dispose()


ENV = """
from alembic import context
from sqlalchemy import engine_from_config
from sqlalchemy.pool import NullPool

engine = engine_from_config(context.config.get_section("alembic"), prefix="sqlalchemy.", poolclass=NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""

MIGRATION = '''
"""A part that may fail has a savepoint."""

from alembic import op
from sqlalchemy import Column, Integer, text
from sqlalchemy.exc import DBAPIError

revision, down_revision, branch_labels, depends_on = {revision!r}, {down!r}, None, None


def upgrade():
    connection = op.get_bind()
    if revision == "one":
        op.create_table("item", Column("id", Integer, primary_key=True))
    with connection.begin_nested():
        connection.execute(text("INSERT INTO item VALUES ({id})"))
    try:
        with connection.begin_nested():
            connection.execute(text("INSERT INTO item VALUES ({id} + 1)"))
            connection.execute(text("INSERT INTO missing VALUES (1)"))
    except DBAPIError:
        pass
    if {fails}:
        raise ZeroDivisionError


def downgrade():
    op.drop_table("item")
'''


@each_database
def test_alembic(url: Url, tmp_path: Path) -> None:
    """The plugin stands in the URL of its configuration; a migration that fails is undone, its savepoints too."""
    from alembic import command
    from alembic.config import Config

    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions.parent / "env.py").write_text(ENV)
    for revision, down, id, fails in (("one", None, 1, False), ("two", "one", 10, True)):
        migration = MIGRATION.format(revision=revision, down=down, id=id, fails=fails)
        (versions / f"{revision}.py").write_text(textwrap.dedent(migration))
    config = Config()
    config.set_main_option("script_location", str(versions.parent))
    config.set_main_option("path_separator", "os")
    with_plugin = make_url(url("sync")).update_query_dict({"plugin": "savepoints"})
    config.set_main_option("sqlalchemy.url", _in_full(with_plugin).replace("%", "%%"))

    command.upgrade(config, "one")
    assert stored(url) == [1]
    with pytest.raises(ZeroDivisionError):
        command.upgrade(config, "two")
    assert stored(url) == [1]
    command.downgrade(config, "base")


def _in_full(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def test_the_scenario_shows_the_trap(tmp_path: Path) -> None:
    """Without the line, on SQLite, work that was given up is stored."""
    engine: Engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    tables.create_all(engine)
    with Session(engine) as session:
        work(session, Item)
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT id FROM item ORDER BY id"))) == [1, 3]
    engine.dispose()
