"""The floor: what PostgreSQL does of the same rows when nobody stands between, by pgbench."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.requests import POPULATION, TO_A_SERVICE, TTL_SECONDS
from registry_project.devstack import binaries
from registry_project.devstack.postgres import Server, variables

# The registry's own tables, with their indexes, constraints and storage, but apart from its rows.
TABLES = """
CREATE TABLE floor_instance (LIKE service_registry_instance INCLUDING ALL);
CREATE TABLE floor_lease (LIKE service_registry_lease INCLUDING ALL)
"""
UPSERT_INSTANCE = f"""
\\set number random(1, {{instances}})
INSERT INTO floor_instance (service_id, instance_id, host, port, scheme, zone, weight, tags, metadata,
    reported_status, registered_by, status_changes)
VALUES (:number / {TO_A_SERVICE}, 'i-' || :number, '10.0.0.1', 8080, 'http', 'eu-1a', 100, '{{{{blue,http2}}}}',
    '{{{{"version": "1.4.2", "commit": "a8a1c6d2", "team": "payments"}}}}', 'UP', 'bench', 0)
ON CONFLICT (service_id, instance_id) DO UPDATE
SET host = excluded.host, port = excluded.port, zone = excluded.zone, tags = excluded.tags, metadata = excluded.metadata
"""
UPSERT_LEASE = f"""
\\set number random(1, {POPULATION})
INSERT INTO floor_lease (instance_id, heartbeat_at, ttl_seconds, epoch, beats)
VALUES (:number, clock_timestamp(), {TTL_SECONDS}, 1, 0)
ON CONFLICT (instance_id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, beats = floor_lease.beats + 1
"""
SCRIPTS = {
    "insert an instance": UPSERT_INSTANCE.format(instances=2 * 10**9),
    "upsert an instance": UPSERT_INSTANCE.format(instances=POPULATION),
    "upsert a lease": UPSERT_LEASE,
}


@dataclass(frozen=True)
class Floor:
    """Transactions a second and their mean latency in milliseconds."""

    name: str
    rate: float
    latency: float


class Bench:
    """pgbench, beside the server it came with."""

    def __init__(self, postgres: Server, directory: Path, connections: int, seconds: float) -> None:
        self.postgres = postgres
        self.directory = directory
        self.connections = connections
        self.seconds = seconds
        with psycopg.connect(postgres.url) as connection:
            connection.execute(TABLES)

    def floor(self, name: str) -> Floor:
        script = self.directory / "script.sql"
        script.write_text(SCRIPTS[name].strip().replace("\n", " ").replace(") INSERT", ")\nINSERT", 1) + ";\n")
        program = binaries.directory(self.postgres.version()) / "pgbench"
        options = ("--no-vacuum", "--protocol=prepared", "--jobs=2", f"--client={self.connections}")
        done = subprocess.run(
            [program, *options, f"--time={max(1, round(self.seconds))}", f"--file={script}", self.postgres.url],
            env=variables(),
            capture_output=True,
            text=True,
            check=False,
        )
        rate, latency = re.search(r"tps = ([0-9.]+)", done.stdout), re.search(r"average = ([0-9.]+)", done.stdout)
        if not rate or not latency:
            raise RuntimeError(f"pgbench failed: {done.stderr[-600:]}")
        return Floor(name, float(rate[1]), float(latency[1]))
