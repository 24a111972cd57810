"""ImportServiceAccounts over every door: what is created, what is unchanged, what is refused, each by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from artstore_grpc.model import ACCOUNTS_READ, ACCOUNTS_WRITE, SECRET_LIFETIME, STORAGE_READ
from artstore_grpc.rpc.status import unpacked
from tests.api.callers import Api, unique
from tests.api.doors import refused
from tests.bcrypt_vectors import ABC
from tests.installation import Account, Installation

CREATED, UNCHANGED, FAILED = pb.IMPORT_OUTCOME_CREATED, pb.IMPORT_OUTCOME_UNCHANGED, pb.IMPORT_OUTCOME_FAILED
FULL: dict[str, Any] = {
    "description": "from the old system",
    "rate_limit": 7,
    "scopes": ["storage.read"],
    "audiences": ["artstore", "other"],
    "served_audiences": ["mine"],
    "introspection_only": True,
}


def legacy_id() -> str:
    return f"legacy/{uuid4().hex[:12]}"


def item(client_id: str = "", hashed: str = "", expires: datetime | None = None, **fields: Any) -> Any:
    """An account to import; a user of a name of its own unless fields say otherwise."""
    account = pb.ServiceAccount(**({"name": unique("import"), "role": pb.ROLE_USER} | fields))
    made = pb.ImportedServiceAccount(service_account=account, client_id=client_id, secret_hash=hashed)
    if expires is not None:
        made.secret_expire_time.CopyFrom(at(expires))
    return made


def at(time: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(time)
    return made


def told(status: Status) -> tuple[str, tuple[str, ...]]:
    """The reason and the fields of an item's error."""
    info, violations, _ = unpacked(status)
    assert info is not None
    assert info.domain == "identity.artstore"
    return info.reason, tuple(violation.field for violation in violations)


def failure(result: pb.ImportResult) -> tuple[str, tuple[str, ...]]:
    assert result.outcome == FAILED, result
    assert not result.HasField("service_account")
    return told(result.error)


def test_an_account_keeps_what_it_had(admin: Api) -> None:
    """Its client_id, every field, and the end of its secret; the secret is marked as imported."""
    client_id, expires = legacy_id(), datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    asked = item(client_id, ABC, expires, **FULL)
    (result,) = admin.imported(asked)
    assert (result.outcome, result.service_account.client_id) == (CREATED, client_id)
    made = admin.get(result.service_account.id)
    for name, value in FULL.items():
        assert getattr(made, name) == value
    assert (made.name, made.state) == (asked.service_account.name, pb.STATE_ACTIVE)
    (secret,) = made.secrets
    assert (secret.imported, secret.expire_time) == (True, at(expires))


def test_defaults(admin: Api) -> None:
    """Without a client_id it gets a new one, without an end its secret lives 90 days, without a hash it has none."""
    with_hash, without = admin.imported(item(hashed=ABC), item())
    life = with_hash.service_account.secrets[0].expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(0) <= SECRET_LIFETIME - life < timedelta(minutes=5)
    assert with_hash.service_account.client_id.startswith("sa_dev_import")
    assert not without.service_account.secrets
    assert admin.rotate(without.service_account.id).client_secret


def test_again_is_unchanged(admin: Api) -> None:
    """The same batch sent again changes nothing, and answers with the accounts as they are, however it was written."""
    batch = [
        item(legacy_id(), ABC, **FULL),
        item(legacy_id()),
        item(hashed=ABC),
        item(legacy_id(), role=pb.ROLE_AUDITOR),
    ]
    first = admin.imported(*batch)
    for index, scopes in (
        (1, ["storage.write", "storage.read"]),
        (3, ["identity.audit.read", "identity.accounts.read"]),
    ):
        batch[index].service_account.scopes.extend(scopes)
    again = admin.imported(*batch)
    assert [result.outcome for result in first] == [CREATED] * 4
    assert [result.outcome for result in again] == [UNCHANGED] * 4
    assert [result.service_account for result in again] == [result.service_account for result in first]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "quite another name"}, "name"),
        ({"rate_limit": 8}, "rate_limit"),
        ({"role": pb.ROLE_READONLY}, "role"),
        ({"audiences": ["artstore"]}, "audiences"),
        ({"introspection_only": False}, "introspection_only"),
    ],
)
def test_another_account_of_that_client_id(admin: Api, changed: dict[str, Any], said: str) -> None:
    """One that is not as asked for is left alone; what differs is said, never a value."""
    asked = item(legacy_id(), ABC, **FULL)
    (made,) = admin.imported(asked)
    for name, value in changed.items():
        asked.service_account.ClearField(name)
        asked.service_account.MergeFrom(pb.ServiceAccount(**{name: value}))
    (result,) = admin.imported(asked)
    assert failure(result) == ("CLIENT_ID_TAKEN", ())
    assert said in result.error.message
    assert str(changed[said]) not in result.error.message
    assert admin.get(made.service_account.id) == made.service_account


