"""A caller of the API over one door, with the credentials it has: what cases are written with."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.api.doors import Door
from tests.installation import Account

GRANT = "client_credentials"


def basic(client_id: str, secret: str) -> str:
    """RFC 7617; ids and secrets of ours need no form-urlencoding."""
    return "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()


def role(name: str) -> int:
    return accounts_pb.Role.Value(f"ROLE_{name.upper()}") if name else accounts_pb.ROLE_UNSPECIFIED


def unique(prefix: str = "case") -> str:
    return f"{prefix} {uuid4().hex[:12]}"


@dataclass(frozen=True)
class Api:
    """The methods of the API, called over `door` with `authorization`."""

    door: Door
    issuer: str
    authorization: str = ""

    # Who calls

    def basic(self, account: Account) -> Api:
        """The same door, by an account's secret."""
        return replace(self, authorization=basic(account.client_id, account.secret))

    def bearer(self, account: Account, *, scope: str = "") -> Api:
        """The same door, by an account's token for the issuer."""
        token = self.token(account, scope=scope, audience=(self.issuer,))
        return replace(self, authorization=f"Bearer {token}")

    # TokenService

    def issue(
        self, account: Account | None = None, *, scope: str = "", audience: tuple[str, ...] = (), grant: str = GRANT
    ) -> tokens_pb.IssueTokenResponse:
        credentials = basic(account.client_id, account.secret) if account else self.authorization
        request = tokens_pb.IssueTokenRequest(grant_type=grant, scope=scope, audience=audience)
        response: tokens_pb.IssueTokenResponse = self.door.call("IssueToken", request, credentials)
        return response

    def token(self, account: Account, *, scope: str = "", audience: tuple[str, ...] = ()) -> str:
        return self.issue(account, scope=scope, audience=audience).access_token

    def introspect(self, account: Account, token: str) -> tokens_pb.IntrospectTokenResponse:
        request = tokens_pb.IntrospectTokenRequest(token=token)
        response: tokens_pb.IntrospectTokenResponse = self.door.call(
            "IntrospectToken", request, basic(account.client_id, account.secret)
        )
        return response

    def revoke(self, account: Account, token: str) -> None:
        request = tokens_pb.RevokeTokenRequest(token=token)
        self.door.call("RevokeToken", request, basic(account.client_id, account.secret))

    def keys(self) -> list[dict[str, str]]:
        """The JWKs, without what is unset."""
        found = self.door.call("GetJsonWebKeySet", tokens_pb.GetJsonWebKeySetRequest())
        return [{field.name: value for field, value in key.ListFields()} for key in found.keys]

    # ServiceAccountService

    def create(
        self, role_name: str = "user", *, request_id: str = "", **fields: Any
    ) -> accounts_pb.CreateServiceAccountResponse:
        message = accounts_pb.ServiceAccount(role=role(role_name), **({"name": unique()} | fields))
        request = accounts_pb.CreateServiceAccountRequest(service_account=message, request_id=request_id)
        response: accounts_pb.CreateServiceAccountResponse = self._call("CreateServiceAccount", request)
        return response

    def account(self, role_name: str = "user", **fields: Any) -> Account:
        """A new account with its secret."""
        made = self.create(role_name, **fields)
        return Account(
            made.service_account.id, made.service_account.client_id, made.client_secret, made.service_account
        )

    def get(self, id: str) -> accounts_pb.ServiceAccount:
        request = accounts_pb.GetServiceAccountRequest(id=id)
        return self._call("GetServiceAccount", request).service_account

    def list(self, **fields: Any) -> accounts_pb.ListServiceAccountsResponse:
        return self._call("ListServiceAccounts", accounts_pb.ListServiceAccountsRequest(**fields))

    def pages(self, **fields: Any) -> list[list[accounts_pb.ServiceAccount]]:
        """Every page of a list, to its end."""
        found, token = [], ""
        while True:
            page = self.list(page_token=token, **fields)
            found.append(list(page.service_accounts))
            token = page.next_page_token
            if not token:
                return found

    def update(self, id: str, *paths: str, **fields: Any) -> accounts_pb.ServiceAccount:
        message = accounts_pb.ServiceAccount(id=id, **fields)
        request = accounts_pb.UpdateServiceAccountRequest(service_account=message, update_mask=FieldMask(paths=paths))
        return self._call("UpdateServiceAccount", request).service_account

    def delete(self, id: str, etag: str = "") -> accounts_pb.ServiceAccount:
        return self._call(
            "DeleteServiceAccount", accounts_pb.DeleteServiceAccountRequest(id=id, etag=etag)
        ).service_account

    def undelete(self, id: str, etag: str = "") -> accounts_pb.ServiceAccount:
        return self._verb("Undelete", id, etag)

    def suspend(self, id: str, etag: str = "") -> accounts_pb.ServiceAccount:
        return self._verb("Suspend", id, etag)

    def activate(self, id: str, etag: str = "") -> accounts_pb.ServiceAccount:
        return self._verb("Activate", id, etag)

    def rotate(
        self, id: str, *, overlap: timedelta | None = None, request_id: str = "", etag: str = ""
    ) -> accounts_pb.RotateSecretResponse:
        request = accounts_pb.RotateSecretRequest(id=id, request_id=request_id, etag=etag)
        if overlap is not None:
            request.overlap.CopyFrom(Duration(seconds=int(overlap.total_seconds())))
        return self._call("RotateSecret", request)

    def rotated(self, account: Account, *, overlap: timedelta | None = None) -> Account:
        """The account with the secret that a rotation gave it."""
        response = self.rotate(account.id, overlap=overlap)
        return replace(account, secret=response.client_secret, message=response.service_account)

    def revoke_secret(self, id: str, secret_id: str, etag: str = "") -> accounts_pb.ServiceAccount:
        request = accounts_pb.RevokeSecretRequest(id=id, secret_id=secret_id, etag=etag)
        return self._call("RevokeSecret", request).service_account

    def imported(
        self, *accounts: accounts_pb.ImportedServiceAccount, validate_only: bool = False
    ) -> list[accounts_pb.ImportResult]:
        request = accounts_pb.ImportServiceAccountsRequest(service_accounts=accounts, validate_only=validate_only)
        return list(self._call("ImportServiceAccounts", request).results)

    def _verb(self, verb: str, id: str, etag: str) -> accounts_pb.ServiceAccount:
        request = getattr(accounts_pb, f"{verb}ServiceAccountRequest")(id=id, etag=etag)
        return self._call(f"{verb}ServiceAccount", request).service_account

    def _call(self, method: str, request: Any) -> Any:
        return self.door.call(method, request, self.authorization)
