"""docs/settings.md, from the docstrings of settings.py: every variable, its default, its unit and bounds."""

from __future__ import annotations

from pathlib import Path

from markdown import BANNER, code, table, text

from artstore_grpc.cli.main import CLIENT_VARIABLES
from artstore_grpc.cli.reference import markdown

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings.md"


def page() -> str:
    return "\n".join(
        [
            BANNER,
            "# Settings",
            "All from the environment; each secret also from a file that the `_FILE` variable names. An empty variable"
            " counts as not given. Settings that contradict each other refuse to start, in one sentence; a variable"
            " that looks like one of these and is none is told on standard error. `artstore-grpc serve --help` shows"
            " the same.",
            "",
            "## The service",
            markdown(),
            "",
            "## Commands that are its clients",
            *table(("variable", "what it decides"), [(code(name), text(said)) for name, said in CLIENT_VARIABLES]),
            "",
            "In place of the secret, a private key (JWK or PEM): `ARTSTORE_CLIENT_KEY` or `ARTSTORE_CLIENT_KEY_FILE`.",
            "",
        ]
    )