def test_another_secret_of_that_client_id(admin: Api) -> None:
    """Another hash, or another end, is another secret; the end of one that was rotated meanwhile counts no more."""
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    asked = item(legacy_id(), ABC, expires)
    (made,) = admin.imported(asked)
    other = pb.ImportedServiceAccount()
    other.CopyFrom(asked)
    other.secret_hash = ABC.replace("$2a$06$", "$2a$07$")
    (result,) = admin.imported(other)
    assert (failure(result)[0], "secret_hash" in result.error.message) == ("CLIENT_ID_TAKEN", True)
    other.CopyFrom(asked)
    other.secret_expire_time.seconds += 60
    (result,) = admin.imported(other)
    assert (failure(result)[0], "secret_expire_time" in result.error.message) == ("CLIENT_ID_TAKEN", True)
    admin.rotate(made.service_account.id)
    assert admin.imported(asked)[0].outcome == UNCHANGED
    admin.rotate(made.service_account.id, overlap=timedelta(0))
    assert failure(admin.imported(asked)[0])[0] == "CLIENT_ID_TAKEN"


def test_one_that_was_deleted(admin: Api) -> None:
    """A deleted account of that client_id is in the way, and the answer says so."""
    asked = item(legacy_id())
    (made,) = admin.imported(asked)
    admin.delete(made.service_account.id)
    assert failure(admin.imported(asked)[0])[0] == "ACCOUNT_DELETED"
    admin.undelete(made.service_account.id)
    assert admin.imported(asked)[0].outcome == UNCHANGED


REFUSED: list[tuple[str, Any]] = [
    ("role", item(role=pb.ROLE_UNSPECIFIED)),
    ("name", item(name="ab")),
    ("scopes", item(scopes=["storage.none"])),
    ("rate_limit", item(rate_limit=-1)),
    ("client_id", item("with space")),
    ("client_id", item("x" * 101)),
    ("client_id", item("ümlaut")),
    ("client_id", item("system")),
    ("secret_hash", item(hashed="abc")),
    ("secret_hash", item(hashed=ABC[:-1])),
    ("secret_hash", item(hashed=ABC + ".")),
    ("secret_hash", item(hashed=ABC + "\n")),
    ("secret_hash", item(hashed=ABC.replace("$2a$", "$2x$"))),
    ("secret_hash", item(hashed=ABC.replace("$2a$", "$2$"))),
    ("secret_hash", item(hashed=ABC.replace("$06$", "$03$"))),
    ("secret_hash", item(hashed=ABC.replace("$06$", "$17$"))),
    ("secret_hash", item(hashed=ABC.replace("$06$", "$6$"))),
    ("secret_hash", item(hashed=ABC[:-1] + "j")),
    ("secret_hash", item(hashed=ABC[:28] + "v" + ABC[29:])),
    ("secret_hash", item(hashed="$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA")),
    ("secret_expire_time", item(expires=datetime(2030, 1, 1, tzinfo=UTC))),
    ("secret_expire_time", item(hashed=ABC, expires=datetime(2020, 1, 1, tzinfo=UTC))),
    ("secret_expire_time", item(hashed=ABC, expires=datetime(9999, 1, 1, tzinfo=UTC))),
    ("service_account", pb.ImportedServiceAccount(client_id="without-account")),
]


def test_a_bad_one_spoils_no_other(admin: Api) -> None:
    """Each is refused by itself with the field at fault, and never the value; those between them are created."""
    good = [item(legacy_id(), ABC) for _ in REFUSED]
    results = admin.imported(*(each for pair in zip(good, (bad for _, bad in REFUSED), strict=True) for each in pair))
    assert [result.outcome for result in results[::2]] == [CREATED] * len(good)
    assert [failure(result) for result in results[1::2]] == [("INVALID_REQUEST", (field,)) for field, _ in REFUSED]
    for result, (_, bad) in zip(results[1::2], REFUSED, strict=True):
        assert not bad.secret_hash or bad.secret_hash not in str(result)


@pytest.mark.parametrize("kind", ["$2a$", "$2b$", "$2y$"])
@pytest.mark.parametrize("cost", ["04", "16"])
def test_every_kind_of_hash(admin: Api, kind: str, cost: str) -> None:
    """$2a$, $2b$ and $2y$ of cost 4 to 16 are taken. None is kept: others here would pay for its cost."""
    (result,) = admin.imported(item(hashed=kind + cost + ABC[6:]), validate_only=True)
    assert result.outcome == CREATED


def test_within_a_batch(admin: Api) -> None:
    """The same twice is unchanged; another of the same client_id, or name, fails: the first one has it."""
    one = item(legacy_id(), ABC)
    named = item(legacy_id(), name=one.service_account.name)
    results = admin.imported(one, one, item(one.client_id), named)
    assert [result.outcome for result in results[:2]] == [CREATED, UNCHANGED]
    assert [failure(result)[0] for result in results[2:]] == ["CLIENT_ID_TAKEN", "NAME_TAKEN"]


def test_names_of_others(admin: Api) -> None:
    """A name that an account has is taken, a deleted one's too."""
    account = admin.account("user")
    for _ in range(2):
        assert failure(admin.imported(item(legacy_id(), name=account.message.name))[0])[0] == "NAME_TAKEN"
        if not admin.get(account.id).HasField("delete_time"):
            admin.delete(account.id)


