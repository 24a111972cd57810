"""One token at a time: what is accepted, and what is refused for which reason (RFC 9068 §4, RFC 8725)."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from artstore.identity import (
    BadSignature,
    ClocksDiffer,
    MalformedToken,
    TokenExpired,
    TokenRefused,
    TokenVerifier,
    UnknownKey,
    WrongAudience,
    WrongIssuer,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from issuer import (
    AUDIENCE,
    ISSUER,
    NOW,
    Hands,
    Source,
    by_hmac,
    claims,
    document,
    encoded,
    pair,
    public,
    public_pem,
    signature,
    token,
    unsigned,
)

REAL = pair()
OTHER = pair("RS256", 1)
ELLIPTIC = pair("ES256")
PINNED = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519")


def verifier(*keys: Any, hands: Hands | None = None, **options: Any) -> TokenVerifier:
    made = hands or Hands()
    options = {"audience": AUDIENCE, "keys": Source(*keys), "clock": made.wall, "steady": made.steady} | options
    return TokenVerifier(ISSUER, **options)


@cache
def shared() -> TokenVerifier:
    """One that knows the real key and an elliptic one; its clock stands still."""
    return verifier(REAL, ELLIPTIC)


@pytest.fixture
def known() -> TokenVerifier:
    return shared()


def doubled(member: str) -> str:
    """Claims in which one comes twice: readers differ in which one counts."""
    text = json.dumps(claims())
    return text.replace(f'"{member}":', f'"{member}": "x", "{member}":', 1)


FORGED: dict[str, tuple[Any, type[TokenRefused]]] = {
    "alg none": (lambda: unsigned("none"), BadSignature),
    "alg None": (lambda: unsigned("None"), BadSignature),
    "no signature": (lambda: token().rpartition(".")[0] + ".", BadSignature),
    "another key under the real kid": (lambda: token(OTHER, header={"kid": REAL.kid}), BadSignature),
    "an unknown key": (lambda: token(OTHER), UnknownKey),
    "the real key under an unknown kid": (lambda: token(header={"kid": "nobody"}), UnknownKey),
    "the real key under another's kid": (lambda: token(header={"kid": ELLIPTIC.kid}), BadSignature),
    "another key in the header": (
        lambda: token(OTHER, header={"kid": REAL.kid, "jwk": public(ELLIPTIC), "jku": "http://127.0.0.1:1/"}),
        BadSignature,
    ),
    "HS256 by the public key in PEM": (lambda: by_hmac(public_pem()), BadSignature),
    "HS256 by the JWK": (lambda: by_hmac(json.dumps(public(REAL)).encode()), BadSignature),
    "RS384 by the real key": (lambda: token(header={"alg": "RS384"}), BadSignature),
    "PS256 by the real key": (lambda: token(header={"alg": "PS256"}), BadSignature),
    "ES256 under the RSA key's kid": (lambda: token(ELLIPTIC, header={"kid": REAL.kid}), BadSignature),
    "a critical extension": (lambda: token(header={"crit": ["exp"], "exp": 1}), MalformedToken),
    "RFC 7797": (lambda: token(header={"crit": ["b64"], "b64": False}), MalformedToken),
    "RFC 7797 without crit": (lambda: token(header={"b64": True}), MalformedToken),
    "typ JWT": (lambda: token(header={"typ": "JWT"}), MalformedToken),
    "typ of an assertion": (lambda: token(header={"typ": "client-authentication+jwt"}), MalformedToken),
    "no typ": (lambda: token(header={"typ": None}), MalformedToken),
    "typ that is a list": (lambda: token(header={"typ": ["at+jwt"]}), MalformedToken),
    "no kid": (lambda: token(header={"kid": None}), MalformedToken),
    "kid that is a number": (lambda: token(header={"kid": 7}), MalformedToken),
    "a header member that joserfc does not know": (lambda: token(header={"x": 1}), MalformedToken),
    "a header member twice": (
        lambda: token(head=f'{{"typ":"JWT","typ":"at+jwt","alg":"RS256","kid":"{REAL.kid}"}}'),
        MalformedToken,
    ),
    "another issuer": (lambda: token(iss="https://other.test"), WrongIssuer),
    "an issuer with a slash more": (lambda: token(iss=ISSUER + "/"), WrongIssuer),
    "issuers": (lambda: token(iss=[ISSUER]), MalformedToken),
    "no iss": (lambda: token(iss=None), MalformedToken),
    "another audience": (lambda: token(aud="billing"), WrongAudience),
    "other audiences": (lambda: token(aud=["billing", "storag"]), WrongAudience),
    "no audiences": (lambda: token(aud=[]), WrongAudience),
    "an audience that is an object": (lambda: token(aud={AUDIENCE: 1}), MalformedToken),
    "no aud": (lambda: token(aud=None), MalformedToken),
    "expired": (lambda: token(exp=int(NOW) - 5), TokenExpired),
    "expired long ago": (lambda: token(exp=int(NOW) - 10**6, iat=int(NOW) - 10**7), TokenExpired),
    "an exp that is text": (lambda: token(exp=str(int(NOW) + 60)), MalformedToken),
    "an exp that is true": (lambda: token(exp=True), MalformedToken),
    "an exp without end": (
        lambda: token(text=json.dumps(claims(exp=1)).replace('"exp": 1', '"exp": 1e999')),
        MalformedToken,
    ),
    "an exp of NaN": (lambda: token(text=json.dumps(claims(exp=1)).replace('"exp": 1', '"exp": NaN')), MalformedToken),
    "an exp of 400 digits": (lambda: token(exp=10**400), MalformedToken),
    "no exp": (lambda: token(exp=None), MalformedToken),
    "from the future": (lambda: token(iat=int(NOW) + 31), ClocksDiffer),
    "not valid yet": (lambda: token(nbf=int(NOW) + 31), ClocksDiffer),
    "an nbf that is text": (lambda: token(nbf="now"), MalformedToken),
    "an iat of NaN": (lambda: token(text=json.dumps(claims(iat=1)).replace('"iat": 1', '"iat": NaN')), MalformedToken),
    "no iat": (lambda: token(iat=None), MalformedToken),
    "no sub": (lambda: token(sub=None), MalformedToken),
    "an empty sub": (lambda: token(sub=""), MalformedToken),
    "a sub that is a number": (lambda: token(sub=1), MalformedToken),
    "no client_id": (lambda: token(client_id=None), MalformedToken),
    "a client_id that is a list": (lambda: token(client_id=["a"]), MalformedToken),
    "no jti": (lambda: token(jti=None), MalformedToken),
    "a jti that is a number": (lambda: token(jti=1), MalformedToken),
    "no epoch": (lambda: token(epoch=None), MalformedToken),
    "an epoch that is true": (lambda: token(epoch=True), MalformedToken),
    "an epoch that is text": (lambda: token(epoch="0"), MalformedToken),
    "a negative epoch": (lambda: token(epoch=-1), MalformedToken),
    "scopes in a list": (lambda: token(scope=["storage.read"]), MalformedToken),
    "a claim twice": (lambda: token(text=doubled("aud")), MalformedToken),
    "a claim within a claim twice": (
        lambda: token(text=json.dumps(claims(x=0)).replace("0}", '{"a":1,"a":2}}')),
        MalformedToken,
    ),
    "claims that are a list": (lambda: token(text="[]"), MalformedToken),
    "claims that are no JSON": (lambda: token(text="{"), MalformedToken),
    "claims and something": (lambda: token(text=json.dumps(claims()) + "{}"), MalformedToken),
    "claims too deep": (lambda: token(text="[" * 5000), MalformedToken),
    "nothing": (lambda: "", MalformedToken),
    "a word": (lambda: "token", MalformedToken),
    "dots": (lambda: "..", MalformedToken),
    "five parts": (lambda: token() + ".a.b", BadSignature),
    "white space": (lambda: token().replace(".", ". ", 1), BadSignature),
    "padding": (lambda: token() + "=", BadSignature),
    "not ASCII": (lambda: token()[:-1] + "é", MalformedToken),
    "a lone surrogate": (lambda: "\udc80.a.b", MalformedToken),
    "20 KB": (lambda: token(x="x" * 20_000), MalformedToken),
    "1 MB of dots": (lambda: "." * 1_000_000, MalformedToken),
}
"""Each with the refusal that says what is wrong with it."""


@pytest.mark.parametrize("warm", [False, True], ids=["first", "header seen"])
@pytest.mark.parametrize("flaw", FORGED)
def test_forged_tokens(flaw: str, warm: bool) -> None:
    """Each is refused for its flaw, whether or not a good token's header was seen before; the good one is accepted."""
    made = verifier(REAL, ELLIPTIC)
    if warm:
        assert made.verify_sync(token()).role == "user"
    forge, refusal = FORGED[flaw]
    with pytest.raises(TokenRefused) as caught:
        made.verify_sync(forge())
    accepted = (refusal, MalformedToken) if flaw in ("five parts", "white space", "padding") else refusal
    assert isinstance(caught.value, accepted), caught.value
    assert caught.value.reason == type(caught.value).reason
    assert made.verify_sync(token()).role == "user"


