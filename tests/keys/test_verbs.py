"""What each verb does to a key in each state, over both stores; what becomes of tokens; what the ledger says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import product

import pytest
import pytest_asyncio
from sqlalchemy import update

from artstore_grpc.errors import FailedPrecondition, IdentityError
from artstore_grpc.keys import BadToken
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.store import tables
from artstore_grpc.vault import Vault, new_root
from tests.keys.stand import SECOND, Installation, Process, operator

UNKNOWN = "unknown"
YOUNG = "prepared just now"
PREPARED = "prepared long enough"
STATES = (YOUNG, PREPARED, "active", "retired", "revoked", UNKNOWN)
VERBS = ("activate", "retire", "revoke")

TOO_YOUNG, NOT_PREPARED = "KEY_NOT_PUBLISHED_LONG_ENOUGH", "KEY_NOT_PREPARED"
GONE = "gone"
MATRIX = {
    ("activate", YOUNG): TOO_YOUNG,
    ("activate", PREPARED): "active",
    ("activate", "active"): NOT_PREPARED,
    ("activate", "retired"): NOT_PREPARED,
    ("activate", "revoked"): NOT_PREPARED,
    ("retire", YOUNG): GONE,
    ("retire", PREPARED): GONE,
    ("retire", "active"): "ACTIVATE_ANOTHER_FIRST",
    ("retire", "retired"): NOT_PREPARED,
    ("retire", "revoked"): NOT_PREPARED,
    ("revoke", YOUNG): "revoked",
    ("revoke", PREPARED): "revoked",
    ("revoke", "active"): "revoked",
    ("revoke", "retired"): "revoked",
    ("revoke", "revoked"): "revoked",
    **{(verb, UNKNOWN): "KEY_NOT_FOUND" for verb in VERBS},
}
"""What a verb makes of a key, or the reason it is refused with."""


@pytest.fixture
def installation(store_url: str) -> Installation:
    return Installation(store_url)


@pytest_asyncio.fixture
async def process(installation: Installation) -> AsyncIterator[Process]:
    async with installation.process() as made:
        yield made


async def key_in(state: str, process: Process) -> str:
    """The `kid` of a key in a state."""
    if state == UNKNOWN:
        return "no such key"
    if state == "active":
        return process.signs_with
    first = process.signs_with
    if state in ("retired", "revoked"):
        await process.keys.activate((await process.ready()).kid, operator())
        if state == "revoked":
            await process.keys.revoke(first, operator())
        return first
    standby = await process.ready()
    if state == YOUNG:
        await process.keys.retire(standby.kid, operator())
        await process.keys.tick()
        (standby,) = await process.prepared()
    return standby.kid


@pytest.mark.parametrize(("verb", "state"), list(product(VERBS, STATES)))
async def test_every_verb_in_every_state(verb: str, state: str, process: Process) -> None:
    """A verb is carried out or refused by the key's state, with a reason of its own; one key is active either way."""
    kid = await key_in(state, process)
    before = await process.stored()
    outcome = MATRIX[verb, state]
    if outcome.isupper():
        with pytest.raises(IdentityError) as refused:
            await getattr(process.keys, verb)(kid, operator())
        assert refused.value.reason == outcome
        assert await process.stored() == before
    else:
        await getattr(process.keys, verb)(kid, operator())
        states = {key.kid: key.state.value for key in await process.stored()}
        assert states.get(kid, GONE) == outcome
    assert await process.active()


async def test_a_key_may_sign_from_a_time_on(process: Process) -> None:
    """A microsecond before, activation is refused with that time in the sentence; at the time it is carried out."""
    standby = await process.ready()
    process.time.advance(-timedelta(microseconds=1))
    earliest = process.keys.policy.earliest_activate_time(standby)
    with pytest.raises(IdentityError, match=earliest.isoformat(timespec="milliseconds").replace("+", r"\+")):
        await process.keys.activate(standby.kid, operator())
    process.time.advance(timedelta(microseconds=1))
    activated = await process.keys.activate(standby.kid, operator())
    assert (activated.state, activated.activate_time) == (KeyState.ACTIVE, earliest)
    assert process.signs_with == standby.kid


async def test_prepare_makes_one(process: Process) -> None:
    """Calls at once, and later ones, answer the same key."""
    made = await asyncio.gather(*(process.keys.prepare(operator()) for _ in range(5)))
    assert len({key.kid for key in made}) == 1
    assert await process.prepared() == [await process.keys.prepare(operator())]


async def test_rotate_before_the_time_is_carried_out_at_the_time(process: Process) -> None:
    """The call answers the next key with the time at which it will sign; calls until then answer the same, and the
    job activates it then and no sooner."""
    planned = await process.keys.rotate(operator())
    assert planned.state is KeyState.PREPARED
    assert planned.activate_time == process.keys.policy.earliest_activate_time(planned)
    assert await process.keys.rotate(operator()) == planned
    process.time.time = planned.activate_time - SECOND
    await process.turn()
    assert process.signs_with != planned.kid
    process.time.advance(SECOND)
    await process.turn()
    assert process.signs_with == planned.kid


async def test_rotate_with_a_known_standby_is_carried_out_at_once(process: Process) -> None:
    """A rotation later finds a key that verifiers know; the next one is prepared in the same turn of the job."""
    standby = await process.ready()
    rotated = await process.keys.rotate(operator())
    assert (rotated.kid, rotated.state) == (standby.kid, KeyState.ACTIVE)
    await process.turn()
    assert len(await process.prepared()) == 1


