"""Objects touched inside a level, and their restoring after a rollback to it.

SQLAlchemy's nested rollback restores what the unit of work wrote. It forgets what was only refreshed inside, rows
that were first loaded inside, and relationships that reach them. What was touched is collected by the listeners, and
only that is expired: the cost follows what was touched, not the size of the session.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import inspect, select, tuple_
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    Session,
    SessionTransaction,
    make_transient,
    make_transient_to_detached,
    selectinload,
    undefer,
)
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.orm.interfaces import RelationshipDirection

from savepoints import _compat


class Trace(NamedTuple):
    """What happened to one object inside.

    It was first loaded (``born``), or written while it had this identity ``key``, or only these attributes were loaded.
    """

    born: bool = False
    key: Any = None
    attributes: frozenset[str] | None = None


#: What objects had loaded before they were flushed.
Shown = WeakKeyDictionary[InstanceState[Any], frozenset[str]]


class Touched:
    """What happened to a session's objects inside one level."""

    __slots__ = ("heavy", "shown", "states")

    def __init__(self, shown: Shown | None = None) -> None:
        self.states: WeakKeyDictionary[InstanceState[Any], Trace] | None = None  # made when it is needed
        self.shown = shown
        self.heavy = False  # added, deleted or changed in bulk: SQLAlchemy's own record is needed

    def _enter(self, state: InstanceState[Any], trace: Trace) -> None:
        if self.states is None:
            self.states = WeakKeyDictionary()
        self.states[state] = trace

    def traces(self) -> list[tuple[InstanceState[Any], Trace]]:
        """All of them that are still referred to."""
        return [] if self.states is None else list(self.states.items())

    def read(self, state: InstanceState[Any], attributes: Iterable[str] | None = None, *, born: bool = False) -> None:
        """It was loaded for the first time, refreshed, or had some attributes loaded."""
        known = None if self.states is None else self.states.get(state)
        if known is None:
            self._enter(state, Trace(born, None, None if attributes is None else frozenset(attributes)))
        elif known.attributes is not None:
            more = None if attributes is None else known.attributes.union(attributes)
            self._enter(state, Trace(known.born, known.key, more))

    def write(self, state: InstanceState[Any], key: Any = None) -> None:
        """It was flushed; the key that it had before the first flush is kept."""
        known = Trace() if self.states is None else self.states.get(state, Trace())
        if known.key is None:
            self._enter(state, Trace(known.born, key or state.key))

    def show(self, objects: Iterable[Any]) -> None:
        """They are about to be flushed; a flush that fails expires them, so what they have loaded is noted."""
        if self.shown is None:
            self.shown = WeakKeyDictionary()
        for obj in objects:
            self.shown[instance_state(obj)] = frozenset(obj.__dict__)

    def update(self, inner: Touched) -> None:
        """A level inside has ended; whether it was kept or undone, a rollback of this one undoes it."""
        for state, keys in (inner.shown or {}).items():
            self.shown = self.shown or WeakKeyDictionary()
            self.shown.setdefault(state, keys)
        for state, trace in inner.traces():
            if trace.key is not None:
                self.write(state, trace.key)
            else:
                self.read(state, trace.attributes, born=trace.born)
        self.heavy = self.heavy or inner.heavy

    def is_light(self, session: Session, nested: SessionTransaction) -> bool:
        """Whether expiring what was written is all that SQLAlchemy's rollback would do."""
        return (
            not self.heavy
            and nested.is_active
            and session.get_nested_transaction() is nested
            and not session.new
            and not session.deleted
            and all(trace.key in (None, state.key) for state, trace in self.traces())
            and not _has_listeners(session)
        )


#: How many listeners of ours hang on each event of a session.
_OURS = {"after_rollback": 1, "after_soft_rollback": 0, "after_commit": 1, "before_commit": 1}


def _has_listeners(session: Session) -> bool:
    """Whether somebody else listens to how levels end."""
    dispatch: Any = session.dispatch
    return any(len(getattr(dispatch, name)) > ours for name, ours in _OURS.items())


def restore(session: Session, touched: Touched) -> None:
    """Bring the session's objects to where they were; what was touched inside is expired.

    Called after the rollback was answered. Objects that were expunged inside stay out.
    """
    traces = dict(touched.traces())
    for obj in session.dirty:
        state = instance_state(obj)
        traces[state] = traces.get(state, Trace())._replace(attributes=None)
    born = [state for state, trace in traces.items() if trace.born and state.obj() is not None]
    if born:
        _forget_ghosts(session, born)
    for state, trace in traces.items():
        obj = state.obj()
        if obj is not None:
            _restore_one(session, obj, state, trace)


