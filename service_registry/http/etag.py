"""Entity tags of discovery: the service's last change, and what was asked (RFC 9110, section 8.8.3)."""

import re
from zlib import crc32

from service_registry.schemas import DiscoveryQuery, ListQuery

TAG = re.compile(r'(?:W/)?("[!#-~]*")')


def tag_of(index: str, question: str) -> str:
    """The strong tag of an answer: it moves when the service has a change, and differs between questions."""
    return f'"{index}.{crc32(question.encode()):08x}"'


def question_of(query: DiscoveryQuery | ListQuery) -> str:
    """What was asked, however long somebody was ready to wait for it."""
    return query.model_dump_json(exclude={"index", "wait"})


def matches(sent: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names `tag` (RFC 9110, section 13.1.2)."""
    return sent is not None and (sent.strip() == "*" or tag in TAG.findall(sent))
