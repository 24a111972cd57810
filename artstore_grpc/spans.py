"""Where the time of a call goes, said by whoever spends it: `with span("sign"):`. Knows nothing of who records it.

Nearly always nobody does: then there is no current span, and saying so costs a look at a context variable. Threads and
tasks have the current span of whoever started them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

Attributes = Mapping[str, str | int]
"""By the names of OpenTelemetry's semantic conventions. Never a secret, a token, or text of a caller's without a bound.
"""


class Span(Protocol):
    """A part of a call that is recorded; traces.py has the one implementation."""

    @property
    def traceparent(self) -> str:
        """What it is called by in the next service (W3C Trace Context §3.2)."""

    def child(self, name: str, attributes: Attributes, *, client: bool) -> AbstractContextManager[Span | None]:
        """A part of this part, current within; None once the call is over."""

    def queued(self, name: str) -> Callable[[], None]:
        """A part that is nobody's parent, from now until what this returns is called, in whichever thread."""

    def set(self, name: str, value: str | int) -> None:
        """Adds an attribute."""


CURRENT: ContextVar[Span | None] = ContextVar("artstore_span", default=None)
NOTHING: AbstractContextManager[None] = nullcontext()
NONE: Attributes = {}


def recorded() -> bool:
    """Whether it is worth the trouble to make attributes."""
    return CURRENT.get() is not None


def span(name: str, attributes: Attributes = NONE, *, client: bool = False) -> AbstractContextManager[Span | None]:
    """A part of the current call, `client` where another program does it; None where none is recorded."""
    current = CURRENT.get()
    return NOTHING if current is None else current.child(name, attributes, client=client)


def queued(name: str) -> Callable[[], None]:
    """As `span`, for what waits in one thread until it is taken up in another, which then calls what this returns."""
    current = CURRENT.get()
    return nothing if current is None else current.queued(name)


def nothing() -> None:
    """The end of what isn't recorded."""
