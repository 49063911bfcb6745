"""Forms of a loop of tries: which are tried again, and that none goes on as if the work were stored.

Each is compiled by the Python at hand, since that is what the answer depends on, and written once for both faces: the
sync one has no `async` and no `await`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from savepoints import Retry, attempts
from savepoints.testing import inject
from tests.behaviours.tools import notes

Outcome = Literal["retried", "raised"]
Form = tuple[Outcome, Outcome, str]

# Name: what becomes of a refused COMMIT, of an error in the body, and the code.
FORMS: dict[str, Form] = {
    "plain": (
        "retried",
        "retried",
        """
        async def f():
            async for a in tries():
                async with a as s: await work(s)
        """,
    ),
    "statements behind the loop": (
        "retried",
        "retried",
        """
        async def f():
            async for a in tries():
                async with a as s:
                    for x in [1, 2]: break
                    await work(s)
            else:
                x = 3
            return x
        """,
    ),
    "so long that its jumps need longer instructions": (
        "retried",
        "retried",
        f"""
        async def f():
            async for a in tries():
                {"x = [a, a, a]; " * 400}
                async with a as s:
                    await work(s)
                    {"x = [a, a, a]; " * 400}
        """,
    ),
    "in branches": (
        "retried",
        "retried",
        """
        async def f(yes=True):
            async for a in tries():
                if yes:
                    match a.number:
                        case 1 | 2:
                            async with a as s: await work(s)
                        case _: print()
                else: print()
        """,
    ),
    "continue": (
        "retried",
        "retried",
        """
        async def f(yes=True):
            async for a in tries():
                async with a as s:
                    await work(s)
                    if yes: continue
                    print()
        """,
    ),
    "an iterator that was made before": (
        "retried",
        "retried",
        """
        async def f():
            rounds = aiter(tries())
            async for a in rounds:
                async with a as s: await work(s)
        """,
    ),
    "a block inside": (
        "retried",
        "retried",
        """
        async def f():
            async for a in tries():
                async with a as s, span(): await work(s)
        """,
    ),
    "a try inside": (
        "retried",
        "retried",
        """
        async def f():
            async for a in tries():
                async with a as s:
                    try: await work(s)
                    except ValueError: return
                    finally: print(end="")
        """,
    ),
    "a handler around that has nothing to do": (
        "retried",
        "retried",
        """
        async def f():
            async for a in tries():
                try:
                    async with a as s: await work(s)
                except ValueError: raise
        """,
    ),
    "a loop inside of another": (
        "retried",
        "retried",
        """
        async def f():
            for x in [1]:
                async for a in tries():
                    async with a as s: await work(s)
        """,
    ),
    "return inside": (
        "raised",
        "retried",
        """
        async def f():
            async for a in tries():
                async with a as s:
                    await work(s)
                    return "stored"
        """,
    ),
    "return of a value inside": (
        "raised",
        "retried",
        """
        async def f():
            async for a in tries():
                async with a as s: return await work(s)
        """,
    ),
    "break inside": (
        "raised",
        "retried",
        """
        async def f():
            async for a in tries():
                async with a as s:
                    await work(s)
                    break
            return "stored"
        """,
    ),
    "return behind": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async with a as s: await work(s)
                return "stored"
        """,
    ),
    "break behind": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async with a as s: await work(s)
                break
        """,
    ),
    "break behind by a flag": (
        "raised",
        "raised",
        """
        async def f():
            done = False
            async for a in tries():
                async with a as s:
                    done = True
                    await work(s)
                if done: break
        """,
    ),
    "a statement behind": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async with a as s: await work(s)
                sent = 1
        """,
    ),
    "an else of a try around": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                try:
                    async with a as s: await work(s)
                except ValueError: pass
                else: return "stored"
        """,
    ),
    "finally around": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                try:
                    async with a as s: await work(s)
                finally: print(end="")
        """,
    ),
    "a block before": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async with span(), a as s: await work(s)
        """,
    ),
    "a block around": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async with span():
                    async with a as s: await work(s)
        """,
    ),
    "a loop of its own around": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                for x in [1]:
                    async with a as s: await work(s)
                break
        """,
    ),
    "the loop of somebody else": (
        "raised",
        "raised",
        """
        async def f():
            for a in [await anext(aiter(tries()))]:
                async with a as s: await work(s)
        """,
    ),
    "the loop of other attempts": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async for b in tries():
                    async with a as s: await work(s)
                    break
                break
        """,
    ),
    "no loop": (
        "raised",
        "raised",
        """
        async def f():
            a = await anext(aiter(tries()))
            async with a as s: await work(s)
        """,
    ),
    "while": (
        "raised",
        "raised",
        """
        async def f():
            rounds = aiter(tries())
            while True:
                a = await anext(rounds)
                async with a as s: await work(s)
                break
        """,
    ),
    "a helper": (
        "raised",
        "raised",
        """
        async def helper(a):
            async with a as s: await work(s)
        async def f():
            async for a in tries():
                await helper(a)
                break
        """,
    ),
    "a helper with a loop": (
        "raised",
        "raised",
        """
        async def helper(a):
            for x in [1]:
                async with a as s: await work(s)
        async def f():
            async for a in tries(): await helper(a)
        """,
    ),
    "another call of the same function": (
        "raised",
        "raised",
        """
        async def listed(a):
            for one in [a]: yield one
        async def f(outer=None):
            async for a in tries() if outer is None else listed(outer):
                if outer is None:
                    await f(a)
                    break
                async with a as s: await work(s)
        """,
    ),
    "an exit stack": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async with AsyncExitStack() as stack:
                    s = await stack.enter_async_context(a)
                    await work(s)
        """,
    ),
    "a context manager around the try": (
        "raised",
        "raised",
        """
        @asynccontextmanager
        async def own(a):
            async with a as s: yield s
        async def f():
            async for a in tries():
                async with own(a) as s: await work(s)
        """,
    ),
    "a context manager around the loop": (
        "raised",
        "raised",
        """
        @asynccontextmanager
        async def own():
            async for a in tries():
                async with a as s: yield s
        async def f():
            async with own() as s: await work(s)
        """,
    ),
    "the exit called by hand": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                s = await a.__aenter__()
                try: await work(s)
                except Exception as error:
                    if not await a.__aexit__(type(error), error, error.__traceback__): raise
                else: await a.__aexit__(None, None, None)
                break
        """,
    ),
}

