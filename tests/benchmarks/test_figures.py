"""The benchmarks' own arithmetic: a figure that nobody measured must not be printed."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from artstore_grpc import ledger
from artstore_grpc.store.schema import upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import new_key
from benchmarks import growth, load, report, verification
from benchmarks.load import percentile
from benchmarks.measure import MIN_P999_SAMPLES, Effort, Result, measured
from benchmarks.operations import MAKERS
from benchmarks.plan import ROWS, Row
from benchmarks.report import Check
from benchmarks.rig import GATEWAYS, VARIANTS, rig
from benchmarks.seed import Plan, opened_vault, seed


def result(name: str, *cpu: float, floor: str = "", errors: int = 0, samples: int = 100) -> Result:
    made = Result(Row(name, "sqlite", "issue", floor, 1.3, 1.1))
    made.cpu, made.throughput = list(cpu), [100.0] * len(cpu)
    made.latencies = [0.001 * (number + 1) for number in range(samples)]
    made.load_share = [0.5] * len(cpu)
    if errors:
        made.errors = Counter({"RpcError": errors})
    return made


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.9, 9), (0.99, 10), (0.001, 1), (1, 10)])
def test_percentiles_are_by_nearest_rank(share: float, expected: int) -> None:
    """A percentile is a value that was measured, never one in between."""
    assert percentile(range(1, 11), share) == expected


def test_a_percentile_of_nothing_is_refused() -> None:
    """No value stands for none."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


async def test_errors_are_counted_and_have_no_latency() -> None:
    """A failed call is not a fast one."""
    calls = 0

    async def every_second_fails() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls % 2:
            raise ConnectionError("no")

    outcome = await load.closed([every_second_fails], 60.0, at_most=10)
    assert (len(outcome.latencies), outcome.errors) == (5, {"ConnectionError: no": 5})


async def test_a_steady_rate_waits_for_nobody() -> None:
    """What waits in the server's queue is seen: the next call begins although the last has not ended."""
    begun, release = 0, asyncio.Event()

    async def hangs() -> None:
        nonlocal begun
        begun += 1
        if begun == 5:
            release.set()
        await release.wait()

    outcome = await load.paced([hangs], 0.05, 100)
    assert (begun, len(outcome.latencies)) == (5, 5)


def test_any_error_voids_a_row() -> None:
    """Neither its cost nor its ratio is told, the one that is compared with it included."""
    floor, failed = result("floor", 100, 100), result("row", 110, 110, floor="floor", errors=1)
    assert failed.void
    assert failed.ratio_to(floor) is None
    assert result("row", 110, 110).ratio_to(result("floor", 100, 100, errors=1)) is None
    (check,) = report.checks([floor, failed])
    assert check.verdict == "void"


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    """A pair in which the machine was slow slowed the floor too; one that fell between is one of many."""
    row = result("row", 110, 220, 300)
    row.ratios = [1.1, 1.1, 3.0]
    assert row.ratio_to(result("floor", 100, 200, 100)) == pytest.approx(1.1)


async def test_a_row_and_its_floor_take_turns(tmp_path: Path) -> None:
    """Real processes: each pair is one run of both, and the ratio is that of what they cost."""
    rows = [Row("half", "floor", "bare", connections=2), Row("whole", "floor", "floor RS256", "half", connections=2)]
    async with rig(tmp_path, {"floor"}) as made:
        half, whole = await measured(made, rows, Effort(rounds=2, pairs=2, seconds=0.02), lambda what: None)
    assert (len(half.cpu), len(whole.cpu), len(whole.ratios)) == (2 + 4, 4, 4)
    assert not half.void
    assert not whole.void
    ratio = whole.ratio_to(half)
    assert ratio is not None
    assert ratio > 1


def test_rare_latencies_need_many_samples() -> None:
    """A p99.9 of a few thousand calls would be that of a handful."""
    assert result("row", 1, samples=MIN_P999_SAMPLES - 1).quantile(0.999) is None
    assert result("row", 1, samples=MIN_P999_SAMPLES).quantile(0.999) is not None


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (Check("a", 1.05, 1.3, 1.1), "aim"),
        (Check("a", 1.2, 1.3, 1.1), "must"),
        (Check("a", 1.4, 1.3, 1.1), "MISSED"),
        (Check("a", None, 1.3, 1.1), "void"),
        (Check("a", 400, None, 300, least=True), "aim"),
        (Check("a", 200, None, 300, least=True), "stated"),
    ],
)
def test_verdicts(check: Check, verdict: str) -> None:
    """What is promised is held against what was measured."""
    assert check.verdict == verdict


