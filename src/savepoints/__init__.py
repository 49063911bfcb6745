"""Transactions you can steer, on SQLAlchemy."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from savepoints._attempts import attempts
from savepoints._databases import Classification, Kind, Outcome, RetryFrom, classify, is_retryable
from savepoints._hook_verbs import before_commit, on_commit, on_rollback, on_unknown
from savepoints._load.reasons import Reason, Reject
from savepoints._load.rejects import Rejects
from savepoints._load.report import MissingParent, Progress, Report
from savepoints._load.tables import rejects_table
from savepoints._model.hooks import Hook
from savepoints._model.levels import Level
from savepoints._model.repairs import Repair
from savepoints._model.states import State
from savepoints._retry import Retry
from savepoints._sync import Savepoint, Session, Transaction, scoped_session
from savepoints._verb_load import load
from savepoints._verbs import (
    atomic,
    current_transaction,
    install,
    installed,
    release,
    require_transaction,
    rollback_to,
    savepoint,
    transaction,
    uninstall,
)
from savepoints.errors import (
    AlreadyInTransaction,
    BadInput,
    BadName,
    CommitOutcomeUnknown,
    HookErrors,
    ImplicitCommit,
    LoadLimitExceeded,
    LoadMismatch,
    NestedRetry,
    NoTransaction,
    NotRolledBack,
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
    "BadInput",
    "BadName",
    "Classification",
    "CommitOutcomeUnknown",
    "Hook",
    "HookErrors",
    "ImplicitCommit",
    "Kind",
    "Level",
    "LoadLimitExceeded",
    "LoadMismatch",
    "MissingParent",
    "NestedRetry",
    "NoTransaction",
    "NotRolledBack",
    "NotSupported",
    "OutOfOrder",
    "Outcome",
    "Progress",
    "Reason",
    "Reject",
    "Rejects",
    "Repair",
    "Report",
    "Retry",
    "RetryFrom",
    "Rollback",
    "Savepoint",
    "SavepointEnded",
    "SavepointNeverAwaited",
    "SavepointsError",
    "Session",
    "State",
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
    "attempts",
    "before_commit",
    "classify",
    "current_transaction",
    "install",
    "installed",
    "is_retryable",
    "load",
    "on_commit",
    "on_rollback",
    "on_unknown",
    "rejects_table",
    "release",
    "require_transaction",
    "rollback_to",
    "savepoint",
    "scoped_session",
    "transaction",
    "uninstall",
]

_ASYNC = frozenset({"AsyncSavepoint", "AsyncSession", "AsyncTransaction", "async_scoped_session"})

if find_spec("greenlet") is None:
    for _name in _ASYNC:
        __all__.remove(_name)


def __getattr__(name: str) -> Any:
    """The async names, when they are asked for: SQLAlchemy's asyncio side needs greenlet, which is an extra."""
    if name in _ASYNC:
        try:
            from savepoints import aio
        except ImportError as error:
            raise ImportError(f"savepoints.{name} needs greenlet: pip install 'savepoints[async]'") from error
        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
