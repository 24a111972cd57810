"""The Python client of the ArtStore identity service: `Client` for asyncio, `get_token` for everything else."""

from artstore.identity.assertions import client_assertion
from artstore.identity.client import Client, get_token
from artstore.identity.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    EtagMismatch,
    FailedPrecondition,
    IdentityError,
    InvalidClient,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    InvalidToken,
    NotFound,
    OutOfRange,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from artstore.identity.trust import TrustFeed, TrustState
from artstore.identity.v1.service_account_service_pb2 import PublicKey, Role, Secret, ServiceAccount, State

__all__ = [
    "AlreadyExists",
    "Client",
    "Conflict",
    "DeadlineExceeded",
    "EtagMismatch",
    "FailedPrecondition",
    "IdentityError",
    "InvalidClient",
    "InvalidRequest",
    "InvalidScope",
    "InvalidTarget",
    "InvalidToken",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PublicKey",
    "RateLimited",
    "Role",
    "Secret",
    "ServiceAccount",
    "State",
    "TrustFeed",
    "TrustState",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "client_assertion",
    "get_token",
]
