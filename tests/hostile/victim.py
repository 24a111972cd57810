"""A running service as an attacker sees it: raw bytes in, the outcome out; and whether it is unharmed."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from artstore_grpc.errors import DOMAIN
from artstore_grpc.rpc.descriptors import full_name, walked
from artstore_grpc.rpc.status import DETAILS_KEY
from tests.installation import Installation

SECONDS = 10.0
"""No refusal takes so long; a call that does, hangs."""
ATTACKERS_RATE_LIMIT = 1_000_000
SETTLED_SECONDS = 30.0
OUTAGE = "DATABASE_UNAVAILABLE"
RECOVERY_SECONDS, RETRY_SECONDS = 30.0, 0.5
"""An outage that ends by itself is over within a few polls of the ledger."""

REASON = r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*"
"""SCREAMING_SNAKE_CASE (AIP-193)."""

METHODS = {full_name(method): method.input_type for method in walked()}
"""Every method's full name, with the descriptor of its request."""

DEFECTS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS", "CANCELLED"})
"""What no client's input may be answered with while the database is up."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended: the code's name, and our reason, empty where the answer isn't ours."""

    code: str
    reason: str = ""
    data: bytes = b""
    details: bytes = b""


class Victim:
    """The service, an account that attacks with every right there is, and an account to be attacked."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._read = 0
        self._http = httpx.Client(
            trust_env=False, verify=False
        )  # one client: each new one loads every certificate there is
        attacker = installation.account("admin", name="attacker", rate_limit=ATTACKERS_RATE_LIMIT)
        self.attacker = attacker
        self.bearer = installation.bearer(attacker.client_id, attacker.secret)
        self.target = installation.account("user", name="target")
        self.honest = installation.account("user", name="honest", rate_limit=ATTACKERS_RATE_LIMIT)

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        data: bytes,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        *,
        timeout: float | None = SECONDS,
        compression: grpc.Compression | None = None,
    ) -> Outcome:
        """A unary call of a method with any bytes at all."""
        stub: Any = self.installation.channel.unary_unary(f"/{method}")
        try:
            return Outcome("OK", data=stub(data, metadata=metadata, timeout=timeout, compression=compression))
        except grpc.RpcError as error:
            return outcome(error)

    def call_while_up(self, method: str, data: bytes, metadata: tuple[tuple[str, str | bytes], ...] = ()) -> Outcome:
        """As `call`; again where the machine held this process up for so long that it lost sight of its database, which
        is no input's doing. An input that takes the database away does so each time."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            outcome = self.call(method, data, metadata)
            if outcome.reason != OUTAGE or time.monotonic() > deadline:
                return outcome
            time.sleep(RETRY_SECONDS)

    def send(self, method: str, message: Any, metadata: tuple[tuple[str, str | bytes], ...] | None = None) -> Outcome:
        """A method of our API by its short name; as the attacker, unless other metadata are given."""
        name = next(name for name in METHODS if name.endswith(f"/{method}"))
        authenticates_itself = "TokenService" in name
        given = metadata if metadata is not None else () if authenticates_itself else self.bearer
        return self.call(name, message.SerializeToString(), given)

    def fresh_target(self) -> pb.ServiceAccount:
        """A new account to be attacked."""
        self.target = self.installation.account("user")
        return self.target.message

    def assert_unharmed(self) -> None:
        """It issues a token, nothing is in flight, and no defect was logged."""
        assert self.installation.token(self.honest.client_id, self.honest.secret)
        self.assert_idle()
        assert not self.defects()

    def defects(self) -> list[str]:
        """The errors in the log since this was last asked."""
        text = self.installation.log.getvalue()
        lines, self._read = text[self._read :].splitlines(), len(text)
        return [line for line in lines if json.loads(line)["level"] == "error"]

    def assert_idle(self) -> None:
        """Every call has left the pipeline."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while self.in_flight() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.in_flight() == 0

    def in_flight(self) -> float:
        """What the service itself counts."""
        found = re.search(r"^artstore_calls_in_flight (\S+)$", self.metrics(), re.MULTILINE)
        assert found
        return float(found[1])

    def metrics(self) -> str:
        address = self.installation.started.metrics_address
        text: str = self._http.get(f"http://{address}/metrics").text
        return text


def outcome(error: Any) -> Outcome:
    """What a failed call says of itself."""
    trailing = dict(error.trailing_metadata() or ())
    details = trailing.get(DETAILS_KEY, b"")
    return Outcome(error.code().name, reason_of(details), details=details)


def reason_of(details: bytes) -> str:
    """The reason in a `google.rpc.Status`, if the error is ours."""
    for detail in Status.FromString(details).details:
        info = ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info.reason
    return ""


def assert_refused_clearly(outcome: Outcome) -> None:
    """A success, or a refusal with a reason of ours and a code that blames the client."""
    if outcome.code == "OK":
        return
    assert outcome.code not in DEFECTS, outcome
    assert re.fullmatch(REASON, outcome.reason), outcome
