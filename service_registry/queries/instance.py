"""Read an instance with its lease and its health check from the database."""

from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.exceptions import AmbiguousInstance, InstanceNotFound, ServiceNotFound
from service_registry.models import Service
from service_registry.sql import (
    CHANGE,
    INSTANCE_MEMBERS,
    INSTANCE_ROWS,
    JUDGED_BY,
    LAST_CHECK_MEMBERS,
    LEASE_DOCUMENT,
    NEWEST_FIRST,
    STANDING_ROWS,
    STATE,
    rfc3339,
)

FULL_DOCUMENT = f"""json_build_object({INSTANCE_MEMBERS}, 'lease', {LEASE_DOCUMENT},
    'judged_by', {JUDGED_BY}, 'registered_by', i.registered_by, 'health_check', i.health_check,
    'last_check', CASE WHEN h.instance_id IS NOT NULL
        THEN json_build_object({LAST_CHECK_MEMBERS}, 'output', h.output) END)"""
OVERRIDE_DOCUMENT = f"""CASE WHEN o.id IS NOT NULL THEN json_build_object('status', o.status,
    'until', {rfc3339("o.until")}, 'reason', o.reason, 'actor', o.actor) END"""

# Handed over means that the owners of the service were changed after the instance was registered, or overridden.
FIND = f"""
SELECT s.owners, {FULL_DOCUMENT}, {OVERRIDE_DOCUMENT},
    COALESCE(handover.at > i.registered_at, false), COALESCE(handover.at > o.created_at, false)
FROM {INSTANCE_ROWS} {STANDING_ROWS} CROSS JOIN {STATE} r
LEFT JOIN LATERAL (
    SELECT c.at FROM {CHANGE} c
    WHERE c.namespace = s.namespace AND c.service_name = s.name AND c.instance_id IS NULL
        AND c.kind = '{ChangeKind.OWNERS_CHANGED}'
    ORDER BY {NEWEST_FIRST} LIMIT 1
) handover ON true
WHERE i.instance_id = %(instance_id)s AND s.namespace = %(namespace)s
    AND (%(service_name)s::text IS NULL OR s.name = %(service_name)s)
ORDER BY s.name LIMIT 100
"""
# Of a check, beside the output: where it asks, and with what.
PRIVATE_OF_CHECK = ("path", "headers")


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance with its lease and its health check, the present owners, and who registered and overrode it.

    The log does not say for sure who owned the service before the last change of its owners. So what was written before
    that, `registered_by` or the reason and actor of the override, is for callers with `view_change` alone.
    """

    index: str
    owners: list[str]
    document: dict[str, Any]
    override: dict[str, Any] | None
    registered_before_handover: bool
    overridden_before_handover: bool

    def document_for(self, caller: Caller) -> dict[str, Any]:
        """Return the instance with what the caller may see."""
        document = dict(self.document)
        sees_all, is_owner = caller.may("view_change"), caller.owns(self.owners)
        if not (sees_all or (is_owner and not self.registered_before_handover)):
            del document["registered_by"]
        if sees_all or (is_owner and not self.overridden_before_handover):
            document["override"] = self.override
        if not (caller.may_read_actors(self.owners) or caller.may("operate_instance")):
            document["health_check"] = without(document["health_check"], *PRIVATE_OF_CHECK)
            document["last_check"] = without(document["last_check"], "output")
        return document


def without(document: dict[str, Any] | None, *names: str) -> dict[str, Any] | None:
    return document and {name: value for name, value in document.items() if name not in names}


def find_instance(namespace: str, service_name: str | None, instance_id: str) -> FoundInstance:
    """Return an instance with its lease, in any state.

    It may be of any service when `service_name` is None.

    Raises:
        ServiceNotFound: no service has this name.
        InstanceNotFound: the service has no such instance; with the reason, if a service is named.
        AmbiguousInstance: several services have an instance with this id.
    """
    index = changelog.read_newest_index()
    with connection.cursor() as cursor:
        cursor.execute(FIND, {"namespace": namespace, "service_name": service_name, "instance_id": instance_id})
        rows = cursor.fetchall()
    if len(rows) > 1:
        named = ("namespace", "service_name", "instance_id")
        raise AmbiguousInstance([{name: document[name] for name in named} for _owners, document, *_ in rows])
    if not rows:
        raise explain_missing(namespace, service_name, instance_id)
    return FoundInstance(index, *rows[0])


def explain_missing(namespace: str, service_name: str | None, instance_id: str) -> ServiceNotFound | InstanceNotFound:
    if service_name is None:
        return InstanceNotFound("never_registered")
    if not Service.objects.filter(namespace=namespace, name=service_name).exists():
        return ServiceNotFound()
    (last,) = changelog.read_last_lifecycle_kinds([(namespace, service_name, instance_id)])
    return InstanceNotFound.after(last)
