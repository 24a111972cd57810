"""Keys on accounts: which are taken, in what form they are kept, and who may register them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from joserfc.jwk import ECKey, OKPKey

from artstore_grpc.model import SECRET_LIFETIME, AccountQuery, Comparison
from artstore_grpc.store.sql import SqlStore
from tests.api.callers import Api, role, unique
from tests.api.conftest import first_account
from tests.api.doors import HttpDoor, refused
from tests.installation import Installation
from tests.signers import Signer

SIGNERS = [Signer("RS256"), Signer("ES256", kid="two"), Signer("EdDSA")]


def without_secret(api: Api, *keys: pb.PublicKey, request_id: str = "", name: str = "") -> Any:
    account = pb.ServiceAccount(name=name or unique(), role=role("user"), public_keys=keys)
    request = pb.CreateServiceAccountRequest(service_account=account, without_secret=True, request_id=request_id)
    return api.door.call("CreateServiceAccount", request, api.authorization)


def key(**changes: str) -> pb.PublicKey:
    """A good key, but for what a test changes."""
    made = pb.PublicKey()
    made.CopyFrom(Signer("ES256").public)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def rsa(n: int, e: int = 65_537) -> pb.PublicKey:
    """By hand, since a library warns of what should be refused."""
    return pb.PublicKey(kty="RSA", n=text(n), e=text(e))


def text(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")


def of(made: Any, **changes: str) -> pb.PublicKey:
    members: Any = made.as_dict(private=False)
    return pb.PublicKey(**(members | changes))


def modulus(bits: int) -> int:
    return 1 << (bits - 1) | 1


REFUSED: dict[str, tuple[str, Callable[[], pb.PublicKey]]] = {
    "no kty": ("kty", lambda: key(kty="")),
    "a symmetric key": ("kty", lambda: pb.PublicKey(kty="oct", x="AAAA")),
    "an algorithm of another kty": ("alg", lambda: key(alg="RS256")),
    "alg none": ("alg", lambda: key(alg="none")),
    "alg HS256": ("alg", lambda: key(alg="HS256")),
    "an algorithm that isn't taken": ("alg", lambda: of(Signer("RS256").key, alg="RS512")),
    "kid of 129 characters": ("kid", lambda: key(kid="x" * 129)),
    "kid with a space": ("kid", lambda: key(kid="a b")),
    "kid that isn't ASCII": ("kid", lambda: key(kid="é")),
    "P-384": ("crv", lambda: of(ECKey.generate_key("P-384"))),
    "X25519": ("crv", lambda: of(OKPKey.generate_key("X25519"))),
    "no x": ("x", lambda: key(x="")),
    "padding": ("x", lambda: key(x=key().x + "=")),
    "not base64url": ("y", lambda: key(y="+" + key().y[1:])),
    "an EC key with n": ("n", lambda: key(n="AQAB")),
    "an Ed25519 key with y": ("y", lambda: of(Signer("EdDSA").key, y="AQAB")),
    "a point that isn't on the curve": ("", lambda: key(y=key().x)),
    "a coordinate that is too long": ("", lambda: key(x="A" * 100)),
    "Ed25519 of 31 bytes": ("", lambda: of(Signer("EdDSA").key, x="A" * 42)),
    "Ed25519 of zeros": ("", lambda: of(Signer("EdDSA").key, x="A" * 43)),
    "RSA of 1,024 bits": ("n", lambda: rsa(modulus(1024))),
    "RSA of 2,047 bits": ("n", lambda: rsa(modulus(2047))),
    "RSA of 4,097 bits": ("n", lambda: rsa(modulus(4097))),
    "RSA of 8,192 bits": ("n", lambda: rsa(modulus(8192))),
    "an exponent of 3": ("e", lambda: rsa(modulus(2048), 3)),
    "an exponent of 33 bits": ("e", lambda: rsa(modulus(2048), 2**32 + 1)),
    "no e": ("e", lambda: of(Signer("RS256").key, e="")),
}


@pytest.mark.parametrize("flaw", REFUSED)
def test_refused_keys(grpc_admin: Api, flaw: str) -> None:
    """Each is refused with its member named, when created and when updated."""
    member, make = REFUSED[flaw]
    field = f"public_keys[1].{member}".rstrip(".")
    with refused("INVALID_ARGUMENT", field=field):
        without_secret(grpc_admin, Signer(number=5).public, make())
    account = grpc_admin.account()
    with refused("INVALID_ARGUMENT", field=field):
        grpc_admin.update(account.id, "public_keys", public_keys=[Signer(number=5).public, make()])


ACCEPTED: dict[str, Callable[[], pb.PublicKey]] = {
    "RSA of 2,048 bits": lambda: rsa(modulus(2048)),
    "RSA of 4,096 bits": lambda: rsa(modulus(4096)),
    "the largest exponent": lambda: rsa(modulus(2048), 2**32 - 1),
    "PS256": lambda: of(Signer("RS256").key, alg="PS256"),
    "kid of 128 characters": lambda: key(kid="x" * 128),
    "kid is its thumbprint": lambda: key(kid=Signer("ES256").thumbprint),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_keys(grpc_admin: Api, case: str) -> None:
    """Up to each bound."""
    offered = ACCEPTED[case]()
    (kept,) = without_secret(grpc_admin, offered).service_account.public_keys
    assert (kept.kid, kept.n, kept.e, kept.x) == (offered.kid, offered.n, offered.e, offered.x)


def test_what_is_kept(admin: Api) -> None:
    """Over every door a key comes back as it was, with its thumbprint and the algorithm its type has by default."""
    answer = without_secret(admin, *(pb.PublicKey(alg="", **members(signer)) for signer in SIGNERS))
    assert answer.client_secret == ""
    kept = admin.get(answer.service_account.id).public_keys
    assert kept == answer.service_account.public_keys
    for signer, found in zip(SIGNERS, kept, strict=True):
        assert (found.thumbprint, found.alg) == (signer.thumbprint, signer.algorithm)


def members(signer: Signer) -> dict[str, Any]:
    return dict(signer.key.as_dict(private=False))


def test_one_key_has_one_form(grpc_admin: Api) -> None:
    """A modulus with leading zeros is the same key (RFC 7518 §6.3.1.1): kept without, and no second one."""
    plain = Signer("RS256").public
    padded = pb.PublicKey(kty="RSA", e=plain.e, n="AAAA" + plain.n)
    (kept,) = without_secret(grpc_admin, padded).service_account.public_keys
    assert kept.n == plain.n
    with refused("INVALID_ARGUMENT", field="public_keys"):
        without_secret(grpc_admin, plain, padded)


def test_a_private_member(service: Installation, admin: Api) -> None:
    """JSON that holds a private key is refused, not trimmed: its owner should know that it was sent."""
    if not isinstance(admin.door, HttpDoor):
        return
    document = {"name": unique(), "role": "user", "public_keys": [Signer().key.as_dict(private=True)]}
    answer = admin.door._http.post(
        "/api/v1/service-accounts", json=document, headers={"authorization": admin.authorization}
    )
    assert answer.status_code == 400
    assert "public_keys[0].d" in answer.text
    assert str(Signer().key.as_dict(private=True)["d"]) not in service.log.getvalue()


def test_how_many(grpc_admin: Api) -> None:
    """Ten keys; an eleventh is one too many."""
    keys = [Signer(number=number).public for number in range(11)]
    assert len(without_secret(grpc_admin, *keys[:10]).service_account.public_keys) == 10
    with refused("INVALID_ARGUMENT", field="public_keys"):
        without_secret(grpc_admin, *keys)


def test_names_differ(grpc_admin: Api) -> None:
    """Neither a key, nor a kid, nor a kid that is another's thumbprint comes twice; without kids any number may be."""
    one, other = Signer(number=1), Signer(number=2)
    for clash in (
        [one.public, one.public],
        [key_of(one, "a"), key_of(other, "a")],
        [one.public, key_of(other, one.thumbprint)],
    ):
        with refused("INVALID_ARGUMENT", field="public_keys"):
            without_secret(grpc_admin, *clash)
    assert without_secret(grpc_admin, one.public, other.public)


