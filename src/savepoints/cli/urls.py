"""Databases by their URLs: what is told of one, without its password, and what goes wrong on the way to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_NO_URL = (
    "this is not a database URL; they look like dialect+driver://user@host/database, "
    "with %40 for an @ in the password, %3A for a :, and %2F for a /"
)


class CannotRun(Exception):
    """A command cannot begin; the text says why, and what to do."""


class BrokenOff(Exception):
    """A command began and did not come to its end."""


def parsed(url: str) -> URL:
    """A URL that was given.

    Raises:
        CannotRun: It is none, or is not read as it was meant.
    """
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number, with that text in it
        raise CannotRun(_NO_URL) from None
    if found.password and url.count("@") > 1:  # else the end of the password passes for a host, and is shown
        raise CannotRun(_NO_URL)
    return found


@contextmanager
def reaching(url: URL) -> Iterator[None]:
    """Until the database has answered, whatever goes wrong means that it cannot be used."""
    try:
        yield
    except CannotRun:
        raise
    except ImportError as error:
        raise CannotRun(f"{called(url)} needs a package that is not installed: {error}") from error
    except Exception as error:  # asyncpg's own errors on connecting pass through SQLAlchemy as they are
        raise CannotRun(f"{called(url)} cannot be used: {in_one_line(error, url)}") from error


def called(url: URL) -> str:
    """The database without user, password and options."""
    return str(URL.create(url.drivername, host=url.host, port=url.port, database=url.database))


def in_one_line(error: BaseException, url: URL) -> str:
    """The first line of an error, the driver's own if there is one, without the URL's password."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    line = text.splitlines()[0]
    secrets = [value for key, value in (("password", url.password), *url.query.items()) if "pass" in key.lower()]
    for secret in filter(None, secrets):
        line = line.replace(str(secret), "***")
    return line
