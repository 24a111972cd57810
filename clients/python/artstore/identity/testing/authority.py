"""`FakeAuthority`: what a test holds in its hands."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

import grpc
from artstore.identity.errors import IdentityError
from artstore.identity.testing.accounts import Account
from artstore.identity.testing.clock import Clock
from artstore.identity.testing.faults import Faults
from artstore.identity.testing.keys import ALGORITHMS, BadToken
from artstore.identity.testing.methods import NAMES
from artstore.identity.testing.parts import Parts
from artstore.identity.testing.rotation import DEFAULT_OVERLAP
from artstore.identity.testing.server import Server
from artstore.identity.testing.web import JWKS_PATH, Web
from artstore.identity.v1 import service_account_service_pb2 as pb

UNLIMITED = 1_000_000
"""The rate limit of accounts that a test makes without one, so that no test meets a limit that it didn't ask for."""


@dataclass(frozen=True)
class FakeAccount:
    """An account, and the secret that it was made with or that a rotation gave it. `repr` hides the secret."""

    id: str
    client_id: str
    client_secret: str = field(repr=False)


class FakeAuthority:
    """An authority for tests, on a loopback port that the system chooses: `async with` and `with` both start it.

    Its methods are plain calls, for tests with an event loop and without, from any thread.

    with FakeAuthority() as authority:
        account = authority.account()
        …  Client(authority.target, client_id=account.client_id, client_secret=account.client_secret)
    """

    def __init__(
        self,
        *,
        issuer: str = "",
        audience: str = "artstore",
        algorithm: str = "RS256",
        token_lifetime: timedelta = timedelta(minutes=30),
        jwks_max_age: timedelta = timedelta(minutes=5),
        http: bool = False,
        server_credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """`issuer`: empty gives each authority its own, with `http` the URL under which verifiers find its keys.
        `audience` is the default one. `algorithm` signs tokens: RS256, RS384, RS512, PS256, ES256 or EdDSA; the last
        two make their keys at once. `http` also serves the key set, the metadata and the revocations by HTTP.
        `server_credentials` (TLS); None is plain text. Raises ValueError for another algorithm, and for a lifetime of
        under a second."""
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}.")
        if token_lifetime < timedelta(seconds=1):
            raise ValueError("token_lifetime must be a second or more.")
        self._settings: dict[str, Any] = {
            "audience": audience,
            "algorithm": algorithm,
            "token_lifetime": token_lifetime,
            "jwks_max_age": jwks_max_age,
        }
        self._issuer = issuer
        self._http = http
        self._credentials = server_credentials
        self._running: Running | None = None

    def __enter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("The authority is running.")
        web = Web() if self._http else None
        issuer = self._issuer or (web.url if web else f"http://{uuid4().hex[:12]}.authority.test")
        try:
            self._running = Running(Parts(issuer=issuer, **self._settings), web, self._credentials)
        except BaseException:
            if web is not None:
                web.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        running, self._running = self._live, None
        running.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.__exit__)

    @property
    def _live(self) -> Running:
        if self._running is None:
            raise RuntimeError("The authority is not running: use `with FakeAuthority() as authority`.")
        return self._running

    @property
    def _parts(self) -> Parts:
        return self._live.parts

    # Where it is

    @property
    def target(self) -> str:
        """Where it listens, as gRPC names it: `127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._live.server.port}"

    @property
    def issuer(self) -> str:
        """`iss` in its tokens, and the audience of tokens that administer it."""
        return self._parts.issuer

    @property
    def audience(self) -> str:
        """The audience of tokens for which none was asked."""
        return self._parts.audience

    @property
    def jwks_url(self) -> str:
        """Where the key set is served. Raises RuntimeError without `http=True`."""
        web = self._live.web
        if web is None:
            raise RuntimeError("Nothing is served by HTTP: use FakeAuthority(http=True).")
        return web.url + JWKS_PATH

    @property
    def clock(self) -> Clock:
        """Its clock; verifiers have their own."""
        return self._parts.clock

    # Accounts

    def account(
        self,
        name: str = "",
        role: str = "user",
        *,
        scopes: Iterable[str] = (),
        audiences: Iterable[str] = (),
        rate_limit: int = UNLIMITED,
        served_audiences: Iterable[str] = (),
        introspection_only: bool = False,
        public_keys: Iterable[pb.PublicKey] = (),
    ) -> FakeAccount:
        """A new account with a secret. `role` is admin, user, auditor or readonly; `scopes` empty: all of the role's;
        `rate_limit` in calls a minute. Raises IdentityError as CreateServiceAccount does."""
        message = pb.ServiceAccount(
            name=name or f"account {uuid4().hex[:12]}",
            role=pb.Role.Value(f"ROLE_{role.upper()}"),
            rate_limit=rate_limit,
            scopes=scopes,
            audiences=audiences,
            served_audiences=served_audiences,
            introspection_only=introspection_only,
            public_keys=public_keys,
        )
        with self._parts.changed:
            made = self._parts.accounts.drafted(message)
            self._parts.accounts.add(made)
        return FakeAccount(made.id, made.client_id, made.secrets[0].text)

    def suspend(self, account: FakeAccount | str) -> None:
        """Suspends an account; as all of these it takes the account, its id or its client_id."""
        with self._parts.changed:
            self._parts.suspend(self._found(account))

    def activate(self, account: FakeAccount | str) -> None:
        """Ends a suspension."""
        with self._parts.changed:
            self._parts.accounts.activate(self._found(account))

    def delete(self, account: FakeAccount | str) -> None:
        """Deletes an account."""
        with self._parts.changed:
            self._parts.delete(self._found(account))

    def rotate_secret(
        self, account: FakeAccount | str, *, overlap: timedelta = DEFAULT_OVERLAP, revoke_tokens: bool = False
    ) -> FakeAccount:
        """A new secret; the old one lives on for `overlap`, and with `revoke_tokens` no token of before. Raises
        IdentityError with two in use."""
        with self._parts.changed:
            found = self._found(account)
            secret, _ = self._parts.rotation.rotated(found, overlap, revoke_tokens=revoke_tokens)
        return FakeAccount(found.id, found.client_id, secret.text)

    def expire_secret(self, account: FakeAccount | str) -> None:
        """Has every secret of an account expire now."""
        with self._parts.changed:
            found = self._found(account)
            for secret in found.secrets:
                secret.expire_time = min(secret.expire_time, self.clock())
            self._parts.accounts.save(found)

    def _found(self, account: FakeAccount | str) -> Account:
        return self._parts.accounts.get(account if isinstance(account, str) else account.id)

    # Tokens

    def token(
        self,
        account: FakeAccount | str,
        *,
        scope: str | None = None,
        audience: str | Iterable[str] = (),
        lifetime: timedelta | None = None,
        foreign: bool = False,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        """A token without a call, for which nothing is checked. `scope` None: all that the account has. A `lifetime` of
        0 or less: it has expired so long ago. `foreign`: by a key that this authority doesn't have. `claims` and
        `header` replace what it says, and what is None there is left out; `header={"kid": authority.kid}` puts the real
        key's name on a foreign signature."""
        audiences = (audience,) if isinstance(audience, str) else tuple(audience)
        with self._parts.changed:
            return self._parts.tokens.mint(
                self._found(account),
                scope=scope,
                audience=audiences,
                lifetime=lifetime,
                foreign=foreign,
                claims=claims or {},
                header=header or {},
            )

    def revoke(self, token: str) -> None:
        """Revokes a token. Raises ValueError for one that isn't a live one of this authority."""
        with self._parts.changed:
            try:
                claims = self._parts.keyring.verify(token)
            except BadToken as error:
                raise ValueError(f"This is no live token of this authority: {error}") from None
            self._parts.tokens.end(claims)

    # Keys

    @property
    def kid(self) -> str:
        """The key that signs."""
        with self._parts.changed:
            return self._parts.keyring.active.kid

    def rotate_key(self) -> str:
        """Has a new key sign from now on, and says its `kid`; what the old one signed stays good. At the service the
        new key would have been published for a while."""
        with self._parts.changed:
            return self._parts.keyring.rotate().kid

    def revoke_key(self, kid: str) -> None:
        """Ends a key and all that it signed. Raises KeyError for one that isn't published."""
        with self._parts.changed:
            self._parts.keyring.revoke(kid)

    # What goes wrong, and what was asked

    @property
    def calls(self) -> Counter[str]:
        """How often each method was called, by its name as in `IssueToken`; with `http` also each path."""
        return self._live.faults.calls

    @property
    def denials(self) -> Mapping[str, str]:
        """Why an authentication was denied, by the `denial_id` of the error."""
        return self._live.server.denials

    def down(self) -> None:
        """Answers every call UNAVAILABLE, as if nobody were there, and ends every stream."""
        self._live.faults.down = True
        self._parts.wake()

    def up(self) -> None:
        """Ends what `down` began."""
        self._live.faults.down = False

    @property
    def delay(self) -> timedelta:
        """How long each call waits before it is looked at, by the real clock."""
        return self._live.faults.delay

    @delay.setter
    def delay(self, delay: timedelta) -> None:
        self._live.faults.delay = delay

    def fail_next(
        self, method: str, error: IdentityError | type[IdentityError] | grpc.StatusCode, *, times: int = 1
    ) -> None:
        """Has the next `times` calls of a method fail, with an error of `artstore.identity`, one of its classes, or a
        bare code as proxies give. Raises ValueError for a method that the API doesn't have."""
        self._live.faults.plan(method, error, times)


class Running:
    """What runs while an authority does."""

    def __init__(self, parts: Parts, web: Web | None, credentials: grpc.ServerCredentials | None) -> None:
        self.parts = parts
        self.web = web
        self.faults = Faults(NAMES, parts.changed)
        self.server = Server(parts, self.faults, credentials)
        parts.keyring.rotate()
        self.server.start()
        if web is not None:
            web.start(parts, self.faults)

    def stop(self) -> None:
        self.server.stop()
        if self.web is not None:
            self.web.stop()
        self.parts.keyring.give_back()
