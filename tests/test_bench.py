"""The benchmarks run, and what they count is held: never more is sent than by SQLAlchemy on a path that writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import blocks, blocks_async, installed
from bench.blocks import CASES, Case, Sent
from bench.measure import Size
from bench.places import Embedded, Place, Server
from bench.rivals import against
from tests.servers import Postgres

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["embedded", "server"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "embedded":
        return Embedded()
    postgres: Postgres = request.getfixturevalue("postgres")
    server = Server(postgres)
    server.prepare()
    return server


def assert_never_more(sent: Sent, case: Case) -> None:
    """The RELEASE after each rollback apart, which SQLAlchemy leaves out."""
    ours = [name for name in sent if against(name)]
    assert len(ours) == 3
    for name in ours:
        other = against(name)
        assert other is not None
        assert sent[name] <= sent[other] + case.releases, name


def test_blocks_that_write_never_send_more_than_sqlalchemys(place: Place) -> None:
    counts = blocks.counts(place, [case for case in CASES if case.writes])
    assert len(counts) == 4
    for case, sent in counts.items():
        assert_never_more(sent, case)


def test_a_block_costs_what_its_statements_cost(place: Place) -> None:
    """SAVEPOINT, INSERT, RELEASE: nothing else goes out, as with the driver alone."""
    case = Case("one INSERT", 1)
    sent = blocks.counts(place, [case])[case]
    assert {name: sent[name] for name in sent if against(name)} == {
        "savepoints Core": 3,
        "savepoints ORM, execute": 3,
        "savepoints ORM, add": 3,
    }


def test_async_blocks_never_send_more_than_sqlalchemys(place: Place) -> None:
    for driver in place.async_drivers:
        assert_never_more(blocks_async.counts(place, driver), Case("one INSERT", 1))


def test_loading_runs(tmp_path: Path) -> None:
    """The same for the benchmarks of loading, which check that everybody keeps exactly the good rows."""
    page = tmp_path / "page.md"
    page.write_text("<!-- benchmarks: filled by bench/ -->\n")
    command = [sys.executable, "-m", "bench.load", "table", "--quick", "--on", "embedded", "--write", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "savepoints.load" in page.read_text()


def test_plain_code_sends_with_the_line_what_it_sent_without(place: Place) -> None:
    """But for the RELEASE of a block that is rolled back, which psycopg sends in the same round trip."""
    more = {"a block that is rolled back": 1} if place.unit == "statements" else {}
    sent = {
        (style, side): installed.counts(place, style, side) for style in ("Core", "ORM") for side in installed.SIDES
    }
    for style in ("Core", "ORM"):
        without, line = sent[style, "without"], sent[style, "with the line"]
        assert {what: line[what] - without[what] for what in line if line[what] != without[what]} == more


@pytest.mark.slow
def test_what_the_line_costs_is_measured() -> None:
    found = list(installed.measured(Embedded(), Size(1, 1)))
    assert len(found) == 2 * len(installed.WHAT)


def test_the_command_runs(tmp_path: Path) -> None:
    """With tiny counts, in a process of its own; it fills a page below its marker."""
    page = tmp_path / "page.md"
    page.write_text("# Frame\n\n<!-- benchmarks: filled by bench/ -->\nold\n")
    command = [sys.executable, "-m", "bench", "blocks", "--quick", "--on", "embedded", "--write", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    written = page.read_text()
    assert written.startswith("# Frame\n\n<!-- benchmarks: filled by bench/ -->\n")
    assert "old" not in written
    assert "## SQLite in memory: statements per block" in written
