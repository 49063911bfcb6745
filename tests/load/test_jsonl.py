"""JSON Lines by the letter: all digits of a number, no field twice, and files that are no lines at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import JSON, Boolean, Column, Connection, Double, Integer, MetaData, Numeric, String, Table, select

from savepoints import BadInput, Report, load
from savepoints._load.documents import parsed, serializable
from savepoints._load.infer import table_for
from savepoints._load.numbers import Rounded
from tests.harness.world import World
from tests.load.items import in_memory, item, rows_of

metadata = MetaData()
number: Table = Table(
    "number",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("exact", Numeric(40, 20)),
    Column("near", Double),
    Column("word", String(40)),
    Column("yes", Boolean),
    Column("doc", JSON),
)


@pytest.fixture
def numbers() -> Iterator[Connection]:
    with in_memory(metadata) as connection:
        yield connection


def loaded(connection: Connection, folder: Path, *lines: str, table: Table = number, **options: Any) -> Report:
    file = folder / "numbers.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return load(connection, table, file, **options)


def cell(connection: Connection, column: str) -> Any:
    return connection.execute(select(number.c[column])).scalar_one()


LONG = ["0.1234567890123456789", "12345678901234567890.5"]


@pytest.mark.needs("core", "loader")
async def test_no_digit_is_lost(world: World, tmp_path: Path) -> None:
    """Stored as they are, or their rows refused where the driver has floats alone."""
    with world.aside.begin() as connection:
        metadata.create_all(connection, checkfirst=False)
    file = tmp_path / "numbers.jsonl"
    file.write_text("".join(f'{{"id": {at}, "exact": {digits}}}\n' for at, digits in enumerate((*LONG, "0.5"))))
    async with world.transaction(world.source) as target:
        report = await world.load(target, number, file)
        found = (await target.execute(select(number.c.exact).order_by(number.c.id))).scalars().all()
    if report.rejected:
        assert [(one.number, one.kind, one.column) for one in report.rejects] == [
            (0, "type", "exact"),
            (1, "type", "exact"),
        ]
        assert [one.row["exact"] for one in report.rejects] == list(map(Decimal, LONG))
        assert found == [Decimal("0.5")]
    else:
        assert found == [*map(Decimal, LONG), Decimal("0.5")]


@pytest.mark.needs("core", "loader")
async def test_numbers_by_their_columns_on_each_database(world: World, tmp_path: Path) -> None:
    with world.aside.begin() as connection:
        metadata.create_all(connection, checkfirst=False)
    file = tmp_path / "numbers.jsonl"
    file.write_text(
        '{"id": 1, "near": 0.1234567890123456789, "word": 1.10, "yes": true, "doc": {"a": [0.5, null, 1e2]}}\n'
        '{"id": 2, "doc": {"a": 0.1234567890123456789}}\n{"id": 3, "near": NaN}\n'
    )
    async with world.transaction(world.source) as target:
        report = await world.load(target, number, file)
        found = (await target.execute(select(number.c.near, number.c.word, number.c.yes, number.c.doc))).all()
    assert [(one.number, one.kind) for one in report.rejects] == [(1, "type"), (2, "structure")]
    assert found == [(0.1234567890123456789, "1.10", True, {"a": [0.5, None, 100.0]})]


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("near", "0.1234567890123456789", 0.1234567890123456789),
        ("near", "3", 3.0),
        ("word", "1.10", "1.10"),
        ("yes", "1.0", True),
        (
            "doc",
            '{"a": [1.5, {"b": 0.1}], "c": 12345678901234567890}',
            {"a": [1.5, {"b": 0.1}], "c": 12345678901234567890},
        ),
        ("doc", "0.25", 0.25),
    ],
)
def test_a_number_by_its_column(numbers: Connection, tmp_path: Path, column: str, text: str, value: Any) -> None:
    report = loaded(numbers, tmp_path, f'{{"id": 1, "{column}": {text}}}')
    assert (report.rejected, cell(numbers, column)) == (0, value)


@pytest.mark.parametrize(
    ("column", "text"), [("near", "1e400"), ("doc", '{"a": [0.1234567890123456789]}'), ("doc", '{"a": 1e400}')]
)
def test_what_would_be_altered_is_refused(numbers: Connection, tmp_path: Path, column: str, text: str) -> None:
    report = loaded(numbers, tmp_path, f'{{"id": 1, "{column}": {text}}}')
    assert [(one.kind, one.column) for one in report.rejects] == [("type", column)]


def test_a_document_in_csv_is_read_as_strictly(numbers: Connection, tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text('id|doc\n1|{"a": 0.5}\n2|{"a": 0.1234567890123456789}\n3|{"a": 1, "a": 2}\n4|{"a": NaN}\n')
    report = load(numbers, number, file)
    assert (report.loaded, dict(report.by_kind)) == (1, {"type": 3})
    assert cell(numbers, "doc") == {"a": 0.5}


def test_convert_gets_what_the_file_has(numbers: Connection, tmp_path: Path) -> None:
    report = loaded(numbers, tmp_path, f'{{"id": 1, "doc": {{"a": {LONG[0]}}}}}', convert={"doc": str})
    assert report.rejected == 0
    assert LONG[0] in cell(numbers, "doc")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": NaN}', "NaN is no number"),
        ('{"id": 1, "near": -Infinity}', "-Infinity is no number"),
        ('{"id": 1, "word": "a", "word": "b"}', "a field is there twice"),
        ('{"id": 1, "doc": {"a": 1, "a": 2}}', "a field is there twice"),
        ('{"id": 1, "near": 1e9999999999999999999999}', "out of all range"),
        ('{"id": ' + "9" * 5000 + "}", "a number is too long"),
        ('{"id": ' + "[" * 100_000, "nested too deeply"),
    ],
    ids=["NaN", "Infinity", "twice", "twice inside", "range", "long", "deep"],
)
def test_what_is_not_json(numbers: Connection, tmp_path: Path, line: str, told: str) -> None:
    report = loaded(numbers, tmp_path, '{"id": 7}', line, '{"id": 8}')
    assert [(one.number, one.line, one.kind, one.row) for one in report.rejects] == [(1, 2, "structure", line)]
    assert told in report.rejects[0].message
    assert report.loaded == 2


DOCUMENTS = {
    "an array": '[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]',
    "an array over lines": '[\n  {"id": 1, "name": "a"},\n  {"id": 2, "name": "b"}\n]',
    "an array, row by row": '[{"id": 1, "name": "a"},\n{"id": 2, "name": "b"}]',
    "an object over lines": '{\n  "id": 1,\n  "name": "a"\n}',
    "an empty array": "[]",
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_document_is_no_file_of_lines(connection: Connection, tmp_path: Path, case: str) -> None:
    with pytest.raises(BadInput, match=r"is one JSON document.*jq"):
        loaded(connection, tmp_path, DOCUMENTS[case], table=item)
    assert rows_of(connection) == []


def test_numbers_make_columns_that_keep_them(tmp_path: Path) -> None:
    file = tmp_path / "numbers.jsonl"
    file.write_text('{"a": 1, "b": 0.5, "c": 1}\n{"a": 2, "b": 3, "c": 0.1234567890123456789}\n')
    kinds = {column.name: str(column.type) for column in table_for(file, "made").columns}
    assert kinds == {"a": "BIGINT", "b": "DOUBLE", "c": "TEXT"}


@given(
    st.recursive(
        st.none() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    )
)
def test_documents_are_as_exact_as_floats(value: Any) -> None:
    text = json.dumps(value, default=lambda one: float(one))
    assert json.loads(text) == serializable(parsed(text))


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_number_is_kept_or_refused(value: Decimal) -> None:
    assert parsed(str(value)) == value
    try:
        assert Decimal(repr(serializable(value))) == value
    except Rounded:
        assert Decimal(repr(float(value))) != value
