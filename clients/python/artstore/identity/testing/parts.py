"""What one authority is made of, built once: clock, keys, accounts, tokens, trust, all behind one lock."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from artstore.identity.testing.account_fields import SCOPES
from artstore.identity.testing.accounts import Account, Accounts, Caller
from artstore.identity.testing.callers import Callers
from artstore.identity.testing.clock import Clock
from artstore.identity.testing.keys import Keyring, signed
from artstore.identity.testing.public_keys import ALGORITHMS
from artstore.identity.testing.rotation import Replays, Rotation
from artstore.identity.testing.tokens import GRANT, Tokens
from artstore.identity.testing.trust import Trust
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

CLIENT_AUTHENTICATION = ("client_secret_basic", "client_secret_post", "private_key_jwt")
ASSERTION_ALGORITHMS = tuple(algorithm for algorithms in ALGORITHMS.values() for algorithm in algorithms)
REVOCATIONS_TYPE = "revocations+jwt"
REVOCATIONS_LIFETIME = timedelta(seconds=60)
REFUSED = {accounts_pb.STATE_SUSPENDED: "suspended", accounts_pb.STATE_DELETED: "deleted"}


class Parts:
    """The parts, and what is said of them as a whole."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        algorithm: str,
        token_lifetime: timedelta,
        jwks_max_age: timedelta,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.jwks_max_age = jwks_max_age
        self.changed = threading.Condition(threading.RLock())
        """The authority's lock. Whoever follows its trust waits here."""
        self.clock = Clock(self.wake)
        self.trust = Trust(self.wake)
        self.keyring = Keyring(algorithm, issuer, self.clock, self.trust.key_changed)
        self.accounts = Accounts(self.clock, self.trust.account_changed, issuer, audience)
        self.replays = Replays(self.clock)
        self.rotation = Rotation(self.accounts, self.replays, self.clock)
        names: dict[str, Any] = {"issuer": issuer, "audience": audience}
        self.tokens = Tokens(self.accounts, self.keyring, self.trust, self.clock, **names, lifetime=token_lifetime)
        self.callers = Callers(self.accounts, self.keyring, self.tokens, self.clock, **names)

    def wake(self) -> None:
        """Has whoever follows look up."""
        with self.changed:
            self.changed.notify_all()

    def suspend(self, account: Account, caller: Caller | None = None) -> None:
        self.accounts.suspend(account, caller)
        self.replays.void(account)

    def delete(self, account: Account, caller: Caller | None = None) -> None:
        self.accounts.delete(account, caller)
        self.replays.void(account)

    def key_set(self) -> pb.GetJsonWebKeySetResponse:
        max_age = Duration()
        max_age.FromTimedelta(self.jwks_max_age)
        return pb.GetJsonWebKeySetResponse(keys=[key.public() for key in self.keyring.published()], max_age=max_age)

    def metadata(self) -> pb.GetServerMetadataResponse:
        """RFC 8414 §2. Only the `.well-known` URLs are ever served, and only with `http=True`."""
        return pb.GetServerMetadataResponse(
            issuer=self.issuer,
            token_endpoint=f"{self.issuer}/oauth2/token",
            jwks_uri=f"{self.issuer}/.well-known/jwks.json",
            scopes_supported=SCOPES,
            grant_types_supported=[GRANT],
            token_endpoint_auth_methods_supported=CLIENT_AUTHENTICATION,
            introspection_endpoint=f"{self.issuer}/oauth2/introspect",
            introspection_endpoint_auth_methods_supported=CLIENT_AUTHENTICATION,
            revocation_endpoint=f"{self.issuer}/oauth2/revoke",
            revocation_endpoint_auth_methods_supported=CLIENT_AUTHENTICATION,
            revocations_uri=f"{self.issuer}/.well-known/revocations",
            token_endpoint_auth_signing_alg_values_supported=ASSERTION_ALGORITHMS,
            introspection_endpoint_auth_signing_alg_values_supported=ASSERTION_ALGORITHMS,
            revocation_endpoint_auth_signing_alg_values_supported=ASSERTION_ALGORITHMS,
            service_documentation=f"{self.issuer}/docs",
        )

    def revocations(self) -> str:
        """What WatchTrust's snapshot says, but for the keys, as a signed JWT."""
        issued, head = int(self.clock().timestamp()), self.trust.head
        accounts = self.trust.accounts()
        claims = {
            "iss": self.issuer,
            "iat": issued,
            "exp": issued + int(REVOCATIONS_LIFETIME.total_seconds()),
            "sequence": head.sequence,
            "hash": head.hash.hex(),
            "jtis": self.trust.revoked(),
            "accounts": {each.account_id: REFUSED[each.state] for each in accounts if each.state in REFUSED},
            "epochs": {each.account_id: each.epoch for each in accounts if each.epoch},
        }
        return signed(self.keyring.active.pair, claims, {"typ": REVOCATIONS_TYPE})
