"""request_id (AIP-155): the same answer for ten minutes, ALREADY_EXISTS for a day after that.

The answer, secret included, is sealed under a key that needs the request_id, of which only an HMAC is stored: who
reads the database can't open it, key-encryption key or not.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, TypeVar

from artstore_grpc.errors import AlreadyExists, InvalidRequest
from artstore_grpc.model import Account, PublicKey, Replay, Role, RotationPolicy, Secret
from artstore_grpc.store.protocol import Unit
from artstore_grpc.vault import Vault, WrongKey

ANSWERED_FOR = timedelta(minutes=10)
KNOWN_FOR = ANSWERED_FOR + timedelta(hours=24)
CONSTRAINT = "pk_replays"

LEFT_OUT = frozenset({"hash", "tag", "secrets", "uses", "delivery"})
"""What is no part of an answer, or is put into it by itself."""

T = TypeVar("T", Account, Secret)


@dataclass(frozen=True, slots=True)
class Retry:
    """A request that may be sent again: `content` is the request without its request_id, in bytes."""

    request_id: str = field(repr=False)
    caller_id: str
    method: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Create and RotateSecret answer. `repr` hides the secret."""

    account: Account
    secret: Secret | None
    """The new one; None for an account that was made without."""
    client_secret: str = field(repr=False)
    previous: tuple[Secret, ...] = ()


class Replays:
    """Remembers answers in the unit that makes them, and gives them again."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def key(self, retry: Retry) -> bytes:
        parts = (b"key", retry.caller_id.encode(), retry.method.encode(), retry.request_id.encode())
        return self._vault.request_digest(*parts)

    def again(self, stored: Replay | None, retry: Retry, now: datetime) -> Answer | None:
        """The answer given before; None for a new request. Raises InvalidRequest for another request with this id,
        AlreadyExists when the answer is no longer kept."""
        if stored is None:
            return None
        if stored.digest != self._digest(retry):
            raise InvalidRequest("The request_id was used for another request.", reason="REQUEST_ID_REUSED")
        spent = AlreadyExists("This request was carried out; its answer is no longer kept.", reason="REQUEST_ID_SPENT")
        if stored.sealed is None or now - stored.create_time > ANSWERED_FOR:
            raise spent
        try:
            return decoded(self._vault.open_answer(stored.sealed, retry.request_id, stored.key.hex()))
        except WrongKey:
            raise spent from None

    async def keep(self, unit: Unit, retry: Retry, answer: Answer, now: datetime) -> None:
        """Stores the answer with the unit. Raises Conflict(CONSTRAINT) when another unit was first."""
        key = self.key(retry)
        sealed = self._vault.seal_answer(encoded(answer), retry.request_id, key.hex())
        await unit.add_replay(Replay(key, self._digest(retry), answer.account.id, now, sealed))

    def _digest(self, retry: Retry) -> bytes:
        return self._vault.request_digest(b"content", retry.content)


def encoded(answer: Answer) -> bytes:
    """An answer as JSON, without hashes and tags."""
    account = plain(answer.account) | {
        "secrets": [plain(secret) for secret in answer.account.secrets],
        "public_keys": [asdict(key) for key in answer.account.public_keys],
        "rotation_policy": answer.account.rotation_policy.plain(),
    }
    secret = plain(answer.secret) if answer.secret else None
    return json.dumps([account, secret, answer.client_secret, [plain(each) for each in answer.previous]]).encode()


def decoded(text: bytes) -> Answer:
    account, secret, client_secret, previous = json.loads(text)
    account |= {
        "secrets": [restored(Secret, s) for s in account["secrets"]],
        "public_keys": [PublicKey(**key) for key in account.get("public_keys", ())],
        "role": Role(account["role"]),
        "rotation_policy": RotationPolicy.restored(account.get("rotation_policy")),
    }
    return Answer(
        restored(Account, account),
        restored(Secret, secret) if secret else None,
        client_secret,
        tuple(restored(Secret, s) for s in previous),
    )


def plain(value: Account | Secret) -> dict[str, Any]:
    kept = {f.name: getattr(value, f.name) for f in fields(value) if f.name not in LEFT_OUT}
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in kept.items()}


def restored(kind: type[T], values: dict[str, Any]) -> T:
    known: dict[str, Any] = {"hash": ""} if kind is Secret else {}
    for name, value in values.items():
        if name.endswith("_time") and value is not None:
            known[name] = datetime.fromisoformat(value)
        else:
            known[name] = tuple(value) if isinstance(value, list) else value
    return kind(**known)
