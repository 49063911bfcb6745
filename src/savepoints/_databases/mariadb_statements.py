"""What a statement of MariaDB does to the transaction that it is sent in.

Source: "SQL statements that cause an implicit commit" of MariaDB's manual; `tests/faults/test_implicit_commit.py` sends
each of them to a server. Comments and blanks may stand before a keyword, and executable comments (``/*! ... */``,
``/*M! ... */``) hold SQL: what some version of the server may run is taken for run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from savepoints._databases.capabilities import Effect

# What is no SQL: a blank, a comment, the frame of an executable comment. Atomic, so that no text makes it slow.
_SKIPPED = r"(?> \s | [#][^\n]*(?:\n|\Z) | --(?:[ \t\r][^\n]*)?(?:\n|\Z) | /\*M?!\d* | \*/ | /\*.*?(?:\*/|\Z) )"

_HARMLESS = (
    r"(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|TABLE|SAVEPOINT|RELEASE|SHOW|DESCRIBE|DESC|EXPLAIN|USE|DO"
    r"|HANDLER|PREPARE|DEALLOCATE|KILL|HELP|SIGNAL|RESIGNAL|GET|CHECKSUM|XA)\b"
)
_AT_ONCE = re.compile(rf"(?: (?!/\*M?!) {_SKIPPED} | [(] )*+ {_HARMLESS}", re.VERBOSE | re.DOTALL | re.IGNORECASE)

# The parts of a text in which a semicolon does not end a statement; comments are blanks.
_QUOTED = r"""'(?:[^'\\]|''|\\.)*(?:'|\Z) | "(?:[^"\\]|""|\\.)*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z)"""
_TOKEN = re.compile(rf"(?P<blank>{_SKIPPED}+) | (?P<end>;) | {_QUOTED} | [^\s;'\"`#/*-]+ | .", re.VERBOSE | re.DOTALL)

_OFF = r"0\b|'0'|OFF\b|FALSE\b"
_OWN = r"(?:(?:SESSION|LOCAL) |@@(?:(?:SESSION|LOCAL) ?\. ?)?)?"  # of this session, as against GLOBAL

#: The first that a statement begins with tells its effect; what is nowhere here may do anything.
_RULES: tuple[tuple[Effect | None, re.Pattern[str]], ...] = (
    (None, re.compile(_HARMLESS)),
    (None, re.compile(r"CREATE(?: OR REPLACE)? TEMPORARY TABLE\b|DROP (?:TEMPORARY|PREPARE)\b|LOAD (?:DATA|XML)\b")),
    (None, re.compile(r"ROLLBACK(?: WORK)? TO\b|\Z")),
    (Effect.ENDS, re.compile(r"(?:COMMIT|ROLLBACK)\b")),
    (Effect.OPAQUE, re.compile(r"BEGIN NOT\b")),
    (
        Effect.COMMITS,
        re.compile(
            r"(?:ALTER|CREATE|DROP|RENAME|TRUNCATE|GRANT|REVOKE|LOCK|OPTIMIZE|REPAIR|FLUSH|RESET|SHUTDOWN|INSTALL"
            r"|UNINSTALL|BACKUP|BEGIN|START TRANSACTION|SET PASSWORD|SET DEFAULT ROLE)\b"
            r"|(?:ANALYZE|CHECK)(?: NO_WRITE_TO_BINLOG| LOCAL)? (?:TABLE|VIEW)\b"
            rf"|SET (?:.*, ?)?{_OWN}`?AUTOCOMMIT`? ?:?=(?! ?(?:{_OFF}))"
        ),
    ),
    (None, re.compile(r"(?:SET|ANALYZE|CHECK)\b")),
    (Effect.OPAQUE, re.compile("")),
)
# What the server may read in another way: SQL for some versions alone, and a backslash, which sql_mode may make a
# character as any other, so that a semicolon stands elsewhere than it seems.
_READ_EITHER_WAY = re.compile(r"/\*M?!\d | \\.*; | ;.*\\", re.VERBOSE | re.DOTALL)
_FOR_ONE_STATEMENT = re.compile(r"SET STATEMENT .*? FOR ")


def effect(text: str) -> tuple[Effect, str] | None:
    """What a text of one or more statements does besides its work, and the words that tell it; None for nothing.

    Of several statements the drivers tell the first one's error alone, so that nobody sees a deadlock of another.
    """
    if ";" not in text and _AT_ONCE.match(text):
        return None
    statements = [statement for statement in map(_bare, _statements(text)) if statement]
    found = [told for statement in statements if (told := _effect(statement)) is not None]
    if found:
        return min(found, key=lambda told: told[0].value)
    if len(statements) > 1 or (statements and _READ_EITHER_WAY.search(text)):
        return Effect.OPAQUE, statements[0].partition(" ")[0]
    return None


def _statements(text: str) -> Iterator[str]:
    """The statements of a text, in capitals, with single blanks."""
    parts: list[str] = []
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "end":
            yield "".join(parts)
            parts = []
        else:
            parts.append(" " if token.lastgroup == "blank" else token[0].upper())
    yield "".join(parts)


def _bare(statement: str) -> str:
    """The statement from its first keyword on."""
    statement = statement.strip("( ")
    framed = _FOR_ONE_STATEMENT.match(statement)
    return statement if framed is None else statement[framed.end() :]


def _effect(statement: str) -> tuple[Effect, str] | None:
    effect = next(effect for effect, beginning in _RULES if beginning.match(statement))
    return None if effect is None else (effect, " ".join(re.findall(r"\w+", statement)[:2]))
