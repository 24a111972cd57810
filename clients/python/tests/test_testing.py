"""What `artstore.identity.testing` gives beside what the contract says: tokens to order, accounts, keys, HTTP, TLS."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from datetime import timedelta
from typing import Any

import grpc
import pytest
import trustme
from artstore.identity import (
    Client,
    IdentityError,
    InvalidClient,
    TrustFeed,
    Unavailable,
    get_token,
)
from artstore.identity.testing import FakeAuthority
from artstore.identity.testing.keys import BadToken
from faked import SECONDS, claims_of, client, turned
from joserfc import jws, jwt
from joserfc.jwk import KeySet

# Starting and stopping


def test_without_an_event_loop() -> None:
    """`with` serves tests that have none, and clients of any kind."""
    with FakeAuthority() as authority:
        account = authority.account()
        token = get_token(authority.target, account.client_id, account.client_secret)
        assert claims_of(token)["iss"] == authority.issuer


async def test_a_caller_that_blocks_the_loop(authority: FakeAuthority) -> None:
    """Is answered all the same: the authority doesn't live in the loop of the test."""
    with grpc.insecure_channel(authority.target) as channel:
        answer: Any = channel.unary_unary("/artstore.identity.v1.TokenService/GetJsonWebKeySet")(b"", timeout=SECONDS)
        assert answer


def test_it_ends_with_its_block(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing listens then, no thread is left, and nothing was logged; the open stream of a client is no obstacle."""
    before = set(threading.enumerate())

    async def follow(authority: FakeAuthority) -> None:
        account = authority.account()
        async with client(authority, account) as opened, TrustFeed(opened) as feed:
            await asyncio.wait_for(feed.ready(), SECONDS)
            await asyncio.to_thread(authority.__exit__)
            await turned(lambda: feed.last_error)

    authority = FakeAuthority(http=True)
    authority.__enter__()
    target = authority.target
    with caplog.at_level(logging.WARNING):
        asyncio.run(follow(authority))
    left = [thread.name for thread in set(threading.enumerate()) - before if "fake-authority" in thread.name]
    assert (left, caplog.records) == ([], [])
    with pytest.raises(Unavailable):
        get_token(target, "sa_dev_nobody_00000000", "x", timeout=timedelta(seconds=2))
    with pytest.raises(RuntimeError, match="not running"):
        authority.account()


def test_two_know_nothing_of_each_other() -> None:
    """Issuers differ, keys do too, and a second start of one is refused; an ended one's key is used again."""
    with FakeAuthority() as first, FakeAuthority() as second:
        assert first.issuer != second.issuer
        kids = {first.kid, second.kid}
        assert len(kids) == 2
        with pytest.raises(ValueError, match="no live token"):
            second.revoke(first.token(first.account()))
        with pytest.raises(RuntimeError, match="is running"):
            first.__enter__()
    with FakeAuthority() as third:
        assert third.kid in kids


@pytest.mark.parametrize("settings", [{"algorithm": "none"}, {"algorithm": "HS256"}, {"token_lifetime": timedelta(0)}])
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        FakeAuthority(**settings)


# Tokens to order


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "ES256", "EdDSA"])
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_algorithms(algorithm: str) -> None:
    """Tokens are signed by the algorithm asked for, as the key set says, and it takes its own back."""
    async with FakeAuthority(algorithm=algorithm) as authority:
        account = authority.account()
        async with client(authority, account) as opened:
            token = (await opened.issue_token()).access_token
            (key,) = (await opened.json_web_key_set()).keys
            assert (key.alg, key.kid) == (algorithm, authority.kid)
            assert jws.extract_compact(token.encode()).headers() == {
                "alg": algorithm,
                "kid": key.kid,
                "typ": "at+jwt",
            }
            assert (await opened.introspect(token)).active
            assert (await opened.introspect(authority.token(account))).active
            assert not (await opened.introspect(authority.token(account, foreign=True))).active


