"""Every change has its row in the ledger, which says who made it, from where and in which call; or it doesn't happen.

The list of changes is written by hand, apart from policy.py: a method of the API that is neither here nor among those
that only read fails the suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from artstore.identity.v1 import audit_service_pb2 as audit_pb
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import inspect, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from artstore_grpc.secrets import secret_id
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.vault import new_key
from tests.api.callers import Api, basic, unique
from tests.api.conftest import ISSUER, QUICK, administrator
from tests.api.doors import METHODS, GrpcDoor, Refused
from tests.installation import Installation
from tests.rotation.shelf import Shelf

Asked = tuple[Any, str]
"""A request, and the authorization that it is made with."""

READING = {
    *("IssueToken", "IntrospectToken", "GetJsonWebKeySet", "GetServerMetadata", "WatchTrust", "GetRevocations"),
    *("GetServiceAccount", "ListServiceAccounts", "PlanRotations", "ListSigningKeys"),
    *("ListAuditEvents", "ListAuditCheckpoints", "VerifyAuditLog", "ExplainDenial"),
}
"""Methods that change nothing that the ledger tells; of issued tokens the log and a counter tell."""


class Office:
    """An installation, and its administrator by a token of now."""

    def __init__(self, service: Installation) -> None:
        self.service = service
        self.door = GrpcDoor(str(service.started.grpc_address))

    @property
    def admin(self) -> Api:
        return administrator(self.service, self.door)

    def later(self, **time: float) -> Api:
        self.service.clock.advance(timedelta(**time))
        return self.admin

    def call(self, method: str, asked: Asked) -> Any:
        return self.door.call(method, asked[0], asked[1])

    def rows(self, after: int) -> list[audit_pb.AuditEvent]:
        admin = self.admin
        request = audit_pb.ListAuditEventsRequest(filter=f"sequence > {after}", page_size=1000)
        return list(self.door.call("ListAuditEvents", request, admin.authorization).audit_events)

    @property
    def head(self) -> int:
        return int(
            self.call("VerifyAuditLog", (audit_pb.VerifyAuditLogRequest(), self.admin.authorization)).last_sequence
        )

    def logged(self, method: str) -> dict[str, Any]:
        """The last log line of a method."""
        lines = [json.loads(line) for line in self.service.log.getvalue().splitlines()]
        return [line for line in lines if line.get("method", "").endswith(f"/{method}")][-1]


def on_account(name: str, **fields: Any) -> Callable[[Office], Asked]:
    def asked(office: Office) -> Asked:
        admin = office.admin
        return getattr(pb, f"{name}Request")(id=admin.account().id, **fields), admin.authorization

    return asked


def of_a_client(office: Office) -> Asked:
    """By its secret: a service rotates its own."""
    account = office.admin.account()
    return pb.RotateSecretRequest(id=account.id), basic(account.client_id, account.secret)


def after(verb: str) -> Callable[[Office], Asked]:
    """The way back from another verb."""

    def asked(office: Office) -> Asked:
        admin = office.admin
        account = admin.account()
        getattr(admin, {"Undelete": "delete", "Activate": "suspend"}[verb])(account.id)
        return getattr(pb, f"{verb}ServiceAccountRequest")(id=account.id), admin.authorization

    return asked


def creation(office: Office) -> Asked:
    made = pb.ServiceAccount(name=unique(), role=pb.ROLE_USER)
    return pb.CreateServiceAccountRequest(service_account=made), office.admin.authorization


def importing(office: Office) -> Asked:
    made = pb.ImportedServiceAccount(service_account=pb.ServiceAccount(name=unique(), role=pb.ROLE_USER))
    return pb.ImportServiceAccountsRequest(service_accounts=[made]), office.admin.authorization


def updating(office: Office) -> Asked:
    admin = office.admin
    changed = pb.ServiceAccount(id=admin.account(description="before").id, description="after")
    request = pb.UpdateServiceAccountRequest(service_account=changed)
    request.update_mask.paths.append("description")
    return request, admin.authorization


def revoking_a_secret(office: Office) -> Asked:
    admin = office.admin
    account = admin.account()
    return pb.RevokeSecretRequest(id=account.id, secret_id=secret_id(account.secret) or ""), admin.authorization


def revoking_a_token(office: Office) -> Asked:
    account = office.admin.account()
    token = office.admin.token(account)
    return tokens_pb.RevokeTokenRequest(token=token), basic(account.client_id, account.secret)


def rotations(office: Office) -> Asked:
    rotated = pb.RotationPolicy(mode=pb.ROTATION_MODE_MANAGED, schedule="0 3 * * *", sink="shelf")
    rotated.overlap.CopyFrom(Duration(seconds=3600))
    office.admin.create(rotation_policy=rotated)
    return pb.RunRotationsRequest(), office.later(days=2).authorization


def prepared_keys(office: Office) -> list[str]:
    asked = keys_pb.ListSigningKeysRequest(), office.admin.authorization
    keys = office.call("ListSigningKeys", asked).signing_keys
    return [key.kid for key in keys if key.state == tokens_pb.KEY_STATE_PREPARED]


def preparing(office: Office) -> Asked:
    """With none that is prepared already: that one would be the answer."""
    for kid in prepared_keys(office):
        office.call("RetireSigningKey", (keys_pb.RetireSigningKeyRequest(kid=kid), office.admin.authorization))
    return keys_pb.PrepareSigningKeyRequest(), office.admin.authorization


def prepared(name: str, **wait: float) -> Callable[[Office], Asked]:
    """Something that is done to a prepared key."""

    def asked(office: Office) -> Asked:
        kid = office.call("PrepareSigningKey", preparing(office)).signing_key.kid
        return getattr(keys_pb, f"{name}Request")(kid=kid), office.later(**wait).authorization

    return asked


def rotating_keys(office: Office) -> Asked:
    return keys_pb.RotateSigningKeyRequest(), office.admin.authorization


CHANGES: dict[str, Callable[[Office], Asked]] = {
    "CreateServiceAccount": creation,
    "ImportServiceAccounts": importing,
    "UpdateServiceAccount": updating,
    "SuspendServiceAccount": on_account("SuspendServiceAccount"),
    "ActivateServiceAccount": after("Activate"),
    "DeleteServiceAccount": on_account("DeleteServiceAccount"),
    "UndeleteServiceAccount": after("Undelete"),
    "RotateSecret": of_a_client,
    "RevokeSecret": revoking_a_secret,
    "RevokeToken": revoking_a_token,
    "PrepareSigningKey": preparing,
    "RetireSigningKey": prepared("RetireSigningKey"),
    "ActivateSigningKey": prepared("ActivateSigningKey", hours=2),
    "RevokeSigningKey": prepared("RevokeSigningKey"),
    "RotateSigningKey": rotating_keys,
    "RunRotations": rotations,
}
"""What is asked for each, with what has to be there before."""

WITHOUT_BEFORE = {
    "CreateServiceAccount",
    "ImportServiceAccounts",
    "RevokeToken",
    "PrepareSigningKey",
    "RotateSigningKey",
}
"""What makes something new."""


@pytest.fixture(params=["sqlite", "postgresql"])
def office(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Office]:
    own: dict[str, Any] = {"issuer": ISSUER, "key_rotation_interval": timedelta(0)}
    if request.param == "postgresql":
        own |= {"database_url": request.getfixturevalue("postgres_url"), "key_encryption_key": new_key()}
    with Installation(tmp_path / "office", sinks=Sinks({"shelf": Shelf()}), **(QUICK | own)) as service:
        made = Office(service)
        yield made
        made.door.close()


def test_every_method_reads_or_changes() -> None:
    """A new method is told of here, one way or the other."""
    assert sorted([*READING, *CHANGES]) == sorted(METHODS)


def test_every_change_tells_its_origin(office: Office) -> None:
    """Its row has the caller as its actor, the address that the call came from, the request id that the log line has,
    and what was before, where there was something."""
    for method, prepare in CHANGES.items():
        line, mine = told_of(office, method, prepare)
        if not mine and method == "PrepareSigningKey":  # the service's own has come first, as it does within a second
            line, mine = told_of(office, method, prepare)
        assert mine, f"{method} left no row"
        for row in mine:
            told = json.loads(row.detail)
            assert (told["source"], told["request_id"]) == ("127.0.0.1", line["request_id"]), method
            assert told.get("before") or method in WITHOUT_BEFORE, (method, told)


def told_of(
    office: Office, method: str, prepare: Callable[[Office], Asked]
) -> tuple[dict[str, Any], list[audit_pb.AuditEvent]]:
    """Makes a change; its line in the log, and its caller's rows in the ledger."""
    asked = prepare(office)
    begin = office.head
    office.call(method, asked)
    line = office.logged(method)
    return line, [row for row in office.rows(begin) if row.actor == line["client_id"]]


