"""Opening the files that rows come from: found by their name, unpacked by their first bytes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from savepoints import errors
from savepoints._load.exact import MARK
from savepoints._load.sources import Source

Path_ = str | os.PathLike[str]


def open_file(file: Path_, *, encoding: str | None) -> Source:
    """The rows of a file.

    Raises:
        BadInput: It is not there, cannot be read, or is not what its name says.
    """
    path = Path(file)
    _check_regular(path)
    kind = _format(path)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise errors.BadInput(f"{path} cannot be read: {error.strerror}", hint="give the path of a file") from error
    try:
        with reading(path):
            return _READERS[kind](path, raw, encoding)
    except BaseException:
        raw.close()
        raise


def _check_regular(path: Path) -> None:
    """Before it is opened, which for a pipe would wait for somebody to write."""
    if os.path.isdir(path):
        raise errors.BadInput(f"{path} is a folder", hint="give the path of a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise errors.BadInput(
            f"{path} is a pipe or a device, which cannot be read twice", hint="write the rows into a file first"
        )


#: What the unpackers, the decoders and pyarrow raise for a file that was cut, damaged or locked by a password.
_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around all that reads a file.

    Raises:
        BadInput: It cannot be read to its end.
    """
    try:
        yield
    except errors.BadInput:
        raise
    except _DAMAGED as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise errors.BadInput(
            f"{path} cannot be read: {told}", hint="it may be cut or damaged: get it again, or tell its encoding"
        ) from error


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
        binary: Any = _unpacked(path, raw, encoding)
        codec = _codec(encoding)
        if binary.peek(32).startswith((codecs.BOM_UTF8, f'{{"{MARK}"'.encode())):  # it says so itself
            codec = "utf-8-sig"
        self._text = io.TextIOWrapper(binary, codec, errors="surrogateescape", newline="")

    def lines(self, count: int) -> list[str]:
        """The next lines with their ends, so many unless the file is at its own."""
        with reading(self.path):
            return list(islice(self._text, count))

    def share(self) -> float | None:
        """By the bytes of the file, packed or not."""
        return self._raw.tell() / self._size if self._size and not self._raw.closed else None

    def close(self) -> None:
        self._text.close()
        self._raw.close()


def _codec(encoding: str | None) -> str:
    """The name of a codec for text.

    Raises:
        BadInput: There is none of that name.
    """
    name = encoding or "utf-8"
    try:
        "".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise errors.BadInput(f"there is no encoding {name!r}", hint="as utf-8, latin-1 or cp1252") from None
    return "utf-8-sig" if found == "utf-8" else found  # a mark of the byte order is no part of the first name


def _unpacked(path: Path, raw: IO[bytes], encoding: str | None) -> IO[bytes]:
    begin = raw.read(8)
    raw.seek(0)
    for magic, unpack in _UNPACK.items():
        if begin.startswith(magic):
            return unpack(path, raw)
    if begin.startswith((b"PAR1", b"ARROW1")) or (b"\0" in begin and encoding is None and not begin.startswith(_WIDE)):
        raise errors.BadInput(f"{path} is not a file of text", hint="give it the name of its format, as x.parquet")
    return raw


_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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
    from savepoints._load.text import csv_rows

    return csv_rows(Opened(path, raw, encoding))


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