async def test_tokens_to_order(authority: FakeAuthority) -> None:
    """Scope, audience, lifetime and any claim or header, without a call and without a check."""
    account = authority.account("orders", rate_limit=7)
    usual = claims_of(authority.token(account))
    assert usual["exp"] - usual["iat"] == 1800
    assert (usual["aud"], usual["scope"], usual["rate_limit"]) == ("artstore", "storage.read storage.write", 7)
    token = authority.token(
        account,
        scope="anything",
        audience=["a", "b"],
        lifetime=timedelta(seconds=5),
        claims={"role": "admin", "jti": None},
    )
    odd = claims_of(token)
    assert (odd["aud"], odd["scope"], odd["role"], odd["exp"] - odd["iat"]) == (["a", "b"], "anything", "admin", 5)
    assert "jti" not in odd
    assert claims_of(authority.token(account, audience="one", scope=""))["aud"] == "one"
    header = jws.extract_compact(authority.token(account, header={"typ": "JWT", "kid": None}).encode()).headers()
    assert header == {"alg": "RS256", "typ": "JWT"}
    assert sum(authority.calls.values()) == 0


async def test_tokens_that_must_be_refused(authority: FakeAuthority) -> None:
    """Expired, foreign (under its own key's name, and under the real one's), revoked: each is what it says, and the
    authority itself refuses it."""
    account = authority.account()
    async with client(authority, account) as opened:
        good = authority.token(account)
        keys = KeySet.import_key_set(
            {"keys": [{f.name: v for f, v in key.ListFields()} for key in (await opened.json_web_key_set()).keys]}
        )
        expired = authority.token(account, lifetime=timedelta(seconds=-60))
        assert claims_of(expired)["exp"] - time.time() == pytest.approx(-60, abs=2)
        assert claims_of(expired)["exp"] - claims_of(expired)["iat"] == 1800
        jwt.decode(expired, keys)  # signed well: it is refused for its time alone
        foreign = authority.token(account, foreign=True)
        forged = authority.token(account, foreign=True, header={"kid": authority.kid})
        assert jws.extract_compact(foreign.encode()).headers()["kid"] not in {key.kid for key in keys}
        assert jws.extract_compact(forged.encode()).headers()["kid"] == authority.kid
        assert (await opened.introspect(good)).active
        authority.revoke(good)
        for token in (expired, foreign, forged, good):
            assert not (await opened.introspect(token)).active
        for token in (expired, foreign, forged, "x"):
            with pytest.raises(ValueError, match="no live token"):
                authority.revoke(token)


async def test_keys(authority: FakeAuthority) -> None:
    """A rotated key signs at once, what the old one signed stays good until that is revoked."""
    account, first = authority.account(), authority.kid
    async with client(authority, account) as opened:
        old = (await opened.issue_token()).access_token
        second = authority.rotate_key()
        assert authority.kid == second != first
        assert {key.kid for key in (await opened.json_web_key_set()).keys} == {first, second}
        assert (await opened.introspect(old)).active
        authority.revoke_key(first)
        assert not (await opened.introspect(old)).active
        authority.revoke_key(second)
        assert authority.kid not in (first, second)
        with pytest.raises(KeyError):
            authority.revoke_key(first)


# Accounts


async def test_what_happens_to_an_account(authority: FakeAuthority) -> None:
    """Suspended, active, out of secrets, deleted; named by itself, its id or its client_id."""
    account = authority.account()
    async with client(authority, account) as opened:
        authority.suspend(account)
        with pytest.raises(InvalidClient) as caught:
            await opened.issue_token()
        assert authority.denials[caught.value.denial_id] == f"account is suspended: {account.client_id}"
        authority.activate(account.id)
        assert await opened.issue_token()
        authority.expire_secret(account.client_id)
        with pytest.raises(InvalidClient):
            await opened.issue_token()
        authority.delete(account)
    with pytest.raises(IdentityError, match="no such account"):
        authority.suspend("nobody")
    assert account.client_secret not in repr(account)


