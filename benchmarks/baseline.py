"""The baseline: the rate at which pgbench writes the same rows into PostgreSQL, without the registry between."""

import re
import subprocess
from pathlib import Path

import psycopg

from benchmarks import cpu
from benchmarks.requests import INSTANCES_PER_SERVICE, TTL_SECONDS, Fleet
from registry_project.devstack import binaries
from registry_project.devstack.postgres import Server, server_environment

# The registry's tables, with their indexes, constraints and storage settings, but without its rows.
TABLES = """
CREATE TABLE baseline_instance (LIKE service_registry_instance INCLUDING ALL);
CREATE TABLE baseline_lease (LIKE service_registry_lease INCLUDING ALL)
"""
UPSERT_INSTANCE = f"""
\\set number random(1, {{instances}})
INSERT INTO baseline_instance (service_id, instance_id, host, port, scheme, zone, weight, tags, metadata,
    reported_status, registered_by, status_changes)
VALUES (:number / {INSTANCES_PER_SERVICE}, 'i-' || :number, '10.0.0.1', 8080, 'http', 'eu-1a', 100,
    '{{{{blue,http2}}}}', '{{{{"version": "1.4.2", "commit": "a8a1c6d2", "team": "payments"}}}}', 'UP', 'bench', 0)
ON CONFLICT (service_id, instance_id) DO UPDATE
SET host = excluded.host, port = excluded.port, zone = excluded.zone, tags = excluded.tags, metadata = excluded.metadata
"""
UPSERT_LEASE = f"""
\\set number random(1, {Fleet().instances})
INSERT INTO baseline_lease (instance_id, heartbeat_at, ttl_seconds, epoch, beats)
VALUES (:number, clock_timestamp(), {TTL_SECONDS}, 1, 0)
ON CONFLICT (instance_id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, beats = baseline_lease.beats + 1
"""
SCRIPTS = {
    "insert an instance": UPSERT_INSTANCE.format(instances=2 * 10**9),
    "upsert an instance": UPSERT_INSTANCE.format(instances=Fleet().instances),
    "upsert a lease": UPSERT_LEASE,
}


class PgBench:
    """pgbench, of the installation that the server runs from.

    Arguments:
        clients: connections of pgbench.
        seconds: how long each script runs, at least 1.
    """

    def __init__(self, postgres: Server, directory: Path, clients: int, seconds: float) -> None:
        self.postgres = postgres
        self.script = directory / "script.sql"
        self.program = binaries.find_programs(postgres.version()) / "pgbench"
        fixed = ("--no-vacuum", "--protocol=prepared", "--jobs=2")
        self.options = (*fixed, f"--client={clients}", f"--time={max(1, round(seconds))}", f"--file={self.script}")
        with psycopg.connect(postgres.url) as connection:
            connection.execute(TABLES)

    def measure(self, name: str) -> tuple[float, float]:
        """Run the script of this name; return transactions per second, and PostgreSQL's CPU microseconds for each."""
        self.script.write_text(SCRIPTS[name].strip().replace("\n", " ").replace(") INSERT", ")\nINSERT", 1) + ";\n")
        postmaster = [self.postgres.postmaster_pid or 0]
        before = cpu.read_cpu_seconds(postmaster)
        done = subprocess.run(
            [self.program, *self.options, self.postgres.url],
            env=server_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = cpu.read_cpu_seconds(postmaster) - before
        rate = re.search(r"tps = ([0-9.]+)", done.stdout)
        count = re.search(r"actually processed: ([0-9]+)", done.stdout)
        if not rate or not count:
            raise RuntimeError(f"pgbench failed: {done.stderr[-600:]}")
        return float(rate[1]), seconds / int(count[1]) * 1e6
