"""Secrets as the service makes them, in clear: a test's memory is no place that keeps any.

The form is the service's own (an id, 256 random bits and a checksum, base62), so that what scans or parses secrets can
be tested too.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from artstore.identity.v1 import service_account_service_pb2 as pb

LIFETIME = timedelta(days=90)
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH, RANDOM_LENGTH, CHECKSUM_LENGTH = 10, 43, 6
FORM = re.compile(
    rf"artstore_(?P<id>[0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{RANDOM_LENGTH}}}(?P<checksum>[0-9A-Za-z]{{6}})"
)


@dataclass
class Secret:
    """A secret of an account."""

    id: str
    text: str = field(repr=False)
    create_time: datetime
    expire_time: datetime
    last_used_time: datetime | None = None
    last_used_source: str = ""

    def live(self, now: datetime) -> bool:
        return now < self.expire_time

    def message(self) -> pb.Secret:
        """As the API shows it."""
        shown = pb.Secret(id=self.id, last_used_source=self.last_used_source)
        shown.create_time.FromDatetime(self.create_time)
        shown.expire_time.FromDatetime(self.expire_time)
        if self.last_used_time:
            shown.last_used_time.FromDatetime(self.last_used_time)
        return shown


def new_secret(now: datetime) -> Secret:
    name, random = drawn(ID_LENGTH), drawn(RANDOM_LENGTH)
    body = f"artstore_{name}_{random}"
    return Secret(name, body + checksum(body), now, now + LIFETIME)


def drawn(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def checksum(body: str) -> str:
    """CRC-32 in base62, most significant first."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
