"""Files of rejects: JSON Lines, exact, and CSV with cells that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from savepoints import errors
from savepoints._load.exact import line_of, text_of
from savepoints._load.reasons import Reject

if TYPE_CHECKING:
    from savepoints._load.rejects import Rejects

#: The first columns of a CSV file of rejects; those of the row follow. Cells are marked: see Note [Marked cells].
REASONS = (
    "reject.number",
    "reject.line",
    "reject.kind",
    "reject.column",
    "reject.constraint",
    "reject.code",
    "reject.message",
)
_VALUES = "reject.number (of values)"  # instead, where the rows were no text

# Note [Marked cells]
# A spreadsheet runs a cell that begins like a formula (CWE-1236, OWASP ASVS 5.0 1.2.10), and rejected cells are the
# least trusted there are, the names of their fields too. Such a cell gets an apostrophe in front, and so does one that
# begins with an apostrophe, so that exactly one is taken off when the file is read back; plain numbers as -5 need none.
# A NULL is an empty cell, an empty text an apostrophe alone, and a field that the row does not have is `_LEFT_OUT`,
# which no value is marked as. What was not read into cells stands behind all columns. The header's first name says that
# cells are marked, and whether the rows were text: there an empty text stands for NULL. Values are written as text,
# which the types of the columns read again; JSON Lines keep what they were.

_LEFT_OUT = "'(left out)"
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\0",
    "'",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)  # the last are full width
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def marked(value: Any) -> str:
    """A cell that opens as text: see Note [Marked cells]."""
    if value is None:
        return ""
    text = _written(value if isinstance(value, str) and not isinstance(value, Enum) else text_of(value))
    dangerous = not text or (text.startswith(_FORMULA) and not _NUMBER.fullmatch(text))
    return f"'{text}" if dangerous else text


def _written(text: str) -> str:
    """Text that can be written: half a character, which is no byte of the input, as the bytes that stand for it."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    return text


def unmarked(cell: str) -> str | None:
    """What `marked` was given, as text."""
    if not cell:
        return None
    return cell[1:] if cell.startswith("'") else cell


def marks_of(header: Sequence[str]) -> bool | None:
    """Whether rejects of a CSV file were text; None where its header is not that of rejects."""
    if tuple(header[1 : len(REASONS)]) != REASONS[1:]:
        return None
    return {REASONS[0]: True, _VALUES: False}.get(header[0])


def unmarked_row(cells: list[str], names: tuple[str, ...]) -> tuple[Any, tuple[str, ...] | None]:
    """The row of a reject, and the names that its cells should have, where it has none of its own."""
    there = cells[: len(names)]
    if len(cells) == len(names):
        return {name: unmarked(cell) for name, cell in zip(names, there, strict=True) if cell != _LEFT_OUT}, None
    if set(there) <= {_LEFT_OUT}:
        rest = [unmarked(cell) for cell in cells[len(names) :]]
        return (rest[0], None) if len(rest) == 1 else (rest, ())
    return [unmarked(cell) for cell in cells], names


def write(
    rejects: Rejects,
    file: str | os.PathLike[str],
    *,
    format: str | None = None,
    overwrite: bool = False,
    source: Any = None,
) -> None:
    """Write rejects into a new file that only this user can read. It is there whole or not at all.

    Args:
        rejects: What is written.
        file: Where to.
        format: ``jsonl`` or ``csv``; by the file's name where it is left out.
        overwrite: Replace a file of that name.
        source: What the rows came from: if that is a file, it is never overwritten.

    Raises:
        FileExistsError: There is one already.
        BadInput: The file is the input itself, or its name tells no format.
    """
    path = Path(file)
    way = _writer(path, format)
    check_file(file, format=format, overwrite=overwrite, source=source)
    number, name = tempfile.mkstemp(prefix=".savepoints-", dir=path.parent)  # mode 0600
    try:
        # with the mark of UTF-8, which some spreadsheets want, and which says so whatever `encoding=` is given later
        encoding = "utf-8-sig" if way is _write_csv else "ascii"
        with os.fdopen(number, "w", encoding=encoding, errors="surrogateescape", newline="") as out:
            way(rejects, out)
        _put(name, path, overwrite)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_file(
    file: str | os.PathLike[str], *, format: str | None = None, overwrite: bool = False, source: Any = None
) -> None:
    """Whether rejects can be written into a file.

    Raises:
        FileExistsError: There is one already.
        BadInput: The file is the input itself, its name tells no format, or nothing can be written in its folder.
    """
    path = Path(file)
    _writer(path, format)
    if isinstance(source, (str, os.PathLike)) and path.exists() and os.path.samefile(path, source):
        raise errors.BadInput(f"{path} is the input itself", hint="write the rejects into another file")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists already: rejects are written into a new file")
    if not path.absolute().parent.is_dir():
        raise errors.BadInput(f"there is no folder {path.parent} for the rejects", hint="make it first")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise errors.BadInput(
            f"rejects cannot be written into {path.parent}: {error.strerror}", hint="give another folder"
        ) from error


def _put(name: str, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(name, path)
        return
    try:
        os.link(name, path)  # unlike a rename it never replaces what somebody has put there meanwhile
    except FileExistsError:
        raise
    except OSError:  # no links on this file system: take the name first, then replace what is ours
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.replace(name, path)
    else:
        os.unlink(name)


def _writer(path: Path, format: str | None) -> Callable[[Rejects, IO[str]], None]:
    """How a file is written, by its format or its name."""
    wanted = format or {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}.get(path.suffix.lower())
    if wanted not in ("jsonl", "csv"):
        raise errors.BadInput(
            f"the name {path.name!r} does not tell how to write rejects",
            hint="name it .jsonl or .csv, or give a format",
        )
    return _write_jsonl if wanted == "jsonl" else _write_csv


def _write_jsonl(rejects: Rejects, out: IO[str]) -> None:
    for reject in rejects:
        out.write(line_of(reject, text=rejects.text) + "\n")


def _write_csv(rejects: Rejects, out: IO[str]) -> None:
    writer = csv.writer(out, lineterminator="\r\n")
    head = tuple(dict.fromkeys(name for reject in rejects for name in _names(reject)))
    writer.writerow([REASONS[0] if rejects.text else _VALUES, *REASONS[1:], *map(marked, head)])
    for reject in rejects:
        facts = (reject.number, reject.line, reject.kind, reject.column, reject.constraint, reject.code, reject.message)
        writer.writerow([*map(marked, facts), *_cells(reject, head)])


def _names(reject: Reject) -> Iterable[str]:
    row = reject.named
    return [str(name) for name in row if name is not None] if isinstance(row, Mapping) else reject.names or ()


def _cells(reject: Reject, head: tuple[str, ...]) -> list[str]:
    row = reject.named
    if isinstance(row, Mapping):
        found = {str(name): marked(value) for name, value in row.items()}
        surplus = row.get(None, [])  # as `csv.DictReader` has cells beyond the header
        behind = surplus if isinstance(surplus, list) else [surplus]
        return [found.get(name, _LEFT_OUT) for name in head] + list(map(marked, behind))
    cells = list(map(marked, row if isinstance(row, (list, tuple)) else [row]))
    in_place = reject.names == head and len(cells) != len(head)
    return cells if in_place else [_LEFT_OUT] * len(head) + cells
