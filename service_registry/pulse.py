"""One pulse of a web process, as its servers run it. See `service_registry.expiry.observation` for what it is for."""

import logging

from django.db import Error

from service_registry.database.thread_connection import prepare_thread_connection
from service_registry.exceptions import NotMigrated
from service_registry.expiry import observation
from service_registry.identity.exceptions import KeysUnavailable
from service_registry.identity.keys import get_key_provider
from service_registry.permissions import permission_cache

logger = logging.getLogger(__name__)

PULSE_SECONDS = 1


def pulse() -> None:
    """Pulse once on this thread's connection, if this process could take a heartbeat now: one that refuses them all
    knows nothing of who beats. A database that is away is no failure: then nobody hears, as is right.

    1. Have signing keys. A refresh that failed leaves the old ones, which are good for OIDC_KEYS_MAX_AGE_SECONDS.
    2. Know what groups grant; NotMigrated when none grants anything.
    3. Hear. Whatever is missing before that restarts the window once it is there again.
    """
    prepare_thread_connection()
    try:
        get_key_provider().current()
        permission_cache.refresh_ahead()
        observation.pulse()
    except KeysUnavailable:
        logger.warning("No pulse: there are no signing keys, or they are too old, and so every heartbeat is refused.")
    except (Error, NotMigrated) as error:
        logger.warning("The pulse did not reach the database: %s", error)
    except Exception:
        # A pulse that ends for good would restart the window again and again, and nothing would expire.
        logger.exception("The pulse failed.")