def test_growth_is_compared_with_the_smallest() -> None:
    """Each size is a row whose floor is the first one; none is told where a call failed."""
    (line,) = [line for line in growth.lines() if line.what == "ledger rows"]
    results = [Result(row, cpu=[100.0, 200.0], throughput=[1.0, 1.0]) for row in line.rows]
    for each in results[1:]:
        each.ratios = [1.1]
    results[2].errors = Counter({"RpcError": 3})
    found = report.growth_document({"ledger rows": results}, [])
    assert [point["times_first"] for point in found["lines"]["ledger rows"]] == [1.0, 1.1, None, 1.1]
    report.growth_tables(found, Console(file=io.StringIO()))


def test_every_size_can_be_measured() -> None:
    """Each line's targets are services that are started for it."""
    assert {row.target for line in growth.lines() for row in line.rows} <= set(growth.variants())


def test_every_row_can_be_measured() -> None:
    """Its target and its operation exist, and its floor is a row that quick runs have too where it is in them."""
    names = {row.name: row for row in ROWS}
    assert len(names) == len(ROWS)
    for row in ROWS:
        assert row.operation in MAKERS
        assert row.target in {*VARIANTS, *GATEWAYS, "floor", "floor http"}
        assert not row.floor or (names[row.floor].quick or not row.quick)


def test_the_report_can_be_printed() -> None:
    """Void rows and missing percentiles included."""
    results = [result("floor", 100, 100), result("row", 110, 110, floor="floor"), result("bad", 1, errors=2)]
    results[1].ratios = [1.1]
    found = report.document(results, {"RS256": [250.0]}, report.checks(results))
    out = io.StringIO()
    report.table(found, Console(file=out, width=180))
    assert "1.10" in out.getvalue()
    assert "2 × RpcError" in out.getvalue()
    assert "| row ÷ floor | 1.10 × | 1.3 | 1.1 | aim |" in report.markdown(found)


async def test_the_verifier_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token of the first row is new to it, every one of the last two is known; both are held against promises."""
    monkeypatch.setattr(verification, "PAIRS", {True: 2})
    monkeypatch.setattr(verification, "BATCH", 3)
    measured = await verification.verifications(quick=True)
    costs = {each.name: min(each.cpu) for each in measured}
    assert tuple(costs) == verification.NAMES
    assert costs[verification.FIRST] > 2 * costs[verification.KNOWN], "one signature is many look-ups"
    assert len(measured[1].ratios) == 2
    promised = report.verification_checks(measured)
    assert [(check.must, check.unit) for check in promised] == [(1.3, "×"), (10, "µs"), (10, "µs")]
    assert report.verification_checks([]) == []
    found = report.document([], {}, promised, measured)
    out = io.StringIO()
    report.table(found, Console(file=out, width=180))
    assert "client verifies a known token" in out.getvalue()
    assert "| client verifies a known token |" in report.markdown(found)
    assert verification.chosen("")
    assert verification.chosen("client verifies")
    assert not verification.chosen("IssueToken")


@pytest.mark.parametrize("cold_cost", [0, 4])
async def test_what_is_seeded_is_true(tmp_path: Path, cold_cost: int) -> None:
    """The chain verifies, the accounts are there, and those that are called can prove themselves."""
    url, key = f"sqlite:///{tmp_path / 'seeded.db'}", new_key()
    await upgrade(url)
    vault = await opened_vault(url, key)
    called = await seed(url, key, Plan(10, 5, ledger_rows=25, cold_cost=cold_cost))
    store = SqlStore(url)
    try:
        rows = await store.ledger(0, 100)
        assert ledger.verify(rows) == await store.head()
        assert len(rows) == 25
        assert len(called) == 5
        for each in called:
            account = await store.account(each.id)
            assert account is not None
            (secret,) = account.secrets
            earned = vault.secret_tag(each.client_id, secret.id, each.secret)
            assert secret.tag == (None if cold_cost else earned)
    finally:
        await store.close()
