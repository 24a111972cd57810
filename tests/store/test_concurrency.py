"""Many at once: tasks of one process on both dialects, several processes on one SQLite file, cancelled tasks."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from artstore_grpc.errors import Conflict, StoreUnavailable
from artstore_grpc.ledger import verify
from artstore_grpc.model import SecretUse
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import DAY, NOW, account, event, replay, revocation, secret

POOL_SIZE = 10

PROCESS = """
import asyncio, sys
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import account, event

async def main(url, worker, units):
    store = SqlStore(url)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(units):
        async with store.unit() as unit:
            assert await unit.account("shared")
            await unit.add_account(account(name=f"{worker} {number}", client_id=f"{worker} {number}"))
            unit.record(event(worker))
        print(unit.sequence, flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def writer(url: str, name: str, units: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, url, name, str(units)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def await_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    assert process.stdout.readline() == "ready\n"


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


async def test_units_on_one_account_take_turns(store: SqlStore) -> None:
    """Eight units that read, wait and write one account lose no change, and read its secrets as of their turn."""
    one = account(version=0)
    async with store.unit() as unit:
        await unit.add_account(one)

    async def change() -> None:
        async with store.unit() as unit:
            read = await unit.account(one.id)
            assert read
            assert len(read.secrets) == read.version
            await asyncio.sleep(0)
            await unit.save_account(replace(read, version=read.version + 1, secrets=(*read.secrets, secret())))
            unit.record(event())

    await asyncio.gather(*(change() for _ in range(8)))
    final = await store.account(one.id)
    assert final
    assert (final.version, len(final.secrets)) == (8, 8)


async def test_one_of_two_equal_replays_wins(store: SqlStore) -> None:
    """Of many units with one request_id one commits; the others wait for it and get the Conflict."""
    same = replay()

    async def work() -> bool:
        async with store.unit() as unit:
            await unit.add_replay(same)
            unit.record(event())
        return True

    results = await asyncio.gather(*(work() for _ in range(6)), return_exceptions=True)
    assert results.count(True) == 1
    assert all(isinstance(result, Conflict) for result in results if result is not True)
    assert (await store.head())[0] == 1


async def test_replay_is_free_again_when_the_first_rolls_back(store: SqlStore) -> None:
    """Who waits for a unit that fails in the end is not refused."""
    same, first_has_it = replay(), asyncio.Event()

    async def fails() -> None:
        async with store.unit() as unit:
            await unit.add_replay(same)
            first_has_it.set()
            await asyncio.sleep(0.05)
            raise RuntimeError

    async def waits() -> None:
        await first_has_it.wait()
        async with store.unit() as unit:
            await unit.add_replay(same)

    results = await asyncio.gather(fails(), waits(), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, type(None)]
    assert await store.replay(same.key) == same


async def test_one_of_two_bootstraps_wins(store: SqlStore) -> None:
    """Two units that make the first system account unless there is one make one."""

    async def bootstrap() -> None:
        async with store.unit() as unit:
            if not await unit.system_account_exists():
                await asyncio.sleep(0.02)
                await unit.add_account(account(is_system=True, secrets=(secret(),)))
                unit.record(event())

    await asyncio.gather(bootstrap(), bootstrap())
    assert (await store.head())[0] == 1


async def test_sequence_has_no_gaps(store: SqlStore) -> None:
    """After 200 concurrent units, some of which fail, sequences are 1 to n, the chain verifies, and a tail that polls
    meanwhile sees each row once and in order."""
    running = True
    tailed: list[int] = []

    async def tail() -> None:
        while running or (await store.head())[0] > len(tailed):
            tailed.extend(row.sequence for row in await store.ledger(tailed[-1] if tailed else 0, 50))

    async def work(number: int) -> int:
        async with store.unit() as unit:
            await unit.add_revocation(revocation())
            unit.record(event(str(number)))
            if number % 10 == 0:
                raise RuntimeError
            if number % 3 == 0:
                unit.record(event(f"{number} again"))
        return unit.sequence

    # Each unit waits its turn for a connection; the pool's own patience is not what is tested here.
    gate = asyncio.Semaphore(POOL_SIZE - 2)

    async def gated(number: int) -> int:
        async with gate:
            return await work(number)

    tailing = asyncio.ensure_future(tail())
    results = await asyncio.gather(*(gated(number) for number in range(200)), return_exceptions=True)
    running = False
    await tailing
    sequences = [result for result in results if isinstance(result, int)]
    rows = await store.ledger(0, 1000)
    assert len(sequences) == len(set(sequences)) == 180
    assert [row.sequence for row in rows] == list(range(1, max(sequences) + 1)) == tailed
    assert verify(rows) == await store.head()


async def test_flushes_do_not_lock_each_other_out(store: SqlStore) -> None:
    """Replicas that flush the uses of the same secrets at once, in different orders, all succeed."""
    secrets = [secret() for _ in range(20)]
    async with store.unit() as unit:
        await unit.add_account(account(id="used", secrets=tuple(secrets)))
    uses = [SecretUse(one.id, NOW + number * DAY, str(number)) for number, one in enumerate(secrets)]
    await asyncio.gather(*(store.flush_uses(uses[::step]) for step in (1, -1) * 4))
    used = await store.account("used")
    assert used
    assert {one.last_used_source for one in used.secrets} == {str(number) for number in range(20)}


@pytest.mark.parametrize("delay", [0, 0.0005, 0.001, 0.002, 0.004])
async def test_cancelled_units_leak_nothing(store_url: str, delay: float) -> None:
    """A unit that is cancelled anywhere commits nothing or everything, and leaves every connection usable."""
    store = SqlStore(store_url, pool_size=2)

    async def work() -> None:
        async with store.unit() as unit:
            await unit.add_account(account())
            unit.record(event())

    for number in range(12):
        task = asyncio.ensure_future(work())
        await asyncio.sleep(delay + number * 0.0003)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await asyncio.gather(*(work() for _ in range(2)))
    rows = await store.ledger(0, 100)
    assert verify(rows) == await store.head()
    assert store._database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await store.close()


async def test_a_cancelled_unit_frees_the_write_lock_at_once(store: SqlStore) -> None:
    """Wherever a unit is cancelled, and however often, the next one does not wait for the garbage collector."""

    async def work() -> None:
        async with store.unit() as unit:
            await unit.add_account(account())
            unit.record(event())

    gc.disable()
    try:
        for number in range(150):
            task = asyncio.ensure_future(work())
            for _ in range(1 + number % 2):
                await asyncio.sleep(number % 50 * 0.00015)
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        async with asyncio.timeout(4):  # less than the command timeout that a lost lock would cost
            await work()
    finally:
        gc.enable()


async def test_cancelled_wait_for_a_lock_holds_nothing(store: SqlStore) -> None:
    """A unit that is cancelled while it waits for another's lock does not take that lock later."""
    one = account()
    async with store.unit() as unit:
        await unit.add_account(one)

    async def work() -> None:
        async with store.unit() as unit:
            await unit.account(one.id)

    async with store.unit() as unit:
        await unit.account(one.id)
        waiting = [asyncio.ensure_future(work()) for _ in range(3)]
        await asyncio.wait(waiting, timeout=0.1)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)
    await asyncio.wait_for(work(), 1)


async def test_waiting_too_long_is_unavailable(store_url: str) -> None:
    """A unit that gets no lock within the command timeout is told so, and the holder is not disturbed."""
    first = SqlStore(store_url)
    second = SqlStore(store_url, command_timeout=timedelta(seconds=0.2))
    one = account()
    async with first.unit() as unit:
        await unit.add_account(one)

    async def work(store: SqlStore) -> None:
        async with store.unit() as unit:
            await unit.account(one.id)
            unit.record(event())

    async with first.unit() as unit:
        await unit.account(one.id)
        with pytest.raises(StoreUnavailable):
            await work(second)
        unit.record(event())
    await work(second)
    assert (await first.head())[0] == 2
    await first.close()
    await second.close()


async def test_exhausted_pool_is_unavailable(postgres_url: str) -> None:
    """Who needs a connection when all are in use waits for the connect timeout, then is told; later there is one."""
    store = SqlStore(postgres_url, pool_size=1, connect_timeout=timedelta(seconds=0.2))
    async with store.unit():
        with pytest.raises(StoreUnavailable):
            await store.ping()
    await store.ping()
    await store.close()


@pytest.mark.slow
async def test_processes_share_one_file(sqlite_url: str) -> None:
    """Four processes that write one SQLite file lose nothing: no gap, no error, a chain that verifies."""
    store = SqlStore(sqlite_url)
    async with store.unit() as unit:
        await unit.add_account(account(id="shared"))
    writers = [writer(sqlite_url, f"writer {number}", 25) for number in range(4)]
    for process in writers:
        await_ready(process)
    for process in writers:
        begin(process)
    said = [await asyncio.to_thread(process.communicate) for process in writers]
    assert [process.returncode for process in writers] == [0] * 4
    assert sorted(int(line) for out, _ in said for line in out.split()) == list(range(1, 101))
    assert verify(await store.ledger(0, 200)) == await store.head()
    await store.close()


@pytest.mark.slow
async def test_acknowledged_units_survive_kill(store_url: str) -> None:
    """What a process was told is committed is there after SIGKILL, and the chain verifies."""
    store = SqlStore(store_url)
    async with store.unit() as unit:
        await unit.add_account(account(id="shared"))
    process = writer(store_url, "victim", 100_000)
    await_ready(process)
    begin(process)
    assert process.stdout
    acknowledged = [int(await asyncio.to_thread(process.stdout.readline)) for _ in range(20)]
    process.kill()
    rest, _ = await asyncio.to_thread(process.communicate)
    complete = [int(line) for line in rest.split("\n")[:-1]]
    rows = await store.ledger(0, 100_000)
    assert verify(rows)[0] >= (acknowledged + complete)[-1]
    async with store.unit() as unit:
        unit.record(event())
    await store.close()
