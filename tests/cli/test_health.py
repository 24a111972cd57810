"""`health` without a target: it finds the service of its own environment, as a container's health check must."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from artstore_grpc.cli.own_service import own_service, reachable
from artstore_grpc.cli.parsing import address
from artstore_grpc.settings import InvalidSettings
from tests.cli.processes import Running, embedded, run
from tests.transport.machines import Files, put


def settings_of(service: Running, **variables: str) -> dict[str, str]:
    """The service's environment as its health check has it: with the port that the system has chosen by now."""
    return {"ARTSTORE_GRPC_ADDRESS": service.found(r'"grpc":"([^"]+)"')} | variables


@pytest.mark.slow
@pytest.mark.parametrize("names", [("identity.example",), ("*.identity.example",), ("10.1.2.3",)])
def test_it_reaches_its_own_service_by_tls(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Whatever names the certificate is for, and though nobody gives a CA; 8 once the service has stopped."""
    files = Files(tmp_path)
    made = files.ca.issue_cert(*names)
    put(files.key, made.private_key_pem.bytes())
    put(files.certificate, b"".join(each.bytes() for each in made.cert_chain_pems))
    with embedded(tmp_path, **files.variables) as service:
        given = settings_of(service, **files.variables)
        assert run("health", folder=tmp_path, **given).stdout == "serving\n"
    stopped = run("health", folder=tmp_path, **given)
    assert (stopped.returncode, stopped.stdout) == (8, "")
    assert "can't be reached" in stopped.stderr


@pytest.mark.slow
def test_a_certificate_that_the_service_has_refused_does_not_kill_it(tmp_path: Path) -> None:
    """The files hold somebody else's certificate by now; the service goes on with its own, and so its check passes."""
    files = Files(tmp_path)
    with embedded(tmp_path, **files.variables) as service:
        given = settings_of(service, **files.variables)
        put(files.certificate, trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].bytes())
        assert run("health", folder=tmp_path, **given).returncode == 0


@pytest.mark.slow
def test_it_asks_the_port_for_probes_first(tmp_path: Path) -> None:
    """Which speaks plain text beside a service with TLS; a client that names a CA is no health check."""
    files = Files(tmp_path)
    with embedded(tmp_path, ARTSTORE_HEALTH_ADDRESS="0.0.0.0:0", **files.variables) as service:
        given = settings_of(service, **files.variables)
        probes = service.found(r'"health":"(0.0.0.0:[^"]+)"')
        assert run("health", folder=tmp_path, ARTSTORE_HEALTH_ADDRESS=probes).returncode == 0
        assert run("health", "--ca-file", str(files.ca_file), folder=tmp_path, **given).returncode == 8
        assert run("health", folder=tmp_path, ARTSTORE_TARGET="127.0.0.1:1", **given).returncode == 8


@pytest.mark.parametrize(
    ("listens", "asked"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("identity:1", "identity:1"),
    ],
)
def test_every_interface_includes_the_loopback(listens: str, asked: str) -> None:
    assert str(reachable(address(listens))) == asked


def test_it_reads_no_secret() -> None:
    """Nor does it mind what the service would refuse: a health check isn't where that is told."""
    environment = {"ARTSTORE_DATABASE_URL_FILE": "/nowhere", "ARTSTORE_ISSUER": "nonsense"}
    assert own_service(1, environment).target == "127.0.0.1:50051"


@pytest.mark.parametrize("name", ["GRPC", "HEALTH"])
def test_a_port_that_only_the_service_knows(name: str) -> None:
    with pytest.raises(InvalidSettings, match=f"ARTSTORE_{name}_ADDRESS has port 0"):
        own_service(1, {f"ARTSTORE_{name}_ADDRESS": "127.0.0.1:0"})
