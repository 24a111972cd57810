"""`token`: an access token on standard output, for scripts; or what it says, verified as any service would."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from artstore.identity import Client
from artstore.identity.v1.token_service_pb2 import IssueTokenResponse
from google.protobuf.json_format import MessageToDict
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import echo_json, message_json, time_text
from artstore_grpc.cli.session import as_client, json_option
from artstore_grpc.model import SECRET_WARNING

TOKEN_TYPE = "at+jwt"
"""What an access token's header says it is (RFC 9068 §2.1), so that no other JWT passes for one."""

CLOCK_LEEWAY_SECONDS = 60
"""How far this machine's clock may be off the service's."""


@click.command()
@click.option("--scope", multiple=True, help="Ask for this scope; repeatable, or space-delimited.  [default: all]")
@click.option("--audience", multiple=True, help="Ask for this audience; repeatable.")
@click.option("--decode", is_flag=True, help="Print the token's header and claims, verified, instead of the token.")
@json_option
@as_client
async def token(client: Client, scope: tuple[str, ...], audience: tuple[str, ...], decode: bool, as_json: bool) -> None:
    """Get an access token for ARTSTORE_CLIENT_ID and print it, and nothing else."""
    answer = await client.issue_token(scope=" ".join(scope), audience=audience)
    warn_of_expiry(answer)
    if decode:
        echo_json(await verified(client, answer.access_token))
    elif as_json:
        echo_json({**message_json(answer), "expires_in": answer.expires_in})  # protobuf writes int64 as a string
    else:
        click.echo(answer.access_token)


def warn_of_expiry(answer: IssueTokenResponse) -> None:
    """Says on standard error that the secret is about to expire, while there is time to rotate it."""
    if not answer.HasField("secret_expire_time"):
        return
    expires = answer.secret_expire_time.ToDatetime(UTC)
    if expires - datetime.now(UTC) <= SECRET_WARNING:
        click.echo(f"Warning: the secret expires {time_text(answer.secret_expire_time)}; rotate it.", err=True)


async def verified(client: Client, access_token: str) -> dict[str, Any]:
    """The header and claims of a token, checked against the service's published keys and issuer (RFC 9068 §4)."""
    key_set = MessageToDict(await client.json_web_key_set())
    issuer = (await client.server_metadata()).issuer
    try:
        keys = KeySet.import_key_set({"keys": key_set["keys"]})
        key = keys.get_by_kid(extract_compact(access_token.encode()).headers()["kid"])
        decoded = jwt.decode(access_token, key, algorithms=[str(key.alg)])
        jwt.JWTClaimsRegistry(
            leeway=CLOCK_LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            exp={"essential": True},
        ).validate(decoded.claims)
        if decoded.header.get("typ") != TOKEN_TYPE:
            raise ValueError("typ")
    except (JoseError, KeyError, ValueError) as error:
        message = f"The service's token does not verify against its published keys ({type(error).__name__})."
        raise Failure(Exit.UNEXPECTED, "TOKEN_NOT_VERIFIED", message) from error
    return {"header": decoded.header, "claims": decoded.claims}
