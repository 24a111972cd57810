"""The API routes: every annotated method, strict JSON, one dialect of errors."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import errors
from artstore_grpc.gateway.bindings import bindings
from artstore_grpc.gateway.messages import Reader, to_json
from artstore_grpc.policy import POLICY
from artstore_grpc.rpc.descriptors import full_name, walked
from tests.gateway.conftest import Door, Stage

ACCOUNTS = "/api/v1/service-accounts"
TOKEN = {"Authorization": "Bearer x"}


def test_every_method_has_a_route_and_a_policy() -> None:
    """No method of the API is left out of HTTP."""
    unary = {full_name(method) for method in walked() if not method.server_streaming}
    assert {binding.full_name for binding in bindings()} == unary
    assert {full_name(method) for method in walked()} == set(POLICY)


ACCEPTED: list[tuple[str, str, str, Any, Any]] = [
    (
        "create",
        "POST",
        f"{ACCOUNTS}?request_id=r",
        {"name": "n", "role": "admin", "rate_limit": 5, "scopes": ["a"]},
        pb.CreateServiceAccountRequest(
            service_account=pb.ServiceAccount(name="n", role=pb.ROLE_ADMIN, rate_limit=5, scopes=["a"]), request_id="r"
        ),
    ),
    ("get", "GET", f"{ACCOUNTS}/abc", None, pb.GetServiceAccountRequest(id="abc")),
    ("get, escaped id", "GET", f"{ACCOUNTS}/a%20b", None, pb.GetServiceAccountRequest(id="a b")),
    (
        "list",
        "GET",
        f"{ACCOUNTS}?page_size=5&page_token=t&filter=role+%3D+user&show_deleted=true",
        None,
        pb.ListServiceAccountsRequest(page_size=5, page_token="t", filter="role = user", show_deleted=True),
    ),
    ("list, nothing asked", "GET", ACCOUNTS, None, pb.ListServiceAccountsRequest()),
    ("delete with etag", "DELETE", f"{ACCOUNTS}/abc?etag=e", None, pb.DeleteServiceAccountRequest(id="abc", etag="e")),
    ("suspend, empty body", "POST", f"{ACCOUNTS}/abc/suspend", {}, pb.SuspendServiceAccountRequest(id="abc")),
    ("suspend, no body", "POST", f"{ACCOUNTS}/abc/suspend", None, pb.SuspendServiceAccountRequest(id="abc")),
    (
        "id in path and body",
        "POST",
        f"{ACCOUNTS}/abc/activate",
        {"id": "abc"},
        pb.ActivateServiceAccountRequest(id="abc"),
    ),
    (
        "undelete",
        "POST",
        f"{ACCOUNTS}/abc/undelete",
        {"etag": "e"},
        pb.UndeleteServiceAccountRequest(id="abc", etag="e"),
    ),
    (
        "revoke a secret",
        "POST",
        f"{ACCOUNTS}/abc/revoke-secret",
        {"secret_id": "s"},
        pb.RevokeSecretRequest(id="abc", secret_id="s"),
    ),
]


@pytest.mark.parametrize(("verb", "path", "body", "message"), [c[1:] for c in ACCEPTED], ids=[c[0] for c in ACCEPTED])
async def test_a_request_becomes_its_message(verb: str, path: str, body: Any, message: Any, door: Door) -> None:
    """Path, query and body fill the fields that the annotation says."""
    door.backend.answer = pb.GetServiceAccountResponse()
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if content else {}
    response = await door.client.request(verb, path, content=content, headers={**headers, **TOKEN})
    assert response.status_code == 200, response.text
    assert door.message == message
    assert response.headers["cache-control"] == "no-store"


async def test_durations_are_seconds(door: Door) -> None:
    """`3600s`, as proto3 JSON has them; zero is not the same as unset."""
    door.backend.answer = pb.RotateSecretResponse()
    for text, seconds in (("3600s", 3600), ("0s", 0)):
        await door.client.post(f"{ACCOUNTS}/a/rotate-secret", json={"overlap": text})
        assert door.message.HasField("overlap")
        assert door.message.overlap.seconds == seconds
    await door.client.post(f"{ACCOUNTS}/a/rotate-secret", json={"overlap": None})
    assert not door.message.HasField("overlap")


PATCHES: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("the body's fields", {"name": "n", "rate_limit": 0}, "", ["name", "rate_limit"]),
    ("null resets", {"description": None}, "", ["description"]),
    (
        "output-only fields and etag are no changes",
        {"id": "x", "state": "active", "etag": "e", "name": "n"},
        "",
        ["name"],
    ),
    ("an explicit mask", {"name": "n", "role": "user"}, "?update_mask=role", ["role"]),
    ("several paths", {}, "?update_mask=name,description", ["name", "description"]),
    ("everything", {}, "?update_mask=*", ["*"]),
    ("an empty mask", {"name": "n"}, "?update_mask=", []),
]


@pytest.mark.parametrize(("body", "query", "paths"), [c[1:] for c in PATCHES], ids=[c[0] for c in PATCHES])
async def test_a_patch_has_its_mask(body: dict[str, Any], query: str, paths: list[str], door: Door) -> None:
    """AIP-134: from the query, else the fields that the body names."""
    door.backend.answer = pb.UpdateServiceAccountResponse()
    response = await door.client.patch(f"{ACCOUNTS}/abc{query}", json=body)
    assert response.status_code == 200, response.text
    assert list(door.message.update_mask.paths) == paths
    assert door.message.service_account.id == "abc"


async def test_an_account_is_printed_whole(door: Door) -> None:
    """Short names, empty lists as `[]`, numbers as numbers, times in RFC 3339; what is unset is left out."""
    account = pb.ServiceAccount(id="i", role=pb.ROLE_READONLY, state=pb.STATE_ACTIVE)
    account.create_time.seconds = 1
    door.backend.answer = pb.GetServiceAccountResponse(service_account=account)
    shown = (await door.client.get(f"{ACCOUNTS}/i")).json()["service_account"]
    assert (shown["role"], shown["state"], shown["rate_limit"]) == ("readonly", "active", 0)
    assert (shown["scopes"], shown["secrets"], shown["is_system"]) == ([], [], False)
    assert shown["create_time"] == "1970-01-01T00:00:01Z"
    assert "delete_time" not in shown


CREATE = ("POST", ACCOUNTS)
MALFORMED: list[tuple[str, tuple[str, str], Any, str]] = [
    ("unknown member", CREATE, {"nope": 1}, "service_account.nope"),
    ("unknown member of everything", ("POST", f"{ACCOUNTS}/a/suspend"), {"nope": 1}, "nope"),
    ("camelCase", CREATE, {"rateLimit": 1}, "service_account.rateLimit"),
    ("the resource wrapped", CREATE, {"service_account": {}}, "service_account.service_account"),
    ("wire name of an enumeration", CREATE, {"role": "ROLE_ADMIN"}, "service_account.role"),
    ("upper case of an enumeration", CREATE, {"role": "Admin"}, "service_account.role"),
    ("number of an enumeration", CREATE, {"role": 1}, "service_account.role"),
    ("unspecified", CREATE, {"role": "unspecified"}, "service_account.role"),
    ("string for a number", CREATE, {"rate_limit": "5"}, "service_account.rate_limit"),
    ("float for a number", CREATE, {"rate_limit": 5.5}, "service_account.rate_limit"),
    ("true for a number", CREATE, {"rate_limit": True}, "service_account.rate_limit"),
    ("number out of range", CREATE, {"rate_limit": 2**31}, "service_account.rate_limit"),
    ("number for a string", CREATE, {"name": 5}, "service_account.name"),
    ("string for a list", CREATE, {"scopes": "a"}, "service_account.scopes"),
    ("number in a list", CREATE, {"scopes": [1]}, "service_account.scopes"),
    (
        "string for a boolean",
        CREATE,
        {"introspection_only": "true"},
        "service_account.introspection_only",
    ),
    ("NUL", CREATE, {"name": "a\0b"}, "service_account.name"),
    ("lone surrogate", CREATE, {"name": "\ud800"}, "service_account.name"),
    ("bad time", CREATE, {"create_time": "yesterday"}, "service_account.create_time"),
    (
        "bad member of a listed object",
        CREATE,
        {"secrets": [{}, {"x": 1}]},
        "service_account.secrets[1].x",
    ),
    ("bad duration", ("POST", f"{ACCOUNTS}/a/rotate-secret"), {"overlap": "1h"}, "overlap"),
    ("number as duration", ("POST", f"{ACCOUNTS}/a/rotate-secret"), {"overlap": 3600}, "overlap"),
    ("another id than the path's", ("POST", f"{ACCOUNTS}/a/suspend"), {"id": "b"}, "id"),
    ("query where the body is everything", ("POST", f"{ACCOUNTS}/a/suspend?etag=x"), {}, "etag"),
    ("unknown parameter", ("GET", f"{ACCOUNTS}?nope=1"), None, "nope"),
    ("path field as a parameter", ("GET", f"{ACCOUNTS}/a?id=b"), None, "id"),
    ("body field as a parameter", ("PATCH", f"{ACCOUNTS}/a?service_account.name=x"), {}, "service_account.name"),
    ("number parameter", ("GET", f"{ACCOUNTS}?page_size=ten"), None, "page_size"),
    ("empty number parameter", ("GET", f"{ACCOUNTS}?page_size="), None, "page_size"),
    ("number parameter out of range", ("GET", f"{ACCOUNTS}?page_size=99999999999"), None, "page_size"),
    ("non-ASCII digits", ("GET", f"{ACCOUNTS}?page_size=%D9%A3"), None, "page_size"),
    ("boolean parameter", ("GET", f"{ACCOUNTS}?show_deleted=1"), None, "show_deleted"),
    ("parameter twice", ("GET", f"{ACCOUNTS}?page_size=1&page_size=1"), None, "page_size"),
    ("camelCase mask", ("PATCH", f"{ACCOUNTS}/a?update_mask=rateLimit"), {}, "update_mask"),
    ("empty path in a mask", ("PATCH", f"{ACCOUNTS}/a?update_mask=name,,role"), {}, "update_mask"),
]


@pytest.mark.parametrize(("request_line", "body", "field"), [c[1:] for c in MALFORMED], ids=[c[0] for c in MALFORMED])
async def test_a_malformed_request_names_its_field(
    request_line: tuple[str, str], body: Any, field: str, door: Door
) -> None:
    """400 with a violation at the field's path; the backend is not asked."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if content else {}
    response = await door.client.request(*request_line, content=content, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["status"], error["reason"]) == (400, "INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [violation["field"] for violation in error["violations"]] == [field]
    assert not door.backend.calls


async def test_all_faults_are_said_at_once(door: Door) -> None:
    """A client mends its request in one go."""
    response = await door.client.post(ACCOUNTS, json={"x": 1, "y": 2, "name": 3})
    fields = [violation["field"] for violation in response.json()["error"]["violations"]]
    assert fields == ["service_account.x", "service_account.y", "service_account.name"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "reason"),
    [
        (b"{", "application/json", 400, "MALFORMED_JSON"),
        (b"[]", "application/json", 400, "MALFORMED_JSON"),
        (b'{"a":1,"a":1}', "application/json", 400, "REPEATED_PARAMETER"),
        (b'{"a":NaN}', "application/json", 400, "MALFORMED_JSON"),
        (b"[" * 60_000, "application/json", 400, "MALFORMED_JSON"),
        (b'{"a":"\xff"}', "application/json", 400, "MALFORMED_UTF8"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"{}", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"{}", "application/json; charset=utf-16", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"x" * 65_537, "application/json", 413, "BODY_TOO_LARGE"),
    ],
)
async def test_a_body_that_is_no_json_object(content: bytes, kind: str, status: int, reason: str, door: Door) -> None:
    """Refused in the API's dialect."""
    response = await door.client.post(ACCOUNTS, content=content, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["error"]["reason"]) == (status, reason)


