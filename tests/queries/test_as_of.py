"""GET /registry/services/{name}?at= returns what discovery returned at that moment."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection

from service_registry import changelog
from service_registry.changelog import prune
from service_registry.choices import ChangeKind, Rule
from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Lease, RegistryState
from tests import ageing
from tests.client import Answer, Api

QUERIES = (
    "",
    "status=all",
    "status=all&state=all",
    "zone=eu",
    "tag=blue&status=all",
    "metadata.rack=7",
    "state=expired",
)


def now() -> str:
    """Return the time of the database's clock, which stamps the changes."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return str(cursor.fetchone()[0].isoformat())


def discovered(api: Api, name: str, query: str = "", at: str | None = None) -> Answer:
    return api.get(f"/registry/services/{name}?{query}{f'&at={quote(at)}' if at else ''}")


def content(answer: Answer) -> Any:
    return answer.json if answer.status == 200 else answer.code


# The time, and the response of discovery to each query of each service.
Moment = tuple[str, dict[tuple[str, str], Any]]


@dataclass
class Story:
    """Random operations on instances of two services, with the responses of discovery after each."""

    rng: random.Random
    team: Api
    operator: Api
    admin: Api
    reader: Api
    moments: list[Moment] = field(default_factory=list)

    def run(self, operations: int) -> None:
        often = [*[self.register] * 6, *[self.heartbeat] * 3, *[self.deregister] * 2, *[self.override] * 3]
        seldom = (self.clear, self.expire, self.purge, self.hand_over, self.delete, self.protect, self.release)
        choices: Sequence[Callable[[str, str], None]] = (*often, *seldom)
        for _ in range(operations):
            self.rng.choice(choices)(self.rng.choice("ab"), self.rng.choice("123"))
            self.moments.append((now(), self.answers()))

    def answers(self) -> dict[tuple[str, str], Any]:
        return {(name, query): content(discovered(self.reader, name, query)) for name in "ab" for query in QUERIES}

    def register(self, service: str, instance: str) -> None:
        fields: dict[str, Any] = {"weight": self.rng.randrange(3), "zone": self.rng.choice([None, "eu"])}
        fields |= {
            "tags": self.rng.choice([[], ["blue", "new"]]),
            "metadata": self.rng.choice([{}, {"rack": "7"}]),
        }
        self.team.register(service, instance, **fields, status=self.rng.choice(["UP", "UP", "DOWN"]))

    def heartbeat(self, service: str, instance: str) -> None:
        self.team.heartbeat(service, instance, status=self.rng.choice(["UP", "STARTING"]))

    def deregister(self, service: str, instance: str) -> None:
        self.team.deregister(service, instance)

    def override(self, service: str, instance: str) -> None:
        statement = {"status": self.rng.choice(["UP", "DOWN"]), "reason": "x"}
        self.operator.call("PUT", f"/registry/instance/{service}/{instance}/status", statement)

    def clear(self, service: str, instance: str) -> None:
        self.operator.call("DELETE", f"/registry/instance/{service}/{instance}/status")

    def expire(self, service: str, instance: str) -> None:
        ageing.age_leases(60, service__name=service, instance_id=instance)
        sweep()

    def purge(self, _service: str, _instance: str) -> None:
        ageing.age_expiries(700)
        sweep()

    def hand_over(self, service: str, _instance: str) -> None:
        owners = ["team-payments", *self.rng.sample(["team-x", "team-y"], self.rng.randrange(3))]
        self.admin.call("PUT", f"/registry/services/{service}/owners", {"owners": owners})

    def delete(self, service: str, _instance: str) -> None:
        for instance in "123":
            self.team.deregister(service, instance)
        self.admin.call("DELETE", f"/registry/services/{service}")

    def protect(self, service: str, instance: str) -> None:
        """Protect an instance as a sweep does."""
        lease = Lease.objects.filter(
            instance__service__name=service, instance__instance_id=instance, expired_at=None, protected_at=None
        )
        if (pk := lease.values_list("pk", flat=True).first()) and lease.update(
            protected_at=now(), protected_by=Rule.SERVICE
        ):
            event = changelog.NewChange(ChangeKind.PROTECTED, "default", service, "system:sweep", instance, pk)
            changelog.append_changes([event])

    def release(self, service: str, _instance: str) -> None:
        self.operator.post(f"/registry/services/{service}/release", {"reason": "x"})


