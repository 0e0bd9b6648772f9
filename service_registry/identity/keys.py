"""The issuer's keys, kept fresh by a thread of their own: no request fetches them, or waits for long.

Requests read an immutable snapshot without a lock. `jwt.PyJWKClient` is not used: it fetches under its lock, so one
token with an unknown key against a hanging issuer holds the good ones, and it drops good keys when a fetch fails.
"""

import logging
import os
import random
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from service_registry.identity import stored_keys
from service_registry.identity.errors import KeysUnavailable
from service_registry.identity.fetching import LIMITS, FetchFailed, Limits, discover, endpoint, fetch_json
from service_registry.identity.key_set import KeySet, KeySetUnusable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """When a provider asks its issuer, and how long a request may wait for that; all in seconds."""

    refresh_seconds: float = 300
    first_retry_seconds: float = 1
    last_retry_seconds: float = 60
    unknown_key_seconds: float = 30
    wait_seconds: float = 2

    def pause(self, failures: int) -> float:
        """How long to rest after `failures` attempts that failed in a row. The processes of a fleet spread out."""
        if failures:
            growing = self.first_retry_seconds * 2.0 ** min(failures - 1, 16)
            return min(self.last_retry_seconds, growing) * random.uniform(0.5, 1)  # noqa: S311
        return self.refresh_seconds * random.uniform(0.8, 1.2)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Held:
    """A key set and when the issuer was asked for it, by this process's monotonic clock."""

    key_set: KeySet
    fetched_at: float


