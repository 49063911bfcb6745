"""The rejected rows of a load, in the order of the input: in memory while they are few, then in a file of our own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from os import PathLike
from typing import IO, overload

from savepoints._load.exact import line_of, reject_of
from savepoints._load.reasons import Reject

#: So many are kept as objects; further ones go to a temporary file that only this user can read.
IN_MEMORY = 20_000


class Rejects:
    """Rejected rows: iterate over them as often as you like, or take one by its place.

    `load(target, table, report.rejects)` tries them again, under their first numbers.
    """

    def __init__(self, *, text: bool = False) -> None:
        #: Their cells are text as a file without types has them: the same is to be made of them again.
        self.text = text
        self._kept: list[Reject] = []
        self._spool: IO[str] | None = None
        self._spooled = 0
        self._moved = False  # somebody has read since the last was written

    def add(self, reject: Reject) -> None:
        """Keep one more."""
        if len(self._kept) < IN_MEMORY:
            self._kept.append(reject)
            return
        if self._spool is None:
            # closed, and so deleted, with this object
            self._spool = tempfile.TemporaryFile("w+", encoding="ascii", prefix="savepoints-")  # noqa: SIM115
        if self._moved:
            self._spool.seek(0, 2)
            self._moved = False
        self._spool.write(line_of(reject) + "\n")
        self._spooled += 1

    def __len__(self) -> int:
        return len(self._kept) + self._spooled

    def __iter__(self) -> Iterator[Reject]:
        yield from self._kept
        if self._spool is None:
            return
        place = 0
        self._moved = True
        while True:  # somebody else may iterate, too: the place is ours
            self._spool.seek(place)
            self._moved = True
            line = self._spool.readline()
            if not line:
                return
            place = self._spool.tell()
            yield reject_of(line)

    @overload
    def __getitem__(self, index: int) -> Reject: ...
    @overload
    def __getitem__(self, index: slice) -> list[Reject]: ...
    def __getitem__(self, index: int | slice) -> Reject | list[Reject]:
        if isinstance(index, slice):
            return list(self)[index]
        place = index + len(self) if index < 0 else index
        if 0 <= place < len(self._kept):
            return self._kept[place]
        for at, reject in enumerate(self):
            if at == place:
                return reject
        raise IndexError(f"there are {len(self)} of them")

    def write(self, file: str | PathLike[str], *, format: str | None = None, overwrite: bool = False) -> None:
        """Write them into a file that only this user can read.

        Args:
            file: Where to; it must not exist.
            format: ``jsonl`` (exact, all reasons) or ``csv`` (for spreadsheets); by the file's name if left out.
            overwrite: Replace a file of that name.

        Raises:
            FileExistsError: There is one, and ``overwrite`` is not given.
        """
        from savepoints._load.written import write

        write(self, file, format=format, overwrite=overwrite)

    def __repr__(self) -> str:
        return f"<{len(self)} rejects>"

    def __del__(self) -> None:
        if self._spool is not None:
            self._spool.close()
