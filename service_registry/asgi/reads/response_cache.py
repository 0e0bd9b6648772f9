"""Answers that were put together already, for all who ask the same: many wait for one change of one service."""

from collections import OrderedDict
from dataclasses import dataclass, field

# All of them in one process.
AT_MOST_BYTES = 32 * 1024 * 1024

Question = tuple[str, str, str]


@dataclass(slots=True)
class Texts:
    """The answers asked for last, by namespace, service name, and what was asked of it. Belongs to the event loop."""

    at_most_bytes: int = AT_MOST_BYTES
    held_bytes: int = 0
    by_question: OrderedDict[Question, tuple[str, bytes]] = field(default_factory=OrderedDict)

    def get(self, question: Question, index: str) -> bytes | None:
        """The answer, if it was put together at this index."""
        found = self.by_question.get(question)
        if found is None or found[0] != index:
            return None
        self.by_question.move_to_end(question)
        return found[1]

    def keep(self, question: Question, index: str, text: bytes) -> None:
        """In the place of an older one; and of those that were not asked for the longest, where there is no room."""
        self.drop(question)
        if len(text) > self.at_most_bytes:
            return
        self.by_question[question] = index, text
        self.held_bytes += len(text)
        while self.held_bytes > self.at_most_bytes:
            self.drop(next(iter(self.by_question)))

    def drop(self, question: Question) -> None:
        _index, text = self.by_question.pop(question, ("", b""))
        self.held_bytes -= len(text)
