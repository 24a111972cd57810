"""What every call passes once, whichever door it came in by.

In this order: a bound on calls in flight, decoding, the policy table (default deny), authentication, the account's
limit, the scope, the deadline, the method; then, whatever happened, one log line and the metrics (the line of what came
by HTTP is its endpoint's, which knows the status too). Every error that leaves here is an IdentityError; this is the
one place that catches everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from artstore_grpc import errors
from artstore_grpc.authentication import Authenticator
from artstore_grpc.call import HTTP, MAX_MESSAGE_BYTES, NO_SUBJECTS, Call, Caller
from artstore_grpc.credentials import Credentials, gathered, is_basic
from artstore_grpc.deadlines import DeadlinePassed, within
from artstore_grpc.denials import Denials
from artstore_grpc.ephemeral.protocol import Limiter
from artstore_grpc.policy import ISSUE_TOKEN, POLICY, Authentication, Rule
from artstore_grpc.replica import Replica
from artstore_grpc.telemetry.catalogue import ISSUED, UNKNOWN_METHOD, ClientAuthentication
from artstore_grpc.telemetry.lines import end_of, tell
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.telemetry.metrics import Metrics
from artstore_grpc.vault import Vault

MAX_SECONDS = 30.0
"""What a call without a deadline may take."""

Behavior = Callable[[Any, Call], Awaitable[Message]]
"""A method: its message and the call in, its answer out."""


StreamBehavior = Callable[[Any, Call], AsyncGenerator[bytes]]
"""A method that answers by a stream: of messages as they go on the wire, since many callers get the same ones."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method as the pipeline runs it: `check` refuses what is wrong whoever sends it, before authentication."""

    request: type[Message]
    behavior: Any
    """A Behavior, or a StreamBehavior."""
    check: Callable[[Any], None] | None = None


