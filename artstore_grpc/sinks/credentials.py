"""The credentials file of the Python client, version 1: what every sink hands over, in its own wrapping."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from artstore_grpc.sinks.protocol import Delivery

VERSION = 1


def document(delivery: Delivery) -> dict[str, Any]:
    """The file's content; its time as RFC 3339 has it."""
    return {
        "version": VERSION,
        "issuer": delivery.issuer,
        "client_id": delivery.client_id,
        "client_secret": delivery.client_secret,
        "secret_expire_time": delivery.secret_expire_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }


def encoded(delivery: Delivery) -> bytes:
    """The file itself: one JSON object, a member a line."""
    return json.dumps(document(delivery), indent=2).encode() + b"\n"


def holder(content: bytes) -> str | None:
    """Whose credentials a file holds; None for a file that holds none."""
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        return None
    found = read.get("client_id") if isinstance(read, dict) else None
    return found if isinstance(found, str) else None
