"""Hubs for tests, fed with changes of one service's owners."""

import time
from collections.abc import Sequence

from service_registry.replica.hub import Hub
from service_registry.replica.store import Change, Replica


def change(pk: int, size: int = 0) -> Change:
    return Change(pk, index(pk), "owners_changed", "default", "web", None, b"x" * size, b"", None, ("team",))


def index(pk: int) -> str:
    return f"0123abcd-{pk}"


def loaded(pk: int) -> Hub:
    hub = Hub()
    hub.replace_replica(Replica(index(pk), pk), [change(pk)], time.monotonic())
    return hub


def advance(hub: Hub, pks: Sequence[int], whole: bool = True) -> None:
    hub.apply_page([change(pk) for pk in pks], time.monotonic() if whole else None)
