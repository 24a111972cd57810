"""What every sink hands over, and what none of it shows."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from artstore_grpc.sinks.credentials import encoded, holder
from artstore_grpc.sinks.protocol import SinkFailed
from tests.sinks.deliveries import assert_silent, delivery, file_of


def test_a_delivery_hides_its_secret() -> None:
    """A delivery may be logged by its repr, alone or inside something else."""
    sent = delivery()
    assert_silent(repr(sent) + repr([sent]) + str(sent), sent)
    assert sent.client_id in repr(sent)


def test_the_file_is_the_clients() -> None:
    """Version 1: exactly these members, the time in UTC as RFC 3339 has it, wherever it was computed."""
    sent = delivery()
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    for each in (sent, replace(sent, secret_expire_time=sent.secret_expire_time.astimezone(elsewhere))):
        read = json.loads(encoded(each))
        assert read == file_of(sent)
        assert datetime.fromisoformat(read["secret_expire_time"]) == sent.secret_expire_time


def test_whose_a_file_is() -> None:
    """The account is told by its client_id; what is no credentials file belongs to nobody."""
    sent = delivery()
    assert holder(encoded(sent)) == sent.client_id
    for other in (b"", b"[]", b"null", b'{"client_id": 1}', b"\xff", b"[" * 100_000, encoded(sent)[:-10]):
        assert holder(other) is None


def test_a_failure_is_a_sentence() -> None:
    """By default another attempt may help, at a time of the caller's choosing."""
    failed = SinkFailed("It failed.")
    assert (str(failed), failed.message, failed.permanent, failed.retry_after) == ("It failed.",) * 2 + (False, None)
