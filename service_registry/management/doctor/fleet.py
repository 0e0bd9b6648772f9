"""Whether the fleet is heard, and who is held past the deadline: why instances may be listed that do not answer."""

from django.db.models import Count, Min

from service_registry.management.doctor.database import lasted, row
from service_registry.management.doctor.finding import Finding, ok, warn
from service_registry.models import Instance
from service_registry.sql import STATE

SILENCE = f"""
SELECT extract(epoch FROM clock_timestamp() - silent_since)::float8,
    extract(epoch FROM silent_until - clock_timestamp())::float8
FROM {STATE} WHERE id = 1
"""


def silence() -> Finding:
    age, left = row(SILENCE) or (None, None)
    if age is None:
        return ok("the fleet is heard, or too small to tell")
    advice = "see that heartbeats get through to web processes: load balancer, network, the clients' tokens"
    said = f"nobody of the fleet is heard for {lasted(age)}"
    if left <= 0:
        return warn(f"{said}, and the time that stood still for it is over: who is silent expires", advice)
    return warn(f"{said}: time stands still, for {lasted(left)} more or until a heartbeat", advice)


def holds() -> Finding:
    held = Instance.objects.protected()
    found = held.aggregate(
        count=Count("pk"), services=Count("service", distinct=True), first=Min("lease__protected_at")
    )
    if not found["count"]:
        return ok("nobody is held past the deadline")
    namespace, name, most = (
        held.values_list("service__namespace", "service__name").annotate(count=Count("pk")).order_by("-count")[0]
    )
    said = (
        f"{found['count']} instances of {found['services']} services are held past their deadline, the first since "
        f"{found['first']:%Y-%m-%d %H:%M:%S} UTC; {most} of them of {namespace}/{name}"
    )
    advice = "manage.py sweep --dry-run says by which rule and until when; release_service lets those go that are dead"
    return warn(said, advice)
