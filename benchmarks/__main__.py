"""`make bench`, `make bench-quick`, `make bench-growth`: measures, says what it found, writes it to build/bench."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import growth, model, moments, report, scaling, verification
from benchmarks.measure import Effort, measured, signature_costs
from benchmarks.plan import rows
from benchmarks.processes import LOAD_CORE, pin
from benchmarks.rig import Say, rig
from benchmarks.verifier import verifier

FULL, QUICK = Effort(rounds=3, pairs=6, seconds=0.25), Effort(rounds=1, pairs=5, seconds=0.12)
PACED_SECONDS = {False: 3.0, True: 1.0}
RESTARTS = 3
WIDTH = 180


@click.group()
def main() -> None:
    """Measures the service against the floor. How to read the figures: docs/performance.md."""
    if sys.platform != "linux":
        raise click.ClickException("The benchmarks read the kernel's own accounts of a process: they need Linux.")
    pin(os.getpid(), LOAD_CORE)


@main.command()
@click.option("--quick", is_flag=True, help="Fewer rows and rounds: under a minute.")
@click.option("--only", default="", help="Only rows whose name matches this regular expression.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True)
def table(quick: bool, only: str, out: Path) -> None:
    """The table: cost, throughput and latency of each operation, and how many times its floor it is."""
    with progress() as (console, say):
        found = asyncio.run(bench(quick=quick, only=only, say=say))
    report.table(found, console)
    report.write(out / "bench.json", found)
    (out / "bench.md").write_text(report.markdown(found))
    if drawn := plots():
        drawn.bench(found, out / "bench.svg")
    sys.exit(any(row["void"] for row in found["rows"]) or any(check["value"] is None for check in found["checks"]))


@main.command()
@click.option(
    "--tokens", default=growth.TOKENS, show_default=True, help="How many to issue for the memory's sake; 0: none."
)
@click.option("--only", default="", help="Only lines whose name matches this regular expression.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True)
def grow(tokens: int, only: str, out: Path) -> None:
    """A token's cost against accounts, ledger rows, revocations and connections; memory against tokens issued; a
    verifier's memory and time against revocations."""
    with progress() as (console, say):
        with tempfile.TemporaryDirectory(prefix="artstore-bench-") as folder:
            lines = asyncio.run(growth.grown(Path(folder), say, only))
        with tempfile.TemporaryDirectory(prefix="artstore-bench-") as folder:
            held = asyncio.run(growth.memory(Path(folder), tokens=tokens, say=say)) if tokens else []
    found = report.growth_document(lines, held, verifier())
    report.growth_tables(found, console)
    report.write(out / "growth.json", found)
    if drawn := plots():
        drawn.growth(found["lines"], out / "growth.svg")
    points = [*found["memory"], *(point for line in found["lines"].values() for point in line)]
    sys.exit(any(point["errors"] for point in points))


@main.command()
@click.option("--rounds", default=scaling.ROUNDS, show_default=True, help="How often each number of workers is run.")
@click.option("--keep", is_flag=True, help="Put it into benchmarks/scaling.json and docs/scaling.md.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True)
def scale(rounds: int, keep: bool, out: Path) -> None:
    """A token's CPU with 1, 2 and 4 workers, and what they take at rest: the inputs of the model in docs/scaling.md."""
    with progress() as (console, say), tempfile.TemporaryDirectory(prefix="artstore-bench-") as folder:
        points = asyncio.run(scaling.curve(Path(folder), say, rounds))
    found = {"machine": report.machine(), "limits": scaling.limits(), "points": points}
    report.write(out / "scaling.json", found)
    report.scaling_table(found, console)
    if keep:
        model.keep(found)
    sys.exit(any(point["errors"] for point in points))


async def bench(*, quick: bool, only: str, say: Say) -> dict[str, Any]:
    """Starts everything, measures it, ends it."""
    chosen = [row for row in rows(quick=quick) if re.search(only, row.name)]
    effort = QUICK if quick else FULL
    names = {row.target for row in chosen}
    if not only:
        names |= {"sqlite"} if quick else {"sqlite", "restart"}
    with tempfile.TemporaryDirectory(prefix="artstore-bench-") as folder:
        async with rig(Path(folder), names, say=say) as made:
            gc.disable()  # the load generator's own pauses are nobody's latency
            signatures = signature_costs(effort.pairs)
            say("what verifies tokens in a service")
            verified = await verification.verifications(quick=quick) if verification.chosen(only) else []
            results = await measured(made, chosen, effort, say)
            checked = report.checks(results) + report.verification_checks(verified)
            if not only:
                say("half the peak load")
                await made.only({"sqlite"})
                seconds, target = PACED_SECONDS[quick], made.targets["sqlite"]
                issued = await moments.half_peak(target, "issue", rounds=3, seconds=seconds)
                seen = await moments.half_peak(target, "introspect", rounds=3, seconds=seconds / 2)
                checked += report.paced_checks(issued, seen)
            if "restart" in names:
                say("1,000 clients after a restart")
                await made.only({"restart"})
                again = [await moments.restarted(made.targets["restart"]) for _ in range(RESTARTS)]
                checked += report.restart_checks(again)
            gc.enable()
    return report.document(results, signatures, checked, verified)


@contextmanager
def progress() -> Iterator[tuple[Console, Say]]:
    """Says what is under way on a terminal's last line; nothing where there is no terminal."""
    console = Console(width=WIDTH)
    with console.status("starting") as status:
        yield console, lambda what: status.update(what)


def plots() -> Any:
    """The module that draws, where what it needs is installed."""
    try:
        from benchmarks import plot
    except ImportError:
        click.echo("No plot: `make bench` installs what draws it.", err=True)
        return None
    return plot


if __name__ == "__main__":
    main()
