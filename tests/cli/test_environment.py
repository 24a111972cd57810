"""The environment becomes settings; what is wrong in it is told in one sentence that names the variable."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc.cli import environment, parsing
from artstore_grpc.cli.parsing import cores, parser_of
from artstore_grpc.model import Environment
from artstore_grpc.settings import Address, InvalidSettings, Settings

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

ACCEPTED: list[tuple[str, str, Any]] = [
    ("DATA_DIR", "/srv/artstore", Path("/srv/artstore")),
    ("REDIS_URL", "redis://localhost:6379/0", "redis://localhost:6379/0"),
    ("REDIS_URL", "rediss://u:p@redis.example:6380", "rediss://u:p@redis.example:6380"),
    ("REDIS_URL", "unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ("GRPC_ADDRESS", "0.0.0.0:50051", Address(host="0.0.0.0", port=50051)),
    ("GRPC_ADDRESS", "localhost:0", Address(host="localhost", port=0)),
    ("GRPC_ADDRESS", "[::1]:65535", Address(host="::1", port=65535)),
    ("GRPC_ADDRESS", "[::]:1", Address(host="::", port=1)),
    ("GRPC_ADDRESS", "identity-0.artstore.svc:443", Address(host="identity-0.artstore.svc", port=443)),
    ("GRPC_ADDRESS", " 127.0.0.1:1 ", Address(host="127.0.0.1", port=1)),
    ("GATEWAY_ADDRESS", "127.0.0.1:80", Address(host="127.0.0.1", port=80)),
    ("METRICS_ADDRESS", "off", None),
    ("METRICS_ADDRESS", "OFF", None),
    ("ADVERTISE_ADDRESS", "identity-1.internal:0", Address(host="identity-1.internal", port=0)),
    ("HEALTH_ADDRESS", "[::1]:8086", Address(host="::1", port=8086)),
    ("ISSUER", "https://identity.example", "https://identity.example"),
    ("AUDIENCE", "storage", "storage"),
    ("ENVIRONMENT", "prod", Environment.PROD),
    ("ENVIRONMENT", "Staging", Environment.STAGING),
    ("LOG_LEVEL", "debug", "debug"),
    ("LOG_LEVEL", "WARNING", "warning"),
    ("LOG_SAMPLE", "1000000", 1_000_000),
    ("LOG_SETTINGS_FILE", "/etc/artstore/log.json", Path("/etc/artstore/log.json")),
    ("LOG_SETTINGS_FILE", "off", None),
    ("TRACES_ENDPOINT", "http://collector.monitoring.svc:4317", "http://collector.monitoring.svc:4317"),
    ("TRACES_ENDPOINT", "https://[::1]:4317/", "https://[::1]:4317/"),
    ("TRACES_SAMPLE", "0", 0.0),
    ("TRACES_SAMPLE", "0.001", 0.001),
    ("TRACES_SAMPLE", "1.0", 1.0),
    ("TRUSTED_PROXIES", "10.0.0.0/8", (ipaddress.ip_network("10.0.0.0/8"),)),
    (
        "TRUSTED_PROXIES",
        "10.0.0.1, fd00::/8,",
        (ipaddress.ip_network("10.0.0.1/32"), ipaddress.ip_network("fd00::/8")),
    ),
    ("DRAIN_DELAY", "0", timedelta(0)),
    ("DRAIN_DELAY", "2.5", timedelta(seconds=2.5)),
    ("DRAIN_GRACE", "300", timedelta(minutes=5)),
    ("KEY_ENCRYPTION_KEY", KEY, KEY),
    ("KEY_ENCRYPTION_KMS", "unix:///run/kms.sock", "unix:///run/kms.sock"),
    ("KEY_ENCRYPTION_KMS", f"unix:///{'k' * 106}", f"unix:///{'k' * 106}"),
    ("TOKEN_LIFETIME", "60", timedelta(minutes=1)),
    ("SIGNING_ALGORITHM", "ES256", "ES256"),
    ("SIGNING_ALGORITHM", "eddsa", "EdDSA"),
    ("KEY_ROTATION_INTERVAL", "0", timedelta(0)),
    ("KEY_ROTATION_INTERVAL", "600", timedelta(minutes=10)),
    ("JWKS_MAX_AGE", "1", timedelta(seconds=1)),
    ("OUTAGE_WINDOW", "3600", timedelta(hours=1)),
    ("BCRYPT_COST", "4", 4),
    ("BCRYPT_THREADS", "64", 64),
    ("BCRYPT_QUEUE", "1", 1),
    ("SOURCE_FAILURES", "10", 10),
    ("MAX_IN_FLIGHT", "100000", 100_000),
    ("MAX_CONNECTIONS", "16", 16),
    ("MAX_STREAMS", "1", 1),
    ("DATABASE_POOL_SIZE", "5", 5),
    ("SINKS_FILE", "/etc/artstore/sinks.json", Path("/etc/artstore/sinks.json")),
    ("SINKS_FILE", "off", None),
    ("TLS_CERTIFICATE_FILE", "off", None),
    ("TLS_KEY_FILE", "off", None),
    ("GRPC_MTLS_ADDRESS", "off", None),
    ("MTLS_CLIENT_CA_FILE", "off", None),
    ("INSECURE_PUBLIC", "TRUE", True),
    ("INSECURE_PUBLIC", "false", False),
    ("ADVERTISE_ADDRESS", "identity.internal:0", Address(host="identity.internal", port=0)),
    ("WORKERS", "4", 4),
    ("WORKERS", "Auto", cores()),
    ("MAX_CONNECTION_AGE", "0", timedelta(0)),
    ("MAX_CONNECTION_AGE", "2.5", timedelta(seconds=2.5)),
]

REFUSED = [
    ("DATA_DIR", "a\nb"),
    ("DATABASE_URL", "mysql://user:hunter2@host/db"),
    ("DATABASE_URL", "postgresql://"),
    ("DATABASE_URL", "var/identity.db"),
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "redis://"),
    ("GRPC_ADDRESS", "50051"),
    ("GRPC_ADDRESS", ":50051"),
    ("GRPC_ADDRESS", "127.0.0.1"),
    ("GRPC_ADDRESS", "127.0.0.1:"),
    ("GRPC_ADDRESS", "127.0.0.1:65536"),
    ("GRPC_ADDRESS", "127.0.0.1:000000000000000000000001"),
    ("GRPC_ADDRESS", "127.0.0.1:-1"),
    ("GRPC_ADDRESS", "127.0.0.1:5_0"),
    ("GRPC_ADDRESS", "127.0.0.1:٣"),
    ("GRPC_ADDRESS", "::1:50051"),
    ("GRPC_ADDRESS", "[::1]"),
    ("GRPC_ADDRESS", "[::g]:1"),
    ("GRPC_ADDRESS", "[127.0.0.1]:1"),
    ("GRPC_ADDRESS", "*:50051"),
    ("GRPC_ADDRESS", "http://127.0.0.1:50051"),
    ("GRPC_ADDRESS", "off"),
    ("GATEWAY_ADDRESS", "none"),
    ("GATEWAY_ADDRESS", "off"),  # without an issuer
    ("METRICS_ADDRESS", "9464"),
    ("HEALTH_ADDRESS", "true"),
    ("ISSUER", "identity.example"),
    ("ISSUER", "https://identity.example/"),
    ("ISSUER", "https://identity.example?x"),
    ("ENVIRONMENT", "production"),
    ("LOG_LEVEL", "loud"),
    ("LOG_LEVEL", "10"),
    ("LOG_SAMPLE", "0"),
    ("LOG_SAMPLE", "0.5"),
    ("LOG_SAMPLE", "1000001"),
    ("LOG_SETTINGS_FILE", "a\nb"),
    ("TRACES_ENDPOINT", "collector:4317"),
    ("TRACES_ENDPOINT", "http://collector"),
    ("TRACES_ENDPOINT", "http://user:hunter2@collector:4317"),
    ("TRACES_ENDPOINT", "http://collector:4318/v1/traces"),
    ("TRACES_ENDPOINT", "grpc://collector:4317"),
    ("TRACES_SAMPLE", "1.1"),
    ("TRACES_SAMPLE", "-0.1"),
    ("TRACES_SAMPLE", "1%"),
    ("TRACES_SAMPLE", "nan"),
    ("TRUSTED_PROXIES", "10.0.0.1/8"),
    ("TRUSTED_PROXIES", "proxy.example"),
    ("TRUSTED_PROXIES", "10.0.0.0/8 10.1.0.0/16"),
    ("DRAIN_DELAY", "-1"),
    ("DRAIN_DELAY", "5s"),
    ("DRAIN_DELAY", "nan"),
    ("DRAIN_DELAY", "1e3"),
    ("DRAIN_DELAY", "301"),
    ("DRAIN_GRACE", "inf"),
    ("KEY_ENCRYPTION_KMS", "/run/kms.sock"),
    ("KEY_ENCRYPTION_KMS", "unix:kms.sock"),
    ("KEY_ENCRYPTION_KMS", "unix:///"),
    ("KEY_ENCRYPTION_KMS", f"unix:///{'k' * 107}"),
    ("KEY_ENCRYPTION_KMS", "https://kms.example"),
    ("KEY_ROTATION_INTERVAL", "599"),
    ("KEY_ROTATION_INTERVAL", "31536001"),
    ("JWKS_MAX_AGE", "0"),
    ("JWKS_MAX_AGE", "86401"),
    ("TOKEN_LIFETIME", "59"),
    ("TOKEN_LIFETIME", "9" * 40),
    ("SIGNING_ALGORITHM", "HS256"),
    ("SIGNING_ALGORITHM", "none"),
    ("OUTAGE_WINDOW", "3601"),
    ("BCRYPT_COST", "3"),
    ("BCRYPT_COST", "12.0"),
    ("BCRYPT_THREADS", "0"),
    ("BCRYPT_QUEUE", "ten"),
    ("SOURCE_FAILURES", "9"),
    ("MAX_IN_FLIGHT", "1_000"),
    ("MAX_CONNECTIONS", "15"),
    ("MAX_STREAMS", "0"),
    ("DATABASE_POOL_SIZE", "9" * 400),
    ("SINKS_FILE", "a\nb"),
    ("TLS_CERTIFICATE_FILE", "a\nb"),
    ("GRPC_MTLS_ADDRESS", "50053"),
    ("INSECURE_PUBLIC", "1"),
    ("INSECURE_PUBLIC", "yes"),
    ("WORKERS", "0"),
    ("WORKERS", "257"),
    ("WORKERS", "all"),
    ("MAX_CONNECTION_AGE", "604801"),
    ("MAX_CONNECTION_AGE", "30m"),
]


@pytest.mark.parametrize(("name", "text", "value"), ACCEPTED, ids=[f"{row[0]}={row[1]}" for row in ACCEPTED])
def test_accepted(name: str, text: str, value: Any) -> None:
    """What a variable may say becomes its field's value."""
    settings = environment.settings({f"ARTSTORE_{name}": text})
    assert getattr(settings, name.lower()) == value


