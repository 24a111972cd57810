"""How a token source begins and ends, and what it tells: nobody is left waiting, no secret is shown."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import traceback
from datetime import timedelta
from typing import Any

import grpc
import pytest
from artstore.identity import (
    Credentials,
    InvalidClient,
    StaticCredentials,
    SyncTokenSource,
    TokenSource,
    Unavailable,
)
from canned import Canned
from clocks import Clock, eventually
from sources import ME, Threaded, asked, failing, opened, tokens


def running_loops() -> list[asyncio.AbstractEventLoop]:
    return [each for each in gc.get_objects() if isinstance(each, asyncio.AbstractEventLoop) and each.is_running()]


async def test_a_closed_source_leaves_nobody_waiting(server: Canned, kind: str) -> None:
    """Callers that wait get an error at once, and so does who comes later."""

    async def never(_: Any) -> Any:
        await asyncio.Event().wait()

    server.answers["IssueToken"] = never
    async with opened(kind, server.target) as source:
        waiting = asyncio.create_task(source.token())
        await eventually(lambda: asked(server))
    with pytest.raises(Exception, match=r"closed|cancelled|[Cc]ancel"):
        await asyncio.wait_for(waiting, 5)
    if kind == "asyncio":
        with pytest.raises(RuntimeError, match="closed"):
            await source.token()


async def test_a_source_belongs_to_one_loop(server: Canned) -> None:
    """Used from another it says so."""
    tokens(server)
    async with TokenSource(server.target, **ME) as source:
        await source.token(scope="a")

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="one event loop"):
                asyncio.run(source.token(scope="b"))

        await asyncio.to_thread(elsewhere)


def test_a_source_that_was_used_before_a_fork_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of hanging on threads that the child hasn't got."""
    with SyncTokenSource("127.0.0.1:1", **ME, timeout=timedelta(seconds=0.1)) as source:
        with pytest.raises(Unavailable):
            source.token()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="fork"):
            source.token()


async def test_nothing_tells_a_secret(server: Canned, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr, log, errors nor what hangs on them has a token or a secret, whether it goes well or not."""
    caplog.set_level(logging.DEBUG)
    tokens(server)
    clock = Clock()
    said = []
    async with opened(kind, server.target, clock=clock) as source:
        await source.token()
        server.answers["IssueToken"] = failing(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CLIENT")
        with pytest.raises(InvalidClient) as caught:
            await source.token(scope="other")
        inner = source.source if isinstance(source, Threaded) else source
        said += [repr(inner), repr(inner._cache.__dict__), repr(caught.value), repr(caught.value.__cause__)]
    said += [repr(Credentials("me", "the-secret")), repr(StaticCredentials(Credentials("me", "the-secret")))]
    assert "no access token" in caplog.text
    for text in (*said, caplog.text):
        assert "the-secret" not in text
        assert "token-1" not in text


async def test_what_reporters_of_errors_show(server: Canned, kind: str) -> None:
    """The frames of an error, with all their variables, hold no secret: those of the request are not its callers'."""
    server.answers["IssueToken"] = failing(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CLIENT")
    async with opened(kind, server.target) as source:
        with pytest.raises(InvalidClient) as caught:
            await source.token()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if "/artstore/identity/" in frame.f_code.co_filename]
    assert ours
    assert "the-secret" not in repr([frame.f_locals for frame in ours])
    assert caught.value.__context__ is None


def test_a_machine_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that can't be begun is an error, and not a wait that nobody ends."""
    with SyncTokenSource("127.0.0.1:1", **ME, timeout=timedelta(seconds=0.2)) as source:
        with monkeypatch.context() as patched:

            def none_left(_: object) -> None:
                raise RuntimeError("can't start new thread")

            patched.setattr(threading.Thread, "start", none_left)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                source.token()
        with pytest.raises(Unavailable):
            source.token(scope="another")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"client_id": "me"},
        {"client_secret": "s"},
        {"client_id": "me", "client_secret": "s", "private_key": "k"},
        {"client_id": "me", "private_key": "no key"},
        {"client_id": "me", "client_secret": "s", "credentials": Credentials("me", "s")},
        {"client_id": "me", "client_secret": "s", "timeout": timedelta(0)},
    ],
)
def test_contradictory_arguments(wrong: dict[str, Any]) -> None:
    """One way to authenticate, and a timeout: anything else is refused when the source is made."""
    for kind in (TokenSource, SyncTokenSource):
        with pytest.raises(ValueError, match=r"give|private|positive|missing"):
            kind("127.0.0.1:1", **wrong)


def test_threads_need_no_event_loop() -> None:
    """A SyncTokenSource makes none, and asks nothing of one."""
    before = {id(each) for each in (*threading.enumerate(), *running_loops())}  # other tests' loops and their threads
    with SyncTokenSource("127.0.0.1:1", **ME, timeout=timedelta(seconds=0.2)) as source:
        with pytest.raises(Unavailable):
            source.token()
        made = [each.name for each in threading.enumerate() if id(each) not in before]
        assert not [name for name in made if "asyncio" in name]
    assert not [each for each in running_loops() if id(each) not in before]
