"""Which instances a reader asks for, as one condition in SQL over the aliases of `documents`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service_registry.choices import State, Status
from service_registry.schemas import InstanceFilters
from service_registry.sql import EFFECTIVE_STATUS, STATE_NAME

LISTED_STATES = (State.LIVE.value, State.PROTECTED.value)

MATCHES = f"""({EFFECTIVE_STATUS} = ANY (%(statuses)s) AND {STATE_NAME} = ANY (%(states)s)
    AND (%(zone)s::text IS NULL OR i.zone = %(zone)s)
    AND i.tags @> %(tags)s::text[] AND i.metadata @> %(metadata)s::jsonb)"""


@dataclass(frozen=True, slots=True)
class ResolvedFilters:
    """`parameters` are those of MATCHES; `narrowed` when the reader named any of them."""

    parameters: dict[str, Any]
    narrowed: bool


def resolve_filters(
    filters: InstanceFilters, statuses: Sequence[str], states: Sequence[str] = LISTED_STATES
) -> ResolvedFilters:
    """What `filters` ask for; `statuses` and `states` stand where they name none."""
    named_statuses = Status.values if "all" in (filters.status or ()) else filters.status
    named_states: Sequence[str] = State.values if "all" in (filters.state or ()) else filters.state or states
    if filters.protected is not None:
        only = filters.protected == "true"
        named_states = [state for state in named_states if (state == State.PROTECTED) == only]
    parameters = {
        "statuses": list(named_statuses or statuses),
        "states": list(named_states),
        "zone": filters.zone,
        "tags": filters.tag,
        "metadata": json.dumps(filters.metadata),
    }
    asked = (filters.status, filters.state, filters.protected, filters.zone, filters.tag, filters.metadata)
    return ResolvedFilters(parameters, narrowed=any(asked))


def like_pattern(name: str | None) -> str | None:
    """The LIKE pattern of a name, or of a prefix that ends in a star."""
    if name is None:
        return None
    escaped = name.removesuffix("*").replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
    return escaped + ("%" if name.endswith("*") else "")


def name_matches(name: str, asked: str | None) -> bool:
    """The same in memory: whether `name` is the one, or has the prefix, that is asked for."""
    if asked is None:
        return True
    return name.startswith(asked[:-1]) if asked.endswith("*") else name == asked
