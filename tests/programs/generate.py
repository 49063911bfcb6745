"""Random programs, and the smallest one that still goes wrong.

Hypothesis would do both, but drawing a program costs it more than running one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import fields, replace
from random import Random
from typing import Any

from tests.programs.language import (
    Block,
    Boom,
    Compound,
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
    steps,
)

LABELS = ["a", "A"]  # few, so that they repeat and shadow
BACKS = [0, 0, 0, 1, 1, 2, 3]
HOWS: list[How] = ["object", "object", "sql", "bulk"]
DEEPEST = 4


class Maker:
    """Makes programs. Half of them are without refused statements: after one, some databases refuse all that follows.

    An error that nobody catches ends a program, so it comes mostly from inside of blocks.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.failing = False

    def program(self) -> Program:
        self.failing = self.flip()
        body = [step for _ in range(self.random.randint(1, 12)) for step in self.phrase(0)]
        return Program(tuple(body), self.random.choice(["commit", "commit", "rollback"]), self.flip())

    def flip(self) -> bool:
        return self.random.random() < 0.5

    def body(self, depth: int) -> Steps:
        return tuple(step for _ in range(self.random.randint(0, 5)) for step in self.phrase(depth))

    def phrase(self, depth: int) -> Steps:
        kinds: list[tuple[int, Callable[[int], Steps]]] = [
            (24, self.work),
            (16, self.steering),
            (10 if depth < DEEPEST else 0, self.block),
            (3 if depth else 1, self.own_error),
        ]
        if self.failing:
            kinds.append((8, self.failure))
        [(_, make)] = self.random.choices(kinds, [weight for weight, _ in kinds])
        return make(depth)

    def work(self, depth: int) -> Steps:
        key, how = self.random.randint(1, 4), self.random.choice(HOWS)
        makers: list[Callable[[], Step]] = [
            *[lambda: Insert(key, how)] * 3,
            *[lambda: Update(key, how)] * 2,
            lambda: Delete(key, how),
            lambda: Rekey(key, self.random.randint(1, 4), how),
            lambda: Look(),
            lambda: Orphan() if self.random.random() < 0.3 else Look(),
        ]
        return (self.random.choice(makers)(),)

    def steering(self, depth: int) -> Steps:
        label, back = self.random.choice(LABELS), self.random.choice(BACKS)
        steps: list[Step] = [
            *[Mark(label)] * 4,
            *[Rollback(back)] * 4,
            *[RollbackTo(label)] * 3,
            Release(back),
            ReleaseTo(label),
            Doom(back),
        ]
        return (self.random.choice(steps),)

    def block(self, depth: int) -> Steps:
        body, label = self.body(depth + 1), self.random.choice([None, *LABELS])
        blocks: list[Step] = [
            *[Block(label, body)] * 3,
            *[Block(label, body, self.flip(), self.flip(), self.flip())] * 3,
            Enter(self.random.choice(BACKS), body, self.flip()),
            *[Join(body, self.flip())] * 2,
            Nested(tuple(filter(passes_nested, body)), self.flip()),
        ]
        return (self.random.choice(blocks),)

    def own_error(self, depth: int) -> Steps:
        errors: list[Step] = [Boom(), Signal(self.random.choice([None, *LABELS, *BACKS]))]
        return (self.random.choice(errors),)

    def failure(self, depth: int) -> Steps:
        whats: Any = ["missing", "half", "flush"]
        what = self.random.choice(whats)
        phrases: list[Steps] = [
            *[(Fail(what),)] * 3,
            *[(Fail(what), Rollback(0))] * 3,
            *[(Fail(what, caught=False),)] * (2 if depth else 1),
            (Fail("whole", self.flip()),),
        ]
        return self.random.choice(phrases)


def passes_nested(step: Step) -> bool:
    """What may stand in a plain `begin_nested()` block. Not what steers past it, which ends it under SQLAlchemy's feet;
    nor a swallowed failure, after which SQLAlchemy can neither keep nor undo it.
    """
    match step:
        case Fail():
            return not step.caught and step.what != "flush"
        case Block():
            # released early by its own handle, it would not hold back what steers past
            return not any(isinstance(inner, Release | ReleaseTo) for inner in steps(step.body))
        case _:
            return isinstance(step, Insert | Orphan | Update | Delete | Rekey | Look | Boom | Signal)


def is_sound(program: Program) -> bool:
    """Whether it could have been made here: what is taken away may break the rule for `begin_nested()` blocks."""
    return all(passes_nested(one) for step in steps(program.body) if isinstance(step, Nested) for one in step.body)


async def shrunk(program: Program, goes_wrong: Callable[[Program], Awaitable[bool]]) -> Program:
    """Take away what can be, until every smaller program goes well."""
    smaller = simpler_programs(program)
    while (candidate := next(smaller, None)) is not None:
        if is_sound(candidate) and await goes_wrong(candidate):
            program, smaller = candidate, simpler_programs(candidate)
    return program


def simpler_programs(program: Program) -> Iterator[Program]:
    yield from (replace(program, body=body) for body in simpler_bodies(program.body))
    yield from simpler_fields(program)


def simpler_bodies(body: Steps) -> Iterator[Steps]:
    """Without a half, a quarter, ... one step; with a block's body in place of the block; with one step simpler."""
    size = len(body) // 2
    while size:
        yield from (body[:start] + body[start + size :] for start in range(0, len(body), size))
        size //= 2
    if len(body) == 1:
        yield ()
    for index, step in enumerate(body):
        before, after = body[:index], body[index + 1 :]
        if isinstance(step, Compound):
            yield before + step.body + after
            yield from ((*before, replace(step, body=inner), *after) for inner in simpler_bodies(step.body))
        yield from ((*before, simpler, *after) for simpler in simpler_fields(step))


def simpler_fields(one: Any) -> Iterator[Any]:
    """With one field as it is by default, or numbers one less."""
    for field in fields(one):
        value = getattr(one, field.name)
        if field.default in (True, False, "object", "commit") and value != field.default:
            yield replace(one, **{field.name: field.default})
        elif type(value) is int and value > (1 if field.name in ("key", "to") else 0):
            yield replace(one, **{field.name: value - 1})
