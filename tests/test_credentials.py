"""Basic credentials and the one-authentication rule (RFC 6749 §2.3, §2.3.1, Appendix B; RFC 7617)."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc.credentials import Credentials, basic, gathered
from artstore_grpc.errors import InvalidClient, InvalidRequest

NO_NUL = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))


def header(raw: bytes, scheme: str = "Basic") -> str:
    return f"{scheme} {b64encode(raw).decode()}"


@given(NO_NUL, NO_NUL)
def test_basic_decodes_what_a_client_encodes(client_id: str, secret: str) -> None:
    """Form-urlencoded parts, joined by a colon, in base64 (RFC 6749 §2.3.1) come back as they were."""
    sent = header(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode())
    assert basic(sent) == Credentials(client_id, secret)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"id:secret", ("id", "secret")),
        (b"a+b:c%20d", ("a b", "c d")),  # RFC 6749 Appendix B: plus and %20 are both a space
        (b"id:a:b", ("id", "a:b")),  # RFC 7617 §2: only the first colon separates
        (b"id:", ("id", "")),
        (b"%C3%A4:%2B", ("ä", "+")),
    ],
)
def test_basic_by_example(raw: bytes, expected: tuple[str, str]) -> None:
    """Percent and plus decoding, and the first colon."""
    assert basic(header(raw)) == Credentials(*expected)


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "Basic"])
def test_the_scheme_ignores_case(scheme: str) -> None:
    """RFC 7617 §2."""
    assert basic(header(b"a:b", scheme)).client_id == "a"


@pytest.mark.parametrize(
    "value",
    ["Basic", "Basic ", "Basic !!!!", header(b"no colon"), header(b"\xff\xfe:x"), header(b"%zz:x"), header(b"%4:x"),
     header("%１２:x".encode()), header(b"a:%00"), header(b"a:%C3"), header(b"a:b") + ", " + header(b"c:d"),
     "Basic YTpi YTpi"],
)  # fmt: skip
def test_undecodable_basic_is_a_malformed_request(value: str) -> None:
    """What can't be decoded is invalid_request, never INTERNAL."""
    with pytest.raises(InvalidRequest):
        basic(value)


@pytest.mark.parametrize("value", ["Bearer abc", "", "Digest x", "Negotiate"])
def test_another_scheme_is_no_client_authentication(value: str) -> None:
    """Only Basic authenticates a client."""
    with pytest.raises(InvalidClient):
        basic(value)


@given(st.text())
def test_noise_is_refused_and_nothing_else(value: str) -> None:
    """Any header value is decoded or refused."""
    with contextlib.suppress(InvalidRequest, InvalidClient):
        basic(value)


BASIC = header(b"id:secret")


@pytest.mark.parametrize(
    ("sent", "authorization"),
    [
        (Credentials("id", "secret"), BASIC),
        (Credentials("", "secret"), BASIC),
        (Credentials("other", ""), BASIC),
        (Credentials("id", "", "type", "assertion"), BASIC),
        (Credentials("id", "secret", "type", "assertion"), None),
        (Credentials("id", "", "type", ""), None),
        (Credentials("id", "", "", "assertion"), None),
    ],
)
def test_two_authentications_are_refused(sent: Credentials, authorization: str | None) -> None:
    """RFC 6749 §2.3: not more than one method in a request."""
    with pytest.raises(InvalidRequest):
        gathered(sent, authorization)


@pytest.mark.parametrize(
    ("sent", "authorization"),
    [(Credentials("id", "secret"), None), (Credentials(), BASIC), (Credentials("id", ""), BASIC)],
)
def test_one_authentication_is_taken(sent: Credentials, authorization: str | None) -> None:
    """Fields or metadata; a client_id beside Basic may repeat it (RFC 6749 §3.2.1)."""
    assert gathered(sent, authorization) == Credentials("id", "secret")


def test_repr_hides_secrets() -> None:
    """Credentials do not get into a log through their repr."""
    assert "hidden" not in repr(Credentials("id", "hidden", "type", "hidden"))