@pytest.mark.parametrize("algorithm", PINNED)
def test_every_algorithm_is_pinned_by_its_key(algorithm: str) -> None:
    """A key signs with its own `alg`, seen first and seen again; each is verified by joserfc twice, in both ways."""
    key = pair(algorithm)
    made = verifier(key)
    for _ in range(2):
        assert made.verify_sync(token(key)).kid == key.kid
        with pytest.raises(BadSignature):
            made.verify_sync(token(key)[:-8] + "AAAAAAAA")


@pytest.mark.parametrize("kind", ["at+jwt", "application/at+jwt", "AT+JWT"])
def test_the_types_of_access_tokens(known: TokenVerifier, kind: str) -> None:
    """RFC 9068 §4; media types ignore case (RFC 7515 §4.1.9)."""
    assert known.verify_sync(token(header={"typ": kind})).client_id


def test_what_a_token_says(known: TokenVerifier) -> None:
    """Everything that a service asks of its caller, none of it to be changed; and nothing to replay the token by."""
    sent = token(aud=["other", AUDIENCE], extra={"list": [1, {"a": 2}]})
    caller = known.verify_sync(sent)
    assert (caller.client_id, caller.name, caller.role) == ("sa_dev_tester_00000001", "tester", "user")
    assert caller.scopes == {"storage.read", "storage.write"}
    assert caller.has_scope("storage.read", "storage.write")
    assert not caller.has_scope("storage.read", "identity.keys.write")
    assert caller.audience == ("other", AUDIENCE)
    assert (caller.expire_time - caller.issue_time).total_seconds() == 1800
    assert caller.expire_time.utcoffset() is not None
    with pytest.raises(TypeError):
        caller.claims["scope"] = "all"  # type: ignore[index]
    with pytest.raises(TypeError):
        caller.claims["extra"]["list"][1]["a"] = 3
    with pytest.raises(AttributeError):
        caller.kid = "other"  # type: ignore[misc]
    assert not any(part in repr(caller) for part in sent.split("."))
    assert not any(part in str(caller.claims) for part in sent.split("."))


