"""Applying changes to a replica."""

import random

from service_registry.replica.store import Change, InstanceEntry, Replica

KEY = "default", "web"


def change(pk: int, kind: str, instance_id: str | None, state: str | None = None) -> Change:
    entry = InstanceEntry(b"{}", "UP", state) if state else None
    return Change(pk, f"0123abcd-{pk}", kind, *KEY, instance_id, b"{}", b"{}", entry)


def test_service_is_protected_while_one_of_its_instances_is() -> None:
    replica = Replica("0123abcd-0", 0)
    protected = []
    for pk, (kind, instance_id, state) in enumerate(
        [
            ("registered", "a", "live"),
            ("protected", "a", "protected"),
            ("protected", "a", "protected"),  # a change may be applied twice
            ("protected", "b", "protected"),
            ("recovered", "a", "live"),
            ("expired", "b", "expired"),
            ("protected", "c", "protected"),
            ("deregistered", "c", None),
            ("purged", "c", None),
            ("released", None, None),
        ],
        start=1,
    ):
        replica.apply(change(pk, kind, instance_id, state))
        protected.append(replica.services[KEY].protected)
    assert protected == [False, True, True, True, True, False, True, False, False, False]


def test_protected_instances_are_counted_right_after_random_changes() -> None:
    """10,000 changes of 20 instances in random order."""
    rng = random.Random(12)
    replica = Replica("0123abcd-0", 0)
    kinds = {
        "registered": "live",
        "protected": "protected",
        "expired": "expired",
        "deregistered": None,
        "purged": None,
    }
    for pk in range(1, 10_001):
        kind = rng.choice(list(kinds))
        replica.apply(change(pk, kind, f"i-{rng.randrange(20)}", kinds[kind]))
        service = replica.services[KEY]
        assert service.protected_instances == sum(entry.state == "protected" for entry in service.instances.values())
