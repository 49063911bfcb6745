"""A program that is killed while it writes: run by `test_crashes.py`, as a process of its own.

For each line on its input, the URL of a database and a first key, it forks a child that writes until it is killed. Told
on its output: `pid N`, then each key whose transaction has been stored, and `dead` when the child is gone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from savepoints import on_commit, savepoint, transaction

INSERT = text("INSERT INTO item (id, name) VALUES (:id, :name)")


class Undone(Exception):
    """What leaves a part that is to be undone."""


def tell(line: object) -> None:
    os.write(1, f"{line}\n".encode())


def write(url: str, key: int) -> None:
    """Two rows for each key, and between them one that is undone; the hook acknowledges."""
    engine = create_engine(url)
    while True:
        with transaction(engine) as connection:
            connection.execute(INSERT, {"id": 2 * key, "name": "kept"})
            with suppress(Undone), savepoint(connection):
                connection.execute(INSERT, {"id": -key, "name": "undone"})
                raise Undone
            connection.execute(INSERT, {"id": 2 * key + 1, "name": "kept"})
            on_commit(connection, tell, key)
        key += 1


async def write_async(url: str, key: int) -> None:
    """The same on the async face."""
    engine = create_async_engine(url)
    while True:
        async with transaction(engine) as connection:
            await connection.execute(INSERT, {"id": 2 * key, "name": "kept"})
            with suppress(Undone):
                async with savepoint(connection):
                    await connection.execute(INSERT, {"id": -key, "name": "undone"})
                    raise Undone
            await connection.execute(INSERT, {"id": 2 * key + 1, "name": "kept"})
            on_commit(connection, tell, key)
        key += 1


def main() -> None:
    for line in sys.stdin:
        url, _, key = line.partition(" ")
        pid = os.fork()
        if pid == 0:
            tell(f"pid {os.getpid()}")
            if "+aiosqlite" in url:
                asyncio.run(write_async(url, int(key)))
            write(url, int(key))
        os.waitpid(pid, 0)
        tell("dead")


if __name__ == "__main__":
    main()