@pytest.fixture
def story(payments: Api, operator: Api, reader: Api, request: pytest.FixtureRequest) -> Story:
    story = Story(random.Random(request.param), payments, operator, Api("registry-admins"), reader)
    story.run(40)
    return story


@pytest.mark.parametrize("story", [1, 2], indirect=True)
def test_discovery_at_a_past_moment_equals_discovery_then_or_is_gone_after_pruning(story: Story) -> None:
    """At every moment before the log is pruned, and at every second one after each of two prunings."""
    check_moments(story.reader, story.moments)
    for chosen, _answers in story.moments[15::15]:
        prune_before(chosen)
        check_moments(story.reader, story.moments[::2])
        assert reaches_back_to(story.moments[-5][0])
        assert not reaches_back_to(chosen)


def check_moments(reader: Api, moments: list[Moment]) -> None:
    """Compare discovery at past moments with its responses at these moments."""
    for moment, answers in moments:
        is_kept = reaches_back_to(moment)
        for (name, query), answer in answers.items():
            shown = content(discovered(reader, name, query, moment))
            assert shown == (answer if is_kept else "history_gone"), (moment, name, query)


def prune_before(moment: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp() - %s::timestamptz)::float8", [moment])
        (age_seconds,) = cursor.fetchone()
    assert sum(step.obsolete for step in prune.prune(prune.plan_pruning(age_seconds), rows_per_transaction=5)) > 0


def reaches_back_to(moment: str) -> bool:
    cutoff = RegistryState.objects.values_list("pruned_before", flat=True)[0]
    return cutoff is None or datetime.fromisoformat(moment) >= cutoff


def test_discovery_at_the_time_of_a_change_includes_it(payments: Api, reader: Api) -> None:
    payments.register()
    payments.register(weight=1)
    first, second = Change.objects.order_by("-id")[:2][::-1]
    assert discovered(reader, "web", at=first.at.isoformat()).json["instances"][0]["weight"] == 100
    assert discovered(reader, "web", at=second.at.isoformat()).json["instances"][0]["weight"] == 1
    assert discovered(reader, "web", at=second.at.isoformat()).json["index"] == f"{second.mark}-{second.pk}"


def test_discovery_before_the_first_change_is_gone(payments: Api, reader: Api) -> None:
    payments.register()
    answer = discovered(reader, "web", at="2001-01-01T00:00:00Z")
    assert (answer.status, answer.code) == (410, "history_gone")


def test_discovery_before_a_pruning_that_deleted_nothing_is_gone(payments: Api, reader: Api) -> None:
    payments.register()
    list(prune.prune(prune.plan_pruning(86400)))
    an_hour_ago = datetime.fromisoformat(now()) - timedelta(hours=1)
    assert discovered(reader, "web", at=an_hour_ago.isoformat()).code == "history_gone"
    assert discovered(reader, "web", at=now()).status == 200


def test_discovery_before_the_service_existed_is_not_found(payments: Api, reader: Api) -> None:
    before = now()
    payments.register()
    answer = discovered(reader, "web", at=before)
    assert (answer.status, answer.code) == (404, "service_not_found")


def test_discovery_at_a_past_moment_keeps_namespaces_apart(payments: Api, reader: Api) -> None:
    payments.register("web", "a")
    payments.register("web", "b", namespace="test")
    answer = discovered(reader, "web", "namespace=test", now())
    assert [instance["instance_id"] for instance in answer.json["instances"]] == ["b"]
