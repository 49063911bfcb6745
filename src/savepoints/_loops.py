"""Whether a block that was left without an error goes straight on to the next round of the loop around it.

See Note [Returning from a try].
"""

# Note [Returning from a try]
# `with attempt as session: return load(session)` leaves the loop. Its `__exit__` is called like that of a body which
# ran to its end, commits, and if that COMMIT is refused there is nothing to be done there: swallowing the error would
# let the `return` go on, as if the work were stored. Only where the code goes straight on to the next round of the
# `for` may the error be swallowed and the work be tried again. Python tells nobody where it will go on, so we look:
# the instructions after the call of the exit are few, and of them only a jump back to the loop's head is taken for
# that. Whatever else is found (a `return`, a `break`, statements after the block, another Python) means no: then the
# error is raised, which is never wrong.

from __future__ import annotations

import dis
from types import CodeType

_SKIPPED = frozenset({"NOP", "CACHE", "EXTENDED_ARG", "END_SEND", "NOT_TAKEN", "GET_AWAITABLE", "LOAD_CONST"})
_HEADS = frozenset({"FOR_ITER", "GET_ANEXT"})
_FEW = 24


def goes_on_to_next_round(code: CodeType, call: int) -> bool:
    """Look at what follows the call of an exit.

    Args:
        code: The code that holds the ``with``.
        call: Where in it the exit is being called (``f_lasti`` of its frame).
    """
    found = {instruction.offset: instruction for instruction in dis.get_instructions(code)}
    following = dict(zip(found, list(found)[1:], strict=False))
    at, popped = following.get(call), False
    for _ in range(_FEW):
        if at is None:
            return False
        instruction = found[at]
        name = instruction.opname
        if name.startswith("JUMP_BACKWARD"):
            return popped and found[instruction.argval].opname in _HEADS
        if name in ("SEND", "JUMP_FORWARD"):
            at = instruction.argval  # past the waiting for an async exit; past its branch for errors
        elif name == "POP_TOP" and not popped:
            popped, at = True, following.get(at)  # what the exit returned
        elif name in _SKIPPED and not (popped and name == "LOAD_CONST"):
            at = following.get(at)
        else:
            return False
    return False
