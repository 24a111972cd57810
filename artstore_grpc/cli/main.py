"""`artstore-grpc`: the root of the commands, and what `--help` says of all of them."""

from __future__ import annotations

import click

from artstore_grpc.cli import (
    archive,  # noqa: F401  # adds its command to `audit`
    backup,  # noqa: F401  # adds its command to `db`
    imports,  # noqa: F401  # adds its commands to `accounts`
    rekey,  # noqa: F401  # adds its commands to `keys`
    secrets,  # noqa: F401  # adds its commands to `accounts`
)
from artstore_grpc.cli.accounts import accounts
from artstore_grpc.cli.audit import audit
from artstore_grpc.cli.database import bootstrap, db
from artstore_grpc.cli.doctor import doctor
from artstore_grpc.cli.environment import DEFAULT_TARGET
from artstore_grpc.cli.exits import MEANINGS
from artstore_grpc.cli.failures import EdgeGroup
from artstore_grpc.cli.gateway import gateway
from artstore_grpc.cli.health import health
from artstore_grpc.cli.keys import keys
from artstore_grpc.cli.replicas import replicas
from artstore_grpc.cli.rotation import rotation
from artstore_grpc.cli.serve import serve
from artstore_grpc.cli.token import token
from artstore_grpc.cli.worker import worker

CLIENT_VARIABLES = (
    ("ARTSTORE_TARGET", f"The service's gRPC address.  [default: {DEFAULT_TARGET}]"),
    ("ARTSTORE_CLIENT_ID", "The account to act as."),
    ("ARTSTORE_CLIENT_SECRET[_FILE]", "Its secret, or the path of a file that holds it."),
    ("ARTSTORE_CA_FILE", "PEM with the CA of the service's certificate: calls it by TLS."),
    ("ARTSTORE_CLIENT_CERTIFICATE_FILE", "PEM with a certificate of the caller's own (mutual TLS)."),
    ("ARTSTORE_CLIENT_CERTIFICATE_KEY_FILE", "PEM with that certificate's private key."),
)


class Root(EdgeGroup):
    """The root: its help ends with the clients' variables and the exit codes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Environment of the commands that are clients"):
            formatter.write_dl(CLIENT_VARIABLES)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])


@click.group(cls=Root)
@click.version_option(package_name="artstore-grpc", prog_name="artstore-grpc")
@click.option("--traceback", is_flag=True, help="Show where an error comes from; it may hold secrets.")
def main(traceback: bool) -> None:
    """The ArtStore identity service: run it, and manage its accounts and keys."""


for command in (
    serve,
    gateway,
    db,
    bootstrap,
    doctor,
    accounts,
    rotation,
    keys,
    audit,
    token,
    health,
    replicas,
    worker,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
