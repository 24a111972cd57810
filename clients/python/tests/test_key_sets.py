"""Key sets, from where they really come: a web server, by TLS too, a gRPC server; asked from threads and asyncio."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.message import Message
from typing import Any

import grpc
import pytest
import trustme
from artstore.identity import (
    Client,
    GrpcKeys,
    IssuerKeys,
    KeySet,
    KeySetError,
    KeysUnavailable,
    TokenVerifier,
    UnknownKey,
    UrlKeys,
)
from artstore.identity.key_sets import Flight
from artstore.identity.key_sources import METADATA_PATH, kept_for
from artstore.identity.v1 import token_service_pb2 as pb
from artstore.identity.verification_keys import VerificationKey
from canned import Canned, Refused
from issuer import AUDIENCE, ISSUER, Hands, Source, document, oct_key, pair, public, token
from web import Web, answer, cut_off, dripping, endless, jsons, silent, tagged, web

PATH = "/.well-known/jwks.json"
REAL, OTHER = pair(), pair("RS256", 1)
SHORT = timedelta(seconds=0.4)


@pytest.fixture
def site() -> Iterator[Web]:
    with web() as server:
        yield server


def found(keys: KeySet, kid: str) -> VerificationKey:
    """The key, waiting for what must be waited for."""
    while isinstance(looked := keys.look(kid), Flight):
        if not looked.wait():
            raise KeysUnavailable("It does not answer in time.")
    return looked


def at(site: Web, **options: Any) -> UrlKeys:
    return UrlKeys(site.url + PATH, **options)


# --- from a web server ---


def test_a_set_is_had_once_and_kept(site: Web) -> None:
    """A hundred tokens make one request."""
    site.replies[PATH] = jsons(document(REAL), Cache_Control="max-age=60")
    made = TokenVerifier(ISSUER, audience=AUDIENCE, keys=at(site), clock=Hands().wall)
    for _ in range(100):
        assert made.verify_sync(token())
    assert len(site.requests) == 1


def test_an_unchanged_set_is_not_sent_again(site: Web) -> None:
    """If-None-Match, and 304 means that it holds for as long as that answer says."""
    hands = Hands()
    site.replies[PATH] = tagged(document(REAL), '"one"')
    keys = KeySet(at(site), clock=hands.steady)
    first = found(keys, REAL.kid)
    hands.advance(61)
    assert found(keys, REAL.kid) is first
    assert site.requests[1][1]["If-None-Match"] == '"one"'
    hands.advance(400)
    assert found(keys, REAL.kid) is first
    assert len(site.requests) == 2


def test_the_etag_of_a_bad_set_is_not_kept(site: Web) -> None:
    """Else a 304 would make it the good one."""
    hands = Hands()
    site.replies[PATH] = jsons(document(oct_key()), ETag='"bad"')
    keys = KeySet(at(site), clock=hands.steady)
    with pytest.raises(KeysUnavailable, match="holds no key"):
        found(keys, REAL.kid)
    hands.advance(60)
    site.replies[PATH] = jsons(document(REAL))
    assert found(keys, REAL.kid).kid == REAL.kid
    assert "If-None-Match" not in site.requests[1][1]


BAD: dict[str, tuple[Any, str, str]] = {
    "HTML": (answer(200, b"<!DOCTYPE html><title>Sign in</title>"), "NOT_JSON", "HTML"),
    "empty": (answer(200, b""), "NOT_JSON", "empty"),
    "blank": (answer(200, b" \n"), "NOT_JSON", "empty"),
    "binary": (answer(200, b"\xff\xfe\x00"), "NOT_JSON", "no JSON"),
    "half of it": (answer(200, json.dumps(document(REAL)).encode()[:-2]), "NOT_JSON", "no JSON"),
    "deep": (answer(200, b"[" * 100_000), "NOT_JSON", "no JSON"),
    "5 MB": (answer(200, b'{"keys": [' + b" " * 5_000_000 + b"]}"), "TOO_BIG", "no key set"),
    "without an end": (endless, "TOO_BIG", "no key set"),
    "cut off": (cut_off, "UNREACHABLE", "does not answer"),
    "a list": (jsons([]), "NOT_A_KEY_SET", "JSON object"),
    "404": (answer(404, b"{}"), "HTTP_STATUS", "404"),
    "500": (answer(500, json.dumps(document(REAL)).encode()), "HTTP_STATUS", "500"),
    "204": (answer(204, b""), "HTTP_STATUS", "204"),
    "206": (answer(206, json.dumps(document(REAL)).encode()), "HTTP_STATUS", "206"),
    "304 that nobody asked for": (answer(304, b""), "REDIRECTED", "304"),
    "elsewhere": (answer(302, b"", Location="http://127.0.0.1:1/keys"), "REDIRECTED", "give that URL"),
    "elsewhere for good": (answer(308, b"", Location="https://evil.test/"), "REDIRECTED", "evil.test"),
    "headers without an end": (
        answer(200, b"{}", **{f"x{number}": "y" for number in range(200)}),
        "UNREACHABLE",
        "headers",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_a_web_server_may_send(site: Web, what: str) -> None:
    """A clear exception that says what to do; no token is accepted, and none was to be; then the server is mended."""
    reply, reason, said = BAD[what]
    site.replies[PATH] = reply
    hands = Hands()
    keys = KeySet(at(site), clock=hands.steady)
    made = TokenVerifier(ISSUER, audience=AUDIENCE, keys=keys, clock=hands.wall, steady=hands.steady)
    with pytest.raises(KeysUnavailable, match=said) as caught:
        made.verify_sync(token())
    assert isinstance(caught.value.__cause__, KeySetError)
    assert caught.value.__cause__.reason == reason
    site.replies[PATH] = jsons(document(REAL))
    hands.advance(1)
    assert made.verify_sync(token())


def test_nobody_follows_a_redirect(site: Web) -> None:
    """Not even to the same server, where a good set is: the keys come from where they were said to be."""
    site.replies[PATH] = answer(302, b"", Location=site.url + "/other")
    site.replies["/other"] = jsons(document(REAL))
    with pytest.raises(KeysUnavailable, match="redirects"):
        found(KeySet(at(site)), REAL.kid)
    assert [path for path, _ in site.requests] == [PATH]


@pytest.mark.parametrize("reply", [dripping, silent])
def test_a_slow_server_holds_nobody_up(site: Web, reply: Any) -> None:
    """A byte now and then or none at all: the whole answer has one timeout."""
    site.replies[PATH] = reply
    with pytest.raises(KeysUnavailable, match="does not answer"):
        found(KeySet(at(site), timeout=SHORT), REAL.kid)


def test_nobody_is_there(site: Web) -> None:
    """Refused connections are told as such."""
    url = site.url.replace(str(site.server_port), "1")
    with pytest.raises(KeysUnavailable, match="check the URL, the network"):
        found(KeySet(UrlKeys(url)), REAL.kid)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Cache-Control": "max-age=60"}, 60),
        ({"Cache-Control": "public, Max-Age=60, must-revalidate"}, 60),
        ({"Cache-Control": 'max-age="60"'}, 60),
        ({"Cache-Control": "max-age=60", "Age": "50"}, 10),
        ({"Cache-Control": "max-age=60", "Age": "500"}, 0),
        ({"Cache-Control": "max-age=60, no-store"}, 0),
        ({"Cache-Control": "no-cache"}, 0),
        ({"Cache-Control": "max-age=-1"}, 0),
        ({"Cache-Control": "max-age=" + "9" * 400}, 0),
        ({"Cache-Control": "max-age=soon"}, 0),
        ({"Cache-Control": "private"}, None),
        ({}, None),
    ],
)
def test_how_long_an_answer_may_be_kept(headers: dict[str, str], seconds: float | None) -> None:
    """RFC 9111 §4.2; what can't be understood is not kept longer for it."""
    message = Message()
    for name, value in headers.items():
        message[name] = value
    assert kept_for(message) == seconds


