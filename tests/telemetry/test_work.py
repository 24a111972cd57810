"""bcrypt, caches, limits and the feed, each moved by what really happens, over the doors."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import key_service_pb2_grpc
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.call import Caller
from artstore_grpc.failures import FREE_FAILURES
from artstore_grpc.secrets import Hasher
from artstore_grpc.watches import Beginning, News
from tests.installation import Account, Installation
from tests.processes.service import until
from tests.servers import Redis
from tests.signers import ASSERTION_TYPE, Signer
from tests.telemetry.scrapes import Change, Scrape
from tests.trust.stand import SECONDS, Watch, claims_of, revoke, settled, slow_reader, token_of, turned, watches_of

LOOKUPS = "artstore_cache_lookups_total"
DECISIONS = "artstore_limiter_decisions_total"
SIGNER = Signer("ES256")
COSTLY = 12
"""A bcrypt of about a quarter of a second."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("service")) as made:
        settled(made)
        yield made


def issue(service: Installation, account: Account, secret: str = "") -> grpc.StatusCode:
    """Asks for a token; the code of what comes of it."""
    request = pb.IssueTokenRequest(
        grant_type="client_credentials", client_id=account.client_id, client_secret=secret or account.secret
    )
    try:
        service.tokens.IssueToken(request)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def introspect(service: Installation, account: Account, token: str) -> bool:
    request = pb.IntrospectTokenRequest(token=token, client_id=account.client_id, client_secret=account.secret)
    return bool(service.tokens.IntrospectToken(request).active)


def test_a_first_use_and_a_second(service: Installation) -> None:
    """The first use of a secret is read and hashed, later ones are looks into memory, for the account, its secret and
    what it may have; the histogram has the one hash and its time."""
    account = service.account("user")
    with Change(service) as first:
        issue(service, account)
    assert first.all_of(LOOKUPS) == {("accounts", "miss"): 1, ("secret_tags", "miss"): 1, ("grants", "miss"): 1}
    assert first.of("artstore_bcrypt_duration_seconds_count") == 1
    assert first.of("artstore_bcrypt_duration_seconds_sum") > 0
    with Change(service) as second:
        issue(service, account)  # the account has its tag now, and so is another one, whose grant is made anew
    assert second.all_of(LOOKUPS) == {("accounts", "hit"): 1, ("secret_tags", "hit"): 1, ("grants", "miss"): 1}
    with Change(service) as second:
        issue(service, account)
    assert second.all_of(LOOKUPS) == {("accounts", "hit"): 1, ("secret_tags", "hit"): 1, ("grants", "hit"): 1}
    assert second.of("artstore_bcrypt_duration_seconds_count") == 0
    assert second.all_of(DECISIONS) == {("admitted", "account"): 1}


def test_tokens_that_were_seen_before(service: Installation) -> None:
    """A token is verified once, and its introspection made once."""
    account = service.account("user")
    token = service.token(account.client_id, account.secret)
    with Change(service) as first:
        assert introspect(service, account, token)
    with Change(service) as second:
        assert introspect(service, account, token)
    assert {key for key in first.all_of(LOOKUPS) if "miss" in key} == {
        ("introspections", "miss"),
        ("verified_tokens", "miss"),
    }
    hits = second.all_of(LOOKUPS)
    assert (hits["introspections", "hit"], hits["verified_tokens", "hit"]) == (1, 1)
    assert not [key for key in hits if "miss" in key]


def test_keys_that_were_parsed_before(service: Installation) -> None:
    """The public key of a client's assertions is parsed once, and its account looked up once for each."""
    account = service.account("user", public_keys=[Signer("EdDSA").public])
    for outcome in ("miss", "hit"):
        with Change(service) as change:
            service.tokens.IssueToken(
                pb.IssueTokenRequest(
                    grant_type="client_credentials",
                    client_assertion_type=ASSERTION_TYPE,
                    client_assertion=Signer("EdDSA").assertion(account.client_id, service.issuer),
                )
            )
        assert change.all_of(LOOKUPS) == {(each, outcome): 1 for each in ("accounts", "assertion_keys", "grants")}


def test_wrong_secrets(service: Installation) -> None:
    """A wrong secret is no hit; past those that cost nothing the back-off refuses, without a look; the denials are
    counted by their reason."""
    account = service.account("user")
    issue(service, account)
    wrong = service.account("user").secret
    with Change(service) as change:
        codes = [issue(service, account, wrong) for _ in range(FREE_FAILURES + 3)]
    refused = codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert refused
    assert change.all_of(DECISIONS) == {
        ("admitted", "back_off"): len(codes) - refused,
        ("refused", "back_off"): refused,
    }
    assert change.of(LOOKUPS, cache="secret_tags", outcome="hit") == 0
    assert change.of("artstore_denials_total", kind="INVALID_CLIENT") == len(codes) - refused
    assert change.of("artstore_denials_total", kind="TOO_MANY_FAILURES") == refused


