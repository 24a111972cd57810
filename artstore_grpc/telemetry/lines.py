"""The canonical line: one for each call, whichever door it came in by, and one for each HTTP request that becomes none.

Fields are described in docs/observability.md. No field holds what a caller may choose without a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from artstore_grpc.call import Call
from artstore_grpc.errors import OUTCOMES, IdentityError
from artstore_grpc.telemetry.logs import Logger

OK = "OK"
INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class End:
    """How a call ended: gRPC's name of its code; where that isn't OK, the reason, and the cause that only we see."""

    code: str = OK
    reason: str = ""
    cause: str = ""

    @property
    def level(self) -> str:
        """`error` for a defect of ours, whatever else went wrong is a caller's or a dependency's."""
        return "error" if self.code == INTERNAL else "info"


SUCCESS = End()
CLIENT_GONE = End("CANCELLED", "CLIENT_GONE", "the caller went away")


def end_of(error: IdentityError | None) -> End:
    """How a call ended that raised this."""
    return End(OUTCOMES[type(error)].grpc, error.reason, error.cause) if error else SUCCESS


def tell(logger: Logger, call: Call, end: End, seconds: float, *, level: str = "", **more: Any) -> None:
    """Writes the line, unless the level or the sampling leaves it out. `more` is what its door knows: of HTTP the
    request's method, route and status."""
    level = level or end.level
    weight = logger.verbosity.weight(failed=end.code != OK, seconds=seconds) if logger.verbosity.tells(level) else 0
    if not weight:
        return
    fields: dict[str, Any] = {
        "method": call.method,
        "door": call.door,
        **more,
        "code": end.code,
        "duration_ms": round(seconds * 1000, 3),
        "source": call.source,
        "request_id": call.request_id,
        **call.fields,
    }
    if call.traceparent:
        fields["trace_id"] = call.trace_id
    if call.caller is not None:
        fields["client_id"] = call.caller.account.client_id
    if end.code != OK:
        fields |= {"reason": end.reason, "cause": end.cause}
    if weight > 1:
        fields["weight"] = weight
    logger.called(level, fields)