@pytest.mark.parametrize(("name", "text"), REFUSED, ids=[f"{name}={text[:30]!r}" for name, text in REFUSED])
def test_refused(name: str, text: str) -> None:
    """What it may not say is one sentence that names the variable, and does not repeat a value that may be secret."""
    with pytest.raises(InvalidSettings) as caught:
        environment.settings({f"ARTSTORE_{name}": text})
    sentence = str(caught.value)
    assert f"ARTSTORE_{name}" in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "hunter2" not in sentence


def test_every_field_has_a_parser() -> None:
    """A new field of Settings can be given in the environment."""
    for field in fields(Settings):
        assert callable(parser_of(field.name))


def test_every_field_is_tested() -> None:
    """Each variable has an accepted text above; DATABASE_URL, which needs others beside it, has its own test."""
    tested = {name.lower() for name, _, _ in ACCEPTED} | {"database_url"}
    assert tested == {field.name for field in fields(Settings)}


def test_tls_is_given_together() -> None:
    """The settings of TLS, which need one another."""
    made = environment.settings(
        {
            "ARTSTORE_TLS_CERTIFICATE_FILE": "/tls/tls.crt",
            "ARTSTORE_TLS_KEY_FILE": "/tls/tls.key",
            "ARTSTORE_GRPC_MTLS_ADDRESS": "[::1]:50053",
            "ARTSTORE_MTLS_CLIENT_CA_FILE": "/tls/ca.crt",
        }
    )
    assert (made.tls_certificate_file, made.tls_key_file) == (Path("/tls/tls.crt"), Path("/tls/tls.key"))
    assert (made.grpc_mtls_address, made.mtls_client_ca_file) == (Address(host="::1", port=50053), Path("/tls/ca.crt"))


