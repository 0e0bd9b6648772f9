"""Room in this process's memory for another large answer, as the web server's side tells."""

from collections.abc import Callable

from service_registry.exceptions import TooBusy

# Each says whether there is room, from any thread.
checks: list[Callable[[], bool]] = []


def demand() -> None:
    """Called before what may be large is read. Raises TooBusy when the answers under way leave no room for it."""
    if not all(has_room() for has_room in checks):
        raise TooBusy
