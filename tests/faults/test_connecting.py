"""No connection can be had: the server is not there, not ready or full. Nothing was begun, so it may be tried again."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from savepoints import Kind, Retry, RetryFrom, classify, is_retryable
from savepoints.testing import instant_retries
from tests.conftest import require, started
from tests.harness.sites import SITES, Site
from tests.harness.world import World
from tests.proxy import Proxy
from tests.servers import Postgres, free_port

pytestmark = [pytest.mark.needs("network")]


def engine_for(world: World, **parts: Any) -> Any:
    """An engine of the world's face on the same address but for these parts."""
    return engine_on(world.site, make_url(world.url).set(**parts))


def engine_on(site: Site, url: URL) -> Any:
    create: Any = create_engine if site.face == "sync" else create_async_engine
    return create(url, poolclass=NullPool)


async def error_of(world: World, engine: Any) -> Exception:
    """What the first statement of a transaction of ours meets."""
    source = engine if world.style == "core" else world.maker(bind=engine)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
        async with world.transaction(source) as t:
            await t.execute(text("SELECT 1"))
    return caught.value


def told(error: Exception) -> tuple[Kind, RetryFrom]:
    """The same of the driver's own error, where SQLAlchemy has wrapped it."""
    found = classify(error)
    original: Any = getattr(error, "orig", error)
    assert classify(original) == found
    assert is_retryable(error) == (found.retry_from != "never")
    return found.kind, found.retry_from


LOST, NOT_NOW, NEVER = (
    (Kind.DISCONNECT, RetryFrom.TRANSACTION),
    (Kind.UNAVAILABLE, RetryFrom.TRANSACTION),
    (Kind.PROGRAMMING, RetryFrom.NEVER),
)


async def test_nobody_listens(world: World) -> None:
    assert told(await error_of(world, engine_for(world, port=free_port()))) == LOST


async def test_nobody_knows_the_host(world: World) -> None:
    assert told(await error_of(world, engine_for(world, host="no-such-host.invalid"))) == LOST


async def test_somebody_hangs_up(world: World) -> None:
    """The driver's error may be that of a COMMIT without an answer, word for word."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        thread = threading.Thread(target=hang_up, args=(deaf,))
        thread.start()
        try:
            assert told(await error_of(world, engine_for(world, port=deaf.getsockname()[1]))) == LOST
        finally:
            deaf.shutdown(socket.SHUT_RDWR)
            thread.join()


def hang_up(deaf: socket.socket) -> None:
    with suppress(OSError):
        while True:
            deaf.accept()[0].close()


async def test_the_password_is_wrong(world: World) -> None:
    assert told(await error_of(world, engine_for(world, password="wrong"))) == NEVER


async def test_too_many_are_connected(world: World) -> None:
    with world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as aside:
        aside.execute(world.sql("few"))
        engine = engine_for(world, username="few", password="few")
        try:
            async with AsyncExitStack() as held:
                with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
                    for _ in range(20):
                        await held.enter_async_context(world.open(engine))
            assert told(caught.value) == NOT_NOW
        finally:
            aside.execute(world.sql("many again"))


async def test_the_pool_has_none_left(world: World) -> None:
    create: Any = create_engine if world.site.face == "sync" else create_async_engine
    engine = create(world.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    async with world.open(engine):
        error = await error_of(world, engine)
    found = classify(error)
    assert (found.kind, found.retry_from) == (Kind.UNAVAILABLE, RetryFrom.TRANSACTION)
    disposed = engine.dispose()
    if disposed is not None:
        await disposed


async def test_an_error_of_a_file_is_none_of_a_connection(world: World) -> None:
    """A listener of somebody's reads one, while a connection is made; and one is raised by the code."""
    engine = engine_for(world)

    def reads(*_: object) -> None:
        raise FileNotFoundError("settings.ini")

    event.listen(getattr(engine, "sync_engine", engine), "connect", reads)
    error = await error_of(world, engine)
    assert isinstance(error, FileNotFoundError)
    assert not is_retryable(error)
    assert not is_retryable(ConnectionRefusedError())


async def test_a_retry_goes_on_when_the_server_is_there(world: World, proxy: Proxy) -> None:
    proxy.cut_before = b""  # whatever a client says
    tries: list[str] = []

    def before(number: int, error: BaseException, seconds: float) -> None:
        tries.append(classify(error).kind)
        if number == 2:
            proxy.cut_before = None

    async def work(session: Any) -> None:
        await world.insert(session, 1)

    with instant_retries():
        await world.decorated(work, retry=Retry(attempts=3, before_retry=before))()
    assert tries == ["connection lost", "connection lost"]
    assert world.rows() == [(1, None)]


# -- a server that starts or stops, on each driver that can reach it

STARTING = [site for site in SITES if "commit_status" in site.has]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One of this module's own, that is stopped and started."""
    yield from started(Postgres)


async def asked(server: Postgres, site: Site, until: Callable[[Exception], bool]) -> Exception:
    """The error of a connection, once it is one of those that are waited for."""
    deadline = time.monotonic() + 20
    engine = engine_on(site, make_url(server.url(site.driver)))
    while True:
        try:
            opened = engine.connect()
            if site.face == "sync":
                opened.close()
            else:
                async with opened:
                    pass
        except Exception as error:
            if until(error):
                return error
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("site", STARTING, ids=lambda site: site.name)
async def test_the_server_stops_or_starts(server: Postgres, site: Site) -> None:
    """A smart shutdown waits for who is connected; a standby that is not to be read takes nobody."""
    require(site)
    held: Engine = create_engine(server.url(), poolclass=NullPool)
    with held.connect():
        os.kill(int((server.folder / "data" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGTERM)
        error = await asked(server, site, lambda error: "shutting down" in str(error))
        assert told(error) == NOT_NOW
    error = await asked(server, site, lambda error: "shutting down" not in str(error))
    assert told(error) == LOST

    standby = server.write("data/standby.signal", "")
    settings = server.folder / "data" / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text(f"{before}hot_standby = off\n")
    server.launch()
    try:
        error = await asked(
            server, site, lambda error: "accepting connections" in str(error) or "starting" in str(error)
        )
        assert told(error) == NOT_NOW
    finally:
        server.crash()
        standby.unlink()
        settings.write_text(before)
        server.recover()
