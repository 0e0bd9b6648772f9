"""Write JSON text around JSON that PostgreSQL has rendered already.

Parsing such a document in Python only to write it again would cost more than the query that rendered it.
"""

import json
from typing import Any


def dump_json(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def dump_json_with_array(members: dict[str, Any], name: str, array: str) -> str:
    """Return `members` as JSON, followed by the member `name`, whose value `array` is JSON already."""
    return f'{dump_json(members)[:-1]},"{name}":{array}}}'
