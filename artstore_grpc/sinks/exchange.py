"""One HTTPS exchange of a sink: who may be talked to, how long, and what a failure is called.

TLS is always verified, redirects are failures, no proxy of the environment is used, and the whole exchange has one
deadline. An httpx error keeps the request and so the secret: it ends here, and only our own sentence goes on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.protocol import SinkFailed

T = TypeVar("T")

MAX_RETRY_AFTER = timedelta(days=1)
"""A place that asks for longer is asked again sooner."""
CONNECT = timedelta(seconds=5)
"""For TCP, and again for TLS."""


def parsed(url: str) -> SplitResult:
    """A URL that names a scheme and a host, and no user. Raises ValueError with what goes on after its name."""
    try:
        found = urlsplit(url)
        host = (found.hostname or "").encode("idna")  # as a look-up will do it: a label has at most 63 characters
        valid = bool(host) and found.port != 0 and bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be a URL with a host")
    if "@" in found.netloc or found.fragment:
        raise ValueError("must have no user, no password and no fragment")
    return found


def loopback(host: str) -> bool:
    """Whether a host is this machine for certain; a name may be anybody's, except `localhost` (RFC 6761 §6.3)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """The authorities in a file, or else the system's, and nobody besides. Raises InvalidSettings."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError:  # ssl.SSLError is one
        raise InvalidSettings(f"{ca_file} can't be read as certificates in PEM.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def client(context: ssl.SSLContext, limit: timedelta) -> httpx.AsyncClient:
    """What a sink talks by. No pool: deliveries are rare, and a connection kept would be a stale one. To connect has a
    limit of its own, well below that of `answered`: httpcore leaves a socket open whose handshake is cancelled."""
    return httpx.AsyncClient(
        verify=context,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=min(CONNECT, limit / 4).total_seconds()),
        limits=httpx.Limits(max_keepalive_connections=0),
        headers={"accept-encoding": "identity", "user-agent": "artstore-identity"},
    )


async def answered(place: str, limit: timedelta, work: Awaitable[T]) -> T:
    """What the work comes to within the limit. `place` begins the sentence of its failure. Raises SinkFailed, which
    keeps nothing of what was sent."""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            return await work
    except TimeoutError:
        failed = f"didn't answer within {limit.total_seconds():g} s"
    except httpx.HTTPError as error:
        failed = f"can't be reached: {cause(error)}"
    raise SinkFailed(f"{place} {failed}.")  # outside the handlers: its context would be the httpx error


def cause(error: BaseException) -> str:
    """Why an exchange broke, without anything that either side has sent."""
    if isinstance(error, httpx.ConnectTimeout):
        return "it took too long to connect"
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({each.verify_message})"
        if isinstance(each, ssl.SSLError):
            return "TLS failed"
        each = each.__cause__ or each.__context__
    return "the connection failed" if isinstance(error, httpx.ConnectError) else "the connection broke"


def retry_after(response: httpx.Response, now: datetime) -> timedelta | None:
    """What a `Retry-After` asks for, in seconds or as a date (RFC 9110 §10.2.3), between 0 and a day."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(timedelta(seconds=int(value)), MAX_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return min(max(aware - now, timedelta(0)), MAX_RETRY_AFTER)
