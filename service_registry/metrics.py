"""Count refusals and changes, and expose all metrics to Prometheus.

Each process counts its own events; gauges of the whole registry are read from the database at a scrape. With
PROMETHEUS_MULTIPROC_DIR each process counts in a file of that directory, which outlives the process, and a scrape of
any process returns the sum over all files. No label contains a name that clients choose, so that the number of series
does not grow with the fleet.
"""

import collections
import glob
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime

from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import Count
from django.db.models.functions import Now
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service_registry.choices import Health, Rule, State, Status
from service_registry.database.dead_rows import Slot, TableRows, Transaction, read_rows, read_slots, read_transactions
from service_registry.health_models import HealthChecker
from service_registry.models import Instance, Lease, RegistryState, Service
from service_registry.request_metrics import operations, request_counts
from service_registry.sql import EFFECTIVE_STATUS, INSTANCE, LEASE, OVERRIDE, STATE_NAME

refused_heartbeats = Counter(
    "registry_heartbeats_refused_total", "Heartbeats that did not renew a lease, by reason or error code.", ["reason"]
)
changes = Counter("registry_changes_total", "Committed changes by kind.", ["kind"])
protections = Counter("registry_protections_total", "Instances that became protected, by rule.", ["rule"])
window_restarts = Counter(
    "registry_observation_window_restarts_total",
    "Restarts of the observation window, by reason: gap, clock or suspension.",
    ["reason"],
)

subscribers = Gauge(
    "registry_subscribers",
    "Open watches (stream, poll) and blocking reads (read).",
    ["kind"],
    multiprocess_mode="livesum",
)
refused_places = Counter(
    "registry_requests_over_bound_total",
    "Requests that were refused because all places of their kind were taken (process), or the caller's share (caller).",
    ["kind", "bound"],
)
subscriber_wakeups = Counter("registry_subscriber_wakeups_total", "Subscribers that were woken by a change.")
slow_clients = Counter(
    "registry_slow_clients_disconnected_total", "Clients that were disconnected because they did not read the response."
)
connections = Gauge(
    "registry_connections",
    "Open connections of clients: active (a request is under way) and idle.",
    ["state"],
    multiprocess_mode="livesum",
)
connections_closed = Counter(
    "registry_connections_closed_total", "Connections that were closed by a limit, by reason.", ["reason"]
)
health_checks = Counter(
    "registry_health_checks_total", "Health checks that were run, by level and cause.", ["level", "cause"]
)
health_checks_late = Counter(
    "registry_health_checks_late_total", "Health checks that were skipped, because their time had passed."
)
health_check_delay = Histogram(
    "registry_health_check_delay_seconds",
    "Time between when a health check was due and when it was run.",
    buckets=settings.PROMETHEUS_LATENCY_BUCKETS,
)
health_checks_running = Gauge(
    "registry_health_checks_running", "Health checks that run now.", multiprocess_mode="livesum"
)
replica_age = Gauge(
    "registry_replica_age_seconds",
    "Time since the replica was last known to be current, of the oldest replica on this machine.",
    multiprocess_mode="livemax",
)
replica_resyncs = Counter(
    "registry_replica_resyncs_total", "Replicas that were discarded because the change log had lost its end."
)


def count_items(operation: str, outcomes: Mapping[str, int]) -> None:
    """Count the outcomes of the items of an array."""
    for outcome, items in outcomes.items():
        operations.labels(operation, outcome).inc(items)


def count_refused_heartbeats(refusals: Mapping[str, int]) -> None:
    """Count heartbeats that did not renew a lease, by reason."""
    for reason, heartbeats in refusals.items():
        refused_heartbeats.labels(reason).inc(heartbeats)


def count_changes(kinds: Iterable[str]) -> None:
    """Count changes when the current transaction commits."""
    count_on_commit(changes, kinds)


def count_protections(rules: Iterable[str]) -> None:
    """Count newly protected instances when the current transaction commits."""
    count_on_commit(protections, rules)


def count_window_restart(reason: str | None) -> None:
    """Count a restart of the observation window; without a reason there was none."""
    if reason:
        window_restarts.labels(reason).inc()


