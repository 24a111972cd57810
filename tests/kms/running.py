"""The plugin as tests run it: a process with a socket and keys in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers import Server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@cache
def api() -> bytes:
    """api.proto, compiled by buf."""
    command = [Path(sys.executable).with_name("buf"), "build", f"{HERE}/api.proto", "--output", "-#format=binpb"]
    return subprocess.run(command, check=True, capture_output=True).stdout


class KmsPlugin(Server):
    """`with KmsPlugin() as plugin: plugin.url`. A key is made, and is the current one, once it is named first."""

    def __init__(self, key: str = "key-1") -> None:
        super().__init__("artstore-kms-")
        self.socket = self.folder / "kms.sock"
        self._settings: dict[str, Any] = {"keys": {}}
        self.use(key)
        (self.folder / "api.binpb").write_bytes(api())

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def secrets(self) -> list[bytes]:
        """Its keys."""
        return [bytes.fromhex(key) for key in self._settings["keys"].values()]

    def use(self, key: str) -> None:
        """Encrypts under this key from now on; the others still decrypt."""
        self._settings["keys"].setdefault(key, os.urandom(32).hex())
        self.say(current=key)

    def forget(self, key: str) -> None:
        del self._settings["keys"][key]
        self.say()

    def say(self, **settings: str) -> None:
        """Changes what it answers to Status."""
        self._settings |= settings
        fresh = self.folder / "keys.new"
        fresh.write_text(json.dumps(self._settings))
        fresh.replace(self.folder / "keys.json")

    def start(self) -> KmsPlugin:
        self.socket.unlink(missing_ok=True)
        command: list[str | Path] = [sys.executable, "-c", START, ROOT]
        self._spawn([*command, self.socket, self.folder / "api.binpb", self.folder / "keys.json"])
        self._await(lambda: "serving" in self._log())
        return self

    def stop(self) -> None:
        super().stop()
        (self.folder / "log").write_text("")


START = "import sys; sys.path.insert(0, sys.argv[1]); from tests.kms.plugin import main; main(*sys.argv[2:])"
