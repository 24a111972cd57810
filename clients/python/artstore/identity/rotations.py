"""The client's methods on what secrets do by themselves: the plan, and doing now what is due of it.

PlanRotations needs `identity.accounts.read`, RunRotations `identity.accounts.write`; accounts.py says how the access
token for that is got.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from artstore.identity.accounts import AccountMethods
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp


class RotationMethods(AccountMethods):
    """Rotations, retirements, warnings, expiries and purges that happen without anybody's call."""

    async def plan_rotations(
        self, *, until: datetime | None = None, page_size: int = 0
    ) -> AsyncIterator[pb.PlannedStep]:
        """What will happen up to a time (aware; None: within 30 days), account by account, the one with the soonest
        step first; asks for each page when it is reached. `page_size` 0 leaves it to the service, at most 1,000."""
        request = pb.PlanRotationsRequest(until=_timestamp(until), page_size=page_size)
        while True:
            page = await self._administer(self._accounts.PlanRotations, request)
            for step in page.steps:
                yield step
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def run_rotations(self, *, dry_run: bool = False, max_steps: int = 0) -> pb.RunRotationsResponse:
        """Does now at most `max_steps` (0: 50) of the steps that are due, or with `dry_run` says which they are.

        A step that failed is a result with an error; `more` says whether it is worth calling again. Raises Unavailable
        with `retry_after` while the service is at it by itself.
        """
        request = pb.RunRotationsRequest(dry_run=dry_run, max_steps=max_steps)
        return await self._administer(self._accounts.RunRotations, request)


def _timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError("until must be aware: a naive time is nobody's.")
    made = Timestamp()
    made.FromDatetime(value)
    return made
