"""No line is dropped in silence: each is a test of this folder, or an exception with its reason."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def owed() -> set[str]:
    """The lines of `lines.txt`, as `a13`."""
    lines: set[str] = set()
    for row in (HERE / "lines.txt").read_text().splitlines():
        group, *ranges = row.split()
        if group != "#":
            for first, _, last in (numbers.partition("-") for numbers in ranges):
                lines.update(f"{group.lower()}{number}" for number in range(int(first), int(last or first) + 1))
    return lines


def named() -> set[str]:
    """The lines in the names of test functions."""
    sources = [file.read_text() for file in HERE.glob("test_*.py")]
    return {
        line for source in sources for line in re.findall(r"^(?:async )?def test_([a-z]\d+)_", source, re.MULTILINE)
    }


def excepted() -> set[str]:
    """The lines in the first column of EXCEPTIONS.md."""
    return set(re.findall(r"^\| ([a-z]\d+) \|", (HERE / "EXCEPTIONS.md").read_text(), re.MULTILINE))


def test_each_line_is_tested_or_an_exception() -> None:
    assert owed() - named() - excepted() == set()


def test_no_line_is_both() -> None:
    assert named() & excepted() == set()


def test_no_other_lines_are_named() -> None:
    assert (named() | excepted()) - owed() == set()
