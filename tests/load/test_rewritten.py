"""Rows that the database puts elsewhere than into the target: it does not tell what became of them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

from savepoints import BadInput, load, transaction

metadata = MetaData()
ruled = Table("ruled", metadata, Column("id", Integer, primary_key=True, autoincrement=False), Column("size", Integer))
ROWS: list[Any] = [{"id": 1, "size": 1}, {"id": 2, "size": None}, {"id": 1, "size": 5}, {"id": 3, "size": 3}]


@pytest.mark.parametrize("trigger", [True, False])
def test_a_view_of_sqlite_is_refused(trigger: bool) -> None:
    """What its trigger stored would be told as left out."""
    engine = create_engine("sqlite://")
    view = Table("seen", MetaData(), Column("id", Integer, primary_key=True), Column("size", Integer))
    with transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE base (id INTEGER PRIMARY KEY, size INTEGER NOT NULL)")
        connection.exec_driver_sql("CREATE VIEW seen AS SELECT * FROM base")
        if trigger:
            connection.exec_driver_sql(
                "CREATE TRIGGER stores INSTEAD OF INSERT ON seen BEGIN INSERT INTO base VALUES (new.id, new.size); END"
            )
        with pytest.raises(BadInput, match="seen is a view"):
            load(connection, view, ROWS)
        assert connection.exec_driver_sql("SELECT * FROM base").all() == []
    engine.dispose()
