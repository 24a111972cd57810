"""`doctor`: whether a deployment is fit to run, by the settings that `serve` would have."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from artstore_grpc.cli import environment
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import echo_json, echo_table
from artstore_grpc.cli.serve import ServerCommand, insecure_public_option, settings_with_warnings
from artstore_grpc.cli.session import json_option

if TYPE_CHECKING:
    from artstore_grpc.doctor import Finding
    from artstore_grpc.settings import Settings

LISTED = ("CHECK", "", "FOUND", "WHAT MENDS IT")


@click.command(cls=ServerCommand)
@insecure_public_option
@click.option("--strict", is_flag=True, help="Exit 13 for warnings too.")
@json_option
def doctor(insecure_public: bool, strict: bool, as_json: bool) -> None:
    """Check this deployment, and say what to mend; exits 13 if there is a problem.

    Run it with the settings and as the user that the service has. It changes nothing, and needs no running service:
    files' rights, settings, certificates, the database's schema and role, its keys, Redis, clocks.
    """
    settings = settings_with_warnings(insecure_public=insecure_public)
    found = asyncio.run(examined(settings))
    if as_json:
        names = ("check", "level", "found", "remedy")
        echo_json([{name: getattr(finding, name) for name in names} for finding in found])
    else:
        echo_table(LISTED, [(each.check, each.level.upper(), each.found, each.remedy) for each in found])
    to_mend = {"problem", "warning"} if strict else {"problem"}
    if count := sum(finding.level in to_mend for finding in found):
        raise Failure(Exit.UNFIT, "UNFIT", f"{count} to mend." if count > 1 else "One thing to mend.")


async def examined(settings: Settings) -> list[Finding]:
    from artstore_grpc import doctor as checks

    return [finding async for finding in checks.examined(settings, environment.secret_files())]
