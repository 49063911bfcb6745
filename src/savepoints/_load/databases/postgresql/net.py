"""The net: what no check foresaw, found on the server by trying, in blocks that shrink where one fails.

A block of PL/pgSQL with an exception handler is a savepoint on the server: a refused row costs no round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from savepoints._databases import Fault
from savepoints._load.databases.postgresql.sql import literal
from savepoints._load.databases.postgresql.stage import NUMBER, Stage
from savepoints._load.reasons import Reason, reason

#: So many rows are tried at once; after a failure half as many, down to one, after a success twice as many.
BLOCK = 512


class Caught(NamedTuple):
    """What came of a run.

    Attributes:
        loaded: New rows.
        updated: Rows that were there.
        refused: The reasons of the others by index.
        own: Those that a rule of the table itself has refused, and not one of another that a trigger writes to.
    """

    loaded: int
    updated: int
    refused: dict[int, Reason]
    own: frozenset[int]


class ServerError(Exception):
    """What the server reports of a refused row, with the attributes that the classifier reads."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def run(
    stage: Stage,
    work: str,
    last: int,
    table: str,
    fault: Callable[[BaseException], Fault | None],
    *,
    block: int = BLOCK,
    suspects: Iterable[int] = (),
    policed: bool = False,
) -> Caught:
    """Insert the rows that are in the stage, in order, and refuse those that the database refuses.

    Args:
        stage: The stage; rows that are known to be bad have been deleted.
        work: Common table expressions that do it, with ``{where}`` for which rows; the last one is ``done``, with
            a row for each, and ``fresh`` where it is new.
        last: The highest number.
        table: The target's name.
        fault: The database's classifier.
        block: So many rows are tried at once at most.
        suspects: Rows that had better be tried alone, in order.
        policed: The code of a missing right may be a policy's refusal of a row.

    Raises:
        sqlalchemy.exc.DBAPIError: What is no row's fault.
    """
    result = f"{stage.name}_net"
    stage.run(f"CREATE INDEX {stage.name}_index ON {stage.name} ({NUMBER})")
    stage.run(f"CREATE TEMPORARY TABLE {result} {_RESULT} ON COMMIT DROP")
    where = f"{NUMBER} BETWEEN savepoints_net.lo AND savepoints_net.hi"
    alone = f"'{{{','.join(map(str, suspects))}}}'"
    of_rows = f"'{GENERATED}', '{POLICY}'" if policed else f"'{GENERATED}'"
    stage.run(_LOOP.format(of_rows=of_rows, work=work.format(where=where), stage=stage.name, where=where, result=result,
                           last=last, block=block, alone=alone, table=literal(table)))  # fmt: skip
    found = stage.run(f"SELECT * FROM {result} ORDER BY n").all()
    stage.run(f"DROP TABLE {result}")
    stage.run(f"DROP INDEX {stage.name}_index")
    total = found[0]
    refused = {one.n: _reason(one, fault) for one in found[1:]}
    return Caught(total.fresh, total.changed, refused, frozenset(one.n for one in found[1:] if one.own))


def _reason(one: Any, fault: Callable[[BaseException], Fault | None]) -> Reason:
    if one.code == VANISHED:
        return reason(Fault.TRIGGER, message="a trigger or rule left the row out")
    if one.code == POLICY:
        return reason(
            Fault.CHECK, message="row level security does not take such a row", code=POLICY, detail=one.message
        )
    kind = fault(ServerError(one.code, one.message)) or Fault.OTHER
    detail = f"{one.message}: {one.detail}" if one.detail else one.message
    told = f"the key of index {one.con} is a duplicate" if kind is Fault.UNIQUE and one.con else None
    return reason(kind, one.col or None, one.con or None, message=told, code=one.code, detail=detail)


#: Raised by the loop itself where fewer rows went in than were sent.
VANISHED = "SPV01"
#: Codes of a class that is not the rows' fault otherwise.
GENERATED, POLICY = "428C9", "42501"

_RESULT = (
    "(n integer, code text, message text, detail text, col text, con text, own boolean, fresh bigint, changed bigint)"
)

# Codes that begin so are not the fault of a row: the same as in the classifier, for the server must not go on after
# them. A code of class 21 says that a statement would update one row twice: there are duplicates, in one block. A name
# in a statement is a column's first, whatever the table has called them.
_LOOP = (
    """
DO $savepoints$
#variable_conflict use_column
<<savepoints_net>>
DECLARE
    lo integer := 0; hi integer; size integer := {block}; got bigint; fresh bigint; sent bigint;
    all_fresh bigint := 0; all_changed bigint := 0; alone integer[] := {alone}; next integer := 1;
    state text; told text; more text; col text; con text; tab text;
BEGIN
    WHILE lo <= {last} LOOP
        hi := least(lo + size - 1, {last});
        WHILE alone[next] < lo LOOP
            next := next + 1;
        END LOOP;
        IF alone[next] <= hi THEN
            hi := greatest(alone[next] - 1, lo);
        END IF;
        BEGIN
            WITH {work} SELECT count(*), count(*) FILTER (WHERE done.fresh) INTO got, fresh FROM done;
            SELECT count(*) INTO sent FROM {stage} WHERE {where};
            IF got <> sent THEN
                RAISE EXCEPTION USING ERRCODE = '"""
    + VANISHED
    + """', MESSAGE = 'fewer rows than were sent';
            END IF;
            all_fresh := all_fresh + fresh; all_changed := all_changed + got - fresh;
            lo := hi + 1; size := least(size * 2, {block});
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, told = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL,
                col = COLUMN_NAME, con = CONSTRAINT_NAME, tab = TABLE_NAME;
            IF left(state, 2) IN ('08', '0A', '25', '26', '28', '2D', '34', '3B', '3D', '3F', '40', '53', '54', '55',
                                  '57', '58', 'F0', 'XX') OR (left(state, 2) = '42' AND state NOT IN ({of_rows})) THEN
                RAISE;
            ELSIF hi > lo THEN
                size := greatest((hi - lo + 1) / 2, 1);
            ELSE
                INSERT INTO {result} VALUES (lo, state, told, more, col, con, tab = {table});
                lo := lo + 1;
            END IF;
        END;
    END LOOP;
    INSERT INTO {result} (n, fresh, changed) VALUES (-1, all_fresh, all_changed);
END $savepoints$
"""
)
