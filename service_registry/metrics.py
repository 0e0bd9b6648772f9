"""The registry's metrics. What happens is counted by the process in which it happens; what is stands in the database.

Where PROMETHEUS_MULTIPROC_DIR is set, each process counts in a file of its own there, which outlives it: what a scrape
reads is the sum over all, whichever process answers. No label holds a name that callers choose, so the number of
series does not grow with the fleet.
"""

import collections
import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from django.conf import settings
from django.db import Error, connection, transaction
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service_registry.models import RULES, STATUSES
from service_registry.sql import EFFECTIVE_STATUS, INSTANCE, LEASE, OVERRIDE, SERVICE, STATE, STATE_NAME

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
STATES = ("live", "protected", "expired")

operations = Counter(
    "registry_operations",
    "Operations by verb and outcome (ok, created or an error's code), an item each.",
    ["verb", "outcome"],
)
durations = Histogram(
    "registry_request_duration_seconds",
    "How long requests took.",
    ["verb"],
    buckets=settings.PROMETHEUS_LATENCY_BUCKETS,
)
requests = Counter("registry_http_requests", "Requests by method, verb and status.", ["method", "verb", "status"])
refused_heartbeats = Counter(
    "registry_heartbeats_refused",
    "Heartbeats that renewed no lease, by reason: whoever sent them was alive.",
    ["reason"],
)
changes = Counter(
    "registry_changes", "Changes that were committed, by kind (expired, removed, recovered ...).", ["kind"]
)
holds = Counter(
    "registry_holds", "Instances held past their deadline from then on, by the rule that holds them.", ["rule"]
)
window_restarts = Counter("registry_window_restarts", "Times silence began to count anew, by reason.", ["reason"])

watchers = Gauge(
    "registry_watchers",
    "Open watches and waiting reads, by how they wait (stream, poll or read).",
    ["kind"],
    multiprocess_mode="livesum",
)
replica_age = Gauge(
    "registry_replica_age_seconds",
    "Since when a web process may have missed a change: the oldest of this machine.",
    multiprocess_mode="livemax",
)
wakeups = Counter("registry_wakeups", "Waiting callers that were woken by a change.")
resyncs = Counter("registry_resyncs", "Times a web process started over, since the log was not the one it had read.")
cut_watchers = Counter(
    "registry_watchers_cut", "Watchers, and readers, cut off since they did not take what they had asked for."
)


def count_request(method: str | None, verb: str, status: int, outcomes: Mapping[str, int], seconds: float) -> None:
    requests.labels(method if method in METHODS else "other", verb, status).inc()
    durations.labels(verb).observe(seconds)
    for outcome, items in outcomes.items():
        operations.labels(verb, outcome).inc(items)


def count_refused_heartbeats(refusals: Mapping[str, int]) -> None:
    for reason, beats in refusals.items():
        refused_heartbeats.labels(reason).inc(beats)


def count_changes(kinds: Iterable[str]) -> None:
    """Count changes once the transaction under way is committed, and not at all when it is not."""
    count_once_committed(changes, kinds)


def count_holds(rules: Iterable[str]) -> None:
    """Count holds once the transaction under way is committed."""
    count_once_committed(holds, rules)


def count_window_restart(reason: str | None) -> None:
    if reason:
        window_restarts.labels(reason).inc()


def count_once_committed(counter: Counter, labels: Iterable[str]) -> None:
    counted = collections.Counter(labels)

    def count() -> None:
        for label, number in counted.items():
            counter.labels(label).inc(number)

    transaction.on_commit(count)


def exposition() -> bytes:
    """All metrics, in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(FromDatabase())
    if settings.PROMETHEUS_MULTIPROC_DIR:
        registry.register(FromProcesses(settings.PROMETHEUS_MULTIPROC_DIR))
        return generate_latest(registry)
    return generate_latest(registry) + generate_latest(REGISTRY)


class FromProcesses(Collector):
    """The sum of what all processes have counted, those included that have ended."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def collect(self) -> Iterator[Metric]:
        files = glob.glob(os.path.join(glob.escape(self.directory), "*.db"))
        # A process that was killed between making its file and filling it leaves an empty one.
        counted = [file for file in files if os.path.getsize(file) and not is_of_the_dead(file)]
        yield from MultiProcessCollector.merge(counted)  # type: ignore[no-untyped-call]


