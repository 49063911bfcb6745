"""From rows as they were given to rows as the database is to have them: shaped, converted, defaults filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, Integer
from sqlalchemy.engine import Dialect

from savepoints import errors
from savepoints._databases import Fault
from savepoints._load.convert import ABSENT, Conversion
from savepoints._load.fields import Target, Wanted, filled
from savepoints._load.filling import Filling, Refusals, called, in_python
from savepoints._load.reasons import Reason, reason
from savepoints._load.sources import Broken, Source, Taken
from savepoints._model.levels import printable

Row = Sequence[Any]
Columns = tuple[Column[Any], ...]
Convert = Mapping[str, Callable[[Any], Any]]


@dataclass(slots=True)
class Batch:
    """Rows that are ready to be sent, all with the same columns.

    Attributes:
        columns: What each row holds, in order.
        rows: The rows.
        places: Where each of them stands in its piece, in ascending order.
        numbering: The number in the input of each row of the piece.
        filled: So many of the last columns hold what Python gives by default: an update leaves them as they were.
        cells: The rows by columns, where somebody has looked at them so already.
        changing: The columns that an update gets a value for by Python's ``onupdate``.
        changes: These values, for each row.
    """

    columns: Columns
    rows: list[Row]
    places: Sequence[int]
    numbering: Sequence[int]
    filled: int = 0
    cells: Sequence[Sequence[Any]] | None = None
    changing: Columns = ()
    changes: list[Row] = field(default_factory=list)

    def column(self, at: int) -> Sequence[Any]:
        """The cells of one column."""
        return list(map(itemgetter(at), self.rows)) if self.cells is None else self.cells[at]

    def number(self, index: int) -> int:
        """The number of a row in the input."""
        return self.numbering[self.places[index]]

    @property
    def given(self) -> Columns:
        """The columns that the input has values for."""
        return self.columns[: len(self.columns) - self.filled]

    def changed(self, index: int) -> Row:
        """A row as an update has it: with what ``onupdate`` gives behind its cells."""
        return (*self.rows[index], *self.changes[index]) if self.changing else self.rows[index]

    def part(self, start: int, stop: int) -> Batch:
        """Some of its rows, in order."""
        some = slice(start, stop)
        return replace(self, rows=self.rows[some], places=self.places[some], cells=None, changes=self.changes[some])

    def without(self, out: Iterable[int]) -> Batch:
        """All but those at some indexes, in order."""
        return self._chosen(kept(len(self.rows), out))

    def only(self, some: Iterable[int]) -> Batch:
        """Those at some indexes, in order."""
        chosen = bytearray(len(self.rows))
        for at in some:
            chosen[at] = 1
        return self._chosen(chosen)

    def _chosen(self, chosen: bytearray) -> Batch:
        rows, places = list(compress(self.rows, chosen)), list(compress(self.places, chosen))
        changes = list(compress(self.changes, chosen))
        return replace(self, rows=rows, places=places, cells=None, changes=changes)


def kept(count: int, out: Iterable[int]) -> bytearray:
    """What to keep of so many, for `compress`."""
    found = bytearray(b"\1") * count
    for at in out:
        found[at] = 0
    return found


@dataclass(slots=True)
class Piece:
    """What was taken from the source at once.

    Attributes:
        taken: The rows as they were given.
        batches: Those that can be sent.
        refused: Those that cannot, by their place, with the reasons.
    """

    taken: Taken
    batches: list[Batch] = field(default_factory=list)
    refused: dict[int, tuple[Reason, ...]] = field(default_factory=dict)

    def refuse(self, place: int, why: Reason) -> None:
        """One more reason against the row at a place."""
        self.refused[place] = (*self.refused.get(place, ()), why)


class Intake:
    """Takes rows from a source, piece by piece.

    Args:
        source: Where they come from.
        target: The table they are for.
        wanted: Which fields become which columns.
        dialect: The database's dialect, for its bind processors.
        null: Texts that stand for NULL.
        convert: Functions of the caller's for values, by column.
        served: The database reads text for any type.
        updates: The key by which rows are updated that are there already; empty if they are not.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        wanted: Wanted,
        dialect: Dialect,
        *,
        null: tuple[str, ...],
        convert: Convert,
        served: bool,
        updates: Columns,
    ) -> None:
        self._source = source
        self._target = target
        self._wanted = wanted
        self._dialect = dialect
        self._null = null
        self._nothing = (None, "", *null)
        self._convert = {self._column(name): function for name, function in convert.items()}
        self._served = served
        self._key = frozenset(updates)
        self._conversions: dict[Column[Any], Conversion] = {}
        self._tuples: list[Column[Any]] = []
        self._nameless = [at for at, name in enumerate(source.names or ()) if wanted.all and not name]
        self._header = None if source.names is None else wanted.of_header(source.names)
        columns = target.table.columns
        self._defaulted = [column for column in columns if in_python(column.default)]
        self._changed = [column for column in columns if updates and in_python(column.onupdate)]
        self._first = not source.again  # what is wrong with rejects is never an error of the input as a whole
        self.names = source.names  # of cells whose rows have none of their own

    def _column(self, name: str) -> Column[Any]:
        column = self._target.column(name)
        if column is None:
            raise errors.BadInput(f"`convert=` names {name!r}, and the table has no such column")
        return column

    def piece(self, count: int) -> Piece | None:
        """The next rows, at most so many; None at the end."""
        taken = self._source.take(count)
        if not taken.rows:
            return None
        piece = Piece(taken)
        for columns, rows, places in self._shaped(piece):
            self._prepare(piece, columns, rows, places)
        self._first = False
        return piece

    # -- shape

    def _shaped(self, piece: Piece) -> Iterator[tuple[Columns, list[Row], Sequence[int]]]:
        """Runs of rows with the same columns."""
        rows = piece.taken.rows
        if self._header is not None:
            names = self._source.names or ()
            places = self._refuse_nameless(piece) if self._nameless else range(len(rows))
            yield self._positional(piece, self._header, places, what=f"{len(names)} columns")
            return
        for named, places in _runs(rows):
            if named:
                yield from self._named(piece, places)
            else:
                columns = self._of_tuples([rows[at] for at in places])
                yield self._positional(piece, columns, places, what=f"{len(columns)} columns")

    def _refuse_nameless(self, piece: Piece) -> Sequence[int]:
        """The places of rows without values in columns that the header has no name for."""
        width = len(self._source.names or ())
        kept: list[int] = []
        for at, row in enumerate(piece.taken.rows):
            full = _is_row(row) and len(row) == width
            nameless = next((place for place in self._nameless if full and row[place] not in self._nothing), None)
            if nameless is None:
                kept.append(at)
            elif self._first and at == 0:
                raise errors.BadInput(
                    f"column {nameless + 1} of the input has values and no name",
                    hint="name it, or tell by `columns=` which fields to take",
                )
            else:
                told = f"column {nameless + 1} has a value and no name"
                piece.refuse(at, reason(Fault.STRUCTURE, message=told))
        return kept

    def _of_tuples(self, rows: list[Row]) -> Sequence[Column[Any]]:
        """The columns of rows without names, as the first of them all has them."""
        if self.names is not None:
            return self._tuples
        width = next((len(row) for row in rows if _is_row(row)), None)
        self._tuples = self._wanted.of_tuples(width or 0)
        self.names = None if width is None else tuple(column.name for column in self._tuples)
        return self._tuples

    def _positional(
        self, piece: Piece, columns: Sequence[Column[Any] | None], places: Sequence[int], what: str
    ) -> tuple[Columns, list[Row], Sequence[int]]:
        """Rows without names of their own, which must be as wide as the header."""
        rows, width = piece.taken.rows, len(columns)
        some = rows if len(places) == len(rows) else [rows[at] for at in places]
        if not (set(map(type, some)) <= {list, tuple} and set(map(len, some)) <= {width}):
            fit = [_is_row(row) and len(row) == width for row in some]
            for at in (at for at, fits in zip(places, fit, strict=True) if not fits):
                piece.refuse(at, _misshapen(rows[at], what))
            places = list(compress(places, fit))
            some = list(compress(some, fit))
        if any(column is None for column in columns):
            kept = [at for at, column in enumerate(columns) if column is not None]
            some = [[row[at] for at in kept] for row in some]
        return tuple(column for column in columns if column is not None), some, places

    def _named(self, piece: Piece, places: Sequence[int]) -> Iterator[tuple[Columns, list[Row], Sequence[int]]]:
        """Rows that bring their own names."""
        rows = piece.taken.rows
        names = list(rows[places[0]])
        if self._first:
            self._first = False
            # an unknown one is an error of the input, not of the row
            self._wanted.of_all(name for name in names if name is not None)
        found = self._alike(names, [rows[at] for at in places])
        if found is not None:
            yield *found, places
            return
        shaped = [(at, self._mapped(piece, at)) for at in places]
        kept = [(at, cells) for at, cells in shaped if cells is not None]
        for _, run in groupby(kept, key=_given if self._key else _left_open):
            some = list(run)
            columns = tuple(dict.fromkeys(column for _, cells in some for column in cells))
            empty = {column: self._conversion(column).absent for column in columns}
            yield columns, [list((empty | cells).values()) for _, cells in some], [at for at, _ in some]

    def _alike(self, names: list[str], rows: list[Mapping[str, Any]]) -> tuple[Columns, list[Row]] | None:
        """The usual case: all rows have the same names."""
        if set(map(len, rows)) != {len(names)} or not names or (self._wanted.all and "" in names):
            return None
        try:
            columns = [self._wanted.of(name) for name in names]
            kept = [name for name, column in zip(names, columns, strict=True) if column is not None]
            values = list(map(itemgetter(*names), rows)) if len(names) > 1 else [(row[names[0]],) for row in rows]
        except (errors.BadInput, KeyError):
            return None
        found = tuple(column for column in columns if column is not None)
        if len(set(found)) < len(found):
            return None
        if len(kept) < len(names):
            places = [at for at, column in enumerate(columns) if column is not None]
            return found, [[row[at] for at in places] for row in values]
        return found, values

    def _mapped(self, piece: Piece, place: int) -> dict[Column[Any], Any] | None:
        """The cells of one row by column; a column that is left out is NULL where nobody else fills it."""
        cells: dict[Column[Any], Any] = {}
        for name, value in piece.taken.rows[place].items():
            try:
                column = self._wanted.of(name)
            except errors.BadInput as error:
                piece.refuse(place, reason(Fault.STRUCTURE, message=error.message.partition(";")[0]))
                return None
            if column is None and not name and self._wanted.all and value not in self._nothing:
                piece.refuse(place, reason(Fault.STRUCTURE, message="a field has a value and no name"))
                return None
            if column in cells:
                piece.refuse(place, reason(Fault.STRUCTURE, message=f"two fields are for column {column.name}"))
                return None
            if column is not None:
                cells[column] = value
        return cells

    # -- values

    def _prepare(self, piece: Piece, columns: Columns, rows: list[Row], places: Sequence[int]) -> None:
        """Convert a run of rows, and fill in what Python gives by default."""
        if not rows:
            return
        before = _by_columns(rows, len(columns))
        refusals = Refusals(piece.refuse, places)
        given, after = self._converted(columns, before, refusals)

        def filling() -> Filling:
            return Filling(dict(zip(columns, given, strict=True)), len(rows), refusals, self._conversion)

        fill = filling()
        more = {column: fill.by(column, "default") for column in self._defaulted if column not in columns}
        after += more.values()
        fill, changes = filling(), {}
        if not self._key.issuperset(columns):  # else there is nothing to be updated
            changes = {column: fill.by(column, "onupdate") for column in self._changed if column not in columns}
        if more or any(one is not other for one, other in zip(after, before, strict=True)):
            rows = list(zip(*after, strict=True))
        batch = Batch((*columns, *more), rows, places, piece.taken.numbers, len(more), after)
        batch.changing, batch.changes = tuple(changes), list(zip(*changes.values(), strict=True))
        if refusals.rows:
            self._add_more(piece, batch.columns, after, refusals.rows, places)
            batch = batch.without(refusals.rows)
        piece.batches.append(batch)

    def _converted(
        self, columns: Columns, before: list[list[Any]], refusals: Refusals
    ) -> tuple[list[Sequence[Any]], list[Sequence[Any]]]:
        """The cells of each column as the caller has them, and as the driver is to have them."""
        given, after = [], []
        for column, cells in zip(columns, before, strict=True):
            found, unfit = self._by_caller(column, cells)
            done, refused = self._conversion(column)(found)
            given.append(found)
            after.append(done)
            refusals.add(refused | unfit)
        return given, after

    def _by_caller(self, column: Column[Any], cells: Sequence[Any]) -> tuple[Sequence[Any], dict[int, Reason]]:
        """The cells as the caller has them: NULL for some texts, and his own function for the column."""
        for text in self._null:
            if text in cells:
                cells = [None if type(cell) is str and cell == text else cell for cell in cells]
        function = self._convert.get(column)
        if function is None:
            return cells, {}
        absent = {at for at, cell in enumerate(cells) if cell is ABSENT}
        found, refused = called(column, "convert", function, cells, left_out=absent)
        return [ABSENT if at in absent else cell for at, cell in enumerate(found)] if absent else found, refused

    def _conversion(self, column: Column[Any]) -> Conversion:
        found = self._conversions.get(column)
        if found is None:
            found = Conversion(column, self._dialect, from_text=self._source.text, served=self._served)
            self._conversions[column] = found
        return found

    def _add_more(
        self, piece: Piece, columns: Columns, cells: list[Sequence[Any]], bad: set[int], places: Sequence[int]
    ) -> None:
        """Of a row that is refused anyway: what else the driver, or any database, would say of its values."""
        for column, values in zip(columns, cells, strict=True):
            is_number = isinstance(column.type, Integer)
            if column.nullable and not is_number:
                continue
            for at in bad:
                value = values[at]
                if value is None:
                    why = None if column.nullable else reason(Fault.NOT_NULL, column.name)
                else:
                    too_long = is_number and type(value) is int and value.bit_length() > 64
                    why = reason(Fault.TYPE, column.name) if too_long else None
                if why is not None and all(one.column != column.name for one in piece.refused[places[at]]):
                    piece.refuse(places[at], why)


