"""The options that give an account its rotation policy: all of it at once, since one half of it may not fit another."""

from __future__ import annotations

from typing import Any

import click
from artstore.identity import RotationMode, RotationPolicy
from google.protobuf.duration_pb2 import Duration

from artstore_grpc import model
from artstore_grpc.cli.durations import DurationType

ROTATION_OPTIONS = (
    click.option(
        "--rotation",
        type=click.Choice([mode.value for mode in model.RotationMode]),
        help="Who rotates its secret: an operator, its client, or the service.",
    ),
    click.option("--schedule", metavar="CRON", help="When, with --rotation: five fields in UTC, such as '0 3 * * 1'."),
    click.option(
        "--overlap",
        type=DurationType(),
        metavar="DURATION",
        help="How long the old secret then lives on, with --rotation.  [default: 24h]",
    ),
    click.option("--sink", metavar="NAME", help="Where managed secrets are delivered, as the settings name it."),
    click.option("--destination", metavar="PLACE", help="Which place there.  [default: after the client_id]"),
)


def policy_of(options: dict[str, Any]) -> RotationPolicy | None:
    """Takes the options of a policy out of all options; None where none was given."""
    given = {name: options.pop(name) for name in ("rotation", "schedule", "overlap", "sink", "destination")}
    mode, overlap = given.pop("rotation"), given.pop("overlap")
    if mode is None:
        rest = [name for name, value in (given | {"overlap": overlap}).items() if value is not None]
        if rest:
            raise click.UsageError(f"--{rest[0]} needs --rotation: a policy is given as a whole.")
        return None
    policy = RotationPolicy(mode=RotationMode.Value(f"ROTATION_MODE_{mode.upper()}"), **given)
    if overlap is not None:
        policy.overlap.CopyFrom(Duration())
        policy.overlap.FromTimedelta(overlap)
    return policy
