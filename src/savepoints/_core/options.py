"""What a transaction is asked to be when it begins."""

from __future__ import annotations

from typing import Any, NamedTuple

from savepoints import errors
from savepoints._core import refusals
from savepoints._core.outcome import Track
from savepoints._databases import Capabilities
from savepoints._retry import Retry


class Options(NamedTuple):
    """What a transaction was asked to be."""

    isolation_level: str | None = None
    read_only: bool = False
    deferrable: bool = False
    immediate: bool = False
    twophase: bool = False

    @property
    def for_one_database(self) -> bool:
        """Something was asked for that has to be set on a connection before its first statement."""
        return self._replace(twophase=False) != Options()

    def execution_options(self, row: Capabilities) -> dict[str, Any]:
        """The part that SQLAlchemy sets on a connection before it begins."""
        options: dict[str, Any] = {}
        if self.twophase:
            refuse_single_phase(row)
        if self.isolation_level is not None:
            if self.isolation_level.upper().replace("_", " ") == "AUTOCOMMIT":
                raise refusals.autocommit()
            options["isolation_level"] = self.isolation_level
        if self.read_only:
            self._refuse_writing_only(row)
            options |= row.read_only or {}
        if self.deferrable:
            if row.deferrable is None:
                raise _unknown_option("deferrable", row)
            options |= row.deferrable
        return options

    def _refuse_writing_only(self, row: Capabilities) -> None:
        if row.read_only is None and row.read_only_on is None and row.begin_read_only is None:
            raise _unknown_option("read_only", row)
        if self.twophase and row.begin_read_only is not None:
            raise errors.NotSupported(
                f"a two-phase transaction on {row.database} cannot be read-only: that is another BEGIN",
                hint="leave one of the two options out",
            )


def refuse_single_phase(row: Capabilities) -> None:
    """All databases of a two-phase transaction must be able to prepare.

    Raises:
        NotSupported: This one is not, and why.
    """
    if row.two_phase is not None:
        raise single_phase(row, row.two_phase)


def single_phase(row: Capabilities, reason: str) -> errors.NotSupported:
    """Nothing can be prepared there, and why."""
    return errors.NotSupported(
        f"no two-phase transaction on {row.database} with {row.driver}: {reason}",
        hint="leave `twophase=True` out, and give each database a transaction of its own",
    )


class Asked(NamedTuple):
    """All that `transaction` was asked for, beside its source."""

    name: str | None = None
    options: Options = Options()
    rollback: bool = False
    independent: bool = False
    track: Track = False
    retry: Retry | None = None


def _unknown_option(name: str, row: Capabilities) -> errors.NotSupported:
    return errors.NotSupported(
        f"how to make a transaction {name} on {row.database} with {row.driver} is not known here",
        hint="leave the option out, or set it by the database's own statement inside the transaction",
    )
