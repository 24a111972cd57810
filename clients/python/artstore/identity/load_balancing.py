"""How a channel picks among the addresses of its target, and how it comes back to one that was away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

ROUND_ROBIN, PICK_FIRST = "round_robin", "pick_first"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing:
    """What a client does with several addresses: those of `dns:///host:port`, of `ipv4:…,…`, or of a discovery.

    An address whose connection fails is left at once and tried again in the background. Calls that find no connection
    at all fail at once rather than wait for one (no `wait_for_ready`): the RetryPolicy says how long to go on.
    """

    policy: str = ROUND_ROBIN
    """`round_robin`: a connection to each address, and the calls in turn over those that hold. `pick_first`: one
    connection, to an address chosen at random; right for thousands of clients that call rarely."""
    first_reconnect_wait: timedelta = timedelta(milliseconds=200)
    """Before an address that failed is tried again (100 ms to 60 s); then 1.6 times as long each time."""
    max_reconnect_wait: timedelta = timedelta(seconds=5)
    """The longest such wait (`first_reconnect_wait` to 120 s). A service that is back is found within it."""
    min_resolution_interval: timedelta = timedelta(seconds=5)
    """How soon a name may be looked up again (100 ms to an hour). gRPC does so when a connection ends and at no other
    time, so that new replicas are found as the servers' maximum connection age lets go of old ones."""

    def __post_init__(self) -> None:
        if self.policy not in (ROUND_ROBIN, PICK_FIRST):
            raise ValueError("policy must be round_robin or pick_first.")
        if not timedelta(milliseconds=100) <= self.first_reconnect_wait <= timedelta(seconds=60):
            raise ValueError("first_reconnect_wait must be 100 ms to 60 s.")
        if not self.first_reconnect_wait <= self.max_reconnect_wait <= timedelta(seconds=120):
            raise ValueError("max_reconnect_wait must be first_reconnect_wait to 120 s.")
        if not timedelta(milliseconds=100) <= self.min_resolution_interval <= timedelta(hours=1):
            raise ValueError("min_resolution_interval must be 100 ms to an hour.")

    def options(self) -> tuple[tuple[str, Any], ...]:
        """These settings as a channel's options."""
        return (
            ("grpc.service_config", CONFIGURATIONS[self.policy]),
            ("grpc.initial_reconnect_backoff_ms", _milliseconds(self.first_reconnect_wait)),
            ("grpc.max_reconnect_backoff_ms", _milliseconds(self.max_reconnect_wait)),
            ("grpc.dns_min_time_between_resolutions_ms", _milliseconds(self.min_resolution_interval)),
        )


CONFIGURATIONS = {
    ROUND_ROBIN: '{"loadBalancingConfig":[{"round_robin":{}}]}',
    PICK_FIRST: '{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}',
}
"""gRPC's service configuration (gRFC A24, A62); ours stands, since looking one up in DNS is off by default."""


def _milliseconds(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)
