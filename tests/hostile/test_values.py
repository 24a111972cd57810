"""Values that are well-formed protobuf and still wrong: each gets its own refusal, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.hostile.victim import Outcome, Victim, assert_refused_clearly

GRANT = "client_credentials"
INVALID = ("INVALID_ARGUMENT", "INVALID_REQUEST")
BAD_PAGE = ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


def answer(outcome: Outcome) -> tuple[str, str]:
    return outcome.code, outcome.reason


def issue(victim: Victim, **fields: Any) -> tuple[str, str]:
    honest = {"client_id": victim.honest.client_id, "client_secret": victim.honest.secret, "grant_type": GRANT}
    return answer(victim.send("IssueToken", tokens_pb.IssueTokenRequest(**(honest | fields))))


def create(victim: Victim, **fields: Any) -> tuple[str, str]:
    account = pb.ServiceAccount(**({"name": "a name", "role": pb.ROLE_USER} | fields))
    return answer(victim.send("CreateServiceAccount", pb.CreateServiceAccountRequest(service_account=account)))


def update(victim: Victim, paths: list[str], **fields: Any) -> tuple[str, str]:
    account = pb.ServiceAccount(**({"id": victim.target.id} | fields))
    request = pb.UpdateServiceAccountRequest(service_account=account, update_mask=FieldMask(paths=paths))
    return answer(victim.send("UpdateServiceAccount", request))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"scope": " ".join(["storage.read"] * 10_000)}, ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE")),
        ({"scope": " ".join(["a"] * 10_000)}, ("INVALID_ARGUMENT", "INVALID_SCOPE")),
        ({"scope": "storage.read\0"}, ("INVALID_ARGUMENT", "INVALID_SCOPE")),
        ({"scope": "storage.read\n"}, ("INVALID_ARGUMENT", "INVALID_SCOPE")),
        ({"scope": " storage.read"}, ("INVALID_ARGUMENT", "INVALID_SCOPE")),
        ({"audience": ["artstore"] * 21}, ("INVALID_ARGUMENT", "INVALID_TARGET")),
        ({"audience": ["a"] * 10_000}, ("INVALID_ARGUMENT", "INVALID_TARGET")),
        ({"audience": ["artstore\0"]}, ("INVALID_ARGUMENT", "INVALID_TARGET")),
        ({"audience": [""]}, ("INVALID_ARGUMENT", "INVALID_TARGET")),
        ({"grant_type": "client_credentials\0"}, ("UNIMPLEMENTED", "UNSUPPORTED_GRANT_TYPE")),
        ({"client_id": "a\0b"}, ("UNAUTHENTICATED", "INVALID_CLIENT")),
        ({"client_id": "\U0010ffff"}, ("UNAUTHENTICATED", "INVALID_CLIENT")),
        ({"client_id": "a" * 60_000}, ("UNAUTHENTICATED", "INVALID_CLIENT")),
        ({"client_secret": "a\0b"}, ("UNAUTHENTICATED", "INVALID_CLIENT")),
        ({"client_secret": "é" * 72}, ("UNAUTHENTICATED", "INVALID_CLIENT")),
        ({"client_secret": "a" * 60_000}, ("UNAUTHENTICATED", "INVALID_CLIENT")),
    ],
)
def test_issue_token(each_victim: Victim, fields: dict[str, Any], expected: tuple[str, str]) -> None:
    """Overlong, repeated and unprintable parameters of IssueToken are refused by their own reason."""
    assert issue(each_victim, **fields) == expected


TOKENS = ["a", "a.b.c", "..", "e30.e30.e30", "e30.e30.", "\0", "é", "a" * 60_000, "." * 60_000]
HEADERS = ["W10", "bnVsbA", "MQ", "eyJhbGciOiJub25lIn0", "eyJhbGciOlsiUlMyNTYiXX0", "eyJhbGciOiJSUzI1NiIsImtpZCI6W119"]


@pytest.mark.parametrize("token", [*TOKENS, *(f"{header}.e30.AAAA" for header in HEADERS)])
def test_strange_tokens(each_victim: Victim, token: str) -> None:
    """What isn't a token of ours is inactive, revoked without a word, and no bearer's."""
    credentials = {"client_id": each_victim.honest.client_id, "client_secret": each_victim.honest.secret}
    found = each_victim.send("IntrospectToken", tokens_pb.IntrospectTokenRequest(token=token, **credentials))
    assert found.code == "OK"
    assert not tokens_pb.IntrospectTokenResponse.FromString(found.data).active
    assert each_victim.send("RevokeToken", tokens_pb.RevokeTokenRequest(token=token, **credentials)).code == "OK"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a\0b"},
        {"name": "ab"},
        {"name": "a" * 201},
        {"name": " ab "},
        {"name": "a\u2028b"},
        {"description": "a\0b"},
        {"description": "a" * 501},
        {"role": 99},
        {"role": -1},
        {"role": 0},
        {"rate_limit": -1},
        {"rate_limit": -(2**31)},
        {"rate_limit": 2**31 - 1},
        {"scopes": ["identity.keys.write"]},
        {"scopes": ["a\0b"]},
        {"scopes": ["a"] * 10_000},
        {"audiences": ["a\0b"]},
        {"audiences": ["a"] * 10_000},
        {"audiences": ["é"]},
        {"served_audiences": ["a" * 256]},
        {"served_audiences": [""]},
    ],
)
def test_account_fields(each_victim: Victim, fields: dict[str, Any]) -> None:
    """A field out of its bounds is refused, alike by Create and by Update."""
    assert create(each_victim, **fields) == INVALID
    assert update(each_victim, list(fields), **fields) == INVALID


def test_strange_but_valid_account(each_victim: Victim) -> None:
    """The last code point, private use and right-to-left marks are text like any other, and come back as they were."""
    name = "\U0010ffff\ue000\u202e" + each_victim.fresh_target().id
    assert create(each_victim, name=name, description="\ufffe\x01\x7f") == ("OK", "")


def test_output_only_fields(each_victim: Victim) -> None:
    """Impossible times and states in output-only fields are ignored, as AIP-203 has it."""
    impossible = Timestamp(seconds=2**63 - 1, nanos=-(2**31))
    secrets = [pb.Secret(id="\0", create_time=impossible, expire_time=impossible)] * 3
    fields = {"state": 77, "is_system": True, "create_time": impossible, "purge_time": impossible, "secrets": secrets}
    assert create(each_victim, name=f"output {each_victim.fresh_target().id}", **fields) == ("OK", "")


@pytest.mark.parametrize(
    "paths",
    [
        ["*", "name"],
        ["id"],
        ["etag"],
        ["secrets"],
        ["name.x"],
        ["\0"],
        ["NAME"],
        [""],
        ["a"] * 10_000,
        ["*"] * 2,
        [" name"],
    ],
)
def test_field_masks(each_victim: Victim, paths: list[str]) -> None:
    """A mask may name what may be changed, or be `*` alone."""
    assert update(each_victim, paths, name="a name", role=pb.ROLE_USER) == INVALID


def test_empty_mask_and_nothing_set(each_victim: Victim) -> None:
    """A change of nothing is refused."""
    assert update(each_victim, []) == INVALID


def test_repeated_path(each_victim: Victim) -> None:
    """A path named ten thousand times is the path."""
    assert update(each_victim, ["description"] * 5_000, description="d") == ("OK", "")


@pytest.mark.parametrize("id", ["", "\0", "a\0b", "é", "a" * 101, "a\nb"])
@pytest.mark.parametrize("method", ["Get", "Delete", "Undelete", "Suspend", "Activate"])
def test_ids(each_victim: Victim, method: str, id: str) -> None:
    """An id that can't be one is refused before the database sees it."""
    request = getattr(pb, f"{method}ServiceAccountRequest")(id=id)
    assert answer(each_victim.send(f"{method}ServiceAccount", request)) == INVALID


