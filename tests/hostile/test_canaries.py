"""Secrets planted through every door, and searched for in everything that the service says, writes and keeps."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import sqlite3
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import bcrypt
import grpc
import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from artstore_grpc import app
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.vault import Vault, new_key
from tests.installation import Account, Installation
from tests.roots import opened_root
from tests.servers import Postgres

GRANT = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ISSUER = "https://identity.test"


class Talkative(Installation):
    """An installation that logs all it can, other libraries' loggers included."""

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        handler = logging.StreamHandler(self.log)
        logging.getLogger().addHandler(handler)
        try:
            await app.serve(
                self.settings,
                on_started=self._on_started,
                stop=self._stop,
                logger=configured("debug", self.log),
                now=self.clock,
            )
        finally:
            logging.getLogger().removeHandler(handler)


class Plot:
    """The planted secrets by name, and everything the service answered to them."""

    def __init__(self, service: Installation) -> None:
        self.service = service
        self.secrets: dict[str, bytes] = {"administrator's secret": service.administrator.client_secret.encode()}
        self.answers: list[bytes] = []

    def plant(self, name: str, value: str | bytes) -> str | bytes:
        self.secrets[f"{name} {len(self.secrets)}"] = value.encode() if isinstance(value, str) else value
        return value

    def planted_account(self, **fields: Any) -> Account:
        made = self.service.account("user", **fields)
        self.plant("client_secret", made.secret)
        return made

    def refused(self, call: Any) -> None:
        """Keeps what a failing call is told."""
        try:
            call()
        except grpc.RpcError as error:
            self.answers.append(repr((error, error.trailing_metadata())).encode())
            self.answers.extend(bytes(v) for _, v in error.trailing_metadata() or () if isinstance(v, bytes))

    def http(self, method: str, path: str, **request: Any) -> None:
        """Keeps what a failing request is told."""
        answer = httpx.request(method, self.service.url + path, timeout=10, **request)
        assert answer.status_code >= 400, answer.text
        self.answers.append(answer.content + repr(answer.headers.raw).encode())

    def said(self) -> bytes:
        """Everything that leaves the service: log, errors, metrics, health."""
        metrics = httpx.get(f"http://{self.service.started.metrics_address}/metrics").content
        health = httpx.get(f"{self.service.url}/health/ready").content
        return b"\n".join([self.service.log.getvalue().encode(), metrics, health, *self.answers])


def spellings(secret: bytes) -> Iterator[bytes]:
    """A secret as it may look in a text."""
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield urllib.parse.quote(secret).encode()
    yield repr(secret)[2:-1].encode()
    yield json.dumps(secret.decode("latin-1"))[1:-1].encode()


def found(secrets: dict[str, bytes], text: bytes) -> list[str]:
    """The names of the secrets that are in a text in any spelling."""
    return [name for name, secret in secrets.items() if any(form in text for form in spellings(secret))]


def assert_silent(plot: Plot, text: bytes) -> None:
    """No planted secret is in a text, nor any bcrypt hash at all: that of a refused row is stored nowhere."""
    assert not found(plot.secrets, text)
    assert not re.findall(rb".{60}\$2[aby]\$", text)


