"""The client's methods on the ledger: AuditService, method by method.

They need an access token with `identity.audit.read` whose sole audience is the issuer; accounts.py says how it is got.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from artstore.identity.accounts import AccountMethods
from artstore.identity.v1 import audit_service_pb2 as pb
from artstore.identity.v1.audit_service_pb2_grpc import AuditServiceStub

if TYPE_CHECKING:  # known to the type checker only: at run time there is one class for both kinds of channel
    from artstore.identity.v1.audit_service_pb2_grpc import AuditServiceAsyncStub


class AuditMethods(AccountMethods):
    """The ledger: listed and verified; and denials explained."""

    @property
    def _audit(self) -> AuditServiceAsyncStub:
        return AuditServiceStub(self.channel)

    async def list_audit_events(
        self, *, filter: str = "", page_size: int = 0, order_by: str = ""
    ) -> AsyncIterator[pb.AuditEvent]:
        """Every ledger row that matches (AIP-160), in order; asks for each page when it is reached.

        `page_size` 0 leaves it to the service, at most 1,000; `order_by` "sequence desc" has the newest first.
        """
        request = pb.ListAuditEventsRequest(filter=filter, page_size=page_size, order_by=order_by)
        while True:
            page = await self.audit_events_page(request)
            for event in page.audit_events:
                yield event
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def audit_events_page(self, request: pb.ListAuditEventsRequest) -> pb.ListAuditEventsResponse:
        """One page of ledger rows, for who goes on by `next_page_token` at another time."""
        return await self._administer(self._audit.ListAuditEvents, request)

    async def list_audit_checkpoints(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> pb.ListAuditCheckpointsResponse:
        """A page of the signed checkpoints, the oldest first, with the public keys that signed them."""
        request = pb.ListAuditCheckpointsRequest(page_size=page_size, page_token=page_token)
        return await self._administer(self._audit.ListAuditCheckpoints, request)

    async def verify_audit_log(
        self,
        *,
        after: tuple[int, bytes] = (0, b""),
        max_rows: int = 0,
        head: tuple[int, bytes] = (0, b""),
    ) -> pb.VerifyAuditLogResponse:
        """Verifies at most `max_rows` rows (0: 50,000) after a row, given by its sequence and hash.

        `head` is a head that was published, which the ledger must lead to. A ledger that is broken is an answer, not an
        error: look at `intact`. Call it again with `last_sequence` and `last_hash` while `next_sequence` isn't 0.
        """
        request = pb.VerifyAuditLogRequest(
            after_sequence=after[0],
            after_hash=after[1],
            max_rows=max_rows,
            head_sequence=head[0],
            head_hash=head[1],
        )
        return await self._administer(self._audit.VerifyAuditLog, request)

    async def explain_denial(self, denial_id: str) -> str:
        """Why authentication was truly denied, by the `denial_id` that came with the refusal. Raises InvalidRequest."""
        request = pb.ExplainDenialRequest(denial_id=denial_id)
        return (await self._administer(self._audit.ExplainDenial, request)).cause
