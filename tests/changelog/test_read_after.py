"""Reading the changes after an index."""

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from service_registry import changelog, schemas
from service_registry.exceptions import IndexGone, InvalidInput
from service_registry.models import Change
from tests import ageing
from tests.client import Api


def read(index: str, **filters: Any) -> list[tuple[str, str | None]]:
    return [(change.kind, change.instance_id) for change in changelog.read_after(index, 100, **filters)]


def test_read_after_an_index_returns_later_changes_in_order(payments: Api) -> None:
    start = changelog.read_newest_index()
    payments.register("web", "a")
    payments.register("web", "a", weight=5)
    payments.deregister("web", "a")
    assert read(start) == [("service_created", None), ("registered", "a"), ("updated", "a"), ("deregistered", "a")]
    created, registered, *later = changelog.read_after(start, 100)
    assert changelog.read_after(registered.index, 100) == later
    assert changelog.read_after(start, 2) == [created, registered]
    assert later[-1].index == changelog.read_newest_index()


def test_read_after_the_newest_index_returns_nothing(db: None) -> None:
    assert changelog.read_after(changelog.read_newest_index(), 100) == []


def test_read_after_with_filters_returns_matching_services(payments: Api) -> None:
    start = changelog.read_newest_index()
    for name in ("a", "b", "c"):
        payments.register(name, f"{name}-1")
        payments.register(name, f"{name}-2", namespace="test")
    made = "registered"
    assert read(start, services=["a", "c"], namespace="default")[1::2] == [(made, "a-1"), (made, "c-1")]
    assert read(start, services=["b"])[1::2] == [(made, "b-1"), (made, "b-2")]
    assert read(start, namespace="test")[1::2] == [(made, "a-2"), (made, "b-2"), (made, "c-2")]
    assert read(start, services=["nowhere"]) == []


def test_change_document_matches_the_schema_and_the_row(payments: Api) -> None:
    payments.register()
    start = changelog.read_newest_index()
    override = {"status": "DOWN", "reason": "disk"}
    payments.call("PUT", "/registry/instance/web/web-1/status", override)
    (change,) = changelog.read_after(start, 1)
    public, full = json.loads(change.public), json.loads(change.full)
    schemas.Change.model_validate(full)
    row = Change.objects.latest("id")
    assert public["index"] == change.index == f"{row.mark}-{row.pk}"
    assert public["changed"] == ["override", "status"]
    assert public["instance"] == payments.get("/registry/services/web?status=all").json["instances"][0]
    assert {name: full[name] for name in full.keys() - public.keys()} == {
        "actor": row.actor,
        "reason": "disk",
        "evidence": {"override": "DOWN", "until": None},
    }


def test_change_without_evidence_omits_its_members(payments: Api) -> None:
    start = changelog.read_newest_index()
    payments.register()
    change = changelog.read_after(start, 2)[1]
    assert "changed" not in json.loads(change.full)
    assert {"actor", "reason"} == json.loads(change.private).keys()


def replaced(index: str) -> str:
    """Return an index whose row was lost in a failover, and whose id belongs to another row now."""
    mark, _, pk = index.partition("-")
    return f"{int(mark, 16) ^ 1:08x}-{pk}"


def test_read_after_an_index_without_a_row_raises_index_gone(payments: Api) -> None:
    payments.register()
    end = changelog.read_newest_index()
    mark, pk = changelog.parse_index(end)
    for index in (replaced(end), f"{mark}-{pk + 1}", f"{mark}-{2**63 - 1}", "00000000-1"):
        with pytest.raises(IndexGone):
            changelog.read_after(index, 100)


def test_index_stays_valid_when_later_changes_are_lost(payments: Api) -> None:
    payments.register()
    before = changelog.read_newest_index()
    payments.register(weight=1)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE service_registry_change SET mark = '00000000' WHERE id > %s", [changelog.parse_index(before)[1]]
        )
    assert len(changelog.read_after(before, 100)) == 1


MALFORMED_INDEXES = [
    "",
    "1",
    "x",
    "-1",
    "0000000g-1",
    "00000000-0",
    "00000000-01",
    "00000000-",
    "00000000--1",
    "00000000-1 ",
]
MALFORMED_INDEXES += ["00000000-1\n", f"00000000-{2**63}", "00000000-\u0661", "ABCDEF00-1", "00000000-1.0", "9" * 5000]


@pytest.mark.parametrize("text", MALFORMED_INDEXES)
def test_read_after_a_malformed_index_is_invalid(db: None, text: str) -> None:
    with pytest.raises(InvalidInput):
        changelog.read_after(text, 100)


def test_read_after_an_index_before_a_pruned_gap_raises_index_gone(payments: Api) -> None:
    """Pruning keeps the registration of an instance that still runs, and deletes later ones that have left.

    A reader that resumed from there would keep the one that left for ever. The newest index, however old, is valid.
    """
    payments.register("web", "stays")
    arrival = changelog.read_newest_index()
    payments.register("web", "left")
    seen = changelog.read_newest_index()
    payments.deregister("web", "left")
    payments.register("web", "comes")
    ageing.age_changes(31 * 86400)
    end = changelog.read_newest_index()
    call_command("prune_changes")
    assert changelog.read_after(end, 100) == []
    payments.register("web", "new")
    for index in (arrival, seen, end):
        with pytest.raises(IndexGone):
            changelog.read_after(index, 100)
    assert read(changelog.read_newest_index()) == []
