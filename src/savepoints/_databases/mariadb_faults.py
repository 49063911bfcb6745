"""Whose fault an error of MariaDB or MySQL is, where an INSERT of one row met it, and what its message names.

Sources: "MariaDB Error Codes" and MySQL's "Server Error Message Reference". The drivers hand through a number and a
text only, so names are found in the text. It may be in the server's other languages (`lc_messages`): these put names
into the same marks, and the key's name last. Where nothing is found there is no name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from savepoints._databases.capabilities import Fault

#: "Cannot get geometry object from data you send to the GEOMETRY field"
NO_GEOMETRY = 1416

#: By number. What is not here is not the row's fault.
FAULTS = {
    1022: Fault.UNIQUE,
    1048: Fault.NOT_NULL,
    1062: Fault.UNIQUE,
    1118: Fault.LENGTH,  # the row is too large for a page
    1169: Fault.UNIQUE,
    1216: Fault.FOREIGN_KEY,
    1264: Fault.TYPE,
    1265: Fault.TYPE,
    1292: Fault.TYPE,
    1300: Fault.ENCODING,
    1364: Fault.NOT_NULL,
    1365: Fault.OTHER,  # a division by zero, of a computed column or of a rule
    1366: Fault.TYPE,
    1367: Fault.TYPE,
    1369: Fault.VIEW_CHECK,
    1406: Fault.LENGTH,
    1411: Fault.TYPE,
    NO_GEOMETRY: Fault.TYPE,
    1452: Fault.FOREIGN_KEY,
    1526: Fault.CHECK,  # no partition takes it
    1586: Fault.UNIQUE,
    1644: Fault.TRIGGER,  # what SIGNAL raises if it gives no number
    1690: Fault.TYPE,
    1748: Fault.CHECK,  # another partition would take it
    1761: Fault.UNIQUE,
    1906: Fault.GENERATED,
    1977: Fault.ENCODING,
    3105: Fault.GENERATED,
    3140: Fault.TYPE,  # no JSON
    3819: Fault.CHECK,
    4025: Fault.CHECK,
    4078: Fault.TYPE,  # a value of another class, as a number for a UUID
}
#: The servers' own numbers end before. A trigger that raises one of its own takes a larger one.
_OWN = range(5000, 65536)

_QUOTED = re.compile(r"'([^']+)'")
_LAST_QUOTED = re.compile(r"'.*'.*'([^']+)'[^']*\Z", re.DOTALL)
_MARKED = re.compile(r"`((?:[^`]|``)+)`")
_LAST_MARKED = re.compile(r"`((?:[^`]|``)+)`[^`]*\Z")
_OF_KEY = re.compile(r"CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY \(`([^)]+)`\)")

_BAD_VALUE = (1366, 1292, 4078)


class Named(NamedTuple):
    """What an error names."""

    constraint: str | None = None
    column: str | None = None


def fault(number: int | None, text: str) -> Fault | None:
    """What is wrong with the row; None where it is not the row's fault."""
    if number in _OWN:
        return Fault.TRIGGER
    if number == 1366 and "string" in text.partition("'")[0]:  # the one word of it that no language translates
        return Fault.ENCODING
    return None if number is None else FAULTS.get(number)


def named(number: int | None, text: str) -> Named:
    """The constraint and the column that an error names."""
    kind = None if number is None else FAULTS.get(number)
    if kind is Fault.UNIQUE:
        return Named(constraint=_found(_LAST_QUOTED, text))
    if kind is Fault.FOREIGN_KEY:
        return _foreign_key(text)
    if number == 4025:
        return _check(text)
    if number == 3819:
        return Named(constraint=_found(_QUOTED, text))
    if number in _BAD_VALUE:
        return Named(column=_found(_LAST_MARKED, text))
    return Named(column=_found(_QUOTED, text)) if kind in _OF_COLUMNS else Named()


_OF_COLUMNS = (Fault.NOT_NULL, Fault.LENGTH, Fault.TYPE)


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return None if found is None else found[1].replace("``", "`")


def _foreign_key(text: str) -> Named:
    """The words are translated, but not the definition behind them."""
    found = _OF_KEY.search(text)
    if found is None:
        return Named()
    return Named(found[1].replace("``", "`"), ", ".join(found[2].split("`, `")).replace("``", "`"))


def _check(text: str) -> Named:
    """The check of a column has no name of its own: it is called by the table and the column."""
    marked = [one.replace("``", "`") for one in _MARKED.findall(text)]
    if not marked:
        return Named()
    table, _, column = marked[0].partition(".")
    return Named(column, column) if column and table == marked[-1] else Named(marked[0])
