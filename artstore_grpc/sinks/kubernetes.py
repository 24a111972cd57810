"""A sink that is a cluster: each account's credentials as a Kubernetes Secret, through the cluster's own API.

Kubernetes API conventions: an object is read, changed and put back with the `resourceVersion` it was read at, so that
whoever wrote in between isn't undone (409 Conflict: read again); everything else in it stays. Only Secrets that
carry `app.kubernetes.io/managed-by: artstore-identity`, and hold no other account's credentials, are written to.
What the API says in words is never repeated: it may quote what it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.credentials import encoded
from artstore_grpc.sinks.exchange import answered, client, parsed, retry_after, trusting
from artstore_grpc.sinks.protocol import Delivery, SinkFailed, refused

LABEL = "app.kubernetes.io/managed-by"
MANAGER = "artstore-identity"
FIELD_MANAGER = {"fieldManager": MANAGER}
"""By this name the API server records who set which field."""
OPAQUE = "Opaque"
"""The type of Secrets that no controller reads for its own ends."""

NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""RFC 1123 label, as Kubernetes has it."""
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
MAX_NAME = 253
"""RFC 1123 subdomain."""

ATTEMPTS = 5
"""Writers that may be in between, as client-go's DefaultRetry has it."""
TIMEOUT = timedelta(seconds=8)
"""Of a whole delivery, whatever it takes."""
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer; a Secret has at most 1 MiB of data, which base64 and its metadata make less than twice that."""
MAX_TOKEN = 64 * 1024


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster's API is, and whom it is told that we are. `token_file` is read at each use, since projected
    tokens change; None: at `kubectl proxy`, which authenticates by itself. `ca_file`: None is the system's."""

    server: str
    token_file: Path | None
    ca_file: Path | None


IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POD = Cluster("https://kubernetes.default.svc", IN_CLUSTER / "token", IN_CLUSTER / "ca.crt")
"""What every pod has (kubernetes.io, "Accessing the Kubernetes API from a Pod")."""


class Conflict(Exception):
    """Another writer was first: the Secret must be read again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API: its status, and the object in it."""

    status: int
    body: Any
    retry_after: timedelta | None


