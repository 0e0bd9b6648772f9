"""A private PostgreSQL server on loopback, which stops with its parent process."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from registry_project.devstack import DevstackError, binaries, processes
from registry_project.devstack.orphans import stop_orphan
from registry_project.devstack.secret_files import read_or_create

NAME = "registry"  # of the database and of its owner
START_SECONDS = 60  # recovery after a crash included
STOP_SECONDS = 15
LOG_BYTES = 10_000_000

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP only: the path of a socket is limited to 107 bytes, and the path of a checkout may be longer.
    "unix_socket_directories": "",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # Failed statements are not logged: they may contain metadata.
    "log_min_error_statement": "panic",
    # Nor are details: for a killed backend they contain its statement with all values.
    "log_error_verbosity": "terse",
    "jit": "off",
}
# A crash of the machine may destroy the database. Commits stay synchronous, since tests read that setting.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

# Logged by a server that finds processes of its predecessor, or another process on the port that was free before.
TEMPORARY_FAILURES = ("pre-existing shared memory block", "lock file", "Address already in use")


class Server:
    """A PostgreSQL cluster with the database `registry`, and the server that runs it.

    Arguments:
        data_directory: contains `cluster/`, `password` (0600) and `server.log`; created when missing.
        durable: False for tests; a crash of the machine may then destroy the cluster.
        settings: server settings that replace those of SETTINGS.
    """

    name = "PostgreSQL"

    def __init__(
        self, data_directory: Path, *, durable: bool = True, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.directory = data_directory.resolve()
        self.cluster = self.directory / "cluster"
        self.log = self.directory / "server.log"
        self.settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **settings}
        self.account = binaries.choose_account()
        self.port = processes.free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The value for DATABASE_URL. It does not change while this object exists."""
        return f"postgresql://{NAME}:{self.password()}@127.0.0.1:{self.port}/{NAME}"

    @property
    def postmaster_pid(self) -> int | None:
        return self.process.pid if self.process else None

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the server and return when it accepts connections.

        1. Stop a server that a killed supervisor has left on the cluster: two servers must never write to it.
        2. Create the cluster when there is none, in a directory that is renamed when it is complete.
        3. Start the server, and again while processes of its predecessor are still ending.

        Raises DevstackError with the errors in the server's log.
        """
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if not self.is_alive():
                self.relaunch(deadline)
            if time.monotonic() > deadline:
                raise DevstackError(f"PostgreSQL was not ready within {START_SECONDS} s; see {self.log}.")
            time.sleep(0.05)

    def launch(self) -> None:
        """Start the server, also after it has died, without waiting until it is ready."""
        self.stop()
        stop_orphan(self.cluster)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.change_owner(self.directory)
        programs = binaries.find_programs(self.version())
        if not self.cluster.exists():
            self.create_cluster(programs)
        self.rotate_log()
        with self.log.open("ab") as log:
            self.process = processes.spawn(
                self.command(programs), variables=server_environment(), death_signal=signal.SIGINT, output=log
            )

    def relaunch(self, deadline: float) -> None:
        errors = self.logged_errors()
        if time.monotonic() > deadline or not any(failure in errors for failure in TEMPORARY_FAILURES):
            raise DevstackError(
                f"PostgreSQL did not start: {errors.strip() or 'no error was logged'} (see {self.log})."
            )
        time.sleep(0.5)
        self.launch()

    def is_ready(self) -> bool:
        programs = binaries.find_programs(self.version())
        command = [str(programs / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}", "--timeout=1"]
        answer = subprocess.run(command, env=server_environment(), check=False, stdout=subprocess.DEVNULL)  # noqa: S603
        return answer.returncode == 0 and self.is_alive()

    def stop(self) -> None:
        """Stop the server; open transactions are rolled back (fast shutdown)."""
        if self.process:
            processes.stop(self.process, signal.SIGINT, STOP_SECONDS)

    def stop_immediately(self) -> None:
        """Stop the server without a checkpoint; the next start recovers from the WAL."""
        if self.process and self.is_alive():
            self.process.send_signal(signal.SIGQUIT)

    def password(self) -> str:
        return read_or_create(self.directory / "password")

    def version(self) -> str:
        """Return the major version that created the cluster; empty when there is none yet."""
        path = self.cluster / "PG_VERSION"
        return path.read_text().strip() if path.exists() else ""

    def command(self, programs: Path) -> list[str]:
        settings = [f"--{name}={value}" for name, value in {**self.settings, "port": str(self.port)}.items()]
        return [*self.account.prefix, str(programs / "postgres"), "-D", str(self.cluster), *settings]

    def create_cluster(self, programs: Path) -> None:
        unfinished = self.directory / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self.password()
        self.change_owner(self.directory)
        options = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={NAME}", "--no-instructions"]
        # No data can be lost yet; the server itself syncs from its first start on.
        self.run(
            programs / "initdb", *options, "--no-sync", f"--pwfile={self.directory / 'password'}", "-D", str(unfinished)
        )
        self.run(
            programs / "postgres", "--single", "-D", str(unfinished), "postgres", stdin=f"CREATE DATABASE {NAME}\n"
        )
        os.sync()
        unfinished.rename(self.cluster)

    def run(self, program: Path, *arguments: str, stdin: str = "") -> None:
        command = [*self.account.prefix, str(program), *arguments]
        answer = subprocess.run(  # noqa: S603
            command, env=server_environment(), check=False, input=stdin, capture_output=True, text=True
        )
        if answer.returncode != 0:
            raise DevstackError(f"{program.name} failed: {' '.join((answer.stderr or answer.stdout).split())}")

    def change_owner(self, directory: Path) -> None:
        """Give the files to the server's account.

        PostgreSQL requires that it owns its directory, with mode 0700.
        """
        if os.geteuid() == 0:
            for place, directories, files in os.walk(directory):
                for name in ("", *directories, *files):
                    with contextlib.suppress(FileNotFoundError):  # a server that is stopping removes files
                        os.chown(Path(place, name), self.account.user_id, self.account.user_id, follow_symlinks=False)
        directory.chmod(0o700)

    def rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log_begins_at = self.log.stat().st_size if self.log.exists() else 0

    def logged_errors(self) -> str:
        """Return the errors and hints that the server has logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self.log_begins_at)
            lines = log.read().decode(errors="replace").splitlines()
        return " ".join(line.split("] ", 1)[-1] for line in lines if "FATAL" in line or "HINT" in line)


def server_environment() -> dict[str, str]:
    """Return the environment without PG*, which change the programs' defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
