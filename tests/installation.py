"""A whole installation for tests: the real service on real sockets, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import service_account_service_pb2_grpc, token_service_pb2_grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from artstore_grpc import app
from artstore_grpc.settings import Address, Settings
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.telemetry.logs import configured

ANY = Address(host="127.0.0.1", port=0)
START_SECONDS = 30.0


class Clock:
    """The real time, moved by what a test adds."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, by: timedelta) -> None:
        self.offset += by


@dataclass(frozen=True)
class Account:
    """An account that a test made, with its secret."""

    id: str
    client_id: str
    secret: str
    message: accounts_pb.ServiceAccount


class Log(io.TextIOWrapper):
    """What was logged, in memory."""

    def __init__(self) -> None:
        self._held = io.BytesIO()
        super().__init__(self._held, encoding="utf-8", write_through=True)

    def getvalue(self) -> str:
        return self._held.getvalue().decode()


class Installation:
    """A service and what tests ask of it. `log` holds its log lines; `clock` moves its time."""

    def __init__(self, data_dir: Path, sinks: Sinks | None = None, **settings: Any) -> None:
        self._sinks = sinks
        defaults: dict[str, Any] = {
            "data_dir": data_dir,
            "grpc_address": ANY,
            "gateway_address": ANY,
            "metrics_address": ANY,
            "bcrypt_cost": 4,
            "source_failures": 1_000_000,  # tests have one source, and fail often
            "drain_grace": timedelta(seconds=3),
        }
        self.settings = Settings(**(defaults | settings))
        self.clock = Clock()
        self.log = Log()
        self.started: app.Started
        self.administrator: app.Administrator
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Installation:
        self._thread.start()
        assert self._ready.wait(START_SECONDS), "the service did not start"
        if self._failure:
            raise self._failure
        if not self.settings.embedded:
            self.administrator = self.run(app.bootstrap(self.settings))
        elif self.started.administrator:
            self.administrator = self.started.administrator
        self.channel = grpc.insecure_channel(str(self.started.grpc_address))
        self.tokens = token_service_pb2_grpc.TokenServiceStub(self.channel)
        self.accounts = service_account_service_pb2_grpc.ServiceAccountServiceStub(self.channel)
        return self

    def __exit__(self, *exc: object) -> None:
        self.channel.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive(), "the service did not stop"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self._failure = failure
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await app.serve(
            self.settings,
            on_started=self._on_started,
            stop=self._stop,
            logger=configured(self.settings.log_level, self.log, sample=self.settings.log_sample),
            now=self.clock,
            sinks=self._sinks,
        )

    def _on_started(self, started: app.Started) -> None:
        self.started = started
        self._ready.set()

    def run(self, work: Any) -> Any:
        """Runs a coroutine in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    @property
    def url(self) -> str:
        """The gateway's."""
        return f"http://{self.started.gateway_address}"

    @property
    def issuer(self) -> str:
        return self.started.issuer

    def token(self, client_id: str, secret: str, *, scope: str = "", audience: tuple[str, ...] = ()) -> str:
        """An access token."""
        request = tokens_pb.IssueTokenRequest(
            grant_type="client_credentials", client_id=client_id, client_secret=secret, scope=scope, audience=audience
        )
        response: tokens_pb.IssueTokenResponse = self.tokens.IssueToken(request)
        return response.access_token

    def bearer(self, client_id: str = "", secret: str = "", *, scope: str = "") -> tuple[tuple[str, str], ...]:
        """Metadata with an account's token for the issuer; the administrator's by default."""
        client_id, secret = client_id or self.administrator.client_id, secret or self.administrator.client_secret
        return (("authorization", f"Bearer {self.token(client_id, secret, scope=scope, audience=(self.issuer,))}"),)

    def account(self, role: str = "user", *, name: str = "", **fields: Any) -> Account:
        """A new account, made by the administrator."""
        message = accounts_pb.ServiceAccount(
            name=name or f"{role} {uuid4().hex[:12]}", role=accounts_pb.Role.Value(f"ROLE_{role.upper()}"), **fields
        )
        request = accounts_pb.CreateServiceAccountRequest(service_account=message)
        made = self.accounts.CreateServiceAccount(request, metadata=self.bearer())
        return Account(
            made.service_account.id, made.service_account.client_id, made.client_secret, made.service_account
        )


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The code and the reason that a call is refused with; fails when it isn't."""
    from google.rpc.status_pb2 import Status

    from artstore_grpc.rpc.status import DETAILS_KEY, unpacked

    try:
        call()
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY, b"")
        info, _, _ = unpacked(Status.FromString(details))
        return error.code(), info.reason if info else ""
    raise AssertionError("the call was not refused")
