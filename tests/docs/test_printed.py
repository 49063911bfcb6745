"""Tables that are printed from the code are fresh: `uv run python -m tools.docs` prints them."""

from __future__ import annotations

import pytest

from savepoints._databases import ROWS
from savepoints._model import states
from tools import docs
from tools.pages import ROOT


@pytest.mark.parametrize("page", ["states", "compatibility"])
def test_tables_are_fresh(page: str) -> None:
    source = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert docs.PRINTED.search(source)
    assert docs.with_tables(source) == source


def test_no_cell_of_the_states_is_left_out() -> None:
    for of in (states.TRANSACTION, states.SAVEPOINT):
        printed = docs.moves(of)
        cells = [cell for line in printed.splitlines()[2:] for cell in line.split("|")[2:-1]]
        assert sum(cell.strip() != "" for cell in cells) == sum(map(len, of.values()))


def test_every_row_is_printed() -> None:
    head = docs.databases().splitlines()[0]
    told = {column.partition("<br>")[::2] for column in head.split(" | ")}
    for row in ROWS.values():
        assert any(name == docs.title(row) and docs.driver(row) in drivers.split(", ") for name, drivers in told)
