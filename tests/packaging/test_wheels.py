"""The wheels are complete: built, installed without the source tree, and run."""

from __future__ import annotations

import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.wheels import ROOT, built, environment, run

VERSION = "0.2.0"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, by distribution."""
    return built(tmp_path_factory.mktemp("wheels"), ROOT / "clients/python", ROOT)


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with both wheels; what they depend on is lent by the environment of the tests."""
    return environment(tmp_path_factory.mktemp("both"), *wheels.values())


@pytest.fixture(scope="module")
def client_alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `installed`, with the client only."""
    return environment(tmp_path_factory.mktemp("client"), wheels["artstore_identity"])


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_server_wheel_is_complete(wheels: dict[str, Path]) -> None:
    """Every module, the migrations and the licence are in it, and nothing beside the package is."""
    held = names(wheels["artstore_grpc"])
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "artstore_grpc").rglob("*.py")}
    assert sources <= held
    assert [name for name in held if name.startswith("artstore_grpc/store/migrations/versions/")]
    assert [name for name in held if name.endswith("/licenses/LICENSE")]
    assert {name.split("/")[0] for name in held} == {"artstore_grpc", f"artstore_grpc-{VERSION}.dist-info"}


def test_the_client_wheel_is_complete(wheels: dict[str, Path]) -> None:
    """Stubs, types and descriptors are in it; `artstore` stays a namespace that others may share."""
    held = names(wheels["artstore_identity"])
    source = ROOT / "clients/python"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "artstore").rglob("*")
        if path.suffix in {".py", ".pyi", ".binpb", ".typed"}
    }
    assert wanted <= held
    assert {"artstore/identity/py.typed", "artstore/identity/v1/descriptors.binpb"} <= held
    assert "artstore/__init__.py" not in held
    assert {name.split("/")[0] for name in held} == {"artstore", f"artstore_identity-{VERSION}.dist-info"}


def test_the_versions_agree(wheels: dict[str, Path]) -> None:
    """One number for server, client, image, compose file and changelog."""
    assert {metadata(wheel)["Version"] for wheel in wheels.values()} == {VERSION}
    assert f"\nARG VERSION={VERSION}\n" in (ROOT / "Dockerfile").read_text()
    assert f"image: artstore-grpc:{VERSION}" in (ROOT / "docker-compose.yml").read_text()
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"artstore-identity=={VERSION}" in metadata(wheels["artstore_grpc"]).get_all("Requires-Dist", [])


def test_the_client_does_not_depend_on_the_server(wheels: dict[str, Path]) -> None:
    wanted = {Requirement(each).name for each in metadata(wheels["artstore_identity"]).get_all("Requires-Dist", [])}
    assert "artstore-grpc" not in wanted


def test_the_command_runs(installed: Path, tmp_path: Path) -> None:
    command = installed.parent / "artstore-grpc"
    assert VERSION in run(command, "--version", cwd=tmp_path)
    assert "serve" in run(command, "--help", cwd=tmp_path)


def test_the_migrations_run(installed: Path, tmp_path: Path) -> None:
    """They are found in the installed package, and need no file of the source tree."""
    run(installed.parent / "artstore-grpc", "db", "upgrade", cwd=tmp_path, ARTSTORE_DATA_DIR=str(tmp_path / "data"))
    assert (tmp_path / "data/identity.db").stat().st_size


def test_the_wheels_are_what_runs(installed: Path, tmp_path: Path) -> None:
    """None of the above came from the source tree."""
    script = "import artstore_grpc, artstore.identity.v1 as v1; print(artstore_grpc.__file__, *v1.__path__)"
    assert str(ROOT) not in run(installed, "-c", script, cwd=tmp_path)


def test_the_client_runs_alone(client_alone: Path, tmp_path: Path) -> None:
    """Its stubs, its descriptors and all that it exports are there without the server."""
    script = """
import importlib.resources, importlib.util, artstore.identity
from artstore.identity.v1 import service_account_service_pb2_grpc, token_service_pb2_grpc
assert importlib.resources.files("artstore.identity.v1").joinpath("descriptors.binpb").read_bytes()
assert all(hasattr(artstore.identity, name) for name in artstore.identity.__all__)
print(importlib.util.find_spec("artstore_grpc"))
"""
    assert run(client_alone, "-c", script, cwd=tmp_path).strip() == "None"


def test_the_fake_authority_runs_alone(client_alone: Path, tmp_path: Path) -> None:
    """`artstore.identity.testing` is in the client's wheel, and runs where nothing is but what the client depends on:
    the others that are lent here can't be imported."""
    script = """
import sys

class Refusing:
    allowed = {"artstore", "google", "grpc", "joserfc", "cryptography", "_cffi_backend", "cffi", "typing_extensions"}
    allowed |= sys.stdlib_module_names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refusing())
from artstore.identity import get_token
from artstore.identity.testing import FakeAuthority
with FakeAuthority(http=True) as authority:
    account = authority.account()
    print(get_token(authority.target, account.client_id, account.client_secret).count("."))
print(sorted({"bcrypt", "artstore_grpc", "pytest", "sqlalchemy"} & set(sys.modules)))
"""
    assert run(client_alone, "-c", script, cwd=tmp_path).split("\n") == ["2", "[]", ""]
