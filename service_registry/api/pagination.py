"""Where a walk stands, as a cursor that callers send back and need not understand."""

import base64
import binascii
import json
import re

from service_registry.catalogue import Position
from service_registry.exceptions import InvalidInput

INDEX = re.compile(r"[0-9a-f]{8}-[0-9]{1,19}")


def encode(position: Position) -> str:
    text = json.dumps([position.index, position.namespace, position.name], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> Position:
    """Raises InvalidInput for anything that `encode` has not made."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        index, namespace, name = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        position = Position(index, namespace, name)
        if not INDEX.fullmatch(index) or encode(position) != cursor or "\x00" in namespace + name:
            raise ValueError("not a cursor of ours")
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise InvalidInput.of_field("after", "cursor", "must be `next` of an earlier page") from error
    return position
