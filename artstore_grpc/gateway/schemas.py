"""JSON Schemas (2020-12, as OpenAPI 3.1 uses them) of the messages, with the protos' comments as descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from artstore_grpc.errors import OUTCOMES
from artstore_grpc.gateway.values import ANY, DURATION, FIELD_MASK, INTEGERS, TIMESTAMP, short_names

Schema = dict[str, Any]

DESCRIPTORS = "descriptors.binpb"
"""The descriptors with their comments, as `protos/generate.py` leaves them in the client package."""

WELL_KNOWN: dict[str, Schema] = {
    TIMESTAMP: {"type": "string", "format": "date-time"},
    DURATION: {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["3600s"]},
    FIELD_MASK: {"type": "string", "examples": ["name,description"]},
    ANY: {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
}

STRING: Schema = {"type": "string"}
OAUTH_ERROR: Schema = {
    "type": "object",
    "description": "An error of an OAuth endpoint (RFC 6749 §5.2).",
    "required": ["error", "error_description", "reason"],
    "properties": {
        "error": {"type": "string", "enum": sorted({outcome.oauth for outcome in OUTCOMES.values()})},
        "error_description": {**STRING, "description": "A fixed sentence for people."},
        "reason": {**STRING, "description": "Stable, in SCREAMING_SNAKE_CASE."},
        "denial_id": {**STRING, "description": "The sealed cause of a denial, for an administrator."},
    },
}
VIOLATION: Schema = {"type": "object", "properties": {"field": STRING, "description": STRING}}
API_ERROR: Schema = {
    "type": "object",
    "description": "An error of the API (AIP-193).",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "status", "message", "reason", "domain", "violations"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "enum": sorted({outcome.grpc for outcome in OUTCOMES.values()})},
                "message": {**STRING, "description": "A fixed sentence for people."},
                "reason": {**STRING, "description": "Stable, in SCREAMING_SNAKE_CASE."},
                "domain": STRING,
                "violations": {"type": "array", "items": VIOLATION},
                "denial_id": {**STRING, "description": "The sealed cause of a denial, for an administrator."},
            },
        }
    },
}
ERRORS: dict[str, Schema] = {"OAuthError": OAUTH_ERROR, "ApiError": API_ERROR}


def comments() -> dict[str, str]:
    """The leading comment of every declaration of the API, by its full name."""
    source = files("artstore.identity.v1").joinpath(DESCRIPTORS).read_bytes()
    found: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(source).file:
        names = dict(declared(file))
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name and location.leading_comments:
                found[f"{file.package}.{name}"] = " ".join(location.leading_comments.split())
    return found


def declared(file: Any) -> Iterator[tuple[tuple[int, ...], str]]:
    """Source paths and names (descriptor.proto: messages are field 4 of a file, enumerations 5, services 6; what they
    hold is field 2 of each)."""
    for number, parents in ((4, file.message_type), (5, file.enum_type), (6, file.service)):
        for index, parent in enumerate(parents):
            yield (number, index), parent.name
            children = parent.field if number == 4 else parent.value if number == 5 else parent.method
            for child_index, child in enumerate(children):
                yield (number, index, 2, child_index), f"{parent.name}.{child.name}"


def field_at(message: Descriptor, path: str) -> Any:
    """The field of a dotted path."""
    *parents, last = path.split(".")
    for parent in parents:
        nested = message.fields_by_name[parent].message_type
        assert nested is not None
        message = nested
    return message.fields_by_name[last]


def behaves(field: FieldDescriptor, behavior: int) -> bool:
    return behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


class Schemas:
    """Makes schemas, and keeps those that are referred to by name in `components`."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._comments = comments()

    def comment(self, full_name: str) -> str:
        return self._comments.get(full_name, "")

    def answer(self, message: Descriptor) -> Schema:
        """A reference to the message's schema."""
        if message.name not in self.components:
            self.components[message.name] = {}  # a placeholder: messages may refer to themselves
            self.components[message.name] = self.message(message)
        return {"$ref": f"#/components/schemas/{message.name}"}

    def partial(self, message: Descriptor) -> Schema:
        """The schema of a change: nothing is required."""
        return {name: part for name, part in self.message(message).items() if name != "required"}

    def message(self, message: Descriptor, without: frozenset[str] = frozenset()) -> Schema:
        fields: list[Any] = [field for field in message.fields if field.name not in without]
        required = [field.name for field in fields if behaves(field, field_behavior_pb2.REQUIRED)]
        made: Schema = {
            "type": "object",
            "description": self.comment(message.full_name),
            "properties": {spelled(field): self.field(field) for field in fields},
        }
        return {**made, "required": required} if required else made

    def form(self, message: Descriptor) -> Schema:
        """The parameters of an OAuth endpoint; RFC 8707's `resource` is another way to fill `audience`."""
        made = self.message(message)
        if "audience" in made["properties"]:
            listed = {"type": "array", "items": {"type": "string", "format": "uri"}}
            made["properties"]["resource"] = {**listed, "description": "As `audience`, as an absolute URI (RFC 8707)."}
        named = [name for name in ("grant_type", "token") if name in made["properties"]]
        return {**made, "required": named}

    def field(self, field: FieldDescriptor) -> Schema:
        described = {**self.plain(field), "description": self.comment(field.full_name)}
        return {**described, "readOnly": True} if behaves(field, field_behavior_pb2.OUTPUT_ONLY) else described

    def plain(self, field: FieldDescriptor) -> Schema:
        one = self.single(field)
        return {"type": "array", "items": one} if field.is_repeated else one

    def single(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return WELL_KNOWN.get(field.message_type.full_name) or self.answer(field.message_type)
        if field.enum_type is not None:
            return self.enumeration(field.enum_type)
        if field.cpp_type in INTEGERS:
            return {"type": "integer", "format": "int32" if INTEGERS[field.cpp_type][1] < 2**32 else "int64"}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {**STRING, "contentEncoding": "base64"}
        return {"type": "boolean"} if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else STRING

    def enumeration(self, enum: EnumDescriptor) -> Schema:
        return {"type": "string", "enum": list(short_names(enum))}


def spelled(field: FieldDescriptor) -> str:
    """A field's name in documents: its own, but for one that an RFC spells as no protobuf name can (RFC 8705 §3.1)."""
    return field.json_name if "#" in field.json_name else field.name
