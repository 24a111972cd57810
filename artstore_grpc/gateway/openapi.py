"""`/openapi.json`: OpenAPI 3.1, made from the descriptors that the routes are made from, so that neither can drift.

Descriptions are the protos' comments, which the client package ships in `descriptors.binpb`; `required` and `readOnly`
follow `google.api.field_behavior`, security follows the policy table.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from artstore_grpc.gateway import schemas
from artstore_grpc.gateway.answers import Answer, encoded
from artstore_grpc.gateway.bindings import OAUTH_SERVICE, Binding, bindings
from artstore_grpc.gateway.discovery import METADATA_MAX_AGE, REVOCATIONS, cacheable
from artstore_grpc.gateway.endpoint import Handler
from artstore_grpc.gateway.exchange import Exchange
from artstore_grpc.gateway.schemas import Schema, Schemas
from artstore_grpc.model import SCOPES
from artstore_grpc.policy import POLICY, Authentication

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

SECURITY: dict[Authentication, list[dict[str, list[str]]]] = {
    Authentication.NONE: [],
    Authentication.CLIENT: [{"client": []}, {}],  # {}: the credentials are in the form (RFC 6749 §2.3.1)
    Authentication.BEARER: [{"token": []}],
    Authentication.BEARER_OR_SELF: [{"token": []}, {"client": []}, {}],  # {}: an assertion in the body
}

HEALTH = {
    "/health/live": ("HealthLive", "Says that the process is alive.", ("200",)),
    "/health/ready": ("HealthReady", "Says whether tokens can be had here.", ("200", "503")),
}


def handler(openapi: dict[str, Any]) -> Handler:
    body = encoded(openapi)

    async def handle(exchange: Exchange) -> Answer:
        return cacheable(exchange, body, METADATA_MAX_AGE)

    return handle


def document() -> dict[str, Any]:
    """The whole document."""
    made = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for binding in bindings():
        operations = paths.setdefault(binding.route_template, {})
        operations[binding.verb.lower()] = operation(binding, made)
    for path, (name, summary, statuses) in HEALTH.items():
        paths[path] = {"get": health(name, summary, statuses)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ArtStore identity",
            "version": version("artstore-grpc"),
            "summary": "Service accounts, their secrets, and OAuth 2.0 access tokens.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags(made),
        "paths": paths,
        "components": {
            "schemas": {**made.components, **schemas.ERRORS},
            "responses": responses(),
            "securitySchemes": security_schemes(),
        },
    }


def tags(made: Schemas) -> list[dict[str, str]]:
    services = {binding.method.containing_service.full_name: None for binding in bindings()}
    named = [{"name": name.rpartition(".")[2], "description": made.comment(name)} for name in services]
    return [*named, {"name": "Health", "description": "Probes."}]


def health(name: str, summary: str, statuses: tuple[str, ...]) -> Schema:
    body = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    described = {status: {"description": summary, "content": {JSON: {"schema": body}}} for status in statuses}
    return {"operationId": name, "summary": summary, "tags": ["Health"], "security": [], "responses": described}


def operation(binding: Binding, made: Schemas) -> Schema:
    comment = made.comment(binding.method.full_name)
    rule = POLICY[binding.full_name]
    oauth = binding.method.containing_service.name == OAUTH_SERVICE
    described: Schema = {
        "operationId": binding.operation_id,
        "summary": comment.partition(". ")[0].rstrip(".") + ".",
        "description": comment,
        "tags": [binding.method.containing_service.name],
        "security": secured(rule.authentication, rule.scope),
        "parameters": [] if oauth else parameters(binding, made),
        "responses": outcomes(binding, made, "OAuth" if oauth else "Api"),
    }
    if binding.body:
        described["requestBody"] = {"required": True, "content": content(binding, made, oauth)}
    return described


def secured(authentication: Authentication, scope: str) -> list[dict[str, list[str]]]:
    wanted = [scope] if scope else []
    return [{name: wanted if name == "token" else [] for name in each} for each in SECURITY[authentication]]


def content(binding: Binding, made: Schemas, oauth: bool) -> Schema:
    if not oauth:
        return {JSON: {"schema": api_body(binding, made)}}
    form = {"schema": made.form(binding.method.input_type)}
    return {FORM: form, JSON: form} if binding.path.startswith("/api/") else {FORM: form}


def api_body(binding: Binding, made: Schemas) -> Schema:
    request = binding.method.input_type
    if binding.body == "*":
        return made.message(request, without=frozenset(binding.variables))
    resource: Any = request.fields_by_name[binding.body].message_type
    return made.partial(resource)


def parameters(binding: Binding, made: Schemas) -> list[Schema]:
    """The path's variables, and for a method whose body is not everything the query's parameters."""
    request = binding.method.input_type
    found = []
    for name in binding.variables:
        field = schemas.field_at(request, name)
        described = {"name": name.rpartition(".")[2], "in": "path", "required": True, "schema": {"type": "string"}}
        found.append({**described, "description": made.comment(field.full_name)})
    if binding.body == "*":
        return found
    taken = {name.partition(".")[0] for name in binding.variables} | {binding.body}
    for field in request.fields:
        if field.name not in taken:
            described = {"name": field.name, "in": "query", "schema": made.plain(field)}
            found.append({**described, "description": made.comment(field.full_name)})
    return found


def outcomes(binding: Binding, made: Schemas, dialect: str) -> Schema:
    answer: Schema = {"application/jwt": {"schema": {"type": "string"}}}
    if binding.full_name != REVOCATIONS:
        answer = {JSON: {"schema": made.answer(binding.method.output_type)}}
    success = {"description": made.comment(binding.method.output_type.full_name), "content": answer}
    refused = {"$ref": f"#/components/responses/{dialect}Error"}
    return {"200": success, "default": refused}


def responses() -> Schema:
    """What both dialects answer where a request fails."""
    retry = {"Retry-After": {"description": "Seconds to wait, with 429 and 503.", "schema": {"type": "integer"}}}
    who = {"WWW-Authenticate": {"description": "How to authenticate, with 401.", "schema": {"type": "string"}}}
    return {
        name: {
            "description": text,
            "headers": {**retry, **who},
            "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
        }
        for name, text in (("OAuthError", "RFC 6749 §5.2."), ("ApiError", "AIP-193."))
    }


def security_schemes() -> Schema:
    scopes = {scope: f"Allows {scope}." for scope in SCOPES}
    flow = {"clientCredentials": {"tokenUrl": "/oauth2/token", "scopes": scopes}}
    return {
        "token": {"type": "oauth2", "description": "RFC 6750, with a token of RFC 6749 §4.4.", "flows": flow},
        "client": {"type": "http", "scheme": "basic", "description": "client_id and secret (RFC 6749 §2.3.1)."},
    }