@pytest.mark.parametrize(
    ("verb", "path", "status", "reason"),
    [
        ("GET", "/", 404, "NO_SUCH_ROUTE"),
        ("GET", "/api/v1/nothing", 404, "NO_SUCH_ROUTE"),
        ("GET", f"{ACCOUNTS}/", 404, "NO_SUCH_ROUTE"),
        ("GET", f"{ACCOUNTS}/a/b/c", 404, "NO_SUCH_ROUTE"),
        ("PUT", f"{ACCOUNTS}/a", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", ACCOUNTS, 405, "METHOD_NOT_ALLOWED"),
        ("GET", f"{ACCOUNTS}/a%00b", 400, "MALFORMED_PATH"),
        ("GET", f"{ACCOUNTS}/a%0A", 400, "MALFORMED_PATH"),
        ("GET", f"{ACCOUNTS}/%ff", 400, "MALFORMED_PATH"),
        ("GET", f"{ACCOUNTS}?filter=%zz", 400, "MALFORMED_FORM"),
        ("GET", f"{ACCOUNTS}?filter=%00", 400, "MALFORMED_TEXT"),
    ],
)
async def test_what_has_no_method(verb: str, path: str, status: int, reason: str, door: Door) -> None:
    """404, 405 with `Allow`, and paths that mean nothing, in the API's dialect."""
    response = await door.client.request(verb, path)
    assert (response.status_code, response.json()["error"]["reason"]) == (status, reason)
    assert ("allow" in response.headers) == (status == 405)


RAISED: list[tuple[errors.IdentityError, int, dict[str, str]]] = [
    (errors.InvalidToken(), 401, {"www-authenticate": 'Bearer realm="artstore", error="invalid_token"'}),
    (errors.InvalidClient(), 401, {"www-authenticate": 'Basic realm="artstore", charset="UTF-8"'}),
    (
        errors.PermissionDenied(reason="INSUFFICIENT_SCOPE"),
        403,
        {"www-authenticate": 'Bearer realm="artstore", error="insufficient_scope"'},
    ),
    (errors.PermissionDenied(), 403, {}),
    (errors.NotFound(), 404, {}),
    (errors.AlreadyExists(), 409, {}),
    (errors.EtagMismatch(), 409, {}),
    (errors.FailedPrecondition(), 400, {}),
    (errors.RateLimited(retry_after=timedelta(seconds=1.2)), 429, {"retry-after": "2"}),
    (errors.Overloaded(retry_after=timedelta(0)), 429, {"retry-after": "1"}),
    (errors.Unavailable(), 503, {"retry-after": "1"}),
    (errors.DeadlineExceeded(), 504, {}),
    (errors.Internal(cause="canary"), 500, {}),
]


@pytest.mark.parametrize(("error", "status", "headers"), RAISED, ids=lambda value: type(value).__name__)
async def test_an_error_of_the_api(
    error: errors.IdentityError, status: int, headers: dict[str, str], door: Door
) -> None:
    """One table, AIP-193's body, and the header that goes with the status."""
    error.denial_id = "sealed"
    door.backend.answer = error
    response = await door.client.get(ACCOUNTS, headers=TOKEN)
    body = response.json()["error"]
    assert (response.status_code, body["code"], body["status"]) == (status, status, errors.OUTCOMES[type(error)].grpc)
    assert (body["reason"], body["domain"], body["denial_id"]) == (error.reason, errors.DOMAIN, "sealed")
    found = {name: response.headers[name] for name in ("www-authenticate", "retry-after") if name in response.headers}
    assert found == headers
    assert "canary" not in response.text


async def test_without_credentials_the_challenge_has_no_error(door: Door) -> None:
    """RFC 6750 §3.1."""
    door.backend.answer = errors.InvalidToken()
    response = await door.client.get(ACCOUNTS)
    assert response.headers["www-authenticate"] == 'Bearer realm="artstore"'


async def test_an_unexpected_error_says_nothing(door: Door) -> None:
    """The exception's text stays in the log."""
    door.backend.answer = RuntimeError("canary")
    response = await door.client.get(ACCOUNTS)
    assert (response.status_code, response.json()["error"]["reason"]) == (500, "INTERNAL")
    assert "canary" not in response.text


def test_the_life_of_an_account(url: str, stage: Stage, http: httpx.Client) -> None:
    """Create, read, change, rotate (by itself, with Basic), suspend, delete: over HTTP, at both doors."""
    installation = stage.installation
    admin = {name.title(): value for name, value in installation.bearer()}
    name = f"life {url.rpartition(':')[2]}"
    made = http.post(url + ACCOUNTS, json={"name": name, "role": "user"}, headers=admin).json()
    account, secret = made["service_account"], made["client_secret"]
    path = f"{url}{ACCOUNTS}/{account['id']}"
    assert http.get(path, headers=admin).json()["service_account"] == account
    changed = http.patch(path, json={**account, "description": "d"}, headers=admin).json()["service_account"]
    assert (changed["description"], changed["name"]) == ("d", name)
    stale = http.patch(path, json={"description": "e", "etag": account["etag"]}, headers=admin)
    assert (stale.status_code, stale.json()["error"]["reason"]) == (409, "ETAG_MISMATCH")
    rotated = http.post(f"{path}/rotate-secret", json={"overlap": "0s"}, auth=(account["client_id"], secret))
    assert rotated.json()["client_secret"] != secret, rotated.text
    assert http.post(f"{path}/suspend", headers=admin).json()["service_account"]["state"] == "suspended"
    assert http.delete(path, headers=admin).json()["service_account"]["state"] == "deleted"
    assert http.get(path).headers["www-authenticate"] == 'Bearer realm="artstore"'


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.text() | st.sampled_from(["service_account", "name", "role", "secrets", "create_time"]), inner
            )
        ),
    )
)
def test_any_document_is_read_or_refused(document: Any) -> None:
    """No JSON value raises anything but InvalidRequest."""
    reader = Reader()
    reader.document(pb.CreateServiceAccountRequest(), {"service_account": document, "request_id": document})
    with nullcontext() if not reader.violations else pytest.raises(errors.InvalidRequest):
        reader.check()


@given(
    st.builds(
        pb.ServiceAccount,
        name=st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))),
        role=st.sampled_from([1, 2, 3, 4]),
        rate_limit=st.integers(-(2**31), 2**31 - 1),
        scopes=st.lists(st.sampled_from(["a", "b"])),
        introspection_only=st.booleans(),
    )
)
def test_what_is_printed_reads_back(account: pb.ServiceAccount) -> None:
    """JSON and message are two forms of one thing."""
    reader, again = Reader(), pb.ServiceAccount()
    document = {name: value for name, value in to_json(account).items() if name != "state"}
    reader.document(again, document)
    reader.check()
    assert again == account
