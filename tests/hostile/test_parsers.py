"""Every parser of what strangers send, alone: whatever goes in, what comes out is an answer or a refusal.

A refusal is an error of ours, as each parser's docstring names it; anything else that is raised fails, and so does an
answer that its parser must not give. `test_fuzz.py` and `test_openapi.py` send the same to whole services.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import orjson
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artstore_grpc import addresses, assertions, credentials, fields, filters, pages, schedules, subjects, tokens
from artstore_grpc.assertions import BadAssertion
from artstore_grpc.errors import IdentityError, InvalidRequest
from artstore_grpc.gateway import bodies
from artstore_grpc.keys import BadToken, Keyring
from artstore_grpc.model import Account, Role
from artstore_grpc.pipeline import parsed
from artstore_grpc.public_keys import registered
from artstore_grpc.rpc.messages import MUTABLE, masked
from artstore_grpc.store.schema import upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault, WrongKey, new_root
from tests.hostile.messages import STRINGS, damaged
from tests.hostile.victim import METHODS
from tests.installation import Clock
from tests.signers import Signer

SHORT, AT_LENGTH = 150, 30_000
VAULT = Vault(bytes(range(32)))
NOW = datetime(2030, 1, 31, tzinfo=UTC)
ISSUER = "https://issuer.example"


@dataclass(frozen=True)
class Target:
    """A parser: valid inputs, what it is called with, what it may raise, and what must hold of an answer."""

    seeds: tuple[str | bytes, ...]
    run: Callable[[Any], Any]
    refuses: type[Exception] | tuple[type[Exception], ...] = IdentityError
    holds: Callable[[Any, Any], bool] = lambda given, answer: True
    raw: bool = False
    """Whether it takes bytes."""


def of_basic(text: str) -> credentials.Credentials:
    return credentials.gathered(credentials.Credentials(), text)


def form_of(data: bytes) -> dict[str, list[str]]:
    return bodies.once(bodies.form(data), frozenset({"audience", "resource"}))


def no_nul(_: Any, answer: Any) -> bool:
    return "\0" not in repr(answer).replace("\\x00", "\0")


def assertion_of(text: str) -> str:
    read = assertions.read(text)
    assertions.check_header(read.header)
    return read.client_id


def page_of(text: str) -> Any:
    return pages.place(VAULT, text, "filter")


def mask_of(text: str) -> Any:
    """Paths, one a line, of an account whose fields hold the same text."""
    try:
        account = pb.ServiceAccount(name=text, description=text, scopes=[text], certificate_subject=text)
    except UnicodeEncodeError:  # no message can hold half a surrogate pair
        raise InvalidRequest from None
    return masked(account, tuple(filter(None, text.split("\n"))))


def message_of(data: bytes) -> Any:
    """The first byte says whose message it is."""
    kinds = sorted(METHODS)
    kind = METHODS[kinds[(data[0] if data else 0) % len(kinds)]]
    return parsed(GetMessageClass(kind), data[1:])


def schedule_of(text: str) -> Any:
    try:
        normal = schedules.normal(text)
    except ValueError:
        raise InvalidRequest from None
    return normal, schedules.next_time(normal, NOW)


def source_of(text: str) -> str:
    """As forwarded by a trusted proxy."""
    return addresses.source_address("10.0.0.1", text.split("\n"), (ip_network("10.0.0.0/8"),))


def key_of(text: str) -> Any:
    document = bodies.json_object(text.encode(errors="surrogatepass"))
    return registered([{name: str(value) for name, value in document.items()}])


def is_address(_: Any, answer: str) -> bool:
    return str(ip_address(answer)) == answer


@cache
def keyring() -> tuple[Keyring, str]:
    """A keyring, and a token that it has signed."""
    return asyncio.run(made_keyring())


async def made_keyring() -> tuple[Keyring, str]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'keys.db'}"
        await upgrade(url)
        store, clock = SqlStore(url), Clock()
        made = Keyring(store, Vault(new_root()), clock, algorithm="ES256", issuer=ISSUER)
        await made.load()
        await store.close()
    now = int(clock().timestamp())
    claims = {"iss": ISSUER, "sub": "s", "aud": "a", "jti": "j", "iat": now, "nbf": now, "exp": now + 86_400}
    return made, made.sign(orjson.dumps(claims))


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
    return ".".join((*parts, "c2lnbmVk"))


CLAIMS = {"iss": "sa_dev_x_00000000", "sub": "sa_dev_x_00000000", "aud": ISSUER, "exp": 1_900_000_000, "jti": "j"}

TARGETS: dict[str, Target] = {
    "Basic header": Target(
        ("Basic " + b64encode(b"sa_dev_x_00000000:se%20cret+x").decode(), "Basic Og==", "basic  YTpi", "Bearer x"),
        of_basic,
        holds=no_nul,
    ),
    "form": Target(
        (
            b"grant_type=client_credentials&client_id=a&client_secret=%C3%A9+b&scope=storage.read+storage.write",
            b"audience=a&audience=b&resource=https%3A%2F%2Fa.example",
            b"&&a=&=b",
        ),
        form_of,
        holds=no_nul,
        raw=True,
    ),
    "JSON body": Target(
        (b'{"name": "a", "scopes": ["b"], "rate_limit": 5}', b'{"a": {"b": [1e5, null]}}'), bodies.json_object, raw=True
    ),
    "media type": Target(("application/json; charset=utf-8", 'a/b;charset="UTF-8"'), bodies.media_type),
    "assertion": Target(
        (
            Signer("ES256").assertion("sa_dev_x_00000000", ISSUER),
            unsigned({"alg": "ES256", "kid": "k", "typ": "JWT"}, CLAIMS),
            unsigned({"alg": "none"}, CLAIMS),
        ),
        assertion_of,
        refuses=BadAssertion,
        holds=lambda _, client_id: credentials.CLIENT_ID.fullmatch(client_id) is not None,
    ),
    "access token": Target(
        (unsigned({"alg": "ES256", "kid": "k", "typ": "at+jwt"}, CLAIMS),),
        lambda text: keyring()[0].verify(text),
        refuses=BadToken,
        holds=lambda _, claims: claims["jti"] == "j" and claims["sub"] == "s",
    ),
    "filter of accounts": Target(
        ('role = user AND state != active AND name : "a\\"b"', 'secret_expire_time <= "2030-01-31T00:00:00.5+01:00"'),
        filters.parse,
    ),
    "filter of the ledger": Target(
        ("kind = account.created AND sequence > 5", 'time < "2030-01-31T00:00:00Z" AND actor = system'),
        lambda text: filters.parse(text, filters.LEDGER),
    ),
    "page token": Target(
        (pages.token(VAULT, (NOW, "x"), "filter"), pages.token(VAULT, (NOW, "x"), "another")),
        page_of,
        holds=lambda _, place: place in (None, (NOW, "x")),
    ),
    "field mask": Target(("\n".join(MUTABLE), "*", "name\nscopes"), mask_of),
    "protobuf": Target(
        (b"\x00\x0a\x12client_credentials\x12\x01a", b"\x05\x0a\x03\x0a\x01a\x12\x02\x0a\x00"), message_of, raw=True
    ),
    "certificate subject": Target(
        ("san_dns:a.b", "san_uri:spiffe://a/b", "san_ip:2001:db8::1", "san_email:a@b", "subject_dn:CN=a\\,b,O=c"),
        subjects.subject,
        holds=lambda _, kept: subjects.subject(kept) == kept,
    ),
    "schedule": Target(("0 3 * * *", "*/5 1-3 1,15 * MON-FRI", "@daily", "0 0 29 2 *"), schedule_of),
    "forwarded addresses": Target(
        ("192.0.2.1, 10.0.0.2", 'for="[2001:db8::1]:80";proto=https, for=_hidden', "::ffff:192.0.2.1"),
        source_of,
        refuses=(),
        holds=is_address,
    ),
    "scope": Target(
        ("storage.read", "storage.read storage.write"),
        lambda text: tokens.granted_scopes(Account("i", "c", "n", Role.USER, NOW, NOW), text),
    ),
    "denial id": Target(
        (VAULT.denial_id("wrong secret"),),
        VAULT.explain_denial,
        refuses=WrongKey,
        holds=lambda _, cause: cause == "wrong secret",
    ),
    "public key": Target(
        tuple(json.dumps(Signer(kind).key.as_dict(private=False)) for kind in ("RS256", "ES256", "EdDSA")), key_of
    ),
    "imported hash": Target(("$2b$12$" + "a" * 53, "$2y$04$" + "." * 53), fields.imported_hash),
    "imported client_id": Target(("legacy-1", "system"), fields.imported_client_id),
    "request id": Target(("5f2b5a0e-7f2b-4b0a-9a54-0a6a2f8f7a11",), fields.request_id),
}


def inputs(target: Target, seeds: Iterable[bytes]) -> st.SearchStrategy[Any]:
    """Valid ones, damaged ones, the usual suspects, and anything at all."""
    known = st.sampled_from(list(seeds))
    raw = st.one_of(damaged(known), damaged(known), known, st.binary(max_size=200))
    if target.raw:
        return raw
    text = raw.map(lambda data: data.decode("utf-8", "surrogateescape"))
    return st.one_of(text, text, text, st.sampled_from(STRINGS), st.text(max_size=100))


def fuzzed(name: str, most: int, record: Callable[[str, object], None]) -> None:
    target, count = TARGETS[name], 0
    seeds = [seed if isinstance(seed, bytes) else seed.encode() for seed in target.seeds]
    if name == "access token":
        seeds.append(keyring()[1].encode())

    @settings(
        max_examples=most,
        deadline=timedelta(seconds=5),
        database=None,
        derandomize=most == SHORT,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(target, seeds))
    def one(given: Any) -> None:
        nonlocal count
        count += 1
        try:
            answer = target.run(given)
        except target.refuses:
            return
        assert target.holds(given, answer)

    one()
    record("inputs", count)


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser(name: str, record_property: Callable[[str, object], None]) -> None:
    """An answer or a refusal of ours, for whatever comes."""
    fuzzed(name, SHORT, record_property)


@pytest.mark.parametrize("name", TARGETS)
def test_its_seeds_are_taken(name: str) -> None:
    """What the damage begins with is valid, at least one of each: else nothing behind the first check is met."""
    target = TARGETS[name]
    taken = 0
    for seed in [*target.seeds, *([keyring()[1]] if name == "access token" else [])]:
        try:
            target.run(seed)
            taken += 1
        except target.refuses:
            pass
    assert taken


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_at_length(name: str, record_property: Callable[[str, object], None]) -> None:
    """The same, for as long as a night's CI allows."""
    fuzzed(name, AT_LENGTH, record_property)
