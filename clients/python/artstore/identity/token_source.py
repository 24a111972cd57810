"""Access tokens for whoever calls: got, kept, and replaced before they expire; `TokenSource` for asyncio and
`SyncTokenSource` for threads.

What is decided is in token_cache.py, and what is asked in exchanges.py; here is who waits for whom. Where the provider
is a place that can be written (a credentials file, a Kubernetes Secret), a source also has the secret replaced before
it expires (self_rotation.py); that runs beside, and never in a caller's way.

Neither survives a fork, as gRPC doesn't: make the source in the child (in Celery: on `worker_process_init`). One that
was used before a fork says so, in place of waiting for threads that are not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

import grpc
from artstore.identity.assertions import KeyText
from artstore.identity.channels import Place
from artstore.identity.clocks import steady_seconds
from artstore.identity.connection import DEFAULT_TIMEOUT
from artstore.identity.credentials import (
    Credentials,
    CredentialsError,
    CredentialsProvider,
    StaticCredentials,
    static,
)
from artstore.identity.credentials_document import CredentialsStore
from artstore.identity.discovered_channel import DiscoveredChannel, SyncDiscovered
from artstore.identity.discovery import Discovery
from artstore.identity.errors import IdentityError
from artstore.identity.exchanges import Exchanges, Issued
from artstore.identity.load_balancing import LoadBalancing
from artstore.identity.self_rotation import SelfRotation, SelfRotationPolicy
from artstore.identity.steps import AsyncCarrier, Closed, FixedChannel, SyncCarrier, stubs
from artstore.identity.token_cache import Look, TokenCache, Wanted, repeated, wanted

LOGGER = logging.getLogger("artstore.identity")

ATTEMPT_FRACTION = 0.5
"""How much of a caller's timeout one request may take: a connection that is dead leaves time for another."""


