"""When a call that wasn't answered is made again: the decisions, without clock, network or waiting.

Not by gRPC's own retries (gRFC A6), whose rules know a method and nothing of the request (ADR 0025): what may be
repeated depends on a `request_id`, and an assertion is good for one call. Their idea of a budget is kept, and so is the
server's word in `grpc-retry-pushback-ms`. gRPC itself repeats only what no server has begun with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from artstore.identity.errors import IdentityError
from artstore.identity.v1 import audit_service_pb2 as audit_pb
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""gRFC A6: for how long a server wants not to be asked again; negative, or no number: not at all."""

BUDGET, SUCCESSES_OF_A_RETRY = 100, 10
"""gRFC A6's `maxTokens`, and its `tokenRatio` the other way round. A client whose calls all fail makes 50 retries, and
then none: an outage is not made worse by everybody asking five times. Ten calls that succeed are good for a retry."""

UNANSWERED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Nobody answered. gRPC's core gives CANCELLED, once it shuts down, to calls that have come and were not begun with;
that its caller gave a call up is no error of gRPC's here, but asyncio's."""

REPEATABLE: frozenset[type] = frozenset(
    {
        tokens_pb.IssueTokenRequest,
        tokens_pb.IntrospectTokenRequest,
        tokens_pb.RevokeTokenRequest,
        tokens_pb.GetJsonWebKeySetRequest,
        tokens_pb.GetServerMetadataRequest,
        accounts_pb.GetServiceAccountRequest,
        accounts_pb.ListServiceAccountsRequest,
        accounts_pb.ImportServiceAccountsRequest,
        accounts_pb.PlanRotationsRequest,
        keys_pb.ListSigningKeysRequest,
        audit_pb.ListAuditEventsRequest,
        audit_pb.ListAuditCheckpointsRequest,
        audit_pb.VerifyAuditLogRequest,
        audit_pb.ExplainDenialRequest,
    }
)
"""What reads, what issues a token (which writes nothing), and what comes to the same when it is done twice."""
BY_REQUEST_ID: frozenset[type] = frozenset({accounts_pb.CreateServiceAccountRequest, accounts_pb.RotateSecretRequest})
"""What does so where its `request_id` is given (AIP-155)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a client goes on where nobody answered: the call is made again, by another replica where there is one.

    Only on UNAVAILABLE, and on CANCELLED where the server says it; and only what may be done twice: every method that
    reads, `issue_token`, `introspect`, `revoke`, `import_service_accounts`; `create_service_account` and
    `rotate_secret` with a `request_id`. All within the call's `timeout`; with the defaults four retries, after waits
    of 0.1, 0.2, 0.4 and 0.8 s, of each of which a random part of up to a half is taken off: 0.75 to 1.5 s in all.
    Where the service says when to come back (RetryInfo), the wait is no shorter.
    """

    max_attempts: int = 5
    """How often a call is made in all (1 to 20); 1: never again."""
    first_wait: timedelta = timedelta(milliseconds=100)
    """Before the second attempt; each further wait is double (10 ms to 10 s)."""
    max_wait: timedelta = timedelta(seconds=1)
    """The longest wait between two attempts (`first_wait` to 60 s)."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 20:
            raise ValueError("max_attempts must be 1 to 20.")
        if not timedelta(milliseconds=10) <= self.first_wait <= timedelta(seconds=10):
            raise ValueError("first_wait must be 10 ms to 10 s.")
        if not self.first_wait <= self.max_wait <= timedelta(seconds=60):
            raise ValueError("max_wait must be first_wait to 60 s.")

    def wait_seconds(self, attempts: int, random: float) -> float:
        """Before the next attempt, after so many; `random` is 0 to 1."""
        full = min(self.first_wait.total_seconds() * 2.0 ** (attempts - 1), self.max_wait.total_seconds())
        return full * (1 - random / 2)


class Budget:
    """How many retries one client has left, over all its calls."""

    def __init__(self) -> None:
        self._left = BUDGET * SUCCESSES_OF_A_RETRY

    def succeeded(self) -> None:
        self._left = min(self._left + 1, BUDGET * SUCCESSES_OF_A_RETRY)

    def failed(self) -> None:
        """A call was not answered."""
        self._left = max(self._left - SUCCESSES_OF_A_RETRY, 0)

    @property
    def spent(self) -> bool:
        return self._left <= BUDGET * SUCCESSES_OF_A_RETRY // 2


def may_be_repeated(request: Any) -> bool:
    """Whether carrying a request out twice comes to the same as once."""
    kind = type(request)
    return kind in REPEATABLE or (kind in BY_REQUEST_ID and bool(request.request_id))


def retry_after(error: IdentityError, trailing: Iterable[tuple[str, str | bytes]]) -> float | None:
    """For how many seconds the next attempt must wait at least; None where there must be none."""
    if error.code not in UNANSWERED:
        return None
    told = error.retry_after.total_seconds() if error.retry_after else 0.0
    for key, value in trailing:
        if key == PUSHBACK_KEY:
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            return max(int(text) / 1000, told) if text.isascii() and text.isdigit() else None
    return told