def test_without_its_row_nothing_changes(office: Office) -> None:
    """A ledger that takes no row: every change is refused, and not a value in the database is another one."""
    for method, prepare in CHANGES.items():
        asked = prepare(office)
        if method == "PrepareSigningKey" and prepared_keys(office):  # the service's own, as within a second
            asked = prepare(office)
        with shut_ledger(database_of(office)):
            before = asyncio.run(contents(database_of(office)))
            with contextlib.suppress(Refused) if method == "RunRotations" else pytest.raises(Refused):
                office.call(method, asked)
            assert asyncio.run(contents(database_of(office))) == before, method
        office.call(method, asked)


def test_issued_tokens_are_a_line_of_the_log(office: Office) -> None:
    """Who got which token for what, from where and by which secret; the ledger has nothing of it."""
    account = office.admin.account()
    head = office.head
    issued = office.admin.issue(account)
    line = office.logged("IssueToken")
    assert (line["client_id"], line["secret_id"]) == (account.client_id, secret_id(account.secret))
    assert (line["source"], line["scope"], line["audience"]) == ("127.0.0.1", issued.scope, ["artstore"])
    assert line["request_id"]
    assert line["jti"]
    assert not [row for row in office.rows(head) if row.subject == account.id]


def database_of(office: Office) -> str:
    return office.service.settings.store_url


