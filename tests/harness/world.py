"""`world`: what a test body has in hand. One object for every site, face and style."""

from __future__ import annotations

import asyncio
import inspect
import time
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, create_engine, event, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from savepoints._databases import capabilities
from tests.harness.face import FACES, Rounds, bare, driven, sync_form
from tests.harness.models import Child, Item, Parent, item, tables
from tests.harness.sites import Site, Style
from tests.harness.transcript import Transcript

# Engine, sessionmaker, session, connection or handle: its class depends on face and style.
Source = Any
Target = Any
Row = tuple[int, str | None]


class World:
    """An engine on a fresh database, its transcript, and the library's verbs in the face of the site."""

    Item, Parent, Child = Item, Parent, Child

    def __init__(self, site: Site, style: Style, url: str, aside: Engine) -> None:
        self.site = site
        self.style = style
        self.url = url
        self.aside = aside  # plain and sync, apart from the engine: the second connection
        self._face = FACES[site.face]
        self._connections: list[Any] = []  # the driver's own, all that were ever made
        self.engine: Any = self.new_engine()
        self.sync_engine: Engine = getattr(self.engine, "sync_engine", self.engine)
        event.listen(self.sync_engine, "connect", self._on_connect)
        self.transcript = Transcript(self.sync_engine)
        self.source: Source = self.engine if style == "core" else self.maker()

    # Making and opening

    def new_engine(self, **options: Any) -> Any:
        """One more engine on the same database; the caller disposes of it."""
        create = create_engine if self.site.face == "sync" else create_async_engine
        return create(self.url, connect_args=dict(self.site.connect_args), **options)

    def maker(self, **options: Any) -> Source:
        """A sessionmaker of the site's face on the engine, whatever the style."""
        make: Any = sessionmaker if self.site.face == "sync" else async_sessionmaker
        return make(**{"bind": self.engine, **options})

    def open(self, source: Source = None) -> Any:
        """`async with world.open() as t:` a session or connection with nothing begun."""
        opener: Any = self.source if source is None else source
        return self._face.call(getattr(opener, "connect", opener))

    async def opened(self, source: Source = None) -> Target:
        """The same without a block: the caller awaits `t.close()`."""
        target = self.open(source)
        return await target if inspect.isawaitable(target) else target

    # The library's verbs. Those that touch the database are awaited or entered.

    def transaction(self, source_or_target: Source | Target, **options: Any) -> Any:
        return self._face.call(self._verb("transaction"), source_or_target, **options)

    def savepoint(self, target: Target, name: Any = None, **options: Any) -> Any:
        return self._face.call(self._verb("savepoint"), target, name, **options)

    def atomic(self, target: Target, name: Any = None, **options: Any) -> Any:
        return self._face.call(self._verb("atomic"), target, name, **options)

    def rollback_to(self, target: Target, name: Any) -> Any:
        return self._face.call(self._verb("rollback_to"), target, name)

    def release(self, target: Target, name: Any) -> Any:
        return self._face.call(self._verb("release"), target, name)

    def load(self, target: Target, into: Any, rows: Any, **options: Any) -> Any:
        return self._face.call(self._verb("load"), target, into, rows, **options)

    def require_transaction(self, target: Target) -> Any:
        return self._face.plain(self._verb("require_transaction"), target)

    def current_transaction(self, target: Target) -> Any:
        return self._face.plain(self._verb("current_transaction"), target)

    def hook(self, verb: str, target: Target, *args: Any, **kwargs: Any) -> Any:
        """Register a hook by one of the four functions; in the sync face an async function is driven."""
        if args and self.site.face == "sync" and inspect.iscoroutinefunction(args[0]):
            args = (partial(driven, args[0]), *args[1:])
        return self._face.plain(self._verb(verb), target, *args, **kwargs)

    def Rollback(self, *level: Any) -> BaseException:
        error: BaseException = self._verb("Rollback")(*map(bare, level))
        return error

    @staticmethod
    def _verb(name: str) -> Any:
        import savepoints  # not at the top: the harness is tested without it

        return getattr(savepoints, name)

    def attempts(self, source: Source, *args: Any, **options: Any) -> Any:
        """`async for attempt in world.attempts(...)`, and `async with attempt`, which is the loop's last statement."""
        tries = self._verb("attempts")(source, *args, **options)
        return Rounds(tries) if self.site.face == "sync" else tries

    def decorated(self, function: Any, *, source: Source = None, **options: Any) -> Any:
        """An async function under the decorator; in the sync face it is driven. Each call is awaited."""
        decorator = self._verb("transaction")(self.source if source is None else source, **options)
        if self.site.face == "async":
            return decorator(function)
        made = decorator(sync_form(function))
        return lambda *args, **kwargs: self._face.call(made, *args, **kwargs)

    # Working with rows

    async def insert(self, target: Target, id: int, name: str | None = None) -> None:
        """One item, sent at once: a statement in the Core style, add and flush in the ORM style."""
        if self.style == "core":
            await target.execute(item.insert().values(id=id, name=name))
        else:
            target.add(Item(id=id, name=name))
            await target.flush()

    async def seen(self, target: Target) -> list[Row]:
        """The items as the target itself sees them now."""
        return [tuple(row) for row in await target.execute(self._items)]

    def rows(self) -> list[Row]:
        """The items as a second connection sees them: what is durable."""
        with self.aside.connect() as connection:
            return [tuple(row) for row in connection.execute(self._items)]

    def sql(self, name: str) -> TextClause:
        """A statement in the words of the database."""
        return text(self.site.sql[name])

    def code(self, error: Any) -> str | None:
        """The database's own code of an error, as SQLAlchemy has wrapped it."""
        return capabilities(self.sync_engine.dialect).code(error.orig)

    def kill(self, id: int) -> None:
        """End a connection from another one, and wait until it has gone."""
        with self.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(self.sql("kill"), {"id": id})
            self.wait_until(connection, "alive", id, gone=True)

    def wait_until(self, connection: Connection, name: str, id: int, *, gone: bool = False) -> None:
        """Ask until it is so, or not so any more."""
        deadline = time.monotonic() + 30
        while bool(connection.scalar(self.sql(name), {"id": id})) is gone:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    _items = select(item.c.id, item.c.name).order_by(item.c.id)

    async def run_sync(self, target: Target, function: Any, *args: Any) -> Any:
        """Call a sync function with the sync session or connection behind the target."""
        if self.site.face == "sync":
            return function(bare(target), *args)
        return await target.run_sync(function, *args)

    async def run_sync_alone(self, function: Any) -> Any:
        """Call a sync function with a sync connection of the engine, in no transaction of ours."""
        async with self.open(self.engine) as connection:
            return await self.run_sync(connection, function)

    # Before and after the test

    def prepare(self) -> None:
        with self.aside.begin() as connection:
            if self.site.reset is None:
                tables.create_all(connection, checkfirst=False)
            else:
                self.site.reset.empty(connection, tables)

    def check_pool(self) -> None:
        """The pool is whole: nothing is checked out, and no driver connection is in a transaction."""
        assert self.sync_engine.pool.checkedout() == 0, "a connection was not given back"  # type: ignore[attr-defined]
        left = [connection for connection in self._connections if self.site.in_transaction(connection)]
        assert not left, f"still in a transaction: {left}"
        if self.site.lock_all is not None:
            with self.aside.connect() as connection:
                connection.exec_driver_sql(self.site.lock_all)

    async def close(self) -> None:
        disposed = self.engine.dispose()
        if disposed is not None:
            await disposed
            for _ in range(3):  # a connection that was cut off closes its socket in one of the loop's next rounds
                await asyncio.sleep(0)

    def _on_connect(self, connection: Any, record: Any) -> None:
        self._connections.append(record.driver_connection)
        self.site.on_connect(connection)