def test_nothing_given_is_the_default() -> None:
    """An empty environment, or empty variables as Compose passes them, give every default."""
    assert environment.settings({}) == Settings()
    empty = {f"ARTSTORE_{field.name.upper()}": "" for field in fields(Settings)} | {"ARTSTORE_REDIS_URL_FILE": ""}
    assert environment.settings(empty) == Settings()


@pytest.mark.parametrize("url", ["postgresql://u:p@db/identity", "sqlite:////srv/identity.db"])
def test_a_database_needs_an_issuer_and_a_key(url: str) -> None:
    """Away from the embedded default the issuer and the key-encryption key must be given, each named when missing."""
    environ = {"ARTSTORE_DATABASE_URL": url}
    with pytest.raises(InvalidSettings, match="ARTSTORE_ISSUER"):
        environment.settings(environ)
    environ["ARTSTORE_ISSUER"] = "https://identity.example"
    with pytest.raises(InvalidSettings, match="ARTSTORE_KEY_ENCRYPTION_KEY"):
        environment.settings(environ)
    assert environment.settings(environ | {"ARTSTORE_KEY_ENCRYPTION_KMS": "unix:///run/kms.sock"}).store_url == url
    environ["ARTSTORE_KEY_ENCRYPTION_KEY"] = KEY
    assert environment.settings(environ).store_url == url


