"""The commands and their options."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated

import typer

from savepoints.cli.page import page
from savepoints.cli.stage import BrokenOff, CannotRun
from savepoints.cli.tour import run

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
