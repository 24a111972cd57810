"""Page tokens (AIP-158): the place after which a list goes on, sealed, and good only for the query it was made for."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from artstore_grpc.errors import invalid
from artstore_grpc.vault import Vault, WrongKey

DEFAULT_SIZE = 50
MAX_SIZE = 1000
MAX_BYTES = 2 * 1024 * 1024
"""gRPC's clients take 4 MiB unless told otherwise."""
MAX_TOKEN_LENGTH = 500

T = TypeVar("T")


def size(asked: int, default: int = DEFAULT_SIZE, field: str = "page_size") -> int:
    """How many to list: 0 is the default, too many the maximum (AIP-158)."""
    if asked < 0:
        raise invalid(field, "must not be negative")
    return min(asked, MAX_SIZE) or default


def fitting(found: list[T], weight: Callable[[T], int]) -> list[T]:
    """As many of the first as one answer may hold, and at least one: a page may be smaller than asked (AIP-158)."""
    room = MAX_BYTES
    for number, each in enumerate(found):
        room -= weight(each)
        if room < 0 and number:
            return found[:number]
    return found


def token(vault: Vault, last: tuple[datetime, str], *query: str) -> str:
    place = json.dumps([last[0].isoformat(), last[1]]).encode()
    return base64.urlsafe_b64encode(vault.seal(place, "page", *query)).decode().rstrip("=")


def place(vault: Vault, token: str, *query: str) -> tuple[datetime, str] | None:
    """Where a page starts; None for the first. Raises InvalidRequest for a token of another query, or none of ours."""
    if not token:
        return None
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise ValueError
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        time, last = json.loads(vault.open(sealed, "page", *query))
    except (WrongKey, binascii.Error, ValueError):
        raise invalid("page_token", "is not one of this query's", reason="INVALID_PAGE_TOKEN") from None
    return datetime.fromisoformat(time), last
