"""Whether a block that is left goes straight on to the next round of the loop around it.

See Note [Returning from a try].
"""

# Note [Returning from a try]
# An error that leaves a try may be swallowed only where nothing but the next try follows. Everywhere else the code goes
# on as if the work were stored: `with attempt as session: return load(session)`, whose COMMIT is refused; or a
# `return "stored"` behind the block, after an error in its body. Python tells nobody where it will go on, so we look.
# - The instruction right before a loop's head asks for its iterator. We note where that was, and so know the very loop
#   that gives the tries. `zip(attempts(), ...)` asks from elsewhere: it may end before the next round.
# - The exit is called by an instruction, too: a call where the body has ended, the begin of the handler after an error.
#   What follows has to be exactly the few instructions that are known to lead straight to the head of that loop.
# - In a generator whoever iterates may do the work, and then goes on without being told that there is another round.
# What is not seen: a try that was kept, to be entered in a later run of the same `for` statement over something else.
# Whatever else is found (statements behind the block, a block around it, a helper function, another call of the same
# function, another Python, code of another compiler) means no: then the error is raised, which is never wrong.

from __future__ import annotations

import dis
import re
from bisect import bisect_left
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import CodeType, FrameType
from typing import NamedTuple

_AWAITED = "(?:GET_AWAITABLE LOAD_CONST SEND (?:END_SEND )?)?"
_AFTER_BODY = f"CALL {_AWAITED}POP_TOP "
_AFTER_ERROR = (  # Python 3.14 leaves one value more
    f"WITH_EXCEPT_START {_AWAITED}(?:TO_BOOL )?POP_JUMP_(?:FORWARD_)?IF_TRUE POP_TOP POP_EXCEPT (?:POP_TOP ){{2,3}}"
)
_BACK = "(?:JUMP_(?:FORWARD|BACKWARD|BACKWARD_NO_INTERRUPT) )+(?:FOR_ITER|GET_ANEXT) "
_STRAIGHT = re.compile(f"(?:{_AFTER_BODY}|{_AFTER_ERROR}){_BACK}")
_JUMP = re.compile("SEND|JUMP_FORWARD|JUMP_BACKWARD(_NO_INTERRUPT)?|POP_JUMP_(FORWARD_)?IF_TRUE")
_HEADS = frozenset({"FOR_ITER", "GET_ANEXT"})
_SILENT = frozenset({"NOP", "EXTENDED_ARG"})
_FEW = 24


class Place(NamedTuple):
    """Where a running frame is."""

    frame: int  # its id: another call of the same function is another place
    code: CodeType
    at: int  # the offset of its instruction


def place_of(frame: FrameType) -> Place:
    """Where a frame is now."""
    return Place(id(frame), frame.f_code, frame.f_lasti)


def goes_on_to_next_round(asked: Place, left: Place) -> bool:
    """Whether nothing but the loop's next round follows a block.

    Args:
        asked: Where the loop's iterator was asked for.
        left: Where the block's exit is being called.
    """
    if asked[:2] != left[:2] or left.code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
        return False
    steps = [step for step in dis.get_instructions(left.code) if step.opname not in _SILENT]
    way = _way_to_head(steps, left.at)
    names = "".join(f"{steps[at].opname} " for at in way)
    return steps[way[-1] - 1].offset == asked.at and _STRAIGHT.fullmatch(names) is not None


def _way_to_head(steps: list[dis.Instruction], start: int) -> list[int]:
    """Which instructions run, if each jump is made, as far as the head of a loop."""
    way = [_index(steps, start)]
    while len(way) < _FEW and (step := steps[way[-1]]).opname not in _HEADS:
        way.append(_index(steps, step.argval if _JUMP.fullmatch(step.opname) else step.offset + 1))
    return way


def _index(steps: list[dis.Instruction], offset: int) -> int:
    """Which instruction runs at an offset; the last one, which is never of a loop, behind the end."""
    return min(bisect_left(steps, offset, key=lambda step: step.offset), len(steps) - 1)
