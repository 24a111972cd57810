"""Whole installations for the cases of the API: one that is shared, and fresh ones for what would disturb others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from artstore.identity.v1.service_account_service_pb2 import ServiceAccount

from artstore_grpc.vault import new_key
from tests.api.callers import Api
from tests.api.doors import DOORS, Door, GrpcDoor, opened
from tests.installation import Account, Installation

ISSUER = "http://issuer.test"
"""Of installations that restart, or that stand on PostgreSQL: the default would follow the gateway's port."""

QUICK = {"drain_grace": timedelta(seconds=1)}
"""Servers that share a process don't always notice at once that their connections are gone."""

Fresh = Callable[..., Installation]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that tests share: they make accounts of their own and leave its clock alone."""
    with Installation(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture(scope="session", params=DOORS)
def door(request: pytest.FixtureRequest, service: Installation) -> Iterator[Door]:
    """Each door of the shared installation: a case that takes it runs over all of them."""
    with opened(request.param, service) as made:
        yield made


@pytest.fixture(scope="session")
def admin(door: Door, service: Installation) -> Api:
    """The administrator of the shared installation, over each door."""
    return administrator(service, door)


@pytest.fixture(scope="session")
def grpc_admin(service: Installation) -> Iterator[Api]:
    """The same over gRPC alone, for what no other door can say."""
    with opened("grpc", service) as made:
        yield administrator(service, made)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Fresh]:
    """Makes installations on the embedded default that the test has for itself."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Installation(tmp_path / "fresh", **(QUICK | settings)))


@pytest.fixture(params=["sqlite", "postgresql"])
def alone(request: pytest.FixtureRequest, fresh: Fresh) -> Installation:
    """An installation for one test: on the embedded SQLite and on PostgreSQL. Its keys change on request only: a clock
    that jumps by days in the middle of a rotation makes the key that has just signed a month old."""
    by_hand = timedelta(0)
    if request.param == "sqlite":
        return fresh(issuer=ISSUER, key_rotation_interval=by_hand)
    url = request.getfixturevalue("postgres_url")
    return fresh(database_url=url, issuer=ISSUER, key_encryption_key=new_key(), key_rotation_interval=by_hand)


@pytest.fixture
def root(alone: Installation) -> Iterator[Api]:
    """The administrator of that installation, over gRPC."""
    made = GrpcDoor(str(alone.started.grpc_address))
    yield administrator(alone, made)
    made.close()


def first_account(service: Installation) -> Account:
    """The first administrator; its client_id names it wherever an id does."""
    known = service.administrator
    return Account(known.client_id, known.client_id, known.client_secret, ServiceAccount())


def administrator(service: Installation, door: Door) -> Api:
    """The first administrator by a token of now."""
    return Api(door, service.issuer).bearer(first_account(service))
