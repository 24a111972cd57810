"""`rotation`: what secrets and accounts do by themselves, shown ahead of time, and done now."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from artstore.identity import AdminClient, IdentityError, RotationAction, Unavailable
from artstore.identity.v1.service_account_service_pb2 import PlannedStep, RunRotationsResponse, StepResult

from artstore_grpc.cli.durations import DurationType
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import echo_json, echo_table, message_json, short_name, time_text
from artstore_grpc.cli.progress import bar
from artstore_grpc.cli.session import as_client, json_option

PLANNED = ("TIME", "ACTION", "CLIENT ID", "NAME", "SECRET", "WHY")
DONE = ("RESULT", "ACTION", "CLIENT ID", "NAME", "SECRET", "WHY")
PATIENCE = timedelta(minutes=2)
"""How long `run` waits for a replica that is at it: longer than the lease of one that has died."""
CALL_STEPS = 50
"""Of one call of `run`; it calls until nothing more is due."""


@click.group()
def rotation() -> None:
    """Show, and do, what secrets and accounts do by themselves."""


@rotation.command()
@click.option(
    "--until", type=DurationType(), default="30d", show_default=True, metavar="DURATION", help="How far to look ahead."
)
@json_option
@as_client
async def plan(client: AdminClient, until: timedelta, as_json: bool) -> None:
    """Show what will happen and when, the soonest first; what is past is due."""
    with bar("planning") as moved:
        steps: list[PlannedStep] = []
        async for step in client.plan_rotations(until=datetime.now(UTC) + until, page_size=1000):
            steps.append(step)
            if len(steps) % 1000 == 0:
                moved(len(steps), 0)
    steps.sort(key=lambda step: (step.time.seconds, step.time.nanos))
    if as_json:
        echo_json([step_json(step) for step in steps])
        return
    echo_table(PLANNED, [(time_text(step.time), *described(step)) for step in steps])


@rotation.command()
@click.option("--dry-run", is_flag=True, help="Show what is due, and change nothing.")
@click.option("--max-steps", type=click.IntRange(1), help="Do at most so many.  [default: all that are due]")
@json_option
@as_client
async def run(client: AdminClient, dry_run: bool, max_steps: int | None, as_json: bool) -> None:
    """Do now what is due, instead of within half a minute; what failed is tried again too.

    Ends with 7 where a step failed; the others were done all the same.
    """
    with bar("rotating") as moved:
        results = [] if not dry_run else list((await client.run_rotations(dry_run=True, max_steps=1000)).results)
        more = not dry_run
        while more and (max_steps is None or len(results) < max_steps):
            left = CALL_STEPS if max_steps is None else min(CALL_STEPS, max_steps - len(results))
            answer = await patiently(client, left)
            failed = {key(result) for result in results if result.HasField("error")}
            fresh = [result for result in answer.results if key(result) not in failed]
            results += fresh
            moved(len(results), max_steps or 0)
            more = answer.more and bool(fresh)
    results = results[:max_steps]
    if as_json:
        echo_json([result_json(result, dry_run=dry_run) for result in results])
    else:
        echo_table(DONE, [(outcome(result, dry_run=dry_run), *described(result.step)) for result in results])
    count = sum(result.HasField("error") for result in results)
    if count:
        raise Failure(Exit.CONFLICT, "STEPS_FAILED", f"{count:,} of {len(results):,} steps failed.")


async def patiently(client: AdminClient, most: int) -> RunRotationsResponse:
    """A call that waits while a replica is at it by itself. Raises Unavailable in the end."""
    deadline = asyncio.get_running_loop().time() + PATIENCE.total_seconds()
    while True:
        try:
            return await client.run_rotations(max_steps=most)
        except Unavailable as busy:
            if busy.reason != "ROTATIONS_BUSY" or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(pause_seconds(busy))


def pause_seconds(busy: IdentityError) -> float:
    return busy.retry_after.total_seconds() if busy.retry_after else 1.0


def key(result: StepResult) -> tuple[str, int, str]:
    return result.step.account_id, result.step.action, result.step.secret_id


def action_name(action: int) -> str:
    return short_name(RotationAction, action)


def described(step: PlannedStep) -> tuple[str, ...]:
    return action_name(step.action), step.client_id, step.name, step.secret_id, step.reason


def outcome(result: StepResult, *, dry_run: bool) -> str:
    if result.HasField("error"):
        return f"failed: {result.error.message}"
    return "due" if dry_run else "done"


def step_json(step: PlannedStep) -> dict[str, Any]:
    """A step as the REST API shows it: its action by the short name."""
    return {**message_json(step), "action": action_name(step.action)}


def result_json(result: StepResult, *, dry_run: bool) -> dict[str, Any]:
    said = {"step": step_json(result.step), "done": not (dry_run or result.HasField("error"))}
    return {**said, "error": result.error.message} if result.HasField("error") else said
