"""`savepoints load`: real files into real databases, its exit codes, and that nothing is left behind."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, Engine, make_url, text
from typer.testing import CliRunner, Result

from savepoints._databases import capabilities
from savepoints.cli import loading
from savepoints.cli.app import app
from tests.harness.world import World
from tests.load.shop import prepare
from tests.servers import Postgres, free_port

RULES = """
CREATE TABLE maker (id INTEGER PRIMARY KEY);
INSERT INTO maker VALUES (1), (2);
CREATE TABLE product (
    id INTEGER PRIMARY KEY, code VARCHAR(5) UNIQUE, name TEXT NOT NULL,
    stock INTEGER CONSTRAINT stock_is_positive CHECK (stock >= 0), maker INTEGER REFERENCES maker
);
"""

CLEAN = "id,code,name,stock,maker\n1,a,Ada,5,1\n2,b,Bob,6,2\n"
#: Besides two good rows: a code twice, no name, less than nothing, no such maker, no number, a cell too many.
DIRTY = CLEAN + "3,a,C,1,1\n4,d,,1,1\n5,e,E,-1,1\n6,f,F,1,9\n7,g,top secret,many,1\n8,h,H,1,1,x\n"


class Place:
    """A folder with a database and a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "shop.db"
        self.url = f"sqlite:///{self.database}"
        self.run_script(RULES)

    def run_script(self, script: str) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(script)

    def file(self, content: str = DIRTY, name: str = "rows.csv") -> Path:
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return path

    def load(self, file: Path | str, *arguments: str, table: str = "product", url: str | None = None) -> Result:
        return invoke(str(file), "--into", url or self.url, "--table", table, *arguments)

    def rows(self, sql: str = "SELECT id, name FROM product ORDER BY id") -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()

    def names(self) -> set[str]:
        return {file.name for file in self.folder.iterdir()}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["load", *arguments])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


GOOD = [(1, "Ada"), (2, "Bob")]


# What it does


def test_all_rows_are_loaded(place: Place) -> None:
    result = place.load(place.file(CLEAN))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("product: 2 rows read, 2 loaded, 0 rejected\n")
    assert place.rows() == GOOD


def test_good_rows_are_kept_and_each_other_one_is_told(place: Place) -> None:
    result = place.load(place.file())
    assert (result.exit_code, result.stderr) == (3, "")
    assert place.rows() == GOOD
    assert "8 rows read, 2 loaded, 6 rejected" in result.stdout
    for line in (
        "row 2 (line 4): code is a duplicate of a row in the table",
        "row 3 (line 5): name must not be null",
        "row 4 (line 6): check stock_is_positive is violated",
        "row 5 (line 7): maker has no parent in maker",
        "row 6 (line 8): the value of stock does not fit its type INTEGER",
        "row 7 (line 9): the row has 6 columns where 5 columns are expected",
    ):
        assert line in result.stdout
    assert "secret" not in result.stdout


def test_values_are_shown_if_asked_for(place: Place) -> None:
    assert "top secret" in place.load(place.file(), "--show-values").stdout


def test_values_are_shown_as_files_have_them(place: Place) -> None:
    file = place.file('{"id": 1, "name": null, "stock": 1.0, "code": "\\u001b[2J"}\n', "rows.jsonl")
    result = place.load(file, "--show-values")
    assert r"{'id': 1, 'name': None, 'stock': '1.0', 'code': '\x1b[2J'}" in result.stdout
    assert result.stdout.startswith("product: 1 row read, 0 loaded")


def test_rejects_are_written_and_can_be_loaded_again(place: Place) -> None:
    out = place.folder / "out.jsonl"
    result = place.load(place.file(), "--rejects", str(out))
    assert result.exit_code == 3
    assert f"Rejected rows: {out}" in result.stdout
    assert out.stat().st_mode & 0o777 == 0o600
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["number"] for record in records] == [2, 3, 4, 5, 6, 7]
    assert records[1]["row"] == {"id": "4", "code": "d", "name": "", "stock": "1", "maker": "1"}

    place.run_script("INSERT INTO maker VALUES (9)")
    records = [record for record in records if len(record["row"]) == 5]
    out.write_text("".join(json.dumps(record) + "\n" for record in records))
    again = place.load(out)
    assert again.exit_code == 3
    assert "4 rejected" in again.stdout
    assert [row[0] for row in place.rows()] == [1, 2, 6]
    assert "row 2 (line 4): code is a duplicate" in again.stdout


