"""The decorator form of ``transaction``: which parameter takes the session, and the signature without it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from savepoints import errors

_NAMES = ("session", "connection")


def refuse_generators(function: Callable[..., Any]) -> None:
    """A generator's body runs after the call has returned, outside of any transaction around the call."""
    if not callable(function):
        raise errors.WrongArgument(f"transaction(...) decorates functions, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise errors.WrongArgument(
            f"{function.__qualname__} is a generator function: its body runs when it is iterated, not at the call",
            hint="use `with transaction(...)` inside it, or return a list",
        )


def parameter(function: Callable[..., Any], kinds: tuple[type, ...]) -> str:
    """The parameter that takes the session or connection: by annotation, else by name.

    Raises:
        WrongArgument: There is none.
    """
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # a name that only type checkers see
        hints = {}
    for name in signature.parameters:
        for kind in (hints.get(name), *typing.get_args(hints.get(name))):
            if isinstance(kind, type) and issubclass(kind, kinds):
                return name
    for name in _NAMES:
        if name in signature.parameters:
            return name
    raise errors.WrongArgument(
        f"{function.__qualname__} has no parameter for the session or connection",
        hint="annotate one with the Session or Connection type, or call it `session` or `connection`",
    )


class Call:
    """How a decorated function is called, with or without its session."""

    def __init__(self, function: Callable[..., Any], kinds: tuple[type, ...]) -> None:
        refuse_generators(function)
        self.kinds = kinds
        self.name = parameter(function, kinds)
        self.full = inspect.signature(function)
        self.position = list(self.full.parameters).index(self.name)
        others = [p for name, p in self.full.parameters.items() if name != self.name]
        #: The signature as callers see it: the library passes the session.
        self.visible = self.full.replace(parameters=others)

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The session or connection that the caller passed itself, None where it passed none."""
        if self.name in kwargs:
            return kwargs[self.name]
        found = args[self.position] if len(args) > self.position else None
        return found if isinstance(found, self.kinds) else None

    def filled(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The caller's arguments with the session in its place."""
        arguments = self.visible.bind(*args, **kwargs).arguments | {self.name: target}
        in_order = {name: arguments[name] for name in self.full.parameters if name in arguments}
        return inspect.BoundArguments(self.full, in_order)

    def refuse_async(self, function: Callable[..., Any]) -> None:
        """A sync source cannot be awaited for."""
        if inspect.iscoroutinefunction(function):
            raise errors.WrongArgument(
                f"{function.__qualname__} is async, and the source is not", hint="use an async engine or sessionmaker"
            )

    def refuse_sync(self, function: Callable[..., Any]) -> None:
        """An async source must be awaited."""
        if not inspect.iscoroutinefunction(function):
            raise errors.WrongArgument(
                f"{function.__qualname__} is not async, and the source is",
                hint="write `async def`, or use a sync engine or sessionmaker",
            )
