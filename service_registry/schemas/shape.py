"""What holds for every shape that goes over the wire."""

from pydantic import ConfigDict

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
ARRAY_LIMIT = 1000
