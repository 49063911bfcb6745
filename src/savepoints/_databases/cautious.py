"""The row of a database that nobody has proven here: nothing is assumed that could lose data.

RELEASE is left to the dialect, an error counts as survived until a rollback to a savepoint is refused (then all is
lost), and what the row does not know is refused with a clear error.
"""

from __future__ import annotations

from typing import Any

from savepoints._databases.capabilities import Aftermath, Capabilities, Kind


def _aftermath(driver_connection: Any, error: BaseException) -> Aftermath:
    return Aftermath.OPEN


def _kind(error: BaseException) -> Kind:
    return Kind.OTHER


def _code(error: BaseException) -> str | None:
    return None


def row(database: str, driver: str) -> Capabilities:
    """A cautious row under this name."""
    return Capabilities(
        database=database,
        driver=driver,
        proven=False,
        wire=None,
        releases=False,
        transactional_ddl="not known",
        failed_statement="not known",
        sequences="not known",
        settings="not known",
        aftermath=_aftermath,
        kind=_kind,
        code=_code,
        notes=("not proven: RELEASE is not sent after a rollback, and options are refused",),
    )
