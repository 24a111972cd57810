"""The three ways into the API as tests call them: one method of the API, its message in, its message or `Refused` out.

Cases are written against `Door`, so that the same ones run over gRPC, over HTTP in the server's process and over a
gateway that runs alone (docs/architecture.md). The HTTP routes are written by hand here: they are the contract.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
import pytest
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status

from artstore_grpc.gateway.app import build
from artstore_grpc.gateway.channel import ChannelBackend
from artstore_grpc.gateway.server import GatewayServer
from artstore_grpc.listeners import bind
from artstore_grpc.rpc.descriptors import full_name, walked
from artstore_grpc.rpc.status import DETAILS_KEY, unpacked
from tests.installation import ANY, Installation

CALL_SECONDS = 30.0

METHODS = {method.name: method for method in walked()}

ACCOUNTS = "/api/v1/service-accounts"
KEYS = "/api/v1/signing-keys"
ROUTES = {
    "IssueToken": ("POST", "/oauth2/token"),
    "IntrospectToken": ("POST", "/oauth2/introspect"),
    "RevokeToken": ("POST", "/oauth2/revoke"),
    "GetJsonWebKeySet": ("GET", "/.well-known/jwks.json"),
    "GetServerMetadata": ("GET", "/.well-known/oauth-authorization-server"),
    "GetRevocations": ("GET", "/.well-known/revocations"),
    "CreateServiceAccount": ("POST", ACCOUNTS),
    "GetServiceAccount": ("GET", ACCOUNTS + "/{id}"),
    "ListServiceAccounts": ("GET", ACCOUNTS),
    "UpdateServiceAccount": ("PATCH", ACCOUNTS + "/{id}"),
    "DeleteServiceAccount": ("DELETE", ACCOUNTS + "/{id}"),
    "UndeleteServiceAccount": ("POST", ACCOUNTS + "/{id}/undelete"),
    "SuspendServiceAccount": ("POST", ACCOUNTS + "/{id}/suspend"),
    "ActivateServiceAccount": ("POST", ACCOUNTS + "/{id}/activate"),
    "RotateSecret": ("POST", ACCOUNTS + "/{id}/rotate-secret"),
    "RevokeSecret": ("POST", ACCOUNTS + "/{id}/revoke-secret"),
    "ImportServiceAccounts": ("POST", ACCOUNTS + "/import"),
    "PlanRotations": ("GET", "/api/v1/rotations"),
    "RunRotations": ("POST", "/api/v1/rotations/run"),
    "ListSigningKeys": ("GET", KEYS),
    "PrepareSigningKey": ("POST", KEYS),
    "ActivateSigningKey": ("POST", KEYS + "/{kid}/activate"),
    "RetireSigningKey": ("POST", KEYS + "/{kid}/retire"),
    "RevokeSigningKey": ("POST", KEYS + "/{kid}/revoke"),
    "RotateSigningKey": ("POST", KEYS + "/rotate"),
    "ListAuditEvents": ("GET", "/api/v1/audit-events"),
    "ListAuditCheckpoints": ("GET", "/api/v1/audit-checkpoints"),
    "VerifyAuditLog": ("POST", "/api/v1/audit-events/verify"),
    "ExplainDenial": ("GET", "/api/v1/denials/{denial_id}"),
}
RESOURCE_BODIES = ("CreateServiceAccount", "UpdateServiceAccount")
"""Methods whose body is the account itself (AIP-133, AIP-134)."""
OAUTH = ("IssueToken", "IntrospectToken", "RevokeToken")
"""Methods that take a form."""

OAUTH_CODES = {
    "invalid_request": "INVALID_ARGUMENT",
    "invalid_scope": "INVALID_ARGUMENT",
    "invalid_target": "INVALID_ARGUMENT",
    "invalid_client": "UNAUTHENTICATED",
    "unauthorized_client": "PERMISSION_DENIED",
    "unsupported_grant_type": "UNIMPLEMENTED",
    "server_error": "INTERNAL",
}
"""README.md's table of errors, from right to left; `temporarily_unavailable` goes by the status."""
STATUS_CODES = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


