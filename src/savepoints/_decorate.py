"""The decorator form of ``transaction``: which parameter takes the session, and the signature without it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from contextlib import AsyncContextDecorator, ContextDecorator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from savepoints import errors

_NAMES = ("session", "connection")

# the last two are what `contextlib.contextmanager` and its async twin make
_UNRUN = (GeneratorType, AsyncGeneratorType, CoroutineType, ContextDecorator, AsyncContextDecorator)


def refuse_generators(function: Callable[..., Any]) -> None:
    """A generator's body runs after the call has returned, outside of any transaction around the call."""
    if not callable(function):
        raise errors.WrongArgument(
            f"transaction(...) decorates functions, not {errors.kind_of(function)}",
            hint="put it above the `def`, below `@classmethod` or `@staticmethod`",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise errors.WrongArgument(
            f"{called(function)} is a generator function: its body runs when it is iterated, not at the call",
            hint="use `with transaction(...)` inside it, or return a list",
        )


def called(function: Callable[..., Any]) -> str:
    """Its name; a ``functools.partial`` has none."""
    name: str = getattr(function, "__qualname__", None) or repr(function)
    return name


def parameter(function: Callable[..., Any], kinds: tuple[type, ...]) -> str:
    """The parameter that takes the session or connection: by annotation, else by name.

    Raises:
        WrongArgument: There is none.
    """
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # a name that only type checkers see; an object that is called like a function
        hints = {}
    for name in signature.parameters:
        for kind in (hints.get(name), *typing.get_args(hints.get(name))):
            if isinstance(kind, type) and issubclass(kind, kinds):
                return name
    for name in _NAMES:
        if name in signature.parameters:
            return name
    raise errors.WrongArgument(
        f"{called(function)} has no parameter for the session or connection",
        hint="annotate one with the Session or Connection type, or call it `session` or `connection`",
    )


class Call:
    """How a decorated function is called, with or without its session."""

    def __init__(self, function: Callable[..., Any], kinds: tuple[type, ...]) -> None:
        refuse_generators(function)
        self.function = function
        self.kinds = kinds
        self.name = parameter(function, kinds)
        self.full = inspect.signature(function)
        self.position = list(self.full.parameters).index(self.name)
        others = [p for name, p in self.full.parameters.items() if name != self.name]
        #: The signature as callers see it: the library passes the session.
        self.visible = self.full.replace(parameters=others)

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The session or connection that the caller passed itself, None where it passed none.

        Raises:
            WrongArgument: Something else was passed by the parameter's name.
        """
        found = kwargs.get(self.name)
        if found is None and len(args) > self.position and isinstance(args[self.position], self.kinds):
            found = args[self.position]
        if found is None or isinstance(found, self.kinds):
            return found
        registry = getattr(found, "registry", None)  # of a scoped session
        target = found if registry is None else registry()
        if not isinstance(target, self.kinds):
            kinds = " or ".join(kind.__name__ for kind in self.kinds)
            raise errors.WrongArgument(
                f"the parameter {self.name!r} takes {kinds}, not {errors.kind_of(target)}",
                hint="leave it out, and one is passed in",
            )
        return target

    def filled(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The caller's arguments with the session in its place."""
        others = {name: value for name, value in kwargs.items() if name != self.name}
        arguments = self.visible.bind(*args, **others).arguments | {self.name: target}
        in_order = {name: arguments[name] for name in self.full.parameters if name in arguments}
        return inspect.BoundArguments(self.full, in_order)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function; refuse what has still to run."""
        return self.checked(self.function(*args, **kwargs))

    async def run_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same, awaited."""
        return self.checked(await self.function(*args, **kwargs))

    def checked(self, result: Any) -> Any:
        """What a call gave back, if it has not still to run: that would be after the end of the transaction.

        Raises:
            WrongArgument: So that the transaction is undone, in place of the work being lost in silence.
        """
        if isinstance(result, _UNRUN):
            if isinstance(result, CoroutineType):
                result.close()
            raise errors.WrongArgument(
                f"{called(self.function)} gave back a {type(result).__name__}, which has still to run",
                hint="decorate what does the work at the call; use `with transaction(...)` inside of generators",
            )
        return result

    def refuse_async(self, function: Callable[..., Any]) -> None:
        """A sync source cannot be awaited for."""
        if inspect.iscoroutinefunction(function):
            raise errors.WrongArgument(
                f"{called(function)} is async, and the source is not", hint="use an async engine or sessionmaker"
            )

    def refuse_sync(self, function: Callable[..., Any]) -> None:
        """An async source must be awaited."""
        if not inspect.iscoroutinefunction(function):
            raise errors.WrongArgument(
                f"{called(function)} is not async, and the source is",
                hint="write `async def`, or use a sync engine or sessionmaker",
            )