async def test_retired_tokens_live_and_revoked_ones_do_not(process: Process) -> None:
    """Tokens of a retired key are accepted, and the key is published, until the key is revoked."""
    token, old = process.token(), process.signs_with
    await process.ready()
    await process.keys.rotate(operator())
    process.parts.keyring.verify(token)
    assert old in process.published
    await process.keys.revoke(old, operator())
    assert old not in process.published
    with pytest.raises(BadToken):
        process.parts.keyring.verify(token)


async def test_revoking_the_active_key_promotes_the_oldest_prepared(process: Process) -> None:
    """Even one that verifiers may not have seen: the alternative is one that nobody has."""
    await process.keys.tick()
    (standby,) = await process.prepared()
    old, token = process.signs_with, process.token()
    revoked, active = await process.keys.revoke(old, operator())
    assert (revoked.kid, revoked.state, active.kid) == (old, KeyState.REVOKED, standby.kid)
    assert process.signs_with == standby.kid
    with pytest.raises(BadToken):
        process.parts.keyring.verify(token)


async def test_revoking_the_only_key_makes_another(process: Process) -> None:
    """Without a prepared key a fresh one signs; said of a revoked key again, nothing changes."""
    old = process.signs_with
    _, active = await process.keys.revoke(old, operator())
    assert active.kid not in (old, None)
    process.parts.keyring.verify(process.token())
    rows = await process.events()
    again, same = await process.keys.revoke(old, operator())
    assert (again.state, same.kid) == (KeyState.REVOKED, active.kid)
    assert await process.events() == rows


async def test_a_prepared_key_that_was_given_up_is_replaced(process: Process) -> None:
    """It is gone from the set, and the job prepares another."""
    standby = await process.ready()
    given_up = await process.keys.retire(standby.kid, operator())
    assert given_up.state is KeyState.RETIRED
    assert standby.kid not in process.published
    await process.turn()
    (fresh,) = await process.prepared()
    assert fresh.kid != standby.kid


async def test_the_ledger_tells_the_whole_life(process: Process) -> None:
    """Each step is a row with the state it led to; the first has the public key and its algorithm."""
    first = process.signs_with
    standby = await process.ready()
    await process.keys.rotate(operator())
    await process.keys.revoke(first, operator())
    process.time.advance(timedelta(days=1))
    await process.turn()
    rows = [row for row in await process.parts.store.ledger(0, 1000) if row.kind.startswith("key.")]
    told = [(row.kind, row.parsed()["state"]) for row in rows if row.subject == first]
    assert told == [
        ("key.created", "active"),
        ("key.retired", "retired"),
        ("key.revoked", "revoked"),
        ("key.purged", "gone"),
    ]
    created = next(row.parsed() for row in rows if (row.kind, row.subject) == ("key.created", standby.kid))
    assert (created["algorithm"], created["public_jwk"]) == ("ES256", standby.public_jwk)
    assert {row.actor for row in rows if row.kind == "key.revoked"} == {operator().account.client_id}
    assert {row.actor for row in rows if row.kind == "key.purged"} == {"system"}
    assert not {"d", "p", "q"} & created["public_jwk"].keys()


@pytest.mark.parametrize("count", [2, 4])
async def test_processes_that_race_rotate_once(count: int, installation: Installation) -> None:
    """However many processes are told to rotate and find it due at the same moment, one key takes over, all answer
    it, and one follows it. Ten times over."""
    async with installation.process() as first:
        await first.turn()
        async with opened(installation, count - 1) as others:
            processes = [first, *others]
            for turn in range(10):
                before = (await first.active()).kid
                standby = await first.ready()
                first.time.advance(timedelta(hours=turn % 2))  # every other time the jobs find it due as well
                work = [each.keys.rotate(operator()) for each in processes] + [each.keys.tick() for each in processes]
                answers = await asyncio.gather(*work)
                assert {key.kid for key in answers if isinstance(key, SigningKey)} == {standby.kid} != {before}
                for each in processes:
                    await each.turn()
                assert {each.signs_with for each in processes} == {standby.kid}
                assert len(await first.prepared()) == 1
        kinds = Counter(kind for kind, _ in await first.events())
    assert (kinds["key.activated"], kinds["key.created"]) == (10, 12), "a key was made or used that no rotation needed"


@asynccontextmanager
async def opened(installation: Installation, count: int) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(installation.process()) for _ in range(count)]


async def test_a_process_with_the_root_key_of_before(installation: Installation, process: Process) -> None:
    """One that was forgotten when the root key changed adds no key that nobody else could open."""
    vault = process.parts.vault
    for active in await process.stored():
        text = Vault(new_root()).seal(vault.open(active.sealed, "signing key", active.kid), "signing key", active.kid)
        async with process.parts.store._database.transaction() as transaction:
            stored = tables.signing_keys
            await transaction.execute(update(stored).where(stored.c.kid == active.kid).values(sealed=text))
    known = {key.kid for key in await process.stored()}
    for verb in (process.keys.prepare, process.keys.rotate):
        with pytest.raises(FailedPrecondition) as refused:
            await verb(operator())
        assert refused.value.reason == "ROOT_KEY_CHANGED"
    assert {key.kid for key in await process.stored()} == known
