"""Settings as text: how each type of field is written in the environment.

Every parser raises ValueError with what goes on after the variable's name: "must be …". No parser repeats the value,
which may be a secret put into the wrong variable.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

from artstore_grpc.addresses import Network
from artstore_grpc.model import Environment
from artstore_grpc.settings import ALGORITHMS, Address, Settings
from artstore_grpc.telemetry.verbosity import LEVELS

OFF = "off"
AUTO = "auto"
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of CPU and the period that they are for (Linux, Documentation/admin-guide/cgroup-v2.rst)."""
MAX_PORT = 65_535
UNIX = "unix:///"
MAX_SOCKET_PATH = 107
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
ADDRESS_FORM = "must be host:port, such as 127.0.0.1:50051, an IPv6 address in brackets"


def text(value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise ValueError("must be a single line")
    return value


def address(value: str) -> Address:
    """`host:port`, an IPv6 host in brackets."""
    host, colon, port = value.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ValueError(ADDRESS_FORM)
    if int(port[:6]) > MAX_PORT or len(port) > len(str(MAX_PORT)):
        raise ValueError(f"must have a port of at most {MAX_PORT:,}")
    return Address(host=_host(host), port=int(port))


def _host(value: str) -> str:
    if value.startswith("[") and value.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(value[1:-1]))
        except ValueError:
            raise ValueError("must have an IPv6 address between the brackets") from None
    if not HOST.fullmatch(value):
        raise ValueError(ADDRESS_FORM)
    return value


def optional_address(value: str) -> Address | None:
    if value.lower() == OFF:
        return None
    try:
        return address(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {OFF}") from None


def integer(value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise ValueError("must be a whole number")
    return int(value)


def share(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        raise ValueError("must be a number, such as 0.01")
    return float(value)


def seconds(value: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value):
        raise ValueError("must be a number of seconds")
    return timedelta(seconds=float(value))


def networks(value: str) -> tuple[Network, ...]:
    """Comma-separated networks; a single address is a network of one."""
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(
                "must be networks, comma-separated, such as 10.0.0.0/8, with no bits set after the prefix"
            ) from None
    return tuple(found)


def path(value: str) -> Path:
    return Path(text(value))


def optional_path(value: str) -> Path | None:
    return None if value.lower() == OFF else path(value)


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser of one of some words, in either case."""
    spelled = {choice.lower(): choice for choice in choices}

    def parse(value: str) -> str:
        if value.lower() not in spelled:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return spelled[value.lower()]

    return parse


def workers(value: str) -> int:
    """A number of processes, or `auto`: one for each core that this process may use."""
    return cores() if value.lower() == AUTO else integer(value)


def cores() -> int:
    """Cores that this process may use: as the scheduler has it, and no more than a container's quota, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or no quota: `max`
        return allowed


def boolean(value: str) -> bool:
    return one_of("true", "false")(value) == "true"


def environment(value: str) -> Environment:
    return Environment(one_of(*sorted(Environment))(value))


def url(*schemes: str) -> Callable[[str], str]:
    """A parser of URLs that begin with one of the schemes; the rest is for the driver to judge."""

    def parse(value: str) -> str:
        if not any(value.startswith(scheme) and value != scheme for scheme in schemes):
            raise ValueError(f"must begin with {', '.join(schemes[:-1])} or {schemes[-1]}")
        return text(value)

    return parse


def socket_url(value: str) -> str:
    """`unix:///path` of a socket, the path absolute and of at most 107 bytes (unix(7), sun_path)."""
    if not value.startswith(UNIX) or len(value.encode()) - len(UNIX) + 1 > MAX_SOCKET_PATH or value == UNIX:
        raise ValueError(f"must be {UNIX}path, the path of at most {MAX_SOCKET_PATH} bytes")
    return text(value)


def collector(value: str) -> str:
    """The URL of an OTLP receiver, which has no path, and no credentials: it is logged by the library that calls it."""
    if not re.fullmatch(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}/?", value):
        raise ValueError("must be http://host:port or https://host:port")
    return value


BY_TYPE: Mapping[Any, Callable[[str], Any]] = {
    str: text,
    int: integer,
    float: share,
    bool: boolean,
    Path: path,
    Path | None: optional_path,
    Address: address,
    Address | None: optional_address,
    timedelta: seconds,
    tuple[Network, ...]: networks,
    Environment: environment,
}

BY_NAME: Mapping[str, Callable[[str], Any]] = {
    "database_url": url("postgresql://", "sqlite:///"),
    "redis_url": url("redis://", "rediss://", "unix://"),
    "key_encryption_kms": socket_url,
    "log_level": one_of(*LEVELS),
    "traces_endpoint": collector,
    "signing_algorithm": one_of(*ALGORITHMS),
    "workers": workers,
}
"""Fields whose type alone doesn't say what may be written."""


def parser_of(field: str) -> Callable[[str], Any]:
    """The parser of a field of Settings. Raises KeyError for a type that nobody has taught it yet."""
    return BY_NAME.get(field) or BY_TYPE[get_type_hints(Settings)[field]]
