"""Who fails to authenticate learns nothing by the clock: no two causes can be told apart by how long the answer takes.

The measure is AUC: how likely a call of one case takes longer than one of another. 0.5 is no difference at all, 1.0 is
one that never fails to tell.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any
from uuid import uuid4

import grpc
import pytest
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from artstore_grpc import secrets
from artstore_grpc.ephemeral import back_off
from tests.hostile.test_oracle import Signed, Suspects
from tests.installation import Installation

TRIALS = 400
AT_MOST = 0.6
REPEATS = 3
"""A difference that is there comes back; one of a busy machine doesn't each time."""
FREE_OF_SOURCE = 10

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Credentials = dict[str, str]
"""The fields of a request that say who calls."""
Case = Callable[[], tuple[Credentials, str]]
"""Credentials that fail, and the address they come from."""


def by_secret(client_id: str, client_secret: str) -> Credentials:
    return {"client_id": client_id, "client_secret": client_secret}


def nobody() -> Credentials:
    return by_secret(f"sa_dev_nobody_{uuid4().hex[:8]}", secrets.generate().text)


def anywhere() -> str:
    """An address that nobody has failed from."""
    return str(ipaddress.IPv4Address(random.randrange(10 << 24, 11 << 24)))


class Timed:
    """A service that takes its caller's word for where it calls from."""

    def __init__(self, service: Installation) -> None:
        self.service = service
        self.suspects = Suspects(service)
        service.token(self.suspects.live.client_id, self.suspects.live.secret)
        self.blocked = anywhere()
        for _ in range(FREE_OF_SOURCE):
            self.ask(nobody(), self.blocked)

    def ask(self, credentials: Credentials, source: str) -> tuple[float, str]:
        """How long the refusal took, in seconds, and its code."""
        request = tokens_pb.IssueTokenRequest(grant_type="client_credentials", **credentials)
        started = time.perf_counter()
        try:
            self.service.tokens.IssueToken(request, metadata=(("x-forwarded-for", source),))
        except grpc.RpcError as error:
            refused: Any = error
            return time.perf_counter() - started, refused.code().name
        raise AssertionError("it was let in")

    def cases(self) -> dict[str, Case]:
        by_reason = self.suspects.by_reason
        live = self.suspects.live.client_id
        return {
            "unknown id": lambda: (nobody(), anywhere()),
            "wrong secret": lambda: (by_secret(live, secrets.generate().text), anywhere()),
            "the secret's id, wrong text": lambda: (by_secret(live, other_text(self.suspects.live.secret)), anywhere()),
            **{
                name: (lambda name=name: (by_secret(*by_reason[name]), anywhere()))
                for name in ("suspended", "deleted", "expired")
            },
        }

    def held_up(self) -> dict[str, Case]:
        """From a source that has to wait."""
        live = self.suspects.live.client_id
        return {
            "unknown id": lambda: (nobody(), self.blocked),
            "wrong secret": lambda: (by_secret(live, secrets.generate().text), self.blocked),
        }

    def signed(self) -> dict[str, Case]:
        """Assertions that a stranger made."""
        signed = Signed(self.service)

        def made(name: str) -> tuple[Credentials, str]:
            client_id = signed.accounts[name].client_id if name else f"sa_dev_nobody_{uuid4().hex[:8]}"
            header = {"kid": signed.signer.thumbprint}
            assertion = signed.stranger.assertion(client_id, self.service.issuer, header=header)
            return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}, anywhere()

        return {name or "unknown id": (lambda name=name: made(name)) for name in ("", "no key", "one key", "Suspend")}


def other_text(secret: str) -> str:
    """A well-formed secret with this one's id."""
    body = secret[: -secrets.CHECKSUM_LENGTH - secrets.RANDOM_LENGTH] + secrets.generate().text.rsplit("_", 1)[1]
    body = body[: len(secret) - secrets.CHECKSUM_LENGTH]
    return body + secrets.checksum(body)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timed]:
    proxies = (ipaddress.ip_network("127.0.0.0/8"),)
    folder = tmp_path_factory.mktemp("timing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(back_off, "FIRST_WAIT_SECONDS", 900.0)  # who has to wait does so for the whole test
        with Installation(folder, trusted_proxies=proxies, source_failures=FREE_OF_SOURCE) as service:
            yield Timed(service)


def auc(ones: list[float], others: list[float]) -> float:
    """By ranks (Mann and Whitney); as far from 0.5 in whichever direction."""
    ranked = sorted([(value, True) for value in ones] + [(value, False) for value in others])
    ranks = sum(rank for rank, (_, one) in enumerate(ranked, 1) if one)
    area = (ranks - len(ones) * (len(ones) + 1) / 2) / (len(ones) * len(others))
    return max(area, 1 - area)


def tellable(timed: Timed, cases: dict[str, Case], code: str) -> dict[str, float]:
    """The pairs of cases that can be told apart, in so many interleaved trials of each."""
    order = [name for name in cases for _ in range(TRIALS)]
    random.shuffle(order)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for name in order:
        seconds, answered = timed.ask(*cases[name]())
        assert answered == code
        times[name].append(seconds)
    areas = {f"{one} / {other}": auc(times[one], times[other]) for one, other in combinations(cases, 2)}
    return {pair: round(area, 3) for pair, area in areas.items() if area > AT_MOST}


def assert_alike(timed: Timed, cases: dict[str, Case], code: str) -> None:
    found: list[dict[str, float]] = []
    for _ in range(REPEATS):
        found.append(tellable(timed, cases, code))
        if not found[-1]:
            return
    raise AssertionError(f"told apart each time: {found}")


@pytest.mark.slow
def test_no_cause_shows(timed: Timed) -> None:
    """Unknown, wrong, suspended, deleted, expired: 400 of each."""
    assert_alike(timed, timed.cases(), "UNAUTHENTICATED")


@pytest.mark.slow
def test_no_cause_of_an_assertion_shows(timed: Timed) -> None:
    """Nor by an assertion: for nobody, for an account without keys, with one, and a suspended one."""
    assert_alike(timed, timed.signed(), "UNAUTHENTICATED")


@pytest.mark.slow
def test_nor_does_it_where_the_source_has_to_wait(timed: Timed) -> None:
    """Who is held up learns no more than who isn't."""
    assert_alike(timed, timed.held_up(), "RESOURCE_EXHAUSTED")


def test_what_differs_shows() -> None:
    """The measure itself: the same is about a half, what is always longer is one."""
    values = [random.random() for _ in range(TRIALS)]
    assert auc(values, [random.random() for _ in range(TRIALS)]) < AT_MOST
    assert auc(values, [value + 0.5 for value in values]) > 0.85
    assert auc(values, [value + 1 for value in values]) == 1.0
