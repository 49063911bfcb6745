"""What a program shows while it runs: the library and the references must show the same."""

from __future__ import annotations

from typing import NamedTuple

Row = tuple[int, str | None]


class Seen(NamedTuple):
    """One step: how it ended, the rows seen after it (or why they cannot be), and the states of all levels."""

    step: str
    outcome: str
    rows: list[Row] | str
    states: list[str]


class Trace(NamedTuple):
    steps: list[Seen]
    outcome: str  # what left the transaction
    states: list[str]
    durable: list[Row]


def difference(expected: Trace, found: Trace) -> str | None:
    """The first difference in words, None where there is none."""
    for number, (one, other) in enumerate(zip(expected.steps, found.steps, strict=False), start=1):
        if one != other:
            return f"after step {number}\n  expected {one}\n  found    {other}"
    if expected != found:
        return f"at the end\n  expected {_end(expected)}\n  found    {_end(found)}"
    return None


def _end(trace: Trace) -> str:
    return f"{len(trace.steps)} steps, {trace.outcome}, states {trace.states}, durable {trace.durable}"


def told(error: BaseException | None) -> str:
    """How an error is written in a trace."""
    return "well" if error is None else type(error).__name__
