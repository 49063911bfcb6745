"""One way to write test bodies for both faces: `await` and `async with` on everything.

The async face hands the real objects through. The sync face gives out `Sync`, a thin wrapper round a
session, connection or handle, whose methods that touch the database return a `Call`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from savepoints._loops import place_of

# The methods that the async twins of sessions, connections, transactions and savepoints have awaited.
AWAITED = {
    *("begin", "begin_nested", "commit", "rollback", "close", "invalidate", "reset", "connection"),
    *("execute", "exec_driver_sql", "scalar", "scalars", "get", "get_one"),
    *("merge", "flush", "refresh", "delete", "savepoint", "rollback_to", "release"),
}


class Call:
    """A sync call, made when it is awaited or entered."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._manager: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return wrap(self._call())
        yield  # makes this a generator, as __await__ must be

    async def __aenter__(self) -> Any:
        self._manager = self._call()
        return wrap(self._manager.__enter__())

    async def __aexit__(self, *error: Any) -> Any:
        return self._manager.__exit__(*error)


class Sync:
    """A sync object, used as if it were async. Equal to what it wraps; compare handles by ==, not by `is`."""

    __slots__ = ("raw",)
    raw: Any

    def __init__(self, raw: Any) -> None:
        object.__setattr__(self, "raw", raw)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.raw, name)
        if not inspect.ismethod(value):
            return wrap(value)
        way = FACES["sync"].call if name in AWAITED else FACES["sync"].plain
        return partial(way, value)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.raw, name, bare(value))

    async def __aenter__(self) -> Any:
        return wrap(self.raw.__enter__())

    async def __aexit__(self, *error: Any) -> Any:
        return self.raw.__exit__(*error)

    def __contains__(self, item: object) -> bool:
        return item in self.raw

    def __eq__(self, other: object) -> bool:
        return bool(self.raw == bare(other))

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return repr(self.raw)


def wrap(value: Any) -> Any:
    """Wrap what steers a transaction (it has `rollback` or `doom`), also in a list; leave the rest alone."""
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(wrap(one) for one in value)
    steers = hasattr(value, "rollback") or hasattr(value, "doom")
    return Sync(value) if steers and not isinstance(value, (type, Sync)) else value


def bare(value: Any) -> Any:
    return value.raw if isinstance(value, Sync) else value


def bare_values(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: bare(value) for name, value in kwargs.items()}


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits: a body in the sync face, or a call that is refused before any SQL."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("it waits")


def driven(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any) -> Any:
    """Call an async function of a test where nothing is awaited."""
    return at_once(function(*args, **kwargs))


def sync_form(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """An async test function with a parameter `t` as a sync one with `session`, for the decorator."""

    def form(session: Any, *args: Any, **kwargs: Any) -> Any:
        return at_once(function(wrap(session), *args, **kwargs))

    return form


class Rounds:
    """A sync loop of tries as an async one.

    Where loop and exit stand decides whether there is another try: the harness hands over their places in the test.
    """

    def __init__(self, tries: Any) -> None:
        self._tries = tries

    def __aiter__(self) -> Rounds:
        self._rounds = self._tries._rounds(place_of(sys._getframe(1)))
        return self

    async def __anext__(self) -> Round:
        attempt = next(self._rounds, None)
        if attempt is None:
            raise StopAsyncIteration
        return Round(attempt)


class Round:
    """A try of the sync face, used as if it were async."""

    def __init__(self, attempt: Any) -> None:
        self.raw = attempt

    @property
    def number(self) -> int:
        number: int = self.raw.number
        return number

    async def __aenter__(self) -> Any:
        return wrap(self.raw.__enter__())

    def __aexit__(self, *error: Any) -> Call:
        left = place_of(sys._getframe(1))
        return Call(lambda: self.raw._leave(*error, left))


class Face:
    """The async face: calls go through as they are, and what they return is awaited or entered."""

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call that touches the database: the test body awaits or enters it."""
        return function(*args, **kwargs)

    def plain(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call that is awaited on neither face."""
        return function(*args, **kwargs)


class SyncFace(Face):
    """The sync face: the same for the test body, by `Call` and `Sync`."""

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return Call(lambda: function(*map(bare, args), **bare_values(kwargs)))

    def plain(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return wrap(function(*map(bare, args), **bare_values(kwargs)))


FACES = {"sync": SyncFace(), "async": Face()}
