"""Runs the Python blocks of a page in order, in an empty folder, and notes what each one sends and prints."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, event

ROOT = Path(__file__).parents[1]

# A Python block, and the output block that may stand directly below it.
FENCES = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n+```text\n(?P<output>.*?)^```$)?", re.MULTILINE | re.DOTALL)
SQL_COMMENT = re.compile(
    r"#\s+((?:BEGIN|SAVEPOINT|ROLLBACK|RELEASE|COMMIT|INSERT|UPDATE|DELETE|SELECT|CREATE|DROP|PRAGMA)\b.*)$",
    re.MULTILINE,
)
ON_CONNECT = "PRAGMA read_uncommitted"  # SQLAlchemy's question on an engine's first connection
EXAMPLE = "orders.py"  # what the file of an example is called in messages
PLACE = re.compile(r"\S+\.(?:py|md):\d+")


@dataclass
class Block:
    """One Python block of a page.

    Attributes:
        shown: The SQL that its comments show, in order; empty where they show none.
        sent: What the database was really sent, by its own account, values included.
        output: What the page says that it prints, None where it does not say.
        printed: What it printed.
    """

    line: int
    code: str
    shown: list[str]
    output: str | None
    sent: list[str] = field(default_factory=list)
    printed: str = ""


def blocks(page: Path) -> Iterator[Block]:
    source = page.read_text(encoding="utf-8")
    for found in FENCES.finditer(source):
        shown = [part for comment in SQL_COMMENT.findall(found["code"]) for part in comment.split("; ")]
        yield Block(source.count("\n", 0, found.start()) + 1, found["code"], shown, found["output"])


def run(page: Path) -> list[Block]:
    """All blocks of the page, run one after the other in one namespace, in a folder of their own."""
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        return _run(list(blocks(page)))


def _run(done: list[Block]) -> list[Block]:
    sent: list[str] = []
    namespace: dict[str, Any] = {"__name__": "example"}

    def trace(connection: Any, record: Any) -> None:
        if hasattr(connection, "run_async"):
            connection.run_async(lambda driver: driver.set_trace_callback(sent.append))
        else:
            connection.set_trace_callback(sent.append)

    event.listen(Engine, "connect", trace)
    try:
        for block in done:
            code = compile("\n" * block.line + block.code, EXAMPLE, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, namespace)
            block.sent = [" ".join(statement.split()) for statement in sent if statement != ON_CONNECT]
            block.printed = printed.getvalue()
            sent.clear()
    finally:
        event.remove(Engine, "connect", trace)
        for value in namespace.values():
            if isinstance(value, Engine):
                value.dispose()
    return done


def without_places(text: str) -> str:
    """Lines of the reader's own files differ."""
    return PLACE.sub(f"{EXAMPLE}:0", text)


def agrees(shown: str, sent: str) -> bool:
    """Whether a comment tells a statement, as far as an ellipsis."""
    start, ellipsis, _ = shown.partition("…")
    return sent.startswith(start.rstrip()) if ellipsis else sent == shown
