"""The OAuth endpoints: token (RFC 6749 §3.2, RFC 8707), introspection (RFC 7662) and revocation (RFC 7009).

Parameters become the fields of a message and nothing more: who the client is, what it may ask for and what it gets is
decided behind the Backend. A wrong `Content-Type` is `invalid_request` with 400, since RFC 6749 §5.2 knows no 415 and
clients read no other body.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from artstore.identity.v1 import token_service_pb2 as pb
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from artstore_grpc.call import Backend
from artstore_grpc.errors import InvalidRequest, InvalidTarget
from artstore_grpc.gateway import bodies
from artstore_grpc.gateway.answers import Answer, encoded
from artstore_grpc.gateway.dialects import OAUTH_HEADERS
from artstore_grpc.gateway.endpoint import Handler
from artstore_grpc.gateway.exchange import Exchange
from artstore_grpc.gateway.messages import to_json
from artstore_grpc.policy import PACKAGE

ISSUE = f"{PACKAGE}.TokenService/IssueToken"
INTROSPECT = f"{PACKAGE}.TokenService/IntrospectToken"
REVOKE = f"{PACKAGE}.TokenService/RevokeToken"

TARGETS = frozenset({"audience", "resource"})
"""The parameters that may repeat (RFC 8707 §2)."""

ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
"""RFC 3986 §4.3, which has no fragment; RFC 8707 §2 asks for it."""

Parameters = dict[str, list[str]]
Reader = Callable[[Exchange], bodies.Pairs]


def token(backend: Backend, *, json_too: bool) -> Handler:
    """The token endpoint; with `json_too` it takes the same parameters as a JSON object."""
    reader = form_or_json if json_too else form

    async def handle(exchange: Exchange) -> Answer:
        parameters = read(exchange, reader, TARGETS)
        request = pb.IssueTokenRequest(audience=targets(parameters))
        fill(request, parameters)
        issued: Any = await backend(request, exchange.prepared(ISSUE))
        return Answer(200, OAUTH_HEADERS, encoded(issued_body(issued)))

    return handle


def introspection(backend: Backend) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        request = pb.IntrospectTokenRequest()
        fill(request, read(exchange, form, frozenset()))
        found: Any = await backend(request, exchange.prepared(INTROSPECT))
        return Answer(200, OAUTH_HEADERS, encoded(introspected_body(found)))

    return handle


def revocation(backend: Backend) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        request = pb.RevokeTokenRequest()
        fill(request, read(exchange, form, frozenset()))
        await backend(request, exchange.prepared(REVOKE))
        return Answer(200, OAUTH_HEADERS, b"{}")

    return handle


def read(exchange: Exchange, reader: Reader, repeatable: frozenset[str]) -> Parameters:
    """The parameters of a request. Raises InvalidRequest for any in the URL: URLs are logged (RFC 6749 §2.3.1)."""
    if exchange.scope["query_string"]:
        raise InvalidRequest("Parameters must be in the body, not in the URL.", reason="PARAMETERS_IN_URL")
    return bodies.once(reader(exchange), repeatable)


def form(exchange: Exchange) -> bodies.Pairs:
    """RFC 6749 §4.4.2: a form in UTF-8."""
    if content_type(exchange) != bodies.FORM:
        raise InvalidRequest(f"Content-Type must be {bodies.FORM}.", reason="UNSUPPORTED_MEDIA_TYPE")
    return bodies.form(exchange.body)


def form_or_json(exchange: Exchange) -> bodies.Pairs:
    kind = content_type(exchange)
    if kind == bodies.FORM:
        return bodies.form(exchange.body)
    if kind == bodies.JSON:
        return json_pairs(bodies.json_object(exchange.body))
    raise InvalidRequest(f"Content-Type must be {bodies.FORM} or {bodies.JSON}.", reason="UNSUPPORTED_MEDIA_TYPE")


def content_type(exchange: Exchange) -> str:
    """The media type; empty where it was sent twice, isn't UTF-8, or the body is compressed."""
    header = exchange.text(b"content-type")
    if b"content-encoding" in exchange.headers or len(exchange.values(b"content-type")) > 1:
        return ""
    return header if header == bodies.FORM else bodies.media_type(header)


def json_pairs(document: dict[str, Any]) -> bodies.Pairs:
    """The members this endpoint knows, as parameters; null is an omitted one, and targets may be lists."""
    pairs: bodies.Pairs = []
    for name, value in document.items():
        if name not in KNOWN or value is None:
            continue
        listed = value if isinstance(value, list) and name in TARGETS else [value]
        pairs.extend((name, bodies.json_text(item, name)) for item in listed)
    return pairs


KNOWN = TARGETS | {field.name for field in pb.IssueTokenRequest.DESCRIPTOR.fields}


def targets(parameters: Parameters) -> list[str]:
    """`resource` and `audience`, which fill one list: resources first. Raises InvalidTarget (RFC 8707 §2)."""
    resources = parameters.pop("resource", [])
    for resource in resources:
        if not ABSOLUTE_URI.fullmatch(resource):
            raise InvalidTarget("resource must be an absolute URI without a fragment.", reason="MALFORMED_RESOURCE")
    return [*resources, *parameters.pop("audience", [])]


def fill(message: Message, parameters: Parameters) -> None:
    """Sets the fields that have a parameter; parameters nobody knows are ignored (RFC 6749 §3.2)."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, values in parameters.items():
        if name in fields:
            setattr(message, name, values[0])


def issued_body(issued: Any) -> dict[str, Any]:
    """RFC 6749 §5.1, and when the token was issued and the secret expires."""
    body: dict[str, Any] = {
        "access_token": issued.access_token,
        "token_type": issued.token_type,
        "expires_in": issued.expires_in,
        "scope": issued.scope,
        "issue_time": json_time(issued.issue_time.seconds, issued.issue_time.nanos),
    }
    if issued.HasField("secret_expire_time"):
        body["secret_expire_time"] = json_time(issued.secret_expire_time.seconds, issued.secret_expire_time.nanos)
    return body


@lru_cache(maxsize=4096)
def json_time(seconds: int, nanos: int) -> str:
    """A Timestamp as protobuf's JSON has it; remembered, since an account's secret expires when it did before."""
    return Timestamp(seconds=seconds, nanos=nanos).ToJsonString()


def introspected_body(found: Any) -> dict[str, Any]:
    """RFC 7662 §2.2: what is set; a token that isn't live is `{"active": false}` and not a word more."""
    if not found.active:
        return {"active": False}
    body = {name: value for name, value in to_json(found).items() if value not in ("", 0, [])}
    if found.HasField("cnf"):
        body["cnf"] = {"x5t#S256": found.cnf.x5t_s256}  # RFC 8705 §3.2
    return body
