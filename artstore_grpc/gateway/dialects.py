"""How an endpoint says an error: OAuth's dialect (RFC 6749 §5.2) or the API's (AIP-193), never anything else.

Nothing that either answers may be stored: most of it holds a token or a secret, and a cached refusal outlives its cause
(RFC 6749 §5.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from artstore_grpc.errors import DOMAIN, InvalidClient, InvalidToken
from artstore_grpc.gateway.answers import JSON, NO_STORE, Answer, Headers, Refusal, encoded, retry_after

Dialect = Callable[[Refusal, bool], Answer]
"""Renders a refusal; the flag says whether the request carried an `Authorization` header."""

OAUTH_HEADERS: Headers = (*JSON, *NO_STORE, (b"pragma", b"no-cache"))
"""On every answer of an OAuth endpoint (RFC 6749 §5.1)."""

API_HEADERS: Headers = (*JSON, *NO_STORE)

BASIC_CHALLENGE = b'Basic realm="artstore", charset="UTF-8"'
"""RFC 7617 §2 and §2.1; required on 401 by RFC 6749 §5.2."""

BEARER_CHALLENGE = b'Bearer realm="artstore"'
"""RFC 6750 §3."""

INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
"""The reason of a PermissionDenied that a wider token would mend (RFC 6750 §3.1)."""

NOT_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
"""What RFC 6749 §5.2 keeps out of `error_description`."""


def oauth(refusal: Refusal, credentials_came: bool) -> Answer:
    """RFC 6749 §5.2's body, with the stable reason and the denial id beside it."""
    body = {
        "error": refusal.oauth,
        "error_description": described(refusal.message),
        "reason": refusal.reason,
    }
    if refusal.denial_id:
        body["denial_id"] = refusal.denial_id
    headers = (*OAUTH_HEADERS, *retry_after(refusal), *refusal.headers)
    if refusal.status == 401:
        headers = (*headers, (b"www-authenticate", BASIC_CHALLENGE))
    return Answer(refusal.status, headers, encoded(body))


def described(message: str) -> str:
    """A sentence in RFC 6749 §5.2's character set: quotes become apostrophes, the rest question marks."""
    return NOT_DESCRIPTION.sub("?", message.replace('"', "'"))


def api(refusal: Refusal, credentials_came: bool) -> Answer:
    """AIP-193's error as JSON: `google.rpc.Status` with its details laid flat."""
    error: dict[str, Any] = {
        "code": refusal.status,
        "status": refusal.code,
        "message": refusal.message,
        "reason": refusal.reason,
        "domain": DOMAIN,
        "violations": [{"field": v.field, "description": v.description} for v in refusal.violations],
    }
    if refusal.denial_id:
        error["denial_id"] = refusal.denial_id
    headers = (*API_HEADERS, *retry_after(refusal), *challenge(refusal, credentials_came), *refusal.headers)
    return Answer(refusal.status, headers, encoded({"error": error}))


def challenge(refusal: Refusal, credentials_came: bool) -> Headers:
    """`WWW-Authenticate` of an API route (RFC 6750 §3): without an error code where no credentials came (§3.1)."""
    if refusal.error is InvalidClient:
        return ((b"www-authenticate", BASIC_CHALLENGE),)
    if refusal.error is InvalidToken:
        error = b', error="invalid_token"' if credentials_came else b""
        return ((b"www-authenticate", BEARER_CHALLENGE + error),)
    if refusal.reason == INSUFFICIENT_SCOPE:
        return ((b"www-authenticate", BEARER_CHALLENGE + b', error="insufficient_scope"'),)
    return ()
