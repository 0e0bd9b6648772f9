"""What watchers are sent of a change, and how long it is kept."""

import gc
import json
import weakref
from dataclasses import replace

from service_registry.replica.events import ChangeEvent
from service_registry.replica.store import Change
from service_registry.replica.subscribers import ALL_CHANGES, Subscriber, Subscribers

CHANGE = Change(7, "0123abcd-7", "updated", "default", "web", "a", b'{"kind": "updated"}', b'{"actor": "me"}')


def test_a_change_is_put_together_once_whoever_watches() -> None:
    waiters = Subscribers()
    two = [Subscriber([ALL_CHANGES], 0), Subscriber([("default", "web")], 0)]
    for waiter in two:
        waiters.subscribe(waiter)
    waiters.publish([CHANGE])
    (one,), (other,) = (waiter.take(10) for waiter in two)
    for with_author in (False, True):
        assert one.event(with_author) is other.event(with_author)
        assert one.document(with_author) is other.document(with_author)


def test_it_goes_with_the_last_who_takes_it() -> None:
    waiters = Subscribers()
    waiter = Subscriber([ALL_CHANGES], 0)
    waiters.subscribe(waiter)
    waiters.publish([CHANGE])
    notice = weakref.ref(waiter.pending[0])
    waiter.pending[0].event(True)
    waiter.take(10)
    gc.collect()
    assert notice() is None


def test_its_author_is_told_only_to_those_who_may_see_it() -> None:
    notice = ChangeEvent(CHANGE)
    assert json.loads(notice.document(False)) == {"kind": "updated"}
    assert json.loads(notice.document(True)) == {"kind": "updated", "actor": "me"}
    for with_author in (False, True):
        event = b"id: 0123abcd-7\nevent: change\ndata: %b\n\n" % notice.document(with_author)
        assert notice.event(with_author) == event


def test_as_many_are_taken_as_are_asked_for_or_are_enough() -> None:
    waiter = Subscriber([ALL_CHANGES], 0)
    for pk in range(1, 8):
        waiter.deliver(ChangeEvent(replace(CHANGE, pk=pk, public=b"x" * 100, private=b"")))
    taken = [waiter.take(3), waiter.take(3, enough_bytes=150), waiter.take(3, enough_bytes=1), waiter.take(3)]
    assert [[notice.change.pk for notice in each] for each in taken] == [[1, 2, 3], [4, 5], [6], [7]]
    assert waiter.take(3) == []
