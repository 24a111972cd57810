"""TokenService: parses, calls the use case, formats."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from artstore_grpc import tokens
from artstore_grpc.addresses import Network, trusts
from artstore_grpc.assertions import TAKEN
from artstore_grpc.call import Call, Caller
from artstore_grpc.counters import Lookups
from artstore_grpc.errors import PermissionDenied, invalid
from artstore_grpc.keys import MAX_VERIFIED, Keyring
from artstore_grpc.ledger import HASH_BYTES
from artstore_grpc.model import SCOPES, Role
from artstore_grpc.revocations import MAX_AGE as REVOCATIONS_MAX_AGE
from artstore_grpc.revocations import Revocations
from artstore_grpc.rpc.messages import duration, jwk_message, timestamp
from artstore_grpc.rpc.trust_feed import Encoder
from artstore_grpc.signing_keys import SigningKeys
from artstore_grpc.telemetry.metrics import Metrics
from artstore_grpc.tokens import Tokens
from artstore_grpc.watches import Watches

BEARER = "Bearer"
"""RFC 6750."""
CLIENT_AUTHENTICATION = ("client_secret_basic", "client_secret_post", "private_key_jwt")
"""RFC 8414's names for RFC 6749 §2.3.1's two ways and for RFC 7523's. Not `tls_client_auth`: the endpoints are HTTP's,
which sees no certificates."""


class TokenService:
    """The methods of artstore.identity.v1.TokenService, as the pipeline calls them."""

    def __init__(
        self,
        use_case: Tokens,
        keyring: Keyring,
        signing_keys: SigningKeys,
        watches: Watches,
        revocations: Revocations,
        metrics: Metrics,
        issuer: str,
        gateways: tuple[Network, ...],
        *,
        binds: bool,
    ) -> None:
        """`binds`: there is a listener whose tokens are bound to certificates."""
        self._binds = binds
        self._tokens = use_case
        self._watches = watches
        self._revocations = revocations
        self._gateways = gateways
        self._feed = Encoder(watches.trust)
        self._keyring = keyring
        self._signing_keys = signing_keys
        self._metrics = metrics
        self._issuer = issuer
        self.lookups = Lookups()
        """Of introspections that were answered before."""
        self._answers: dict[str, pb.IntrospectTokenResponse] = {}
        """What a live token's introspection answers, by `jti`: it says what the token says, whoever asks."""

    async def IssueToken(self, request: pb.IssueTokenRequest, call: Call) -> pb.IssueTokenResponse:
        assert call.caller is not None
        issued = self._tokens.issue(
            call.caller, scope=request.scope, audience=tuple(request.audience), certificate=call.certificate
        )
        call.fields = {"jti": issued.jti, "scope": issued.scope, "audience": issued.audiences, **proof_of(call.caller)}
        if issued.outage:
            call.fields["outage"] = True
        self._metrics.issued.add("outage" if issued.outage else "normal")
        return pb.IssueTokenResponse(
            access_token=issued.text,
            token_type=BEARER,
            expires_in=issued.lifetime_seconds,
            scope=issued.scope,
            issue_time=Timestamp(seconds=issued.issue_seconds),
            secret_expire_time=timestamp(issued.secret_expire_time),
        )

    async def IntrospectToken(self, request: pb.IntrospectTokenRequest, call: Call) -> pb.IntrospectTokenResponse:
        assert call.caller is not None
        claims = await self._tokens.introspect(call.caller, request.token)
        if claims is None:
            return pb.IntrospectTokenResponse(active=False)
        answer = self._answers.get(claims["jti"])
        if answer is not None:
            self.lookups.hits += 1
        else:
            self.lookups.misses += 1
            answer = self._answers[claims["jti"]] = active(claims)
            if len(self._answers) > MAX_VERIFIED:
                del self._answers[next(iter(self._answers))]
        return answer

    async def RevokeToken(self, request: pb.RevokeTokenRequest, call: Call) -> pb.RevokeTokenResponse:
        assert call.caller is not None
        await self._tokens.revoke(call.caller, request.token)
        return pb.RevokeTokenResponse()

    async def GetJsonWebKeySet(self, request: pb.GetJsonWebKeySetRequest, call: Call) -> pb.GetJsonWebKeySetResponse:
        keys = [jwk_message(key) for key in self._keyring.public_keys()]
        return pb.GetJsonWebKeySetResponse(keys=keys, max_age=duration(self._signing_keys.max_age()))

    async def GetServerMetadata(self, request: pb.GetServerMetadataRequest, call: Call) -> pb.GetServerMetadataResponse:
        return pb.GetServerMetadataResponse(
            issuer=self._issuer,
            token_endpoint=f"{self._issuer}/oauth2/token",
            jwks_uri=f"{self._issuer}/.well-known/jwks.json",
            scopes_supported=SCOPES,
            grant_types_supported=[tokens.GRANT],
            token_endpoint_auth_methods_supported=CLIENT_AUTHENTICATION,
            introspection_endpoint=f"{self._issuer}/oauth2/introspect",
            introspection_endpoint_auth_methods_supported=CLIENT_AUTHENTICATION,
            revocation_endpoint=f"{self._issuer}/oauth2/revoke",
            revocation_endpoint_auth_methods_supported=CLIENT_AUTHENTICATION,
            revocations_uri=f"{self._issuer}/.well-known/revocations",
            token_endpoint_auth_signing_alg_values_supported=TAKEN,
            introspection_endpoint_auth_signing_alg_values_supported=TAKEN,
            revocation_endpoint_auth_signing_alg_values_supported=TAKEN,
            tls_client_certificate_bound_access_tokens=self._binds,
            service_documentation=f"{self._issuer}/docs",
        )

    async def GetRevocations(self, request: pb.GetRevocationsRequest, call: Call) -> pb.GetRevocationsResponse:
        # gRPC holds a whole answer for who doesn't read it, and lists are long: no stranger may have them here.
        if call.door == "grpc" and not trusts(call.peer, self._gateways):
            raise PermissionDenied("Over gRPC this is for gateways that the service trusts.", reason="NOT_A_GATEWAY")
        signed = await self._revocations.signed()
        text = "" if request.etag == signed.etag else signed.text
        return pb.GetRevocationsResponse(revocations=text, max_age=duration(REVOCATIONS_MAX_AGE), etag=signed.etag)

    async def WatchTrust(self, request: pb.WatchTrustRequest, call: Call) -> AsyncGenerator[bytes]:
        assert call.caller is not None
        token = (call.authorization or "").strip().partition(" ")[2].strip()
        followed = self._watches.follow(call.caller, token, request.after_sequence, request.after_hash)
        async with contextlib.aclosing(followed), contextlib.aclosing(self._feed.encoded(followed)) as told:
            async for message in told:
                yield message


