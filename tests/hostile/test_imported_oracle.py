"""Imported secrets tell a stranger nothing: a text that can't be a secret of ours costs the same at every account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import bcrypt
import grpc
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from tests.hostile.test_oracle import Credentials, Work, over_grpc, over_http
from tests.installation import Installation
from tests.test_imported_secrets import counted

COST, HIGHEST = 5, 7
TEXT = "an old secret"
LONG = "x" * 100


def hashed(cost: int, text: str = TEXT) -> str:
    return bcrypt.hashpw(text.encode()[:72], bcrypt.gensalt(cost)).decode()


class Legacy:
    """An installation with accounts of its own and of another system, and what is tried at them."""

    def __init__(self, service: Installation) -> None:
        self.service = service
        bearer = service.bearer()
        own = service.account("user")
        for name, cost in (("cheap", 4), ("dear", HIGHEST), ("used", 4), ("suspended", 4), ("deleted", HIGHEST)):
            self._import(name, hashed(cost))
        self._import("long", hashed(4, LONG))
        self._import("expired", hashed(4), timedelta(seconds=1))
        service.token("used", TEXT)
        for name, verb in (("suspended", "Suspend"), ("deleted", "Delete")):
            request = getattr(pb, f"{verb}ServiceAccountRequest")(id=name)
            getattr(service.accounts, f"{verb}ServiceAccount")(request, metadata=bearer)
        service.clock.advance(timedelta(seconds=2))
        self.by_reason: dict[str, Credentials] = {
            "unknown id": ("nobody", TEXT),
            "no imported secret": (own.client_id, TEXT),
            "wrong, hash of low cost": ("cheap", "wrong"),
            "wrong, hash of high cost": ("dear", "wrong"),
            "wrong, in use": ("used", "wrong"),
            "wrong, 100 bytes": ("long", "y" * 100),
            "unknown id, 100 bytes": ("nobody", LONG),
            "suspended": ("suspended", TEXT),
            "deleted": ("deleted", TEXT),
            "expired": ("expired", TEXT),
            "suspended, wrong": ("suspended", "wrong"),
            "of our form, but for its checksum": ("cheap", own.secret[:-1] + ("a" if own.secret[-1] != "a" else "b")),
        }

    def _import(self, client_id: str, secret_hash: str, life: timedelta = timedelta(days=1)) -> None:
        expires = Timestamp()
        expires.FromDatetime(datetime.now(UTC) + life)
        account = pb.ServiceAccount(name=f"imported {client_id}", role=pb.ROLE_USER)
        asked = pb.ImportedServiceAccount(
            service_account=account, client_id=client_id, secret_hash=secret_hash, secret_expire_time=expires
        )
        request = pb.ImportServiceAccountsRequest(service_accounts=[asked])
        answer = self.service.accounts.ImportServiceAccounts(request, metadata=self.service.bearer())
        assert answer.results[0].outcome == pb.IMPORT_OUTCOME_CREATED, answer


REASONS = (
    "unknown id",
    "no imported secret",
    "wrong, hash of low cost",
    "wrong, hash of high cost",
    "wrong, in use",
    "wrong, 100 bytes",
    "unknown id, 100 bytes",
    "suspended",
    "deleted",
    "expired",
    "suspended, wrong",
    "of our form, but for its checksum",
)


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Legacy]:
    with Installation(tmp_path_factory.mktemp("legacy"), bcrypt_cost=COST) as service:
        yield Legacy(service)


@pytest.mark.parametrize("ask", [over_grpc, over_http])
def test_one_answer(legacy: Legacy, ask: Callable[[Installation, Credentials], bytes]) -> None:
    """Every failure is answered as an unknown id is, to the byte."""
    expected = ask(legacy.service, ("nobody-else", TEXT))
    for reason in REASONS:
        assert ask(legacy.service, legacy.by_reason[reason]) == expected, reason


@pytest.mark.parametrize("reason", REASONS)
def test_same_work(legacy: Legacy, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure costs one digest, and the rounds of the dearest hash there is."""
    work, rounds = Work(monkeypatch), counted(monkeypatch)
    over_grpc(legacy.service, legacy.by_reason[reason])
    assert work.done == ["digest"]
    assert sum(rounds) == 2**HIGHEST


def test_the_right_ones_get_in(legacy: Legacy) -> None:
    """What the failures are failures of: the same accounts' right secrets are accepted."""
    for client_id, text in (("cheap", TEXT), ("dear", TEXT), ("used", TEXT), ("long", LONG)):
        assert legacy.service.token(client_id, text)
    for client_id in ("suspended", "deleted", "expired"):
        with pytest.raises(grpc.RpcError):
            legacy.service.token(client_id, TEXT)


def test_secrets_of_ours_cost_what_they_did(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A well-formed secret of an unknown id costs no bcrypt, at an imported account either."""
    from artstore_grpc import secrets

    rounds = counted(monkeypatch)
    for client_id in ("cheap", "used", "nobody"):
        over_grpc(legacy.service, (client_id, secrets.generate().text))
    assert not rounds
