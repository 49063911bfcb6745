"""The rules that keep the house standing, where no tool knows them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import savepoints
from savepoints import _sync, aio

SOURCE = Path(savepoints.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = re.compile(r"postgres|mysql|mariadb|sqlite|oracle|mssql|cockroach", re.IGNORECASE)
NOTE = re.compile(r"Note \[([^\]]+)\]")


def code(file: Path) -> str:
    """The file without comments and docstrings, in which a database may be named as an example."""
    text = re.sub(r'"""(?:[^"]|"(?!""))*"""', "", file.read_text())
    return re.sub(r"#.*", "", text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_database_has_its_name_in_one_room_only(file: Path) -> None:
    if not {"_databases", "databases"} & set(file.parts):  # its row, and the loader's rooms
        assert not NAMES.findall(code(file))


def test_each_note_that_is_referred_to_stands_somewhere_once() -> None:
    texts = [file.read_text() for file in FILES]
    referred = {name for text in texts for name in NOTE.findall(text)}
    standing = [name for text in texts for name in re.findall(r"^# Note \[([^\]]+)\]$", text, re.MULTILINE)]
    assert sorted(standing) == sorted(referred)


def test_rooms_are_small() -> None:
    assert {file.name: count for file in FILES if (count := len(file.read_text().splitlines())) > 450} == {}


FACES = [
    (_sync.Savepoint, aio.AsyncSavepoint),
    (_sync.Transaction, aio.AsyncTransaction),
    (_sync.Session, aio.AsyncSession),
    (_sync.scoped_session, aio.async_scoped_session),
]


def verbs(face: type) -> dict[str, tuple[list[str], str | None]]:
    """What this class adds of its own: names, parameters, docstrings."""
    own = {name: verb for name, verb in vars(face).items() if not name.startswith("_") and inspect.isroutine(verb)}
    return {name: (list(inspect.signature(verb).parameters), inspect.getdoc(verb)) for name, verb in own.items()}


@pytest.mark.parametrize(("sync", "asynchronous"), FACES, ids=lambda face: face.__name__)
def test_both_faces_have_the_same_verbs(sync: type, asynchronous: type) -> None:
    assert verbs(sync) == verbs(asynchronous)
    assert verbs(sync)


def test_all_public_names_are_there() -> None:
    for name in savepoints.__all__:
        assert getattr(savepoints, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'checkpoint'"):
        _ = savepoints.checkpoint