class Pipeline:
    """The way of every call. `methods` without a row in the policy table are not served at all."""

    def __init__(
        self,
        *,
        methods: Mapping[str, Method],
        authenticator: Authenticator,
        limiter: Limiter,
        replica: Replica,
        vault: Vault,
        denials: Denials,
        metrics: Metrics,
        logger: Logger,
        max_in_flight: int,
    ) -> None:
        self.methods = {name: (method, POLICY[name]) for name, method in methods.items() if name in POLICY}
        self.in_flight = 0
        self._authenticator = authenticator
        self._limiter = limiter
        self._replica = replica
        self._vault = vault
        self._denials = denials
        self._metrics = metrics
        self._logger = logger
        self._max_in_flight = max_in_flight

    async def __call__(self, message: Message | bytes, call: Call) -> Message:
        """Runs a call to its end. Raises an IdentityError, with `denial_id` where authentication was denied."""
        started = time.perf_counter()
        error: errors.IdentityError | None = None
        seconds = MAX_SECONDS if call.timeout_seconds is None else min(call.timeout_seconds, MAX_SECONDS)
        self.in_flight += 1
        try:
            return await within(seconds, self._run(message, call))
        except errors.IdentityError as refused:
            error = refused
            raise
        except asyncio.CancelledError:
            error = errors.DeadlineExceeded(reason="CANCELLED", cause="the caller went away")
            raise
        except Exception as other:
            error = self._told(other, call)
            raise error from None
        finally:
            self.in_flight -= 1
            self._finished(call, error, time.perf_counter() - started)

    async def stream(self, message: Message | bytes, call: Call) -> AsyncGenerator[bytes]:
        """As a call, for a method that answers by a stream. Once it was admitted it has no bound in time but the
        caller's, and is in flight no longer: how many there may be at once is for the method. That the caller goes away
        is its ordinary end."""
        started = time.perf_counter()
        error: errors.IdentityError | None = None
        try:
            self.in_flight += 1
            try:
                method, decoded = await within(MAX_SECONDS, self._admitted(message, call))
            finally:
                self.in_flight -= 1
            async with contextlib.aclosing(method.behavior(decoded, call)) as answers:
                async for answer in answers:
                    yield answer
        except errors.IdentityError as refused:
            error = refused
            raise
        except Exception as other:
            error = self._told(other, call)
            raise error from None
        finally:
            self._finished(call, error, time.perf_counter() - started)

    def _told(self, other: Exception, call: Call) -> errors.IdentityError:
        """What a caller is told of an exception that isn't one of ours already."""
        if isinstance(other, DeadlinePassed):
            return errors.DeadlineExceeded()
        if isinstance(other, errors.StoreUnavailable):
            return errors.Unavailable(reason="DATABASE_UNAVAILABLE", cause=str(other), retry_after=errors.BUSY_RETRY)
        self._logger.error("call failed unexpectedly", method=call.method, request_id=call.request_id, exc_info=other)
        return errors.Internal(cause=type(other).__name__)

    async def _run(self, message: Message | bytes, call: Call) -> Message:
        method, decoded = await self._admitted(message, call)
        answer: Message = await method.behavior(decoded, call)
        return answer

    async def _admitted(self, message: Message | bytes, call: Call) -> tuple[Method, Message]:
        """The method and its message, once everything that comes before it has passed."""
        if self.in_flight > self._max_in_flight:
            raise errors.Overloaded(reason="TOO_MANY_CALLS", retry_after=errors.BUSY_RETRY)
        if call.method not in self.methods:
            raise errors.Unimplemented
        method, rule = self.methods[call.method]
        decoded = parsed(method.request, message) if isinstance(message, bytes) else message
        if call.method == ISSUE_TOKEN:
            call.client_authentication = attempted(decoded, call)
        if method.check is not None:
            method.check(decoded)
        if not rule.serves_in_outage:
            self._replica.require_database()
        call.caller = await self._authenticated(rule, decoded, call)
        if call.caller is not None:
            call.caller.source, call.caller.request_id = call.source, call.request_id
            call.caller.trace_id = call.trace_id
            await self._charge(call.caller)
            # Who proves itself by a secret (BEARER_OR_SELF) may act on its own account alone, which needs no scope.
            if rule.scope and call.caller.by_token and rule.scope not in call.caller.scopes:
                raise errors.PermissionDenied("The token lacks the scope that this needs.", reason="INSUFFICIENT_SCOPE")
        return method, decoded

    async def _authenticated(self, rule: Rule, message: Message, call: Call) -> Caller | None:
        if rule.authentication is Authentication.NONE:
            return None
        if rule.authentication is Authentication.CLIENT:
            subjects = call.subjects if call.authorization is None else NO_SUBJECTS
            given = gathered(fields_of(message), call.authorization)
            return await self._authenticator.client(given, call.source, subjects)
        if rule.authentication is Authentication.BEARER_OR_SELF:
            own = assertion_of(message)
            if is_basic(call.authorization) or not own.empty:
                return await self._authenticator.client(gathered(own, call.authorization), call.source)
        anybody = rule.authentication is Authentication.BEARER_OF_ANYBODY
        return await self._authenticator.bearer(
            call.authorization, certificate=call.certificate, default_audience_too=anybody
        )

    async def _charge(self, caller: Caller) -> None:
        wait = await self._limiter.charge(caller.account.id, caller.account.rate_limit)
        if wait is not None:
            raise errors.RateLimited("The account is over its rate limit.", retry_after=wait)

    def _finished(self, call: Call, error: errors.IdentityError | None, seconds: float) -> None:
        """The canonical log line and the metrics of one call; seals the cause of a denial for ExplainDenial."""
        end = end_of(error)
        known = call.method if call.method in self.methods else UNKNOWN_METHOD
        self._metrics.calls.finished(known, call.door, end.code, seconds)
        if call.method == ISSUE_TOKEN:
            outcome = errors.OUTCOMES[type(error)].oauth if error else ISSUED
            self._metrics.token_requests.add(outcome, call.client_authentication)
        if error is not None and error.denied:
            if not self._vault.locked:  # a start that still waits for its database denies without one
                error.denial_id = self._vault.denial_id(error.cause)
            self._metrics.denials.add(error.reason)
            self._denials.note(error, call)
        if call.door != HTTP:
            tell(self._logger, call, end, seconds)


def parsed(kind: type[Message], data: bytes) -> Message:
    """A message from its bytes. Raises InvalidRequest: gRPC itself would answer UNKNOWN."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise errors.InvalidRequest(f"The message exceeds {MAX_MESSAGE_BYTES:,} bytes.", reason="MESSAGE_TOO_LARGE")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise errors.InvalidRequest("The message can't be decoded.", reason="UNDECODABLE_MESSAGE") from None


def attempted(message: Any, call: Call) -> ClientAuthentication:
    """How a client sets out to prove itself, for the metrics; of several ways, which are refused, the first of these.
    What it proves, or whether it can, is not known yet."""
    if call.authorization is not None:
        return ClientAuthentication.BASIC if is_basic(call.authorization) else ClientAuthentication.NONE
    if message.client_secret:
        return ClientAuthentication.POST
    if message.client_assertion:
        return ClientAuthentication.ASSERTION
    return ClientAuthentication.CERTIFICATE if call.subjects and message.client_id else ClientAuthentication.NONE


def fields_of(message: Any) -> Credentials:
    """The client credentials in a request's fields."""
    return Credentials(
        message.client_id, message.client_secret, message.client_assertion_type, message.client_assertion
    )


def assertion_of(message: Any) -> Credentials:
    """The assertion in a request whose other credentials are metadata."""
    return Credentials(client_assertion_type=message.client_assertion_type, client_assertion=message.client_assertion)
