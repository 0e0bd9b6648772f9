"""What PostgreSQL says of itself, of us, and of the registry's state."""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import Error, OperationalError, ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor

from service_registry.database.transactions import write_transaction
from service_registry.expiry.observation import (
    CLOCK_IS_WRONG_SECONDS,
    CLOCKS_DISAGREE_SECONDS,
    OBSERVATION_GAP_SECONDS,
    SWEEP_IS_LATE_SECONDS,
)
from service_registry.management.doctor.finding import Finding, fail, ok, warn
from service_registry.models import SigningKeys
from service_registry.sql import STATE

VERSIONS = range(15, 19)
SWEEP_IS_STUCK_SECONDS = 30
# The share of the server's connections from which on a burst may be refused.
CROWDED = 0.8


def row(query: str, *parameters: Any) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        found: tuple[Any, ...] | None = cursor.fetchone()
    return found or ()


def bounded(check: Callable[[], Finding]) -> Finding:
    """Run a check in a transaction in which no wait is endless."""
    try:
        with write_transaction(lock_timeout="1s"):
            return check()
    except ProgrammingError as error:
        return fail(first_line(error), "run manage.py migrate")
    except Error as error:
        return fail(first_line(error), "see the server's log")


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def reached() -> Finding:
    before = time.monotonic()
    try:
        user, database = row("SELECT current_user, current_database()")
    except OperationalError as error:
        return fail(first_line(error), "start PostgreSQL, or mend DATABASE_URL")
    return ok(f"{user} reaches {database} in {(time.monotonic() - before) * 1000:.0f} ms")


def version() -> Finding:
    (text,) = row("SELECT current_setting('server_version')")
    major = int(text.split(".")[0])
    if major < VERSIONS[0]:
        return fail(f"PostgreSQL {text}", f"upgrade it to {VERSIONS[0]} to {VERSIONS[-1]}")
    if major > VERSIONS[-1]:
        return warn(f"PostgreSQL {text}", f"this registry was tested with {VERSIONS[0]} to {VERSIONS[-1]}")
    return ok(f"PostgreSQL {text}")


def durability() -> Finding:
    settings_that_must_be_on = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')"
    off = row(f"SELECT string_agg(name, ', ') FROM ({settings_that_must_be_on} AND setting = 'off') AS off")[0]
    standby, read_only = row("SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'")
    if standby or read_only:
        return fail("the server takes no writes", "point DATABASE_URL at the primary")
    if off:
        return warn(f"{off} off: a crash of its machine may destroy the database", f"set {off} to on")
    return ok("commits survive a crash")


def migrations() -> Finding:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        return fail(f"{len(missing)} not applied, the first is {missing[0][0]}", "run manage.py migrate")
    return ok("all applied")


LACKING = """
SELECT string_agg(name, ', ') FROM unnest(%s::text[]) AS name
WHERE NOT (has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT')
    AND has_table_privilege(name, 'UPDATE') AND has_table_privilege(name, 'DELETE'))
"""
ROLE = """
SELECT rolsuper, has_sequence_privilege('service_registry_epoch', 'USAGE') FROM pg_roles WHERE rolname = current_user
"""


def role() -> Finding:
    """Rights that are needed are there, and the one that is not needed is not."""
    tables = connection.introspection.django_table_names(only_existing=True)
    (lacking,) = row(LACKING, tables)
    superuser, may_count = row(ROLE)
    if lacking or not may_count:
        what = lacking or "service_registry_epoch"
        return fail(f"the role may not read and write {what}", "grant it, or use the role that migrated")
    if superuser and not settings.DEBUG:
        return warn("the role is a superuser", "give the registry a role that owns its database alone")
    return ok("may read and write all tables")


def clock() -> Finding:
    before = time.time()
    (theirs,) = row("SELECT extract(epoch FROM clock_timestamp())::float8")
    # The database read its clock between our two readings: only what lies outside of them is a difference.
    difference = max(before - theirs, theirs - time.time(), 0.0)
    said = f"{difference:.1f} s off the database's"
    advice = "set this machine's and the database's clock by NTP"
    if difference > CLOCK_IS_WRONG_SECONDS:
        return fail(f"{said}: a web process here would not serve", advice)
    return warn(said, advice) if difference > CLOCKS_DISAGREE_SECONDS else ok(said)


CONNECTIONS = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
"""


def connections() -> Finding:
    used, most = row(CONNECTIONS)
    said = f"{used} of {most} in use; a web process here takes {settings.WEB_THREADS}"
    if used > CROWDED * most:
        return warn(said, "raise max_connections, or set fewer WEB_PROCESSES and WEB_THREADS")
    return ok(said)


def stored_keys() -> Finding:
    """Those with which a start without the provider would serve."""
    age = "SELECT extract(epoch FROM clock_timestamp() - fetched_at)::float8 FROM {} WHERE issuer = %s"
    found = row(age.format(SigningKeys._meta.db_table), settings.OIDC_ISSUER)
    if not found:
        return warn("none yet", "they are stored when a web process first runs with the provider reachable")
    said = f"confirmed {lasted(found[0])} ago"
    if found[0] > settings.OIDC_KEYS_MAX_AGE_SECONDS:
        return warn(f"{said}, which is too long to serve", "see that web processes reach the provider")
    return ok(said)


def age_of(column: str) -> float:
    (age,) = row(f"SELECT extract(epoch FROM clock_timestamp() - {column})::float8 FROM {STATE} WHERE id = 1") or (0,)
    return float(age)


def observation() -> Finding:
    age = age_of("observed_at")
    if age > OBSERVATION_GAP_SECONDS:
        return fail(
            f"no web process has pulsed for {lasted(age)}: nothing expires", "start a web process, and see its log"
        )
    return ok(f"a web process pulsed {lasted(age)} ago; without a gap for {lasted(age_of('window_started_at'))}")


def swept() -> Finding:
    age = age_of("swept_at")
    said = f"the last one finished {lasted(age)} ago"
    if age > SWEEP_IS_STUCK_SECONDS:
        return fail(said, "start a worker with beat, or a web process; manage.py sweep does one now")
    if age > settings.REGISTRY_SWEEP_INTERVAL_SECONDS + SWEEP_IS_LATE_SECONDS + 1:
        return warn(said, "see the logs of worker and beat")
    return ok(said)


def lasted(seconds: float) -> str:
    """`5 s`, `3 min`, `2 h` or `4 d`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
