"""The row of a database that nobody has proven here: nothing is assumed that could lose data.

RELEASE is left to the dialect, an error counts as survived until a rollback to a savepoint is refused (then all is
lost), and what the row does not know is refused with a clear error.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc

from savepoints._databases.capabilities import Aftermath, Capabilities, Fault, Kind


def _aftermath(driver_connection: Any, error: BaseException) -> Aftermath:
    return Aftermath.OPEN


def _kind(error: BaseException) -> Kind:
    return Kind.OTHER


def _code(error: BaseException) -> str | None:
    return None


def _fault(error: BaseException) -> Fault | None:
    """By the two classes of PEP 249 that speak of values; which rule was broken is not known."""
    if isinstance(error, exc.DataError):
        return Fault.TYPE
    return Fault.OTHER if isinstance(error, exc.IntegrityError) else None


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
        fault=_fault,
        notes=("not proven: RELEASE is not sent after a rollback, and options are refused",),
    )
