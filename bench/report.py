"""Tables: on the screen (by rich, where it is installed) and as Markdown."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A heading, what to know, and rows of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Goal(NamedTuple):
    """What was to be reached, and what was measured."""

    what: str
    measured: str
    reached: bool


def goals_table(goals: Sequence[Goal]) -> Table:
    rows = [[goal.what, goal.measured, "reached" if goal.reached else "**missed**"] for goal in goals]
    return Table("Goals", ["goal", "measured", "result"], rows)


def show(table: Table) -> None:
    """Print a table."""
    if importlib.util.find_spec("rich") is None:
        print(markdown(table))
        return
    from rich import box
    from rich import print as rich_print
    from rich.table import Table as RichTable

    grid = RichTable(*table.header, title=table.title, caption=table.note, box=box.SIMPLE)
    for row in table.rows:
        grid.add_row(*(cell.replace("**", "") for cell in row))
    rich_print(grid)


def markdown(table: Table) -> str:
    lines = [f"## {table.title}", ""]
    if table.note:
        lines += [table.note, ""]
    lines += [_line(table.header), _line(["---", *["--:"] * (len(table.header) - 1)])]
    return "\n".join([*lines, *(_line(row) for row in table.rows), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """A count or a ratio, as short as it is exact enough; nothing where there is none."""
    if value is None:
        return ""
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
