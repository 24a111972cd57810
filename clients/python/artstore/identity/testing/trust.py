"""What verifiers must know, and every change to it in order: the rows behind WatchTrust. No I/O.

Each change is a row with a sequence and a hash that depends on all before it, so that a verifier that was away goes on
where it was, and one of another authority starts over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from artstore.identity.testing.accounts import Account
from artstore.identity.testing.keys import SigningKey
from artstore.identity.testing.refusals import invalid, refused
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb

HASH_BYTES = 32
CHUNK = 4_000
"""Tokens, or accounts, in one chunk of a snapshot: under 256 KiB."""


@dataclass(frozen=True)
class Row:
    """A change: `told` is what verifiers are told of it, empty where it is nothing to them."""

    sequence: int
    hash: bytes
    told: pb.TrustChanges


class Trust:
    """Keys, revoked tokens and accounts as verifiers know them, as of the last row. `moved` is called after each."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self._moved = moved
        self._rows = [Row(0, bytes(HASH_BYTES), pb.TrustChanges())]
        self._keys: dict[str, pb.TrustedKey] = {}
        self._revoked: dict[str, int] = {}
        self._accounts: dict[str, pb.AccountTrust] = {}

    @property
    def head(self) -> Row:
        return self._rows[-1]

    def is_revoked(self, jti: str) -> bool:
        return jti in self._revoked

    def revoked(self) -> dict[str, int]:
        """Each revoked token's `jti`, and its `exp`."""
        return dict(self._revoked)

    def accounts(self) -> list[pb.AccountTrust]:
        """The accounts that are refused, or whose older tokens are."""
        return list(self._accounts.values())

    def key_changed(self, key: SigningKey) -> None:
        trusted = key.trusted()
        if trusted.state == pb.KEY_STATE_REVOKED:
            self._keys.pop(key.kid, None)
        else:
            self._keys[key.kid] = trusted
        self._record(pb.TrustChanges(keys=[trusted]))

    def revoke(self, jti: str, exp: int) -> None:
        """Revokes a token; for one that is revoked already there is nothing to tell."""
        if jti in self._revoked:
            return
        self._revoked[jti] = exp
        self._record(pb.TrustChanges(revoked_tokens=[pb.RevokedToken(jti=jti, exp=exp)]))

    def account_changed(self, account: Account) -> None:
        """Takes note of an account; verifiers are told where they must know."""
        now = account_trust(account)
        harmless = now.state == accounts_pb.STATE_ACTIVE and not now.epoch
        before = self._accounts.get(account.id)
        if before == now or (before is None and harmless):
            self._record(pb.TrustChanges())
            return
        if harmless:
            del self._accounts[account.id]
        else:
            self._accounts[account.id] = now
        self._record(pb.TrustChanges(accounts=[now]))

    def _record(self, told: pb.TrustChanges) -> None:
        before = self.head
        digest = hashlib.sha256(before.hash + told.SerializeToString(deterministic=True)).digest()
        self._rows.append(Row(before.sequence + 1, digest, told))
        self._moved()

    def snapshot(self) -> Iterator[pb.WatchTrustResponse]:
        """All of it: keys in the first chunk, then tokens, then accounts."""
        head, revoked, accounts = self.head, list(self._revoked.items()), self.accounts()
        parts = [pb.TrustSnapshot(keys=self._keys.values())]
        for at in range(0, len(revoked), CHUNK):
            tokens = [pb.RevokedToken(jti=jti, exp=exp) for jti, exp in revoked[at : at + CHUNK]]
            parts.append(pb.TrustSnapshot(revoked_tokens=tokens))
        parts += [pb.TrustSnapshot(accounts=accounts[at : at + CHUNK]) for at in range(0, len(accounts), CHUNK)]
        for number, part in enumerate(parts):
            part.chunk, part.last = number, part is parts[-1]
            yield pb.WatchTrustResponse(sequence=head.sequence, hash=head.hash, snapshot=part)

    def since(self, sequence: int) -> pb.WatchTrustResponse:
        """What has changed after a row; without changes a heartbeat."""
        message = pb.WatchTrustResponse(sequence=self.head.sequence, hash=self.head.hash)
        told = pb.TrustChanges()
        for row in self._rows[sequence + 1 :]:
            told.MergeFrom(row.told)
        if told.ByteSize():
            message.changes.CopyFrom(told)
        else:
            message.heartbeat.SetInParent()
        return message

    def require(self, sequence: int, hash: bytes) -> None:
        """Refuses a row that isn't one of this authority's to go on from."""
        if sequence >= len(self._rows) or (hash and hash != self._rows[sequence].hash):
            raise refused("SEQUENCE_UNKNOWN")


def account_trust(account: Account) -> pb.AccountTrust:
    state = accounts_pb.STATE_ACTIVE
    if account.delete_time:
        state = accounts_pb.STATE_DELETED
    elif account.suspended:
        state = accounts_pb.STATE_SUSPENDED
    return pb.AccountTrust(account_id=account.id, state=state, epoch=account.epoch)


def check_watch(request: pb.WatchTrustRequest) -> None:
    if request.after_sequence < 0:
        raise invalid("after_sequence", "must not be negative")
    if len(request.after_hash) not in (0, HASH_BYTES):
        raise invalid("after_hash", f"must be {HASH_BYTES} bytes, or empty")