@pytest.mark.parametrize(
    "url",
    [
        "http://identity.example/jwks.json",
        "ftp://127.0.0.1/",
        "https://",
        "https://user:secret@identity.example/",
        "https://identity.example/#here",
        "https://identity.example:none/",
        "https://identity.example/a b",
        "https://identity.example/a\r\nHost: b",
        "file:///etc/passwd",
        "",
    ],
)
def test_urls_that_keys_may_not_come_from(url: str) -> None:
    """Plain http only from this machine, unless the network is said to be trusted; and nothing odd at all."""
    with pytest.raises(ValueError, match=r"https|port|Port|characters"):
        UrlKeys(url)
    assert UrlKeys("http://identity.example/jwks.json", plaintext=True)
    assert UrlKeys("http://[::1]:80/jwks.json")


# --- by TLS ---


def test_certificates_are_checked() -> None:
    """Who has no certificate of a trusted authority gives no keys."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with web(context) as site:
        site.replies[PATH] = jsons(document(REAL))
        with pytest.raises(KeysUnavailable, match="certificate"):
            found(KeySet(at(site)), REAL.kid)
        assert found(KeySet(at(site, ssl_context=trusted)), REAL.kid).kid == REAL.kid


# --- by an issuer's metadata ---


def test_an_issuer_names_its_keys(site: Web) -> None:
    """RFC 8414 §3: asked once, then only the keys; an issuer with a path has its metadata before it."""
    hands = Hands()
    for path in ("", "/tenant"):
        issuer = site.url + path
        site.replies[METADATA_PATH + path] = jsons({"issuer": issuer, "jwks_uri": site.url + "/keys"})
        site.replies["/keys"] = jsons(document(REAL))
        site.requests.clear()
        keys = KeySet(IssuerKeys(issuer), clock=hands.steady)
        assert found(keys, REAL.kid)
        hands.advance(301)
        assert found(keys, REAL.kid)
        assert [each for each, _ in site.requests] == [METADATA_PATH + path, "/keys", "/keys"]


def test_after_a_failure_the_metadata_are_asked_again(site: Web) -> None:
    """The keys may have moved."""
    hands = Hands()
    site.replies[METADATA_PATH] = jsons({"issuer": site.url, "jwks_uri": site.url + "/old"})
    site.replies["/old"] = jsons(document(REAL))
    keys = KeySet(IssuerKeys(site.url), clock=hands.steady)
    assert found(keys, REAL.kid)
    del site.replies["/old"]
    site.replies[METADATA_PATH] = jsons({"issuer": site.url, "jwks_uri": site.url + "/new"})
    site.replies["/new"] = jsons(document(OTHER))
    hands.advance(301)
    assert found(keys, REAL.kid), "it fails once, and the old set holds"
    hands.advance(2)
    assert found(keys, REAL.kid), "asked again, and nobody waits for it"
    assert found(keys, OTHER.kid)
    with pytest.raises(UnknownKey):
        found(keys, REAL.kid)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"issuer": "https://other.test", "jwks_uri": "{}/keys"}, "WRONG_ISSUER"),
        ({"issuer": "{}/", "jwks_uri": "{}/keys"}, "WRONG_ISSUER"),
        ({"jwks_uri": "{}/keys"}, "WRONG_ISSUER"),
        ([], "WRONG_ISSUER"),
        ({"issuer": "{}"}, "NO_JWKS_URI"),
        ({"issuer": "{}", "jwks_uri": "file:///etc/passwd"}, "NO_JWKS_URI"),
        ({"issuer": "{}", "jwks_uri": "http://elsewhere.test/keys"}, "NO_JWKS_URI"),
        ({"issuer": "{}", "jwks_uri": 5}, "NO_JWKS_URI"),
    ],
)
def test_metadata_of_another_issuer(site: Web, metadata: Any, reason: str) -> None:
    """RFC 8414 §3.3: it must be the issuer that was asked for, letter by letter; else its keys aren't asked for."""
    site.replies["/keys"] = jsons(document(REAL))
    site.replies[METADATA_PATH] = jsons(json.loads(json.dumps(metadata).replace("{}", site.url)))
    with pytest.raises(KeysUnavailable) as caught:
        found(KeySet(IssuerKeys(site.url)), REAL.kid)
    assert isinstance(caught.value.__cause__, KeySetError)
    assert caught.value.__cause__.reason == reason
    assert [path for path, _ in site.requests] == [METADATA_PATH]


