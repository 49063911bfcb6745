"""Why a row was refused: the records that a Report hands out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from savepoints._databases import Fault


@dataclass(slots=True)
class Reason:
    """One thing that is wrong with a row.

    Attributes:
        kind: ``structure``, ``encoding``, ``type``, ``length``, ``not null``, ``check``, ``foreign key``, ``unique``,
            ``exclusion``, ``view check``, ``generated``, ``trigger`` or ``other``.
        message: A sentence without values of the row.
        column: The column, or the columns of a key, separated by commas.
        constraint: Its name, where it has one.
        code: The database's own code: an SQLSTATE, or the name of SQLite's extended result code.
        detail: What the database or the driver said in its own words, which may hold values of the row.
        collides_with: Of a duplicate: the number of the row in the input that came first, or the primary key of the row
            that was in the table before.
        parent: Of a foreign key: the values that no parent has, in the order of the columns.
        because_of: Of a foreign key: the number of the rejected row that would have been the parent.
    """

    kind: str
    message: str
    column: str | None = None
    constraint: str | None = None
    code: str | None = None
    detail: str | None = field(default=None, repr=False)
    collides_with: int | Mapping[str, Any] | None = field(default=None, repr=False)
    parent: tuple[Any, ...] | None = field(default=None, repr=False)
    because_of: int | None = None


@dataclass(slots=True, repr=False)
class Reject:
    """One row that was not loaded.

    Attributes:
        number: The row's number in the input, from 0; of a replayed row its first one.
        line: Where it begins in the file, from 1, where that is known.
        row: The row as it was given.
        reasons: All that is known to be wrong with it, the first found first.
        names: Of a row without names of its own: those that its cells were to have.
    """

    number: int
    line: int | None
    row: Any
    reasons: tuple[Reason, ...]
    names: tuple[str, ...] | None = None

    @property
    def named(self) -> Any:
        """The row with the names of its cells, where it has as many as there are names; else as it was given."""
        if hasattr(self.row, "_asdict"):
            return self.row._asdict()
        return by_name(self.row, self.names)

    @property
    def kind(self) -> str:
        """The kind of the first reason."""
        return self.reasons[0].kind

    @property
    def code(self) -> str | None:
        """The database's code of the first reason."""
        return self.reasons[0].code

    @property
    def constraint(self) -> str | None:
        """The constraint of the first reason."""
        return self.reasons[0].constraint

    @property
    def column(self) -> str | None:
        """The column of the first reason."""
        return self.reasons[0].column

    @property
    def message(self) -> str:
        """All reasons in one line, without values of the row."""
        return "; ".join(reason.message for reason in self.reasons)

    def __str__(self) -> str:
        where = f"row {self.number}" if self.line is None else f"row {self.number} (line {self.line})"
        return f"{where}: {self.message}"

    __repr__ = __str__


def by_name(row: Any, names: Sequence[str] | None) -> Any:
    """A row under the names of its cells; as it is where they are not as many, or two with a value have one name."""
    if names is None or not isinstance(row, (list, tuple)) or len(row) != len(names):
        return row
    # a header may leave columns without a name, as long as nothing is in them
    pairs = [(name, cell) for name, cell in zip(names, row, strict=True) if name or cell not in (None, "")]
    found = dict(pairs)
    return found if len(found) == len(pairs) else row


_NO_TEXT = "text that cannot be encoded"
_SENTENCES = {
    Fault.STRUCTURE: "the row does not have the columns of the input",
    Fault.ENCODING: "{column} holds " + _NO_TEXT,
    Fault.TYPE: "the value of {column} does not fit its type",
    Fault.LENGTH: "the value of {column} is too long",
    Fault.NOT_NULL: "{column} must not be null",
    Fault.CHECK: "check {constraint} is violated",
    Fault.FOREIGN_KEY: "{column} has no parent",
    Fault.UNIQUE: "{column} is a duplicate",
    Fault.EXCLUSION: "exclusion constraint {constraint} is violated",
    Fault.VIEW_CHECK: "the view does not take such a row",
    Fault.GENERATED: "{column} is computed by the database and takes no value",
    Fault.TRIGGER: "a trigger refused the row",
    Fault.OTHER: "the database refused the row",
}


#: `Enum.value` is a property, and dear where rows are many.
_KINDS = {fault: fault.value for fault in Fault}


def reason(
    fault: Fault,
    column: str | None = None,
    constraint: str | None = None,
    *,
    message: str | None = None,
    code: str | None = None,
    detail: str | None = None,
    collides_with: int | Mapping[str, Any] | None = None,
    parent: tuple[Any, ...] | None = None,
    because_of: int | None = None,
) -> Reason:
    """A reason with the sentence of its kind, where no better one is known."""
    if message is None:
        message = _SENTENCES[fault].format(column=column or "a column", constraint=constraint or "of the table")
    return Reason(_KINDS[fault], message, column, constraint, code, detail, collides_with, parent, because_of)


#: What a byte is in a cell, if the encoding of the file has no character for it (``surrogateescape``).
_BYTE = re.compile("[\udc80-\udcff]")


def by_bytes(reject: Reject) -> tuple[Reason, ...]:
    """The reasons, of which those that are about text say where it was bytes of another encoding."""
    if all(one.kind != Fault.ENCODING.value for one in reject.reasons):
        return reject.reasons
    return tuple(
        replace(one, message=one.message.replace(_NO_TEXT, "bytes that are not of the input's encoding"))
        if any(isinstance(cell, str) and _BYTE.search(cell) for cell in _cells(reject.named, one.column))
        else one
        for one in reject.reasons
    )


def _cells(row: Any, column: str | None) -> Iterable[Any]:
    """The cell for a column; all of them, where its field goes by another name."""
    if isinstance(row, Mapping):
        return [row[column]] if column in row else row.values()
    return row if isinstance(row, (list, tuple)) else [row]
