"""Who fails to authenticate learns nothing: one answer, to the byte but for the denial id, after the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf.duration_pb2 import Duration

from artstore_grpc import assertions, secrets, vault
from artstore_grpc.public_keys import MAX_PUBLIC_KEYS
from artstore_grpc.rpc.status import DETAILS_KEY
from tests.installation import Account, Installation
from tests.signers import Signer

GRANT = "client_credentials"
Credentials = tuple[str, str]


class Work:
    """Counts what authentication costs: hashes computed and digests taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self._count(monkeypatch, secrets.Hasher, "matches", "bcrypt")
        self._count(monkeypatch, vault.Vault, "secret_tag", "digest")

    def _count(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        def counted(*arguments: Any) -> Any:
            self.done.append(name)
            return original(*arguments)

        monkeypatch.setattr(owner, method, counted)


def unknown() -> Credentials:
    """Credentials of nobody, new ones each time, so that no back-off is theirs."""
    return "sa_dev_nobody_00000000", secrets.generate().text


class Suspects:
    """Credentials that must all fail alike, by why they do."""

    def __init__(self, service: Installation) -> None:
        self.service = service
        self.bearer = service.bearer()
        self.live = self._account()
        never = secrets.generate().text
        self.by_reason: dict[str, Credentials] = {
            "unknown id": unknown(),
            "wrong secret": (self.live.client_id, never),
            "bad checksum": (self.live.client_id, never[:-1] + ("a" if never[-1] != "a" else "b")),
            "no secret of ours": (self.live.client_id, "secret"),
            "another's secret": (self.live.client_id, self._account().secret),
        }
        for verb, reason in (("Suspend", "suspended"), ("Delete", "deleted")):
            account = self._account()
            service.token(account.client_id, account.secret)  # it earns its tag while it may
            self._do(verb, account)
            self.by_reason[reason] = (account.client_id, account.secret)
        self.by_reason["expired"] = self._expired()

    def _expired(self) -> Credentials:
        """An account whose only secret has expired: a rotation shortened it, and its successor was revoked."""
        account = self._account()
        self.service.token(account.client_id, account.secret)
        rotate = pb.RotateSecretRequest(id=account.id, overlap=Duration(seconds=1))
        rotated = self.service.accounts.RotateSecret(rotate, metadata=self.bearer)
        newest = rotated.service_account.secrets[0].id
        revoke = pb.RevokeSecretRequest(id=account.id, secret_id=newest)
        self.service.accounts.RevokeSecret(revoke, metadata=self.bearer)
        self.service.clock.advance(timedelta(seconds=2))
        got = self.service.accounts.GetServiceAccount(pb.GetServiceAccountRequest(id=account.id), metadata=self.bearer)
        assert got.service_account.state == pb.STATE_EXPIRED
        return account.client_id, account.secret

    def _account(self) -> Account:
        return self.service.account("user")

    def _do(self, verb: str, account: Account) -> None:
        request = getattr(pb, f"{verb}ServiceAccountRequest")(id=account.id)
        getattr(self.service.accounts, f"{verb}ServiceAccount")(request, metadata=self.bearer)


REASONS = (
    "unknown id",
    "wrong secret",
    "bad checksum",
    "no secret of ours",
    "another's secret",
    "suspended",
    "deleted",
    "expired",
)


@pytest.fixture(scope="module")
def suspects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suspects]:
    """A service of its own, since its clock is put forward."""
    with Installation(tmp_path_factory.mktemp("oracle")) as service:
        yield Suspects(service)


def over_grpc(service: Installation, credentials: Credentials) -> bytes:
    """The whole answer, without its denial id."""
    client_id, client_secret = credentials
    with pytest.raises(grpc.RpcError) as refused:
        service.tokens.IssueToken(
            tokens_pb.IssueTokenRequest(grant_type=GRANT, client_id=client_id, client_secret=client_secret)
        )
    error: Any = refused.value
    details = dict(error.trailing_metadata())[DETAILS_KEY]
    return error.code().name.encode() + error.details().encode() + without_denial(details, b"denial_id\x12\xab\x01")


def over_http(service: Installation, credentials: Credentials) -> bytes:
    """The whole answer, without its denial id, the time and the request id."""
    answer = httpx.post(f"{service.url}/oauth2/token", data={"grant_type": GRANT}, auth=credentials)
    headers = [(k, v) for k, v in answer.headers.raw if k not in (b"date", b"x-request-id")]
    return repr((answer.status_code, headers)).encode() + without_denial(answer.content, b'"denial_id":"')


def without_denial(answer: bytes, before: bytes) -> bytes:
    """The answer, with the denial id's characters made one; how many there are stays."""
    head, found, tail = answer.partition(before)
    assert found, answer
    return head + found + b"x" * DENIAL_ID_LENGTH + tail[DENIAL_ID_LENGTH:]


DENIAL_ID_LENGTH = 171
"""96 bytes sealed: 4 of key id, 12 of nonce and 16 of authentication tag more, in base64."""


