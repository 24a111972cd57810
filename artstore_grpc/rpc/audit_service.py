"""AuditService: parses, calls the use case, formats."""

from __future__ import annotations

from artstore.identity.v1 import audit_service_pb2 as pb
from artstore.identity.v1.token_service_pb2 import JsonWebKey

from artstore_grpc import records
from artstore_grpc.audit import MAX_ROWS, Audit, Stretch, Verified, head_of
from artstore_grpc.call import Call
from artstore_grpc.errors import invalid
from artstore_grpc.ledger import GENESIS
from artstore_grpc.rpc.messages import timestamp


class AuditService:
    """The methods of artstore.identity.v1.AuditService, as the pipeline calls them."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, call: Call) -> pb.ListAuditEventsResponse:
        page, token = await self._audit.events(
            page_size=request.page_size,
            page_token=request.page_token,
            filter=request.filter,
            order_by=request.order_by,
        )
        return pb.ListAuditEventsResponse(audit_events=[event_message(row) for row in page], next_page_token=token)

    async def ListAuditCheckpoints(
        self, request: pb.ListAuditCheckpointsRequest, call: Call
    ) -> pb.ListAuditCheckpointsResponse:
        page, token = await self._audit.checkpoints(page_size=request.page_size, page_token=request.page_token)
        return pb.ListAuditCheckpointsResponse(
            audit_checkpoints=[checkpoint_message(checkpoint) for checkpoint in page],
            next_page_token=token,
            ledger_keys=[JsonWebKey(**jwk) for jwk in await self._audit.ledger_keys()],
        )

    async def VerifyAuditLog(self, request: pb.VerifyAuditLogRequest, call: Call) -> pb.VerifyAuditLogResponse:
        return verified_message(await self._audit.verify(stretch(request)))

    async def ExplainDenial(self, request: pb.ExplainDenialRequest, call: Call) -> pb.ExplainDenialResponse:
        return pb.ExplainDenialResponse(cause=await self._audit.explain(request.denial_id))


def stretch(request: pb.VerifyAuditLogRequest) -> Stretch:
    """What a request asks to verify. Raises InvalidRequest."""
    if request.max_rows < 0:
        raise invalid("max_rows", "must not be negative")
    return Stretch(
        head_of(request.after_sequence, request.after_hash, "after") or GENESIS,
        min(request.max_rows, MAX_ROWS) or MAX_ROWS,
        head_of(request.head_sequence, request.head_hash, "head"),
    )


def event_message(row: records.LedgerRow) -> pb.AuditEvent:
    return pb.AuditEvent(
        sequence=row.sequence,
        time=timestamp(row.time),
        actor=row.actor,
        kind=row.kind,
        subject=row.subject,
        detail=row.detail,
        previous_hash=row.previous_hash,
        hash=row.hash,
    )


def checkpoint_message(checkpoint: records.Checkpoint) -> pb.AuditCheckpoint:
    return pb.AuditCheckpoint(
        number=checkpoint.number,
        sequence=checkpoint.sequence,
        hash=checkpoint.hash,
        time=timestamp(checkpoint.time),
        kid=checkpoint.kid,
        signature=checkpoint.signature,
    )


def verified_message(verified: Verified) -> pb.VerifyAuditLogResponse:
    broken = verified.broken
    return pb.VerifyAuditLogResponse(
        intact=broken is None,
        verified_rows=verified.rows,
        verified_checkpoints=verified.checkpoints,
        last_sequence=verified.last[0],
        last_hash=verified.last[1],
        next_sequence=verified.last[0] if verified.more else 0,
        broken_sequence=broken.sequence if broken else 0,
        broken_checkpoint=broken.checkpoint if broken else 0,
        problem=broken.problem if broken else "",
    )
