"""Text that came from elsewhere, made safe to show on a terminal."""

from __future__ import annotations

import unicodedata


def cleaned(text: str) -> str:
    """The text with control characters replaced: an account's description must not steer the operator's terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(character) else character for character in text)


def _is_control(character: str) -> bool:
    """Control characters, and format characters such as those that reverse the direction of writing."""
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")
