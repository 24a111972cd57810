"""Lets a call in or refuses it, from its `authorization` values and the rule for what is called: RFC 6750 for every
door alike. Knows neither gRPC's nor ASGI's way of saying it (grpc_server.py, asgi.py).

Only the header is a way to send a token (RFC 6750 §2.1): one in a form or a query is not looked at. The caller is told
a fixed sentence and a stable word; what exactly was wrong goes to the log of the service.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from artstore.identity.authorization import Rule
from artstore.identity.caller import VerifiedToken
from artstore.identity.confirmation import confirm
from artstore.identity.refusals import CannotVerify, TokenRefused
from artstore.identity.verifier import TokenVerifier

LOGGER = logging.getLogger("artstore.identity")
TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""RFC 6750 §2.1, b64token."""
RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that keeps a call out."""

    status: int
    """HTTP's."""
    reason: str
    """`google.rpc.ErrorInfo.reason`."""
    error: str
    """RFC 6750 §3.1; empty where there were no credentials, or where it isn't about them."""
    message: str
    scope: str = ""
    """What to ask for."""
    cause: str = ""
    """The stable word of the TokenRefused."""

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate` (RFC 6750 §3); empty where another token would not help."""
        if self.status == 503:
            return ""
        parts = [f'error="{self.error}"', f'error_description="{self.message}"'] if self.error else []
        parts += [f'scope="{self.scope}"'] if self.scope else []
        return " ".join(["Bearer", ", ".join(parts)]).strip()


MISSING = Refusal(401, "MISSING_TOKEN", "", "An access token is needed.")
TWICE = Refusal(400, "INVALID_REQUEST", "invalid_request", "There is more than one authorization.")
MALFORMED = Refusal(400, "INVALID_REQUEST", "invalid_request", "The authorization is malformed.")
UNVERIFIABLE = Refusal(503, "CANNOT_VERIFY", "", "The access token can't be verified now. Try again.")
FORBIDDEN = Refusal(403, "PERMISSION_DENIED", "insufficient_scope", "The caller may not do this.")


class NotAdmitted(Exception):
    """The call is refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Admission:
    """Decides on calls with one verifier."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self.verifier = verifier

    async def admit(
        self, rule: Rule | None, authorizations: Sequence[str], what: str, certificate: str | None = ""
    ) -> VerifiedToken:
        """Who calls, if it may; `what` is for the log, `certificate` as `TokenVerifier.verify` has it. Raises
        NotAdmitted."""
        token = presented(authorizations)
        try:
            caller = await self.verifier.verify(token, certificate)
        except TokenRefused as refused:
            raise self.refused(refused, what) from None
        return permitted(rule, caller, what)

    def admit_sync(
        self, rule: Rule | None, authorizations: Sequence[str], what: str, certificate: str | None = ""
    ) -> VerifiedToken:
        """The same for threads."""
        token = presented(authorizations)
        try:
            caller = self.verifier.verify_sync(token, certificate)
        except TokenRefused as refused:
            raise self.refused(refused, what) from None
        return permitted(rule, caller, what)

    def confirm(self, caller: VerifiedToken, certificate: str, what: str) -> None:
        """Raises NotAdmitted where the token is bound to another certificate, of a caller admitted with none known."""
        try:
            confirm(caller, certificate)
        except TokenRefused as refused:
            raise self.refused(refused, what) from None

    def still(self, caller: VerifiedToken, what: str) -> None:
        """Raises NotAdmitted once the token is good no more, of a call that takes long."""
        try:
            self.verifier.recheck(caller)
        except TokenRefused as refused:
            raise self.refused(refused, what) from None

    def refused(self, refused: TokenRefused, what: str) -> NotAdmitted:
        """The answer to a token that was refused."""
        if isinstance(refused, CannotVerify):
            LOGGER.info("%s: no token can be verified (%s): %s", what, refused.reason, refused)
            return NotAdmitted(UNVERIFIABLE)
        LOGGER.info("%s: a token was refused (%s): %s", what, refused.reason, refused)
        message = "The access token is not valid."
        return NotAdmitted(Refusal(401, "INVALID_TOKEN", "invalid_token", message, cause=refused.reason))


def presented(authorizations: Sequence[str]) -> str:
    """The token of a call. Raises NotAdmitted."""
    if not authorizations:
        raise NotAdmitted(MISSING)
    if len(authorizations) > 1:
        raise NotAdmitted(TWICE)
    scheme, _, token = authorizations[0].partition(" ")
    if scheme.lower() != "bearer":  # RFC 9110 §11.1
        raise NotAdmitted(MISSING)
    token = token.strip(" ")
    if not TOKEN.fullmatch(token):
        raise NotAdmitted(MALFORMED)
    return token


def permitted(rule: Rule | None, caller: VerifiedToken, what: str) -> VerifiedToken:
    """The caller, if the rule lets it. Raises NotAdmitted; always where there is no rule."""
    if rule is None:
        LOGGER.warning("%s: refused, since no row of the table names it", what)
        raise NotAdmitted(FORBIDDEN)
    if rule.allows(caller):
        return caller
    LOGGER.info("%s: %s may not", what, caller.client_id)
    if rule.scope:
        message = "The access token's scope is not sufficient."
        raise NotAdmitted(Refusal(403, "INSUFFICIENT_SCOPE", "insufficient_scope", message, rule.scope))
    raise NotAdmitted(FORBIDDEN)
