"""Rotations under constant issuing and verifying: no valid token is refused, none is signed by an unknown key."""

from __future__ import annotations

import pytest

from tests.keys.simulation import ALL, rotated

pytestmark = pytest.mark.slow


async def check(url: str, rotations: int, algorithms: list[str], every: int, processes: int) -> None:
    world = await rotated(url, rotations, algorithms, every=every, processes=processes)
    fetches = sum(verifier.fetches for verifier in world.verifiers)
    print(f"{rotations} rotations, {world.issued} tokens, {fetches} fetches of the key set")
    assert (world.unknown, world.refused) == ([], [])


async def test_a_running_service_moves_between_algorithms(sqlite_url: str) -> None:
    """Through all six, each by restarting two processes one after the other, and back to the first: zero valid tokens
    refused, zero signed by a key that a verifier which obeys `Cache-Control` could not have."""
    await check(sqlite_url, 14, ALL, every=2, processes=2)


@pytest.mark.timeout(1800)
async def test_a_thousand_rotations(sqlite_url: str) -> None:
    """The same zeros over 1,000 rotations, with a restart and a move to another algorithm every 100."""
    await check(sqlite_url, 1000, ["ES256", "EdDSA", "ES256", "RS256"], every=100, processes=1)