def test_over_the_limit(service: Installation) -> None:
    """Of three requests of an account that has two a minute one is refused."""
    account = service.account("user", rate_limit=2)
    with Change(service) as change:
        codes = [issue(service, account) for _ in range(3)]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 1
    counts = change.all_of(DECISIONS)
    assert (counts["admitted", "account"], counts["refused", "account"]) == (2, 1)


@contextmanager
def busy(cost: int) -> Iterator[None]:
    """The only thread of the hasher that has this cost does something else meanwhile, so that all find it taken. Those
    of other tests' services may be about still, closed."""
    hashers = [each for each in gc.get_objects() if type(each) is Hasher and each.cost == cost]
    [hasher] = [each for each in hashers if each._threads == 1 and not each._executor._shutdown]
    free = threading.Event()
    hasher._executor.submit(free.wait)
    try:
        yield
    finally:
        free.set()


def test_a_full_queue(tmp_path: Path) -> None:
    """While costly hashes are computed their queue and the calls are seen; those past its bound are rejected, and the
    others have taken as long as such a hash does. Scrapes meanwhile are answered at once."""
    with Installation(tmp_path, bcrypt_cost=COSTLY, bcrypt_threads=1, bcrypt_queue=2) as service:
        accounts = [service.account("user") for _ in range(6)]
        before = Scrape.of(service)
        rejections = before.value("artstore_bcrypt_rejections_total") + 3
        with ThreadPoolExecutor(len(accounts)) as threads, busy(COSTLY):
            codes = [threads.submit(issue, service, account) for account in accounts]
            until(
                lambda: Scrape.of(service).value("artstore_bcrypt_rejections_total") == rejections, SECONDS, "all came"
            )
            full = Scrape.of(service)
        assert full.value("artstore_bcrypt_queue_depth") == 3
        assert full.value("artstore_calls_in_flight") >= 1
        rejected = [each.result() for each in codes].count(grpc.StatusCode.RESOURCE_EXHAUSTED)
        after = Scrape.of(service)
    assert rejected == 3
    assert after.value("artstore_bcrypt_rejections_total") == rejections
    count = after.value("artstore_bcrypt_duration_seconds_count") - before.value(
        "artstore_bcrypt_duration_seconds_count"
    )
    taken = after.value("artstore_bcrypt_duration_seconds_sum") - before.value("artstore_bcrypt_duration_seconds_sum")
    assert count == 3
    assert taken / count > 0.05
    assert (after.value("artstore_bcrypt_queue_depth"), after.value("artstore_calls_in_flight")) == (0, 0)


@pytest.mark.slow
def test_redis_goes_away(tmp_path: Path) -> None:
    """While Redis is down what is admitted is counted as degraded, and it is not up; what is refused is refused, by
    whichever count. When it is back, so is the count that all share."""
    with Redis() as server, Installation(tmp_path, redis_url=server.url()) as service:
        account, limited = service.account("user"), service.account("user", rate_limit=1)
        until(lambda: Scrape.of(service).get("artstore_redis_up") == 1, SECONDS, "a probe that was answered")
        issue(service, account)
        until(lambda: admitted_by_redis(service, account), SECONDS, "Redis counts")
        server.kill()
        until(lambda: Scrape.of(service).value("artstore_redis_up") == 0, SECONDS, "a probe that was not")
        with Change(service) as alone:
            codes = [issue(service, each) for each in (account, limited, limited)]
        assert codes == [grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED]
        counts = alone.all_of(DECISIONS)
        assert (counts["degraded", "account"], counts["refused", "account"]) == (2, 1)
        assert ("admitted", "account") not in counts
        assert counts["degraded", "back_off"] == 1  # the first use of the other's secret
        server.start()
        until(lambda: Scrape.of(service).value("artstore_redis_up") == 1, SECONDS, "a probe that is answered again")
        until(lambda: admitted_by_redis(service, account), SECONDS, "Redis counts again")


def admitted_by_redis(service: Installation, account: Account) -> bool:
    with Change(service) as change:
        issue(service, account)
    return change.all_of(DECISIONS) == {("admitted", "account"): 1}


def test_followers_of_the_feed(service: Installation) -> None:
    """Each open stream is a subscriber, and one that is read lags behind nothing."""
    account = service.account("user")
    watches = [Watch(service, token_of(service, account)) for _ in range(2)]
    for watch in watches:
        watch.until("heartbeat")
    until(lambda: Scrape.of(service).value("artstore_feed_subscribers") == 2, SECONDS, "two streams")
    until(lambda: Scrape.of(service).value("artstore_feed_lag_seconds") < 0.5, SECONDS, "no lag")
    for watch in watches:
        watch.close()
    until(lambda: Scrape.of(service).value("artstore_feed_subscribers") == 0, SECONDS, "no stream")
    assert Scrape.of(service).value("artstore_feed_lag_seconds") == 0


def test_a_follower_that_does_not_read(tmp_path: Path) -> None:
    """A stream that isn't read any more lags behind, ever further, while another one that is read doesn't hide it; and
    it counts no more once it is closed."""
    with Installation(tmp_path, max_streams=8) as service:
        settled(service)
        account = service.account("user")
        token = service.token(account.client_id, account.secret)
        channel, _call = slow_reader(service, token)
        other = Watch(service, token)
        other.until("heartbeat")
        lag = until(lambda: over(service, 1.0), SECONDS, "a lag of a second")
        until(lambda: over(service, lag + 0.5), SECONDS, "a lag that grows")
        channel.close()
        until(lambda: Scrape.of(service).value("artstore_feed_lag_seconds") < 0.5, SECONDS, "the other's alone")
        other.close()


