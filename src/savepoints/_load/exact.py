"""Values of rows as JSON, exactly: what JSON has no form for is tagged, and comes back as it was."""

from __future__ import annotations

import base64
import datetime
import json
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

_OUT: dict[type, tuple[str, Any]] = {
    Decimal: ("decimal", str),
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.time: ("time", datetime.time.isoformat),
    datetime.timedelta: ("seconds", lambda value: str(Decimal(value // datetime.timedelta(microseconds=1)).scaleb(-6))),
    UUID: ("uuid", str),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    bytearray: ("bytes", lambda value: base64.b64encode(value).decode()),
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
    "unknown": str,
}


def plain(value: Any) -> Any:
    """A value in the types of JSON."""
    if value is None or (isinstance(value, (str, bool, int, float)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        inner = {str(key): plain(one) for key, one in value.items()}
        return {_TAG: "object", "value": list(inner.items())} if _TAG in inner else inner
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return _tagged(value)


def _tagged(value: Any) -> dict[str, Any]:
    for cls in type(value).__mro__:
        if cls in _OUT:
            name, out = _OUT[cls]
            return {_TAG: name, "value": out(value)}
    return {_TAG: "unknown", "value": str(value)}


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
    row = reject.row._asdict() if hasattr(reject.row, "_asdict") else reject.row
    record = {
        MARK: 1,
        **({"text": True} if text else {}),
        "number": reject.number,
        "line": reject.line,
        "row": plain(row),
        "reasons": [reason_fields(one) for one in reject.reasons],
    }
    return json.dumps(record)


def reject_of(line: str) -> Reject:
    """The reject that a line holds."""
    record = restore(line)
    reasons = tuple(Reason(**_hashable(one)) for one in record["reasons"])
    return Reject(record["number"], record["line"], record["row"], reasons)


def _hashable(fields: dict[str, Any]) -> dict[str, Any]:
    parent = fields.get("parent")
    return fields | ({} if parent is None else {"parent": tuple(parent)})
