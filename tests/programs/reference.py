"""The reference: what the design says of savepoints, written by hand and without the library.

It decides everything by itself, labels and blocks and states, and tells a database only BEGIN, SAVEPOINT, ROLLBACK TO,
RELEASE, COMMIT, ROLLBACK and the statements on rows. From the library it takes the classes of the errors alone.
"""

from __future__ import annotations

from savepoints import errors
from tests.programs.databases import Database, Refused
from tests.programs.language import (
    Block,
    Boom,
    BoomError,
    Delete,
    Doom,
    Enter,
    Fail,
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
from tests.programs.trace import Row, Seen, Trace, told

OVER = ("released", "rolled back", "gone", "lost", "committed")


class Level:
    def __init__(self, label: str | None, wire: str) -> None:
        self.label = label
        self.wire = wire
        self.state = "open"
        self.rollbacks = 0
        self.block = False
        self.plain = False  # of a plain begin_nested()
        self.swallowed = False  # doomed by a failure that somebody swallowed, not by the code's own decision
        self.flushed_bad = False  # a flush failed in it: the session takes only a rollback

    @property
    def path(self) -> str:
        """`Rollback` takes what has these two for a level."""
        return str(self.label)

    outcome = None

    @property
    def told(self) -> str:
        return f"{self.state}, {self.rollbacks} rollbacks"


class Reference:
    """Runs one program.

    Args:
        database: Where the statements go.
        orm: Whether a failed flush undoes the innermost savepoint, or the whole transaction where there is none.
        failing: Whether a refused statement leaves a transaction that takes only a rollback.
        ending: Whether the statement of ``Fail("whole")`` ends the whole transaction.
    """

    def __init__(self, database: Database, *, orm: bool, failing: bool, ending: bool) -> None:
        self.database = database
        self.orm = orm
        self.failing = failing
        self.ending = ending
        self.root = Level("transaction", "")
        self.levels: list[Level] = []  # the open savepoints, innermost last
        self.made: list[Level] = []
        self.around: list[Level] = []  # the blocks that the code is in
        self.joined: list[Level] = []
        self.stuck = False  # the server takes only a rollback
        self.loss: BaseException | None = None  # the first error, where the server has ended the transaction
        self.count = 0
        self.seen: list[Seen] = []

    # -- the whole program

    def run(self, program: Program) -> Trace:
        self.database.begin()
        if program.plain:
            self.open("start")
        else:
            self.root.block = True
            self.around.append(self.root)
        error: BaseException | None = None
        try:
            self.run_steps(program.body)
        except Exception as passing:
            error = passing
        self.see("end of the body", error)
        error = self.end_plain(program, error) if program.plain else self.end_block(program, error)
        states = [level.told for level in (self.root, *self.made)]
        return Trace(self.seen, told(error), states, self.database.rows())

    def end_plain(self, program: Program, error: BaseException | None) -> BaseException | None:
        if error is None and program.end == "commit":
            if self.top.flushed_bad:
                error = errors.TransactionFailed("")
            for level in (self.root, *reversed(self.levels)):
                error = error or self.refusal(level)
            if error is None:
                return self.commit()
        self.roll_back_all()
        return error

    def end_block(self, program: Program, error: BaseException | None) -> BaseException | None:
        if error is None:
            error = errors.TransactionLost("") if self.root.state == "lost" else self.failure_inside(self.root)
            if error is None and program.end == "commit" and self.root.state != "doomed":
                return self.commit()
        elif self.root.state == "lost" and (error is self.loss or isinstance(error, errors.Rollback)):
            error = errors.TransactionLost("")
        self.roll_back_all()
        return None if aims(error, self.root) else error

    def commit(self) -> BaseException | None:
        open_ones = self.levels.copy()
        self.end_bookmarks(0)
        try:
            self.database.commit()
        except Refused as refused:
            self.root.state = "rolled back"
            for level in open_ones if not self.orm else ():  # a session's have been released before
                level.state = "gone" if level.state == "released" else level.state
            return refused
        self.root.state = "committed"
        return None

    def roll_back_all(self) -> None:
        for level in self.levels:
            if level.state != "lost":
                level.state = "gone"
        if self.root.state != "lost":  # else the database has done it
            self.database.rollback()
        self.root.state = "rolled back"

    # -- steps

    def run_steps(self, body: Steps) -> None:
        for step in body:
            try:
                self.run_step(step)
            except Exception as error:
                self.see(f"{type(step).__name__}", error)
                if not getattr(step, "caught", not isinstance(step, (Boom, Signal))):
                    raise
            else:
                self.see(f"{type(step).__name__}", None)

    def see(self, step: str, error: BaseException | None) -> None:
        try:
            self.refuse_sql()
            rows: list[Row] | str = self.database.rows()
        except errors.SavepointsError as refused:
            rows = told(refused)
        self.seen.append(Seen(step, told(error), rows, [level.told for level in (self.root, *self.made)]))

    def run_step(self, step: Step) -> None:  # noqa: C901 - one line for each kind of step
        match step:
            case Insert() | Update() | Delete() | Rekey() | Orphan():
                self.row(step)
            case Look():
                self.refuse_sql()
            case Fail():
                self.fail(step)
            case Boom():
                raise BoomError
            case Signal():
                raise errors.Rollback(self.aim(step))
            case Mark():
                self.open(step.label)
            case RollbackTo():
                self.roll_back(self.named(step.label))
            case ReleaseTo():
                self.release(self.named(step.label))
            case Rollback():
                self.roll_back(self.handle(step.back))
            case Release():
                self.release(self.handle(step.back))
            case Doom():
                levels = [self.root, *(one for one in self.levels if not one.plain)]
                self.doom(levels[-1 - step.up % len(levels)], swallowed=False)
            case Block():
                self.block(self.open(step.label), step)
            case Enter():
                self.enter(step)
            case Join():
                self.join(step)
            case Nested():
                self.nested(step)

    # -- statements

    def refuse_sql(self) -> None:
        """Nothing is sent in a lost transaction, nor where only a rollback helps."""
        if self.root.state == "lost":
            raise errors.TransactionLost("")
        if self.stuck or self.top.flushed_bad:
            raise errors.TransactionFailed("")

    def row(self, step: Insert | Update | Delete | Rekey | Orphan) -> None:
        self.count += 1
        name = f"v{self.count}"
        self.refuse_sql()
        try:
            match step:
                case Insert():
                    self.database.insert(step.key, name)
                case Update():
                    self.database.update(step.key, name)
                case Delete():
                    self.database.delete(step.key)
                case Rekey():
                    self.database.rekey(step.key, step.to)
                case Orphan():
                    self.database.orphan(self.count)
        except Refused:
            self.statement_failed()
            raise

    def fail(self, step: Fail) -> None:
        self.refuse_sql()
        try:
            self.database.fail(step.what)
        except Refused as error:
            if step.what == "flush" and self.orm:
                self.flush_failed()
            elif step.what == "whole" and self.ending:
                self.lose(error)
            else:
                self.statement_failed()
            raise

    def statement_failed(self) -> None:
        if self.failing:
            self.stuck = True
            for level in {self.top, self.root}:
                if level.state != "doomed":
                    level.state = "failed"

    def flush_failed(self) -> None:
        """SQLAlchemy undoes the innermost savepoint, or everything."""
        if not self.levels:
            self.database.rollback()
            self.root.state = "lost"
            return
        self.database.rollback_to(self.top.wire)
        self.top.flushed_bad = True
        if self.top.state != "doomed":
            self.top.state = "undone"

    def lose(self, error: BaseException) -> None:
        self.loss = error
        for level in (self.root, *self.levels):
            level.state = "lost"

    # -- savepoints

    @property
    def top(self) -> Level:
        return self.levels[-1] if self.levels else self.root

    def named(self, label: str) -> Level:
        if self.root.state == "lost":
            raise errors.TransactionLost("")
        for level in reversed(self.levels):
            if level.label == label:
                return level
        raise errors.UnknownSavepoint("")

    def handle(self, back: int) -> Level:
        if not self.made:
            raise errors.UnknownSavepoint("")
        return self.made[-1 - back % len(self.made)]

    def open(self, label: str | None) -> Level:
        self.refuse_sql()
        level = Level(label, f"w{len(self.made)}")
        self.database.savepoint(level.wire)
        self.levels.append(level)
        self.made.append(level)
        return level

    def refuse_ended(self, level: Level) -> None:
        if level.state == "lost":
            raise errors.TransactionLost("")
        if level.state in OVER:
            raise errors.SavepointEnded("")

    def refuse_outside(self, level: Level) -> None:
        """The code is in a block that was opened, or joined, after the level."""
        index = self.levels.index(level)
        for block in self.levels[index + 1 :]:
            if block.block:
                raise errors.OutOfOrder("")
        for joined in self.joined:
            if joined in self.levels[index:]:
                raise errors.OutOfOrder("")

    def roll_back(self, level: Level) -> None:
        self.refuse_ended(level)
        self.refuse_outside(level)
        self.back_to(level)
        level.rollbacks += 1
        if level.state != "doomed":
            level.state = "open"

    def back_to(self, level: Level) -> None:
        """ROLLBACK TO: what was opened later is gone, and a stuck server takes statements again."""
        self.database.rollback_to(level.wire)
        while self.top is not level:
            self.levels.pop().state = "gone"
        level.flushed_bad = False
        self.stuck = False
        if self.root.state == "failed":
            self.root.state = "open"

    def refusal(self, level: Level) -> errors.SavepointsError | None:
        """Why a level cannot be kept, by its own state."""
        kinds: dict[str, type[errors.SavepointsError]] = {
            "failed": errors.TransactionFailed,
            "undone": errors.TransactionFailed,
            "doomed": errors.TransactionDoomed,
            "lost": errors.TransactionLost,
        }
        return kinds[level.state]("") if level.state in kinds else None

    def failure_inside(self, level: Level) -> errors.SavepointsError | None:
        """A failure in a level or in what was opened inside, which somebody swallowed."""
        start = 0 if level is self.root else self.levels.index(level)
        for one in (level, *self.levels[start:]):
            if one.state in ("failed", "undone") or one.swallowed:
                return self.refusal(one)
        return None

    def release(self, level: Level) -> None:
        self.refuse_ended(level)
        refusal = self.refusal(level) or self.failure_inside(level)
        if refusal is not None:
            raise refusal
        self.refuse_outside(level)
        self.keep(level)

    def keep(self, level: Level) -> None:
        self.end_bookmarks(self.levels.index(level) + 1)
        self.database.release(level.wire)
        self.levels.pop().state = "released"

    def end_bookmarks(self, start: int) -> None:
        """They end with the level around them; those that the code doomed end undone."""
        for level in self.levels[start:]:
            if level.state == "doomed":
                self.undo(level)
        while len(self.levels) > start:
            self.database.release(self.top.wire)
            self.levels.pop().state = "released"

    def undo(self, level: Level) -> None:
        self.back_to(level)
        self.database.release(level.wire)
        self.levels.pop().state = "rolled back"

    def doom(self, level: Level, *, swallowed: bool) -> None:
        if level.state not in ("doomed", "lost"):
            level.state = "doomed"
            level.swallowed = swallowed

    # -- blocks

    def enter(self, step: Enter) -> None:
        level = self.handle(step.back)
        self.refuse_ended(level)
        if self.stuck or level.state == "undone":
            raise errors.TransactionFailed("")
        if level.block or level is not self.top or level in self.joined:
            raise errors.OutOfOrder("")
        self.block(level, step)

    def block(self, level: Level, step: Block | Enter) -> None:
        self.see("enter", None)
        level.block = True
        self.around.append(level)
        error: BaseException | None = None
        try:
            self.run_steps(step.body)
        except Exception as passing:
            error = passing
        self.around.pop()
        level.block = False
        suppress = (BoomError, Refused) if isinstance(step, Block) and step.suppress else ()
        rollback = isinstance(step, Block) and step.rollback
        if error is None:
            self.leave(level, rollback=rollback)
            return
        if level in self.levels and level.state != "lost":
            self.undo(level)
        if level.state != "rolled back" or not (aims(error, level) or isinstance(error, suppress)):
            raise error

    def leave(self, level: Level, *, rollback: bool) -> None:
        if level.state == "lost":
            raise errors.TransactionLost("")
        if level not in self.levels:
            return  # released by hand
        failure = self.failure_inside(level)
        if failure is not None or rollback or level.state == "doomed":
            self.undo(level)
        else:
            self.keep(level)
        if failure is not None:
            raise failure

    def join(self, step: Join) -> None:
        if self.root.state == "lost":
            raise errors.TransactionLost("")
        self.see("enter", None)
        level = self.top
        self.joined.append(level)
        try:
            self.run_steps(step.body)
        except Exception:
            if level is self.root or level in self.levels:
                self.doom(level, swallowed=True)
            raise
        finally:
            self.joined.pop()

    def nested(self, step: Nested) -> None:
        """A level of SQLAlchemy's: kept in order, but no block of ours, which an error could aim at."""
        self.refuse_sql()
        level = Level(None, f"n{self.count}_{len(self.levels)}")
        level.plain = True
        self.database.savepoint(level.wire)
        self.levels.append(level)
        self.see("enter", None)
        try:
            self.run_steps(step.body)
        except Exception:
            if level in self.levels and level.state != "lost":
                self.undo(level)
            raise
        self.leave(level, rollback=False)

    def aim(self, step: Signal) -> object:
        if isinstance(step.to, int):
            return self.around[-1 - step.to % len(self.around)] if self.around else None
        return step.to


def aims(error: BaseException | None, level: Level) -> bool:
    return isinstance(error, errors.Rollback) and (
        error.to is None or error.to is level or (error.to is not None and error.to == level.label)
    )
