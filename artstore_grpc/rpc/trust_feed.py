"""WatchTrust's messages: what watches.py tells, as it goes on the wire. A snapshot is encoded once for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TypeVar

from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.errors import OutOfRange
from artstore_grpc.model import AccountTrust, KeyState
from artstore_grpc.rpc.messages import jwk_message
from artstore_grpc.trust import Change, RevokedToken, Snapshot, Trust, TrustedKey, Voided
from artstore_grpc.watches import Beginning, News

T = TypeVar("T")

CHUNK = 4_000
"""Tokens, or accounts, in one chunk: with an identifier of 36 characters each under 256 KiB (docs/trust.md)."""

KEPT_SNAPSHOTS = 2

KEY_STATES = {state: pb.KeyState.Value(f"KEY_STATE_{state.name}") for state in KeyState}


def key_message(key: TrustedKey) -> pb.TrustedKey:
    jwk = jwk_message(key.jwk) if key.jwk else pb.JsonWebKey(kid=key.kid)
    return pb.TrustedKey(key=jwk, state=KEY_STATES[key.state])


def account_message(account: AccountTrust) -> pb.AccountTrust:
    state = accounts_pb.STATE_ACTIVE
    if account.refused:
        state = accounts_pb.STATE_DELETED if account.deleted else accounts_pb.STATE_SUSPENDED
    return pb.AccountTrust(account_id=account.id, state=state, epoch=account.epoch)


def news_message(news: News) -> pb.WatchTrustResponse:
    message = pb.WatchTrustResponse(sequence=news.sequence, hash=news.hash)
    if not news.changes:
        message.heartbeat.SetInParent()
    for change in news.changes:
        add(message.changes, change)
    return message


def add(changes: pb.TrustChanges, change: Change) -> None:
    match change:
        case TrustedKey():
            changes.keys.append(key_message(change))
        case RevokedToken(jti, exp):
            changes.revoked_tokens.add(jti=jti, exp=exp)
        case AccountTrust():
            changes.accounts.append(account_message(change))
        case Voided(account, jtis):
            changes.accounts.append(account_message(account))
            changes.revoked_tokens.extend(pb.RevokedToken(jti=jti) for jti in jtis)


def chunks(snapshot: Snapshot) -> Iterator[pb.WatchTrustResponse]:
    """A snapshot's messages: keys in the first chunk, then tokens, then accounts."""
    tokens, accounts = parted(snapshot.revoked), parted(snapshot.accounts)
    last = len(tokens) + len(accounts)
    for number in range(last + 1):
        part = pb.TrustSnapshot(chunk=number, last=number == last)
        if number == 0:
            part.keys.extend(key_message(key) for key in snapshot.keys)
        elif number <= len(tokens):
            part.revoked_tokens.extend(pb.RevokedToken(jti=jti, exp=exp) for jti, (exp, _) in tokens[number - 1])
        else:
            part.accounts.extend(account_message(account) for account in accounts[number - 1 - len(tokens)])
        yield pb.WatchTrustResponse(sequence=snapshot.sequence, hash=snapshot.hash, snapshot=part)


def parted(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


class Encoder:
    """Encodes what a watch tells. Snapshots are encoded once for all, since verifiers come back all at once, and the
    last two are kept: a reader that is slower than that starts over."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._snapshots: dict[Beginning, list[bytes]] = {}
        self._encoding = asyncio.Lock()

    async def encoded(self, told: AsyncGenerator[Beginning | News]) -> AsyncGenerator[bytes]:
        """The messages. Raises OutOfRange for a reader that was too slow."""
        async for each in told:
            if isinstance(each, News):
                yield news_message(each).SerializeToString()
                continue
            for number in range(await self._encode(each)):
                yield self._chunk(each, number)

    def _chunk(self, beginning: Beginning, number: int) -> bytes:
        made = self._snapshots.get(beginning)
        if made is None:
            raise OutOfRange(reason="FELL_BEHIND")
        return made[number]

    async def _encode(self, beginning: Beginning) -> int:
        """Sees to it that a snapshot's chunks are there, and says how many."""
        async with self._encoding:
            if beginning not in self._snapshots:
                snapshot = self._trust.snapshot()
                if (self._trust.generation, snapshot.sequence) != (beginning.generation, beginning.sequence):
                    raise OutOfRange(reason="FELL_BEHIND")
                made: list[bytes] = []
                for chunk in chunks(snapshot):
                    made.append(chunk.SerializeToString())
                    await asyncio.sleep(0)  # calls are answered between two chunks
                self._snapshots[beginning] = made
                while len(self._snapshots) > KEPT_SNAPSHOTS:
                    del self._snapshots[next(iter(self._snapshots))]
            return len(self._snapshots[beginning])