def _restore_one(session: Session, obj: Any, state: InstanceState[Any], trace: Trace) -> None:
    if state.session is not session:
        _compat.forget(session, state)
    elif trace.key is not None and state.key != trace.key and state.persistent:
        _put_back(session, obj, trace.key)
    elif state.key is not None and session.identity_map.get(state.key) is obj:
        expire(session, obj, None if _is_whole(state, trace) else trace.attributes)
    elif state.persistent:
        session.expunge(obj)  # its key belongs to another object, which had it before


def _is_whole(state: InstanceState[Any], trace: Trace) -> bool:
    """Whether the whole row is in doubt.

    It is where the primary key was loaded, by which alone SQLAlchemy would go on taking the row for present.
    """
    if trace.key is not None or trace.attributes is None:
        return True
    mapper = state.mapper
    return any(mapper.get_property_by_column(column).key in trace.attributes for column in mapper.primary_key)


def _put_back(session: Session, obj: Any, key: Any) -> None:
    """Give an object its identity back: SQLAlchemy restores only the last of several changes of a primary key."""
    other = session.identity_map.get(key)
    if other is not None:
        session.expunge(other)
    mapper: Mapper[Any] = inspect(obj).mapper
    expire(session, obj)
    session.expunge(obj)
    make_transient(obj)
    for column, value in zip(mapper.primary_key, key[1], strict=True):
        set_committed_value(obj, mapper.get_property_by_column(column).key, value)
    make_transient_to_detached(obj)
    session.add(obj)


def forget_changes(session: Session) -> None:
    """What was changed after a failed flush is discarded with it; SQLAlchemy would warn of it first."""
    for obj in session.new:
        session.expunge(obj)
    for obj in session.deleted:
        session.add(obj)
    for obj in session.dirty:
        expire(session, obj)


def expire(session: Session, obj: Any, attributes: frozenset[str] | None = None) -> None:
    """Expire one object, or some attributes of it, and nothing else.

    ``session.expire`` follows relationships with a refresh-expire cascade; expired by name first, they are not
    loaded any more, and there is nothing to follow.
    """
    if attributes is not None:
        session.expire(obj, attributes)
        return
    relationships = inspect(obj).mapper.relationships.keys()
    if relationships:
        session.expire(obj, relationships)
    session.expire(obj)


def _forget_ghosts(session: Session, born: Iterable[InstanceState[Any]]) -> None:
    """Expire many-to-one references to rows that were first loaded inside.

    They are answered from the identity map without an event, so the referring objects have to be looked through;
    only those of classes that can refer to such a row.
    """
    referring = list(_references({state.mapper for state in born}))
    if not referring:
        return
    ghosts = {id(state.obj()) for state in born}
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

Loaded = list[tuple[Any, frozenset[str]]]


def loaded(session: Session, inside: Iterable[Touched]) -> Loaded:
    """The objects that a rollback may expire, with the attributes that they have loaded now."""
    found = list(inside)
    states = dict.fromkeys(state for touched in found for state, _ in touched.traces())
    if any(touched.heavy for touched in found) or session.new or session.deleted:
        states |= dict.fromkeys(session.identity_map.all_states())
    states |= dict.fromkeys(instance_state(obj) for obj in (*session.dirty, *session.deleted))
    shown = {state: keys for touched in found for state, keys in (touched.shown or {}).items()}
    return [
        (obj, (shown.get(state) or _columns(state)).union(obj.__dict__))
        for state in (states | shown)
        if (obj := state.obj()) is not None
    ]


def _columns(state: InstanceState[Any]) -> frozenset[str]:
    """What an object had loaded that is expired already: a flush has failed, and nobody saw it before."""
    return frozenset(c.key for c in state.mapper.column_attrs if not c.deferred) if state.expired else frozenset()


def reload(session: Session, before: Loaded) -> None:
    """Load what a rollback has expired, a SELECT per class and set of attributes; rows that are gone leave the session.

    In async code a later access to an expired attribute would have to load it without an ``await``, which raises
    MissingGreenlet.
    """
    groups: dict[tuple[Mapper[Any], frozenset[str]], list[Any]] = defaultdict(list)
    for obj, keys in before:
        state = inspect(obj)
        missing = (keys & frozenset(state.mapper.attrs.keys())) - frozenset(obj.__dict__)
        if missing and state.persistent and state.session is session:
            groups[state.mapper, missing].append(obj)
    with session.no_autoflush:
        for (mapper, keys), objects in groups.items():
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
