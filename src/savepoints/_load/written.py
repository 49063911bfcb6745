"""Files of rejects: JSON Lines, exact, and CSV with cells that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from savepoints import errors
from savepoints._load.exact import line_of, plain
from savepoints._load.reasons import Reject

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

# Note [Marked cells]
# A spreadsheet runs a cell that begins like a formula (CWE-1236, OWASP ASVS 5.0 1.2.10), and rejected cells are the
# least trusted there are. Such a cell gets an apostrophe in front, and so does one that begins with an apostrophe, so
# that exactly one is taken off when the file is read back; plain numbers as -5 need none. A NULL is an empty cell, and
# an empty text is an apostrophe alone. The header's first name, `reject.number`, says that cells are marked.

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
    text = value if isinstance(value, str) else str(plain(value))
    dangerous = not text or (text.startswith(_FORMULA) and not _NUMBER.fullmatch(text))
    return f"'{text}" if dangerous else text


def unmarked(cell: str) -> str | None:
    """What `marked` was given, as text."""
    if not cell:
        return None
    return cell[1:] if cell.startswith("'") else cell


def write(
    rejects: Iterable[Reject],
    file: str | os.PathLike[str],
    *,
    format: str | None = None,
    names: tuple[str, ...] | None = None,
    overwrite: bool = False,
    source: Any = None,
) -> None:
    """Write rejects into a new file that only this user can read. It is there whole or not at all.

    Args:
        rejects: What is written.
        file: Where to.
        format: ``jsonl`` or ``csv``; by the file's name where it is left out.
        names: What the cells of rows without names are called.
        overwrite: Replace a file of that name.
        source: What the rows came from: if that is a file, it is never overwritten.

    Raises:
        FileExistsError: There is one already.
        BadInput: The file is the input itself, or its name tells no format.
    """
    path = Path(file)
    way = writer(path, format)
    refuse_input(path, source)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: rejects are written into a new file")
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
            way(rejects, out, names)
        _put(name, path, overwrite)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _put(name: str, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(name, path)
        return
    os.link(name, path)  # unlike a rename it never replaces what somebody has put there meanwhile
    os.unlink(name)


def refuse_input(path: Path, source: Any) -> None:
    """The input must not be overwritten, under whatever name it is called."""
    if isinstance(source, (str, os.PathLike)) and path.exists() and os.path.samefile(path, source):
        raise errors.BadInput(f"{path} is the input itself", hint="write the rejects into another file")


def writer(path: Path, format: str | None) -> Callable[[Iterable[Reject], IO[str], tuple[str, ...] | None], None]:
    """How a file is written, by its format or its name."""
    wanted = format or {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}.get(path.suffix.lower())
    if wanted not in ("jsonl", "csv"):
        raise errors.BadInput(
            f"the name {path.name!r} does not tell how to write rejects",
            hint="name it .jsonl or .csv, or give a format",
        )
    return _write_jsonl if wanted == "jsonl" else _write_csv


def _write_jsonl(rejects: Iterable[Reject], out: IO[str], names: tuple[str, ...] | None) -> None:
    for reject in rejects:
        out.write(line_of(reject, text=getattr(rejects, "text", False)) + "\n")


def _write_csv(rejects: Iterable[Reject], out: IO[str], names: tuple[str, ...] | None) -> None:
    writer = csv.writer(out, lineterminator="\r\n")
    head: tuple[str, ...] | None = names
    for reject in rejects:
        if head is None:
            head = tuple(map(str, reject.row)) if isinstance(reject.row, Mapping) else ()
        if not out.tell():
            writer.writerow([*REASONS, *head])
        facts = (reject.number, reject.line, reject.kind, reject.column, reject.constraint, reject.code, reject.message)
        writer.writerow([*map(marked, facts), *map(marked, _cells(reject.row, head))])
    if not out.tell():
        writer.writerow([*REASONS, *(head or ())])


def _cells(row: Any, head: tuple[str, ...]) -> list[Any]:
    if isinstance(row, Mapping):
        return [row.get(name) for name in head] + [value for name, value in row.items() if name not in head]
    return list(row) if isinstance(row, (list, tuple)) else [row]
