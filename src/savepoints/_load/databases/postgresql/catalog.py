"""The rules of a table, as the server's catalog has them: what can be checked before the rows go in, and what cannot.

A rule that is not understood is never guessed: it is left to the database, which refuses what breaks it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, text
from sqlalchemy.engine import Connection

from savepoints._load.databases.postgresql.sql import table_name


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        type: As SQL; of a domain what it is made from, since its rules are the table's, too.
        domain: The domain, as SQL.
        collation: As SQL, where it is not that of the type.
        not_null: It may not be NULL.
        filled: The database gives a value where it is left out.
        exact: Equal texts have equal bytes.
    """

    name: str
    type: str
    domain: str | None
    collation: str | None
    not_null: bool
    filled: bool
    exact: bool


@dataclass(frozen=True, slots=True)
class Check:
    """A check constraint, as SQL over the column names."""

    name: str
    columns: frozenset[str]
    sql: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key; ``parent`` is the table's name as SQL, ``own`` says that it is this table."""

    name: str
    columns: tuple[str, ...]
    parent: str
    referred: tuple[str, ...]
    own: bool


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique constraint or index over plain columns; ``at_once`` says that each row is looked at as it goes in."""

    name: str
    columns: tuple[str, ...]
    nulls_distinct: bool
    at_once: bool


@dataclass(slots=True)
class Rules:
    """What is known of a table.

    Attributes:
        oid: Its number in the catalog.
        columns: By name.
        primary: The columns of the primary key.
        left: Rules that only the database can check, with why.
        deferrable: Names, as SQL, of constraints that can be checked at COMMIT, and whether they are by themselves.
        generated: The columns that the database computes, and takes no values for.
        referred: The columns that foreign keys point to.
        triggered: Row triggers may change a row or leave it out.
        looks_around: What looks at other rows of the table while a row goes in, if anything: within one statement it
            may see later rows, too, or not see earlier ones.
        own_keys: The columns of the foreign keys to the table itself, by their names.
        policed: Row level security holds for this user.
        ruled: It has rules: COPY passes them by, and a statement of many rows lets them act once.
        replaced: The rules, of these, that put something else in the place of an INSERT or UPDATE.
        named: The columns of keys, and the one of a check, by the names of these constraints or indexes.
        copied: COPY may be used on it: no such policies, an ordinary table.
        scripted: There is PL/pgSQL.
        staged: There is the right to temporary tables, too.
    """

    oid: int
    columns: dict[str, Column]
    primary: tuple[str, ...] = ()
    checks: list[Check] = field(default_factory=list)
    foreign_keys: list[ForeignKey] = field(default_factory=list)
    uniques: list[Unique] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    deferrable: dict[str, bool] = field(default_factory=dict)
    generated: frozenset[str] = frozenset()
    referred: frozenset[str] = frozenset()
    triggered: bool = False
    looks_around: str | None = None
    own_keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    policed: bool = False
    ruled: bool = False
    replaced: tuple[str, ...] = ()
    named: dict[str, tuple[str, ...]] = field(default_factory=dict)
    copied: bool = True
    scripted: bool = True
    staged: bool = True


# Of triggers: 1 is for each row, 2 before, 4 on insert, 16 on update. A partition may have triggers of its own.
_TABLE = text("""
SELECT c.oid, c.relkind, row_security_active(c.oid) AS policed, c.relispartition, t.triggered, t.around,
    ARRAY(SELECT DISTINCT a.attname::text FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = c.oid
          AND a.attnum = ANY(f.confkey) WHERE f.confrelid = c.oid AND f.contype = 'f') AS referred,
    r.ruled, r.replaced,
    has_database_privilege(current_database(), 'TEMP') AS temporary,
    EXISTS (SELECT FROM pg_language l WHERE l.lanname = 'plpgsql' AND has_language_privilege(l.oid, 'USAGE'))
        AS scripted
