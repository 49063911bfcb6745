"""What Python gives to columns that a row leaves out: defaults and ``onupdate`` of SQLAlchemy's columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Column

from savepoints._databases import Fault
from savepoints._load.convert import Conversion, Refused
from savepoints._load.reasons import Reason, reason


def in_python(default: Any) -> bool:
    """Whether Python gives it; what is SQL is a part of statements."""
    return default is not None and (default.is_scalar or default.is_callable)


class Refusals:
    """The rows of some that are refused; ``enter`` is told the place of each, and why."""

    def __init__(self, enter: Callable[[int, Reason], None], places: Sequence[int]) -> None:
        self._enter = enter
        self._places = places
        self.rows: set[int] = set()

    def add(self, refused: Refused) -> None:
        """Refuse rows, by their indexes."""
        self.rows.update(refused)
        for at, why in refused.items():
            self._enter(self._places[at], why)


class Filling:
    """Fills in the columns of some rows.

    Args:
        given: The cells that the rows have, by column; what was filled in is added, for the next functions to see.
        count: How many rows there are.
        refusals: Gets those for which a function raises, or gives what does not fit; no function sees refused rows.
        conversion: Gives what a column does with its values.
    """

    def __init__(
        self,
        given: dict[Column[Any], Sequence[Any]],
        count: int,
        refusals: Refusals,
        conversion: Callable[[Column[Any]], Conversion],
    ) -> None:
        self._given = given
        self._count = count
        self._refusals = refusals
        self._conversion = conversion
        self._seen: dict[Column[Any], Sequence[Any]] = {}
        self._unfit: Refused = {}

    def by(self, column: Column[Any], what: str) -> Sequence[Any]:
        """The cells that the ``default`` or ``onupdate`` of a column gives, as the driver takes them."""
        default = getattr(column, what)
        if default.is_scalar:
            found: Sequence[Any] = [default.arg] * self._count
        else:
            contexts = [_Context(self, at) for at in range(self._count)]
            found, refused = called(column, what, default.arg, contexts, left_out=self._refusals.rows)
            # what the function stumbled over is the better reason: a value that its type does not take
            self._refusals.add({at: self._unfit.get(at, why) for at, why in refused.items()})
        done, unfit = self._conversion(column)(found)
        self._refusals.add(unfit)
        self._given[column] = found
        return done

    def row(self, index: int) -> dict[str, Any]:
        """A row by the keys of its columns, each value in the type of its column, if it has it."""
        for column in self._given.keys() - self._seen.keys():
            self._seen[column], unfit = self._conversion(column).values(self._given[column])
            self._unfit = unfit | self._unfit
        return {column.key: cells[index] for column, cells in self._seen.items()}


class _Context:
    """What a function of SQLAlchemy's may ask for."""

    def __init__(self, filling: Filling, index: int) -> None:
        self._filling = filling
        self._index = index

    @cached_property
    def current_parameters(self) -> dict[str, Any]:
        return self._filling.row(self._index)

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        return self.current_parameters


def called(
    column: Column[Any],
    what: str,
    function: Callable[[Any], Any],
    cells: Sequence[Any],
    left_out: Collection[int] = (),
) -> tuple[list[Any], Refused]:
    """What a function of the caller's makes of each cell; an error of it is the row's."""
    found: list[Any] = []
    refused: Refused = {}
    for at, cell in enumerate(cells):
        value = None
        if at not in left_out:
            try:
                value = function(cell)
            except MemoryError:
                raise
            except Exception as error:
                told = f"`{what}` of {column.name} raised {type(error).__name__}"
                refused[at] = reason(Fault.TYPE, column.name, message=told, detail=str(error))
        found.append(value)
    return found, refused
