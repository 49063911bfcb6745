"""Installing on an engine, so that plain SQLAlchemy code gets what blocks of ours give; and taking it away again."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.engine import Engine

from savepoints import _compat, errors
from savepoints._core import adopt, sessions
from savepoints._core.adopt import Installation
from savepoints._core.driver import answer_driver, leave_driver
from savepoints._core.face import Face
from savepoints._core.guards import is_watched, unwatch_errors, watch_errors
from savepoints._core.wire import answer_hooks, leave_hooks
from savepoints._model.repairs import EVERY, Repair


def checked_repairs(names: Iterable[str]) -> frozenset[Repair]:
    """The repairs of these names.

    Raises:
        WrongArgument: There is none of such a name.
    """
    if isinstance(names, str):
        names = (names,)
    found = frozenset(names)
    unknown = sorted(str(name) for name in found - EVERY)
    if unknown:
        raise errors.WrongArgument(
            f"no repair is called {', '.join(map(repr, unknown))}", hint=f"there are: {', '.join(sorted(EVERY))}"
        )
    return frozenset(map(Repair, found))


def install(engine: Engine, face: Face, without: frozenset[Repair]) -> None:
    """Repair plain code on an engine; once more says anew which repairs are wanted."""
    engine = _compat.parent_engine(engine)
    first = engine.dialect not in adopt.installations
    adopt.installations[engine.dialect] = Installation(face, EVERY - without)
    if first:
        answer_hooks(engine.dialect)
        answer_driver(engine.dialect)
        watch_errors(engine)
        sessions.watch_all_sessions()


def uninstall(engine: Engine) -> None:
    """Leave plain code on an engine alone again; what verbs of ours need there stays, where they were used."""
    engine = _compat.parent_engine(engine)
    if adopt.installations.pop(engine.dialect, None) is None:
        return
    leave_driver(engine.dialect)
    if not is_watched(engine):
        leave_hooks(engine.dialect)
        unwatch_errors(engine)
    if not adopt.installations:
        sessions.watch_sessions_used()


def installed(engine: Engine) -> frozenset[Repair]:
    """What is repaired on an engine."""
    found = adopt.installations.get(engine.dialect)
    return frozenset() if found is None else found.repairs
