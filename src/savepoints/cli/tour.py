"""Where the tour takes place, and on which face."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from savepoints import SavepointsError
from savepoints._databases import embedded_file, embedded_url
from savepoints.cli.page import Page
from savepoints.cli.urls import BrokenOff, in_one_line, parsed, reaching


def run(url: str | None, page: Page, *, asynchronous: bool, keep: bool) -> None:
    """Take the tour, from its title to its last line.

    Raises:
        CannotRun, BrokenOff: With a text for the user that holds no credentials.
    """
    given = None if url is None else parsed(url)
    with _home(given, asynchronous=asynchronous, keep=keep) as home:
        try:
            with reaching(home):  # the async face needs greenlet
                if asynchronous:
                    from savepoints.cli.tour_async import tour
                else:
                    from savepoints.cli.tour_sync import tour
            tour(home, page, keep=keep)
        except (SQLAlchemyError, SavepointsError) as error:
            raise BrokenOff(in_one_line(error, home)) from error


@contextmanager
def _home(url: URL | None, *, asynchronous: bool, keep: bool) -> Iterator[URL]:
    """Where the tour takes place. Files that are made for it are deleted at the end, unless they are to be kept."""
    with ExitStack() as afterwards:
        if url is None:
            folder = Path(tempfile.mkdtemp(prefix="savepoints-tour-"))
            if not keep:
                afterwards.callback(shutil.rmtree, folder)
            url = embedded_url(folder / "tour.db", asynchronous=asynchronous)
        file = embedded_file(url)
        if file is not None and not file.exists() and not keep:
            afterwards.callback(file.unlink, missing_ok=True)
        yield url
