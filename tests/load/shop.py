"""A table with a rule of each kind, made beside those that every test has."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, Date, ForeignKey, Integer, MetaData, String, Table, func, select

from tests.harness.world import World

metadata = MetaData()
maker = Table("maker", metadata, Column("id", Integer, primary_key=True, autoincrement=False))
product = Table(
    "product",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("code", String(10), unique=True),
    Column("name", String(50), nullable=False),
    Column("stock", Integer, server_default="1"),
    Column("since", Date),
    Column("maker_id", ForeignKey("maker.id", name="product_maker")),
    CheckConstraint("stock >= 0", name="stock_is_positive"),  # MariaDB takes no name for one within a column
)


def prepare(world: World) -> None:
    """Make the tables, with makers 1 to 3."""
    with world.aside.begin() as connection:
        metadata.create_all(connection, checkfirst=False)
        connection.execute(maker.insert(), [{"id": number} for number in (1, 2, 3)])


def good(number: int, **more: Any) -> dict[str, Any]:
    """A row that nothing is wrong with."""
    row = {"id": number, "code": f"C{number}", "name": f"number {number}", "stock": 5, "since": None, "maker_id": 1}
    return row | more


async def ids(target: Any) -> list[int]:
    """What is in the table, as the target sees it."""
    return list((await target.execute(select(product.c.id).order_by(product.c.id))).scalars())


async def count(target: Any, table: Table = product) -> int:
    found: int = (await target.execute(select(func.count()).select_from(table))).scalar_one()
    return found
