"""Loading a replica and reading on, over the feed's own kind of connection."""

from collections.abc import Iterator

import pytest

from service_registry import changelog
from service_registry.changelog import prune
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


def prune_old_changes() -> None:
    list(prune.prune(prune.plan_pruning(30 * DAY)))


def read(feed: FeedConnection, index: str, read_before_days: float = 0) -> list[Change] | None:
    return read_changes(feed, index, changelog.parse_index(index)[1], 500, read_before_days * DAY)


def create_gap_after_b(team: Api) -> str:
    """Return the index of b's registration, which pruning keeps, while it deletes a's deregistration after it."""
    team.register("web", "a")
    team.register("web", "b")
    kept = changelog.read_newest_index()
    team.deregister("web", "a")
    team.register("web", "c")
    ageing.age_changes(40 * DAY)
    team.register("web", "d")
    prune_old_changes()
    with pytest.raises(IndexGone):
        changelog.read_after(kept, 1)
    return kept


def test_buffer_starts_after_the_pruned_gap(team: Api, feed: FeedConnection) -> None:
    kept = create_gap_after_b(team)
    replica, newest = load_replica(feed)
    buffer = ChangeBuffer.from_newest(newest)
    assert buffer.contains(kept, changelog.parse_index(kept)[1]) is None
    assert buffer.changes_after(changelog.parse_index(kept)[1]) is None
    assert buffer.contains(replica.index, replica.pk)
    following = team.register("web", "e")
    assert following.status == 201
    assert [change.instance_id for change in load_replica(feed)[1]] == ["d", "e"]


def test_buffer_contains_the_newest_change_however_old(team: Api, feed: FeedConnection) -> None:
    team.register("web", "a")
    team.register("web", "b")
    ageing.age_changes(40 * DAY)
    prune_old_changes()
    replica, newest = load_replica(feed)
    assert [change.index for change in newest] == [replica.index] == [changelog.read_newest_index()]


def test_read_changes_after_pruning_during_an_absence_returns_none(team: Api, feed: FeedConnection) -> None:
    assert read(feed, create_gap_after_b(team), read_before_days=40) is None


def test_read_changes_after_an_old_newest_change_continues(team: Api, feed: FeedConnection) -> None:
    team.register("web", "a")
    ageing.age_changes(40 * DAY)
    kept = changelog.read_newest_index()
    prune_old_changes()
    assert read(feed, kept, read_before_days=40) == []
    team.register("web", "b")
    found = read(feed, kept, read_before_days=1)
    assert found is not None
    assert [change.instance_id for change in found] == ["b"]


def test_load_returns_only_the_newest_changes_that_fit(team: Api, feed: FeedConnection) -> None:
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
