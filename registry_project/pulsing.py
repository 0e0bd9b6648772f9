"""One pulse of a web process, as its servers run it. See `service_registry.expiry.hearing` for what it is for."""

import logging

from django.db import Error, close_old_connections

from service_registry.exceptions import NotMigrated
from service_registry.expiry import hearing
from service_registry.permissions import grants

logger = logging.getLogger(__name__)

PULSE_SECONDS = 1


def pulse() -> None:
    """Pulse once on this thread's connection. A database that is away is no failure: then nobody hears, as is right."""
    close_old_connections()  # as at the start of a request: one that broke is made anew
    try:
        hearing.pulse()
        grants.keep_fresh()
    except (Error, NotMigrated) as error:
        logger.warning("The pulse did not reach the database: %s", error)
