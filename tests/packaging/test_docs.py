"""What the documents and deployment files say is so: settings, targets, paths, routes, commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from artstore.identity.v1 import audit_service_pb2, key_service_pb2, service_account_service_pb2, token_service_pb2

from artstore_grpc.cli.environment import known_variables, settings
from artstore_grpc.cli.main import main
from artstore_grpc.cli.reference import markdown
from artstore_grpc.errors import OUTCOMES
from artstore_grpc.gateway.app import public_routes
from artstore_grpc.key_encryption import LocalKey
from artstore_grpc.policy import PACKAGE, POLICY
from artstore_grpc.records import EventKind

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "clients/README.md", "clients/python/README.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
DEPLOYMENT = ("Dockerfile", "docker-compose.yml", "docker-compose.dev.yml", ".dockerignore", "Makefile", ".ci/run")
FOR_TESTS = {"ARTSTORE_TEST_POSTGRES_URL", "ARTSTORE_TEST_REDIS_URL"}
MADE_LATER = {
    "build/bench",
    "build/sbom.json",
    "build/site-html",
    "secrets",
    "secrets/grafana_password",
    "var",
    "var/administrator.env",
    "build/googleapis",
    "gen",
    "namespace/name",
}
"""Paths that the documents mention and a fresh clone does not have; the last is a placeholder."""

NAMED_TEST = re.compile(r"`((?:clients/python/tests/|[a-z_]+/)?test_[a-z_]+\.py)(?:::(test_[a-z0-9_]+))?`")
"""A test in docs/security.md, which has a test of its own."""


def text(name: str) -> str:
    return (ROOT / name).read_text()


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Every command of the program by its words."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[prefix + name] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
    return found


@pytest.mark.parametrize("name", [*DOCUMENTS, *DEPLOYMENT])
def test_every_variable_exists(name: str) -> None:
    mentioned = set(re.findall(r"\bARTSTORE_[A-Z_]*[A-Z]\b", text(name)))
    assert mentioned <= {*known_variables(), *FOR_TESTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_exists(name: str) -> None:
    """Files in backticks that start with a folder or end like a file of ours, and what links point at."""
    shown = text(name)
    quoted = re.findall(r"`((?:[\w.-]+/)+[\w.*-]*|[\w-]+\.(?:toml|md|yml|py))`", shown)
    for path in quoted:
        if path.rstrip("/") in MADE_LATER or path.startswith((".venv/", "var/tutorial/")):
            continue
        if NAMED_TEST.fullmatch(f"`{path}`"):
            continue
        if re.match(rf"({re.escape(PACKAGE)}\.)?(TokenService|ServiceAccountService|KeyService|AuditService)/", path):
            method = f"{PACKAGE}.{path.removeprefix(PACKAGE + '.')}"
            assert method in POLICY or method.endswith("/*"), f"{name} mentions {path}"
            continue
        assert list(ROOT.glob(path.rstrip("/"))), f"{name} mentions {path}"
    for link in re.findall(r"\]\(([^)#]+)\)", shown):
        assert "://" in link or ((ROOT / name).parent / link).exists(), f"{name} links to {link}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", text("Makefile"), re.MULTILINE))
    mentioned = set(re.findall(r"`make ([a-z-]+)", text(name))) | set(re.findall(r"^make ([a-z-]+)", text(name), re.M))
    assert mentioned <= targets


def test_help_names_every_target() -> None:
    """`make` alone says what there is, from the targets' own comments."""
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", text("Makefile"), re.MULTILINE)
    assert phony
    assert [line.split()[1] for line in shown.splitlines()] == phony[1].split()


@pytest.mark.parametrize("name", [*DOCUMENTS, *DEPLOYMENT])
def test_every_command_exists(name: str) -> None:
    known = commands(main)
    for words in re.findall(r"artstore-grpc ((?:[a-z][a-z-]+ ?)+)", text(name)):
        assert any(" ".join(words.split()[:n]) in known for n in (1, 2)), f"{name}: artstore-grpc {words}"


def test_every_route_exists() -> None:
    """Each path in README.md's table of the API is served."""
    served = set(public_routes(None, None))  # type: ignore[arg-type]  # nothing is called
    for module in (token_service_pb2, service_account_service_pb2, key_service_pb2, audit_service_pb2):
        served |= set(re.findall(rb"/(?:oauth2|api)/[\w/-]+|/\.well-known/[\w.-]+", module.DESCRIPTOR.serialized_pb))
    paths = {each.decode() if isinstance(each, bytes) else each for each in served}
    table = re.search(r"\| gRPC \| REST \|.*?\n\n", text("README.md"), re.DOTALL)
    assert table
    for path in re.findall(r"`(?:GET |POST )?(/[\w./-]+)`", table[0]):
        assert path in paths, path


def test_the_error_table_is_that_of_the_code() -> None:
    """Each outcome's reason, gRPC code, HTTP status and RFC 6749 code, as errors.py has them."""
    table = re.search(r"\| outcome \| reason \|.*?\n\n", text("README.md"), re.DOTALL)
    assert table
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].strip().splitlines()[2:]]
    for kind, outcome in OUTCOMES.items():
        found = [row for row in rows if f"`{kind.default_reason}`" in row[1]]
        assert len(found) == 1, kind.default_reason
        _, reason, grpc_code, status, oauth = found[0]
        assert int(status) == outcome.http
        assert grpc_code == outcome.grpc or (grpc_code == "the same" and outcome.grpc in reason)
        assert oauth in ("", f"`{outcome.oauth}`")


