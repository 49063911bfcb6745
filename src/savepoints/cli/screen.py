"""How a load is shown: a bar while it runs, the report at its end. The bar is for terminals, and goes to stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from savepoints import Report
from savepoints._load import render
from savepoints._load.report import Progress as HowFar


class Screen:
    """Where a load is shown.

    Args:
        title: What is loaded into what.
        values: Whether values of rows may be shown.
    """

    def __init__(self, title: str, *, values: bool) -> None:
        self._values = values
        self._out = Console(highlight=False)
        beside = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[share]:>4}", markup=False),
            TextColumn("{task.fields[told]}", markup=False),
            TextColumn("{task.fields[rejected]}", style="red", markup=False),
            console=beside,
            transient=True,
            disable=not beside.is_terminal,
        )
        self._task: TaskID = self._bar.add_task(title, total=None, share="", told="", rejected="")

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def progress(self, now: HowFar) -> None:
        """How far it has come."""
        known = now.share is not None
        self._bar.update(
            self._task,
            total=1 if known else None,
            completed=now.share or 0,
            share=f"{now.share:.0%}" if now.share is not None else "",
            told=f"{now.read:,} rows, {now.rows_per_second:,.0f}/s",
            rejected=f"{now.rejected:,} rejected" if now.rejected else "",
        )

    def report(self, report: Report) -> None:
        """What was kept and what was not: a table on a terminal, plain lines anywhere else."""
        self._bar.stop()
        if self._out.is_terminal:
            self._out.print(render.table(report, show_values=self._values))
        else:
            print(render.text(report, show_values=self._values))

    def rules(self, report: Report) -> None:
        """The rules of the table, and who looks at each."""
        if self._out.is_terminal:
            self._out.print(_rules(report))
        else:
            for rule, who in report.checks.items():
                print(f"  rule {rule}: {who}")


def warn(text: str) -> None:
    """A sentence about what went wrong."""
    print(f"savepoints load: {text}", file=sys.stderr)


def _rules(report: Report) -> Any:
    grid = Table(box=box.SIMPLE, title_justify="left")
    grid.add_column("rule")
    grid.add_column("is")
    for rule, who in report.checks.items():
        grid.add_row(Text(rule), Text(who))
    return grid
