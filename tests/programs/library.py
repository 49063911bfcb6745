"""Runs a program with the library, at whatever site and style the world stands for."""

from __future__ import annotations

import warnings
from typing import Any

from sqlalchemy import delete, exists, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError, SAWarning
from sqlalchemy.orm import InstanceState, aliased
from sqlalchemy.orm.exc import ObjectDeletedError

from savepoints import errors
from tests.harness.models import Child, Item, item
from tests.harness.world import World
from tests.programs.language import (
    TAKEN,
    Block,
    Boom,
    BoomError,
    Delete,
    Doom,
    Enter,
    Fail,
    How,
    Insert,
    Join,
    Look,
    Mark,
    Nested,
    Orphan,
    Program,
    Rekey,
    Release,
    ReleaseTo,
    Rollback,
    RollbackTo,
    Signal,
    Step,
    Steps,
    Update,
)
from tests.programs.trace import Row, Seen, told

other = aliased(item)


class Wrong(AssertionError):
    """An object of the session that is not as its row."""


class Library:
    """Runs one program in `world`; `durable` tells the rows that a second connection sees."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.target: Any = None
        self.root: Any = None
        self.made: list[Any] = []
        self.around: list[Any] = []
        self.objects: list[Item] = []  # all that were ever in hand: none may be collected, all are looked at
        self.count = 0
        self.seen: list[Seen] = []

    # -- the whole program

    async def run(self, program: Program) -> tuple[list[Seen], str, list[str]]:
        """The steps, what left the transaction, and the states of all levels at the end."""
        try:
            await (self.run_plain if program.plain else self.run_block)(program)
            outcome = told(None)
        except Exception as error:
            outcome = self.told(error)
        return self.seen, outcome, self.states()

    async def run_block(self, program: Program) -> None:
        async with self.world.transaction(self.world.source, rollback=program.end == "rollback") as self.target:
            self.root = self.world.current_transaction(self.target)
            self.around.append(self.root)
            await self.run_body(program)

    async def run_plain(self, program: Program) -> None:
        async with self.world.open() as self.target:
            try:
                await self.target.begin()
                await self.open("start")
                self.root = self.world.current_transaction(self.target)
                await self.run_body(program)
                if program.end == "commit":
                    await self.target.commit()
            finally:
                with warnings.catch_warnings():  # SQLAlchemy's own, where something was added after a failed flush
                    warnings.filterwarnings("ignore", "Session's state has been changed", SAWarning)
                    await self.target.rollback()

    async def run_body(self, program: Program) -> None:
        error: BaseException | None = None
        try:
            await self.run_steps(program.body)
        except Exception as passing:
            error = passing
            raise
        finally:
            await self.see("end of the body", error)

    # -- steps

    async def run_steps(self, body: Steps) -> None:
        for step in body:
            try:
                await self.run_step(step)
            except Wrong:
                raise
            except Exception as error:
                await self.see(type(step).__name__, error)
                if not getattr(step, "caught", not isinstance(step, (Boom, Signal))):
                    raise
            else:
                await self.see(type(step).__name__, None)

    async def see(self, step: str, error: BaseException | None) -> None:
        try:
            rows: list[Row] | str = await self.world.seen(self.target)
        except Exception as refused:
            rows = self.told(refused)
        self.seen.append(Seen(step, self.told(error), rows, self.states()))

    def states(self) -> list[str]:
        made = [f"{handle.state}, {handle.rollbacks} rollbacks" for handle in self.made]
        return [f"{self.root.state}, 0 rollbacks", *made]

    async def run_step(self, step: Step) -> None:  # noqa: C901 - one line for each kind of step
        world, target = self.world, self.target
        match step:
            case Insert() | Update() | Delete() | Rekey() | Orphan():
                await self.row(step)
            case Look():
                await self.look()
            case Fail():
                await self.fail(step)
            case Boom():
                raise BoomError
            case Signal():
                raise self.signal(step)
            case Mark():
                await self.open(step.label)
            case RollbackTo():
                await world.rollback_to(target, step.label)
            case ReleaseTo():
                await world.release(target, step.label)
            case Rollback():
                await self.handle(step.back).rollback()
            case Release():
                await self.handle(step.back).release()
            case Doom():
                transaction = world.current_transaction(target)
                levels = [transaction, *(one for one in transaction.savepoints if one.name != "begin_nested")]
                levels[-1 - step.up % len(levels)].doom("the program says so")
            case Block():
                suppress = (BoomError, DBAPIError) if step.suppress else ()
                block = world.savepoint(target, step.label, rollback=step.rollback, suppress=suppress)
                async with block as handle:
                    self.made.append(handle)
                    await self.block(handle, step.body)
            case Enter():
                async with self.handle(step.back) as handle:
                    await self.block(handle, step.body)
            case Join():
                async with world.atomic(target, savepoint=False):
                    await self.see("enter", None)
                    await self.run_steps(step.body)
            case Nested():
                await self.world.seen(self.target)
                try:
                    async with target.begin_nested():
                        await self.see("enter", None)
                        await self.run_steps(step.body)
                except Exception:
                    await self.reload()
                    raise

    # -- levels

    async def open(self, label: str | None) -> None:
        self.made.append(await self.world.savepoint(self.target, label))

    def handle(self, back: int) -> Any:
        if not self.made:
            raise errors.UnknownSavepoint("the program has made none")
        return self.made[-1 - back % len(self.made)]

    async def block(self, handle: Any, body: Steps) -> None:
        await self.see("enter", None)
        self.around.append(handle)
        try:
            await self.run_steps(body)
        finally:
            self.around.pop()

    def signal(self, step: Signal) -> BaseException:
        if isinstance(step.to, str):
            return self.world.Rollback(step.to)
        if step.to is None or not self.around:
            return self.world.Rollback()
        return self.world.Rollback(self.around[-1 - step.to % len(self.around)])

    # -- statements

    async def row(self, step: Insert | Update | Delete | Rekey | Orphan) -> None:
        self.count += 1
        name = f"v{self.count}"
        how: How | None = getattr(step, "how", None) if self.world.style == "orm" else None
        match step:
            case Insert():
                await self.insert(step.key, name, how)
            case Update():
                await self.update(step.key, name, how)
            case Delete():
                await self.delete(step.key, how)
            case Rekey():
                await self.rekey(step.key, step.to, how)
            case Orphan():
                await self.target.execute(insert(Child), {"id": self.count, "parent_id": 99})

    async def insert(self, key: int, name: str, how: How | None) -> None:
        if how == "bulk":
            [row] = await self.target.scalars(insert(Item).returning(Item), [{"id": key, "name": name}])
            self.objects.append(row)
        elif how == "object" and await self.get(key) is None:
            self.objects.append(Item(id=key, name=name))
            self.target.add(self.objects[-1])
            await self.target.flush()
        else:
            await self.target.execute(item.insert().values(id=key, name=name))
            if how is not None:
                await self.get(key)

    async def update(self, key: int, name: str, how: How | None) -> None:
        if how == "object":
            row = await self.get(key)
            if row is not None:
                row.name = name
                await self.target.flush()
        elif how == "bulk":
            await self.target.execute(update(Item).where(Item.id == key).values(name=name))
        else:
            await self.target.execute(item.update().where(item.c.id == key).values(name=name))
            if how is not None:
                await self.get(key, populate_existing=True)

    async def delete(self, key: int, how: How | None) -> None:
        row = await self.get(key) if how in ("object", "sql") else None
        if how == "object":
            if row is not None:
                await self.target.delete(row)
                await self.target.flush()
        elif how == "bulk":
            await self.target.execute(delete(Item).where(Item.id == key))
        else:
            await self.target.execute(item.delete().where(item.c.id == key))
            if row is not None:
                self.target.expunge(row)

    async def rekey(self, key: int, to: int, how: How | None) -> None:
        if how == "object":
            row = await self.get(key)
            taken = await self.target.scalar(select(item.c.id).where(item.c.id == to))
            if row is not None and taken is None:
                row.id = to
                await self.target.flush()
            return
        row = await self.get(key) if how is not None else None
        free = ~exists(select(other.c.id).where(other.c.id == to))
        changed = await self.target.execute(item.update().where(item.c.id == key, free).values(id=to))
        if row is not None and changed.rowcount:
            self.target.expunge(row)

    async def get(self, key: int, **options: Any) -> Item | None:
        row: Item | None = await self.target.get(Item, key, **options)
        if row is not None and row not in self.objects:
            self.objects.append(row)
        return row

    async def fail(self, step: Fail) -> None:
        match step.what:
            case "missing":
                await self.target.execute(text("SELECT * FROM missing"))
            case "half":
                await self.target.execute(text(f"INSERT INTO item VALUES (9, 'half'), ({TAKEN}, 'bad')"))
            case "flush":
                await self.world.insert(self.target, TAKEN, "bad")
            case "whole":
                await self.target.execute(text(f"INSERT OR ROLLBACK INTO item (id) VALUES ({TAKEN})"))

    def told(self, error: BaseException | None) -> str:
        """How an error is written in a trace."""
        if isinstance(error, PendingRollbackError):  # SQLAlchemy's own word after a failed flush
            lost = self.seen and self.seen[-1].states[0].startswith("lost")
            return "TransactionLost" if lost or str(self.root.state) == "lost" else "TransactionFailed"
        return "Refused" if isinstance(error, DBAPIError) else told(error)

    # -- objects

    async def reload(self) -> None:
        """SQLAlchemy's own nested rollback leaves objects expired, and async code cannot load them at a later look."""
        readable = str(self.root.state) in ("open", "doomed")
        if self.world.style == "orm" and self.world.site.face == "async" and readable:
            for one in self.objects:
                if inspect(one).persistent and inspect(one).expired:
                    try:
                        await self.target.refresh(one)
                    except InvalidRequestError:  # its row is gone
                        self.target.expunge(one)

    async def look(self) -> None:
        """Each object in the session is as its row: no stale value, no ghost, and none left out."""
        rows = dict(await self.world.seen(self.target))
        if self.world.style == "core":
            return
        for one in self.objects:
            state: InstanceState[Item] = inspect(one)
            if state.persistent and state.identity is not None:
                key = state.identity[0]
                row = rows.get(key, "no row")
                try:
                    name = one.name
                except ObjectDeletedError:  # what SQLAlchemy says of an expired object whose row is gone
                    name = "no row"
                if name != row:
                    raise Wrong(f"object {key} has {name!r}, its row {row!r}")
