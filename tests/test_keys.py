"""The keyring over a real store: what is verified once is remembered under a bound, until the keys change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from sqlalchemy import update

from artstore_grpc import keys
from artstore_grpc.key_material import generate, sealed
from artstore_grpc.keys import BadToken, Keyring
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.store import tables
from artstore_grpc.store.schema import upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault, new_root
from tests.installation import Clock

ISSUER = "https://issuer.example"


class Stand:
    """A keyring, its store and its clock."""

    def __init__(self, url: str) -> None:
        self.store, self.clock = SqlStore(url), Clock()
        self.vault = Vault(new_root())
        self.keyring = Keyring(self.store, self.vault, self.clock, algorithm="ES256", issuer=ISSUER)

    def token(self, jti: str = "a", lifetime: int = 600) -> str:
        now = int(self.clock().timestamp())
        claims = {"iss": ISSUER, "sub": "s", "aud": "a", "jti": jti, "iat": now, "nbf": now, "exp": now + lifetime}
        return self.keyring.sign(orjson.dumps(claims))

    async def move(self, kid: str, state: KeyState) -> None:
        async with self.store._database.transaction() as transaction:
            stored = tables.signing_keys
            await transaction.execute(update(stored).where(stored.c.kid == kid).values(state=state))


@asynccontextmanager
async def stand(folder: Path) -> AsyncIterator[Stand]:
    url = f"sqlite:///{folder / 'keys.db'}"
    await upgrade(url)
    made = Stand(url)
    try:
        await made.keyring.load()
        yield made
    finally:
        await made.store.close()


async def test_a_remembered_token_expires(tmp_path: Path) -> None:
    """At `exp` it is refused, like one that was never seen (RFC 7519 §4.1.4)."""
    async with stand(tmp_path) as made:
        token = made.token(lifetime=600)
        assert made.keyring.verify(token) == made.keyring.verify(token)
        made.clock.advance(timedelta(seconds=590))
        made.keyring.verify(token)
        made.clock.advance(timedelta(seconds=10))
        with pytest.raises(BadToken):
            made.keyring.verify(token)


async def test_as_many_as_the_bound_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was asked about longest ago goes first; refused ones are never kept."""
    monkeypatch.setattr(keys, "MAX_VERIFIED", 3)
    async with stand(tmp_path) as made:
        for number in range(9):
            made.keyring.verify(made.token(str(number)))
            with pytest.raises(BadToken):
                made.keyring.verify(made.token(str(number))[:-8] + "AAAAAAAA")
        assert [claims["jti"] for claims in made.keyring._verified.values()] == ["6", "7", "8"]


async def test_a_revoked_key_takes_its_tokens_along(tmp_path: Path) -> None:
    """Once the keys are read anew, remembered tokens of a key that is gone are refused and it is not published; those
    of a retired one are not."""
    async with stand(tmp_path) as made:
        old, token = made.keyring.active.stored, made.token()
        made.keyring.verify(token)
        async with made.store.unit() as unit:
            following = sealed(made.vault, generate("ES256"), datetime.now(UTC), 600)
            await unit.add_signing_key(replace(following, state=KeyState.ACTIVE))
        await made.move(old.kid, KeyState.RETIRED)
        await made.keyring.load()
        assert made.keyring.active.stored.kid != old.kid
        made.keyring.verify(token)
        await made.move(old.kid, KeyState.REVOKED)
        await made.keyring.load()
        with pytest.raises(BadToken):
            made.keyring.verify(token)
        assert old.kid not in {key["kid"] for key in made.keyring.public_keys()}
        made.keyring.verify(made.token("b"))


async def test_what_was_read_first_is_not_held_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two readings at once the one that began later counts: a key that was revoked in between signs nothing."""
    async with stand(tmp_path) as made:
        old = made.keyring.active.stored.kid
        new = replace(sealed(made.vault, generate("ES256"), made.clock(), 600), state=KeyState.ACTIVE)
        read, answered = made.store.signing_keys, asyncio.Event()

        async def slowly() -> list[SigningKey]:
            found = await read()
            monkeypatch.setattr(made.store, "signing_keys", read)
            await answered.wait()
            return found

        monkeypatch.setattr(made.store, "signing_keys", slowly)
        first = asyncio.create_task(made.keyring.reload())
        await asyncio.sleep(0.1)
        await made.move(old, KeyState.REVOKED)
        async with made.store.unit() as unit:
            await unit.add_signing_key(new)
        second = asyncio.create_task(made.keyring.reload())
        await asyncio.sleep(0.1)
        answered.set()
        await asyncio.gather(first, second)
        assert made.keyring.active.stored.kid == new.kid
        assert [key["kid"] for key in made.keyring.public_keys()] == [new.kid]
