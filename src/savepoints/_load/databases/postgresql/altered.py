"""Values that PostgreSQL would cut or round to make them fit, without a word: they are found before they are sent.

By its shape nearly every value is seen to fit, whole columns at a time. Of the others the server is asked: it alone
reads all the ways in which a date may be written. See Note [What a type drops].
"""

# Note [What a type drops]
# An error comes of a value that a type cannot read or hold, but not of one that it reads and then cuts: `timestamp`
# drops a zone, `date` a time, `time` a date and a zone, `timestamp(0)` and `numeric(5,2)` round, `varchar(3)` drops
# blanks, `name` and `"char"` all that is too much ("Data Types" of the manual; zones: "Date/Time Types", 8.5.1.3).
# Python's values with a zone are refused for such columns, and so is text that says the same. A zone is found by
# reading the text in a time zone that no place has: if that changes what it means, it has none of its own. What a
# binary fraction cannot hold (`real`, `double precision`) is near to what was given by the nature of the type, and
# is no alteration; JSON is kept by its meaning.

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from savepoints._databases import Fault
from savepoints._load.convert import encodes
from savepoints._load.databases.postgresql.catalog import Column
from savepoints._load.databases.postgresql.sql import literal, send
from savepoints._load.databases.postgresql.text import Unwritable, Writer
from savepoints._load.intake import Batch
from savepoints._load.reasons import Reason, reason

#: Of so many texts the server is asked at once.
ASKED = 5000

_DAY = frozenset({b"--"})
_HOURS = frozenset({b":", b"::", b"::."})
_MOMENT = _DAY | {b"-- " + hours for hours in _HOURS} | {b"--T" + hours for hours in _HOURS}
_OFFSETS = frozenset({hours + zone for hours in _HOURS for zone in (b"", b"Z", b"+", b"-", b"+:", b"-:")})
_ANY = re.compile("")


@dataclass(frozen=True, slots=True)
class Loss:
    """How a type may alter a text.

    Attributes:
        tests: Conditions on the text ``x``, in SQL; one that fails by an error does not hold.
        marks: A text without such a part is kept as it is,
        shapes: if it is also of one of these shapes: what is left of it without its digits.
        harmless: Classes whose values are kept as they are.
        elements: The texts in a value, in SQL.
    """

    tests: tuple[str, ...]
    marks: re.Pattern[str]
    shapes: frozenset[bytes] | None = None
    harmless: frozenset[type] = frozenset({type(None), bool, int, datetime.date})
    elements: str = "ARRAY[given.value]"

    def doubtful(self, writer: Writer, cells: Sequence[Any]) -> dict[int, str]:
        """The texts that may be altered, by the index of their cells."""
        kinds = set(map(type, cells))
        strange = kinds - self.harmless
        if not strange:
            return {}
        places = range(len(cells)) if kinds == strange else [at for at, one in enumerate(cells) if type(one) in strange]
        texts = cells if kinds == strange else [cells[at] for at in places]
        if strange != {str}:
            texts = [_text(writer, value) for value in texts]
        return {places[nth]: texts[nth] for nth in self._doubtful(texts)}

    def _doubtful(self, texts: Sequence[str]) -> Collection[int]:
        joined = "\n".join(texts)
        marked = bool(self.marks.search(joined))
        found = {at for at, text in enumerate(texts) if self.marks.search(text)} if marked else set()
        if self.shapes is None:
            return found
        left = _shape(joined)
        first = left.partition(b"\n")[0]
        if first in self.shapes and left == b"\n".join([first] * len(texts)):  # as in most files: the lines are alike
            return found
        shapes = left.split(b"\n") if left.count(b"\n") + 1 == len(texts) else list(map(_shape, texts))
        return found.union(at for at, shape in enumerate(shapes) if shape not in self.shapes)


def _shape(text: str) -> bytes:
    return text.encode(errors="replace").translate(None, b"0123456789")


def _text(writer: Writer, cell: Any) -> str:
    try:
        return writer.value(cell) or ""
    except Unwritable:  # it is refused for that
        return ""


# -- by types

_NAME = re.compile(r'(?P<base>[a-z" ]+?)(?:\((?P<size>\d+)(?:,(?P<scale>-?\d+))?\))?(?P<zone> with(?:out)? time zone)?')
_RANGES = {"date": "date", "ts": "timestamp without time zone", "tstz": "timestamp with time zone"}
_BOUNDS = """ARRAY(SELECT btrim(m[1], '"') FROM regexp_matches(given.value, '("[^"]*"|[^][(){},"]+)', 'g') AS m)"""

