"""The plan, page by page: what will happen to accounts and their secrets by itself. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from artstore_grpc import pages, rotations
from artstore_grpc.errors import invalid
from artstore_grpc.rotations import Step
from artstore_grpc.store.protocol import Store
from artstore_grpc.vault import Vault

HORIZON = timedelta(days=30)
MAX_HORIZON = timedelta(days=3660)
TOLD = "/"
"""In a page's token, between an account's id and how many steps of the account after it were told."""


class RotationPlan:
    """The steps of every account, read from the store in the order in which accounts are looked at."""

    def __init__(self, *, store: Store, vault: Vault, idle: timedelta, now: Callable[[], datetime]) -> None:
        self._store = store
        self._vault = vault
        self._idle = idle
        self._now = now

    async def page(self, *, page_size: int, page_token: str, until: datetime | None) -> tuple[list[Step], str]:
        """Steps up to a time, and the token of the next page: account by account, the one whose next step is the
        soonest first, an account's own in their order. Raises InvalidRequest."""
        size, through = pages.size(page_size), self._through(until)
        asked = until.isoformat() if until else ""
        before, told = started(pages.place(self._vault, page_token, "plan", asked))
        found: list[tuple[Step, tuple[datetime, str]]] = []
        while len(found) <= size and (accounts := await self._store.due_accounts(through, size + 1, before)):
            for due_time, account in accounts:
                steps = [step for step in rotations.steps(account, self._idle) if step.time <= through]
                here = before or (due_time, "")
                found += [(step, place(here, told + number)) for number, step in enumerate(steps[told:], 1)]
                before, told = (due_time, account.id), 0
        page = found[:size]
        more = len(found) > size
        return [step for step, _ in page], pages.token(self._vault, page[-1][1], "plan", asked) if more else ""

    def _through(self, until: datetime | None) -> datetime:
        now = self._now()
        if until is not None and until > now + MAX_HORIZON:
            raise invalid("until", "must be at most ten years ahead")
        return until or now + HORIZON


def place(before: tuple[datetime, str], told: int) -> tuple[datetime, str]:
    """Where a page ends: `told` steps into the account that comes after another."""
    time, account_id = before
    return time, f"{account_id}{TOLD}{told}"


def started(place: tuple[datetime, str] | None) -> tuple[tuple[datetime, str] | None, int]:
    """After which account a page starts, and how many steps of the next one were told."""
    if place is None:
        return None, 0
    account_id, _, told = place[1].partition(TOLD)
    return (place[0], account_id), int(told)
