"""Records of CSV and the lines where they begin. A bad quote costs one line, not the rest of the file."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Sequence
from itertools import islice
from threading import Lock

from savepoints._databases import Fault
from savepoints._load.files import Opened
from savepoints._load.sources import Broken

# Note [How far a bad quote reaches]
# A quoted field may go over several lines, so a quote that is never closed takes in all that follows, up to the next
# quote or to the end. `csv` knows of it only there, and by default says nothing at all. So it reads strictly; of a
# record that it does not take, the line where the record began is refused, and reading begins anew at the next line, as
# if each line had been read by itself. What the quote had taken in is read again. A field over several lines may have
# so many characters as `REACH` says, else one quote in a large file would take all memory; one line may be of any
# length. Two odd quotes that happen to make a field of their own cannot be told from one that was meant.

#: So many characters may an unfinished record have, over several lines.
REACH = 1 << 24

_NO_LIMIT = 2**31 - 1
_limit = Lock()  # `csv.field_size_limit` is of the whole process

_BAD_QUOTE = "the line is not CSV: a quoted field is not closed, or goes on behind its quote"

Record = list[str] | Broken


class Records:
    """The records of a file, those that cannot be read among them.

    Args:
        file: Where the lines come from.
    """

    delimiter = ","

    def __init__(self, file: Opened) -> None:
        self._file = file
        self._ahead: deque[str] = deque()  # read, and not yet part of a record
        self._line = 0  # lines before them

    def peek(self) -> str:
        """The first line that is not empty; nothing at the end."""
        while line := next(iter(self._lines(1)), ""):
            if not line.isspace():
                self._ahead.appendleft(line)
                break
            self._line += 1
        return line

    def take(self, count: int) -> tuple[list[Record], list[int]]:
        """The next records, at most so many, and the line where each of them begins; none at the end."""
        wanted = count
        while True:
            lines = self._lines(wanted)
            at_end = len(lines) < wanted
            found, places, used = self._parsed(lines, count, at_end)
            first, self._line = self._line + 1, self._line + used
            self._ahead.extendleft(reversed(lines[used:]))
            if found or at_end:
                return found, [first + place for place in places]
            wanted *= 2  # the first record is longer than that

    def _lines(self, count: int) -> list[str]:
        lines = [self._ahead.popleft() for _ in range(min(count, len(self._ahead)))]
        return lines + self._file.lines(count - len(lines)) if len(lines) < count else lines

    def _parsed(self, lines: list[str], count: int, at_end: bool) -> tuple[list[Record], list[int], int]:
        """Records, the index of the line where each begins, and how many lines they have used up."""
        found: list[Record] = []
        places: list[int] = []
        at = 0
        while at < len(lines) and len(found) < count:
            rows, seen, failed = self._read(lines, at, count - len(found))
            found += rows
            *begins, at = _begins(rows, at, seen)
            places += begins
            if failed:
                if seen == len(lines) and not at_end and sum(map(len, lines[at:])) <= REACH:
                    break  # the lines that follow may finish it
                found.append(Broken(lines[at].rstrip("\r\n"), Fault.STRUCTURE, _BAD_QUOTE))
                places.append(at)
                at += 1
        return found, places, at

    def _read(self, lines: list[str], at: int, count: int) -> tuple[list[list[str]], int, bool]:
        """Records up to the first that is malformed, how many lines were looked at, and whether there is such one."""
        reader = csv.reader(islice(lines, at, None), delimiter=self.delimiter, strict=True)
        rows: list[list[str]] = []
        with _limit:
            before = csv.field_size_limit(_NO_LIMIT)
            try:
                rows.extend(islice(reader, count))  # an error leaves those before it
            except csv.Error:
                return rows, at + reader.line_num, True
            finally:
                csv.field_size_limit(before)
        return rows, at + reader.line_num, False


def _begins(rows: list[list[str]], at: int, seen: int) -> Sequence[int]:
    """The line where each record begins, and the one behind the last: a quoted field may go over several lines."""
    if seen - at == len(rows):
        return range(at, seen + 1)
    begins = [at]
    for row in rows:
        more = sum(cell.count("\n") + cell.count("\r") - cell.count("\r\n") for cell in row)
        begins.append(begins[-1] + 1 + more)
    return begins
