"""The warning that released work was never committed."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from savepoints import errors
from savepoints._model.repairs import Repair
from savepoints._places import Ending

if TYPE_CHECKING:
    from savepoints._core.stack import Stack

_logger = logging.getLogger("savepoints")


def warn(stack: Stack, end: Ending, *, raising: bool) -> None:
    """Warn of a close that throws released work away.

    Args:
        stack: The stack.
        end: The call that closed.
        raising: Whether a filter may turn the warning into an error here; in the middle of SQLAlchemy's own clean-up
            it may not.
    """
    if not stack.unsaved or stack.transaction.block or Repair.WARN not in stack.repairs:
        return
    stack.unsaved = False
    try:
        warnings.warn_explicit(
            f"{end} threw away work of released savepoints that was never committed; commit before it, "
            "or use `atomic`, which commits what it began",
            errors.UncommittedWork,
            *end.place,
        )
    except errors.UncommittedWork as warning:
        if raising:
            raise
        _logger.warning("%s", warning)
