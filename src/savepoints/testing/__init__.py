"""For your tests: retries without waiting, and faults on demand."""

from savepoints.testing.faults import Fault, inject, lose_commit
from savepoints.testing.waits import instant_retries

__all__ = ["Fault", "inject", "instant_retries", "lose_commit"]
