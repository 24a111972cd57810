"""A webhook: signed as Standard Webhooks has it, over TLS that is verified, one attempt that never lasts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from artstore_grpc.errors import InvalidRequest
from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.webhook import WebhookSink, signature
from tests.https import Answer, HttpsServer, Request, Response
from tests.sinks.deliveries import NOW, assert_silent, delivery, failing, file_of, now

KEY, OTHER = os.urandom(32), os.urandom(64)
KEY_TEXT = base64.b64encode(KEY).decode()
SECOND = timedelta(seconds=1)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "webhook.key"
    path.write_text(f"whsec_{KEY_TEXT}\n")
    return path


class Receiver:
    """A receiver and a sink that is set up for it."""

    def __init__(self, server: HttpsServer, key_file: Path, trusted: Path | None, **options: Any) -> None:
        self.server = server
        self.sink = WebhookSink(f"{server.url}/secrets?tenant=7", key_file, now=now, ca_file=trusted, **options)


@contextmanager
def receiver(answer: Answer, ca: trustme.CA, key: Path, trusted: Path | None, **options: Any) -> Iterator[Receiver]:
    with HttpsServer(answer, ca) as server:
        yield Receiver(server, key, trusted, **options)


def write(path: Path, content: str | None) -> None:
    """Replaces a file; None removes it."""
    path.unlink()
    if content is not None:
        path.write_text(content)


def always(status: int, **headers: str) -> Answer:
    return lambda request: Response(status, {name.replace("_", "-"): value for name, value in headers.items()})


def verified(request: Request, key: bytes) -> bool:
    """As a receiver would: any of the signatures, over id, time and the body as it came."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    mine = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = [each.split(",", 1) for each in request.headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(value, mine) for version, value in given)


def test_the_specifications_own_vector() -> None:
    """The example of Standard Webhooks' own libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_what_is_sent(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """One POST to the very URL: the event, the account, the client's file; three headers that verify."""
    sent = delivery()
    with receiver(always(204), ca, key_file, trusted) as there:
        await there.sink.deliver(sent)
        await there.sink.close()
        (request,) = there.server.requests
    assert (request.method, request.path) == ("POST", "/secrets?tenant=7")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"secret_{sent.secret_id}"
    assert request.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert json.loads(request.body) == {
        "type": "service_account.secret_rotated",
        "data": {"account_id": sent.account_id, "secret_id": sent.secret_id, "credentials": file_of(sent)},
    }
    assert verified(request, KEY)
    assert not verified(request, OTHER)
    assert not verified(Request("POST", "/", request.headers | {"webhook-id": "secret_x"}, request.body), KEY)
    assert not verified(Request("POST", "/", request.headers | {"webhook-timestamp": "0"}, request.body), KEY)
    assert not verified(Request("POST", "/", request.headers, request.body + b" "), KEY)


async def test_an_attempt_after_an_attempt(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """The receiver failed once: the next attempt has the same id and body, by which it acts once, and a fresh time."""
    answers = iter([Response(500), Response(200)])
    sent, times = delivery(), itertools.count()
    with receiver(lambda request: next(answers), ca, key_file, trusted) as there:
        sink = WebhookSink(there.server.url, key_file, now=lambda: NOW + next(times) * SECOND, ca_file=trusted)
        with failing(sent, says="500"):
            await sink.deliver(sent)
        await sink.deliver(sent)
        first, second = there.server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]
    assert verified(first, KEY)
    assert verified(second, KEY)
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