class KeyProvider:
    """The keys of one issuer in one process.

    `max_age_seconds` is how long keys are good after the issuer last confirmed them. With `jwks_uri` there is no
    discovery. `stored` says whether the last good set is kept in the database too.
    """

    def __init__(
        self,
        issuer: str,
        *,
        jwks_uri: str = "",
        max_age_seconds: float = 86400,
        pace: Pace = Pace(),
        limits: Limits = LIMITS,
        stored: bool = True,
    ) -> None:
        self.issuer = issuer
        self.jwks_uri = jwks_uri
        self.max_age_seconds = max_age_seconds
        self.pace = pace
        self.limits = limits
        self.stored = stored
        self._held: Held | None = None
        # Guards what follows, for moments only: nobody holds it while talking to the issuer or the database.
        self._changed = threading.Condition()
        self._started_at: float | None = None
        self._stopping = False
        self._wanted = threading.Event()
        self._attempts_begun = 0
        self._attempts_ended = 0
        self._asked_at = float("-inf")
        self._asked_for = 0
        self._saving = threading.Lock()

    @property
    def age_seconds(self) -> float | None:
        """Since the issuer last confirmed the keys held here; None when there are none."""
        held = self._held
        return time.monotonic() - held.fetched_at if held else None

    @property
    def ready(self) -> bool:
        """Whether tokens can be judged now."""
        age = self.age_seconds
        return age is not None and age <= self.max_age_seconds

    def start(self) -> "KeyProvider":
        """Begin to keep the keys fresh. A second call does nothing."""
        with self._changed:
            if self._started_at is None:
                self._started_at = time.monotonic()
                threading.Thread(target=self._keep_fresh, name="keys", daemon=True).start()
                if self.stored:
                    # Beside the first attempt, since a database or an issuer that hangs must not hold up the other.
                    threading.Thread(target=self._load, name="stored-keys", daemon=True).start()
        return self

    def stop(self) -> None:
        """Let the thread end."""
        with self._changed:
            self._stopping = True
            self._wanted.set()

    def current(self) -> KeySet:
        """The keys to judge with. Raises KeysUnavailable.

        Only a process that has just started waits here: for its first attempt or the stored keys, at most
        `pace.wait_seconds` after its start.
        """
        held = self._held or self._first()
        if held is None or time.monotonic() - held.fetched_at > self.max_age_seconds:
            raise KeysUnavailable
        return held.key_set

    def asked_again(self) -> KeySet:
        """The keys after the issuer was asked for one that is not among them. Raises KeysUnavailable.

        1. Who comes first in `pace.unknown_key_seconds` asks for an attempt, whether or not that will succeed: tokens
           with invented keys cause no more fetches than that.
        2. The attempt is one that has not begun yet; a key published after an attempt began might be missing from it.
        3. Everybody who comes until it has ended waits for it, all until `pace.wait_seconds` after it was asked for.
        """
        with self._changed:
            now = time.monotonic()
            if now - self._asked_at >= self.pace.unknown_key_seconds:
                self._asked_at = now
                self._asked_for = self._attempts_begun + 1
                self._wanted.set()
            patience = max(0.0, self._asked_at + self.pace.wait_seconds - now)
            self._changed.wait_for(lambda: self._attempts_ended >= self._asked_for, patience)
        return self.current()

    def _first(self) -> Held | None:
        self.start()
        with self._changed:
            patience = max(0.0, (self._started_at or 0.0) + self.pace.wait_seconds - time.monotonic())
            self._changed.wait_for(lambda: self._held is not None, patience)
        return self._held

    def _keep_fresh(self) -> None:
        failures = 0
        while not self._stopping:
            failures = 0 if self._attempt() else failures + 1
            self._wanted.wait(self.pace.pause(failures))

    def _attempt(self) -> bool:
        """Ask the issuer once; whether it gave a good set. A bad one leaves the old one in place."""
        with self._changed:
            self._attempts_begun += 1
            self._wanted.clear()
        asked_at = time.monotonic()
        key_set = self._fetched()
        with self._changed:
            if key_set:
                self._hold(key_set, asked_at)
            self._attempts_ended += 1
            self._changed.notify_all()
        if key_set and self.stored:
            threading.Thread(target=self._save, args=[key_set.document], name="stored-keys", daemon=True).start()
        return key_set is not None

    def _fetched(self) -> KeySet | None:
        try:
            return KeySet.of(self._document())
        except (FetchFailed, KeySetUnusable) as error:
            logger.warning("the keys of %s could not be renewed: %s", self.issuer, error)
        except Exception:
            # Whatever it was, the thread must live to try again.
            logger.exception("the keys of %s could not be renewed", self.issuer)
        return None

    def _document(self) -> Any:
        """What the issuer publishes now; both requests together keep to the limits. Raises FetchFailed."""
        if self.jwks_uri:
            return fetch_json(self.jwks_uri, self.limits)
        started_at = time.monotonic()
        url = endpoint(discover(self.issuer, self.limits), "jwks_uri")
        left = max(0.1, self.limits.total_seconds - (time.monotonic() - started_at))
        return fetch_json(url, replace(self.limits, total_seconds=left))

    def _hold(self, key_set: KeySet, fetched_at: float) -> None:
        """Replace the set, whole. The same keys again keep the object, and with it what was verified with them."""
        held = self._held
        if held and held.key_set.document == key_set.document:
            key_set = held.key_set
        self._held = Held(key_set, fetched_at)

    def _load(self) -> None:
        loaded = stored_keys.load(self.issuer)
        if not loaded:
            return
        document, age_seconds = loaded
        try:
            key_set = KeySet.of(document)
        except KeySetUnusable as error:
            logger.warning("the stored keys of %s cannot be used: %s", self.issuer, error)
            return
        with self._changed:
            # The issuer itself may have been faster.
            if self._held is None:
                self._hold(key_set, time.monotonic() - age_seconds)
                self._changed.notify_all()

    def _save(self, document: dict[str, Any]) -> None:
        # While the database hangs one thread waits for it, not one more with every refresh.
        if self._saving.acquire(blocking=False):
            try:
                stored_keys.save(self.issuer, document)
            finally:
                self._saving.release()


# By process and issuer: threads do not survive a fork, so a child makes a provider of its own.
_providers: dict[tuple[int, str], KeyProvider] = {}


def provider() -> KeyProvider:
    """This process's provider of the configured issuer's keys, started. Of two threads that come first one's stays."""
    place = os.getpid(), settings.OIDC_ISSUER
    return (_providers.get(place) or _providers.setdefault(place, configured())).start()


def configured() -> KeyProvider:
    return KeyProvider(
        settings.OIDC_ISSUER, jwks_uri=settings.OIDC_JWKS_URI, max_age_seconds=settings.OIDC_KEYS_MAX_AGE_SECONDS
    )