def use_everything(plot: Plot) -> None:
    """Passes secrets through every method that takes one, succeeding and failing, by both doors."""
    service, first, second = plot.service, plot.planted_account(), plot.planted_account()
    token = service.token(first.client_id, first.secret)
    bearer = service.bearer()
    plot.plant("token", token)
    plot.plant("administrator's token", bearer[0][1].removeprefix("Bearer "))
    import_another(plot, bearer)
    wrong = f"{first.secret[:-1]}{'A' if first.secret[-1] != 'A' else 'B'}"
    plot.plant("wrong secret", wrong)
    plot.plant("strange secret", "canary secret \x01 é")
    plot.plant("assertion", "eyJhbGciOiJSUzI1NiJ9.Y2FuYXJ5.assertion-canary")
    request_id = str(uuid.uuid4())
    plot.plant("request_id", request_id)
    for secret in (wrong, second.secret, "canary secret \x01 é"):
        plot.refused(lambda secret=secret: service.token(first.client_id, secret))
        plot.http("POST", "/oauth2/token", data={"grant_type": GRANT}, auth=(first.client_id, secret))
        plot.http("POST", "/oauth2/token", data={"grant_type": GRANT, "client_id": "a", "client_secret": secret})
    assertion = {
        "client_assertion": "eyJhbGciOiJSUzI1NiJ9.Y2FuYXJ5.assertion-canary",
        "client_assertion_type": JWT_BEARER,
    }
    plot.http("POST", "/oauth2/token", data={"grant_type": GRANT, **assertion})
    plot.refused(lambda: service.tokens.IssueToken(tokens_pb.IssueTokenRequest(grant_type=GRANT, **assertion)))
    plot.http("POST", f"/oauth2/token?client_secret={first.secret}&access_token={token}", data={"grant_type": GRANT})
    plot.http("GET", f"/{first.secret}?token={token}")
    plot.http(
        "GET", f"/api/v1/service-accounts/{first.secret}?request_id={request_id}", headers={"authorization": token}
    )
    for word in ("IntrospectToken", "RevokeToken"):
        message = getattr(tokens_pb, f"{word}Request")(
            token=token, client_id=first.client_id, client_secret=first.secret
        )
        getattr(service.tokens, word)(message)
        message.client_secret = wrong
        plot.refused(lambda word=word, message=message: getattr(service.tokens, word)(message))
    rotated = pb.RotateSecretRequest(id=second.id, request_id=request_id)
    plot.plant("rotated secret", service.accounts.RotateSecret(rotated, metadata=bearer).client_secret)
    service.accounts.RotateSecret(rotated, metadata=bearer)
    rotated.overlap.seconds = 1
    plot.refused(lambda: service.accounts.RotateSecret(rotated, metadata=bearer))
    created = {"name": f"canary {uuid.uuid4()}", "role": "user"}
    request_id = str(uuid.uuid4())
    plot.plant("request_id over HTTP", request_id)
    answer = httpx.post(
        f"{service.url}/api/v1/service-accounts",
        params={"request_id": request_id},
        json=created,
        headers={"authorization": bearer[0][1]},
    )
    plot.plant("secret over HTTP", answer.json()["client_secret"])
    plot.http(
        "POST",
        "/api/v1/service-accounts",
        params={"request_id": request_id},
        json={"name": first.secret, "client_secret": first.secret},
        headers={"authorization": bearer[0][1]},
    )


def import_another(plot: Plot, bearer: tuple[tuple[str, str], ...]) -> None:
    """An account of another system, by its hash, which the database may keep, and by the secret that this is of."""
    service, text, client_id = plot.service, f"canary of old {uuid.uuid4()}", f"old-{uuid.uuid4()}"
    hashed = bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode()
    plot.plant("imported secret", text)
    for number, given in enumerate((hashed, f"{hashed}x")):
        account = pb.ServiceAccount(name=f"{client_id} {number}", role=pb.ROLE_USER)
        asked = pb.ImportedServiceAccount(service_account=account, client_id=f"{client_id}-{number}", secret_hash=given)
        request = pb.ImportServiceAccountsRequest(service_accounts=[asked])
        answer = service.accounts.ImportServiceAccounts(request, metadata=bearer)
        assert answer.results[0].HasField("error") == bool(number)
        assert hashed not in str(answer)
        body = {"service_accounts": [{"client_id": client_id, "secret_hash": given, "secret": text}]}
        plot.http("POST", "/api/v1/service-accounts/import", json=body, headers={"authorization": bearer[0][1]})
    plot.plant("imported client's token", service.token(f"{client_id}-0", text))
    plot.refused(lambda: service.token(f"{client_id}-1", text))


def plant_stored(plot: Plot, secrets: list[tuple[str, bytes]], keys: list[tuple[str, bytes]]) -> None:
    """What the database holds of secrets and keys: hashes, tags, the root key and the parts of private keys."""
    root = asyncio.run(opened_root(plot.service.settings))
    plot.plant("root key", root)
    vault = Vault(root)
    for hashed, tag in secrets:
        plot.plant("hash", hashed)
        if tag:
            plot.plant("tag", bytes(tag))
    for kid, sealed in keys:
        private = json.loads(vault.open(bytes(sealed), "signing key", kid))
        for part in ("d", "p", "q", "dp", "dq", "qi"):
            plot.plant(f"private key's {part}", private[part])
            plot.plant(f"private key's {part} in bytes", base64.urlsafe_b64decode(private[part] + "==="))


SECRETS = "SELECT hash, tag FROM secrets"
KEYS = "SELECT kid, sealed FROM signing_keys"
DETAILS = "SELECT sequence || actor || kind || subject || detail FROM ledger"


