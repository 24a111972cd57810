"""Percent escapes of forms and of Basic credentials: one decoding for both (RFC 6749 Appendix B)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
"""RFC 3986 §2.1."""


def unescaped(raw: bytes) -> bytes:
    """Plus is a space, then percent escapes. Raises ValueError on a broken escape."""
    spaced = raw.replace(b"+", b" ")
    if b"%" not in spaced:
        return spaced
    if BROKEN_ESCAPE.search(spaced):
        raise ValueError("a percent escape is broken")
    return unquote_to_bytes(spaced)
