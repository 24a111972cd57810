"""Whether a deployment is fit to run, judged without a change to anything: what is wrong or weak, and what mends it.

What a start refuses is a problem here too, but all of them are told at once, with what a start doesn't look at: who
may read the files, whether clocks agree, what the database's role may do besides, what Redis forgets. It judges one
machine's settings and what they name; it can't see a firewall, nor who reads the backups.
"""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from artstore_grpc import certificates, installation, key_material, key_policy, root_key
from artstore_grpc.certificates import refuse_plain_text
from artstore_grpc.ephemeral import condition as redis
from artstore_grpc.ephemeral.condition import RedisCondition, Unreachable
from artstore_grpc.errors import KeyServiceUnavailable, MissingPrivilege, StoreUnavailable
from artstore_grpc.model import Environment, KeyState, SigningKey
from artstore_grpc.settings import MIN_BCRYPT_COST, InvalidSettings, Settings
from artstore_grpc.store import condition as database
from artstore_grpc.store import schema
from artstore_grpc.store.compatibility import Standing
from artstore_grpc.store.condition import DatabaseCondition
from artstore_grpc.store.schema import SchemaMismatch
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.vault import Vault, WrongKey

SKEW = timedelta(seconds=1)
"""Clocks that differ by more make revocations late, and checks wrong at the edges; key_policy.LEEWAY is borne."""
CERTIFICATE_WARNING = timedelta(days=14)
LONG_TOKENS = timedelta(hours=1)
"""A token that isn't bound is good for whoever has it for so long, where its verifier doesn't follow revocations."""
LARGE_NETWORK = 1 << 16
"""More addresses than a rack of proxies has."""
MANY_SOURCE_FAILURES = 1000
BEHIND = 3
"""A key that signs for so many times the interval was not rotated when it was due."""
NOT_ALLOWED = stat.S_IWGRP | stat.S_IWOTH


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and, where it isn't well, what mends it."""

    check: str
    level: Level
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Level.WARNING, found, remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Level.PROBLEM, found, remedy)


async def examined(settings: Settings, secret_files: Mapping[str, Path]) -> AsyncIterator[Finding]:
    """Every finding, check by check. `secret_files` are those that settings were read from, by their variables."""
    for finding in (*weak_settings(settings), *files(settings, secret_files), *tls(settings, datetime.now(UTC))):
        yield finding
    async for finding in of_database(settings):
        yield finding
    async for finding in of_redis(settings):
        yield finding


# Settings


def of_prod(settings: Settings) -> bool:
    return settings.environment is Environment.PROD


WEAKNESSES: tuple[tuple[Callable[[Settings], bool], str, str], ...] = (
    (
        lambda settings: settings.bcrypt_cost < MIN_BCRYPT_COST,
        "bcrypt costs 2^{0.bcrypt_cost}",
        f"set ARTSTORE_BCRYPT_COST to {MIN_BCRYPT_COST}",
    ),
    (
        lambda settings: settings.token_lifetime > LONG_TOKENS,
        "tokens live {0.token_lifetime}",
        "set ARTSTORE_TOKEN_LIFETIME to 3600 or less",
    ),
    (
        lambda settings: settings.source_failures > MANY_SOURCE_FAILURES,
        "a source may fail {0.source_failures:,} times a minute for nothing",
        "leave ARTSTORE_SOURCE_FAILURES at its default, unless all callers share one address",
    ),
    (
        lambda settings: any(network.num_addresses > LARGE_NETWORK for network in settings.trusted_proxies),
        "large networks may say who calls",
        "name the proxies alone in ARTSTORE_TRUSTED_PROXIES",
    ),
    (lambda settings: settings.log_level == "debug", "the log is at debug", "set ARTSTORE_LOG_LEVEL to info"),
    (
        lambda settings: of_prod(settings) and settings.issuer.startswith("http://"),
        "the issuer is an http URL",
        "set ARTSTORE_ISSUER to an https URL (RFC 8414 §2)",
    ),
    (
        lambda settings: of_prod(settings) and settings.insecure_public,
        "plain text beyond the loopback",
        "make sure that a mesh or an ingress encrypts",
    ),
    (
        lambda settings: of_prod(settings) and settings.embedded,
        "the embedded SQLite in production",
        "set ARTSTORE_DATABASE_URL to a PostgreSQL",
    ),
    (
        lambda settings: not settings.embedded and not settings.redis_url,
        "each replica counts limits for itself",
        "set ARTSTORE_REDIS_URL where there are several replicas",
    ),
)
"""What a start takes, and an operator may not have meant: whether it is so, what was found, and what mends it."""


