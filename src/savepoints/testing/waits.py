"""Retries that follow each other at once."""

from __future__ import annotations

from contextlib import AbstractContextManager

from savepoints._retry import without_waiting


def instant_retries() -> AbstractContextManager[None]:
    """A block in which no retry waits, in any thread or task; what would have been waited is told all the same.

    ::

        @pytest.fixture(autouse=True)
        def fast():
            with instant_retries():
                yield
    """
    return without_waiting()
