"""What a process takes out of the log into memory, with connections and rows as the feed has them."""

from collections.abc import Iterator

import pytest

from service_registry import changelog as log
from service_registry.changelog import prune as pruning
from service_registry.exceptions import IndexGone
from service_registry.replica.change_buffer import ChangeBuffer
from service_registry.replica.connection import FeedConnection, connect
from service_registry.replica.load import load_replica, read_changes
from service_registry.replica.store import Change
from tests import ageing
from tests.client import Api

pytestmark = pytest.mark.django_db(transaction=True)
DAY = 86400


@pytest.fixture
def feed() -> Iterator[FeedConnection]:
    with connect() as connection:
        yield connection


@pytest.fixture
def team() -> Api:
    return Api("registry-services", "team")


def prune() -> None:
    list(pruning.prune(pruning.plan_pruning(30 * DAY)))


def read(feed: FeedConnection, index: str, read_before_days: float = 0) -> list[Change] | None:
    return read_changes(feed, index, log.parse_index(index)[1], 500, read_before_days * DAY)


def with_a_gap_after_b(team: Api) -> str:
    """The index of b's registration, which is kept; a's leaving, which came after it, is pruned. Then c's and d's."""
    team.register("web", "a")
    team.register("web", "b")
    held = log.read_newest_index()
    team.deregister("web", "a")
    team.register("web", "c")
    ageing.age_changes(40 * DAY)
    team.register("web", "d")
    prune()
    with pytest.raises(IndexGone):
        log.read_after(held, 1)
    return held


def test_memory_begins_after_what_was_pruned(team: Api, feed: FeedConnection) -> None:
    held = with_a_gap_after_b(team)
    replica, newest = load_replica(feed)
    recent = ChangeBuffer.from_newest(newest)
    assert recent.contains(held, log.parse_index(held)[1]) is None
    assert recent.changes_after(log.parse_index(held)[1]) is None
    assert recent.contains(replica.index, replica.pk)
    following = team.register("web", "e")
    assert following.status == 201
    assert [change.instance_id for change in load_replica(feed)[1]] == ["d", "e"]


def test_memory_holds_the_last_change_however_old(team: Api, feed: FeedConnection) -> None:
    team.register("web", "a")
    team.register("web", "b")
    ageing.age_changes(40 * DAY)
    prune()
    replica, newest = load_replica(feed)
    assert [change.index for change in newest] == [replica.index] == [log.read_newest_index()]


def test_a_feed_that_was_away_while_the_log_was_pruned_starts_over(team: Api, feed: FeedConnection) -> None:
    assert read(feed, with_a_gap_after_b(team), read_before_days=40) is None


def test_a_feed_that_was_there_goes_on_from_a_last_change_of_any_age(team: Api, feed: FeedConnection) -> None:
    team.register("web", "a")
    ageing.age_changes(40 * DAY)
    held = log.read_newest_index()
    prune()
    assert read(feed, held, read_before_days=40) == []
    team.register("web", "b")
    found = read(feed, held, read_before_days=1)
    assert found is not None
    assert [change.instance_id for change in found] == ["b"]


def test_memory_begins_with_no_more_than_fits(team: Api, feed: FeedConnection) -> None:
    for number in range(8):
        team.register("web", f"i-{number}", metadata=dict.fromkeys("abcd", "x" * 500))
    size = max(change.size_bytes for change in load_replica(feed)[1][-8:])
    assert size > 4000
    assert [change.instance_id for change in load_replica(feed, max_bytes=3 * size)[1]] == [
        "i-4",
        "i-5",
        "i-6",
        "i-7",
    ]
    assert [change.instance_id for change in load_replica(feed, max_changes=2)[1]] == ["i-6", "i-7"]
    assert [change.instance_id for change in load_replica(feed, max_bytes=10)[1]] == ["i-7"]
    assert load_replica(feed)[0].services["default", "web"].instances.keys() == {f"i-{number}" for number in range(8)}
