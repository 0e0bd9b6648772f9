"""Pulse once a second for expiry, and sweep when no other process does.

See `expiry.observation_window`.
"""

import logging

from django.db import Error, connection

from service_registry.access_rules import access_rules
from service_registry.database.transactions import prepare_thread_connection
from service_registry.exceptions import NotMigrated
from service_registry.expiry.observation_window import process_pulse
from service_registry.expiry.sweep import sweep_if_late
from service_registry.identity.exceptions import KeysUnavailable
from service_registry.identity.key_provider import get_key_provider

logger = logging.getLogger(__name__)

PULSE_SECONDS = 1


def pulse() -> None:
    """Pulse once on this thread's connection, and sweep when no other process does.

    A process pulses only while it could accept a heartbeat: one that refuses all heartbeats does not know which
    instances live. A database that is away is no error here. No process pulses then, and nothing expires.

    1. Check that there are signing keys. A refresh that failed leaves the old ones, which are good for
       OIDC_KEYS_MAX_AGE_SECONDS.
    2. Check that groups grant permissions (NotMigrated).
    3. Record the pulse. After a failure of 1 or 2 the observation window restarts with the next pulse.
    """
    prepare_thread_connection()
    try:
        get_key_provider().current()
        access_rules.current()
        record_and_sweep()
    except KeysUnavailable:
        logger.warning("No pulse: there are no signing keys, or they are too old, and so every heartbeat is refused.")
    except (Error, NotMigrated) as error:
        logger.warning("The pulse did not reach the database: %s", error)
        # Were this a demoted primary, its session would stay read-only; the next pulse connects anew.
        connection.close()
    except Exception:
        # Without further pulses the window would restart again and again, and nothing would expire.
        logger.exception("The pulse failed.")


def record_and_sweep() -> None:
    """Record this process's pulse, and sweep when the last sweep is late."""
    last_sweep_age = process_pulse().record()
    if last_sweep_age is not None:
        sweep_if_late(last_sweep_age, between=process_pulse().record)
