"""The services of the API and their methods, walked from the descriptors: what both doors and the tests go by."""

from __future__ import annotations

from collections.abc import Iterator

from artstore.identity.v1 import audit_service_pb2, key_service_pb2, service_account_service_pb2, token_service_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (token_service_pb2, service_account_service_pb2, key_service_pb2, audit_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""In the order reflection lists them."""


def full_name(method: MethodDescriptor) -> str:
    """As policy.py writes it: `package.Service/Method`."""
    return f"{method.containing_service.full_name}/{method.name}"


def walked() -> Iterator[MethodDescriptor]:
    """Every method of the API."""
    for service in SERVICES:
        yield from service.methods
