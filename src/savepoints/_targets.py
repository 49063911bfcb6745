"""What the verbs work on, sync and async, and how it is told apart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from savepoints import errors

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

SyncTarget: TypeAlias = Session | scoped_session[Any] | Connection
AsyncTarget: TypeAlias = Union["AsyncSession", "async_scoped_session[Any]", "AsyncConnection"]

TARGETS = (Session, Connection)
SOURCES = (Engine, sessionmaker)
_SYNC = (*TARGETS, *SOURCES)


def is_kind(found: Any, *names: str) -> bool:
    """Whether it is of one of these classes of SQLAlchemy's asyncio side, which whoever has one has imported."""
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(found, tuple(getattr(module, name) for name in names))


def is_async(found: Any) -> bool:
    if isinstance(found, _SYNC):
        return False
    return is_kind(found, "AsyncSession", "AsyncConnection", "AsyncEngine", "async_sessionmaker")


def unscoped(target: Any) -> Any:
    """The session behind a scoped one."""
    return target() if isinstance(target, scoped_session) or is_kind(target, "async_scoped_session") else target


def checked_target(target: Any, verb: str) -> Any:
    if not isinstance(target, TARGETS):
        target = unscoped(target)
    if isinstance(target, TARGETS) or is_kind(target, "AsyncSession", "AsyncConnection"):
        return target
    hint = "give a Session or Connection, sync or async"
    if isinstance(target, SOURCES) or is_async(target):
        hint = "open a session or connection first, for instance by `with transaction(...)`"
    raise errors.WrongArgument(f"{verb} works on a session or connection, not on {errors.kind_of(target)}", hint=hint)
