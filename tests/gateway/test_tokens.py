"""What the OAuth endpoints accept and answer, at both doors of the real service."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import jwt
import pytest

from tests.gateway.conftest import Door, Stage

GRANT = {"grant_type": "client_credentials"}
RESOURCE = "https://allowed.example/"


def posted(stage: Stage, **more: Any) -> dict[str, Any]:
    return {**GRANT, "client_id": stage.names["id"], "client_secret": stage.names["secret"], **more}


def basic(stage: Stage) -> tuple[str, str]:
    return stage.names["id"], stage.names["secret"]


def test_the_answer_is_rfc_6749s(url: str, stage: Stage, http: httpx.Client) -> None:
    """§5.1: the members, no refresh token (§4.4.3), and nothing that a cache may keep."""
    response = http.post(f"{url}/oauth2/token", data=GRANT, auth=basic(stage))
    body = response.json()
    assert response.status_code == 200
    assert (response.headers["cache-control"], response.headers["pragma"]) == ("no-store", "no-cache")
    assert set(body) == {
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "issue_time",
        "secret_expire_time",
    }
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 1800, "storage.read storage.write")


def test_a_standard_library_verifies_the_token(url: str, stage: Stage, http: httpx.Client) -> None:
    """PyJWT, from the published JWK set alone."""
    token = http.post(f"{url}/oauth2/token", data=GRANT, auth=basic(stage)).json()["access_token"]
    keys = jwt.PyJWKSet.from_dict(http.get(f"{url}/.well-known/jwks.json").json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    issuer = stage.installation.issuer
    claims = jwt.decode(token, key, algorithms=["RS256"], audience="artstore", issuer=issuer)
    assert claims["client_id"] == stage.names["id"]


@pytest.mark.parametrize(
    "more",
    [
        {"scope": ""},
        {"audience": ""},
        {"unknown": "ignored", "another": "ignored"},
        {"client_assertion": ""},
    ],
    ids=lambda more: ", ".join(more),
)
def test_empty_is_omitted_and_unknown_is_ignored(
    more: dict[str, str], url: str, stage: Stage, http: httpx.Client
) -> None:
    """RFC 6749 §3.2."""
    assert http.post(f"{url}/oauth2/token", data=posted(stage, **more)).status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-8",
        'application/x-www-form-urlencoded;CHARSET="UTF-8"',
        "Application/X-WWW-Form-Urlencoded",
    ],
)
def test_content_types_that_are_forms(kind: str, url: str, stage: Stage, http: httpx.Client) -> None:
    """RFC 9110 §8.3.1: names are case-insensitive, and the charset may be said."""
    content = "&".join(f"{name}={value}" for name, value in posted(stage).items())
    response = http.post(f"{url}/oauth2/token", content=content, headers={"Content-Type": kind})
    assert response.status_code == 200


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
@pytest.mark.parametrize("encode", [str, quote, quote_plus, lambda text: "".join(f"%{b:02x}" for b in text.encode())])
def test_basic_credentials_are_form_encoded(
    scheme: str, encode: Any, url: str, stage: Stage, http: httpx.Client
) -> None:
    """RFC 6749 §2.3.1: percent and plus, whether or not a client bothers."""
    raw = ":".join(encode(part) for part in basic(stage))
    header = f"{scheme} {base64.b64encode(raw.encode()).decode()}"
    assert http.post(f"{url}/oauth2/token", data=GRANT, headers={"Authorization": header}).status_code == 200


def test_the_same_client_id_beside_basic_is_no_second_authentication(
    url: str, stage: Stage, http: httpx.Client
) -> None:
    """RFC 6749 §3.2.1: a client may say who it is in the form too."""
    data = {**GRANT, "client_id": stage.names["id"]}
    assert http.post(f"{url}/oauth2/token", data=data, auth=basic(stage)).status_code == 200


def test_resource_and_audience_repeat_and_fill_one_list(url: str, stage: Stage, http: httpx.Client) -> None:
    """RFC 8707 §2."""
    content = f"grant_type=client_credentials&resource={quote_plus(RESOURCE)}&audience=artstore&audience=artstore"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = http.post(f"{url}/oauth2/token", content=content, headers=headers, auth=basic(stage))
    claims = jwt.decode(response.json()["access_token"], options={"verify_signature": False})
    assert set(claims["aud"]) == {RESOURCE, "artstore"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"scope": None},
        {"audience": ["artstore"]},
        {"audience": "artstore", "resource": [RESOURCE]},
        {"x": {"y": [1]}},
    ],
)
def test_the_legacy_endpoint_takes_json(more: dict[str, Any], url: str, stage: Stage, http: httpx.Client) -> None:
    """As the service before this one had it."""
    assert http.post(f"{url}/api/v1/auth/token", json=posted(stage, **more)).status_code == 200


def test_the_legacy_endpoint_takes_a_form(url: str, stage: Stage, http: httpx.Client) -> None:
    """Clients that cannot be changed."""
    assert http.post(f"{url}/api/v1/auth/token", data=posted(stage)).status_code == 200


def test_introspection_and_revocation(url: str, stage: Stage, http: httpx.Client) -> None:
    """RFC 7662 §2.2: what is known of a live token, `{"active": false}` of every other; RFC 7009 §2.2: 200 always."""
    token = http.post(f"{url}/oauth2/token", data=GRANT, auth=basic(stage)).json()["access_token"]
    data = {"token": token, "token_type_hint": "refresh_token"}
    found = http.post(f"{url}/oauth2/introspect", data=data, auth=basic(stage)).json()
    assert (found["active"], found["client_id"], found["role"]) == (True, stage.names["id"], "user")
    assert isinstance(found["exp"], int)
    assert found["aud"] == ["artstore"]
    other = (stage.names["other_id"], stage.names["other_secret"])
    assert http.post(f"{url}/oauth2/introspect", data=data, auth=other).json() == {"active": False}
    for _ in range(2):
        revoked = http.post(f"{url}/oauth2/revoke", data=data, auth=basic(stage))
        assert (revoked.status_code, revoked.json(), revoked.headers["cache-control"]) == (200, {}, "no-store")
    assert http.post(f"{url}/oauth2/introspect", data=data, auth=basic(stage)).json() == {"active": False}
    assert http.post(f"{url}/oauth2/revoke", data={"token": "unknown"}, auth=basic(stage)).status_code == 200


def test_the_callers_address_reaches_the_service(url: str, stage: Stage, http: httpx.Client) -> None:
    """Also through a gateway that runs alone, the address in the log is the caller's."""
    headers = {"X-Forwarded-For": "203.0.113.77", "X-Request-ID": f"address-{url.rpartition(':')[2]}"}
    http.post(f"{url}/oauth2/token", data=posted(stage), headers=headers)
    line = next(line for line in stage.installation.log.getvalue().splitlines() if headers["X-Request-ID"] in line)
    assert json.loads(line)["source"] == "203.0.113.77"