def count_on_commit(counter: Counter, labels: Iterable[str]) -> None:
    """Add one to `counter` for each label when the current transaction commits."""
    counted = collections.Counter(labels)

    def count() -> None:
        for label, number in counted.items():
            counter.labels(label).inc(number)

    transaction.on_commit(count)


def exposition() -> bytes:
    """Return all metrics in Prometheus's text format."""
    request_counts.flush()
    registry = CollectorRegistry()
    registry.register(DatabaseCollector())
    if settings.PROMETHEUS_MULTIPROC_DIR:
        registry.register(ProcessCollector(settings.PROMETHEUS_MULTIPROC_DIR))
        return generate_latest(registry)
    return generate_latest(registry) + generate_latest(REGISTRY)


class ProcessCollector(Collector):
    """Sum the counts of all processes of this machine, also of those that have ended."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def collect(self) -> Iterator[Metric]:
        files = glob.glob(os.path.join(glob.escape(self.directory), "*.db"))
        # A process that is killed between creating and filling its file leaves an empty one.
        counted = [file for file in files if os.path.getsize(file) and not is_stale_gauge(file)]
        yield from MultiProcessCollector.merge(counted)  # type: ignore[no-untyped-call]


def is_stale_gauge(file: str) -> bool:
    """Return whether a file has the gauges of a process that has ended.

    Its subscribers are gone.
    """
    found = re.search(r"/gauge_live[a-z]*_(\d+)\.db$", file)
    return found is not None and not os.path.exists(f"/proc/{found[1]}")


FLEET = f"""
SELECT {EFFECTIVE_STATUS}, {STATE_NAME}, count(*)
FROM {INSTANCE} i
JOIN {LEASE} l ON l.instance_id = i.id
LEFT JOIN {OVERRIDE} o ON o.service_id = i.service_id AND o.instance_id = i.instance_id
GROUP BY 1, 2
"""


class DatabaseCollector(Collector):
    """Read the gauges of the whole registry.

    Without the database only `registry_database_up` is returned.
    """

    def collect(self) -> Iterator[Metric]:
        try:
            families = read_families()
        except Error:
            yield database_up(0)
            return
        yield database_up(1)
        yield from families


def database_up(value: int) -> Metric:
    return GaugeMetricFamily("registry_database_up", "1 when the database answered this scrape, else 0.", value)


def read_families() -> list[Metric]:
    """Read the gauges of the whole registry, each statement for at most 3 s.

    Prometheus scrapes again soon.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', '3s', true)")
        cursor.execute(FLEET)
        fleet = {(status, state): count for status, state, count in cursor.fetchall()}
        protected = Lease.objects.filter(protected_at__isnull=False).values_list("protected_by")
        rules = dict(protected.annotate(count=Count("pk")))
        services = Service.objects.count()
        healths = dict(Instance.objects.checked().values_list("health").annotate(count=Count("pk")))
        checkers = dict(HealthChecker.objects.present().values_list("cut_off").annotate(count=Count("pk")))
        state = RegistryState.objects.annotate(now=Now()).first()  # missing until the first migration has ended
        transactions, slots, leases = read_transactions(), read_slots(), read_rows(LEASE)
    return [
        instances(fleet),
        protected_instances(rules),
        GaugeMetricFamily("registry_services", "Services, including services without instances.", services),
        checked_instances(healths),
        health_checkers(checkers),
        *(state_gauges(state, state.now) if state else ()),
        oldest_transaction(transactions),
        held_transactions(transactions, slots),
        *slot_gauges(slots),
        *lease_gauges(leases),
    ]


def state_gauges(state: RegistryState, now: datetime) -> Iterator[Metric]:
    def age(moment: datetime | None) -> float:
        return (now - moment).total_seconds() if moment else 0

    suspended = bool(state.suspended_at and state.suspended_until and state.suspended_at <= now < state.suspended_until)
    yield GaugeMetricFamily("registry_sweep_age_seconds", "Time since the last sweep finished.", age(state.swept_at))
    yield GaugeMetricFamily(
        "registry_observation_age_seconds",
        "Time since a web process last pulsed; over 5 s nothing expires.",
        age(state.observed_at),
    )
    yield GaugeMetricFamily(
        "registry_observation_window_age_seconds",
        "Time for which web processes have pulsed without a gap.",
        age(state.window_started_at),
    )
    yield GaugeMetricFamily(
        "registry_expiry_suspended", "1 while expiry is suspended because no heartbeat arrives.", int(suspended)
    )
    yield GaugeMetricFamily(
        "registry_expiry_suspended_seconds",
        "How long expiry has been suspended, else 0.",
        age(state.suspended_at) if suspended else 0,
    )


