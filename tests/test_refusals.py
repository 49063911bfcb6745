"""No row values in messages: what is masked in a statement that is told of."""

from __future__ import annotations

import pytest

from savepoints._core.refusals import masked


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT 'secret', 'it''s secret'", "SELECT ?, ?"),
        ("SELECT 42, 1.5e10, 0x1F, 1_000, t2.c3", "SELECT ?, ?, ?, ?, t2.c3"),
        ("SELECT $$secret$$, $tag$secret $$ secret$tag$ FROM t", "SELECT ?, ? FROM t"),
        (r"SELECT E'it\'s secret' FROM t", "SELECT E?"),
        (r"SELECT 'C:\', 'secret'", "SELECT ?"),
        ("SELECT 'secret without an end", "SELECT ?"),
        ("SELECT $$secret without an end", "SELECT ?"),
        ("SELECT 1 -- it's secret\nFROM t", "SELECT ? ? FROM t"),
        ("SELECT 1 /* it's secret */ FROM t", "SELECT ? ? FROM t"),
        ("""INSERT INTO "it's" VALUES ('secret')""", "INSERT INTO ? VALUES (?)"),
        ("SELECT  a\n\tFROM   t", "SELECT a FROM t"),
        ("SELECT sp_1 FROM item WHERE id = ?", "SELECT sp_1 FROM item WHERE id = ?"),
    ],
)
def test_masked(statement: str, shown: str) -> None:
    assert masked(statement) == shown


def test_long_statement_is_cut() -> None:
    assert masked("SELECT " + "column, " * 100_000).endswith("…")
    assert len(masked("SELECT " + "column, " * 100_000)) == 80
    assert "secret" not in masked("SELECT " + "?, " * 320 + "'secret " * 100)