SYNC: dict[str, Form] = {
    "zip": (
        "raised",
        "raised",
        """
        def f():
            for a, x in zip(tries(), range(1)):
                with a as s: work(s)
        """,
    ),
    "enumerate": (
        "raised",
        "raised",
        """
        def f():
            for number, a in enumerate(tries()):
                with a as s: work(s)
        """,
    ),
    "islice of an iterator": (
        "raised",
        "raised",
        """
        def f():
            rounds = iter(tries())
            for a in islice(rounds, 1):
                with a as s: work(s)
        """,
    ),
    "any": (
        "raised",
        "raised",
        """
        def helper(a):
            with a as s: work(s)
            return True
        def f(): return any(helper(a) for a in tries())
        """,
    ),
    "map": (
        "raised",
        "raised",
        """
        def helper(a):
            with a as s: work(s)
        def f(): return next(map(helper, tries()))
        """,
    ),
}

ASYNC: dict[str, Form] = {
    "wait_for": (
        "raised",
        "raised",
        """
        async def helper(a):
            async with a as s: await work(s)
        async def f():
            async for a in tries():
                await asyncio.wait_for(helper(a), 5)
        """,
    ),
    "a task": (
        "raised",
        "raised",
        """
        async def helper(a):
            async with a as s: await work(s)
        async def f():
            async for a in tries():
                await asyncio.create_task(helper(a))
                break
        """,
    ),
    "timeout": (
        "raised",
        "raised",
        """
        async def f():
            async for a in tries():
                async with asyncio.timeout(5), a as s: await work(s)
        """,
    ),
}

# Who iterates does the work. An error there does not even come to the generator.
GENERATOR = """
    async def rounds():
        async for a in tries():
            async with a as s: yield s
    async def f():
        async with aclosing(rounds()) as given:
            async for s in given:
                await work(s)
                break
            async for s in given: break
    """

ASYNC_NAMES = {name: getattr(contextlib, name) for name in ("AsyncExitStack", "asynccontextmanager", "aclosing")}
ASYNC_NAMES |= {"asyncio": asyncio, "aiter": aiter, "anext": anext}
SYNC_NAMES = {"AsyncExitStack": contextlib.ExitStack, "asynccontextmanager": contextlib.contextmanager}
SYNC_NAMES |= {"aclosing": contextlib.closing, "aiter": iter, "anext": next}
ASYNC_WORDS = {"__aenter__": "__enter__", "__aexit__": "__exit__", "enter_async_context": "enter_context"}