def instances(fleet: Mapping[tuple[str, str], int]) -> Metric:
    """Return a sample for each status and state, including zeros.

    Alerts need series that do not vanish.
    """
    family = GaugeMetricFamily(
        "registry_instances", "Instances by effective status and state.", labels=["status", "state"]
    )
    for key in itertools.product(Status.values, State.values):
        family.add_metric(key, fleet.get(key, 0))
    return family


def protected_instances(rules: Mapping[str | None, int]) -> Metric:
    family = GaugeMetricFamily(
        "registry_protected_instances", "Instances that are protected past their deadline, by rule.", labels=["rule"]
    )
    for rule in Rule.values:
        family.add_metric([rule], rules.get(rule, 0))
    return family


def checked_instances(healths: Mapping[str | None, int]) -> Metric:
    family = GaugeMetricFamily("registry_checked_instances", "Instances with a health check.", labels=["health"])
    for health in Health.values:
        family.add_metric([health], healths.get(health, 0))
    return family


def health_checkers(by_cut_off: Mapping[bool, int]) -> Metric:
    family = GaugeMetricFamily(
        "registry_health_checkers", "Checkers that run, and those of them that are cut off.", labels=["state"]
    )
    family.add_metric(["running"], sum(by_cut_off.values()))
    family.add_metric(["cut_off"], by_cut_off.get(True, 0))
    return family


def oldest_transaction(transactions: Iterable[Transaction]) -> Metric:
    """Return the age of the oldest transaction whose age is visible.

    There is no sample when all that are open belong to other roles, and are not visible.
    """
    family = GaugeMetricFamily(
        "registry_oldest_transaction_seconds", "Age of the oldest open transaction that keeps dead rows, else 0."
    )
    ages = [each.seconds for each in transactions if each.kind != "standby"]
    visible = [age for age in ages if age is not None]
    if visible or not ages:
        family.add_metric([], max(visible, default=0))
    return family


def held_transactions(transactions: Iterable[Transaction], slots: Iterable[Slot]) -> Metric:
    """Return how far back dead rows are kept, in transactions: these numbers are visible to every role."""
    family = GaugeMetricFamily(
        "registry_held_transactions",
        "Transactions since the oldest one whose dead rows are kept, by what keeps them.",
        labels=["holder"],
    )
    held = dict.fromkeys(("transaction", "prepared", "standby"), 0)
    for each in transactions:
        held[each.kind] = max(held[each.kind], each.held)
    held["slot"] = max((slot.held for slot in slots), default=0)
    for holder, number in held.items():
        family.add_metric([holder], number)
    return family


def slot_gauges(slots: Collection[Slot]) -> Iterator[Metric]:
    family = GaugeMetricFamily("registry_replication_slots", "Replication slots of the server.", labels=["state"])
    unused = sum(not slot.active for slot in slots)
    family.add_metric(["used"], len(slots) - unused)
    family.add_metric(["unused"], unused)
    yield family
    yield GaugeMetricFamily(
        "registry_replication_slot_wal_bytes",
        "Size of the write-ahead log that the slot which keeps most of it keeps.",
        max((slot.wal_bytes for slot in slots), default=0),
    )


def lease_gauges(leases: TableRows) -> Iterator[Metric]:
    rows = GaugeMetricFamily("registry_lease_rows", "Rows of the lease table, by state.", labels=["state"])
    rows.add_metric(["live"], leases.live)
    rows.add_metric(["dead"], leases.dead)
    yield rows
    vacuum = GaugeMetricFamily("registry_lease_vacuum_age_seconds", "Time since the last vacuum of the lease table.")
    if leases.vacuumed_seconds is not None:
        vacuum.add_metric([], leases.vacuumed_seconds)
    yield vacuum
