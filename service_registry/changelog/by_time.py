"""Find the place of a time in the log, by binary search over the ids.

Times follow the commit order as ids do, and therefore need no index.
"""

from service_registry.sql import CHANGE


def last_id_at(moment: str) -> str:
    """Return the SQL expression for the id of the last change at or before a time.

    `moment` is the SQL expression of the time. The id is less than every other when all changes are later. A binary
    search over the primary key finds it: that reads some twenty rows of a million.
    """
    return f"""(
WITH RECURSIVE search(low, high) AS (
    SELECT min(id) - 1, max(id) FROM {CHANGE}
    UNION ALL
    SELECT CASE WHEN probe.at <= {moment} THEN probe.id ELSE low END,
        CASE WHEN probe.at <= {moment} THEN high ELSE (low + high) / 2 END
    FROM search, LATERAL (
        SELECT c.id, c.at FROM {CHANGE} c WHERE c.id > (low + high) / 2 ORDER BY c.id LIMIT 1
    ) probe
    WHERE low < high
)
SELECT max(low) FROM search)"""
