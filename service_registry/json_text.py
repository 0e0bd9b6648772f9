"""JSON text: strict parsing, and writing around JSON that PostgreSQL rendered.

Parsing such a document in Python only to write it again would cost more than the query that rendered it.
"""

import json
from typing import Any


def dump_json(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def dump_json_with_array(members: dict[str, Any], name: str, array: str) -> str:
    """Return `members` as JSON, followed by the member `name` with a rendered array.

    `array` is JSON already.
    """
    return f'{dump_json(members)[:-1]},"{name}":{array}}}'


def parse_strict(text: bytes) -> Any:
    """Parse JSON (RFC 8259) in UTF-8 without what parsers disagree on.

    That is duplicate members, NaN and Infinity. A proxy, an audit tool or a library could otherwise read another
    document than the registry does. Raises ValueError, and RecursionError for deep nesting.
    """
    return STRICT_DECODER.decode(text.decode("utf-8"))


def require_unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def refuse_constant(_name: str) -> float:
    raise ValueError("NaN and Infinity are not JSON")


STRICT_DECODER = json.JSONDecoder(object_pairs_hook=require_unique_members, parse_constant=refuse_constant)
