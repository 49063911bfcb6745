"""moves to _databases (temporary)."""
from __future__ import annotations
from pathlib import Path
from sqlalchemy import URL

def embedded_url(file: Path, *, asynchronous: bool) -> URL:
    return URL.create("sqlite+aiosqlite" if asynchronous else "sqlite+pysqlite", database=str(file))

def embedded_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:") or "uri" in url.query:
        return None
    return Path(str(url.database))
