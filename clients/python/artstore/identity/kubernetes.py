"""Credentials in one key of a Kubernetes Secret, read and replaced through the cluster's API by a pod's own account.

What replicas share is the object; `metadata.resourceVersion` makes a change to it a compare and swap. The pod's service
account needs `get` and `patch` on that one Secret:

    rules: [{apiGroups: [""], resources: [secrets], resourceNames: [NAME], verbs: [get, patch]}]

Blocks, for the standard library's HTTP client: a token source calls it in a thread.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from artstore.identity.clocks import steady_seconds
from artstore.identity.credentials import Credentials, CredentialsError
from artstore.identity.credentials_document import Document, parsed, serialised

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, its cluster's CA and its namespace."""
API = "https://kubernetes.default.svc"
"""The cluster's API as every pod knows it."""

ATTEMPTS = 4
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 0.25, 5.0
"""Between attempts: doubled each time. A Retry-After is kept up to the longest."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""A Secret holds at most 1 MiB, in base64 and with its metadata."""
KEPT_SECONDS = 30.0
"""How long `current` answers from memory: each token of each replica would be a call to the cluster otherwise."""


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    body: bytes
    retry_after: str


class KubernetesSecret:
    """A CredentialsProvider and a CredentialsStore. Safe to be used by several threads."""

    def __init__(
        self,
        namespace: str,
        name: str,
        *,
        key: str = "credentials.json",
        issuer: str = "",
        rotates: bool = True,
        api: str = API,
        pod: Path = POD,
        timeout: timedelta = timedelta(seconds=5),
        clock: Callable[[], float] = steady_seconds,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """The document is under `key` of the Secret `name`. An empty `namespace` is the pod's own. A non-empty `issuer`
        must be the one that the document names. With `rotates` a token source replaces the secret before it expires.
        `pod` is the folder with `token`, `ca.crt` and `namespace`; `timeout` is of one attempt; `clock` and `sleep` are
        for tests. Raises ValueError for an `api` that is no https URL."""
        url = urlsplit(api)
        if url.scheme != "https" or not url.hostname:
            raise ValueError("api must be an https URL: the pod's token is sent there.")
        self.rotates = rotates
        self._host, self._port, self._prefix = url.hostname, url.port or 443, url.path.rstrip("/")
        self._namespace = namespace
        self._name = name
        self._key = key
        self._issuer = issuer
        self._pod = pod
        self._timeout_seconds = timeout.total_seconds()
        self._clock = clock
        self._sleep = sleep
        self._guard = threading.Lock()
        self._held: tuple[float, Credentials] | None = None

    def __repr__(self) -> str:
        return f"KubernetesSecret({self._namespace!r}, {self._name!r})"

    def current(self) -> Credentials:
        """What the Secret said within the last half minute; while the cluster's API is down, what it said last. Raises
        CredentialsError."""
        with self._guard:
            held = self._held
        if held is not None and self._clock() - held[0] < KEPT_SECONDS:
            return held[1]
        try:
            return self.reread()
        except CredentialsError:
            if held is None:
                raise
            return held[1]

    def reread(self) -> Credentials:
        """What the Secret says now. Raises CredentialsError."""
        return self.read()[0].credentials

    def read(self) -> tuple[Document, str]:
        """The document and the object's resourceVersion. Raises CredentialsError."""
        answer = self._answered("GET")
        if answer.status != 200:
            raise self._failed(answer, "read")
        try:
            found = json.loads(answer.body)
            version, encoded = found["metadata"]["resourceVersion"], (found.get("data") or {}).get(self._key)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CredentialsError(
                f"{self._where} is not what was answered: is {self._host} the cluster's API?"
            ) from None
        if not isinstance(encoded, str) or not isinstance(version, str):
            raise CredentialsError(f"{self._where} has no key {self._key!r}: write the credentials there, as JSON.")
        try:
            text = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise CredentialsError(f"{self._where}: {self._key} is not in base64; write it anew.") from None
        document = parsed(text, f"{self._where}, {self._key}", issuer=self._issuer)
        self._hold(document)
        return document, version

    def replace(self, document: Document, version: str) -> bool:
        """See CredentialsStore. Leaves the Secret's other keys alone. Raises CredentialsError."""
        patch = {
            "metadata": {"resourceVersion": version},
            "data": {self._key: base64.b64encode(serialised(document)).decode()},
        }
        answer = self._answered("PATCH", json.dumps(patch).encode())
        if answer.status in (409, 410):  # changed meanwhile, or that version is no longer known
            return False
        if answer.status != 200:
            raise self._failed(answer, "changed")
        self._hold(document)
        return True

    @property
    def _where(self) -> str:
        return f"The Kubernetes Secret {self._namespace or '(own namespace)'}/{self._name}"

    def _hold(self, document: Document) -> None:
        with self._guard:
            self._held = (self._clock(), document.credentials)

    def _answered(self, method: str, body: bytes | None = None) -> Answer:
        """The answer, asked for again where that can help. An attempt whose answer was lost may have changed the
        object: the next one is then a conflict, and its caller reads again."""
        wait, refused = FIRST_WAIT_SECONDS, False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._attempt(method, body)
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS or isinstance(error, ssl.SSLCertVerificationError):
                    raise CredentialsError(
                        f"{self._where}: the cluster's API at {self._host}:{self._port} can't be reached "
                        f"({type(error).__name__}); see the network policy, and {self._pod / 'ca.crt'}."
                    ) from error
                told = ""
            else:
                again = answer.status == 429 or answer.status >= 500
                if answer.status == 401 and not refused:
                    refused = True  # the projected token was replaced while we held it: it is read for each attempt
                    continue
                if not again or attempt == ATTEMPTS:
                    return answer
                told = answer.retry_after
            self._sleep(min(max(wait, float(told) if told.isdecimal() else 0.0), LAST_WAIT_SECONDS))
            wait *= 2
        return answer

    def _attempt(self, method: str, body: bytes | None) -> Answer:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self._read('token')}"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        namespace = self._namespace or self._read("namespace")
        path = f"{self._prefix}/api/v1/namespaces/{quote(namespace, safe='')}/secrets/{quote(self._name, safe='')}"
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_seconds, context=self._trust()
        )
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answered = response.read(MAX_ANSWER_BYTES)
            return Answer(response.status, answered, response.getheader("Retry-After") or "")
        finally:
            connection.close()

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self._pod / "ca.crt"))
        except OSError as error:
            raise CredentialsError(f"{self._pod / 'ca.crt'} can't be read: is this a pod of the cluster?") from error

    def _read(self, name: str) -> str:
        try:
            return (self._pod / name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsError(
                f"{self._pod / name} can't be read: is this a pod with automountServiceAccountToken?"
            ) from error

    def _failed(self, answer: Answer, what: str) -> CredentialsError:
        match answer.status:
            case 401:
                why = f"the pod's token was refused: see {self._pod / 'token'}, and the pod's service account"
            case 403:
                why = "the pod's service account may not: give it `get` and `patch` on this Secret by a Role"
            case 404:
                why = f"there is none: create it, with the credentials as JSON under {self._key!r}"
            case 422:
                why = "the cluster refused it as invalid: is the Secret immutable?"
            case status:
                why = f"the cluster's API answered {status}: try again when it is well"
        return CredentialsError(f"{self._where} can't be {what}: {why}.")
