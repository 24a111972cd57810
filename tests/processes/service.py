"""The service as operators run it: a process, started by its command, watched by its log, ended by its pid."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import service_account_service_pb2_grpc, token_service_pb2_grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from artstore_grpc import app
from artstore_grpc.installation import Administrator
from artstore_grpc.settings import Settings
from artstore_grpc.vault import new_key

ISSUER = "http://issuer.test"
COMMAND = [sys.executable, "-m", "artstore_grpc.cli.main"]
SERVE = (*COMMAND, "serve")
ANY_PORT = "127.0.0.1:0"
START_SECONDS = 180.0
STOP_SECONDS = 30.0
CALL_SECONDS = 60.0
POLL_SECONDS = 0.01


def until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Asks again and again, and returns the first answer that is true; fails after so many seconds. It looks once more
    when they are over: of two that were paused together the one that waits may be the first to go on."""
    deadline = time.monotonic() + seconds
    over = False
    while not (answer := holds()):
        assert not over, f"after {seconds} s still not: {what}"
        over = time.monotonic() >= deadline
        time.sleep(POLL_SECONDS)
    return answer


@dataclass(frozen=True)
class Installation:
    """What the processes of one installation share: their environment, and who administers it."""

    environment: dict[str, str]
    administrator: Administrator


def install(database_url: str) -> Installation:
    """Bootstraps a migrated database."""
    key = new_key()
    settings = Settings(database_url=database_url, key_encryption_key=key, issuer=ISSUER, bcrypt_cost=4)
    environment = {
        "ARTSTORE_DATABASE_URL": database_url,
        "ARTSTORE_KEY_ENCRYPTION_KEY": key,
        "ARTSTORE_ISSUER": ISSUER,
    }
    return Installation(environment, asyncio.run(app.bootstrap(settings)))


class Service:
    """`artstore-grpc serve` on ports of its own. Started again it is a new process with the same settings."""

    def __init__(self, folder: Path, environment: dict[str, str], command: Sequence[str] = SERVE) -> None:
        self._command = command
        self.log_path = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder
        ports = dict.fromkeys(
            ("ARTSTORE_GRPC_ADDRESS", "ARTSTORE_GATEWAY_ADDRESS", "ARTSTORE_METRICS_ADDRESS"), ANY_PORT
        )
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ARTSTORE_")}
        self.environment = inherited | ports | {"ARTSTORE_BCRYPT_COST": "4"} | environment

    def spawn(self) -> Self:
        """Starts it and waits for nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self.environment,
                cwd=self._folder,
            )
        return self

    def start(self) -> Self:
        """Starts it and waits until it is ready."""
        self.spawn().logged("ready")
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """As the kernel would, out of memory: nothing of it runs any more when this returns."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process is not None
        return self.process.wait(seconds)

    @property
    def errors(self) -> str:
        """Everything it wrote to standard error."""
        return self.log_path.read_text()

    @property
    def said(self) -> list[str]:
        """What it wrote there besides its log: sentences for people."""
        return [line for line in self.errors.splitlines() if not line.startswith("{")]

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its log so far."""
        for line in self.errors.splitlines():
            if line.startswith("{") and line.endswith("}"):
                yield json.loads(line)

    def logged(self, event: str) -> dict[str, Any]:
        """The first log line of an event; waits for it."""

        def found() -> dict[str, Any] | None:
            assert self.running, f"it ended: {self.errors[-2000:]}"
            return next((line for line in self.lines() if line["event"] == event), None)

        line: dict[str, Any] = until(found, START_SECONDS, f"{event} in the log")
        return line

    @property
    def grpc_address(self) -> str:
        return str(self.logged("listening")["grpc"])

    @property
    def gateway_url(self) -> str:
        return f"http://{self.logged('listening')['gateway']}"

    def metrics(self) -> dict[str, float]:
        """Every sample, by its name and labels; fails when the text can't be parsed."""
        with urllib.request.urlopen(
            f"http://{self.logged('listening')['metrics']}/metrics", timeout=CALL_SECONDS
        ) as got:
            text = got.read().decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {f"{s.name}{sorted(s.labels.items()) or ''}": s.value for s in samples}