_FINE = r"x ~ '\.\d{6}\d*[1-9]'"
_ZONED = "CAST(x AS timestamptz) <> CAST(x AS timestamp) AT TIME ZONE current_setting('TimeZone')"
_OFFSET = "extract(timezone FROM CAST(x AS timetz)) <> extract(timezone FROM now())"
_DATED = "CAST(x AS timestamp) - CAST(CAST(x AS date) AS timestamp) = CAST(CAST(x AS time) AS interval)"
_TIMED = (
    "CAST(x AS timestamp) <> CAST(CAST(x AS date) AS timestamp)",
    "CAST(x AS date) > '294276-12-31' AND CAST(x AS time) <> '00:00'",  # where no timestamp reaches
)
_NUMBER = "CAST(regexp_replace(x, '[^0-9.]|\\.(?=.*\\.)', '', 'g') AS numeric)"
_WITH_COMMA = "CAST(replace(regexp_replace(x, '[^0-9,]|,(?=.*,)', '', 'g'), ',', '.') AS numeric)"
_AMOUNT = f"abs(CAST(CAST(x AS money) AS numeric)) NOT IN ({_NUMBER}, {_WITH_COMMA})"
_BARE = "x ~ '^\\s*[-+]?[0-9.]+\\s*$'"


def loss(kind: str) -> Loss | None:
    """How a type may alter a text; None if it does not."""
    element = kind.removesuffix("[]")
    if element != kind:
        found = _long(element) or loss(element)
        if found is None or found.elements == _BOUNDS:
            return None
        marks = found.marks if found.shapes is None else _ANY
        return replace(found, marks=marks, shapes=None, elements="CAST(given.value AS text[])")
    for name, inner in _RANGES.items():
        if kind in (f"{name}range", f"{name}multirange"):
            found = loss(inner)
            return found and replace(found, marks=_ANY, shapes=None, elements=_BOUNDS)
    parts = _NAME.fullmatch(kind)
    return None if parts is None else _loss(kind, parts["base"], parts["size"], parts["scale"], parts["zone"])


def _loss(kind: str, base: str, size: str | None, scale: str | None, zone: str | None) -> Loss | None:
    rounds = (_differs(kind, base + (zone or "")),) if size else ()
    marks = _fraction(int(size or 6))
    if base == "date":
        return Loss((*_TIMED, _ZONED), marks, _DAY)
    if base == "timestamp":
        return (
            Loss((*rounds, _FINE), marks)
            if zone == " with time zone"
            else Loss((*rounds, _FINE, _ZONED), marks, _MOMENT)
        )
    if base == "time":
        zoned = zone == " with time zone"
        return Loss((*rounds, _FINE, _DATED, *(() if zoned else (_OFFSET,))), marks, _OFFSETS if zoned else _HOURS)
    if base.startswith("interval"):
        return _interval(kind, base)
    if base == "money":
        return Loss((_AMOUNT,), re.compile(r"[.,]\d\d\d*[1-9]|[eE]"))
    return _numeric(kind, int(scale)) if base == "numeric" and scale else None


def _differs(kind: str, whole: str) -> str:
    return f"CAST(x AS {kind}) <> CAST(x AS {whole})"


def _fraction(digits: int) -> re.Pattern[str]:
    """More digits behind the point than that; zeros do not count."""
    return re.compile(rf"\.\d{{{digits}}}\d*[1-9]")


def _numeric(kind: str, scale: int) -> Loss:
    test = _differs(kind, "numeric")
    if scale < 0:
        return Loss((test,), _ANY, harmless=frozenset({type(None)}))
    return Loss((test,), re.compile(rf"{_fraction(scale).pattern}|[eE_]"))


def _interval(kind: str, base: str) -> Loss:
    if kind == "interval":
        return Loss((r"x ~* '\.\d{6}\d*[1-9]\s*(s|$)'",), _fraction(6))
    test = _differs(kind, "interval")
    if base != "interval" and not base.endswith("second"):  # a number alone is of the last of the fields
        test = f"CASE WHEN {_BARE} THEN x ~ '\\.\\d*[1-9]' ELSE {test} END"
    return Loss((test,), _ANY, harmless=frozenset({type(None)}))


# -- text that is too long

_LONGEST = re.compile(r"(?:character(?: varying)?|bpchar)\((\d+)\)")
_OCTETS = {"name": 63, '"char"': 1}


