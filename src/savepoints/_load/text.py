"""Files of text: CSV and JSON Lines, and the rejects of an earlier load in either form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from savepoints import errors
from savepoints._databases import Fault
from savepoints._load.documents import NotJson, parsed
from savepoints._load.exact import MARK, reject_from, restore
from savepoints._load.files import Opened
from savepoints._load.reasons import Reject, reason
from savepoints._load.records import Record, Records
from savepoints._load.sources import Broken, Taken, null_of, tried_again
from savepoints._load.written import REASONS, marks_of, unmarked, unmarked_row

_MESSAGE = REASONS.index("reject.message")
_DELIMITERS = ",;\t|"


def csv_rows(file: Opened) -> CsvRows | CsvRejects:
    """The rows of a CSV file with a header, or the rejects that one holds.

    The delimiter is the one that the header has most of: comma, semicolon, tab or bar.

    Raises:
        BadInput: It has no header.
    """
    records = Records(file)
    header = records.peek()
    if any(char == "\0" or "\udc80" <= char <= "\udcff" for char in header):
        raise errors.BadInput(f"the first line of {file.path} is not text", hint="tell its encoding")
    records.delimiter = max(_DELIMITERS, key=header.count)
    first, _ = records.take(1)
    names = first[0] if first else []
    if isinstance(names, Broken):
        raise errors.BadInput(f"the header of {file.path} is not CSV: a quote in it is not closed")
    if not any(names):
        raise errors.BadInput(f"{file.path} is empty", hint="its first line must name the columns")
    text = marks_of(names)
    return CsvRows(file, records, names) if text is None else CsvRejects(file, records, names, text=text)


class CsvRows:
    """Rows of CSV."""

    text = True
    null = null_of(text=True)
    again = False

    def __init__(self, file: Opened, records: Records, names: Sequence[str]) -> None:
        self._records = records
        self._read = 0
        self.names: tuple[str, ...] | None = tuple(names)
        self.share = file.share
        self.close = file.close

    def take(self, count: int) -> Taken:
        found, lines = _with_cells(self._records, count)
        first, self._read = self._read, self._read + len(found)
        return Taken(found, range(first, self._read), lines.__getitem__)


def _with_cells(records: Records, count: int) -> tuple[list[Record], list[int]]:
    """The next records that are not empty: an empty line is no row."""
    while True:
        found, lines = records.take(count)
        if all(found):  # or there are no more
            return found, lines
        places = [at for at, row in enumerate(found) if row]
        if places:
            return [found[at] for at in places], [lines[at] for at in places]


class CsvRejects:
    """Rejects of an earlier load, under their first numbers."""

    names: tuple[str, ...] | None = None
    text = True
    again = True

    def __init__(self, file: Opened, records: Records, header: Sequence[str], *, text: bool) -> None:
        self._records = records
        self._path = file.path
        self._names = tuple(unmarked(name) or "" for name in header[len(REASONS) :])
        self.null = null_of(text=text)
        self.share = file.share
        self.close = file.close

    def take(self, count: int) -> Taken:
        rows: list[Any] = []
        numbers: list[int] = []
        lines: list[int | None] = []
        for record, line in zip(*_with_cells(self._records, count), strict=True):
            try:
                cells = [] if isinstance(record, Broken) else record
                number, first, *_, message = cells[: _MESSAGE + 1]
                numbers.append(int(number))
                lines.append(int(first) if first else None)
            except ValueError:
                raise errors.BadInput(
                    f"line {line} of {self._path} is no reject: it does not begin with the number of a row",
                    hint="mend the line, or take it out",
                ) from None
            row, names = unmarked_row(cells[len(REASONS) :], self._names)
            why = reason(Fault.STRUCTURE, message=unmarked(message))
            rows.append(tried_again(Reject(numbers[-1], None, row, (why,), names)))
        return Taken(rows, numbers, lines.__getitem__)


class JsonRows:
    """One JSON object (or array) a line; empty lines are no rows. Or one reject of an earlier load a line."""

    names: tuple[str, ...] | None = None

    def __init__(self, file: Opened) -> None:
        self._file = file
        self._ahead = file.lines(1)
        self._line = 0
        self._read = 0
        mark = _record("".join(self._ahead)) or {}
        self.again = MARK in mark
        self.text = self.again and mark.get("text") is True
        self.null = null_of(text=self.text)
        self.share = file.share
        self.close = file.close

    def take(self, count: int) -> Taken:
        rows: list[Any] = []
        lines: list[int | None] = []
        numbers: list[int] = []
        while len(rows) < count and (some := self._lines(count - len(rows))):
            for line in some:
                self._line += 1
                if not line.isspace():
                    row, number, at = self._rejected(line) if self.again else self._parsed(line)
                    rows.append(row)
                    numbers.append(number)
                    lines.append(at)
        return Taken(rows, numbers, lines.__getitem__)

    def _lines(self, count: int) -> list[str]:
        found, self._ahead = self._ahead, []
        return found or self._file.lines(count)

    def _parsed(self, line: str) -> tuple[Any, int, int | None]:
        number, self._read = self._read, self._read + 1
        row: Any
        try:
            row = parsed(line)
        except ValueError as error:
            told = str(error) if isinstance(error, NotJson) else "a number is too long"
            row = Broken(line.rstrip("\r\n"), Fault.STRUCTURE, f"the line is not JSON: {told}")
        if number == 0:
            self._refuse_document(line, row)
        return row, number, self._line

    def _refuse_document(self, line: str, row: Any) -> None:
        """A file that is one JSON value, on one line or over several, is no file of lines."""
        array = isinstance(row, list) and all(isinstance(one, dict) for one in row)
        begun = isinstance(row, Broken) and (line.strip() == "{" or line.lstrip().startswith("["))
        if array or begun:
            raise errors.BadInput(
                f"{self._file.path} is one JSON document, and not JSON Lines",
                hint="write each row as one object on a line of its own, as `jq -c '.[]'` does",
            )

    def _rejected(self, line: str) -> tuple[Any, int, int | None]:
        """A row under its first number and line."""
        number, self._read = self._read, self._read + 1
        record = _record(line)
        if record is None:
            return Broken(line.rstrip("\r\n"), Fault.STRUCTURE, "the line is no reject"), number, self._line
        reject = reject_from(record)
        return tried_again(reject), reject.number, reject.line


def _record(line: str) -> dict[str, Any] | None:
    """The record of a reject, if the line is one."""
    try:
        found = restore(line)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return None
    there = isinstance(found, dict) and found.keys() >= {MARK, "number", "line", "row", "reasons"}
    return found if there else None