# --- over gRPC ---


async def test_over_grpc(server: Canned) -> None:
    """By a target, or a client; the set's `max_age` is its own."""
    server.answers["GetJsonWebKeySet"] = lambda _: pb.GetJsonWebKeySetResponse(
        keys=[pb.JsonWebKey(**public(REAL))], max_age={"seconds": 30}
    )
    hands = Hands()
    async with Client(server.target) as client:
        for keys in (server.target, client, GrpcKeys(server.target)):
            made = TokenVerifier(ISSUER, audience=AUDIENCE, keys=keys, clock=hands.wall)
            assert await made.verify(token())
    fetched = await asyncio.to_thread(GrpcKeys(server.target).fetch, "", 5.0)
    assert fetched.max_age == 30
    assert fetched.document == document(REAL)


async def test_grpc_that_does_not_answer(server: Canned) -> None:
    """UNAVAILABLE, or nobody there: what to check is said."""

    def down(_: Any) -> Any:
        raise Refused(grpc.StatusCode.UNAVAILABLE)

    server.answers["GetJsonWebKeySet"] = down
    for target in (server.target, "127.0.0.1:1"):
        made = TokenVerifier(ISSUER, audience=AUDIENCE, keys=target, clock=Hands().wall)
        with pytest.raises(KeysUnavailable, match="check the target"):
            await made.verify(token())


