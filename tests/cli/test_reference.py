"""The reference of the settings is made from settings.py, and nothing is missing in it."""

from __future__ import annotations

from dataclasses import fields

from click.testing import CliRunner

from artstore_grpc.cli.environment import settings
from artstore_grpc.cli.main import main
from artstore_grpc.cli.reference import markdown, settings_table
from artstore_grpc.settings import Settings


def test_every_setting_has_a_row() -> None:
    """Each field is there, in order, with a text on one line."""
    rows = settings_table()
    assert [row.name for row in rows] == [f"ARTSTORE_{field.name.upper()}" for field in fields(Settings)]
    assert all(row.text and "\n" not in row.text for row in rows)


def test_defaults_can_be_written() -> None:
    """A default as shown, put into the environment, gives the default."""
    written = {row.name: row.default for row in settings_table()}
    assert settings(written) == Settings()
    assert written["ARTSTORE_GRPC_ADDRESS"] == "127.0.0.1:50051"
    assert written["ARTSTORE_HEALTH_ADDRESS"] == "off"
    assert written["ARTSTORE_TOKEN_LIFETIME"] == "1800"
    assert written["ARTSTORE_ENVIRONMENT"] == "dev"


def test_secrets_have_no_default_and_take_a_file() -> None:
    """Secrets are marked, and none has a default."""
    secrets = [row for row in settings_table() if row.secret]
    assert {row.name for row in secrets} == {
        "ARTSTORE_DATABASE_URL",
        "ARTSTORE_REDIS_URL",
        "ARTSTORE_KEY_ENCRYPTION_KEY",
    }
    assert not any(row.default for row in secrets)


def test_markdown() -> None:
    """The table has a line for each setting, and as many cells in each."""
    lines = markdown().splitlines()
    assert len(lines) == 2 + len(fields(Settings))
    assert all(line.replace("\\|", "").count("|") == 4 for line in lines)
    assert any("`ARTSTORE_REDIS_URL`, `ARTSTORE_REDIS_URL_FILE`" in line for line in lines)


def test_serve_help_lists_every_setting() -> None:
    """`serve --help` needs no other page."""
    said = CliRunner().invoke(main, ["serve", "--help"], terminal_width=200).output
    for row in settings_table():
        assert row.name in said
