"""A report in words and tables. Values of rows are hidden unless they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from savepoints._load.exact import text_of
from savepoints._load.reasons import Reject
from savepoints._model.levels import printable

if TYPE_CHECKING:
    from savepoints._load.report import Report

#: So many rejected rows are shown.
SHOWN = 10


def headline(report: Report) -> str:
    """The counts in one line."""
    parts = [f"{report.loaded:,} loaded"]
    parts += [
        f"{count:,} {word}" for count, word in ((report.updated, "updated"), (report.skipped, "skipped")) if count
    ]
    parts.append(f"{report.rejected:,} rejected")
    end = " (undone)" if report.undone else ""
    rows = "row" if report.read == 1 else "rows"
    return f"{printable(report.table)}: {report.read:,} {rows} read, {', '.join(parts)}{end}"


def counts(report: Report) -> Iterator[tuple[str, str]]:
    """How many rows were rejected for what."""
    for kind, count in report.by_kind.most_common():
        yield kind, f"{count:,}"
    for constraint, count in report.by_constraint.most_common():
        yield f"constraint {printable(constraint)}", f"{count:,}"


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """What is told below the counts, a heading and a line each."""
    parents = report.missing_parents
    if parents:
        yield "missing parents", f"{len(parents):,} explain {sum(one.rows for one in parents):,} rows"
    if report.seconds:
        yield "time", f"{report.seconds:.1f} s, {report.rows_per_second:,.0f} rows a second"
    for at, sentence in enumerate(report.why):
        yield (f"by {report.algorithm}" if at == 0 else ""), printable(sentence)
    for sentence in report.unchecked:
        yield "not checked", printable(sentence)


def shown(reject: Reject, *, show_values: bool) -> tuple[str, str, str, str]:
    """Number, line, reasons, and the row where it may be shown."""
    line = "" if reject.line is None else str(reject.line)
    said = "; ".join(_said(one, show_values) for one in reject.reasons)
    row = printable(str(_shown(reject.row))) if show_values else ""
    return str(reject.number), line, printable(said), row


def _shown(row: Any) -> Any:
    """A row whose values are as a file has them."""
    if isinstance(row, Mapping):
        return {name: _shown_cell(value) for name, value in row.items()}
    return [*map(_shown_cell, row)] if isinstance(row, (list, tuple)) else _shown_cell(row)


def _shown_cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else text_of(value)


def _said(one: Any, show_values: bool) -> str:
    text: str = one.message
    if one.collides_with is not None:
        first = one.collides_with
        text += f" of row {first}" if isinstance(first, int) else " of a row in the table"
        if show_values and not isinstance(first, int):
            text += f" {_shown(first)}"
    if one.because_of is not None:
        text += f" because row {one.because_of} was rejected"
    if show_values and one.detail:
        text += f" ({one.detail})"
    return text


def text(report: Report, *, show_values: bool = False) -> str:
    """The report as plain text."""
    lines = [headline(report)]
    told = (*counts(report), *facts(report))
    lines += [f"  {name}: {value}" if name else f"    {value}" for name, value in told]
    for reject in islice(report.rejects, SHOWN):
        number, line, said, row = shown(reject, show_values=show_values)
        at = f" (line {line})" if line else ""
        lines.append(f"  row {number}{at}: {said}" + (f" {row}" if row else ""))
    if report.rejected > SHOWN:
        lines.append(f"  and {report.rejected - SHOWN:,} more in .rejects")
    return "\n".join(lines)


def table(report: Report, *, show_values: bool = False) -> Any:
    """The report as a renderable of rich."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text(headline(report), style="bold")]
    for found, side in ((counts(report), "right"), (facts(report), "left")):
        grid = Table(box=None, show_header=False, padding=(0, 2, 0, 1))
        grid.add_column(style="bold")
        grid.add_column(justify=side)  # type: ignore[arg-type]
        for name, value in found:
            grid.add_row(Text(name), Text(value))
        parts += [Text(), grid] if grid.row_count else []
    if report.rejected:
        rows = Table(box=box.SIMPLE, caption=_caption(report))
        for heading in ("row", "line", "why", *(("values",) if show_values else ())):
            rows.add_column(heading, justify="right" if heading in ("row", "line") else "left")
        for reject in islice(report.rejects, SHOWN):
            cells = shown(reject, show_values=show_values)
            rows.add_row(*map(Text, cells if show_values else cells[:3]))  # Text: markup in a value is no markup
        parts.append(rows)
    return Group(*parts)


def _caption(report: Report) -> str | None:
    return f"and {report.rejected - SHOWN:,} more" if report.rejected > SHOWN else None
