"""Register fleets of proven instances, and stop the heartbeats of some."""

from collections.abc import Iterable
from datetime import timedelta

from django.db.models.functions import Now

from service_registry.models import Change, Instance, Lease
from tests import ageing
from tests.client import Api, registration

LONG = 100_000


def register_fleet(api: Api, services: dict[str, int], ttl_seconds: int = 30) -> list[str]:
    """Register instances of several services by their sizes, send one heartbeat each, and return their ids.

    An id is `<service>-<number>`.
    """
    keys = [(service, f"{service}-{number}") for service, size in services.items() for number in range(size)]
    api.post("/registry/register", [registration(*key, ttl_seconds=ttl_seconds) for key in keys])
    send_heartbeats(api, [instance_id for _, instance_id in keys])
    ageing.set_window_age(LONG)
    return [instance_id for _, instance_id in keys]


def send_heartbeats(api: Api, ids: Iterable[str]) -> None:
    items = [{"service_name": name.rpartition("-")[0], "instance_id": name} for name in ids]
    answer = api.post("/registry/heartbeat", items)
    assert {result["status"] for result in answer.json["results"]} == {200}


def set_heartbeat_age(seconds: float, ids: Iterable[str]) -> None:
    """Let the last heartbeats of these instances be `seconds` old. The observation window covers the time."""
    leases = Lease.objects.filter(instance__in=Instance.objects.filter(instance_id__in=list(ids)))
    leases.update(heartbeat_at=Now() - timedelta(seconds=seconds))
    ageing.set_window_age(LONG)


def change_kinds(ids: Iterable[str]) -> set[tuple[str, ...]]:
    """Return the distinct sequences of change kinds that these instances have."""
    sequences: dict[str, list[str]] = {name: [] for name in ids}
    for name, kind in (
        Change.objects.filter(instance_id__in=sequences).order_by("id").values_list("instance_id", "kind")
    ):
        sequences[str(name)].append(kind)
    return {tuple(sequence) for sequence in sequences.values()}


def protected_ids() -> set[str]:
    return set(Instance.objects.protected().values_list("instance_id", flat=True))


def expired_ids() -> set[str]:
    return set(Instance.objects.expired().values_list("instance_id", flat=True))
