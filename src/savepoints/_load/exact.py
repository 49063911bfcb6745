"""Values of rows as JSON, exactly: what JSON has no form for is tagged, and comes back as it was."""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from savepoints._load.reasons import Reason, Reject

#: The first key of each line of a file of rejects; its value is the version of the form.
MARK = "savepoints.reject"
_TAG = "$type"


class Unreadable:
    """A value that Python has no value for, as a moment finer than a microsecond or after the year 9999.

    Args:
        text: What it is.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


_OUT: dict[type, tuple[str, Any]] = {
    Decimal: ("decimal", str),
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.time: ("time", datetime.time.isoformat),
    datetime.timedelta: ("seconds", lambda value: str(Decimal(value // datetime.timedelta(microseconds=1)).scaleb(-6))),
    UUID: ("uuid", str),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    bytearray: ("bytes", lambda value: base64.b64encode(value).decode()),
    Unreadable: ("unreadable", str),
    memoryview: ("bytes", lambda value: base64.b64encode(value).decode()),
}

_IN: dict[str, Any] = {
    "decimal": Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "seconds": lambda text: datetime.timedelta(microseconds=int(Decimal(text).scaleb(6))),
    "uuid": UUID,
    "bytes": base64.b64decode,
    "object": dict,
    "float": float,
    "unreadable": Unreadable,
    "unknown": str,
}


def plain(value: Any) -> Any:
    """A value in the types of JSON."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        return {_TAG: "float", "value": str(value)}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        inner = {key if _is_scalar(key) else str(key): plain(one) for key, one in value.items()}
        strange = _TAG in inner or not all(isinstance(key, str) for key in inner)
        return {_TAG: "object", "value": list(inner.items())} if strange else inner
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return _tagged(value)


def _is_scalar(key: Any) -> bool:
    return key is None or (isinstance(key, (str, bool, int, float)) and not isinstance(key, Enum))


def _tagged(value: Any) -> dict[str, Any]:
    for cls in type(value).__mro__:
        if cls in _OUT:
            name, out = _OUT[cls]
            return {_TAG: name, "value": out(value)}
    return {_TAG: "unknown", "value": str(value)}


def text_of(value: Any) -> str:
    """A value as a file without types has it, for the column's type to read."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, datetime.timedelta):
        return str(value)
    found = plain(value)
    if isinstance(found, dict) and isinstance(found.get("value"), str):
        return str(found["value"])
    return json.dumps(found) if isinstance(found, (dict, list)) else str(found)


def _restored(found: dict[str, Any]) -> Any:
    back = _IN.get(found.get(_TAG, ""))
    return found if back is None else back(found["value"])


def restore(text: str) -> Any:
    """What `plain` wrote, as it was."""
    return json.loads(text, object_hook=_restored)


def reason_fields(one: Reason) -> dict[str, Any]:
    """The fields of a reason that are known."""
    fields = {name: getattr(one, name) for name in Reason.__slots__}
    return {name: plain(value) for name, value in fields.items() if value is not None}


def line_of(reject: Reject, *, text: bool = False) -> str:
    """One line of a file of rejects, without its end. Always ASCII, so that no broken text can break the file."""
    record = {
        MARK: 1,
        **({"text": True} if text else {}),
        "number": reject.number,
        "line": reject.line,
        **({} if reject.names is None else {"names": reject.names}),
        "row": plain(reject.row._asdict() if hasattr(reject.row, "_asdict") else reject.row),
        "reasons": [reason_fields(one) for one in reject.reasons],
    }
    return json.dumps(record)


def reject_of(line: str) -> Reject:
    """The reject that a line holds."""
    return reject_from(restore(line))


def reject_from(record: dict[str, Any]) -> Reject:
    """The reject that a record is of."""
    reasons = tuple(Reason(**_hashable(one)) for one in record["reasons"])
    names = record.get("names")
    return Reject(record["number"], record["line"], record["row"], reasons, None if names is None else tuple(names))


def _hashable(fields: dict[str, Any]) -> dict[str, Any]:
    parent = fields.get("parent")
    return fields | ({} if parent is None else {"parent": tuple(parent)})
