"""The protos keep their style and their promises, and what is generated from them is fresh."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

import google.api.annotations_pb2
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "artstore/identity/v1"
BUF = Path(sys.executable).parent / "buf"
GOOGLEAPIS = Path(google.api.annotations_pb2.__file__).parents[1]


def buf(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs buf on a copy, with a cache folder of its own; it needs no network."""
    environment = {"HOME": str(tree), "PATH": "/usr/bin:/bin", "BUF_CACHE_DIR": str(tree / ".cache")}
    return subprocess.run([BUF, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what buf reads, to be edited."""
    shutil.copyfile(ROOT / "buf.yaml", tmp_path / "buf.yaml")
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    for name in ("api/annotations.proto", "api/field_behavior.proto", "api/http.proto", "rpc/status.proto"):
        vendored = tmp_path / "build/googleapis/google" / name
        vendored.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(GOOGLEAPIS / name, vendored)
    return tmp_path


def edit(tree: Path, name: str, pattern: str, replacement: str) -> None:
    path = tree / "protos" / PACKAGE / name
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{name} has no {pattern}"
    path.write_text(text)


def breaking(tree: Path) -> subprocess.CompletedProcess[str]:
    return buf(tree, "breaking", "protos", "--against", "protos/released.binpb")


def test_style(tree: Path) -> None:
    """STANDARD holds, and every message, field, enum and method has a comment."""
    result = buf(tree, "lint", "protos")
    assert not result.returncode, result.stdout + result.stderr


def test_a_field_without_a_comment_is_refused(tree: Path) -> None:
    edit(tree, "token_service.proto", r"  // Key id:[^\n]*\n", "")
    result = buf(tree, "lint", "protos")
    assert result.returncode
    assert "kid" in result.stdout


def test_format(tree: Path) -> None:
    result = buf(tree, "format", "protos", "--diff", "--exit-code")
    assert not result.returncode, result.stdout + result.stderr


def test_nothing_released_is_broken(tree: Path) -> None:
    result = breaking(tree)
    assert not result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "complaint"),
    [
        ("token_service.proto", r"rpc RevokeToken\(", "rpc CancelToken(", 'RPC "RevokeToken"'),
        ("token_service.proto", r"string grant_type = 1;", "string grant_type = 99;", '"grant_type"'),
        ("token_service.proto", r"string scope = 6;", "bytes scope = 6;", '"scope"'),
        ("token_service.proto", r"string access_token = 1;", "string token_text = 1;", "access_token"),
        ("service_account_service.proto", r"ROLE_AUDITOR = (\d+);", r"ROLE_CHECKER = \1;", "ROLE_AUDITOR"),
    ],
    ids=["renamed method", "changed number", "changed type", "renamed field", "renamed enum value"],
)
def test_a_break_is_refused(tree: Path, name: str, pattern: str, replacement: str, complaint: str) -> None:
    """What would break a client already out there is caught, and named."""
    edit(tree, name, pattern, replacement)
    result = breaking(tree)
    assert result.returncode == 100, result.stdout + result.stderr
    assert complaint in result.stdout


def test_an_addition_is_not_a_break(tree: Path) -> None:
    edit(tree, "token_service.proto", r"(  repeated string audience = 7;\n)", r"\1  // New.\n  string added = 8;\n")
    assert not breaking(tree).returncode


@pytest.fixture
def generator() -> Path:
    """The Python of build/proto, where the generator's own pins are; made here if `make setup` has not."""
    python = ROOT / "build/proto/bin/python"
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build/proto.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            ["make", "--no-print-directory", f"PYTHON={sys.executable}", "build/proto/.installed"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    if made.returncode:
        pytest.fail(f"`make build/proto/.installed` could not install the generator: {made.stderr[-1000:]}")
    return python


def generated(folder: Path) -> dict[str, bytes]:
    """The generated files of a folder by name."""
    names = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi", "descriptors.binpb")
    return {path.name: path.read_bytes() for pattern in names for path in (folder / PACKAGE).glob(pattern)}


def test_stubs_are_fresh(generator: Path, tmp_path: Path) -> None:
    """What is committed in clients/python is, byte for byte, what `make proto` makes."""
    (tmp_path / PACKAGE).mkdir(parents=True)
    image = tmp_path / PACKAGE / "descriptors.binpb"
    command = [str(each) for each in (generator, ROOT / "protos/generate.py", "--out", tmp_path, "--image", image)]
    subprocess.run(command, check=True, capture_output=True)
    fresh, committed = generated(tmp_path), generated(ROOT / "clients/python")
    assert fresh.keys() == committed.keys(), "run `make proto`, and remove the stubs of protos that are gone"
    assert not [name for name, content in fresh.items() if committed[name] != content], "run `make proto`"


def test_descriptors_carry_the_comments() -> None:
    """The gateway makes its OpenAPI document from them, in an installed wheel too."""
    image = FileDescriptorSet.FromString((ROOT / "clients/python" / PACKAGE / "descriptors.binpb").read_bytes())
    files = {file.name: file for file in image.file}
    for path in (ROOT / "protos" / PACKAGE).glob("*.proto"):
        assert files[f"{PACKAGE}/{path.name}"].source_code_info.location