def test_without_rejects_there_is_no_file_of_them(place: Place) -> None:
    """It would stand in the way of the next run."""
    out = place.folder / "out.jsonl"
    for _ in range(2):
        result = place.load(place.file(CLEAN), "--rejects", str(out), "--dry-run")
        assert (result.exit_code, out.exists(), "Rejected rows" in result.stdout) == (0, False, False)


def test_a_table_in_other_letters(place: Place) -> None:
    result = place.load(place.file(CLEAN), table="Product")
    assert (result.exit_code, place.rows()) == (0, GOOD), result.output
    assert result.stdout.startswith("product: 2 rows read")


def test_rejects_as_csv_have_the_columns_of_the_file(place: Place) -> None:
    out = place.folder / "out.csv"
    place.load(place.file(), "--rejects", str(out))
    assert out.read_text().splitlines()[0].endswith(",id,code,name,stock,maker")


LIMITS = {"5": 4, "6": 3, "50%": 4, "75%": 3, "0": 4, "0%": 4}


@pytest.mark.parametrize(("limit", "code"), LIMITS.items(), ids=LIMITS)
def test_a_limit(place: Place, limit: str, code: int) -> None:
    out = place.folder / "out.jsonl"
    result = place.load(place.file(), "--max-rejected", limit, "--rejects", str(out))
    assert result.exit_code == code
    assert place.rows() == (GOOD if code == 3 else [])
    assert len(out.read_text().splitlines()) == 6  # what was found until then
    assert ("rejected (undone)" in result.stdout) is (code == 4)
    if code == 4:
        assert re.fullmatch(r"savepoints load: 6 of 8 rows for product were rejected, .* was undone\n", result.stderr)


def test_a_dry_run_does_it_and_keeps_nothing(place: Place) -> None:
    result = place.load(place.file(), "--dry-run")
    assert result.exit_code == 3
    assert "8 rows read, 2 loaded, 6 rejected (undone)" in result.stdout
    assert result.stdout.endswith("Dry run: nothing was kept.\n")
    assert place.rows() == []


def test_explain_tells_the_rules(place: Place) -> None:
    shown = place.load(place.file(CLEAN), "--explain").stdout
    for rule in ("not null name", "check stock_is_positive", "unique (code)", "foreign key (maker)"):
        assert f"rule {rule}: left to the database" in shown


def test_duplicates_update_or_are_skipped(place: Place) -> None:
    place.load(place.file(CLEAN))
    newer = place.file("id,code,name,stock,maker\n1,a,Eve,5,1\n3,c,Carl,1,1\n", "newer.csv")
    result = place.load(newer, "--on-conflict", "skip")
    assert (result.exit_code, place.rows()) == (0, [(1, "Ada"), (2, "Bob"), (3, "Carl")])
    assert "1 skipped" in result.stdout
    result = place.load(newer, "--on-conflict", "update", "--key", "code")
    assert (result.exit_code, place.rows()) == (0, [(1, "Eve"), (2, "Bob"), (3, "Carl")])


def test_fields_by_other_names(place: Place) -> None:
    file = place.file("Number,Who=,name,more\n1,Ada,x,y\n", "other.csv")
    result = place.load(file, "--column", "Number=id", "--column", "Who==name")
    assert result.exit_code == 0, result.output
    assert place.rows() == [(1, "Ada")]
    assert place.load(place.file(CLEAN), "--column", "id", "--column", "name").exit_code == 3
    assert place.load(file, "--column", "Numbr=id").exit_code == 2


