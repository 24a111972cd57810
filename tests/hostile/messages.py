"""Hostile messages: bytes that mean nothing, messages that mean the wrong thing, and valid ones that were damaged."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.hostile.victim import Victim

VALID = {
    "grant_type": ["client_credentials"],
    "scope": ["storage.read", "storage.read storage.write"],
    "paths": ["name", "description", "role", "rate_limit", "scopes", "audiences", "served_audiences", "*"],
    "filter": ['role = user AND state = active AND name : "a"', 'secret_expire_time < "2030-01-31T00:00:00Z"'],
    "request_id": ["5f2b5a0e-7f2b-4b0a-9a54-0a6a2f8f7a11"],
    "client_assertion_type": ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
}
"""What gets a message past the first check, by the field's name."""

STRINGS = [
    "",
    "\0",
    "a\0b",
    "%00",
    "' OR 1=1 --",
    "\r\nx: y",
    "\x1b[2J",
    "\u202e",
    "\ud7ff\U0010ffff",
    "é" * 300,
    "a" * 20_000,
]
NUMBERS = [0, 1, -1, 2**31 - 1, -(2**31), 1_000_000, 1_000_001]
WIDE_NUMBERS = [*NUMBERS, 2**63 - 1, -(2**63), 315_576_000_000, -315_576_000_001, 253_402_300_800]
WIDE = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def known(victim: Victim, name: str) -> list[str]:
    """Values that the service knows, for fields of this name."""
    target = victim.target
    return {
        "id": [target.id, target.client_id],
        "secret_id": [secret.id for secret in target.message.secrets],
        "etag": [target.message.etag],
        "client_id": [target.client_id],
        "client_secret": [target.secret],
        "name": [target.message.name],
        **VALID,
    }.get(name, [])


def garbage() -> st.SearchStrategy[bytes]:
    """Any bytes."""
    return st.binary(max_size=400)


def messages(victim: Victim, descriptor: Descriptor) -> st.SearchStrategy[Any]:
    """Messages of a type, their fields half valid and half hostile."""
    fields = {field.name: values(victim, field) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: made(descriptor, chosen))


def made(descriptor: Descriptor, chosen: dict[str, Any]) -> Any:
    return GetMessageClass(descriptor)(**chosen)


def values(victim: Victim, field: FieldDescriptor) -> st.SearchStrategy[Any]:
    one = single(victim, field)
    return st.lists(one, max_size=4) if field.is_repeated else one


def single(victim: Victim, field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(victim, field.message_type)
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.one_of(st.binary(max_size=40), st.just(bytes(32)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = st.text(st.characters(codec="utf-8"), max_size=40)
        return st.one_of(st.sampled_from([*known(victim, field.name), *STRINGS]), text)
    return st.sampled_from(WIDE_NUMBERS if kind in WIDE else NUMBERS)


@st.composite
def damaged(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with some flipped, cut out, doubled or put in."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        damage = draw(st.sampled_from(["flip", "cut", "double", "insert"]))
        if damage == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif damage == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif damage == "double":
            data[at:at] = data[:at][-16:]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)
