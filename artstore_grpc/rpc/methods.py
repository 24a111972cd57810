"""Every method of the API as the pipeline runs it, walked from the descriptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from artstore_grpc.pipeline import Method
from artstore_grpc.rpc.descriptors import full_name, walked
from artstore_grpc.rpc.token_service import check_issue, check_token, check_watch

CHECKS: dict[str, Callable[[Any], None]] = {
    "IssueToken": check_issue,
    "IntrospectToken": check_token,
    "RevokeToken": check_token,
    "WatchTrust": check_watch,
}


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
