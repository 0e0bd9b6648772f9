"""Keep the issuer's keys fresh in a thread, and a copy of them in the database.

The copy serves a process that starts while the issuer is down.

No request fetches keys; requests read an immutable key set without a lock, and wait for keys only for a short time.
`jwt.PyJWKClient` is not used: it fetches under its lock, so that one token with an unknown key id and an issuer that
hangs block all valid tokens, and it drops good keys when a fetch fails.
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
from service_registry.identity.exceptions import KeysUnavailable
from service_registry.identity.issuer_client import LIMITS, FetchFailed, Limits, discover, fetch_json, get_endpoint
from service_registry.identity.key_set import KeySet, KeySetUnusable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """The times of fetches of keys, and the longest wait of requests for them.

    Attributes:
        first_retry_seconds, last_retry_seconds: bounds of the exponential back-off after failures.
        unknown_key_seconds: the rate limit of fetches for unknown key ids.
        wait_seconds: how long a request waits at most.
    """

    refresh_seconds: float = 300
    first_retry_seconds: float = 1
    last_retry_seconds: float = 60
    unknown_key_seconds: float = 30
    wait_seconds: float = 2

    def pause(self, failures: int) -> float:
        """Return the pause after this many consecutive failures.

        It is random, so that the processes of a fleet do not fetch at the same time.
        """
        if failures:
            backoff = self.first_retry_seconds * 2.0 ** min(failures - 1, 16)
            return min(self.last_retry_seconds, backoff) * random.uniform(0.5, 1)  # noqa: S311
        return self.refresh_seconds * random.uniform(0.8, 1.2)  # noqa: S311


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """A key set and the monotonic time at which its fetch began."""

    key_set: KeySet
    fetched_at: float


class KeyProvider:
    """Provides one process with the keys of one issuer.

    Arguments:
        jwks_uri: the address of the keys; discovered when it is empty.
        max_age_seconds: how long keys are used after the issuer has last returned them.
        stored: whether the last good key set is stored in the database, too.
    """

    def __init__(
        self,
        issuer: str,
        *,
        jwks_uri: str = "",
        max_age_seconds: float = 86400,
        schedule: Schedule = Schedule(),
        limits: Limits = LIMITS,
        stored: bool = True,
    ) -> None:
        self.issuer = issuer
        self.jwks_uri = jwks_uri
        self.max_age_seconds = max_age_seconds
        self.schedule = schedule
        self.limits = limits
        self.stored = stored
        self._fetched_keys: FetchedKeys | None = None
        # Guards the attributes below. No thread has it during a request to the issuer or the database.
        self._changed = threading.Condition()
        self._started_at: float | None = None
        self._stopping = False
        self._fetch_requested = threading.Event()
        self._attempts_started = 0
        self._attempts_finished = 0
        self._unknown_key_at = float("-inf")
        self._unknown_key_attempt = 0
        self._saving = threading.Lock()

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the issuer last returned the keys; None when there are none."""
        fetched = self._fetched_keys
        return time.monotonic() - fetched.fetched_at if fetched else None

    @property
    def ready(self) -> bool:
        """Return whether tokens can be verified now."""
        age = self.age_seconds
        return age is not None and age <= self.max_age_seconds

    def start(self) -> "KeyProvider":
        """Start the threads that refresh the keys and load the stored ones.

        A second call does nothing.
        """
        with self._changed:
            if self._started_at is None:
                self._started_at = time.monotonic()
                threading.Thread(target=self._keep_fresh, name="keys", daemon=True).start()
                if self.stored:
                    # In parallel with the first fetch: neither a database nor an issuer that hangs may block the other.
                    threading.Thread(target=self._load_stored_keys, name="stored-keys", daemon=True).start()
        return self

    def stop(self) -> None:
        """Ask the refreshing thread to end, and do not wait for it."""
        with self._changed:
            self._stopping = True
            self._fetch_requested.set()

    def current(self) -> KeySet:
        """Return the keys to verify tokens with. Raises KeysUnavailable.

        Waits only just after the start: for the first fetch or the stored keys, at most until
        `schedule.wait_seconds` after it.
        """
        fetched = self._fetched_keys or self._wait_for_first_keys()
        if fetched is None or time.monotonic() - fetched.fetched_at > self.max_age_seconds:
            raise KeysUnavailable
        return fetched.key_set

    def refresh_for_unknown_key(self) -> KeySet:
        """Return the keys after a fetch for an unknown key id.

        There is at most one such fetch per `schedule.unknown_key_seconds`.

        1. The first call in `schedule.unknown_key_seconds` requests an attempt, which may fail. Tokens with invented
           key ids cause no more fetches than that.
        2. The attempt is one that has not started yet: a key that is published after an attempt has started may be
           missing from its result.
        3. All calls until the attempt has finished wait for it, at most `schedule.wait_seconds` from its request.

        Raises KeysUnavailable.
        """
        with self._changed:
            now = time.monotonic()
            if now - self._unknown_key_at >= self.schedule.unknown_key_seconds:
                self._unknown_key_at = now
                self._unknown_key_attempt = self._attempts_started + 1
                self._fetch_requested.set()
            timeout = max(0.0, self._unknown_key_at + self.schedule.wait_seconds - now)
            self._changed.wait_for(lambda: self._attempts_finished >= self._unknown_key_attempt, timeout)
        return self.current()

    def _wait_for_first_keys(self) -> FetchedKeys | None:
        self.start()
        with self._changed:
            timeout = max(0.0, (self._started_at or 0.0) + self.schedule.wait_seconds - time.monotonic())
            self._changed.wait_for(lambda: self._fetched_keys is not None, timeout)
        return self._fetched_keys

    def _keep_fresh(self) -> None:
        failures = 0
        while not self._stopping:
            failures = 0 if self._attempt() else failures + 1
            self._fetch_requested.wait(self.schedule.pause(failures))

    def _attempt(self) -> bool:
        """Fetch once, and return whether it succeeded; after a failure the old keys stay."""
        with self._changed:
            self._attempts_started += 1
            self._fetch_requested.clear()
        started_at = time.monotonic()
        key_set = self._fetch()
        with self._changed:
            if key_set:
                self._replace(key_set, started_at)
            self._attempts_finished += 1
            self._changed.notify_all()
        if key_set and self.stored:
            threading.Thread(target=self._save, args=[key_set.document], name="stored-keys", daemon=True).start()
        return key_set is not None

    def _fetch(self) -> KeySet | None:
        try:
            return KeySet.from_document(self._fetch_document())
        except (FetchFailed, KeySetUnusable) as error:
            logger.warning("the keys of %s could not be refreshed: %s", self.issuer, error)
        except Exception:
            # The thread must survive any error, to try again.
            logger.exception("the keys of %s could not be refreshed", self.issuer)
        return None

    def _fetch_document(self) -> Any:
        """Fetch the JWK set. Raises FetchFailed.

        Discovery and the keys share one time limit.
        """
        if self.jwks_uri:
            return fetch_json(self.jwks_uri, self.limits)
        started_at = time.monotonic()
        url = get_endpoint(discover(self.issuer, self.limits), "jwks_uri")
        left = max(0.1, self.limits.total_seconds - (time.monotonic() - started_at))
        return fetch_json(url, replace(self.limits, total_seconds=left))

    def _replace(self, key_set: KeySet, fetched_at: float) -> None:
        """Replace the key set as a whole.

        The object stays when the keys are the same, and with it the cache of tokens that were verified with it.
        """
        fetched = self._fetched_keys
        if fetched and fetched.key_set.document == key_set.document:
            key_set = fetched.key_set
        self._fetched_keys = FetchedKeys(key_set, fetched_at)

    def _load_stored_keys(self) -> None:
        loaded = stored_keys.load_keys(self.issuer)
        if not loaded:
            return
        document, age_seconds = loaded
        try:
            key_set = KeySet.from_document(document)
        except KeySetUnusable as error:
            logger.warning("the stored keys of %s cannot be used: %s", self.issuer, error)
            return
        with self._changed:
            # The issuer may have answered first.
            if self._fetched_keys is None:
                self._replace(key_set, time.monotonic() - age_seconds)
                self._changed.notify_all()

    def _save(self, document: dict[str, Any]) -> None:
        # One thread at a time: while the database hangs, each refresh would add another one.
        if self._saving.acquire(blocking=False):
            try:
                stored_keys.save_keys(self.issuer, document)
            finally:
                self._saving.release()


# By process and issuer: threads do not survive a fork, so a child process needs its own provider.
_providers: dict[tuple[int, str], KeyProvider] = {}


def get_key_provider() -> KeyProvider:
    """Return the started provider of this process for the configured issuer.

    When two threads create the first one, both get the same.
    """
    key = os.getpid(), settings.OIDC_ISSUER
    return (_providers.get(key) or _providers.setdefault(key, create_configured_provider())).start()


def create_configured_provider() -> KeyProvider:
    return KeyProvider(
        settings.OIDC_ISSUER, jwks_uri=settings.OIDC_JWKS_URI, max_age_seconds=settings.OIDC_KEYS_MAX_AGE_SECONDS
    )