ROLES = {role.value: accounts_pb.Role.Value(f"ROLE_{role.name}") for role in Role}
INTROSPECTED = ("scope", "client_id", "exp", "iat", "nbf", "sub", "iss", "jti", "name", "rate_limit")
"""Claims that RFC 7662 §2.2 answers under the names they have in the token."""


def active(claims: dict[str, Any]) -> pb.IntrospectTokenResponse:
    """What a live token says (RFC 7662 §2.2)."""
    audience = claims["aud"]
    return pb.IntrospectTokenResponse(
        active=True,
        token_type=BEARER,
        aud=audience if isinstance(audience, list) else [audience],
        role=ROLES[claims["role"]],
        cnf=pb.TokenConfirmation(x5t_s256=claims["cnf"]["x5t#S256"]) if "cnf" in claims else None,
        **{name: claims[name] for name in INTROSPECTED},
    )


def proof_of(caller: Caller) -> dict[str, str]:
    """What a client has proved itself by, for the log."""
    if caller.secret_id:
        return {"secret_id": caller.secret_id}
    if caller.key_thumbprint:
        return {"key_thumbprint": caller.key_thumbprint}
    return {"certificate_subject": caller.certificate_subject}


def check_issue(request: pb.IssueTokenRequest) -> None:
    """What is wrong with a request whoever sends it, before anybody is authenticated."""
    tokens.check_grant(request.grant_type)


def check_watch(request: pb.WatchTrustRequest) -> None:
    """Raises InvalidRequest for a sequence below 0, and for a hash that isn't one."""
    if request.after_sequence < 0:
        raise invalid("after_sequence", "must not be negative")
    if len(request.after_hash) not in (0, HASH_BYTES):
        raise invalid("after_hash", f"must be {HASH_BYTES} bytes, or empty")


def check_token(request: pb.IntrospectTokenRequest | pb.RevokeTokenRequest) -> None:
    tokens.check_token(request.token)
