"""What a token source asks of the service: a token by its credentials (RFC 6749 §4.4), a new secret by the old one.

Pure: every method is steps (steps.py).
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from artstore.identity.assertions import ASSERTION_TYPE, client_assertion
from artstore.identity.connection import basic_authorization
from artstore.identity.credentials import Credentials, CredentialsProvider, Rereadable
from artstore.identity.errors import InvalidClient
from artstore.identity.steps import Call, Steps, Work
from artstore.identity.token_cache import Wanted
from artstore.identity.tokens import CLIENT_CREDENTIALS
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1.service_account_service_pb2_grpc import ServiceAccountServiceStub
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub
from google.protobuf.duration_pb2 import Duration


class Issued(NamedTuple):
    """An answer, and the credentials that it was given to."""

    credentials: Credentials
    answer: tokens_pb.IssueTokenResponse

    def __repr__(self) -> str:
        return f"Issued({self.credentials!r})"


class Exchanges:
    """The requests of one source to one service."""

    def __init__(self) -> None:
        self._issuer = ""

    def token(self, provider: CredentialsProvider, wanted: Wanted) -> Steps[Issued]:
        """A token by the provider's credentials. Where they are refused and others are there meanwhile, since another
        replica rotated, by those. Raises IdentityError, CredentialsError."""
        credentials = yield Work(provider.current)
        try:
            return (yield from self.issue(credentials, wanted))
        except InvalidClient:
            again: Credentials = yield Work(provider.reread if isinstance(provider, Rereadable) else provider.current)
            if again.proves_like(credentials):
                raise
        return (yield from self.issue(again, wanted))

    def issue(self, credentials: Credentials, wanted: Wanted) -> Steps[Issued]:
        """A token by these credentials and no others. Raises IdentityError."""
        request = tokens_pb.IssueTokenRequest(
            grant_type=CLIENT_CREDENTIALS, scope=wanted.scope, audience=wanted.audience
        )
        if credentials.private_key is None:
            request.client_id, request.client_secret = credentials.client_id, credentials.client_secret
        else:
            issuer = credentials.issuer or (yield from self._issuer_of_the_service())
            request.client_assertion_type = ASSERTION_TYPE
            request.client_assertion = client_assertion(credentials.client_id, issuer, credentials.private_key)
        return Issued(credentials, (yield Call(TokenServiceStub, "IssueToken", request)))

    def rotate(
        self, credentials: Credentials, request_id: str, overlap: timedelta
    ) -> Steps[accounts_pb.RotateSecretResponse]:
        """A new secret for the account, by its present one. Raises IdentityError."""
        duration = Duration()
        duration.FromTimedelta(overlap)
        request = accounts_pb.RotateSecretRequest(id=credentials.client_id, overlap=duration, request_id=request_id)
        basic = basic_authorization(credentials.client_id, credentials.client_secret)
        answer: accounts_pb.RotateSecretResponse = yield Call(
            ServiceAccountServiceStub, "RotateSecret", request, (("authorization", basic),)
        )
        return answer

    def _issuer_of_the_service(self) -> Steps[str]:
        if not self._issuer:
            answer = yield Call(TokenServiceStub, "GetServerMetadata", tokens_pb.GetServerMetadataRequest())
            self._issuer = answer.issuer
        return self._issuer