def _longest(kind: str) -> tuple[int, bool] | None:
    """So many characters, or octets, are kept, and what is more is dropped where it is blank or the type does so."""
    found = _LONGEST.fullmatch(kind)
    if found is not None:
        return int(found[1]), False
    return (_OCTETS[kind], True) if kind in _OCTETS else None


def _long(kind: str) -> Loss | None:
    """The same of the elements of an array."""
    longest = _longest(kind)
    if longest is None:
        return None
    most, octets = longest
    return Loss((f"{'octet_length' if octets else 'length'}(x) > {most}",), _ANY if octets else re.compile(r'\s["},]'))


def _too_long(longest: tuple[int, bool], cells: Sequence[Any]) -> Iterator[int]:
    most, octets = longest
    texts = cells if set(map(type, cells)) == {str} else [cell if isinstance(cell, str) else "" for cell in cells]
    longer = max(map(len, texts), default=0) > most
    if longer or (octets and not "".join(texts).isascii()):
        yield from (
            at for at, text in enumerate(texts) if (len(text.encode(errors="replace")) if octets else len(text)) > most
        )


# -- for a load


class Losses:
    """Finds the values that the columns of a table would alter.

    Args:
        connection: Where the server is asked.
        columns: By name.
        writer: Writes values as text.
    """

    def __init__(self, connection: Connection, columns: dict[str, Column], writer: Writer) -> None:
        self._connection = connection
        self._writer = writer
        self._columns = columns
        self._losses = {name: loss(column.type) for name, column in columns.items()}
        self._longest = {name: _longest(column.type) for name, column in columns.items()}

    def of(self, batch: Batch) -> dict[int, dict[int, Reason]]:
        """Why rows are refused, by their index, and the place of the value."""
        found: dict[int, dict[int, Reason]] = {}
        for place, column in enumerate(batch.columns):
            longest, lost = self._longest.get(column.name), self._losses.get(column.name)
            if longest is not None:
                why = reason(Fault.LENGTH, column.name, code="22001")
                for at in _too_long(longest, batch.column(place)):
                    found.setdefault(at, {})[place] = why
            elif lost is not None:
                told = f"{column.name} would not keep the value as it is: its type is {self._columns[column.name].type}"
                why = reason(Fault.TYPE, column.name, message=told)
                for at in self._lost(lost, batch.column(place)):
                    found.setdefault(at, {})[place] = why
        return found

    def _lost(self, of: Loss, cells: Sequence[Any]) -> Iterator[int]:
        doubtful = of.doubtful(self._writer, cells)
        texts = sorted({text for text in doubtful.values() if "\0" not in text and encodes(text)})
        lost: set[str] = set()
        for start in range(0, len(texts), ASKED):
            lost.update(self._asked(of, texts[start : start + ASKED]))
        return (at for at, text in doubtful.items() if text in lost)

    def _asked(self, of: Loss, texts: Sequence[str]) -> Collection[str]:
        """Those that the server would alter."""
        tests = "".join(_TEST.format(test=test) for test in of.tests)
        send(self._connection, _ASK.format(values=literal(json.dumps(texts)), elements=of.elements, tests=tests))
        told = str(send(self._connection, "SELECT current_setting('savepoints.altered')").scalar())
        return [texts[int(number) - 1] for number in told.split()]


_TEST = """
                    BEGIN
                        lost := lost OR coalesce({test}, false);
                    EXCEPTION WHEN data_exception OR feature_not_supported THEN
                    END;"""

# The words mean a moment without a zone, and are told apart from one that is written out.
_ASK = """
DO $savepoints$
DECLARE given record; x text; lost boolean; found text := ''; zone text := current_setting('TimeZone');
BEGIN
    PERFORM set_config('TimeZone', '<odd>-13:37', true);
    FOR given IN SELECT * FROM json_array_elements_text({values}) WITH ORDINALITY AS of(value, number) LOOP
        lost := false;
        BEGIN
            FOREACH x IN ARRAY {elements} LOOP
                IF x !~* '^\\s*(now|epoch|allballs)\\s*$' THEN{tests}
                END IF;
            END LOOP;
        EXCEPTION WHEN data_exception THEN
        END;
        IF lost THEN
            found := found || ' ' || given.number;
        END IF;
    END LOOP;
    PERFORM set_config('TimeZone', zone, true), set_config('savepoints.altered', found, true);
END $savepoints$
"""
