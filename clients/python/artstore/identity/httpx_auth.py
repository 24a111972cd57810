"""Access tokens for httpx: `httpx.AsyncClient(auth=HttpxAuth(source))`, or `httpx.Client` with a SyncTokenSource.

Needs httpx: install `artstore-identity[httpx]`, as the package's README says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any

import httpx
from artstore.identity.bearer import SCHEME, refused
from artstore.identity.token_source import SyncTokenSource, TokenSource


class HttpxAuth(httpx.Auth):
    """Sends a token with each request, and where it is refused as invalid (RFC 6750 §3.1) once again with a new one.

    Not again where the request's body was a stream, which is used up; the next request has the new token. Give it to
    the clients of services that are to have the token: whoever is asked gets it.
    """

    def __init__(
        self, source: TokenSource | SyncTokenSource, *, scope: str = "", audience: str | Iterable[str] = ()
    ) -> None:
        """`scope` and `audience` are those of `source.token`."""
        self._source = source
        kept = audience if isinstance(audience, str) else tuple(audience)
        self._wanted: dict[str, Any] = {"scope": scope, "audience": kept}

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if not isinstance(self._source, SyncTokenSource):
            raise TypeError("httpx.Client needs a SyncTokenSource; httpx.AsyncClient a TokenSource.")
        token = self._source.token(**self._wanted)
        response = yield _with(request, token)
        if self._again(request, response, token):
            yield _with(request, self._source.token(**self._wanted))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if not isinstance(self._source, TokenSource):
            raise TypeError("httpx.AsyncClient needs a TokenSource; httpx.Client a SyncTokenSource.")
        token = await self._source.token(**self._wanted)
        response = yield _with(request, token)
        if self._again(request, response, token):
            yield _with(request, await self._source.token(**self._wanted))

    def _again(self, request: httpx.Request, response: httpx.Response, token: str) -> bool:
        """Whether another token can help. A refusal by somebody else, after a redirect, had no token of ours."""
        if not refused(response.status_code, response.headers.get_list("www-authenticate")):
            return False
        if response.request.headers.get("authorization") != SCHEME + token:
            return False
        return self._source.invalidate(token) and isinstance(request.stream, httpx.ByteStream)


def _with(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["authorization"] = SCHEME + token
    return request
