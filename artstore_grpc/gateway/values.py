"""Single values: JSON strings, numbers and query parameters ⇄ the fields of messages.

Enumerations are short lower-case names (`ROLE_ADMIN` is `admin`), times, durations and bytes are as proto3 JSON has
them (RFC 3339, `3600s`, base64), field masks are snake_case. Nothing else is taken for any of them; a Fault says what
would be.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.any_pb2 import Any as Any_
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

TIMESTAMP = Timestamp.DESCRIPTOR.full_name
DURATION = Duration.DESCRIPTOR.full_name
FIELD_MASK = FieldMask.DESCRIPTOR.full_name
ANY = Any_.DESCRIPTOR.full_name
"""A message of any type; only ever an answer's (the details of a `google.rpc.Status`)."""

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}
MASK_PATH = re.compile(r"\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


class Fault(Exception):
    """A value that its field can't take; the message goes on after the field's name."""


def short_name(enum: EnumDescriptor, name: str) -> str:
    """`ROLE_ADMIN` of `Role` is `admin`."""
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    return name.removeprefix(prefix).lower()


def short_names(enum: EnumDescriptor) -> dict[str, int]:
    """The names an enumeration has in JSON; the unspecified value has none."""
    return {short_name(enum, value.name): value.number for value in enum.values if value.number}


def from_json(field: FieldDescriptor, value: Any) -> Any:
    """A field's value from its JSON form. Raises Fault."""
    if field.cpp_type in INTEGERS:
        if type(value) is not int:
            raise Fault("must be an integer")
        return bounded(field, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise Fault("must be true or false")
        return value
    if not isinstance(value, str):
        raise Fault("must be a string")
    return from_text(field, value)


def from_text(field: FieldDescriptor, text: str) -> Any:
    """A field's value from a query parameter, or from a JSON string. Raises Fault."""
    if field.enum_type is not None:
        return enumerated(field.enum_type, text)
    if field.message_type is not None:
        return WELL_KNOWN[field.message_type.full_name](text)
    if field.cpp_type in INTEGERS:
        if not re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII):
            raise Fault("must be an integer")
        return bounded(field, int(text))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise Fault("must be true or false")
        return text == "true"
    return octets(text) if field.type == FieldDescriptor.TYPE_BYTES else plain(text)


def bounded(field: FieldDescriptor, value: int) -> int:
    low, high = INTEGERS[field.cpp_type]
    if not low <= value <= high:
        raise Fault("is out of range")
    return value


def enumerated(enum: EnumDescriptor, text: str) -> int:
    names = short_names(enum)
    if text not in names:
        raise Fault(f"must be one of {', '.join(names)}")
    return names[text]


def octets(text: str) -> bytes:
    """Bytes from base64 (RFC 4648 §4), as every answer has them."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Fault("must be base64") from None


def plain(text: str) -> str:
    """Text that UTF-8 and every store can carry."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise Fault("contains a NUL or a lone surrogate")
    return text


def timestamp(text: str) -> Timestamp:
    value = Timestamp()
    try:
        value.FromJsonString(text)
    except (ValueError, OverflowError):
        raise Fault("must be an RFC 3339 time, such as 2030-01-31T12:00:00Z") from None
    return value


def duration(text: str) -> Duration:
    value = Duration()
    try:
        value.FromJsonString(text)
    except (ValueError, OverflowError):
        raise Fault("must be a duration in seconds, such as 3600s") from None
    return value


def field_mask(text: str) -> FieldMask:
    """Comma-separated, in snake_case as everything else here; proto3 JSON would have camelCase."""
    paths = [path.strip() for path in text.split(",")] if text else []
    if not all(MASK_PATH.fullmatch(path) for path in paths):
        raise Fault("must be field names joined by commas")
    return FieldMask(paths=paths)


WELL_KNOWN: dict[str, Callable[[str], Message]] = {
    TIMESTAMP: timestamp,
    DURATION: duration,
    FIELD_MASK: field_mask,
}
"""Messages that JSON writes as a string."""