class Signed:
    """Assertions that must all fail alike, by why they do. Each is made anew, by a key that fits nowhere else."""

    def __init__(self, service: Installation) -> None:
        self.service = service
        self.bearer = service.bearer()
        self.signer, self.stranger = Signer("ES256"), Signer("ES256", 9)
        self.accounts = {name: self._account(*keys) for name, keys in self._keys().items()}
        for verb in ("Suspend", "Delete"):
            request = getattr(pb, f"{verb}ServiceAccountRequest")(id=self.accounts[verb].id)
            getattr(service.accounts, f"{verb}ServiceAccount")(request, metadata=self.bearer)

    def _keys(self) -> dict[str, list[Signer]]:
        several = [Signer("ES256", number) for number in range(3)]
        one = [self.signer]
        return {
            "no key": [],
            "one key": one,
            "several": several,
            "Suspend": one,
            "Delete": one,
            "RSA": [Signer("RS256")],
        }

    def _account(self, *signers: Signer) -> Account:
        return self.service.account("user", public_keys=[each.public for each in signers])

    def made(self, reason: str) -> str:
        by, name, changes = SIGNED[reason]
        client_id = self.accounts[name].client_id if name else "sa_dev_nobody_00000000"
        signer = self.signer if by == "own" else self.stranger
        return signer.assertion(client_id, self.service.issuer, **changes)


SIGNED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "unknown id": ("stranger", "", {}),
    "no key": ("stranger", "no key", {}),
    "a key of another algorithm": ("stranger", "RSA", {}),
    "wrong signature": ("stranger", "one key", {}),
    "wrong signature, several keys": ("stranger", "several", {}),
    "suspended, wrong signature": ("stranger", "Suspend", {}),
    "deleted, wrong signature": ("stranger", "Delete", {}),
}
"""What a stranger can send without a key of the account's: who signs, for which account, with which header."""
OWNED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "suspended": ("own", "Suspend", {}),
    "deleted": ("own", "Delete", {}),
    "expired": ("own", "one key", {"exp": 1}),
    "another audience": ("own", "one key", {"aud": "https://other.test"}),
}
"""What takes the account's own key: it may cost less, but answers the same."""
SIGNED |= OWNED


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    with Installation(tmp_path_factory.mktemp("signed")) as service:
        yield Signed(service)


def by_assertion(service: Installation, assertion: str) -> bytes:
    """The whole answer, without its denial id."""
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    request = tokens_pb.IssueTokenRequest(grant_type=GRANT, client_assertion_type=kind, client_assertion=assertion)
    with pytest.raises(grpc.RpcError) as refused:
        service.tokens.IssueToken(request)
    error: Any = refused.value
    details = dict(error.trailing_metadata())[DETAILS_KEY]
    return error.code().name.encode() + error.details().encode() + without_denial(details, b"denial_id\x12\xab\x01")


@pytest.mark.parametrize("reason", SIGNED)
def test_one_answer_for_assertions(signed: Signed, reason: str) -> None:
    """Every failed assertion is answered as an unknown id's wrong secret is, to the byte."""
    assert by_assertion(signed.service, signed.made(reason)) == over_grpc(signed.service, unknown())


@pytest.mark.parametrize("kid", ["", "named"])
@pytest.mark.parametrize("reason", [reason for reason in SIGNED if reason not in OWNED])
def test_same_work_for_assertions(signed: Signed, reason: str, kid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kid ten signatures are checked, with one a single one, whoever the assertion is said to be by: there is
    no telling an account with keys from one without, or from none."""
    checked: list[str] = []
    original = assertions.verifies

    def counted(assertion: assertions.Assertion, key: Any) -> bool:
        checked.append(assertion.algorithm)
        return original(assertion, key)

    monkeypatch.setattr(assertions, "verifies", counted)
    by, name, _ = SIGNED[reason]
    client_id = signed.accounts[name].client_id if name else "sa_dev_nobody_00000000"
    header = {"kid": signed.signer.thumbprint} if kid else {}
    by_assertion(signed.service, signed.stranger.assertion(client_id, signed.service.issuer, header=header))
    assert by == "stranger"
    assert checked == ["ES256"] * (1 if kid else MAX_PUBLIC_KEYS)


@pytest.mark.parametrize("ask", [over_grpc, over_http])
@pytest.mark.parametrize("reason", REASONS)
def test_one_answer(suspects: Suspects, reason: str, ask: Callable[[Installation, Credentials], bytes]) -> None:
    """Every failure is answered as an unknown id is, to the byte."""
    expected = ask(suspects.service, unknown())
    assert ask(suspects.service, suspects.by_reason[reason]) == expected
    assert len(expected) > DENIAL_ID_LENGTH


@pytest.mark.parametrize("reason", REASONS)
def test_same_work(suspects: Suspects, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure costs one digest, and no bcrypt."""
    work = Work(monkeypatch)
    over_grpc(suspects.service, suspects.by_reason[reason])
    assert work.done == ["digest"]


def test_untagged_secrets_cost_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right secret that never succeeded costs one bcrypt whatever its account's state, so that none shows."""
    with Installation(tmp_path) as service:
        bearer = service.bearer()
        accounts = {verb: service.account("user") for verb in ("Suspend", "Delete")}
        for verb, account in accounts.items():
            request = getattr(pb, f"{verb}ServiceAccountRequest")(id=account.id)
            getattr(service.accounts, f"{verb}ServiceAccount")(request, metadata=bearer)
        for account in accounts.values():
            work = Work(monkeypatch)
            over_grpc(service, (account.client_id, account.secret))
            assert work.done.count("bcrypt") == 1
            monkeypatch.undo()


def test_denial_ids_are_alike() -> None:
    """A denial id has one length, whatever it seals."""
    sealing = vault.Vault(vault.new_root())
    ids = {len(sealing.denial_id(cause)) for cause in ("", "a", "é" * 500, "wrong secret")}
    assert ids == {DENIAL_ID_LENGTH}
