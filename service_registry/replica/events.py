"""Changes on their way to those who watch, and the texts of the event stream."""

from functools import cached_property

from service_registry.replica.store import Change

TOKEN_EXPIRED_EVENT = b'event: expired\ndata: {"code":"token_invalid"}\n\n'
RESYNC_EVENT = b'event: resync\ndata: {"code":"index_gone"}\n\n'


class ChangeEvent:
    """A change that somebody waits for.

    What watchers are sent of it is put together by the first of them, and shared. It goes with the notice, once the
    last has taken it: the changes that memory keeps for those who come back stay without.
    """

    def __init__(self, change: Change) -> None:
        self.change = change

    @property
    def size(self) -> int:
        """Bytes of text."""
        return len(self.change.public) + len(self.change.private)

    def document(self, with_author: bool) -> bytes:
        """As JSON."""
        return self.full_document if with_author else self.change.public

    def event(self, with_author: bool) -> bytes:
        """As an event of the stream."""
        return self.full_event if with_author else self.public_event

    @cached_property
    def full_document(self) -> bytes:
        return self.change.full

    @cached_property
    def public_event(self) -> bytes:
        return event_of(self.change.index, self.change.public)

    @cached_property
    def full_event(self) -> bytes:
        return event_of(self.change.index, self.change.full)


def event_of(index: str, document: bytes) -> bytes:
    """As the HTML standard writes server-sent events; JSON has no line breaks."""
    return b"id: %b\nevent: change\ndata: %b\n\n" % (index.encode(), document)


def sync_event(index: str) -> bytes:
    text = index.encode()
    return b'id: %b\nevent: sync\ndata: {"index":"%b"}\n\n' % (text, text)
