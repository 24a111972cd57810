"""Access tokens for requests: `session.auth = RequestsAuth(source)`, or `requests.get(…, auth=RequestsAuth(source))`.

Needs requests: install `artstore-identity[requests]`, as the package's README says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import requests
from artstore.identity.bearer import SCHEME, refused
from artstore.identity.token_source import SyncTokenSource
from requests.auth import AuthBase


class RequestsAuth(AuthBase):
    """Sends a token with each request, and where it is refused as invalid (RFC 6750 §3.1) once again with a new one.

    Not again where the request's body was a stream, which is used up; the next request has the new token. Give it to
    the sessions of services that are to have the token: whoever is asked gets it.
    """

    def __init__(self, source: SyncTokenSource, *, scope: str = "", audience: str | Iterable[str] = ()) -> None:
        """`scope` and `audience` are those of `source.token`."""
        self._source = source
        kept = audience if isinstance(audience, str) else tuple(audience)
        self._wanted: dict[str, Any] = {"scope": scope, "audience": kept}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        token = self._source.token(**self._wanted)
        request.headers["Authorization"] = SCHEME + token

        def answered(response: requests.Response, *_: Any, **options: Any) -> requests.Response:
            return self._answered(response, token, options)

        # The library takes the hook along on redirects; there the request has no token of ours, or the same.
        request.register_hook("response", answered)  # type: ignore[no-untyped-call]
        return request

    def _answered(self, response: requests.Response, token: str, options: dict[str, Any]) -> requests.Response:
        asked = response.request
        if not refused(response.status_code, [response.headers.get("WWW-Authenticate", "")]):
            return response
        if asked.headers.get("Authorization") != SCHEME + token or not self._source.invalidate(token):
            return response
        if asked.body is not None and not isinstance(asked.body, str | bytes):
            return response
        _ = response.content  # read to its end, so that the connection can be used again
        response.close()
        # In place: the session follows a redirect with the headers of this very request.
        asked.headers["Authorization"] = SCHEME + self._source.token(**self._wanted)
        answer: requests.Response = response.connection.send(asked, **options)
        answer.history.append(response)
        answer.request = asked
        return answer
