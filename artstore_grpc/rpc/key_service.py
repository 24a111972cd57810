"""KeyService: parses, calls the use case, formats."""

from __future__ import annotations

from artstore.identity.v1 import key_service_pb2 as pb
from artstore.identity.v1.token_service_pb2 import KeyState

from artstore_grpc.call import Call, Caller
from artstore_grpc.errors import invalid
from artstore_grpc.key_policy import KeyPolicy
from artstore_grpc.model import SigningKey
from artstore_grpc.rpc.messages import jwk_message, timestamp
from artstore_grpc.signing_keys import SigningKeys


class KeyService:
    """The methods of artstore.identity.v1.KeyService, as the pipeline calls them."""

    def __init__(self, use_case: SigningKeys) -> None:
        self._keys = use_case

    async def ListSigningKeys(self, request: pb.ListSigningKeysRequest, call: Call) -> pb.ListSigningKeysResponse:
        return pb.ListSigningKeysResponse(signing_keys=[self._message(key) for key in await self._keys.list()])

    async def PrepareSigningKey(self, request: pb.PrepareSigningKeyRequest, call: Call) -> pb.PrepareSigningKeyResponse:
        return pb.PrepareSigningKeyResponse(signing_key=self._told(await self._keys.prepare(caller(call)), call))

    async def ActivateSigningKey(
        self, request: pb.ActivateSigningKeyRequest, call: Call
    ) -> pb.ActivateSigningKeyResponse:
        key = await self._keys.activate(kid(request), caller(call))
        return pb.ActivateSigningKeyResponse(signing_key=self._told(key, call))

    async def RetireSigningKey(self, request: pb.RetireSigningKeyRequest, call: Call) -> pb.RetireSigningKeyResponse:
        key = await self._keys.retire(kid(request), caller(call))
        gone = self._told(key, call)
        gone.purge_time.CopyFrom(gone.retire_time)
        return pb.RetireSigningKeyResponse(signing_key=gone)

    async def RevokeSigningKey(self, request: pb.RevokeSigningKeyRequest, call: Call) -> pb.RevokeSigningKeyResponse:
        revoked, active = await self._keys.revoke(kid(request), caller(call))
        return pb.RevokeSigningKeyResponse(signing_key=self._told(revoked, call), active_key=self._message(active))

    async def RotateSigningKey(self, request: pb.RotateSigningKeyRequest, call: Call) -> pb.RotateSigningKeyResponse:
        return pb.RotateSigningKeyResponse(signing_key=self._told(await self._keys.rotate(caller(call)), call))

    def _told(self, key: SigningKey, call: Call) -> pb.SigningKey:
        """A key as its message; the log line says which one it was."""
        call.fields = {"kid": key.kid, "state": key.state.value}
        return self._message(key)

    def _message(self, key: SigningKey) -> pb.SigningKey:
        return key_message(key, self._keys.policy)


def key_message(key: SigningKey, policy: KeyPolicy) -> pb.SigningKey:
    """A key, and what the settings say of its future."""
    return pb.SigningKey(
        kid=key.kid,
        algorithm=key.algorithm,
        state=KeyState.Value(f"KEY_STATE_{key.state.name}"),
        create_time=timestamp(key.create_time),
        activate_time=timestamp(key.activate_time),
        earliest_activate_time=timestamp(policy.earliest_activate_time(key)),
        retire_time=timestamp(key.retire_time),
        purge_time=timestamp(policy.purge_time(key)),
        public_key=jwk_message(key.public_jwk),
    )


def kid(request: pb.ActivateSigningKeyRequest | pb.RetireSigningKeyRequest | pb.RevokeSigningKeyRequest) -> str:
    """The key that a request names. Raises InvalidRequest where it names none."""
    if not request.kid:
        raise invalid("kid", "is missing")
    return request.kid


def caller(call: Call) -> Caller:
    """The authenticated caller; the policy table lets nobody else in here."""
    assert call.caller is not None
    return call.caller
