"""Check for suspended expiry and protected instances: why dead instances may be listed."""

from django.db.models import Count, Min

from service_registry.management.doctor.database import lasted, row
from service_registry.management.doctor.finding import Finding, ok, warn
from service_registry.models import Instance
from service_registry.sql import STATE

SUSPENSION = f"""
SELECT extract(epoch FROM clock_timestamp() - suspended_at)::float8,
    extract(epoch FROM suspended_until - clock_timestamp())::float8
FROM {STATE} WHERE id = 1
"""


def suspension() -> Finding:
    age, left = row(SUSPENSION) or (None, None)
    if age is None:
        return ok("expiry is not suspended")
    advice = "see that heartbeats get through to web processes: load balancer, network, the clients' tokens"
    said = f"no heartbeat from the whole fleet for {lasted(age)}"
    if left <= 0:
        return warn(f"{said}, and the longest suspension is over: instances without heartbeats expire", advice)
    return warn(f"{said}: expiry is suspended, for {lasted(left)} more or until a heartbeat", advice)


def protection() -> Finding:
    protected = Instance.objects.protected()
    found = protected.aggregate(
        count=Count("pk"), services=Count("service", distinct=True), first=Min("lease__protected_at")
    )
    if not found["count"]:
        return ok("no instance is protected past its deadline")
    namespace, name, most = (
        protected.values_list("service__namespace", "service__name").annotate(count=Count("pk")).order_by("-count")[0]
    )
    said = (
        f"{found['count']} instances of {found['services']} services are protected past their deadline, the first "
        f"since {found['first']:%Y-%m-%d %H:%M:%S} UTC; {most} of them of {namespace}/{name}"
    )
    advice = (
        "manage.py sweep --dry-run shows by which rule and until when; release_service ends the protection of dead ones"
    )
    return warn(said, advice)
