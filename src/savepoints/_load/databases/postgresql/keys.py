"""Which rows of the input share a key, found here where Python's equality is the column's: cheaper than on the server.

It is for whole numbers, and for text under a deterministic collation, whose bytes must be equal. Everything else
(`citext`, padded `char`, numbers with fractions, dates) is for the server to compare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import compress, count
from operator import ne
from typing import Any

from savepoints._load.databases.postgresql.catalog import Column
from savepoints._load.intake import Batch

_WHOLE = frozenset({"smallint", "integer", "bigint"})
_TEXT = ("text", "character varying")


def shared(
    batch: Batch, places: Sequence[int], columns: Sequence[Column], left_out: Collection[int]
) -> Iterator[tuple[int, int]] | None:
    """Rows that share a key with others, with the first row of that key; None where the server must compare.

    Args:
        batch: All rows.
        places: Where the key's cells stand in a row.
        columns: The key's columns.
        left_out: Rows that did not fit their types.
    """
    cells = [_comparable(batch.column(at), one) for at, one in zip(places, columns, strict=True)]
    found = [column for column in cells if column is not None]
    if len(found) < len(cells):
        return None
    keys: Sequence[Any] = found[0] if len(found) == 1 else list(zip(*found, strict=True))
    if len(set(keys)) == len(keys):
        return iter(())
    return _groups(keys, len(found) > 1, left_out)


def _comparable(cells: Sequence[Any], column: Column) -> Sequence[Any] | None:
    kinds = set(map(type, cells)) - {type(None)}
    if column.type in _WHOLE and kinds <= {int}:
        return cells
    if column.type in _WHOLE and kinds == {str}:
        return _numbers(cells)
    return cells if column.exact and column.type.startswith(_TEXT) and kinds <= {str} else None


def _numbers(cells: Sequence[Any]) -> list[Any]:
    """As numbers. What Python takes for none is kept: if PostgreSQL does not (0x1F), the INSERT finds the duplicate."""
    try:
        return list(map(int, cells))
    except (ValueError, TypeError):
        return [_number(cell) for cell in cells]


def _number(cell: Any) -> Any:
    try:
        return None if cell is None else int(cell)
    except ValueError:
        return cell


def _groups(keys: Sequence[Any], composite: bool, left_out: Collection[int]) -> Iterator[tuple[int, int]]:
    """A row shares its key if it is not the first of that key, or if it is that first one."""
    known: dict[Any, int] = {}
    first = list(map(known.setdefault, keys, count()))
    members: dict[int, list[int]] = defaultdict(list)
    for at in compress(count(), map(ne, first, count())):
        key = keys[at]
        if key is not None and not (composite and None in key):
            members[first[at]].append(at)
    for begin, others in members.items():
        places = [at for at in (begin, *others) if at not in left_out]
        if len(places) > 1:
            yield from ((at, places[0]) for at in places)
