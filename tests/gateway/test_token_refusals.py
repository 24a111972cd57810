"""The token endpoint refuses in its own dialect, whatever is wrong and whichever door it came in by."""

from __future__ import annotations

import re
from itertools import count

import httpx
import pytest

from tests.gateway.conftest import Stage
from tests.gateway.token_cases import CASES, GRANT, LEGACY, TOKEN, Case

SOURCES = count(1)
DESCRIPTION = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749 §5.2."""


def source() -> tuple[bytes, bytes]:
    """A forwarding header with an address that nobody had before."""
    number = next(SOURCES)
    return b"X-Forwarded-For", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}".encode()


def send(http: httpx.Client, url: str, case: Case, names: dict[str, str]) -> httpx.Response:
    path = case.path
    for name, value in names.items():
        path = path.replace("{" + name + "}", value)
    headers = [*case.sent_headers(names), source()]
    return http.request(case.method, url + path, content=case.content(names), headers=headers)


def assert_ours(response: httpx.Response) -> None:
    """No-store, JSON, RFC 6749 §5.2's body and nothing of what was sent."""
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert response.headers["content-type"] == "application/json"
    assert "server" not in response.headers
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", response.headers["x-request-id"])
    body = response.json()
    assert set(body) - {"denial_id"} == {"error", "error_description", "reason"}
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", body["reason"])
    assert DESCRIPTION.fullmatch(body["error_description"])


def test_the_table_is_large_and_its_ids_are_unique() -> None:
    """At least 120 cases, each by a name of its own."""
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids)) >= 120
    assert all(re.match(r"RFC\d+", case.id) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_refusal(case: Case, url: str, stage: Stage, http: httpx.Client) -> None:
    """Status, error code and headers are the table's; the answer is ours and says back nothing that was sent."""
    if case.error == "temporarily_unavailable":
        for _ in range(3):  # spends what the account's limit allows
            send(http, url, case, stage.names)
    response = send(http, url, case, stage.names)
    assert (response.status_code, response.json()["error"]) == (case.status, case.error), response.text
    assert_ours(response)
    assert not case.reason or response.json()["reason"] == case.reason
    assert ("www-authenticate" in response.headers) == (case.status == 401)
    if case.status == 401:
        assert response.headers["www-authenticate"].startswith("Basic realm=")
        assert response.json()["denial_id"]
    if case.status == 429:
        assert int(response.headers["retry-after"]) >= 1
    if case.status == 405:
        assert response.headers["allow"] == "OPTIONS, POST"
    assert stage.names["secret"] not in response.text


def test_every_wrong_credential_gets_one_answer(url: str, stage: Stage, http: httpx.Client) -> None:
    """But for the sealed cause, which has one length, no refusal of a client tells it from another."""
    cases = [case for case in CASES if case.status == 401]
    bodies = [send(http, url, case, stage.names).json() for case in cases]
    assert (
        len({(body["error"], body["error_description"], body["reason"], len(body["denial_id"])) for body in bodies})
        == 1
    )


@pytest.mark.parametrize("path", ["/oauth2/introspect", "/oauth2/revoke"])
@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        ("client_id={id}&client_secret={secret}", {}, 400, "invalid_request"),
        ("token=&client_id={id}&client_secret={secret}", {}, 400, "invalid_request"),
        ("token=x", {}, 401, "invalid_client"),
        ("token=x&client_id={id}&client_secret=wrong", {}, 401, "invalid_client"),
        ("token=x", {"Authorization": "Bearer x"}, 401, "invalid_client"),
        ("token=x&token=x&client_id={id}&client_secret={secret}", {}, 400, "invalid_request"),
        ("token=x&audience=a&audience=a&client_id={id}&client_secret={secret}", {}, 400, "invalid_request"),
        ("token=%zz", {}, 400, "invalid_request"),
        ('{"token":"x"}', {"Content-Type": "application/json"}, 400, "invalid_request"),
        ("x" * 70_000, {}, 413, "invalid_request"),
    ],
)
def test_introspection_and_revocation_refuse_alike(
    path: str, body: str, headers: dict[str, str], status: int, error: str, url: str, stage: Stage, http: httpx.Client
) -> None:
    """RFC 7662 §2.1, RFC 7009 §2.1: the same dialect, the same client authentication, the same strictness."""
    for name, value in stage.names.items():
        body = body.replace("{" + name + "}", value)
    forwarded = dict([source()])
    sent = {b"Content-Type": b"application/x-www-form-urlencoded", **forwarded}
    sent |= {name.encode(): value.encode() for name, value in headers.items()}
    response = http.post(url + path, content=body.encode(), headers=list(sent.items()))
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert_ours(response)


@pytest.mark.parametrize("path", ["/oauth2/nothing", "/oauth2/token/", "/oauth2/token/x", "/api/v1/auth/other"])
def test_what_does_not_exist_is_said_in_oauths_dialect(path: str, url: str, http: httpx.Client) -> None:
    """No other tool's 404 page below the OAuth endpoints."""
    response = http.post(url + path, data={"grant_type": "client_credentials"})
    assert (response.status_code, response.json()["reason"]) == (404, "NO_SUCH_ROUTE")
    assert_ours(response)


@pytest.mark.parametrize("path", [TOKEN, LEGACY, "/oauth2/introspect", "/oauth2/revoke"])
def test_options_and_head(path: str, url: str, http: httpx.Client) -> None:
    """OPTIONS lists the methods, HEAD is refused; neither may be stored."""
    options, head = http.options(url + path), http.head(url + path)
    assert (options.status_code, options.headers["allow"], head.status_code) == (204, "OPTIONS, POST", 405)
    assert {options.headers["cache-control"], head.headers["cache-control"]} == {"no-store"}


def test_the_grant_is_what_makes_the_difference(url: str, stage: Stage, http: httpx.Client) -> None:
    """The table's good request is accepted, so that each refusal is due to what its case changed."""
    case = Case("good", 200, "", f"{GRANT}&client_id={{id}}&client_secret={{secret}}")
    assert send(http, url, case, stage.names).status_code == 200