@pytest.mark.parametrize("id", ["%00", "' OR 1=1 --", "00000000-0000-0000-0000-000000000000", "{}", "../.."])
def test_unknown_ids(each_victim: Victim, id: str) -> None:
    """An id that nobody has is NOT_FOUND."""
    got = each_victim.send("GetServiceAccount", pb.GetServiceAccountRequest(id=id))
    assert answer(got) == ("NOT_FOUND", "NOT_FOUND")


@pytest.mark.parametrize(
    "overlap",
    [
        Duration(seconds=2**63 - 1),
        Duration(seconds=-(2**63)),
        Duration(seconds=315_576_000_001),
        Duration(seconds=315_576_000_000),
        Duration(seconds=1, nanos=-1),
        Duration(seconds=1, nanos=2**31 - 1),
        Duration(nanos=-(2**31)),
        Duration(seconds=-1),
        Duration(seconds=30 * 86_400, nanos=1_000),
    ],
    ids=lambda overlap: f"{overlap.seconds}s{overlap.nanos}ns",
)
def test_overlaps(each_victim: Victim, overlap: Duration) -> None:
    """An overlap that is no duration, or out of bounds, is refused, and the secret stays as it was."""
    request = pb.RotateSecretRequest(id=each_victim.target.id, overlap=overlap)
    assert answer(each_victim.send("RotateSecret", request)) == INVALID


