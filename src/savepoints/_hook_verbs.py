"""The verbs that register hooks: the same on both faces, for registering is not awaited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, overload

from savepoints import _sync
from savepoints._model.hooks import DECORATOR, Hook, Occasion, hook_or_decorator
from savepoints._targets import AsyncTarget, SyncTarget, checked_target, is_async

P = ParamSpec("P")
Target = SyncTarget | AsyncTarget


@overload
def on_commit(target: Target, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
@overload
def on_commit(target: Target, /) -> Callable[[Callable[[], object]], Hook]: ...
def on_commit(target: Target, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function once the work is stored: after COMMIT was answered, outside of the transaction.

    The hook belongs to the innermost open level. A release hands it to the level around, a rollback drops it. All hooks
    run, in order of registering, after the session has left the transaction; async ones are awaited. What they raise is
    gathered and raised at the end of the outermost block as `HookErrors`, with ``committed=True``. Without a block of
    ours, on a Session that begins and commits its own transaction, they run after ``session.commit()``, where a failure
    can only be logged.

    Args:
        target: Session, scoped_session or Connection, or their async twins (registering is not awaited).
        function: What is called; where it is left out, the call is a decorator. On an async target it may be async.
        args: What it is called with.
        kwargs: The same, by name.

    Returns:
        The `Hook`, whose `cancel()` takes it back.

    Raises:
        NoTransaction: No transaction is open, or it is one of a plain Connection, which nobody tells us the end of; or
            the function is async, and there is no outermost block that could await it.
        WrongArgument: The function cannot be called, or is async on a sync target.
        TransactionLost: The transaction has ended without us.
        WrongTask: Another task or thread is inside a savepoint block on this target.
    """
    return _hook(target, Occasion.COMMIT, function, args, kwargs)


@overload
def on_rollback(target: Target, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
@overload
def on_rollback(target: Target, /) -> Callable[[Callable[[], object]], Hook]: ...
def on_rollback(target: Target, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function when the work is undone: at once, also where only a savepoint is rolled back.

    The newest hook runs first, those of released savepoints inside among them. Where the whole transaction was lost
    they run at the end of its outermost block. What they raise becomes notes on the error that is under way; where
    there is none it is raised as `HookErrors`.

    Args:
        target: Session, scoped_session or Connection, or their async twins (registering is not awaited).
        function: What is called; where it is left out, the call is a decorator. On an async target it may be async.
        args: What it is called with.
        kwargs: The same, by name.

    Returns:
        The `Hook`, whose `cancel()` takes it back.

    Raises:
        NoTransaction: No transaction is open, or it is one of a plain Connection, which nobody tells us the end of; or
            the function is async, and there is no outermost block that could await it.
        WrongArgument: The function cannot be called, or is async on a sync target.
        TransactionLost: The transaction has ended without us.
        WrongTask: Another task or thread is inside a savepoint block on this target.
    """
    return _hook(target, Occasion.ROLLBACK, function, args, kwargs)


@overload
def before_commit(target: Target, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
@overload
def before_commit(target: Target, /) -> Callable[[Callable[[], object]], Hook]: ...
def before_commit(target: Target, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function just before the COMMIT, inside of the transaction: it may use the session.

    An error in it counts as the block's own: everything is rolled back, and it is raised. A dry run
    (``rollback=True``) sends no COMMIT, and runs none of these.

    Args:
        target: Session, scoped_session or Connection, or their async twins (registering is not awaited).
        function: What is called; where it is left out, the call is a decorator. On an async target it may be async.
        args: What it is called with.
        kwargs: The same, by name.

    Returns:
        The `Hook`, whose `cancel()` takes it back.

    Raises:
        NoTransaction: No transaction is open, or it is one of a plain Connection, which nobody tells us the end of; or
            the function is async, and there is no outermost block that could await it.
        WrongArgument: The function cannot be called, or is async on a sync target.
        TransactionLost: The transaction has ended without us.
        WrongTask: Another task or thread is inside a savepoint block on this target.
    """
    return _hook(target, Occasion.BEFORE_COMMIT, function, args, kwargs)


@overload
def on_unknown(target: Target, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
@overload
def on_unknown(target: Target, /) -> Callable[[Callable[[], object]], Hook]: ...
def on_unknown(target: Target, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function when COMMIT was sent and its answer never came: the work is stored, or it is not.

    Then neither commit hooks nor rollback hooks run, for nobody knows; `CommitOutcomeUnknown` is raised after these.

    Args:
        target: Session, scoped_session or Connection, or their async twins (registering is not awaited).
        function: What is called; where it is left out, the call is a decorator. On an async target it may be async.
        args: What it is called with.
        kwargs: The same, by name.

    Returns:
        The `Hook`, whose `cancel()` takes it back.

    Raises:
        NoTransaction: No transaction is open, or it is one of a plain Connection, which nobody tells us the end of; or
            the function is async, and there is no outermost block that could await it.
        WrongArgument: The function cannot be called, or is async on a sync target.
        TransactionLost: The transaction has ended without us.
        WrongTask: Another task or thread is inside a savepoint block on this target.
    """
    return _hook(target, Occasion.UNKNOWN, function, args, kwargs)


def _hook(target: Target, occasion: Occasion, function: Any, args: Any, kwargs: Any) -> Any:
    found: Any = checked_target(target, occasion.value)
    register = _sync.register
    if is_async(found):
        from savepoints import aio

        register = aio.register  # type: ignore[assignment]
    return hook_or_decorator(lambda *rest: register(found, *rest), occasion, function, args, kwargs)