def test_null_and_encoding(place: Place) -> None:
    file = place.folder / "old.csv"
    file.write_bytes("id,code,name,stock\n1,NA,Zoë,\\N\n".encode("latin-1"))
    result = place.load(file, "--encoding", "latin-1", "--null", "NA", "--null", "\\N")
    assert result.exit_code == 0, result.output
    assert place.rows("SELECT code, name, stock FROM product") == [(None, "Zoë", None)]


def test_a_packed_file(place: Place) -> None:
    file = place.folder / "rows.csv.gz"
    file.write_bytes(gzip.compress(CLEAN.encode()))
    assert place.load(file).exit_code == 0
    assert place.rows() == GOOD


# A table that is not there yet

SEEN = """n,share,day,moment,zip,price,word,empty,offset
1,0.5,2024-02-29,2024-02-29 10:00,00501,1.50,x,,2024-02-29T10:00:00Z
-20,2,1999-12-31,1999-12-31T23:59:59.5,99950,2,,,2024-02-29T10:00:00Z
"""


def test_create_makes_the_table_by_the_look_of_the_values(place: Place) -> None:
    result = place.load(place.file(SEEN), "--create", table="seen")
    assert result.exit_code == 0, result.output
    columns = place.rows("SELECT name, type FROM pragma_table_info('seen')")
    assert columns == [
        ("n", "BIGINT"),
        ("share", "DOUBLE"),
        ("day", "DATE"),
        ("moment", "DATETIME"),
        ("zip", "TEXT"),
        ("price", "TEXT"),
        ("word", "TEXT"),
        ("empty", "TEXT"),
        ("offset", "TEXT"),
    ]
    assert place.rows("SELECT zip, price, offset FROM seen")[0] == ("00501", "1.50", "2024-02-29T10:00:00Z")


def test_create_from_json(place: Place) -> None:
    lines = [{"id": 1, "share": 1, "tags": ["a"], "known": True}, {"id": 2, "share": 0.5, "word": "x"}]
    file = place.file("".join(json.dumps(line) + "\n" for line in lines), "rows.jsonl")
    assert place.load(file, "--create", table="seen").exit_code == 0
    columns = dict(place.rows("SELECT name, type FROM pragma_table_info('seen')"))
    assert columns == {"id": "BIGINT", "share": "DOUBLE", "tags": "JSON", "known": "BOOLEAN", "word": "TEXT"}


def test_create_makes_a_field_of_documents_and_others_json(place: Place) -> None:
    file = place.file('{"both": [1]}\n{"both": 2}\n{"both": "x"}\n{"both": 0.5}\n', "rows.jsonl")
    result = place.load(file, "--create", table="seen")
    assert result.exit_code == 0, result.output
    assert place.rows("SELECT name, type FROM pragma_table_info('seen')") == [("both", "JSON")]
    assert place.rows("SELECT both FROM seen") == [("[1]",), (2,), ('"x"',), (0.5,)]  # numbers as SQLite keeps them


def test_a_file_can_be_tried_without_a_database(place: Place) -> None:
    result = place.load(place.file(CLEAN), "--create", "--dry-run", url="sqlite://", table="seen")
    assert (result.exit_code, "2 loaded" in result.stdout) == (0, True), result.output


def test_create_with_the_fields_that_are_taken(place: Place) -> None:
    file = place.file(",Number,word,more\n0,1,x,y\n", "named.csv")
    result = place.load(file, "--create", "--column", "Number=id", "--column", "word", table="seen")
    assert result.exit_code == 0, result.output
    assert place.rows("SELECT name, type FROM pragma_table_info('seen')") == [("id", "BIGINT"), ("word", "TEXT")]


def test_create_uses_a_table_that_is_there(place: Place) -> None:
    assert place.load(place.file(), "--create").exit_code == 3
    assert place.rows() == GOOD


def test_create_makes_a_database_too(place: Place) -> None:
    url = f"sqlite:///{place.folder}/new.db"
    assert place.load(place.file(CLEAN), "--create", "--dry-run", url=url).exit_code == 0
    assert "new.db" not in place.names()
    assert place.load(place.file(CLEAN), "--create", url=url).exit_code == 0
    assert "new.db" in place.names()


# What it refuses