@dataclass(eq=False)
class Refused(Exception):
    """A refusal as any door tells it: gRPC's name of the code, the stable reason, the fields at fault."""

    code: str
    reason: str
    message: str = ""
    fields: tuple[str, ...] = ()
    retry_after: timedelta | None = None
    denial_id: str = ""


@contextmanager
def refused(code: str, reason: str = "", field: str = "") -> Iterator[pytest.ExceptionInfo[Refused]]:
    """Expects a refusal with this code and, where given, this reason and this one field at fault."""
    with pytest.raises(Refused) as caught:
        yield caught
    refusal = caught.value
    assert refusal.code == code, refusal
    assert reason in ("", refusal.reason), refusal
    assert not field or refusal.fields == (field,), refusal


class Door(Protocol):
    """Calls a method of the API by its short name. Raises Refused."""

    def call(self, method: str, request: Message, authorization: str = "") -> Any: ...


class GrpcDoor:
    """The API over a gRPC channel."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._calls = {
            name: (self._channel.unary_stream if method.server_streaming else self._channel.unary_unary)(
                f"/{full_name(method)}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            for name, method in METHODS.items()
        }

    def call(self, method: str, request: Message, authorization: str = "") -> Any:
        metadata = (("authorization", authorization),) if authorization else ()
        try:
            answer = self._calls[method](request, metadata=metadata, timeout=CALL_SECONDS)
            return first(answer) if METHODS[method].server_streaming else answer
        except grpc.RpcError as error:
            raise told(error) from None

    def close(self) -> None:
        self._channel.close()


def first(stream: Any) -> Any:
    """The first message of a stream, which is ended then."""
    try:
        return next(stream)
    finally:
        stream.cancel()


def told(error: Any) -> Refused:
    """What a gRPC error says."""
    status = Status.FromString(dict(error.trailing_metadata() or ()).get(DETAILS_KEY, b""))
    info, violations, retry_after = unpacked(status)
    assert info is not None, f"a refusal without ErrorInfo: {error}"
    fields = tuple(violation.field for violation in violations)
    return Refused(
        error.code().name, info.reason, status.message, fields, retry_after, info.metadata.get("denial_id", "")
    )


class HttpDoor:
    """The API over HTTP: forms at the OAuth endpoints, JSON at the others."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=CALL_SECONDS, trust_env=False)

    def call(self, method: str, request: Message, authorization: str = "") -> Any:
        response = self.send(method, request, authorization)
        if response.status_code != 200:
            raise answered(response)
        if method == "GetRevocations":
            return tokens_pb.GetRevocationsResponse(revocations=response.text)
        return json_format.ParseDict(long_names(response.json()), GetMessageClass(METHODS[method].output_type)())

    def send(self, method: str, request: Any, authorization: str = "") -> httpx.Response:
        """The response itself."""
        verb, path = ROUTES[method]
        headers = {"authorization": authorization} if authorization else {}
        if method in OAUTH:
            headers["content-type"] = "application/x-www-form-urlencoded"  # without a parameter httpx sends none
            return self._http.request(verb, path, headers=headers, data=form(request))
        resource = request.service_account if method in RESOURCE_BODIES else request
        document = numbers(resource, short_names(json_format.MessageToDict(resource, preserving_proto_field_name=True)))
        path = re.sub(r"{(\w+)}", lambda named: quote(document.pop(named[1], ""), safe=""), path)
        if verb in ("GET", "DELETE"):
            return self._http.request(verb, path, headers=headers, params=parameters(document))
        return self._http.request(verb, path, headers=headers, json=document, params=beside(method, request))

    def close(self) -> None:
        self._http.close()