def compose(name: str = "docker-compose.yml", **variables: str) -> dict[str, Any]:
    """A compose file as Compose itself reads it; no engine is needed."""
    docker_compose = Path(sys.executable).parent / "docker-compose"
    shown = subprocess.run(
        [docker_compose, "--file", ROOT / name, "config"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not shown.returncode, shown.stderr
    read: dict[str, Any] = yaml.safe_load(shown.stdout)
    return read


def test_compose_starts_in_order() -> None:
    """The schema is there before the service is, and a database before the schema."""
    services = compose()["services"]
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["identity"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["command"] == ["db", "upgrade", "--run-role", "artstore_run"]


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy/compose_secrets.py")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_compose_has_no_password(tmp_path: Path) -> None:
    """Whatever is secret comes from a file, and each file is one that `make secrets` makes."""
    assert not make_secrets(tmp_path).returncode
    read = compose()
    assert {Path(each["file"]).name for each in read["secrets"].values()} == {
        path.name for path in (tmp_path / "secrets").iterdir()
    }
    for service in read["services"].values():
        for name, value in service.get("environment", {}).items():
            assert name.endswith("_FILE") or not re.search("PASSWORD|SECRET|KEY|URL$", name), name
            assert not name.endswith("_FILE") or value.removeprefix("/run/secrets/") in read["secrets"]


def test_secrets_are_ours_alone_and_never_overwritten(tmp_path: Path) -> None:
    """A second call would lose the key-encryption key, and with it the database."""
    assert not make_secrets(tmp_path).returncode
    folder = tmp_path / "secrets"
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    second = make_secrets(tmp_path)
    assert second.returncode == 1
    assert "nothing was changed" in second.stderr
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_secrets_are_settings_that_the_service_takes(tmp_path: Path) -> None:
    """The files that compose hands to the service parse, together with what else it sets."""
    assert not make_secrets(tmp_path).returncode
    given = compose()["services"]["identity"]["environment"]
    there = {name: value.replace("/run/secrets", str(tmp_path / "secrets")) for name, value in given.items()}
    made = settings(there)
    assert LocalKey(made.key_encryption_key)
    assert made.database_url.startswith("postgresql://artstore_run:")
    assert made.redis_url.startswith("redis://:")


def test_compose_waits_longer_than_the_service_drains() -> None:
    identity = compose()["services"]["identity"]
    assert identity["stop_grace_period"] == "30s"
    assert float(identity["environment"]["ARTSTORE_DRAIN_DELAY"]) <= 5
    assert "| `ARTSTORE_DRAIN_GRACE` | `20` |" in markdown()


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yml", "docker-compose.dev.yml"])
def test_health_is_asked_by_a_command_that_exists(name: str) -> None:
    """And without options that it doesn't have."""
    if name == "Dockerfile":
        found = re.search(r"^HEALTHCHECK .*CMD \[(.*)\]$", text(name), re.MULTILINE)
        assert found
        words = [word.strip(' "') for word in found[1].split(",")]
    else:
        words = compose(name)["services"]["identity"]["healthcheck"]["test"][1:]
    assert words == ["artstore-grpc", "health"]
    assert not [each for each in commands(main)["health"].params if each.required]


def test_the_image_does_not_run_as_root() -> None:
    """By number, so that Kubernetes can check it (`runAsNonRoot`)."""
    assert re.findall(r"^USER (.*)$", text("Dockerfile"), re.MULTILINE) == ["10001:10001"]


def test_the_build_context_holds_what_is_copied() -> None:
    """.dockerignore lets through what the wheels are built from, and nothing else."""
    allowed = [line.removeprefix("!") for line in text(".dockerignore").splitlines() if line.startswith("!")]
    assert all((ROOT / path).exists() for path in allowed)
    needed = {"pyproject.toml", "README.md", "LICENSE", "clients/python/README.md", "clients/python/pyproject.toml"}
    assert needed <= set(allowed)


def test_what_is_made_from_the_code_says_what_the_code_says() -> None:
    """Each page that `make docs` writes is what it would write: settings, commands, API, errors, indexes."""
    program = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    checked = subprocess.run(program, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_tests_that_the_review_names_exist() -> None:
    """Whatever docs/security.md gives as a proof is there to be run."""
    named = NAMED_TEST.findall(text("docs/security.md"))
    assert len(named) > 50
    for file, test in named:
        path = ROOT / file if file.startswith("clients/") else ROOT / "tests" / file
        assert path.is_file(), file
        assert not test or f"def {test}(" in path.read_text(), f"{file}::{test}"


def test_every_kind_of_row_is_described() -> None:
    """docs/ledger.md lists the kinds of rows that there are, each once, and no other."""
    rows = [line.split("|")[1] for line in (ROOT / "docs/ledger.md").read_text().splitlines() if line.startswith("| `")]
    kinds = [name for row in rows for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", row)]
    assert sorted(kinds) == sorted(EventKind)
