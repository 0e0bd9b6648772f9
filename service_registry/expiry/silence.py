"""Silence of the whole fleet: more likely the registry's own deafness, behind a load balancer that is down, than its
end. Time stands still then, with a limit."""

import logging

from django.db import connection, transaction

from service_registry import metrics
from service_registry.expiry import counts as counting
from service_registry.expiry import rules
from service_registry.expiry.counts import Census
from service_registry.expiry.limits import limits
from service_registry.expiry.rules import Silence
from service_registry.sql import STATE

logger = logging.getLogger(__name__)

BEGIN = f"""
-- Locks the state's row. Of two sweeps that see it at once the first says since when.
UPDATE {STATE} SET suspended_at = to_timestamp(%s), suspended_until = to_timestamp(%s)
WHERE id = 1 AND suspended_at IS NULL
"""

END = f"""
-- Locks the state's row. Of two sweeps that see the heartbeat the first restarts the window.
UPDATE {STATE}
SET suspended_at = NULL, suspended_until = NULL, suspension_budget_full_at = to_timestamp(%(repaid_at)s),
    window_started_at = GREATEST(window_started_at, to_timestamp(%(restart_at)s)),
    window_reason = CASE WHEN %(restart_at)s IS NULL THEN window_reason ELSE 'suspension' END
WHERE id = 1 AND suspended_at IS NOT NULL
"""


def observe(census: Census) -> Silence:
    """How the silence stands by `census`; nothing is written."""
    return rules.observe(census.silence, census.counts, counting.services_at_least, limits())


def settle(census: Census) -> Silence:
    """Observe, and write down a silence that begins or ends. The window restarts with the heartbeat that ends it."""
    standing, now = census.silence, observe(census)
    with connection.cursor() as cursor:
        if standing.since is None and now.since is not None:
            cursor.execute(BEGIN, [now.since, now.until])
            logger.warning("Nobody of the fleet is heard: nothing expires until somebody is, or its time is over")
        elif standing.since is not None and now.since is None:
            restart_at = standing.restarts_window_at(census.counts)
            cursor.execute(END, {"repaid_at": now.repaid_at, "restart_at": restart_at})
            if cursor.rowcount and restart_at is not None:
                transaction.on_commit(lambda: metrics.count_window_restart("suspension"))
    return now
