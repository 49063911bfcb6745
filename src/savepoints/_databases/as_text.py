"""COMMIT and ROLLBACK that are sent as text: until somebody asks the driver, it may have begun the next transaction."""

from __future__ import annotations

import re

from savepoints._databases.capabilities import Effect

_BLANK = r"(?> \s | ; | --[^\n]*(?:\n|\Z) | /\*.*?(?:\*/|\Z) )"

#: What is said of a savepoint, or of a transaction that was prepared, ends nothing here.
_ENDS = re.compile(
    rf"{_BLANK}*+ (COMMIT|END|ABORT|ROLLBACK)\b"
    rf"(?! (?:{_BLANK}++ (?:WORK|TRANSACTION)\b)? {_BLANK}++ (?:TO|PREPARED)\b)",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


#: How the usual statements begin, which end nothing.
HARMLESS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "SAVEPOINT", "RELEASE", "ROLLBACK TO")


def effect(text: str) -> tuple[Effect, str] | None:
    """Whether a text begins by ending the transaction, and the word that tells it."""
    found = _ENDS.match(text)
    return None if found is None else (Effect.ENDS, found[1].upper())
