"""Settings of TLS that can't be, and plain text where nobody asked for it: refused before anything listens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as pem

from artstore_grpc.certificates import Certificates, refuse_plain_text
from artstore_grpc.settings import Address, InvalidSettings, Settings
from artstore_grpc.telemetry.logs import configured
from tests.cli.processes import ANY_PORT, run
from tests.installation import ANY, Log
from tests.transport.machines import Files, put

CERTIFICATE = {"tls_certificate_file": Path("tls.crt")}
PAIR = CERTIFICATE | {"tls_key_file": Path("tls.key")}


@pytest.mark.parametrize("fault", ["expired", "another's key", "encrypted key", "gone", "nonsense"])
def test_a_start_with_unusable_files(tmp_path: Path, fault: str) -> None:
    """Files that can't be used refuse the start, in one sentence that names the variable and quotes nothing."""
    files = Files(tmp_path)
    if fault == "expired":
        now = datetime.now(UTC)
        files.replace(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    elif fault == "another's key":
        put(files.key, files.ca.issue_cert("127.0.0.1").private_key_pem.bytes())
    elif fault == "encrypted key":
        put(files.key, encrypted(files.key.read_bytes()))
    elif fault == "gone":
        files.key.unlink()
    else:
        put(files.certificate, b"nonsense")
    with pytest.raises(InvalidSettings, match=r"^ARTSTORE_TLS_[A-Z]+_FILE .*\.$") as refused:
        Certificates(files.certificate, files.key, now=lambda: datetime.now(UTC), logger=configured("info", Log()))
    assert "\n" not in str(refused.value)


def encrypted(key: bytes) -> bytes:
    return pem.load_pem_private_key(key, None).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"password")
    )


@pytest.mark.parametrize(
    "contradiction",
    [
        CERTIFICATE,
        {"tls_key_file": Path("tls.key")},
        {"grpc_mtls_address": ANY, "mtls_client_ca_file": Path("ca.pem")},
        PAIR | {"grpc_mtls_address": ANY},
        PAIR | {"mtls_client_ca_file": Path("ca.pem")},
        PAIR | {"insecure_public": True},
    ],
    ids=lambda given: "+".join(given),
)
def test_contradictions(contradiction: dict[str, Any]) -> None:
    """Settings of TLS that contradict each other, or are given by half, are refused."""
    with pytest.raises(InvalidSettings):
        Settings(**contradiction)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("identity.svc", False),
        ("::ffff:10.0.0.7", False),
    ],
)
def test_where_plain_text_may_listen(host: str, allowed: bool) -> None:
    """Without TLS only the loopback is allowed, unless somebody says otherwise; with TLS every address is."""
    address = Address(host=host, port=1)
    refuse_plain_text(Settings(insecure_public=True), address)
    refuse_plain_text(Settings(**PAIR), address)
    refuse_plain_text(Settings(metrics_address=address, health_address=Address(host=host, port=2)), None)
    if allowed:
        refuse_plain_text(Settings(), ANY, address)
    else:
        with pytest.raises(InvalidSettings, match="ARTSTORE_INSECURE_PUBLIC"):
            refuse_plain_text(Settings(), ANY, address)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("serve", "ARTSTORE_GRPC_ADDRESS"),
        ("serve", "ARTSTORE_GATEWAY_ADDRESS"),
        ("gateway", "ARTSTORE_GATEWAY_ADDRESS"),
    ],
)
def test_commands_refuse_plain_text_in_public(tmp_path: Path, command: str, variable: str) -> None:
    """The commands that serve refuse it before they bind, with the code of invalid settings."""
    public = {"ARTSTORE_ISSUER": "http://identity.test", variable: "0.0.0.0:0"}
    done = run(command, folder=tmp_path, **(ANY_PORT | public))
    assert done.returncode == 10, done.stderr
    assert done.stderr.count("\n") == 1
    assert "ARTSTORE_INSECURE_PUBLIC" in done.stderr
