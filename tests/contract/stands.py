"""An authority as the cases of the API know an installation: the fake one behind the same names as the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from artstore.identity.testing import FakeAuthority
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import key_service_pb2_grpc, service_account_service_pb2_grpc, token_service_pb2_grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1.service_account_service_pb2 import ServiceAccount

from tests.installation import Account, Installation
from tests.trust.stand import settled

KINDS = ("real", "fake")
SECONDS = 10.0


@dataclass
class Started:
    grpc_address: str


@dataclass
class Administrator:
    client_id: str
    client_secret: str


class Fake:
    """A fake authority with an administrator. What only a real installation has (its log, its settings, its gateway) is
    missing, so that a case which looks there fails."""

    kind = "fake"
    bearer = Installation.bearer
    token = Installation.token
    account = Installation.account

    def __init__(self, authority: FakeAuthority) -> None:
        self.authority = authority
        first = authority.account("administrator", "admin")
        self.administrator = Administrator(first.client_id, first.client_secret)
        self.started = Started(authority.target)
        self.issuer = authority.issuer
        self.clock = authority.clock
        self.channel = grpc.insecure_channel(authority.target)
        self.tokens = token_service_pb2_grpc.TokenServiceStub(self.channel)
        self.accounts = service_account_service_pb2_grpc.ServiceAccountServiceStub(self.channel)

    def signing_key(self) -> Any:
        """The private key: found inside, since no door leads to it."""
        return self.authority._parts.keyring.active.pair

    def rotate_key(self) -> None:
        self.authority.rotate_key()

    def revoke_key(self, kid: str) -> None:
        self.authority.revoke_key(kid)


class Real(Installation):
    """A real installation whose next key may sign at once."""

    kind = "real"

    def rotate_key(self) -> None:
        """By the verb, with the clock moved past the time for which verifiers may keep a key set."""
        settled(self)  # the next key is there, and has been for as long as the clock is moved
        before = self._active()
        self.clock.advance(timedelta(minutes=10))
        self._keys("RotateSigningKey", keys_pb.RotateSigningKeyRequest())
        deadline = time.monotonic() + SECONDS
        while self._active() == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def revoke_key(self, kid: str) -> None:
        self._keys("RevokeSigningKey", keys_pb.RevokeSigningKeyRequest(kid=kid))

    def _active(self) -> str:
        keys = self._keys("ListSigningKeys", keys_pb.ListSigningKeysRequest()).signing_keys
        return next(key.kid for key in keys if key.state == tokens_pb.KEY_STATE_ACTIVE)

    def _keys(self, method: str, request: Any) -> Any:
        stub = key_service_pb2_grpc.KeyServiceStub(self.channel)
        return getattr(stub, method)(request, metadata=self.bearer())


Stand = Real | Fake
Differs = Callable[[str], None]
"""As the fixture `differs`."""


@contextmanager
def opened(kind: str, folder: Path, **settings: Any) -> Iterator[Stand]:
    """A stand of its own."""
    if kind == "real":
        with Real(folder, drain_grace=timedelta(seconds=1), **settings) as service:
            yield service
        return
    with FakeAuthority(http=True, **settings) as authority:
        stand = Fake(authority)
        yield stand
        stand.channel.close()


def administrator(stand: Stand) -> Account:
    known = stand.administrator
    return Account(known.client_id, known.client_id, known.client_secret, ServiceAccount())