def key_of(signer: Signer, kid: str) -> pb.PublicKey:
    return Signer(signer.algorithm, signer.number, kid).public


def test_without_a_key_there_is_a_secret(admin: Api) -> None:
    """`without_secret` needs a key: an account that nothing authenticates is a mistake."""
    with refused("INVALID_ARGUMENT", field="without_secret"):
        without_secret(admin)
    assert admin.create(public_keys=[Signer().public]).client_secret


def test_a_retry(admin: Api) -> None:
    """A request_id gets the same answer again where there is no secret in it, keys included (AIP-155)."""
    request_id, name = str(uuid4()), unique()
    first, again = (without_secret(admin, Signer(kid="k").public, request_id=request_id, name=name) for _ in range(2))
    assert first == again
    assert again.service_account.public_keys[0].kid == "k"


def test_update(admin: Api) -> None:
    """The mask replaces all keys; without the mask, and with other paths, they stay."""
    account = admin.create(public_keys=[Signer(number=1).public]).service_account
    changed = admin.update(account.id, "public_keys", public_keys=[Signer(number=2).public])
    assert [each.thumbprint for each in changed.public_keys] == [Signer(number=2).thumbprint]
    assert admin.update(account.id, "description", description="x").public_keys == changed.public_keys
    assert not admin.update(account.id, "public_keys").public_keys


