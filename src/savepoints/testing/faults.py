"""Faults on demand: an error of the database at the n-th statement or COMMIT, and a COMMIT whose answer is lost.

The database itself raises the error where it can be asked to, so that what comes after it is as after the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from savepoints import _compat, errors
from savepoints._databases import Capabilities, Kind, capabilities

# what steers a transaction is no statement of the code under test
_STEERING = ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT", "PRAGMA", "SET ", "PREPARE", "XA ")


class Fault:
    """What a block of `inject` or `lose_commit` has done.

    Attributes:
        fired: How many times it has struck.
    """

    def __init__(self, at: int, times: int) -> None:
        self.fired: int = 0
        self._at = at
        self._times = times
        self._count = 0

    def begin(self) -> None:
        """A transaction begins: its statements are counted anew."""
        self._count = 0

    def strikes(self, *, further: bool = False) -> bool:
        """Count one, and say whether it is the one; or ``further`` ones, too."""
        self._count += 1
        is_due = self._count >= self._at if further else self._count == self._at
        if not is_due or self.fired >= self._times:
            return False
        self.fired += 1
        return True


@contextmanager
def inject(
    engine: Any, kind: Kind | str, *, statement: int | None = None, commit: int | None = None, times: int = 1
) -> Iterator[Fault]:
    """A block in which the database refuses a statement, or a COMMIT, with an error of that kind.

    ::

        with inject(engine, "serialization failure", statement=2, times=2) as fault:
            transfer()  # its first two tries fail at their second statement
        assert fault.fired == 2

    Args:
        engine: An engine, sync or async. What `execution_options` made of it (or it was made of) is struck, too: they
            share one dialect. Other engines are not touched.
        kind: A `savepoints.Kind`, or its name: "serialization failure", "deadlock", "lock timeout", "busy", ...
        statement: At which statement of a transaction; what steers it (SAVEPOINT, ROLLBACK, ...) does not count.
        commit: Instead: at which COMMIT.
        times: In how many transactions, one after the other, or at how many COMMITs from that one on.

    Raises:
        NotSupported: The database has no such error; the message tells which ones can be had.
        WrongArgument: Not exactly one of statement and commit is given, or one is below 1.
    """
    sync_engine = _sync_engine(engine)
    at, times = _place(statement, commit), _counted("times", times)
    provoke = _provocation(capabilities(sync_engine.dialect), kind)
    fault = Fault(at, times)
    with ExitStack() as stack:
        if statement is not None:
            _at_statements(stack, sync_engine, fault, provoke)
        else:
            _at_commits(stack, sync_engine, fault, provoke)
        yield fault


@contextmanager
def lose_commit(engine: Any, *, stored: bool, commit: int = 1, times: int = 1) -> Iterator[Fault]:
    """A block in which the connection breaks during a COMMIT: its answer is lost, and nobody knows.

    A database in memory is gone with its connection: use one in a file.

    Args:
        engine: An engine, sync or async, as for `inject`.
        stored: Whether the COMMIT reaches the database before the connection breaks.
        commit: At which COMMIT.
        times: At how many of them, from that one on.

    Raises:
        WrongArgument: A number is below 1.
    """
    fault = Fault(_counted("commit", commit), _counted("times", times))

    def lose(original: Callable[[], None], connection: Any) -> None:
        if stored:
            original()
        connection.dbapi_connection.close()
        connection.cursor().execute("SELECT 1")  # now it is the driver that says so

    with ExitStack() as stack:
        _instead_of(stack, _sync_engine(engine), fault, lose, ("do_commit", "do_commit_twophase"))
        yield fault


def _sync_engine(engine: Any) -> Engine:
    found = getattr(engine, "sync_engine", engine)
    if not isinstance(found, Engine):
        raise errors.WrongArgument(
            f"faults are injected into an engine, not into {errors.kind_of(engine)}", hint="give the engine"
        )
    return _compat.parent_engine(found)


def _place(statement: int | None, commit: int | None) -> int:
    if (statement is None) == (commit is None):
        raise errors.WrongArgument("a fault strikes at a statement or at a commit", hint="give exactly one of the two")
    return _counted("statement", statement) if commit is None else _counted("commit", commit)


def _counted(name: str, found: Any) -> int:
    if type(found) is not int or found < 1:
        raise errors.WrongArgument(f"{name} is a whole number from 1 on, not {found!r}", hint="the first one is 1")
    return found


def _provocation(row: Capabilities, kind: Kind | str) -> Callable[[Any], None]:
    codes: dict[str, str] = {}
    if row.provoke is not None:
        for code, rule in row.errors.items():
            codes.setdefault(rule.kind.value, code)
    found = codes.get(str(kind))
    if found is None or row.provoke is None:
        known = ", ".join(map(repr, sorted(codes))) or "none"
        raise errors.NotSupported(f"{row.database} has no error {str(kind)!r} that can be injected; there are: {known}")
    return partial(_provoke, row.provoke, found)


def _provoke(provoke: Callable[[Any, str], None], code: str, cursor: Any) -> None:
    provoke(cursor, code)
    raise AssertionError(f"{code} was not raised")


def _at_statements(stack: ExitStack, engine: Engine, fault: Fault, provoke: Callable[[Any], None]) -> None:
    def execute(cursor: Any, statement: str, *rest: Any) -> None:
        context = rest[-1]
        if context is None or not context.root_connection.in_transaction():
            return  # SQLAlchemy asks a new server about itself
        if not statement.lstrip().upper().startswith(_STEERING) and fault.strikes():
            provoke(cursor)

    def begin(connection: Any, xid: Any = None) -> None:
        fault.begin()

    _listen(stack, engine, "begin", begin)
    _listen(stack, engine, "begin_twophase", begin)
    for name in ("do_execute", "do_execute_no_params", "do_executemany"):
        _listen(stack, engine, name, execute)


def _listen(stack: ExitStack, engine: Engine, name: str, listener: Callable[..., None]) -> None:
    event.listen(engine, name, listener)
    stack.callback(event.remove, engine, name, listener)


def _at_commits(stack: ExitStack, engine: Engine, fault: Fault, provoke: Callable[[Any], None]) -> None:
    def refuse(original: Callable[[], None], connection: Any) -> None:
        provoke(connection.cursor())

    _instead_of(stack, engine, fault, refuse, ("do_commit", "do_prepare_twophase"))  # COMMIT PREPARED cannot be refused


def _instead_of(
    stack: ExitStack,
    engine: Engine,
    fault: Fault,
    strike: Callable[[Callable[[], None], Any], None],
    names: tuple[str, ...],
) -> None:
    """SQLAlchemy has no event in the place of a COMMIT: methods of this engine's dialect are replaced for a while."""
    for name in names:
        with _one_at_a_time:
            placed = _Instead(engine.dialect, name, fault, strike)
        stack.callback(placed.leave)


_one_at_a_time = Lock()


class _Instead:
    """Stands in the place of a dialect's method, over others that may do so: blocks overlap, and end in any order."""

    def __init__(
        self, dialect: Any, name: str, fault: Fault, strike: Callable[[Callable[[], None], Any], None]
    ) -> None:
        self._dialect, self._name = dialect, name
        self._fault, self._strike = fault, strike
        self._before = vars(dialect).get(name)
        self._original = getattr(dialect, name)
        self._is_over = False
        setattr(dialect, name, self)

    def leave(self) -> None:
        """Strike no more. What is over this one stays, and takes it along when it goes."""
        self._is_over = True
        with _one_at_a_time:
            while isinstance(top := vars(self._dialect).get(self._name), _Instead) and top._is_over:
                if top._before is None:
                    delattr(self._dialect, self._name)
                else:
                    setattr(self._dialect, self._name, top._before)

    def __call__(self, connection: Any, *rest: Any) -> None:
        """Given the driver's connection for a COMMIT, and SQLAlchemy's where there are two phases."""
        if not self._is_over and self._fault.strikes(further=True):
            driver = connection.connection if isinstance(connection, Connection) else connection
            self._strike(partial(self._original, connection, *rest), driver)
        else:
            self._original(connection, *rest)
