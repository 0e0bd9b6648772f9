"""What the verbs' outcomes look like to a caller, whichever door asked."""

from typing import Any

from service_registry import manager
from service_registry.api.errors import STATUS_OF, item_error
from service_registry.exceptions import RegistryError
from service_registry.schemas import Heartbeat, Registration

Answer = tuple[int, dict[str, Any]]


def of_registration(_item: Registration, done: manager.Registered) -> Answer:
    return (201 if done.created else 200), done.document


def of_heartbeat(beat: Heartbeat, done: manager.Renewed) -> Answer:
    answer = {
        "namespace": beat.namespace,
        "service_name": beat.service_name,
        "instance_id": beat.instance_id,
        "status": done.status,
        "lease": done.lease,
    }
    return 200, answer | ({"recovered": True} if done.recovered else {})


def of_registered_item(done: manager.Registered) -> dict[str, Any]:
    return {"status": 201 if done.created else 200, "instance": done.document}


def of_beaten_item(done: manager.Renewed) -> dict[str, Any]:
    return {"status": 200, "lease": done.lease}


def of_deregistered_item(_done: object) -> dict[str, Any]:
    return {"status": 204}


def of_refused_item(error: RegistryError) -> dict[str, Any]:
    return {"status": STATUS_OF[type(error)], "error": item_error(error)}