REFUSED: dict[str, tuple[list[str], str]] = {
    "no such file": (["nowhere.csv", "--table", "product"], "nowhere.csv cannot be read: No such file"),
    "a folder": (["folder.csv", "--table", "product"], "folder.csv is a folder"),
    "the folder itself": ([".", "--table", "product"], "load: . is a folder. Give the path of a file"),
    "a pipe": (["pipe.csv", "--table", "product"], "pipe.csv is a pipe or a device, which cannot be read twice"),
    "no format": (["shop.db", "--table", "product"], "the name 'shop.db' does not tell its format"),
    "another format": (["wrong.parquet", "--table", "product"], "wrong.parquet is not a Parquet file"),
    "empty": (["empty.csv", "--table", "product"], "empty.csv is empty"),
    "no such table": (["rows.csv", "--table", "produkt"], "there is no table 'produkt'; near: product"),
    "header": (["header.csv", "--table", "product"], "has no column 'nam'; near: name"),
    "missing column": (["missing.csv", "--table", "product"], "the input has no 'name' for table product"),
    "150%": (["rows.csv", "--table", "product", "--max-rejected", "150%"], "a share from 0% to 100%, not '150%'"),
    "nan": (["rows.csv", "--table", "product", "--max-rejected", "nan%"], "a share from 0% to 100%, not 'nan%'"),
    "no number": (["rows.csv", "--table", "product", "--max-rejected", "few"], "a number of rows or a share as 1%"),
    "less than none": (["rows.csv", "--table", "product", "--max-rejected", "-1"], "a number of rows from 0"),
    "rejects are there": (["rows.csv", "--table", "product", "--rejects", "empty.csv"], "empty.csv exists already"),
    "rejects are the input": (["rows.csv", "--table", "product", "--rejects", "rows.csv"], "is the input itself"),
    "rejects into no folder": (
        ["rows.csv", "--table", "product", "--rejects", "rows.csv/out.csv"],
        "there is no folder rows.csv",
    ),
    "no such encoding": (["rows.csv", "--table", "product", "--encoding", "nope"], "there is no encoding 'nope'"),
    "cut": (["cut.csv.gz", "--table", "product"], "cut.csv.gz cannot be read: Compressed file ended"),
    "one document": (["array.json", "--table", "product"], "array.json is one JSON document, and not JSON Lines"),
    "open quote": (["quote.csv", "--table", "product"], "the header of quote.csv is not CSV"),
    "no name": (["index.csv", "--table", "product"], "or tell by --column which fields to take"),
    "one column twice": (
        ["rows.csv", "--table", "product", "--column", "id", "--column", "code=name", "--column", "name"],
        "fields 'code' and 'name' are both for column 'name'",
    ),
    "no field": (["rows.csv", "--table", "product", "--column", "=id"], "--column is FIELD or FIELD=NAME, not '=id'"),
    "no column": (["rows.csv", "--table", "product", "--column", "id="], "--column is FIELD or FIELD=NAME, not 'id='"),
    "one field twice": (
        ["rows.csv", "--table", "product", "--column", "id=id", "--column", "id=stock"],
        "--column names the field 'id' twice",
    ),
    "letters of another size": (
        ["letters.csv", "--table", "seen", "--create"],
        "table seen cannot be made: duplicate column name: A. Name its columns by --column",
    ),
    "key without a use": (
        ["rows.csv", "--table", "product", "--key", "id"],
        "here they are rejected. Leave it out, or give --on-conflict skip or update",
    ),
    "rejects as what": (["rows.csv", "--table", "product", "--rejects", "out.txt"], "'out.txt' does not tell how"),
    "no folder for them": (["rows.csv", "--table", "product", "--rejects", "no/out.csv"], "there is no folder no"),
    "unknown key": (
        ["rows.csv", "--table", "product", "--on-conflict", "update", "--key", "cod"],
        "--key names 'cod'; near: code",
    ),
}


