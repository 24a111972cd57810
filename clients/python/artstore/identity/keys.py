"""The client's methods on signing keys: KeyService, method by method. They need `identity.keys.write`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from artstore.identity.accounts import AccountMethods
from artstore.identity.v1 import key_service_pb2 as pb
from artstore.identity.v1.key_service_pb2_grpc import KeyServiceStub

if TYPE_CHECKING:  # known to the type checker only: at run time there is one class for both kinds of channel
    from artstore.identity.v1.key_service_pb2_grpc import KeyServiceAsyncStub


class KeyMethods(AccountMethods):
    """Signing keys. A key is named by its `kid`."""

    @property
    def _signing_keys(self) -> KeyServiceAsyncStub:
        return KeyServiceStub(self.channel)

    async def list_signing_keys(self) -> list[pb.SigningKey]:
        """Every key that is not gone, the oldest first."""
        answer = await self._administer(self._signing_keys.ListSigningKeys, pb.ListSigningKeysRequest())
        return list(answer.signing_keys)

    async def prepare_signing_key(self) -> pb.SigningKey:
        """The key that can sign next: the one that is prepared, else a new one."""
        answer = await self._administer(self._signing_keys.PrepareSigningKey, pb.PrepareSigningKeyRequest())
        return answer.signing_key

    async def activate_signing_key(self, kid: str) -> pb.SigningKey:
        """Has a prepared key sign from now on. Raises FailedPrecondition before its `earliest_activate_time`."""
        request = pb.ActivateSigningKeyRequest(kid=kid)
        return (await self._administer(self._signing_keys.ActivateSigningKey, request)).signing_key

    async def retire_signing_key(self, kid: str) -> pb.SigningKey:
        """Gives up a prepared key. Raises FailedPrecondition for any other."""
        request = pb.RetireSigningKeyRequest(kid=kid)
        return (await self._administer(self._signing_keys.RetireSigningKey, request)).signing_key

    async def revoke_signing_key(self, kid: str) -> pb.RevokeSigningKeyResponse:
        """Ends a key at once, and with it every token that it signed; the answer says which key signs now."""
        request = pb.RevokeSigningKeyRequest(kid=kid)
        return await self._administer(self._signing_keys.RevokeSigningKey, request)

    async def rotate_signing_key(self) -> pb.SigningKey:
        """Has the next key sign as soon as verifiers know it: now, or at the `activate_time` that is answered."""
        answer = await self._administer(self._signing_keys.RotateSigningKey, pb.RotateSigningKeyRequest())
        return answer.signing_key
