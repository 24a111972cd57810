"""Metadata that no client of ours would send."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.test_fuzz import QUICK
from tests.hostile.victim import Victim, assert_refused_clearly

Metadata = tuple[tuple[str, str | bytes], ...]
ISSUE = tokens_pb.IssueTokenRequest(grant_type="client_credentials")


def basic(text: str | bytes) -> Metadata:
    data = text.encode() if isinstance(text, str) else text
    return (("authorization", f"Basic {base64.b64encode(data).decode()}"),)


def answered(victim: Victim, method: str, request: Any, metadata: Metadata) -> tuple[str, str]:
    outcome = victim.send(method, request, metadata)
    return outcome.code, outcome.reason


@pytest.mark.parametrize(
    "value",
    ["", " ", "Basic", "Basic ", "Basic !", "Basic YQ", "Basic YQ==", "basic  ", "Basic YTpi YTpi", "Basic =" * 900],
)
def test_malformed_basic(victim: Victim, value: str) -> None:
    """Basic credentials that can't be read are a malformed request, any other scheme is no client's."""
    code, reason = answered(victim, "IssueToken", ISSUE, (("authorization", value),))
    expected = ("INVALID_ARGUMENT", "MALFORMED_BASIC") if "asic" in value else ("UNAUTHENTICATED", "INVALID_CLIENT")
    assert (code, reason) in (expected, ("UNAUTHENTICATED", "INVALID_CLIENT"))


@pytest.mark.parametrize("text", [b"\xff:\xff", b"a\0:b", b"%:b", b"%zz:b", b"%ff:b", b"a:%00", b"%", b":%c3%28"])
def test_undecodable_basic(victim: Victim, text: bytes) -> None:
    """Bad UTF-8, broken escapes and NULs inside Basic credentials are a malformed request (RFC 6749 Appendix B)."""
    assert answered(victim, "IssueToken", ISSUE, basic(text)) == ("INVALID_ARGUMENT", "MALFORMED_BASIC")


@pytest.mark.parametrize("text", [":", "a:", ":b", "a:b:c", "\U0010ffff:x", "a" * 2000 + ":b"])
def test_wrong_basic(victim: Victim, text: str) -> None:
    """Readable credentials of nobody are wrong credentials."""
    assert answered(victim, "IssueToken", ISSUE, basic(text)) == ("UNAUTHENTICATED", "INVALID_CLIENT")


def test_two_authorizations(victim: Victim) -> None:
    """Two values are never one of them, in whichever order the right one comes."""
    right = basic(f"{victim.honest.client_id}:{victim.honest.secret}")
    for both in (right + right, right + basic("a:b"), basic("a:b") + right):
        code, reason = answered(victim, "IssueToken", ISSUE, both)
        assert code in ("INVALID_ARGUMENT", "UNAUTHENTICATED")
        assert reason
    for both in (victim.bearer + victim.bearer, victim.bearer + right, right + victim.bearer):
        code, reason = answered(victim, "GetServiceAccount", pb.GetServiceAccountRequest(id="x"), both)
        assert code in ("INVALID_ARGUMENT", "UNAUTHENTICATED")
        assert reason


def test_two_ways_at_once(victim: Victim) -> None:
    """Basic metadata and a secret in the fields are two authentications (RFC 6749 §2.3), even where they agree."""
    honest = victim.honest
    request = tokens_pb.IssueTokenRequest(
        grant_type="client_credentials", client_id=honest.client_id, client_secret=honest.secret
    )
    both = answered(victim, "IssueToken", request, basic(f"{honest.client_id}:{honest.secret}"))
    assert both == ("INVALID_ARGUMENT", "TWO_CLIENT_AUTHENTICATIONS")


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer ", "Bearer a", "Bearer a b", "bearer .", "Bearer " + "x" * 7000, "Digest a", "Bearer, a"],
)
def test_malformed_bearer(victim: Victim, value: str) -> None:
    """What isn't a token is no token, however it is spelled."""
    request = pb.GetServiceAccountRequest(id=victim.target.id)
    assert answered(victim, "GetServiceAccount", request, (("authorization", value),))[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization-bin", b"\0\xff"),),
        (("x-request-id", "a b"),),
        (("x-request-id", "a" * 5000),),
        (("x-request-id-bin", b"\0\xff"),),
        (("traceparent", "00-" + "z" * 50),),
        (("traceparent", ""),),
        (("x-forwarded-for", "127.0.0.1, ,,999.1.1.1"),),
        (("forwarded", "for=" + '"[' * 1000),),
        (("grpc-timeout", "abc"),),
        (("grpc-timeout", "99999999H"),),
        (("content-type", "application/json"),),
        (("te", "gzip"),),
        tuple((f"x-{number}", "a") for number in range(300)),
    ],
    ids=lambda metadata: metadata[0][0],
)
def test_other_metadata(victim: Victim, metadata: Metadata) -> None:
    """What the service doesn't need to read changes nothing, whatever it holds."""
    request = pb.GetServiceAccountRequest(id=victim.target.id)
    assert answered(victim, "GetServiceAccount", request, (*victim.bearer, *metadata)) == ("OK", "")


def test_correlation_is_not_injected(victim: Victim) -> None:
    """A request id that isn't one never reaches the log."""
    victim.send("GetServiceAccount", pb.GetServiceAccountRequest(id="x"), (("x-request-id", 'planted" \\'),))
    assert "planted" not in victim.installation.log.getvalue()


def test_overlong_metadata(victim: Victim) -> None:
    """Past 16 KiB gRPC's core refuses."""
    refused = victim.send("GetServiceAccount", pb.GetServiceAccountRequest(), (("authorization", "x" * 30_000),))
    assert refused.code == "RESOURCE_EXHAUSTED"


def test_fuzzed_authorization(victim: Victim) -> None:
    """Any printable authorization at all gets a clear refusal, at every kind of authentication."""
    printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)
    encoded = st.binary(max_size=40).map(lambda data: f"Basic {base64.b64encode(data).decode()}")
    tokens = st.tuples(*[printable.map(lambda text: text.replace(" ", ""))] * 3).map(lambda p: "Bearer " + ".".join(p))

    @QUICK
    @given(st.one_of(printable, encoded, tokens), st.sampled_from(["IssueToken", "RotateSecret", "GetServiceAccount"]))
    def one(value: str, method: str) -> None:
        request = {"IssueToken": ISSUE, "RotateSecret": pb.RotateSecretRequest(id=victim.target.id)}
        outcome = victim.send(method, request.get(method, pb.GetServiceAccountRequest()), (("authorization", value),))
        assert_refused_clearly(outcome)
        assert outcome.code != "OK"

    one()