def beside(method: str, request: Any) -> dict[str, str]:
    """What goes into the query where the body is the resource."""
    if method == "UpdateServiceAccount" and request.update_mask.paths:
        return {"update_mask": ",".join(request.update_mask.paths)}
    if method == "CreateServiceAccount":
        given = {"request_id": request.request_id, "without_secret": "true" if request.without_secret else ""}
        return {name: value for name, value in given.items() if value}
    return {}


def form(request: Message) -> dict[str, Any]:
    """The fields that are set, as the parameters of a form."""
    return {field.name: list(value) if field.is_repeated else value for field, value in request.ListFields()}


def parameters(document: dict[str, Any]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in document.items()}


def numbers(message: Message, document: dict[str, Any]) -> dict[str, Any]:
    """64-bit integers as REST has them: numbers, where proto3 JSON has strings."""
    large = {field.name for field in message.DESCRIPTOR.fields if field.cpp_type == field.CPPTYPE_INT64}
    return {name: int(value) if name in large else value for name, value in document.items()}


def short_names(document: Any) -> Any:
    """Enumerations as REST has them: `ROLE_ADMIN` is `admin`."""
    if isinstance(document, dict):
        return {name: short_names(value) for name, value in document.items()}
    if isinstance(document, list):
        return [short_names(item) for item in document]
    if isinstance(document, str) and document.startswith(("ROLE_", "STATE_", "ROTATION_MODE_", "ROTATION_ACTION_")):
        return document.removeprefix("ROTATION_").partition("_")[2].lower()
    return document


ENUMERATIONS = {
    "role": "role",
    "state": "state",
    "key_state": "key_state",
    "mode": "rotation_mode",
    "action": "rotation_action",
    "outcome": "import_outcome",
}


def long_names(document: Any, name: str = "") -> Any:
    """The other way."""
    if isinstance(document, dict):
        of_key = "public_key" in document  # a signing key's state is a KeyState
        return {
            key: long_names(value, "key_state" if of_key and key == "state" else key) for key, value in document.items()
        }
    if isinstance(document, list):
        return [long_names(item) for item in document]
    return f"{ENUMERATIONS[name]}_{document}".upper() if name in ENUMERATIONS else document


def answered(response: httpx.Response) -> Refused:
    """What an HTTP error says, in either dialect."""
    body, after = response.json(), response.headers.get("retry-after")
    retry_after = timedelta(seconds=int(after)) if after else None
    error = body["error"]
    if isinstance(error, str):
        code = STATUS_CODES.get(response.status_code) or OAUTH_CODES[error]
        return Refused(code, body["reason"], body["error_description"], (), retry_after, body.get("denial_id", ""))
    fields = tuple(violation["field"] for violation in error["violations"])
    return Refused(error["status"], error["reason"], error["message"], fields, retry_after, error.get("denial_id", ""))


@contextmanager
def lone_gateway(service: Installation) -> Iterator[str]:
    """A gateway as it runs alone: in front of a gRPC channel to the service. Yields its URL."""

    async def start() -> tuple[GatewayServer, grpc.aio.Channel]:
        channel = grpc.aio.insecure_channel(str(service.started.grpc_address))
        backend = ChannelBackend(channel)
        app = build(backend, ready=backend.ready, trusted_proxies=())
        server = GatewayServer(app, bind(ANY), grace=timedelta(seconds=1))
        await server.start()
        return server, channel

    server, channel = service.run(start())
    yield f"http://127.0.0.1:{server.port}"
    service.run(server.stop())
    service.run(channel.close())


@contextmanager
def opened(kind: str, service: Installation) -> Iterator[GrpcDoor | HttpDoor]:
    """The door of this kind: `grpc`, `http`, or `gateway` for the one that runs alone."""
    if kind == "gateway":
        with lone_gateway(service) as url:
            yield from closing(HttpDoor(url))
    else:
        yield from closing(HttpDoor(service.url) if kind == "http" else GrpcDoor(str(service.started.grpc_address)))


def closing(door: GrpcDoor | HttpDoor) -> Iterator[GrpcDoor | HttpDoor]:
    yield door
    door.close()


DOORS = ("grpc", "http", "gateway")
