"""The only reader of the environment: `ARTSTORE_*` in, Settings and a client's credentials out.

An empty variable counts as not given. Nothing that this module says repeats a value.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from artstore_grpc.cli.parsing import parser_of
from artstore_grpc.settings import InvalidSettings, Settings

PREFIX = "ARTSTORE_"
FILE = "_FILE"
TARGET = "TARGET"
CLIENT_ID = "CLIENT_ID"
CLIENT_SECRET = "CLIENT_SECRET"
CLIENT_KEY = "CLIENT_KEY"
CA_FILE = "CA_FILE"
CLIENT_CERTIFICATE_FILE = "CLIENT_CERTIFICATE_FILE"
CLIENT_CERTIFICATE_KEY_FILE = "CLIENT_CERTIFICATE_KEY_FILE"
TLS_FILES = (CA_FILE, CLIENT_CERTIFICATE_FILE, CLIENT_CERTIFICATE_KEY_FILE)
DEFAULT_TARGET = "127.0.0.1:50051"
MAX_FILE_BYTES = 64 * 1024

NOT_OURS = re.compile(
    r"ARTSTORE_(TEST_.*|(.+_)?SERVICE_(HOST|PORT).*|(.+_)?PORT_[0-9]+_(TCP|UDP).*)=|.*_PORT=(tcp|udp)://"
)
"""What the tests read, and what Kubernetes sets in every pod beside a service named artstore or artstore-…"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account's id, and its secret or its private key."""

    client_id: str
    client_secret: str = field(repr=False)
    private_key: str = field(default="", repr=False)


def settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the service. Raises InvalidSettings."""
    environ = os.environ if environ is None else environ
    return Settings(**_values(environ, tuple(each.name for each in fields(Settings))))


def some(names: Collection[str], environ: Mapping[str, str] | None = None) -> SimpleNamespace:
    """These settings alone, none of them a secret; what they contradict is not looked at. Raises InvalidSettings."""
    environ = os.environ if environ is None else environ
    defaults = {each.name: each.default for each in fields(Settings) if each.name in names}
    return SimpleNamespace(**(defaults | _values(environ, names)))


def _values(environ: Mapping[str, str], names: Collection[str]) -> dict[str, Any]:
    """The fields of these names that are given."""
    values: dict[str, Any] = {}
    for each in fields(Settings):
        if each.name in names:
            given = read(environ, each.name.upper(), secret=bool(each.metadata.get("secret")))
            if given:
                values[each.name] = parsed(each.name, given)
    return values


def parsed(name: str, given: str) -> Any:
    """A setting's value, from its text. Raises InvalidSettings."""
    try:
        return parser_of(name)(given)
    except ValueError as error:
        raise InvalidSettings(f"{PREFIX}{name.upper()} {error}.") from None


def target(environ: Mapping[str, str] | None = None, *, default: str = DEFAULT_TARGET) -> str:
    """Where the service is, for the commands that are its clients."""
    return read(os.environ if environ is None else environ, TARGET, secret=False) or default


def redis_url(environ: Mapping[str, str] | None = None) -> str:
    """The service's Redis, for the commands that only read it. Raises InvalidSettings where none is given."""
    given = read(os.environ if environ is None else environ, "REDIS_URL", secret=True)
    if not given:
        raise InvalidSettings("ARTSTORE_REDIS_URL is not given: replicas are registered in the service's Redis.")
    return str(parsed("redis_url", given))


def tls_file(name: str, given: str | None = None, environ: Mapping[str, str] | None = None) -> bytes:
    """What is in a client's TLS file, one of TLS_FILES, named by an option or else the environment; empty when neither
    names one. Raises InvalidSettings."""
    named = given or read(os.environ if environ is None else environ, name, secret=False)
    return _read_file(PREFIX + name, Path(named)).encode() if named else b""


def credentials(environ: Mapping[str, str] | None = None, *, certificate: bool = False) -> Credentials:
    """The account that the commands act as; where they call by a client `certificate` that may prove it. Raises
    InvalidSettings when it is not given."""
    environ = os.environ if environ is None else environ
    client_id = read(environ, CLIENT_ID, secret=False)
    client_secret = read(environ, CLIENT_SECRET, secret=True)
    private_key = read(environ, CLIENT_KEY, secret=True)
    if client_secret and private_key:
        raise InvalidSettings("ARTSTORE_CLIENT_SECRET and ARTSTORE_CLIENT_KEY are both given; give one of them.")
    if not client_id or not (client_secret or private_key or certificate):
        missing = PREFIX + (CLIENT_SECRET if client_id else CLIENT_ID)
        raise InvalidSettings(
            f"{missing} is not given: this command needs an account, in ARTSTORE_CLIENT_ID and ARTSTORE_CLIENT_SECRET "
            "(or ARTSTORE_CLIENT_SECRET_FILE, or a private key in ARTSTORE_CLIENT_KEY or ARTSTORE_CLIENT_KEY_FILE)."
        )
    return Credentials(client_id, client_secret, private_key)


def read(environ: Mapping[str, str], name: str, *, secret: bool) -> str:
    """A variable's text, or what is in the file that it names; empty when neither is given. Raises InvalidSettings."""
    variable = PREFIX + name
    given = environ.get(variable, "").strip()
    file = environ.get(variable + FILE, "") if secret else ""
    if given and file:
        raise InvalidSettings(f"{variable} and {variable}{FILE} are both given; give one of them.")
    return _read_file(variable + FILE, Path(file)) if file else given


def _read_file(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode().strip()
    except OSError as error:
        raise InvalidSettings(f"{variable} names a file that can't be read: {error.strerror}.") from None
    except ValueError:
        raise InvalidSettings(f"{variable} names a file that is not UTF-8 text.") from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidSettings(f"{variable} names a file of more than {MAX_FILE_BYTES:,} bytes.")
    if not text:
        raise InvalidSettings(f"{variable} names an empty file.")
    return text


def colors(environ: Mapping[str, str] | None = None) -> bool:
    """Whether who reads a terminal wants colours (no-color.org)."""
    return not (os.environ if environ is None else environ).get("NO_COLOR")


def secret_files(environ: Mapping[str, str] | None = None) -> dict[str, Path]:
    """The files that secret settings are read from, by their variables."""
    environ = os.environ if environ is None else environ
    names = [PREFIX + each.name.upper() + FILE for each in fields(Settings) if each.metadata.get("secret")]
    return {name: Path(environ[name]) for name in names if environ.get(name)}


def known_variables() -> tuple[str, ...]:
    """Every variable that some command reads."""
    names = [TARGET, CLIENT_ID, CLIENT_SECRET, CLIENT_SECRET + FILE, CLIENT_KEY, CLIENT_KEY + FILE, *TLS_FILES]
    for each in fields(Settings):
        names.append(each.name.upper())
        if each.metadata.get("secret"):
            names.append(each.name.upper() + FILE)
    return tuple(PREFIX + name for name in names)


def warnings(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each variable that nothing reads, with the nearest that something does: it may be misspelled."""
    environ, known = (os.environ if environ is None else environ), known_variables()
    ours = (name for name in sorted(environ) if name.startswith(PREFIX))
    return [
        f"{name} is no setting of this program; the nearest is {difflib.get_close_matches(name, known, 1, 0.0)[0]}."
        for name in ours
        if name not in known and not NOT_OURS.match(f"{name}={environ[name]}")
    ]
