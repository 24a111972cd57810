"""Steps of the plan and what became of them, for the wire."""

from __future__ import annotations

from artstore.identity.v1 import service_account_service_pb2 as pb

from artstore_grpc.rotations import Step
from artstore_grpc.rpc.messages import timestamp
from artstore_grpc.rpc.status import to_status
from artstore_grpc.scheduled_rotation import Result


def step_message(step: Step) -> pb.PlannedStep:
    return pb.PlannedStep(
        account_id=step.account_id,
        client_id=step.client_id,
        name=step.name,
        action=pb.RotationAction.Value(f"ROTATION_ACTION_{step.action.name}"),
        time=timestamp(step.time),
        secret_id=step.secret_id,
        reason=step.reason,
    )


def result_message(result: Result) -> pb.StepResult:
    error = to_status(result.error) if result.error is not None else None
    return pb.StepResult(step=step_message(result.step), error=error)
