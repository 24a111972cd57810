"""What the commands that are clients of the service share: where it is, as whom, for how long; and one event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import click
from artstore.identity import AdminClient

from artstore_grpc.cli import environment
from artstore_grpc.cli.durations import DurationType
from artstore_grpc.cli.failures import AS_JSON, TARGET
from artstore_grpc.settings import InvalidSettings

Work = Callable[..., Awaitable[None]]


def _remember_json(context: click.Context, _parameter: click.Parameter, given: bool) -> bool:
    context.meta[AS_JSON] = given
    return given


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_remember_json,
    is_eager=True,
    help="Print JSON, errors on standard error too.",
)

target_option = click.option(
    "--target",
    metavar="HOST:PORT",
    help=f"The service's gRPC address.  [default: ARTSTORE_TARGET, else {environment.DEFAULT_TARGET}]",
)

timeout_option = click.option(
    "--timeout",
    type=DurationType(positive=True),
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long a call may take.",
)


def as_client(work: Work) -> Callable[..., None]:
    """Makes a command of a coroutine whose first argument is an open client, as the account of the environment."""
    return _command(work, authenticated=True)


def as_anyone(work: Work) -> Callable[..., None]:
    """As `as_client`, for what is public: no account is needed."""
    return _command(work, authenticated=False)


def _command(work: Work, *, authenticated: bool) -> Callable[..., None]:
    @target_option
    @timeout_option
    @functools.wraps(work)
    def command(target: str | None, timeout: timedelta, **options: Any) -> None:
        address = target or environment.target()
        click.get_current_context().meta[TARGET] = address
        asyncio.run(_with_client(work, address, timeout, options, authenticated=authenticated))

    return command


async def _with_client(
    work: Work, target: str, per_call: timedelta, options: dict[str, Any], *, authenticated: bool
) -> None:
    account = environment.credentials() if authenticated else environment.Credentials("", "")
    async with opened(target, account, per_call) as client:
        await work(client, **options)


def opened(target: str, account: environment.Credentials, timeout: timedelta) -> AdminClient:
    """A client as this account. Raises InvalidSettings for a private key that can't be read."""
    try:
        return AdminClient(
            target,
            client_id=account.client_id,
            client_secret=account.client_secret,
            private_key=account.private_key or None,
            timeout=timeout,
        )
    except ValueError as error:
        raise InvalidSettings(f"ARTSTORE_CLIENT_KEY can't be used: {error}.") from None
