"""An operation whose commit succeeded, and whose reply was lost, is retried: the log shows what that costs."""

from collections.abc import Iterator

import pytest

from service_registry.expiry.sweep import sweep
from service_registry.models import Change
from tests import ageing
from tests.changelog.commit_relay import CommitRelay, relayed_database
from tests.client import Api

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def relay(transactional_db: None) -> Iterator[CommitRelay]:
    with relayed_database() as relay:
        yield relay


def kinds() -> list[str]:
    before_the_first = {"log_started", "service_created"}
    return list(Change.objects.order_by("pk").exclude(kind__in=before_the_first).values_list("kind", flat=True))


def test_release_retried_after_a_lost_reply_appends_one_change(
    relay: CommitRelay, payments: Api, operator: Api
) -> None:
    payments.register()
    relay.replies_to_lose = 1
    answer = operator.post("/registry/services/web/release", {"reason": "scaled in"})
    assert (answer.status, answer.json, relay.replies_lost) == (200, {"released": 0}, 1)
    assert kinds() == ["registered", "released"]


def test_release_repeated_by_an_operator_appends_a_second_change(
    relay: CommitRelay, payments: Api, operator: Api
) -> None:
    payments.register()
    for _ in range(2):
        operator.post("/registry/services/web/release", {"reason": "scaled in"})
    assert kinds() == ["registered", "released", "released"]


def test_register_retried_after_a_lost_reply_appends_one_change_and_answers_200(
    relay: CommitRelay, payments: Api
) -> None:
    relay.replies_to_lose = 1
    answer = payments.register()
    assert (answer.status, relay.replies_lost) == (200, 1)
    assert kinds() == ["registered"]


def test_recovering_heartbeat_retried_after_a_lost_reply_appends_one_change_and_does_not_report_recovery(
    relay: CommitRelay, payments: Api
) -> None:
    payments.register()
    ageing.age_leases(60)
    sweep()
    relay.replies_to_lose = 1
    answer = payments.heartbeat()
    assert (answer.status, relay.replies_lost) == (200, 1)
    assert "recovered" not in answer.json
    assert kinds() == ["registered", "expired", "recovered"]


def test_deregister_retried_after_a_lost_reply_appends_one_change(relay: CommitRelay, payments: Api) -> None:
    payments.register()
    relay.replies_to_lose = 1
    assert (payments.deregister().status, relay.replies_lost) == (204, 1)
    assert kinds() == ["registered", "deregistered"]