def _by_columns(rows: list[Row], width: int) -> list[list[Any]]:
    """The cells of each column; so many rows at a time as a processor keeps at hand."""
    found: list[list[Any]] = [[] for _ in range(width)]
    for start in range(0, len(rows), 500):
        some = rows[start : start + 500]
        for at, cells in enumerate(found):
            cells.extend(map(itemgetter(at), some))
    return found


def _runs(rows: list[Any]) -> Iterator[tuple[bool, Sequence[int]]]:
    """Runs of rows that bring their own names, or none."""
    named = {kind for kind in set(map(type, rows)) if issubclass(kind, Mapping)}
    if not named or len(named) == len(set(map(type, rows))):
        yield bool(named), range(len(rows))
        return
    for kind, run in groupby(range(len(rows)), key=lambda at: type(rows[at]) in named):
        yield kind, list(run)


def _left_open(one: tuple[int, dict[Column[Any], Any]]) -> frozenset[str]:
    """Which columns with defaults a row has values for: the others must be left out, not be NULL."""
    return frozenset(column.name for column in one[1] if filled(column))


def _given(one: tuple[int, dict[Column[Any], Any]]) -> frozenset[str]:
    """Which columns a row has values for: in a row that is updated the others stay as they are."""
    return frozenset(column.name for column in one[1])


def _is_row(row: Any) -> bool:
    return isinstance(row, Sequence) and not isinstance(row, (str, bytes, Broken))


def _misshapen(row: Any, what: str) -> Reason:
    if isinstance(row, Broken):
        return reason(row.fault, message=row.message)
    if not _is_row(row):
        return reason(Fault.STRUCTURE, message=f"{printable(type(row).__name__)} is no row: {what} are expected")
    return reason(Fault.STRUCTURE, message=f"the row has {len(row)} columns where {what} are expected")
