"""What a refusal of a bearer token looks like over HTTP (RFC 6750 §3); for httpx_auth.py and requests_auth.py.

A token goes to the host that was asked, and to nobody that it redirects to: both libraries drop the header on a
redirect to another host, and a refusal is believed only where the request that was refused had the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SCHEME = "Bearer "
INVALID_TOKEN = re.compile(r'(?:^|[\s,])error\s*=\s*"?invalid_token"?(?:$|[\s,])', re.IGNORECASE)
CHALLENGE = re.compile(r"(?:^|,)\s*Bearer(?:\s|$)", re.IGNORECASE)


def refused(status: int, challenges: Iterable[str]) -> bool:
    """Whether an answer says that the token itself is not valid, by its `WWW-Authenticate` headers. A 401 without that
    is about something else (RFC 6750 §3.1), and another token would not help."""
    return status == 401 and any(CHALLENGE.search(each) and INVALID_TOKEN.search(each) for each in challenges)