FROM pg_class c, LATERAL (
    SELECT count(*) > 0 AS ruled, coalesce(array_agg(r.rulename::text) FILTER (WHERE r.is_instead), '{}') AS replaced
    FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled <> 'D'
        AND (r.ev_type = '3' OR (r.ev_type = '2' AND CAST(:events AS integer) & 16 <> 0))) r, LATERAL (
    SELECT count(*) > 0 AS triggered, coalesce(bool_or(t.tgtype & 2 = 0 OR f.provolatile <> 'v'), false) AS around
    FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
    WHERE (t.tgrelid = c.oid OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))) AND NOT t.tgisinternal
        AND t.tgenabled <> 'D' AND t.tgtype & 1 = 1 AND t.tgtype & CAST(:events AS integer) <> 0) t
WHERE c.oid = CAST(CAST(:name AS text) AS regclass)
""")

_COLUMNS = text("""
SELECT a.attname, format_type(b.oid, b.typmod) AS type, a.attnotnull OR b.not_null AS not_null,
    CASE WHEN t.typtype = 'd' THEN format_type(t.oid, a.atttypmod) END AS domain,
    CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END AS collation,
    coalesce(l.collisdeterministic, false) AS exact, a.attgenerated <> '' AS generated,
    a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS filled
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation, LATERAL (
    WITH RECURSIVE base AS (
        SELECT t.oid, a.atttypmod AS typmod, t.typtype, t.typbasetype, t.typtypmod, t.typnotnull AS not_null
        UNION ALL
        SELECT u.oid, base.typtypmod, u.typtype, u.typbasetype, u.typtypmod, base.not_null OR u.typnotnull
        FROM base JOIN pg_type u ON u.oid = base.typbasetype WHERE base.typtype = 'd'
    ) SELECT * FROM base WHERE typtype <> 'd') b
WHERE a.attrelid = CAST(:oid AS oid) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
""")

_NAMES = """
ARRAY(SELECT a.attname::text FROM unnest({key}) WITH ORDINALITY AS k(n, i)
      JOIN pg_attribute a ON a.attrelid = {table} AND a.attnum = k.n ORDER BY k.i)
"""

_CONSTRAINTS = text(f"""
SELECT c.conname, c.contype, c.condeferrable, c.condeferred, c.confmatchtype,
    c.confrelid = c.conrelid OR c.confrelid IN (SELECT relid FROM pg_partition_tree(c.conrelid))
        OR c.confrelid IN (SELECT relid FROM pg_partition_ancestors(c.conrelid)) AS own,
    quote_ident(n.nspname) || '.' || quote_ident(c.conname) AS whole,
    {_NAMES.format(key="c.conkey", table="c.conrelid")} AS columns,
    CASE WHEN c.contype = 'f' THEN {_NAMES.format(key="c.confkey", table="c.confrelid")} END AS referred,
    pg_get_expr(c.conbin, c.conrelid) AS sql,
    CASE WHEN c.contype = 'f' THEN quote_ident(pn.nspname) || '.' || quote_ident(p.relname) END AS parent,
    p.relrowsecurity, CASE WHEN c.contype = 'f' THEN has_table_privilege(p.oid, 'SELECT') END AS readable,
    coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true) AS enforced,
    coalesce((to_jsonb(c) ->> 'conperiod')::boolean, false) AS period,
    EXISTS (SELECT FROM pg_depend d JOIN pg_proc f ON f.oid = d.refobjid WHERE d.classid = 'pg_constraint'::regclass
            AND d.objid = c.oid AND d.refclassid = 'pg_proc'::regclass AND f.provolatile <> 'i') AS volatile
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    LEFT JOIN pg_class p ON p.oid = c.confrelid LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.conrelid = CAST(:oid AS oid) AND c.contype IN ('c', 'f', 'p', 'u', 'x', 't')
    AND (c.contype <> 't' OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = c.oid
                                     AND t.tgtype & CAST(:events AS integer) <> 0))
    AND NOT EXISTS (SELECT FROM pg_constraint whole WHERE whole.oid = c.conparentid AND whole.conrelid = c.conrelid)