async def test_keys_change_without_a_restart(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """With two keys in the file each signs, so that receivers may know either; then the old one goes."""
    new = base64.b64encode(OTHER).decode()
    with receiver(always(200), ca, key_file, trusted) as there:
        write(key_file, f"whsec_{KEY_TEXT}\n{new}\n")
        await there.sink.deliver(delivery())
        write(key_file, new)
        await there.sink.deliver(delivery())
        write(key_file, None)
        sent = delivery()
        with failing(sent, says="must hold a key"):
            await there.sink.deliver(sent)
        both, last = there.server.requests
    assert verified(both, KEY)
    assert verified(both, OTHER)
    assert not verified(last, KEY)
    assert verified(last, OTHER)


ANSWERS: list[tuple[int, dict[str, str], bool, timedelta | None]] = [
    (500, {}, False, None),
    (502, {}, False, None),
    (503, {"retry-after": "120"}, False, 120 * SECOND),
    (503, {"retry-after": "Wed, 04 Mar 2026 05:07:07 GMT"}, False, timedelta(seconds=59.11)),
    (503, {"retry-after": "Wed, 04 Mar 2020 05:07:07 GMT"}, False, timedelta(0)),
    (503, {"retry-after": "Wed, 04 Mar 2099 05:07:07 GMT"}, False, timedelta(days=1)),
    (429, {"retry-after": "999999999"}, False, timedelta(days=1)),
    (429, {"retry-after": "0"}, False, timedelta(0)),
    (429, {"retry-after": "-1"}, False, None),
    (429, {"retry-after": "soon"}, False, None),
    (429, {"retry-after": "Wed, 04 Mar 99999999999999999999 05:07:07 GMT"}, False, None),
    (408, {}, False, None),
    (409, {}, False, None),
    (425, {}, False, None),
    (400, {}, True, None),
    (401, {}, True, None),
    (403, {}, True, None),
    (404, {}, True, None),
    (410, {}, True, None),
    (413, {"retry-after": "60"}, True, 60 * SECOND),
    (304, {}, True, None),
]


@pytest.mark.parametrize(("status", "headers", "permanent", "after"), ANSWERS, ids=str)
async def test_answers_that_are_no_success(
    ca: trustme.CA, key_file: Path, trusted: Path, status: int, headers: dict[str, str], permanent: bool, after: Any
) -> None:
    """Whether another attempt may help, and when the receiver asks for it; one attempt is all that was made."""
    sent = delivery()
    with receiver(lambda request: Response(status, headers, request.body), ca, key_file, trusted) as there:
        with failing(sent, permanent=permanent, retry_after=after, says=str(status)):
            await there.sink.deliver(sent)
        assert len(there.server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(ca: trustme.CA, key_file: Path, trusted: Path, status: int) -> None:
    """A secret goes where the settings say and nowhere else."""
    sent = delivery()
    with HttpsServer(always(200), ca) as elsewhere:
        redirecting = receiver(always(status, location=elsewhere.url), ca, key_file, trusted)
        with redirecting as there, failing(sent, permanent=True, says=str(status)):
            await there.sink.deliver(sent)
        assert not elsewhere.requests


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_successes(ca: trustme.CA, key_file: Path, trusted: Path, status: int) -> None:
    with receiver(always(status), ca, key_file, trusted) as there:
        await there.sink.deliver(delivery())


async def test_a_stranger_with_a_certificate(key_file: Path, trusted: Path) -> None:
    """A server whose certificate another authority signed is told nothing."""
    sent = delivery()
    with receiver(always(200), trustme.CA(), key_file, trusted) as there:
        with failing(sent, says="its certificate is not accepted"):
            await there.sink.deliver(sent)
        assert not there.server.requests


async def test_the_systems_authorities(ca: trustme.CA, key_file: Path) -> None:
    """Without a ca_file the system's authorities decide, and they don't know ours."""
    sent = delivery()
    with receiver(always(200), ca, key_file, None) as there:
        with failing(sent, says="its certificate is not accepted"):
            await there.sink.deliver(sent)
        assert not there.server.requests


async def test_another_name(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """A certificate of the right authority for another host isn't accepted either."""
    sent = delivery()
    with HttpsServer(always(200), ca) as server:
        server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("hooks.example").configure_cert(server.context)
        sink = WebhookSink(server.url, key_file, now=now, ca_file=trusted)
        with failing(sent, says="not accepted"):
            await sink.deliver(sent)
        assert not server.requests


async def test_plain_text_behind_https(key_file: Path, trusted: Path) -> None:
    """A server that doesn't speak TLS is told nothing; the failure says what failed."""
    sent, heard = delivery(), []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(3))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with failing(sent, says="TLS failed"):
            await WebhookSink(f"https://127.0.0.1:{port}", key_file, now=now, ca_file=trusted).deliver(sent)
    assert heard == [b"\x16\x03\x01"]  # a TLS handshake, RFC 8446 §5.1


async def test_nobody_there(key_file: Path, trusted: Path) -> None:
    sent = delivery()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        url = f"https://127.0.0.1:{taken.getsockname()[1]}"
        with failing(sent, says="the connection failed"):
            await WebhookSink(url, key_file, now=now, ca_file=trusted).deliver(sent)


@pytest.mark.parametrize("silence", ["answer", "drip"])
async def test_a_slow_server(ca: trustme.CA, key_file: Path, trusted: Path, silence: str) -> None:
    """No answer, or a header a moment for ever: the attempt ends when its time is over."""

    def slow(request: Request) -> Response:
        there.server.closing.wait(30)
        return Response(200)

    sent = delivery()
    with receiver(slow, ca, key_file, trusted, timeout=SECOND) as there:
        if silence == "drip":
            there.server.finish_request = dripping(there.server)  # type: ignore[method-assign]
        began = time.monotonic()
        with failing(sent, says="didn't answer within 1 s"):
            await there.sink.deliver(sent)
        assert time.monotonic() - began < 10


def dripping(server: HttpsServer) -> Any:
    """Answers with a header after another, each within any timeout between bytes."""

    def finish(request: Any, client_address: Any) -> None:
        with server.context.wrap_socket(request, server_side=True) as wrapped:
            wrapped.recv(65536)
            wrapped.sendall(b"HTTP/1.1 200 OK\r\n")
            while not server.closing.wait(0.05):
                wrapped.sendall(b"x-more: 1\r\n")

    return finish


async def test_a_server_that_shakes_no_hands(key_file: Path, trusted: Path) -> None:
    """A connection that is taken and then says nothing ends, too."""
    sent = delivery()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        sink = WebhookSink(url, key_file, now=now, ca_file=trusted, timeout=SECOND)
        with failing(sent, says="took too long to connect"):
            await sink.deliver(sent)


async def test_an_endless_answer(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """The body of an answer is not read: one without an end costs nothing."""
    with receiver(lambda request: Response(200, {}, itertools.repeat(b"x" * 65536)), ca, key_file, trusted) as there:
        await asyncio.wait_for(there.sink.deliver(delivery()), 10)


async def test_an_endless_header(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """Headers without an end are cut off."""
    sent = delivery()
    endless = receiver(lambda request: Response(200, {"x-long": "x" * 1_000_000}), ca, key_file, trusted)
    with endless as there, failing(sent, says="the connection broke"):
        await there.sink.deliver(sent)


async def test_a_cancelled_delivery(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """A stop of the service is no failure of the sink: it stays a cancellation."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(request: Request) -> Response:
        loop.call_soon_threadsafe(reached.set)
        there.server.closing.wait(30)
        return Response(200)

    with receiver(slow, ca, key_file, trusted) as there:
        task = asyncio.create_task(there.sink.deliver(delivery()))
        await asyncio.wait_for(reached.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_webhook_has_one_place(ca: trustme.CA, key_file: Path, trusted: Path) -> None:
    """A destination is refused in a policy and at a delivery; none is the right one."""
    sent = delivery(destination="elsewhere")
    with receiver(always(200), ca, key_file, trusted) as there:
        there.sink.check("")
        with pytest.raises(InvalidRequest):
            there.sink.check("elsewhere")
        with failing(sent, permanent=True):
            await there.sink.deliver(sent)
        assert not there.server.requests


BAD_KEYS = {
    "empty": "",
    "31 bytes": base64.b64encode(KEY[:31]).decode(),
    "65 bytes": base64.b64encode(bytes(65)).decode(),
    "hexadecimal": KEY.hex() + "!",
    "words": "a key of words",
    "one of two": f"{KEY_TEXT}\nwhsec_short",
    "five": "\n".join([KEY_TEXT] * 5),
}


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_keys_that_are_none(tmp_path: Path, kind: str) -> None:
    """Refused at the start, in a sentence without the key."""
    path = tmp_path / "key"
    path.write_text(BAD_KEYS[kind])
    with pytest.raises(InvalidSettings, match="must hold a key a line") as caught:
        WebhookSink("https://hooks.example", path, now=now)
    assert KEY_TEXT not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_no_key_file(tmp_path: Path, content: bytes | None) -> None:
    """Nor is a file that isn't there, or isn't text."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidSettings):
        WebhookSink("https://hooks.example", path, now=now)


@pytest.mark.parametrize("content", ["not a certificate", "", None])
def test_no_authorities(tmp_path: Path, key_file: Path, content: str | None) -> None:
    """A ca_file that holds no certificate refuses the start; it doesn't become the system's authorities."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidSettings, match="can't be read as certificates"):
        WebhookSink("https://hooks.example", key_file, now=now, ca_file=path)


async def test_nothing_is_logged(
    ca: trustme.CA, key_file: Path, trusted: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the secret nor the key is in any log of any library, at any level, whatever becomes of the delivery."""
    caplog.set_level(logging.DEBUG)
    sent = [delivery(), delivery()]
    answers = iter([Response(200), Response(400, {}, b"no")])
    with receiver(lambda request: next(answers), ca, key_file, trusted) as there:
        await there.sink.deliver(sent[0])
        with failing(sent[1], permanent=True):
            await there.sink.deliver(sent[1])
        shown = repr(vars(there.sink))
    said = caplog.text + "".join(capfd.readouterr()) + shown
    assert "httpcore" in said, "the libraries do log at this level"
    assert_silent(said, *sent)
    assert KEY_TEXT not in said
