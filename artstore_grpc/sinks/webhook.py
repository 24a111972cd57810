"""A sink that is somebody's HTTPS server: a POST, signed as Standard Webhooks 1.0.0 has it (standardwebhooks.com).

`webhook-signature` is `v1,` and HMAC-SHA256 in base64 over `webhook-id . webhook-timestamp . body`; the id is the
secret's own, the same at each attempt, so that a receiver acts once. One attempt is made here; 2xx is a success,
whatever the body says, and that is not even read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import httpx

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.credentials import document
from artstore_grpc.sinks.exchange import answered, client, parsed, retry_after, trusting
from artstore_grpc.sinks.protocol import Delivery, SinkFailed, refused

EVENT = "service_account.secret_rotated"
PREFIX = "whsec_"
MIN_KEY, MAX_KEY = 32, 64
"""Bytes. The specification allows 24; a key of HMAC-SHA256 should have as many as its output (RFC 2104 §3)."""
MAX_KEYS = 4
MAX_KEY_FILE = 4096
TIMEOUT = timedelta(seconds=8)
"""Of a whole attempt; the specification recommends 15 to 30 s."""
TRANSIENT = frozenset({408, 409, 425, 429})
"""Client errors that pass by themselves (RFC 9110 §15.5.9, §15.5.10, RFC 8470 §5.2, RFC 6585 §4). Any other one, and
a redirect, is a mistake in the settings, here or there."""


class WebhookSink:
    """A `protocol.Sink` at one URL. The file of keys is read at each attempt, so that keys can change. Raises
    InvalidSettings for files that can't be used."""

    def __init__(
        self,
        url: str,
        key_file: Path,
        *,
        now: Callable[[], datetime],
        ca_file: Path | None = None,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._url = url
        self._key_file = key_file
        self._now = now
        self._timeout = timeout
        self._place = f"The webhook at {parsed(url).netloc}"  # the rest of the URL may be a secret
        try:
            read_keys(key_file)
        except SinkFailed as error:
            raise InvalidSettings(error.message) from None
        self._client = client(trusting(ca_file), timeout)

    def check(self, destination: str) -> None:
        if destination:
            raise refused("must be empty: a webhook has one place")

    async def deliver(self, delivery: Delivery) -> None:
        if delivery.destination:
            raise SinkFailed("A webhook has one place, and takes no destination.", permanent=True)
        body = encoded(delivery)
        headers = await asyncio.to_thread(self._headers, f"secret_{delivery.secret_id}", body)
        response = await answered(self._place, self._timeout, self._sent(headers, body))
        status = response.status_code
        if not 200 <= status < 300:
            raise SinkFailed(
                f"{self._place} answered {status}.",
                retry_after=retry_after(response, self._now()),
                permanent=status < 500 and status not in TRANSIENT,
            )

    async def close(self) -> None:
        await self._client.aclose()

    def _headers(self, id: str, body: bytes) -> dict[str, str]:
        """What goes with a body; each key of the file signs it, so that a receiver may know either."""
        timestamp = str(int(self._now().timestamp()))
        return {
            "content-type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signature(key, id, timestamp, body) for key in read_keys(self._key_file)),
        }

    async def _sent(self, headers: dict[str, str], body: bytes) -> httpx.Response:
        """The answer without its body, which is never read."""
        async with self._client.stream("POST", self._url, headers=headers, content=body) as response:
            return response


def encoded(delivery: Delivery) -> bytes:
    """The body, the same at each attempt; `credentials` is the client's file as it is."""
    told = {
        "type": EVENT,
        "data": {
            "account_id": delivery.account_id,
            "secret_id": delivery.secret_id,
            "credentials": document(delivery),
        },
    }
    return json.dumps(told, separators=(",", ":")).encode()


def signature(key: bytes, id: str, timestamp: str, body: bytes) -> str:
    """One signature of `webhook-signature`."""
    digest = hmac.digest(key, b".".join((id.encode(), timestamp.encode(), body)), hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def read_keys(path: Path) -> list[bytes]:
    """The keys in a file, one a line: 32 to 64 bytes in base64, `whsec_` before it or not. Raises SinkFailed."""
    try:
        with path.open() as file:
            lines = file.read(MAX_KEY_FILE).split()
        keys = [base64.b64decode(line.removeprefix(PREFIX), validate=True) for line in lines]
    except (OSError, ValueError):  # binascii.Error, UnicodeDecodeError
        keys = []
    if not 1 <= len(keys) <= MAX_KEYS or not all(MIN_KEY <= len(key) <= MAX_KEY for key in keys):
        raise SinkFailed(
            f"{path} must hold a key a line, at most {MAX_KEYS}, each of {MIN_KEY} to {MAX_KEY} bytes in base64."
        )
    return keys
