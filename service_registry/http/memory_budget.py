"""Capacity of this process for another large response, as the web server reports."""

from collections.abc import Callable

from service_registry.exceptions import TooBusy

# Each returns whether there is capacity; called from any thread. Plain WSGI has none: it holds one response a thread.
capacity_checks: list[Callable[[], bool]] = []


def require_capacity() -> None:
    """Raise TooBusy when the responses in flight leave no memory for a large one.

    Called before data is read for it.
    """
    if not all(has_capacity() for has_capacity in capacity_checks):
        raise TooBusy
