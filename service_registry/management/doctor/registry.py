"""Check the registry's state: pulse, sweeps, and why dead instances are listed."""

from datetime import timedelta

from django.conf import settings
from django.db.models import Count, Min
from django.db.models.functions import Now

from service_registry.access_models import SigningKeys
from service_registry.expiry.empty_services import count_empty_services
from service_registry.expiry.observation_window import OBSERVATION_GAP_SECONDS
from service_registry.expiry.sweep import SWEEP_IS_LATE_SECONDS
from service_registry.health.presence import read_presence
from service_registry.management.doctor.finding import Finding, fail, ok, warn
from service_registry.models import Instance, RegistryState

SWEEP_IS_STUCK_SECONDS = 30
NAMES_SHOWN = 3


def check_stored_keys() -> Finding:
    """Check the keys with which a web process would start while the provider is down."""
    keys = SigningKeys.objects.annotate(now=Now()).filter(issuer=settings.OIDC_ISSUER).first()
    if keys is None:
        return warn("none yet", "a web process stores them when it first reaches the provider")
    age = keys.now - keys.fetched_at
    message = f"confirmed {format_duration(age)} ago"
    if age.total_seconds() > settings.OIDC_KEYS_MAX_AGE_SECONDS:
        return warn(f"{message}, which is too old to be used", "make sure that web processes reach the provider")
    return ok(message)


def check_observation() -> Finding:
    state = RegistryState.objects.annotate(now=Now()).get()
    age = state.now - state.observed_at
    if age.total_seconds() > OBSERVATION_GAP_SECONDS:
        return fail(
            f"no web process has pulsed for {format_duration(age)}: nothing expires",
            "start a web process, and read its log",
        )
    window = format_duration(state.now - state.window_started_at)
    return ok(f"a web process pulsed {format_duration(age)} ago; without a gap for {window}")


def check_sweep() -> Finding:
    state = RegistryState.objects.annotate(now=Now()).get()
    age = state.now - state.swept_at
    message = f"the last one finished {format_duration(age)} ago"
    if age.total_seconds() > SWEEP_IS_STUCK_SECONDS:
        return fail(message, "start a worker with beat, or a web process; manage.py sweep runs one now")
    if age.total_seconds() > settings.REGISTRY_SWEEP_INTERVAL_SECONDS + SWEEP_IS_LATE_SECONDS + 1:
        return warn(message, "read the logs of worker and beat")
    return ok(message)


def check_suspension() -> Finding:
    state = RegistryState.objects.annotate(now=Now()).get()
    if state.suspended_at is None or state.suspended_until is None:
        return ok("expiry is not suspended")
    advice = "make sure that heartbeats reach web processes: load balancer, network, the clients' tokens"
    message = f"no heartbeat from the whole fleet for {format_duration(state.now - state.suspended_at)}"
    left = state.suspended_until - state.now
    if left <= timedelta(0):
        return warn(f"{message}, and the longest suspension is over: instances without heartbeats expire", advice)
    return warn(f"{message}: expiry is suspended, for {format_duration(left)} more or until a heartbeat", advice)


def check_protection() -> Finding:
    protected = Instance.objects.protected()
    found = protected.aggregate(
        count=Count("pk"), services=Count("service", distinct=True), first=Min("lease__protected_at")
    )
    if not found["count"]:
        return ok("no instance is protected past its deadline")
    namespace, name, most = (
        protected.values_list("service__namespace", "service__name").annotate(count=Count("pk")).order_by("-count")[0]
    )
    return warn(
        f"{found['count']} instances of {found['services']} services are protected past their deadline, the first "
        f"since {found['first']:%Y-%m-%d %H:%M:%S} UTC; {most} of them of {namespace}/{name}",
        "manage.py sweep --dry-run shows by which rule and until when; release_service ends it where they are dead",
    )


def check_checkers() -> Finding:
    """Check the processes that run health checks."""
    presence = read_presence()
    if not presence.instances:
        return ok("no instance asks for a health check")
    if not presence.checkers:
        return warn(f"{presence.instances} instances; {presence.failure}", "start manage.py check_health")
    if presence.failure:
        return warn(presence.failure, "see what separates their machines from the instances; their logs say since when")
    return ok(f"{presence.checkers} check {presence.instances} instances")


def check_permanent_instances() -> Finding:
    count = Instance.objects.permanent().count()
    if not count:
        return ok("no permanent instance")
    message = f"{count} permanent {'instance' if count == 1 else 'instances'}"
    unjudged = Instance.objects.unjudged()
    keys = unjudged.order_by("pk").values_list("service__namespace", "service__name", "instance_id")
    names = ["/".join(key) for key in keys[:NAMES_SHOWN]]
    if not names:
        return ok(f"{message}, each with a health check")
    more = unjudged.count() - len(names)
    which = ", ".join(names) + (f" and {more} more" if more else "")
    return ok(f"{message}; nothing judges {len(names) + more} of them, without a health check: {which}")


def check_empty_services() -> Finding:
    due, empty = count_empty_services()
    return ok(f"{empty} services that registrations created are empty; beat ends {due} of them at its next run")


def format_duration(duration: timedelta) -> str:
    """Return a duration as `5 s`, `3 min`, `2 h` or `4 d`."""
    seconds = duration.total_seconds()
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
