"""Bytes straight into both ports: no answer is another tool's, none is a 500, and no connection stays open for ever."""

from __future__ import annotations

import base64
import json
import random
import time

import pytest

from tests.hostile import frames
from tests.hostile.sockets import (
    BODY,
    CHUNKED,
    FORM,
    HOST,
    LENGTH,
    LENGTH_4,
    SECONDS,
    SMUGGLED,
    answers,
    assert_ours,
    gateway,
    post,
    said,
)
from tests.hostile.victim import Victim

MALFORMED = {
    "length and chunks": post(HOST, FORM, LENGTH_4, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": post(HOST, FORM, CHUNKED, LENGTH_4, body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(HOST, FORM, b"Content-Length: 29\r\nContent-Length: 0\r\n", body=BODY + SMUGGLED),
    "two equal lengths": post(HOST, FORM, b"Content-Length: 29\r\nContent-Length: 29\r\n"),
    "list of lengths": post(HOST, FORM, b"Content-Length: 29, 29\r\n"),
    "negative length": post(HOST, FORM, b"Content-Length: -1\r\n"),
    "signed length": post(HOST, FORM, b"Content-Length: +29\r\n"),
    "length with a space": post(HOST, FORM, b"Content-Length: 2 9\r\n"),
    "hexadecimal length": post(HOST, FORM, b"Content-Length: 0x1d\r\n"),
    "length of 5,000 digits": post(HOST, FORM, b"Content-Length: " + b"9" * 5000 + b"\r\n"),
    "length past 64 bits": post(HOST, FORM, b"Content-Length: 18446744073709551616\r\n"),
    "space before colon": post(HOST, FORM, b"Content-Length : 29\r\n"),
    "folded header": post(HOST, FORM, b"Content-Length:\r\n 29\r\n"),
    "bare CR in a header": post(HOST, FORM, b"X: a\rb\r\n"),
    "NUL in a header": post(HOST, FORM, b"X: a\0b\r\n"),
    "NUL in a name": post(HOST, FORM, b"X\0: a\r\n"),
    "no name": post(HOST, FORM, b": a\r\n"),
    "no colon": post(HOST, FORM, b"nothing\r\n"),
    "chunk garbage": post(HOST, FORM, CHUNKED, body=b"zz\r\n"),
    "chunk past 64 bits": post(HOST, FORM, CHUNKED, body=b"fffffffffffffffff\r\n"),
    "negative chunk": post(HOST, FORM, CHUNKED, body=b"-1\r\n"),
    "chunk without its end": post(HOST, FORM, CHUNKED, body=b"1\r\naXX0\r\n\r\n"),
    "unknown coding": post(HOST, FORM, b"Transfer-Encoding: chonked\r\n", body=b"0\r\n\r\n"),
    "chunked not last": post(HOST, FORM, b"Transfer-Encoding: chunked, gzip\r\n", body=b"0\r\n\r\n"),
    "chunked twice": post(HOST, FORM, b"Transfer-Encoding: chunked, chunked\r\n", body=b"0\r\n\r\n"),
    "huge header": post(HOST, FORM, b"X: " + b"a" * 200_000 + b"\r\n"),
    "many headers": post(HOST, FORM, b"X: a\r\n" * 20_000),
    "huge path": post(HOST, FORM, path=b"/" + b"a" * 200_000),
    "no path": b"GET  HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/3": b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
    "no version": b"GET / \r\nHost: a\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"NOPE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "HTTP/2": frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "newlines": b"\r\n" * 40_000,
    "garbage": random.Random(0).randbytes(5000),
}  # fmt: skip
"""What no HTTP/1.1 server may take (RFC 9112 §2.2, §5.1, §6, §7.1), by what is wrong with it."""


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http(victim: Victim, name: str) -> None:
    """At most one answer, a refusal of ours, and the connection closes: nothing after it is taken for a request."""
    found = answers(said(gateway(victim), MALFORMED[name], ends=True))
    for response in found:
        assert_ours(response)
    assert len(found) <= 1
    assert not found or 400 <= found[0][0] < 500, found


STRANGE = {
    "no host": post(FORM, LENGTH),
    "two hosts": post(HOST, HOST, FORM, LENGTH),
    "empty host": post(b"Host:\r\n", FORM, LENGTH),
    "hostile host": post(b"Host: a/../b?c#d@e\r\n", FORM, LENGTH),
    "absolute form": post(HOST, FORM, LENGTH, path=b"http://evil.test/oauth2/token"),
    "absolute form without a path": post(HOST, FORM, LENGTH, path=b"http://evil.test"),
    "authority form": b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "no slash": post(HOST, FORM, LENGTH, path=b"oauth2/token"),
    "two slashes": post(HOST, FORM, LENGTH, path=b"//oauth2/token"),
    "dots": post(HOST, FORM, LENGTH, path=b"/oauth2/../oauth2/token"),
    "escaped slash": post(HOST, FORM, LENGTH, path=b"/oauth2%2ftoken"),
    "escaped NUL": post(HOST, FORM, LENGTH, path=b"/api/v1/service-accounts/%00"),
    "bad UTF-8": post(HOST, FORM, LENGTH, path=b"/api/v1/service-accounts/%ff"),
    "broken escape": post(HOST, FORM, LENGTH, path=b"/api/v1/service-accounts/%zz"),
    "raw bytes": post(HOST, FORM, LENGTH, path=b"/\xff\xfe"),
    "broken query": post(HOST, FORM, LENGTH, path=b"/oauth2/token?%zz=%ff&&&="),
    "HTTP/1.0": post(FORM, LENGTH, version=b"HTTP/1.0"),
    "no body": post(HOST, FORM, body=b""),
    "expects": post(HOST, FORM, b"Expect: 100-continue\r\nContent-Length: 29\r\n"),
    "expects the impossible": post(HOST, FORM, b"Expect: 200-ok\r\nContent-Length: 29\r\n"),
    "upgrade": post(HOST, FORM, b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 29\r\n"),
    "h2c": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n",
    "compressed": post(HOST, FORM, b"Content-Encoding: gzip\r\nContent-Length: 29\r\n"),
    "bad charset": post(HOST, FORM.replace(b"ed\r", b"ed; charset=utf-7\r"), LENGTH),
    "bad media type": post(HOST, b"Content-Type: \xff/\xfe;;;=\r\nContent-Length: 29\r\n"),
    "trailers": post(HOST, FORM, CHUNKED, b"Trailer: Host\r\n", body=b"0\r\nHost: b\r\n\r\n"),
    "chunk extensions": post(HOST, FORM, CHUNKED, body=b"1;a=b\r\na\r\n0\r\n\r\n"),
    "method override": post(HOST, FORM, b"X-HTTP-Method-Override: DELETE\r\nContent-Length: 29\r\n"),
    "TRACE": b"TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\n",
    "HEAD": b"HEAD /oauth2/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
}  # fmt: skip
"""What is well-formed, or nearly, and still not a request for a token."""


@pytest.mark.parametrize("name", STRANGE)
def test_strange_http(victim: Victim, name: str) -> None:
    """One answer, ours."""
    data = said(gateway(victim), STRANGE[name]).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if name == "HEAD":
        data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        data = data.replace(b"content-length", b"x-length")
        assert data.startswith(b"HTTP/1.1 405 ")
        return
    (found,) = answers(data)
    assert_ours(found)
    assert b"secret" not in found[2]


PATHS = (b"/oauth2/token", b"/api/v1/auth/token", b"/oauth2/introspect", b"/oauth2/revoke", b"/api/v1/service-accounts")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [65_537, 3_000_000, 5_000_000])
def test_large_body(victim: Victim, path: bytes, size: int) -> None:
    """A body past the bound is 413 in the endpoint's dialect, whether its length was told or not."""
    told = post(HOST, FORM, b"Content-Length: %d\r\n" % size, body=b"a" * size, path=path)
    ((status, headers, body),) = answers(said(gateway(victim), told))
    assert status == 413
    assert_ours((status, headers, body))
    untold = post(HOST, FORM, CHUNKED, path=path, body=b"%x\r\n" % size + b"a" * size)
    for response in answers(said(gateway(victim), untold)):
        assert response[0] == 413


def random_requests(seed: int) -> list[bytes]:
    """Valid requests with some bytes changed, and bodies of bytes."""
    chance = random.Random(seed)
    made = []
    for _ in range(40):
        body = chance.randbytes(chance.randrange(60))
        kind = chance.choice([FORM, b"Content-Type: application/json\r\n"])
        length = b"Connection: close\r\nContent-Length: %d\r\n" % len(body)
        data = bytearray(post(HOST, kind, length, body=body, path=chance.choice(PATHS)))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        made.append(bytes(data))
    return made


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))])
def test_fuzzed_http(victim: Victim, seed: int) -> None:
    """Damaged requests and bodies of bytes are refused by us."""
    for data in random_requests(seed):
        for response in answers(said(gateway(victim), data, ends=True))[:1]:
            assert_ours(response)


