"""The table of the benchmark and its rows: good ones, and bad ones of five kinds in equal shares, at random."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

PARENTS = 1000
COLUMNS = ("id", "code", "name", "quantity", "day", "parent_id")


def tables(*, typed: bool) -> tuple[MetaData, Table, Table]:
    """The parents and the table; with ``typed=False`` no column needs processing by SQLAlchemy's types."""
    metadata = MetaData()
    parent = Table("parent", metadata, Column("id", Integer, primary_key=True, autoincrement=False))
    item = Table(
        "item",
        metadata,
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("code", String(20), unique=True),
        Column("name", Text, nullable=False),
        Column("quantity", Integer),
        Column("day", Date if typed else Text),
        Column("parent_id", ForeignKey("parent.id", name="item_parent")),
        CheckConstraint("quantity >= 0", name="quantity_is_positive"),
    )
    return metadata, parent, item


Row = list[Any]


def rows(count: int, dirt: float, *, text: bool) -> tuple[list[Row], set[int]]:
    """Rows, as text like a CSV reader's or as Python values, and the numbers of the bad ones."""
    chance = random.Random(f"{count} {dirt}")
    bad = set(chance.sample(range(1, count), round(count * dirt)))
    found: list[Row] = []
    for number in range(count):
        row: Row = [
            number,
            f"C{number:08d}",
            f"item number {number}",
            number % 500,
            f"2024-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
            number % PARENTS,
        ]
        if number in bad:
            _spoil(row, number % 5, chance, number, bad)
        found.append([None if cell is None else str(cell) for cell in row] if text else row)
    return found, bad


def _spoil(row: Row, kind: int, chance: random.Random, number: int, bad: set[int]) -> None:
    """One fault: a wrong type, no name, a broken check, no parent, a code that a good row before it has."""
    if kind == 0:
        row[3] = "many"
    elif kind == 1:
        row[2] = None
    elif kind == 2:
        row[3] = -1 - number % 7
    elif kind == 3:
        row[5] = PARENTS + number
    else:
        first = next(n for n in iter(lambda: chance.randrange(number), -1) if n not in bad)
        row[1] = f"C{first:08d}"
