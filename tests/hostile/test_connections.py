"""Connections that do nothing, or next to nothing, or are too many: each is bounded in time and in number."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hostile.sockets import FORM, HOST, SECONDS, answers, assert_ours, gateway, post, said
from tests.hostile.victim import Victim
from tests.installation import Installation


def idle(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    made.sendall(b"POST /oauth2/token HTTP/1.1\r\nHo")
    return made


def test_many_idle_connections(victim: Victim) -> None:
    """Two hundred callers that began a request and stopped keep nobody from a token."""
    held = [idle(gateway(victim)) for _ in range(200)]
    try:
        request = post(HOST, FORM, b"Content-Length: 29\r\nConnection: close\r\n")
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: said(gateway(victim), request), range(20)))
        assert all(answers(data)[0][0] == 401 for data in found)
    finally:
        for made in held:
            made.close()


def test_connections_are_bounded(tmp_path: Path) -> None:
    """Past the bound a new one is answered 429 with a time to come back, at once, and closed; those that are open stay,
    and once one is closed another is let in."""
    with Installation(tmp_path, max_connections=16) as service:
        port = service.started.gateway_address.port  # type: ignore[union-attr]
        request = post(HOST, FORM, b"Content-Length: 29\r\nConnection: close\r\n")
        held = [idle(port) for _ in range(16)]
        try:
            refusal = answers(said(port, b""))[0]
            assert_ours(refusal)
            assert (refusal[0], refusal[1]["retry-after"]) == (429, "1")
            assert json.loads(refusal[2])["error"]["reason"] == "TOO_MANY_CONNECTIONS"
            held.pop().close()
            assert until_let_in(port, request) == 401
        finally:
            for made in held:
                made.close()


def until_let_in(port: int, request: bytes) -> int:
    """The status once the server has seen that a connection has gone."""
    for _ in range(100):
        status = answers(said(port, request))[0][0]
        if status != 429:
            break
        time.sleep(0.05)
    return status


@pytest.mark.slow
@pytest.mark.parametrize("dripped", [b"X: a\r\n", b""])
def test_slowloris(victim: Victim, dripped: bytes) -> None:
    """A head that never ends is cut off with 408 within its time, however it drips."""
    with idle(gateway(victim)) as made:
        made.settimeout(1)
        began, answer = time.monotonic(), b""
        while time.monotonic() - began < 30 and not answer:
            try:
                made.sendall(dripped)
                answer = made.recv(65_536)
            except TimeoutError:
                continue
        assert answers(answer)[0][0] == 408
        assert time.monotonic() - began < 20


@pytest.mark.slow
def test_slow_body(victim: Victim) -> None:
    """A body that drips is cut off with 408 within its time."""
    with socket.create_connection(("127.0.0.1", gateway(victim)), timeout=1) as made:
        made.sendall(post(HOST, FORM, b"Content-Length: 1000\r\n", body=b""))
        began, answer = time.monotonic(), b""
        while time.monotonic() - began < 30 and not answer:
            try:
                made.sendall(b"a")
                answer = made.recv(65_536)
            except TimeoutError:
                continue
        assert answers(answer)[0][0] == 408
        assert time.monotonic() - began < 25
