"""What the commands that are clients of the service share: where it is, as whom, for how long; and one event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import click
import grpc
from artstore.identity import AdminClient
from cryptography import x509

from artstore_grpc.cli import environment
from artstore_grpc.cli.durations import DurationType
from artstore_grpc.cli.failures import AS_JSON, TARGET
from artstore_grpc.settings import InvalidSettings

Work = Callable[..., Awaitable[None]]
Command = Callable[..., Any]


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

TLS_OPTIONS = (
    click.option("--ca-file", metavar="PATH", help="PEM with the CA of the service's certificate: calls it by TLS."),
    click.option(
        "--client-certificate", metavar="PATH", help="PEM with a certificate of the caller's own (mutual TLS)."
    ),
    click.option("--client-certificate-key", metavar="PATH", help="PEM with that certificate's private key."),
)


def tls_options(command: Command) -> Command:
    """The options of everything that calls the service; each else from the environment."""
    for option in reversed(TLS_OPTIONS):
        command = option(command)
    return command


def channel_credentials(
    ca_file: str | None, client_certificate: str | None, client_certificate_key: str | None
) -> grpc.ChannelCredentials | None:
    """How to call the service by TLS; None is plain text. Raises InvalidSettings for files that can't be used."""
    ca = environment.tls_file(environment.CA_FILE, ca_file)
    chain = environment.tls_file(environment.CLIENT_CERTIFICATE_FILE, client_certificate)
    key = environment.tls_file(environment.CLIENT_CERTIFICATE_KEY_FILE, client_certificate_key)
    if bool(chain) != bool(key):
        raise InvalidSettings(
            "ARTSTORE_CLIENT_CERTIFICATE_FILE and ARTSTORE_CLIENT_CERTIFICATE_KEY_FILE must be given together."
        )
    if chain and not ca:
        raise InvalidSettings("ARTSTORE_CLIENT_CERTIFICATE_FILE needs ARTSTORE_CA_FILE.")
    if not ca:
        return None
    for name, pem in ((environment.CA_FILE, ca), (environment.CLIENT_CERTIFICATE_FILE, chain)):
        try:
            x509.load_pem_x509_certificates(pem or ca)
        except ValueError:
            raise InvalidSettings(f"ARTSTORE_{name} must hold certificates in PEM.") from None
    return grpc.ssl_channel_credentials(ca, key or None, chain or None)


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

    @target_option
    @tls_options
    @timeout_option
    @functools.wraps(work)
    def command(
        target: str | None,
        timeout: timedelta,
        ca_file: str | None,
        client_certificate: str | None,
        client_certificate_key: str | None,
        **options: Any,
    ) -> None:
        address = target or environment.target()
        click.get_current_context().meta[TARGET] = address
        secured = channel_credentials(ca_file, client_certificate, client_certificate_key)
        proof = bool(environment.tls_file(environment.CLIENT_CERTIFICATE_FILE, client_certificate))
        account = environment.credentials(certificate=proof)
        asyncio.run(_with_client(work, address, timeout, options, secured, account))

    return command


async def _with_client(
    work: Work,
    target: str,
    per_call: timedelta,
    options: dict[str, Any],
    secured: grpc.ChannelCredentials | None,
    account: environment.Credentials,
) -> None:
    async with opened(target, account, per_call, secured) as client:
        await work(client, **options)


def opened(
    target: str, account: environment.Credentials, timeout: timedelta, secured: grpc.ChannelCredentials | None = None
) -> AdminClient:
    """A client as this account, by TLS where `secured` says how. Raises InvalidSettings for a private key that can't
    be read."""
    try:
        return AdminClient(
            target,
            client_id=account.client_id,
            client_secret=account.client_secret,
            private_key=account.private_key or None,
            timeout=timeout,
            channel_credentials=secured,
        )
    except ValueError as error:
        raise InvalidSettings(f"ARTSTORE_CLIENT_KEY can't be used: {error}.") from None