@pytest.mark.parametrize(
    "request_id",
    [
        "\0",
        "a" * 36,
        "é" * 36,
        "x" * 9999,
        "5F2B5A0E-7F2B-4B0A-9A54-0A6A2F8F7A1",
        "{5f2b5a0e-7f2b-4b0a-9a54-0a6a2f8f7a11}",
        "5f2b5a0e-7f2b-1b0a-9a54-0a6a2f8f7a11",
        "\u0665f2b5a0e-7f2b-4b0a-9a54-0a6a2f8f7a11",
    ],
)
def test_request_ids(each_victim: Victim, request_id: str) -> None:
    """A request_id that is no random UUID is refused, since it would make no retry safe."""
    account = pb.ServiceAccount(name="retried", role=pb.ROLE_USER)
    request = pb.CreateServiceAccountRequest(service_account=account, request_id=request_id)
    assert answer(each_victim.send("CreateServiceAccount", request)) == INVALID


def test_etag_of_another_account(each_victim: Victim) -> None:
    """An etag is good for one version of one account."""
    other, target = each_victim.honest.message, each_victim.fresh_target()
    for method, request in [
        ("SuspendServiceAccount", pb.SuspendServiceAccountRequest(id=target.id, etag=other.etag)),
        ("DeleteServiceAccount", pb.DeleteServiceAccountRequest(id=target.id, etag="\0" * 5000)),
        ("RotateSecret", pb.RotateSecretRequest(id=target.id, etag=other.etag)),
        ("RevokeSecret", pb.RevokeSecretRequest(id=target.id, etag="é", secret_id="x")),
    ]:
        assert answer(each_victim.send(method, request)) == ("ABORTED", "ETAG_MISMATCH")


@pytest.mark.parametrize("secret_id", ["\0", "é" * 1000, "a"])
def test_unknown_secret_id(each_victim: Victim, secret_id: str) -> None:
    """A secret that the account doesn't have can't be revoked, whatever its name."""
    request = pb.RevokeSecretRequest(id=each_victim.target.id, secret_id=secret_id)
    assert answer(each_victim.send("RevokeSecret", request)) == ("NOT_FOUND", "SECRET_NOT_FOUND")


def listed(victim: Victim, **fields: Any) -> tuple[str, str]:
    return answer(victim.send("ListServiceAccounts", pb.ListServiceAccountsRequest(**fields)))


def next_page(victim: Victim, **fields: Any) -> str:
    page = victim.send("ListServiceAccounts", pb.ListServiceAccountsRequest(page_size=1, **fields))
    token: str = pb.ListServiceAccountsResponse.FromString(page.data).next_page_token
    return token


def test_page_token_of_another_query(each_victim: Victim) -> None:
    """A page token is good for the query it was made for."""
    token = next_page(each_victim)
    assert listed(each_victim, page_token=token) == ("OK", "")
    assert listed(each_victim, page_token=token, filter="role = user") == BAD_PAGE
    assert listed(each_victim, page_token=token, show_deleted=True) == BAD_PAGE
    assert listed(each_victim, page_token=next_page(each_victim, filter="role=user")) == BAD_PAGE


