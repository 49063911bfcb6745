"""Transactions you can steer, on SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from savepoints._sync import Savepoint, Session, Transaction, scoped_session
from savepoints._verbs import (
    atomic,
    current_transaction,
    release,
    require_transaction,
    rollback_to,
    savepoint,
    transaction,
)
from savepoints.errors import (
    AlreadyInTransaction,
    BadName,
    CommitOutcomeUnknown,
    NoTransaction,
    NotSupported,
    OutOfOrder,
    Rollback,
    SavepointEnded,
    SavepointNeverAwaited,
    SavepointsError,
    TransactionDoomed,
    TransactionFailed,
    TransactionLost,
    UncommittedWork,
    UnknownSavepoint,
    WrongArgument,
    WrongTask,
)

if TYPE_CHECKING:
    from savepoints.aio import AsyncSavepoint, AsyncSession, AsyncTransaction, async_scoped_session

__all__ = [
    "AlreadyInTransaction",
    "AsyncSavepoint",
    "AsyncSession",
    "AsyncTransaction",
    "BadName",
    "CommitOutcomeUnknown",
    "NoTransaction",
    "NotSupported",
    "OutOfOrder",
    "Rollback",
    "Savepoint",
    "SavepointEnded",
    "SavepointNeverAwaited",
    "SavepointsError",
    "Session",
    "Transaction",
    "TransactionDoomed",
    "TransactionFailed",
    "TransactionLost",
    "UncommittedWork",
    "UnknownSavepoint",
    "WrongArgument",
    "WrongTask",
    "async_scoped_session",
    "atomic",
    "current_transaction",
    "release",
    "require_transaction",
    "rollback_to",
    "savepoint",
    "scoped_session",
    "transaction",
]

_ASYNC = frozenset({"AsyncSavepoint", "AsyncSession", "AsyncTransaction", "async_scoped_session"})


def __getattr__(name: str) -> Any:
    """The async names, when they are asked for: SQLAlchemy's asyncio side needs greenlet, which is an extra."""
    if name in _ASYNC:
        from savepoints import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