def test_a_client_id_like_an_id(admin: Api) -> None:
    """A UUID may be a client_id, and names its account; another account's id may not, in either case."""
    client_id = str(uuid4()).upper()
    (made,) = admin.imported(item(client_id, ABC))
    assert admin.get(client_id).id == made.service_account.id
    assert admin.suspend(client_id).state == pb.STATE_SUSPENDED
    taken = made.service_account.id
    assert admin.get(taken.upper()).client_id == client_id
    for name in (taken, taken.upper()):
        assert failure(admin.imported(item(name))[0]) == ("CLIENT_ID_TAKEN", ())
    with refused("NOT_FOUND"):
        admin.get(str(uuid4()))


def test_validate_only(admin: Api) -> None:
    """Everything is judged, nothing is created, and no id is given that another run would not give."""
    batch = [item(legacy_id(), ABC), item(hashed="no hash")]
    for _ in range(2):
        would_be, bad = admin.imported(*batch, validate_only=True)
        assert (would_be.outcome, would_be.service_account.id) == (CREATED, "")
        assert would_be.service_account.client_id == batch[0].client_id
        assert failure(bad) == ("INVALID_REQUEST", ("secret_hash",))
    with refused("NOT_FOUND"):
        admin.get(batch[0].client_id)
    admin.imported(batch[0])
    assert admin.imported(batch[0], validate_only=True)[0].outcome == UNCHANGED


@pytest.mark.parametrize("count", [0, 101])
def test_how_many(admin: Api, count: int) -> None:
    """None, and more than a hundred, are refused as a whole; a hundred are not."""
    with refused("INVALID_ARGUMENT", field="service_accounts"):
        admin.imported(*(item(name=f"{number:03}") for number in range(count)))
    batch = [item(legacy_id(), ABC) for _ in range(100)]
    assert {result.outcome for result in admin.imported(*batch)} == {CREATED}


def test_a_caller_with_fewer_scopes(admin: Api) -> None:
    """Who lacks a scope imports no account that holds it; one within its bounds it does."""
    narrow = admin.bearer(admin.account("admin", scopes=[ACCOUNTS_READ, ACCOUNTS_WRITE, STORAGE_READ]))
    wide, within = narrow.imported(item(legacy_id(), ABC), item(legacy_id(), ABC, scopes=[STORAGE_READ]))
    assert failure(wide) == ("SCOPE_NOT_HELD", ())
    assert within.outcome == CREATED


def test_a_body_over_64_kib(admin: Api) -> None:
    """The bound on messages and bodies holds here too: clients send smaller batches."""
    batch = [item(legacy_id(), description="x" * 500, audiences=["y" * 255]) for _ in range(100)]
    with refused("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE") if is_grpc(admin) else refused("INVALID_ARGUMENT"):
        admin.imported(*batch)


def is_grpc(api: Api) -> bool:
    return type(api.door).__name__ == "GrpcDoor"


def test_the_ledger_says_it(service: Installation, grpc_admin: Api) -> None:
    """Each created account has its row, marked as imported, with neither the hash nor what it says of the secret."""
    before = service.run(sequence(service))
    (made, _) = grpc_admin.imported(item(legacy_id(), ABC), item(hashed="no hash"))
    grpc_admin.imported(item(hashed=ABC), validate_only=True)
    (row,) = service.run(rows(service, before))
    detail = json.loads(row.detail)
    assert (row.kind, row.subject) == ("account.created", made.service_account.id)
    assert (detail["imported"], detail["secret_cost"]) == (True, 6)
    assert ABC[7:] not in row.detail
    assert ABC[7:] not in service.log.getvalue()


async def sequence(service: Installation) -> int:
    from artstore_grpc.store.sql import SqlStore

    store = SqlStore(service.settings.store_url)
    try:
        return (await store.head())[0]
    finally:
        await store.close()


async def rows(service: Installation, after: int) -> list[Any]:
    from artstore_grpc.store.sql import SqlStore

    store = SqlStore(service.settings.store_url)
    try:
        return await store.ledger(after, 100)
    finally:
        await store.close()


def test_two_at_once(root: Api, alone: Installation) -> None:
    """The same batches at the same time, on either database: each account is created once, and nothing fails."""
    from concurrent.futures import ThreadPoolExecutor

    batches = [[item(legacy_id(), ABC) for _ in range(30)] for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: root.imported(*batches[number % 4]), range(16)))
    outcomes = [result.outcome for answer in answers for result in answer]
    assert (outcomes.count(CREATED), outcomes.count(UNCHANGED)) == (120, 360)
    assert len({result.service_account.id for answer in answers for result in answer}) == 120


def test_one_that_could_log_in(admin: Api) -> None:
    """An imported account gets a token with the secret that its hash is of."""
    client_id = legacy_id()
    (made,) = admin.imported(item(client_id, ABC))
    account = Account(made.service_account.id, client_id, "abc", made.service_account)
    assert admin.token(account)
