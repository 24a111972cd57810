"""Every method of the API as the pipeline runs it, walked from the descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from artstore.identity.v1 import service_account_service_pb2, token_service_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from artstore_grpc.pipeline import Method
from artstore_grpc.rpc.token_service import check_issue, check_token

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (token_service_pb2, service_account_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""The services of the API, in the order reflection lists them."""

CHECKS: dict[str, Callable[[Any], None]] = {
    "IssueToken": check_issue,
    "IntrospectToken": check_token,
    "RevokeToken": check_token,
}


def full_name(method: MethodDescriptor) -> str:
    """As policy.py writes it: `package.Service/Method`."""
    return f"{method.containing_service.full_name}/{method.name}"


def walked() -> Iterator[MethodDescriptor]:
    for service in SERVICES:
        yield from service.methods


def methods(servicers: dict[str, object]) -> dict[str, Method]:
    """The methods of servicers, which are given by their service's short name. A missing one is an AttributeError."""
    return {
        full_name(method): Method(
            GetMessageClass(method.input_type),
            getattr(servicers[method.containing_service.name], method.name),
            CHECKS.get(method.name),
        )
        for method in walked()
    }
