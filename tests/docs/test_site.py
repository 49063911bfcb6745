"""README, reference and architecture name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import savepoints
from tools.pages import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_reference_has_every_public_name() -> None:
    named = re.findall(r"^::: savepoints\.(\w+)$", REFERENCE, re.MULTILINE)
    assert sorted(named) == sorted(savepoints.__all__)


@pytest.mark.parametrize("level", [savepoints.Savepoint, savepoints.Transaction])
def test_reference_names_what_a_level_has(level: type) -> None:
    table = REFERENCE.split("## Levels")[1].split("## Sessions")[0]
    told = set(re.findall(r"`\.(\w+)`", table)) - ({"rollbacks"} if level is savepoints.Transaction else set())
    assert told <= set(dir(level))


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1]
    assert sorted(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md")
    )


@pytest.mark.parametrize("text", [README, ARCHITECTURE], ids=["README", "ARCHITECTURE"])
def test_links_lead_somewhere(text: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


COMMANDS = re.findall(r"`uv run pytest (tests/\w+) -k (\w+) -v`", README)


@pytest.mark.parametrize(("folder", "key"), COMMANDS, ids=[key for _, key in COMMANDS])
def test_a_claim_of_the_readme_has_its_tests(folder: str, key: str) -> None:
    """One that shows the trouble on plain SQLAlchemy, and one that shows that ours does not have it."""
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / folder).glob("test_*.py"))
    names = re.findall(rf"def (test_{key}\w*)", source)
    assert any("_plain_" in name for name in names)
    assert any("_ours_" in name for name in names)


def test_the_readme_makes_claims() -> None:
    assert len(COMMANDS) >= 10


def rooms() -> list[Path]:
    inside = (ROOT / "src" / "savepoints").iterdir()
    return [room for room in inside if room.suffix == ".py" or (room / "__init__.py").exists()]


@pytest.mark.parametrize("room", rooms(), ids=lambda room: room.stem)
def test_the_architecture_names_every_room(room: Path) -> None:
    assert re.search(rf"`{room.stem}/?`", ARCHITECTURE.split("## How a call travels")[0])
