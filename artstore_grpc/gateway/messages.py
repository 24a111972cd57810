"""JSON documents and query parameters ⇄ messages, in snake_case, with 64-bit integers as numbers.

Reading is strict and complete: every fault of a document is a violation with its field's path, and nothing unknown is
passed over. Written by hand because protobuf's own converter accepts camelCase, wire names and numbers for
enumerations, and stops at the first fault.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from artstore_grpc.errors import InvalidRequest, Violation
from artstore_grpc.gateway.values import ANY, DURATION, TIMESTAMP, WELL_KNOWN, Fault, from_json, from_text, short_names

MAX_VIOLATIONS = 50
"""A body of 64 KiB can hold thousands of faults; nobody reads that many."""


def fields_of(message: Message) -> Mapping[str, FieldDescriptor]:
    """The fields of a message by name."""
    fields: Any = message.DESCRIPTOR.fields_by_name
    return cast("Mapping[str, FieldDescriptor]", fields)


def to_json(message: Message) -> dict[str, Any]:
    """The document of a message: unset messages are left out, everything without presence is always there."""
    document = {}
    for field in fields_of(message).values():
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        item = printer(field)
        document[field.name] = [item(one) for one in value] if field.is_repeated else item(value)
    return document


def printer(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        names = {number: name for name, number in short_names(field.enum_type).items()}
        return lambda number: names.get(number, "unspecified")
    if field.message_type is not None and field.message_type.full_name == ANY:
        return lambda value: MessageToDict(value, preserving_proto_field_name=True)  # with its "@type"
    if field.message_type is not None:
        known = field.message_type.full_name in (TIMESTAMP, DURATION)
        return (lambda value: value.ToJsonString()) if known else to_json
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    return lambda value: value


class Reader:
    """Fills messages and gathers what is wrong; `check` raises it all at once."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def fault(self, field: str, description: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(field, description))

    def check(self) -> None:
        """Raises InvalidRequest if anything was wrong."""
        if self.violations:
            first = self.violations[0]
            message = f"{first.field} {first.description}." if first.field else "The request is malformed."
            raise InvalidRequest(message, violations=tuple(self.violations))

    def document(self, message: Message, document: dict[str, Any], path: str = "") -> None:
        """Sets a message's fields from a JSON object; null is unset."""
        for name, value in document.items():
            field = fields_of(message).get(name) if name.isascii() else None  # a lone surrogate can't be looked up
            if field is None:
                self.fault(sayable(path + name, path), "is not a field of this request")
            elif value is not None:
                self.member(message, field, value, path + name)

    def member(self, message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
        try:
            if field.is_repeated:
                self.listed(message, field, value, path)
            elif is_document(field):
                nested = getattr(message, field.name)
                nested.SetInParent()
                self.document(nested, object_of(value), path + ".")
            else:
                place(message, field, from_json(field, value))
        except Fault as fault:
            self.fault(path, str(fault))

    def listed(self, message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise Fault("must be a list")
        items = getattr(message, field.name)
        for index, item in enumerate(value):
            if field.message_type is None:
                items.append(from_json(field, item))
            else:
                self.document(items.add(), object_of(item), f"{path}[{index}].")

    def parameters(self, message: Message, parameters: Iterable[tuple[str, str]], taken: frozenset[str]) -> None:
        """Sets fields from query parameters: nested names have dots, repeated fields repeat. `taken` are the fields
        that the path and the body fill."""
        seen: set[str] = set()
        for name, text in parameters:
            field = None if name.partition(".")[0] in taken else self.parameter(message, name, text, seen)
            if field is None:
                self.fault(sayable(name, ""), "is not a parameter of this request")

    def parameter(self, message: Message, name: str, text: str, seen: set[str]) -> FieldDescriptor | None:
        owner, field = located(message, name)
        if field is None or is_document(field):
            return None
        if name in seen and not field.is_repeated:
            self.fault(name, "was sent twice")
        seen.add(name)
        try:
            value = from_text(field, text)
        except Fault as fault:
            self.fault(name, str(fault))
            return field
        if field.is_repeated:
            getattr(owner, field.name).append(value)
        else:
            place(owner, field, value)
        return field


def is_document(field: FieldDescriptor) -> bool:
    """Whether JSON writes the field as an object."""
    return field.message_type is not None and field.message_type.full_name not in WELL_KNOWN


def sayable(name: str, fallback: str) -> str:
    """A field's path if it looks like one; else the place it was found in, since values are never said back."""
    return name if re.fullmatch(r"[A-Za-z0-9_.\[\]]{1,100}", name) else fallback.rstrip(".")


def object_of(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Fault("must be an object")
    return value


def located(message: Message, name: str) -> tuple[Message, FieldDescriptor | None]:
    """The (sub-)message and the field that a dotted name means."""
    *parents, last = name.split(".")
    for parent in parents:
        field = fields_of(message).get(parent)
        if (
            field is None
            or field.message_type is None
            or field.is_repeated
            or field.message_type.full_name in WELL_KNOWN
        ):
            return message, None
        message = getattr(message, parent)
    return message, fields_of(message).get(last)


def place(message: Message, field: FieldDescriptor, value: Any) -> None:
    if field.message_type is None:
        setattr(message, field.name, value)
    else:
        target = getattr(message, field.name)
        target.CopyFrom(value)
        target.SetInParent()
