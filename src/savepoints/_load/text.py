"""Files of text: CSV and JSON Lines, and the rejects of an earlier load in either form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from savepoints import errors
from savepoints._databases import Fault
from savepoints._load.exact import MARK, reject_of
from savepoints._load.files import Opened
from savepoints._load.records import Record, Records
from savepoints._load.sources import Broken, Taken
from savepoints._load.written import REASONS, unmarked

_DELIMITERS = ",;\t|"


class CsvRows:
    """A CSV file with a header. The delimiter is the one that its header has most of: comma, semicolon, tab or bar."""

    text = True

    def __init__(self, file: Opened) -> None:
        self._file = file
        self._records = Records(file)
        header = self._records.peek()
        if any(char == "\0" or "\udc80" <= char <= "\udcff" for char in header):
            raise errors.BadInput(f"the first line of {file.path} is not text", hint="tell its encoding")
        self._records.delimiter = max(_DELIMITERS, key=header.count)
        first, _ = self._records.take(1)
        names = first[0] if first else []
        if isinstance(names, Broken):
            raise errors.BadInput(f"the header of {file.path} is not CSV: a quote in it is not closed")
        if not any(names):
            raise errors.BadInput(f"{file.path} is empty", hint="its first line must name the columns")
        self._replay = tuple(names[: len(REASONS)]) == REASONS
        self.names: tuple[str, ...] | None = tuple(names[len(REASONS) :] if self._replay else names)
        self._read = 0

    def take(self, count: int) -> Taken:
        found, lines = self._records.take(count)
        if not all(found):  # an empty line is no row
            places = [at for at, row in enumerate(found) if row]
            if not places:
                return self.take(count)
            found, lines = [found[at] for at in places], [lines[at] for at in places]
        if self._replay:
            return _again(self._file.path, found, lines)
        first, self._read = self._read, self._read + len(found)
        return Taken(found, range(first, self._read), lines.__getitem__)

    def share(self) -> float | None:
        return self._file.share()

    def close(self) -> None:
        self._file.close()


def _again(path: Path, records: Sequence[Record], lines: Sequence[int]) -> Taken:
    """Rows of a CSV file of rejects, without marks, under their first numbers."""
    width = len(REASONS)
    rows: list[Any] = []
    numbers: list[int] = []
    first: list[int | None] = []
    for record, line in zip(records, lines, strict=True):
        try:
            cells = [] if isinstance(record, Broken) else record
            number, at, *_ = cells
            numbers.append(int(number))
            first.append(int(at) if at else None)
        except ValueError:
            raise errors.BadInput(
                f"line {line} of {path} is no reject: it does not begin with the number of a row",
                hint="mend the line, or take it out",
            ) from None
        rows.append([unmarked(cell) for cell in cells[width:]])
    return Taken(rows, numbers, first.__getitem__)


class JsonRows:
    """One JSON object (or array) a line; empty lines are no rows."""

    names: tuple[str, ...] | None = None

    def __init__(self, file: Opened) -> None:
        self._file = file
        self._ahead: str | None = next(iter(file.lines(1)), "")
        self.text = self._ahead.startswith(f'{{"{MARK}": 1, "text": true')
        self._line = 0
        self._read = 0

    def take(self, count: int) -> Taken:
        rows: list[Any] = []
        lines: list[int | None] = []
        numbers: list[int] = []
        while len(rows) < count and (line := self._next_line()):
            self._line += 1
            if line.isspace():
                continue
            row, number, at = self._parsed(line)
            rows.append(row)
            numbers.append(number)
            lines.append(at)
        return Taken(rows, numbers, lines.__getitem__)

    def _next_line(self) -> str:
        line, self._ahead = self._ahead, None
        return next(iter(self._file.lines(1)), "") if line is None else line

    def _parsed(self, line: str) -> tuple[Any, int, int | None]:
        number, self._read = self._read, self._read + 1
        try:
            if line.startswith(f'{{"{MARK}"'):
                reject = reject_of(line)
                return reject.row, reject.number, reject.line
            row = json.loads(line)
        except (ValueError, KeyError, TypeError) as error:
            if self._read == 1 and line.lstrip().startswith("["):
                raise errors.BadInput(
                    f"{self._file.path} is not JSON Lines: an array over several lines", hint="write one object a line"
                ) from None
            what = error.msg if isinstance(error, json.JSONDecodeError) else "not a row"
            row = Broken(line.rstrip("\r\n"), Fault.STRUCTURE, f"the line is not JSON: {what}")
        return row, number, self._line

    def share(self) -> float | None:
        return self._file.share()

    def close(self) -> None:
        self._file.close()
