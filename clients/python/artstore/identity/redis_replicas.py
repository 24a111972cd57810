"""The replicas that have registered themselves in Redis, as docs/discovery.md has it; needs `artstore-identity[redis]`.

Whoever may write to that Redis decides whom clients send their secrets to, as whoever may write to a DNS zone does;
with TLS and a `server_name`, only among holders of the right certificate.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from artstore.identity.clocks import steady_seconds
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

LOGGER = logging.getLogger("artstore.identity")

KEY = "artstore:replicas"

REFRESH = timedelta(seconds=1)
"""With a replica's TTL of 5 s, a dead one is left within 6.5 s at the latest; by calls that fail, at once."""
TIMEOUT = timedelta(seconds=1)
"""For one look, connecting included."""
SETTLING = timedelta(seconds=2.5)
"""How long a Redis that is back, or lost its memory, may not know all replicas: a heartbeat and a write's time-out."""
REUSED_FRACTION = 0.5
"""For what part of `refresh` a look serves all who share this object."""

READ = """
-- KEYS[1]: a hash of instances; a value is the time of its writing in microseconds of this server's clock, for how many
-- milliseconds it holds, and what it says. Returns instance and JSON of each that holds now. Changes nothing.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local held, live = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #held, 2 do
  local written, ttl, entry = string.match(held[i + 1], '^(%d+) (%d+) (.*)$')
  if written and now - written <= ttl * 1000 then
    live[#live + 1] = held[i]
    live[#live + 1] = entry
  end
end
return live
"""


class RedisAway(Exception):
    """Redis can't be asked; the message is the kind of failure, and repeats nothing of the URL."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that has registered itself and was alive a moment ago."""

    instance: str
    address: str
    """`host:port` of its gRPC."""
    version: str
    ready: bool
    """Whether it wants to be called: not while it starts, drains, or can issue no tokens."""
    started: datetime


class RedisReplicas:
    """A Discovery.

    async with Client(discovery=RedisReplicas("rediss://cache:6379/0", server_name="identity.internal"), …) as client:
        …
    """

    def __init__(
        self,
        server: str | Redis | RedisCluster,
        *,
        server_name: str = "",
        initial: Iterable[str] = (),
        refresh: timedelta = REFRESH,
        timeout: timedelta = TIMEOUT,
        key: str = KEY,
        clock: Callable[[], float] = steady_seconds,
    ) -> None:
        """`server` is a URL (`redis:`, `rediss:`, `unix:`), or a client of redis-py, for a cluster say, which stays the
        caller's. `server_name` is what certificates are verified against, and must be given with TLS. `initial` are
        addresses (`host:port`) to call until Redis has answered once. `refresh` is how often it is asked, and `timeout`
        how long for. Raises ValueError."""
        if refresh <= timedelta(0) or timeout <= timedelta(0):
            raise ValueError("refresh and timeout must be positive.")
        self._client = _client(server, timeout) if isinstance(server, str) else server
        self._server_name = server_name
        self._refresh = refresh
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._known = tuple(initial)
        self._looked_at = float("-inf")
        self._answers = True
        self._met = False
        self._whole_at = float("-inf")

    @property
    def refresh(self) -> timedelta:
        return self._refresh

    @property
    def server_name(self) -> str:
        return self._server_name

    def replicas(self) -> list[Replica]:
        """Every replica that is alive, the ready ones and the others, the oldest first. Raises RedisAway."""
        try:
            said = [_text(each) for each in cast(Any, self._client).eval_ro(READ, 1, self._key)]
        except (RedisError, OSError) as error:
            raise RedisAway(type(error).__name__) from None
        found = (_replica(instance, entry) for instance, entry in zip(said[::2], said[1::2], strict=True))
        return sorted(filter(None, found), key=lambda replica: (replica.started, replica.instance))

    def current(self) -> tuple[str, ...]:
        """The addresses of those that are ready. While none is, and while Redis is away: those that were last. For the
        first 2.5 s after it was away or knew nobody, as after a restart: those that were last too, but for whom it says
        not to be ready; or all clients would call the first one that registers again. Raises nothing."""
        with self._lock:
            if self._clock() - self._looked_at >= self._refresh.total_seconds() * REUSED_FRACTION:
                self._look()
                self._looked_at = self._clock()
            return self._known

    def _look(self) -> None:
        try:
            found = self.replicas()
        except RedisAway as error:
            if self._answers:
                LOGGER.warning("replicas can't be read in Redis, those known stay: %s", error)
            self._answers = False
            return
        ready = {replica.address for replica in found if replica.ready}
        if self._met and not (self._answers and found):
            self._whole_at = self._clock() + SETTLING.total_seconds()
        if self._clock() < self._whole_at:
            ready |= set(self._known) - {replica.address for replica in found}
        self._answers = True
        self._met |= bool(found)
        self._known = tuple(sorted(ready)) or self._known

    def close(self) -> None:
        """Closes the connections; a client that was given stays open."""
        self._client.close()


def _client(url: str, timeout: timedelta) -> Redis:
    seconds = timeout.total_seconds()
    # No retries: the next look is the retry.
    return Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0))


def _text(said: bytes | str) -> str:
    return said if isinstance(said, str) else said.decode(errors="replace")


def _replica(instance: str, entry: str) -> Replica | None:
    """None for what isn't a replica's entry: another version's, or something put there by hand."""
    try:
        said = json.loads(entry)
        started = datetime.fromisoformat(said["started"]).astimezone(UTC)
        return Replica(instance, str(said["address"]), str(said["version"]), said["ready"] is True, started)
    except (ValueError, KeyError, TypeError):
        return None
