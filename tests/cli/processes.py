"""`artstore-grpc` as a real process, on free ports, with an environment of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

COMMAND = str(Path(sys.executable).parent / "artstore-grpc")
WAIT_SECONDS = 60.0

ANY_PORT = {
    "ARTSTORE_GRPC_ADDRESS": "127.0.0.1:0",
    "ARTSTORE_GATEWAY_ADDRESS": "127.0.0.1:0",
    "ARTSTORE_METRICS_ADDRESS": "127.0.0.1:0",
    "ARTSTORE_BCRYPT_COST": "4",
}


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without what a developer has set for the program, and with the given variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARTSTORE_")}
    return kept | variables


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


class Running:
    """A command that serves until it is told to stop. `output` is what it has printed, `log` its standard error."""

    def __init__(self, *arguments: str, folder: Path, until: str, **variables: str) -> None:
        self.output = ""
        self.log = ""
        self._until = re.compile(until)
        self._said = threading.Event()
        self.process = subprocess.Popen(
            [COMMAND, *arguments],
            cwd=folder,
            env=clean_environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_output, self._read_log)]

    def __enter__(self) -> Self:
        for reader in self._readers:
            reader.start()
        assert self._said.wait(WAIT_SECONDS), f"it never printed {self._until.pattern}: {self.output}{self.log}"
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.stop()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(WAIT_SECONDS)
        for reader in self._readers:
            reader.join(WAIT_SECONDS)
        return code

    def found(self, pattern: str) -> str:
        """The first group of a pattern in what it has printed or logged; waits for it, since each has its reader."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (match := re.search(pattern, self.output + self.log)):
            assert time.monotonic() < deadline, f"no {pattern} in {self.output}{self.log}"
            time.sleep(0.01)
        return match.group(1)

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.output += line
                if self._until.search(line):
                    self._said.set()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.log += line
                if self._until.search(line):
                    self._said.set()


def embedded(folder: Path, **variables: str) -> Running:
    """The service on the embedded default, ready."""
    return Running("serve", folder=folder, until="Get a token", **(ANY_PORT | variables))


def credentials(file: Path) -> dict[str, str]:
    """The variables of a file of credentials."""
    return dict(line.split("=", 1) for line in file.read_text().splitlines())
