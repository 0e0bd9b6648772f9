"""Entity tags of discovery (RFC 9110, section 8.8.3).

They name the last change of the service, and the query.
"""

import re
from zlib import crc32

from service_registry.schemas import DiscoveryQuery, ListQuery

TAG = re.compile(r'(?:W/)?("[!#-~]*")')


def entity_tag(index: str, query: str) -> str:
    """Return the strong tag of a response.

    It moves when the service changes, and differs between queries.
    """
    return f'"{index}.{crc32(query.encode()):08x}"'


def query_key(query: DiscoveryQuery | ListQuery) -> str:
    """Return the query as text, without the time that the caller is ready to wait."""
    return query.model_dump_json(exclude={"index", "wait"})


def matches(if_none_match: str | None, tag: str) -> bool:
    """Return whether an If-None-Match header names `tag` (RFC 9110, section 13.1.2)."""
    return if_none_match is not None and (if_none_match.strip() == "*" or tag in TAG.findall(if_none_match))
