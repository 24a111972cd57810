"""`replicas`: who has registered in Redis, as clients that look there see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from artstore_grpc.cli import environment
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import echo_json, echo_table
from artstore_grpc.cli.session import json_option

if TYPE_CHECKING:
    from artstore.identity.redis_replicas import Replica

LISTED = ("ADDRESS", "READY", "VERSION", "STARTED", "INSTANCE")


@click.group()
def replicas() -> None:
    """Show the service's processes that clients can find in Redis."""


@replicas.command("list")
@json_option
def list_replicas(as_json: bool) -> None:
    """List the processes that are registered in ARTSTORE_REDIS_URL, the oldest first.

    One that has died is listed for 5 s at most; one that is not ready gets no calls.
    """
    found = registered(environment.redis_url())
    if as_json:
        echo_json([replica_json(replica) for replica in found])
        return
    echo_table(LISTED, [row(replica) for replica in found])


def registered(url: str) -> list[Replica]:
    """Raises Failure where Redis can't be asked."""
    from artstore.identity.redis_replicas import RedisAway, RedisReplicas

    known = RedisReplicas(url)
    try:
        return known.replicas()
    except RedisAway as error:
        raise Failure(Exit.UNAVAILABLE, "REDIS_UNAVAILABLE", f"Redis can't be asked: {error}.") from None
    finally:
        known.close()


def row(replica: Replica) -> tuple[str, ...]:
    ready = "yes" if replica.ready else "no"
    return (replica.address, ready, replica.version, time_text(replica.started), replica.instance)


def replica_json(replica: Replica) -> dict[str, object]:
    started = replica.started.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "instance": replica.instance,
        "address": replica.address,
        "ready": replica.ready,
        "version": replica.version,
        "started": started,
    }


def time_text(time: datetime) -> str:
    """As in the other tables: `2026-01-31 13:59:07 UTC`."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
