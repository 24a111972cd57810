"""Deliveries, and what must never be said of them."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from artstore_grpc import secrets
from artstore_grpc.sinks.protocol import Delivery, SinkFailed

NOW = datetime(2026, 3, 4, 5, 6, 7, 890000, tzinfo=UTC)
CLIENT_ID = "sa_prod_ingester_0a1b2c3d"
ISSUER = "https://identity.example"


def now() -> datetime:
    return NOW


def delivery(**changes: Any) -> Delivery:
    """A delivery of a fresh secret."""
    made = secrets.generate()
    fields: dict[str, Any] = {
        "account_id": "6f1c1f0e-8f0b-4b3c-9a55-1f2e3d4c5b6a",
        "client_id": CLIENT_ID,
        "client_secret": made.text,
        "secret_id": made.id,
        "secret_expire_time": NOW + timedelta(days=90),
        "issuer": ISSUER,
    }
    return Delivery(**(fields | changes))


def file_of(sent: Delivery) -> dict[str, Any]:
    """The credentials file that a delivery must become."""
    return {
        "version": 1,
        "issuer": ISSUER,
        "client_id": sent.client_id,
        "client_secret": sent.client_secret,
        "secret_expire_time": "2026-06-02T05:06:07.890000Z",
    }


@contextmanager
def failing(
    *sent: Delivery, permanent: bool = False, retry_after: timedelta | None = None, says: str = ""
) -> Iterator[None]:
    """What happens within fails so, and the failure says nothing of what was sent: not in its sentence, nor in what it
    keeps, nor in its causes."""
    with pytest.raises(SinkFailed) as caught:
        yield
    error = caught.value
    assert (error.permanent, error.retry_after) == (permanent, retry_after), error.message
    assert says in error.message
    assert error.message.endswith(".")
    assert "\n" not in error.message
    assert str(error) == error.message
    assert_silent("".join(traceback.format_exception(error)) + repr(vars(error)), *sent)
    assert error.__context__ is None or error.__suppress_context__


def assert_silent(text: str, *sent: Delivery) -> None:
    """No secret that was sent is in a text, in any form that it was sent in."""
    for each in sent:
        secret = each.client_secret
        for form in (secret, base64.b64encode(secret.encode()).decode(), json.dumps(secret)[1:-1]):
            assert form not in text