def weak_settings(settings: Settings) -> Iterator[Finding]:
    """Settings that a start takes all the same."""
    found = [warning("settings", said.format(settings), remedy) for weak, said, remedy in WEAKNESSES if weak(settings)]
    yield from found or [ok("settings", "nothing weak")]


# Files


def files(settings: Settings, secret_files: Mapping[str, Path]) -> Iterator[Finding]:
    """Who may read and change the files that hold secrets. One that isn't there yet is a start's to make or to miss."""
    own = {"the embedded key-encryption key": settings.key_encryption_key_path} if settings.embedded else {}
    named = dict(secret_files)
    if settings.tls_key_file:
        named["ARTSTORE_TLS_KEY_FILE"] = settings.tls_key_file
    if settings.sinks_file:
        named["ARTSTORE_SINKS_FILE"] = settings.sinks_file
    found = [finding for name, path in {**own, **named}.items() if (finding := _rights(name, path))]
    left = [settings.data_dir / "administrator.env"] if settings.environment is Environment.PROD else []
    found += [
        warning("files", f"{path} still has the first administrator's secret", "keep it elsewhere, and delete the file")
        for path in left
        if path.exists()
    ]
    yield from found or [ok("files", "secrets are their owner's only")]


def _rights(name: str, path: Path) -> Finding | None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if mode & NOT_ALLOWED:
        return problem("files", f"{name}: others may change {path}", f"chmod 600 {path}")
    if mode & stat.S_IROTH and _reachable(path):
        return warning("files", f"{name}: every user of this machine may read {path}", f"chmod 600 {path}")
    return None


def _reachable(path: Path) -> bool:
    """Whether everybody may enter every folder above."""
    try:
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    except OSError:
        return True


# TLS


