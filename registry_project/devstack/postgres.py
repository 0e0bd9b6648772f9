"""A private PostgreSQL: made at first start, loopback only, ended with the process that started it."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from registry_project.devstack import binaries, orphans, processes
from registry_project.devstack.exceptions import EmbeddedError

NAME = "registry"  # of the database and of its owner
START_SECONDS = 60  # recovery after a crash included
STOP_SECONDS = 15
LOG_BYTES = 10_000_000

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP alone: a socket's path ends at 107 bytes, and a checkout may lie deep.
    "unix_socket_directories": "",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # A failed statement is not written out: it may hold metadata.
    "log_min_error_statement": "panic",
    # No details either: of a backend that was killed they give the statement it was at, with all its values.
    "log_error_verbosity": "terse",
    "jit": "off",
}
# What a machine's crash may cost is the whole database. Commits stay synchronous: tests look at that setting.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

# Said by a server that found its predecessor's last processes, or its port taken since it was chosen.
PASSING = ("pre-existing shared memory block", "lock file", "Address already in use")


class Server:
    """One PostgreSQL cluster in a directory of ours, with the database `registry` in it.

    Arguments:
        data_directory: holds `cluster/`, `password` (0600) and `server.log`; made when missing.
        durable: False for tests; a crash of the machine may then destroy the cluster.
        settings: server settings over those of SETTINGS.
    """

    name = "PostgreSQL"

    def __init__(
        self, data_directory: Path, *, durable: bool = True, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.directory = data_directory.resolve()
        self.cluster = self.directory / "cluster"
        self.log = self.directory / "server.log"
        self.settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **settings}
        self.account = binaries.account()
        self.port = processes.free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for `DATABASE_URL`; good from the start on, and the same until this object is gone."""
        return f"postgresql://{NAME}:{self.password()}@127.0.0.1:{self.port}/{NAME}"

    @property
    def postmaster_pid(self) -> int | None:
        return self.process.pid if self.process else None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the server and return when it takes connections.

        1. End a server that a killed predecessor has left on the cluster: two must never write to it.
        2. Make the cluster when there is none, in a directory that gets its name when it is whole.
        3. Start, and again while the predecessor's last processes are going.

        Raises EmbeddedError with the server's last words.
        """
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if not self.alive():
                self.relaunch(deadline)
            if time.monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL was not ready within {START_SECONDS} s; see {self.log}.")
            time.sleep(0.05)

    def launch(self) -> None:
        """Start the server without waiting for it, also after its death."""
        self.stop()
        orphans.end(self.cluster)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.own(self.directory)
        programs = binaries.directory(self.version())
        if not self.cluster.exists():
            self.make_cluster(programs)
        self.keep_log_short()
        with self.log.open("ab") as log:
            self.process = processes.spawn(
                self.command(programs), variables=variables(), death_signal=signal.SIGINT, output=log
            )

    def relaunch(self, deadline: float) -> None:
        said = self.last_words()
        if time.monotonic() > deadline or not any(passing in said for passing in PASSING):
            raise EmbeddedError(f"PostgreSQL did not start: {said.strip() or 'it said nothing'} (see {self.log}).")
        time.sleep(0.5)
        self.launch()

    def ready(self) -> bool:
        programs = binaries.directory(self.version())
        asked = [str(programs / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}", "--timeout=1"]
        answer = subprocess.run(asked, env=variables(), check=False, stdout=subprocess.DEVNULL)  # noqa: S603
        return answer.returncode == 0 and self.alive()

    def stop(self) -> None:
        """End the server; the transactions of its clients are rolled back."""
        if self.process:
            processes.stop(self.process, signal.SIGINT, STOP_SECONDS)

    def hurry(self) -> None:
        """End it without a checkpoint: nothing is lost, and its next start is a recovery."""
        if self.process and self.alive():
            self.process.send_signal(signal.SIGQUIT)

    def password(self) -> str:
        kept = self.directory / "password"
        if not kept.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            with open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
        return kept.read_text()

    def version(self) -> str:
        """The major version that made the cluster; empty when there is none yet."""
        kept = self.cluster / "PG_VERSION"
        return kept.read_text().strip() if kept.exists() else ""

    def command(self, programs: Path) -> list[str]:
        settings = [f"--{name}={value}" for name, value in {**self.settings, "port": str(self.port)}.items()]
        return [*self.account.prefix, str(programs / "postgres"), "-D", str(self.cluster), *settings]

    def make_cluster(self, programs: Path) -> None:
        unfinished = self.directory / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self.password()
        self.own(self.directory)
        options = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={NAME}", "--no-instructions"]
        # Nothing is lost if the machine fails now; the server itself writes through from its first start on.
        self.run(
            programs / "initdb", *options, "--no-sync", f"--pwfile={self.directory / 'password'}", "-D", str(unfinished)
        )
        self.run(programs / "postgres", "--single", "-D", str(unfinished), "postgres", said=f"CREATE DATABASE {NAME}\n")
        os.sync()
        unfinished.rename(self.cluster)

    def run(self, program: Path, *arguments: str, said: str = "") -> None:
        command = [*self.account.prefix, str(program), *arguments]
        answer = subprocess.run(  # noqa: S603
            command, env=variables(), check=False, input=said, capture_output=True, text=True
        )
        if answer.returncode != 0:
            raise EmbeddedError(f"{program.name} failed: {' '.join((answer.stderr or answer.stdout).split())}")

    def own(self, directory: Path) -> None:
        """Give the files to the account the server runs as: it insists on owning its directory, mode 0700."""
        if os.geteuid() == 0:
            for place, directories, files in os.walk(directory):
                for name in ("", *directories, *files):
                    with contextlib.suppress(FileNotFoundError):  # a dying server still tidies up
                        os.chown(Path(place, name), self.account.user_id, self.account.user_id, follow_symlinks=False)
        directory.chmod(0o700)

    def keep_log_short(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log_begins_at = self.log.stat().st_size if self.log.exists() else 0

    def last_words(self) -> str:
        """What the server wrote since its last start, without what is no complaint."""
        with self.log.open("rb") as log:
            log.seek(self.log_begins_at)
            lines = log.read().decode(errors="replace").splitlines()
        return " ".join(line.split("] ", 1)[-1] for line in lines if "FATAL" in line or "HINT" in line)


def variables() -> dict[str, str]:
    """Our environment without what PostgreSQL's programs would take their own defaults from."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
