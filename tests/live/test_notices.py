"""What watchers are sent of a change, and how long it is kept."""

import gc
import json
import weakref

from service_registry.live.notices import Notice
from service_registry.live.replica import Change
from service_registry.live.streaming import WRITE_BYTES, joined
from service_registry.live.waiting import ALL, Waiter, Waiters

CHANGE = Change(7, "0123abcd-7", "updated", "default", "web", "a", b'{"kind": "updated"}', b'{"actor": "me"}')


def test_a_change_is_put_together_once_whoever_watches() -> None:
    waiters = Waiters()
    two = [Waiter([ALL], 0), Waiter([("default", "web")], 0)]
    for waiter in two:
        waiters.join(waiter)
    waiters.tell([CHANGE])
    (one,), (other,) = (waiter.take(10) for waiter in two)
    for with_author in (False, True):
        assert one.event(with_author) is other.event(with_author)
        assert one.document(with_author) is other.document(with_author)


def test_it_goes_with_the_last_who_takes_it() -> None:
    waiters = Waiters()
    waiter = Waiter([ALL], 0)
    waiters.join(waiter)
    waiters.tell([CHANGE])
    notice = weakref.ref(waiter.pending[0])
    waiter.pending[0].event(True)
    waiter.take(10)
    gc.collect()
    assert notice() is None


def test_its_author_is_told_only_to_those_who_may_see_it() -> None:
    notice = Notice(CHANGE)
    assert json.loads(notice.document(False)) == {"kind": "updated"}
    assert json.loads(notice.document(True)) == {"kind": "updated", "actor": "me"}
    for with_author in (False, True):
        event = b"id: 0123abcd-7\nevent: change\ndata: %b\n\n" % notice.document(with_author)
        assert notice.event(with_author) == event


def test_no_write_is_much_larger_than_its_bound() -> None:
    events = [b"x" * size for size in (1, WRITE_BYTES - 2, 1, 3 * WRITE_BYTES, 5)]
    texts = list(joined(events))
    assert [len(text) for text in texts] == [WRITE_BYTES, 3 * WRITE_BYTES, 5]
    assert b"".join(texts) == b"".join(events)
    assert list(joined([])) == []
