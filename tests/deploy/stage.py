"""Replicas of one installation on a PostgreSQL and a Redis of their own, and traffic of every sort for them.

What the dashboards draw is made here by real calls: tokens by each kind of client authentication, refusals, changes of
accounts, secrets and keys, imports, deliveries that succeed and fail, verifiers that follow the feed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import grpc
from artstore.identity.v1 import key_service_pb2, key_service_pb2_grpc
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf.timestamp_pb2 import Timestamp

from artstore_grpc.store.schema import upgrade
from tests.processes.service import CALL_SECONDS, ISSUER, Client, Installation, Service, install, until
from tests.servers import Postgres, Redis
from tests.signers import ASSERTION_TYPE, Signer

Account = tuple[str, str, str]
"""An account's id, client_id and secret."""
GRANT = "client_credentials"
MUCH = 1_000_000
"""A rate limit that no load here reaches."""
START_SECONDS = 180.0
"""Three processes at once, on a busy machine."""
STOP_SECONDS = 60.0


@dataclass(repr=False)
class Stage:
    """What runs, and who calls it."""

    postgres: Postgres
    redis: Redis
    services: list[Service]
    clients: list[Client]
    accounts: list[Account] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    _number: int = 0

    @property
    def targets(self) -> list[str]:
        """Where Prometheus reads the metrics."""
        return [str(service.logged("listening")["metrics"]) for service in self.services]

    def bearers(self, client: Client) -> None:
        """Has a client get its token before threads share it."""
        assert client.bearer

    def client(self) -> Client:
        return random.choice(self.clients)

    def prepare(self) -> None:
        """Makes the accounts, and what happens once: imports, secrets about to expire, deliveries, another key."""
        first = self.clients[0]
        self.accounts += [self.make(accounts_pb.ServiceAccount(rate_limit=MUCH)) for _ in range(6)]
        self.keyed = self.make(
            accounts_pb.ServiceAccount(public_keys=[Signer().public], rate_limit=MUCH), without_secret=True
        )
        self.limited = self.make(accounts_pb.ServiceAccount(rate_limit=1))
        self.managed = self.make(managed())
        self.bring_over()
        keys = key_service_pb2_grpc.KeyServiceStub(first.channel)
        keys.RotateSigningKey(key_service_pb2.RotateSigningKeyRequest(), metadata=first.bearer, timeout=CALL_SECONDS)

    def make(self, account: accounts_pb.ServiceAccount, *, without_secret: bool = False) -> Account:
        """An account as described, with a name of its own."""
        self._number += 1
        account.name, account.role = f"made {self._number}", accounts_pb.ROLE_USER
        request = accounts_pb.CreateServiceAccountRequest(service_account=account, without_secret=without_secret)
        client = self.clients[0]
        made = client.accounts.CreateServiceAccount(request, metadata=client.bearer, timeout=CALL_SECONDS)
        return made.service_account.id, made.service_account.client_id, made.client_secret

    def bring_over(self) -> None:
        """Imports accounts whose secrets expire within days, and one whose secret expires within seconds; twice, so
        that the second finds them unchanged."""
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
        now = datetime.now(UTC)
        entries = []
        for number, left in enumerate((timedelta(days=2), timedelta(days=5), timedelta(seconds=10))):
            ends = Timestamp()
            ends.FromDatetime(now + left)
            account = accounts_pb.ServiceAccount(name=f"imported {number}", role=accounts_pb.ROLE_USER)
            entries.append(
                accounts_pb.ImportedServiceAccount(
                    service_account=account, client_id=f"old-{number}", secret_hash=hashed, secret_expire_time=ends
                )
            )
        entries.append(accounts_pb.ImportedServiceAccount(service_account=accounts_pb.ServiceAccount(name="x")))
        client = self.clients[0]
        for _ in range(2):
            client.accounts.ImportServiceAccounts(
                accounts_pb.ImportServiceAccountsRequest(service_accounts=entries),
                metadata=client.bearer,
                timeout=CALL_SECONDS,
            )

    def deliver(self) -> None:
        """Has a managed secret rotated: the service delivers it to its sink."""
        self.client().rotate(self.managed[0])

    # One round of each sort; a refusal is what most of the second half is for.

    def tokens(self) -> None:
        """Tokens by each kind of client authentication, at each door."""
        client = self.client()
        _, client_id, secret = random.choice(self.accounts)
        client.issue(client_id, secret)
        basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        client.tokens.IssueToken(
            tokens_pb.IssueTokenRequest(grant_type=GRANT),
            metadata=(("authorization", f"Basic {basic}"),),
            timeout=CALL_SECONDS,
        )
        self.form(client_id=client_id, client_secret=secret)
        client.tokens.IssueToken(
            tokens_pb.IssueTokenRequest(
                grant_type=GRANT,
                client_assertion_type=ASSERTION_TYPE,
                client_assertion=Signer().assertion(self.keyed[1], ISSUER),
            ),
            timeout=CALL_SECONDS,
        )

    def form(self, **fields: str) -> None:
        """A token by the REST gateway."""
        url = random.choice(self.services).gateway_url
        body = urllib.parse.urlencode({"grant_type": GRANT} | fields).encode()
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/oauth2/token", body, timeout=CALL_SECONDS).close()

    def refusals(self) -> None:
        """What callers get wrong."""
        client = self.client()
        _, client_id, secret = random.choice(self.accounts)
        request = tokens_pb.IssueTokenRequest(grant_type=GRANT, client_id=client_id, client_secret=secret)
        wrong = (
            {"client_secret": secret[:-4] + "AAAA"},
            {"client_id": "sa_dev_nobody_00000000"},
            {"scope": "identity.keys.write"},
            {"audience": ["nowhere"]},
            {"grant_type": "password"},
        )
        for change in wrong:
            asked = tokens_pb.IssueTokenRequest()
            asked.CopyFrom(request)
            asked.MergeFrom(tokens_pb.IssueTokenRequest(**change))
            refused(lambda asked=asked: client.tokens.IssueToken(asked, timeout=CALL_SECONDS))
        refused(lambda: client.issue(self.limited[1], self.limited[2]))
        self.form(client_id=client_id, client_secret="wrong")
        listing = accounts_pb.ListServiceAccountsRequest()
        refused(
            lambda: client.accounts.ListServiceAccounts(
                listing, metadata=(("authorization", "Bearer nonsense"),), timeout=CALL_SECONDS
            )
        )

    def changes(self) -> None:
        """What administrators do."""
        client = self.client()
        account_id, client_id, secret = self.make(accounts_pb.ServiceAccount())
        token = client.issue(client_id, secret).access_token
        client.introspect(token)
        client.rotate(account_id)
        revoke = tokens_pb.RevokeTokenRequest(token=token, client_id=client_id, client_secret=secret)
        client.tokens.RevokeToken(revoke, timeout=CALL_SECONDS)
        client.suspend(account_id)
        client.key_ids()
        client.accounts.ListServiceAccounts(
            accounts_pb.ListServiceAccountsRequest(page_size=5), metadata=client.bearer, timeout=CALL_SECONDS
        )

    def follow(self, client: Client) -> None:
        """A verifier's feed, until the end."""
        feed = client.tokens.WatchTrust(tokens_pb.WatchTrustRequest(), metadata=client.bearer)
        with suppress(grpc.RpcError):
            for _ in feed:
                if self.ended.is_set():
                    feed.cancel()

    def every(self, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        """Work that is done again and again until the end, whatever becomes of it."""

        def run() -> None:
            while not self.ended.wait(seconds):
                refused(work)

        return run

    @contextmanager
    def busy(self, works: Sequence[Callable[[], None]]) -> Iterator[None]:
        """Threads that work meanwhile."""
        threads = [threading.Thread(target=each, daemon=True) for each in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ended.set()
            for thread in threads:
                thread.join(CALL_SECONDS)


def refused(call: Callable[[], object]) -> None:
    """A call that may be."""
    with suppress(grpc.RpcError, OSError):
        call()


def managed() -> accounts_pb.ServiceAccount:
    """An account whose secret the service rotates."""
    policy = accounts_pb.RotationPolicy(mode=accounts_pb.ROTATION_MODE_MANAGED, schedule="0 3 * * 1", sink="disk")
    return accounts_pb.ServiceAccount(rotation_policy=policy)


@contextmanager
def staged(folder: Path, environment: dict[str, str] | None = None) -> Iterator[Stage]:
    """Two replicas, ready and prepared: one is one process, the other has two workers."""
    with ExitStack() as stack:
        postgres, redis = stack.enter_context(Postgres()), stack.enter_context(Redis())
        url = postgres.url()
        asyncio.run(upgrade(url))
        made = install(url)
        sink = folder / "delivered"
        sink.mkdir(mode=0o700)
        sinks = folder / "sinks.json"
        sinks.write_text(json.dumps({"sinks": {"disk": {"kind": "files", "folder": str(sink)}}}))
        settings = {"ARTSTORE_REDIS_URL": redis.url(), "ARTSTORE_SINKS_FILE": str(sinks), "ARTSTORE_JWKS_MAX_AGE": "5"}
        installation = Installation(made.environment | settings | (environment or {}), made.administrator)
        services = [
            Service(folder / "one", installation.environment),
            Service(folder / "several", installation.environment | {"ARTSTORE_WORKERS": "2"}),
        ]
        for service in services:
            stack.callback(stopped, service)
            service.spawn()
        for service in services:
            until(lambda service=service: ready(service), START_SECONDS, f"ready: {service.errors[-2000:]}")
        clients = [stack.enter_context(Client(each.grpc_address, installation)) for each in services]
        stage = Stage(postgres, redis, services, clients)
        stack.callback(stage.ended.set)
        stage.prepare()
        yield stage


def ready(service: Service) -> bool:
    assert service.running, service.errors[-2000:]
    return any(line["event"] == "ready" for line in service.lines())


def stopped(service: Service) -> None:
    """In order, so that its workers end too."""
    if service.running:
        service.terminate()
        service.wait(STOP_SECONDS)