def test_nobody_registers_their_own(service: Installation, grpc_admin: Api) -> None:
    """A stolen token must not become a lasting credential: no account changes its own keys with its token."""
    first = first_account(service)
    with refused("FAILED_PRECONDITION", "OWN_ACCOUNT"):
        grpc_admin.update(first.id, "public_keys", public_keys=[Signer().public])
    assert not grpc_admin.get(first.id).public_keys


def test_nobody_registers_for_more_than_they_hold(grpc_admin: Api) -> None:
    """Who lacks one of an account's scopes can't give it a key: that would be a way to all its rights."""
    lesser = grpc_admin.account("admin", scopes=["identity.accounts.write", "identity.accounts.read"])
    target = grpc_admin.account("user")
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        grpc_admin.bearer(lesser).update(target.id, "public_keys", public_keys=[Signer().public])


def test_an_account_with_a_key_does_not_expire(root: Api, alone: Installation) -> None:
    """Its secrets do; its state follows the key, in what is read and in what is found by a filter."""
    root.account(public_keys=[Signer().public], name="keyed")
    root.account(name="unkeyed")
    alone.clock.advance(SECRET_LIFETIME * 2)
    assert alone.run(_states(alone)) == {"keyed": "active", "unkeyed": "expired"}


async def _states(alone: Installation) -> dict[str, str]:
    """Asked of the store: by then the administrator's own secret has expired too."""
    store = SqlStore(alone.settings.store_url)
    found = {}
    for state in ("active", "expired"):
        query = AccountQuery(10, (Comparison("state", "=", state),))
        for account in await store.accounts(query, alone.clock()):
            assert account.state(alone.clock()) == state
            if account.name != "administrator" and not account.is_system:
                found[account.name] = state
    await store.close()
    return found


def test_the_ledger_tells(root: Api, alone: Installation) -> None:
    """A row says which keys came and went, by thumbprint and algorithm, and holds no key."""
    account = root.create(public_keys=[Signer(number=1).public]).service_account
    root.update(account.id, "public_keys", public_keys=[Signer(number=2).public])
    row = alone.run(_last_row(alone))
    assert row["before"]["public_keys"] == {Signer(number=1).thumbprint: {"algorithm": "ES256", "kid": ""}}
    assert row["after"]["public_keys"] == {Signer(number=2).thumbprint: {"algorithm": "ES256", "kid": ""}}


async def _last_row(alone: Installation) -> dict[str, Any]:
    store = SqlStore(alone.settings.store_url)
    rows = await store.ledger(0, 1000)
    await store.close()
    return rows[-1].parsed()