@pytest.mark.parametrize("url", ["", "postgresql://u:p@db/identity"])
def test_one_key_encryption_key(url: str) -> None:
    """A key and a key service contradict each other, on the embedded default too."""
    given = {"DATABASE_URL": url, "KEY_ENCRYPTION_KEY": KEY, "KEY_ENCRYPTION_KMS": "unix:///run/kms.sock"}
    with pytest.raises(InvalidSettings, match=r"ARTSTORE_KEY_ENCRYPTION_KEY and ARTSTORE_KEY_ENCRYPTION_KMS"):
        environment.settings(
            {f"ARTSTORE_{name}": text for name, text in given.items()} | {"ARTSTORE_ISSUER": "https://x.example"}
        )


def test_secret_from_a_file(tmp_path: Path) -> None:
    """A secret may come from a file; the newline that ends it is not part of it."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    assert environment.settings({"ARTSTORE_KEY_ENCRYPTION_KEY_FILE": str(file)}).key_encryption_key == KEY


def test_secret_given_twice(tmp_path: Path) -> None:
    """A variable and its file together are refused, in one sentence that names both."""
    file = tmp_path / "url"
    file.write_text("redis://other")
    with pytest.raises(InvalidSettings) as caught:
        environment.settings({"ARTSTORE_REDIS_URL": "redis://one", "ARTSTORE_REDIS_URL_FILE": str(file)})
    assert str(caught.value) == "ARTSTORE_REDIS_URL and ARTSTORE_REDIS_URL_FILE are both given; give one of them."


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read"), (b"", "empty"), (b"\n\n", "empty"), (b"\xff\xfe", "UTF-8"), (b"x" * 70_000, "bytes")],
    ids=["missing", "empty", "blank", "binary", "huge"],
)
def test_secret_file_that_is_no_use(tmp_path: Path, content: bytes | None, said: str) -> None:
    """A file that is missing, empty, binary or huge is told by its variable's name."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidSettings, match=f"ARTSTORE_CLIENT_SECRET_FILE .*{said}"):
        environment.credentials({"ARTSTORE_CLIENT_ID": "me", "ARTSTORE_CLIENT_SECRET_FILE": str(file)})


