"""`keys`: the signing keys, listed, rotated, and revoked in an emergency."""

from __future__ import annotations

from typing import Any

import click
from artstore.identity import AdminClient
from artstore.identity.v1.key_service_pb2 import SigningKey
from artstore.identity.v1.token_service_pb2 import KeyState

from artstore_grpc.cli.ids import IdCommand
from artstore_grpc.cli.output import echo_fields, echo_json, echo_table, message_json, time_text
from artstore_grpc.cli.session import as_client, json_option

LISTED = ("KID", "ALGORITHM", "STATE", "CREATED", "SIGNS SINCE", "MAY SIGN FROM", "GONE AT")

kid_argument = click.argument("kid")


@click.group()
def keys() -> None:
    """Manage the keys that sign tokens, and the key that theirs are encrypted under. KID is as `keys list` shows it."""


def key_json(key: SigningKey) -> dict[str, Any]:
    """A key as the REST API shows it: its state by the short name, of its public key what is set."""
    said = message_json(key)
    public = {name: value for name, value in said["public_key"].items() if value}
    return {**said, "state": state_name(key.state), "public_key": public}


def state_name(state: int) -> str:
    return KeyState.Name(KeyState.ValueType(state)).removeprefix("KEY_STATE_").lower()


def show(key: SigningKey, *, as_json: bool) -> None:
    if as_json:
        echo_json(key_json(key))
        return
    echo_fields(
        [
            ("kid", key.kid),
            ("algorithm", key.algorithm),
            ("state", state_name(key.state)),
            ("created", time_text(key.create_time)),
            ("signs from", time_text(key.activate_time)),
            ("may sign from", time_text(key.earliest_activate_time)),
            ("ended", time_text(key.retire_time)),
            ("gone at", time_text(key.purge_time)),
        ]
    )


@keys.command("list")
@json_option
@as_client
async def list_(client: AdminClient, as_json: bool) -> None:
    """List the keys that are not gone, the oldest first."""
    found = await client.list_signing_keys()
    if as_json:
        echo_json([key_json(key) for key in found])
        return
    echo_table(LISTED, [listed(key) for key in found])


def listed(key: SigningKey) -> tuple[str, ...]:
    return (
        key.kid,
        key.algorithm,
        state_name(key.state),
        time_text(key.create_time),
        time_text(key.activate_time),
        time_text(key.earliest_activate_time),
        time_text(key.purge_time),
    )


@keys.command()
@json_option
@as_client
async def prepare(client: AdminClient, as_json: bool) -> None:
    """Publish a key that can sign next; where one is prepared, show it."""
    show(await client.prepare_signing_key(), as_json=as_json)


@keys.command(cls=IdCommand)
@kid_argument
@json_option
@as_client
async def activate(client: AdminClient, kid: str, as_json: bool) -> None:
    """Have a prepared key sign from now on; refused while a verifier could still not have seen it."""
    show(await client.activate_signing_key(kid), as_json=as_json)


@keys.command(cls=IdCommand)
@kid_argument
@json_option
@as_client
async def retire(client: AdminClient, kid: str, as_json: bool) -> None:
    """Give up a prepared key."""
    show(await client.retire_signing_key(kid), as_json=as_json)


@keys.command(cls=IdCommand)
@kid_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
@as_client
async def revoke(client: AdminClient, kid: str, yes: bool, as_json: bool) -> None:
    """The emergency: end a key at once, and every token that it signed."""
    if not yes:
        click.confirm("Every token that this key signed will be refused. Revoke it?", abort=True, err=True)
    answer = await client.revoke_signing_key(kid)
    if as_json:
        echo_json({"signing_key": key_json(answer.signing_key), "active_key": key_json(answer.active_key)})
        return
    show(answer.signing_key, as_json=False)
    click.echo(f"\n{answer.active_key.kid} signs now.")


@keys.command()
@json_option
@as_client
async def rotate(client: AdminClient, as_json: bool) -> None:
    """Have the next key sign as soon as every verifier knows it, and show which it is and when."""
    show(await client.rotate_signing_key(), as_json=as_json)
