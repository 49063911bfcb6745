"""Loading rows of unknown quality: the report, its parts, and what it is made of. The verb is `savepoints.load`."""

from __future__ import annotations