class Source:
    """What both kinds of source have: the cache, and how it is filled. Not to be used itself."""

    def __init__(
        self,
        target: str = "",
        *,
        discovery: Discovery | None = None,
        credentials: CredentialsProvider | Credentials | None = None,
        client_id: str = "",
        client_secret: str = "",
        private_key: KeyText | None = None,
        issuer: str = "",
        timeout: timedelta = DEFAULT_TIMEOUT,
        channel_credentials: grpc.ChannelCredentials | None = None,
        load_balancing: LoadBalancing | None = None,
        rotation: SelfRotationPolicy | None = None,
        clock: Callable[[], float] = steady_seconds,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Callable[[], float] = random.random,
    ) -> None:
        """Tokens from the service at `target`, a gRPC name such as `127.0.0.1:50051`, or from one of the replicas that
        a `discovery` names; nothing is done before the first one is asked for.

        `credentials` says by what: a provider such as `CredentialsFile(path)`, or fixed ones; in their place
        `client_id` with `client_secret` or `private_key` may be given, and `issuer`, as `Client` has them. `timeout` is
        the longest that a caller waits for its first token; one request takes at most half of it.
        `channel_credentials` are for TLS; None is plain text. With a client certificate in them `client_id` alone will
        do for an account that is authenticated by it (RFC 8705 §2.1). `load_balancing` says how soon a connection is
        tried again; one of the addresses is used, chosen at random. `rotation` is how secrets are replaced where the
        provider can be written. `clock`, `now` and `random` are for tests. Raises ValueError.
        """
        given = client_id or client_secret or private_key is not None
        if bool(given) == (credentials is not None):
            raise ValueError("give credentials, or client_id with client_secret or private_key.")
        if timeout <= timedelta(0):
            raise ValueError("timeout must be positive.")
        if credentials is None:
            by_certificate = channel_credentials is not None and not client_secret and private_key is None
            credentials = static(client_id, client_secret, private_key, issuer, by_certificate=by_certificate)
        elif isinstance(credentials, Credentials):
            credentials = StaticCredentials(credentials)
        self.place = Place(target, discovery, channel_credentials, load_balancing)
        """Where the service is."""
        self.timeout = timeout
        """The longest that a caller waits, unless it says otherwise."""
        self.rotation: SelfRotation | None = None
        """How the rotation of the secret is going; None where the provider can't be written."""
        self._provider = credentials
        self._clock = clock
        self._cache = TokenCache(random)
        self._exchanges = Exchanges()
        self._process: int | None = None
        self._set_up()
        if isinstance(credentials, CredentialsStore) and getattr(credentials, "rotates", True):
            self.rotation = SelfRotation(
                credentials, self._exchanges, rotation or SelfRotationPolicy(), random=random, now=now
            )

    def _set_up(self) -> None:
        """What a kind of source needs besides."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.place)!r})"

    @property
    def target(self) -> str:
        """As it was given; empty where a discovery was."""
        return self.place.target

    def invalidate(self, token: str) -> bool:
        """Forgets a token that a resource server refused (401, UNAUTHENTICATED), so that the next caller gets a new
        one. False where it isn't held any more, or is so new that another would be refused as well. From any
        thread."""
        return self._cache.invalidate(token, self._clock())

    def held(self, *, scope: str = "", audience: str | Iterable[str] = ()) -> str:
        """The token that is held and needs no refresh yet; else an empty string. From any thread, without waiting."""
        return self._cache.live(wanted(scope, audience), self._clock())

    def _deadline(self, timeout: timedelta | None) -> float:
        return self._clock() + (self.timeout if timeout is None else timeout).total_seconds()

    def _same_process(self) -> None:
        if self._process is None:
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise RuntimeError("This token source was used before a fork: make one in the child process.")

    def _rotation(self) -> SelfRotation:
        if self.rotation is None:
            raise ValueError("These credentials can't be written: use CredentialsFile or KubernetesSecret.")
        return self.rotation

    def _landed(self, what: Wanted, started: float, came: Issued | Exception) -> None:
        """A request for a token that began at `started` has ended: the cache is told."""
        if isinstance(came, Exception):
            if not isinstance(came, Closed):
                LOGGER.warning("no access token: %s", came)
            # As another object: the frames of this one hold the credentials, and reporters of errors show frames.
            self._cache.failed(what, self._clock(), repeated(came))
            return
        if self.rotation is not None:
            self.rotation.note(came)
        self._cache.succeeded(what, started, self._clock(), came.answer.access_token, came.answer.expires_in)


class TokenSource(Source):
    """Access tokens for asyncio, for as many callers as there are.

    async with TokenSource("127.0.0.1:50051", credentials=CredentialsFile(path)) as source:
        token = await source.token()

    It belongs to the event loop that first uses it. Without `async with`, close it before the loop ends.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _carrier: AsyncCarrier
    _channel: grpc.aio.Channel

    def _set_up(self) -> None:
        self._flights: set[asyncio.Task[None]] = set()
        self._landings: dict[Wanted, asyncio.Event] = {}
        self._rotating: asyncio.Task[None] | None = None
        self._closed = False

    async def token(
        self,
        *,
        scope: str = "",
        audience: str | Iterable[str] = (),
        timeout: timedelta | None = None,  # noqa: ASYNC109  # the caller's, which may be over while the request goes on
    ) -> str:
        """An access token for at least some seconds more; at once while one is live, else after one request.

        `scope` is space-delimited (RFC 6749 §3.3), empty for all that the account has; `audience` one or several, empty
        for the service's default one. Waits at most `timeout`, by default the source's. Raises InvalidClient,
        InvalidScope, InvalidTarget, PermissionDenied, RateLimited, Unavailable; CredentialsError.
        """
        what = wanted(scope, audience)
        if held := self._cache.live(what, self._clock()):
            return held
        deadline = self._deadline(timeout)
        while True:
            self._open()
            look = self._cache.look(what, self._clock(), deadline)
            if look.fetch:
                self._landings[what] = asyncio.Event()
                self._flights.add(self._start(self._fly(what)))
            if look.token:
                return look.token
            if look.error is not None:
                raise look.error
            await self._wait(what, look)

    async def _wait(self, what: Wanted, look: Look) -> None:
        """Waits for the request that is under way, else until another may begin. Who is cancelled here cancels nobody
        else."""
        seconds = max(look.until - self._clock(), 0.0)
        landing = self._landings.get(what)
        if landing is None:
            await asyncio.sleep(seconds)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await landing.wait()

    async def rotate_secret(self) -> bool:
        """Replaces the secret now, whenever it expires. True once a new one is in the old one's place; False where
        another replica is at it. Raises FailedPrecondition while two secrets are in use, other IdentityErrors,
        CredentialsError; ValueError where the credentials can't be written."""
        self._open()
        try:
            return await self._carrier.carry_out(self._rotation().rotate())
        except (IdentityError, CredentialsError) as error:
            failure = repeated(error)
        raise failure  # outside, so that nothing of the one with the credentials in its frames hangs on it

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way; callers that wait get an error."""
        self._closed = True
        tasks = [task for task in (*self._flights, self._rotating) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for landing in self._landings.values():  # of requests that were cancelled before they began
            landing.set()
        if self._loop is not None:
            await self._channel.close()

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("The token source is closed.")
        self._same_process()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._channel = self.place.open(apart=True)
            self._carrier = AsyncCarrier(self._channel, self.timeout.total_seconds() * ATTEMPT_FRACTION)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("A TokenSource belongs to one event loop: make one for each, or use SyncTokenSource.")

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # A context of its own: the request is everybody's, not the first caller's.
        return asyncio.get_running_loop().create_task(work, context=Context())

    async def _fly(self, what: Wanted) -> None:
        started = self._clock()
        came: Issued | Exception = Closed("The token source was closed.")  # where this is cancelled
        try:
            if isinstance(self._channel, DiscoveredChannel):
                await self._channel.known()
            came = await self._carrier.carry_out(self._exchanges.token(self._provider, what))
        except Exception as error:  # whatever it is, those who wait are told
            came = error
        finally:
            self._landed(what, started, came)
            self._landings.pop(what).set()
            self._flights.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if self.rotation is not None and self._rotating is None and not self._closed:
            self._rotating = self._start(self._carrier.carry_out(self.rotation.keep_fresh()))


class SyncTokenSource(Source):
    """Access tokens for threads; needs no event loop.

    with SyncTokenSource("127.0.0.1:50051", credentials=CredentialsFile(path)) as source:
        token = source.token()

    Requests are made by daemon threads, so that a caller waits no longer than it wants to. Safe to be called from any
    thread, and to be left open when the program ends.
    """

    _carrier: SyncCarrier | None = None
    _channel: FixedChannel | SyncDiscovered

    def _set_up(self) -> None:
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._rotating = False

    def token(self, *, scope: str = "", audience: str | Iterable[str] = (), timeout: timedelta | None = None) -> str:
        """As `TokenSource.token`."""
        what = wanted(scope, audience)
        if held := self._cache.live(what, self._clock()):
            return held
        self._same_process()
        deadline = self._deadline(timeout)
        with self._changed:
            while True:
                self._open()
                look = self._cache.look(what, self._clock(), deadline)
                if look.fetch:
                    self._launch(what)
                if look.token:
                    return look.token
                if look.error is not None:
                    raise look.error
                self._changed.wait(max(look.until - self._clock(), 0.0))

    def rotate_secret(self) -> bool:
        """As `TokenSource.rotate_secret`."""
        self._same_process()
        with self._changed:
            carrier = self._open()
        try:
            return carrier.carry_out(self._rotation().rotate())
        except (IdentityError, CredentialsError) as error:
            failure = repeated(error)
        raise failure  # as above

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is under way; callers that wait get an error."""
        self._closed.set()
        with self._changed:
            if self._carrier is not None:
                self._channel.close()
            self._changed.notify_all()

    def _open(self) -> SyncCarrier:
        if self._closed.is_set():
            raise RuntimeError("The token source is closed.")
        if self._carrier is None:
            self._channel = self._channels()
            self._carrier = SyncCarrier(self._channel, self.timeout.total_seconds() * ATTEMPT_FRACTION, self._closed)
        return self._carrier

    def _channels(self) -> FixedChannel | SyncDiscovered:
        if self.place.discovery is None:
            return FixedChannel(self.place.open_sync(self.place.target))
        return SyncDiscovered(self.place.discovery, self.place.open_sync, stubs)

    def _launch(self, what: Wanted) -> None:
        try:
            self._start(self._fly, what)
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._landed(what, self._clock(), error)

    @staticmethod
    def _start(work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, name="artstore-token-source", daemon=True).start()

    def _fly(self, what: Wanted) -> None:
        assert self._carrier is not None
        started = self._clock()
        came: Issued | Exception
        try:
            came = self._carrier.carry_out(self._exchanges.token(self._provider, what))
        except Exception as error:  # whatever it is, those who wait are told
            came = error
        with self._changed:
            self._landed(what, started, came)
            self._changed.notify_all()
            if self.rotation is not None and not self._rotating and not self._closed.is_set():
                with contextlib.suppress(RuntimeError):  # as above; the next request tries it again
                    self._start(self._keep_fresh, self._carrier, self.rotation)
                    self._rotating = True

    @staticmethod
    def _keep_fresh(carrier: SyncCarrier, rotation: SelfRotation) -> None:
        with contextlib.suppress(Closed):
            carrier.carry_out(rotation.keep_fresh())
