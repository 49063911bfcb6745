"""``create_engine(url, plugins=["savepoints"])``: SQLAlchemy finds this by its entry point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import URL
from sqlalchemy.engine import CreateEnginePlugin, Engine

from savepoints._verbs import install

_WITHOUT = "savepoints_without"


class Plugin(CreateEnginePlugin):
    """Installs on the engine that is made; ``savepoints_without`` leaves repairs out.

    It is an argument of ``create_engine`` (names), or of the URL's query (names with commas between them).
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        texts = _several(url.query.get(_WITHOUT))
        named = [name.strip() for text in texts for name in text.split(",") if name.strip()]
        self._without = (*named, *_several(kwargs.pop(_WITHOUT, None)))

    def update_url(self, url: URL) -> URL:
        """Take out of the URL what was meant for us."""
        return url.difference_update_query([_WITHOUT])

    def engine_created(self, engine: Engine) -> None:
        """The engine is there."""
        install(engine, without=self._without)


def _several(given: str | Iterable[str] | None) -> Iterable[str]:
    """One name is not taken for letters."""
    return (given,) if isinstance(given, str) else given or ()
