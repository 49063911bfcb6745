"""Opening the files that rows come from: found by their name, unpacked by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from savepoints import errors
from savepoints._load.sources import Source

Path_ = str | os.PathLike[str]


def open_file(file: Path_, *, encoding: str | None) -> Source:
    """The rows of a file.

    Raises:
        BadInput: It is not there, cannot be read, or is not what its name says.
    """
    path = Path(file)
    kind = _format(path)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise errors.BadInput(f"{path} cannot be read: {error.strerror}", hint="give the path of a file") from error
    try:
        return _READERS[kind](path, raw, encoding)
    except BaseException:
        raw.close()
        raise


_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "ipc"),
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED]
    kind = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise errors.BadInput(
            f"the name {path.name!r} does not tell its format",
            hint=f"name it after one of these: {', '.join(_SUFFIXES)} (and {', '.join(_PACKED)} where it is packed)",
        )
    return kind


class Opened:
    """A file of text, perhaps packed, and how far it has been read."""

    def __init__(self, path: Path, raw: IO[bytes], encoding: str | None) -> None:
        self._raw = raw
        self._size = os.fstat(raw.fileno()).st_size
        self.path = path
        # bytes that are no text stay in the cell as lone surrogates, so that only their row is refused
        self.text = io.TextIOWrapper(
            cast(Any, _unpacked(path, raw)), encoding or "utf-8-sig", errors="surrogateescape", newline=""
        )

    def share(self) -> float | None:
        """By the bytes of the file, packed or not."""
        return self._raw.tell() / self._size if self._size and not self._raw.closed else None

    def close(self) -> None:
        self.text.close()
        self._raw.close()


def _unpacked(path: Path, raw: IO[bytes]) -> IO[bytes]:
    begin = raw.read(8)
    raw.seek(0)
    for magic, unpack in _UNPACK.items():
        if begin.startswith(magic):
            return unpack(path, raw)
    if begin.startswith(b"PAR1") or (b"\0" in begin and not begin.startswith((b"\xff\xfe", b"\xfe\xff"))):
        raise errors.BadInput(f"{path} is not a file of text", hint="give it the name of its format, as x.parquet")
    return raw


def _zip(path: Path, raw: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(raw)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise errors.BadInput(f"{path} holds {len(members)} files", hint="pack one file alone, or unpack it first")
    return archive.open(members[0])


def _zstandard(path: Path, raw: IO[bytes]) -> IO[bytes]:
    from savepoints._load.arrow import pyarrow

    return io.BufferedReader(cast(Any, pyarrow().CompressedInputStream(raw, "zstd")))


_UNPACK: dict[bytes, Callable[[Path, IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda _, raw: cast(IO[bytes], gzip.GzipFile(fileobj=raw)),
    b"BZh": lambda _, raw: cast(IO[bytes], bz2.BZ2File(raw)),
    b"\xfd7zXZ\0": lambda _, raw: cast(IO[bytes], lzma.LZMAFile(raw)),  # noqa: SIM115 - closed with what is around it
    b"\x28\xb5\x2f\xfd": _zstandard,
    b"PK\x03\x04": _zip,
}


def _csv(path: Path, raw: IO[bytes], encoding: str | None) -> Source:
    from savepoints._load.text import CsvRows

    return CsvRows(Opened(path, raw, encoding))


def _jsonl(path: Path, raw: IO[bytes], encoding: str | None) -> Source:
    from savepoints._load.text import JsonRows

    return JsonRows(Opened(path, raw, encoding))


def _parquet(path: Path, raw: IO[bytes], encoding: str | None) -> Source:
    from savepoints._load.arrow import from_parquet

    return from_parquet(path, raw)


def _ipc(path: Path, raw: IO[bytes], encoding: str | None) -> Source:
    from savepoints._load.arrow import from_ipc

    return from_ipc(path, raw)


_READERS: dict[str, Callable[[Path, IO[bytes], str | None], Source]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "ipc": _ipc,
}
