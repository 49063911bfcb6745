"""Runs the Python examples of README.md and docs/, each page in an empty folder of its own."""

import os
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import Engine
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

HERE = os.getcwd()


def setup(namespace: dict[str, Any]) -> None:
    namespace["_folder"] = TemporaryDirectory()
    os.chdir(namespace["_folder"].name)


def teardown(namespace: dict[str, Any]) -> None:
    os.chdir(HERE)
    for value in namespace.values():
        if isinstance(value, Engine):  # else Python 3.13 warns of connections that nobody closed
            value.dispose()
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=setup,
    teardown=teardown,
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The examples of a page build on each other: random order is not for them."""
    examples = [item for item in items if isinstance(item, SybilItem)]
    in_order = iter(sorted(examples, key=lambda item: (item.path, item.example.line)))
    items[:] = [next(in_order) if isinstance(item, SybilItem) else item for item in items]
