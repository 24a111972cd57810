"""What a client authenticates with, decoded: request fields or Basic metadata, never both (RFC 6749 §2.3, RFC 7617).

Whether it is right is for authentication.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from artstore_grpc.errors import InvalidClient, InvalidRequest, invalid
from artstore_grpc.forms import unescaped

CLIENT_ID = re.compile(r"[\x21-\x7e]{1,100}")
"""What may be an account's, as the protos bound it; anything else is refused before it is looked up."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client authenticates with. `repr` hides what is secret."""

    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    client_assertion_type: str = ""
    client_assertion: str = field(default="", repr=False)

    @property
    def empty(self) -> bool:
        return not (self.client_id or self.client_secret or self.client_assertion or self.client_assertion_type)


def is_basic(authorization: str | None) -> bool:
    """Whether it is a value for `basic`, sound or not."""
    return authorization is not None and authorization.strip()[:6].lower() == "basic "


def basic(authorization: str) -> Credentials:
    """The credentials of an `authorization: Basic` value: base64 (RFC 7617), then each part form-urlencoded (RFC 6749
    §2.3.1). Raises InvalidClient for another scheme, InvalidRequest for one that can't be decoded."""
    scheme, _, encoded = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient(cause="authorization is not Basic")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
        client_id, colon, client_secret = decoded.partition(":")
        if not colon:
            raise ValueError
        return Credentials(form_decoded(client_id), form_decoded(client_secret))
    except (binascii.Error, ValueError):
        raise InvalidRequest("The Basic credentials can't be decoded.", reason="MALFORMED_BASIC") from None


def form_decoded(value: str) -> str:
    """RFC 6749 Appendix B: plus is a space, then percent escapes, then UTF-8. Raises ValueError on a broken escape."""
    decoded = unescaped(value.encode()).decode()
    if "\0" in decoded:
        raise ValueError
    return decoded


def gathered(fields: Credentials, authorization: str | None) -> Credentials:
    """The one set of credentials of a request, from its fields or its metadata (RFC 6749 §2.3: never both)."""
    if authorization is None:
        given = fields
    else:
        given = basic(authorization)
        if fields.client_secret or fields.client_assertion or fields.client_assertion_type:
            raise InvalidRequest("Two client authentications in one request.", reason="TWO_CLIENT_AUTHENTICATIONS")
        if fields.client_id and fields.client_id != given.client_id:
            raise InvalidRequest("client_id differs from the Basic credentials.", reason="TWO_CLIENT_AUTHENTICATIONS")
    if given.client_secret and given.client_assertion:
        raise InvalidRequest("Two client authentications in one request.", reason="TWO_CLIENT_AUTHENTICATIONS")
    if bool(given.client_assertion) != bool(given.client_assertion_type):
        raise invalid("client_assertion", "and client_assertion_type go together")
    return given
