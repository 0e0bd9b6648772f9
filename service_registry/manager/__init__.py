"""The operations of the registry.

Each takes a batch of items and a caller, and returns one outcome per item: a result or a RegistryError. Those named
`..._for_callers` take a batch of many callers.

One lock order holds in all operations and in the sweep: services by name, instances by key, leases by key, the usage of
owners by name, overrides by key, then the change lock, after which nothing is locked.
"""

from service_registry.manager.deny import deny, lift
from service_registry.manager.deregister import Deregistered, deregister
from service_registry.manager.heartbeat import Renewed, heartbeat, heartbeat_for_callers, merge_heartbeats
from service_registry.manager.override import Overridden, override
from service_registry.manager.owners import Owned, delete_service, set_owners
from service_registry.manager.register import Registered, merge_registrations, register, register_for_callers
from service_registry.manager.release import Released, release
from service_registry.manager.remove import Selected, Selection, preview, remove

__all__ = [
    "Deregistered",
    "Overridden",
    "Owned",
    "Registered",
    "Released",
    "Renewed",
    "Selected",
    "Selection",
    "delete_service",
    "deny",
    "deregister",
    "heartbeat",
    "heartbeat_for_callers",
    "lift",
    "merge_heartbeats",
    "merge_registrations",
    "override",
    "preview",
    "register",
    "register_for_callers",
    "release",
    "remove",
    "set_owners",
]