def tls(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Whether it would start to serve TLS, and for how long."""
    try:
        refuse_plain_text(settings, settings.grpc_address, settings.gateway_address)
        files = certificates.of_settings(settings, lambda: now, configured("error"))
    except InvalidSettings as error:
        yield problem("tls", str(error), "mend that setting, or the file that it names")
        return
    if files is None:
        yield ok("tls", "plain text, as the settings have it")
        return
    expires = files.current().expires
    if expires - now < CERTIFICATE_WARNING:
        yield warning(
            "tls", f"the certificate expires at {expires:%Y-%m-%d %H:%M} UTC", "replace it; no restart is needed"
        )
        return
    yield ok("tls", f"the certificate is valid until {expires:%Y-%m-%d}")


# The database


async def of_database(settings: Settings) -> AsyncIterator[Finding]:
    """Its schema, its role, its clock; and whether this key-encryption key opens its keys."""
    file = database.sqlite_file(settings.store_url)
    if file is not None and not file.exists():
        yield warning("database", f"there is no {file} yet", "the first start makes it")
        return
    try:
        yield of_schema(await schema.check(settings.store_url))
        if file is None:
            for finding in judged_database(await database.condition(settings.store_url), settings):
                yield finding
        async for finding in of_keys(settings):
            yield finding
    except SchemaMismatch as error:
        yield problem("schema", str(error), "run db upgrade with the release that is to serve")
    except MissingPrivilege:
        yield problem("database role", "it may not read the tables", "grant what it needs: db upgrade --run-role")
    except StoreUnavailable:
        yield problem("database", "it can't be reached", "look at ARTSTORE_DATABASE_URL, the network, and the server")


def of_schema(found: Standing) -> Finding:
    """Of a schema that this program can run on."""
    if found.newer:
        return ok("schema", f"newer ({found.found}), and takes this program")
    if found.pending:
        return ok("schema", f"{len(found.pending)} contract steps wait: db upgrade --contract")
    return ok("schema", "this program's")


def judged_database(found: DatabaseCondition, settings: Settings) -> Iterator[Finding]:
    """What a PostgreSQL's role and connection are like."""
    prod = settings.environment is Environment.PROD
    yield from clock("the database's clock", found.asked, found.time, found.answered)
    if found.superuser:
        yield (problem if prod else warning)(
            "database role", "it is a superuser", "give the service a role of its own (docs/hardening.md)"
        )
    elif found.alters or found.rewrites:
        what = "rewrite the ledger" if found.rewrites else "make tables"
        yield warning("database role", f"it may {what}", "split the roles: db upgrade --run-role (docs/hardening.md)")
    else:
        yield ok("database role", "reads and writes rows, appends to the ledger, and no more")
    if not found.encrypted and not found.near:
        yield warning("database", "the connection isn't encrypted", "add ?sslmode=verify-full to ARTSTORE_DATABASE_URL")


async def of_keys(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the keys open, and one signs."""
    store = SqlStore(settings.store_url)
    try:
        encryption = installation.key_encryption(settings)
        try:
            row = await store.wrapped_key(root_key.ROOT)
            if row is None:
                yield warning("keys", "the database has no keys yet", "the first start makes them")
                return
            given = await encryption.current_key()
            if row.kek_id != given:
                yield problem(
                    "keys",
                    f"the root key is encrypted under {row.kek_id}, the given key is {given}",
                    "give this database's own key-encryption key",
                )
                return
            vault = Vault(await root_key.unwrapped(row, encryption))
            for finding in judged_keys(await store.signing_keys(), vault, settings, datetime.now(UTC)):
                yield finding
        finally:
            await encryption.close()
    except (WrongKey, OSError) as error:
        yield problem("keys", str(error), "give this database's own key-encryption key")
    except KeyServiceUnavailable as error:
        yield problem("keys", str(error), "look at ARTSTORE_KEY_ENCRYPTION_KMS and its plugin")
    finally:
        await store.close()


def judged_keys(keys: list[SigningKey], vault: Vault, settings: Settings, now: datetime) -> Iterator[Finding]:
    """Whether every signing key opens, and the active one is as young as the settings say."""
    damaged = [key.kid for key in keys if key.state is not KeyState.REVOKED and not _opens(vault, key)]
    if damaged:
        yield problem("keys", f"damaged: {', '.join(damaged)}", "revoke them: keys revoke KID")
    active = [key for key in keys if key.state is KeyState.ACTIVE]
    if not active:
        yield warning("keys", "no key signs yet", "the first start makes one")
        return
    age = now - (active[0].activate_time or active[0].create_time)
    interval = settings.key_rotation_interval
    if interval and age > BEHIND * interval:
        yield warning("keys", f"the active key has signed for {age.days} days", "look for `job failed` in the log")
    elif not damaged:
        yield ok("keys", f"they open; {active[0].kid} signs by {active[0].algorithm}")


def _opens(vault: Vault, key: SigningKey) -> bool:
    try:
        key_material.opened(vault, key)
    except (WrongKey, ValueError):
        return False
    return True


# Redis, and clocks


async def of_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Whether it keeps what it is given, and who may read it."""
    if not settings.redis_url:
        return
    try:
        found = await redis.condition(settings.redis_url)
    except Unreachable as error:
        yield problem(
            "redis", f"it can't be asked ({error})", "look at ARTSTORE_REDIS_URL, the network, and the server"
        )
        return
    for finding in judged_redis(found):
        yield finding


def judged_redis(found: RedisCondition) -> Iterator[Finding]:
    """What a Redis is like."""
    yield from clock("Redis' clock", found.asked, found.time, found.answered)
    if found.policy is None:
        yield warning("redis", "its maxmemory-policy may not be asked", "make sure that it is noeviction")
    elif found.policy != "noeviction":
        yield problem(
            "redis",
            f"its maxmemory-policy is {found.policy}: used assertions and counted failures may be forgotten",
            "set maxmemory-policy to noeviction",
        )
    else:
        yield ok("redis", "it forgets nothing before its time")
    if not found.password and not found.near:
        yield warning(
            "redis", "it asks for no password", "set requirepass, or an ACL, and give it in ARTSTORE_REDIS_URL"
        )
    if not found.encrypted and not found.near:
        yield warning("redis", "the connection isn't encrypted", "use rediss:// in ARTSTORE_REDIS_URL")


def clock(what: str, asked: datetime, time: datetime, answered: datetime) -> Iterator[Finding]:
    """Whether another's clock agrees with this machine's: its time lies between the question and the answer."""
    skew = max(asked - time, time - answered, timedelta(0))
    seconds = f"{skew.total_seconds():.1f} s"
    if skew > key_policy.LEEWAY:
        yield problem("clock", f"{what} is off by {seconds}", "have both machines follow NTP")
    elif skew > SKEW:
        yield warning("clock", f"{what} is off by {seconds}", "have both machines follow NTP")
    else:
        yield ok("clock", f"{what} agrees")