def test_page_token_of_another_installation(on_sqlite: Victim, on_postgresql: Victim) -> None:
    """A page token of another installation is refused."""
    assert listed(on_sqlite, page_token=next_page(on_postgresql)) == BAD_PAGE


def test_damaged_page_token(each_victim: Victim) -> None:
    """Every single changed character of a page token is noticed."""
    token = next_page(each_victim)
    for at in range(len(token) - 1):  # the last character's low bits are padding
        damaged = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert listed(each_victim, page_token=damaged) == BAD_PAGE


@pytest.mark.parametrize("token", ["a", "=", "\0", "é", "a" * 60_000, "AAAA", "A" * 100, "%", " "])
def test_invented_page_token(each_victim: Victim, token: str) -> None:
    """A page token that nobody made is refused."""
    assert listed(each_victim, page_token=token) == BAD_PAGE


@pytest.mark.parametrize(
    "filter",
    [
        "\0",
        'name = "a\0b"',
        "a" * 1001,
        "role",
        "role = ",
        "role = nobody",
        "role = user OR role = admin",
        "AND",
        "role = user AND",
        "(role = user)",
        'name : "',
        "name : " + '"\\' * 300,
        "state > active",
        "id = 1",
        'secret_expire_time < "0001-01-01T00:00:00+23:59"',
        'secret_expire_time < "9999-12-31T23:59:59-23:59"',
        'secret_expire_time < "2030-01-31T24:00:00Z"',
        'secret_expire_time < "2030-01-31"',
        " AND ".join(["role = user"] * 21),
    ],
)
def test_filters(each_victim: Victim, filter: str) -> None:
    """A filter that can't be read is refused before the database sees it."""
    assert listed(each_victim, filter=filter) == INVALID


@pytest.mark.parametrize(
    "filter",
    [
        'secret_expire_time > "0001-01-01T00:00:00Z"',
        'secret_expire_time < "9999-12-31T23:59:59.999999999Z"',
        'name : "%_\\\\\\""',
        'name = "\U0010ffff"',
        " AND ".join(["state != deleted"] * 20),
    ],
)
def test_extreme_filters(each_victim: Victim, filter: str) -> None:
    """A filter at the ends of time and of text is one like any other."""
    assert listed(each_victim, filter=filter) == ("OK", "")


@pytest.mark.parametrize("size", [-1, -(2**31), 2**31 - 1])
def test_page_sizes(each_victim: Victim, size: int) -> None:
    """A negative page is refused, one that is too large is a page of the greatest size."""
    assert listed(each_victim, page_size=size) == (INVALID if size < 0 else ("OK", ""))


@pytest.mark.parametrize("size", [65_537, 3_000_000])
@pytest.mark.parametrize("method", ["IssueToken", "CreateServiceAccount", "ListServiceAccounts"])
def test_large_message(victim: Victim, method: str, size: int) -> None:
    """A message past our bound is refused by our reason."""
    name = {"IssueToken": "TokenService"}.get(method, "ServiceAccountService")
    refused = victim.call(f"artstore.identity.v1.{name}/{method}", b"\x0a" * size)
    assert answer(refused) == ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE")


def test_message_past_grpcs_own_bound(victim: Victim) -> None:
    """Past 4 MiB gRPC's core refuses, before anything of ours holds so much memory."""
    assert victim.call("artstore.identity.v1.TokenService/IssueToken", b"\0" * 5_000_000).code == "RESOURCE_EXHAUSTED"


def test_unknown_fields(victim: Victim) -> None:
    """Fields of a later version are passed over, as protobuf has it."""
    request = pb.GetServiceAccountRequest(id=victim.target.id).SerializeToString() + b"\xfa\x3e\x01a" * 1000
    assert_refused_clearly(victim.call("artstore.identity.v1.ServiceAccountService/GetServiceAccount", request))
