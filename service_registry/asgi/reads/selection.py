"""The instances that queries of discovery select, prepared once for each distinct query."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service_registry.http import etag
from service_registry.queries.filters import LISTED_STATES, resolve_filters
from service_registry.schemas import DiscoveryQuery

# Callers repeat a few queries for many services. Longer queries, and more of them, are parsed each time: clients can
# make any number.
MAX_QUERIES = 256
MAX_QUERY_BYTES = 512


@dataclass(frozen=True, slots=True)
class Selection:
    """The instances that a query selects of any service.

    Attributes:
        namespace: of the service.
        named_namespace: the namespace in the query; None where it names none.
        key: the query as text.
        digest: what distinguishes its entity tags from those of other queries.
        parameters: of `filter_documents`.
    """

    namespace: str
    named_namespace: str | None
    key: str
    digest: str
    parameters: Mapping[str, Any]

    @classmethod
    def from_query(cls, query: DiscoveryQuery) -> "Selection":
        key = etag.query_key(query)
        return cls(
            query.namespace,
            query.namespace if "namespace" in query.model_fields_set else None,
            key,
            etag.query_digest(key),
            resolve_filters(query, ["UP"], LISTED_STATES).parameters,
        )


@dataclass(slots=True)
class SelectionCache:
    """The selections of recent queries about the present, by their query strings. The oldest goes first."""

    selections: dict[bytes, Selection] = field(default_factory=dict)

    def find(self, query_string: bytes) -> Selection | None:
        return self.selections.get(query_string)

    def put(self, query_string: bytes, selection: Selection) -> None:
        """Keep a selection, unless its query is long."""
        if len(query_string) <= MAX_QUERY_BYTES:
            while len(self.selections) >= MAX_QUERIES:
                del self.selections[next(iter(self.selections))]
            self.selections[query_string] = selection
