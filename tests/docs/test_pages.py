"""The SQL beside the lines of an example is what was sent; the output below it is what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.pages import ROOT, agrees, blocks, run, without_places

PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if any(blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sql_and_output_are_true(page: Path) -> None:
    for block in run(page):
        where = f"{page.name}:{block.line}"
        if block.shown:
            assert len(block.shown) == len(block.sent), (where, block.sent)
            for shown, sent in zip(block.shown, block.sent, strict=True):
                assert agrees(shown, sent), (where, shown, sent)
        if block.output is not None:
            assert without_places(block.printed) == without_places(block.output), where


def test_there_is_something_to_check() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert sum(bool(block.shown) for block in found) >= 10
    assert sum(block.output is not None for block in found) >= 20