def test_a_follower_that_has_not_taken_what_it_was_given(service: Installation) -> None:
    """The lag is of what was given and not taken, a heartbeat too; once it is taken, and there is nothing more to tell,
    there is none."""
    account = service.account("user")
    token = service.token(account.client_id, account.secret)
    watches = watches_of(service)

    async def follow() -> None:
        (known,) = await watches._replica._store.accounts_by_id([account.id])
        told = watches.follow(Caller(known, frozenset(), claims=claims_of(token)), token)
        assert isinstance(await anext(told), Beginning)
        assert isinstance(await anext(told), News)
        given = watches._monotonic()
        await turned(lambda: watches.lag_seconds > 0.3)
        assert watches._monotonic() - given >= 0.2
        following = asyncio.create_task(anext(told))
        await turned(lambda: watches.lag_seconds == 0)
        await following
        await told.aclose()
        assert (watches.lag_seconds, watches.count) == (0, 0)

    service.run(follow())


def over(service: Installation, seconds: float) -> float:
    lag = Scrape.of(service).value("artstore_feed_lag_seconds")
    return lag if lag > seconds else 0.0


def test_the_key_that_signs(service: Installation) -> None:
    """When it began to sign, as ListSigningKeys has it, and when the next one is to: at the interval, until a rotation
    plans it for earlier."""
    keys = key_service_pb2_grpc.KeyServiceStub(service.channel)
    listed = keys.ListSigningKeys(keys_pb.ListSigningKeysRequest(), metadata=service.bearer()).signing_keys
    (active,) = [key for key in listed if key.state == pb.KEY_STATE_ACTIVE]
    scrape = Scrape.of(service)
    began = active.activate_time.ToNanoseconds() / 1e9
    assert scrape.value("artstore_signing_key_activate_timestamp_seconds") == pytest.approx(began, abs=0.001)
    following = scrape.value("artstore_signing_key_next_rotation_timestamp_seconds")
    interval = service.settings.key_rotation_interval.total_seconds()
    assert following == pytest.approx(began + interval, abs=0.001)
    planned = keys.RotateSigningKey(keys_pb.RotateSigningKeyRequest(), metadata=service.bearer()).signing_key
    told = Scrape.of(service).value("artstore_signing_key_next_rotation_timestamp_seconds")
    assert told == pytest.approx(planned.activate_time.ToNanoseconds() / 1e9, abs=0.001)
    assert told < following


def test_scrapes_amid_calls(service: Installation) -> None:
    """Threads that scrape without a pause see counters that never fall and histograms whose parts agree, while calls
    go on; the loop is not held up."""
    account = service.account("user", rate_limit=100_000)
    issue(service, account)
    ended, seen = threading.Event(), []

    def scrape() -> None:
        last = 0.0
        while not ended.is_set():
            found = Scrape.of(service)
            issued = found.value("artstore_tokens_issued_total", mode="normal")
            method = "artstore.identity.v1.TokenService/IssueToken"
            count = found.value("artstore_call_duration_seconds_count", method=method)
            assert count == found.value("artstore_call_duration_seconds_bucket", method=method, le="+Inf")
            assert issued >= last
            last = issued
            seen.append(issued)

    with ThreadPoolExecutor(2) as threads:
        scraping = [threads.submit(scrape) for _ in range(2)]
        with Change(service) as change:
            for _ in range(200):
                assert issue(service, account) is grpc.StatusCode.OK
        ended.set()
        for each in scraping:
            each.result()
    assert change.of("artstore_tokens_issued_total", mode="normal") == 200
    assert len(seen) > 2


def test_revoking_moves_the_ledger(service: Installation) -> None:
    """The last row that was applied, and how old what is known may be: no more than a poll's interval by much."""
    account = service.account("user")
    token = service.token(account.client_id, account.secret)
    before = Scrape.of(service).value("artstore_ledger_sequence")
    revoke(service, account, token)
    scrape = Scrape.of(service)
    assert scrape.value("artstore_ledger_sequence") == before + 1
    assert scrape.value("artstore_ledger_lag_seconds") >= 0
    until(lambda: Scrape.of(service).value("artstore_ledger_lag_seconds") < 2, SECONDS, "a poll")
    assert (scrape.value("artstore_database_up"), scrape.value("artstore_degraded")) == (1, 0)
    assert scrape.get("artstore_redis_up") is None


def test_the_process_is_measured(service: Installation) -> None:
    """CPU, memory and descriptors, on Linux; and which version runs."""
    scrape = Scrape.of(service)
    assert scrape.value("process_cpu_seconds_total") > 0
    assert scrape.value("process_resident_memory_bytes") > 1_000_000
    assert scrape.value("process_open_fds") > 3
    ((version,),) = scrape.nonzero("artstore_build_info")
    assert version
