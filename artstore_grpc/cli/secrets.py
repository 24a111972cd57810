"""`accounts rotate-secret` and `accounts revoke-secret`."""

from __future__ import annotations

from datetime import timedelta

import click
from artstore.identity import AdminClient
from artstore.identity.v1.service_account_service_pb2 import RotateSecretResponse

from artstore_grpc.cli.accounts import accounts, etag_option, id_argument, show
from artstore_grpc.cli.durations import DurationType
from artstore_grpc.cli.output import account_json, echo_account, echo_json, echo_secret, message_json
from artstore_grpc.cli.session import as_client, json_option


@accounts.command()
@id_argument
@click.option(
    "--overlap",
    type=DurationType(),
    metavar="DURATION",
    help="How long the old secret lives on, such as 90s, 24h or 7d; 0: it dies now.  [default: 24h]",
)
@click.option("--revoke-tokens", is_flag=True, help="Every token issued before is void too; with --overlap 0.")
@click.option("--request-id", default="", help="A random UUID that makes it safe to run this again (AIP-155).")
@etag_option
@json_option
@as_client
async def rotate_secret(
    client: AdminClient,
    id: str,
    overlap: timedelta | None,
    revoke_tokens: bool,
    request_id: str,
    etag: str,
    as_json: bool,
) -> None:
    """Make a new secret, and show it this once.

    An account that rotates its own, ID being ARTSTORE_CLIENT_ID, needs no right but its present secret.
    """
    rotated = await client.rotate_secret(
        id, overlap=overlap, revoke_tokens=revoke_tokens, etag=etag, request_id=request_id
    )
    if as_json:
        echo_json(rotated_json(rotated))
        return
    echo_account(rotated.service_account)
    echo_secret(rotated.service_account.client_id, rotated.client_secret)


def rotated_json(rotated: RotateSecretResponse) -> dict[str, object]:
    """The answer, flat as that of `create`."""
    rest = message_json(rotated)
    del rest["service_account"]
    return {**account_json(rotated.service_account), **rest}


@accounts.command()
@id_argument
@click.argument("secret_id")
@etag_option
@json_option
@as_client
async def revoke_secret(client: AdminClient, id: str, secret_id: str, etag: str, as_json: bool) -> None:
    """End a secret now; SECRET_ID as `accounts get` shows it."""
    show(await client.revoke_secret(id, secret_id, etag=etag), as_json=as_json)