def test_a_token_without_scope_has_none(known: TokenVerifier) -> None:
    """RFC 9068 §2.2.3: the claim may be missing."""
    assert known.verify_sync(token(scope=None)).scopes == frozenset()
    assert known.verify_sync(token(scope="", role=None, name=None)).role == ""


def test_several_audiences() -> None:
    """A service may have several names; the token must have one of them."""
    made = verifier(audience=["storage", "files"])
    assert made.verify_sync(token(aud="files")).audience == ("files",)
    assert made.verify_sync(token(aud=["x", "storage"]))
    with pytest.raises(WrongAudience, match="'storage' or 'files'"):
        made.verify_sync(token(aud="x"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"audience": ""},
        {"audience": []},
        {"audience": ["a", ""]},
        {"on_stale": "hope"},
        {"leeway": -1},
        {"leeway": 301},
        {"expiry_leeway": 21},
        {"most_tokens": 0},
    ],
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    """Refused when the verifier is made, not with the first token."""
    options = {name: timedelta(seconds=value) if "leeway" in name else value for name, value in wrong.items()}
    with pytest.raises(ValueError, match=r"must|give"):
        verifier(**options)
    with pytest.raises(ValueError, match="issuer"):
        TokenVerifier("", audience="a")


# --- properties ---


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_token_is_refused(at: int, byte: int) -> None:
    """Whatever byte is changed, to whatever: the token is refused, by a refusal and nothing else."""
    sent = token()
    at %= len(sent)
    changed = sent[:at] + chr(byte) + sent[at + 1 :]
    made = shared()
    made.verify_sync(sent)
    if changed == sent:
        assert made.verify_sync(changed)
        return
    with pytest.raises(TokenRefused):
        made.verify_sync(changed)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(), st.text("AZaz09-_.=").map(lambda text: text + "."), st.binary().map(lambda b: b.decode("latin-1"))
    )
)
def test_nonsense_is_refused(text: str) -> None:
    """Any string, at any length: a refusal and nothing else."""
    with pytest.raises(TokenRefused):
        shared().verify_sync(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CHECKED = ("iss", "sub", "aud", "client_id", "jti", "epoch", "exp", "iat")


@settings(max_examples=300, deadline=None)
@given(claim=st.sampled_from([*CHECKED, "scope", "nbf", "role", "name"]), value=JSON)
def test_any_value_of_a_claim(claim: str, value: Any) -> None:
    """Whatever a well-signed claim is, the outcome is a token of the promised types, or a refusal."""
    try:
        caller = shared().verify_sync(token(text=json.dumps(claims() | {claim: value})))
    except TokenRefused:
        return
    assert isinstance(caller.subject, str)
    assert all(isinstance(each, str) for each in (*caller.audience, *caller.scopes, caller.client_id, caller.jti))
    assert AUDIENCE in caller.audience
    assert caller.expires + 5 > NOW
    assert hash(caller) is not None


@settings(max_examples=200, deadline=None)
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c", "zip"]), JSON, max_size=4)
)
def test_any_header(header: dict[str, Any]) -> None:
    """Whatever stands in a header: what is accepted has the pinned algorithm, the known key and the right type."""
    real = {"typ": "at+jwt", "alg": "RS256", "kid": REAL.kid}
    head = json.dumps(real | header)
    body = f"{encoded(head.encode())}.{encoded(json.dumps(claims()).encode())}"
    sent = f"{body}.{encoded(signature(REAL, 'RS256', body.encode()))}"
    try:
        caller = shared().verify_sync(sent)
    except TokenRefused:
        return
    said = json.loads(head)
    assert (said["alg"], said["kid"], caller.kid) == ("RS256", REAL.kid, REAL.kid)
    assert said["typ"].lower() in ("at+jwt", "application/at+jwt")
    assert not {"crit", "b64"} & said.keys()


async def test_async_and_sync_are_one() -> None:
    """Both give the same answer, from one memory."""
    made = verifier()
    sent = token()
    assert (await made.verify(sent)) is made.verify_sync(sent)
    with pytest.raises(WrongAudience):
        await made.verify(token(aud="x"))
    assert document(REAL)["keys"][0]["kid"] == REAL.kid