def test_only_secrets_come_from_files(tmp_path: Path) -> None:
    """`_FILE` on anything else is an unknown variable, not silently a file."""
    environ = {"ARTSTORE_AUDIENCE_FILE": str(tmp_path / "none")}
    assert environment.settings(environ) == Settings()
    assert environment.warnings(environ) == [
        "ARTSTORE_AUDIENCE_FILE is no setting of this program; the nearest is ARTSTORE_AUDIENCE."
    ]


def test_credentials(tmp_path: Path) -> None:
    """A client's id and secret, the secret from a file if need be; its `repr` hides it."""
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    given = environment.credentials({"ARTSTORE_CLIENT_ID": "me", "ARTSTORE_CLIENT_SECRET_FILE": str(file)})
    assert (given.client_id, given.client_secret) == ("me", "s3cret")
    assert "s3cret" not in repr(given)


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, "ARTSTORE_CLIENT_ID"),
        ({"ARTSTORE_CLIENT_SECRET": "x"}, "ARTSTORE_CLIENT_ID"),
        ({"ARTSTORE_CLIENT_ID": "me"}, "ARTSTORE_CLIENT_SECRET"),
        ({"ARTSTORE_CLIENT_KEY": "x"}, "ARTSTORE_CLIENT_ID"),
    ],
)
def test_credentials_not_given(environ: dict[str, str], missing: str) -> None:
    """The sentence begins with what is missing."""
    with pytest.raises(InvalidSettings, match=f"^{missing} is not given"):
        environment.credentials(environ)


@pytest.mark.parametrize(
    ("quota", "counted"),
    [("100000 100000", 1), ("150000 100000", 2), ("50000 100000", 1), ("640000 100000", 4), ("max 100000", 4), ("", 4)],
)
def test_cores_are_those_that_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, counted: int
) -> None:
    """Four by its affinity, and no more than a container's quota, rounded up."""
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(parsing, "CPU_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert parser_of("workers")("auto") == counted


def test_target() -> None:
    """The service is on this machine unless the environment says where."""
    assert environment.target({}) == "127.0.0.1:50051"
    assert environment.target({"ARTSTORE_TARGET": "identity:50051"}) == "identity:50051"


def test_misspelled_variables_are_told() -> None:
    """A variable that nothing reads is told with the nearest that something does."""
    assert environment.warnings({"ARTSTORE_GRPC_ADRESS": "x", "ARTSTORE_DATABSE_URL": "y", "PATH": "/bin"}) == [
        "ARTSTORE_DATABSE_URL is no setting of this program; the nearest is ARTSTORE_DATABASE_URL.",
        "ARTSTORE_GRPC_ADRESS is no setting of this program; the nearest is ARTSTORE_GRPC_ADDRESS.",
    ]
    assert environment.warnings({"ARTSTORE_GRPC_PORT": "50051"})


def test_known_variables_are_not() -> None:
    """Neither the settings, nor a client's variables, nor the tests', nor what Kubernetes sets beside a service."""
    kubernetes = {
        "ARTSTORE_GRPC_SERVICE_HOST": "10.0.0.1",
        "ARTSTORE_GRPC_SERVICE_PORT": "50051",
        "ARTSTORE_GRPC_SERVICE_PORT_GRPC": "50051",
        "ARTSTORE_GRPC_PORT": "tcp://10.0.0.1:50051",
        "ARTSTORE_GRPC_PORT_50051_TCP_ADDR": "10.0.0.1",
        "ARTSTORE_SERVICE_HOST": "10.0.0.1",
        "ARTSTORE_PORT": "tcp://10.0.0.1:50051",
    }
    known = dict.fromkeys(environment.known_variables(), "x")
    assert environment.warnings({**known, **kubernetes, "ARTSTORE_TEST_REDIS_URL": "x"}) == []


def test_a_key_in_place_of_a_secret() -> None:
    """A private key is enough; beside a secret it is a contradiction."""
    given = {"ARTSTORE_CLIENT_ID": "me", "ARTSTORE_CLIENT_KEY": "key"}
    assert environment.credentials(given).private_key == "key"
    assert "key'" not in repr(environment.credentials(given))
    with pytest.raises(InvalidSettings, match="both given"):
        environment.credentials({**given, "ARTSTORE_CLIENT_SECRET": "x"})
