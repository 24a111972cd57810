"""`accounts`: service accounts, created, read, changed and ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import click
from artstore.identity import AdminClient, Role, ServiceAccount

from artstore_grpc import model
from artstore_grpc.cli.output import (
    account_json,
    echo_account,
    echo_json,
    echo_secret,
    echo_table,
    role_name,
    state_name,
    time_text,
)
from artstore_grpc.cli.public_keys import KeyFile
from artstore_grpc.cli.rotation_policy import ROTATION_OPTIONS, policy_of
from artstore_grpc.cli.session import as_client, json_option

LISTED = ("CLIENT ID", "NAME", "ROLE", "STATE", "RATE LIMIT", "SECRET EXPIRES")

FIELDS: dict[str, str] = {
    "name": "name",
    "description": "description",
    "role": "role",
    "rate_limit": "rate_limit",
    "scope": "scopes",
    "audience": "audiences",
    "serves": "served_audiences",
    "introspection_only": "introspection_only",
    "public_key": "public_keys",
    "certificate_subject": "certificate_subject",
}
"""The field of an account that each option sets."""

id_argument = click.argument("id")
etag_option = click.option("--etag", default="", help="Only if the account still has this etag.")


@click.group()
def accounts() -> None:
    """Manage service accounts. ID is an account's id or client_id."""


