"""The client's methods on service accounts: ServiceAccountService, method by method.

They need an access token whose sole audience is the issuer. It is got on the first call and kept until most of its
life has passed, or until the service refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from artstore.identity.clocks import steady_seconds
from artstore.identity.connection import Answer, Metadata, basic_authorization
from artstore.identity.errors import InvalidTarget, InvalidToken, PermissionDenied
from artstore.identity.tokens import TokenMethods
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1.service_account_service_pb2_grpc import ServiceAccountServiceStub
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

if TYPE_CHECKING:  # known to the type checker only: at run time there is one class for both kinds of channel
    from artstore.identity.v1.service_account_service_pb2_grpc import ServiceAccountServiceAsyncStub

KEPT_FRACTION = 0.8
"""How much of an admin token's life it is used for: the rest covers slow calls and clocks that differ."""


class AccountMethods(TokenMethods):
    """Service accounts and their secrets. An account is named by its id or its `client_id`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._admin_token = ""
        self._admin_token_deadline = 0.0
        self._admin_token_lock = asyncio.Lock()

    @property
    def _accounts(self) -> ServiceAccountServiceAsyncStub:
        return ServiceAccountServiceStub(self.channel)

    async def create_service_account(
        self, service_account: pb.ServiceAccount, *, request_id: str = "", without_secret: bool = False
    ) -> pb.CreateServiceAccountResponse:
        """Creates an account; the answer has its first secret, shown this once, unless `without_secret` is asked for an
        account with `public_keys`.

        `request_id`, a random UUID, makes a retry safe (AIP-155). Raises AlreadyExists when the name is taken.
        """
        request = pb.CreateServiceAccountRequest(
            service_account=service_account, request_id=request_id, without_secret=without_secret
        )
        return await self._administer(self._accounts.CreateServiceAccount, request)

    async def get_service_account(self, id: str) -> pb.ServiceAccount:
        """Reads an account, a deleted one too. Raises NotFound."""
        request = pb.GetServiceAccountRequest(id=id)
        return (await self._administer(self._accounts.GetServiceAccount, request)).service_account

    async def list_service_accounts(
        self, *, filter: str = "", show_deleted: bool = False, page_size: int = 0
    ) -> AsyncIterator[pb.ServiceAccount]:
        """Every account that matches (AIP-160), in the order they were created; asks for each page when it is reached.

        `page_size` 0 leaves it to the service, at most 1,000.
        """
        request = pb.ListServiceAccountsRequest(filter=filter, show_deleted=show_deleted, page_size=page_size)
        while True:
            page = await self.service_accounts_page(request)
            for account in page.service_accounts:
                yield account
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def service_accounts_page(self, request: pb.ListServiceAccountsRequest) -> pb.ListServiceAccountsResponse:
        """One page of accounts, for who goes on by `next_page_token` at another time."""
        return await self._administer(self._accounts.ListServiceAccounts, request)

    async def update_service_account(
        self, service_account: pb.ServiceAccount, *, update_mask: Iterable[str] = ()
    ) -> pb.ServiceAccount:
        """Changes the fields that the mask names of the account with that `id`; empty: those that are set (AIP-134).

        A non-empty `etag` must be the present one, else EtagMismatch.
        """
        request = pb.UpdateServiceAccountRequest(
            service_account=service_account, update_mask=FieldMask(paths=list(update_mask))
        )
        return (await self._administer(self._accounts.UpdateServiceAccount, request)).service_account

    async def delete_service_account(self, id: str, *, etag: str = "") -> pb.ServiceAccount:
        """Deletes an account; it is purged after 30 days, and until then restorable."""
        request = pb.DeleteServiceAccountRequest(id=id, etag=etag)
        return (await self._administer(self._accounts.DeleteServiceAccount, request)).service_account

    async def undelete_service_account(self, id: str, *, etag: str = "") -> pb.ServiceAccount:
        """Restores a deleted account. Raises FailedPrecondition when it is not deleted."""
        request = pb.UndeleteServiceAccountRequest(id=id, etag=etag)
        return (await self._administer(self._accounts.UndeleteServiceAccount, request)).service_account

    async def suspend_service_account(self, id: str, *, etag: str = "") -> pb.ServiceAccount:
        """Suspends an account: it is refused everywhere until it is activated."""
        request = pb.SuspendServiceAccountRequest(id=id, etag=etag)
        return (await self._administer(self._accounts.SuspendServiceAccount, request)).service_account

    async def activate_service_account(self, id: str, *, etag: str = "") -> pb.ServiceAccount:
        """Activates a suspended account."""
        request = pb.ActivateServiceAccountRequest(id=id, etag=etag)
        return (await self._administer(self._accounts.ActivateServiceAccount, request)).service_account

    async def rotate_secret(
        self,
        id: str,
        *,
        overlap: timedelta | None = None,
        revoke_tokens: bool = False,
        etag: str = "",
        request_id: str = "",
    ) -> pb.RotateSecretResponse:
        """Makes a new secret, shown this once; the old one lives on for `overlap` (0 to 30 days; None: 24 hours).

        `revoke_tokens`, with an `overlap` of 0 only, also makes every token void that the account was issued before.
        With this client's own `client_id` it authenticates by its secret or its key, since no account may rotate with
        an access token of its own; a client with a secret uses the new one from then on (one with
        `credentials` does not: there a TokenSource rotates). Raises FailedPrecondition with two in use.
        """
        await self._ask_provider()
        request = pb.RotateSecretRequest(
            id=id, etag=etag, overlap=_duration(overlap), request_id=request_id, revoke_tokens=revoke_tokens
        )
        if id == self.client_id and self._private_key is not None:
            for name, value in (await self._credentials_fields()).items():
                setattr(request, name, value)
            return await self.call(self._accounts.RotateSecret, request)
        if id != self.client_id or not self._client_secret:
            return await self._administer(self._accounts.RotateSecret, request)
        basic = basic_authorization(self.client_id, self._client_secret)
        answer = await self.call(self._accounts.RotateSecret, request, (("authorization", basic),))
        self._client_secret = answer.client_secret
        return answer

    async def revoke_secret(self, id: str, secret_id: str, *, etag: str = "") -> pb.ServiceAccount:
        """Ends a secret now; `secret_id` as the account's `secrets` list it."""
        request = pb.RevokeSecretRequest(id=id, etag=etag, secret_id=secret_id)
        return (await self._administer(self._accounts.RevokeSecret, request)).service_account

    async def import_service_accounts(
        self, service_accounts: Iterable[pb.ImportedServiceAccount], *, validate_only: bool = False
    ) -> list[pb.ImportResult]:
        """Creates accounts that another system had, with its client ids and bcrypt hashes: 1 to 100, in at most 64 KiB.

        What became of each, in order: one that can't be created has an `error`, and the others are created all the
        same. It is safe to call it again: what was imported before is UNCHANGED. `validate_only` changes nothing.
        """
        request = pb.ImportServiceAccountsRequest(service_accounts=service_accounts, validate_only=validate_only)
        return list((await self._administer(self._accounts.ImportServiceAccounts, request)).results)

    async def _administer(self, method: Callable[..., Awaitable[Answer]], request: object) -> Answer:
        """Calls a method with an admin token; a token that was kept and is refused is replaced once."""
        kept = self._admin_token
        try:
            return await self.call(method, request, await self._bearer())
        except InvalidToken:
            if not kept:
                raise
        self._admin_token_deadline = 0.0
        return await self.call(method, request, await self._bearer())

    async def _bearer(self) -> Metadata:
        async with self._admin_token_lock:
            if steady_seconds() >= self._admin_token_deadline:
                await self._get_admin_token()
            return (("authorization", f"Bearer {self._admin_token}"),)

    async def _get_admin_token(self) -> None:
        started = steady_seconds()
        try:
            answer = await self.issue_token(audience=[await self.issuer()])
        except InvalidTarget as error:
            # To the caller of an account method this is no wrong audience: it named none.
            message = "This account may not manage accounts."
            raise PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", message) from error
        self._admin_token = answer.access_token
        self._admin_token_deadline = started + answer.expires_in * KEPT_FRACTION


def _duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
