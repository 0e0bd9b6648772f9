"""Rendering of change events, and how long the rendering is kept."""

import gc
import json
import weakref
from dataclasses import replace

from service_registry.replica.events import ChangeEvent
from service_registry.replica.store import Change
from service_registry.replica.subscribers import ALL_CHANGES, Subscriber, Subscribers

CHANGE = Change(7, "0123abcd-7", "updated", "default", "web", "a", b'{"kind": "updated"}', b'{"actor": "me"}')


def frame(index: str, document: bytes) -> bytes:
    """Format a change for a protocol."""
    return b"%b: %b" % (index.encode(), document)


def test_event_is_rendered_once_for_all_subscribers() -> None:
    subscribers = Subscribers()
    two = [Subscriber([ALL_CHANGES], 0), Subscriber([("default", "web")], 0)]
    for subscriber in two:
        subscribers.subscribe(subscriber)
    subscribers.publish([CHANGE])
    (one,), (other,) = (subscriber.take(10) for subscriber in two)
    for with_author in (False, True):
        assert one.render(frame, with_author) is other.render(frame, with_author)
        assert one.document(with_author) is other.document(with_author)


def test_event_is_freed_when_the_last_subscriber_takes_it() -> None:
    subscribers = Subscribers()
    subscriber = Subscriber([ALL_CHANGES], 0)
    subscribers.subscribe(subscriber)
    subscribers.publish([CHANGE])
    event = weakref.ref(subscriber.pending[0])
    subscriber.pending[0].render(frame, True)
    subscriber.take(10)
    gc.collect()
    assert event() is None


def test_event_contains_its_author_only_on_request() -> None:
    event = ChangeEvent(CHANGE)
    assert json.loads(event.document(False)) == {"kind": "updated"}
    assert json.loads(event.document(True)) == {"kind": "updated", "actor": "me"}
    for with_author in (False, True):
        expected = b"0123abcd-7: %b" % event.document(with_author)
        assert event.render(frame, with_author) == expected


def test_take_ends_at_the_number_or_at_enough_bytes() -> None:
    subscriber = Subscriber([ALL_CHANGES], 0)
    for pk in range(1, 8):
        subscriber.deliver(ChangeEvent(replace(CHANGE, pk=pk, public=b"x" * 100, private=b"")))
    taken = [
        subscriber.take(3),
        subscriber.take(3, enough_bytes=150),
        subscriber.take(3, enough_bytes=1),
        subscriber.take(3),
    ]
    assert [[event.change.pk for event in each] for each in taken] == [[1, 2, 3], [4, 5], [6], [7]]
    assert subscriber.take(3) == []