# --- who waits for whom ---


async def test_one_flight_for_all() -> None:
    """A thousand tasks and eight threads at once: one request; who is cancelled takes nobody with it."""
    source = Source()
    source.gate = threading.Event()
    made = TokenVerifier(ISSUER, audience=AUDIENCE, keys=KeySet(source), clock=Hands().wall)
    tasks = [asyncio.create_task(made.verify(token())) for _ in range(1000)]
    with ThreadPoolExecutor(8) as pool:
        threads = [pool.submit(made.verify_sync, token()) for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.to_thread(source.begun.wait, 10)
        for task in tasks[:500]:
            task.cancel()
        await asyncio.sleep(0)
        source.gate.set()
        assert all([await task for task in tasks[500:]])
        assert all(each.result(10) for each in threads)
    assert all(task.cancelled() for task in tasks[:500])
    assert source.fetched == 1


async def test_nobody_waits_longer_than_the_timeout() -> None:
    """A source that hangs: each caller gets its exception; after a while another request is tried."""
    source, hands = Source(), Hands()
    source.gate = threading.Event()
    keys = KeySet(source, timeout=timedelta(seconds=0.05), clock=hands.steady)
    made = TokenVerifier(ISSUER, audience=AUDIENCE, keys=keys, clock=hands.wall)
    for verify in (made.verify, lambda sent: asyncio.to_thread(made.verify_sync, sent)):
        with pytest.raises(KeysUnavailable, match="in time"):
            await verify(token())
    assert source.fetched == 1
    hands.advance(10)
    with pytest.raises(KeysUnavailable):
        await made.verify(token())
    source.gate.set()
    hands.advance(10)
    assert await made.verify(token())
    assert source.fetched == 2


async def test_a_source_that_fails_in_its_own_way() -> None:
    """Whatever it raises, those who wait are told."""
    source = Source()
    source.answer = ZeroDivisionError("oh")
    with pytest.raises(KeysUnavailable, match="ZeroDivisionError") as caught:
        await TokenVerifier(ISSUER, audience=AUDIENCE, keys=source, clock=Hands().wall).verify(token())
    assert isinstance(caught.value.__cause__, KeySetError)


@pytest.mark.parametrize("wrong", [{"timeout": timedelta(0)}, {"stale_if_error": timedelta(seconds=-1)}])
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    """Refused when it is made."""
    with pytest.raises(ValueError, match="must be positive"):
        KeySet(Source(), **wrong)