@dataclass
class Client:
    """What tests ask of a service, over a connection of its own."""

    address: str
    installation: Installation
    channel: grpc.Channel = field(init=False)
    _bearer: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        # A pool of its own: channels to one address otherwise share a connection, and its back-off.
        self.channel = grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])
        self.tokens = token_service_pb2_grpc.TokenServiceStub(self.channel)
        self.accounts = service_account_service_pb2_grpc.ServiceAccountServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def issue(self, client_id: str, secret: str, *audience: str) -> tokens_pb.IssueTokenResponse:
        request = tokens_pb.IssueTokenRequest(
            grant_type="client_credentials", client_id=client_id, client_secret=secret, audience=audience
        )
        issued: tokens_pb.IssueTokenResponse = self.tokens.IssueToken(request, timeout=CALL_SECONDS)
        return issued

    @property
    def bearer(self) -> tuple[tuple[str, str], ...]:
        """Metadata with the administrator's token, got once."""
        if not self._bearer:
            who = self.installation.administrator
            token = self.issue(who.client_id, who.client_secret, ISSUER).access_token
            self._bearer = (("authorization", f"Bearer {token}"),)
        return self._bearer

    def create(self, name: str, request_id: str = "") -> accounts_pb.CreateServiceAccountResponse:
        message = accounts_pb.ServiceAccount(name=name, role=accounts_pb.ROLE_USER)
        request = accounts_pb.CreateServiceAccountRequest(service_account=message, request_id=request_id)
        made: accounts_pb.CreateServiceAccountResponse = self.accounts.CreateServiceAccount(
            request, metadata=self.bearer, timeout=CALL_SECONDS
        )
        return made

    def rotate(self, id: str, request_id: str = "") -> accounts_pb.RotateSecretResponse:
        request = accounts_pb.RotateSecretRequest(id=id, overlap=Duration(seconds=3600), request_id=request_id)
        made: accounts_pb.RotateSecretResponse = self.accounts.RotateSecret(
            request, metadata=self.bearer, timeout=CALL_SECONDS
        )
        return made

    def suspend(self, id: str) -> None:
        request = accounts_pb.SuspendServiceAccountRequest(id=id)
        self.accounts.SuspendServiceAccount(request, metadata=self.bearer, timeout=CALL_SECONDS)

    def introspect(self, token: str) -> tokens_pb.IntrospectTokenResponse:
        who = self.installation.administrator
        request = tokens_pb.IntrospectTokenRequest(
            token=token, client_id=who.client_id, client_secret=who.client_secret
        )
        answer: tokens_pb.IntrospectTokenResponse = self.tokens.IntrospectToken(request, timeout=CALL_SECONDS)
        return answer

    def key_ids(self) -> list[str]:
        answer = self.tokens.GetJsonWebKeySet(tokens_pb.GetJsonWebKeySetRequest(), timeout=CALL_SECONDS)
        return [key.kid for key in answer.keys]

    def serving(self, name: str) -> bool:
        """What a probe would be told."""
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    """The status that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def issued(service: Service) -> float:
    """Tokens that a service has issued since its start."""
    return sum(value for name, value in service.metrics().items() if name.startswith("artstore_tokens_issued_total"))


@contextmanager
def together(services: Sequence[Service]) -> Iterator[None]:
    """Starts them at once; within, all are ready; afterwards none runs."""
    with ExitStack() as stack:
        for service in services:
            stack.callback(service.kill)
            service.spawn()
        for service in services:
            service.logged("ready")
        yield


@contextmanager
def replicas(folder: Path, environment: dict[str, str], count: int) -> Iterator[list[Service]]:
    """So many processes of one installation, ready."""
    services = [Service(folder / str(number), environment) for number in range(count)]
    with together(services):
        yield services
