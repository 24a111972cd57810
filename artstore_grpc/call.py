"""What the pipeline knows of one call besides its message, whichever door it came in by; and what a door calls.

`Backend` is all that the HTTP door sees of the service: the pipeline in this process, or a gRPC channel to another.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.message import Message

from artstore_grpc.model import Account
from artstore_grpc.records import Actor

MAX_MESSAGE_BYTES = 64 * 1024
"""The largest request message or HTTP body. An account at every bound is under 32 KiB."""


REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What may come in as `x-request-id`: it goes to the log and back to the caller."""
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context §3.2: a trace's id, the span that calls, and flags."""
TRACE_ID = slice(3, 35)
"""Where in it the trace's id is."""
TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
"""W3C Trace Context §3.3: what vendors pass on, of which we understand nothing; longer ones may be dropped."""


HTTP = "http"
"""The door of what came by HTTP; `grpc` is the other."""

NO_SUBJECTS: frozenset[str] = frozenset()
"""Of a connection without a certificate of its own."""


@dataclass(slots=True)
class Caller:
    """Who was authenticated, and what they may do in this call."""

    account: Account
    scopes: frozenset[str]
    secret_id: str = ""
    """The secret it authenticated with, if it did."""
    key_thumbprint: str = ""
    """The key whose assertion it authenticated with, if it did."""
    certificate_subject: str = ""
    """The subject of the certificate that it authenticated with, if it did."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What the token says that it bears; empty for one that bears none."""
    source: str = ""
    """Whence the call came, as `Call` has it."""
    request_id: str = ""
    """The call's, as `Call` has it."""
    trace_id: str = ""
    """The call's, as `Call` has it."""

    @property
    def by_token(self) -> bool:
        """Whether it bears a token, rather than proving itself by a secret, a key or a certificate."""
        return not (self.secret_id or self.key_thumbprint or self.certificate_subject)

    @property
    def actor(self) -> Actor:
        """As the ledger tells who changed something."""
        return Actor(self.account.client_id, self.source, self.request_id, self.trace_id)


@dataclass(slots=True)
class Call:
    """One call: where it came from, what it carries outside the message, and what became known on the way."""

    method: str
    """Full name, `artstore.identity.v1.TokenService/IssueToken`."""
    source: str
    """The caller's address, after trusted proxies."""
    peer: str = ""
    """The address of the gRPC connection that it came by."""
    certificate: str = ""
    """The SHA-256 thumbprint of the caller's own certificate, in base64url (RFC 8705 §3.1); empty where its connection
    has none, or is a proxy's."""
    subjects: frozenset[str] = NO_SUBJECTS
    """What that certificate says that the caller is called, as subjects.py has it."""
    door: str = "grpc"
    """`grpc` or `http`; for the log."""
    authorization: str | None = None
    """The `authorization` metadata or header; None when there was none."""
    timeout_seconds: float | None = None
    """What is left of the caller's deadline; None without one."""
    request_id: str = field(default_factory=lambda: f"{random.getrandbits(128):032x}")
    """Correlates logs; unrelated to AIP-155's request_id, which is never logged."""
    traceparent: str = ""
    """W3C trace context, passed on: the caller's, or what traces.py made of it; empty where there is none."""
    tracestate: str = ""
    """What belongs to it."""
    client_authentication: str = "none"
    """How its client set out to prove itself, in RFC 8414's names; set by the pipeline for a token's request."""
    caller: Caller | None = None
    """Set by the pipeline's authentication."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What the log line should also say."""

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to, 32 hexadecimal digits; empty without one. For the log and the ledger."""
        return self.traceparent[TRACE_ID]


def correlated(call: Call, request_id: str, traceparent: str, tracestate: str = "") -> None:
    """Takes over what a caller sent to correlate by, if it is well-formed; anything else is dropped silently."""
    if REQUEST_ID.fullmatch(request_id):
        call.request_id = request_id
    if TRACEPARENT.fullmatch(traceparent):
        call.traceparent = traceparent
        if TRACESTATE.fullmatch(tracestate):
            call.tracestate = tracestate


class Backend(Protocol):
    """Answers a method of the API within `call.timeout_seconds`; raises an IdentityError, DeadlineExceeded after that
    time, and with `denial_id` set where authentication was denied."""

    async def __call__(self, message: Message, call: Call) -> Message:
        """Authenticates, limits, authorises and runs `call.method`."""
