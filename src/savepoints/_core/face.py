"""What the core has to know of the face that drives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from savepoints._core.outcome import Tracker
from savepoints._model.levels import SavepointLevel, TransactionLevel


class Face(NamedTuple):
    """The classes in which a face hands levels to the user, and how it asks for the outcome of a COMMIT."""

    transaction: type[TransactionLevel]
    savepoint: type[SavepointLevel]
    resolve: Callable[[Tracker, Any], Any]
