"""What is asked of a dialect; and its methods and options that we answer, and how they are given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Connection, Dialect

from savepoints._databases import Capabilities

_ABSENT = object()


def driver_connection(dialect: Dialect, pooled: Any) -> Any:
    """The driver's own connection; the pool does not tell it of one that was detached from it."""
    found = pooled.driver_connection
    return dialect.get_driver_connection(pooled.dbapi_connection) if found is None else found


def is_closed(connection: Connection, row: Capabilities) -> bool:
    """Whether the driver's connection was closed behind SQLAlchemy: nothing more can be stored then."""
    driver = driver_connection(connection.dialect, connection.connection)
    return bool(row.closed(driver))


class Answers:
    """What is set on dialects as attributes of their own, over those of their class.

    What was there before is kept on the dialect itself, so that it keeps no dialect alive.
    """

    def __init__(self, name: str) -> None:
        self._key = f"savepoints_{name}"

    def set(self, dialect: Dialect, answers: Mapping[str, Any]) -> None:
        """Set them, once."""
        own = vars(dialect)
        if self._key not in own:
            own[self._key] = {name: (own.get(name, _ABSENT), answer) for name, answer in answers.items()}
            own.update(answers)

    def leave(self, dialect: Dialect) -> None:
        """Give them back; what somebody else has put over them since stays, and ours inside it does nothing."""
        own = vars(dialect)
        for name, (before, answer) in own.pop(self._key, {}).items():
            if own.get(name) is not answer:
                continue
            if before is _ABSENT:
                del own[name]
            else:
                own[name] = before