def test_embedded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On SQLite: no secret is said anywhere; the file keeps hashes and tags only, and the ledger not even these."""
    with Talkative(tmp_path) as service:
        plot = Plot(service)
        use_everything(plot)
        key = service.settings.key_encryption_key_path.read_text().strip()
        files = [tmp_path / f"identity.db{end}" for end in ("", "-wal")]
        stored = b"".join(path.read_bytes() for path in files if path.exists())
        kept = dict(plot.secrets) | {"key-encryption key": base64.b64decode(key)}
        with closing(sqlite3.connect(files[0])) as database:
            secrets, keys = database.execute(SECRETS).fetchall(), database.execute(KEYS).fetchall()
            ledger = "\n".join(row[0] for row in database.execute(DETAILS))
            assert any(tag for _, tag in secrets)
            plant_stored(plot, secrets, keys)
            database.executescript(
                "CREATE TRIGGER refuse BEFORE INSERT ON secrets BEGIN SELECT RAISE(ABORT, 'refused'); END;"
            )
        plot.plant("key-encryption key", base64.b64decode(key))
        kept |= {name: secret for name, secret in plot.secrets.items() if "private" in name or "root" in name}
        fail_to_create(plot)
        said = plot.said() + "".join(capfd.readouterr()).encode()
    assert b"call failed unexpectedly" in said
    assert_silent(plot, said)
    assert not found(kept, stored)
    assert_silent(plot, ledger.encode())


def fail_to_create(plot: Plot) -> None:
    """Creates and rotates against a database that refuses the rows."""
    service, bearer = plot.service, plot.service.bearer()
    account = pb.ServiceAccount(name="refused account", role=pb.ROLE_USER)
    request_id = str(plot.plant("refused request_id", str(uuid.uuid4())))
    create = pb.CreateServiceAccountRequest(service_account=account, request_id=request_id)
    plot.refused(lambda: service.accounts.CreateServiceAccount(create, metadata=bearer))
    assert b"INTERNAL" in plot.answers[-1]


async def fetched(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@contextmanager
def on_postgres(tmp_path: Path, server: Postgres) -> Iterator[tuple[Plot, str]]:
    from artstore_grpc.store.schema import upgrade

    key = new_key()
    asyncio.run(upgrade(server.url()))
    settings = {"database_url": server.url(), "key_encryption_key": key, "issuer": ISSUER}
    with Talkative(tmp_path, **settings) as service:
        yield Plot(service), key


def test_postgresql(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On PostgreSQL: not even where a constraint's refusal quotes the row, nor where the server dies during calls."""
    with Postgres() as server, on_postgres(tmp_path, server) as (plot, key):
        use_everything(plot)
        url = server.url()
        asyncio.run(fetched(url, "ALTER TABLE secrets ADD CONSTRAINT refuse CHECK (length(hash) < 9) NOT VALID"))
        fail_to_create(plot)
        asyncio.run(fetched(url, "ALTER TABLE secrets DROP CONSTRAINT refuse"))
        asyncio.run(fetched(url, "ALTER TABLE replays ADD CONSTRAINT refuse CHECK (sealed IS NULL) NOT VALID"))
        fail_to_create(plot)
        plant_stored(plot, asyncio.run(fetched(url, SECRETS)), asyncio.run(fetched(url, KEYS)))
        plot.plant("key-encryption key", base64.b64decode(key))
        ledger = "\n".join(row[0] for row in asyncio.run(fetched(url, DETAILS)))
        die_during_calls(plot, server)
        said = plot.said() + "".join(capfd.readouterr()).encode()
    assert b"call failed unexpectedly" in said
    assert b"DATABASE_UNAVAILABLE" in said
    assert_silent(plot, said)
    assert_silent(plot, ledger.encode())


def die_during_calls(plot: Plot, server: Postgres) -> None:
    """Kills the server while accounts are being created."""
    bearer = plot.service.bearer()
    calls = []
    for number in range(40):
        account = pb.ServiceAccount(name=f"dying {number}", role=pb.ROLE_USER)
        request = pb.CreateServiceAccountRequest(service_account=account)
        calls.append(plot.service.accounts.CreateServiceAccount.future(request, metadata=bearer))
    server.kill()
    for call in calls:
        plot.refused(call.result)
    plot.refused(lambda: plot.service.accounts.GetServiceAccount(pb.GetServiceAccountRequest(id="x"), metadata=bearer))