class Loops:
    """A database, and forms compiled for a face on it."""

    def __init__(self, face: str, path: Path) -> None:
        self.face = face
        self.aside = create_engine(f"sqlite:///{path}")
        if face == "sync":
            self.engine: Any = create_engine(f"sqlite:///{path}")
        else:
            self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        event.listen(getattr(self.engine, "sync_engine", self.engine), "connect", hurry)
        with self.aside.begin() as connection:
            connection.execute(text("CREATE TABLE item (id INTEGER PRIMARY KEY)"))

    def compiled(self, code: str) -> Callable[[], Any]:
        code = dedent(code)
        if self.face == "sync":
            for word, plain in ASYNC_WORDS.items():
                code = code.replace(word, plain)
            code = re.sub(r"\b(async|await) ", "", code)
        names: dict[str, Any] = {"islice": islice, "span": Span, "tries": self.tries, "work": self.work}
        names |= SYNC_NAMES if self.face == "sync" else ASYNC_NAMES
        exec(code, names)
        function: Callable[[], Any] = names["f"]
        return function

    def tries(self) -> Any:
        return attempts(self.engine, Retry(attempts=3, wait=0))

    def work(self, connection: Any) -> Any:
        return connection.execute(text("INSERT INTO item VALUES (NULL)"))

    async def run(self, function: Callable[[], Any]) -> int:
        """The number of rows that are stored by a call."""
        before = self.rows()
        if self.face == "async":
            await function()
        else:
            function()
        return self.rows() - before

    def rows(self) -> int:
        with self.aside.connect() as connection:
            number: int = connection.execute(text("SELECT count(*) FROM item")).scalar_one()
        return number

    async def proves(self, function: Callable[[], Any], outcome: Outcome, **where: int) -> None:
        """An error once: the work is stored by another try, or the error is told, with what to do, and nothing is."""
        before = self.rows()
        with inject(self.engine, "busy", **where) as fault:
            if outcome == "retried":
                assert await self.run(function) == 1
            else:
                with pytest.raises(OperationalError) as caught:
                    await self.run(function)
                assert "has to stand in the `for` itself" in notes(caught.value)
                assert self.rows() == before
        assert fault.fired == 1


def hurry(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


class Span:
    """A block of somebody's, of both kinds."""

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *error: object) -> None: ...


@pytest.fixture
async def loops(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Loops]:
    loops = Loops(request.param, tmp_path / "loops.db")
    yield loops
    loops.aside.dispose()
    await loops.engine.dispose() if loops.face == "async" else loops.engine.dispose()


BOTH = pytest.mark.parametrize("loops", ["sync", "async"], indirect=True)
CASES = [
    pytest.param(face, *form, id=f"{face}-{name}")
    for face, own in (("sync", SYNC), ("async", ASYNC))
    for name, form in (FORMS | own).items()
]


@pytest.mark.parametrize(("loops", "refused_commit", "error_inside", "code"), CASES, indirect=["loops"])
async def test_a_form(loops: Loops, refused_commit: Outcome, error_inside: Outcome, code: str) -> None:
    function = loops.compiled(code)
    for _ in range(20):  # Python adapts what runs often; the answer must not change
        assert await loops.run(function) == 1
    await loops.proves(function, refused_commit, commit=1)
    await loops.proves(function, error_inside, statement=1)
    assert await loops.run(function) == 1


@BOTH
async def test_a_generator_hands_the_work_to_somebody_else(loops: Loops) -> None:
    function = loops.compiled(GENERATOR)
    assert await loops.run(function) == 1
    await loops.proves(function, "raised", commit=1)
    with inject(loops.engine, "busy", statement=1), pytest.raises(OperationalError):
        await loops.run(function)
    assert loops.rows() == 1


@BOTH
@pytest.mark.parametrize("form", ["plain", "return inside", "break behind"])
async def test_while_a_debugger_looks_on(loops: Loops, form: str) -> None:
    """Tracing rewrites the code that runs."""
    refused_commit, error_inside, code = FORMS[form]
    function = loops.compiled(code)

    def trace(*_: Any) -> Any:
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await loops.proves(function, refused_commit, commit=1)
        await loops.proves(function, error_inside, statement=1)
    finally:
        sys.settrace(before)
