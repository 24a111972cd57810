"""The client's methods on tokens: TokenService, method by method."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

import grpc
from artstore.identity.assertions import ASSERTION_TYPE, client_assertion
from artstore.identity.connection import Connection
from artstore.identity.errors import from_rpc_error
from artstore.identity.v1 import token_service_pb2 as pb
from artstore.identity.v1.token_service_pb2 import WatchTrustResponse
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub

if TYPE_CHECKING:  # known to the type checker only: at run time there is one class for both kinds of channel
    from artstore.identity.v1.token_service_pb2_grpc import TokenServiceAsyncStub

CLIENT_CREDENTIALS = "client_credentials"
"""The one grant there is (RFC 6749 §4.4)."""


class TokenMethods(Connection):
    """Tokens: issued, looked at, revoked; and what verifies them."""

    @property
    def _tokens(self) -> TokenServiceAsyncStub:
        return TokenServiceStub(self.channel)

    async def issue_token(self, *, scope: str = "", audience: Iterable[str] = ()) -> pb.IssueTokenResponse:
        """Gets an access token for this client's account.

        `scope` is space-delimited (RFC 6749 §3.3), empty for all that the account has; `audience` empty for the
        service's default one. Raises InvalidClient, InvalidScope, InvalidTarget, PermissionDenied, RateLimited.
        """
        request = pb.IssueTokenRequest(
            grant_type=CLIENT_CREDENTIALS,
            **await self._credentials_fields(),
            scope=scope,
            audience=audience,
        )
        return await self.call(self._tokens.IssueToken, request)

    async def introspect(self, token: str, *, token_type_hint: str = "") -> pb.IntrospectTokenResponse:
        """Asks whether a token is live, and what it says (RFC 7662); one that may not be asked about is not active."""
        request = pb.IntrospectTokenRequest(
            token=token,
            token_type_hint=token_type_hint,
            **await self._credentials_fields(),
        )
        return await self.call(self._tokens.IntrospectToken, request)

    async def revoke(self, token: str, *, token_type_hint: str = "") -> None:
        """Revokes a token (RFC 7009); an unknown or expired one is a success. Raises PermissionDenied on another's."""
        request = pb.RevokeTokenRequest(
            token=token,
            token_type_hint=token_type_hint,
            **await self._credentials_fields(),
        )
        await self.call(self._tokens.RevokeToken, request)

    async def issuer(self) -> str:
        """The service's issuer identifier (RFC 8414 §2): the one that was given, else asked for once."""
        if not self._issuer:
            self._issuer = (await self.server_metadata()).issuer
        return self._issuer

    async def _credentials_fields(self) -> dict[str, str]:
        """What authenticates one call, as the fields of its request: an assertion is good for one."""
        await self._ask_provider()
        if self._private_key is None:
            return {"client_id": self.client_id, "client_secret": self._client_secret}
        assertion = client_assertion(self.client_id, await self.issuer(), self._private_key)
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}

    async def json_web_key_set(self) -> pb.GetJsonWebKeySetResponse:
        """The public keys that verify the service's tokens (RFC 7517), and how long they may be kept."""
        return await self.call(self._tokens.GetJsonWebKeySet, pb.GetJsonWebKeySetRequest())

    async def watch_trust(self, after_sequence: int = 0, after_hash: bytes = b"") -> AsyncGenerator[WatchTrustResponse]:
        """Follows what verifiers must know, with a token got for it: a snapshot, or what has happened after a row that
        was applied, then every change and a heartbeat each second. Ends with that token, or with the server. Raises
        OutOfRange where the service can't go on from there, IdentityError. `TrustFeed` is the patient user of it."""
        token = (await self.issue_token()).access_token
        request = pb.WatchTrustRequest(after_sequence=after_sequence, after_hash=after_hash)
        stream = self._tokens.WatchTrust(request, metadata=(("authorization", f"Bearer {token}"),))
        try:
            async for message in stream:
                yield message
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()

    async def server_metadata(self) -> pb.GetServerMetadataResponse:
        """The service's metadata (RFC 8414): its issuer, its endpoints, what it supports."""
        return await self.call(self._tokens.GetServerMetadata, pb.GetServerMetadataRequest())
