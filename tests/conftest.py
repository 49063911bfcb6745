"""Fixtures for all tests. A database that cannot be had is skipped loudly; in CI that is a failure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import hypothesis
import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from tests.harness.sites import Site, Style, places
from tests.harness.world import World
from tests.proxy import Proxy
from tests.servers import Galera, MariaDB, Postgres, Server, ServerMissing, SystemPostgres

hypothesis.settings.register_profile("savepoints", deadline=None, print_blob=True)
hypothesis.settings.load_profile("savepoints")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """SQLAlchemy's async side is for asyncio only."""
    return "asyncio"


class Stoppable(Protocol):
    def stop(self) -> None: ...


S = TypeVar("S", bound=Stoppable)


def new(kind: Callable[[], S]) -> S:
    """A server that whoever asked for it stops."""
    try:
        return kind()
    except ServerMissing as missing:
        skip(str(missing))


def started(kind: Callable[[], S]) -> Iterator[S]:
    """The body of a fixture: a server for as long as it lasts."""
    server = new(kind)
    yield server
    server.stop()


def skip(missing: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def require(site: Site) -> None:
    """A driver that is not installed is missing as a server is."""
    if find_spec(site.module) is None:
        skip(f"database missing: the driver {site.module} is not installed; to have it: {site.install}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    yield from started(Postgres)


@pytest.fixture(scope="session")
def system_postgres() -> Iterator[Server]:
    yield from started(SystemPostgres)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    yield from started(MariaDB)


@pytest.fixture(scope="session")
def galera() -> Iterator[Galera]:
    yield from started(Galera)


CLUSTERED = places({"implicit_commit"}, set())


@pytest.fixture(params=CLUSTERED, ids=[f"{site.name}-{style}" for site, style in CLUSTERED])
async def on_a_node(request: pytest.FixtureRequest, galera: Galera) -> AsyncIterator[World]:
    """A world on the first node; its second connection is one to the second node."""
    site: Site
    style: Style
    site, style = request.param
    require(site)
    aside = create_engine(galera.nodes[1].url())
    assert site.reset is not None
    world = World(replace(site, reset=replace(site.reset, alone=None)), style, galera.url(site.driver), aside)
    world.prepare()
    with aside.begin() as other:
        other.execute(text("INSERT INTO item VALUES (1, 'a'), (2, 'b')"))
    engine = create_engine(galera.url())
    with engine.connect() as here:  # it has come over
        here.execute(text("SET SESSION wsrep_sync_wait = 1"))
        assert here.scalar(text("SELECT count(*) FROM item")) == 2
    engine.dispose()
    yield world
    await world.close()
    aside.dispose()


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A proxy before the world's server; a test that asks for it has its world connect through it."""
    site, _ = request.node.callspec.params["world"]
    proxy = Proxy(request.getfixturevalue(site.server).port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="session")
def aside_engine() -> Iterator[Callable[[str], Engine]]:
    """Plain engines for the second connection: kept for a server, since connecting costs more than a test."""
    engines: dict[str, Engine] = {}

    def engine(url: str) -> Engine:
        return engines.setdefault(url, create_engine(url, pool_pre_ping=True))

    yield engine
    for one in engines.values():
        one.dispose()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `world` runs at every site and style that its marks allow."""
    if "world" in metafunc.fixturenames:
        marks = metafunc.definition
        needs = {name for mark in marks.iter_markers("needs") for name in mark.args}
        lacks = {name for mark in marks.iter_markers("lacks") for name in mark.args}
        chosen = places(needs, lacks)
        params = [
            pytest.param((site, style), id=f"{site.name}-{style}", marks=[pytest.mark.slow] if site.slow else [])
            for site, style in chosen
        ]
        metafunc.parametrize("world", params, indirect=True)


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, aside_engine: Callable[[str], Engine]
) -> AsyncIterator[World]:
    site: Site
    style: Style
    site, style = request.param
    require(site)
    if site.server is None:
        url = f"{site.driver}:///{tmp_path}/test.db"
        aside = create_engine(f"{site.plain_driver}:///{tmp_path}/test.db", poolclass=NullPool)
    else:
        server: Server = request.getfixturevalue(site.server)
        proxied = "proxy" in request.fixturenames
        url = server.url(site.driver, request.getfixturevalue("proxy").port if proxied else None)
        aside = aside_engine(server.url(site.plain_driver))
    world = World(site, style, url, aside)
    world.prepare()
    yield world
    try:
        if request.node.stash.get(PASSED, False):  # after a failure it would only add noise
            world.check_pool()
    finally:
        await world.close()


PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests could not run for want of a database, and the line that installs it."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and "database missing:" in report.longrepr[2]
    )
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} TESTS NOT RUN, {reason}", red=True, bold=True)