VOLATILE = {"leases", "secret_uses", "used_assertions"}
"""Tables that tell of no change."""
NOTED = {"tag", "last_used_time", "last_used_source", "hash", "due_time"}
"""Columns that use writes, and when to look at an account again."""


async def contents(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table that a change is about."""
    engine = create_async_engine(driver_of(url))
    try:
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
            found = {}
            for name in sorted(set(names) - VOLATILE):
                rows = (await connection.exec_driver_sql(f'SELECT * FROM "{name}"')).mappings()
                found[name] = sorted(({k: v for k, v in row.items() if k not in NOTED} for row in rows), key=repr)
            return found
    finally:
        await engine.dispose()


def driver_of(url: str) -> str:
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    return make_url(url).set(drivername=driver).render_as_string(hide_password=False)


SHUT = {
    "sqlite": ("CREATE TRIGGER shut BEFORE INSERT ON ledger BEGIN SELECT RAISE(ABORT, 'shut'); END",),
    "postgresql": (
        "CREATE FUNCTION shut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'shut'; END $$",
        "CREATE TRIGGER shut BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION shut()",
    ),
}
OPENED = {"sqlite": ("DROP TRIGGER shut",), "postgresql": ("DROP TRIGGER shut ON ledger", "DROP FUNCTION shut")}


@contextlib.contextmanager
def shut_ledger(url: str) -> Iterator[None]:
    """A database whose ledger takes no row."""
    kind = make_url(url).get_backend_name()
    asyncio.run(executed(url, SHUT[kind]))
    try:
        yield
    finally:
        asyncio.run(executed(url, OPENED[kind]))


async def executed(url: str, statements: tuple[str, ...]) -> None:
    engine = create_async_engine(driver_of(url))
    try:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()
