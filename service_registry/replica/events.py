"""Render changes as events of the watch, once for all subscribers."""

from functools import cached_property

from service_registry.replica.store import Change

TOKEN_EXPIRED_EVENT = b'event: expired\ndata: {"code":"token_invalid"}\n\n'
RESYNC_EVENT = b'event: resync\ndata: {"code":"index_gone"}\n\n'


class ChangeEvent:
    """A change on its way to the subscribers.

    The first subscriber that needs a rendered form creates it, and the others share it. The renderings are freed with
    the event, when the last subscriber has taken it; the changes in the change buffer carry none.
    """

    def __init__(self, change: Change) -> None:
        self.change = change

    @property
    def size_bytes(self) -> int:
        return len(self.change.public) + len(self.change.private)

    def document(self, with_author: bool) -> bytes:
        """Return the change as JSON."""
        return self.full_document if with_author else self.change.public

    def event(self, with_author: bool) -> bytes:
        """Return the change as a server-sent event."""
        return self.full_event if with_author else self.public_event

    @cached_property
    def full_document(self) -> bytes:
        return self.change.full

    @cached_property
    def public_event(self) -> bytes:
        return format_event(self.change.index, self.change.public)

    @cached_property
    def full_event(self) -> bytes:
        return format_event(self.change.index, self.change.full)


def format_event(index: str, document: bytes) -> bytes:
    """Format a server-sent event (HTML standard, section 9.2). PostgreSQL's JSON has no line breaks."""
    return b"id: %b\nevent: change\ndata: %b\n\n" % (index.encode(), document)


def sync_event(index: str) -> bytes:
    """Format the event that tells a client up to which index it has received everything."""
    text = index.encode()
    return b'id: %b\nevent: sync\ndata: {"index":"%b"}\n\n' % (text, text)
