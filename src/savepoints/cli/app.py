"""The commands and their options."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated

import typer

from savepoints.cli import tour as _tour
from savepoints.cli.page import page

# Its own tracebacks would show local variables, and with them a URL's password.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


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
            "It must not have a table called users.",
            show_default="an embedded one, in a temporary folder",
        ),
    ] = None,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Run it with async and await. A URL needs an async driver then.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the database behind, and say where it is.")] = False,
) -> None:
    """Tell a short story on a real database, with the SQL that is really sent.

    A transaction, a bookmark in it, two changes rolled back to that bookmark, and a commit. A second connection reads
    what was stored. Nothing is left behind.
    """
    try:
        _tour.run(url, page(), asynchronous=asynchronous, keep=keep)
    except _tour.CannotRun as reason:
        typer.echo(f"savepoints tour: {reason}", err=True)
        raise typer.Exit(2) from None
    except _tour.BrokenOff as reason:
        typer.echo(f"savepoints tour: broken off: {reason}", err=True)
        raise typer.Exit(1) from None