async def test_a_rotated_secret(authority: FakeAuthority) -> None:
    """The old one lives on for the overlap, or dies at once; a token of before dies where that is asked for."""
    old = authority.account()
    new = authority.rotate_secret(old, overlap=timedelta(hours=1))
    token = authority.token(old)
    async with client(authority, old) as by_old, client(authority, new) as by_new:
        assert await by_old.issue_token()
        authority.clock.advance(timedelta(hours=1))
        with pytest.raises(InvalidClient):
            await by_old.issue_token()
        token = (await by_new.issue_token()).access_token
        newest = authority.rotate_secret(new, overlap=timedelta(0), revoke_tokens=True)
        with pytest.raises(InvalidClient):
            await by_new.issue_token()
        async with client(authority, newest) as by_newest:
            assert not (await by_newest.introspect(token)).active


# HTTP


def test_what_is_served_by_http() -> None:
    """The key set and the metadata where the issuer says they are, with an ETag, and nothing else."""
    with FakeAuthority(http=True) as authority:
        metadata = fetched(f"{authority.issuer}/.well-known/oauth-authorization-server")
        assert metadata["issuer"] == authority.issuer
        assert metadata["response_types_supported"] == []
        assert metadata["jwks_uri"] == authority.jwks_url
        assert [key["kid"] for key in fetched(authority.jwks_url)["keys"]] == [authority.kid]
        with urllib.request.urlopen(authority.jwks_url) as answer:
            headers = answer.headers
        assert headers["Cache-Control"] == "public, max-age=300"
        assert status(authority.jwks_url, {"If-None-Match": headers["ETag"]}) == 304
        authority.rotate_key()
        assert status(authority.jwks_url, {"If-None-Match": headers["ETag"]}) == 200
        assert status(f"{authority.issuer}/oauth2/token") == 404
        authority.down()
        assert status(authority.jwks_url) == 503
        assert authority.calls["/.well-known/jwks.json"] == 5
    with FakeAuthority() as silent, pytest.raises(RuntimeError, match="http=True"):
        assert silent.jwks_url


def test_revocations_by_http() -> None:
    """The cacheable list: signed by the key that signs tokens, under a `typ` that no access token has."""
    with FakeAuthority(http=True) as authority:
        account, other = authority.account(), authority.account()
        token = authority.token(account)
        authority.revoke(token)
        authority.suspend(other)
        with urllib.request.urlopen(f"{authority.issuer}/.well-known/revocations") as answer:
            text = answer.read().decode()
        decoded = jwt.decode(text, KeySet.import_key_set(fetched(authority.jwks_url)))
        assert decoded.header["typ"] == "revocations+jwt"
        assert decoded.claims["jtis"] == {claims_of(token)["jti"]: claims_of(token)["exp"]}
        assert decoded.claims["accounts"] == {other.id: "suspended"}
        with pytest.raises(BadToken):
            authority._parts.keyring.verify(text)


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.loads(answer.read())


def status(url: str, headers: dict[str, str] | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


# Threads


def test_many_callers_at_once() -> None:
    """One lock guards it all: a hundred threads that rotate, suspend and ask leave whole answers."""
    with FakeAuthority() as authority:
        accounts = [authority.account() for _ in range(8)]
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                account = authority.rotate_secret(accounts[number], overlap=timedelta(0))
                for _ in range(5):
                    authority.suspend(account)
                    authority.activate(account)
                    token = get_token(authority.target, account.client_id, account.client_secret)
                    authority.revoke(token)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS * 3)
        assert not failures
        assert len(authority._parts.trust.revoked()) == 40


# TLS


async def test_over_tls() -> None:
    """With a server's credentials it takes no plain text; credentials that are none leave nothing behind."""
    authority_of_names = trustme.CA()
    certificate = authority_of_names.issue_cert("127.0.0.1")
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    trusted = grpc.ssl_channel_credentials(authority_of_names.cert_pem.bytes())
    async with FakeAuthority(server_credentials=credentials) as authority:
        async with client(authority, authority.account(), channel_credentials=trusted) as opened:
            assert await opened.issue_token()
        async with Client(authority.target, timeout=timedelta(seconds=2)) as plain:
            with pytest.raises(Unavailable):
                await plain.server_metadata()
    with pytest.raises((TypeError, AttributeError)):
        FakeAuthority(http=True, server_credentials="none").__enter__()  # type: ignore[arg-type]
