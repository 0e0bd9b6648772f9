"""Share the renderings of a change among its subscribers."""

from collections.abc import Callable

from service_registry.replica.store import Change

# Returns a change in the format of a protocol, given its index and its JSON text.
Formatter = Callable[[str, bytes], bytes]


class ChangeEvent:
    """A change on its way to the subscribers.

    The first subscriber that needs a rendering creates it, and the others share it. The renderings are freed with the
    event, when the last subscriber has taken it; the changes in the change buffer carry none.
    """

    def __init__(self, change: Change) -> None:
        self.change = change
        self._renderings: dict[tuple[Formatter, bool], bytes] = {}

    @property
    def size_bytes(self) -> int:
        return len(self.change.public) + len(self.change.private)

    def document(self, with_author: bool) -> bytes:
        """Return the change as JSON."""
        return self.render(format_json, with_author)

    def render(self, formatter: Formatter, with_author: bool) -> bytes:
        """Return the change in the format of a protocol."""
        key = formatter, with_author
        if key not in self._renderings:
            document = self.change.full if with_author else self.change.public
            self._renderings[key] = formatter(self.change.index, document)
        return self._renderings[key]


def format_json(_index: str, document: bytes) -> bytes:
    return document
