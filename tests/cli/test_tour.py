"""`savepoints tour`: what it tells, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console
from sqlalchemy import Engine, event, inspect, make_url, text
from typer.testing import CliRunner, Result

from savepoints.cli.app import app
from savepoints.cli.page import Columns, Plain
from savepoints.cli.sent import Statement
from savepoints.cli.tour import run
from savepoints.cli.urls import BrokenOff
from tests.harness.world import World
from tests.servers import Postgres, free_port

STORY = [
    "BEGIN",
    "INSERT INTO",
    "SAVEPOINT sa_savepoint_1",
    "UPDATE users",
    "ROLLBACK TO SAVEPOINT sa_savepoint_1",
    "SELECT id,",
    "UPDATE users",
    "ROLLBACK TO SAVEPOINT sa_savepoint_1",
    "RELEASE SAVEPOINT sa_savepoint_1",
    "COMMIT",
    "SELECT id,",
]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tour", *arguments])


def in_short(statement: str) -> str:
    """Control statements in full, the others by their first two words."""
    control = statement.startswith(("BEGIN", "SAVEPOINT", "ROLLBACK", "RELEASE", "COMMIT"))
    return statement if control else " ".join(statement.split()[:2])


def told(output: str) -> list[str]:
    return [in_short(line) for line in re.findall(r"^ +> (.*)$", output, re.MULTILINE)]


def rows_told(output: str) -> list[str]:
    return re.findall(r"^ +(= .*)$", output, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, and nothing else."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


FACES = pytest.mark.parametrize("face", [[], ["--async"]], ids=["sync", "async"])


# On an embedded database


@FACES
def test_tells_the_story_and_leaves_nothing(folder: Path, face: list[str]) -> None:
    result = invoke(*face)
    assert result.exit_code == 0
    assert told(result.output) == STORY
    assert rows_told(result.output) == ["= 1 | John Doe", "= 1 | John Doe"]
    assert result.output.rstrip().endswith("The bookmark was rolled back twice, and John Doe is stored.")
    assert ("await " in result.output) == bool(face)
    assert list(folder.iterdir()) == []


@pytest.fixture
def traced() -> Iterator[list[str]]:
    """What the embedded database itself says that it was sent, beside DDL and questions about the schema."""
    sent: list[str] = []

    def trace(connection: Any, record: Any) -> None:
        connection.set_trace_callback(sent.append)

    event.listen(Engine, "connect", trace)
    yield sent
    event.remove(Engine, "connect", trace)


def test_what_is_told_is_what_was_sent(folder: Path, traced: list[str]) -> None:
    result = invoke()
    story = traced[traced.index("BEGIN ") : traced.index("DROP TABLE users")]
    seen = [in_short(statement.strip()) for statement in story if not statement.startswith("PRAGMA")]
    assert seen == told(result.output)


@FACES
def test_keep_leaves_the_database_and_says_where(folder: Path, face: list[str]) -> None:
    result = invoke("--keep", *face)
    assert result.exit_code == 0
    found = re.search(r"^The database is kept: (.*)$", result.output, re.MULTILINE)
    assert found is not None
    assert folder in Path(found[1]).parents
    connection = sqlite3.connect(found[1])
    assert connection.execute("SELECT id, name FROM users").fetchall() == [(1, "John Doe")]
    connection.close()


# On a database of the user's


def arguments(world: World) -> list[str]:
    return ["--url", world.url, *(["--async"] if world.site.face == "async" else [])]


async def in_thread(call: Callable[[], Any]) -> Any:
    """The tour runs an event loop of its own."""
    return await anyio.to_thread.run_sync(call)


def has_users(world: World) -> bool:
    return inspect(world.aside).has_table("users")


@pytest.mark.needs("core")
@pytest.mark.lacks("no_begin", "always_in_transaction")
async def test_runs_at_a_url_and_leaves_nothing(world: World) -> None:
    result = await in_thread(lambda: invoke(*arguments(world)))
    assert result.exit_code == 0, result.output
    assert told(result.output) == STORY
    assert rows_told(result.output)[-1] == "= 1 | John Doe"
    assert not has_users(world)
    password = make_url(world.url).password
    assert password is None or password not in result.output


@pytest.mark.needs("core")
@pytest.mark.lacks("no_begin", "always_in_transaction")
async def test_keeps_the_table_at_a_url(world: World) -> None:
    result = await in_thread(lambda: invoke("--keep", *arguments(world)))
    assert result.exit_code == 0, result.output
    with world.aside.begin() as connection:
        assert connection.execute(text("SELECT id, name FROM users")).all() == [(1, "John Doe")]
        connection.execute(text("DROP TABLE users"))
    kept = result.output.splitlines()[-1]
    assert make_url(world.url).database in kept
    assert (make_url(world.url).password or "no password") not in kept


@pytest.mark.needs("core")
@pytest.mark.lacks("no_begin", "always_in_transaction")
async def test_refuses_where_users_exists(world: World) -> None:
    with world.aside.begin() as connection:
        connection.execute(text("CREATE TABLE users (mine INTEGER)"))
        connection.execute(text("INSERT INTO users VALUES (7)"))
    result = await in_thread(lambda: invoke(*arguments(world)))
    assert result.exit_code == 2
    assert re.fullmatch(r"savepoints tour: there is a table 'users' in .* already, .*\n", result.output)
    with world.aside.begin() as connection:
        assert connection.execute(text("SELECT mine FROM users")).all() == [(7,)]
        connection.execute(text("DROP TABLE users"))


def test_a_file_made_by_the_url_goes_again(tmp_path: Path) -> None:
    result = invoke("--url", f"sqlite:///{tmp_path}/new.db")
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.db").touch()
    result = invoke("--url", f"sqlite:///{tmp_path}/mine.db")
    assert result.exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mine.db"]


REFUSED = {
    "not a URL": (["--url", "nonsense"], "this is not a database URL"),
    "unknown database": (["--url", "nonesuch://host/db"], "nonesuch://host/db cannot be used: Can't load plugin"),
    "driver not installed": (
        ["--url", "oracle+cx_oracle://host/db"],
        "oracle+cx_oracle://host/db needs a package that is not installed: No module named",
    ),
    "sync driver": (["--async", "--url", "sqlite+pysqlite:///x.db"], "pysqlite is not an async driver"),
    "async driver": (["--url", "sqlite+aiosqlite:///x.db"], "aiosqlite is an async driver: add --async"),
    "in memory": (["--url", "sqlite://"], "each connection to sqlite:// has a database of its own"),
    "in memory, to be kept": (["--url", "sqlite://", "--keep"], "give it a file, as sqlite:///tour.db"),
    "in memory, async": (["--url", "sqlite+aiosqlite://", "--async", "--keep"], "as sqlite+aiosqlite:///tour.db"),
    "port is no number": (["--url", "postgresql+psycopg://u@127.0.0.1:http/db"], "this is not a database URL"),
    "open bracket": (["--url", "postgresql+psycopg://[::1/db"], "this is not a database URL"),
    "no such folder": (["--url", "sqlite:////no/such/folder/x.db"], "unable to open database file"),
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_run_is_told_in_one_line(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert re.fullmatch(r"savepoints tour: .*\n", result.output)
    assert sentence in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("password", ["in@s3cret:word", "in@s3cret", "in@s3cret/word", "in@s3cret?word", "in@s3cret/@"])
def test_a_password_that_is_not_escaped_is_not_shown(password: str) -> None:
    result = invoke("--url", f"postgresql+psycopg://somebody:{password}@127.0.0.1:1/db")
    assert result.exit_code == 2
    assert re.fullmatch(r"savepoints tour: this is not a database URL; .* with %40 for an @ in .*\n", result.output)


SERVER_DRIVERS = pytest.mark.parametrize(
    ("driver", "face"), [("psycopg", []), ("psycopg", ["--async"]), ("asyncpg", ["--async"])]
)


@SERVER_DRIVERS
def test_a_server_that_is_not_there(driver: str, face: list[str]) -> None:
    port = free_port()
    result = invoke("--url", f"postgresql+{driver}://somebody:s3cret%40word@127.0.0.1:{port}/db", *face)
    assert result.exit_code == 2
    assert re.fullmatch(
        rf"savepoints tour: postgresql\+{driver}://127.0.0.1:{port}/db cannot be used: .*\n", result.output
    )
    assert "s3cret" not in result.output


@SERVER_DRIVERS
def test_a_server_that_does_not_let_us_in(postgres: Postgres, driver: str, face: list[str]) -> None:
    url = make_url(postgres.url(f"postgresql+{driver}")).set(password="s3cret@word")
    result = invoke("--url", url.render_as_string(hide_password=False), *face)
    assert result.exit_code == 2
    assert re.fullmatch(r"savepoints tour: .* cannot be used: .*\n", result.output)
    assert "s3cret" not in result.output


# Broken off


class Stopping(Plain):
    """Does something after a number of steps."""

    def __init__(self, after: int, then: Callable[[], object]) -> None:
        super().__init__()
        self._after = after
        self._then = then

    def step(self, words: str, code: str, sent: list[Statement], rows: Any) -> None:
        super().step(words, code, sent, rows)
        if self._number == self._after:
            self._then()


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("after", range(1, 11))
def test_an_interrupt_leaves_nothing(folder: Path, tmp_path: Path, after: int, asynchronous: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(None, Stopping(after, interrupt), asynchronous=asynchronous, keep=False)
    assert list(folder.iterdir()) == []


@pytest.mark.needs("core")
@pytest.mark.lacks("no_begin", "always_in_transaction")
async def test_an_interrupt_leaves_no_table(world: World) -> None:
    tour = partial(run, world.url, asynchronous=world.site.face == "async", keep=False)
    for after in (1, 3, 7, 9):
        with pytest.raises(KeyboardInterrupt):
            await in_thread(lambda after=after: tour(Stopping(after, interrupt)))  # type: ignore[misc]
        assert not has_users(world)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_control_c_leaves_nothing(tmp_path: Path, asynchronous: bool) -> None:
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # even if the tests run in the background\n"
        "from savepoints.cli import app\n"
        "from savepoints_command import main\n"
        "from tests.cli.test_tour import Stopping\n"
        "app.page = lambda: Stopping(5, lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "main()\n"
    )
    face = ["--async"] if asynchronous else []
    done = subprocess.run(
        [sys.executable, "-c", program, "tour", *face],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 130, done.stderr
    assert " 5. " in done.stdout
    assert " 6. " not in done.stdout
    assert done.stderr == "savepoints: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("core", "kill")
async def test_a_lost_connection_breaks_it_off_and_leaves_no_table(world: World) -> None:
    def kill() -> None:
        with world.aside.connect() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'UPDATE%'")
            )

    tour = partial(run, world.url, asynchronous=world.site.face == "async", keep=False)
    with pytest.raises(BrokenOff) as caught:
        await in_thread(lambda: tour(Stopping(4, kill)))
    assert "\n" not in str(caught.value)
    assert not has_users(world)


# How it looks


def test_plain_where_there_is_no_terminal() -> None:
    result = invoke()
    assert "\x1b" not in result.output
    assert result.output.isascii()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_two_columns_on_a_terminal(width: int) -> None:
    out = StringIO()
    run(
        None,
        Columns(Console(file=out, force_terminal=True, color_system=None, width=width)),
        asynchronous=False,
        keep=False,
    )
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()]
    assert max(map(len, lines)) <= width
    assert any(re.match(r" 3  A bookmark is set\. +SAVEPOINT", line) for line in lines)
    assert lines[-1] == "The bookmark was rolled back twice, and John Doe is stored."
