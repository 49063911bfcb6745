"""The databases that have an algorithm of their own; a room for each."""

from __future__ import annotations

from collections.abc import Callable

from savepoints._load.algorithm import Algorithm, Job
from savepoints._load.databases import mariadb, postgresql
from savepoints._load.databases.sqlite import OneStatement

#: By the dialect's name.
BY_DATABASE: dict[str, Callable[[Job], Algorithm]] = {
    "mariadb": mariadb.algorithm,
    "mysql": mariadb.algorithm,
    "postgresql": postgresql.algorithm,
    "sqlite": OneStatement,
}