async def test_the_call_carries_what_the_request_said(door: Door) -> None:
    """Authorization untouched, correlation ids that are well-formed, the peer's address, and a deadline."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {
        "Authorization": "Basic eDp5",
        "X-Request-ID": "a.b-c_1",
        "traceparent": trace,
        "X-Forwarded-For": "1.2.3.4",
    }
    response = await door.client.post("/oauth2/token", data=GRANT, headers=headers)
    call = door.call
    assert (call.method, call.door) == ("artstore.identity.v1.TokenService/IssueToken", "http")
    assert (call.authorization, call.request_id, call.traceparent) == ("Basic eDp5", "a.b-c_1", trace)
    assert call.source == "127.0.0.1"
    assert call.timeout_seconds is not None
    assert 25 < call.timeout_seconds <= 30
    assert response.headers["x-request-id"] == "a.b-c_1"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "ä", "a/b"])
async def test_a_malformed_request_id_is_replaced(sent: str, door: Door) -> None:
    """It goes to the log, so it may not be anything."""
    response = await door.client.post("/oauth2/token", data=GRANT, headers=[(b"X-Request-ID", sent.encode("latin-1"))])
    assert response.headers["x-request-id"] == door.call.request_id != sent


async def test_resources_and_audiences_reach_the_message_in_order(door: Door) -> None:
    """Resources first, each in the order it came."""
    content = "grant_type=client_credentials&audience=a&resource=urn:x&audience=b&resource=urn:y&resource="
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    await door.client.post("/oauth2/token", content=content, headers=headers)
    assert list(door.message.audience) == ["urn:x", "urn:y", "a", "b"]
