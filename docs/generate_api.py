"""docs/api.md, from the protos: each method, its HTTP form, who may call it, its fields, with the protos' comments.

Comments come from `descriptors.binpb` of the client package, who may call from the policy table, errors from errors.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generate_errors import ADVICE
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor
from markdown import BANNER, anchor, code, table, text

from artstore_grpc.gateway.bindings import Binding, binding, rules
from artstore_grpc.gateway.schemas import behaves, comments, spelled
from artstore_grpc.gateway.values import short_names
from artstore_grpc.policy import POLICY, Authentication, Rule
from artstore_grpc.rpc.descriptors import SERVICES, full_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
OURS = "artstore.identity.v1."

CALLERS = {
    Authentication.NONE: "anybody",
    Authentication.CLIENT: "an account, by its secret, its key or its certificate",
    Authentication.BEARER: "a token for the issuer alone",
    Authentication.BEARER_OF_ANYBODY: "a token of any live account, for the issuer or the default audience",
    Authentication.BEARER_OR_SELF: "a token for the issuer alone; or the account itself, by its secret or its key",
}
REFUSALS = {
    Authentication.CLIENT: ("INVALID_CLIENT", "TWO_CLIENT_AUTHENTICATIONS", "TOO_MANY_FAILURES", "RATE_LIMITED"),
    Authentication.BEARER: ("MISSING_TOKEN", "INVALID_TOKEN", "WRONG_AUDIENCE", "INSUFFICIENT_SCOPE", "RATE_LIMITED"),
}
"""The reasons for which a call is refused before its method sees it, by how its caller authenticates."""
EVERYBODY = (
    "INVALID_REQUEST",
    "UNDECODABLE_MESSAGE",
    "TOO_MANY_CALLS",
    "DATABASE_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
)
BEHAVIORS = {field_behavior_pb2.REQUIRED: "Required", field_behavior_pb2.OUTPUT_ONLY: "Output only"}
SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
}
SAID = comments()


def page() -> str:
    lines = [BANNER, "# The API", *introduction(), *overview()]
    for service in SERVICES:
        lines += [f"## {service.name}", text(SAID[service.full_name]), ""]
        for method in service.methods:
            lines += described(method)
    messages, enums = referred()
    lines += ["## Messages"]
    for message in messages:
        lines += [f"### {message.name}", text(SAID[message.full_name]), "", *fields(message)]
    lines += ["## Enumerations"]
    for enum in enums:
        lines += [f"### {enum.name}", text(SAID[enum.full_name]), "", *values(enum)]
    return "\n".join([*lines, *errors()])


def introduction() -> list[str]:
    return [
        f"The package is `{OURS.rstrip('.')}`; its protos are in [protos/](../protos/artstore/identity/v1). gRPC's"
        " reflection, and over HTTP `/openapi.json` and `/docs`, tell the same of a running service.",
        "",
        "In JSON names are snake_case, enumerations short and lower-case (`ROLE_ADMIN` is `admin`), times RFC 3339,"
        " durations seconds with an `s`, bytes base64. The routes of OAuth take forms (RFC 6749), the others JSON. A"
        " token is sent as `authorization: Bearer`, in gRPC as metadata; a client authenticates in the request's fields"
        " or by `authorization: Basic`, and never by two ways at once.",
        "",
    ]


def overview() -> list[str]:
    rows = []
    for service in SERVICES:
        for method in service.methods:
            rule = POLICY[full_name(method)]
            name = f"[`{service.name}/{method.name}`]({anchor(method.name)})"
            rows.append(
                (
                    name,
                    "<br>".join(code(route(form)) for form in forms(method)),
                    code(rule.scope) or CALLERS[rule.authentication],
                )
            )
    return [*table(("method", "HTTP", "who"), rows), ""]


def forms(method: MethodDescriptor) -> list[Binding]:
    """The HTTP requests that a method answers."""
    return [binding(method, rule, ordinal) for ordinal, rule in enumerate(rules(method))]


def described(method: MethodDescriptor) -> list[str]:
    """A method's section."""
    rule = POLICY[full_name(method)]
    request, response = method.input_type, method.output_type
    return [
        f"### {method.name}",
        text(SAID[method.full_name]),
        "",
        f"- gRPC: {code(full_name(method))}" + (", a stream of answers" if method.server_streaming else ""),
        *(f"- HTTP: {code(route(form))}{body(form)}" for form in forms(method)),
        f"- Who: {who(rule)}",
        f"- While the database is down: {outage(rule)}",
        "",
        f"**{request.name}**: {text(SAID[request.full_name])}",
        "",
        *fields(request),
        f"**{response.name}**: {text(SAID[response.full_name])}",
        "",
        *fields(response),
    ]