def field_options(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that set an account's fields; `name` and `role` are required of a new one."""
    roles = click.Choice([role.value for role in model.Role])
    limits = click.IntRange(1, model.MAX_RATE_LIMIT)
    flag = "--introspection-only" + ("" if required else "/--no-introspection-only")
    options = (
        click.option("--name", required=required, help="Unique; 3 to 200 characters."),
        click.option("--role", type=roles, required=required, help="The preset that bounds its scopes."),
        click.option("--rate-limit", type=limits, help="Requests a minute.  [default of a new account: 100]"),
        click.option("--description", help="For people."),
        click.option("--scope", multiple=True, help="May ask for this scope; repeatable. '': all of its role's."),
        click.option("--audience", multiple=True, help="May ask for this audience; repeatable. '': the default."),
        click.option("--serves", multiple=True, help="May introspect tokens for this audience; repeatable."),
        click.option(
            "--public-key",
            type=KeyFile(),
            multiple=True,
            metavar="FILE",
            help="Authenticates by this key: a JWK, a JWK set or PEM; repeatable. '': by none.",
        ),
        click.option(
            "--certificate-subject",
            metavar="NAME:VALUE",
            help="Authenticates by client certificates with this subject_dn, san_dns, san_uri, san_ip or san_email"
            " (mutual TLS). '': by none.",
        ),
        click.option(flag, default=None, is_flag=True, help="Gets no tokens: it only introspects and revokes."),
        *ROTATION_OPTIONS,
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def account_of(options: dict[str, Any]) -> tuple[ServiceAccount, list[str]]:
    """The account that the options describe, and the fields that they name."""
    policy = policy_of(options)
    given = {FIELDS[name]: field_value(name, value) for name, value in options.items() if value not in (None, ())}
    if policy is not None:
        given["rotation_policy"] = policy
    return ServiceAccount(**given), list(given)


def field_value(option: str, value: Any) -> Any:
    """An option's value as its field has it; an empty item of a list only says that the list was given."""
    if option == "role":
        return Role.Value(f"ROLE_{value.upper()}")
    if option == "public_key":
        return [key for keys in value for key in keys]
    return list(filter(None, value)) if isinstance(value, tuple) else value


@accounts.command()
@field_options(required=True)
@click.option(
    "--without-secret", is_flag=True, help="Make no secret: it has a --public-key or a --certificate-subject."
)
@click.option("--request-id", default="", help="A random UUID that makes it safe to run this again (AIP-155).")
@json_option
@as_client
async def create(client: AdminClient, request_id: str, without_secret: bool, as_json: bool, **options: Any) -> None:
    """Create an account, and show its secret this once."""
    account, _ = account_of(options)
    made = await client.create_service_account(account, request_id=request_id, without_secret=without_secret)
    if as_json:
        echo_json({**account_json(made.service_account), "client_secret": made.client_secret})
        return
    echo_account(made.service_account)
    if made.client_secret:
        echo_secret(made.service_account.client_id, made.client_secret)


@accounts.command()
@id_argument
@json_option
@as_client
async def get(client: AdminClient, id: str, as_json: bool) -> None:
    """Show an account, a deleted one too."""
    show(await client.get_service_account(id), as_json=as_json)


def show(account: ServiceAccount, *, as_json: bool) -> None:
    if as_json:
        echo_json(account_json(account))
    else:
        echo_account(account)


@accounts.command("list")
@click.option("--filter", default="", help='Such as: role = user AND state = active AND name : "ingest"')
@click.option("--show-deleted", is_flag=True, help="Deleted accounts too.")
@click.option("--page-size", type=click.IntRange(1, 1000), default=1000, help="Accounts per call.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.  [default: all]")
@json_option
@as_client
async def list_(
    client: AdminClient, filter: str, show_deleted: bool, page_size: int, limit: int | None, as_json: bool
) -> None:
    """List accounts, in the order they were created; --json prints an array, as the pages arrive."""
    page_size = min(page_size, limit or page_size)
    found = _first(client.list_service_accounts(filter=filter, show_deleted=show_deleted, page_size=page_size), limit)
    if as_json:
        await echo_json_array(found)
        return
    echo_table(LISTED, [listed(account) async for account in found])


async def _first(found: AsyncIterator[ServiceAccount], limit: int | None) -> AsyncIterator[ServiceAccount]:
    count = 0
    async for account in found:
        yield account
        count += 1
        if count == limit:
            return


async def echo_json_array(found: AsyncIterator[ServiceAccount]) -> None:
    """An array, printed as it comes: a list of any length takes no memory."""
    separator = "["
    async for account in found:
        click.echo(separator, nl=False)
        echo_json(account_json(account))
        separator = ","
    click.echo("[]" if separator == "[" else "]")


def listed(account: ServiceAccount) -> tuple[str, ...]:
    return (
        account.client_id,
        account.name,
        role_name(account.role),
        state_name(account.state),
        f"{account.rate_limit:,}/min",
        time_text(account.secret_expire_time),
    )


@accounts.command()
@id_argument
@field_options(required=False)
@etag_option
@json_option
@as_client
async def update(client: AdminClient, id: str, etag: str, as_json: bool, **options: Any) -> None:
    """Change what the options name, and nothing else."""
    account, mask = account_of(options)
    if not mask:
        raise click.UsageError("Nothing to change: give at least one of the account's fields.")
    account.id, account.etag = id, etag
    show(await client.update_service_account(account, update_mask=mask), as_json=as_json)


@accounts.command()
@id_argument
@etag_option
@json_option
@as_client
async def suspend(client: AdminClient, id: str, etag: str, as_json: bool) -> None:
    """Refuse an account everywhere, until it is activated."""
    show(await client.suspend_service_account(id, etag=etag), as_json=as_json)


@accounts.command()
@id_argument
@etag_option
@json_option
@as_client
async def activate(client: AdminClient, id: str, etag: str, as_json: bool) -> None:
    """Activate a suspended account."""
    show(await client.activate_service_account(id, etag=etag), as_json=as_json)


@accounts.command()
@id_argument
@etag_option
@json_option
@as_client
async def delete(client: AdminClient, id: str, etag: str, as_json: bool) -> None:
    """Delete an account; for 30 days it can be undeleted."""
    show(await client.delete_service_account(id, etag=etag), as_json=as_json)


@accounts.command()
@id_argument
@etag_option
@json_option
@as_client
async def undelete(client: AdminClient, id: str, etag: str, as_json: bool) -> None:
    """Restore a deleted account."""
    show(await client.undelete_service_account(id, etag=etag), as_json=as_json)
