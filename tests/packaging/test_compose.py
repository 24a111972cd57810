"""The compose files, as Compose itself reads them; no engine is needed, and none is here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc.cli.environment import known_variables, settings
from tests.packaging.test_docs import compose, text

FILES = ("docker-compose.yml", "docker-compose.dev.yml")
ONCE = {"migrate"}
REPLICAS = ("identity", "identity-2")


def published(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.get("host_ip", ""), each["published"]) for each in service.get("ports", [])]


def names(services: dict[str, Any], service: str) -> set[str]:
    """What a service's container answers to in the network."""
    default = services[service]["networks"]["default"] or {}
    return {service, *default.get("aliases", [])}


def test_two_replicas_are_alike() -> None:
    """But for their names, their ports on the host and the order of their starts; both answer to the name that clients
    call."""
    services = compose()["services"]
    for each in REPLICAS:
        assert "identity" in names(services, each)
    first, second = (dict(services[name]) for name in REPLICAS)
    for replica in (first, second):
        del replica["ports"], replica["depends_on"], replica["networks"]
        del replica["environment"]["ARTSTORE_ADVERTISE_ADDRESS"]
    assert first == second


@pytest.mark.parametrize("replica", REPLICAS)
def test_a_replica_registers_under_a_name_of_its_own(replica: str) -> None:
    """Clients that find it in Redis reach this one and no other, at the port that the image listens on."""
    services = compose()["services"]
    host, _, port = services[replica]["environment"]["ARTSTORE_ADVERTISE_ADDRESS"].rpartition(":")
    assert [each for each in services if host in names(services, each)] == [replica]
    assert f"ARTSTORE_GRPC_ADDRESS=0.0.0.0:{port} " in text("Dockerfile")


def test_one_replica_after_the_other() -> None:
    """The second is replaced once the first is healthy again, and each drains before it closes."""
    services = compose()["services"]
    assert services["identity-2"]["depends_on"]["identity"]["condition"] == "service_healthy"
    assert float(services["identity"]["environment"]["ARTSTORE_DRAIN_DELAY"]) > 0


@pytest.mark.parametrize("name", FILES)
def test_ports_are_this_hosts_own(name: str) -> None:
    """Published on the loopback, each once: there is no TLS in front of them."""
    ports = [each for service in compose(name)["services"].values() for each in published(service)]
    assert ports
    assert {host for host, _ in ports} == {"127.0.0.1"}
    assert len(ports) == len(set(ports))


@pytest.mark.parametrize("name", FILES)
def test_the_ports_are_the_images(name: str) -> None:
    """What is published of the service is what the image listens on."""
    exposed = re.search(r"^EXPOSE (.*)$", text("Dockerfile"), re.MULTILINE)
    assert exposed
    for service in compose(name)["services"].values():
        if service["image"].startswith("artstore-grpc") and service.get("ports"):
            assert {str(each["target"]) for each in service["ports"]} == set(exposed[1].split())


@pytest.mark.parametrize("name", FILES)
def test_logs_end(name: str) -> None:
    """Docker keeps so much of each and no more."""
    for service in compose(name)["services"].values():
        assert {"max-size", "max-file"} <= set(service["logging"]["options"])


@pytest.mark.parametrize("name", FILES)
def test_everything_that_runs_on_is_watched(name: str) -> None:
    for service, each in compose(name)["services"].items():
        assert each["healthcheck"].get("disable", False) is (service in ONCE)


def test_images_are_pinned() -> None:
    """By a version, ours by this one."""
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    for service in compose()["services"].values():
        image, _, tag = service["image"].partition(":")
        assert re.match(r"v?\d", tag)
        assert image != "artstore-grpc" or tag == version


def test_the_network_may_be_somebody_elses() -> None:
    """Two variables name it and say so; otherwise it is made."""
    own = compose()["networks"]["default"]
    assert (own["name"], own.get("external", False)) == ("artstore-identity", False)
    theirs = compose(IDENTITY_NETWORK="others", IDENTITY_NETWORK_EXTERNAL="true")["networks"]["default"]
    assert (theirs["name"], theirs["external"]) == ("others", True)


def test_grafana_lets_nobody_in() -> None:
    """Without its password, which is in a file; nobody signs up."""
    given = compose()["services"]["grafana"]["environment"]
    assert given["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert {given["GF_AUTH_ANONYMOUS_ENABLED"], given["GF_USERS_ALLOW_SIGN_UP"]} == {"false"}


@pytest.mark.parametrize("name", FILES)
def test_what_is_mounted_is_there(name: str) -> None:
    """Compose would make an empty folder of a path that isn't."""
    for service in compose(name)["services"].values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]
                assert volume["read_only"]


def test_the_metrics_that_prometheus_reads() -> None:
    """Each replica by a name of its own, which it has, at the port that the image listens on."""
    targets = set(re.findall(r'"([\w-]+):9464"', text("deploy/prometheus/prometheus.yml")))
    networks = [each.get("networks") or {} for each in compose("docker-compose.yml")["services"].values()]
    names = {alias for each in networks for network in each.values() for alias in (network or {}).get("aliases", [])}
    assert len(targets) == 2
    assert targets == {name for name in names if re.fullmatch(r"identity-\d+", name)}
    assert "ARTSTORE_METRICS_ADDRESS=0.0.0.0:9464" in text("Dockerfile")


def test_development_runs_the_source_tree() -> None:
    """The folders that shadow what the image has installed are the source's, and the settings parse."""
    service = compose("docker-compose.dev.yml")["services"]["identity"]
    mounted = {each["target"]: each["source"] for each in service["volumes"] if each["type"] == "bind"}
    folders = service["environment"]["PYTHONPATH"].split(":")
    for folder, package in zip(folders, ("artstore_grpc", "artstore"), strict=True):
        assert mounted[f"{folder}/{package}"].endswith(f"/{package}")
    made = settings({name: value for name, value in service["environment"].items() if name in known_variables()})
    assert made.embedded
    assert made.log_level == "debug"