def is_of_the_dead(file: str) -> bool:
    """Whether a file holds what a process that has ended had at hand: its watchers are not there any more."""
    found = re.search(r"/gauge_live[a-z]*_(\d+)\.db$", file)
    return found is not None and not os.path.exists(f"/proc/{found[1]}")


HELD = f"SELECT l.protected_by, count(*) FROM {LEASE} l WHERE l.protected_at IS NOT NULL GROUP BY 1"
FLEET = f"""
SELECT {EFFECTIVE_STATUS}, {STATE_NAME}, count(*)
FROM {INSTANCE} i
JOIN {LEASE} l ON l.instance_id = i.id
LEFT JOIN {OVERRIDE} o ON o.service_id = i.service_id AND o.instance_id = i.instance_id
GROUP BY 1, 2
"""


def age(column: str) -> str:
    return f"extract(epoch FROM clock_timestamp() - r.{column})::float8"


STATE_ROW = f"""
SELECT (SELECT count(*) FROM {SERVICE}), {age("swept_at")}, {age("heard_at")}, {age("window_start")},
    (r.silent_until > clock_timestamp() AND r.silent_since <= clock_timestamp()) IS TRUE,
    CASE WHEN r.silent_until > clock_timestamp() THEN GREATEST({age("silent_since")}, 0) ELSE 0 END
FROM {STATE} r WHERE r.id = 1
"""
GAUGES = (
    ("registry_services", "Services, those without instances included."),
    ("registry_sweep_age_seconds", "Since a sweep last finished."),
    ("registry_hearing_age_seconds", "Since a web process last said that it can hear; over 5 s time stands still."),
    ("registry_window_age_seconds", "Since when the registry has heard without a gap: silence counts from then."),
    ("registry_silent", "1 while nobody of the fleet is heard and time stands still for that."),
    ("registry_silence_seconds", "For how long already; 0 while somebody is heard."),
)


class FromDatabase(Collector):
    """The state of the whole registry, the same from every process. Without the database only that it is away."""

    def collect(self) -> Iterator[Metric]:
        try:
            fleet, held, values = read()
        except Error:
            yield GaugeMetricFamily("registry_database_up", "Whether the database answered this scrape.", 0)
            return
        yield GaugeMetricFamily("registry_database_up", "Whether the database answered this scrape.", 1)
        yield instances(fleet)
        yield held_instances(held)
        for (name, help_text), value in zip(GAUGES, values, strict=True):
            yield GaugeMetricFamily(name, help_text, value)


def read() -> tuple[dict[tuple[str, str], int], dict[str, int], tuple[float, ...]]:
    """Instances by status and state, the held ones by rule, and the values of GAUGES. A scrape is not worth waiting
    for: 3 s at most."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', '3s', true)")
        cursor.execute(FLEET)
        fleet = {(status, state): count for status, state, count in cursor.fetchall()}
        cursor.execute(HELD)
        held = dict(cursor.fetchall())
        cursor.execute(STATE_ROW)
        return fleet, held, cursor.fetchone()


def instances(fleet: Mapping[tuple[str, str], int]) -> Metric:
    """Zeros included: a series that vanishes tells nothing."""
    family = GaugeMetricFamily(
        "registry_instances", "Instances by effective status and state.", labels=["status", "state"]
    )
    for key in itertools.product(STATUSES, STATES):
        family.add_metric(key, fleet.get(key, 0))
    return family


def held_instances(held: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(
        "registry_held_instances",
        "Instances past their deadline that are held, by the rule that does.",
        labels=["rule"],
    )
    for rule in RULES:
        family.add_metric([rule], held.get(rule, 0))
    return family
