"""Whatever is done to the keys, in whatever order and by whichever process: what always holds."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artstore_grpc.errors import IdentityError
from artstore_grpc.model import KeyState
from tests.keys.stand import SECOND, Installation, Process, operator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VERBS = ("activate", "retire", "revoke")
ACTIONS = st.one_of(
    st.tuples(st.just("advance"), st.sampled_from([1, 20, 66, 700, 3600])),
    st.tuples(st.just("turn"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["prepare", "rotate", "issue"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(VERBS), st.integers(0, 9)),
)


@dataclass
class Watcher:
    """What is remembered of the keys from outside: who was first seen when, which tokens are live."""

    processes: list[Process]
    live: list[tuple[float, str]] = field(default_factory=list)
    """Tokens' `exp` on the monotonic clock, and their `kid`."""
    unannounced: set[str] = field(default_factory=set)
    """Keys that nobody had to know before they signed: the very first, and those that took over from a revoked one."""

    async def act(self, action: str, number: int) -> None:
        process = self.processes[number % len(self.processes)]
        if action == "advance":
            process.time.advance(number * SECOND)
        elif action == "turn":
            await process.turn()
        elif action == "issue":
            self.live.append((process.time.monotonic() + 600, process.signs_with))
        elif action in VERBS:
            await self.change(action, number)
        else:
            await getattr(process.keys, action)(operator())

    async def change(self, verb: str, number: int) -> None:
        """A verb on one of the keys; refused or not."""
        process = self.processes[0]
        stored = await process.stored()
        try:
            changed = await getattr(process.keys, verb)(stored[number % len(stored)].kid, operator())
        except IdentityError:
            return
        if verb == "revoke":
            self.unannounced.add(changed[1].kid)

    async def check(self) -> None:
        """Each process hears of it at once, as within 250 ms it would."""
        for process in self.processes:
            await process.parts.replica.poll()
        stored = {key.kid: key for key in await self.processes[0].stored()}
        (active,) = [key for key in stored.values() if key.state is KeyState.ACTIVE]
        policy, now = self.processes[0].keys.policy, self.processes[0].time()
        assert active.activate_time is not None
        known = active.activate_time >= policy.earliest_activate_time(active)
        assert known or active.kid in self.unannounced
        revoked = {kid for kid, key in stored.items() if key.state is KeyState.REVOKED}
        live = {kid for expires, kid in self.live if expires > self.processes[0].time.monotonic()}
        for process in self.processes:
            assert process.signs_with == active.kid
            assert process.published == stored.keys() - revoked
            assert process.published >= {kid for kid in live if kid in stored} - revoked
        assert live <= stored.keys(), "a key went before its tokens"
        assert all(key.create_time <= now for key in stored.values())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, min_size=5, max_size=40))
def test_what_always_holds(sqlite_template: Path, actions: list[tuple[str, int]]) -> None:
    """One key is active, and all processes sign with it; it was published for long enough, or took over from a revoked
    one; what is published is every key that is not revoked, among them that of each live token."""
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(sqlite_template, Path(folder) / "keys.db")
        asyncio.run(run(f"sqlite:///{path}", actions))


async def run(url: str, actions: list[tuple[str, int]]) -> None:
    installation = Installation(url)
    installation.time.advance(timedelta(seconds=1))
    async with installation.process() as here, installation.process() as there:
        watcher = Watcher([here, there], unannounced={here.signs_with})
        for action, number in actions:
            await watcher.act(action, number)
            await watcher.check()