ORDER BY c.conname
""")  # 't' is a constraint trigger. A foreign key to a partitioned table has an entry for each partition, too

_INDEXES = text(f"""
SELECT i.indexrelid::regclass::text AS sql, c.relname, i.indisprimary, i.indpred IS NOT NULL AS partial,
    i.indexprs IS NOT NULL AS expression, i.indisexclusion, i.indimmediate,
    {_NAMES.format(key="(i.indkey::int2[])[0:i.indnkeyatts - 1]", table="i.indrelid")} AS columns,
    coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_not_distinct,
    EXISTS (SELECT FROM unnest(i.indcollation::oid[], i.indkey::int2[]) AS k(c, n)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
            WHERE k.c <> 0 AND k.c <> a.attcollation) AS recollated
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = CAST(:oid AS oid) AND i.indisunique AND i.indislive ORDER BY NOT i.indisprimary, c.relname
""")


def read(connection: Connection, table: Table, *, updates: bool) -> Rules:
    """The rules of a table, for rows that are inserted, and may be updated."""
    events = 4 | 16 if updates else 4
    found = connection.execute(_TABLE, {"name": table_name(table), "events": events}).one()
    listed = connection.execute(_COLUMNS, {"oid": found.oid}).all()
    columns = {
        one.attname: Column(one.attname, one.type, one.domain, one.collation, one.not_null, one.filled, one.exact)
        for one in listed
    }
    rules = Rules(found.oid, columns, triggered=found.triggered, scripted=found.scripted)
    rules.staged = found.temporary and found.scripted
    rules.generated = frozenset(one.attname for one in listed if one.generated)
    rules.referred = frozenset(found.referred)
    if found.around:
        rules.looks_around = "a trigger may look at other rows"
    kind = _letter(found.relkind)
    rules.policed = found.policed
    rules.ruled, rules.replaced = found.ruled, tuple(found.replaced)
    rules.copied = kind in ("r", "p") and not found.policed
    if found.policed:
        rules.left["row level security"] = "its policies are looked at as a row goes in"
    if found.triggered:
        rules.left["row triggers"] = "they may change a row"
    if kind == "p" or found.relispartition:
        rules.left["partitions"] = "a row may have no place"
    for one in connection.execute(_CONSTRAINTS, {"oid": found.oid, "events": events}):
        _constraint(rules, one)
    for one in connection.execute(_INDEXES, {"oid": found.oid}):
        _index(rules, one)
    return rules


def _letter(found: Any) -> str:
    """A "char" of the catalog: asyncpg gives bytes."""
    return found.decode() if isinstance(found, bytes) else str(found)


def _constraint(rules: Rules, one: Any) -> None:
    kind = _letter(one.contype) if one.enforced else "none"
    if kind == "f" and one.own:
        rules.own_keys[one.conname] = tuple(one.columns)
    if one.condeferrable and one.enforced:
        rules.deferrable[one.whole] = one.condeferred
    if kind == "f" or (kind == "c" and len(one.columns) == 1):
        rules.named[one.conname] = tuple(one.columns)
    if kind == "p":
        rules.primary = tuple(one.columns)
    elif kind == "c":
        _check(rules, one)
    elif kind == "f":
        _foreign_key(rules, one)
    elif kind == "x":
        rules.left[f"exclusion {one.conname}"] = "only the index can tell"


def _check(rules: Rules, one: Any) -> None:
    if one.volatile or not one.columns:
        rules.left[f"check {one.conname}"] = "its function may answer differently each time"
        if one.volatile:
            rules.looks_around = rules.looks_around or "the function of a check may look at other rows"
    else:
        rules.checks.append(Check(one.conname, frozenset(one.columns), one.sql))


def _foreign_key(rules: Rules, one: Any) -> None:
    why = _unreadable(one)
    if why is None:
        columns, referred = tuple(one.columns), tuple(one.referred)
        rules.foreign_keys.append(ForeignKey(one.conname, columns, one.parent, referred, one.own))
    else:
        rules.left[f"foreign key {one.conname}"] = why


def _unreadable(one: Any) -> str | None:
    """Why a foreign key cannot be checked beforehand, if so."""
    if not one.readable:
        return "its parent cannot be read"
    if one.relrowsecurity:
        return "its parent shows each user other rows"
    if _letter(one.confmatchtype) == "f" or one.period:
        return "it matches in a way of its own"
    return None


def _index(rules: Rules, one: Any) -> None:
    if one.indisexclusion:
        return
    if not one.expression:
        rules.named[one.relname] = tuple(one.columns)
    if one.partial or one.expression or one.recollated:
        rules.left[f"unique {one.relname}"] = "it is over an expression, or over some rows only"
        return
    rules.uniques.append(Unique(one.relname, tuple(one.columns), not one.nulls_not_distinct, one.indimmediate))
