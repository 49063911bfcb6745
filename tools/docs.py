"""Prints into the pages what is taken from the code: `uv run python -m tools.docs`.

Tables stand between `<!-- printed: name -->` and `<!-- end -->`; what an example prints stands in the `text` block
below it. The tests fail where a page is stale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from savepoints._databases import ROWS, cautious
from savepoints._databases.capabilities import Capabilities, Rule
from savepoints._model import states
from savepoints._model.states import Cell, Move, State
from tools.pages import FENCES, ROOT, blocks, run, without_places

PRINTED = re.compile(r"(<!-- printed: (?P<name>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# States


def cell(move: Cell | None) -> str:
    if move is None:
        return ""
    if isinstance(move, State):
        return str(move)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "<wbr>", move.__name__)  # where a narrow column may break it
    return f"[{words}](errors.md#{move.code})"


def moves(of: Mapping[State, states.Row]) -> str:
    """One line for each move, one column for each state."""
    asked = [move for move in Move if any(move in row for row in of.values())]
    rows = ([f"**{move}**", *(cell(row.get(move)) for row in of.values())] for move in asked)
    return table(["", *map(str, of)], rows)


# Databases


def yes(value: object) -> str:
    return "yes" if value else "no"


def option(row: Capabilities, known: object) -> str:
    return "yes" if known is not None else "refused"


def streamed(row: Capabilities) -> str:
    if row.wire is None:
        return "not known"
    return "read into memory" if row.streams_block else "goes on"


DDL = {"implicit commit": "no: it would commit, and is refused"}

ASKED: dict[str, Callable[[Capabilities], str]] = {
    "each cell proved by tests on the real database": lambda row: yes(row.proven),
    "RELEASE follows a ROLLBACK TO": lambda row: yes(row.releases),
    "BEGIN is sent by us where the driver has not": lambda row: yes(row.begin),
    "DDL is undone with the transaction": lambda row: DDL.get(row.transactional_ddl, row.transactional_ddl),
    "a failed statement": lambda row: row.failed_statement,
    "a streamed result beside savepoints": streamed,
    "generated keys after a rollback": lambda row: row.sequences,
    "settings made inside a savepoint that is rolled back": lambda row: row.settings,
    "`read_only=True`": lambda row: option(row, row.read_only or row.read_only_on or row.begin_read_only),
    "`deferrable=True`": lambda row: option(row, row.deferrable),
    "`twophase=True`": lambda row: "yes" if row.two_phase is None else "refused",
    "`track_commit=True`": lambda row: "yes" if row.commit_number else "refused; takes a function",
    "`immediate=True`": lambda row: "takes the write lock at once" if row.begin_immediate else "changes nothing",
}


TITLES = {
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB",
    "mysql": "MySQL",
    "tidb": "TiDB",
    "cockroachdb": "CockroachDB",
    "yugabytedb": "YugabyteDB",
}
DRIVERS = {"pysqlite": "sqlite3", "mysqldb": "mysqlclient"}  # as users install them


def title(row: Capabilities) -> str:
    return TITLES.get(row.database, row.database)


def driver(row: Capabilities) -> str:
    return DRIVERS.get(row.driver, row.driver)


def columns() -> dict[tuple[str, ...], list[Capabilities]]:
    """The rows by what is told of them: drivers of a database that do not differ share a column."""
    alike: dict[tuple[str, ...], list[Capabilities]] = {}
    for row in (*ROWS.values(), cautious.row("any other", "")):
        alike.setdefault((title(row), *(answer(row) for answer in ASKED.values())), []).append(row)
    return alike


def databases() -> str:
    alike = columns()
    head = [f"{told[0]}<br>{', '.join(map(driver, rows))}".removesuffix("<br>") for told, rows in alike.items()]
    lines = ([f"**{asked}**", *(told[1 + at] for told in alike)] for at, asked in enumerate(ASKED))
    notes = {f"{title(row)}: {note}." for rows in alike.values() for row in rows for note in row.notes}
    return table(["", *head], lines) + "\n\n" + "\n".join(f"- {note}" for note in sorted(notes))


# Errors


def error_table(database: str) -> str:
    """One line for each line of a database's table, which its drivers share."""
    row = next(row for row in ROWS.values() if row.database == database)
    lines = ([f"`{code}`", rule.kind.value, _retry(rule)] for code, rule in sorted(row.errors.items()))
    return table(["code, or its beginning", "kind", "a retry goes back to"], lines)


def _retry(rule: Rule) -> str:
    return f"{rule.retry_from.value}, but first {rule.first}" if rule.first else rule.retry_from.value


TABLES: dict[str, Callable[[], str]] = {
    "transaction": lambda: moves(states.TRANSACTION),
    "savepoint": lambda: moves(states.SAVEPOINT),
    "databases": databases,
    **{f"errors of {name}": partial(error_table, name) for name in TITLES},
}


# Pages


def with_tables(source: str) -> str:
    return PRINTED.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", source)


def with_outputs(page: Path, source: str) -> str:
    """The page with the output of its examples; places in it stay as they are while the rest is true."""
    done = iter(run(page))

    def printed(found: re.Match[str]) -> str:
        block = next(done)
        if block.output is None or without_places(block.output) == without_places(block.printed):
            return found[0]
        return found[0].removesuffix(f"{block.output}```") + f"{block.printed}```"

    return FENCES.sub(printed, source)


def main() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        source = with_tables(page.read_text(encoding="utf-8"))
        if any(block.output is not None for block in blocks(page)):
            source = with_outputs(page, source)
        page.write_text(source, encoding="utf-8")


if __name__ == "__main__":
    main()
