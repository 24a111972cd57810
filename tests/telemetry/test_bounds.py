"""No caller can make a series: whatever is thrown at the doors, labels keep to their sets."""

from __future__ import annotations

import contextlib
import random
import string
from collections.abc import Iterator
from urllib.parse import quote

import grpc
import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.telemetry.catalogue import BY_NAME, OTHER, Kind
from tests.installation import Account, Installation
from tests.signers import ASSERTION_TYPE, Signer
from tests.telemetry.scrapes import Scrape

ROUNDS = 12
MARK = "hostile"
"""In everything that is thrown, so that it is found wherever it comes out."""
PARTS = ("_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("service"), trusted_proxies=()) as made:
        yield made


def made_up(rng: random.Random, letters: str = string.ascii_letters + string.digits) -> str:
    return MARK + "".join(rng.choice(letters) for _ in range(rng.randrange(1, 40)))


def nasty(rng: random.Random) -> str:
    return made_up(rng, string.printable + 'é\u2028\U0001f511"\\{}')


def over_grpc(service: Installation, account: Account, rng: random.Random) -> None:
    """Methods that there aren't, metadata and fields that mean nothing, bytes that are no message."""
    for method in (
        f"/{made_up(rng)}/{made_up(rng)}",
        f"/artstore.identity.v1.TokenService/{made_up(rng)}",
        f"/{made_up(rng)}",
    ):
        call = service.channel.unary_unary(method)
        with contextlib.suppress(grpc.RpcError):
            call(rng.randbytes(20), metadata=((f"x-{made_up(rng).lower()}", made_up(rng)),), timeout=10)
    for fields in (
        {"grant_type": nasty(rng)},
        {"client_id": made_up(rng), "client_secret": made_up(rng)},
        {"client_id": nasty(rng), "client_secret": nasty(rng)},
        {"client_id": account.client_id, "client_secret": nasty(rng), "scope": nasty(rng)},
        {"client_id": account.client_id, "client_secret": account.secret, "scope": nasty(rng)},
        {"client_id": account.client_id, "client_secret": account.secret, "audience": [nasty(rng)]},
        {"client_assertion_type": nasty(rng), "client_assertion": nasty(rng)},
        {"client_assertion_type": ASSERTION_TYPE, "client_assertion": Signer().assertion(made_up(rng), made_up(rng))},
    ):
        request = pb.IssueTokenRequest(**({"grant_type": "client_credentials"} | fields))  # type: ignore[arg-type]
        scheme = rng.choice(("", "", f"Basic {made_up(rng)}", f"{made_up(rng)} {made_up(rng)}"))
        with contextlib.suppress(grpc.RpcError):
            service.tokens.IssueToken(request, metadata=(("authorization", scheme),) if scheme else (), timeout=10)
    for bearer in (made_up(rng), Signer().sign({"sub": made_up(rng)}, typ=made_up(rng), kid=made_up(rng))):
        with contextlib.suppress(grpc.RpcError):
            service.accounts.GetServiceAccount(
                accounts_pb.GetServiceAccountRequest(id=nasty(rng)), metadata=(("authorization", f"Bearer {bearer}"),)
            )


def over_http(service: Installation, account: Account, rng: random.Random) -> None:
    """Paths, HTTP methods, types, headers and parameters that there aren't."""
    with httpx.Client(base_url=service.url, trust_env=False) as http:
        for method, path in (
            (made_up(rng).upper(), "/oauth2/token"),
            ("POST", f"/oauth2/{quote(nasty(rng))}"),
            ("GET", f"/api/v1/{quote(nasty(rng))}"),
            ("DELETE", f"/api/v1/service-accounts/{quote(nasty(rng), safe='')}"),
            ("POST", f"/oauth2/token?{quote(nasty(rng))}={made_up(rng)}"),
        ):
            http.request(method, path)
        for path in ("/oauth2/token", "/api/v1/auth/token", "/oauth2/introspect", "/oauth2/revoke"):
            for data in (
                {"grant_type": nasty(rng), nasty(rng): nasty(rng)},
                {"grant_type": "client_credentials", "client_id": nasty(rng), "client_secret": nasty(rng)},
                {
                    "grant_type": "client_credentials",
                    "client_assertion_type": nasty(rng),
                    "client_assertion": nasty(rng),
                    "token": nasty(rng),
                },
                {
                    "grant_type": "client_credentials",
                    "client_id": account.client_id,
                    "client_secret": account.secret,
                    "scope": nasty(rng),
                    "token": made_up(rng),
                },
            ):
                http.post(path, data=data, headers={"traceparent": made_up(rng), "x-request-id": made_up(rng)})
            http.post(path, content=nasty(rng).encode(), headers={"content-type": f"{made_up(rng)}/{made_up(rng)}"})
            http.post(path, headers={"authorization": f"{made_up(rng)} {made_up(rng)}"})


def throw(service: Installation, account: Account, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        over_grpc(service, account, rng)
        over_http(service, account, rng)


def wrong(scrape: Scrape) -> list[str]:
    """Series whose metric isn't in the table, or whose labels aren't in their sets."""
    found = []
    for name, labels in scrape.series():
        family = BY_NAME.get(name) or BY_NAME.get(
            next((name.removesuffix(each) for each in PARTS if name.endswith(each)), "")
        )
        if family is None:
            found.append(name)
            continue
        known = {**family.labels, "le": None} if family.kind is Kind.HISTOGRAM else dict(family.labels)
        found += [
            f"{name} {label}={value}"
            for label, value in labels
            if label not in known or (label != "le" and (value not in known[label] or value == OTHER))
            if not (value == OTHER and scrape.value(name, **dict(labels)) == 0)
        ]
    return found


def test_labels_keep_to_their_sets(service: Installation) -> None:
    """After everything that an attacker chooses was something else, each label's value is of its set, none of them
    `other`, and nothing that was sent is on the page. What makes series is what the service did, and more of the same
    makes hardly more of them."""
    account = service.account("user", rate_limit=1_000_000)
    throw(service, account, seed=1)
    first = Scrape.of(service)
    assert not wrong(first)
    assert first.nonzero("artstore_calls_total")
    assert len(first.nonzero("artstore_token_requests_total")) > 5
    throw(service, account, seed=2)
    throw(service, account, seed=3)
    second = Scrape.of(service)
    assert not wrong(second)
    assert second.value("artstore_token_requests_total", outcome="invalid_client", client_authentication="none") > 0
    # Another code now and then, of the few that there are; what was thrown were thousands of different texts.
    assert len(second.series()) - len(first.series()) <= 4
    said = repr(second.series().keys())
    assert MARK not in said.lower()
    assert account.client_id not in said


def test_more_series_would_be_seen(service: Installation) -> None:
    """The test above can fail: a label that a caller chose is one that is not in its set."""
    scrape = Scrape.of(service)
    (calls,) = [each for each in scrape.families if each.name == "artstore_calls"]
    calls.add_sample("artstore_calls_total", {"method": MARK, "door": "grpc", "code": "OK"}, 1)
    assert wrong(scrape) == [f"artstore_calls_total method={MARK}"]
