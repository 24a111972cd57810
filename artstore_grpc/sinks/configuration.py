"""The sinks of a service, as the JSON file says that ARTSTORE_SINKS_FILE names; docs/sinks.md has its form.

The file holds no secret: tokens and keys are in files of their own, whose paths it names. What nobody understands in
it is refused, and so is what contradicts itself, at the start and in one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.exchange import parsed
from artstore_grpc.sinks.files import FilesSink
from artstore_grpc.sinks.kubernetes import POD, Cluster, KubernetesSink
from artstore_grpc.sinks.protocol import Sink
from artstore_grpc.sinks.sections import Section, wrong
from artstore_grpc.sinks.webhook import WebhookSink

FILE = "ARTSTORE_SINKS_FILE"
MAX_BYTES = 1024 * 1024
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Sinks:
    """The sinks by their names; none without a file."""

    def __init__(self, sinks: Mapping[str, Sink] | None = None) -> None:
        self._sinks = dict(sinks or {})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._sinks))

    def get(self, name: str) -> Sink | None:
        """The sink of that name; None where the settings have none."""
        return self._sinks.get(name)

    async def close(self) -> None:
        for sink in self._sinks.values():
            await sink.close()


def read(path: Path, *, now: Clock = utc_now) -> Sinks:
    """The sinks that a file describes, each ready to deliver. Raises InvalidSettings."""
    return Sinks({name: sink(name, values, now) for name, values in described(path).items()})


def described(path: Path) -> dict[str, Any]:
    """What the file has for each name."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        document = json.loads(content, object_pairs_hook=unique) if len(content) <= MAX_BYTES else None
    except OSError as error:
        raise InvalidSettings(f"{FILE} names a file that can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise InvalidSettings(f"{FILE} names a file that is no JSON, or has a key twice.") from None
    sinks = document.get("sinks") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(sinks, dict):
        raise InvalidSettings(f'{FILE} must name a file of at most 1 MiB that is {{"sinks": {{name: sink, …}}}}.')
    return sinks


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated names, of which RFC 8259 §4 leaves open which one counts."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("repeated")
    return dict(pairs)


def sink(name: str, values: Any, now: Clock) -> Sink:
    """One sink."""
    if not NAME.fullmatch(name):
        raise InvalidSettings(f"{FILE}: a sink's name must be at most 63 lower-case letters, digits and dashes.")
    if not isinstance(values, dict):
        raise InvalidSettings(f"{FILE}: sink {name} must be an object.")
    section = Section(values)
    try:
        make = KINDS.get(section.text("kind"))
        if make is None:
            raise wrong("kind", f"must be one of {', '.join(KINDS)}")
        return make(section, now)
    except InvalidSettings as error:
        raise InvalidSettings(f"{FILE}: sink {name}: {error}") from None


def files(section: Section, now: Clock) -> Sink:
    folder = section.required_path("folder")
    gid, adopt = section.gid("gid"), section.flag("adopt")
    section.finish()
    return FilesSink(folder, gid=gid, adopt=adopt)


def kubernetes(section: Section, now: Clock) -> Sink:
    namespaces, adopt = section.namespaces("namespaces"), section.flag("adopt")
    cluster = cluster_of(section.server("server"), section.path("token_file"), section.path("ca_file"))
    section.finish()
    return KubernetesSink(cluster, namespaces, now=now, adopt=adopt)


def cluster_of(server: str, token_file: Path | None, ca_file: Path | None) -> Cluster:
    """The pod's own cluster, unless `server` names another: nobody else's server is sent the pod's token by mistake."""
    if not server:
        return Cluster(POD.server, token_file or POD.token_file, ca_file or POD.ca_file)
    plain = parsed(server).scheme == "http"
    if plain and (token_file or ca_file):
        raise wrong("server", "must be https where token_file or ca_file is given")
    if not plain and token_file is None:
        raise wrong("token_file", "must be given once server is")
    return Cluster(server, token_file, ca_file)


def webhook(section: Section, now: Clock) -> Sink:
    url = section.https_url("url")
    key_file, ca_file = section.required_path("key_file"), section.path("ca_file")
    section.finish()
    if not url:
        raise wrong("url", "must be given")
    return WebhookSink(url, key_file, now=now, ca_file=ca_file)


KINDS: Mapping[str, Callable[[Section, Clock], Sink]] = {
    "files": files,
    "kubernetes": kubernetes,
    "webhook": webhook,
}
