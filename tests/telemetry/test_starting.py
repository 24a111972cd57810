"""What a process says of the installation while it starts: nothing of a ledger that it hasn't read yet."""

from __future__ import annotations

import asyncio

from artstore_grpc import startup
from artstore_grpc.installation import key_encryption
from artstore_grpc.parts import Parts, parts
from artstore_grpc.telemetry.logs import configured
from tests.installation import Log
from tests.keys.stand import ISSUER, Installation

KNOWLEDGE = ("artstore_database_up", "artstore_degraded", "artstore_ledger_sequence", "artstore_ledger_lag_seconds")


def told(made: Parts) -> dict[str, float]:
    samples = (sample for family in made.metrics.registry.collect() for sample in family.samples)
    return {sample.name: sample.value for sample in samples if sample.name in KNOWLEDGE}


async def test_what_was_never_read_is_not_told(store_url: str) -> None:
    """Before its first look at the database a process says neither that it is down nor that it is degraded, nor that it
    stands at row 0: of the workers of a machine the worst is told, and a start is no outage."""
    installation = Installation(store_url)
    settings, log = installation.settings(), configured("error", Log())
    async with parts(
        settings, key_encryption(settings), ISSUER, log, installation.time, installation.time.monotonic
    ) as made:
        assert told(made) == {}
        await startup.load(settings, made, log)
        head, _ = await made.store.head()
        assert told(made) == dict(zip(KNOWLEDGE, (1, 0, head, 0), strict=True))


async def test_a_start_that_waits_for_its_database() -> None:
    """It says that the database is down; it isn't degraded, since it issues nothing."""
    installation = Installation("postgresql://nobody@127.0.0.1:1/nothing")
    settings, log = installation.settings(), configured("error", Log())
    async with parts(settings, key_encryption(settings), ISSUER, log) as made:
        waiting = asyncio.create_task(startup.load(settings, made, log))
        async with asyncio.timeout(60):
            while "artstore_database_up" not in told(made):  # noqa: ASYNC110 - a number
                await asyncio.sleep(0.01)
        assert told(made) == {"artstore_database_up": 0}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
