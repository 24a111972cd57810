"""ServiceAccountService: parses, calls the use case, formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.message import Message

from artstore_grpc import fields, model, pages
from artstore_grpc.accounts import Accounts
from artstore_grpc.audiences import Audiences
from artstore_grpc.call import Call, Caller
from artstore_grpc.changes import Target
from artstore_grpc.errors import invalid
from artstore_grpc.imports import Imported, Imports, Outcome
from artstore_grpc.replays import Retry
from artstore_grpc.rotation import Rotation
from artstore_grpc.rotation_plan import RotationPlan
from artstore_grpc.rpc.messages import (
    account_message,
    asked,
    draft,
    interval,
    masked,
    secret_message,
    target,
    time_of,
    timestamp,
)
from artstore_grpc.rpc.rotation_messages import result_message, step_message
from artstore_grpc.rpc.status import to_status
from artstore_grpc.scheduled_rotation import ScheduledRotation
from artstore_grpc.telemetry.metrics import Metrics


class ServiceAccountService:
    """The methods of artstore.identity.v1.ServiceAccountService, as the pipeline calls them."""

    def __init__(
        self,
        accounts: Accounts,
        rotation: Rotation,
        imports: Imports,
        scheduled: ScheduledRotation,
        plan: RotationPlan,
        audiences: Audiences,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._rotation = rotation
        self._imports = imports
        self._metrics = metrics
        self._scheduled = scheduled
        self._plan = plan
        self._audiences = audiences
        self._now = now

    async def CreateServiceAccount(
        self, request: pb.CreateServiceAccountRequest, call: Call
    ) -> pb.CreateServiceAccountResponse:
        if not request.HasField("service_account"):
            raise invalid("service_account", "is missing")
        drafted = draft(request.service_account, without_secret=request.without_secret)
        answer = await self._accounts.create(drafted, caller(call), retry(request, call))
        return pb.CreateServiceAccountResponse(
            service_account=self._message(answer.account), client_secret=answer.client_secret
        )

    async def GetServiceAccount(self, request: pb.GetServiceAccountRequest, call: Call) -> pb.GetServiceAccountResponse:
        account = await self._accounts.get(request.id)
        return pb.GetServiceAccountResponse(service_account=self._message(account))

    async def ListServiceAccounts(
        self, request: pb.ListServiceAccountsRequest, call: Call
    ) -> pb.ListServiceAccountsResponse:
        page, next_page_token = await self._accounts.list(
            page_size=request.page_size,
            page_token=request.page_token,
            filter=request.filter,
            show_deleted=request.show_deleted,
        )
        messages = [self._message(account) for account in page]
        return pb.ListServiceAccountsResponse(service_accounts=messages, next_page_token=next_page_token)

    async def UpdateServiceAccount(
        self, request: pb.UpdateServiceAccountRequest, call: Call
    ) -> pb.UpdateServiceAccountResponse:
        if not request.HasField("service_account"):
            raise invalid("service_account", "is missing")
        changes = masked(request.service_account, tuple(request.update_mask.paths))
        meant = Target(request.service_account.id, request.service_account.etag)
        account = await self._accounts.update(meant, changes, caller(call))
        return pb.UpdateServiceAccountResponse(service_account=self._message(account))

    async def DeleteServiceAccount(
        self, request: pb.DeleteServiceAccountRequest, call: Call
    ) -> pb.DeleteServiceAccountResponse:
        account = await self._accounts.delete(target(request), caller(call))
        return pb.DeleteServiceAccountResponse(service_account=self._message(account))

    async def UndeleteServiceAccount(
        self, request: pb.UndeleteServiceAccountRequest, call: Call
    ) -> pb.UndeleteServiceAccountResponse:
        account = await self._accounts.undelete(target(request), caller(call))
        return pb.UndeleteServiceAccountResponse(service_account=self._message(account))

    async def SuspendServiceAccount(
        self, request: pb.SuspendServiceAccountRequest, call: Call
    ) -> pb.SuspendServiceAccountResponse:
        account = await self._accounts.suspend(target(request), caller(call))
        return pb.SuspendServiceAccountResponse(service_account=self._message(account))

    async def ActivateServiceAccount(
        self, request: pb.ActivateServiceAccountRequest, call: Call
    ) -> pb.ActivateServiceAccountResponse:
        account = await self._accounts.activate(target(request), caller(call))
        return pb.ActivateServiceAccountResponse(service_account=self._message(account))

    async def RotateSecret(self, request: pb.RotateSecretRequest, call: Call) -> pb.RotateSecretResponse:
        overlap = interval(request.overlap, "overlap") if request.HasField("overlap") else None
        answer = await self._rotation.rotate_secret(
            target(request), caller(call), overlap, retry(request, call), revoke_tokens=request.revoke_tokens
        )
        assert answer.secret is not None
        return pb.RotateSecretResponse(
            service_account=self._message(answer.account),
            client_secret=answer.client_secret,
            secret_expire_time=timestamp(answer.secret.expire_time),
            previous_secrets=[secret_message(secret) for secret in answer.previous],
        )

    async def RevokeSecret(self, request: pb.RevokeSecretRequest, call: Call) -> pb.RevokeSecretResponse:
        account = await self._rotation.revoke_secret(target(request), request.secret_id, caller(call))
        return pb.RevokeSecretResponse(service_account=self._message(account))

    async def PlanRotations(self, request: pb.PlanRotationsRequest, call: Call) -> pb.PlanRotationsResponse:
        until = time_of(request.until, "until") if request.HasField("until") else None
        steps, next_page_token = await self._plan.page(
            page_size=request.page_size, page_token=request.page_token, until=until
        )
        return pb.PlanRotationsResponse(steps=map(step_message, steps), next_page_token=next_page_token)

    async def RunRotations(self, request: pb.RunRotationsRequest, call: Call) -> pb.RunRotationsResponse:
        most = pages.size(request.max_steps, field="max_steps")
        if request.dry_run:
            due = await self._scheduled.due(most + 1)
            dry = [pb.StepResult(step=step_message(step)) for step in due[:most]]
            return pb.RunRotationsResponse(results=dry, more=len(due) > most)
        results, more = await self._scheduled.run(caller(call).actor, most)
        return pb.RunRotationsResponse(results=map(result_message, results), more=more)

    async def ImportServiceAccounts(
        self, request: pb.ImportServiceAccountsRequest, call: Call
    ) -> pb.ImportServiceAccountsResponse:
        items = [asked(item) for item in request.service_accounts]
        results = await self._imports.run(items, caller(call), validate_only=request.validate_only)
        counts = Counter(result.outcome for result in results)
        call.fields |= {outcome.value: counts[outcome] for outcome in Outcome}
        if not request.validate_only:
            for outcome, count in counts.items():
                self._metrics.imported.add(outcome.value, by=count)
        return pb.ImportServiceAccountsResponse(results=[self._result(result) for result in results])

    def _result(self, result: Imported) -> pb.ImportResult:
        return pb.ImportResult(
            outcome=pb.ImportOutcome.Value(f"IMPORT_OUTCOME_{result.outcome.name}"),
            service_account=self._message(result.account) if result.account else None,
            error=to_status(result.error) if result.error else None,
        )

    def _message(self, account: model.Account) -> pb.ServiceAccount:
        return account_message(account, self._audiences, self._now())


def caller(call: Call) -> Caller:
    """The authenticated caller; the policy table lets nobody else in here."""
    assert call.caller is not None
    return call.caller


NOT_CONTENT = frozenset({"request_id", "client_assertion"})
"""What may differ when a request is sent again: each assertion is good for once."""


def retry(request: Any, call: Call) -> Retry | None:
    """What makes a request safe to send again, if it carries a request_id (AIP-155)."""
    if not request.request_id:
        return None
    request_id = fields.request_id(request.request_id)
    content: Message = type(request)()
    content.CopyFrom(request)
    for name in NOT_CONTENT.intersection(content.DESCRIPTOR.fields_by_name):
        content.ClearField(name)
    return Retry(request_id, caller(call).account.id, call.method, content.SerializeToString(deterministic=True))
