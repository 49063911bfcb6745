"""The commands and their options."""

from __future__ import annotations

import platform
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from savepoints.cli import loading
from savepoints.cli.page import page
from savepoints.cli.tour import run
from savepoints.cli.urls import BrokenOff, CannotRun

# Plain, for its boxes hide the text; and its tracebacks would show local variables, a URL's password among them.
app: typer.Typer = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _print_versions(wanted: bool) -> None:
    if wanted:
        sqlalchemy, python = version("sqlalchemy"), platform.python_version()
        typer.echo(f"savepoints {version('savepoints')} (SQLAlchemy {sqlalchemy}, Python {python})")
        raise typer.Exit


@app.callback()
def _savepoints(
    versions: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Show the versions and exit."),
    ] = False,
) -> None:
    """Transactions you can steer, on SQLAlchemy."""


@app.command()
def tour(
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Run it on this database: dialect+driver://user@host/database, as SQLAlchemy spells it. "
            "It must not have a table called users. Without a URL: on an embedded one in a temporary folder.",
        ),
    ] = None,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Run it with async and await. A URL needs an async driver then.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the database behind, and say where it is.")] = False,
) -> None:
    """A short story on a real database, each step beside its SQL.

    A transaction, a bookmark in it, two changes rolled back to that bookmark, and a commit; then a second connection
    looks what is stored. Nothing is left behind. The SQL is what was really sent.
    """
    try:
        run(url, page(), asynchronous=asynchronous, keep=keep)
    except CannotRun as reason:
        typer.echo(f"savepoints tour: {reason}", err=True)
        raise typer.Exit(2) from None
    except BrokenOff as reason:
        typer.echo(f"savepoints tour: broken off: {reason}", err=True)
        raise typer.Exit(1) from None


class OnConflict(StrEnum):
    """What happens to a duplicate."""

    reject = "reject"
    skip = "skip"
    update = "update"


@app.command()
def load(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV with a header, JSON Lines, Parquet or Arrow, also packed (.gz, .bz2, .xz, .zst, .zip).",
        ),
    ],
    into: Annotated[str, typer.Option(metavar="URL", help="The database, as SQLAlchemy spells it.")],
    table: Annotated[str, typer.Option(metavar="NAME", help="The table, with its schema if it has one.")],
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write the rejected rows and why into this new file: .jsonl (can be loaded again) or .csv.",
        ),
    ] = None,
    max_rejected: Annotated[
        str | None,
        typer.Option(metavar="LIMIT", help="With more rejected rows all is undone: a number, or a share as 1%."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do it all, show the report, and undo it.")] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Make the table from the file's columns, if it is not there.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the table's rules, too, and who looks at each.")
    ] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD[=NAME]",
            help="Take this field of the file, into the column NAME if that is called otherwise, and leave out those "
            "that are not named. May be given again.",
        ),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="This text is NULL (an empty cell, if not given). May be given again."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help="Of a file of text; UTF-8 if not given.")] = None,
    on_conflict: Annotated[
        OnConflict, typer.Option(help="What happens to rows whose key is there already.")
    ] = OnConflict.reject,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="By what a duplicate is known; the primary key if not given."),
    ] = None,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Show the values of rejected rows, which may be private.")
    ] = False,
) -> None:
    """Load a file into a table: good rows are kept, and a report says why each other one was rejected.

    All of it is one transaction. It ends with 0 when every row was loaded, 3 when some were rejected, 4 when there were
    more than --max-rejected (all is undone then), 2 when it could not begin, 1 when the database broke it off. Ctrl-C
    undoes it.
    """
    order = loading.Order(
        file=file,
        into=into,
        table=table,
        rejects=rejects,
        max_rejected=max_rejected,
        dry_run=dry_run,
        create=create,
        explain=explain,
        columns=tuple(column or ()),
        null=tuple(null or ()),
        encoding=encoding,
        on_conflict=on_conflict.value,
        key=tuple(key or ()),
        show_values=show_values,
    )
    raise typer.Exit(loading.run(order))
