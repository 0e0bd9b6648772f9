"""Make the change log long without the calls that usually do."""

import json
from typing import Any

from tests.server.registry import Registry

# In one statement, as an array is appended.
REPEAT = """
INSERT INTO service_registry_change (mark, at, kind, namespace, service_name, instance_id, instance, changed, actor)
SELECT c.mark, clock_timestamp(), 'updated', c.namespace, c.service_name, c.instance_id,
    c.instance || '{fields}'::jsonb, ARRAY['metadata'], c.actor
FROM (SELECT * FROM service_registry_change ORDER BY id DESC LIMIT 1) c, generate_series(1, {count})
"""


def repeat_newest_change(registry: Registry, count: int, **fields: Any) -> None:
    """Append `count` updates of the newest change's instance, which set these fields of it.

    Nothing else may write meanwhile. The instance itself keeps its fields.
    """
    registry.execute(REPEAT.format(fields=json.dumps(fields), count=count))
