"""`keys rekey` and `keys new-key`, called in this process on a database of the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from artstore_grpc.cli.main import main
from artstore_grpc.key_encryption import LocalKey
from artstore_grpc.settings import Settings
from artstore_grpc.vault import new_key
from tests.roots import opened_root

ISSUER = "https://identity.test"
OLD = new_key()

Cli = Callable[..., Result]


@pytest.fixture
def settings(store_url: str) -> Settings:
    """An installation with a root key."""
    made = Settings(database_url=store_url, issuer=ISSUER, key_encryption_key=OLD)
    asyncio.run(opened_root(made))
    return made


@pytest.fixture
def cli(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Calls a command with the installation's settings; fails where the exit code is another."""
    given = {"DATABASE_URL": settings.database_url, "ISSUER": ISSUER, "KEY_ENCRYPTION_KEY": OLD}
    for name, value in given.items():
        monkeypatch.setenv(f"ARTSTORE_{name}", value)

    def call(*arguments: str, code: int = 0, given: str = "") -> Result:
        result = CliRunner().invoke(main, arguments, input=given)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def new_file(tmp_path: Path) -> Path:
    path = tmp_path / "new.key"
    path.touch(mode=0o600)
    path.write_text(new_key() + "\n")
    return path


def test_a_rekey_from_a_file(cli: Cli, settings: Settings, new_file: Path) -> None:
    """It says from which key to which, never a key; a second call says that there was nothing to do."""
    new, before = new_file.read_text(), asyncio.run(opened_root(settings))
    said = cli("keys", "rekey", "--new-key-file", str(new_file)).output
    assert LocalKey(OLD).id in said
    assert LocalKey(new).id in said
    assert OLD not in said
    assert new.strip() not in said
    again = cli("keys", "rekey", "--new-key-file", str(new_file)).output
    assert "already" in again
    changed = Settings(database_url=settings.database_url, issuer=ISSUER, key_encryption_key=new)
    assert asyncio.run(opened_root(changed)) == before


def test_a_rekey_from_standard_input(cli: Cli) -> None:
    """`-` reads the key from standard input; --json is for programs."""
    new = new_key()
    said = json.loads(cli("keys", "rekey", "--new-key-file", "-", "--json", given=new + "\n").stdout)
    assert said == {"old_key": LocalKey(OLD).id, "new_key": LocalKey(new).id, "sealed_again": None}


def test_a_new_root_key_alone(cli: Cli, settings: Settings) -> None:
    """`--new-root --yes` without a new key keeps the key-encryption key, and says that the root key is another."""
    before = asyncio.run(opened_root(settings))
    said = cli("keys", "rekey", "--new-root", "--yes").output
    assert said == "It is a new one: 0 keys are sealed again.\n"
    assert asyncio.run(opened_root(settings)) != before


def test_a_key_that_others_may_read(cli: Cli, new_file: Path) -> None:
    """A key file that the group may read is refused."""
    new_file.chmod(0o640)
    assert "chmod 600" in cli("keys", "rekey", "--new-key-file", str(new_file), code=10).output


@pytest.mark.parametrize("text", ["", "nonsense", "\xff", "QUJD", "A" * 2000])
def test_what_is_no_key(cli: Cli, settings: Settings, text: str) -> None:
    """Anything but 32 bytes in base64 is refused, unrepeated, and nothing is changed."""
    said = cli("keys", "rekey", "--new-key-file", "-", code=10, given=text).output
    assert "32 bytes in base64" in said
    assert not text or text not in said
    assert asyncio.run(opened_root(settings))


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ((), 10, "new key must be given"),
        (("--new-key-file", "/nowhere/key"), 10, "can't be read"),
        (("--new-key-file", "x", "--new-kms", "unix:///x"), 2, "not both"),
        (("--new-kms", "/run/kms.sock"), 10, "unix:///"),
        (("--new-root",), 2, "--yes"),
    ],
)
def test_what_is_refused(cli: Cli, options: tuple[str, ...], code: int, named: str) -> None:
    """Too little, too much, or what isn't there: one sentence."""
    assert named in cli("keys", "rekey", *options, code=code).output


def test_a_wrong_present_key(cli: Cli, new_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another key in the settings it is refused, with the ids of both."""
    wrong = new_key()
    monkeypatch.setenv("ARTSTORE_KEY_ENCRYPTION_KEY", wrong)
    said = cli("keys", "rekey", "--new-key-file", str(new_file), code=10).output
    assert LocalKey(OLD).id in said
    assert LocalKey(wrong).id in said


def test_a_new_key_is_printed_or_written(tmp_path: Path) -> None:
    """32 random bytes in base64, on standard output or in a new file of mode 0600; never over another."""
    path = tmp_path / "key"
    printed = CliRunner().invoke(main, ["keys", "new-key"]).output
    assert CliRunner().invoke(main, ["keys", "new-key", "--file", str(path)]).exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.read_text()
    for text in (printed, written):
        assert len(base64.b64decode(text, validate=False)) == 32
    assert printed != written
    second = CliRunner().invoke(main, ["keys", "new-key", "--file", str(path)])
    assert second.exit_code == 10
    assert path.read_text() == written
    assert CliRunner().invoke(main, ["keys", "new-key", "--file", "/nowhere/key"]).exit_code == 10
