"""Entity tags of discovery (RFC 9110, section 8.8.3).

They name the last change of the service, and the query.
"""

import re
from zlib import crc32

from service_registry.schemas import DiscoveryQuery, ListQuery

OPAQUE = re.compile(r'(?:W/)?("[!#-~]*")')


def entity_tag(index: str, digest: str) -> str:
    """Return the tag of a response.

    It moves when the service changes, and differs between queries. It is weak: the compressed body and the plain one
    have the same (section 8.8.3.3).
    """
    return f'W/"{index}.{digest}"'


def query_key(query: DiscoveryQuery | ListQuery) -> str:
    """Return the query as text, without the path and the time that the caller is ready to wait."""
    in_path = {"name"} if isinstance(query, DiscoveryQuery) else set()
    return query.model_dump_json(exclude={"index", "wait"} | in_path)


def query_digest(key: str) -> str:
    """Return what distinguishes the tag of one query from those of others."""
    return f"{crc32(key.encode()):08x}"


def matches(if_none_match: str | None, tag: str) -> bool:
    """Return whether an If-None-Match header names `tag`, by the weak comparison (RFC 9110, section 13.1.2)."""
    if if_none_match is None or if_none_match == tag:
        return if_none_match is not None
    return if_none_match.strip() == "*" or tag.removeprefix("W/") in OPAQUE.findall(if_none_match)
