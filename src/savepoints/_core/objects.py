"""Objects touched inside a level, and their restoring after a rollback to it.

SQLAlchemy's nested rollback restores what the unit of work wrote. It forgets what was only refreshed inside, rows
that were first loaded inside, and relationships that reach them. What was touched is collected by the listeners, and
only that is expired: the cost follows what was touched, not the size of the session.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import inspect, select, tuple_
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction, selectinload, undefer
from sqlalchemy.orm.interfaces import RelationshipDirection

_Key = Any


class Touched:
    """What happened to a session's objects inside one level."""

    __slots__ = ("born", "heavy", "read", "written")

    def __init__(self) -> None:
        self.born: WeakSet[InstanceState[Any]] = WeakSet()  # rows first loaded inside
        self.read: WeakSet[InstanceState[Any]] = WeakSet()  # refreshed, or had a relationship loaded
        self.written: WeakKeyDictionary[InstanceState[Any], _Key] = WeakKeyDictionary()  # flushed, with the old key
        self.heavy = False  # added, deleted or changed in bulk: SQLAlchemy's own record is needed

    def update(self, inner: Touched) -> None:
        """A level inside has ended; whether it was kept or undone, a rollback of this one undoes it."""
        self.born |= inner.born
        self.read |= inner.read
        for state, key in inner.written.items():
            self.written.setdefault(state, key)
        self.heavy = self.heavy or inner.heavy

    def is_light(self, session: Session, nested: SessionTransaction) -> bool:
        """Whether expiring what was written is all that SQLAlchemy's rollback would do."""
        return (
            not self.heavy
            and nested.is_active
            and session.get_nested_transaction() is nested
            and not session.new
            and not session.deleted
            and all(state.key == key for state, key in self.written.items())
            and not _has_listeners(session)
        )


#: How many listeners of ours hang on each event of a session.
_OURS = {"after_rollback": 0, "after_soft_rollback": 0, "after_commit": 1, "before_commit": 1}


def _has_listeners(session: Session) -> bool:
    """Whether somebody else listens to how levels end."""
    dispatch: Any = session.dispatch
    return any(len(getattr(dispatch, name)) > ours for name, ours in _OURS.items())


def restore(session: Session, touched: Touched, *, reloading: bool) -> None:
    """Expire what was touched inside and is still the session's.

    Called after the rollback was answered. Objects that were expunged inside stay out.

    Args:
        session: The session.
        touched: What was touched inside.
        reloading: Load again what was loaded: in async code a later access to an expired attribute would have to load
            it without an ``await``, which raises MissingGreenlet.
    """
    states = dict.fromkeys((*touched.written, *touched.read, *touched.born))
    for state in session.dirty:
        states[inspect(state)] = None
    objects = [obj for state in states if (obj := state.obj()) is not None and obj in session]
    if touched.born:
        _forget_ghosts(session, {id(obj) for state in touched.born if (obj := state.obj()) is not None}, touched.born)
    loaded = [(obj, frozenset(obj.__dict__)) for obj in objects] if reloading else []
    for obj in objects:
        expire(session, obj)
    if loaded:
        reload(session, loaded)


def expire(session: Session, obj: Any) -> None:
    """Expire one object and nothing else.

    ``session.expire`` follows relationships with a refresh-expire cascade; expired by name first, they are not
    loaded any more, and there is nothing to follow.
    """
    relationships = inspect(obj).mapper.relationships.keys()
    if relationships:
        session.expire(obj, relationships)
    session.expire(obj)


def _forget_ghosts(session: Session, ghosts: set[int], states: Iterable[InstanceState[Any]]) -> None:
    """Expire many-to-one references to rows that were first loaded inside.

    They are answered from the identity map without an event, so the referring objects have to be looked through;
    only those of classes that can refer to such a row.
    """
    referring = list(_references({state.mapper for state in states}))
    if not referring:
        return
    for obj in list(session.identity_map.values()):
        for owner, key in referring:
            if isinstance(obj, owner) and id(obj.__dict__.get(key)) in ghosts:
                session.expire(obj, [key])


def _references(targets: set[Mapper[Any]]) -> Iterator[tuple[type, str]]:
    for mapper in {mapper for target in targets for mapper in target.registry.mappers}:
        for relationship in mapper.relationships:
            if relationship.direction is RelationshipDirection.MANYTOONE and any(
                target.isa(relationship.mapper) for target in targets
            ):
                yield mapper.class_, relationship.key


_BATCH = 500


def reload(session: Session, loaded: Iterable[tuple[Any, frozenset[str]]]) -> None:
    """Load attributes again, a SELECT per class and set of attributes; rows that are gone leave the session."""
    groups: dict[tuple[Mapper[Any], frozenset[str]], list[Any]] = defaultdict(list)
    for obj, keys in loaded:
        mapper: Mapper[Any] = inspect(obj).mapper
        groups[mapper, keys & frozenset(mapper.attrs.keys())].append(obj)
    with session.no_autoflush:
        for (mapper, keys), objects in groups.items():
            if not keys:
                continue  # nothing had been loaded
            for start in range(0, len(objects), _BATCH):
                _reload_batch(session, mapper, keys, objects[start : start + _BATCH])


def _reload_batch(session: Session, mapper: Mapper[Any], keys: frozenset[str], objects: list[Any]) -> None:
    identities = [inspect(obj).identity for obj in objects]
    columns = mapper.primary_key
    statement = select(mapper)
    if len(columns) == 1:
        statement = statement.where(columns[0].in_([identity[0] for identity in identities]))
    else:
        statement = statement.where(tuple_(*columns).in_(identities))
    for key in keys:
        attribute = getattr(mapper.class_, key)
        if key in mapper.relationships:
            statement = statement.options(selectinload(attribute))
        elif key in mapper.column_attrs and mapper.column_attrs[key].deferred:
            statement = statement.options(undefer(attribute))
    session.scalars(statement).all()
    for obj in objects:
        state = inspect(obj)
        if state.persistent and state.expired_attributes >= keys:
            session.expunge(obj)
