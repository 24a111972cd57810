"""The clock of the machine is set ten minutes wrong, and right again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from artstore.identity.v1 import token_service_pb2 as pb

from tests.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WRONG = timedelta(minutes=10)


@pytest.mark.parametrize("by", [WRONG, -WRONG], ids=["ahead", "behind"])
def test_a_clock_that_is_wrong(tmp_path: Path, by: timedelta) -> None:
    """Tokens are issued and taken at either time, a revoked one is taken at neither, and what was issued at the wrong
    time is good when the clock is right if it has begun by then, or was verified before."""
    with Installation(tmp_path) as service:
        account = service.account()

        def active(token: str) -> bool:
            who = service.administrator
            request = pb.IntrospectTokenRequest(token=token, client_id=who.client_id, client_secret=who.client_secret)
            return bool(service.tokens.IntrospectToken(request).active)

        before, revoked = (service.token(account.client_id, account.secret) for _ in range(2))
        service.tokens.RevokeToken(
            pb.RevokeTokenRequest(token=revoked, client_id=account.client_id, client_secret=account.secret)
        )
        service.clock.advance(by)
        during, unseen = (service.token(account.client_id, account.secret) for _ in range(2))
        made = service.account()
        assert active(during)
        assert active(before) == (by > timedelta(0)), "a token that has yet to begin is none"
        assert not active(revoked)
        service.clock.advance(-by)
        assert active(before)
        assert active(during), "verified once, a token is good until it expires"
        assert active(unseen) == (by < timedelta(0))
        assert not active(revoked)
        assert active(service.token(made.client_id, made.secret))
        assert "call failed unexpectedly" not in service.log.getvalue()
