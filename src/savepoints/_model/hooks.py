"""Hooks: callbacks that a level owns, and what becomes of them when it ends."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, ParamSpec, overload

from savepoints import errors
from savepoints._places import Place, caller

P = ParamSpec("P")

_serial = itertools.count(1)


class Occasion(Enum):
    """When a hook runs; the value is the name of the function that registers it."""

    COMMIT = "on_commit"
    ROLLBACK = "on_rollback"
    BEFORE_COMMIT = "before_commit"
    UNKNOWN = "on_unknown"


class _State(Enum):
    PENDING = "pending"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    RUN = "run"


#: No function was given: the call is to be a decorator.
DECORATOR: Any = object()


class Hook:
    """A callback that waits for the end of its level.

    Attributes:
        function: What is called, with the arguments that were passed along.
        occasion: "on_commit", "on_rollback", "before_commit" or "on_unknown".
        registered_at: File and line.
    """

    __slots__ = ("_arguments", "_occasion", "_state", "awaits", "function", "registered_at", "serial")

    def __init__(
        self, occasion: Occasion, function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.function: Callable[..., object] = function
        self.registered_at: Place = caller()
        self.serial: int = next(_serial)
        #: It is an async function: a sync face cannot run it.
        self.awaits: bool = is_async(function)
        self._occasion = occasion
        self._arguments = (args, kwargs)
        self._state = _State.PENDING

    @property
    def occasion(self) -> str:
        """When it runs."""
        return self._occasion.value

    @property
    def is_pending(self) -> bool:
        """True until it has run, was cancelled, or was dropped with the end of its level."""
        return self._state is _State.PENDING

    def cancel(self) -> bool:
        """Take it back: it will not run.

        Returns:
            Whether that came in time: False where it has run already or was dropped.
        """
        return self._leave(_State.CANCELLED)

    def is_for(self, occasion: Occasion) -> bool:
        """Whether it waits for that."""
        return self._occasion is occasion and self._state is _State.PENDING

    def drop(self) -> None:
        """What it waited for cannot come any more."""
        self._leave(_State.DROPPED)

    def run(self) -> object:
        """Call it, once; what it returns may have to be awaited."""
        args, kwargs = self._arguments
        self._leave(_State.RUN)
        return self.function(*args, **kwargs)

    def _leave(self, state: _State) -> bool:
        was_pending = self.is_pending
        if was_pending:
            self._state = state
            self._arguments = ((), {})  # who keeps the handle keeps nothing else
        return was_pending

    def __str__(self) -> str:
        name = getattr(self.function, "__qualname__", None) or type(self.function).__name__
        return f"{self.occasion} hook {name} (registered at {self.registered_at})"

    def __repr__(self) -> str:
        return f"<{self}: {self._state.value}>"


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives something to be awaited, as far as can be told before the call."""
    function = _bare(function)
    call = getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def checked(function: Any, verb: str) -> Callable[..., object]:
    """What is to be called, if it can be.

    Raises:
        WrongArgument: It cannot be called.
    """
    if not callable(function):
        raise errors.WrongArgument(
            f"{verb} takes a function, not {errors.kind_of(function)}",
            hint="give the function itself, and after it the arguments that it is to be called with",
        )
    if inspect.isgeneratorfunction(_bare(function)) or inspect.isasyncgenfunction(_bare(function)):
        raise errors.WrongArgument(
            f"{verb} takes a function, not a generator: nobody would run it", hint="use `return`"
        )
    found: Callable[..., object] = function
    return found


def _bare(function: Any) -> Any:
    """The function behind arguments that were given before."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


# Note [What becomes of hooks]
# A hook belongs to the innermost level that was open when it was registered (or to the level whose method was
# called). A release moves the hooks to the level around. A rollback drops those that wait for a commit and makes the
# rollback hooks due, also those that came up from released levels inside. Where the whole transaction was lost, or
# nobody knows whether it was committed, they go up undecided, and the outermost end decides for all of them.

Owned = list[Hook] | None


def moved_up(hooks: list[Hook], around: Owned) -> list[Hook]:
    """The hooks of a level and of the one around it as one list, in order of registering."""
    if not around:
        return hooks
    late = around[-1].serial > hooks[0].serial
    around += hooks
    if late:  # the outer one was given a hook while the inner one was open
        around.sort(key=_by_serial)
    return around


def due_at(occasion: Occasion, hooks: Iterable[Hook]) -> list[Hook]:
    """The hooks that are due now; what waited for something else is dropped."""
    due = []
    for hook in hooks:
        if hook.is_for(occasion):
            due.append(hook)
        else:
            hook.drop()
    return due


def in_order(due: Iterable[Hook]) -> list[Hook]:
    """Rollback hooks first, the newest of them first; the others in order of registering."""
    return sorted(due, key=lambda hook: -hook.serial if hook.occasion == Occasion.ROLLBACK.value else hook.serial)


def waiting(occasion: Occasion, owned: Iterable[Owned]) -> list[Hook]:
    """The hooks of several levels that wait for the same, in order of registering."""
    return sorted(_waiting(occasion, owned), key=_by_serial)


def _waiting(occasion: Occasion, owned: Iterable[Owned]) -> Iterator[Hook]:
    return (hook for hooks in owned if hooks for hook in hooks if hook.is_for(occasion))


def _by_serial(hook: Hook) -> int:
    return hook.serial


class Hooking:
    """The methods that register hooks: on levels and on the drop-in sessions."""

    __slots__ = ()

    def _hook(self, occasion: Occasion, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hook:
        raise NotImplementedError

    def _hook_or_decorator(self, occasion: Occasion, function: Any, args: Any, kwargs: Any) -> Any:
        return hook_or_decorator(self._hook, occasion, function, args, kwargs)

    @overload
    def on_commit(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
    @overload
    def on_commit(self, /) -> Callable[[Callable[[], object]], Hook]: ...
    def on_commit(self, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function once the work is stored: see `savepoints.on_commit`."""
        return self._hook_or_decorator(Occasion.COMMIT, function, args, kwargs)

    @overload
    def on_rollback(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
    @overload
    def on_rollback(self, /) -> Callable[[Callable[[], object]], Hook]: ...
    def on_rollback(self, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function when the work is undone: see `savepoints.on_rollback`."""
        return self._hook_or_decorator(Occasion.ROLLBACK, function, args, kwargs)

    @overload
    def before_commit(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
    @overload
    def before_commit(self, /) -> Callable[[Callable[[], object]], Hook]: ...
    def before_commit(self, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function just before the COMMIT: see `savepoints.before_commit`."""
        return self._hook_or_decorator(Occasion.BEFORE_COMMIT, function, args, kwargs)

    @overload
    def on_unknown(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Hook: ...
    @overload
    def on_unknown(self, /) -> Callable[[Callable[[], object]], Hook]: ...
    def on_unknown(self, function: Any = DECORATOR, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function when the answer to COMMIT never came: see `savepoints.on_unknown`."""
        return self._hook_or_decorator(Occasion.UNKNOWN, function, args, kwargs)


def hook_or_decorator(register: Callable[..., Hook], occasion: Occasion, function: Any, args: Any, kwargs: Any) -> Any:
    """Register the function that was given; a decorator that does so where none was."""
    if function is not DECORATOR:
        return register(occasion, function, args, kwargs)

    def decorate(decorated: Callable[[], object]) -> Hook:
        return register(occasion, decorated, (), {})

    return decorate
