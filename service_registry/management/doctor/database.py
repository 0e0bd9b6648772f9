"""Check the PostgreSQL server, the registry's role and the migrations."""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import Error, OperationalError, ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor

from service_registry.database.transactions import write_transaction
from service_registry.expiry.observation_window import CLOCK_IS_WRONG_SECONDS, CLOCKS_DISAGREE_SECONDS
from service_registry.management.command_line import first_line
from service_registry.management.doctor.finding import Finding, fail, ok, warn
from service_registry.models import RegistryState

VERSIONS = range(15, 19)
# Above this share of the server's connections a burst may be refused.
CROWDED = 0.8


def fetch_row(query: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchone()


def run_bounded(check: Callable[[], Finding]) -> Finding:
    """Run a check with limits on waits and statements; an error is a finding."""
    try:
        with write_transaction(lock_timeout="1s"):
            return check()
    except (ProgrammingError, RegistryState.DoesNotExist) as error:
        return fail(first_line(error), "run manage.py migrate")
    except Error as error:
        return fail(first_line(error), "read the server's log")


def check_reachable() -> Finding:
    before = time.monotonic()
    try:
        user, database = fetch_row("SELECT current_user, current_database()")
    except OperationalError as error:
        return fail(first_line(error), "start PostgreSQL, or correct DATABASE_URL")
    return ok(f"{user} reaches {database} in {(time.monotonic() - before) * 1000:.0f} ms")


def check_version() -> Finding:
    (version,) = fetch_row("SELECT current_setting('server_version')")
    major = int(version.split(".")[0])
    if major < VERSIONS[0]:
        return fail(f"PostgreSQL {version}", f"upgrade it to {VERSIONS[0]} to {VERSIONS[-1]}")
    if major > VERSIONS[-1]:
        return warn(f"PostgreSQL {version}", f"this registry is tested with {VERSIONS[0]} to {VERSIONS[-1]}")
    return ok(f"PostgreSQL {version}")


DURABILITY = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
    (SELECT string_agg(name, ', ') FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off')
"""


def check_durability() -> Finding:
    read_only, off = fetch_row(DURABILITY)
    if read_only:
        return fail("the server does not accept writes", "point DATABASE_URL at the primary")
    if off:
        return warn(f"{off} off: a crash of its machine may destroy the database", f"set {off} to on")
    return ok("commits survive a crash")


def check_migrations() -> Finding:
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


def check_role() -> Finding:
    """Check that the role has the privileges that are needed, and is not a superuser."""
    (lacking,) = fetch_row(LACKING, connection.introspection.django_table_names(only_existing=True))
    is_superuser, may_use_sequence = fetch_row(ROLE)
    if lacking or not may_use_sequence:
        relations = lacking or "service_registry_epoch"
        return fail(f"the role may not read and write {relations}", "grant it, or use the role that ran the migrations")
    if is_superuser and not settings.DEBUG:
        return warn("the role is a superuser", "use a role that owns only the registry's database")
    return ok("may read and write all tables")


def check_clock() -> Finding:
    before = time.time()
    (database_time,) = fetch_row("SELECT extract(epoch FROM clock_timestamp())::float8")
    # The database read its clock between our two readings: only a time outside of them is a difference.
    difference = max(before - database_time, database_time - time.time(), 0.0)
    message = f"{difference:.1f} s off the database's"
    advice = "synchronize the clocks of this machine and of the database by NTP"
    if difference > CLOCK_IS_WRONG_SECONDS:
        return fail(f"{message}: a web process here would not serve", advice)
    return warn(message, advice) if difference > CLOCKS_DISAGREE_SECONDS else ok(message)


# Of a web process, beside those for writes and for Django: two for logins, two to verify tokens, two to read pages, one
# each for the feed and for /readyz.
OTHER_CONNECTIONS = 8
CONNECTIONS = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
"""


def check_connections() -> Finding:
    used, limit = fetch_row(CONNECTIONS)
    message = f"{used} of {limit} in use; a web process here takes {2 * settings.WEB_THREADS + OTHER_CONNECTIONS}"
    if used > CROWDED * limit:
        return warn(message, "raise max_connections, or set fewer WEB_PROCESSES and WEB_THREADS")
    return ok(message)