JSON_BODIES = {
    "depth": b"[" * 30_000,
    "nested objects": b'{"name":' * 8_000,
    "huge integer": b'{"rate_limit":' + b"9" * 10_000 + b"}",
    "huge exponent": b'{"rate_limit":1e999}',
    "NaN": b'{"rate_limit":NaN}',
    "fraction": b'{"rate_limit":1.5}',
    "integer past 32 bits": b'{"rate_limit":2147483648}',
    "lone surrogate": rb'{"name":"\ud800"}',
    "surrogate in a name": rb'{"\ud800":1}',
    "NUL": rb'{"name":"a\u0000b"}',
    "bad UTF-8": b'{"name":"\xff"}',
    "byte order mark": b'\xef\xbb\xbf{"name":"a"}',
    "UTF-16": '{"name":"a"}'.encode("utf-16"),
    "twice": b'{"name":"abc","name":"abd"}',
    "unknown member": b'{"__proto__":{}}',
    "wrong types": b'{"name":[],"role":{},"rate_limit":"a","scopes":"a","audiences":[1,null,{}]}',
    "unknown role": b'{"name":"abc","role":"root"}',
    "number for role": b'{"name":"abc","role":1}',
    "times": b'{"name":"abc","role":"user","create_time":"0000-00-00T00:00:00Z"}',
    "time out of range": b'{"name":"abc","role":"user","create_time":"9999-12-31T23:59:60Z"}',
    "ten thousand scopes": json.dumps({"name": "abc", "role": "user", "scopes": ["a"] * 10_000}).encode(),
    "a list": b"[]",
    "nothing": b"null",
    "empty": b"",
}
"""Bodies for the API's routes, by what is wrong with them."""


