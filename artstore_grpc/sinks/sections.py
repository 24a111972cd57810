"""One sink's part of the sinks file: what is taken is checked, what is left at the end is refused.

Each failure is an InvalidSettings that goes on after the sink's name, and names the key, never its value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.exchange import loopback, parsed
from artstore_grpc.sinks.kubernetes import NAMESPACE

MAX_GID = 2**31 - 1
WORDS = {str: "a string", bool: "true or false", int: "a whole number", list: "a list"}


def wrong(key: str, what: str) -> InvalidSettings:
    """The error of one key."""
    return InvalidSettings(f"{key} {what}.")


class Section:
    """The keys of one sink. Every method raises InvalidSettings."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._left = dict(values)
        self._known: list[str] = []

    def text(self, key: str) -> str:
        """A string; empty when it isn't given."""
        found: str = self._taken(key, str, "")
        return found

    def flag(self, key: str) -> bool:
        found: bool = self._taken(key, bool, False)
        return found

    def path(self, key: str) -> Path | None:
        """An absolute path: what a relative one means would depend on where the service is started."""
        text = self.text(key)
        if text and not (text.startswith("/") and text.isprintable()):
            raise wrong(key, "must be an absolute path")
        return Path(text) if text else None

    def required_path(self, key: str) -> Path:
        found = self.path(key)
        if found is None:
            raise wrong(key, "must be given")
        return found

    def gid(self, key: str) -> int | None:
        found: int | None = self._taken(key, int, None)
        if found is not None and not 0 <= found <= MAX_GID:
            raise wrong(key, "must be a group's number")
        return found

    def namespaces(self, key: str) -> tuple[str, ...]:
        found = self._taken(key, list, [])
        if not found or not all(isinstance(each, str) and NAMESPACE.fullmatch(each) for each in found):
            raise wrong(key, "must list one namespace at least, each a DNS label")
        if len(set(found)) != len(found):
            raise wrong(key, "must not name a namespace twice")
        return tuple(found)

    def https_url(self, key: str) -> str:
        """A URL whose scheme is https; empty when it isn't given."""
        text = self._url(key)
        if text and parsed(text).scheme != "https":
            raise wrong(key, "must be https")
        return text

    def server(self, key: str) -> str:
        """As `https_url`, without a query; http is accepted at a loopback address."""
        text = self._url(key)
        if not text:
            return text
        found = parsed(text)
        if found.scheme != "https" and not (found.scheme == "http" and loopback(found.hostname or "")):
            raise wrong(key, "must be https, or http at a loopback address")
        if found.query:
            raise wrong(key, "must have no query")
        return text

    def finish(self) -> None:
        """Refuses what nobody has taken."""
        if self._left:
            raise InvalidSettings(f"there is a key that this kind doesn't know; it knows {', '.join(self._known)}.")

    def _url(self, key: str) -> str:
        text = self.text(key)
        try:
            if text:
                parsed(text)
        except ValueError as error:
            raise wrong(key, str(error)) from None
        return text

    def _taken(self, key: str, kind: type, default: Any) -> Any:
        self._known.append(key)
        if key not in self._left:
            return default
        found = self._left.pop(key)
        if type(found) is not kind:  # to isinstance a bool is an int
            raise wrong(key, f"must be {WORDS[kind]}")
        return found
