"""`accounts --public-key`, and commands that authenticate by a private key, against a real service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc.jwk import OctKey

from artstore_grpc.cli.exits import Exit
from tests.cli.conftest import Cli
from tests.signers import Signer, pair

ES256 = pair("ES256")


def name() -> str:
    return f"keyed-{uuid4().hex[:8]}"


def file(folder: Path, content: Any) -> str:
    path = folder / uuid4().hex
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def created(cli: Cli, *arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(cli("accounts", "create", "--role", "user", "--json", *arguments).stdout)
    return made


@pytest.mark.parametrize("form", ["jwk", "jwks", "pem"])
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_an_account_without_a_secret(cli: Cli, tmp_path: Path, form: str) -> None:
    """A public key in each form makes an account, whose private key then gets tokens by the command line."""
    public: Any = ES256.as_dict(private=False)
    content = {"jwk": public, "jwks": {"keys": [public]}, "pem": ES256.as_pem(private=False)}[form]
    made = created(cli, "--name", name(), "--without-secret", "--public-key", file(tmp_path, content))
    assert made["client_secret"] == ""
    assert [key["thumbprint"] for key in made["public_keys"]] == [ES256.thumbprint()]
    key = {"ARTSTORE_CLIENT_KEY": json.dumps(ES256.as_dict(private=True))}
    file_of = {"ARTSTORE_CLIENT_KEY_FILE": file(tmp_path, ES256.as_pem(private=True))}
    for variables in (key, file_of):
        said = cli("token", ARTSTORE_CLIENT_ID=made["client_id"], ARTSTORE_CLIENT_SECRET="", **variables)
        assert said.stdout.count(".") == 2


def test_get_shows_keys(cli: Cli, tmp_path: Path) -> None:
    """For people: each key by its thumbprint, with its algorithm and kid."""
    public = ES256.as_dict(private=False) | {"kid": "k1"}
    made = created(cli, "--name", name(), "--public-key", file(tmp_path, public))
    said = cli("accounts", "get", made["client_id"]).stdout
    assert f"key {ES256.thumbprint()}" in said
    assert "ES256, kid k1" in said


def test_update_replaces(cli: Cli, tmp_path: Path, made: dict[str, Any]) -> None:
    """The keys given take the place of those before; an empty one leaves none."""
    pairs = [pair("ES256", number) for number in (1, 2)]
    files = [argument for each in pairs for argument in ("--public-key", file(tmp_path, each.as_dict(private=False)))]
    changed = json.loads(cli("accounts", "update", made["id"], *files, "--json").stdout)
    assert [key["thumbprint"] for key in changed["public_keys"]] == [each.thumbprint() for each in pairs]
    assert not json.loads(cli("accounts", "update", made["id"], "--public-key", "", "--json").stdout)["public_keys"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        "{",
        "noise",
        {"keys": 1},
        Signer().key.as_dict(private=True),
        Signer().key.as_pem(private=True),
        OctKey.generate_key(256).as_dict(),
    ],
)
def test_files_without_a_public_key(cli: Cli, tmp_path: Path, content: Any) -> None:
    """A private key is refused before it is sent; so are noise and nothing. Nothing of the file is said."""
    arguments = ["accounts", "create", "--name", name(), "--role", "user", "--public-key", file(tmp_path, content)]
    said = cli(*arguments, code=Exit.USAGE).output
    assert "holds no public key" in said
    missing = cli(*arguments[:-1], str(tmp_path / "none"), code=Exit.USAGE).output
    assert "can't be read" in missing


def test_a_secret_and_a_key(cli: Cli) -> None:
    """Both given is a contradiction; a key that can't be read is refused without a word of it."""
    key = json.dumps(ES256.as_dict(private=True))
    assert "both given" in cli("token", code=Exit.INVALID, ARTSTORE_CLIENT_KEY=key).output
    said = cli("token", code=Exit.INVALID, ARTSTORE_CLIENT_SECRET="", ARTSTORE_CLIENT_KEY="canary").output
    assert "ARTSTORE_CLIENT_KEY can't be used" in said
    assert "canary" not in said


def test_rotate_and_revoke_tokens(cli: Cli, made: dict[str, Any]) -> None:
    """`--revoke-tokens` goes with an overlap of 0, and raises the epoch that tokens carry."""
    cli("accounts", "rotate-secret", made["id"], "--revoke-tokens", code=Exit.INVALID)
    rotated = json.loads(
        cli("accounts", "rotate-secret", made["id"], "--overlap", "0", "--revoke-tokens", "--json").stdout
    )
    account = {"ARTSTORE_CLIENT_ID": made["client_id"], "ARTSTORE_CLIENT_SECRET": rotated["client_secret"]}
    assert json.loads(cli("token", "--decode", **account).stdout)["claims"]["epoch"] == 1
