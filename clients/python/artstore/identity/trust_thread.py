"""The trust feed for services without asyncio: it runs on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from datetime import timedelta

from artstore.identity.client import Client
from artstore.identity.trust import TrustFeed

READY_WITHIN = timedelta(seconds=5)
"""For the first snapshot and heartbeat; without them the verifier does what it does while the feed is silent."""


class SyncTrustFeed:
    """A TrustFeed that threads can use; `client` is not opened yet, and is the feed's alone.

    with SyncTrustFeed(Client("127.0.0.1:50051", client_id=…, client_secret=…)) as feed:
        verifier = TokenVerifier(issuer, audience="storage", trust=feed)
    """

    def __init__(self, client: Client, *, ready_within: timedelta = READY_WITHIN) -> None:
        """`ready_within` is how long to wait until the feed is current; after that it goes on trying."""
        self._client = client
        self._ready_seconds = ready_within.total_seconds()
        self._opened: Future[TrustFeed] = Future()
        self._thread = threading.Thread(target=self._run, name="artstore-trust-feed", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> TrustFeed:
        self._thread.start()
        return self._opened.result()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._follow())
        except BaseException as failure:
            if self._opened.done():
                raise
            self._opened.set_exception(failure)

    async def _follow(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._client as client, TrustFeed(client) as feed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._ready_seconds):
                    await feed.confirmed()
            self._opened.set_result(feed)
            await self._stop.wait()
