"""Select instances by the filters of a query, as one SQL condition.

The condition uses the aliases of `sql`.
"""

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
    """The parameters of MATCHES.

    `narrowed` means that the query names at least one filter.
    """

    parameters: dict[str, Any]
    narrowed: bool


def resolve_filters(
    filters: InstanceFilters, statuses: Sequence[str], states: Sequence[str] = LISTED_STATES
) -> ResolvedFilters:
    """Resolve the filters of a query.

    `statuses` and `states` are the defaults where it names none.
    """
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
    named = (filters.status, filters.state, filters.protected, filters.zone, filters.tag, filters.metadata)
    return ResolvedFilters(parameters, narrowed=any(named))


def like_pattern(name: str | None) -> str | None:
    """Return the LIKE pattern for a name, or for a prefix that ends in a star."""
    if name is None:
        return None
    escaped = name.removesuffix("*").replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
    return escaped + ("%" if name.endswith("*") else "")


def name_matches(name: str, wanted: str | None) -> bool:
    """Return whether a name matches `wanted`, a name or a prefix with a star.

    This is done in memory.
    """
    if wanted is None:
        return True
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted
