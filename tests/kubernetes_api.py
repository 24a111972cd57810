"""The Kubernetes API as far as Secrets go: small, over HTTPS, and as strict as the real one.

After the API reference (v1 Secret) and the API conventions ("Concurrency Control and Consistency", "HTTP Status
codes"): bearer tokens, namespaces, `resourceVersion` and `uid` as preconditions of an update, data in base64,
immutable Secrets, types that can't change. Failures are `Status` objects. What a test needs besides is in `before`.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import trustme

from tests.https import HttpsServer, Request, Response

PATH = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/secrets(?:/(?P<name>[^/]+))?")
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

Secret = dict[str, Any]


class Refusal(Exception):
    """A request that the API refuses: status, reason, message."""

    def __init__(self, code: int, reason: str, message: str, **headers: str) -> None:
        self.code, self.reason, self.message, self.headers = code, reason, message, headers


class KubernetesApi(HttpsServer):
    """`with KubernetesApi(ca, tokens={"t"}, namespaces={"n"}) as api`.

    Without a CA it is what `kubectl proxy` offers: plain HTTP, and nobody is asked who they are. `tokens` and
    `namespaces` are those it knows, `forbidden` the verbs that roles don't allow. `before` is called with
    each request before anything is done: it may change the Secrets as another writer would, or raise a Refusal.
    """

    def __init__(self, ca: trustme.CA | None, *, tokens: set[str], namespaces: set[str]) -> None:
        super().__init__(self._answer, ca)
        self.tokens = tokens
        self.namespaces = namespaces
        self.forbidden: set[str] = set()
        self.before: Callable[[Request], None] = lambda request: None
        self._secrets: dict[tuple[str, str], Secret] = {}
        self._version = 1000
        self._lock = threading.RLock()

    @property
    def verbs(self) -> list[str]:
        """What was asked, in order."""
        return [VERBS[each.method] for each in self.requests]

    def secret(self, namespace: str, name: str) -> Secret | None:
        """A Secret as it is stored."""
        with self._lock:
            return copy.deepcopy(self._secrets.get((namespace, name)))

    def values(self, namespace: str, name: str) -> dict[str, bytes]:
        """The data of a Secret that there is, decoded."""
        secret = self.secret(namespace, name)
        assert secret is not None
        return {key: base64.b64decode(value) for key, value in secret["data"].items()}

    def put(self, namespace: str, name: str, **fields: Any) -> Secret:
        """Makes or changes a Secret, as another client would: `data` in bytes is merged, other fields are set."""
        with self._lock:
            secret = self._secrets.get((namespace, name)) or self._made(namespace, name)
            data = {key: base64.b64encode(value).decode() for key, value in fields.pop("data", {}).items()}
            secret["metadata"] |= fields.pop("metadata", {})
            secret |= fields | {"data": secret["data"] | data}
            return self._stored(secret)

    def delete(self, namespace: str, name: str) -> None:
        with self._lock:
            del self._secrets[namespace, name]

    def _made(self, namespace: str, name: str) -> Secret:
        metadata = {"name": name, "namespace": namespace, "uid": str(uuid.uuid4())}
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        return {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": {}, "type": "Opaque"}

    def _stored(self, secret: Secret) -> Secret:
        self._version += 1
        secret["metadata"]["resourceVersion"] = str(self._version)
        self._secrets[secret["metadata"]["namespace"], secret["metadata"]["name"]] = copy.deepcopy(secret)
        return secret

    def _answer(self, request: Request) -> Response:
        try:
            self.before(request)
            with self._lock:
                code, body = self._handled(request)
            headers = {}
        except Refusal as refusal:
            code, headers = refusal.code, refusal.headers
            body = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": refusal.message,
                "reason": refusal.reason,
                "code": code,
            }
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(code, {"content-type": "application/json"} | headers, json.dumps(body).encode())

    def _handled(self, request: Request) -> tuple[int, Secret]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if self.scheme == "https" and (scheme != "Bearer" or token not in self.tokens):
            raise Refusal(401, "Unauthorized", "Unauthorized")
        found = PATH.fullmatch(urlsplit(request.path).path)
        if found is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        namespace, name = found["namespace"], found["name"]
        verb = VERBS.get(request.method)
        if verb is None or (verb == "create") == bool(name):
            raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if verb in self.forbidden:
            raise Refusal(403, "Forbidden", f'secrets "{name}" is forbidden: User cannot {verb} resource "secrets"')
        present = self._secrets.get((namespace, name or ""))
        if verb == "create":
            return 201, self._create(namespace, self._body(request, namespace))
        if present is None:
            raise Refusal(404, "NotFound", f'secrets "{name}" not found')
        if verb == "get":
            return 200, copy.deepcopy(present)
        if verb == "delete":
            self.delete(namespace, name)
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        return 200, self._update(present, self._body(request, namespace))

    def _body(self, request: Request, namespace: str) -> Secret:
        """The Secret in a request, as far as it must be valid whoever sends it."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refusal(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        try:
            body: Secret = json.loads(request.body)
            assert (body["kind"], body["apiVersion"]) == ("Secret", "v1")
            given = body["metadata"].setdefault("namespace", namespace)
            data = body.get("data") or {}
            data |= {key: base64.b64encode(v.encode()).decode() for key, v in body.pop("stringData", {}).items()}
            for value in data.values():
                base64.b64decode(value, validate=True)
        except (ValueError, KeyError, AssertionError, TypeError, binascii.Error):
            raise Refusal(400, "BadRequest", "the body does not decode as a Secret") from None
        if given != namespace:
            raise Refusal(400, "BadRequest", "the namespace of the provided object does not match the request")
        labels = body["metadata"].get("labels") or {}
        valid = all(KEY.fullmatch(key) for key in data) and all(LABEL_VALUE.fullmatch(v) for v in labels.values())
        if not valid or not SUBDOMAIN.fullmatch(body["metadata"].get("name", "")):
            raise Refusal(422, "Invalid", "Secret is invalid")
        return body | {"data": data, "type": body.get("type") or "Opaque"}

    def _create(self, namespace: str, body: Secret) -> Secret:
        name = body["metadata"]["name"]
        if namespace not in self.namespaces:
            raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        if (namespace, name) in self._secrets:
            raise Refusal(409, "AlreadyExists", f'secrets "{name}" already exists')
        if "resourceVersion" in body["metadata"]:
            raise Refusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        made = self._made(namespace, name)
        return self._stored(body | {"metadata": body["metadata"] | made["metadata"]})

    def _update(self, present: Secret, body: Secret) -> Secret:
        old, new = present["metadata"], body["metadata"]
        if new["name"] != old["name"]:
            raise Refusal(400, "BadRequest", "the name of the object does not match the name on the URL")
        if any(new.get(key, old[key]) != old[key] for key in ("resourceVersion", "uid")):
            message = f'Operation cannot be fulfilled on secrets "{old["name"]}": the object has been modified'
            raise Refusal(409, "Conflict", message)
        if body["type"] != present["type"]:
            raise Refusal(422, "Invalid", "type: Invalid value: field is immutable")
        if present.get("immutable") and (body["data"] != present["data"] or not body.get("immutable")):
            raise Refusal(422, "Invalid", "data: Forbidden: field is immutable when `immutable` is set")
        fixed = {key: old[key] for key in ("uid", "creationTimestamp", "namespace")}
        return self._stored(body | {"metadata": new | fixed})
