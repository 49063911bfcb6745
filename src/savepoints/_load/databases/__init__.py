"""The databases that have an algorithm of their own; a room for each."""

from __future__ import annotations

from collections.abc import Callable

from savepoints._load.algorithm import Algorithm, Job
from savepoints._load.databases import postgresql
from savepoints._load.databases.sqlite import OneStatement

#: By the dialect's name. MariaDB's place is here, too.
BY_DATABASE: dict[str, Callable[[Job], Algorithm]] = {"postgresql": postgresql.algorithm, "sqlite": OneStatement}
