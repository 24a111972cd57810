"""What one process knows of the keys while others change them: how fresh its key set is, what its tokens need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.call import Call
from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.keys import BadToken
from artstore_grpc.policy import PACKAGE
from tests.keys.stand import SECOND, Installation, Process, operator


@pytest.fixture
def installation(store_url: str) -> Installation:
    return Installation(store_url)


@pytest_asyncio.fixture
async def pair(installation: Installation) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes of one installation."""
    async with installation.process() as here, installation.process() as there:
        await here.turn()
        await there.turn()
        yield here, there


async def max_age(process: Process) -> int:
    """What the process tells a verifier that asks for the key set now."""
    call = Call(f"{PACKAGE}.TokenService/GetJsonWebKeySet", "127.0.0.1")
    answer = await process.parts.pipeline(pb.GetJsonWebKeySetRequest(), call)
    assert isinstance(answer, pb.GetJsonWebKeySetResponse)
    return int(answer.max_age.seconds)


async def test_staleness_shortens_max_age(pair: tuple[Process, Process]) -> None:
    """A key set may be kept for `jwks_max_age` less what has passed since the process last heard of the store, 0 once
    that is as much; the next poll makes it whole."""
    here, there = pair
    assert await max_age(there) == 60
    there.time.advance(20.5 * SECOND)
    assert await max_age(there) == 39
    await here.turn()
    assert (await max_age(here), await max_age(there)) == (60, 39)
    there.time.advance(60 * SECOND)
    assert await max_age(there) == 0
    await there.parts.replica.poll()
    assert await max_age(there) == 60


async def test_keys_that_could_not_be_read_are_read_at_the_next_poll(
    pair: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that saw a change of the keys and failed to read them is no success: the key set is as old as before, and
    the next poll reads them though it finds no new row."""
    here, there = pair
    standby = await here.ready()
    await here.keys.rotate(operator())
    stale = there.parts.replica.staleness_seconds
    real = there.parts.store.signing_keys

    async def down() -> list[object]:
        raise StoreUnavailable("down")

    monkeypatch.setattr(there.parts.store, "signing_keys", down)
    await there.parts.replica.poll()
    assert there.signs_with != standby.kid
    assert (there.parts.replica.outage, there.parts.replica.staleness_seconds) == (True, stale)
    monkeypatch.setattr(there.parts.store, "signing_keys", real)
    await there.parts.replica.poll()
    assert there.signs_with == standby.kid
    assert (there.parts.replica.outage, there.parts.replica.staleness_seconds) == (False, 0)


async def test_one_poll_brings_a_rotation(pair: tuple[Process, Process]) -> None:
    """A process signs with the new key after its next poll, and had it published since the one before."""
    here, there = pair
    standby = await here.ready()
    await there.parts.replica.poll()
    assert standby.kid in there.published
    await here.keys.rotate(operator())
    token = here.token()
    there.parts.keyring.verify(token)  # before it has heard of the rotation
    assert there.signs_with != standby.kid
    await there.parts.replica.poll()
    assert there.signs_with == standby.kid


async def test_one_poll_brings_a_revocation(pair: tuple[Process, Process]) -> None:
    """The key's tokens are refused by the other process, and it publishes the key no more, after its next poll."""
    here, there = pair
    token, kid = there.token(), there.signs_with
    await here.keys.revoke(kid, operator())
    await there.parts.replica.poll()
    with pytest.raises(BadToken):
        there.parts.keyring.verify(token)
    assert kid not in there.published
    assert there.signs_with == here.signs_with != kid


async def test_a_longer_token_life_is_noted_before_it_is_given(
    pair: tuple[Process, Process], installation: Installation
) -> None:
    """A process whose setting is longer says so to the store as it starts, of the keys that sign or are to; retired
    ones keep what they have. A shorter setting takes nothing back."""
    here, _ = pair
    retired = here.signs_with
    await here.ready()
    await here.keys.rotate(operator())
    await here.keys.tick()
    async with installation.process(token_lifetime=timedelta(hours=2)):
        lives = {key.kid: key.token_lifetime_seconds for key in await here.stored()}
    assert lives.pop(retired) == 600
    assert set(lives.values()) == {7200}
    await here.turn()
    assert {key.token_lifetime_seconds for key in await here.stored() if key.kid != retired} == {7200}


async def test_who_has_the_lease_decides(pair: tuple[Process, Process], installation: Installation) -> None:
    """During a rolling change of the algorithm one process decides: another with other settings makes no key until the
    first is gone, and then at once."""
    here, _ = pair
    before = await here.stored()
    async with installation.process(signing_algorithm="EdDSA") as other:
        for _ in range(5):
            here.time.advance(10 * SECOND)
            await here.turn()
            await other.turn()
        assert await here.stored() == before
        await here.keys.resign()
        await other.turn()
        assert [key.algorithm for key in await here.prepared()] == ["ES256", "EdDSA"]
