"""Each error and warning has its section, with the hint that the code gives, and no section is left over."""

from __future__ import annotations

import re

import pytest

import savepoints
from savepoints import HookErrors, Rollback, SavepointsError
from tools.pages import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SECTION = re.compile(
    r"^##+ (?P<name>\w+) \{ #(?P<anchor>[a-z-]+) \}$(?P<text>.*?)(?=^## |^### |\Z)", re.MULTILINE | re.DOTALL
)
SECTIONS = {found["name"]: (found["anchor"], found["text"]) for found in SECTION.finditer(PAGE)}

PUBLIC = [getattr(savepoints, name) for name in savepoints.__all__]
CLASSES = [public for public in PUBLIC if isinstance(public, type)]
LEAVES = [cls for cls in CLASSES if issubclass(cls, SavepointsError) and cls is not SavepointsError]
WARNINGS = [cls for cls in CLASSES if issubclass(cls, Warning)]


def below(cls: type[SavepointsError]) -> set[type[SavepointsError]]:
    return {found for sub in cls.__subclasses__() for found in (sub, *below(sub))}


def made(error: type[SavepointsError]) -> SavepointsError:
    """One of them; a group is made of others."""
    if issubclass(error, HookErrors):
        return HookErrors("what happened", [ValueError()])
    return error("what happened")


def in_words(text: str) -> str:
    """Without links and line breaks."""
    return " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).split())


def test_every_error_is_public() -> None:
    assert set(LEAVES) == below(SavepointsError)


def test_no_section_is_missing_or_left_over() -> None:
    assert set(SECTIONS) == {cls.__name__ for cls in (*LEAVES, Rollback, *WARNINGS)}


def test_the_root_leads_to_the_page_itself() -> None:
    assert PAGE.startswith(f"# Errors {{ #{SavepointsError.code} }}\n")


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.code)
def test_section_of_an_error(error: type[SavepointsError]) -> None:
    anchor, text = SECTIONS[error.__name__]
    assert anchor == error.code
    assert made(error).page == f"errors/#{anchor}"
    assert text.lstrip().startswith("If you see this, it is because")
    assert "```python" in text
    assert f"**Way out:** {error.hint}" in in_words(text)


@pytest.mark.parametrize("warning", WARNINGS, ids=lambda warning: warning.__name__)
def test_section_of_a_warning(warning: type[Warning]) -> None:
    anchor, text = SECTIONS[warning.__name__]
    assert anchor == re.sub(r"(?<!^)([A-Z])", r"-\1", warning.__name__).lower()
    assert text.lstrip().startswith("If you see this, it is because")
    assert "**Way out:**" in text
