"""What a reason names: columns, constraints, and the rows and parents that it is about."""

from __future__ import annotations

import pytest
from sqlalchemy import CheckConstraint, Column, Integer, MetaData, Table, create_engine

from savepoints import load, transaction


@pytest.mark.parametrize("name", ['k"', 'Ch %s "k', "plain"])
def test_a_check_of_sqlite_is_told_once(name: str) -> None:
    engine = create_engine("sqlite://")
    thing = Table("thing", MetaData(), Column("id", Integer), CheckConstraint("id > 0", name=name))
    with transaction(engine) as connection:
        thing.metadata.create_all(connection)
        report = load(connection, thing, [{"id": 1}, {"id": -1}])
        assert [one.constraint for one in report.rejects[0].reasons] == [name]
    engine.dispose()