def route(form: Binding) -> str:
    return f"{form.verb} {form.path}"


def body(form: Binding) -> str:
    """What the request's body is, where it isn't every field."""
    return f"; the body is {code(form.body)}" if form.body not in ("", "*") else ""


def who(rule: Rule) -> str:
    caller = CALLERS[rule.authentication]
    return caller.replace("alone", f"alone, with {code(rule.scope)}", 1) if rule.scope else caller


def outage(rule: Rule) -> str:
    return "goes on, in outage mode" if rule.serves_in_outage else "UNAVAILABLE at once"


def fields(message: Descriptor) -> list[str]:
    """A table of a message's fields."""
    if not message.fields:
        return []
    return [
        *table(("field", "type", ""), [(code(spelled(each)), kind(each), said(each)) for each in message.fields]),
        "",
    ]


def kind(field: FieldDescriptor) -> str:
    return f"list of {single(field)}" if field.is_repeated else single(field)


def single(field: FieldDescriptor) -> str:
    other: Any = field.message_type or field.enum_type
    if other is None:
        return SCALARS[field.type]
    return f"[{other.name}]({anchor(other.name)})" if other.full_name.startswith(OURS) else code(other.full_name)


def said(field: FieldDescriptor) -> str:
    """A field's comment, with what the annotations say of it and the comment doesn't."""
    comment = SAID[field.full_name]
    marks = [mark for behavior, mark in BEHAVIORS.items() if behaves(field, behavior) and mark not in comment]
    if field.containing_oneof is not None:
        marks.append(f"One of {code(field.containing_oneof.name)}")
    return text(" ".join([*(f"{mark}." for mark in marks), comment]))


def values(enum: EnumDescriptor) -> list[str]:
    short = {number: name for name, number in short_names(enum).items()}
    rows = [
        (code(each.name), code(short.get(each.number, "")), text(SAID[f"{enum.full_name}.{each.name}"]))
        for each in enum.values
    ]
    return [*table(("value", "in JSON", ""), rows), ""]


def referred() -> tuple[list[Descriptor], list[EnumDescriptor]]:
    """The messages and enumerations of ours that fields refer to, by name; requests and responses have their places."""
    found: dict[str, Any] = {}
    waiting = [
        each for service in SERVICES for method in service.methods for each in (method.input_type, method.output_type)
    ]
    shown = {each.full_name for each in waiting}
    while waiting:
        for other in refers(waiting.pop()):
            if other.full_name not in found and other.full_name not in shown:
                found[other.full_name] = other
                if isinstance(other, Descriptor):
                    waiting.append(other)
    ordered = sorted(found.values(), key=lambda each: each.name)
    return [each for each in ordered if isinstance(each, Descriptor)], [
        each for each in ordered if isinstance(each, EnumDescriptor)
    ]


def refers(message: Descriptor) -> Iterator[Any]:
    for field in message.fields:
        other: Any = field.message_type or field.enum_type
        if other is not None and other.full_name.startswith(OURS):
            yield other


def errors() -> list[str]:
    """What a call may be refused for before its method sees it. Raises SystemExit for a reason that no code gives."""
    rows = [
        ("any method", EVERYBODY),
        ("methods that a client calls with its credentials", REFUSALS[Authentication.CLIENT]),
        ("methods that take a token", REFUSALS[Authentication.BEARER]),
    ]
    if unknown := sorted({reason for _, reasons in rows for reason in reasons} - ADVICE.keys()):
        raise SystemExit(f"docs/generate_api.py has what no code gives: {', '.join(unknown)}")
    return [
        "## Errors",
        "Every error has a `google.rpc.ErrorInfo` with a `reason`; all of them, and what to do, are in"
        " [errors](errors.md). Refused before a method sees it:",
        "",
        *table(("what is called", "reasons"), [(what, " ".join(map(code, reasons))) for what, reasons in rows]),
        "",
    ]