@pytest.mark.parametrize("name", JSON_BODIES)
def test_hostile_json(victim: Victim, name: str) -> None:
    """JSON that is broken, or means nothing, is a 400 of ours, to one who may do everything."""
    body = JSON_BODIES[name]
    bearer = f"Authorization: {dict(victim.bearer)['authorization']}\r\n".encode()
    headers = (HOST, bearer, b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body))
    for path in (b"/api/v1/service-accounts", f"/api/v1/service-accounts/{victim.target.id}/rotate-secret".encode()):
        (found,) = answers(said(gateway(victim), post(*headers, body=body, path=path)))
        assert_ours(found)
        if path.endswith(b"accounts"):
            assert found[0] == 400


QUERIES = ["page_size=-1", "page_size=9999999999", "page_size=a", "page_size=%00", "page_token=%ff", "page_token=x",
           "filter=%00", "filter=" + "a" * 5000, "show_deleted=maybe", "nope=1", "page_size=1&page_size=2", "&" * 200,
           "page.size=1", "filter.x=1", "=", "%", "page_size=" + "9" * 5000]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_hostile_query(victim: Victim, query: str) -> None:
    """A query that can't be read is a 400 of ours."""
    bearer = f"Authorization: {dict(victim.bearer)['authorization']}\r\n".encode()
    path = b"/api/v1/service-accounts?" + query.encode()
    (found,) = answers(said(gateway(victim), b"GET " + path + b" HTTP/1.1\r\n" + HOST + bearer + b"\r\n"))
    assert_ours(found)
    assert found[0] == 400 or not query.strip("&")


def test_hostile_basic_over_http(victim: Victim) -> None:
    """Credentials of bytes are refused in the token endpoint's dialect."""
    for text in (b"\xff:\xff", b"a\0:b", b"%zz:b", b":", b"a" * 3000 + b":b"):
        value = b"Authorization: Basic " + base64.b64encode(text) + b"\r\n"
        request = post(HOST, FORM, value, LENGTH)
        ((status, headers, body),) = answers(said(gateway(victim), request))
        assert status in (400, 401)
        assert json.loads(body)["error"] in ("invalid_request", "invalid_client")
        assert headers["cache-control"] == "no-store"


OPENED = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)
GRPC_GARBAGE = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": MALFORMED["TLS"],
    "garbage": MALFORMED["garbage"],
    "nothing": b"",
    "half a preface": frames.PREFACE[:10],
    "preface and garbage": frames.PREFACE + random.Random(1).randbytes(5000),
    "huge frame": frames.PREFACE + b"\xff\xff\xff" + b"\0" * 6,
    "data on stream 0": OPENED + frames.frame(frames.DATA, 0, 0, b"a"),
    "even stream": OPENED + frames.frame(frames.HEADERS, 4, 2, b"\x82"),
    "bad HPACK": OPENED + frames.frame(frames.HEADERS, 5, 1, b"\xff" * 50),
}  # fmt: skip


@pytest.mark.parametrize("name", GRPC_GARBAGE)
def test_garbage_on_the_grpc_port(victim: Victim, name: str) -> None:
    """What isn't HTTP/2 is hung up on, in bounded time."""
    began = time.monotonic()
    said(victim.installation.started.grpc_address.port, GRPC_GARBAGE[name], ends=True)
    assert time.monotonic() - began < SECONDS
