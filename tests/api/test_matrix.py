"""The authorization matrix: every RPC × role × state × credential, against one row of expectations per RPC.

The rows are written by hand, apart from policy.py: a method that gets a rule there and no row here fails the suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from artstore.identity.v1 import audit_service_pb2 as audit_pb
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from artstore_grpc import secrets
from artstore_grpc.model import SECRET_LIFETIME, Role, State
from artstore_grpc.rpc.descriptors import walked
from tests.api.callers import Api, basic
from tests.api.conftest import administrator, first_account
from tests.api.doors import METHODS, ROUTES, Door, Refused, opened
from tests.api.forgery import resigned
from tests.installation import Account, Installation

Outcome = tuple[str, str]
"""A code and a reason; both are part of the contract."""

OK: Outcome = ("OK", "")
NOT_FOUND: Outcome = ("NOT_FOUND", "NOT_FOUND")
NO_KEY: Outcome = ("NOT_FOUND", "KEY_NOT_FOUND")
NOT_A_CLIENT: Outcome = ("UNAUTHENTICATED", "INVALID_CLIENT")
NOT_A_TOKEN: Outcome = ("UNAUTHENTICATED", "INVALID_TOKEN")
NO_TOKEN: Outcome = ("UNAUTHENTICATED", "MISSING_TOKEN")
WRONG_AUDIENCE: Outcome = ("UNAUTHENTICATED", "WRONG_AUDIENCE")
NO_SCOPE: Outcome = ("PERMISSION_DENIED", "INSUFFICIENT_SCOPE")

ALL = frozenset(Role)
WRITERS = frozenset({Role.ADMIN})
READERS = frozenset({Role.ADMIN, Role.AUDITOR})
NOBODY: frozenset[Role] = frozenset()

BEARERS = {
    "expired token": NOT_A_TOKEN,
    "wrong audience": WRONG_AUDIENCE,
    "two audiences": WRONG_AUDIENCE,
    "forged": NOT_A_TOKEN,
    "valid token": OK,
}
"""Tokens, and what comes of each where tokens are taken and the account is active."""
CLIENTS = ("wrong secret", "right secret")
CREDENTIALS = ("no credentials", *BEARERS, *CLIENTS)

NOWHERE = str(uuid4())
"""An id that no account has: who is admitted changes nothing."""


@dataclass(frozen=True)
class Row:
    """Who may call a method with a token and with a secret, and what who is admitted is answered."""

    request: Any
    by_token: frozenset[Role] = NOBODY
    by_secret: frozenset[Role] = NOBODY
    admitted: Outcome = NOT_FOUND
    public: bool = False
    any_audience: bool = False
    """Whether a token for the default audience is admitted too."""


def verb(name: str, by_token: frozenset[Role] = WRITERS, **fields: Any) -> Row:
    return Row(getattr(accounts_pb, f"{name}Request")(id=NOWHERE, **fields), by_token)


ROWS: dict[str, Row] = {
    "IssueToken": Row(tokens_pb.IssueTokenRequest(grant_type="client_credentials"), by_secret=ALL, admitted=OK),
    "IntrospectToken": Row(tokens_pb.IntrospectTokenRequest(token="no token"), by_secret=ALL, admitted=OK),
    "RevokeToken": Row(tokens_pb.RevokeTokenRequest(token="no token"), by_secret=ALL, admitted=OK),
    "GetJsonWebKeySet": Row(tokens_pb.GetJsonWebKeySetRequest(), public=True, admitted=OK),
    "GetServerMetadata": Row(tokens_pb.GetServerMetadataRequest(), public=True, admitted=OK),
    "WatchTrust": Row(tokens_pb.WatchTrustRequest(), ALL, admitted=OK, any_audience=True),
    "GetRevocations": Row(tokens_pb.GetRevocationsRequest(), public=True, admitted=OK),
    "CreateServiceAccount": Row(
        accounts_pb.CreateServiceAccountRequest(service_account=accounts_pb.ServiceAccount(name="x", role="ROLE_USER")),
        WRITERS,
        admitted=("INVALID_ARGUMENT", "INVALID_REQUEST"),
    ),
    "GetServiceAccount": verb("GetServiceAccount", READERS),
    "ListServiceAccounts": Row(accounts_pb.ListServiceAccountsRequest(page_size=1), READERS, admitted=OK),
    "UpdateServiceAccount": Row(
        accounts_pb.UpdateServiceAccountRequest(
            service_account=accounts_pb.ServiceAccount(id=NOWHERE, description="changed")
        ),
        WRITERS,
    ),
    "DeleteServiceAccount": verb("DeleteServiceAccount"),
    "UndeleteServiceAccount": verb("UndeleteServiceAccount"),
    "SuspendServiceAccount": verb("SuspendServiceAccount"),
    "ActivateServiceAccount": verb("ActivateServiceAccount"),
    "RotateSecret": Row(accounts_pb.RotateSecretRequest(id=NOWHERE), WRITERS, by_secret=ALL),
    "RevokeSecret": verb("RevokeSecret", secret_id="0123456789"),
    "ImportServiceAccounts": Row(
        accounts_pb.ImportServiceAccountsRequest(
            service_accounts=[{"service_account": {"name": "never made", "role": accounts_pb.ROLE_USER}}],
            validate_only=True,
        ),
        WRITERS,
        admitted=OK,
    ),
    "PlanRotations": Row(accounts_pb.PlanRotationsRequest(page_size=1), READERS, admitted=OK),
    "RunRotations": Row(accounts_pb.RunRotationsRequest(dry_run=True), WRITERS, admitted=OK),
    "ListSigningKeys": Row(keys_pb.ListSigningKeysRequest(), WRITERS, admitted=OK),
    "PrepareSigningKey": Row(keys_pb.PrepareSigningKeyRequest(), WRITERS, admitted=OK),
    "ActivateSigningKey": Row(keys_pb.ActivateSigningKeyRequest(kid=NOWHERE), WRITERS, admitted=NO_KEY),
    "RetireSigningKey": Row(keys_pb.RetireSigningKeyRequest(kid=NOWHERE), WRITERS, admitted=NO_KEY),
    "RevokeSigningKey": Row(keys_pb.RevokeSigningKeyRequest(kid=NOWHERE), WRITERS, admitted=NO_KEY),
    "RotateSigningKey": Row(keys_pb.RotateSigningKeyRequest(), WRITERS, admitted=OK),
    "ListAuditEvents": Row(audit_pb.ListAuditEventsRequest(page_size=1), READERS, admitted=OK),
    "ListAuditCheckpoints": Row(audit_pb.ListAuditCheckpointsRequest(), READERS, admitted=OK),
    "VerifyAuditLog": Row(audit_pb.VerifyAuditLogRequest(max_rows=1), READERS, admitted=OK),
    "ExplainDenial": Row(
        audit_pb.ExplainDenialRequest(denial_id="none"), READERS, admitted=("INVALID_ARGUMENT", "BAD_DENIAL_ID")
    ),
}


def expected(row: Row, role: Role, state: State, credential: str) -> Outcome:
    """What one cell is to answer, by the method's row, the role, the account's state and the credential."""
    if row.public:
        return row.admitted
    if not row.by_token:
        admitted = credential == "right secret" and state is State.ACTIVE
        return row.admitted if admitted else NOT_A_CLIENT
    if credential in CLIENTS and row.by_secret:
        return row.admitted if (credential, state) == ("right secret", State.ACTIVE) else NOT_A_CLIENT
    if credential not in BEARERS:
        return NO_TOKEN
    if BEARERS[credential] != OK and not (credential == "wrong audience" and row.any_audience):
        return BEARERS[credential]
    if state is not State.ACTIVE:
        return NOT_A_TOKEN
    return row.admitted if role in row.by_token else NO_SCOPE


@dataclass
class Member:
    """An account of one role and state, with every credential it is tried with."""

    account: Account
    credentials: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cast:
    """The installation with an account of each role and state."""

    service: Installation
    members: dict[tuple[Role, State], Member]


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """Sixteen accounts, one of each role and state, in an installation whose clock has made some expire."""
    trusted = (ip_network("127.0.0.0/8"),)  # the gateway that runs alone
    with (
        Installation(tmp_path_factory.mktemp("matrix"), trusted_proxies=trusted) as service,
        opened("grpc", service) as door,
    ):
        yield Cast(service, members(service, door))


def members(service: Installation, door: Door) -> dict[tuple[Role, State], Member]:
    """The expired ones are as old as secrets get; tokens that shall have expired are 50 minutes old, others 10."""
    root = administrator(service, door)
    made = {(role, State.EXPIRED): Member(created(root, role)) for role in Role}
    service.clock.advance(SECRET_LIFETIME / 2)
    administrators = Api(door, service.issuer).basic(first_account(service)).rotated(first_account(service))
    root = Api(door, service.issuer).bearer(administrators)
    for role, state in product(Role, set(State) - {State.EXPIRED}):
        made[role, state] = Member(created(root, role))
    service.clock.advance(SECRET_LIFETIME / 2 - timedelta(minutes=50))
    for member in made.values():
        member.credentials["expired token"] = bearer(root, member.account)
    service.clock.advance(timedelta(minutes=40))
    for member in made.values():
        member.credentials |= credentials(root, member.account)
    root = Api(door, service.issuer).bearer(administrators)
    for (_, state), member in made.items():
        shut(root, state, member.account)
    service.clock.advance(timedelta(minutes=11))
    return made


def created(root: Api, role: Role) -> Account:
    """May ask for the storage's audience and the issuer's, whatever its role, and more often than by default."""
    return root.account(role.value, rate_limit=10_000, audiences=("artstore", root.issuer))


def bearer(root: Api, account: Account, *audience: str) -> str:
    return f"Bearer {root.token(account, audience=audience or (root.issuer,))}"


def credentials(root: Api, account: Account) -> dict[str, str]:
    valid = bearer(root, account)
    return {
        "no credentials": "",
        "wrong audience": bearer(root, account, "artstore"),
        "two audiences": bearer(root, account, "artstore", root.issuer),
        "forged": f"Bearer {resigned(valid.removeprefix('Bearer '))}",
        "valid token": valid,
        "right secret": basic(account.client_id, account.secret),
    }


def shut(root: Api, state: State, account: Account) -> None:
    if state is State.SUSPENDED:
        root.suspend(account.id)
    if state is State.DELETED:
        root.delete(account.id)


def found(door: Door, method: str, authorization: str) -> Outcome:
    try:
        door.call(method, ROWS[method].request, authorization)
    except Refused as refusal:
        return refusal.code, refusal.reason
    return OK


def test_every_rpc_has_one_row() -> None:
    """A method of the descriptors without a row fails here, and so does a row without a method."""
    assert sorted(ROWS) == sorted(METHODS)
    assert len(METHODS) == len(list(walked())), "two services have a method of one name"


def test_every_account_is_in_the_state_it_stands_for(cast: Cast) -> None:
    """The matrix tries what it says it tries."""
    with opened("grpc", cast.service) as door:
        known = Api(door, cast.service.issuer, cast.members[Role.ADMIN, State.ACTIVE].credentials["valid token"])
        for (role, state), member in cast.members.items():
            message = known.get(member.account.id)
            assert (message.role, message.state) == (
                accounts_pb.Role.Value(f"ROLE_{role.name}"),
                accounts_pb.State.Value(f"STATE_{state.name}"),
            )


@pytest.mark.parametrize(
    ("kind", "states"), [("grpc", tuple(State)), ("http", (State.ACTIVE,)), ("gateway", (State.ACTIVE,))]
)
def test_matrix(cast: Cast, kind: str, states: tuple[State, ...]) -> None:
    """Every RPC × role × state × credential is answered as its row says; over HTTP those of active accounts."""
    wrong: dict[tuple[str, ...], Any] = {}
    for member in cast.members.values():  # of one secret id only so many failures are answered
        member.credentials["wrong secret"] = basic(member.account.client_id, secrets.generate().text)
    with opened(kind, cast.service) as door:
        for method, role, state, credential in product(METHODS, Role, states, CREDENTIALS):
            if kind != "grpc" and method not in ROUTES:
                continue
            answer = found(door, method, cast.members[role, state].credentials[credential])
            should_be = expected(ROWS[method], role, state, credential)
            if answer != should_be:
                wrong[method, role, state, credential] = f"{answer}, not {should_be}"
    assert not wrong


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_row_that_admits_too_many_is_noticed(credential: str) -> None:
    """The expectations tell an admitted caller from a refused one for every credential that can be admitted."""
    row = ROWS["RotateSecret"]
    outcomes = {expected(row, role, state, credential) for role, state in product(Role, State)}
    assert (row.admitted in outcomes) == (credential in ("valid token", "right secret"))


def test_nothing_was_created_by_the_matrix(cast: Cast) -> None:
    """Refused and harmless calls left no account behind."""
    with opened("grpc", cast.service) as door:
        known = Api(door, cast.service.issuer, cast.members[Role.ADMIN, State.ACTIVE].credentials["valid token"])
        accounts = [account for page in known.pages(show_deleted=True) for account in page]
    assert len(accounts) == len(cast.members) + 1, "the administrator is one more"
