"""Remember callers by their Authorization header, as long as nothing changes that they are judged by."""

import threading
import time
from dataclasses import dataclass

from service_registry.access_rules import AccessRules
from service_registry.caller import Caller
from service_registry.exceptions import CallerDenied
from service_registry.identity.key_set import KeySet
from service_registry.identity.principal import Principal

# Some 12,000 callers with usual tokens of 1 kB.
MAX_BYTES = 32 * 1024 * 1024
# Estimates of what an entry takes beside its header: its objects, and the name of a group.
ENTRY_BYTES, GROUP_BYTES = 1000, 100
# A stream or a waiting read is judged again after this time, whatever has changed.
JUDGED_SECONDS = 60.0


@dataclass(frozen=True, eq=False, slots=True)
class Generation:
    """The signing keys and access rules that callers are judged by.

    A new object replaces it when any of them changes.
    """

    key_set: KeySet
    rules: AccessRules


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, as it was judged by one generation of keys and rules.

    `expires_at` is the end of its token, in seconds since the epoch, the leeway included.
    """

    caller: Caller
    principal: Principal
    expires_at: float
    generation: Generation
    is_denied: bool = False

    def admit(self) -> "Identity":
        """Return the identity itself. Raises CallerDenied."""
        if self.is_denied:
            raise CallerDenied(self.caller.actor)
        return self

    @property
    def seconds_left(self) -> float:
        return self.expires_at - time.time()

    @property
    def seconds_to_judgement(self) -> float:
        """Seconds for which a stream or a waiting read may go on, unless the generation changes."""
        return max(min(self.seconds_left, JUDGED_SECONDS), 0.05)


class CallerCache:
    """A dictionary from Authorization headers to identities.

    Reads take no lock. A full cache evicts its oldest entries.

    Attributes:
        generation: the present one; None while no token can be judged. Identities of an earlier one are not found.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.generation: Generation | None = None
        self.max_bytes = max_bytes
        self._identities: dict[bytes, Identity] = {}
        self._bytes = 0
        self._changing = threading.Lock()

    def find(self, authorization: bytes | None) -> Identity | None:
        """Return the identity that the header proves now, if it is known."""
        identity = self._identities.get(authorization) if authorization else None
        if identity and identity.generation is self.generation and time.time() < identity.expires_at:
            return identity
        return None

    def find_principal(self, authorization: bytes, key_set: KeySet) -> Principal | None:
        """Return the principal of a token that these keys have verified. The rules may have changed since."""
        identity = self._identities.get(authorization)
        if identity and identity.principal.key_set is key_set and identity.seconds_left > 0:
            return identity.principal
        return None

    def begin_generation(self, key_set: KeySet, rules: AccessRules) -> Generation:
        """Return the generation of these keys and rules, which is the present one from now on.

        A thread that comes with the keys or rules of a moment ago begins a new generation of them. It lasts until
        the next call, which is at most a second away.
        """
        generation = self.generation
        if generation is None or generation.key_set is not key_set or generation.rules is not rules:
            generation = self.generation = Generation(key_set, rules)
        return generation

    def put(self, authorization: bytes, identity: Identity) -> None:
        """Add or replace an identity."""
        with self._changing:
            self._remove(authorization)
            self._bytes += size_of(authorization, identity)
            while self._identities and self._bytes > self.max_bytes:
                self._remove(next(iter(self._identities)))
            self._identities[authorization] = identity

    def _remove(self, authorization: bytes) -> None:
        if identity := self._identities.pop(authorization, None):
            self._bytes -= size_of(authorization, identity)


def size_of(authorization: bytes, identity: Identity) -> int:
    """Estimate the memory of an entry, in bytes."""
    return ENTRY_BYTES + len(authorization) + GROUP_BYTES * len(identity.caller.groups)