@pytest.mark.parametrize(("arguments", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_told_in_one_line_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(place.folder)
    place.file()
    place.file("", "empty.csv")
    place.file("id,nam\n1,x\n", "header.csv")
    place.file("id,code\n1,x\n", "missing.csv")
    place.file(CLEAN, "wrong.parquet")
    place.file('[{"id": 1, "name": "x"}]', "array.json")
    place.file('"id,name\n1,x\n', "quote.csv")
    place.file(",id,name\n0,1,x\n", "index.csv")
    (place.folder / "cut.csv.gz").write_bytes(gzip.compress(CLEAN.encode())[:-12])
    place.file("a,A\n1,2\n", "letters.csv")
    (place.folder / "folder.csv").mkdir()
    os.mkfifo(place.folder / "pipe.csv")
    before = place.names()
    result = invoke(*arguments, "--into", place.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"savepoints load: .*\n", result.stderr)
    assert told in result.stderr
    assert place.names() == before
    assert place.rows() == []


NO_DATABASE = {
    "a file that is none": ("sqlite:///rows.csv", "sqlite:///rows.csv cannot be used: file is not a database"),
    "not a URL": ("nonsense", "this is not a database URL"),
    "no such file": ("sqlite:///no.db", "there is no database no.db"),
    "in memory": ("sqlite://", "sqlite:// is a database in memory, gone when the command ends"),
    "unknown database": ("nonesuch://host/db", "nonesuch://host/db cannot be used: Can't load plugin"),
    "async driver": ("sqlite+aiosqlite:///shop.db", "aiosqlite is an async driver"),
    "password not escaped": ("postgresql+psycopg://u:s3@cret@127.0.0.1:1/db", "this is not a database URL"),
}


@pytest.mark.parametrize(("url", "told"), NO_DATABASE.values(), ids=NO_DATABASE)
def test_what_is_no_database(place: Place, monkeypatch: pytest.MonkeyPatch, url: str, told: str) -> None:
    monkeypatch.chdir(place.folder)
    result = place.load(place.file(), url=url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"savepoints load: .*\n", result.stderr)
    assert told in result.stderr
    assert "cret" not in result.stderr
    assert place.names() == {"shop.db", "rows.csv"}


def test_a_server_that_is_not_there(place: Place) -> None:
    port = free_port()
    result = place.load(place.file(), url=f"postgresql+psycopg://somebody:s3cret%40word@127.0.0.1:{port}/db")
    assert result.exit_code == 2
    assert f"postgresql+psycopg://127.0.0.1:{port}/db cannot be used: " in result.stderr
    assert "s3cret" not in result.output


def test_a_server_that_does_not_let_us_in(place: Place, postgres: Postgres) -> None:
    url = make_url(postgres.url()).set(password="s3cret@word")
    result = place.load(place.file(), url=url.render_as_string(hide_password=False))
    assert result.exit_code == 2
    assert "s3cret" not in result.output


def test_what_is_not_a_rows_fault_breaks_it_off(place: Place) -> None:
    with closing(sqlite3.connect(place.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = place.load(place.file(), url=f"{place.url}?timeout=0.1")
    assert result.exit_code == 1
    assert result.stderr == "savepoints load: broken off: database is locked; nothing was loaded\n"
    assert place.rows() == []


def test_create_is_refused_where_it_could_not_be_undone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "savepoints.cli.loading.capabilities",
        lambda dialect: replace(capabilities(dialect), transactional_ddl="implicit commit"),
    )
    result = place.load(place.file(), "--create", table="seen")
    assert result.exit_code == 2
    assert "commits CREATE TABLE at once" in result.stderr


# On each database


@pytest.mark.needs("core", "sync")
@pytest.mark.lacks("no_begin", "always_in_transaction")
async def test_at_a_url(world: World, tmp_path: Path) -> None:
    prepare(world)
    file = tmp_path / "rows.csv"
    file.write_text("id,code,name,stock,since,maker_id\n1,a,Ada,5,2024-02-29,1\n2,b,,5,,1\n3,c,Cyd,-5,,1\n")
    result = await anyio.to_thread.run_sync(lambda: invoke(str(file), "--into", world.url, "--table", "product"))
    assert result.exit_code == 3, result.output
    assert "3 rows read, 1 loaded, 2 rejected" in result.stdout
    with world.aside.connect() as connection:
        assert connection.execute(text("SELECT id, name FROM product")).all() == [(1, "Ada")]
    password = make_url(world.url).password
    assert password is None or password not in result.output


# On a terminal, and interrupted


class Terminal:
    """A command in a process and on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.shown = ""
        program = (
            "import signal\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # even if the tests run in the background\n"
            "from savepoints_command import main\n"
            "main()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "load", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)

    def read_until(self, pattern: str | None) -> None:
        """Read what is shown until it shows the pattern, or to its end."""
        until = time.monotonic() + 60
        while pattern is None or not re.search(pattern, self.shown):
            ready, _, _ = select.select([self._master], [], [], until - time.monotonic())
            assert ready, self.shown
            try:
                more = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                more = b""
            if not more:
                assert pattern is None, self.shown
                return
            self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", more.decode())

    def end(self) -> int:
        self.read_until(None)
        os.close(self._master)
        return self.process.wait(timeout=60)


@pytest.fixture
def long(tmp_path: Path) -> Iterator[Path]:
    """A file that takes some seconds."""
    file = tmp_path / "long.csv"
    with file.open("w") as out:
        out.write("id,code,name,stock,since,maker_id\n")
        out.writelines(f"{n},C{n},number {n},{n if n % 100 else -1},2024-02-29,1\n" for n in range(300_000))
    yield file
    file.unlink()


@pytest.mark.needs("core", "sync")
@pytest.mark.lacks("no_begin", "always_in_transaction")
async def test_control_c_undoes_it_and_says_so(world: World, long: Path) -> None:
    prepare(world)
    terminal = Terminal(str(long), "--into", world.url, "--table", "product")
    await anyio.to_thread.run_sync(lambda: terminal.read_until(r"rows, [\d,]+/s +\d[\d,]* rejected"))
    assert "long.csv → product" in terminal.shown
    terminal.process.send_signal(signal.SIGINT)
    code = await anyio.to_thread.run_sync(terminal.end)
    assert code == 130, terminal.shown
    assert "savepoints load: interrupted: all was undone, and product is as it was" in terminal.shown
    assert "Traceback" not in terminal.shown
    with world.aside.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM product")).scalar_one() == 0


def stop(*others: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("what", ["_show", "_database"])
def test_control_c_after_the_commit_says_that_the_rows_are_there(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """When the report is shown, or the connection closed."""
    if what == "_show":
        monkeypatch.setattr(loading, "_show", stop)
    else:
        monkeypatch.setattr(Engine, "dispose", stop)
    result = place.load(place.file(CLEAN))
    assert result.exit_code == 130
    assert result.stderr == "savepoints load: interrupted after COMMIT: the rows are in product\n"
    assert place.rows() == GOOD


def test_control_c_after_a_dry_run_leaves_all_as_it_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_show", stop)
    result = place.load(place.file(CLEAN), "--dry-run")
    assert result.exit_code == 130
    assert result.stderr == "savepoints load: interrupted: all was undone, and product is as it was\n"
    assert place.rows() == []


def test_control_c_during_the_commit_says_to_look(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_commit_impl", stop)
    result = place.load(place.file(CLEAN))
    assert result.exit_code == 130
    assert result.stderr == "savepoints load: interrupted during COMMIT: look into product for what is there\n"


def test_on_a_terminal_the_bar_goes_and_the_report_is_a_table(place: Place) -> None:
    terminal = Terminal(str(place.file()), "--into", place.url, "--table", "product", "--explain")
    assert terminal.end() == 3
    lines = [line.strip() for line in terminal.shown.splitlines()]
    assert "product: 8 rows read, 2 loaded, 6 rejected" in lines
    assert any(re.fullmatch(r"foreign key +1", line) for line in lines)
    assert any(re.fullmatch(r"3 +5 +name must not be null", line) for line in lines)
    assert any(re.fullmatch(r"unique \(code\) +left to the database", line) for line in lines)


def test_a_pipe_gets_plain_lines(place: Place) -> None:
    result = place.load(place.file())
    assert "\x1b" not in result.output
    assert result.output.isascii()
