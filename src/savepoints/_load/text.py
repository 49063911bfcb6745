"""Files of text: CSV and JSON Lines, and the rejects of an earlier load in either form."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import chain, islice
from typing import Any

from savepoints import errors
from savepoints._databases import Fault
from savepoints._load.exact import MARK, reject_of
from savepoints._load.files import Opened
from savepoints._load.sources import Broken, Taken
from savepoints._load.written import REASONS, unmarked

_DELIMITERS = ",;\t|"
_NO_LIMIT = 2**31 - 1


class CsvRows:
    """A CSV file with a header. The delimiter is the one that its header has most of: comma, semicolon, tab or bar."""

    text = True

    def __init__(self, file: Opened) -> None:
        self._file = file
        header = file.text.readline()
        if any(char == "\0" or "\udc80" <= char <= "\udcff" for char in header):
            raise errors.BadInput(f"the first line of {file.path} is not text", hint="tell its encoding")
        delimiter = max(_DELIMITERS, key=header.count)
        self._reader = csv.reader(chain((header,) if header else (), file.text), delimiter=delimiter)
        names = next(self._reader, [])
        if not any(names):
            raise errors.BadInput(f"{file.path} is empty", hint="its first line must name the columns")
        self._replay = tuple(names[: len(REASONS)]) == REASONS
        self.names: tuple[str, ...] | None = tuple(names[len(REASONS) :] if self._replay else names)
        self._read = 0

    def take(self, count: int) -> Taken:
        before = self._reader.line_num
        limit = csv.field_size_limit(_NO_LIMIT)  # of the whole process, and meant for other people's files
        try:
            found = list(islice(self._reader, count))
        finally:
            csv.field_size_limit(limit)
        line = _lines(found, before, self._reader.line_num)
        if not all(found):  # an empty line is no row
            places = [at for at, row in enumerate(found) if row]
            if not places:
                return self.take(count)
            found, all_lines = [found[at] for at in places], line
            line = lambda index: all_lines(places[index])  # noqa: E731
        if self._replay:
            return _again(found)
        first, self._read = self._read, self._read + len(found)
        return Taken(found, range(first, self._read), line)

    def share(self) -> float | None:
        return self._file.share()

    def close(self) -> None:
        self._file.close()


def _lines(rows: list[list[str]], before: int, after: int) -> Callable[[int], int]:
    """Where each record begins: a quoted cell may go over several lines."""
    if after - before == len(rows):
        return lambda index: before + 1 + index
    begins = [before + 1]
    for row in rows:
        more = sum(cell.count("\n") + cell.count("\r") - cell.count("\r\n") for cell in row)
        begins.append(begins[-1] + 1 + more)
    return begins.__getitem__


def _again(records: list[list[str]]) -> Taken:
    """Rows of a CSV file of rejects, without marks, under their first numbers."""
    width = len(REASONS)
    rows = [[unmarked(cell) for cell in record[width:]] for record in records]
    lines = [int(record[1]) if record[1] else None for record in records]
    return Taken(rows, [int(record[0]) for record in records], lines.__getitem__)


class JsonRows:
    """One JSON object (or array) a line; empty lines are no rows."""

    names: tuple[str, ...] | None = None

    def __init__(self, file: Opened) -> None:
        self._file = file
        self._ahead: str | None = file.text.readline()
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
        return self._file.text.readline() if line is None else line

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
