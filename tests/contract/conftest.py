"""One suite, two authorities: the real service, and the fake that the client brings for its users' tests.

Every fixture that a case of the API takes from `tests/api/conftest.py` is here again, once for each kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import artstore.identity.testing
import grpc
import pytest
from artstore.identity.v1.token_service_pb2 import GetServerMetadataRequest
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub

from tests.api.callers import Api
from tests.api.conftest import ISSUER
from tests.api.conftest import administrator as administrating
from tests.api.doors import GrpcDoor, Refused
from tests.contract.stands import KINDS, Differs, Stand, opened


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def service(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """An authority that cases share: they make accounts of their own, and leave its clock and its keys alone."""
    with opened(kind, tmp_path_factory.mktemp("contract")) as stand:
        yield stand


@pytest.fixture(scope="session")
def door(service: Stand) -> Iterator[GrpcDoor]:
    made = GrpcDoor(str(service.started.grpc_address))
    yield made
    made.close()


@pytest.fixture(scope="session")
def admin(door: GrpcDoor, service: Stand) -> Api:
    """The administrator of the shared authority."""
    return administrating(service, door)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def grpc_admin(admin: Api) -> Api:
    return admin


@pytest.fixture
def alone(kind: str, tmp_path: Path) -> Iterator[Stand]:
    """An authority that the case has for itself."""
    with opened(kind, tmp_path / "alone", issuer=ISSUER) as stand:
        yield stand


@pytest.fixture
def root(alone: Stand) -> Iterator[Api]:
    """The administrator of that authority."""
    made = GrpcDoor(str(alone.started.grpc_address))
    yield administrating(alone, made)  # type: ignore[arg-type]
    made.close()


@pytest.fixture
def differs(request: pytest.FixtureRequest, kind: str, service: Stand) -> Iterator[Differs]:
    """Says that the fake knowingly fails this case, under the name that its docstring gives the difference. It must:
    a difference that is none any more fails here. So does a fake that is not there."""

    def declare(name: str) -> None:
        assert f"\n* {name}: " in str(artstore.identity.testing.__doc__)
        if kind == "fake":
            raises = (Refused, AssertionError, ValueError, grpc.RpcError, pytest.fail.Exception)
            request.applymarker(pytest.mark.xfail(strict=True, raises=raises, reason=name))

    yield declare
    with grpc.insecure_channel(str(service.started.grpc_address)) as channel:
        TokenServiceStub(channel).GetServerMetadata(GetServerMetadataRequest(), timeout=10)
