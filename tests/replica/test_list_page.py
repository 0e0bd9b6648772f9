"""Copying the replica in parts for a page of the list."""

from service_registry.replica.list_page import SERVICES_PER_PART, copy_in_parts
from service_registry.replica.store import InstanceEntry, Replica, ServiceEntry

INDEX = "0123abcd-7"
KEYS = [("default", f"s-{number:04}") for number in range(2 * SERVICES_PER_PART)]


def replica(*owners: str) -> Replica:
    """Return a replica of many services without instances."""
    return Replica(INDEX, 7, {key: ServiceEntry(owners) for key in KEYS})


def test_copy_in_parts_reads_each_part_as_it_is_then() -> None:
    whole = replica("team")
    taken = copy_in_parts(whole, KEYS, None)
    first = next(taken)
    whole.services[KEYS[0]].put_instance("late", InstanceEntry(b"{}", "UP", "live"))
    whole.services[KEYS[-2]].put_instance("in-time", InstanceEntry(b"{}", "UP", "live"))
    del whole.services[KEYS[-1]]
    second = next(taken)
    assert [key for key, _service in first] == KEYS[:SERVICES_PER_PART]
    assert [key for key, _service in second] == KEYS[SERVICES_PER_PART:-1]
    assert not first[0][1].instances
    assert second[-1][1].instances.keys() == {"in-time"}


def test_copy_in_parts_of_other_owners_yields_empty_parts() -> None:
    def sizes(*owners: str) -> list[int]:
        return [len(part) for part in copy_in_parts(replica(*owners), KEYS, "other")]

    assert sizes("team") == [0, 0, 0]
    assert sizes("team", "other") == [SERVICES_PER_PART, SERVICES_PER_PART, 0]