class KubernetesSink:
    """A `protocol.Sink`. `adopt` has Secrets written to that are somebody else's, too; their labels stay as they are.
    Raises InvalidSettings for files that can't be read."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: tuple[str, ...],
        *,
        now: Callable[[], datetime],
        adopt: bool = False,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._cluster = cluster
        self._namespaces = namespaces
        self._now = now
        self._adopt = adopt
        self._timeout = timeout
        self._place = f"The Kubernetes API at {parsed(cluster.server).netloc}"
        try:
            read_token(cluster.token_file)
        except SinkFailed as error:
            raise InvalidSettings(error.message) from None
        self._client = client(trusting(cluster.ca_file), timeout)

    def check(self, destination: str) -> None:
        if not destination:
            if len(self._namespaces) != 1:
                raise refused("is missing: with several namespaces it must be namespace/name")
            return
        namespace, _, name = destination.partition("/")
        if not NAMESPACE.fullmatch(namespace) or not valid_name(name):
            raise refused("must be namespace/name of a Kubernetes Secret")
        if namespace not in self._namespaces:
            raise refused("must be in a namespace that the sink's settings list")

    async def deliver(self, delivery: Delivery) -> None:
        namespace, name = self._destination(delivery)
        await answered(self._place, self._timeout, self._write(namespace, name, delivery))

    async def close(self) -> None:
        await self._client.aclose()

    def _destination(self, delivery: Delivery) -> tuple[str, str]:
        """The Secret's namespace and name. Raises SinkFailed when the settings, or an imported `client_id`, no longer
        allow what the policy says."""
        given = delivery.destination or f"{self._namespaces[0]}/{delivery.client_id.lower().replace('_', '-')}"
        namespace, _, name = given.partition("/")
        clear = bool(delivery.destination) or len(self._namespaces) == 1
        if not clear or namespace not in self._namespaces or not valid_name(name):
            raise SinkFailed("The sink's settings, or the client_id, require another destination.", permanent=True)
        return namespace, name

    async def _write(self, namespace: str, name: str, delivery: Delivery) -> None:
        for _ in range(ATTEMPTS):
            try:
                present = await self._read(namespace, name)
                if present is None:
                    await self._create(namespace, name, delivery)
                elif (changed := self._changed(present, namespace, name, delivery)) is not None:
                    await self._replace(namespace, name, changed)
            except Conflict:
                continue
            return
        raise SinkFailed(f"The Secret {namespace}/{name} was changed by others {ATTEMPTS} times in a row.")

    async def _read(self, namespace: str, name: str) -> dict[str, Any] | None:
        answer = await self._called("GET", namespace, name)
        if answer.status == httpx.codes.NOT_FOUND:
            return None
        self._require(answer, "get", f"{namespace}/{name}")
        if not is_secret(answer.body):
            raise SinkFailed(f"{self._place} answered with what is no Secret.")
        secret: dict[str, Any] = answer.body
        return secret

    async def _create(self, namespace: str, name: str, delivery: Delivery) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: MANAGER}},
            "type": OPAQUE,
            "data": data(delivery),
        }
        answer = await self._called("POST", namespace, body=secret)
        if answer.status == httpx.codes.NOT_FOUND:
            raise SinkFailed(f"There is no namespace {namespace} in the cluster.", permanent=True)
        if answer.status == httpx.codes.CONFLICT:
            raise Conflict
        self._require(answer, "create", f"{namespace}/{name}")

    def _changed(self, present: dict[str, Any], namespace: str, name: str, delivery: Delivery) -> dict[str, Any] | None:
        """The Secret as it must become; None when it is so already. Raises SinkFailed for one that isn't ours."""
        held = present.get("data") or {}
        wanted = held | data(delivery)
        if wanted == held:
            return None
        if not self._adopt:
            self._check_ours(present, delivery.client_id, f"{namespace}/{name}")
        if present.get("immutable") or present.get("type") != OPAQUE:
            raise SinkFailed(f"The Secret {namespace}/{name} is immutable, or not {OPAQUE}; remove it.", permanent=True)
        return present | {"data": wanted}

    def _check_ours(self, present: dict[str, Any], client_id: str, secret: str) -> None:
        labels = present["metadata"].get("labels") or {}
        if labels.get(LABEL) != MANAGER:
            raise SinkFailed(
                f"The Secret {secret} isn't labelled {LABEL}: {MANAGER}; label it, or let the sink adopt it.",
                permanent=True,
            )
        holder = (present.get("data") or {}).get("client_id")
        if holder is not None and holder != in_base64(client_id.encode()):
            raise SinkFailed(
                f"The Secret {secret} holds another account's credentials; remove it, or let the sink adopt it.",
                permanent=True,
            )

    async def _replace(self, namespace: str, name: str, changed: dict[str, Any]) -> None:
        answer = await self._called("PUT", namespace, name, body=changed)
        if answer.status in (httpx.codes.CONFLICT, httpx.codes.NOT_FOUND):
            raise Conflict
        self._require(answer, "update", f"{namespace}/{name}")

    def _require(self, answer: Answer, verb: str, secret: str) -> None:
        """Raises SinkFailed unless the API did what it was asked to."""
        status = answer.status
        if 200 <= status < 300:
            return
        if status == httpx.codes.UNAUTHORIZED:
            token = f"the token in {self._cluster.token_file}" if self._cluster.token_file else "a call without a token"
            raise SinkFailed(f"{self._place} doesn't accept {token}.")
        if status == httpx.codes.FORBIDDEN:
            raise SinkFailed(
                f"{self._place} forbids us to {verb} the Secret {secret}; see its roles and quotas.", permanent=True
            )
        transient = status >= 500 or status == httpx.codes.TOO_MANY_REQUESTS
        raise SinkFailed(
            f"{self._place} answered {status} to our {verb} of the Secret {secret}.",
            retry_after=answer.retry_after,
            permanent=not transient,
        )

    async def _called(self, method: str, namespace: str, name: str = "", body: Any = None) -> Answer:
        """One request; once more when the token was replaced while it was under way."""
        token = await asyncio.to_thread(read_token, self._cluster.token_file)
        answer = await self._sent(method, namespace, name, body, token)
        if answer.status == httpx.codes.UNAUTHORIZED:
            fresh = await asyncio.to_thread(read_token, self._cluster.token_file)
            if fresh != token:
                answer = await self._sent(method, namespace, name, body, fresh)
        return answer

    async def _sent(self, method: str, namespace: str, name: str, body: Any, token: str) -> Answer:
        path = f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")
        headers = {"accept": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        url = self._cluster.server.rstrip("/") + path
        sending = {} if body is None else {"json": body, "params": FIELD_MANAGER}
        async with self._client.stream(method, url, headers=headers, **sending) as response:
            content = await self._content(response)
        return Answer(response.status_code, decoded(content), retry_after(response, self._now()))

    async def _content(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for part in response.aiter_raw():
            content += part
            if len(content) > MAX_ANSWER:
                raise SinkFailed(f"{self._place} answered with more than {MAX_ANSWER:,} bytes.")
        return bytes(content)


def valid_name(name: str) -> bool:
    return len(name) <= MAX_NAME and NAME.fullmatch(name) is not None


def is_secret(body: Any) -> bool:
    """Whether an answer has the parts of a Secret that are looked at here; a proxy may answer with anything."""
    if not isinstance(body, dict) or body.get("kind") != "Secret" or not isinstance(body.get("metadata"), dict):
        return False
    return all(isinstance(each or {}, dict) for each in (body.get("data"), body["metadata"].get("labels")))


def data(delivery: Delivery) -> dict[str, str]:
    """The keys of the Secret that are ours: the file, and its two values for whoever wants them as variables."""
    values = {
        "credentials.json": encoded(delivery),
        "client_id": delivery.client_id.encode(),
        "client_secret": delivery.client_secret.encode(),
    }
    return {name: in_base64(value) for name, value in values.items()}


def in_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def decoded(content: bytes) -> Any:
    """The object in an answer; None where there is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def read_token(path: Path | None) -> str:
    """The bearer token in a file; empty without one. Raises SinkFailed."""
    if path is None:
        return ""
    try:
        with path.open() as file:
            token = file.read(MAX_TOKEN).strip()
    except (OSError, ValueError):
        token = ""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SinkFailed(f"{path} can't be read as a token.")
    return token
