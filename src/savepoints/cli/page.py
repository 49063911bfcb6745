"""How the tour is shown: in two columns on a terminal, as plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from savepoints.cli.sent import Statement

Rows = Sequence[Sequence[Any]]

#: Wider lines would only be emptier.
_WIDEST = 108


class Page(Protocol):
    """What the tour is told on."""

    def title(self, text: str) -> None: ...

    def step(self, words: str, code: str, sent: list[Statement], rows: Rows) -> None: ...

    def end(self, text: str) -> None: ...


def page() -> Page:
    """The page for this standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        return Plain()
    return Columns(Console(highlight=False, width=min(console.width, _WIDEST)))


class Plain:
    """One line for each thing, never wrapped."""

    def __init__(self) -> None:
        self._number = 0

    def title(self, text: str) -> None:
        print(text)

    def step(self, words: str, code: str, sent: list[Statement], rows: Rows) -> None:
        self._number += 1
        print(f"\n{self._number:2}. {words}")
        print(f"    {code}")
        if not sent:
            print("      (nothing is sent yet)")
        for statement in sent:
            parameters = "" if statement.parameters is None else f"  {statement.parameters}"
            print(f"      > {statement.sql}{parameters}")
        for row in rows:
            print(f"      = {' | '.join(map(str, row))}")

    def end(self, text: str) -> None:
        print(f"\n{text}")


class Columns:
    """Words and Python on the left, the SQL beside them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0

    def title(self, text: str) -> None:
        self._console.print("", Text(text, style="bold underline"), "", sep="\n")

    def step(self, words: str, code: str, sent: list[Statement], rows: Rows) -> None:
        self._number += 1
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(width=2, justify="right")
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        told = Text.assemble((words, "bold"), "\n", code)
        grid.add_row(str(self._number), told, Text("\n").join(_beside(sent, rows)))
        self._console.print(grid, "")

    def end(self, text: str) -> None:
        self._console.print(Text(text), "")


def _beside(sent: list[Statement], rows: Rows) -> list[Text]:
    lines = [] if sent else [Text("(nothing is sent yet)", style="dim")]
    for statement in sent:
        lines.append(Text(statement.sql, style="cyan"))
        if statement.parameters is not None:
            lines.append(Text(str(statement.parameters), style="dim"))
    return lines + [Text(" | ".join(map(str, row)), style="bold green") for row in rows]
